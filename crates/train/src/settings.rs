//! Settings of a training run, as a recipe's `[pretrain]`, `[midtrain]` or `[sft]` table writes them.

use crate::{Error, Health};
use remit_corpus::examples::Examples;
use remit_corpus::{Mixture, Share};
use remit_engine::Learning;
use remit_model::Architecture;
use remit_model::families::{llama, olmo2, qwen3, smollm3, youtu};
use remit_objective::Objective;
use remit_optim::schedule::Kind;
use remit_store::tensors::FileDtype;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use remit_engine::Precision;
pub use remit_optim::{AdamW, Schedule, WeightDecayRule};

/// The stages that run over text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Text {
    /// From random parameters or a checkpoint, next-token prediction, learning rate constant after warm-up.
    Pretrain,
    /// From the pre-mid checkpoint, any objective, learning rate decaying to zero.
    Midtrain,
    /// From the mid-trained checkpoint, on what completions say to prompts.
    Sft,
}

impl Text {
    /// The verb and the recipe's table.
    pub fn name(self) -> &'static str {
        match self {
            Text::Pretrain => "pretrain",
            Text::Midtrain => "midtrain",
            Text::Sft => "sft",
        }
    }

    /// The schedule where nothing is said.
    fn schedule(self) -> Schedule {
        match self {
            Text::Pretrain => {
                Schedule { kind: Kind::Constant, warmup_fraction: Some(0.02), ..Schedule::default() }
            }
            Text::Midtrain => Schedule { kind: Kind::Linear, ..Schedule::default() },
            Text::Sft => Schedule { kind: Kind::Linear, warmup_fraction: Some(0.03), ..Schedule::default() },
        }
    }
}

/// Settings that every stage has, in its own table beside its own settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Common {
    /// The run directory.
    pub run: PathBuf,
    /// Decides fresh parameters, the order of what is learnt from, and every draw.
    pub seed: u64,
    /// The learner to begin with: a checkpoint, or a run directory whose latest checkpoint is meant.
    pub from: Option<PathBuf>,
    /// What becomes of the optimiser's moments in `from`.
    pub moments: Moments,
    /// Length of the run in optimiser steps; in reinforcement learning a step is a rollout batch and the updates on it.
    pub steps: Option<u64>,
    /// Arithmetic of matrix products, in a reference's pass and in rollouts as well. Parameters, gradients and sums are
    /// float32 in any case.
    pub precision: Precision,
    /// Keep only the inputs of blocks and make the rest again in the backward pass: less memory, more time.
    pub recompute: bool,
    /// Bound of the gradient's global norm; 0 for none.
    pub clip_norm: f64,
    /// The optimiser.
    pub optimizer: AdamW,
    /// Which parameters decay.
    pub decay: WeightDecayRule,
    /// The learning rate over time; the stage's own where nothing is said.
    pub schedule: Option<Schedule>,
    /// Evaluation on held-out text: what the model forgets.
    pub held_out: HeldOut,
    /// When and how checkpoints are written.
    pub checkpoints: Checkpoints,
    /// What is looked at on the way, and what is done about it.
    pub health: Health,
}

/// Common settings that a run may go on with where they have changed: it may be moved, and looked at otherwise.
pub const CHANGEABLE: [&str; 2] = ["run", "health"];

/// Common settings, beside [`CHANGEABLE`], that say where something lies, which counts by its content, or how much is
/// saved, and nothing about a run's result.
pub const PLACES: [&str; 4] =
    ["from", "held_out.stores", "checkpoints.ephemeral_every", "checkpoints.keep_last"];

impl Default for Common {
    fn default() -> Self {
        Common {
            run: PathBuf::new(),
            seed: 1,
            from: None,
            moments: Moments::Auto,
            steps: None,
            precision: Precision::F32,
            recompute: false,
            clip_norm: 1.0,
            optimizer: AdamW::new(3e-4),
            decay: WeightDecayRule::default(),
            schedule: None,
            held_out: HeldOut::default(),
            checkpoints: Checkpoints::default(),
            health: Health::default(),
        }
    }
}

impl Common {
    /// Of a stage that begins with a checkpoint, and with fresh moments: `from` is always there, if only to be missing.
    pub fn fine_tuning(learning_rate: f64) -> Common {
        Common {
            from: Some(PathBuf::new()),
            moments: Moments::Reset,
            optimizer: AdamW { weight_decay: 0.0, ..AdamW::new(learning_rate) },
            schedule: Some(Schedule::default()),
            ..Common::default()
        }
    }

    /// How a gradient is made and becomes an update. The end tokens are to be filled in.
    pub fn learning(&self) -> Learning {
        Learning {
            optimizer: self.optimizer.clone(),
            decay: self.decay.clone(),
            clip_norm: self.clip_norm,
            recompute: self.recompute,
            end_tokens: Vec::new(),
        }
    }

    /// The checkpoint to begin with, in a stage whose settings are checked for one.
    pub fn from(&self) -> &Path {
        self.from.as_deref().expect("`validate` asks for the checkpoint")
    }

