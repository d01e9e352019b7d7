//! Everything a run will do, settled and checked before it does it: what `--dry-run` shows.

use crate::Error;
use crate::held_out::HeldOutPlan;
use crate::resume::Companions;
use crate::run::{Frame, Start};
use crate::settings::{Settings, Stage};
use remit_batch::Window;
use remit_corpus::{Order, SourceSummary, TokenStore, Tokenizer, Windows};
use remit_model::{Architecture, Decoder, Frozen, Keep, Workspace};
use remit_store::checkpoint::checkpoints_of;
use remit_store::hash::{hash_bytes, hash_checkpoint};
use remit_store::scores::{ScoreKey, ScoreStore};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A run, ready to begin.
#[derive(Debug)]
pub struct Plan {
    /// Which stage.
    pub stage: Stage,
    /// Its settings, completed.
    pub settings: Settings,
    /// What it is trained on.
    pub material: Material,
    /// Optimiser steps.
    pub steps: u64,
    /// The learner's switches.
    pub architecture: Architecture,
    /// The checkpoint it starts from, if any.
    pub start: Option<PathBuf>,
    /// The reference, if the objective needs one.
    pub reference: Option<ReferencePlan>,
    /// Held-out windows by name.
    pub held_out: BTreeMap<String, Windows>,
}

/// What a run is trained on, as an endless row of windows.
#[derive(Debug)]
pub enum Material {
    /// Windows of a token store, and which of them comes when.
    Store(Windows, Order),
}

impl Material {
    /// The window at a position of the row.
    pub(crate) fn window(&self, position: u64) -> Window {
        match self {
            Material::Store(windows, order) => windows.window(order.window_index(position)),
        }
    }

    /// Where a window comes from, by its index.
    pub(crate) fn source_name(&self, window: u64) -> String {
        match self {
            Material::Store(windows, _) => {
                windows.store().manifest().sources[windows.source_of(window)].name.clone()
            }
        }
    }

    /// How many windows and passes each source contributes to the first `windows` of the row.
    fn summary(&self, windows: u64) -> Vec<SourceSummary> {
        match self {
            Material::Store(_, order) => order.summary(windows),
        }
    }

    /// The directory of the tokenizer that made it.
    fn tokenizer(&self) -> Option<PathBuf> {
        match self {
            Material::Store(windows, _) => {
                windows.store().tokenizer_path().map(|_| windows.store().directory().to_owned())
            }
        }
    }
}

/// The reference of a run.
#[derive(Debug)]
pub struct ReferencePlan {
    /// Its checkpoint.
    pub checkpoint: PathBuf,
    /// Its switches.
    pub architecture: Architecture,
    /// Its stored scores; without them it runs beside the learner.
    pub scores: Option<ScoreStore>,
}

/// Bytes a run will hold, by part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
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
    /// The reference with its buffers, without the files that a large one is read from.
    pub reference: u64,
}

impl Memory {
    /// All parts together.
    pub fn total(&self) -> u64 {
        let Memory { parameters, gradients, moments, activations, logits, reference } = *self;
        parameters + gradients + moments + activations + logits + reference
    }
}

impl Plan {
    /// Opens and checks everything that `settings` name.
    pub fn new(mut settings: Settings, stage: Stage) -> Result<Plan, Error> {
        settings.validate(stage)?;
        settings.complete(stage);
        let store = TokenStore::open(&settings.data.tokens)?;
        let windows = cut(&store, settings.data.window)?;
        let (order, steps) = length(&settings, stage, &windows)?;
        settings.schedule().validate(steps)?;
        let start = settings.from.as_deref().map(locate_checkpoint).transpose()?;
        let architecture = match (&start, &settings.model) {
            (Some(checkpoint), _) => open_model(checkpoint)?,
            (None, Some(model)) => model.build(store.manifest().vocab_size as usize, store.eos())?,
            (None, None) => unreachable!("`validate` asks for one of the two"),
        };
        let learner_path = start.clone().unwrap_or_else(|| PathBuf::from("[model]"));
        check_model("learner", &learner_path, &architecture, &store, settings.data.window)?;
        let reference =
            if settings.objective.needs_reference() { reference(&settings, &windows, &store)? } else { None };
        let mut held_out = BTreeMap::new();
        for (name, path) in &settings.held_out.stores {
            let other = TokenStore::open(path)?;
            check_model("learner", &learner_path, &architecture, &other, settings.data.window)?;
            held_out.insert(name.clone(), cut(&other, settings.data.window)?);
        }
        let material = Material::Store(windows, order);
        Ok(Plan { stage, settings, material, steps, architecture, start, reference, held_out })
    }

