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
    Some(middle((0..settings.resamples).map(|_| resampled_mean(values, &mut random)).collect(), confidence))
}

/// The interval of the mean, over `strata` that count the same, of each one's ratio of sums, `(s, t)` a problem as for
/// [`ratio`](super::ratio()); means are ratios with `t = 1`. Problems are drawn again within each stratum, as many as
/// it has. Nothing where a stratum has none, or for no strata.
///
/// # Panics
/// When the confidence is not between 0 and 1, there are no draws, or a `t` is not above 0.
pub fn bootstrap_strata(
    strata: &[Vec<(f64, f64)>],
    confidence: f64,
    settings: &Bootstrap,
) -> Option<Interval> {
    assert!(confidence > 0.0 && confidence < 1.0, "a confidence of {confidence}");
    assert!(settings.resamples > 0, "no draws");
    assert!(strata.iter().flatten().all(|part| part.1 > 0.0), "a problem without units");
    if strata.is_empty() || strata.iter().any(Vec::is_empty) {
        return None;
    }
    let mut random = ChaCha8Rng::seed_from_u64(settings.seed);
    let mut resampled =
        || strata.iter().map(|parts| resampled_ratio(parts, &mut random)).sum::<f64>() / strata.len() as f64;
    Some(middle((0..settings.resamples).map(|_| resampled()).collect(), confidence))
}

/// The ends of the middle share of `means`.
fn middle(mut means: Vec<f64>, confidence: f64) -> Interval {
    means.sort_unstable_by(f64::total_cmp);
    let outside = (1.0 - confidence) / 2.0;
    Interval { low: quantile(&means, outside), high: quantile(&means, 1.0 - outside) }
}

fn resampled_mean(values: &[f64], random: &mut ChaCha8Rng) -> f64 {
    let count = values.len();
    (0..count).map(|_| *drawn(values, random)).sum::<f64>() / count as f64
}

fn resampled_ratio(parts: &[(f64, f64)], random: &mut ChaCha8Rng) -> f64 {
    let add = |(sum, units), (s, t)| (sum + s, units + t);
    let (sum, units) = (0..parts.len()).map(|_| *drawn(parts, random)).fold((0.0, 0.0), add);
    sum / units
}

fn drawn<'a, T>(values: &'a [T], random: &mut ChaCha8Rng) -> &'a T {
    // Multiply and shift: for so few values its bias is far below anything a resample could show.
    &values[((u128::from(random.next_u64()) * values.len() as u128) >> 64) as usize]
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
    fn one_stratum_of_units_is_a_mean() {
        let values: Vec<f64> = (0..50).map(|i| f64::from(i % 7)).collect();
        let parts = vec![values.iter().map(|&value| (value, 1.0)).collect()];
        let of_parts = bootstrap_strata(&parts, 0.9, &Bootstrap::default());
        assert_eq!(of_parts, bootstrap_mean(&values, 0.9, &Bootstrap::default()));
        assert_eq!(bootstrap_strata(&[vec![(1.0, 1.0)], vec![]], 0.9, &Bootstrap::default()), None);
    }

    /// The strata differ by far, and that is no part of the spread: the mean is 52 with error
    /// `sqrt(8.25 / 400 + 8.25 / 400) / 2`. The second counts twice the nats on twice the tokens.
    #[test]
    fn strata_are_drawn_apart() {
        let values = || (0..400).map(|i| f64::from(i % 10));
        let strata = [
            values().map(|value| (value, 1.0)).collect(),
            values().map(|value| (2.0 * (value + 95.0), 2.0)).collect(),
        ];
        let interval = bootstrap_strata(&strata, 0.95, &Bootstrap::default()).expect("values");
        let half = 1.96 * (2.0 * 8.25f64 / 400.0).sqrt() / 2.0;
        assert!((interval.low - (52.0 - half)).abs() < 0.015, "{interval:?}");
        assert!((interval.high - (52.0 + half)).abs() < 0.015, "{interval:?}");
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
