//! The bootstrap interval of a mean: what other means the same problems could have given.
//!
//! The values are drawn with replacement, as many as there are; of the means of many such draws the middle share is the
//! interval (Efron's percentile method). It needs no normal distribution, but it is a little too narrow for few values:
//! below about 20, prefer the t interval.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use serde::{Deserialize, Serialize};

use super::paired::Interval;

/// Settings of the resampling.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Bootstrap {
    /// Draws.
    pub resamples: usize,
    /// Decides every draw.
    pub seed: u64,
}

impl Default for Bootstrap {
    /// Ten thousand draws put the ends of a 95% interval within about a fiftieth of its width.
    fn default() -> Self {
        Bootstrap { resamples: 10_000, seed: 0 }
    }
}

/// The interval of the mean of `values` that holds `confidence` (such as 0.95) of the resampled means. A function of
/// its arguments alone. Nothing for no values.
///
/// # Panics
/// When the confidence is not between 0 and 1 or there are no draws.
pub fn bootstrap_mean(values: &[f64], confidence: f64, settings: &Bootstrap) -> Option<Interval> {
    assert!(confidence > 0.0 && confidence < 1.0, "a confidence of {confidence}");
    assert!(settings.resamples > 0, "no draws");
    if values.is_empty() {
        return None;
    }
    let mut random = ChaCha8Rng::seed_from_u64(settings.seed);
    let mut means: Vec<f64> = (0..settings.resamples).map(|_| resampled_mean(values, &mut random)).collect();
    means.sort_unstable_by(f64::total_cmp);
    let outside = (1.0 - confidence) / 2.0;
    Some(Interval { low: quantile(&means, outside), high: quantile(&means, 1.0 - outside) })
}

fn resampled_mean(values: &[f64], random: &mut ChaCha8Rng) -> f64 {
    let count = values.len();
    // Multiply and shift: for so few values its bias is far below anything a resample could show.
    let mut draw = || values[((u128::from(random.next_u64()) * count as u128) >> 64) as usize];
    (0..count).map(|_| draw()).sum::<f64>() / count as f64
}

/// Between the two neighbours of rank `p (n - 1)`.
fn quantile(sorted: &[f64], p: f64) -> f64 {
    let rank = p * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[rank.floor() as usize], sorted[rank.ceil() as usize]);
    below + (rank - rank.floor()) * (above - below)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_that_of_the_normal_distribution_for_many_values() {
        let values: Vec<f64> = (0..400).map(|i| f64::from(i % 10)).collect();
        let interval = bootstrap_mean(&values, 0.95, &Bootstrap::default()).expect("values");
        // Mean 4.5, variance 8.25, error sqrt(8.25 / 400) = 0.14361.
        let half = 1.96 * (8.25f64 / 400.0).sqrt();
        assert!((interval.low - (4.5 - half)).abs() < 0.015, "{interval:?}");
        assert!((interval.high - (4.5 + half)).abs() < 0.015, "{interval:?}");
        let narrower = bootstrap_mean(&values, 0.5, &Bootstrap::default()).expect("values");
        assert!((narrower.high - 4.5 - 0.6745 * half / 1.96).abs() < 0.01, "{narrower:?}");
    }

    /// Two values have four resamples: means 0, 1/2, 1/2 and 1, a quarter of them below 1/2.
    #[test]
    fn two_values_by_hand() {
        let interval = |confidence| bootstrap_mean(&[0.0, 1.0], confidence, &Bootstrap::default());
        assert_eq!(interval(0.9), Some(Interval { low: 0.0, high: 1.0 }));
        assert_eq!(interval(0.2), Some(Interval { low: 0.5, high: 0.5 }));
    }

    #[test]
    fn a_seed_gives_one_interval() {
        let values = [1.0, 2.0, 4.0, 8.0, 16.0];
        let of = |seed| bootstrap_mean(&values, 0.95, &Bootstrap { resamples: 500, seed });
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
        assert_eq!(
            bootstrap_mean(&[3.0, 3.0], 0.95, &Bootstrap::default()),
            Some(Interval { low: 3.0, high: 3.0 })
        );
        assert_eq!(bootstrap_mean(&[], 0.95, &Bootstrap::default()), None);
    }

    #[test]
    fn quantiles_lie_between_ranks() {
        let sorted = [0.0, 10.0, 20.0];
        assert_eq!([0.0, 0.25, 0.5, 1.0].map(|p| quantile(&sorted, p)), [0.0, 5.0, 10.0, 20.0]);
    }
}
