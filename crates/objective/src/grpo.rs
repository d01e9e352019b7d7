//! Group relative policy optimisation and its published variants: the loss of sampled completions.
//!
//! Shapes: `S` sequences (completions), `T` predictions each, padded on the right; streams are `[S, T]`, row-major.
//! `A_s` is the advantage of sequence `s` (see [`crate::advantage`]), `m_st` the completion mask. For each unmasked
//! prediction:
//!
//! ```text
//! r   = exp(log p_learner - log p_sampler)                              the sampler generated the tokens
//! l   = -min(r A, clip(r, 1 - epsilon, 1 + epsilon_high) A)             grpo | dr_grpo | dapo
//!     = -min(r, 1 + epsilon_high) A log p_learner                       cispo, its factor constant to the derivative
//! d   = clip(log p_reference - log p_learner, -40, 40),   k3 = expm1(d) - d
//! loss = sum over s, t of c_s m_st (l + beta k3)
//! ```
//!
//! | `loss_type` | `c_s` | clip | paper |
//! |---|---|---|---|
//! | `grpo` | `1 / (S n_s)`: mean over sequences of the mean over their tokens | 0.2 | DeepSeekMath, arXiv 2402.03300 |
//! | `dr_grpo` | `1 / (S max_completion_length)`: no length bias | 0.2 | Dr. GRPO, arXiv 2503.20783 |
//! | `dapo` | `1 / N`: every token of the batch counts the same | 0.2, 0.28 | DAPO, arXiv 2503.14476 |
//! | `cispo` | `1 / N` | upper only | MiniMax-M1, arXiv 2506.13585 |
//!
//! `n_s` is the number of unmasked predictions of the sequence, `N` of the whole optimiser batch, `S` the sequences of
//! the whole optimiser batch, truncated and empty ones included. [`BatchSize`] is counted from all micro-batches before the
//! first backward, so that cutting them differently, or padding them, gives the same update.
//!
//! **Clip rules.** The `min` clips in one direction only: a token is clipped where `A > 0` and `r > 1 + epsilon_high`,
//! or `A < 0` and `r < 1 - epsilon`; there its derivative is 0, and the clip shares count exactly these. `cispo` keeps
//! every token's derivative and bounds its factor from above; as in the paper's experiments there is no lower bound,
//! and `epsilon` is not read. Note that the bound is the paper's `1 + epsilon_high`, where TRL's `epsilon_high` is the
//! bound itself: its 5 is 4 here.
//!
//! **Derivative.**
//!
//! ```text
//! d l / d log p_learner  = -r A, or 0 where clipped       cispo: -min(r, 1 + epsilon_high) A
//! d k3 / d log p_learner = -expm1(d), or 0 where d is clipped
//! ```
//!
//! On policy, the learner of the step is the sampler itself: leave [`Rollouts::sampler`] out and `r = 1` exactly,
//! still with the derivative above. The KL estimate k3 is Schulman's (joschu.net/blog/kl-approx.html): unbiased for
//! samples of the learner, never negative.

use serde::{Deserialize, Serialize};

use crate::advantage::ScaleRewards;
use crate::loss::count_unmasked;
use crate::{Error, check};

/// Log-ratios to the reference beyond this are cut off: e^40 is far outside what a KL estimate can use.
const LOG_RATIO_LIMIT: f64 = 40.0;

/// Settings of the policy loss, by the names that TRL made known.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Grpo {
    /// Clip rule and reduction.
    pub loss_type: LossType,
    /// What a centred reward is divided by.
    pub scale_rewards: ScaleRewards,
    /// The ratio is clipped below at `1 - epsilon`; between 0 and 1.
    pub epsilon: f64,
    /// The ratio is clipped above at `1 + epsilon_high`; 0 or more. Left out, it is `epsilon`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epsilon_high: Option<f64>,
    /// Factor of the KL estimate to the reference; at 0 no reference is needed.
    pub beta: f64,
    /// Completions a prompt, `G`; 2 or more.
    pub num_generations: usize,
    /// The longest completion sampled, in tokens; the divisor of `dr_grpo`.
    pub max_completion_length: usize,
    /// Whether completions cut off at the longest length are masked out of the loss. Their rewards still count in
    /// their group's mean.
    pub mask_truncated_completions: bool,
    /// Width of the soft overlong zone before the longest length, in tokens; 0 turns the penalty off.
    pub soft_punish_cache: usize,
    /// Whether groups with equal rewards are dropped and others sampled in their place.
    pub dynamic_sampling: bool,
}

