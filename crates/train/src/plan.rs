//! Everything a run will do, settled and checked before it does it: what `--dry-run` shows.

use crate::fit::MicroBatch;
use crate::held_out::HeldOutPlan;
use crate::run::{Frame, Method, Start};
use crate::settings::{Precision, Settings, Text, wrong};
use crate::stage::{Memory, Planned, Stage};
use crate::text::TextMethod;
use crate::{Error, First};
use remit_batch::Window;
use remit_corpus::examples::{Encoder, Example, Examples, Packed, Rows};
use remit_corpus::{Companions, Order, SourceSummary, TokenStore, Tokenizer, Windows};
use remit_fault::fault;
use remit_model::{Architecture, Decoder, Frozen, Keep, Workspace};
use remit_store::checkpoint::locate;
use remit_store::hash::{hash_bytes, hash_checkpoint};
use remit_store::scores::{ScoreKey, ScoreStore};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A run, ready to begin.
#[derive(Debug)]
pub struct Plan {
    /// Which stage.
    pub stage: Text,
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
    /// Held-out windows.
    pub held_out: HeldOutPlan,
}

/// What a run is trained on, as an endless row of windows.
#[derive(Debug)]
pub enum Material {
    /// Windows of a token store, and which of them comes when.
    Store(Windows, Order),
    /// Windows of examples, shuffled anew each epoch.
    Examples {
        /// The windows.
        packed: Packed,
        /// Decides the order.
        seed: u64,
        /// What made the examples.
        encoder: Box<Encoder>,
    },
}

impl Material {
    /// The window at a position of the row.
    pub(crate) fn window(&self, position: u64) -> Window {
        match self {
            Material::Store(windows, order) => windows.window(order.window_index(position)),
            Material::Examples { packed, seed, .. } => packed.window(packed.order(*seed, position)),
        }
    }

    /// Where a window comes from, by its index.
    pub(crate) fn source_name(&self, window: u64) -> String {
        match self {
            Material::Store(windows, _) => {
                windows.store().manifest().sources[windows.source_of(window)].name.clone()
            }
            Material::Examples { .. } => "examples".into(),
        }
    }

    /// How many windows and passes each source contributes to the first `windows` of the row.
    fn summary(&self, windows: u64) -> Vec<SourceSummary> {
        match self {
            Material::Store(_, order) => order.summary(windows),
            Material::Examples { packed, .. } => vec![SourceSummary {
                name: "examples".into(),
                num_windows: packed.len(),
                num_taken: windows,
                passes: windows as f64 / packed.len() as f64,
            }],
        }
    }

    /// What identifies it, whatever its path.
    fn content_hash(&self) -> String {
        match self {
            Material::Store(windows, _) => windows.store().content_hash().to_owned(),
            Material::Examples { packed, .. } => packed.content_hash(),
        }
    }

    /// The directory of the tokenizer that made it.
    fn tokenizer(&self) -> Option<PathBuf> {
        match self {
            Material::Store(windows, _) => {
                windows.store().tokenizer_path().map(|_| windows.store().directory().to_owned())
            }
            // They were encoded with the learner's own.
            Material::Examples { .. } => None,
        }
    }

    /// The chat template that made it.
    fn chat_template(&self) -> Option<String> {
        match self {
            Material::Store(..) => None,
            Material::Examples { encoder, .. } => {
                encoder.chat_template().map(|template| template.source().to_owned())
            }
        }
    }

