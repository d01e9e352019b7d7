//! The buffers of forward and backward passes, made once and used for every step.

use crate::Architecture;
use crate::architecture::{Attention, NormPlace, QkNorm};

/// What a forward pass keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// All that the backward pass needs.
    Everything,
    /// The input of every block; the backward pass makes the rest again, block by block.
    BlockInputs,
    /// Nothing: there will be no backward pass.
    Nothing,
}

/// What one block's forward pass leaves to its backward pass. `N` rows each; empty where a family has no use for it.
#[derive(Debug)]
pub(crate) struct Saved {
    /// `1 / rms` of attention's norm, `[N]`.
    pub attention_inverse: Vec<f32>,
    /// What latent attention makes keys and values from, `[N, latent_width]`, normed and turned.
    pub latent: Vec<f32>,
    /// Queries and keys (or the rows that they are made from) as they were before their norm.
    pub kept: Vec<f32>,
    /// `1 / rms` of those norms.
    pub kept_inverse: Vec<f32>,
    /// Queries, keys and values, `[N, qkv_width]`, queries and keys normed and turned.
    pub qkv: Vec<f32>,
    /// `[N, H*Ev]`.
    pub attended: Vec<f32>,
    /// `[W, H, T]`.
    pub lse: Vec<f32>,
    /// What attention adds to the stream, before the norm behind it, `[N, D]`.
    pub attention_output: Vec<f32>,
    /// The residual stream between attention and MLP, `[N, D]`.
    pub middle: Vec<f32>,
    /// `1 / rms` of the MLP's norm, `[N]`.
    pub mlp_inverse: Vec<f32>,
    /// `[N, 2F]`.
    pub gate_up: Vec<f32>,
    /// What the MLP adds to the stream, before the norm behind it, `[N, D]`.
    pub mlp_output: Vec<f32>,
}

/// What a pass needs for a moment only.
#[derive(Debug)]
pub(crate) struct Scratch {
    /// `[N, D]`.
    pub normed: Vec<f32>,
    /// `[N, F]`.
    pub mlp: Vec<f32>,
    /// What latent attention expands to keys and values, and its derivative, `[N, H*(A+B)]`.
    pub kv: Vec<f32>,
    /// `[N, D]`; empty without a backward pass, as are those below.
    pub d_normed: Vec<f32>,
    /// `[N, H*Ev]`.
    pub d_attended: Vec<f32>,
    /// `[N, qkv_width]`.
    pub d_qkv: Vec<f32>,
    /// `[N, latent_width]`.
    pub d_latent: Vec<f32>,
    /// `[N, D]`, the derivative of the residual stream.
    pub d_stream: Vec<f32>,
}

/// Buffers for up to a number of rows.
#[derive(Debug)]
pub struct Workspace {
    pub(crate) keep: Keep,
    pub(crate) rows: usize,
    /// Block inputs `[N, D]`: all and the last output, or two that take turns.
    pub(crate) streams: Vec<Vec<f32>>,
    /// One a block, or one for all.
    pub(crate) saved: Vec<Saved>,
    pub(crate) scratch: Scratch,
    pub(crate) final_inverse: Vec<f32>,
    /// `[N, D]`, what the head reads.
    pub(crate) hidden: Vec<f32>,
    /// One block's parameters, where they have to be read from a file.
    pub(crate) parameters: Vec<f32>,
}

impl Workspace {
    /// For batches of up to `rows` rows.
    pub fn new(architecture: &Architecture, rows: usize, keep: Keep) -> Workspace {
        Workspace::with(architecture, rows, keep, &mut |columns| vec![0.0; rows * columns])
    }

    /// Bytes that [`Workspace::new`] would take, without the head's buffer.
    pub fn bytes(architecture: &Architecture, rows: usize, keep: Keep) -> u64 {
        let mut columns = 0;
        Workspace::with(architecture, rows, keep, &mut |more| {
            columns += more;
            Vec::new()
        });
        (columns * rows * size_of::<f32>()) as u64
    }

    /// The buffers as `make` makes each from its number of columns.
    fn with(
        architecture: &Architecture,
        rows: usize,
        keep: Keep,
        make: &mut dyn FnMut(usize) -> Vec<f32>,
    ) -> Workspace {
        let Architecture { width, layers, heads, mlp_width, .. } = *architecture;
        let (qkv_width, latent_width, attended_width) =
            (architecture.qkv_width(), architecture.latent_width(), architecture.attended_width());
        let output = if architecture.norms == NormPlace::After { width } else { 0 };
        let [kept, kept_inverse] = kept(architecture);
        let mut saved = || Saved {
            attention_inverse: make(1),
            latent: make(latent_width),
            kept: make(kept),
            kept_inverse: make(kept_inverse),
            qkv: make(qkv_width),
            attended: make(attended_width),
            lse: make(heads),
            attention_output: make(output),
            middle: make(width),
            mlp_inverse: make(1),
            gate_up: make(2 * mlp_width),
            mlp_output: make(output),
        };
        let saved = (0..if keep == Keep::Everything { layers } else { 1 }).map(|_| saved()).collect();
        let streams = (0..if keep == Keep::Nothing { 2 } else { layers + 1 }).map(|_| make(width)).collect();
        let [normed, mlp, kv] = [width, mlp_width, expanded_width(architecture)].map(&mut *make);
        let mut back = |columns: usize| if keep == Keep::Nothing { Vec::new() } else { make(columns) };
        let scratch = Scratch {
            normed,
            mlp,
            kv,
            d_normed: back(width),
            d_attended: back(attended_width),
            d_qkv: back(qkv_width),
            d_latent: back(latent_width),
            d_stream: back(width),
        };
        let (final_inverse, hidden) = (make(1), make(width));
        Workspace { keep, rows, streams, saved, scratch, final_inverse, hidden, parameters: Vec::new() }
    }

    /// The index of a block's kept values.
    pub(crate) fn slot(&self, layer: usize) -> usize {
        if self.keep == Keep::Everything { layer } else { 0 }
    }
}

/// Columns of [`Saved::kept`] and [`Saved::kept_inverse`].
fn kept(architecture: &Architecture) -> [usize; 2] {
    match architecture.attention {
        Attention::Grouped { kv_heads, head_width, norm } => {
            let heads = architecture.heads + kv_heads;
            match norm {
                QkNorm::None => [0, 0],
                QkNorm::PerHead => [heads * head_width, heads],
                QkNorm::Whole => [heads * head_width, 2],
            }
        }
        Attention::Latent { query_rank: Some(query_rank), rank, .. } => [query_rank + rank, 2],
        Attention::Latent { query_rank: None, rank, .. } => [rank, 1],
    }
}

/// Columns of [`Scratch::kv`].
fn expanded_width(architecture: &Architecture) -> usize {
    match architecture.attention {
        Attention::Grouped { .. } => 0,
        Attention::Latent { own, value, .. } => architecture.heads * (own + value),
    }
}
