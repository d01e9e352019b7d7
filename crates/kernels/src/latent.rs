//! Multi-head latent attention (arXiv 2405.04434): keys and values of all heads are made from one short row, the
//! latent `c [R]`, and one turned key `k [P]` that all heads share.
//!
//! For head `h`, `kv_h = U_h c` with `U_h [A + B, R]`: its first `A` components are the head's own part of the key, in
//! front of the shared part; the other `B` are its value. The score of a query `(a, p)` is `a . (U_h c)[..A] + p . k`.
//!
//! Training expands every row: [`Latent::expand`] puts what the product with `U` made into the matrix that
//! [`Attention`](crate::attention::Attention) reads. Generation keeps `(c, k)` a position and nothing else: since `a . U_h c = (U_h^T a) . c`, each
//! new query is brought to the latent's side once ([`Latent::attend`]), and all heads read the same short rows.

use crate::cached::Sight;
use crate::matmul::Write;
use crate::rows::{self, Shape, mix};
use crate::simd;
use crate::softmax::probabilities;
use rayon::prelude::*;

/// Shapes of latent attention.
#[derive(Clone, Copy, Debug)]
pub struct Latent {
    /// Heads, `H`.
    pub heads: usize,
    /// Width of the latent, `R`.
    pub rank: usize,
    /// Width of a head's own part of queries and keys, `A`.
    pub own: usize,
    /// Width of the turned part of queries and keys, `P`; of the keys there is one for all heads.
    pub turned: usize,
    /// Width of a value head, `B`.
    pub value: usize,
}

impl Latent {
    /// Width of a query or key head.
    pub fn qk_width(&self) -> usize {
        self.own + self.turned
    }

    /// Columns of the matrix of queries, keys and values, `H * (2 * (A + P) + B)`.
    pub fn columns(&self) -> usize {
        self.heads * (2 * self.qk_width() + self.value)
    }

    /// Columns of what `U` makes, `H * (A + B)`.
    pub fn expanded(&self) -> usize {
        self.heads * (self.own + self.value)
    }

    /// Writes keys and values of `qkv [N, columns]` from `kv [N, expanded]` and the turned key, which each row of
    /// `latent [N, stride]` ends with.
    pub fn expand(&self, kv: &[f32], latent: &[f32], stride: usize, qkv: &mut [f32]) {
        let Latent { heads, own, turned, value, .. } = *self;
        let (qk, at) = (self.qk_width(), self.heads * self.qk_width());
        qkv.par_chunks_mut(self.columns())
            .zip(kv.par_chunks(self.expanded()))
            .zip(latent.par_chunks(stride))
            .with_min_len(16)
            .for_each(|((qkv, kv), latent)| {
                let (keys, values) = qkv[at..].split_at_mut(heads * qk);
                let shared = &latent[stride - turned..];
                let heads = keys.chunks_mut(qk).zip(values.chunks_mut(value)).zip(kv.chunks(own + value));
                for ((key, v), kv) in heads {
                    key[..own].copy_from_slice(&kv[..own]);
                    key[own..].copy_from_slice(shared);
                    v.copy_from_slice(&kv[own..]);
                }
            });
    }

    /// The way back: `d_kv [N, expanded]` and the end of each row of `d_latent [N, stride]` from `d_qkv [N, columns]`.
    pub fn expand_backward(&self, d_qkv: &[f32], d_kv: &mut [f32], d_latent: &mut [f32], stride: usize) {
        let Latent { heads, own, turned, value, .. } = *self;
        let (qk, at) = (self.qk_width(), self.heads * self.qk_width());
        d_kv.par_chunks_mut(self.expanded())
            .zip(d_latent.par_chunks_mut(stride))
            .zip(d_qkv.par_chunks(self.columns()))
            .with_min_len(16)
            .for_each(|((d_kv, d_latent), d_qkv)| {
                let (d_keys, d_values) = d_qkv[at..].split_at(heads * qk);
                let d_shared = &mut d_latent[stride - turned..];
                d_shared.fill(0.0);
                let heads = d_keys.chunks(qk).zip(d_values.chunks(value)).zip(d_kv.chunks_mut(own + value));
                for ((d_key, d_value), d_kv) in heads {
                    d_kv[..own].copy_from_slice(&d_key[..own]);
                    simd::add(d_shared, &d_key[own..]);
                    d_kv[own..].copy_from_slice(d_value);
                }
            });
    }

    /// Rows of many sequences, each against its own cache of `(c, k)` rows `[positions, R + P]`. `queries` has its
    /// `H * (A + P)` columns at the start of rows of `stride`; `u` is `[H * (A + B), R]`; `output [N, H*B]`. A row's bits
    /// depend on its query and its sequence's cache alone.
    pub fn attend(
        &self,
        queries: &[f32],
        stride: usize,
        u: &[f32],
        sights: &[Sight],
        scale: f32,
        output: &mut [f32],
    ) {
        let width = self.heads * self.value;
        assert_eq!(output.len(), sights.len() * width, "output is [N, H*B]");
        output
            .par_chunks_mut(width)
            .zip(queries.par_chunks(stride))
            .zip(sights)
            .for_each_init(Buffers::default, |buffers, ((output, query), sight)| {
                self.attend_row(query, u, *sight, scale, buffers, output)
            });
    }

    fn attend_row(
        &self,
        query: &[f32],
        u: &[f32],
        sight: Sight,
        scale: f32,
        buffers: &mut Buffers,
        output: &mut [f32],
    ) {
        let Latent { heads, rank, own, turned, value } = *self;
        let (width, seen) = (rank + turned, sight.seen);
        let Buffers { brought, scores, mixed } = buffers;
        brought.resize(heads * width, 0.0);
        scores.resize(heads * seen, 0.0);
        mixed.resize(heads * rank, 0.0);
        let parts =
            |head: usize| u[head * (own + value) * rank..][..(own + value) * rank].split_at(own * rank);
        for ((head, brought), query) in brought.chunks_mut(width).enumerate().zip(query.chunks(own + turned))
        {
            mix((1, own, rank), (query, own), (parts(head).0, rank), (&mut *brought, rank));
            brought[rank..].copy_from_slice(&query[own..]);
        }
        let rows = &sight.cache[..seen * width];
        let shape =
            Shape { rows: heads, input: width, output: seen, input_stride: width, output_stride: seen };
        rows::product_here(shape, brought, rows, scores, Write::Replace);
        scores.chunks_mut(seen).for_each(|row| probabilities(row, scale));
        mix((heads, seen, rank), (&*scores, seen), (rows, width), (&mut *mixed, rank));
        for ((head, output), mixed) in output.chunks_mut(value).enumerate().zip(mixed.chunks(rank)) {
            for (output, u) in output.iter_mut().zip(parts(head).1.chunks(rank)) {
                *output = simd::dot(mixed, u);
            }
        }
    }
}

/// What a row of [`Latent::attend`] needs for a moment, by head: queries on the latent's side, probabilities, and the
/// latents that they mix.
#[derive(Default)]
struct Buffers {
    brought: Vec<f32>,
    scores: Vec<f32>,
    mixed: Vec<f32>,
}
