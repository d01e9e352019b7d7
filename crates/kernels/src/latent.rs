//! Multi-head latent attention (arXiv 2405.04434): keys and values of all heads are made from one short row, the
//! latent `c [R]`, and one turned key `k [P]` that all heads share.
//!
//! For head `h`, `kv_h = U_h c` with `U_h [A + B, R]`: its first `A` components are the head's own part of the key, in
//! front of the shared part; the other `B` are its value. The score of a query `(a, p)` is `a . (U_h c)[..A] + p . k`.
//!
//! Training expands every row: [`Latent::expand`] puts what the product with `U` made into the matrix that
//! [`Attention`] reads. Generation keeps `(c, k)` a position and nothing else: since `a . U_h c = (U_h^T a) . c`, each
//! new query is brought to the latent's side once ([`Latent::attend_cached`]), and all heads read the same short rows.

use crate::attention::{Attention, Cache, attend_cached};
use crate::matmul::{Matrix, MatrixMut, Precision, Write, matmul};
use crate::simd;
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

    /// New rows of one sequence against a cache of `(c, k)` rows `[past + N, R + P]` that ends with their own. `queries`
    /// has its `H * (A + P)` columns at the start of rows of `stride`; `u` is `[H * (A + B), R]`; `output [N, H*B]`.
    #[allow(clippy::too_many_arguments, reason = "queries, parameters, the cache, the result")]
    pub fn attend_cached(
        &self,
        queries: &[f32],
        stride: usize,
        u: &[f32],
        cache: &[f32],
        scale: f32,
        output: &mut [f32],
        precision: Precision,
    ) {
        let Latent { heads, rank, own, turned, value } = *self;
        let (qk, row) = (self.qk_width(), rank + turned);
        let rows = output.len() / (heads * value);
        let past = cache.len() / row - rows;
        let mut brought = vec![0.0; rows * heads * row];
        for head in 0..heads {
            let query = &queries[head * qk..];
            matmul(
                MatrixMut::strided(&mut brought[head * row..], rows, rank, heads * row),
                Write::Replace,
                Matrix::strided(query, rows, own, stride),
                Matrix::new(&u[head * (own + value) * rank..], own, rank),
                precision,
            );
            for (brought, query) in brought.chunks_mut(heads * row).zip(query.chunks(stride)) {
                brought[head * row + rank..][..turned].copy_from_slice(&query[own..qk]);
            }
        }
        let shape =
            Attention { windows: 1, length: 1, heads, kv_heads: 1, qk_width: row, v_width: rank, scale };
        let mut mixed = vec![0.0; rows * heads * rank];
        for (n, (query, mixed)) in brought.chunks(heads * row).zip(mixed.chunks_mut(heads * rank)).enumerate()
        {
            let seen = Cache { rows: &cache[..(past + n + 1) * row], stride: row, values: 0 };
            attend_cached(&shape, query, seen, mixed);
        }
        for head in 0..heads {
            matmul(
                MatrixMut::strided(&mut output[head * value..], rows, value, heads * value),
                Write::Replace,
                Matrix::strided(&mixed[head * rank..], rows, rank, heads * rank),
                Matrix::new(&u[(head * (own + value) + own) * rank..], value, rank).transposed(),
                precision,
            );
        }
    }
}
