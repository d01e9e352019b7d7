//! Rows of the embedding table.

use crate::simd;
use rayon::prelude::*;

/// `x [N, D]`: row `ids[n]` of `table [V, D]`.
///
/// # Panics
/// When an id lies beyond the table: ids are checked where they enter the program.
pub fn forward(ids: &[u32], table: &[f32], width: usize, x: &mut [f32]) {
    x.par_chunks_mut(width).zip(ids).with_min_len(64).for_each(|(row, &id)| {
        row.copy_from_slice(&table[id as usize * width..][..width]);
    });
}

/// `d_table[ids[n]] += dx[n]`, in the order of the rows.
pub fn backward(ids: &[u32], dx: &[f32], width: usize, d_table: &mut [f32]) {
    for (row, &id) in dx.chunks(width).zip(ids) {
        simd::add(&mut d_table[id as usize * width..][..width], row);
    }
}
