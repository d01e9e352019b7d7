//! Attention with products of bfloat16 operands: keys and values are rounded and laid out once for all queries of their
//! window, probabilities and their derivatives as they come. Softmax, its derivative and all sums are `f32`.

use super::{Attention, Block, softmax_backward};
use crate::matmul::bf16::{Panels, Tile};
use crate::matmul::{Matrix, SharedMut, Write};
use crate::simd::{self, Instructions};
use rayon::prelude::*;

/// [`Attention::forward`], whose checks have been made.
pub(super) fn forward(
    attention: &Attention,
    qkv: &[f32],
    starts: Option<&[u32]>,
    output: &mut [f32],
    lse: &mut [f32],
) {
    let Attention { windows, length, heads, kv_heads, qk_width, v_width, scale, .. } = *attention;
    let panels = Panels::of(Instructions::current());
    let (block_rows, blocks) = (attention.block_rows(), length.div_ceil(attention.block_rows()));
    let view = View { attention, qkv, panels };
    // Keys as columns, then values as rows, of every key/value head of every window.
    let (keys_size, values_size) = (view.size(length, qk_width), view.size(v_width, length));
    let mut laid_out = vec![0; windows * kv_heads * (keys_size + values_size)];
    laid_out.par_chunks_mut(keys_size + values_size).enumerate().for_each(|(index, both)| {
        let (window, kv_head) = (index / kv_heads, index % kv_heads);
        let (keys, values) = both.split_at_mut(keys_size);
        panels.lay_out_here(view.keys(window, kv_head), panels.columns, keys);
        panels.lay_out_here(view.values(window, kv_head).transposed(), panels.columns, values);
    });
    let (out, lse) = (SharedMut(output.as_mut_ptr()), SharedMut(lse.as_mut_ptr()));
    // The blocks that see most come first, so that the threads finish together.
    (0..windows * heads * blocks).into_par_iter().for_each_init(
        || Buffers::new(&view, block_rows),
        |Buffers { scores, rows: laid_out_rows, .. }, task| {
            let (window, head) = (task % (windows * heads) / heads, task % heads);
            let block = view.block(window, blocks - 1 - task / (windows * heads), starts);
            let Block { rows, keys, .. } = block;
            let kv_head = head / (heads / kv_heads);
            let both = &laid_out[(window * kv_heads + kv_head) * (keys_size + values_size)..];
            let (of_keys, of_values) = both.split_at(keys_size);
            panels.lay_out_here(view.queries(&block, head), panels.rows, laid_out_rows);
            view.by_keys(&block, laid_out_rows, of_keys, qk_width, scores);
            for i in 0..rows {
                let row = &mut scores[i * keys..(i + 1) * keys];
                let (from, to) = attention.visible(&block, i, starts, window);
                row[..from].fill(0.0);
                row[to..].fill(0.0);
                let max = simd::max(&row[from..to]) * scale;
                let sum = simd::exp_in_place(&mut row[from..to], scale, max);
                simd::scale(&mut row[from..to], 1.0 / sum);
                // SAFETY: a block's queries of one head are its task's alone in `lse` and `output`, whose lengths were
                // checked.
                unsafe { *lse.at((window * heads + head) * length + block.first + i) = max + sum.ln() };
            }
            panels.lay_out_here(Matrix::new(scores, rows, keys), panels.rows, laid_out_rows);
            // SAFETY: as above.
            let out = unsafe { out.at((block.row * heads + head) * v_width) };
            view.over_keys(&block, laid_out_rows, of_values, length, v_width, (out, heads * v_width));
        },
    );
}

