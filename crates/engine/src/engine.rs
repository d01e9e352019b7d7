//! The boundary.

use crate::{Available, Error, Precision, Refusal};
use remit_batch::{Batch, Rule};
use remit_model::Architecture;
use remit_model::generate::{Completion, Request, Settings as Generation, Watch};
use remit_objective::{Denominator, Distance, Distillation, DistillationSums};
use remit_optim::{AdamW, WeightDecayRule};
use remit_store::tensors::FileDtype;
use std::path::{Path, PathBuf};

/// A model that an engine holds, until [`Engine::close`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModelId(pub u32);

/// The learner, while there is one.
pub const LEARNER: ModelId = ModelId(0);

/// How a model will be used, told once when it is opened.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Usage {
    /// Predictions of the largest batch. The buffers for it are made once; a larger batch makes them anew.
    pub rows: usize,
    /// Predictions of the longest window.
    pub length: usize,
    /// What the logits are divided by before anything is made of them. [`Engine::generate`] has its own.
    pub temperature: f32,
    /// Arithmetic of matrix products. Parameters, gradients and sums are float32 in any case.
    pub precision: Precision,
}

impl Default for Usage {
    /// Nothing is known about batches; temperature 1.
    fn default() -> Usage {
        Usage { rows: 0, length: 0, temperature: 1.0, precision: Precision::F32 }
    }
}

/// How a gradient is made and becomes an update.
#[derive(Clone, Debug, PartialEq)]
pub struct Learning {
    /// The optimiser.
    pub optimizer: AdamW,
    /// Which parameters decay.
    pub decay: WeightDecayRule,
    /// Bound of the gradient's global norm; 0 for none.
    pub clip_norm: f64,
    /// Whether only the inputs of blocks are kept for the backward pass.
    pub recompute: bool,
    /// Tokens that end what the learner writes, beside those that its checkpoint names.
    pub end_tokens: Vec<u32>,
}

/// What a learner begins as.
#[derive(Clone, Debug, PartialEq)]
pub enum Origin {
    /// Random parameters; each tensor's follow from the seed and its name.
    Fresh {
        /// Its switches.
        architecture: Box<Architecture>,
        /// The seed.
        seed: u64,
    },
    /// A checkpoint, with its exact parameters where they lie beside rounded ones.
    Checkpoint {
        /// The directory.
        path: PathBuf,
        /// How many updates have made the moments that lie beside it; `None` for fresh moments.
        moments: Option<u64>,
    },
}

/// Which predictions of a batch are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Predictions {
    /// All, `[W, T]`.
    All,
    /// Those whose mask is true, in order. The others cost no logits.
    Unmasked,
}

/// How the learner is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Numbers in `model.safetensors`. Where they are rounded, the exact ones go beside them.
    pub dtype: FileDtype,
    /// Bytes after which a further file is begun; one file when absent.
    pub max_shard_bytes: Option<u64>,
}

/// A tensor by its Hugging Face name.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its values, row-major.
    pub values: Vec<f32>,
}

/// Where models run. At most one of them is the *learner*, the others are read only.
///
/// Shapes: `W` windows, `T` predictions a window, `[W, T]` row-major. Log-probabilities are in nats, at the model's
/// [`Usage::temperature`]. A call may be a message to another process: those marked *slow* read or write files or take
/// as long as a pass over the model's parameters, the others as long as one batch.
///
/// An engine is deterministic: the same calls give the same bits, whatever the number of threads, unless its
/// documentation says where not.
///
/// # Errors
/// An [`Error`] is a user's: a file, a setting, a model that does not allow what is asked, a worker that is gone. An
/// unknown [`ModelId`], a call about the learner where there is none, or windows of another length than [`Batch`]
/// promises are ours, and panic.
pub trait Engine: std::fmt::Debug {
    /// Opens a checkpoint to read it only. *Slow.*
    ///
    /// # Errors
    /// A checkpoint that cannot be read; windows longer than the model allows.
    fn open(&mut self, checkpoint: &Path, usage: &Usage) -> Result<ModelId, Error>;

