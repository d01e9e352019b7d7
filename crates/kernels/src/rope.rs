//! Rotary position embedding (arXiv 2104.09864): components of a head are paired, and pair `i` is turned by
//! `position * frequency_i`.

use crate::simd::simd_fn;
use rayon::prelude::*;

/// Which components of a head form pair `i`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairing {
    /// `i` and `i + E/2`, as most families in Hugging Face layout have it.
    Halves,
    /// `2i` and `2i + 1`, as the paper has it.
    Neighbours,
}

/// Cosines and sines by position, `[positions, E/2]` each.
#[derive(Clone, Debug)]
pub struct Table {
    cos: Vec<f32>,
    sin: Vec<f32>,
    half: usize,
    pairing: Pairing,
}

/// Where the heads to turn lie in each row.
#[derive(Clone, Copy, Debug)]
pub struct Heads {
    /// Columns of a row.
    pub stride: usize,
    /// First column of the first head.
    pub first: usize,
    /// Heads a row.
    pub count: usize,
    /// Columns from the start of one head to the start of the next.
    pub apart: usize,
}

impl Table {
    /// For `frequencies [E/2]` in radians a position. Angles are rounded to `f32` before the cosine is taken, as
    /// `transformers` does, so that long windows agree with it.
    pub fn new(frequencies: &[f32], positions: usize, pairing: Pairing) -> Table {
        let angles = || (0..positions).flat_map(|p| frequencies.iter().map(move |f| p as f32 * f));
        Table {
            cos: angles().map(|angle| f64::from(angle).cos() as f32).collect(),
            sin: angles().map(|angle| f64::from(angle).sin() as f32).collect(),
            half: frequencies.len(),
            pairing,
        }
    }

    /// Number of positions the table covers.
    pub fn positions(&self) -> usize {
        self.cos.len() / self.half.max(1)
    }
}

/// Which way to turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Forward pass.
    Forward,
    /// Backward pass: the rotation's transpose.
    Back,
}

/// The position of each row.
#[derive(Clone, Copy, Debug)]
pub enum Positions<'a> {
    /// Rows of windows of so many positions, from 0 on each.
    Windows(usize),
    /// One by one, `[N]`.
    Rows(&'a [usize]),
}

impl Positions<'_> {
    fn of(self, row: usize) -> usize {
        match self {
            Positions::Windows(length) => row % length,
            Positions::Rows(positions) => positions[row],
        }
    }
}

/// Turns `heads` of each row of `x [N, stride]` in place.
pub fn rotate(x: &mut [f32], table: &Table, heads: Heads, positions: Positions, turn: Turn) {
    let half = table.half;
    let sign = if turn == Turn::Forward { 1.0 } else { -1.0 };
    x.par_chunks_mut(heads.stride).enumerate().with_min_len(32).for_each(|(n, row)| {
        let at = positions.of(n) * half;
        let (cos, sin) = (&table.cos[at..at + half], &table.sin[at..at + half]);
        for head in 0..heads.count {
            let head = &mut row[heads.first + head * heads.apart..][..2 * half];
            match table.pairing {
                Pairing::Halves => rotate_halves(head, cos, sin, sign),
                Pairing::Neighbours => rotate_neighbours(head, cos, sin, sign),
            }
        }
    });
}

simd_fn!(
    rotate_halves(x: &mut [f32], cos: &[f32], sin: &[f32], sign: f32) {
        let (a, b) = x.split_at_mut(cos.len());
        let n = a.len();
        let (b, cos, sin) = (&mut b[..n], &cos[..n], &sin[..n]);
        for i in 0..n {
            let s = sign * sin[i];
            (a[i], b[i]) = (a[i] * cos[i] - b[i] * s, b[i] * cos[i] + a[i] * s);
        }
    }
);

simd_fn!(
    rotate_neighbours(x: &mut [f32], cos: &[f32], sin: &[f32], sign: f32) {
        for ((pair, cos), sin) in x.chunks_exact_mut(2).zip(cos).zip(sin) {
            let (a, b, s) = (pair[0], pair[1], sign * sin);
            (pair[0], pair[1]) = (a * cos - b * s, b * cos + a * s);
        }
    }
);
