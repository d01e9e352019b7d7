//! From rewards to advantages: how much better each completion is than the others of its group.
//!
//! A group is `G` completions of one prompt, neighbours in every stream; `r` are the rewards of the rollout batch.
//!
//! ```text
//! a_i = r_i - mean(r of the group)                        scale_rewards = none: Dr. GRPO (arXiv 2503.20783)
//!     = (r_i - mean) / (std(r of the group) + 1e-4)       group: GRPO (DeepSeekMath, arXiv 2402.03300)
//!     = (r_i - mean) / (std(r of the batch) + 1e-4)       batch: one scale for all groups (arXiv 2508.08221)
//! ```
//!
//! with the sample standard deviation (`n - 1`). A group whose rewards are all equal has advantages of exactly 0 under
//! every rule and teaches nothing: [`informative_groups`] finds the others for dynamic sampling (DAPO, arXiv
//! 2503.14476), which samples on until the batch is full of them.
//!
//! The soft overlong penalty, also DAPO's, is added to the reward before any of this. With `L` the longest completion
//! allowed and `c` the width of the soft zone:
//!
//! ```text
//! penalty(n) = 0 for n <= L - c,   (L - c - n) / c up to n = L,   -1 beyond
//! ```
//!
//! Rewards and advantages are `f64`: a batch has few of them, and differences of large rewards stay exact.

use serde::{Deserialize, Serialize};

/// Added to the standard deviation before dividing by it.
const STD_EPSILON: f64 = 1e-4;

/// What a centred reward is divided by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScaleRewards {
    /// The standard deviation of its group, plus 1e-4.
    #[default]
    Group,
    /// The standard deviation of all rewards of the batch, plus 1e-4.
    Batch,
    /// Nothing.
    None,
}

/// The advantage of every completion. `rewards` is `[B * G]` with `G = group` completions a prompt, the whole rollout
/// batch: micro-batches are cut after this, not before.
///
/// # Panics
/// When the rewards do not fill whole groups.
pub fn advantages(rewards: &[f64], group: usize, scale: ScaleRewards) -> Vec<f64> {
    let batch_std = sample_std(rewards);
    let mut advantages = Vec::with_capacity(rewards.len());
    for rewards in groups(rewards, group) {
        let center = mean(rewards);
        let divisor = match scale {
            ScaleRewards::Group => sample_std(rewards) + STD_EPSILON,
            ScaleRewards::Batch => batch_std + STD_EPSILON,
            ScaleRewards::None => 1.0,
        };
        // The mean of equal rewards may differ from them in its last digit, which a small divisor would blow up.
        let equal = all_equal(rewards);
        advantages.extend(rewards.iter().map(|r| if equal { 0.0 } else { (r - center) / divisor }));
    }
    advantages
}

/// Whether each group has rewards that differ. `rewards` is `[B * G]`, the result `[B]`.
///
/// # Panics
/// As [`advantages`].
pub fn informative_groups(rewards: &[f64], group: usize) -> Vec<bool> {
    groups(rewards, group).map(|rewards| !all_equal(rewards)).collect()
}

/// The soft overlong penalty of a completion of `length` tokens, from -1 to 0. A zone of 0 tokens penalises only what
/// is longer than allowed.
///
/// # Panics
/// When the soft zone is wider than the longest completion allowed.
pub fn overlong_penalty(length: usize, longest: usize, zone: usize) -> f64 {
    assert!(zone <= longest, "a soft zone of {zone} tokens before an end at {longest}");
    let free = longest - zone;
    if length <= free {
        0.0
    } else if length <= longest {
        -((length - free) as f64) / zone as f64
    } else {
        -1.0
    }
}

/// What a step reports about its rewards.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RewardSummary {
    /// Completions.
    pub completions: usize,
    /// Mean reward.
    pub mean_reward: f64,
    /// Sample standard deviation of the reward over the batch.
    pub std_reward: f64,
    /// Share of groups whose rewards are all equal, and which therefore teach nothing.
    pub equal_groups: f64,
    /// Mean of the absolute advantage.
    pub mean_abs_advantage: f64,
}

impl RewardSummary {
    /// The figures of a rollout batch; all are 0 when it is empty. Both are `[B * G]`.
    ///
    /// # Panics
    /// When the two differ in length, and as [`advantages`].
    pub fn of(rewards: &[f64], advantages: &[f64], group: usize) -> RewardSummary {
        assert_eq!(rewards.len(), advantages.len(), "one advantage a reward");
        let informative = informative_groups(rewards, group);
        let equal = informative.iter().filter(|&&informative| !informative).count();
        let sizes: Vec<f64> = advantages.iter().map(|advantage| advantage.abs()).collect();
        RewardSummary {
            completions: rewards.len(),
            mean_reward: mean(rewards),
            std_reward: sample_std(rewards),
            equal_groups: if informative.is_empty() { 0.0 } else { equal as f64 / informative.len() as f64 },
            mean_abs_advantage: mean(&sizes),
        }
    }
}

