//! What a node took, counted so that arms compare at equal tokens and at equal compute.
//!
//! ```text
//! flops = forward * f / 3 + backward * 2 f / 3 + reference * r / 3
//! ```
//!
//! with `f` and `r` the floating-point operations of a training step of learner and reference a prediction
//! (`Architecture::training_flops`). Generation is forward passes. Evaluations count their time and what they generate.

use crate::Error;
use remit_model::Architecture;
use remit_store::Error as StoreError;
use serde::{Deserialize, Serialize};
use std::iter::Sum;
use std::ops::{Add, AddAssign};
use std::path::Path;

/// What something took. Passes are counted in predictions, padding included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cost {
    /// Predictions learnt from: those that count in a loss.
    pub tokens: u64,
    /// Forward passes of the learner, generation included.
    pub forward: u64,
    /// Its backward passes.
    pub backward: u64,
    /// Forward passes of a reference.
    pub reference: u64,
    /// Tokens generated, which are among the forward passes.
    pub generated: u64,
    /// Floating-point operations.
    pub flops: f64,
    /// Seconds of the work that counts: steps that a kill undid are left out.
    pub seconds: f64,
}

impl Cost {
    /// The mean of a sum over so many.
    pub(crate) fn over(self, count: usize) -> Cost {
        let share = |whole: u64| (whole as f64 / count as f64).round() as u64;
        Cost {
            tokens: share(self.tokens),
            forward: share(self.forward),
            backward: share(self.backward),
            reference: share(self.reference),
            generated: share(self.generated),
            flops: self.flops / count as f64,
            seconds: self.seconds / count as f64,
        }
    }

    /// Fills in `flops`: of a learner, and a reference where there is one, on sequences of `length`.
    pub(crate) fn with_flops(
        self,
        learner: &Architecture,
        reference: Option<&Architecture>,
        length: usize,
    ) -> Cost {
        let of = |architecture: &Architecture| architecture.training_flops(length) / 3.0;
        let passes = (self.forward + 2 * self.backward) as f64;
        let reference = reference.map_or(0.0, of) * self.reference as f64;
        Cost { flops: passes * of(learner) + reference, ..self }
    }
}

impl Add for Cost {
    type Output = Cost;

    fn add(self, other: Cost) -> Cost {
        Cost {
            tokens: self.tokens + other.tokens,
            forward: self.forward + other.forward,
            backward: self.backward + other.backward,
            reference: self.reference + other.reference,
            generated: self.generated + other.generated,
            flops: self.flops + other.flops,
            seconds: self.seconds + other.seconds,
        }
    }
}

impl AddAssign for Cost {
    fn add_assign(&mut self, other: Cost) {
        *self = *self + other;
    }
}

impl Sum for Cost {
    fn sum<I: Iterator<Item = Cost>>(costs: I) -> Cost {
        costs.fold(Cost::default(), Add::add)
    }
}

/// What a run over text takes.
pub(crate) fn of_training(plan: &remit_train::Plan) -> Cost {
    let predictions = plan.predictions();
    let data = &plan.settings.data;
    // A rule that weighs the batch as a whole surveys it first, where it does not come in one piece.
    let is_surveyed = !plan.settings.objective.is_window_local() && data.micro_batch() < data.batch_windows;
    let forward = 1 + u64::from(is_surveyed) + u64::from(plan.settings.recompute);
    let online = plan.reference.as_ref().filter(|reference| reference.scores.is_none());
    let cost = Cost {
        forward: forward * predictions,
        backward: predictions,
        reference: online.map_or(0, |_| predictions),
        ..Cost::default()
    };
    cost.with_flops(&plan.architecture, online.map(|reference| &reference.architecture), data.window)
}

