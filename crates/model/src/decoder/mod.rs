//! The decoder: forward over windows, and backward from the derivative of what the head reads.
//!
//! Here the stream goes from block to block; [`block`] is what one block does to it, [`gqa`] and [`mla`] how it makes
//! queries, keys and values. [`storage`] says where the parameters are, [`cache`] what generation keeps.

mod block;
mod cache;
mod gqa;
mod mla;
mod storage;

use crate::layout::Layout;
use crate::workspace::{Keep, Workspace};
use crate::{Architecture, Error};
use block::{Pass, Sight};
pub(crate) use cache::{Cache, Rows};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use remit_kernels::head::Head;
use remit_kernels::{Precision, Weights, embedding, norm, rope};
pub(crate) use storage::WithRounded;
pub(crate) use storage::read_entries;
pub use storage::{FrozenParameters, MappedParameters, Part, RoundedParameters, Storage};

/// A decoder and its parameters: its own, or those of a [`Frozen`] one.
#[derive(Clone, Debug)]
pub struct Decoder<P = Vec<f32>> {
    architecture: Architecture,
    layout: Layout,
    /// Every parameter, in the order of [`Decoder::layout`].
    pub parameters: P,
    rope: rope::Table,
    /// Arithmetic of the products.
    pub precision: Precision,
}

/// A decoder that is only read: it scores and generates, and may leave its parameters in the files they came from.
pub type Frozen = Decoder<FrozenParameters>;

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
        let Decoder { architecture, layout, parameters, .. } = &mut decoder;
        let mut rest = &mut parameters[..];
        let mut tensors = Vec::new();
        for entry in layout.entries() {
            let (values, behind) = rest.split_at_mut(entry.range.len());
            tensors.push((entry, values));
            rest = behind;
        }
        tensors.into_par_iter().for_each(|(entry, values)| {
            if entry.shape.len() == 1 {
                return values.fill(1.0);
            }
            let is_embedding = entry.range == layout.embedding;
            let deviation =
                if is_embedding { architecture.embedding_deviation } else { architecture.initial_deviation };
            let stream =
                blake3::Hasher::new().update(&seed.to_le_bytes()).update(entry.name.as_bytes()).finalize();
            fill_normal(values, deviation, &mut ChaCha8Rng::from_seed(*stream.as_bytes()));
        });
        decoder
    }

    /// The head's matrix, `[V, D]`.
    pub fn head_parameters(&self) -> &[f32] {
        &self.parameters[self.layout.head.clone()]
    }

    /// A decoder whose parameters are all zero, to be filled from a file.
    pub(crate) fn zeroed(architecture: Architecture) -> Decoder {
        let layout = architecture.family.layout(&architecture);
        let parameters = vec![0.0; layout.len()];
        Decoder::from_parts(architecture, layout, parameters)
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
        for layer in (0..layers).rev() {
            let slot = workspace.slot(layer);
            let Workspace { keep, streams, saved, scratch, parameters, .. } = workspace;
            let (x, saved) = (&streams[layer][..rows * width], &mut saved[slot]);
            let pass = self.pass(layer, rows, parameters);
            if *keep == Keep::BlockInputs {
                pass.forward(x, None, &mut Sight::Windows(input), saved, scratch);
            }
            pass.backward(input, x, d, saved, scratch, gradients);
        }
        embedding::backward(input.ids, d, width, &mut gradients[self.layout.embedding.clone()]);
        workspace.scratch.d_stream = d_stream;
    }
}

impl From<Decoder> for Frozen {
    fn from(decoder: Decoder) -> Frozen {
        let Decoder { architecture, layout, parameters, rope, precision } = decoder;
        Decoder { architecture, layout, parameters: FrozenParameters::Owned(parameters), rope, precision }
    }
}

impl<P> Decoder<P> {
    /// A decoder of parameters in the order of `layout`, which is the architecture's.
    pub(crate) fn from_parts(architecture: Architecture, layout: Layout, parameters: P) -> Decoder<P> {
        let rope = rope_table(&architecture, 0);
        Decoder { architecture, layout, parameters, rope, precision: Precision::F32 }
    }

    /// The same with parameters that lie elsewhere, in the same order.
    pub(crate) fn with_parameters<Q>(&self, parameters: Q) -> Decoder<Q> {
        let Decoder { architecture, layout, rope, precision, .. } = self;
        let (architecture, layout, rope) = (architecture.clone(), layout.clone(), rope.clone());
        Decoder { architecture, layout, parameters, rope, precision: *precision }
    }