/// Clip rule and reduction: the table at the top of this file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossType {
    /// Two-sided clip, mean over sequences of token means.
    Grpo,
    /// Two-sided clip, sum over a constant.
    DrGrpo,
    /// Two-sided clip, mean over the tokens of the batch.
    #[default]
    Dapo,
    /// Bounded factor, mean over the tokens of the batch.
    Cispo,
}

impl Default for Grpo {
    /// Token mean, group scaling, clip 0.2, no KL: TRL's defaults; on-policy steps never reach the clip.
    fn default() -> Self {
        Grpo {
            loss_type: LossType::Dapo,
            scale_rewards: ScaleRewards::Group,
            epsilon: 0.2,
            epsilon_high: None,
            beta: 0.0,
            num_generations: 8,
            max_completion_length: 256,
            mask_truncated_completions: false,
            soft_punish_cache: 0,
            dynamic_sampling: false,
        }
    }
}

/// What is known about the sampled completions of one micro-batch. A view: nothing is copied.
///
/// Masked predictions influence nothing, whatever their entries hold.
#[derive(Clone, Copy, Debug)]
pub struct Rollouts<'a> {
    /// Predictions a sequence, `T`.
    pub length: usize,
    /// `[S, T]`: true at the predictions of completion tokens.
    pub mask: &'a [bool],
    /// `[S, T]`: the learner's log-probability of the target, in nats.
    pub learner: &'a [f32],
    /// `[S, T]`: the log-probability under the parameters that sampled; absent on policy.
    pub sampler: Option<&'a [f32]>,
    /// `[S, T]`: the reference's log-probability; read with `beta` above 0 only.
    pub reference: Option<&'a [f32]>,
    /// `[S]`: the advantage of each sequence.
    pub advantages: &'a [f64],
}

/// The size of the whole optimiser batch, all micro-batches and all processes, counted before the first backward.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchSize {
    /// Sequences, `S`.
    pub sequences: u64,
    /// Unmasked predictions, `N`.
    pub tokens: u64,
}

impl BatchSize {
    /// Counts masks of `[S, T]` with `T = length`; each micro-batch may have its own length.
    ///
    /// # Panics
    /// When a mask does not fill whole sequences.
    pub fn count<'a>(masks: impl IntoIterator<Item = (usize, &'a [bool])>) -> BatchSize {
        let mut size = BatchSize::default();
        for (length, mask) in masks {
            assert!(
                length > 0 && mask.len().is_multiple_of(length),
                "{} predictions of {length}",
                mask.len()
            );
            size.sequences += (mask.len() / length) as u64;
            size.tokens += count_unmasked(mask);
        }
        size
    }
}

impl Grpo {
    /// Checks the numbers; everything below takes checked settings for granted.
    ///
    /// # Errors
    /// A number outside its range.
    pub fn validate(&self) -> Result<(), Error> {
        let finite = "a finite number, 0 or more";
        let (high, beta, longest) = (self.epsilon_high(), self.beta, self.max_completion_length);
        check((0.0..=1.0).contains(&self.epsilon), "epsilon", self.epsilon, "between 0 and 1")?;
        check(high.is_finite() && high >= 0.0, "epsilon_high", high, finite)?;
        check(beta.is_finite() && beta >= 0.0, "beta", beta, finite)?;
        let group = self.num_generations;
        check(group >= 2, "num_generations", group as f64, "2 or more: a group is compared with itself")?;
        check(longest > 0, "max_completion_length", longest as f64, "1 or more")?;
        let zone = self.soft_punish_cache;
        check(zone <= longest, "soft_punish_cache", zone as f64, "at most `max_completion_length`")
    }

