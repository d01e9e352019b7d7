//! Rounds operands and lays them out in panels.

use crate::matmul::Matrix;
use crate::simd::Instructions;
#[cfg(target_arch = "x86_64")]
use crate::weights::Numbers;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// The rows of `x` in panels of `width`, `[panel, pair, width]`: pairs of neighbouring columns, zero where there is no row
/// or column.
///
/// # Safety
/// There is room at `out` for whole panels, and the machine has the instructions.
pub(super) unsafe fn pack(instructions: Instructions, x: Matrix, width: usize, out: *mut u32) {
    #[cfg(target_arch = "x86_64")]
    if instructions == Instructions::Avx512Bf16 && x.column_stride == 1 {
        // SAFETY: passed on to the caller, here and below; the constructors of `x` checked that its elements are there.
        return unsafe { rows_avx512_bf16(x, width, out) };
    }
    #[cfg(target_arch = "x86_64")]
    if let Numbers::F32(data) = x.data
        && instructions == Instructions::Avx512Bf16
        && x.row_stride == 1
    {
        // SAFETY: see above.
        return unsafe { columns_avx512_bf16(data, x, width, out) };
    }
    let _ = instructions;
    let at = |row: usize, column: usize| {
        if row < x.rows && column < x.columns {
            x.data.rounded(row * x.row_stride + column * x.column_stride)
        } else {
            0
        }
    };
    let pairs = x.columns.div_ceil(2);
    for panel in 0..x.rows.div_ceil(width) {
        for pair in 0..pairs {
            for lane in 0..width {
                let row = panel * width + lane;
                // SAFETY: see above.
                unsafe {
                    *out.add((panel * pairs + pair) * width + lane) =
                        at(row, 2 * pair) | (at(row, 2 * pair + 1) << 16);
                }
            }
        }
    }
}

/// As many lanes as `count` has, at most 16.
#[cfg(target_arch = "x86_64")]
fn lanes(count: usize) -> __mmask16 {
    if count >= 16 { 0xffff } else { (1 << count) - 1 }
}

/// [`pack`] of contiguous rows.
///
/// # Safety
/// As [`pack`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn rows_avx512_bf16(x: Matrix, width: usize, out: *mut u32) {
    let pairs = x.columns.div_ceil(2);
    for panel in 0..x.rows.div_ceil(width) {
        for lane in (0..width).step_by(16) {
            let first = panel * width + lane;
            let (kept, live) = (lanes(width - lane), x.rows.saturating_sub(first).min(width - lane).min(16));
            for pair in (0..pairs).step_by(16) {
                let columns = x.columns - 2 * pair;
                let mut rows = [_mm512_setzero_si512(); 16];
                for (row, to) in rows.iter_mut().enumerate().take(live) {
                    let at = (first + row) * x.row_stride + 2 * pair;
                    // SAFETY: masked lanes are not read; the others are elements of `x`.
                    *to = unsafe { load(x.data, at, columns) };
                }
                transpose(&mut rows);
                for (index, row) in rows.iter().enumerate().take(pairs - pair) {
                    // SAFETY: passed on to the caller; masked lanes are not written.
                    unsafe {
                        let to = out.add((panel * pairs + pair + index) * width + lane);
                        _mm512_mask_storeu_epi32(to.cast(), kept, *row);
                    }
                }
            }
        }
    }
}

/// [`pack`] of contiguous columns, which are read in whole, from panel to panel.
///
/// # Safety
/// As [`pack`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn columns_avx512_bf16(data: &[f32], x: Matrix, width: usize, out: *mut u32) {
    let pairs = x.columns.div_ceil(2);
    for pair in 0..pairs {
        let from = data.as_ptr().wrapping_add(2 * pair * x.column_stride);
        let has_second = 2 * pair + 1 < x.columns;
        for panel in 0..x.rows.div_ceil(width) {
            for lane in (0..width).step_by(16) {
                let first = panel * width + lane;
                let rows = lanes(x.rows.saturating_sub(first)) & lanes(width - lane);
                // SAFETY: masked lanes are neither read nor written; the others are elements of `x`, and of `out`.
                unsafe {
                    let low = _mm512_maskz_loadu_ps(rows, from.wrapping_add(first));
                    let there = if has_second { rows } else { 0 };
                    let high = _mm512_maskz_loadu_ps(there, from.wrapping_add(first + x.column_stride));
                    let [low, high] = [low, high].map(|half| {
                        let half = std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(half));
                        _mm512_cvtepu16_epi32(half)
                    });
                    let both = _mm512_or_si512(low, _mm512_slli_epi32::<16>(high));
                    let to = out.add((panel * pairs + pair) * width + lane);
                    _mm512_mask_storeu_epi32(to.cast(), lanes(width - lane), both);
                }
            }
        }
    }
}

/// Up to 32 neighbouring numbers, `count` of which are there, as 16 pairs.
///
/// # Safety
/// They are there, and the machine has the instructions.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn load(data: Numbers, at: usize, count: usize) -> __m512i {
    // SAFETY: passed on to the caller.
    unsafe {
        match data {
            Numbers::F32(data) => {
                let from = data.as_ptr().wrapping_add(at);
                let low = _mm512_maskz_loadu_ps(lanes(count), from);
                let high = _mm512_maskz_loadu_ps(lanes(count.saturating_sub(16)), from.wrapping_add(16));
                std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low))
            }
            Numbers::Bf16(data) => {
                let mask = if count >= 32 { u32::MAX } else { (1 << count) - 1 };
                _mm512_maskz_loadu_epi16(mask, data.as_ptr().wrapping_add(at).cast())
            }
        }
    }
}

/// Exchanges rows and columns of 16 by 16 words.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn transpose(x: &mut [__m512i; 16]) {
    let mut y = [_mm512_setzero_si512(); 16];
    for i in 0..8 {
        y[2 * i] = _mm512_unpacklo_epi32(x[2 * i], x[2 * i + 1]);
        y[2 * i + 1] = _mm512_unpackhi_epi32(x[2 * i], x[2 * i + 1]);
    }
    for i in 0..4 {
        for half in 0..2 {
            x[4 * i + 2 * half] = _mm512_unpacklo_epi64(y[4 * i + half], y[4 * i + half + 2]);
            x[4 * i + 2 * half + 1] = _mm512_unpackhi_epi64(y[4 * i + half], y[4 * i + half + 2]);
        }
    }
    // Now x[4 i + c] has in its quarter q the words of rows 4 i .. 4 i + 4 in column 4 q + c.
    for i in 0..2 {
        for c in 0..4 {
            let (upper, lower) = (x[8 * i + c], x[8 * i + 4 + c]);
            y[8 * i + c] = _mm512_shuffle_i32x4::<0b10_00_10_00>(upper, lower);
            y[8 * i + 4 + c] = _mm512_shuffle_i32x4::<0b11_01_11_01>(upper, lower);
        }
    }
    for c in 0..4 {
        x[c] = _mm512_shuffle_i32x4::<0b10_00_10_00>(y[c], y[8 + c]);
        x[8 + c] = _mm512_shuffle_i32x4::<0b11_01_11_01>(y[c], y[8 + c]);
        x[4 + c] = _mm512_shuffle_i32x4::<0b10_00_10_00>(y[4 + c], y[12 + c]);
        x[12 + c] = _mm512_shuffle_i32x4::<0b11_01_11_01>(y[4 + c], y[12 + c]);
    }
}
