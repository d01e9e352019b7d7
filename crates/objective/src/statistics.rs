//! What a step reports about its weights; without it the method is blind.
//!
//! All figures are over unmasked predictions. Sums are kept in `f64` and merged in the order of the micro-batches, so
//! the same batches in the same order give the same bits.

use serde::{Deserialize, Serialize};

use crate::loss::{Denominator, LossSums};
use crate::signals::Signals;

/// Predictions whose weight was cut off by a bound.
///
/// A weight counts as clipped when its value *before* clipping lies strictly outside the bounds: a weight that happens
/// to equal a bound is not clipped. Renormalisation comes after, and does not change the count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clipped {
    /// Raised to the lower bound.
    pub low: u64,
    /// Lowered to the upper bound.
    pub high: u64,
}

impl Clipped {
    /// Adds the counts of another part of the batch.
    pub fn merge(&mut self, other: &Clipped) {
        self.low += other.low;
        self.high += other.high;
    }
}

/// Sums over the micro-batches of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Statistics {
    tokens: u64,
    weight: f64,
    weight_squared: f64,
    weighted_up: u64,
    clipped: Clipped,
    delta: f64,
    tokens_with_reference: u64,
    loss: LossSums,
}

impl Statistics {
    /// Sums of one micro-batch, or of one window.
    ///
    /// # Panics
    /// When the streams differ in length.
    pub fn of(signals: &Signals<'_>, weights: &[f32], clipped: Clipped, loss: LossSums) -> Statistics {
        signals.check(&[weights]);
        let mut statistics = Statistics { clipped, loss, ..Statistics::default() };
        for i in signals.all_unmasked() {
            let weight = f64::from(weights[i]);
            statistics.tokens += 1;
            statistics.weight += weight;
            statistics.weight_squared += weight * weight;
            statistics.weighted_up += u64::from(weights[i] > 1.0);
            if signals.reference.is_some() {
                statistics.tokens_with_reference += 1;
                statistics.delta += signals.gap(i);
            }
        }
        statistics
    }

    /// Sums of a micro-batch whose objective weighs nothing: every weight is 1.
    pub fn unweighted(tokens: u64, loss: LossSums) -> Statistics {
        let weight = tokens as f64;
        Statistics { tokens, weight, weight_squared: weight, loss, ..Statistics::default() }
    }

    /// Adds the sums of the next micro-batch. The order is part of the result's last bits: keep that of the data.
    pub fn merge(&mut self, other: &Statistics) {
        self.tokens += other.tokens;
        self.weight += other.weight;
        self.weight_squared += other.weight_squared;
        self.weighted_up += other.weighted_up;
        self.clipped.merge(&other.clipped);
        self.delta += other.delta;
        self.tokens_with_reference += other.tokens_with_reference;
        self.loss.merge(&other.loss);
    }

    /// The loss sums gathered so far.
    pub fn loss(&self) -> LossSums {
        self.loss
    }

    /// The figures of the step. All are 0 when no prediction counts.
    pub fn summary(&self, denominator: Denominator) -> StepSummary {
        let tokens = Denominator::from_tokens(self.tokens);
        let mean_weight = tokens.divide(self.weight);
        let variance = tokens.divide(self.weight_squared) - mean_weight * mean_weight;
        let effective =
            if self.weight_squared > 0.0 { self.weight * self.weight / self.weight_squared } else { 0.0 };
        let weights = WeightFigures {
            mean_weight,
            // Rounding can leave a variance a hair below 0; not-a-number must stay what it is.
            std_weight: if variance < 0.0 { 0.0 } else { variance.sqrt() },
            clipped_low: tokens.divide(self.clipped.low as f64),
            clipped_high: tokens.divide(self.clipped.high as f64),
            weighted_up: tokens.divide(self.weighted_up as f64),
            effective_sample_share: tokens.divide(effective),
            mean_delta: (self.tokens_with_reference > 0)
                .then(|| Denominator::from_tokens(self.tokens_with_reference).divide(self.delta)),
        };
        StepSummary {
            tokens: self.tokens,
            weights,
            ntp_loss: tokens.divide(self.loss.ntp),
            weighted_loss: denominator.divide(self.loss.weighted),
        }
    }
}

/// How the tokens of a step were weighted. The field names are those of logs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct WeightFigures {
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
    /// `(sum w)^2 / sum w^2` as a share of predictions: 1 when all weights are equal.
    pub effective_sample_share: f64,
    /// Mean of log p_reference - log p_learner, in nats; absent without a reference.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub mean_delta: Option<f64>,
}