/// [`Attention::backward`], whose checks have been made.
pub(super) fn backward(
    attention: &Attention,
    qkv: &[f32],
    starts: Option<&[u32]>,
    (output, lse, d_output): (&[f32], &[f32], &[f32]),
    d_qkv: &mut [f32],
) {
    let Attention { windows, length, heads, kv_heads, qk_width, v_width, scale, .. } = *attention;
    let panels = Panels::of(Instructions::current());
    let (stride, block_rows, group) = (attention.columns(), attention.block_rows(), heads / kv_heads);
    let view = View { attention, qkv, panels };
    let sizes = [view.size(length, qk_width), view.size(length, v_width), view.size(qk_width, length)];
    d_qkv.par_chunks_mut(stride * 64).for_each(|rows| rows.fill(0.0));
    let d = SharedMut(d_qkv.as_mut_ptr());
    // One task a key/value head: its query heads add to the same keys and values.
    (0..windows * kv_heads).into_par_iter().with_max_len(1).for_each_init(
        || (Buffers::new(&view, block_rows), vec![0; sizes.iter().sum()]),
        |(Buffers { scores: p, d_scores: dp, rows: of_rows, few }, laid_out), task| {
            let (window, kv_head) = (task / kv_heads, task % kv_heads);
            let (key_columns, rest) = laid_out.split_at_mut(sizes[0]);
            let (value_columns, key_rows) = rest.split_at_mut(sizes[1]);
            panels.lay_out_here(view.keys(window, kv_head), panels.columns, key_columns);
            panels.lay_out_here(view.values(window, kv_head), panels.columns, value_columns);
            panels.lay_out_here(view.keys(window, kv_head).transposed(), panels.columns, key_rows);
            for head in kv_head * group..(kv_head + 1) * group {
                for index in 0..length.div_ceil(block_rows) {
                    let block = view.block(window, index, starts);
                    let Block { rows, keys, .. } = block;
                    let queries = view.queries(&block, head);
                    let d_out = &d_output[(block.row * heads + head) * v_width..];
                    let d_out = Matrix::strided(d_out, rows, v_width, heads * v_width);
                    panels.lay_out_here(queries, panels.rows, of_rows);
                    view.by_keys(&block, of_rows, key_columns, qk_width, p);
                    panels.lay_out_here(d_out, panels.rows, of_rows);
                    view.by_keys(&block, of_rows, value_columns, v_width, dp);
                    for i in 0..rows {
                        let at = ((block.row + i) * heads + head) * v_width;
                        let delta = simd::dot(&output[at..at + v_width], &d_output[at..at + v_width]);
                        let lse = lse[(window * heads + head) * length + block.first + i];
                        let (from, to) = attention.visible(&block, i, starts, window);
                        let (p, dp) = (&mut p[i * keys..(i + 1) * keys], &mut dp[i * keys..(i + 1) * keys]);
                        for row in [&mut *p, &mut *dp] {
                            row[..from].fill(0.0);
                            row[to..].fill(0.0);
                        }
                        softmax_backward(&mut p[from..to], &mut dp[from..to], scale, lse, delta);
                    }
                    let [p, dp] = [&*p, &*dp].map(|x| Matrix::new(x, rows, keys));
                    // SAFETY: of `d_qkv`, whose length was checked, a task writes its own key/value head and the query
                    // heads that share it, in its own window.
                    let at = |column: usize, row: usize| unsafe { d.at(row * stride + column) };
                    panels.lay_out_here(dp, panels.rows, of_rows);
                    let dq = at(head * qk_width, block.row);
                    view.over_keys(&block, of_rows, key_rows, length, qk_width, (dq, stride));
                    let dk = at((heads + kv_head) * qk_width, block.key_row);
                    let dv = at((heads + kv_heads) * qk_width + kv_head * v_width, block.key_row);
                    for (weights, x, width, to) in [(dp, queries, qk_width, dk), (p, d_out, v_width, dv)] {
                        panels.lay_out_here(weights.transposed(), panels.rows, of_rows);
                        panels.lay_out_here(x.transposed(), panels.columns, few);
                        let pairs = rows.div_ceil(2);
                        let tile = Tile {
                            rows: keys,
                            columns: width,
                            pairs,
                            a: (of_rows.as_ptr(), panels.rows * pairs),
                            b: (few.as_ptr(), panels.columns * pairs),
                            c: (to, stride),
                            write: Write::Add,
                        };
                        // SAFETY: both operands have just been laid out; see above for the result.
                        unsafe { tile.make(panels.instructions) };
                    }
                }
            }
        },
    );
}

/// What one task uses over and over.
struct Buffers {
    /// `[rows, keys]`.
    scores: Vec<f32>,
    d_scores: Vec<f32>,
    /// Panels of rows: of queries, of scores, of scores transposed.
    rows: Vec<u32>,
    /// Panels of columns, as deep as a block has queries.
    few: Vec<u32>,
}

