//! The residual stream.

use crate::simd;
use rayon::prelude::*;

/// Elements a task.
const GRAIN: usize = 1 << 14;

/// `y += x`.
pub fn add(y: &mut [f32], x: &[f32]) {
    y.par_chunks_mut(GRAIN).zip(x.par_chunks(GRAIN)).for_each(|(y, x)| simd::add(y, x));
}

/// Columns `from` to `from + width` of `x [N, x_stride]` to columns `to` on of `y [N, y_stride]`.
pub fn copy_columns(
    x: &[f32],
    (x_stride, from): (usize, usize),
    y: &mut [f32],
    (y_stride, to): (usize, usize),
    width: usize,
) {
    y.par_chunks_mut(y_stride).zip(x.par_chunks(x_stride)).with_min_len(32).for_each(|(y, x)| {
        y[to..to + width].copy_from_slice(&x[from..from + width]);
    });
}
