//! The decoder: forward over windows, and backward from the derivative of what the head reads.

use crate::layout::{Block, Layout};
use crate::workspace::{Keep, Saved, Scratch, Workspace};
use crate::{Architecture, Error};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use remit_kernels::attention::Attention;
use remit_kernels::head::Head;
use remit_kernels::linear::Linear;
use remit_kernels::matmul::Write;
use remit_kernels::rope::{self, Turn};
use remit_kernels::{Precision, embedding, norm, swiglu};

/// A decoder and its parameters.
#[derive(Clone, Debug)]
pub struct Decoder {
    architecture: Architecture,
    layout: Layout,
    /// Every parameter, in the order of [`Decoder::layout`].
    pub parameters: Vec<f32>,
    rope: rope::Table,
    /// Arithmetic of the products.
    pub precision: Precision,
}

/// What a forward pass reads.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// Token ids, `[W, T]`.
    pub ids: &'a [u32],
    /// Positions a window, `T`.
    pub length: usize,
    /// First position each row may attend to, `[W, T]`; `None` when documents see one another.
    pub starts: Option<&'a [u32]>,
}

impl Decoder {
    /// A decoder with fresh parameters: norms at one, everything else normal with the configured deviation. Each
    /// tensor draws from its own stream, so its values depend on the seed and its name only.
    pub fn fresh(architecture: Architecture, seed: u64) -> Decoder {
        let mut decoder = Decoder::zeroed(architecture);
        let deviation = decoder.architecture.initial_deviation;
        for entry in decoder.layout.entries() {
            let values = &mut decoder.parameters[entry.range.clone()];
            if entry.shape.len() == 1 {
                values.fill(1.0);
            } else {
                let stream = blake3::Hasher::new()
                    .update(&seed.to_le_bytes())
                    .update(entry.name.as_bytes())
                    .finalize();
                fill_normal(values, deviation, &mut ChaCha8Rng::from_seed(*stream.as_bytes()));
            }
        }
        decoder
    }

    /// A decoder whose parameters are all zero, to be filled from a file.
    pub(crate) fn zeroed(architecture: Architecture) -> Decoder {
        let layout = architecture.family.layout(&architecture);
        let parameters = vec![0.0; layout.len()];
        let rope = rope::Table::new(&architecture.rope.frequencies(architecture.head_width), 0);
        Decoder { architecture, layout, parameters, rope, precision: Precision::F32 }
    }

    /// Its switches.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// Where its parameters lie.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The head's shapes.
    pub fn head(&self) -> Head {
        Head {
            width: self.architecture.width,
            vocab: self.architecture.vocab_size,
            precision: self.precision,
        }
    }

    /// The head's matrix, `[V, D]`.
    pub fn head_parameters(&self) -> &[f32] {
        &self.parameters[self.layout.head.clone()]
    }

    /// Makes rotations for windows of up to `length` positions, or says that the model does not allow them.
    pub fn allow_length(&mut self, length: usize) -> Result<(), Error> {
        let max_length = self.architecture.max_length;
        if length > max_length {
            return Err(Error::TooLong { length, max_length });
        }
        if length > self.rope.positions() {
            self.rope =
                rope::Table::new(&self.architecture.rope.frequencies(self.architecture.head_width), length);
        }
        Ok(())
    }

    /// Checks ids that come from outside.
    pub fn check_ids(&self, ids: &[u32]) -> Result<(), Error> {
        let vocab_size = self.architecture.vocab_size;
        match ids.iter().position(|&id| id as usize >= vocab_size) {
            Some(position) => Err(Error::TokenId { id: ids[position], position, vocab_size }),
            None => Ok(()),
        }
    }