    /// The schedule, after [`Stage::complete`](crate::Stage::complete).
    pub fn schedule(&self) -> &Schedule {
        self.schedule.as_ref().expect("`complete` comes before a run")
    }

    /// Checks what can be checked without opening a file. `table` is the stage's.
    ///
    /// # Errors
    /// A setting that is missing or makes no sense.
    pub fn validate(&self, table: &'static str) -> Result<(), Error> {
        if self.run.as_os_str().is_empty() {
            return Err(wrong(table, "run", "is missing: it names the run directory"));
        }
        if !(self.clip_norm >= 0.0 && self.clip_norm.is_finite()) {
            return Err(wrong(table, "clip_norm", "must be a finite number, 0 or more"));
        }
        self.health.validate(table, &self.held_out)?;
        Ok(self.optimizer.validate()?)
    }

    /// Checks that the checkpoint to begin with is named; `problem` is what to say where it is not.
    ///
    /// # Errors
    /// A setting that is missing.
    pub fn require_from(&self, table: &'static str, problem: &str) -> Result<(), Error> {
        let is_empty = self.from.as_ref().is_none_or(|from| from.as_os_str().is_empty());
        if is_empty { Err(wrong(table, "from", problem)) } else { Ok(()) }
    }
}

/// The error about a setting of a stage.
pub fn wrong(table: &'static str, key: &str, problem: impl Into<String>) -> Error {
    Error::Setting { stage: table, key: key.to_owned(), problem: problem.into() }
}

/// What a stage's table in a recipe says.
pub trait StageSettings: Clone + Default + Serialize + DeserializeOwned {
    /// Its own settings that say where something lies, which counts by its content, or how fast it goes, and nothing
    /// about a run's result.
    const PLACES: &'static [&'static str];

    /// What every stage has.
    fn common(&self) -> &Common;

    /// All settings, common ones included, that say nothing about a run's result, as dotted paths.
    fn no_part_of_result() -> Vec<&'static str> {
        [&CHANGEABLE[..], &PLACES[..], Self::PLACES].concat()
    }
}

