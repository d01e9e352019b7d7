//! A run: rollouts and updates, on top of [`mod@remit_train::run`].

use crate::Error;
use crate::prompts::Prompts;
use crate::rollout::{RolloutBatch, Sampler};
use crate::settings::{STAGE, Settings};
use crate::transcripts;
use crate::update::{Outcome, Sequence, update};
use crate::verifiers::Verifiers;
use remit_corpus::examples::{Encoder, Example};
use remit_corpus::{Companions, Tokenizer};
use remit_engine::{Engine, ModelId, Precision, Usage};
use remit_model::generate::Finish;
use remit_model::{Architecture, Frozen, Keep, Workspace};
use remit_store::hash::hash_checkpoint;
use remit_train::held_out::HeldOutPlan;
use remit_train::metrics::StepRecord;
use remit_train::{
    First, Frame, Memory, Method, MicroBatch, Planned, Progress, Stage, Start, Taken, keep,
    locate_checkpoint, open_model,
};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// A run, ready to begin.
#[derive(Debug)]
pub struct Plan {
    /// Its settings.
    pub settings: Settings,
    /// The policy to begin with.
    pub start: PathBuf,
    /// Its switches.
    pub architecture: Architecture,
    /// What is asked.
    pub prompts: Prompts,
    /// Predictions a window of an update: the longest prompt with the longest completion.
    pub window: usize,
    /// The checkpoint of the KL estimate's reference, if there is a KL term.
    pub reference: Option<PathBuf>,
    /// Its switches.
    pub reference_architecture: Option<Architecture>,
    verifiers: Verifiers,
    tokenizer: Arc<Tokenizer>,
    chat_template: Option<String>,
    /// What ends a completion, beside what ends it already.
    stop_tokens: Vec<u32>,
    held_out: HeldOutPlan,
}

/// The stage.
#[derive(Clone, Copy, Debug)]
pub struct Rl;

impl Stage for Rl {
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
        let tokenizer = Tokenizer::of_checkpoint(&start)?;
        let tokenizer =
            Arc::new(tokenizer.ok_or_else(|| remit_train::Error::NoTokenizer { checkpoint: start.clone() })?);
        let encoder = Encoder::new(&settings.prompts, tokenizer.clone())?;
        let verifiers = Verifiers::new(&settings.verifiers, settings.verifier.as_deref())?;
        let longest = settings.grpo.max_completion_length;
        let room = architecture.max_length.saturating_sub(longest);
        let prompts =
            Prompts::read(&settings.prompts, &encoder, &verifiers, settings.impossible, room, longest)?;
        let window = prompts.longest() + longest - 1;
        let reference = match (&settings.reference, settings.grpo.needs_reference()) {
            (_, false) => None,
            (Some(path), true) => Some(locate_checkpoint(path)?),
            (None, true) => Some(start.clone()),
        };
        let reference_architecture = reference.as_deref().map(open_model).transpose()?;
        if let Some(reference) = &reference_architecture
            && reference.vocab_size != architecture.vocab_size
        {
            let error = remit_train::Error::VocabulariesDiffer {
                learner: architecture.vocab_size,
                reference: reference.vocab_size,
            };
            return Err(error.into());
        }
        let held_out = HeldOutPlan::open(
            &settings.common.held_out,
            &start,
            &architecture,
            window,
            settings.micro_batch_windows,
        )?;
        let stop_tokens = encoder.stop_tokens()?;
        let chat_template = encoder.chat_template().map(|template| template.source().to_owned());
        Ok(Plan {
            settings,
            start,
            architecture,
            prompts,
            window,
            reference,
            reference_architecture,
            verifiers,
            tokenizer,
            chat_template,
            stop_tokens,
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

    /// Parameters, gradients and moments; what the passes of an update keep; the caches of the sequences at work.
    fn memory(&self) -> Memory {
        let (architecture, float) = (&self.architecture, size_of::<f32>() as u64);
        let Settings { micro_batch_windows, rollout, common, .. } = &self.settings;
        let rows = micro_batch_windows * self.window;
        let positions = (rollout.batch_size * self.window) as u64;
        // Of the learner's parameters, while it generates.
        let rounded = match common.precision {
            Precision::F32 => 0,
            Precision::Bf16 => Frozen::frozen_bytes(architecture, Precision::Bf16),
        };
        Memory {
            activations: Workspace::bytes(architecture, rows, keep(common.recompute)),
            logits: (self.window.max(rollout.batch_size) * architecture.vocab_size) as u64 * float,
            caches: positions * (architecture.layers * architecture.cache_width()) as u64 * float + rounded,
            reference: self.reference_architecture.as_ref().map_or(0, |reference| {
                Frozen::frozen_bytes(reference, common.precision)
                    + Workspace::bytes(reference, rows, Keep::Nothing)
            }),
            ..Memory::of_learner(architecture)
        }
    }

    fn micro_batch(&mut self) -> MicroBatch<'_> {
        let size = &mut self.settings.micro_batch_windows;
        MicroBatch { key: "micro_batch_windows", batch: *size, size }
    }

    /// The first prompt; what is learned is what the policy will write behind it.
    fn first(&self) -> Result<First, Error> {
        let tokens = self.prompts.prompts[0].tokens.clone();
        let mask = vec![false; tokens.len().saturating_sub(1)];
        Ok(First {
            parts: vec![("prompt", Example { tokens, mask })],
            tokenizer: Some(self.tokenizer.clone()),
            bos: Some(self.settings.prompts.bos.clone()),
        })
    }

    fn begin(self) -> Result<(Frame, impl Method<Error = Error>), Error> {
        let Plan { settings, start, prompts, window, reference, chat_template, held_out, .. } = self;
        let mut inputs = BTreeMap::from([("prompts".to_owned(), prompts.content_hash())]);
        if let Some(reference) = &reference {
            inputs.insert("reference".into(), hash_checkpoint(reference)?);
        }
        let companions = Companions::read(&start)?.with_chat_template(chat_template.as_deref());
        let start = Start::From(start, settings.common.moments);
        let mut frame = Frame::new(&settings, settings.steps(), start);
        frame.learning.end_tokens = self.stop_tokens;
        frame.usage.rows = settings.micro_batch_windows * window;
        frame.usage.length = window;
        frame.usage.temperature = settings.rollout.temperature as f32;
        let frame = Frame { inputs, companions, held_out, ..frame };
        let sampler = Sampler::new(&settings, prompts, self.verifiers, self.tokenizer);
        let method = Reinforce {
            settings,
            sampler,
            window,
            usage: frame.usage,
            reference_checkpoint: reference,
            reference: None,
        };
        Ok((frame, method))
    }
}

/// Rollouts and updates.
struct Reinforce {
    settings: Settings,
    sampler: Sampler,
    window: usize,
    usage: Usage,
    reference_checkpoint: Option<PathBuf>,
    reference: Option<ModelId>,
}

impl Method for Reinforce {
    type Error = Error;

