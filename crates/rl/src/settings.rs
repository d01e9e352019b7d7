//! Settings of reinforcement learning, as a recipe's `[rl]` table writes them.

use crate::Error;
use remit_corpus::examples::Examples;
use remit_judge::Verify;
use remit_model::generate::Sampling;
use remit_objective::Grpo;
use remit_train::settings::{Checkpoints, Common, wrong};
use remit_train::stage_settings;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The recipe's table.
pub(crate) const STAGE: &str = "rl";

stage_settings! {
    /// Settings of a run.
    beginning {}
    length {}
    own {
        /// What is asked, and where its answers are.
        prompts: Examples,
        /// The verifier of every row. Left out, each row names its own in `verifier`, `dataset` or `data_source`.
        #[serde(skip_serializing_if = "Option::is_none")]
        verifier: Option<String>,
        /// Verifiers by name, beside and before the built-in ones.
        verifiers: BTreeMap<String, Verify>,
        /// What becomes of rows whose ground truth their verifier can never accept.
        impossible: Impossible,
        /// How completions are sampled.
        rollout: Rollout,
        /// The loss.
        grpo: Grpo,
        /// The reference of the KL estimate, read where `grpo.beta` is above 0; `from` where it is left out.
        #[serde(skip_serializing_if = "Option::is_none")]
        reference: Option<PathBuf>,
        /// Optimiser steps that share a rollout batch, each on an equal part of its groups.
        steps_per_generation: usize,
        /// Passes over a rollout batch.
        num_iterations: usize,
        /// Windows a forward pass of an update. The result does not depend on it beyond rounding.
        micro_batch_windows: usize,
        /// Largest difference of a log-probability between sampler and trainer, in nats. More than that is an error.
        log_prob_tolerance: f64,
        /// Steps in a row whose groups all have equal rewards after which the run stops; 0 for never.
        patience: u64,
        /// Steps between transcripts; 0 for none.
        transcripts_every: u64,
    }
    places ["prompts.files", "reference", "rollout.batch_size"]
}

/// What becomes of rows whose ground truth their verifier can never accept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Impossible {
    /// The first is an error that counts the others.
    #[default]
    Error,
    /// They are left out and counted.
    Drop,
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
        let checkpoints = Checkpoints { ephemeral_every: 20, ..Checkpoints::default() };
        Settings {
            common: Common { steps: Some(100), checkpoints, ..Common::fine_tuning(1e-5) },
            prompts: Examples::default(),
            verifier: None,
            verifiers: BTreeMap::new(),
            impossible: Impossible::default(),
            rollout: Rollout::default(),
            grpo: Grpo::default(),
            reference: None,
            steps_per_generation: 1,
            num_iterations: 1,
            micro_batch_windows: 8,
            log_prob_tolerance: 0.01,
            patience: 20,
            transcripts_every: 20,
        }
    }
}

impl Settings {
    /// Steps of the run.
    pub fn steps(&self) -> u64 {
        self.common.steps.unwrap_or(0)
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
        let wrong = |key: &str, problem: &str| Err(wrong(STAGE, key, problem).into());
        self.common.validate(STAGE)?;
        self.common.require_from(STAGE, "is missing")?;
        for (key, number) in [
            ("steps", self.steps() as usize),
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
        if !(self.log_prob_tolerance > 0.0 && self.log_prob_tolerance.is_finite()) {
            return wrong("log_prob_tolerance", "must be a finite number above 0");
        }
        if self.rollout.temperature <= 0.0 {
            return wrong("rollout.temperature", "must be above 0: completions of a group have to differ");
        }
        self.sampling().validate()?;
        self.grpo.validate()?;
        Ok(self.common.schedule().validate(self.steps())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_rules_of_health_are_not_written_into_settings() {
        let mut settings = Settings::default();
        assert!(!toml::to_string(&settings).expect("settings").contains("health"));
        settings.common.health.reward_stuck.span = 9;
        assert!(toml::to_string(&settings).expect("settings").contains("[health.reward_stuck]"));
    }

    #[test]
    fn rules_of_health_that_make_no_sense_are_refused() {
        let mut settings = Settings::default();
        (settings.common.run, settings.common.from) = ("run".into(), Some("sft".into()));
        settings.validate().expect("sound settings");
        settings.common.health.entropy_collapse.limit = f64::NAN;
        let error = settings.validate().expect_err("no limit").to_string();
        assert!(error.starts_with("`rl.health.entropy_collapse.limit` must be"), "{error}");
    }
}