/// Declares the settings of a stage: the struct `Settings` with its own fields, the [`Common`] ones as `common`, and of
/// its own the [`StageSettings::PLACES`].
///
/// In files all of them stand side by side in one table, in the order of the mirror `Flat` below: `beginning` behind
/// `from`, `length` behind `steps`, `own` behind `clip_norm`. Only the mirror is read and written, so serde's own
/// messages hold for all keys alike; a flattened field would lose the names of the keys that there are.
#[macro_export]
macro_rules! stage_settings {
    (
        $(#[$about:meta])*
        beginning { $($(#[$b_attr:meta])* $b:ident: $b_type:ty,)* }
        length { $($(#[$l_attr:meta])* $l:ident: $l_type:ty,)* }
        own { $($(#[$o_attr:meta])* $o:ident: $o_type:ty,)* }
        places $places:expr
    ) => {
        $(#[$about])*
        #[derive(Clone, Debug, PartialEq, ::serde::Serialize, ::serde::Deserialize)]
        #[serde(from = "Flat", into = "Flat")]
        pub struct Settings {
            /// What every stage has.
            pub common: $crate::settings::Common,
            $($(#[$b_attr])* pub $b: $b_type,)*
            $($(#[$l_attr])* pub $l: $l_type,)*
            $($(#[$o_attr])* pub $o: $o_type,)*
        }

        /// [`Settings`] as files have them.
        #[derive(::serde::Serialize, ::serde::Deserialize)]
        #[serde(rename = "Settings", deny_unknown_fields, default)]
        struct Flat {
            run: ::std::path::PathBuf,
            seed: u64,
            #[serde(skip_serializing_if = "Option::is_none")]
            from: Option<::std::path::PathBuf>,
            $($(#[$b_attr])* $b: $b_type,)*
            moments: $crate::settings::Moments,
            #[serde(skip_serializing_if = "Option::is_none")]
            steps: Option<u64>,
            $($(#[$l_attr])* $l: $l_type,)*
            precision: $crate::settings::Precision,
            recompute: bool,
            clip_norm: f64,
            $($(#[$o_attr])* $o: $o_type,)*
            optimizer: $crate::settings::AdamW,
            decay: $crate::settings::WeightDecayRule,
            #[serde(skip_serializing_if = "Option::is_none")]
            schedule: Option<$crate::settings::Schedule>,
            held_out: $crate::settings::HeldOut,
            checkpoints: $crate::settings::Checkpoints,
            #[serde(skip_serializing_if = "remit_train::Health::is_default")]
            health: $crate::Health,
        }

        impl Default for Flat {
            fn default() -> Self {
                Settings::default().into()
            }
        }

        $crate::stage_settings!(@convert
            ($($b)* $($l)* $($o)*)
            (run seed from moments steps precision recompute clip_norm optimizer decay schedule held_out checkpoints health)
        );

        impl $crate::settings::StageSettings for Settings {
            const PLACES: &'static [&'static str] = &$places;

            fn common(&self) -> &$crate::settings::Common {
                &self.common
            }
        }
    };
    (@convert ($($own:ident)*) ($($common:ident)*)) => {
        impl From<Flat> for Settings {
            fn from(flat: Flat) -> Settings {
                let Flat { $($common,)* $($own,)* } = flat;
                Settings { common: $crate::settings::Common { $($common,)* }, $($own,)* }
            }
        }

        impl From<Settings> for Flat {
            fn from(settings: Settings) -> Flat {
                let Settings { common: $crate::settings::Common { $($common,)* }, $($own,)* } = settings;
                Flat { $($common,)* $($own,)* }
            }
        }
    };
}

stage_settings! {
    /// Settings of a run over text.
    #[derive(Default)]
    beginning {}
    length {
        /// In place of `steps`, length of the run in predictions, rounded up to whole steps.
        #[serde(skip_serializing_if = "Option::is_none")]
        tokens: Option<u64>,
        /// In place of `steps`, length of the run in passes over the data, rounded up to whole steps.
        #[serde(skip_serializing_if = "Option::is_none")]
        epochs: Option<f64>,
    }
    own {
        /// Factor of the mean squared logarithm of the softmax denominator; 0 for none.
        z_loss: f64,
        /// The model to begin with where there is no `from`.
        #[serde(skip_serializing_if = "Option::is_none")]
        model: Option<Model>,
        /// What is trained on.
        data: Data,
        /// What is minimised.
        objective: Objective,
        /// Where the reference's log-probabilities come from.
        #[serde(skip_serializing_if = "Option::is_none")]
        reference: Option<ReferenceSettings>,
    }
    places ["data.tokens", "data.examples.files", "reference"]
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

fn is_empty(path: &Path) -> bool {
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
    pub(crate) fn complete(&mut self, stage: Text) {
        self.common.schedule.get_or_insert_with(|| stage.schedule());
        if stage == Text::Sft && self.common.moments == Moments::Auto {
            self.common.moments = Moments::Reset;
        }
    }

    pub(crate) fn validate(&self, stage: Text) -> Result<(), Error> {
        let wrong = |key: &str, problem: &str| Err(wrong(stage.name(), key, problem));
        self.common.validate(stage.name())?;
        match (stage, &self.data.examples) {
            (Text::Sft, None) => {
                return wrong(
                    "data.examples",
                    "is missing: its `files` are rows with prompts and completions",
                );
            }
            (Text::Sft, Some(_)) if !is_empty(&self.data.tokens) => {
                return wrong("data.tokens", "is given beside `examples`, which fine-tuning reads");
            }
            (Text::Sft, Some(_)) => {}
            (_, Some(_)) => {
                return wrong("data.examples", "is for `sft`; this stage reads a token store, `data.tokens`");
            }
            (_, None) if is_empty(&self.data.tokens) => {
                return wrong("data.tokens", "is missing: it names a token store");
            }
            (_, None) => {}
        }
        if stage == Text::Sft && !self.data.mask_documents {
            return wrong("data.mask_documents", "is false, but examples of a window never see one another");
        }
        if stage == Text::Sft && !self.data.mixture.is_empty() {
            return wrong("data.mixture", "is about the sources of a token store");
        }
        if self.data.window == 0 {
            return wrong("data.window", "is 0, but a window has at least one prediction");
        }
        if self.data.batch_windows == 0 {
            return wrong("data.batch_windows", "is 0, but a step has at least one window");
        }
        let steps = self.common.steps;
        let lengths = [steps.is_some(), self.tokens.is_some(), self.epochs.is_some()];
        if lengths.iter().filter(|given| **given).count() != 1 {
            return wrong("steps", "is the length of the run: give one of `steps`, `tokens` and `epochs`");
        }
        if steps == Some(0)
            || self.tokens == Some(0)
            || self.epochs.is_some_and(|epochs| !(epochs > 0.0 && epochs.is_finite()))
        {
            return wrong("steps", "must be more than nothing, as must `tokens` and `epochs`");
        }
        if !(self.z_loss >= 0.0 && self.z_loss.is_finite()) {
            return wrong("z_loss", "must be a finite number, 0 or more");
        }
        match (stage, &self.common.from, &self.model) {
            (_, None, None) if stage == Text::Pretrain => {
                return wrong("model", "is missing: give `model` for a fresh one or `from` for a checkpoint");
            }
            (_, Some(_), Some(_)) => return wrong("model", "is given beside `from`, which brings its own"),
            (Text::Midtrain, None, _) => {
                return wrong("from", "is missing: it names the pre-mid checkpoint or the run that made it");
            }
            (Text::Sft, None, _) => {
                return wrong(
                    "from",
                    "is missing: it names the checkpoint to fine-tune or the run that made it",
                );
            }
            _ => {}
        }
        if stage == Text::Pretrain && self.objective != Objective::Ntp {
            return wrong("objective", "is `ntp` in pre-training; token weights belong to `midtrain`");
        }
        if self.reference.as_ref().is_some_and(|reference| reference.checkpoint.as_os_str().is_empty()) {
            return wrong(
                "reference.checkpoint",
                "is missing: it names the reference, also where its scores are stored",
            );
        }
        if stage == Text::Sft && self.reference.as_ref().is_some_and(|reference| reference.scores.is_some()) {
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
