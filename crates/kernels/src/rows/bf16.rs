//! [`product`](super::product) with operands rounded to bfloat16 and sums in `f32`: what is read of `W` is all that the
//! time of few rows goes to.
//!
//! Rows of `x` are rounded first. Each result is a sum of 16 chains, of which chain `l` takes the pairs `16 i + l` of the two
//! rows in their order, the second number of a pair first; chains are added in halves. So its bits depend on its row of
//! `x` and its row of `W` alone, and are the same with all instructions, as for [`matmul`](crate::matmul).

use super::Shape;
use crate::matmul::{SharedMut, Write};
use crate::simd::Instructions;
use crate::weights::{Numbers, round};
use rayon::prelude::*;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;
use std::cell::Cell;

/// Numbers that all chains take together.
const STEP: usize = 32;
/// Chains of a result.
const CHAINS: usize = 16;
/// Outputs, and at most rows, whose sums are made together.
const BLOCK: usize = 4;
/// Numbers of `W` that a task reads, about.
const TASK: usize = 1 << 16;
/// Multiplications below which it does not pay to share them between threads.
const SHARED_MIN: usize = 1 << 18;

thread_local! {
    /// The rounded rows of the last product, to be written over. Taken while in use, since a waiting thread may be given
    /// another product.
    static ROWS: Cell<Vec<u16>> = const { Cell::new(Vec::new()) };
}

/// `y [N, out] (+)= x [N, in] W^T` with `w` `[out, in]`.
///
/// # Panics
/// When the shapes do not fit.
pub(crate) fn product(shape: Shape, x: &[f32], w: Numbers, y: &mut [f32], write: Write) {
    product_with(shape, x, w, y, write, Instructions::current());
}

fn product_with(
    shape: Shape,
    x: &[f32],
    w: Numbers,
    y: &mut [f32],
    write: Write,
    instructions: Instructions,
) {
    let Shape { rows, input, output, input_stride, output_stride } = shape;
    if rows == 0 || output == 0 {
        return;
    }
    assert!(input <= input_stride && (rows - 1) * input_stride + input <= x.len(), "x is [N, in]");
    assert!(output <= output_stride && (rows - 1) * output_stride + output <= y.len(), "y is [N, out]");
    assert_eq!(w.len(), output * input, "W is [out, in]");
    let mut rounded = ROWS.take();
    let stride = input.next_multiple_of(STEP);
    rounded.clear();
    rounded.resize(rows * stride, 0);
    for (row, to) in rounded.chunks_mut(stride.max(1)).enumerate() {
        for (to, from) in to.iter_mut().zip(&x[row * input_stride..][..input]) {
            *to = round(*from) as u16;
        }
    }
    let out = SharedMut(y.as_mut_ptr());
    let task = |first: usize, outputs: usize| {
        let panel = Panel { shape, x: &rounded, stride, w, y: out, write };
        // SAFETY: the machine has the instructions; these columns of `y` are this task's alone, and lie within it, as was
        // checked above.
        unsafe { panel.make(first, outputs, instructions) };
    };
    if rows * input * output < SHARED_MIN {
        task(0, output);
    } else {
        let outputs = (TASK / input).next_multiple_of(BLOCK);
        (0..output.div_ceil(outputs)).into_par_iter().for_each(|index| {
            task(index * outputs, outputs.min(output - index * outputs));
        });
    }
    ROWS.set(rounded);
}

/// The operands and where results go.
pub(crate) struct Panel<'a> {
    shape: Shape,
    /// `[N, stride]`, behind `in` zero.
    x: &'a [u16],
    stride: usize,
    w: Numbers<'a>,
    y: SharedMut,
    write: Write,
}

