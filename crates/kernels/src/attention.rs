//! Causal grouped-query attention within documents, without ever holding `[T, T]` probabilities of a whole window
//! (after FlashAttention, arXiv 2205.14135): blocks of queries against all keys they may see.

mod bf16;

use crate::Precision;
use crate::matmul::{SharedMut, Write, product};
use crate::simd::{self, simd_fn};
use rayon::prelude::*;

/// Shapes of one attention call.
///
/// Queries, keys and values come side by side in one matrix `[N, H*E + K*E + K*Ev]`, queries first, because one
/// product makes them all.
#[derive(Clone, Copy, Debug)]
pub struct Attention {
    /// Windows, `W`.
    pub windows: usize,
    /// Positions a window, `T`.
    pub length: usize,
    /// Query heads, `H`.
    pub heads: usize,
    /// Key/value heads, `K`; `H / K` query heads share one.
    pub kv_heads: usize,
    /// Width of a query or key head, `E`.
    pub qk_width: usize,
    /// Width of a value head, `Ev`.
    pub v_width: usize,
    /// What scores are multiplied with, `1 / sqrt(E)` in most families.
    pub scale: f32,
    /// Arithmetic of the products over windows.
    pub precision: Precision,
}

/// One block of queries of one head: where it lies and which keys it sees.
struct Block {
    /// First query.
    first: usize,
    /// Number of queries.
    rows: usize,
    /// First key that any of them sees.
    key: usize,
    /// Number of keys from there to the last query.
    keys: usize,
    /// Row of the first query.
    row: usize,
    /// Row of the first key.
    key_row: usize,
}

impl Attention {
    /// Columns of the matrix that holds queries, keys and values.
    pub fn columns(&self) -> usize {
        (self.heads + self.kv_heads) * self.qk_width + self.kv_heads * self.v_width
    }

    /// `output [N, H*Ev]` from `qkv`; keeps the logarithm of each softmax denominator in `lse [W, H, T]`.
    /// `starts [W, T]` gives the first position each query may see, never decreasing within a window.
    pub fn forward(&self, qkv: &[f32], starts: Option<&[u32]>, output: &mut [f32], lse: &mut [f32]) {
        self.check(qkv, starts);
        let Attention { windows, length, heads, qk_width, v_width, scale, .. } = *self;
        let rows_out = windows * length;
        assert_eq!(output.len(), rows_out * heads * v_width, "output is [N, H*Ev]");
        assert_eq!(lse.len(), rows_out * heads, "lse is [W, H, T]");
        if self.precision == Precision::Bf16 {
            return bf16::forward(self, qkv, starts, output, lse);
        }
        let (block_rows, blocks) = (self.block_rows(), length.div_ceil(self.block_rows()));
        let (out, lse) = (SharedMut(output.as_mut_ptr()), SharedMut(lse.as_mut_ptr()));
        // The blocks that see most come first, so that the threads finish together.
        (0..windows * heads * blocks).into_par_iter().for_each_init(
            || vec![0.0; block_rows * length],
            |scores, task| {
                let (window, head) = (task % (windows * heads) / heads, task % heads);
                let block = self.block(window, blocks - 1 - task / (windows * heads), starts);
                let Block { rows, keys, .. } = block;
                let out_at = (block.row * heads + head) * v_width;
                // SAFETY: `check` proved that `qkv` holds every row; a block's queries of one head are its task's
                // alone in `output` and `lse`, whose lengths were checked above.
                unsafe {
                    product(
                        rows,
                        keys,
                        qk_width,
                        scores.as_mut_ptr(),
                        keys,
                        Write::Replace,
                        self.queries(qkv, &block, head),
                        transposed(self.keys(qkv, &block, head)),
                    );
                    for i in 0..rows {
                        let row = &mut scores[i * keys..(i + 1) * keys];
                        let (from, to) = self.visible(&block, i, starts, window);
                        row[..from].fill(0.0);
                        row[to..].fill(0.0);
                        let max = simd::max(&row[from..to]) * scale;
                        let sum = simd::exp_in_place(&mut row[from..to], scale, max);
                        simd::scale(&mut row[from..to], 1.0 / sum);
                        *lse.at((window * heads + head) * length + block.first + i) = max + sum.ln();
                    }
                    product(
                        rows,
                        v_width,
                        keys,
                        out.at(out_at),
                        heads * v_width,
                        Write::Replace,
                        (scores.as_ptr(), keys, 1),
                        self.values(qkv, &block, head),
                    );
                }
            },
        );
    }

