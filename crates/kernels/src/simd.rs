//! The vector instructions to use, and row operations, compiled three times (AVX-512, AVX2, plain).
//!
//! Sums run over 32 lanes that are added up in a fixed order, so they do not depend on the vector width.

use std::sync::OnceLock;

/// Vector instructions that the kernels are compiled for, from few to many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Instructions {
    /// What every processor of its kind has.
    Plain,
    /// AVX2 and fused multiply-add.
    Avx2,
    /// AVX-512 (F, BW, DQ, VL).
    Avx512,
    /// AVX-512 and its products of bfloat16.
    Avx512Bf16,
}

impl Instructions {
    /// The environment variable that chooses fewer than the machine has.
    pub const VARIABLE: &str = "REMIT_INSTRUCTIONS";

    const NAMES: [(&str, Instructions); 4] = [
        ("plain", Instructions::Plain),
        ("avx2", Instructions::Avx2),
        ("avx512", Instructions::Avx512),
        ("avx512-bf16", Instructions::Avx512Bf16),
    ];

    /// What [`Instructions::VARIABLE`] calls them.
    pub fn name(self) -> &'static str {
        Instructions::NAMES[self as usize].0
    }

    /// Those that this machine has, from few to many.
    pub fn all() -> impl Iterator<Item = Instructions> {
        Instructions::NAMES.into_iter().map(|(_, one)| one).filter(|one| one.are_here())
    }

    fn are_here(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = || is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            let avx512 = || {
                avx2()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
            };
            match self {
                Instructions::Plain => true,
                Instructions::Avx2 => avx2(),
                Instructions::Avx512 => avx512(),
                Instructions::Avx512Bf16 => avx512() && is_x86_feature_detected!("avx512bf16"),
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            self == Instructions::Plain
        }
    }

    /// The most that this machine has, or what [`Instructions::VARIABLE`] says.
    ///
    /// # Errors
    /// The variable names none, or some that the machine lacks; the message says which there are.
    pub fn choose() -> Result<Instructions, String> {
        let Ok(name) = std::env::var(Instructions::VARIABLE) else {
            return Ok(Instructions::all().last().expect("plain ones are everywhere"));
        };
        Instructions::all().find(|one| one.name() == name).ok_or_else(|| {
            let here: Vec<&str> = Instructions::all().map(Instructions::name).collect();
            format!("`{}` is `{name}`; this machine has {}", Instructions::VARIABLE, here.join(", "))
        })
    }

    /// [`Instructions::choose`], asked once.
    ///
    /// # Panics
    /// Where it fails; a program asks first.
    pub fn current() -> Instructions {
        static CURRENT: OnceLock<Instructions> = OnceLock::new();
        *CURRENT.get_or_init(|| Instructions::choose().unwrap_or_else(|message| panic!("{message}")))
    }
}

/// Defines a function whose body is compiled for each vector extension of x86-64; elsewhere once.
macro_rules! simd_fn {
    ($(#[$meta:meta])* $name:ident($($arg:ident : $type:ty),* $(,)?) $(-> $result:ty)? $body:block) => {
        $(#[$meta])*
        #[inline]
        #[allow(clippy::too_many_arguments, reason = "row operations take their rows one by one")]
        pub(crate) fn $name($($arg: $type),*) $(-> $result)? {
            #[inline(always)]
            #[allow(clippy::too_many_arguments, reason = "row operations take their rows one by one")]
            fn plain($($arg: $type),*) $(-> $result)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
                #[allow(clippy::too_many_arguments, reason = "row operations take their rows one by one")]
                fn v4($($arg: $type),*) $(-> $result)? { plain($($arg),*) }
                #[target_feature(enable = "avx2,fma")]
                #[allow(clippy::too_many_arguments, reason = "row operations take their rows one by one")]
                fn v3($($arg: $type),*) $(-> $result)? { plain($($arg),*) }
                match $crate::simd::Instructions::current() {
                    // SAFETY: the machine has what was chosen.
                    $crate::simd::Instructions::Avx512 | $crate::simd::Instructions::Avx512Bf16 => return unsafe { v4($($arg),*) },
                    // SAFETY: as above.
                    $crate::simd::Instructions::Avx2 => return unsafe { v3($($arg),*) },
                    $crate::simd::Instructions::Plain => {}
                }
            }
            plain($($arg),*)
        }
    };
}
pub(crate) use simd_fn;

/// Lanes of a sum: two AVX-512 registers, enough to hide the latency of an addition.
const LANES: usize = 32;

/// `exp(x)` to about 2 units in the last place: Cody-Waite reduction and a polynomial of degree six, without
/// branches so that it vectorises. Saturates at the ends of the `f32` range instead of overflowing.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // Written as comparisons because `clamp` would turn a NaN into a number on some vector units: NaN must survive.
    let x = if x < -87.3 { -87.3 } else { x };
    let x = if x > 88.0 { 88.0 } else { x };
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to the nearest integer in the low bits
    let t = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = t - ROUND;
    let r = n.mul_add(-0.693_359_4, x);
    let r = n.mul_add(2.121_944_4e-4, r);
    let mut p = 1.987_569_1e-4f32;
    p = p.mul_add(r, 1.398_199_9e-3);
    p = p.mul_add(r, 8.333_452e-3);
    p = p.mul_add(r, 4.166_579_6e-2);
    p = p.mul_add(r, 1.666_666_5e-1);
    p = p.mul_add(r, 5.0e-1);
    p = p.mul_add(r * r, r + 1.0);
    p * f32::from_bits((t.to_bits() << 23).wrapping_add(127 << 23))
}