    /// Runs the windows through all blocks; returns what the head reads, `[N, D]`.
    ///
    /// # Panics
    /// When the workspace is too small, [`Decoder::allow_length`] was not called for this length, or an id lies
    /// beyond the vocabulary.
    pub fn forward<'w>(&self, input: Input, workspace: &'w mut Workspace) -> &'w [f32] {
        let rows = self.check(input, workspace);
        let width = self.architecture.width;
        let streams = workspace.streams.len();
        embedding::forward(
            input.ids,
            &self.parameters[self.layout.embedding.clone()],
            width,
            &mut workspace.streams[0][..rows * width],
        );
        for (layer, block) in self.layout.blocks.iter().enumerate() {
            let slot = workspace.slot(layer);
            let [x, y] = workspace
                .streams
                .get_disjoint_mut([layer % streams, (layer + 1) % streams])
                .expect("there are at least two streams");
            let (saved, scratch) = (&mut workspace.saved[slot], &mut workspace.scratch);
            self.block_forward(
                block,
                input,
                &x[..rows * width],
                Some(&mut y[..rows * width]),
                saved,
                scratch,
            );
        }
        let last = &workspace.streams[self.layout.blocks.len() % streams][..rows * width];
        let gain = &self.parameters[self.layout.final_norm.clone()];
        let hidden = &mut workspace.hidden[..rows * width];
        norm::forward(
            last,
            gain,
            self.architecture.norm_epsilon,
            hidden,
            &mut workspace.final_inverse[..rows],
        );
        &workspace.hidden[..rows * width]
    }

    /// Adds to `gradients` (laid out as the parameters) what `d_hidden`, the derivative of the loss with respect to
    /// what [`Decoder::forward`] returned, makes of them. Must follow that forward pass on the same workspace.
    ///
    /// # Panics
    /// As [`Decoder::forward`], and when the workspace keeps nothing.
    pub fn backward(&self, input: Input, d_hidden: &[f32], workspace: &mut Workspace, gradients: &mut [f32]) {
        let rows = self.check(input, workspace);
        assert!(workspace.keep != Keep::Nothing, "a backward pass needs what the forward pass saw");
        let width = self.architecture.width;
        let layers = self.layout.blocks.len();
        let mut d_stream = std::mem::take(&mut workspace.scratch.d_stream);
        let d = &mut d_stream[..rows * width];
        d.fill(0.0);
        norm::backward(
            &workspace.streams[layers][..rows * width],
            &self.parameters[self.layout.final_norm.clone()],
            &workspace.final_inverse[..rows],
            d_hidden,
            d,
            &mut gradients[self.layout.final_norm.clone()],
        );
        for (layer, block) in self.layout.blocks.iter().enumerate().rev() {
            let slot = workspace.slot(layer);
            let x = &workspace.streams[layer][..rows * width];
            let (saved, scratch) = (&mut workspace.saved[slot], &mut workspace.scratch);
            if workspace.keep == Keep::BlockInputs {
                self.block_forward(block, input, x, None, saved, scratch);
            }
            self.block_backward(block, input, x, d, saved, scratch, gradients);
        }
        embedding::backward(input.ids, d, width, &mut gradients[self.layout.embedding.clone()]);
        workspace.scratch.d_stream = d_stream;
    }

    fn check(&self, input: Input, workspace: &Workspace) -> usize {
        let rows = input.ids.len();
        assert!(rows > 0 && rows.is_multiple_of(input.length), "whole windows");
        assert!(rows <= workspace.rows, "{rows} rows in a workspace for {}", workspace.rows);
        assert!(input.length <= self.rope.positions(), "`allow_length` comes first");
        rows
    }

    fn attention(&self, input: Input) -> Attention {
        let Architecture { heads, kv_heads, head_width, .. } = self.architecture;
        Attention {
            windows: input.ids.len() / input.length,
            length: input.length,
            heads,
            kv_heads,
            qk_width: head_width,
            v_width: head_width,
            scale: self.architecture.attention_scale(),
        }
    }

    pub(crate) fn linear(&self, rows: usize, input: usize, output: usize) -> Linear {
        Linear { rows, input, output, precision: self.precision }
    }

    pub(crate) fn rope_table(&self) -> &rope::Table {
        &self.rope
    }

    /// `x [N, D]` to `y [N, D]`; without `y` only what `saved` keeps is made.
    fn block_forward(
        &self,
        block: &Block,
        input: Input,
        x: &[f32],
        y: Option<&mut [f32]>,
        saved: &mut Saved,
        scratch: &mut Scratch,
    ) {
        let Architecture { width, heads, kv_heads, head_width, mlp_width, norm_epsilon, .. } =
            self.architecture;
        let (rows, qkv_width, attended_width) =
            (input.ids.len(), self.architecture.qkv_width(), heads * head_width);
        let parameters = |range: &std::ops::Range<usize>| &self.parameters[range.clone()];
        let normed = &mut scratch.normed[..rows * width];
        let qkv = &mut saved.qkv[..rows * qkv_width];
        let attended = &mut saved.attended[..rows * attended_width];
        let middle = &mut saved.middle[..rows * width];
        let gate_up = &mut saved.gate_up[..rows * 2 * mlp_width];

        norm::forward(
            x,
            parameters(&block.attention_norm),
            norm_epsilon,
            normed,
            &mut saved.attention_inverse[..rows],
        );
        self.linear(rows, width, qkv_width).forward(normed, parameters(&block.qkv), qkv, Write::Replace);
        rope::rotate(qkv, &self.rope, qkv_width, heads + kv_heads, input.length, 0, Turn::Forward);
        self.attention(input).forward(qkv, input.starts, attended, &mut saved.lse[..rows * heads]);
        middle.copy_from_slice(x);
        self.linear(rows, attended_width, width).forward(
            attended,
            parameters(&block.attention_output),
            middle,
            Write::Add,
        );

        norm::forward(
            middle,
            parameters(&block.mlp_norm),
            norm_epsilon,
            normed,
            &mut saved.mlp_inverse[..rows],
        );
        self.linear(rows, width, 2 * mlp_width).forward(
            normed,
            parameters(&block.gate_up),
            gate_up,
            Write::Replace,
        );
        if let Some(y) = y {
            let mlp = &mut scratch.mlp[..rows * mlp_width];
            swiglu::forward(gate_up, mlp_width, mlp);
            y.copy_from_slice(middle);
            self.linear(rows, mlp_width, width).forward(mlp, parameters(&block.down), y, Write::Add);
        }
    }

    /// `d [N, D]` comes in as the derivative of the block's output and leaves as that of its input `x`.
    #[allow(clippy::too_many_arguments, reason = "a block, its input, the derivative, three sets of buffers")]
    fn block_backward(
        &self,
        block: &Block,
        input: Input,
        x: &[f32],
        d: &mut [f32],
        saved: &mut Saved,
        scratch: &mut Scratch,
        gradients: &mut [f32],
    ) {
        let Architecture { width, heads, kv_heads, head_width, mlp_width, .. } = self.architecture;
        let (rows, qkv_width, attended_width) =
            (input.ids.len(), self.architecture.qkv_width(), heads * head_width);
        let parameters = |range: &std::ops::Range<usize>| &self.parameters[range.clone()];
        let normed = &mut scratch.normed[..rows * width];
        let d_normed = &mut scratch.d_normed[..rows * width];
        let mlp = &mut scratch.mlp[..rows * mlp_width];
        let middle = &saved.middle[..rows * width];
        let attended = &saved.attended[..rows * attended_width];

        let down = self.linear(rows, mlp_width, width);
        let gate_up = &mut saved.gate_up[..rows * 2 * mlp_width];
        swiglu::forward(gate_up, mlp_width, mlp);
        down.backward_parameters(d, mlp, &mut gradients[block.down.clone()]);
        down.backward_input(d, parameters(&block.down), mlp);
        swiglu::backward(gate_up, mlp_width, mlp);
        let up = self.linear(rows, width, 2 * mlp_width);
        norm::again(middle, parameters(&block.mlp_norm), &saved.mlp_inverse[..rows], normed);
        up.backward_parameters(gate_up, normed, &mut gradients[block.gate_up.clone()]);
        up.backward_input(gate_up, parameters(&block.gate_up), d_normed);
        norm::backward(
            middle,
            parameters(&block.mlp_norm),
            &saved.mlp_inverse[..rows],
            d_normed,
            d,
            &mut gradients[block.mlp_norm.clone()],
        );

        let output = self.linear(rows, attended_width, width);
        let d_attended = &mut scratch.d_attended[..rows * attended_width];
        let d_qkv = &mut scratch.d_qkv[..rows * qkv_width];
        output.backward_parameters(d, attended, &mut gradients[block.attention_output.clone()]);
        output.backward_input(d, parameters(&block.attention_output), d_attended);
        self.attention(input).backward(
            &saved.qkv[..rows * qkv_width],
            input.starts,
            attended,
            &saved.lse[..rows * heads],
            d_attended,
            d_qkv,
        );
        rope::rotate(d_qkv, &self.rope, qkv_width, heads + kv_heads, input.length, 0, Turn::Back);
        let project = self.linear(rows, width, qkv_width);
        norm::again(x, parameters(&block.attention_norm), &saved.attention_inverse[..rows], normed);
        project.backward_parameters(d_qkv, normed, &mut gradients[block.qkv.clone()]);
        project.backward_input(d_qkv, parameters(&block.qkv), d_normed);
        norm::backward(
            x,
            parameters(&block.attention_norm),
            &saved.attention_inverse[..rows],
            d_normed,
            d,
            &mut gradients[block.attention_norm.clone()],
        );
    }
}

/// Normal numbers by Box and Muller's transform, in pairs.
fn fill_normal(values: &mut [f32], deviation: f32, random: &mut ChaCha8Rng) {
    use rand::Rng;
    for pair in values.chunks_mut(2) {
        let radius = (-2.0 * (1.0 - random.random::<f64>()).ln()).sqrt();
        let (sin, cos) = (std::f64::consts::TAU * random.random::<f64>()).sin_cos();
        for (value, normal) in pair.iter_mut().zip([radius * cos, radius * sin]) {
            *value = (normal * f64::from(deviation)) as f32;
        }
    }
}
