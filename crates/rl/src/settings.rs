//! Settings of reinforcement learning, as a recipe's `[rl]` table writes them.

use crate::Error;
use remit_corpus::examples::Examples;
use remit_judge::Verify;
use remit_kernels::Precision;
use remit_model::generate::Sampling;
use remit_objective::Grpo;
use remit_optim::{AdamW, Schedule, WeightDecayRule};
use remit_train::settings::{Checkpoints, HeldOut, Moments};
use remit_train::{Health, Learning};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Settings of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The run directory.
    pub run: PathBuf,
    /// Decides the order of prompts and every draw.
    pub seed: u64,
    /// The policy to begin with: a checkpoint, or a run directory whose latest checkpoint is meant.
    pub from: PathBuf,
    /// What becomes of the optimiser's moments in `from`.
    pub moments: Moments,
    /// Length of the run; a step is a rollout batch and the updates on it.
    pub steps: u64,
    /// Arithmetic of matrix products in updates; rollouts are float32.
    pub precision: Precision,
    /// Keep only the inputs of blocks and make the rest again in the backward pass: less memory, more time.
    pub recompute: bool,
    /// Bound of the gradient's global norm; 0 for none.
    pub clip_norm: f64,
    /// What is asked, and where its answers are.
    pub prompts: Examples,
    /// The verifier of every row. Left out, each row names its own in `verifier`, `dataset` or `data_source`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verifier: Option<String>,
    /// Verifiers by name, beside and before the built-in ones.
    pub verifiers: BTreeMap<String, Verify>,
    /// How completions are sampled.
    pub rollout: Rollout,
    /// The loss.
    pub grpo: Grpo,
    /// The reference of the KL estimate, read where `grpo.beta` is above 0; `from` where it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<PathBuf>,
    /// Optimiser steps that share a rollout batch, each on an equal part of its groups.
    pub steps_per_generation: usize,
    /// Passes over a rollout batch.
    pub num_iterations: usize,
    /// Windows a forward pass of an update. The result does not depend on it beyond rounding.
    pub micro_batch_windows: usize,
    /// Largest difference of a log-probability between sampler and trainer, in nats. More than that is an error.
    pub log_prob_tolerance: f64,
    /// Steps in a row whose groups all have equal rewards after which the run stops; 0 for never.
    pub patience: u64,
    /// Steps between transcripts; 0 for none.
    pub transcripts_every: u64,
    /// The optimiser.
    pub optimizer: AdamW,
    /// Which parameters decay.
    pub decay: WeightDecayRule,
    /// The learning rate over time; constant where nothing is said.
    pub schedule: Schedule,
    /// Evaluation on held-out text: what the model forgets.
    pub held_out: HeldOut,
    /// When and how checkpoints are written.
    pub checkpoints: Checkpoints,
    /// What is looked at on the way, and what is done about it.
    #[serde(skip_serializing_if = "Health::is_default")]
    pub health: Health,
}

/// How completions are sampled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rollout {
    /// Prompts a step; each is answered `grpo.num_generations` times.
    pub prompts: usize,
    /// Divisor of the logits. Log-probabilities of the update are taken at the same one.
    pub temperature: f64,
    /// How many of the likeliest tokens to draw from; all when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_k: Option<usize>,
    /// Mass to draw from, in (0, 1].
    pub top_p: f64,
    /// Texts that end a completion.
    pub stop: Vec<String>,
    /// Sequences at work at the same time. Changes speed and memory, never a result.
    pub batch_size: usize,
    /// Batches of prompts tried at most to fill a step with groups of differing rewards, with
    /// `grpo.dynamic_sampling`.
    pub max_rounds: usize,
}

