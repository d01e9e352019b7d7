//! Settings of a training run, as a recipe's `[pretrain]`, `[midtrain]` or `[sft]` table writes them.

use crate::{Error, Health};
use remit_corpus::examples::Examples;
use remit_corpus::{Mixture, Share};
use remit_engine::{Learning, Precision};
use remit_model::Architecture;
use remit_model::families::{llama, olmo2, qwen3, smollm3, youtu};
use remit_objective::Objective;
use remit_optim::schedule::Kind;
use remit_optim::{AdamW, Schedule, WeightDecayRule};
use remit_store::tensors::FileDtype;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Which stage of the pipeline a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// From random parameters or a checkpoint, next-token prediction, learning rate constant after warm-up.
    Pretrain,
    /// From the pre-mid checkpoint, any objective, learning rate decaying to zero.
    Midtrain,
    /// From the mid-trained checkpoint, on what completions say to prompts.
    Sft,
}

impl Stage {
    /// The verb and the recipe's table.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Pretrain => "pretrain",
            Stage::Midtrain => "midtrain",
            Stage::Sft => "sft",
        }
    }

    /// The schedule where nothing is said.
    fn schedule(self) -> Schedule {
        match self {
            Stage::Pretrain => {
                Schedule { kind: Kind::Constant, warmup_fraction: Some(0.02), ..Schedule::default() }
            }
            Stage::Midtrain => Schedule { kind: Kind::Linear, ..Schedule::default() },
            Stage::Sft => Schedule { kind: Kind::Linear, warmup_fraction: Some(0.03), ..Schedule::default() },
        }
    }
}

/// Settings of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The run directory.
    pub run: PathBuf,
    /// Decides fresh parameters and the order of windows.
    pub seed: u64,
    /// A checkpoint, or a run directory whose latest checkpoint is meant, to start from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<PathBuf>,
    /// What becomes of the optimiser's moments in `from`.
    pub moments: Moments,
    /// Length of the run in optimiser steps; give one of `steps`, `tokens` and `epochs`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    /// Length of the run in predictions, rounded up to whole steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// Length of the run in passes over the data, rounded up to whole steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epochs: Option<f64>,
    /// Arithmetic of matrix products. Parameters, gradients and sums are float32 in any case.
    pub precision: Precision,
    /// Keep only the inputs of blocks and make the rest again in the backward pass: less memory, more time.
    pub recompute: bool,
    /// Bound of the gradient's global norm; 0 for none.
    pub clip_norm: f64,
    /// Factor of the mean squared logarithm of the softmax denominator; 0 for none.
    pub z_loss: f64,
    /// The model to begin with where there is no `from`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<Model>,
    /// What is trained on.
    pub data: Data,
    /// What is minimised.
    pub objective: Objective,
    /// Where the reference's log-probabilities come from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<ReferenceSettings>,
    /// The optimiser.
    pub optimizer: AdamW,
    /// Which parameters decay.
    pub decay: WeightDecayRule,
    /// The learning rate over time; the stage's own where nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// Evaluation on held-out text.
    pub held_out: HeldOut,
    /// When and how checkpoints are written.
    pub checkpoints: Checkpoints,
    /// What is looked at on the way, and what is done about it.
    #[serde(skip_serializing_if = "Health::is_default")]
    pub health: Health,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            run: PathBuf::new(),
            seed: 1,
            from: None,
            moments: Moments::Auto,
            steps: None,
            tokens: None,
            epochs: None,
            precision: Precision::F32,
            recompute: false,
            clip_norm: 1.0,
            z_loss: 0.0,
            model: None,
            data: Data::default(),
            objective: Objective::Ntp,
            reference: None,
            optimizer: AdamW::new(3e-4),
            decay: WeightDecayRule::default(),
            schedule: None,
            held_out: HeldOut::default(),
            checkpoints: Checkpoints::default(),
            health: Health::default(),
        }
    }
}

/// What becomes of the optimiser's moments in the checkpoint that a run starts from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Moments {
    /// In fine-tuning begun anew; otherwise kept where the checkpoint has them. The run says which.
    #[default]
    Auto,
    /// Kept; a checkpoint without them is an error.
    Keep,
    /// Begun anew.
    Reset,
}

/// A fresh model; vocabulary and end token come from the token store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Model {
    /// See [`llama::config::Settings`].
    Llama(llama::config::Settings),
    /// See [`olmo2::config::Settings`].
    Olmo2(olmo2::config::Settings),
    /// See [`smollm3::config::Settings`].
    SmolLm3(smollm3::config::Settings),
    /// See [`youtu::config::Settings`].
    Youtu(youtu::config::Settings),
    /// See [`qwen3::config::Settings`].
    Qwen3(qwen3::config::Settings),
}