    /// `d_qkv` (every entry written) from `d_output`, the inputs of [`Attention::forward`] and what it gave.
    #[allow(clippy::too_many_arguments, reason = "the inputs, what forward kept, the derivative, the result")]
    pub fn backward(
        &self,
        qkv: &[f32],
        starts: Option<&[u32]>,
        output: &[f32],
        lse: &[f32],
        d_output: &[f32],
        d_qkv: &mut [f32],
    ) {
        self.check(qkv, starts);
        let Attention { windows, length, heads, kv_heads, qk_width, v_width, scale, .. } = *self;
        assert_eq!(d_qkv.len(), qkv.len(), "d_qkv is shaped as qkv");
        assert_eq!(output.len(), windows * length * heads * v_width, "output is [N, H*Ev]");
        assert_eq!(d_output.len(), output.len(), "d_output is shaped as output");
        assert_eq!(lse.len(), windows * length * heads, "lse is [W, H, T]");
        if self.precision == Precision::Bf16 {
            return bf16::backward(self, qkv, starts, (output, lse, d_output), d_qkv);
        }
        let (stride, block_rows, group) = (self.columns(), self.block_rows(), heads / kv_heads);
        d_qkv.par_chunks_mut(stride * 64).for_each(|rows| rows.fill(0.0));
        let d = SharedMut(d_qkv.as_mut_ptr());
        // One task a key/value head: its query heads add to the same keys and values.
        (0..windows * kv_heads).into_par_iter().with_max_len(1).for_each_init(
            || (vec![0.0; block_rows * length], vec![0.0; block_rows * length]),
            |(p, dp), task| {
                let (window, kv_head) = (task / kv_heads, task % kv_heads);
                for head in kv_head * group..(kv_head + 1) * group {
                    for index in 0..length.div_ceil(block_rows) {
                        let block = self.block(window, index, starts);
                        let Block { rows, keys, .. } = block;
                        let d_out =
                            (d_output[(block.row * heads + head) * v_width..].as_ptr(), heads * v_width, 1);
                        let (q, k, v) = (
                            self.queries(qkv, &block, head),
                            self.keys(qkv, &block, head),
                            self.values(qkv, &block, head),
                        );
                        // SAFETY: as in `forward`; of `d_qkv` a task writes its own key/value head and the query
                        // heads that share it, in its own window.
                        unsafe {
                            product(
                                rows,
                                keys,
                                qk_width,
                                p.as_mut_ptr(),
                                keys,
                                Write::Replace,
                                q,
                                transposed(k),
                            );
                            product(
                                rows,
                                keys,
                                v_width,
                                dp.as_mut_ptr(),
                                keys,
                                Write::Replace,
                                d_out,
                                transposed(v),
                            );
                        }
                        for i in 0..rows {
                            let at = ((block.row + i) * heads + head) * v_width;
                            let delta = simd::dot(&output[at..at + v_width], &d_output[at..at + v_width]);
                            let lse = lse[(window * heads + head) * length + block.first + i];
                            let (from, to) = self.visible(&block, i, starts, window);
                            let (p, dp) =
                                (&mut p[i * keys..(i + 1) * keys], &mut dp[i * keys..(i + 1) * keys]);
                            for row in [&mut *p, &mut *dp] {
                                row[..from].fill(0.0);
                                row[to..].fill(0.0);
                            }
                            softmax_backward(&mut p[from..to], &mut dp[from..to], scale, lse, delta);
                        }
                        let part = |columns: usize, row: usize| row * stride + columns;
                        // SAFETY: as above.
                        unsafe {
                            let dq = d.at(part(head * qk_width, block.row));
                            let dk = d.at(part(heads * qk_width + kv_head * qk_width, block.key_row));
                            let dv =
                                d.at(part((heads + kv_heads) * qk_width + kv_head * v_width, block.key_row));
                            let (p, dp) = ((p.as_ptr(), keys, 1), (dp.as_ptr(), keys, 1));
                            product(rows, qk_width, keys, dq, stride, Write::Add, dp, k);
                            product(keys, qk_width, rows, dk, stride, Write::Add, transposed(dp), q);
                            product(keys, v_width, rows, dv, stride, Write::Add, transposed(p), d_out);
                        }
                    }
                }
            },
        );
    }