impl Panel<'_> {
    /// Outputs from `first` on, of all rows.
    ///
    /// # Safety
    /// The machine has the instructions, and nobody else touches these columns of `y`.
    unsafe fn make(&self, first: usize, outputs: usize, instructions: Instructions) {
        #[cfg(target_arch = "x86_64")]
        if instructions == Instructions::Avx512Bf16 {
            // SAFETY: passed on to the caller, here and below.
            return unsafe { self.make_avx512_bf16(first, outputs) };
        }
        let _ = instructions;
        for output in first..first + outputs {
            for row in 0..self.shape.rows {
                let sum = plain(self, row, output);
                // SAFETY: see above.
                unsafe { self.store(row, output, sum) };
            }
        }
    }

    /// # Safety
    /// It lies in `y`.
    #[inline(always)]
    unsafe fn store(&self, row: usize, output: usize, sum: f32) {
        // SAFETY: passed on to the caller.
        unsafe {
            let y = self.y.at(row * self.shape.output_stride + output);
            *y = if self.write == Write::Add { *y + sum } else { sum };
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    unsafe fn make_avx512_bf16(&self, first: usize, outputs: usize) {
        let end = first + outputs;
        for output in (first..end).step_by(BLOCK) {
            let count = BLOCK.min(end - output);
            let mut row = 0;
            // SAFETY: passed on to the caller; rows and outputs stay below their numbers.
            unsafe {
                while row + 4 <= self.shape.rows {
                    self.block::<4>(row, output, count);
                    row += 4;
                }
                match self.shape.rows - row {
                    3 => self.block::<3>(row, output, count),
                    2 => self.block::<2>(row, output, count),
                    1 => self.block::<1>(row, output, count),
                    _ => {}
                }
            }
        }
    }

    /// `R` rows and `count` outputs, at most [`BLOCK`].
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    unsafe fn block<const R: usize>(&self, row: usize, output: usize, count: usize) {
        let input = self.shape.input;
        let x = self.x[row * self.stride..].as_ptr();
        // Outputs that are not wanted repeat the last that is.
        let of = |o: usize| (output + o.min(count - 1)) * input;
        let mut sums = [[_mm512_setzero_ps(); R]; BLOCK];
        // SAFETY: passed on to the caller: rows of `x` are there with what is behind them, and what is read of `W`
        // lies in it: the masked lanes of its last step do not.
        unsafe {
            match self.w {
                Numbers::Bf16(w) => {
                    let w: [*const u16; BLOCK] = std::array::from_fn(|o| w[of(o)..].as_ptr());
                    let whole = input / STEP * STEP;
                    let mask = (1u32 << (input - whole)) - 1;
                    if row == 0 {
                        // One after the other: memory is fastest where it is read in order. Further rows find it in cache.
                        for (sums, w) in sums.iter_mut().zip(w) {
                            for at in (0..whole).step_by(STEP) {
                                let loaded = _mm512_loadu_si512(w.add(at).cast());
                                step(std::array::from_mut(sums), [loaded], x.add(at), self.stride);
                            }
                            if whole < input {
                                let loaded = _mm512_maskz_loadu_epi16(mask, w.add(whole).cast());
                                step(std::array::from_mut(sums), [loaded], x.add(whole), self.stride);
                            }
                        }
                    } else {
                        for at in (0..whole).step_by(STEP) {
                            let loaded = w.map(|w| _mm512_loadu_si512(w.add(at).cast()));
                            step(&mut sums, loaded, x.add(at), self.stride);
                        }
                        if whole < input {
                            let loaded = w.map(|w| _mm512_maskz_loadu_epi16(mask, w.add(whole).cast()));
                            step(&mut sums, loaded, x.add(whole), self.stride);
                        }
                    }
                }
                Numbers::F32(w) => {
                    let w: [*const f32; BLOCK] = std::array::from_fn(|o| w[of(o)..].as_ptr());
                    for at in (0..input).step_by(STEP) {
                        let left = input - at;
                        let mask = |left: usize| if left >= 16 { 0xffff } else { (1u16 << left) - 1 };
                        let masks = [mask(left), mask(left.saturating_sub(16))];
                        let loaded = w.map(|w| {
                            let low = _mm512_maskz_loadu_ps(masks[0], w.wrapping_add(at));
                            let high = _mm512_maskz_loadu_ps(masks[1], w.wrapping_add(at + 16));
                            std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low))
                        });
                        step(&mut sums, loaded, x.add(at), self.stride);
                    }
                }
            }
            let zero = _mm512_setzero_ps();
            let chains = |i: usize| if i % 4 < R { sums[i / 4][i % 4] } else { zero };
            let mut all = [0.0; 16];
            _mm512_storeu_ps(all.as_mut_ptr(), added(std::array::from_fn(chains)));
            for (r, sums) in all.chunks(4).enumerate().take(R) {
                for (o, sum) in sums.iter().enumerate().take(count) {
                    self.store(row + r, output + o, *sum);
                }
            }
        }
    }
}

/// One step of the chains of `R` rows, `stride` apart, and `O` outputs.
///
/// # Safety
/// The machine has the instructions, and the rows of `x` have a whole step.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn step<const R: usize, const O: usize>(
    sums: &mut [[__m512; R]; O],
    w: [__m512i; O],
    x: *const u16,
    stride: usize,
) {
    // SAFETY: passed on to the caller.
    unsafe {
        for r in 0..R {
            let x = std::mem::transmute::<__m512i, __m512bh>(_mm512_loadu_si512(x.add(r * stride).cast()));
            for (sums, w) in sums.iter_mut().zip(w) {
                sums[r] = _mm512_dpbf16_ps(sums[r], std::mem::transmute::<__m512i, __m512bh>(w), x);
            }
        }
    }
}