impl WeightFigures {
    /// The names of the figures, in their order.
    pub const NAMES: [&'static str; 7] = [
        "mean_weight",
        "std_weight",
        "clipped_low",
        "clipped_high",
        "weighted_up",
        "effective_sample_share",
        "mean_delta",
    ];

    /// Each figure by its name, those that are there.
    pub fn by_name(&self) -> impl Iterator<Item = (&'static str, f64)> {
        let values = [
            Some(self.mean_weight),
            Some(self.std_weight),
            Some(self.clipped_low),
            Some(self.clipped_high),
            Some(self.weighted_up),
            Some(self.effective_sample_share),
            self.mean_delta,
        ];
        Self::NAMES.into_iter().zip(values).filter_map(|(name, value)| Some((name, value?)))
    }

    /// The means of each figure over several steps; nothing of none.
    pub fn mean(steps: &[WeightFigures]) -> Option<WeightFigures> {
        let count = steps.len() as f64;
        let over = |value: fn(&WeightFigures) -> f64| steps.iter().map(value).sum::<f64>() / count;
        (!steps.is_empty()).then(|| WeightFigures {
            mean_weight: over(|step| step.mean_weight),
            std_weight: over(|step| step.std_weight),
            clipped_low: over(|step| step.clipped_low),
            clipped_high: over(|step| step.clipped_high),
            weighted_up: over(|step| step.weighted_up),
            effective_sample_share: over(|step| step.effective_sample_share),
            mean_delta: steps.iter().map(|step| step.mean_delta).sum::<Option<f64>>().map(|sum| sum / count),
        })
    }
}

