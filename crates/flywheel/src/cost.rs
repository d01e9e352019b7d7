//! What a node took, counted so that arms compare at equal tokens and at equal compute.
//!
//! ```text
//! flops = forward * f / 3 + backward * 2 f / 3 + reference * r / 3
//! ```
//!
//! with `f` and `r` the floating-point operations of a training step of learner and reference a prediction, each by its
//! own architecture (`Architecture::training_flops`). Generation is forward passes. Evaluations count their time and what
//! they generate.

use crate::Error;
use remit_eval::dynamics;
use remit_model::Architecture;
use remit_results::{Cost, files};
use remit_store::Error as StoreError;
use remit_train::Planned;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Fills in `flops`: of a learner, and a reference where there is one, on sequences of `length`.
pub(crate) fn with_flops(
    cost: Cost,
    learner: &Architecture,
    reference: Option<&Architecture>,
    length: usize,
) -> Cost {
    let of = |architecture: &Architecture| architecture.training_flops(length) / 3.0;
    let passes = (cost.forward + 2 * cost.backward) as f64;
    let reference = reference.map_or(0.0, of) * cost.reference as f64;
    Cost { flops: passes * of(learner) + reference, ..cost }
}

/// What is known of the cost of a run once it has left its log in a directory.
pub(crate) type OnceRun = Box<dyn FnOnce(&Path) -> Result<Cost, Error>>;

/// A plan whose run has a cost.
pub(crate) trait Costly: Planned {
    /// What its run takes, told by the log that it leaves where that depends on what is sampled.
    fn cost(&self) -> OnceRun;
}

impl Costly for remit_train::Plan {
    fn cost(&self) -> OnceRun {
        let cost = of_training(self);
        Box::new(move |_| Ok(cost))
    }
}

impl Costly for remit_train::dpo::Plan {
    fn cost(&self) -> OnceRun {
        let cost = of_dpo(self);
        Box::new(move |_| Ok(cost))
    }
}

impl Costly for remit_rl::Plan {
    fn cost(&self) -> OnceRun {
        of_rl(self)
    }
}

/// What a run over text takes.
pub(crate) fn of_training(plan: &remit_train::Plan) -> Cost {
    let predictions = plan.predictions();
    let data = &plan.settings.data;
    // A rule that weighs the batch as a whole surveys it first, where it does not come in one piece.
    let is_surveyed = !plan.settings.objective.is_window_local() && data.micro_batch() < data.batch_windows;
    let forward = 1 + u64::from(is_surveyed) + u64::from(plan.settings.common.recompute);
    let online = plan.reference.as_ref().filter(|reference| reference.scores.is_none());
    let cost = Cost {
        forward: forward * predictions,
        backward: predictions,
        reference: online.map_or(0, |_| predictions),
        ..Cost::default()
    };
    with_flops(cost, &plan.architecture, online.map(|reference| &reference.architecture), data.window)
}

/// What preference optimisation takes: both sides of every pair that it uses, at their mean length, and the reference's
/// one pass over all pairs. That pass counts in full also where another run has left it in the cache that runs share:
/// an arm pays as if it were alone, and whether its run was killed in between does not show.
pub(crate) fn of_dpo(plan: &remit_train::dpo::Plan) -> Cost {
    let pairs = &plan.pairs.pairs;
    let all: usize = pairs.iter().flatten().map(|side| side.mask.len()).sum();
    let used = (plan.steps * plan.settings.batch_pairs as u64) as f64;
    let predictions = (all as f64 / pairs.len() as f64 * used).round() as u64;
    let forward = predictions * if plan.settings.common.recompute { 2 } else { 1 };
    let cost = Cost { forward, backward: predictions, reference: all as u64, ..Cost::default() };
    with_flops(cost, &plan.architecture, Some(&plan.reference_architecture), plan.longest)
}

/// What scoring takes.
pub(crate) fn of_scoring(plan: &remit_train::ScorePlan) -> Cost {
    let window = plan.settings.window;
    let cost = Cost { reference: plan.windows.len() * window as u64, ..Cost::default() };
    with_flops(cost, &plan.architecture, Some(&plan.architecture), window)
}

/// What dynamics take: every checkpoint and the reference over the same windows. Points that are one model are read
/// once.
pub(crate) fn of_dynamics(plan: &dynamics::Plan) -> Result<Cost, Error> {
    let predictions = plan.windows() * plan.settings.window as u64;
    let cost = Cost { forward: predictions, reference: predictions, ..Cost::default() };
    let models: BTreeMap<_, _> = plan.points.iter().map(|point| (&point.inputs, &point.checkpoint)).collect();
    let of = |checkpoint: &PathBuf| {
        let learner = remit_train::open_model(checkpoint)?;
        Ok(with_flops(cost, &learner, Some(&plan.architecture), plan.settings.window))
    };
    models.into_values().map(of).sum()
}