    /// Everything but what the steps do. Takes the held-out windows along.
    pub(crate) fn frame(&mut self) -> Frame {
        let Settings { held_out, data, checkpoints, optimizer, moments, .. } = &self.settings;
        Frame {
            run: self.settings.run.clone(),
            settings: toml::Table::try_from(&self.settings).expect("settings are plain values"),
            steps: self.steps,
            learning_rate: optimizer.learning_rate,
            schedule: self.settings.schedule().clone(),
            start: match &self.start {
                Some(checkpoint) => Start::From(checkpoint.clone(), *moments),
                None => Start::Fresh(Box::new(self.architecture.clone()), self.settings.seed),
            },
            companions: Companions {
                tokenizer: self.material.tokenizer().or_else(|| self.start.clone()),
                chat_template: None,
            },
            checkpoints: checkpoints.clone(),
            held_out: HeldOutPlan {
                every: held_out.every,
                limit: held_out.windows,
                micro_batch: data.micro_batch(),
                mask_documents: data.mask_documents,
                stores: std::mem::take(&mut self.held_out),
            },
        }
    }

    /// Predictions of the whole run, padding included.
    pub fn predictions(&self) -> u64 {
        self.steps * (self.settings.data.batch_windows * self.settings.data.window) as u64
    }

    /// How many windows and passes each source contributes.
    pub fn sources(&self) -> Vec<SourceSummary> {
        self.material.summary(self.steps * self.settings.data.batch_windows as u64)
    }

    /// Number of the learner's parameters.
    pub fn num_parameters(&self) -> u64 {
        self.architecture.num_parameters()
    }

    /// What the run will hold.
    pub fn memory(&self) -> Memory {
        let data = &self.settings.data;
        let (rows, float) = (data.micro_batch() * data.window, size_of::<f32>() as u64);
        let parameters = self.num_parameters() * float;
        let keep = self.settings.learning().keep();
        let logits = (data.window * self.architecture.vocab_size) as u64 * float;
        let reference =
            self.reference.as_ref().filter(|reference| reference.scores.is_none()).map_or(0, |reference| {
                let architecture = &reference.architecture;
                Frozen::frozen_bytes(architecture)
                    + Workspace::bytes(architecture, rows, Keep::Nothing)
                    + logits.max(16 << 20)
            });
        Memory {
            parameters,
            gradients: parameters,
            moments: 2 * parameters,
            activations: Workspace::bytes(&self.architecture, rows, keep)
                + (rows * self.architecture.width) as u64 * float,
            logits: logits.max(16 << 20),
            reference,
        }
    }

    /// Floating-point operations of the whole run.
    pub fn flops(&self) -> f64 {
        let window = self.settings.data.window;
        let online = self.reference.as_ref().filter(|reference| reference.scores.is_none());
        let reference = online.map_or(0.0, |reference| reference.architecture.training_flops(window) / 3.0);
        let again = if self.settings.recompute { 4.0 / 3.0 } else { 1.0 };
        (self.architecture.training_flops(window) * again + reference) * self.predictions() as f64
    }
}

/// The checkpoint that `path` means: itself, or the latest of the run it is.
pub fn locate_checkpoint(path: &Path) -> Result<PathBuf, Error> {
    if path.join("config.json").is_file() {
        return Ok(path.to_owned());
    }
    match checkpoints_of(path)?.pop() {
        Some(checkpoint) => {
            checkpoint.verify()?;
            Ok(checkpoint.path().to_owned())
        }
        None => Err(Error::NoCheckpoint { path: path.to_owned() }),
    }
}

/// The switches of a checkpoint whose files are whole as far as their headers say and hold what the switches need, so
/// that nothing is begun with one that cannot be read.
pub(crate) fn open_model(checkpoint: &Path) -> Result<Architecture, Error> {
    Ok(Decoder::mapped(checkpoint)?.architecture().clone())
}

