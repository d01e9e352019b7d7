//! Token weights by how much more the reference believes in a token than the learner does.
//!
//! ReMiT (RL-Guided Mid-Training, arXiv 2602.03075), with the options that its ablations and reviews ask for. Over the
//! unmasked predictions `t` of a group (see [`Center`]), with `N` of them:
//!
//! ```text
//! v_t = log p_reference - log p_learner   signal = gap
//!     = log p_reference                   signal = reference
//!     = -log p_learner                    signal = learner: the learner's surprise
//! mu  = mean v,  sigma = sqrt(mean (v - mu)^2)
//! x_t = (v_t - mu) / temperature                        no mu with center = none
//!     = (v_t - mu) / (temperature * (sigma + 1e-6))     scale = std
//! u_t = 2 sigmoid(x_t)  |  exp(x_t)  |  1 + x_t         map
//! w_t = clip(u_t, 1 - epsilon_low, 1 + epsilon_high)
//! w_t = w_t / mean w                                    renormalise = mean-one, mean over the same group
//! ```
//!
//! Masked predictions have weight 0. The paper is `center = sequence`, everything else as in [`Weighting::default`].
//!
//! **Gradient.** The weight is a constant to the derivative unless `stop_gradient = false`; then, with
//! `F = sum_t w_t nll_t` and `nll_t = -log p_learner`, the chain is walked back through every line above:
//!
//! ```text
//! b_t = nll_t                                            or (nll_t - mean(w nll)) / mean(clip(u))  with mean-one
//! c_t = b_t u'_t where u_t lies between the bounds, 0 where it is clipped
//! dF/dv_k = (c_k - mean c) / s  -  (sum_t c_t y_t) (v_k - mu) / (s (sigma + 1e-6) N sigma)
//! ```
//!
//! with `y = v - mu`, `s` the divisor of `x`, no `mean c` when nothing is centred and no second term without
//! `scale = std`. `d v/d log p_learner` is -1 for `gap` and `learner` and 0 for `reference`.

use serde::{Deserialize, Serialize};

use crate::loss::Denominator;
use crate::signals::{Scope, Signals};
use crate::{Clipped, Error, check};

/// Added to the standard deviation before dividing by it.
const STD_EPSILON: f64 = 1e-6;

/// Settings of the token weighting; the default is the paper's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Weighting {
    /// What is measured at each token.
    pub signal: Signal,
    /// Over which predictions the mean is taken that is subtracted.
    pub center: Center,
    /// What the centred signal is divided by, besides the temperature.
    pub scale: Scale,
    /// Divides the centred signal: below 1 sharpens the weights.
    pub temperature: f64,
    /// From the centred signal to a weight.
    pub map: Map,
    /// The lowest weight is `1 - epsilon_low`; between 0 and 1.
    pub epsilon_low: f64,
    /// The highest weight is `1 + epsilon_high`; 0 or more.
    pub epsilon_high: f64,
    /// Whether the weights of a group are brought back to a mean of 1 after clipping.
    pub renormalise: Renormalise,
    /// Whether the weight is a constant to the derivative.
    pub stop_gradient: bool,
    /// The control: whether the weights of each window are dealt out again among its predictions at random. They keep
    /// their distribution and lose their meaning.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub shuffle: bool,
}

/// What is measured at each token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Signal {
    /// Reference minus learner log-probability.
    #[default]
    Gap,
    /// The reference's log-probability alone.
    Reference,
    /// The learner's loss alone; needs no reference.
    Learner,
}

/// Over which predictions the mean is taken. The standard deviation and the renormalisation use the same group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Center {
    /// Each packed window.
    #[default]
    Sequence,
    /// Each document within a window.
    Document,
    /// All predictions of the optimiser batch.
    Batch,
    /// No centring; standard deviation and renormalisation, where asked for, use the optimiser batch.
    None,
}

/// What the centred signal is divided by, besides the temperature.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scale {
    /// Nothing.
    #[default]
    None,
    /// The population standard deviation of the group, plus 1e-6.
    Std,
}

/// From the centred signal to a weight; all map 0 to 1 and never decrease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Map {
    /// `2 sigmoid(x)`
    #[default]
    Sigmoid,
    /// `exp(x)`
    Exp,
    /// `1 + x`
    Linear,
}

/// Whether the weights of a group are brought back to a mean of 1 after clipping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Renormalise {
    /// As clipped.
    #[default]
    None,
    /// Divided by their mean. A group whose weights are all 0 keeps them.
    MeanOne,
}

