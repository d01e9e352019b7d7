//! Queries, keys and values of grouped-query attention: one product, norms of queries and keys where the family has
//! them, rotation.

use super::block::{Pass, cut};
use super::cache::{Cache, Rows};
use crate::architecture::{Attention, QkNorm};
use crate::workspace::Saved;
use remit_kernels::matmul::Write;
use remit_kernels::norm::{self, Groups};
use remit_kernels::rope::{self, Heads, Positions, Turn};

/// `saved.qkv` from what attention reads, `x [N, D]`.
pub(super) fn project(pass: &Pass, x: &[f32], positions: Positions, saved: &mut Saved) {
    let (width, qkv_width) = (pass.architecture.width, pass.architecture.qkv_width());
    let qkv = cut(&mut saved.qkv, pass.rows, qkv_width);
    pass.linear(width, qkv_width).forward(x, pass.weights(&pass.ranges.qkv), qkv, Write::Replace);
    if let Some(groups) = groups(pass) {
        let (kept, inverse) = split(pass, groups, &mut saved.kept, &mut saved.kept_inverse);
        let gains = [&pass.ranges.query_norm, &pass.ranges.key_norm].map(|range| pass.get(range));
        for (((groups, gain), kept), inverse) in groups.into_iter().zip(gains).zip(kept).zip(inverse) {
            let epsilon = pass.architecture.norm_epsilon;
            norm::forward_groups(qkv, groups, gain, epsilon, kept, inverse);
        }
    }
    if pass.architecture.turns(pass.layer) {
        rope::rotate(qkv, pass.rope, heads(pass), positions, Turn::Forward);
    }
}

/// `d_x [N, D]` and the gradients from `d_qkv`, which is used up.
pub(super) fn project_backward(
    pass: &Pass,
    x: &[f32],
    length: usize,
    saved: &mut Saved,
    d_qkv: &mut [f32],
    d_x: &mut [f32],
    gradients: &mut [f32],
) {
    if pass.architecture.turns(pass.layer) {
        rope::rotate(d_qkv, pass.rope, heads(pass), Positions::Windows(length), Turn::Back);
    }
    if let Some(groups) = groups(pass) {
        let (kept, inverse) = split(pass, groups, &mut saved.kept, &mut saved.kept_inverse);
        let ranges = [&pass.ranges.query_norm, &pass.ranges.key_norm];
        for (((groups, range), kept), inverse) in groups.into_iter().zip(ranges).zip(kept).zip(inverse) {
            let d_gain = &mut gradients[range.clone()];
            norm::backward_groups(d_qkv, groups, pass.get(range), kept, inverse, d_gain);
        }
    }
    let product = pass.linear(pass.architecture.width, pass.architecture.qkv_width());
    product.backward_parameters(d_qkv, x, &mut gradients[pass.ranges.qkv.clone()]);
    product.backward_input(d_qkv, pass.get(&pass.ranges.qkv), d_x);
}

/// `saved.attended` of rows of many sequences; their keys and values join their sequences' caches.
pub(super) fn attend_cached(pass: &Pass, rows: &Rows, caches: &mut [Cache], saved: &mut Saved) {
    let (shape, stride, layer) = (pass.shape(), pass.architecture.qkv_width(), pass.layer);
    let qkv = cut(&mut saved.qkv, pass.rows, stride);
    rows.join(caches, layer, |cache, row, position| {
        let new = &qkv[row * stride..(row + 1) * stride][pass.architecture.queries_width()..];
        shape.keep(cache, position, new);
    });
    let attended = cut(&mut saved.attended, pass.rows, pass.architecture.attended_width());
    shape.attend(qkv, stride, &rows.sights(caches, layer), attended);
}

/// The columns of queries and keys that are normalised together.
fn groups(pass: &Pass) -> Option<[Groups; 2]> {
    let Attention::Grouped { kv_heads, norm, .. } = pass.architecture.attention else { return None };
    let counts = match norm {
        QkNorm::None => return None,
        QkNorm::PerHead => [pass.architecture.heads, kv_heads],
        QkNorm::Whole => [1, 1],
    };
    let (stride, keys) = (pass.architecture.qkv_width(), pass.architecture.queries_width());
    Some([Groups { stride, first: 0, count: counts[0] }, Groups { stride, first: keys, count: counts[1] }])
}

/// What the norms keep of queries and of keys.
fn split<'a>(
    pass: &Pass,
    groups: [Groups; 2],
    kept: &'a mut [f32],
    inverse: &'a mut [f32],
) -> ([&'a mut [f32]; 2], [&'a mut [f32]; 2]) {
    let (heads, keys) = (pass.architecture.queries_width(), pass.architecture.kv_heads());
    let kept = cut(kept, pass.rows, heads + keys * pass.architecture.qk_width());
    let inverse = cut(inverse, pass.rows, groups[0].count + groups[1].count);
    let (queries, keys) = kept.split_at_mut(pass.rows * heads);
    let (of_queries, of_keys) = inverse.split_at_mut(pass.rows * groups[0].count);
    ([queries, keys], [of_queries, of_keys])
}

/// Queries and keys stand side by side, so one call turns them all.
fn heads(pass: &Pass) -> Heads {
    Heads {
        stride: pass.architecture.qkv_width(),
        first: 0,
        count: pass.architecture.heads + pass.architecture.kv_heads(),
        apart: pass.architecture.qk_width(),
    }
}