    fn begin(&mut self, engine: &mut dyn Engine) -> Result<(), Error> {
        if let Some(checkpoint) = &self.reference_checkpoint {
            // At the policy's temperature: the KL estimate compares the distributions that were sampled from.
            self.reference = Some(engine.open(checkpoint, &self.usage)?);
        }
        Ok(())
    }

    fn step(
        &mut self,
        engine: &mut dyn Engine,
        progress: &mut Progress,
        learning_rate: f64,
    ) -> Result<Taken, Error> {
        let started = Instant::now();
        let batch = self.sampler.sample(engine, progress.windows)?;
        let rollout_seconds = started.elapsed().as_secs_f64();
        progress.windows += batch.prompts_taken;
        progress.tokens +=
            batch.rollouts.iter().map(|rollout| rollout.completion.tokens.len() as u64).sum::<u64>();
        if batch.advantages.iter().all(|&advantage| advantage == 0.0) {
            progress.idle += 1;
        } else {
            progress.idle = 0;
        }
        let step = progress.step;
        if self.settings.transcripts_every > 0 && (step - 1).is_multiple_of(self.settings.transcripts_every) {
            transcripts::write(&self.settings.common.run, step, &batch, &self.sampler)?;
        }
        if self.settings.patience > 0 && progress.idle >= self.settings.patience {
            return Err(Error::Stuck { step, idle: progress.idle, reward: batch.mean_reward });
        }
        // Without a KL term nothing could move but what the optimiser remembers, and there is no reason to move; with one
        // there may be no completion that it could hold.
        let can_move = progress.idle == 0 || self.settings.grpo.needs_reference();
        let outcomes = if !can_move || batch.rollouts.is_empty() {
            Vec::new()
        } else {
            self.updates(engine, &batch, step, learning_rate)?
        };
        let seconds = started.elapsed().as_secs_f64();
        let record = self.record(progress, learning_rate, &batch, &outcomes);
        let parts = BTreeMap::from([
            ("rollout".to_owned(), rollout_seconds),
            ("update".to_owned(), seconds - rollout_seconds),
        ]);
        let tokens = batch.rollouts.iter().map(|rollout| rollout.completion.tokens.len() as u64).sum();
        Ok(Taken { record, parts, tokens })
    }
}

impl Reinforce {
    /// The optimiser steps on a rollout batch.
    fn updates(
        &self,
        engine: &mut dyn Engine,
        batch: &RolloutBatch,
        step: u64,
        learning_rate: f64,
    ) -> Result<Vec<Outcome>, Error> {
        let Settings { grpo, steps_per_generation, num_iterations, log_prob_tolerance, .. } = &self.settings;
        let sequences: Vec<Sequence> = batch
            .rollouts
            .iter()
            .zip(&batch.advantages)
            .map(|(rollout, &advantage)| {
                let completion = &rollout.completion;
                let counts = !(grpo.mask_truncated_completions && completion.finish == Finish::Length);
                let prompt = &self.sampler.prompt(rollout.prompt).tokens;
                Sequence::new(prompt, &completion.tokens, &completion.log_probs, advantage, counts)
            })
            .collect();
        let groups = sequences.len() / grpo.num_generations;
        let part = groups.div_ceil(*steps_per_generation) * grpo.num_generations;
        let mut outcomes = Vec::new();
        for _ in 0..*num_iterations {
            for sequences in sequences.chunks(part) {
                // The first update is made by the very parameters that sampled.
                let on_policy = outcomes.is_empty();
                let outcome = update(
                    engine,
                    sequences,
                    &self.settings,
                    self.window,
                    self.reference,
                    on_policy,
                    learning_rate,
                )
                .map_err(|refusal| {
                    let not_finite = |what| Error::NotFinite { step, what };
                    refusal.into_error(|_| not_finite("loss"), || not_finite("gradient"))
                })?;
                if on_policy && outcome.gap > *log_prob_tolerance {
                    return Err(Error::Disagreement {
                        step,
                        gap: outcome.gap,
                        tolerance: *log_prob_tolerance,
                    });
                }
                outcomes.push(outcome);
            }
        }
        Ok(outcomes)
    }