/// What a run of reinforcement learning has taken. What the log does not say is
/// taken as: prompts of their mean length, read once a group; completions that were dropped, or had rewards equal to
/// their group's, as long as the others of the step. The filling of windows is left out.
pub(crate) fn of_rl(plan: &remit_rl::Plan) -> OnceRun {
    let prompts = &plan.prompts.prompts;
    let prompt =
        prompts.iter().map(|prompt| prompt.tokens.len()).sum::<usize>() as f64 / prompts.len() as f64;
    let (settings, window) = (plan.settings.clone(), plan.window);
    let (learner, reference) = (plan.architecture.clone(), plan.reference_architecture.clone());
    Box::new(move |directory| {
        let steps = rl_steps(&settings, &directory.join(files::METRICS))?;
        let cost = rl_cost(&settings, prompt, steps, reference.is_some());
        Ok(with_flops(cost, &learner, reference.as_ref(), window))
    })
}

/// `prompt` is the mean length of a prompt. Without `flops`.
fn rl_cost(settings: &remit_rl::Settings, prompt: f64, steps: Vec<RlStep>, has_reference: bool) -> Cost {
    let longest = settings.grpo.max_completion_length as f64;
    let mean = |tokens: f64, kept: f64| (kept > 0.0).then_some(tokens / kept);
    let of_all = mean(steps.iter().map(|step| step.tokens).sum(), steps.iter().map(|step| step.kept).sum());
    let (mut generated, mut read, mut updated) = (0.0, 0.0, 0.0);
    for RlStep { sampled, kept, tokens, moving, masked } in steps {
        generated += sampled * mean(tokens, kept).or(of_all).unwrap_or(longest);
        // A group reads its prompt once, up to the last token, which each completion reads itself; nobody reads the
        // last token of a completion.
        read += sampled / settings.grpo.num_generations as f64 * (prompt - 1.0);
        updated += moving * (tokens - masked * longest + (kept - masked) * prompt);
    }
    updated *= settings.num_iterations as f64;
    let (sampled, updated) = ((generated + read).round() as u64, updated.round() as u64);
    Cost {
        forward: sampled + updated * if settings.common.recompute { 2 } else { 1 },
        backward: updated,
        reference: if has_reference { updated } else { 0 },
        generated: generated.round() as u64,
        ..Cost::default()
    }
}

/// What the log says of a step of reinforcement learning. All but `moving` are counts.
struct RlStep {
    /// Completions sampled, those of dropped groups included.
    sampled: f64,
    /// Completions of the batch.
    kept: f64,
    /// Their tokens.
    tokens: f64,
    /// The share of them that updates read: without a KL term those of groups with equal rewards are spared.
    moving: f64,
    /// Completions of the batch that were cut off and are masked out, which updates spare as well.
    masked: f64,
}

fn rl_steps(settings: &remit_rl::Settings, path: &Path) -> Result<Vec<RlStep>, Error> {
    let grpo = &settings.grpo;
    let mut before = 0.0;
    let mut steps = Vec::new();
    for line in lines(path)?.iter().filter(|line| line.get("loss").is_some()) {
        let figure = |key: &str| line.get(key).and_then(serde_json::Value::as_f64);
        let number = |key: &str| figure(key).unwrap_or(0.0);
        let wanted = (settings.rollout.prompts * grpo.num_generations) as f64;
        let sampled = figure("sampled").unwrap_or(wanted);
        let differing = 1.0 - number("equal_groups");
        // Dynamic sampling keeps the groups that differ, and no others.
        let kept = if grpo.dynamic_sampling { (sampled * differing).round() } else { sampled };
        let moves = grpo.dynamic_sampling || grpo.needs_reference();
        steps.push(RlStep {
            sampled,
            kept,
            tokens: number("tokens") - before,
            moving: if moves { 1.0 } else { differing },
            masked: if grpo.mask_truncated_completions { kept * number("truncated") } else { 0.0 },
        });
        before = number("tokens");
    }
    Ok(steps)
}

/// Seconds of the steps of a run, by its own log.
pub(crate) fn seconds_of(run: &Path) -> Result<f64, Error> {
    let lines = lines(&run.join(files::TIMINGS))?;
    Ok(lines.iter().filter_map(|line| line.get("seconds")?.as_f64()).sum())
}

/// Predictions that a run has learnt from, by its own log.
pub(crate) fn tokens_of(run: &Path) -> Result<u64, Error> {
    let lines = lines(&run.join(files::METRICS))?;
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
mod tests;
