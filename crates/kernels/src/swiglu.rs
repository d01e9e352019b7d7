//! SwiGLU (arXiv 2002.05202): `y = silu(gate) * up` with `silu(z) = z / (1 + exp(-z))`.
//!
//! Gate and up come as one matrix `[N, 2F]`, gate first, because one product makes both.

use crate::simd::{self, simd_fn};
use rayon::prelude::*;

/// `y [N, F]` from `gate_up [N, 2F]`.
pub fn forward(gate_up: &[f32], width: usize, y: &mut [f32]) {
    y.par_chunks_mut(width).zip(gate_up.par_chunks(2 * width)).with_min_len(8).for_each(|(y, gate_up)| {
        let (gate, up) = gate_up.split_at(width);
        forward_row(gate, up, y);
    });
}

/// Turns `gate_up` into its own derivative, in place, given `dy [N, F]`.
pub fn backward(gate_up: &mut [f32], width: usize, dy: &[f32]) {
    gate_up.par_chunks_mut(2 * width).zip(dy.par_chunks(width)).with_min_len(8).for_each(|(gate_up, dy)| {
        let (gate, up) = gate_up.split_at_mut(width);
        backward_row(gate, up, dy);
    });
}

simd_fn!(
    forward_row(gate: &[f32], up: &[f32], y: &mut [f32]) {
        let n = gate.len();
        let (up, y) = (&up[..n], &mut y[..n]);
        for i in 0..n {
            y[i] = gate[i] / (1.0 + simd::exp(-gate[i])) * up[i];
        }
    }
);

simd_fn!(
    backward_row(gate: &mut [f32], up: &mut [f32], dy: &[f32]) {
        let n = gate.len();
        let (up, dy) = (&mut up[..n], &dy[..n]);
        for i in 0..n {
            let (z, u) = (gate[i], up[i]);
            let sigmoid = 1.0 / (1.0 + simd::exp(-z));
            let silu = z * sigmoid;
            up[i] = dy[i] * silu;
            gate[i] = dy[i] * u * (sigmoid + silu * (1.0 - sigmoid));
        }
    }
);