    fn record(
        &self,
        progress: &Progress,
        learning_rate: f64,
        batch: &RolloutBatch,
        outcomes: &[Outcome],
    ) -> StepRecord {
        let mean = |value: fn(&Outcome) -> f64| match outcomes.len() {
            0 => 0.0,
            count => outcomes.iter().map(value).sum::<f64>() / count as f64,
        };
        let over = |value: &dyn Fn(&crate::rollout::Rollout) -> f64| match batch.rollouts.len() {
            0 => 0.0,
            count => batch.rollouts.iter().map(value).sum::<f64>() / count as f64,
        };
        let tokens: usize = batch.rollouts.iter().map(|rollout| rollout.completion.tokens.len()).sum();
        let surprise: f64 = batch
            .rollouts
            .iter()
            .flat_map(|rollout| &rollout.completion.log_probs)
            .map(|l| -f64::from(*l))
            .sum();
        let mut figures = BTreeMap::new();
        let mut put = |name: &str, value: f64| figures.insert(name.to_owned(), value);
        put("reward", batch.mean_reward);
        put("equal_groups", batch.equal_groups);
        put("completion_length", over(&|rollout| rollout.completion.tokens.len() as f64));
        let undecided = remit_judge::Outcome::Undecided;
        put("undecided", over(&|rollout| f64::from(u8::from(rollout.verdict.outcome == undecided))));
        put("truncated", over(&|rollout| f64::from(u8::from(rollout.completion.finish == Finish::Length))));
        // Mean surprise of what was sampled: where all tokens may be drawn, an unbiased estimate of the entropy.
        put("entropy", if tokens == 0 { 0.0 } else { surprise / tokens as f64 });
        put("clip_low", mean(|outcome| outcome.summary.clipped_low));
        put("clip_high", mean(|outcome| outcome.summary.clipped_high));
        put("log_prob_gap", outcomes.first().map_or(0.0, |outcome| outcome.gap));
        if self.settings.grpo.needs_reference() {
            put("kl", mean(|outcome| outcome.summary.kl));
        }
        if self.settings.grpo.dynamic_sampling {
            put("sampled", batch.num_sampled as f64);
        }
        StepRecord {
            step: progress.step,
            tokens: progress.tokens,
            loss: mean(|outcome| outcome.summary.loss),
            ntp_loss: None,
            learning_rate,
            grad_norm: mean(|outcome| outcome.gradient_norm),
            z_loss: None,
            weights: None,
            figures,
        }
    }
}
