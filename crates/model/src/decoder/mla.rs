//! Queries, keys and values of multi-head latent attention.
//!
//! One product reduces each row of the stream to three parts side by side, `saved.latent`: the row that queries are
//! made from (or the queries themselves), the row that keys and values are made from, and the key that all heads share.
//! The first two are normed, the last is turned. Training expands the middle part to keys and values of every head;
//! generation keeps the last two parts as they are.

use super::block::{Pass, cut};
use super::cache::{Cache, Rows};
use crate::architecture::Attention;
use crate::workspace::Saved;
use remit_kernels::latent::Latent;
use remit_kernels::linear::Linear;
use remit_kernels::matmul::Write;
use remit_kernels::norm::{self, Groups};
use remit_kernels::rope::{self, Heads, Positions, Turn};
use remit_kernels::stream;

/// Widths that the functions below share.
#[derive(Clone, Copy)]
struct Widths {
    shape: Latent,
    query_rank: Option<usize>,
    norm_epsilon: f32,
    /// Columns of queries, keys and values.
    qkv: usize,
    /// Columns of all queries.
    queries: usize,
    /// Columns of the reduced row.
    latent: usize,
    /// First column of the part that keys and values are made from.
    kv: usize,
}

impl Widths {
    fn of(pass: &Pass) -> Widths {
        let architecture = pass.architecture;
        let Attention::Latent { query_rank, rank, own, turned, value, norm_epsilon } = architecture.attention
        else {
            unreachable!("only latent attention comes here");
        };
        let latent = architecture.latent_width();
        Widths {
            shape: Latent { heads: architecture.heads, rank, own, turned, value },
            query_rank,
            norm_epsilon,
            qkv: architecture.qkv_width(),
            queries: architecture.queries_width(),
            latent,
            kv: latent - rank - turned,
        }
    }

    /// From the reduced row to the queries, where they are made from a short row.
    fn query_up(&self, pass: &Pass) -> Option<Linear> {
        let rank = self.query_rank?;
        Some(Linear { input_stride: self.latent, output_stride: self.qkv, ..pass.linear(rank, self.queries) })
    }

    /// From the reduced row to keys and values of every head.
    fn kv_up(&self, pass: &Pass) -> Linear {
        Linear { input_stride: self.latent, ..pass.linear(self.shape.rank, self.shape.expanded()) }
    }

    /// The ends of the queries in their matrix.
    fn turned_queries(&self) -> Heads {
        let Latent { heads, own, .. } = self.shape;
        Heads { stride: self.qkv, first: own, count: heads, apart: self.shape.qk_width() }
    }

    /// The end of the reduced row.
    fn turned_key(&self) -> Heads {
        let turned = self.shape.turned;
        Heads { stride: self.latent, first: self.latent - turned, count: 1, apart: turned }
    }

    /// Where the norms of the reduced row's parts are: whose gain, which columns, and what they keep.
    fn norms<'s>(
        &self,
        pass: &Pass,
        kept: &'s mut [f32],
        inverse: &'s mut [f32],
    ) -> impl Iterator<Item = (std::ops::Range<usize>, Groups, &'s mut [f32], &'s mut [f32])> + use<'s> {
        let query_rank = self.query_rank.unwrap_or(0);
        let parts = if query_rank > 0 { 2 } else { 1 };
        let kept = cut(kept, pass.rows, query_rank + self.shape.rank);
        let inverse = cut(inverse, pass.rows, parts);
        let (of_queries, of_kv) = kept.split_at_mut(pass.rows * query_rank);
        let (queries_inverse, kv_inverse) = inverse.split_at_mut(pass.rows * (parts - 1));
        let group = |first| Groups { stride: self.latent, first, count: 1 };
        let queries = (pass.ranges.query_norm.clone(), group(0), of_queries, queries_inverse);
        let kv = (pass.ranges.key_norm.clone(), group(self.kv), of_kv, kv_inverse);
        [queries, kv].into_iter().skip(2 - parts)
    }
}

