//! RMSNorm (arXiv 1910.07467): `y = x / sqrt(mean(x^2) + epsilon) * gain`.

use crate::simd::{self, simd_fn};
use rayon::prelude::*;

/// Rows a task: also the grain of the gain's gradient, whose partial sums are added up in the order of the rows.
const ROWS: usize = 128;

/// `y [N, D]` from `x [N, D]` and `gain [D]`; keeps `1 / rms` of each row in `inverse [N]`.
pub fn forward(x: &[f32], gain: &[f32], epsilon: f32, y: &mut [f32], inverse: &mut [f32]) {
    let width = gain.len();
    y.par_chunks_mut(ROWS * width)
        .zip(x.par_chunks(ROWS * width))
        .zip(inverse.par_chunks_mut(ROWS))
        .for_each(|((y, x), inverse)| {
            for ((y, x), inverse) in y.chunks_mut(width).zip(x.chunks(width)).zip(inverse) {
                *inverse = 1.0 / (simd::dot(x, x) / width as f32 + epsilon).sqrt();
                normalise_row(x, gain, y, *inverse);
            }
        });
}

/// `y` once more, from the `inverse` that [`forward`] kept.
pub fn again(x: &[f32], gain: &[f32], inverse: &[f32], y: &mut [f32]) {
    let width = gain.len();
    y.par_chunks_mut(ROWS * width).zip(x.par_chunks(ROWS * width)).zip(inverse.par_chunks(ROWS)).for_each(
        |((y, x), inverse)| {
            for ((y, x), inverse) in y.chunks_mut(width).zip(x.chunks(width)).zip(inverse) {
                normalise_row(x, gain, y, *inverse);
            }
        },
    );
}

/// `dx += ` the derivative with respect to `x`, `d_gain += ` that with respect to the gain, given `dy`.
///
/// With `r = inverse` and `s = sum_i x_i gain_i dy_i`: `dx_i = r gain_i dy_i - x_i s r^3 / D`, `d_gain_i = sum_n dy_i x_i r`.
pub fn backward(x: &[f32], gain: &[f32], inverse: &[f32], dy: &[f32], dx: &mut [f32], d_gain: &mut [f32]) {
    let width = gain.len();
    let parts: Vec<Vec<f32>> = dx
        .par_chunks_mut(ROWS * width)
        .zip(x.par_chunks(ROWS * width))
        .zip(dy.par_chunks(ROWS * width))
        .zip(inverse.par_chunks(ROWS))
        .map(|(((dx, x), dy), inverse)| {
            let mut part = vec![0.0; width];
            for (((dx, x), dy), inverse) in
                dx.chunks_mut(width).zip(x.chunks(width)).zip(dy.chunks(width)).zip(inverse)
            {
                backward_row(x, gain, dy, dx, &mut part, *inverse);
            }
            part
        })
        .collect();
    for part in parts {
        simd::add(d_gain, &part);
    }
}

/// Groups of neighbouring columns that are normalised each by itself with one gain `[G]`: `count` of them, from column
/// `first` on, in rows of `stride` columns.
#[derive(Clone, Copy, Debug)]
pub struct Groups {
    /// Columns of a row.
    pub stride: usize,
    /// First column of the first group.
    pub first: usize,
    /// Groups a row.
    pub count: usize,
}

impl Groups {
    fn of<'a>(&self, row: &'a mut [f32], width: usize) -> std::slice::ChunksExactMut<'a, f32> {
        row[self.first..self.first + self.count * width].chunks_exact_mut(width)
    }
}