    /// The tokens that end what a learner of it writes, beside those that it has already.
    pub(crate) fn stop_tokens(&self) -> Result<Vec<u32>, Error> {
        match self {
            Material::Store(..) => Ok(Vec::new()),
            Material::Examples { encoder, .. } => Ok(encoder.stop_tokens()?),
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

impl Stage for Text {
    type Settings = Settings;
    type Plan = Plan;
    type Error = Error;

    fn name(self) -> &'static str {
        self.name()
    }

    fn complete(self, settings: &mut Settings) {
        settings.complete(self);
    }

    fn validate(self, settings: &Settings) -> Result<(), Error> {
        settings.validate(self)
    }

    fn plan(self, mut settings: Settings) -> Result<Plan, Error> {
        settings.validate(self)?;
        settings.complete(self);
        let start = settings.common.from.as_deref().map(locate_checkpoint).transpose()?;
        let (material, steps) = match &settings.data.examples {
            None => stored(&settings, self)?,
            Some(examples) => packed(&settings, self, examples, start.as_deref())?,
        };
        settings.common.schedule().validate(steps)?;
        let architecture = match (&start, &settings.model, &material) {
            (Some(checkpoint), _, _) => open_model(checkpoint)?,
            (None, Some(model), Material::Store(windows, _)) => {
                model.build(windows.store().manifest().vocab_size as usize, windows.store().eos())?
            }
            _ => unreachable!("`validate` asks for one of the two"),
        };
        let learner_path = start.clone().unwrap_or_else(|| PathBuf::from("[model]"));
        let window = settings.data.window;
        match &material {
            Material::Store(windows, _) => {
                check_model("learner", &learner_path, &architecture, windows.store(), window)?;
                check_end(&learner_path, &architecture, windows.store())?;
            }
            Material::Examples { .. } => check_window(&learner_path, &architecture, window)?,
        }
        let reference =
            if settings.objective.needs_reference() { reference(&settings, &material)? } else { None };
        let held_out = HeldOutPlan {
            mask_documents: settings.data.mask_documents,
            ..HeldOutPlan::open(
                &settings.common.held_out,
                &learner_path,
                &architecture,
                settings.data.window,
                settings.data.micro_batch(),
            )?
        };
        Ok(Plan { stage: self, settings, material, steps, architecture, start, reference, held_out })
    }
}

impl Planned for Plan {
    type Settings = Settings;
    type Error = Error;

    fn settings(&self) -> &Settings {
        &self.settings
    }

    fn memory(&self) -> Memory {
        let data = &self.settings.data;
        let (rows, float) = (data.micro_batch() * data.window, size_of::<f32>() as u64);
        let keep = keep(self.settings.common.recompute);
        let logits = ((data.window * self.architecture.vocab_size) as u64 * float).max(16 << 20);
        let reference =
            self.reference.as_ref().filter(|reference| reference.scores.is_none()).map_or(0, |reference| {
                let architecture = &reference.architecture;
                // Its logits are as large as the learner's.
                Frozen::frozen_bytes(architecture, self.settings.common.precision)
                    + Workspace::bytes(architecture, rows, Keep::Nothing)
                    + logits
            });
        Memory {
            activations: Workspace::bytes(&self.architecture, rows, keep)
                + (rows * self.architecture.width) as u64 * float,
            logits,
            reference,
            ..Memory::of_learner(&self.architecture)
        }
    }

    fn micro_batch(&mut self) -> MicroBatch<'_> {
        let data = &mut self.settings.data;
        MicroBatch {
            key: "data.micro_batch_windows",
            size: &mut data.micro_batch_windows,
            batch: data.batch_windows,
        }
    }

    /// The first document of the token store, as far as the first window has it; or the first row.
    fn first(&self) -> Result<First, Error> {
        match (&self.material, &self.settings.data.examples) {
            (Material::Examples { encoder, .. }, Some(examples)) => {
                let row = Rows::open(&examples.files)?.only(encoder.fields()).next();
                let example = encoder.example(&row.expect("the examples were made of rows")?)?;
                let (tokenizer, bos) = (Some(encoder.tokenizer().clone()), Some(examples.bos.clone()));
                Ok(First { parts: vec![("example", example)], tokenizer, bos })
            }
            _ => {
                let Window { mut tokens, mut mask, documents, .. } = self.material.window(0);
                let length = documents.iter().take_while(|document| **document == documents[0]).count();
                tokens.truncate(length + 1);
                mask.truncate(length);
                let directory = self.material.tokenizer();
                let tokenizer =
                    directory.map(|directory| Tokenizer::open(&directory)).transpose()?.map(Arc::new);
                Ok(First { parts: vec![("text", Example { tokens, mask })], tokenizer, bos: None })
            }
        }
    }

    fn step_predictions(&self) -> Option<u64> {
        Some((self.settings.data.batch_windows * self.settings.data.window) as u64)
    }

    fn flops(&self) -> Option<f64> {
        let window = self.settings.data.window;
        let online = self.reference.as_ref().filter(|reference| reference.scores.is_none());
        let reference = online.map_or(0.0, |reference| reference.architecture.training_flops(window) / 3.0);
        let again = if self.settings.common.recompute { 4.0 / 3.0 } else { 1.0 };
        Some((self.architecture.training_flops(window) * again + reference) * self.predictions() as f64)
    }

    fn begin(self) -> Result<(Frame, impl Method<Error = Error>), Error> {
        let Plan { settings, material, steps, architecture, start, reference, held_out, .. } = self;
        let held_out = HeldOutPlan { micro_batch: settings.data.micro_batch(), ..held_out };
        let mut inputs = BTreeMap::from([("data".to_owned(), material.content_hash())]);
        if let Some(reference) = &reference {
            inputs.insert("reference".into(), hash_checkpoint(&reference.checkpoint)?);
        }
        let own = start.as_deref().map(Companions::read).transpose()?.unwrap_or_default();
        let companions = match material.tokenizer().filter(|_| !own.has_tokenizer()) {
            Some(store) => Companions::read(&store)?.over(own),
            None => own,
        };
        let companions = companions.with_chat_template(material.chat_template().as_deref());
        let start = match start {
            Some(checkpoint) => Start::From(checkpoint, settings.common.moments),
            None => Start::Fresh(Box::new(architecture), settings.common.seed),
        };
        let mut frame = Frame::new(&settings, steps, start);
        frame.learning.end_tokens = material.stop_tokens()?;
        frame.usage.rows = settings.data.micro_batch() * settings.data.window;
        frame.usage.length = settings.data.window;
        let frame = Frame { inputs, companions, held_out, ..frame };
        let method = TextMethod::new(settings, material, reference, frame.usage);
        Ok((frame, method))
    }
}

impl Plan {
    /// Predictions of the whole run, padding included.
    pub fn predictions(&self) -> u64 {
        self.steps * (self.settings.data.batch_windows * self.settings.data.window) as u64
    }

