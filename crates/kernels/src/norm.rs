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
        let k = sum * inverse * inverse * inverse / n as f32;
        for i in 0..n {
            dx[i] += gain[i] * dy[i] * inverse - x[i] * k;
            d_gain[i] += dy[i] * x[i] * inverse;
        }
    }
);
