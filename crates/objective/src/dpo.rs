//! Direct preference optimisation: raise the chosen completion against the rejected one.
//!
//! DPO (arXiv 2305.18290), and the length-normalised variant of Tulu 3 (arXiv 2411.15124) and OLMo 2. For each of `P`
//! pairs, with sums over the `n` unmasked predictions of a completion:
//!
//! ```text
//! g(y)    = sum_t (log p_learner - log p_reference)                the implied reward, over beta
//!         = the same divided by n                                  length_normalised
//! margin  = g(chosen) - g(rejected)
//! loss    = sum over pairs of -log sigmoid(beta margin) / P
//! ```
//!
//! **Derivative.** Every token of a completion has the same, for the loss sees only their sum:
//!
//! ```text
//! d(loss)/d(log p_t) = -beta sigmoid(-beta margin) / P    chosen,  + for rejected;  divided by n if normalised
//! ```
//!
//! Shapes: streams are `[2 P, T]`, row-major; sequence `2 i` is the chosen and `2 i + 1` the rejected completion of
//! pair `i`. `P` in the loss is the number of pairs of the whole optimiser batch, known before the first micro-batch.

use serde::{Deserialize, Serialize};

use crate::{Error, check};

/// Settings of the preference loss.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Dpo {
    /// How strongly a margin counts; above 0. Length-normalised margins are small and want one of about 5.
    pub beta: f64,
    /// Whether each completion's log-ratio is divided by its own length.
    pub length_normalised: bool,
}

impl Default for Dpo {
    /// The standard form with the paper's 0.1.
    fn default() -> Self {
        Dpo { beta: 0.1, length_normalised: false }
    }
}

/// What is known about the pairs of one micro-batch. A view: nothing is copied.
///
/// Masked predictions influence nothing, whatever their entries hold.
#[derive(Clone, Copy, Debug)]
pub struct Preferences<'a> {
    /// Predictions a sequence, `T`.
    pub length: usize,
    /// `[2 P, T]`: true at the predictions of completion tokens.
    pub mask: &'a [bool],
    /// `[2 P, T]`: the learner's log-probability of the target, in nats.
    pub learner: &'a [f32],
    /// `[2 P, T]`: the reference's log-probability of the same target.
    pub reference: &'a [f32],
}

/// One completion: its log-probabilities summed over its tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Completion {
    learner: f64,
    reference: f64,
    tokens: u64,
}

/// One pair worked through.
struct Pair {
    margin: f64,
    /// `-log sigmoid(beta margin)`
    loss: f64,
    /// `d(loss)/d(log p)` of each token of the chosen and the rejected completion.
    slopes: [f64; 2],
    /// `beta g` of the two.
    rewards: [f64; 2],
}

impl Dpo {
    /// Checks the numbers; everything below takes checked settings for granted.
    ///
    /// # Errors
    /// A number outside its range.
    pub fn validate(&self) -> Result<(), Error> {
        check(self.beta.is_finite() && self.beta > 0.0, "beta", self.beta, "a finite number above 0")
    }

    /// Writes `d(loss)/d(log p_learner)`, `[2 P, T]`, 0 where masked, and returns the sums of these pairs.
    /// `batch_pairs` are the pairs of the whole optimiser batch.
    ///
    /// # Panics
    /// When the streams differ in length or a pair is incomplete.
    pub fn evaluate(
        &self,
        preferences: &Preferences<'_>,
        batch_pairs: u64,
        derivative: &mut [f32],
    ) -> PreferenceStatistics {
        preferences.check(derivative);
        derivative.fill(0.0);
        let mut statistics = PreferenceStatistics { batch_pairs, ..PreferenceStatistics::default() };
        for pair in 0..preferences.num_pairs() {
            let sides = [2 * pair, 2 * pair + 1];
            let solved = self.pair(sides.map(|sequence| preferences.completion(sequence)));
            for (sequence, slope) in sides.into_iter().zip(solved.slopes) {
                let range = sequence * preferences.length..(sequence + 1) * preferences.length;
                for i in range.filter(|&i| preferences.mask[i]) {
                    derivative[i] = (slope / batch_pairs as f64) as f32;
                }
            }
            statistics.add(&solved);
        }
        statistics
    }