impl Model {
    /// The architecture for a vocabulary and an end-of-text token.
    pub fn build(
        &self,
        vocab_size: usize,
        end_token: Option<u32>,
    ) -> Result<Architecture, remit_model::Error> {
        match self {
            Model::Llama(settings) => settings.build(vocab_size, end_token),
            Model::Olmo2(settings) => settings.build(vocab_size, end_token),
            Model::SmolLm3(settings) => settings.build(vocab_size, end_token),
            Model::Youtu(settings) => settings.build(vocab_size, end_token),
            Model::Qwen3(settings) => settings.build(vocab_size, end_token),
        }
    }
}

/// What is trained on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Data {
    /// A token store.
    #[serde(skip_serializing_if = "is_empty")]
    pub tokens: PathBuf,
    /// In fine-tuning, in place of the token store: rows with prompts and completions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub examples: Option<Examples>,
    /// Predictions a window.
    pub window: usize,
    /// Windows an optimiser step.
    pub batch_windows: usize,
    /// Windows a forward pass; 0 for all of the step at once. The result does not depend on it beyond rounding.
    pub micro_batch_windows: usize,
    /// Whether the documents of a window are hidden from one another.
    pub mask_documents: bool,
    /// Shares of the sources, where they differ from those of the token store.
    pub mixture: BTreeMap<String, Share>,
}

impl Default for Data {
    fn default() -> Self {
        Data {
            tokens: PathBuf::new(),
            examples: None,
            window: 256,
            batch_windows: 8,
            micro_batch_windows: 0,
            mask_documents: true,
            mixture: BTreeMap::new(),
        }
    }
}

fn is_empty(path: &std::path::Path) -> bool {
    path.as_os_str().is_empty()
}

impl Data {
    /// Windows a forward pass.
    pub fn micro_batch(&self) -> usize {
        if self.micro_batch_windows == 0 {
            self.batch_windows
        } else {
            self.micro_batch_windows.min(self.batch_windows)
        }
    }

    pub(crate) fn mixture(&self) -> Mixture {
        Mixture { sources: self.mixture.clone() }
    }
}

/// Where the reference's log-probabilities come from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReferenceSettings {
    /// The reference: a checkpoint or a run directory.
    pub checkpoint: PathBuf,
    /// A score store of this reference; without one the reference runs beside the learner.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scores: Option<PathBuf>,
}

/// Evaluation on held-out text: mean loss in nats a token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HeldOut {
    /// Steps between evaluations; one at the start and one at the end there is always. 0 for only those.
    pub every: u64,
    /// Windows of each store, from its beginning; 0 for all.
    pub windows: u64,
    /// Token stores by the name they have in metrics.
    pub stores: BTreeMap<String, PathBuf>,
}

impl Default for HeldOut {
    fn default() -> Self {
        HeldOut { every: 0, windows: 64, stores: BTreeMap::new() }
    }
}

/// When and how checkpoints are written. The last step always writes one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Checkpoints {
    /// Steps between checkpoints that stay; 0 for none but the last.
    pub permanent_every: u64,
    /// Steps between checkpoints that exist to resume from; 0 for none.
    pub ephemeral_every: u64,
    /// How many of the newest checkpoints stay whatever they are.
    pub keep_last: usize,
    /// Numbers in `model.safetensors`. Resuming is exact in any case.
    pub dtype: Dtype,
    /// Bytes after which a further `model-0000i-of-0000n.safetensors` is begun; 0 for one file.
    pub max_shard_bytes: u64,
}

impl Default for Checkpoints {
    fn default() -> Self {
        Checkpoints {
            permanent_every: 0,
            ephemeral_every: 100,
            keep_last: 1,
            dtype: Dtype::F32,
            max_shard_bytes: 0,
        }
    }
}

/// Numbers in files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// float32.
    #[default]
    F32,
    /// bfloat16.
    Bf16,
}

impl From<Dtype> for FileDtype {
    fn from(dtype: Dtype) -> FileDtype {
        match dtype {
            Dtype::F32 => FileDtype::F32,
            Dtype::Bf16 => FileDtype::Bf16,
        }
    }
}

impl Settings {
    /// How a gradient is made and becomes an update.
    pub fn learning(&self) -> Learning {
        Learning {
            optimizer: self.optimizer.clone(),
            decay: self.decay.clone(),
            clip_norm: self.clip_norm,
            recompute: self.recompute,
            end_tokens: Vec::new(),
        }
    }

    /// Fills in what the stage decides where the settings are silent.
    pub fn complete(&mut self, stage: Stage) {
        self.schedule.get_or_insert_with(|| stage.schedule());
        if stage == Stage::Sft && self.moments == Moments::Auto {
            self.moments = Moments::Reset;
        }
    }

    /// The schedule, after [`Settings::complete`].
    pub(crate) fn schedule(&self) -> &Schedule {
        self.schedule.as_ref().expect("`complete` comes before a run")
    }