/// What preference optimisation takes: both sides of every pair that it uses, at their mean length, and the reference's
/// one pass over all pairs.
pub(crate) fn of_dpo(plan: &remit_train::dpo::Plan) -> Cost {
    let pairs = &plan.pairs.pairs;
    let all: usize = pairs.iter().flatten().map(|side| side.mask.len()).sum();
    let used = (plan.steps * plan.settings.batch_pairs as u64) as f64;
    let predictions = (all as f64 / pairs.len() as f64 * used).round() as u64;
    let forward = predictions * if plan.settings.recompute { 2 } else { 1 };
    let cost = Cost { forward, backward: predictions, reference: all as u64, ..Cost::default() };
    cost.with_flops(&plan.architecture, Some(&plan.architecture), plan.longest)
}

/// What scoring takes.
pub(crate) fn of_scoring(plan: &remit_train::ScorePlan) -> Cost {
    let window = plan.settings.window;
    let cost = Cost { reference: plan.windows.len() * window as u64, ..Cost::default() };
    cost.with_flops(&plan.architecture, Some(&plan.architecture), window)
}

/// What a run of reinforcement learning has taken that has left its log in `directory`. Prompts are counted at their
/// mean length.
pub(crate) fn of_rl(plan: &remit_rl::Plan, directory: &Path) -> Result<Cost, Error> {
    let settings = &plan.settings;
    let prompts = &plan.prompts.prompts;
    let prompt =
        prompts.iter().map(|prompt| prompt.tokens.len()).sum::<usize>() as f64 / prompts.len() as f64;
    let (mut sampled, mut updated, mut before) = (0.0, 0.0, 0.0);
    for step in lines(&directory.join("metrics.jsonl"))?.iter().filter(|line| line.get("loss").is_some()) {
        let number = |key: &str| step.get(key).and_then(serde_json::Value::as_f64).unwrap_or(0.0);
        let completions = number("tokens") - before;
        before = number("tokens");
        let groups = (settings.rollout.prompts * settings.grpo.num_generations) as f64;
        let passes = completions + prompt * groups;
        sampled += passes;
        // Where all groups have equal rewards there is nothing to learn, and no update without a KL term.
        if number("equal_groups") < 1.0 || settings.grpo.needs_reference() {
            updated += passes * settings.num_iterations as f64;
        }
    }
    let (sampled, updated) = (sampled.round() as u64, updated.round() as u64);
    let reference = plan.reference.as_ref().map(|_| &plan.architecture);
    let cost = Cost {
        forward: sampled + updated * if settings.recompute { 2 } else { 1 },
        backward: updated,
        reference: reference.map_or(0, |_| updated),
        generated: before as u64,
        ..Cost::default()
    };
    Ok(cost.with_flops(&plan.architecture, reference, plan.window))
}

/// Seconds of the steps of a run, by its own log.
pub(crate) fn seconds_of(run: &Path) -> Result<f64, Error> {
    let lines = lines(&run.join("timings.jsonl"))?;
    Ok(lines.iter().filter_map(|line| line.get("seconds")?.as_f64()).sum())
}

/// Predictions that a run has learnt from, by its own log.
pub(crate) fn tokens_of(run: &Path) -> Result<u64, Error> {
    let lines = lines(&run.join("metrics.jsonl"))?;
    Ok(lines.iter().rev().find_map(|line| line.get("tokens")?.as_u64()).unwrap_or(0))
}

fn lines(path: &Path) -> Result<Vec<serde_json::Value>, Error> {
    let text = std::fs::read_to_string(path).map_err(|cause| StoreError::io("read", path, cause))?;
    let parse = |line| {
        serde_json::from_str(line)
            .map_err(|error| Error::Record { path: path.to_owned(), problem: format!("{error}") })
    };
    text.lines().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_add_up() {
        let one =
            Cost { tokens: 1, forward: 2, backward: 3, reference: 4, generated: 5, flops: 6.0, seconds: 7.0 };
        let twice: Cost = [one, one].into_iter().sum();
        let wanted = Cost {
            tokens: 2,
            forward: 4,
            backward: 6,
            reference: 8,
            generated: 10,
            flops: 12.0,
            seconds: 14.0,
        };
        assert_eq!(twice, wanted);
    }
}