/// Normalises `groups` of `x [N, stride]` in place; what they were goes to `kept [N, count * G]`, `1 / rms` of each to
/// `inverse [N, count]`.
pub fn forward_groups(
    x: &mut [f32],
    groups: Groups,
    gain: &[f32],
    epsilon: f32,
    kept: &mut [f32],
    inverse: &mut [f32],
) {
    let (width, count) = (gain.len(), groups.count);
    x.par_chunks_mut(groups.stride)
        .zip(kept.par_chunks_mut(count * width))
        .zip(inverse.par_chunks_mut(count))
        .with_min_len(32)
        .for_each(|((row, kept), inverse)| {
            for ((y, x), inverse) in groups.of(row, width).zip(kept.chunks_mut(width)).zip(inverse) {
                x.copy_from_slice(y);
                *inverse = 1.0 / (simd::dot(x, x) / width as f32 + epsilon).sqrt();
                normalise_row(x, gain, y, *inverse);
            }
        });
}

/// Turns `groups` of `d [N, stride]` from the derivative of what [`forward_groups`] made into that of what it found;
/// `d_gain [G] += ` that of the gain.
pub fn backward_groups(
    d: &mut [f32],
    groups: Groups,
    gain: &[f32],
    kept: &[f32],
    inverse: &[f32],
    d_gain: &mut [f32],
) {
    let (width, count) = (gain.len(), groups.count);
    let parts: Vec<Vec<f32>> = d
        .par_chunks_mut(ROWS * groups.stride)
        .zip(kept.par_chunks(ROWS * count * width))
        .zip(inverse.par_chunks(ROWS * count))
        .map(|((d, kept), inverse)| {
            let mut part = vec![0.0; width];
            let rows = d.chunks_mut(groups.stride).zip(kept.chunks(count * width));
            for ((row, kept), inverse) in rows.zip(inverse.chunks(count)) {
                for ((d, x), inverse) in groups.of(row, width).zip(kept.chunks(width)).zip(inverse) {
                    backward_row_in_place(x, gain, d, &mut part, *inverse);
                }
            }
            part
        })
        .collect();
    for part in parts {
        simd::add(d_gain, &part);
    }
}

simd_fn!(
    normalise_row(x: &[f32], gain: &[f32], y: &mut [f32], inverse: f32) {
        let n = x.len();
        let (gain, y) = (&gain[..n], &mut y[..n]);
        for i in 0..n {
            y[i] = x[i] * inverse * gain[i];
        }
    }
);

simd_fn!(
    backward_row(x: &[f32], gain: &[f32], dy: &[f32], dx: &mut [f32], d_gain: &mut [f32], inverse: f32) {
        let n = x.len();
        let (gain, dy, dx, d_gain) = (&gain[..n], &dy[..n], &mut dx[..n], &mut d_gain[..n]);
        let k = along(x, gain, dy) * inverse * inverse * inverse / n as f32;
        for i in 0..n {
            dx[i] += gain[i] * dy[i] * inverse - x[i] * k;
            d_gain[i] += dy[i] * x[i] * inverse;
        }
    }
);

simd_fn!(
    backward_row_in_place(x: &[f32], gain: &[f32], d: &mut [f32], d_gain: &mut [f32], inverse: f32) {
        let n = x.len();
        let (gain, d, d_gain) = (&gain[..n], &mut d[..n], &mut d_gain[..n]);
        let k = along(x, gain, d) * inverse * inverse * inverse / n as f32;
        for i in 0..n {
            d_gain[i] += d[i] * x[i] * inverse;
            d[i] = gain[i] * d[i] * inverse - x[i] * k;
        }
    }
);

/// `sum_i x_i gain_i dy_i`: how much of the derivative only stretches the row.
#[inline(always)]
fn along(x: &[f32], gain: &[f32], dy: &[f32]) -> f32 {
    let n = x.len();
    let mut lanes = [0f32; 32];
    let whole = n / 32 * 32;
    for c in (0..whole).step_by(32) {
        for i in 0..32 {
            lanes[i] += x[c + i] * gain[c + i] * dy[c + i];
        }
    }
    let mut sum: f32 = lanes.iter().sum();
    for i in whole..n {
        sum += x[i] * gain[i] * dy[i];
    }
    sum
}