impl Buffers {
    fn new(view: &View, block_rows: usize) -> Buffers {
        let Attention { length, qk_width, v_width, .. } = *view.attention;
        let Panels { rows, columns, .. } = view.panels;
        let size = |lanes: usize, deep: usize, width: usize| lanes.next_multiple_of(width) * deep.div_ceil(2);
        let wide = qk_width.max(v_width);
        Buffers {
            scores: vec![0.0; block_rows * (length + columns)],
            d_scores: vec![0.0; block_rows * (length + columns)],
            rows: vec![
                0;
                size(block_rows, wide.max(length + columns), rows).max(size(
                    length + columns,
                    block_rows,
                    rows
                ))
            ],
            few: vec![0; size(wide, block_rows, columns)],
        }
    }
}

/// Where queries, keys and values lie.
#[derive(Clone, Copy)]
struct View<'a> {
    attention: &'a Attention,
    qkv: &'a [f32],
    panels: Panels,
}

impl<'a> View<'a> {
    /// A block whose keys begin with a whole panel.
    fn block(&self, window: usize, index: usize, starts: Option<&[u32]>) -> Block {
        let block = self.attention.block(window, index, starts);
        let more = block.key % self.panels.columns;
        Block { key: block.key - more, keys: block.keys + more, key_row: block.key_row - more, ..block }
    }

    /// Words that `count` columns of `deep` numbers take.
    fn size(&self, count: usize, deep: usize) -> usize {
        count.next_multiple_of(self.panels.columns) * deep.div_ceil(2)
    }

    fn queries(&self, block: &Block, head: usize) -> Matrix<'a> {
        let Attention { qk_width, .. } = *self.attention;
        let stride = self.attention.columns();
        Matrix::strided(&self.qkv[block.row * stride + head * qk_width..], block.rows, qk_width, stride)
    }

    /// Of a whole window.
    fn keys(&self, window: usize, kv_head: usize) -> Matrix<'a> {
        let Attention { length, heads, qk_width, .. } = *self.attention;
        let stride = self.attention.columns();
        let first = window * length * stride + (heads + kv_head) * qk_width;
        Matrix::strided(&self.qkv[first..], length, qk_width, stride)
    }

    /// Of a whole window.
    fn values(&self, window: usize, kv_head: usize) -> Matrix<'a> {
        let Attention { length, heads, kv_heads, qk_width, v_width, .. } = *self.attention;
        let stride = self.attention.columns();
        let first = window * length * stride + (heads + kv_heads) * qk_width + kv_head * v_width;
        Matrix::strided(&self.qkv[first..], length, v_width, stride)
    }

    /// `scores [rows, keys]` of a block's rows, of which `width` numbers each were laid out, with what is laid out of all
    /// keys of the window as columns.
    fn by_keys(&self, block: &Block, rows: &[u32], columns: &[u32], width: usize, scores: &mut [f32]) {
        let (panels, pairs) = (self.panels, width.div_ceil(2));
        assert!(block.rows * block.keys <= scores.len(), "room for the scores");
        let tile = Tile {
            rows: block.rows,
            columns: block.keys,
            pairs,
            a: (rows.as_ptr(), panels.rows * pairs),
            b: (columns[block.key * pairs..].as_ptr(), panels.columns * pairs),
            c: (scores.as_mut_ptr(), block.keys),
            write: Write::Replace,
        };
        // SAFETY: the machine has the instructions; panels of these rows and of all keys are there, of which the block's
        // begin with a whole one; there is room for the scores.
        unsafe { tile.make(panels.instructions) };
    }

    /// `weights [rows, keys] x [keys, width]` to `to`, of what is laid out of a block's weights and of `x` for all
    /// `length` keys of the window.
    fn over_keys(
        &self,
        block: &Block,
        weights: &[u32],
        x: &[u32],
        length: usize,
        width: usize,
        to: (*mut f32, usize),
    ) {
        let (panels, pairs) = (self.panels, block.keys.div_ceil(2));
        // A panel of these begins with an even key: blocks' keys do.
        let tile = Tile {
            rows: block.rows,
            columns: width,
            pairs,
            a: (weights.as_ptr(), panels.rows * pairs),
            b: (x[block.key / 2 * panels.columns..].as_ptr(), panels.columns * length.div_ceil(2)),
            c: to,
            write: Write::Replace,
        };
        // SAFETY: the machine has the instructions; panels of the weights and, as deep as all keys, of `x` are there; the
        // caller has these elements of `to` for itself.
        unsafe { tile.make(panels.instructions) };
    }
}
