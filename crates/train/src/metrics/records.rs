//! What a run writes down, a line each. The field names are the file format.

use std::collections::BTreeMap;

use crate::health::Breach;
use serde::{Deserialize, Serialize};

/// One training step. Everything in it follows from the settings and the data, so that a run that was killed and
/// resumed writes the same bytes as one that was not. Times are in [`StepTiming`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Counted from 1.
    pub step: u64,
    /// Unmasked predictions trained on so far, this step included.
    pub tokens: u64,
    /// The loss that was minimised, in nats a prediction.
    pub loss: f64,
    /// The plain next-token loss of the same forward pass, in nats a prediction; absent where what is minimised is of
    /// another kind.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ntp_loss: Option<f64>,
    /// The learning rate of this step.
    pub learning_rate: f64,
    /// The global norm of the gradient before clipping.
    pub grad_norm: f64,
    /// The z-loss term, where it is on; `loss` includes it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub z_loss: Option<f64>,
    /// How the tokens were weighted; absent where the objective has no weights.
    #[serde(flatten)]
    pub weights: Option<WeightRecord>,
    /// Further figures of the stage, by name.
    #[serde(flatten)]
    pub figures: BTreeMap<String, f64>,
}

/// The statistics of one step's token weights, over its unmasked predictions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WeightRecord {
    /// Mean weight; away from 1 it is a hidden change of learning rate.
    pub mean_weight: f64,
    /// Population standard deviation of the weight.
    pub std_weight: f64,
    /// Share of predictions raised to the lower bound.
    pub clipped_low: f64,
    /// Share of predictions lowered to the upper bound.
    pub clipped_high: f64,
    /// Share of predictions with a weight above 1.
    pub weighted_up: f64,
    /// `(sum w)^2 / sum w^2` as a share of predictions.
    pub effective_sample_share: f64,
    /// Mean of log p_reference - log p_learner, in nats; absent without a reference.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub mean_delta: Option<f64>,
}

impl StepRecord {
    /// The record's curves: tag and value.
    pub(super) fn scalars(&self) -> Vec<(String, f64)> {
        let StepRecord {
            step: _,
            tokens,
            loss,
            ntp_loss,
            learning_rate,
            grad_norm,
            z_loss,
            weights,
            figures,
        } = self;
        let mut scalars = vec![
            ("train/loss", *loss),
            ("train/learning_rate", *learning_rate),
            ("train/grad_norm", *grad_norm),
            ("train/tokens", *tokens as f64),
        ];
        scalars.extend(ntp_loss.map(|value| ("train/ntp_loss", value)));
        scalars.extend(z_loss.map(|value| ("train/z_loss", value)));
        if let Some(weights) = weights {
            scalars.extend(weights.scalars());
        }
        let figures = figures.iter().map(|(name, value)| (format!("train/{name}"), *value));
        scalars.into_iter().map(|(name, value)| (name.to_owned(), value)).chain(figures).collect()
    }
}

impl WeightRecord {
    fn scalars(&self) -> Vec<(&'static str, f64)> {
        let WeightRecord {
            mean_weight,
            std_weight,
            clipped_low,
            clipped_high,
            weighted_up,
            effective_sample_share,
            mean_delta,
        } = self;
        let mut scalars = vec![
            ("weights/mean", *mean_weight),
            ("weights/std", *std_weight),
            ("weights/clipped_low", *clipped_low),
            ("weights/clipped_high", *clipped_high),
            ("weights/weighted_up", *weighted_up),
            ("weights/effective_sample_share", *effective_sample_share),
        ];
        scalars.extend(mean_delta.map(|value| ("weights/mean_delta", value)));
        scalars
    }
}

/// One evaluation on held-out data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvalRecord {
    /// After how many steps.
    pub step: u64,
    /// Unmasked predictions trained on by then.
    pub tokens: u64,
    /// Plain next-token loss by the name of the held-out set, in nats a prediction.
    pub held_out: BTreeMap<String, f64>,
}

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

/// How fast one step was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepTiming {
    /// The step.
    pub step: u64,
    /// Seconds from the end of the step before, evaluation and checkpoints left out.
    pub seconds: f64,
    /// Predictions a second in those seconds.
    pub tokens_per_second: f64,
    /// Seconds of its parts, by name, where the stage has any.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub parts: BTreeMap<String, f64>,
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