/// `saved.latent` and the queries of `saved.qkv` from what attention reads, `x [N, D]`.
pub(super) fn reduce(pass: &Pass, x: &[f32], positions: Positions, saved: &mut Saved) {
    let widths = Widths::of(pass);
    let latent = cut(&mut saved.latent, pass.rows, widths.latent);
    let qkv = cut(&mut saved.qkv, pass.rows, widths.qkv);
    let reduce = pass.linear(pass.architecture.width, widths.latent);
    reduce.forward(x, pass.weights(&pass.ranges.qkv), latent, Write::Replace);
    for (gain, groups, kept, inverse) in widths.norms(pass, &mut saved.kept, &mut saved.kept_inverse) {
        norm::forward_groups(latent, groups, pass.get(&gain), widths.norm_epsilon, kept, inverse);
    }
    match widths.query_up(pass) {
        Some(up) => up.forward(latent, pass.weights(&pass.ranges.query_up), qkv, Write::Replace),
        None => stream::copy_columns(latent, (widths.latent, 0), qkv, (widths.qkv, 0), widths.queries),
    }
    if pass.architecture.turns(pass.layer) {
        rope::rotate(qkv, pass.rope, widths.turned_queries(), positions, Turn::Forward);
        rope::rotate(latent, pass.rope, widths.turned_key(), positions, Turn::Forward);
    }
}

/// The keys and values of `saved.qkv` from `saved.latent`; `kv` is scratch.
pub(super) fn expand(pass: &Pass, saved: &mut Saved, kv: &mut [f32]) {
    let widths = Widths::of(pass);
    let latent = cut(&mut saved.latent, pass.rows, widths.latent);
    let qkv = cut(&mut saved.qkv, pass.rows, widths.qkv);
    let kv = cut(kv, pass.rows, widths.shape.expanded());
    let up = widths.kv_up(pass);
    up.forward(&latent[widths.kv..], pass.weights(&pass.ranges.kv_up), kv, Write::Replace);
    widths.shape.expand(kv, latent, widths.latent, qkv);
}

/// `d_x [N, D]` and the gradients from `d_qkv`, which is used up, as are the two other buffers.
pub(super) fn backward(
    pass: &Pass,
    x: &[f32],
    length: usize,
    saved: &mut Saved,
    (d_qkv, d_kv, d_latent): (&mut [f32], &mut [f32], &mut [f32]),
    d_x: &mut [f32],
    gradients: &mut [f32],
) {
    let widths = Widths::of(pass);
    let latent = &saved.latent[..pass.rows * widths.latent];
    let d_kv = cut(d_kv, pass.rows, widths.shape.expanded());
    let turns = pass.architecture.turns(pass.layer);
    if turns {
        rope::rotate(d_qkv, pass.rope, widths.turned_queries(), Positions::Windows(length), Turn::Back);
    }
    match widths.query_up(pass) {
        Some(up) => {
            up.backward_parameters(d_qkv, latent, &mut gradients[pass.ranges.query_up.clone()]);
            up.backward_input(d_qkv, pass.get(&pass.ranges.query_up), d_latent);
        }
        None => stream::copy_columns(d_qkv, (widths.qkv, 0), d_latent, (widths.latent, 0), widths.queries),
    }
    widths.shape.expand_backward(d_qkv, d_kv, d_latent, widths.latent);
    let up = widths.kv_up(pass);
    up.backward_parameters(d_kv, &latent[widths.kv..], &mut gradients[pass.ranges.kv_up.clone()]);
    up.backward_input(d_kv, pass.get(&pass.ranges.kv_up), &mut d_latent[widths.kv..]);
    if turns {
        rope::rotate(d_latent, pass.rope, widths.turned_key(), Positions::Windows(length), Turn::Back);
    }
    for (gain, groups, kept, inverse) in widths.norms(pass, &mut saved.kept, &mut saved.kept_inverse) {
        let d_gain = &mut gradients[gain.clone()];
        norm::backward_groups(d_latent, groups, pass.get(&gain), kept, inverse, d_gain);
    }
    let reduce = pass.linear(pass.architecture.width, widths.latent);
    reduce.backward_parameters(d_latent, x, &mut gradients[pass.ranges.qkv.clone()]);
    reduce.backward_input(d_latent, pass.get(&pass.ranges.qkv), d_x);
}

/// `saved.attended` of rows of many sequences; their reduced rows join their sequences' caches.
pub(super) fn attend_cached(pass: &Pass, rows: &Rows, caches: &mut [Cache], saved: &mut Saved) {
    let (widths, layer) = (Widths::of(pass), pass.layer);
    let latent = cut(&mut saved.latent, pass.rows, widths.latent);
    rows.join(caches, layer, |cache, row, position| {
        let new = &latent[row * widths.latent..(row + 1) * widths.latent][widths.kv..];
        cache[position * new.len()..][..new.len()].copy_from_slice(new);
    });
    widths.shape.attend(
        cut(&mut saved.qkv, pass.rows, widths.qkv),
        widths.qkv,
        pass.get(&pass.ranges.kv_up),
        &rows.sights(caches, layer),
        pass.architecture.attention_scale(),
        cut(&mut saved.attended, pass.rows, pass.architecture.attended_width()),
    );
}