fn groups(rewards: &[f64], group: usize) -> std::slice::ChunksExact<'_, f64> {
    assert!(
        group > 0 && rewards.len().is_multiple_of(group),
        "{} rewards in groups of {group}",
        rewards.len()
    );
    rewards.chunks_exact(group)
}

fn all_equal(values: &[f64]) -> bool {
    values.windows(2).all(|pair| pair[0] == pair[1])
}

/// The mean, and 0 for nothing.
fn mean(values: &[f64]) -> f64 {
    if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / values.len() as f64 }
}

/// The sample standard deviation, and 0 for fewer than two values.
fn sample_std(values: &[f64]) -> f64 {
    if values.len() < 2 {
        return 0.0;
    }
    let center = mean(values);
    let squares: f64 = values.iter().map(|value| (value - center) * (value - center)).sum();
    (squares / (values.len() - 1) as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Standard deviation of 1, 2, 3 is 1; of 10, 20, 60 it is sqrt(700).
    const REWARDS: [f64; 6] = [1.0, 2.0, 3.0, 10.0, 20.0, 60.0];

    fn close(found: &[f64], expected: &[f64]) {
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-12, "{found} is not {expected}");
        }
    }

    #[test]
    fn closed_form() {
        close(&advantages(&REWARDS, 3, ScaleRewards::None), &[-1.0, 0.0, 1.0, -20.0, -10.0, 30.0]);
        let (first, second) = (1.0001, 700f64.sqrt() + 1e-4);
        let expected = [-1.0 / first, 0.0, 1.0 / first, -20.0 / second, -10.0 / second, 30.0 / second];
        close(&advantages(&REWARDS, 3, ScaleRewards::Group), &expected);
        // The batch: mean 16, squares 225 + 196 + 169 + 36 + 16 + 1936 = 2578, over 5.
        let all = (2578.0f64 / 5.0).sqrt() + 1e-4;
        let expected = [-1.0 / all, 0.0, 1.0 / all, -20.0 / all, -10.0 / all, 30.0 / all];
        close(&advantages(&REWARDS, 3, ScaleRewards::Batch), &expected);
    }

    #[test]
    fn equal_rewards_teach_nothing_exactly() {
        let rewards = [0.1, 0.1, 0.1, 0.0, 1.0, 1.0];
        for scale in [ScaleRewards::Group, ScaleRewards::Batch, ScaleRewards::None] {
            let advantages = advantages(&rewards, 3, scale);
            assert_eq!(advantages[..3], [0.0; 3], "0.1 + 0.1 + 0.1 is not 0.3");
            assert!(advantages[3] < 0.0 && advantages[4] > 0.0);
        }
        assert_eq!(informative_groups(&rewards, 3), [false, true]);
        assert_eq!(
            advantages(&[5.0, 7.0], 1, ScaleRewards::Group),
            [0.0, 0.0],
            "a group of one has no others"
        );
    }

    #[test]
    fn the_penalty_falls_from_the_soft_zone_to_the_end() {
        let penalty = |length| overlong_penalty(length, 100, 20);
        assert_eq!([penalty(0), penalty(80), penalty(81)], [0.0, 0.0, -0.05]);
        assert_eq!([penalty(90), penalty(100), penalty(101)], [-0.5, -1.0, -1.0]);
        assert_eq!([overlong_penalty(100, 100, 0), overlong_penalty(101, 100, 0)], [0.0, -1.0]);
    }

    #[test]
    fn the_summary_counts_groups_and_completions() {
        let rewards = [0.0, 0.0, 0.0, 1.0];
        let summary = RewardSummary::of(&rewards, &advantages(&rewards, 2, ScaleRewards::None), 2);
        let expected = RewardSummary {
            completions: 4,
            mean_reward: 0.25,
            std_reward: 0.5,
            equal_groups: 0.5,
            mean_abs_advantage: 0.25,
        };
        assert_eq!(summary, expected);
        assert_eq!(RewardSummary::of(&[], &[], 4).equal_groups, 0.0);
    }

    #[test]
    #[should_panic(expected = "5 rewards in groups of 2")]
    fn a_broken_group_is_a_mistake_of_ours() {
        advantages(&[0.0; 5], 2, ScaleRewards::Group);
    }
}
