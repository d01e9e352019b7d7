//! Which tokens weigh most and least.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::{Prediction, WeightsView};

/// The `limit` heaviest predictions above 1, heaviest first. Among equals, such as all that were clipped, the greater delta
/// comes first, then the earlier token.
pub(super) fn highest(view: &WeightsView, limit: usize) -> Vec<Prediction<'_>> {
    ranked(view, limit, |weight| weight > 1.0, |a, b| by_weight(b, a))
}

/// The `limit` lightest predictions below 1, lightest first.
pub(super) fn lowest(view: &WeightsView, limit: usize) -> Vec<Prediction<'_>> {
    ranked(view, limit, |weight| weight < 1.0, by_weight)
}

fn by_weight(a: &Prediction, b: &Prediction) -> Ordering {
    lightest_first([a.weight(), a.delta()], [b.weight(), b.delta()])
}

/// The order of tokens, each by its weight and, where that is the same, its delta.
pub(crate) fn lightest_first(a: [f32; 2], b: [f32; 2]) -> Ordering {
    a[0].total_cmp(&b[0]).then(a[1].total_cmp(&b[1]))
}

fn ranked(
    view: &WeightsView,
    limit: usize,
    counts: impl Fn(f32) -> bool,
    order: impl Fn(&Prediction, &Prediction) -> Ordering,
) -> Vec<Prediction<'_>> {
    let mut predictions: Vec<_> =
        view.predictions().filter(|prediction| counts(prediction.weight())).collect();
    predictions.sort_by(order);
    predictions.truncate(limit);
    predictions
}

/// All occurrences of one token.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct TokenMean {
    pub name: String,
    pub count: usize,
    pub mean_weight: f64,
    pub mean_delta: f64,
}

/// Tokens that occur at least `least_count` times, by their mean weight, heaviest first; then by mean delta and name.
pub(super) fn token_means(view: &WeightsView, least_count: usize) -> Vec<TokenMean> {
    let mut sums: BTreeMap<u32, TokenMean> = BTreeMap::new();
    for prediction in view.predictions() {
        let sum = sums.entry(prediction.id()).or_insert_with(|| TokenMean {
            name: prediction.name(),
            count: 0,
            mean_weight: 0.0,
            mean_delta: 0.0,
        });
        sum.count += 1;
        sum.mean_weight += f64::from(prediction.weight());
        sum.mean_delta += f64::from(prediction.delta());
    }
    let mut means: Vec<TokenMean> = sums
        .into_values()
        .filter(|sum| sum.count >= least_count)
        .map(|sum| {
            let count = sum.count as f64;
            TokenMean { mean_weight: sum.mean_weight / count, mean_delta: sum.mean_delta / count, ..sum }
        })
        .collect();
    means.sort_by(|a, b| {
        let weight = b.mean_weight.total_cmp(&a.mean_weight);
        weight.then(b.mean_delta.total_cmp(&a.mean_delta)).then_with(|| a.name.cmp(&b.name))
    });
    means
}