/// The figures of one step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct StepSummary {
    /// Unmasked predictions.
    pub tokens: u64,
    /// Of their weights.
    #[serde(flatten)]
    pub weights: WeightFigures,
    /// Plain next-token loss: mean of -log p_learner, in nats.
    pub ntp_loss: f64,
    /// The loss that was minimised: sum of `w (-log p_learner)` over the objective's denominator.
    pub weighted_loss: f64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Objective, Weighting, weighted_loss};

    #[derive(serde::Deserialize)]
    struct Expected {
        length: usize,
        logp_learner: Vec<f32>,
        logp_reference: Vec<f32>,
        delta: Vec<f64>,
        weights: Vec<f64>,
        epsilon: f64,
        ntp_loss: f64,
        remit_loss: f64,
        mean_weight: f64,
        clipped_low: f64,
        clipped_high: f64,
    }

    /// A language model's log-probabilities and the weights PyTorch gave them, in float32.
    #[test]
    fn golden_figures_of_a_model() {
        let expected: Expected =
            serde_json::from_str(include_str!("../golden/statistics.json")).expect("it parses");
        let size = expected.logp_learner.len();
        let signals = Signals {
            length: expected.length,
            mask: &vec![true; size],
            documents: &vec![0; size],
            learner: &expected.logp_learner,
            reference: Some(&expected.logp_reference),
        };
        let objective = Objective::Weighted(Weighting {
            epsilon_low: expected.epsilon,
            epsilon_high: expected.epsilon,
            ..Weighting::default()
        });
        let denominator = Denominator::count([signals.mask]);
        let (mut weights, mut derivative) = (vec![0.0; size], vec![0.0; size]);
        let summary =
            objective.evaluate(&signals, denominator, &mut weights, &mut derivative).summary(denominator);
        for (weight, golden) in weights.iter().zip(&expected.weights) {
            assert!((f64::from(*weight) / golden - 1.0).abs() < 1e-6, "{weight} {golden}");
        }
        let mean_delta = expected.delta.iter().sum::<f64>() / size as f64;
        for (figure, golden) in [
            (summary.weights.mean_weight, expected.mean_weight),
            (summary.weights.clipped_low, expected.clipped_low),
            (summary.weights.clipped_high, expected.clipped_high),
            (summary.ntp_loss, expected.ntp_loss),
            (summary.weighted_loss, expected.remit_loss),
            (summary.weights.mean_delta.expect("there is a reference"), mean_delta),
        ] {
            assert!((figure / golden - 1.0).abs() < 1e-6, "{figure} {golden}");
        }
        assert_eq!(summary.tokens, 144);
    }

    fn summary_of(weights: &[f32], clipped: Clipped) -> StepSummary {
        let signals = Signals {
            length: 5,
            mask: &[true, true, true, true, false],
            documents: &[0; 5],
            learner: &[-1.0, -2.0, -3.0, -4.0, -99.0],
            reference: Some(&[-2.0, -2.0, -2.0, -2.0, -99.0]),
        };
        let denominator = Denominator::count([signals.mask]);
        let loss = weighted_loss(&signals, weights, denominator, &mut [0.0; 5]);
        Statistics::of(&signals, weights, clipped, loss).summary(denominator)
    }

    #[test]
    fn closed_form() {
        let summary = summary_of(&[0.5, 0.5, 1.0, 2.0, 50.0], Clipped { low: 2, high: 1 });
        let expected = StepSummary {
            tokens: 4,
            weights: WeightFigures {
                mean_weight: 1.0,
                std_weight: 0.375f64.sqrt(),
                clipped_low: 0.5,
                clipped_high: 0.25,
                weighted_up: 0.25,
                effective_sample_share: 16.0 / 5.5 / 4.0,
                mean_delta: Some(0.5),
            },
            ntp_loss: 2.5,
            weighted_loss: (0.5 + 1.0 + 3.0 + 8.0) / 4.0,
        };
        assert_eq!(summary, expected);
    }

    #[test]
    fn equal_weights_have_no_spread_and_full_effect() {
        let summary = summary_of(&[1.1; 5], Clipped::default());
        assert!(summary.weights.std_weight < 1e-7);
        assert!((summary.weights.effective_sample_share - 1.0).abs() < 1e-12);
    }

    #[test]
    fn not_a_number_is_not_hidden() {
        let summary = summary_of(&[1.0, f32::NAN, 1.0, 1.0, 1.0], Clipped::default());
        assert!(
            summary.weights.mean_weight.is_nan()
                && summary.weights.std_weight.is_nan()
                && summary.weighted_loss.is_nan()
        );
    }

    #[test]
    fn windows_merge_into_the_batch() {
        let golden = crate::golden::Golden::load();
        let signals = golden.signals();
        let objective = Objective::Weighted(Weighting::default());
        let denominator = Denominator::count([signals.mask]);
        let size = signals.mask.len();
        let (mut weights, mut derivative) = (vec![0.0; size], vec![0.0; size]);
        let whole =
            objective.evaluate(&signals, denominator, &mut weights, &mut derivative).summary(denominator);
        let mut parts = Statistics::default();
        for w in 0..signals.num_windows() {
            let n = signals.length;
            let (weights, derivative) = (&mut weights[..n], &mut derivative[..n]);
            parts.merge(&objective.evaluate(&signals.window(w), denominator, weights, derivative));
        }
        let parts = parts.summary(denominator);
        assert_eq!(
            (parts.tokens, parts.weights.clipped_low, parts.weights.clipped_high),
            (whole.tokens, whole.weights.clipped_low, whole.weights.clipped_high)
        );
        assert!((parts.weighted_loss / whole.weighted_loss - 1.0).abs() < 1e-12);
        assert!((parts.weights.std_weight / whole.weights.std_weight - 1.0).abs() < 1e-12);
    }

    #[test]
    fn without_a_reference_there_is_no_delta() {
        let signals = Signals {
            length: 2,
            mask: &[true; 2],
            documents: &[0; 2],
            learner: &[-1.0, -3.0],
            reference: None,
        };
        let denominator = Denominator::count([signals.mask]);
        let (mut weights, mut derivative) = ([0.0; 2], [0.0; 2]);
        let summary = Objective::Ntp
            .evaluate(&signals, denominator, &mut weights, &mut derivative)
            .summary(denominator);
        let json = serde_json::to_string(&summary).expect("plain numbers");
        assert_eq!(
            json,
            r#"{"tokens":2,"mean_weight":1.0,"std_weight":0.0,"clipped_low":0.0,"clipped_high":0.0,"weighted_up":0.0,"effective_sample_share":1.0,"ntp_loss":2.0,"weighted_loss":2.0}"#
        );
    }

    #[test]
    fn nothing_counted_is_zero_everywhere() {
        let summary = Statistics::default().summary(Denominator::from_tokens(0));
        assert_eq!(
            (summary.weights.mean_weight, summary.weights.std_weight, summary.weights.effective_sample_share),
            (0.0, 0.0, 0.0)
        );
        assert_eq!((summary.ntp_loss, summary.weighted_loss, summary.weights.mean_delta), (0.0, 0.0, None));
    }
}
