//! Log-probabilities to token weights to loss and its derivative: pure functions on slices.
//!
//! No tensors, threads, clocks or files: a rule reads what the learner and the reference said about each prediction
//! ([`Signals`]) and writes a weight for each, the loss and `d(loss)/d(log p)`. The model's backward starts from that
//! derivative, so nothing here needs automatic differentiation and everything is checked by hand.
//!
//! In reading order:
//! - [`signals`]: the input, equal-length streams over `[W, T]`, named by who computed them;
//! - [`weighting`]: the token weights of ReMiT, with every option;
//! - [`selection`]: Rho-1, which keeps the tokens with the highest excess loss;
//! - [`loss`]: the denominator, counted first; the weighted loss; the z-loss;
//! - [`statistics`]: what a step reports about its weights;
//! - [`objective`]: the choice among the rules, as a recipe's `[objective]` table writes it;
//! - [`distillation`]: soft labels over the vocabulary, for a head that has the logits;
//! - [`distance`]: how far apart two models' distributions over the vocabulary are;
//! - [`dpo`]: preference pairs; [`advantage`] and [`grpo`]: sampled completions with rewards.
//!
//! A rule is one file: formula, paper, settings, code and tests together. A further rule is a further file and, where
//! it weighs tokens of a text, a variant of [`Objective`]; post-training rules see whole completions and stand alone.
//!
//! Inputs and outputs are `f32`; everything in between, sums above all, is `f64`.

pub mod advantage;
pub mod distance;
pub mod distillation;
pub mod dpo;
#[cfg(test)]
mod golden;
pub mod grpo;
pub mod loss;
pub mod objective;
pub mod selection;
pub mod signals;
pub mod statistics;
pub mod weighting;

pub use advantage::{RewardSummary, ScaleRewards, advantages, informative_groups, overlong_penalty};
pub use distance::{Distance, Means};
pub use distillation::{Direction, Distillation, DistillationSums};
pub use dpo::{Dpo, PreferenceStatistics, PreferenceSummary, Preferences};
pub use grpo::{BatchSize, Grpo, LossType, PolicyStatistics, PolicySummary, Rollouts};
pub use loss::{Denominator, LossSums, weighted_loss, z_loss};
pub use objective::Objective;
pub use remit_fault::Error;
pub use selection::Selection;
pub use signals::Signals;
pub use statistics::{Clipped, Statistics, StepSummary, WeightFigures};
pub use weighting::Weighting;

/// Refuses a setting that is not what is `expected`.
fn check(is_good: bool, key: &str, value: f64, expected: &str) -> Result<(), Error> {
    if is_good {
        return Ok(());
    }
    Err(remit_fault::fault!("objective setting `{key}` is {value}, but must be {expected}"))
}