    /// The formula at the top of this file for one pair, chosen first.
    fn pair(&self, completions: [Completion; 2]) -> Pair {
        // A completion without tokens has no log-ratio; what it is divided by does not matter.
        let divisors = completions
            .map(|completion| if self.length_normalised { completion.tokens.max(1) as f64 } else { 1.0 });
        let gain = |side: usize| (completions[side].learner - completions[side].reference) / divisors[side];
        let margin = gain(0) - gain(1);
        let pull = self.beta * sigmoid(-self.beta * margin);
        Pair {
            margin,
            loss: softplus(-self.beta * margin),
            slopes: [-pull / divisors[0], pull / divisors[1]],
            rewards: [self.beta * gain(0), self.beta * gain(1)],
        }
    }
}

impl Preferences<'_> {
    /// Number of pairs, `P`.
    pub fn num_pairs(&self) -> usize {
        self.mask.len() / (2 * self.length)
    }

    fn completion(&self, sequence: usize) -> Completion {
        let range = sequence * self.length..(sequence + 1) * self.length;
        let mut completion = Completion::default();
        for i in range.filter(|&i| self.mask[i]) {
            completion.learner += f64::from(self.learner[i]);
            completion.reference += f64::from(self.reference[i]);
            completion.tokens += 1;
        }
        completion
    }

    /// Asserts that the streams belong together.
    fn check(&self, derivative: &[f32]) {
        let size = self.mask.len();
        assert!(
            self.length > 0 && size.is_multiple_of(2 * self.length),
            "{size} predictions in pairs of {}",
            self.length
        );
        for stream in [self.learner, self.reference, derivative] {
            assert_eq!(stream.len(), size, "one entry a prediction");
        }
    }
}

/// `1 / (1 + e^-x)` without overflow.
fn sigmoid(x: f64) -> f64 {
    if x >= 0.0 { 1.0 / (1.0 + (-x).exp()) } else { x.exp() / (1.0 + x.exp()) }
}

/// `log(1 + e^x)` without overflow.
fn softplus(x: f64) -> f64 {
    // `f64::max` would swallow what is not a number.
    if x > 0.0 { x + (-x).exp().ln_1p() } else { x.exp().ln_1p() }
}

/// Sums over the micro-batches of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PreferenceStatistics {
    batch_pairs: u64,
    pairs: u64,
    loss: f64,
    margin: f64,
    correct: u64,
    chosen_reward: f64,
    rejected_reward: f64,
}

impl PreferenceStatistics {
    fn add(&mut self, pair: &Pair) {
        self.pairs += 1;
        self.loss += pair.loss;
        self.margin += pair.margin;
        self.correct += u64::from(pair.margin > 0.0);
        self.chosen_reward += pair.rewards[0];
        self.rejected_reward += pair.rewards[1];
    }

    /// Adds the sums of the next micro-batch. The order is part of the result's last bits: keep that of the data.
    pub fn merge(&mut self, other: &PreferenceStatistics) {
        self.batch_pairs = other.batch_pairs;
        self.pairs += other.pairs;
        self.loss += other.loss;
        self.margin += other.margin;
        self.correct += other.correct;
        self.chosen_reward += other.chosen_reward;
        self.rejected_reward += other.rejected_reward;
    }

    /// The figures of the step. All are 0 when there is no pair.
    pub fn summary(&self) -> PreferenceSummary {
        let over = |sum: f64, count: u64| if count == 0 { 0.0 } else { sum / count as f64 };
        PreferenceSummary {
            pairs: self.pairs,
            loss: over(self.loss, self.batch_pairs),
            margin: over(self.margin, self.pairs),
            accuracy: over(self.correct as f64, self.pairs),
            chosen_reward: over(self.chosen_reward, self.pairs),
            rejected_reward: over(self.rejected_reward, self.pairs),
        }
    }
}

