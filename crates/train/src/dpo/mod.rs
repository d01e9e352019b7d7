//! Direct preference optimisation: a learner that is to prefer the chosen completions to the rejected ones, held by a
//! frozen reference.
//!
//! [`Plan`] settles everything; a run has the reference read all pairs once ([`mod@reference`]) and then takes a
//! [`step`] after the other.

pub mod reference;
mod settings;
pub mod step;

pub use settings::Settings;

use crate::held_out::HeldOutPlan;
use crate::metrics::StepRecord;
use crate::plan::{check_tokenizer, check_window, keep};
use crate::resume::Progress;
use crate::run::{Method, Observer, Taken};
use crate::stage::{Memory, Planned, Stage};
use crate::{Error, First, Frame, MicroBatch, Start, locate_checkpoint, open_model};
use reference::{Pass, ReferenceLogProbs};
use remit_corpus::examples::{ChatTemplate, Encoder, Example, Pairs, Rows};
use remit_corpus::{Companions, Shuffle, Tokenizer};
use remit_engine::Engine;
use remit_model::{Architecture, Workspace};
use remit_objective::PreferenceSummary;
use settings::STAGE;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use step::{Outcome, Pair, PreferenceStep};

/// A run, ready to begin.
#[derive(Debug)]
pub struct Plan {
    /// Its settings.
    pub settings: Settings,
    /// The learner to begin with.
    pub start: PathBuf,
    /// Its switches.
    pub architecture: Architecture,
    /// The reference's checkpoint.
    pub reference: PathBuf,
    /// Its switches.
    pub reference_architecture: Architecture,
    /// All pairs.
    pub pairs: Pairs,
    /// Predictions of the longest sequence.
    pub longest: usize,
    /// Optimiser steps.
    pub steps: u64,
    encoder: Encoder,
    held_out: HeldOutPlan,
}

/// The stage.
#[derive(Clone, Copy, Debug)]
pub struct Dpo;

impl Stage for Dpo {
    type Settings = Settings;
    type Plan = Plan;
    type Error = Error;

    fn name(self) -> &'static str {
        STAGE
    }

    fn validate(self, settings: &Settings) -> Result<(), Error> {
        settings.validate()
    }

    fn plan(self, settings: Settings) -> Result<Plan, Error> {
        settings.validate()?;
        let start = locate_checkpoint(settings.common.from())?;
        let architecture = open_model(&start)?;
        check_window(&start, &architecture, settings.window)?;
        let tokenizer = Tokenizer::of_checkpoint(&start)?;
        let tokenizer = Arc::new(tokenizer.ok_or_else(|| Error::NoTokenizer { checkpoint: start.clone() })?);
        let reference = match &settings.reference {
            Some(path) => locate_checkpoint(path)?,
            None => start.clone(),
        };
        let reference_architecture = open_model(&reference)?;
        check_tokenizer("reference", &reference, &tokenizer)?;
        check_window(&reference, &reference_architecture, settings.window)?;
        if reference_architecture.vocab_size != architecture.vocab_size {
            return Err(Error::VocabulariesDiffer {
                learner: architecture.vocab_size,
                reference: reference_architecture.vocab_size,
            });
        }
        let encoder = Encoder::new(&settings.examples, tokenizer)?;
        let pairs = encoder.pairs(Rows::open(&settings.examples.files)?, settings.window)?;
        check_tokens(&pairs.pairs, &start, &architecture)?;
        let steps = settings.length(pairs.pairs.len() as u64)?;
        settings.common.schedule().validate(steps)?;
        let held_out = HeldOutPlan::open(
            &settings.common.held_out,
            &start,
            &architecture,
            settings.window,
            settings.micro_batch(),
        )?;
        let longest = reference::longest(&pairs.pairs);
        Ok(Plan {
            settings,
            start,
            architecture,
            reference,
            pairs,
            longest,
            steps,
            reference_architecture,
            encoder,
            held_out,
        })
    }
}

impl Planned for Plan {
    type Settings = Settings;
    type Error = Error;

    fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What training will hold, the reference's log-probabilities included.
    fn memory(&self) -> Memory {
        let (architecture, float) = (&self.architecture, size_of::<f32>() as u64);
        let rows = self.rows();
        let logits = (2 * self.longest * architecture.vocab_size) as u64 * float;
        let kept = self.pairs.pairs.iter().flatten().map(|side| side.num_completion_tokens() as u64);
        Memory {
            activations: Workspace::bytes(architecture, rows, keep(self.settings.common.recompute))
                + (rows * architecture.width) as u64 * float,
            // Those of a pair are kept together while they take less than half a gigabyte.
            logits: logits.clamp(16 << 20, 512 << 20),
            reference: kept.sum::<u64>() * float,
            ..Memory::of_learner(architecture)
        }
    }