    fn check(&self, qkv: &[f32], starts: Option<&[u32]>) {
        assert_eq!(self.heads % self.kv_heads, 0, "query heads share key/value heads evenly");
        assert_eq!(qkv.len(), self.windows * self.length * self.columns(), "qkv is [N, H*E + K*E + K*Ev]");
        if let Some(starts) = starts {
            assert_eq!(starts.len(), self.windows * self.length, "starts is [W, T]");
            for (i, &start) in starts.iter().enumerate() {
                assert!(start as usize <= i % self.length, "a query sees at least itself");
            }
        }
    }

    fn block_rows(&self) -> usize {
        if self.length <= 512 { 64 } else { 128 }
    }

    fn block(&self, window: usize, index: usize, starts: Option<&[u32]>) -> Block {
        let first = index * self.block_rows();
        let rows = self.block_rows().min(self.length - first);
        let key = starts.map_or(0, |starts| starts[window * self.length + first] as usize);
        let row = window * self.length + first;
        Block { first, rows, key, keys: first + rows - key, row, key_row: window * self.length + key }
    }

    /// The columns of a block's scores that its query `i` may see.
    fn visible(&self, block: &Block, i: usize, starts: Option<&[u32]>, window: usize) -> (usize, usize) {
        let query = block.first + i;
        let start = starts.map_or(0, |starts| starts[window * self.length + query] as usize);
        (start - block.key, query + 1 - block.key)
    }

    fn queries(&self, qkv: &[f32], block: &Block, head: usize) -> (*const f32, usize, usize) {
        let stride = self.columns();
        (qkv[block.row * stride + head * self.qk_width..].as_ptr(), stride, 1)
    }

    fn keys(&self, qkv: &[f32], block: &Block, head: usize) -> (*const f32, usize, usize) {
        let (stride, kv_head) = (self.columns(), head / (self.heads / self.kv_heads));
        (qkv[block.key_row * stride + (self.heads + kv_head) * self.qk_width..].as_ptr(), stride, 1)
    }

    fn values(&self, qkv: &[f32], block: &Block, head: usize) -> (*const f32, usize, usize) {
        let (stride, kv_head) = (self.columns(), head / (self.heads / self.kv_heads));
        let column = (self.heads + self.kv_heads) * self.qk_width + kv_head * self.v_width;
        (qkv[block.key_row * stride + column..].as_ptr(), stride, 1)
    }
}

/// A strided operand with rows and columns exchanged.
fn transposed((data, row_stride, column_stride): (*const f32, usize, usize)) -> (*const f32, usize, usize) {
    (data, column_stride, row_stride)
}

simd_fn!(
    /// Scores become probabilities, `p = exp(scale * s - lse)`, and their derivatives those of the scores,
    /// `ds = p * (dp - delta) * scale`.
    softmax_backward(s: &mut [f32], dp: &mut [f32], scale: f32, lse: f32, delta: f32) {
        let n = s.len();
        let dp = &mut dp[..n];
        for i in 0..n {
            let p = simd::exp(s[i].mul_add(scale, -lse));
            s[i] = p;
            dp[i] = p * (dp[i] - delta) * scale;
        }
    }
);