/// The sums of the chains of 16 results, `4 o + r` of them: in a vector, that of row `r` and output `o` at `4 r + o`.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f")]
fn added(chains: [__m512; 16]) -> __m512 {
    // Eighths to begin with: chain l and l + 8.
    let eight: [__m512; 8] = std::array::from_fn(|i| {
        let (a, b) = (chains[2 * i], chains[2 * i + 1]);
        _mm512_add_ps(
            _mm512_shuffle_f32x4::<0b01_00_01_00>(a, b),
            _mm512_shuffle_f32x4::<0b11_10_11_10>(a, b),
        )
    });
    // A quarter of a vector each, the four results of an output.
    let four: [__m512; 4] = std::array::from_fn(|i| {
        let (a, b) = (eight[2 * i], eight[2 * i + 1]);
        _mm512_add_ps(
            _mm512_shuffle_f32x4::<0b10_00_10_00>(a, b),
            _mm512_shuffle_f32x4::<0b11_01_11_01>(a, b),
        )
    });
    let two: [__m512; 2] = std::array::from_fn(|i| {
        let [a, b] = [four[2 * i], four[2 * i + 1]].map(|x| _mm512_castps_pd(x));
        let (low, high) = (_mm512_unpacklo_pd(a, b), _mm512_unpackhi_pd(a, b));
        _mm512_add_ps(_mm512_castpd_ps(low), _mm512_castpd_ps(high))
    });
    let (even, odd) = (
        _mm512_shuffle_ps::<0b10_00_10_00>(two[0], two[1]),
        _mm512_shuffle_ps::<0b11_01_11_01>(two[0], two[1]),
    );
    _mm512_add_ps(even, odd)
}

crate::simd::simd_fn!(
    /// One result.
    plain(panel: &Panel, row: usize, output: usize) -> f32 {
        let input = panel.shape.input;
        let x = &panel.x[row * panel.stride..][..input];
        let mut chains = [0f32; CHAINS];
        let mut take = |chain: usize, at: usize, w: u32| {
            let (w, x) = (f32::from_bits(w << 16), f32::from_bits(u32::from(x[at]) << 16));
            chains[chain] = w.mul_add(x, chains[chain]);
        };
        for first in (0..input).step_by(STEP) {
            for second in [1, 0] {
                for chain in 0..CHAINS {
                    let at = first + 2 * chain + second;
                    if at < input {
                        take(chain, at, panel.w.rounded(output * input + at));
                    }
                }
            }
        }
        let mut count = CHAINS;
        while count > 1 {
            count /= 2;
            for chain in 0..count {
                chains[chain] += chains[chain + count];
            }
        }
        chains[0]
    }
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::round_to;

    fn noise(n: usize, step: f32) -> Vec<f32> {
        (0..n).map(|i| (i as f32 * step).sin()).collect()
    }

    #[test]
    fn every_row_is_the_same_alone_and_with_every_instruction_set() {
        for (rows, input, output) in
            [(1, 1, 1), (1, 70, 45), (3, 7, 33), (6, 96, 8), (11, 40, 70), (4, 128, 34)]
        {
            let shape = Shape { rows, input, output, input_stride: input + 2, output_stride: output + 3 };
            let (x, w) = (noise(rows * (input + 2), 0.7), noise(output * input, 0.3));
            let mut halves = vec![0; w.len()];
            round_to(&w, &mut halves);
            let old = noise(rows * (output + 3), 0.11);
            for write in [Write::Replace, Write::Add] {
                let mut expected = old.clone();
                product_with(shape, &x, Numbers::F32(&w), &mut expected, write, Instructions::Plain);
                for (n, (row, old)) in expected.chunks(output + 3).zip(old.chunks(output + 3)).enumerate() {
                    for o in 0..output {
                        let pairs = x[n * (input + 2)..][..input].iter().zip(&halves[o * input..][..input]);
                        let exact: f64 = pairs
                            .map(|(x, w)| {
                                let widened = |bits: u32| f64::from(f32::from_bits(bits << 16));
                                widened(round(*x)) * widened(u32::from(*w))
                            })
                            .sum();
                        let before = if write == Write::Add { f64::from(old[o]) } else { 0.0 };
                        assert!((f64::from(row[o]) - exact - before).abs() < 1e-4, "{} {exact}", row[o]);
                    }
                    assert_eq!(row[output..], old[output..], "what lies between rows is left alone");
                }
                for instructions in Instructions::all() {
                    for w in [Numbers::F32(&w), Numbers::Bf16(&halves)] {
                        let mut y = old.clone();
                        product_with(shape, &x, w, &mut y, write, instructions);
                        assert_eq!(y, expected, "{instructions:?}");
                        let mut alone = old.clone();
                        for row in 0..rows {
                            let (x, y) = (&x[row * (input + 2)..], &mut alone[row * (output + 3)..]);
                            product_with(Shape { rows: 1, ..shape }, x, w, y, write, instructions);
                        }
                        assert_eq!(alone, expected, "{instructions:?}");
                    }
                }
            }
        }
    }
}