/// The figures of one step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PreferenceSummary {
    /// Pairs seen.
    pub pairs: u64,
    /// The loss that was minimised.
    pub loss: f64,
    /// Mean margin, in nats; in nats a token if length-normalised.
    pub margin: f64,
    /// Share of pairs with a margin above 0.
    pub accuracy: f64,
    /// Mean of `beta g` over the chosen completions.
    pub chosen_reward: f64,
    /// Mean of `beta g` over the rejected completions.
    pub rejected_reward: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct File {
        dpo: Section,
    }

    #[derive(Deserialize)]
    struct Section {
        policy_chosen: Vec<f64>,
        policy_rejected: Vec<f64>,
        reference_chosen: Vec<f64>,
        reference_rejected: Vec<f64>,
        len_chosen: Vec<u64>,
        len_rejected: Vec<u64>,
        cases: Vec<Case>,
    }

    #[derive(Deserialize)]
    struct Case {
        beta: f64,
        length_normalised: bool,
        loss: f64,
        margins: Vec<f64>,
        accuracy: f64,
        grad_chosen: Vec<f64>,
        grad_rejected: Vec<f64>,
    }

    impl Section {
        fn load() -> Section {
            let text = include_str!("../golden/losses.json");
            serde_json::from_str::<File>(text).expect("the golden file parses").dpo
        }

        fn pair(&self, i: usize) -> [Completion; 2] {
            let completion = |learner, reference, tokens| Completion { learner, reference, tokens };
            [
                completion(self.policy_chosen[i], self.reference_chosen[i], self.len_chosen[i]),
                completion(self.policy_rejected[i], self.reference_rejected[i], self.len_rejected[i]),
            ]
        }
    }

    fn close(found: f64, expected: f64, tolerance: f64) {
        assert!((found - expected).abs() <= tolerance, "{found} is not {expected}");
    }

    #[test]
    fn golden_losses_margins_and_derivatives() {
        let golden = Section::load();
        assert_eq!(golden.cases.len(), 2);
        for case in &golden.cases {
            let rule = Dpo { beta: case.beta, length_normalised: case.length_normalised };
            let num_pairs = case.margins.len();
            let mut statistics = PreferenceStatistics { batch_pairs: num_pairs as u64, ..Default::default() };
            for i in 0..num_pairs {
                let pair = rule.pair(golden.pair(i));
                close(pair.margin, case.margins[i], 1e-12);
                close(pair.slopes[0] / num_pairs as f64, case.grad_chosen[i], 1e-14);
                close(pair.slopes[1] / num_pairs as f64, case.grad_rejected[i], 1e-14);
                statistics.add(&pair);
            }
            close(statistics.summary().loss, case.loss, 1e-12);
            assert_eq!(statistics.summary().accuracy, case.accuracy);
        }
    }

    /// Two pairs of completions with 2, 3, 3 and 1 tokens, padded to 3.
    const MASK: [bool; 12] = [true, true, false, true, true, true, true, true, true, true, false, false];
    const LEARNER: [f32; 12] = [-1.0, -2.0, 9.0, -0.5, -1.5, -1.0, -3.0, -2.5, -0.25, -0.75, 9.0, 9.0];
    const REFERENCE: [f32; 12] = [-1.5, -2.25, 9.0, -0.25, -1.0, -1.0, -2.0, -2.0, -0.5, -1.0, 9.0, 9.0];

    fn preferences(learner: &[f32]) -> Preferences<'_> {
        Preferences { length: 3, mask: &MASK, learner, reference: &REFERENCE }
    }

    fn evaluate(rule: &Dpo, preferences: &Preferences<'_>, pairs: u64) -> (PreferenceSummary, Vec<f32>) {
        let mut derivative = vec![7.0; preferences.mask.len()];
        let statistics = rule.evaluate(preferences, pairs, &mut derivative);
        (statistics.summary(), derivative)
    }

    #[test]
    fn streams_in_closed_form() {
        let rule = Dpo { beta: 2.0, length_normalised: false };
        let (summary, derivative) = evaluate(&rule, &preferences(&LEARNER), 2);
        // Log-ratios: 0.75 and -0.75, then -1.25 and 0.25.
        assert_eq!((summary.margin, summary.accuracy), (0.0, 0.5));
        assert_eq!((summary.chosen_reward, summary.rejected_reward), (-0.5, -0.5));
        close(summary.loss, (3f64.exp().ln_1p() + (-3f64).exp().ln_1p()) / 2.0, 1e-12);
        let (right, wrong) = (2.0 * sigmoid(-3.0) / 2.0, 2.0 * sigmoid(3.0) / 2.0);
        let expected = [
            -right, -right, 0.0, right, right, right, // the chosen one rises
            -wrong, -wrong, -wrong, wrong, 0.0, 0.0,
        ];
        for (found, expected) in derivative.iter().zip(expected) {
            close(f64::from(*found), expected, 1e-7);
        }
        let rule = Dpo { beta: 2.0, length_normalised: true };
        let (summary, _) = evaluate(&rule, &preferences(&LEARNER), 2);
        close(summary.margin, (0.375 + 0.25 - 1.25 / 3.0 - 0.25) / 2.0, 1e-12);
    }

    #[test]
    fn the_derivative_is_the_slope_of_the_loss() {
        for length_normalised in [false, true] {
            let rule = Dpo { beta: 0.7, length_normalised };
            let (_, derivative) = evaluate(&rule, &preferences(&LEARNER), 2);
            for i in 0..LEARNER.len() {
                let loss = |step: f32| {
                    let mut learner = LEARNER;
                    learner[i] += step;
                    evaluate(&rule, &preferences(&learner), 2).0.loss
                };
                let step = 1.0 / 1024.0;
                let slope = (loss(step) - loss(-step)) / f64::from(2.0 * step);
                close(f64::from(derivative[i]), slope, 1e-6);
            }
        }
    }

    #[test]
    fn micro_batches_and_padding_give_the_same_update() {
        for length_normalised in [false, true] {
            let rule = Dpo { beta: 0.7, length_normalised };
            let (at_once, derivative) = evaluate(&rule, &preferences(&LEARNER), 2);
            let mut sums = PreferenceStatistics::default();
            for pair in 0..2 {
                let pad = |stream: &[f32]| {
                    let sequences = stream[6 * pair..6 * pair + 6].chunks(3);
                    sequences.flat_map(|sequence| [sequence, &[f32::NAN; 2]].concat()).collect::<Vec<_>>()
                };
                let mask: Vec<bool> = MASK[6 * pair..6 * pair + 6]
                    .chunks(3)
                    .flat_map(|sequence| [sequence, &[false; 2]].concat())
                    .collect();
                let (learner, reference) = (pad(&LEARNER), pad(&REFERENCE));
                let alone = Preferences { length: 5, mask: &mask, learner: &learner, reference: &reference };
                let mut slopes = vec![7.0; 10];
                sums.merge(&rule.evaluate(&alone, 2, &mut slopes));
                assert_eq!(slopes[..3], derivative[6 * pair..6 * pair + 3]);
                assert_eq!(slopes[3..5], [0.0; 2]);
                assert_eq!(slopes[5..8], derivative[6 * pair + 3..6 * pair + 6]);
            }
            close(sums.summary().loss, at_once.loss, 1e-12);
            close(sums.summary().margin, at_once.margin, 1e-12);
        }
    }

    #[test]
    fn large_margins_neither_overflow_nor_vanish() {
        let completion = |learner| Completion { learner, reference: 0.0, tokens: 1 };
        let rule = Dpo { beta: 1.0, length_normalised: false };
        let wrong = rule.pair([completion(-2000.0), completion(0.0)]);
        assert_eq!((wrong.loss, wrong.slopes), (2000.0, [-1.0, 1.0]));
        let right = rule.pair([completion(0.0), completion(-2000.0)]);
        assert_eq!((right.loss, right.slopes), (0.0, [-0.0, 0.0]));
        let undecided = rule.pair([completion(-3.0), completion(-3.0)]);
        close(undecided.loss, 2f64.ln(), 1e-15);
        assert!(rule.pair([completion(f64::NAN), completion(0.0)]).loss.is_nan());
    }

    #[test]
    fn a_completion_without_tokens_is_no_division_by_zero() {
        let preferences =
            Preferences { length: 1, mask: &[true, false], learner: &[-1.0, 0.0], reference: &[-2.0, 0.0] };
        let rule = Dpo { beta: 1.0, length_normalised: true };
        let (summary, derivative) = evaluate(&rule, &preferences, 1);
        assert_eq!(summary.margin, 1.0);
        assert_eq!(derivative[1], 0.0);
        assert_eq!(
            evaluate(&rule, &Preferences { length: 1, mask: &[], learner: &[], reference: &[] }, 0).0.loss,
            0.0
        );
    }

    #[test]
    fn settings() {
        let rule: Dpo = toml::from_str("beta = 5\nlength_normalised = true").expect("a good table");
        assert_eq!(rule, Dpo { beta: 5.0, length_normalised: true });
        assert!(toml::from_str::<Dpo>("betta = 5").is_err());
        let error = Dpo { beta: 0.0, ..Dpo::default() }.validate().expect_err("no strength");
        assert_eq!(error.to_string(), "objective setting `beta` is 0, but must be a finite number above 0");
    }
}
