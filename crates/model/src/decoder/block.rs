//! One block: attention and MLP, each with its norm and its way into the residual stream.
//!
//! With `f` for attention or MLP, a block adds `f(norm(x))` to its stream where norms stand before, and `norm(f(x))`
//! where they stand after.

use super::cache::{Cache, Rows};
use super::storage::Part;
use super::{Input, gqa, mla};
use crate::Architecture;
use crate::architecture::{Attention, NormPlace};
use crate::layout::Block;
use crate::workspace::{Saved, Scratch};
use remit_kernels::linear::Linear;
use remit_kernels::matmul::Write;
use remit_kernels::{Precision, Weights, attention, norm, rope, stream, swiglu};
use std::ops::Range;

/// A block at work on a number of rows.
#[derive(Clone, Copy)]
pub(super) struct Pass<'a> {
    pub architecture: &'a Architecture,
    pub rope: &'a rope::Table,
    pub precision: Precision,
    /// The block's index.
    pub layer: usize,
    pub ranges: &'a Block,
    pub parameters: Part<'a>,
    /// Rows, `N`.
    pub rows: usize,
    /// Whether the bits of a row must not depend on the rows beside it.
    pub alone: bool,
}

/// What rows attend to.
pub(super) enum Sight<'a> {
    /// Earlier rows of their own window.
    Windows(Input<'a>),
    /// The positions in the cache of their own sequence, which they join.
    Caches(&'a Rows, &'a mut [Cache]),
}

impl Sight<'_> {
    /// Where the rows stand.
    pub fn positions(&self) -> rope::Positions<'_> {
        match self {
            Sight::Windows(input) => rope::Positions::Windows(input.length),
            Sight::Caches(rows, _) => rope::Positions::Rows(&rows.positions),
        }
    }
}

/// The part of a buffer that `rows` rows of `columns` take.
pub(super) fn cut(buffer: &mut [f32], rows: usize, columns: usize) -> &mut [f32] {
    &mut buffer[..rows * columns]
}

