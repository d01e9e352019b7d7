//! One stage, one shape: what a stage that trains says of itself, so that all who run stages can run any.
//!
//! A [`Stage`] makes a plan of its settings. What is [`Planned`] says what it will hold and take, and becomes a run.

use crate::Error;
use crate::fit::{MicroBatch, fit};
use crate::run::{Frame, Method, Observer, Start, Summary};
use crate::settings::{Common, StageSettings};
use remit_corpus::examples::Example;
use remit_corpus::{Bos, Companions, Tokenizer};
use remit_engine::{Engine, Usage};
use remit_model::Architecture;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A stage that trains a model.
pub trait Stage: Copy {
    /// What its table in a recipe says.
    type Settings: StageSettings;
    /// A run of it, ready to begin.
    type Plan: Planned<Settings = Self::Settings, Error = Self::Error>;
    /// What can go wrong.
    type Error: From<Error>;

    /// The verb and the recipe's table.
    fn name(self) -> &'static str;

    /// Fills in what the stage decides where the settings are silent.
    fn complete(self, _settings: &mut Self::Settings) {}

    /// Checks what can be checked without opening a file.
    ///
    /// # Errors
    /// A setting that is missing or makes no sense.
    fn validate(self, settings: &Self::Settings) -> Result<(), Self::Error>;

    /// Opens and checks everything that the settings name.
    ///
    /// # Errors
    /// Those of [`Stage::validate`]; files that cannot be read or do not fit together.
    fn plan(self, settings: Self::Settings) -> Result<Self::Plan, Self::Error>;
}

/// A run of a stage, settled and checked.
pub trait Planned: Sized {
    /// What its stage's table says.
    type Settings: StageSettings;
    /// What can go wrong.
    type Error: From<Error>;

    /// Its settings, completed.
    fn settings(&self) -> &Self::Settings;

    /// Bytes that it will hold.
    fn memory(&self) -> Memory;

    /// The setting of how much of a step is in a forward pass.
    fn micro_batch(&mut self) -> MicroBatch<'_>;

    /// What comes first of all that is learned from, as the model sees it.
    ///
    /// # Errors
    /// Files that cannot be read.
    fn first(&self) -> Result<First, Self::Error>;

    /// Predictions of each step, padding included, where all have the same.
    fn step_predictions(&self) -> Option<u64> {
        None
    }

    /// Floating-point operations of the whole run, where they are known ahead.
    fn flops(&self) -> Option<f64> {
        None
    }

    /// The run: everything but what its steps do, and what they do.
    ///
    /// # Errors
    /// Files that cannot be read.
    fn begin(self) -> Result<(Frame, impl Method<Error = Self::Error>), Self::Error>;
}

/// Runs a plan to its end; the same call again goes on where the last one was stopped, and does nothing when it was
/// not. See [`crate::run::run`].
///
/// # Errors
/// Whatever stops a run.
pub fn run<P: Planned>(
    mut plan: P,
    engine: &mut dyn Engine,
    observer: &mut dyn Observer,
) -> Result<Summary, P::Error> {
    if let Some(size) = fit(&mut plan, engine.available_memory())? {
        observer
            .message(&format!("{} = {size}, the largest that memory is enough for", plan.micro_batch().key));
    }
    let (frame, mut method) = plan.begin()?;
    crate::run::run(&frame, &mut method, engine, observer)
}

impl Frame {
    /// Of a stage's settings. Inputs, companions, held-out text and the sizes in [`Frame::usage`] are to be filled in.
    pub fn new(settings: &impl StageSettings, steps: u64, start: Start) -> Frame {
        let Common { run, optimizer, checkpoints, health, .. } = settings.common();
        Frame {
            run: run.clone(),
            settings: toml::Table::try_from(settings).expect("settings are plain values"),
            inputs: BTreeMap::new(),
            steps,
            learning_rate: optimizer.learning_rate,
            schedule: settings.common().schedule().clone(),
            start,
            learning: settings.common().learning(),
            usage: Usage { precision: settings.common().precision, ..Usage::default() },
            companions: Companions::default(),
            checkpoints: checkpoints.clone(),
            health: health.clone(),
            held_out: crate::held_out::HeldOutPlan::default(),
        }
    }
}

/// An example as the model sees it.
#[derive(Debug)]
pub struct First {
    /// Tokens, and which of them are learned; a preference has two, each with its name.
    pub parts: Vec<(&'static str, Example)>,
    /// What reads the tokens, where there is one.
    pub tokenizer: Option<Arc<Tokenizer>>,
    /// What plain text begins with, where there are rows.
    pub bos: Option<Bos>,
}

/// Bytes a run will hold, by part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// The learner's parameters.
    pub parameters: u64,
    /// Their gradients.
    pub gradients: u64,
    /// The optimiser's two moments.
    pub moments: u64,
    /// What the passes keep.
    pub activations: u64,
    /// Logits of the windows that are in the head together.
    pub logits: u64,
    /// The caches of sequences that are being generated.
    #[serde(skip_serializing_if = "is_zero")]
    pub caches: u64,
    /// The reference with its buffers, without the files that a large one is read from; or its log-probabilities.
    pub reference: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(bytes: &u64) -> bool {
    *bytes == 0
}

impl Memory {
    /// Of a learner with its gradients and moments alone.
    pub fn of_learner(architecture: &Architecture) -> Memory {
        let parameters = architecture.num_parameters() * size_of::<f32>() as u64;
        Memory { parameters, gradients: parameters, moments: 2 * parameters, ..Memory::default() }
    }

    /// All parts together.
    pub fn total(&self) -> u64 {
        let Memory { parameters, gradients, moments, activations, logits, caches, reference } = *self;
        parameters + gradients + moments + activations + logits + caches + reference
    }
}
