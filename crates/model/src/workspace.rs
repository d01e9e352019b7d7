//! The buffers of forward and backward passes, made once and used for every step.

use crate::Architecture;

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

/// What one block's forward pass leaves to its backward pass. `N` rows each.
#[derive(Debug)]
pub(crate) struct Saved {
    /// `1 / rms` in front of attention, `[N]`.
    pub attention_inverse: Vec<f32>,
    /// `[N, H*E + 2*K*E]`, queries and keys turned.
    pub qkv: Vec<f32>,
    /// `[N, H*E]`.
    pub attended: Vec<f32>,
    /// `[W, H, T]`.
    pub lse: Vec<f32>,
    /// The residual stream between attention and MLP, `[N, D]`.
    pub middle: Vec<f32>,
    /// `1 / rms` in front of the MLP, `[N]`.
    pub mlp_inverse: Vec<f32>,
    /// `[N, 2F]`.
    pub gate_up: Vec<f32>,
}

/// What a pass needs for a moment only.
#[derive(Debug)]
pub(crate) struct Scratch {
    /// `[N, D]`.
    pub normed: Vec<f32>,
    /// `[N, F]`.
    pub mlp: Vec<f32>,
    /// `[N, D]`; empty without a backward pass, as are those below.
    pub d_normed: Vec<f32>,
    /// `[N, H*E]`.
    pub d_attended: Vec<f32>,
    /// `[N, H*E + 2*K*E]`.
    pub d_qkv: Vec<f32>,
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
}

impl Workspace {
    /// For batches of up to `rows` rows.
    pub fn new(architecture: &Architecture, rows: usize, keep: Keep) -> Workspace {
        let Architecture { width, layers, heads, head_width, mlp_width, .. } = *architecture;
        let zeros = |columns: usize| vec![0.0; rows * columns];
        let back = |columns: usize| if keep == Keep::Nothing { Vec::new() } else { zeros(columns) };
        let saved = || Saved {
            attention_inverse: zeros(1),
            qkv: zeros(architecture.qkv_width()),
            attended: zeros(heads * head_width),
            lse: zeros(heads),
            middle: zeros(width),
            mlp_inverse: zeros(1),
            gate_up: zeros(2 * mlp_width),
        };
        Workspace {
            keep,
            rows,
            streams: (0..if keep == Keep::Nothing { 2 } else { layers + 1 }).map(|_| zeros(width)).collect(),
            saved: (0..if keep == Keep::Everything { layers } else { 1 }).map(|_| saved()).collect(),
            scratch: Scratch {
                normed: zeros(width),
                mlp: zeros(mlp_width),
                d_normed: back(width),
                d_attended: back(heads * head_width),
                d_qkv: back(architecture.qkv_width()),
                d_stream: back(width),
            },
            final_inverse: zeros(1),
            hidden: zeros(width),
        }
    }

    /// Bytes that [`Workspace::new`] would take, without the head's buffer.
    pub fn bytes(architecture: &Architecture, rows: usize, keep: Keep) -> u64 {
        let Architecture { width, layers, heads, head_width, mlp_width, .. } = *architecture;
        let attended = heads * head_width;
        let saved = 2 + architecture.qkv_width() + attended + heads + width + 2 * mlp_width;
        let scratch = width + mlp_width + 1 + width;
        let backward = 2 * width + attended + architecture.qkv_width();
        let columns = match keep {
            Keep::Everything => (layers + 1) * width + layers * saved + scratch + backward,
            Keep::BlockInputs => (layers + 1) * width + saved + scratch + backward,
            Keep::Nothing => 2 * width + saved + scratch,
        };
        (columns * rows * size_of::<f32>()) as u64
    }

    /// The index of a block's kept values.
    pub(crate) fn slot(&self, layer: usize) -> usize {
        if self.keep == Keep::Everything { layer } else { 0 }
    }
}