    /// Its switches.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// Lets generation stop at further tokens: see [`Architecture::add_end_tokens`].
    pub fn add_end_tokens(&mut self, tokens: &[u32]) {
        self.architecture.add_end_tokens(tokens);
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

    /// Makes rotations for windows of up to `length` positions, or says that the model does not allow them.
    pub fn allow_length(&mut self, length: usize) -> Result<(), Error> {
        self.architecture.check_length(length)?;
        if length > self.rope.positions() {
            self.rope = rope_table(&self.architecture, length);
        }
        Ok(())
    }

    fn check(&self, input: Input, workspace: &Workspace) -> usize {
        let rows = input.ids.len();
        assert!(rows > 0 && rows.is_multiple_of(input.length), "whole windows");
        assert!(rows <= workspace.rows, "{rows} rows in a workspace for {}", workspace.rows);
        assert!(input.length <= self.rope.positions(), "`allow_length` comes first");
        rows
    }
}

impl<P: Storage> Decoder<P> {
    /// The head's matrix, `[V, D]`, as products read it.
    pub fn head_weights(&self) -> Weights<'_> {
        self.parameters.head(&self.layout)
    }

    /// Runs the windows through all blocks; returns what the head reads, `[N, D]`.
    ///
    /// # Panics
    /// When the workspace is too small, [`Decoder::allow_length`] was not called for this length, or an id lies
    /// beyond the vocabulary.
    pub fn forward<'w>(&self, input: Input, workspace: &'w mut Workspace) -> &'w [f32] {
        self.check(input, workspace);
        self.run(input.ids, Sight::Windows(input), workspace)
    }

    /// Runs rows of many sequences through all blocks, where they join what earlier passes left in `caches`; returns what
    /// the head reads, `[N, D]`. The bits of a row depend on its sequence alone, not on the rows beside it.
    ///
    /// # Panics
    /// As [`Decoder::forward`], and when a cache has no room.
    pub(crate) fn advance<'w>(
        &self,
        rows: &Rows,
        caches: &mut [Cache],
        workspace: &'w mut Workspace,
    ) -> &'w [f32] {
        let length = rows.positions.iter().max().map_or(0, |last| last + 1);
        assert!(length <= self.rope.positions(), "`allow_length` comes first");
        assert!(rows.ids.len() <= workspace.rows, "{} rows, room for {}", rows.ids.len(), workspace.rows);
        self.run(&rows.ids, Sight::Caches(rows, caches), workspace)
    }

    fn run<'w>(&self, ids: &[u32], mut sight: Sight, workspace: &'w mut Workspace) -> &'w [f32] {
        let (rows, width) = (ids.len(), self.architecture.width);
        let streams = workspace.streams.len();
        let alone = matches!(sight, Sight::Caches(..));
        self.parameters.embed(&self.layout, ids, width, &mut workspace.streams[0][..rows * width]);
        for layer in 0..self.layout.blocks.len() {
            let slot = workspace.slot(layer);
            let Workspace { streams: all, saved, scratch, parameters, .. } = workspace;
            let [x, y] = all
                .get_disjoint_mut([layer % streams, (layer + 1) % streams])
                .expect("there are at least two streams");
            let (x, y) = (&x[..rows * width], &mut y[..rows * width]);
            let pass = Pass { alone, ..self.pass(layer, rows, parameters) };
            pass.forward(x, Some(y), &mut sight, &mut saved[slot], scratch);
        }
        let last = &workspace.streams[self.layout.blocks.len() % streams][..rows * width];
        let hidden = &mut workspace.hidden[..rows * width];
        norm::forward(
            last,
            self.parameters.final_norm(&self.layout),
            self.architecture.norm_epsilon,
            hidden,
            &mut workspace.final_inverse[..rows],
        );
        &workspace.hidden[..rows * width]
    }

    fn pass<'a>(&'a self, layer: usize, rows: usize, buffer: &'a mut Vec<f32>) -> Pass<'a> {
        Pass {
            architecture: &self.architecture,
            rope: &self.rope,
            precision: self.precision,
            layer,
            ranges: &self.layout.blocks[layer],
            parameters: self.parameters.block(&self.layout, layer, buffer),
            rows,
            alone: false,
        }
    }
}

fn rope_table(architecture: &Architecture, positions: usize) -> rope::Table {
    let frequencies = architecture.rope.frequencies(architecture.rope_width());
    rope::Table::new(&frequencies, positions, architecture.rope.pairing)
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
