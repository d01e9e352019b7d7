//! Parts of a softmax over one row, for sampling and for attention behind a cache.

use crate::simd;

/// The largest entry.
pub fn max(z: &[f32]) -> f32 {
    simd::max(z)
}

/// Sum of `exp(scale * z - shift)`; also each of them in `e`, which has room for them.
pub fn exponentials(z: &[f32], scale: f32, shift: f32, e: &mut [f32]) -> f32 {
    e.copy_from_slice(z);
    simd::exp_in_place(e, scale, shift)
}

/// Scores to probabilities, `softmax(scale * z)`, in place.
pub(crate) fn probabilities(z: &mut [f32], scale: f32) {
    let max = simd::max(z) * scale;
    let sum = simd::exp_in_place(z, scale, max);
    simd::scale(z, 1.0 / sum);
}