    /// Checks what can be checked without opening a file.
    pub fn validate(&self, stage: Stage) -> Result<(), Error> {
        let wrong = |key: &str, problem: &str| {
            Err(Error::Setting { stage: stage.name(), key: key.into(), problem: problem.into() })
        };
        if self.run.as_os_str().is_empty() {
            return wrong("run", "is missing: it names the run directory");
        }
        match (stage, &self.data.examples) {
            (Stage::Sft, None) => {
                return wrong(
                    "data.examples",
                    "is missing: its `files` are rows with prompts and completions",
                );
            }
            (Stage::Sft, Some(_)) if !is_empty(&self.data.tokens) => {
                return wrong("data.tokens", "is given beside `examples`, which fine-tuning reads");
            }
            (Stage::Sft, Some(_)) => {}
            (_, Some(_)) => {
                return wrong("data.examples", "is for `sft`; this stage reads a token store, `data.tokens`");
            }
            (_, None) if is_empty(&self.data.tokens) => {
                return wrong("data.tokens", "is missing: it names a token store");
            }
            (_, None) => {}
        }
        if stage == Stage::Sft && !self.data.mask_documents {
            return wrong("data.mask_documents", "is false, but examples of a window never see one another");
        }
        if stage == Stage::Sft && !self.data.mixture.is_empty() {
            return wrong("data.mixture", "is about the sources of a token store");
        }
        if self.data.window == 0 {
            return wrong("data.window", "is 0, but a window has at least one prediction");
        }
        if self.data.batch_windows == 0 {
            return wrong("data.batch_windows", "is 0, but a step has at least one window");
        }
        let lengths = [self.steps.is_some(), self.tokens.is_some(), self.epochs.is_some()];
        if lengths.iter().filter(|given| **given).count() != 1 {
            return wrong("steps", "is the length of the run: give one of `steps`, `tokens` and `epochs`");
        }
        if self.steps == Some(0)
            || self.tokens == Some(0)
            || self.epochs.is_some_and(|epochs| !(epochs > 0.0 && epochs.is_finite()))
        {
            return wrong("steps", "must be more than nothing, as must `tokens` and `epochs`");
        }
        if !(self.clip_norm >= 0.0 && self.clip_norm.is_finite()) {
            return wrong("clip_norm", "must be a finite number, 0 or more");
        }
        if !(self.z_loss >= 0.0 && self.z_loss.is_finite()) {
            return wrong("z_loss", "must be a finite number, 0 or more");
        }
        match (stage, &self.from, &self.model) {
            (_, None, None) if stage == Stage::Pretrain => {
                return wrong("model", "is missing: give `model` for a fresh one or `from` for a checkpoint");
            }
            (_, Some(_), Some(_)) => return wrong("model", "is given beside `from`, which brings its own"),
            (Stage::Midtrain, None, _) => {
                return wrong("from", "is missing: it names the pre-mid checkpoint or the run that made it");
            }
            (Stage::Sft, None, _) => {
                return wrong(
                    "from",
                    "is missing: it names the checkpoint to fine-tune or the run that made it",
                );
            }
            _ => {}
        }
        if stage == Stage::Pretrain && self.objective != Objective::Ntp {
            return wrong("objective", "is `ntp` in pre-training; token weights belong to `midtrain`");
        }
        if self.reference.as_ref().is_some_and(|reference| reference.checkpoint.as_os_str().is_empty()) {
            return wrong(
                "reference.checkpoint",
                "is missing: it names the reference, also where its scores are stored",
            );
        }
        if stage == Stage::Sft && self.reference.as_ref().is_some_and(|reference| reference.scores.is_some())
        {
            return wrong(
                "reference.scores",
                "are of a token store: in fine-tuning the reference runs beside the learner",
            );
        }
        if self.objective.needs_logits() {
            if self.reference.as_ref().is_some_and(|reference| reference.scores.is_some()) {
                return wrong(
                    "reference.scores",
                    "are of single tokens; distillation compares whole vocabularies, with the reference beside the learner",
                );
            }
            if self.z_loss > 0.0 {
                return wrong("z_loss", "is no part of distillation");
            }
        }
        self.health.validate(stage.name(), &self.held_out)?;
        self.optimizer.validate()?;
        self.objective.validate(self.reference.is_some())?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_model_of_every_family_is_named_by_its_model_type() {
        for family in remit_model::families::Family::ALL {
            let text = format!("kind = \"{}\"\nhidden_size = 64\nnum_hidden_layers = 2", family.name());
            let model: Model = toml::from_str(&text).expect("settings of a family");
            let architecture = model.build(100, Some(0)).expect("an architecture");
            assert_eq!((architecture.family, architecture.width, architecture.layers), (family, 64, 2));
            let again: Model = toml::from_str(&toml::to_string(&model).expect("TOML")).expect("the same");
            assert_eq!(model, again);
            toml::from_str::<Model>(&format!("{text}\nhiden_size = 1")).expect_err("a misspelt key");
        }
    }
}