impl<'a> Pass<'a> {
    /// The parameters at `range`.
    pub fn get(&self, range: &Range<usize>) -> &'a [f32] {
        self.parameters.get(range)
    }

    /// The matrix at `range`.
    pub fn weights(&self, range: &Range<usize>) -> Weights<'a> {
        self.parameters.weights(range)
    }

    pub fn linear(&self, input: usize, output: usize) -> Linear {
        Linear { alone: self.alone, ..Linear::new(self.rows, input, output, self.precision) }
    }

    /// `x [N, D]` to `y [N, D]`; without `y` only what `saved` keeps is made.
    pub fn forward(
        &self,
        x: &[f32],
        y: Option<&mut [f32]>,
        sight: &mut Sight,
        saved: &mut Saved,
        scratch: &mut Scratch,
    ) {
        self.attention_forward(x, sight, saved, scratch);
        self.mlp_forward(y, saved, scratch);
    }

    /// `d [N, D]` comes in as the derivative of the block's output and leaves as that of its input `x`.
    pub fn backward(
        &self,
        input: Input,
        x: &[f32],
        d: &mut [f32],
        saved: &mut Saved,
        scratch: &mut Scratch,
        gradients: &mut [f32],
    ) {
        self.mlp_backward(d, saved, scratch, gradients);
        self.attention_backward(input, x, d, saved, scratch, gradients);
    }

    fn attention_forward(&self, x: &[f32], sight: &mut Sight, saved: &mut Saved, scratch: &mut Scratch) {
        let Pass { architecture, ranges, rows, .. } = *self;
        let (attended_width, width) = (architecture.attended_width(), architecture.width);
        let read = self.read(
            &ranges.attention_norm,
            x,
            &mut scratch.normed,
            cut(&mut saved.attention_inverse, rows, 1),
        );
        self.attend(read, sight, saved, &mut scratch.kv);
        let output = self.linear(attended_width, width);
        let [output_range, norm_range] = [&ranges.attention_output, &ranges.attention_norm];
        let Saved { attended, attention_output, attention_inverse, middle, .. } = saved;
        self.join(
            (output, cut(attended, rows, attended_width), output_range),
            norm_range,
            x,
            attention_output,
            cut(attention_inverse, rows, 1),
            &mut scratch.normed,
            Some(cut(middle, rows, width)),
        );
    }

    /// `saved.attended` from what attention reads; `kv` is scratch.
    fn attend(&self, read: &[f32], sight: &mut Sight, saved: &mut Saved, kv: &mut [f32]) {
        let Pass { architecture, rows, .. } = *self;
        let positions = sight.positions();
        let is_latent = matches!(architecture.attention, Attention::Latent { .. });
        if is_latent {
            mla::reduce(self, read, positions, saved);
        } else {
            gqa::project(self, read, positions, saved);
        }
        match sight {
            Sight::Windows(input) => {
                if is_latent {
                    mla::expand(self, saved, kv);
                }
                self.attention(*input).forward(
                    cut(&mut saved.qkv, rows, architecture.qkv_width()),
                    input.starts,
                    cut(&mut saved.attended, rows, architecture.attended_width()),
                    cut(&mut saved.lse, rows, architecture.heads),
                );
            }
            Sight::Caches(rows, caches) if is_latent => mla::attend_cached(self, rows, caches, saved),
            Sight::Caches(rows, caches) => gqa::attend_cached(self, rows, caches, saved),
        }
    }

    fn mlp_forward(&self, y: Option<&mut [f32]>, saved: &mut Saved, scratch: &mut Scratch) {
        let Pass { architecture, ranges, rows, .. } = *self;
        let Architecture { width, mlp_width, norms, .. } = *architecture;
        let Saved { middle, mlp_inverse, gate_up, mlp_output, .. } = saved;
        let (middle, mlp_inverse) = (cut(middle, rows, width), cut(mlp_inverse, rows, 1));
        let gate_up = cut(gate_up, rows, 2 * mlp_width);
        let read = self.read(&ranges.mlp_norm, middle, &mut scratch.normed, mlp_inverse);
        self.linear(width, 2 * mlp_width).forward(
            read,
            self.weights(&ranges.gate_up),
            gate_up,
            Write::Replace,
        );
        if y.is_none() && norms == NormPlace::Before {
            return;
        }
        let mlp = cut(&mut scratch.mlp, rows, mlp_width);
        swiglu::forward(gate_up, mlp_width, mlp);
        self.join(
            (self.linear(mlp_width, width), mlp, &ranges.down),
            &ranges.mlp_norm,
            middle,
            mlp_output,
            mlp_inverse,
            &mut scratch.normed,
            y,
        );
    }

    /// What attention or MLP reads of the stream `x`.
    fn read<'b>(
        &self,
        norm: &Range<usize>,
        x: &'b [f32],
        normed: &'b mut [f32],
        inverse: &mut [f32],
    ) -> &'b [f32] {
        let Architecture { width, norms, norm_epsilon, .. } = *self.architecture;
        if norms == NormPlace::After {
            return x;
        }
        let normed = cut(normed, self.rows, width);
        norm::forward(x, self.get(norm), norm_epsilon, normed, inverse);
        normed
    }

    /// `y`, the stream behind attention or MLP: `x` and what the last product makes of its input. Where norms stand
    /// after, `output` and `inverse` keep what the backward pass needs.
    #[allow(clippy::too_many_arguments, reason = "the product, the stream before and after, what is kept")]
    fn join(
        &self,
        (product, input, matrix): (Linear, &[f32], &Range<usize>),
        norm: &Range<usize>,
        x: &[f32],
        output: &mut [f32],
        inverse: &mut [f32],
        normed: &mut [f32],
        y: Option<&mut [f32]>,
    ) {
        let Architecture { width, norms, norm_epsilon, .. } = *self.architecture;
        match norms {
            NormPlace::Before => {
                if let Some(y) = y {
                    y.copy_from_slice(x);
                    product.forward(input, self.weights(matrix), y, Write::Add);
                }
            }
            NormPlace::After => {
                let (output, normed) = (cut(output, self.rows, width), cut(normed, self.rows, width));
                product.forward(input, self.weights(matrix), output, Write::Replace);
                norm::forward(output, self.get(norm), norm_epsilon, normed, inverse);
                if let Some(y) = y {
                    y.copy_from_slice(x);
                    stream::add(y, normed);
                }
            }
        }
    }

    fn mlp_backward(&self, d: &mut [f32], saved: &mut Saved, scratch: &mut Scratch, gradients: &mut [f32]) {
        let Pass { architecture, ranges, rows, .. } = *self;
        let Architecture { width, mlp_width, .. } = *architecture;
        let Saved { middle, mlp_inverse, gate_up, mlp_output, .. } = saved;
        let (middle, inverse) = (cut(middle, rows, width), cut(mlp_inverse, rows, 1));
        let gate_up = cut(gate_up, rows, 2 * mlp_width);
        let (mlp, d_normed) = (cut(&mut scratch.mlp, rows, mlp_width), &mut scratch.d_normed);

        let d_output = self.join_backward(&ranges.mlp_norm, d, mlp_output, inverse, d_normed, gradients);
        let down = self.linear(mlp_width, width);
        swiglu::forward(gate_up, mlp_width, mlp);
        down.backward_parameters(d_output, mlp, &mut gradients[ranges.down.clone()]);
        down.backward_input(d_output, self.get(&ranges.down), mlp);
        swiglu::backward(gate_up, mlp_width, mlp);

        let up = self.linear(width, 2 * mlp_width);
        let read = self.read_again(&ranges.mlp_norm, middle, inverse, &mut scratch.normed);
        up.backward_parameters(gate_up, read, &mut gradients[ranges.gate_up.clone()]);
        let d_read = cut(d_normed, rows, width);
        up.backward_input(gate_up, self.get(&ranges.gate_up), d_read);
        self.read_backward(&ranges.mlp_norm, middle, inverse, d_read, d, gradients);
    }

    fn attention_backward(
        &self,
        input: Input,
        x: &[f32],
        d: &mut [f32],
        saved: &mut Saved,
        scratch: &mut Scratch,
        gradients: &mut [f32],
    ) {
        let Pass { architecture, ranges, rows, .. } = *self;
        let (attended_width, width) = (architecture.attended_width(), architecture.width);
        let (qkv_width, heads) = (architecture.qkv_width(), architecture.heads);
        let Scratch { normed, kv, d_normed, d_attended, d_qkv, d_latent, .. } = scratch;
        let (d_attended, d_qkv) = (cut(d_attended, rows, attended_width), cut(d_qkv, rows, qkv_width));

        let attended = &saved.attended[..rows * attended_width];
        let d_output = self.join_backward(
            &ranges.attention_norm,
            d,
            &saved.attention_output,
            &saved.attention_inverse[..rows],
            d_normed,
            gradients,
        );
        let output = self.linear(attended_width, width);
        output.backward_parameters(d_output, attended, &mut gradients[ranges.attention_output.clone()]);
        output.backward_input(d_output, self.get(&ranges.attention_output), d_attended);
        self.attention(input).backward(
            &saved.qkv[..rows * qkv_width],
            input.starts,
            attended,
            &saved.lse[..rows * heads],
            d_attended,
            d_qkv,
        );

        let inverse = &saved.attention_inverse[..rows];
        let read = self.read_again(&ranges.attention_norm, x, inverse, normed);
        let d_read = cut(d_normed, rows, width);
        match architecture.attention {
            Attention::Grouped { .. } => {
                gqa::project_backward(self, read, input.length, saved, d_qkv, d_read, gradients);
            }
            Attention::Latent { .. } => {
                let d_latent = cut(d_latent, rows, architecture.latent_width());
                mla::backward(self, read, input.length, saved, (d_qkv, kv, d_latent), d_read, gradients);
            }
        }
        let inverse = &saved.attention_inverse[..rows];
        self.read_backward(&ranges.attention_norm, x, inverse, d_read, d, gradients);
    }

    /// What [`Pass::read`] gave, once more.
    fn read_again<'b>(
        &self,
        norm: &Range<usize>,
        x: &'b [f32],
        inverse: &[f32],
        normed: &'b mut [f32],
    ) -> &'b [f32] {
        if self.architecture.norms == NormPlace::After {
            return x;
        }
        let normed = cut(normed, self.rows, self.architecture.width);
        norm::again(x, self.get(norm), inverse, normed);
        normed
    }

    /// Adds to `d`, the derivative of the stream, what comes back through [`Pass::read`].
    fn read_backward(
        &self,
        norm: &Range<usize>,
        x: &[f32],
        inverse: &[f32],
        d_read: &[f32],
        d: &mut [f32],
        gradients: &mut [f32],
    ) {
        match self.architecture.norms {
            NormPlace::Before => {
                let d_gain = &mut gradients[norm.clone()];
                norm::backward(x, self.get(norm), inverse, d_read, d, d_gain);
            }
            NormPlace::After => stream::add(d, d_read),
        }
    }

    /// The derivative of the last product's result, given `d`, that of the stream behind [`Pass::join`].
    fn join_backward<'b>(
        &self,
        norm: &Range<usize>,
        d: &'b [f32],
        output: &[f32],
        inverse: &[f32],
        d_output: &'b mut [f32],
        gradients: &mut [f32],
    ) -> &'b [f32] {
        let Architecture { width, norms, .. } = *self.architecture;
        if norms == NormPlace::Before {
            return d;
        }
        let d_output = cut(d_output, self.rows, width);
        d_output.fill(0.0);
        let output = &output[..self.rows * width];
        norm::backward(output, self.get(norm), inverse, d, d_output, &mut gradients[norm.clone()]);
        d_output
    }

    fn attention(&self, input: Input) -> attention::Attention {
        attention::Attention { windows: self.rows / input.length, length: input.length, ..self.shape() }
    }

    /// Attention's shapes for a single row.
    pub fn shape(&self) -> attention::Attention {
        attention::Attention {
            windows: 1,
            length: 1,
            heads: self.architecture.heads,
            kv_heads: self.architecture.kv_heads(),
            qk_width: self.architecture.qk_width(),
            v_width: self.architecture.v_width(),
            scale: self.architecture.attention_scale(),
            precision: self.precision,
        }
    }
}