impl Default for Weighting {
    fn default() -> Self {
        Weighting {
            signal: Signal::Gap,
            center: Center::Sequence,
            scale: Scale::None,
            temperature: 1.0,
            map: Map::Sigmoid,
            epsilon_low: 0.2,
            epsilon_high: 0.2,
            renormalise: Renormalise::None,
            stop_gradient: true,
            shuffle: false,
        }
    }
}

/// Deals the weights of each window out again among its unmasked predictions. The draws follow from the bits of the
/// learner's log-probabilities: another window or step, another order; the same signals, the same one.
fn shuffle(signals: &Signals<'_>, weights: &mut [f32]) {
    for range in signals.groups(Scope::Window) {
        let places: Vec<usize> = signals.unmasked(range).collect();
        let bits = places.iter().map(|&i| u64::from(signals.learner[i].to_bits()));
        let mut state = bits.fold(0, |state, bits| mix(state ^ bits));
        for last in (1..places.len()).rev() {
            state = mix(state);
            let other = (state % (last as u64 + 1)) as usize;
            weights.swap(places[last], places[other]);
        }
    }
}

/// A step of SplitMix64 (Steele, Lea and Flood 2014).
fn mix(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Weighting {
    /// Checks the numbers; everything below takes checked settings for granted.
    ///
    /// # Errors
    /// A number outside its range.
    pub fn validate(&self) -> Result<(), Error> {
        let (temperature, low, high) = (self.temperature, self.epsilon_low, self.epsilon_high);
        check(
            temperature.is_finite() && temperature > 0.0,
            "temperature",
            temperature,
            "a finite number above 0",
        )?;
        check(
            (0.0..=1.0).contains(&low),
            "epsilon_low",
            low,
            "between 0 and 1, so that no weight is negative",
        )?;
        check(high.is_finite() && high >= 0.0, "epsilon_high", high, "a finite number, 0 or more")?;
        let fits = self.stop_gradient || !self.shuffle;
        check(
            fits,
            "shuffle",
            1.0,
            "false where `stop_gradient` is: shuffled weights are no function of their tokens",
        )
    }

    /// Whether the signal reads the reference's log-probabilities.
    pub fn needs_reference(&self) -> bool {
        self.signal != Signal::Learner
    }

    /// Whether the weights of a window depend on that window alone, so that they can be computed as soon as its
    /// log-probabilities are known. Otherwise [`weigh`](Self::weigh) wants the whole optimiser batch at once.
    pub fn is_window_local(&self) -> bool {
        match self.center {
            Center::Sequence | Center::Document => true,
            Center::Batch => false,
            // Without a mean, each token stands alone unless a statistic of the batch is asked for.
            Center::None => self.scale == Scale::None && self.renormalise == Renormalise::None,
        }
    }

    /// Writes the weight of every prediction, 0 where masked, and counts what was clipped.
    ///
    /// # Panics
    /// When the streams differ in length, or the signal needs a reference and there is none.
    pub fn weigh(&self, signals: &Signals<'_>, weights: &mut [f32]) -> Clipped {
        signals.check(&[weights]);
        weights.fill(0.0);
        let mut clipped = Clipped::default();
        for range in signals.groups(self.scope()) {
            let values: Vec<f64> = signals.unmasked(range.clone()).map(|i| self.value(signals, i)).collect();
            let group = Group::new(self, &values);
            clipped.merge(&group.clipped);
            for (i, weight) in signals.unmasked(range).zip(group.weights) {
                weights[i] = weight as f32;
            }
        }
        if self.shuffle {
            shuffle(signals, weights);
        }
        clipped
    }

    /// Adds to `derivative` what the loss `sum(w nll) / denominator` owes to the weights' own dependence on the
    /// learner's log-probabilities: the part that `stop_gradient` leaves out. `[W, T]`, like the signals.
    ///
    /// Where a bound cuts a weight off, it depends on nothing. A group without spread (`sigma` = 0) passes nothing
    /// through its standard deviation.
    ///
    /// # Panics
    /// As [`weigh`](Self::weigh).
    pub fn add_gradient_through_weights(
        &self,
        signals: &Signals<'_>,
        denominator: Denominator,
        derivative: &mut [f32],
    ) {
        signals.check(&[derivative]);
        if self.signal == Signal::Reference {
            return; // These weights do not know the learner.
        }
        for range in signals.groups(self.scope()) {
            let values: Vec<f64> = signals.unmasked(range.clone()).map(|i| self.value(signals, i)).collect();
            let losses: Vec<f64> = signals.unmasked(range.clone()).map(|i| signals.nll(i)).collect();
            let gradient = Group::new(self, &values).gradient(&values, &losses);
            for (i, gradient) in signals.unmasked(range).zip(gradient) {
                derivative[i] = (f64::from(derivative[i]) - denominator.divide(gradient)) as f32;
            }
        }
    }

    /// `v_t` of the module's formula.
    fn value(&self, signals: &Signals<'_>, i: usize) -> f64 {
        match self.signal {
            Signal::Gap => signals.gap(i),
            Signal::Reference => signals.reference(i),
            Signal::Learner => signals.nll(i),
        }
    }

    fn scope(&self) -> Scope {
        match self.center {
            Center::Sequence => Scope::Window,
            Center::Document => Scope::Document,
            Center::Batch | Center::None => Scope::Batch,
        }
    }
}

impl Map {
    /// `u` of the module's formula.
    fn apply(self, x: f64) -> f64 {
        match self {
            Map::Sigmoid => 2.0 / (1.0 + (-x).exp()),
            Map::Exp => x.exp(),
            Map::Linear => 1.0 + x,
        }
    }

    /// The slope of the map where its value is `u`.
    fn slope(self, u: f64) -> f64 {
        match self {
            Map::Sigmoid => u * (1.0 - 0.5 * u),
            Map::Exp => u,
            Map::Linear => 1.0,
        }
    }
}

/// One group worked through, with what the way back needs. All in `f64`; entries are the unmasked predictions.
struct Group<'a> {
    rule: &'a Weighting,
    mean: f64,
    sigma: f64,
    /// What `v - mu` is divided by.
    divisor: f64,
    /// `u`: before clipping.
    raw: Vec<f64>,
    /// What clipped weights are divided by: their mean, or 1.
    level: f64,
    weights: Vec<f64>,
    clipped: Clipped,
}