    /// How many windows and passes each source contributes.
    pub fn sources(&self) -> Vec<SourceSummary> {
        self.material.summary(self.steps * self.settings.data.batch_windows as u64)
    }
}

/// What a forward pass keeps for its backward pass.
pub fn keep(recompute: bool) -> Keep {
    if recompute { Keep::BlockInputs } else { Keep::Everything }
}

/// The checkpoint that `path` means: itself, or the latest of the run it is.
pub fn locate_checkpoint(path: &Path) -> Result<PathBuf, Error> {
    locate(path)?.ok_or_else(|| Error::NoCheckpoint { path: path.to_owned() })
}

/// The switches of a checkpoint whose files are whole as far as their headers say and hold what the switches need, so
/// that nothing is begun with one that cannot be read.
///
/// # Errors
/// A checkpoint that cannot be read.
pub fn open_model(checkpoint: &Path) -> Result<Architecture, Error> {
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

/// Windows of the token store in their order, and the run's length in steps.
fn stored(settings: &Settings, stage: Text) -> Result<(Material, u64), Error> {
    let windows = cut(&TokenStore::open(&settings.data.tokens)?, settings.data.window)?;
    let mixture = settings.data.mixture();
    let epoch = || Ok(Order::new(&windows, &mixture, settings.common.seed, None)?.epoch_len());
    let steps = length(settings, stage, epoch)?;
    let total = steps * settings.data.batch_windows as u64;
    let order = Order::new(&windows, &mixture, settings.common.seed, Some(total))?;
    Ok((Material::Store(windows, order), steps))
}

/// Windows of examples, and the run's length in steps.
fn packed(
    settings: &Settings,
    stage: Text,
    examples: &Examples,
    start: Option<&Path>,
) -> Result<(Material, u64), Error> {
    let checkpoint = start.expect("`validate` asks for the checkpoint to fine-tune");
    let tokenizer = Tokenizer::of_checkpoint(checkpoint)?
        .ok_or_else(|| Error::NoTokenizer { checkpoint: checkpoint.to_owned() })?;
    let encoder = Box::new(Encoder::new(examples, Arc::new(tokenizer))?);
    let packed = encoder.pack(Rows::open(&examples.files)?, settings.data.window)?;
    let steps = length(settings, stage, || Ok(packed.len()))?;
    Ok((Material::Examples { packed, seed: settings.common.seed, encoder }, steps))
}

/// The run's length in steps, where an epoch has so many windows.
fn length(
    settings: &Settings,
    stage: Text,
    epoch: impl FnOnce() -> Result<u64, Error>,
) -> Result<u64, Error> {
    let (batch, window) = (settings.data.batch_windows as u64, settings.data.window as u64);
    let steps = if let Some(steps) = settings.common.steps {
        steps
    } else if let Some(tokens) = settings.tokens {
        tokens.div_ceil(batch * window)
    } else {
        let epochs = settings.epochs.expect("`validate` asks for one of the three");
        ((epoch()? as f64 * epochs / batch as f64).ceil() as u64).max(1)
    };
    if steps.checked_mul(batch).and_then(|windows| windows.checked_mul(window)).is_none() {
        let problem = format!("comes to {steps} steps, whose predictions are beyond counting");
        return Err(wrong(stage.name(), "steps", problem));
    }
    Ok(steps)
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
    check_window(path, architecture, window)
}

/// Whether documents of a token store end as the learner ends what it writes.
fn check_end(path: &Path, architecture: &Architecture, store: &TokenStore) -> Result<(), Error> {
    let own = Tokenizer::of_checkpoint(path)?.and_then(|tokenizer| tokenizer.eos());
    let ends: BTreeSet<u32> = architecture.end_tokens.iter().copied().chain(own).collect();
    match store.eos() {
        Some(eos) if !ends.is_empty() && !ends.contains(&eos) => Err(fault!(
            "documents in the token store `{}` end with token {eos}, and the learner `{}` ends with {}",
            store.directory().display(),
            path.display(),
            ends.iter().map(u32::to_string).collect::<Vec<_>>().join(" or "),
        )
        .with_hint(format!("prepare it again: `remit prepare FILES --tokenizer {}`", path.display()))
        .into()),
        _ => Ok(()),
    }
}

/// Whether a model allows windows of so many predictions.
pub(crate) fn check_window(path: &Path, architecture: &Architecture, window: usize) -> Result<(), Error> {
    let max_length = architecture.max_length;
    if window > max_length {
        return Err(Error::WindowTooLong { window, max_length, model: path.to_owned() });
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
    precision: Precision,
) -> Result<ScoreKey, Error> {
    let layout = format!("{} mask_documents={mask_documents}", windows.layout_hash());
    Ok(ScoreKey {
        tokens: windows.store().content_hash().to_owned(),
        layout: hash_bytes(layout.as_bytes()),
        reference: hash_checkpoint(checkpoint)?,
        precision: precision.name().to_owned(),
    })
}

fn reference(settings: &Settings, material: &Material) -> Result<Option<ReferencePlan>, Error> {
    let Some(reference) = &settings.reference else { return Ok(None) };
    let checkpoint = locate_checkpoint(&reference.checkpoint)?;
    let architecture = open_model(&checkpoint)?;
    let Settings { common, data, .. } = settings;
    let scores = match (material, &reference.scores) {
        (Material::Store(windows, _), scores) => {
            check_model("reference", &checkpoint, &architecture, windows.store(), data.window)?;
            let key = |_: &PathBuf| score_key(windows, &checkpoint, data.mask_documents, common.precision);
            let key = scores.as_ref().map(key).transpose()?;
            scores.as_ref().zip(key).map(|(path, key)| ScoreStore::open(path, &key)).transpose()?
        }
        (Material::Examples { encoder, .. }, _) => {
            check_tokenizer("reference", &checkpoint, encoder.tokenizer())?;
            check_window(&checkpoint, &architecture, data.window)?;
            None
        }
    };
    Ok(Some(ReferencePlan { checkpoint, architecture, scores }))
}

/// Whether a model has the tokenizer that examples were encoded with.
pub(crate) fn check_tokenizer(role: &'static str, model: &Path, tokenizer: &Tokenizer) -> Result<(), Error> {
    match tokenizer_hash(model)? {
        Some(model_hash) if model_hash != tokenizer.hash() => Err(Error::Tokenizer {
            role,
            model: model.to_owned(),
            model_hash,
            store: tokenizer.path().to_owned(),
            store_hash: tokenizer.hash().to_owned(),
        }),
        _ => Ok(()),
    }
}