    /// Whether the loss reads the reference's log-probabilities.
    pub fn needs_reference(&self) -> bool {
        self.beta > 0.0
    }

    /// The upper clip distance in force.
    pub fn epsilon_high(&self) -> f64 {
        self.epsilon_high.unwrap_or(self.epsilon)
    }

    /// Takes truncated completions out of the mask, where the settings ask for it. `mask` is `[S, T]`, `truncated`
    /// `[S]`; to be done before [`BatchSize::count`].
    ///
    /// # Panics
    /// When the mask does not fill the sequences.
    pub fn mask_truncated(&self, truncated: &[bool], mask: &mut [bool]) {
        if !self.mask_truncated_completions || truncated.is_empty() {
            return;
        }
        assert!(mask.len().is_multiple_of(truncated.len()), "whole sequences");
        let length = mask.len() / truncated.len();
        for (sequence, _) in truncated.iter().enumerate().filter(|(_, cut)| **cut) {
            mask[sequence * length..(sequence + 1) * length].fill(false);
        }
    }

    /// Writes `d(loss)/d(log p_learner)`, `[S, T]`, 0 where masked, and returns the sums of these sequences.
    ///
    /// # Panics
    /// When the streams differ in length, or `beta` is above 0 and there is no reference.
    pub fn evaluate(
        &self,
        rollouts: &Rollouts<'_>,
        batch: BatchSize,
        derivative: &mut [f32],
    ) -> PolicyStatistics {
        rollouts.check(derivative);
        derivative.fill(0.0);
        let mut statistics = PolicyStatistics::default();
        for (sequence, &advantage) in rollouts.advantages.iter().enumerate() {
            let range = sequence * rollouts.length..(sequence + 1) * rollouts.length;
            let share = self.share(count_unmasked(&rollouts.mask[range.clone()]), batch);
            for i in range.filter(|&i| rollouts.mask[i]) {
                let log_ratio = rollouts.log_ratio(i);
                let token = self.policy(advantage, log_ratio, f64::from(rollouts.learner[i]));
                let kl = if self.beta > 0.0 { rollouts.divergence(i) } else { Divergence::default() };
                derivative[i] = (share * (token.slope + self.beta * kl.slope)) as f32;
                statistics.add(&token, log_ratio, kl.value, share, self.beta);
            }
        }
        statistics
    }

    /// `c_s` of the module's formula, for a sequence with `tokens` unmasked predictions.
    fn share(&self, tokens: u64, batch: BatchSize) -> f64 {
        let divisor = match self.loss_type {
            LossType::Grpo => batch.sequences * tokens,
            LossType::DrGrpo => batch.sequences * self.max_completion_length as u64,
            LossType::Dapo | LossType::Cispo => batch.tokens,
        };
        // Nothing is in the sum where the divisor is 0.
        if divisor == 0 { 0.0 } else { 1.0 / divisor as f64 }
    }

    /// `l` of the module's formula and its slope.
    fn policy(&self, advantage: f64, log_ratio: f64, learner: f64) -> Policy {
        let (ratio, highest) = (log_ratio.exp(), 1.0 + self.epsilon_high());
        if self.loss_type == LossType::Cispo {
            let factor = ratio.min(highest) * advantage;
            let clipped_high = ratio > highest;
            return Policy { value: -factor * learner, slope: -factor, clipped_low: false, clipped_high };
        }
        let lowest = 1.0 - self.epsilon;
        let clipped_low = advantage < 0.0 && ratio < lowest;
        let clipped_high = advantage > 0.0 && ratio > highest;
        let (value, slope) = match (clipped_low, clipped_high) {
            (true, _) => (-lowest * advantage, 0.0),
            (_, true) => (-highest * advantage, 0.0),
            _ => (-ratio * advantage, -ratio * advantage),
        };
        Policy { value, slope, clipped_low, clipped_high }
    }
}