/// Windows of a store, at least one.
pub(crate) fn cut(store: &TokenStore, window: usize) -> Result<Windows, Error> {
    let windows = Windows::cut(store, window)?;
    if windows.is_empty() {
        return Err(Error::NoWindows { store: store.directory().to_owned(), tokens: store.num_tokens() });
    }
    Ok(windows)
}

/// The order of windows, and the run's length in steps.
fn length(settings: &Settings, stage: Stage, windows: &Windows) -> Result<(Order, u64), Error> {
    let batch = settings.data.batch_windows as u64;
    let mixture = settings.data.mixture();
    let steps = if let Some(steps) = settings.steps {
        steps
    } else if let Some(tokens) = settings.tokens {
        tokens.div_ceil(batch * settings.data.window as u64)
    } else {
        let epoch = Order::new(windows, &mixture, settings.seed, None)?.epoch_len();
        let epochs = settings.epochs.expect("`validate` asks for one of the three");
        ((epoch as f64 * epochs / batch as f64).ceil() as u64).max(1)
    };
    let total =
        steps.checked_mul(batch).filter(|total| total.checked_mul(settings.data.window as u64).is_some());
    let Some(total) = total else {
        let problem = format!("comes to {steps} steps, whose predictions are beyond counting");
        return Err(Error::Setting { stage: stage.name(), key: "steps".into(), problem });
    };
    Ok((Order::new(windows, &mixture, settings.seed, Some(total))?, steps))
}

/// Whether a model can read the windows of a token store.
pub(crate) fn check_model(
    role: &'static str,
    path: &Path,
    architecture: &Architecture,
    store: &TokenStore,
    window: usize,
) -> Result<(), Error> {
    let store_path = || store.directory().to_owned();
    let vocab_size = store.manifest().vocab_size;
    if let (Some(store_hash), Some(model_hash)) = (&store.manifest().tokenizer, tokenizer_hash(path)?)
        && *store_hash != model_hash
    {
        return Err(Error::Tokenizer {
            role,
            model: path.to_owned(),
            model_hash,
            store: store_path(),
            store_hash: store_hash.clone(),
        });
    }
    // A model may have more rows than its tokenizer has tokens: vocabularies are padded for speed.
    if vocab_size as usize > architecture.vocab_size {
        return Err(Error::Vocabulary {
            store: store_path(),
            store_vocab: vocab_size,
            model: path.to_owned(),
            model_vocab: architecture.vocab_size,
        });
    }
    if window > architecture.max_length {
        return Err(Error::WindowTooLong {
            window,
            max_length: architecture.max_length,
            model: path.to_owned(),
        });
    }
    Ok(())
}

/// The hash of a checkpoint's tokenizer, if it has one.
fn tokenizer_hash(checkpoint: &Path) -> Result<Option<String>, Error> {
    Ok(Tokenizer::of_checkpoint(checkpoint)?.map(|tokenizer| tokenizer.hash().to_owned()))
}

/// The key of the scores that `checkpoint` gives to `windows`. What a reference sees of a window is part of the
/// layout: whether documents are hidden from one another changes its log-probabilities.
pub(crate) fn score_key(
    windows: &Windows,
    checkpoint: &Path,
    mask_documents: bool,
) -> Result<ScoreKey, Error> {
    let layout = format!("{} mask_documents={mask_documents}", windows.layout_hash());
    Ok(ScoreKey {
        tokens: windows.store().content_hash().to_owned(),
        layout: hash_bytes(layout.as_bytes()),
        reference: hash_checkpoint(checkpoint)?,
    })
}

fn reference(
    settings: &Settings,
    windows: &Windows,
    store: &TokenStore,
) -> Result<Option<ReferencePlan>, Error> {
    let Some(reference) = &settings.reference else { return Ok(None) };
    let checkpoint = locate_checkpoint(&reference.checkpoint)?;
    let architecture = open_model(&checkpoint)?;
    check_model("reference", &checkpoint, &architecture, store, settings.data.window)?;
    let scores = match &reference.scores {
        Some(path) => {
            Some(ScoreStore::open(path, &score_key(windows, &checkpoint, settings.data.mask_documents)?)?)
        }
        None => None,
    };
    Ok(Some(ReferencePlan { checkpoint, architecture, scores }))
}