impl<'a> Group<'a> {
    fn new(rule: &'a Weighting, values: &[f64]) -> Group<'a> {
        let mean = mean(values.iter().copied());
        let sigma = match rule.scale {
            Scale::Std => self::mean(values.iter().map(|value| (value - mean) * (value - mean))).sqrt(),
            Scale::None => 0.0,
        };
        let divisor = match rule.scale {
            Scale::Std => rule.temperature * (sigma + STD_EPSILON),
            Scale::None => rule.temperature,
        };
        let center = if rule.center == Center::None { 0.0 } else { mean };
        let raw: Vec<f64> = values.iter().map(|value| rule.map.apply((value - center) / divisor)).collect();

        let (lowest, highest) = bounds(rule);
        let clipped = Clipped {
            low: raw.iter().filter(|&&u| u < lowest).count() as u64,
            high: raw.iter().filter(|&&u| u > highest).count() as u64,
        };
        let mut weights: Vec<f64> = raw.iter().map(|u| u.clamp(lowest, highest)).collect();
        let level = match rule.renormalise {
            Renormalise::None => 1.0,
            Renormalise::MeanOne => self::mean(weights.iter().copied()),
        };
        let level = if level == 0.0 { 1.0 } else { level };
        for weight in &mut weights {
            *weight /= level;
        }
        Group { rule, mean, sigma, divisor, raw, level, weights, clipped }
    }

    /// `d(sum w nll)/dv`, with `nll` held constant: the lines under "Gradient" at the top of this file.
    fn gradient(&self, values: &[f64], losses: &[f64]) -> Vec<f64> {
        let (lowest, highest) = bounds(self.rule);
        let shift = match self.rule.renormalise {
            Renormalise::None => 0.0,
            Renormalise::MeanOne => mean(self.weights.iter().zip(losses).map(|(weight, nll)| weight * nll)),
        };
        let through_map = |(&u, nll): (&f64, &f64)| {
            let free = u > lowest && u < highest;
            if free { (nll - shift) / self.level * self.rule.map.slope(u) } else { 0.0 }
        };
        let c: Vec<f64> = self.raw.iter().zip(losses).map(through_map).collect();

        let centred = self.rule.center != Center::None;
        let (center, mean_c) = if centred { (self.mean, mean(c.iter().copied())) } else { (0.0, 0.0) };
        let through_sigma = if self.rule.scale == Scale::Std && self.sigma > 0.0 {
            let pull: f64 = c.iter().zip(values).map(|(c, value)| c * (value - center)).sum();
            pull / (self.divisor * (self.sigma + STD_EPSILON) * values.len() as f64 * self.sigma)
        } else {
            0.0
        };
        c.iter()
            .zip(values)
            .map(|(c, value)| (c - mean_c) / self.divisor - through_sigma * (value - self.mean))
            .collect()
    }
}

fn bounds(rule: &Weighting) -> (f64, f64) {
    (1.0 - rule.epsilon_low, 1.0 + rule.epsilon_high)
}

/// The mean, and 0 for nothing.
fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len();
    if count == 0 { 0.0 } else { values.sum::<f64>() / count as f64 }
}

#[cfg(test)]
mod tests;
