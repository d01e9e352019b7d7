//! Everything that will be measured, settled and checked before it is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use remit_corpus::{TokenStore, Tokenizer, Windows};
use remit_model::{Architecture, Decoder};
use remit_store::checkpoint::locate;
use remit_store::hash::{hash_bytes, hash_checkpoint};
use serde_json::{Value, json};

use super::points::{Place, places};
use super::{Error, FORMAT_VERSION, Settings};
use crate::results::task_hashes;

/// Measurements, ready to begin.
#[derive(Debug)]
pub struct Plan {
    /// Their settings.
    pub settings: Settings,
    /// The reference's checkpoint.
    pub reference: PathBuf,
    /// Its switches.
    pub architecture: Architecture,
    /// Its content's hash.
    pub reference_hash: String,
    /// By name, the windows and how many of them are read.
    pub stores: BTreeMap<String, (Windows, u64)>,
    /// The checkpoints, by run as they were named, and by step.
    pub points: Vec<Planned>,
    /// The file to write.
    pub out: PathBuf,
}

/// A checkpoint to be measured.
#[derive(Debug)]
pub struct Planned {
    /// The run as it was named; for a single checkpoint the checkpoint.
    pub run: PathBuf,
    /// Steps of the run before it; 0 for the run's start and for a checkpoint that belongs to no run.
    pub step: u64,
    /// Predictions that the run was trained on before it, where that is known.
    pub tokens: Option<u64>,
    /// The checkpoint.
    pub checkpoint: PathBuf,
    /// Its content's hash.
    pub checkpoint_hash: String,
    /// The hash of all that its figures depend on.
    pub inputs: String,
    /// The tasks that it is put to.
    pub eval: Option<crate::Plan>,
}

/// A model's place and what its tokens mean.
struct Model<'a> {
    path: &'a Path,
    architecture: Architecture,
    /// The hash of its tokenizer, if it has one.
    tokenizer: Option<String>,
}

impl Plan {
    /// Opens and checks everything that `settings` name.
    ///
    /// # Errors
    /// Paths that hold no model; models or stores that cannot be compared; stores that are too short; tasks that
    /// cannot be asked.
    pub fn new(settings: Settings) -> Result<Plan, Error> {
        settings.validate()?;
        let out = out(&settings)?;
        let reference = locate(&settings.reference)?
            .ok_or_else(|| Error::NoCheckpoint { path: settings.reference.clone() })?;
        let model = Model::open(&reference)?;
        let mut stores = BTreeMap::new();
        for (name, path) in &settings.stores {
            let store = TokenStore::open(path)?;
            model.check_window(settings.window)?;
            check_store(&model, &store)?;
            stores.insert(name.clone(), cut(&store, &settings)?);
        }
        let reference_hash = hash_checkpoint(&reference)?;
        let mut runs = BTreeSet::new();
        let mut points = Vec::new();
        for run in &settings.runs {
            if !runs.insert(run) {
                return Err(Error::Twice { path: run.clone() });
            }
            for place in places(run, settings.start)? {
                let learner = Model::open(&place.checkpoint)?;
                check_learner(&model, &learner)?;
                if !stores.is_empty() {
                    learner.check_window(settings.window)?;
                }
                points.push(Planned::new(place, &settings, &reference_hash, &stores)?);
            }
        }
        let architecture = model.architecture.clone();
        Ok(Plan { settings, architecture, reference_hash, stores, points, out, reference })
    }

    /// Windows that are read of each checkpoint, over all stores.
    pub fn windows(&self) -> u64 {
        self.stores.values().map(|(_, count)| count).sum()
    }
}

impl Planned {
    fn new(
        place: Place,
        settings: &Settings,
        reference_hash: &str,
        stores: &BTreeMap<String, (Windows, u64)>,
    ) -> Result<Planned, Error> {
        let Place { run, step, tokens, checkpoint } = place;
        let eval = settings.eval.as_ref().map(|eval| crate::Plan::new(eval, &checkpoint)).transpose()?;
        let checkpoint_hash = match &eval {
            Some(eval) => eval.model_hash.clone(),
            None => hash_checkpoint(&checkpoint)?,
        };
        let contents: BTreeMap<&String, Value> = stores
            .iter()
            .map(|(name, (windows, count))| (name, json!([windows.store().content_hash(), count])))
            .collect();
        let inputs = json!({
            "format": FORMAT_VERSION,
            "version": env!("CARGO_PKG_VERSION"),
            "reference": reference_hash,
            "checkpoint": checkpoint_hash,
            "window": settings.window,
            "mask_documents": settings.mask_documents,
            "stores": contents,
            "tasks": eval.as_ref().map(asked),
        });
        let inputs = hash_bytes(inputs.to_string().as_bytes());
        Ok(Planned { run, step, tokens, checkpoint, checkpoint_hash, inputs, eval })
    }
}