    /// Makes or opens the learner, which is [`LEARNER`] from then on. *Slow.*
    ///
    /// # Errors
    /// As [`Engine::open`]; moments that do not fit; a rule of decay that names no parameter.
    fn learn(&mut self, origin: &Origin, learning: &Learning, usage: &Usage) -> Result<(), Error>;

    /// What it is, in words for the record of a run; nothing where that makes no difference to a result, as in the
    /// engine of this process with `f32`.
    fn about(&self) -> Option<String> {
        None
    }

    /// The memory that there is for models, where it is known. An engine elsewhere has memory of its own.
    fn available_memory(&self) -> Option<Available> {
        None
    }

    /// Forgets a model.
    fn close(&mut self, model: ModelId);

    /// Forgets all models.
    fn clear(&mut self);

    /// A model's switches.
    fn architecture(&self, model: ModelId) -> &Architecture;

    /// The log-probability of the targets of a batch.
    ///
    /// # Errors
    /// Windows longer than the model allows.
    fn log_probs(
        &mut self,
        model: ModelId,
        batch: &Batch,
        predictions: Predictions,
    ) -> Result<Vec<f32>, Error>;

    /// How far the distributions over the vocabulary of two models that are only read are apart, at the predictions whose mask is true, in
    /// order. Logits stay inside the engine.
    ///
    /// # Errors
    /// As [`Engine::log_probs`].
    ///
    /// # Panics
    /// When the vocabularies differ in size.
    fn distances(
        &mut self,
        model: ModelId,
        reference: ModelId,
        batch: &Batch,
    ) -> Result<Vec<Distance>, Error>;

    /// Continues every request; completions come in the order of the requests. What becomes of a request depends on its
    /// prompt, its seed and the settings alone. `watch` is asked after every token. *Slow.*
    ///
    /// # Errors
    /// Requests that the model does not allow; settings that make no sense; logits that are not finite.
    fn generate(
        &mut self,
        model: ModelId,
        requests: &[Request],
        settings: &Generation,
        watch: &mut dyn Watch,
    ) -> Result<Vec<Completion>, Error>;

    /// Begins a step: forgets the gradient of the step before.
    fn begin(&mut self);

    /// Adds the gradient of one micro-batch. `rule` is asked once for each row, `grain` rows or a multiple of it at a
    /// time.
    ///
    /// # Errors
    /// [`Refusal::Loss`] when an unmasked log-probability is not finite. The gradient is of no use then, parameters and
    /// moments are as they were.
    fn accumulate(&mut self, batch: &Batch, grain: usize, rule: &mut dyn Rule) -> Result<(), Refusal>;

    /// Adds the gradient of one micro-batch of distillation from `teacher`, and returns the sums of its unmasked rows.
    /// Logits stay inside the engine.
    ///
    /// # Errors
    /// [`Refusal::Loss`] when a sum is not finite.
    ///
    /// # Panics
    /// When the vocabularies differ in size.
    fn distill(
        &mut self,
        batch: &Batch,
        teacher: ModelId,
        rule: &Distillation,
        denominator: Denominator,
    ) -> Result<DistillationSums, Refusal>;

    /// Clips the gradient and takes an optimiser step. Returns the gradient's global norm before clipping.
    ///
    /// # Errors
    /// [`Refusal::Gradient`] when it is not finite; parameters and moments are as they were.
    fn update(&mut self, learning_rate: f64) -> Result<f64, Refusal>;

    /// Updates that have made the learner's moments.
    fn updates(&self) -> u64;

    /// The gradient that has been accumulated, a tensor a parameter. *Slow*; for checks.
    ///
    /// # Errors
    /// An engine that fails.
    fn gradients(&mut self) -> Result<Vec<Tensor>, Error>;

    /// Writes the learner into `directory`, which exists: the model in Hugging Face layout, and in `state/` what is
    /// needed to go on exactly (see [`crate::state`]). Making it appear at once is the caller's business. *Slow.*
    ///
    /// # Errors
    /// Files that cannot be written.
    fn save(&mut self, directory: &Path, snapshot: &Snapshot) -> Result<(), Error>;
}