    fn micro_batch(&mut self) -> MicroBatch<'_> {
        let Settings { micro_batch_pairs, batch_pairs, .. } = &mut self.settings;
        MicroBatch { key: "micro_batch_pairs", size: micro_batch_pairs, batch: *batch_pairs }
    }

    fn first(&self) -> Result<First, Error> {
        let row = Rows::open(&self.settings.examples.files)?.only(self.encoder.fields()).next();
        let [chosen, rejected] = self.encoder.preference(&row.expect("the pairs were made of rows")?)?;
        let parts = vec![("chosen", chosen), ("rejected", rejected)];
        let bos = Some(self.settings.examples.bos.clone());
        Ok(First { parts, tokenizer: Some(self.encoder.tokenizer().clone()), bos })
    }

    fn begin(self) -> Result<(Frame, impl Method<Error = Error>), Error> {
        let rows = self.rows();
        let key = reference::key(&self.reference, &self.pairs.pairs, self.settings.common.precision)?;
        let Plan { settings, start, reference, pairs, steps, encoder, held_out, .. } = self;
        let mut frame = Frame::new(&settings, steps, Start::From(start.clone(), settings.common.moments));
        frame.learning.end_tokens = encoder.stop_tokens()?;
        (frame.usage.rows, frame.usage.length) = (rows, settings.window);
        let frame = Frame {
            inputs: BTreeMap::from([("pairs and reference".to_owned(), key.clone())]),
            companions: Companions::read(&start)?
                .with_chat_template(encoder.chat_template().map(ChatTemplate::source)),
            held_out,
            ..frame
        };
        let step = PreferenceStep {
            loss: settings.loss.clone(),
            micro_batch: settings.micro_batch(),
            pad: encoder.pad(),
        };
        let method = Preference {
            step,
            order: Shuffle::new(pairs.pairs.len() as u64, settings.common.seed, "pairs"),
            pairs: pairs.pairs,
            checkpoint: reference,
            key,
            reference: None,
            settings,
        };
        Ok((frame, method))
    }
}

impl Plan {
    /// What the reference's pass over the pairs will hold, ahead of training and without the files of a large one.
    pub fn reference_memory(&self) -> u64 {
        let precision = self.settings.common.precision;
        reference::pass_bytes(&self.reference_architecture, &self.pairs.pairs, precision)
    }

    /// Predictions of the largest forward pass of the learner.
    fn rows(&self) -> usize {
        let pairs = 2 * self.settings.micro_batch() * self.longest;
        let text = if self.held_out.stores.is_empty() {
            0
        } else {
            self.settings.micro_batch() * self.settings.window
        };
        pairs.max(text)
    }
}

/// Whether a model has an embedding for every token.
fn check_tokens(pairs: &[[Example; 2]], model: &Path, architecture: &Architecture) -> Result<(), Error> {
    let highest = pairs.iter().flatten().flat_map(|side| &side.tokens).max();
    match highest {
        Some(&token) if token as usize >= architecture.vocab_size => {
            Err(Error::TokenOutside { model: model.to_owned(), token, vocabulary: architecture.vocab_size })
        }
        _ => Ok(()),
    }
}

/// Steps over pairs.
struct Preference {
    settings: Settings,
    step: PreferenceStep,
    pairs: Vec<[Example; 2]>,
    order: Shuffle,
    /// Of the reference.
    checkpoint: PathBuf,
    /// Of the reference's log-probabilities of these pairs.
    key: String,
    /// There from [`Method::prepare`] on.
    reference: Option<ReferenceLogProbs>,
}

impl Method for Preference {
    type Error = Error;

    fn prepare(&mut self, engine: &mut dyn Engine, observer: &mut dyn Observer) -> Result<(), Error> {
        let precision = self.settings.common.precision;
        let pass = Pass { checkpoint: &self.checkpoint, precision, pad: self.step.pad };
        let log_probs = ReferenceLogProbs::obtain(
            &self.settings.cache(),
            &self.key,
            &self.pairs,
            &pass,
            engine,
            observer,
        )?;
        self.reference = Some(log_probs);
        Ok(())
    }

    fn step(
        &mut self,
        engine: &mut dyn Engine,
        progress: &mut Progress,
        learning_rate: f64,
    ) -> Result<Taken, Error> {
        let batch = self.settings.batch_pairs as u64;
        let reference = self.reference.as_ref().expect("`prepare` comes first");
        let pairs: Vec<Pair> = (progress.windows..progress.windows + batch)
            .map(|position| self.order.at(position))
            .map(|index| Pair {
                index,
                sides: self.pairs[index as usize].each_ref(),
                reference: reference.pair(index as usize),
            })
            .collect();
        let step = progress.step;
        let not_finite = |what| Error::StepNotFinite { step, what };
        let outcome = self.step.take(engine, &pairs, learning_rate).map_err(|refusal| {
            refusal.into_error(
                |index| not_finite(format!("loss of pair {}", index + 1)),
                || not_finite("gradient".into()),
            )
        })?;
        let sides = || pairs.iter().flat_map(|pair| pair.sides);
        progress.windows += batch;
        progress.tokens += sides().map(|side| side.num_completion_tokens() as u64).sum::<u64>();
        let tokens = sides().map(|side| side.mask.len() as u64).sum();
        Ok(Taken { record: record(progress, learning_rate, &outcome), parts: BTreeMap::new(), tokens })
    }
}

fn record(progress: &Progress, learning_rate: f64, outcome: &Outcome) -> StepRecord {
    let PreferenceSummary { pairs, loss, margin, accuracy, chosen_reward, rejected_reward } = outcome.summary;
    let figures = [
        ("pairs", pairs as f64),
        ("margin", margin),
        ("accuracy", accuracy),
        ("chosen_reward", chosen_reward),
        ("rejected_reward", rejected_reward),
    ];
    StepRecord {
        step: progress.step,
        tokens: progress.tokens,
        loss,
        ntp_loss: None,
        learning_rate,
        grad_norm: outcome.gradient_norm,
        z_loss: None,
        weights: None,
        figures: figures.map(|(name, value)| (name.to_owned(), value)).into(),
    }
}