/// What the figures of tasks depend on beside the model.
fn asked(plan: &crate::Plan) -> Value {
    let questions = task_hashes(&plan.suite);
    // Files count by their content, which is in the questions.
    let settings = crate::Settings {
        batch_size: 0,
        paths: crate::Paths::default(),
        shots: crate::Shots::default(),
        ..plan.suite.settings.clone()
    };
    json!({ "settings": settings, "questions": questions, "tokenizer": plan.tokenizer_hash() })
}

fn out(settings: &Settings) -> Result<PathBuf, Error> {
    match (&settings.out, &settings.runs[..]) {
        (Some(out), _) => Ok(out.clone()),
        (None, [run]) if !run.join("config.json").is_file() => Ok(run.join(remit_results::files::DYNAMICS)),
        _ => Err(Error::NoOut),
    }
}

/// The windows of a store, and how many of them are read.
fn cut(store: &TokenStore, settings: &Settings) -> Result<(Windows, u64), Error> {
    let windows = Windows::cut(store, settings.window)?;
    let wanted = if settings.windows == 0 { windows.len().max(1) } else { settings.windows };
    if wanted > windows.len() {
        return Err(Error::FewWindows {
            store: store.directory().to_owned(),
            found: windows.len(),
            window: settings.window,
            wanted,
        });
    }
    Ok((windows, wanted))
}

impl<'a> Model<'a> {
    fn open(path: &'a Path) -> Result<Model<'a>, Error> {
        let architecture = Decoder::mapped(path)?.architecture().clone();
        let tokenizer = Tokenizer::of_checkpoint(path)?.map(|tokenizer| tokenizer.hash().to_owned());
        Ok(Model { path, architecture, tokenizer })
    }

    fn check_window(&self, window: usize) -> Result<(), Error> {
        let max_length = self.architecture.max_length;
        if window > max_length {
            return Err(Error::WindowTooLong { window, max_length, model: self.path.to_owned() });
        }
        Ok(())
    }

    /// Whether `hash` is of another tokenizer, where both are known.
    fn check_tokenizer(&self, what: &'static str, path: &Path, hash: Option<&String>) -> Result<(), Error> {
        match (&self.tokenizer, hash) {
            (Some(reference_hash), Some(hash)) if reference_hash != hash => Err(Error::Tokenizer {
                what,
                path: path.to_owned(),
                hash: hash.clone(),
                reference: self.path.to_owned(),
                reference_hash: reference_hash.clone(),
            }),
            _ => Ok(()),
        }
    }
}

fn check_learner(reference: &Model, learner: &Model) -> Result<(), Error> {
    let (reference_vocab, learner_vocab) =
        (reference.architecture.vocab_size, learner.architecture.vocab_size);
    if reference_vocab != learner_vocab {
        return Err(Error::Vocabulary {
            reference: reference.path.to_owned(),
            reference_vocab,
            learner: learner.path.to_owned(),
            learner_vocab,
        });
    }
    reference.check_tokenizer("checkpoint", learner.path, learner.tokenizer.as_ref())
}

fn check_store(reference: &Model, store: &TokenStore) -> Result<(), Error> {
    reference.check_tokenizer("store", store.directory(), store.manifest().tokenizer.as_ref())?;
    let (store_vocab, model_vocab) = (store.manifest().vocab_size, reference.architecture.vocab_size);
    // A model may have more rows than its tokenizer has tokens: vocabularies are padded for speed.
    if store_vocab as usize > model_vocab {
        return Err(Error::StoreVocabulary { store: store.directory().to_owned(), store_vocab, model_vocab });
    }
    Ok(())
}