simd_fn!(
    /// The largest entry; NaN entries are passed over here and show up in the sum of exponentials.
    max(x: &[f32]) -> f32 {
        let mut lanes = [f32::NEG_INFINITY; LANES];
        let mut chunks = x.chunks_exact(LANES);
        for chunk in &mut chunks {
            for i in 0..LANES {
                lanes[i] = if chunk[i] > lanes[i] { chunk[i] } else { lanes[i] };
            }
        }
        let mut result = f32::NEG_INFINITY;
        for value in lanes {
            result = result.max(value);
        }
        for value in chunks.remainder() {
            result = result.max(*value);
        }
        result
    }
);

simd_fn!(
    /// `x = exp(scale * x - shift)` in place; returns the sum.
    exp_in_place(x: &mut [f32], scale: f32, shift: f32) -> f32 {
        let mut lanes = [0f32; LANES];
        let mut chunks = x.chunks_exact_mut(LANES);
        for chunk in &mut chunks {
            for i in 0..LANES {
                let e = exp(chunk[i].mul_add(scale, -shift));
                chunk[i] = e;
                lanes[i] += e;
            }
        }
        let mut result: f32 = lanes.iter().sum();
        for value in chunks.into_remainder() {
            *value = exp(value.mul_add(scale, -shift));
            result += *value;
        }
        result
    }
);

simd_fn!(
    /// Sum of `exp(x - shift)`.
    sum_exp(x: &[f32], shift: f32) -> f32 {
        let mut lanes = [0f32; LANES];
        let mut chunks = x.chunks_exact(LANES);
        for chunk in &mut chunks {
            for i in 0..LANES {
                lanes[i] += exp(chunk[i] - shift);
            }
        }
        let mut result: f32 = lanes.iter().sum();
        for value in chunks.remainder() {
            result += exp(*value - shift);
        }
        result
    }
);

simd_fn!(
    /// Inner product.
    dot(a: &[f32], b: &[f32]) -> f32 {
        let b = &b[..a.len()];
        let mut lanes = [0f32; LANES];
        let whole = a.len() / LANES * LANES;
        for (x, y) in a[..whole].chunks_exact(LANES).zip(b[..whole].chunks_exact(LANES)) {
            for i in 0..LANES {
                lanes[i] = x[i].mul_add(y[i], lanes[i]);
            }
        }
        let mut result: f32 = lanes.iter().sum();
        for i in whole..a.len() {
            result += a[i] * b[i];
        }
        result
    }
);

simd_fn!(
    /// `x *= factor`.
    scale(x: &mut [f32], factor: f32) {
        for value in x {
            *value *= factor;
        }
    }
);

simd_fn!(
    /// `x += y`.
    add(x: &mut [f32], y: &[f32]) {
        for (a, b) in x.iter_mut().zip(y) {
            *a += *b;
        }
    }
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_close_over_the_whole_range() {
        for i in -8730..=8800 {
            let x = i as f32 / 100.0;
            let exact = (x as f64).exp();
            assert!(((exp(x) as f64 - exact) / exact).abs() < 4e-7, "exp({x})");
        }
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(-1e30) > 0.0 && exp(-1e30) < 1e-37);
        assert!(exp(f32::NAN).is_nan(), "a NaN must not be hidden");
    }

    #[test]
    fn sums_cover_the_remainder() {
        for n in [0, 1, 31, 32, 33, 100] {
            let x: Vec<f32> = (0..n).map(|i| (i as f32 * 0.7).sin()).collect();
            let y: Vec<f32> = (0..n).map(|i| (i as f32 * 0.3).cos()).collect();
            let exact: f64 = x.iter().zip(&y).map(|(a, b)| *a as f64 * *b as f64).sum();
            assert!((dot(&x, &y) as f64 - exact).abs() < 1e-5);
            let exact: f64 = x.iter().map(|a| (*a as f64 - 0.5).exp()).sum();
            assert!((sum_exp(&x, 0.5) as f64 - exact).abs() < 1e-4 * (1.0 + exact));
            let mut in_place = x.clone();
            let sum = exp_in_place(&mut in_place, 1.0, 0.5);
            assert!((sum as f64 - exact).abs() < 1e-4 * (1.0 + exact));
            assert_eq!(max(&x), x.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        }
    }
}
