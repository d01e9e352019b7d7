//! The lines of a run's logs: those that all stages share, and those of health; and their curves.

use crate::health::Breach;
use remit_objective::WeightFigures;
pub use remit_results::records::{EvalRecord, StepRecord, StepTiming};
use serde::{Deserialize, Serialize};

/// A rule of the run's health, where it is first broken; no curve, and so in no event file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HealthRecord {
    /// After how many steps.
    pub step: u64,
    /// Unmasked predictions trained on by then.
    pub tokens: u64,
    /// The rule, and what was found.
    pub health: Breach,
}

/// A line of `metrics.jsonl`, read back.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum Record {
    /// An evaluation: the line has `held_out`.
    Eval(EvalRecord),
    /// A broken rule: the line has `health`.
    Health(HealthRecord),
    /// A step.
    Step(StepRecord),
}

/// A step's curves: tag and value.
pub(super) fn scalars(step: &StepRecord) -> Vec<(String, f64)> {
    let StepRecord { step: _, tokens, loss, ntp_loss, learning_rate, grad_norm, z_loss, weights, figures } =
        step;
    let mut scalars = vec![
        ("train/loss".to_owned(), *loss),
        ("train/learning_rate".to_owned(), *learning_rate),
        ("train/grad_norm".to_owned(), *grad_norm),
        ("train/tokens".to_owned(), *tokens as f64),
    ];
    scalars.extend(ntp_loss.map(|value| ("train/ntp_loss".to_owned(), value)));
    scalars.extend(z_loss.map(|value| ("train/z_loss".to_owned(), value)));
    for (name, value) in weights.iter().flat_map(WeightFigures::by_name) {
        scalars.push((format!("weights/{}", name.strip_suffix("_weight").unwrap_or(name)), value));
    }
    scalars.extend(figures.iter().map(|(name, value)| (format!("train/{name}"), *value)));
    scalars
}
