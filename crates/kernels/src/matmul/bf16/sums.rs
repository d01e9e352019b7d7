//! Registers of sums, each made for some instructions.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// A register of sums. Its functions need the machine to have it.
pub(super) trait Sums: Copy {
    const LANES: usize;
    /// As many pairs.
    type Pairs: Copy;
    unsafe fn zero() -> Self;
    unsafe fn load(from: *const u32) -> Self::Pairs;
    unsafe fn splat(pair: u32) -> Self::Pairs;
    /// The products of the pairs are added one by one, the upper numbers' first, as `vdpbf16ps` does.
    unsafe fn dot(self, a: Self::Pairs, b: Self::Pairs) -> Self;
    unsafe fn plus(self, c: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);
}

/// Sums that `vdpbf16ps` makes.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(super) struct Dot(__m512);

#[cfg(target_arch = "x86_64")]
impl Sums for Dot {
    const LANES: usize = 16;
    type Pairs = __m512bh;
    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: passed on to the caller, here and below.
        unsafe { Dot(_mm512_setzero_ps()) }
    }
    #[inline(always)]
    unsafe fn load(from: *const u32) -> __m512bh {
        // SAFETY: see above.
        unsafe { std::mem::transmute::<__m512i, __m512bh>(_mm512_loadu_si512(from.cast())) }
    }
    #[inline(always)]
    unsafe fn splat(pair: u32) -> __m512bh {
        // SAFETY: see above.
        unsafe { std::mem::transmute::<__m512i, __m512bh>(_mm512_set1_epi32(pair as i32)) }
    }
    #[inline(always)]
    unsafe fn dot(self, a: __m512bh, b: __m512bh) -> Self {
        // SAFETY: see above.
        unsafe { Dot(_mm512_dpbf16_ps(self.0, a, b)) }
    }
    #[inline(always)]
    unsafe fn plus(self, c: *const f32) -> Self {
        // SAFETY: see above.
        unsafe { Dot(_mm512_add_ps(self.0, _mm512_loadu_ps(c))) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: see above.
        unsafe { _mm512_storeu_ps(to, self.0) }
    }
}

#[cfg(target_arch = "x86_64")]
macro_rules! widened_sums {
    ($vector:ident, $lanes:literal, $zero:ident, $load:ident, $splat:ident, $shift:ident, $and:ident, $cast:ident,
     $fused:ident, $add:ident, $load_ps:ident, $store:ident) => {
        impl Sums for $vector {
            const LANES: usize = $lanes;
            /// The lower numbers and the upper ones.
            type Pairs = [$vector; 2];
            #[inline(always)]
            unsafe fn zero() -> Self {
                // SAFETY: passed on to the caller, here and below.
                unsafe { $zero() }
            }
            #[inline(always)]
            unsafe fn load(from: *const u32) -> [Self; 2] {
                // SAFETY: see above.
                unsafe {
                    let pairs = $load(from.cast());
                    [$cast($shift::<16>(pairs)), $cast($and(pairs, $splat(0xffff_0000u32 as i32)))]
                }
            }
            #[inline(always)]
            unsafe fn splat(pair: u32) -> [Self; 2] {
                // SAFETY: see above.
                unsafe {
                    let pairs = $splat(pair as i32);
                    [$cast($shift::<16>(pairs)), $cast($and(pairs, $splat(0xffff_0000u32 as i32)))]
                }
            }
            #[inline(always)]
            unsafe fn dot(self, a: [Self; 2], b: [Self; 2]) -> Self {
                // SAFETY: see above.
                unsafe { $fused(a[0], b[0], $fused(a[1], b[1], self)) }
            }
            #[inline(always)]
            unsafe fn plus(self, c: *const f32) -> Self {
                // SAFETY: see above.
                unsafe { $add(self, $load_ps(c)) }
            }
            #[inline(always)]
            unsafe fn store(self, to: *mut f32) {
                // SAFETY: see above.
                unsafe { $store(to, self) }
            }
        }
    };
}
#[cfg(target_arch = "x86_64")]
widened_sums!(
    __m256,
    8,
    _mm256_setzero_ps,
    _mm256_loadu_si256,
    _mm256_set1_epi32,
    _mm256_slli_epi32,
    _mm256_and_si256,
    _mm256_castsi256_ps,
    _mm256_fmadd_ps,
    _mm256_add_ps,
    _mm256_loadu_ps,
    _mm256_storeu_ps
);
#[cfg(target_arch = "x86_64")]
widened_sums!(
    __m512,
    16,
    _mm512_setzero_ps,
    _mm512_loadu_si512,
    _mm512_set1_epi32,
    _mm512_slli_epi32,
    _mm512_and_si512,
    _mm512_castsi512_ps,
    _mm512_fmadd_ps,
    _mm512_add_ps,
    _mm512_loadu_ps,
    _mm512_storeu_ps
);

impl Sums for [f32; 4] {
    const LANES: usize = 4;
    type Pairs = [u32; 4];
    #[inline(always)]
    unsafe fn zero() -> Self {
        [0.0; 4]
    }
    #[inline(always)]
    unsafe fn load(from: *const u32) -> [u32; 4] {
        // SAFETY: passed on to the caller, here and below.
        unsafe { from.cast::<[u32; 4]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn splat(pair: u32) -> [u32; 4] {
        [pair; 4]
    }
    #[inline(always)]
    unsafe fn dot(self, a: [u32; 4], b: [u32; 4]) -> Self {
        let halves = |pair: u32| [f32::from_bits(pair << 16), f32::from_bits(pair & 0xffff_0000)];
        std::array::from_fn(|i| {
            let (a, b) = (halves(a[i]), halves(b[i]));
            a[0].mul_add(b[0], a[1].mul_add(b[1], self[i]))
        })
    }
    #[inline(always)]
    unsafe fn plus(self, c: *const f32) -> Self {
        // SAFETY: see above.
        unsafe { std::array::from_fn(|i| self[i] + *c.add(i)) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: see above.
        unsafe { to.cast::<[f32; 4]>().write_unaligned(self) }
    }
}