impl Default for Rollout {
    fn default() -> Self {
        Rollout {
            prompts: 32,
            temperature: 1.0,
            top_k: None,
            top_p: 1.0,
            stop: Vec::new(),
            batch_size: 64,
            max_rounds: 4,
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            run: PathBuf::new(),
            seed: 1,
            from: PathBuf::new(),
            moments: Moments::Reset,
            steps: 100,
            precision: Precision::F32,
            recompute: false,
            clip_norm: 1.0,
            prompts: Examples::default(),
            verifier: None,
            verifiers: BTreeMap::new(),
            rollout: Rollout::default(),
            grpo: Grpo::default(),
            reference: None,
            steps_per_generation: 1,
            num_iterations: 1,
            micro_batch_windows: 8,
            log_prob_tolerance: 0.01,
            patience: 20,
            transcripts_every: 20,
            optimizer: AdamW { weight_decay: 0.0, ..AdamW::new(1e-5) },
            decay: WeightDecayRule::default(),
            schedule: Schedule::default(),
            held_out: HeldOut::default(),
            checkpoints: Checkpoints { ephemeral_every: 20, ..Checkpoints::default() },
            health: Health::default(),
        }
    }
}

impl Settings {
    /// What concerns the trainer.
    pub fn learning(&self) -> Learning<'_> {
        let Settings { optimizer, decay, clip_norm, precision, recompute, .. } = self;
        Learning { optimizer, decay, clip_norm: *clip_norm, precision: *precision, recompute: *recompute }
    }

    /// How tokens are chosen.
    pub fn sampling(&self) -> Sampling {
        let Rollout { temperature, top_k, top_p, .. } = self.rollout;
        Sampling::Random { temperature: temperature as f32, top_k, top_p: top_p as f32 }
    }

    /// Checks what can be checked without opening a file.
    ///
    /// # Errors
    /// A setting that is missing or makes no sense.
    pub fn validate(&self) -> Result<(), Error> {
        let wrong =
            |key: &str, problem: &str| Err(Error::Setting { key: key.into(), problem: problem.into() });
        for (key, path) in [("run", &self.run), ("from", &self.from)] {
            if path.as_os_str().is_empty() {
                return wrong(key, "is missing");
            }
        }
        for (key, number) in [
            ("steps", self.steps as usize),
            ("rollout.prompts", self.rollout.prompts),
            ("rollout.max_rounds", self.rollout.max_rounds),
            ("steps_per_generation", self.steps_per_generation),
            ("num_iterations", self.num_iterations),
            ("micro_batch_windows", self.micro_batch_windows),
        ] {
            if number == 0 {
                return wrong(key, "is 0, but must be 1 or more");
            }
        }
        if self.steps_per_generation > self.rollout.prompts {
            return wrong(
                "steps_per_generation",
                "is more than `rollout.prompts`, so some steps would have no group",
            );
        }
        if self.rollout.stop.iter().any(String::is_empty) {
            return wrong("rollout.stop", "has an empty text, which is found everywhere");
        }
        if !(self.clip_norm >= 0.0 && self.clip_norm.is_finite()) {
            return wrong("clip_norm", "must be a finite number, 0 or more");
        }
        if !(self.log_prob_tolerance > 0.0 && self.log_prob_tolerance.is_finite()) {
            return wrong("log_prob_tolerance", "must be a finite number above 0");
        }
        if self.rollout.temperature <= 0.0 {
            return wrong("rollout.temperature", "must be above 0: completions of a group have to differ");
        }
        self.health.validate("rl", &self.held_out)?;
        self.sampling().validate()?;
        self.grpo.validate()?;
        self.optimizer.validate()?;
        self.schedule.validate(self.steps)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_rules_of_health_are_not_written_into_settings() {
        let mut settings = Settings::default();
        assert!(!toml::to_string(&settings).expect("settings").contains("health"));
        settings.health.reward_stuck.span = 9;
        assert!(toml::to_string(&settings).expect("settings").contains("[health.reward_stuck]"));
    }

    #[test]
    fn rules_of_health_that_make_no_sense_are_refused() {
        let mut settings = Settings { run: "run".into(), from: "sft".into(), ..Settings::default() };
        settings.validate().expect("sound settings");
        settings.health.entropy_collapse.limit = f64::NAN;
        let error = settings.validate().expect_err("no limit").to_string();
        assert!(error.starts_with("`rl.health.entropy_collapse.limit` must be"), "{error}");
    }
}