impl Rollouts<'_> {
    /// log p_learner - log p_sampler of prediction `i`.
    fn log_ratio(&self, i: usize) -> f64 {
        self.sampler.map_or(0.0, |sampler| f64::from(self.learner[i]) - f64::from(sampler[i]))
    }

    /// k3 of prediction `i`.
    fn divergence(&self, i: usize) -> Divergence {
        let reference =
            self.reference.expect("the caller asked `needs_reference` before it built the rollouts");
        let gap = f64::from(reference[i]) - f64::from(self.learner[i]);
        let d = gap.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT);
        Divergence { value: d.exp_m1() - d, slope: if d == gap { -d.exp_m1() } else { 0.0 } }
    }

    /// Asserts that the streams belong together.
    fn check(&self, derivative: &[f32]) {
        let size = self.mask.len();
        assert_eq!(self.advantages.len() * self.length, size, "one advantage a sequence");
        let streams = [Some(self.learner), self.sampler, self.reference, Some(derivative)];
        for stream in streams.into_iter().flatten() {
            assert_eq!(stream.len(), size, "one entry a prediction");
        }
    }
}

/// One prediction's policy loss.
struct Policy {
    value: f64,
    slope: f64,
    clipped_low: bool,
    clipped_high: bool,
}

/// One prediction's KL estimate.
#[derive(Default)]
struct Divergence {
    value: f64,
    slope: f64,
}

/// Sums over the micro-batches of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PolicyStatistics {
    tokens: u64,
    clipped_low: u64,
    clipped_high: u64,
    ratio: f64,
    largest_log_ratio: f64,
    kl: f64,
    loss: f64,
}

impl PolicyStatistics {
    fn add(&mut self, token: &Policy, log_ratio: f64, kl: f64, share: f64, beta: f64) {
        self.tokens += 1;
        self.clipped_low += u64::from(token.clipped_low);
        self.clipped_high += u64::from(token.clipped_high);
        self.ratio += log_ratio.exp();
        self.largest_log_ratio = larger(self.largest_log_ratio, log_ratio.abs());
        self.kl += kl;
        self.loss += share * (token.value + beta * kl);
    }

    /// Adds the sums of the next micro-batch. The order is part of the result's last bits: keep that of the data.
    pub fn merge(&mut self, other: &PolicyStatistics) {
        self.tokens += other.tokens;
        self.clipped_low += other.clipped_low;
        self.clipped_high += other.clipped_high;
        self.ratio += other.ratio;
        self.largest_log_ratio = larger(self.largest_log_ratio, other.largest_log_ratio);
        self.kl += other.kl;
        self.loss += other.loss;
    }

    /// The figures of the step. All are 0 when no prediction counts.
    pub fn summary(&self) -> PolicySummary {
        let mean = |sum: f64| if self.tokens == 0 { 0.0 } else { sum / self.tokens as f64 };
        PolicySummary {
            tokens: self.tokens,
            loss: self.loss,
            clipped_low: mean(self.clipped_low as f64),
            clipped_high: mean(self.clipped_high as f64),
            mean_ratio: mean(self.ratio),
            largest_log_ratio: self.largest_log_ratio,
            kl: mean(self.kl),
        }
    }
}

/// The figures of one optimiser step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PolicySummary {
    /// Unmasked predictions.
    pub tokens: u64,
    /// The loss that was minimised.
    pub loss: f64,
    /// Share of predictions cut off at the lower clip.
    pub clipped_low: f64,
    /// Share of predictions cut off at the upper clip.
    pub clipped_high: f64,
    /// Mean of p_learner / p_sampler; 1 on policy.
    pub mean_ratio: f64,
    /// Largest |log p_learner - log p_sampler|: in the first step after sampling, what two engines disagree by.
    pub largest_log_ratio: f64,
    /// Mean k3 estimate of KL(learner || reference), in nats a token; 0 where `beta` is 0.
    pub kl: f64,
}

/// The larger of two, and not-a-number where either is: it must surface.
fn larger(a: f64, b: f64) -> f64 {
    if a.is_nan() || a > b { a } else { b }
}

#[cfg(test)]
mod tests;
