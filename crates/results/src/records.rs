//! What a run writes down, a line each. The field names are the file format.

use remit_objective::WeightFigures;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

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
    pub weights: Option<WeightFigures>,
    /// Further figures of the stage, by name.
    #[serde(flatten)]
    pub figures: BTreeMap<String, f64>,
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
