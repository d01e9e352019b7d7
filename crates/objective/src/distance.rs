//! How far apart two distributions over the vocabulary are, from their logits, and means of that.
//!
//! For one prediction with the target `x`, the learner's logits `z` and the reference's `y`, `q = softmax(z)` and
//! `p = softmax(y)`:
//!
//! ```text
//! gap                   = log p_x - log q_x
//! KL(reference|learner) = sum_v p_v (log p_v - log q_v)
//! KL(learner|reference) = sum_v q_v (log q_v - log p_v)
//! entropy               = -sum_v q_v log q_v             of the learner; likewise of the reference
//! agreement             = 1 where the highest logits are at the same token; of equal ones the lowest id is taken
//! ```
//!
//! All in nats. With `a_v = z_v - max z`, `b_v = y_v - max y`, `A = sum exp a_v` and `B = sum exp b_v`, each exponential is
//! made once: `KL(learner|reference) = (sum exp(a_v) (a_v - b_v)) / A - (ln A - ln B)`, and equal logits give 0 exactly.

use serde::{Deserialize, Serialize};

/// One prediction, or the sum over many.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Distance {
    /// The reference's log-probability of the target minus the learner's.
    pub gap: f64,
    /// `KL(reference || learner)`.
    pub kl_reference_learner: f64,
    /// `KL(learner || reference)`.
    pub kl_learner_reference: f64,
    /// 1 where both hold the same token for the likeliest.
    pub agreement: f64,
    /// Of the learner.
    pub entropy: f64,
    /// Of the reference.
    pub reference_entropy: f64,
    /// `-log` of the learner's probability of the target.
    pub nll: f64,
    /// `-log` of the reference's.
    pub reference_nll: f64,
}

/// Means over the predictions of a store, in nats but for `agreement`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Means {
    /// Predictions that count, the denominator of all others.
    pub predictions: u64,
    /// Mean of `log p_reference - log p_learner` of the tokens of the text.
    pub gap: f64,
    /// Mean `KL(reference || learner)` over the whole vocabulary.
    pub kl_reference_learner: f64,
    /// Mean `KL(learner || reference)`.
    pub kl_learner_reference: f64,
    /// Share of predictions at which both hold the same token for the likeliest.
    pub agreement: f64,
    /// Mean entropy of the learner.
    pub entropy: f64,
    /// Mean entropy of the reference.
    pub reference_entropy: f64,
    /// Mean negative log-likelihood of the text under the learner.
    pub nll: f64,
    /// The same under the reference.
    pub reference_nll: f64,
}

impl Distance {
    /// Of one prediction, from logits `[V]`. Not a number where a logit is not.
    ///
    /// # Panics
    /// When the rows differ in length, or the target is no token.
    pub fn of(learner: &[f32], reference: &[f32], target: usize) -> Distance {
        assert_eq!(learner.len(), reference.len(), "one vocabulary");
        let (best, reference_best) = (likeliest(learner), likeliest(reference));
        let (top, reference_top) = (f64::from(learner[best]), f64::from(reference[reference_best]));
        let (mut sum, mut reference_sum) = (0.0, 0.0);
        // Expectations, still to be divided by their sums: of the own logit, and of what it is above the other's.
        let (mut own, mut above, mut reference_own, mut reference_above) = (0.0, 0.0, 0.0, 0.0);
        for (&z, &y) in learner.iter().zip(reference) {
            let (a, b) = (f64::from(z) - top, f64::from(y) - reference_top);
            let (q, p) = (a.exp(), b.exp());
            sum += q;
            own += q * a;
            above += q * (a - b);
            reference_sum += p;
            reference_own += p * b;
            reference_above += p * (b - a);
        }
        let (log_sum, reference_log_sum) = (sum.ln(), reference_sum.ln());
        let nll = log_sum - (f64::from(learner[target]) - top);
        let reference_nll = reference_log_sum - (f64::from(reference[target]) - reference_top);
        Distance {
            gap: nll - reference_nll,
            kl_reference_learner: reference_above / reference_sum - (reference_log_sum - log_sum),
            kl_learner_reference: above / sum - (log_sum - reference_log_sum),
            agreement: if best == reference_best { 1.0 } else { 0.0 },
            entropy: log_sum - own / sum,
            reference_entropy: reference_log_sum - reference_own / reference_sum,
            nll,
            reference_nll,
        }
    }

    /// Adds another prediction.
    pub fn add(&mut self, other: &Distance) {
        self.gap += other.gap;
        self.kl_reference_learner += other.kl_reference_learner;
        self.kl_learner_reference += other.kl_learner_reference;
        self.agreement += other.agreement;
        self.entropy += other.entropy;
        self.reference_entropy += other.reference_entropy;
        self.nll += other.nll;
        self.reference_nll += other.reference_nll;
    }

    /// Whether every number is finite.
    pub fn is_finite(&self) -> bool {
        let Distance { gap, kl_reference_learner, kl_learner_reference, entropy, reference_entropy, .. } =
            *self;
        [
            gap,
            kl_reference_learner,
            kl_learner_reference,
            entropy,
            reference_entropy,
            self.nll,
            self.reference_nll,
        ]
        .iter()
        .all(|number| number.is_finite())
    }

    /// The sum over `predictions`, a prediction.
    pub fn mean(&self, predictions: u64) -> Means {
        let of = |sum: f64| sum / predictions as f64;
        Means {
            predictions,
            gap: of(self.gap),
            kl_reference_learner: of(self.kl_reference_learner),
            kl_learner_reference: of(self.kl_learner_reference),
            agreement: of(self.agreement),
            entropy: of(self.entropy),
            reference_entropy: of(self.reference_entropy),
            nll: of(self.nll),
            reference_nll: of(self.reference_nll),
        }
    }
}

/// The lowest id among those of the highest logit.
fn likeliest(logits: &[f32]) -> usize {
    let mut best = 0;
    for (id, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = id;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn close(found: f64, wanted: f64) {
        assert!((found - wanted).abs() < 1e-6, "{found} is not {wanted}");
    }

    /// Learner 1/2, 1/2; reference 3/4, 1/4; the target is the second token.
    #[test]
    fn two_tokens_by_hand() {
        let found = Distance::of(&[5.0, 5.0], &[3f32.ln(), 0.0], 1);
        close(found.gap, 0.25f64.ln() - 0.5f64.ln());
        close(found.kl_reference_learner, 0.75 * 1.5f64.ln() + 0.25 * 0.5f64.ln());
        close(found.kl_learner_reference, 0.5 * (2.0 / 3.0f64).ln() + 0.5 * 2f64.ln());
        close(found.entropy, 2f64.ln());
        close(found.reference_entropy, -0.75 * 0.75f64.ln() - 0.25 * 0.25f64.ln());
        close(found.nll, 2f64.ln());
        close(found.reference_nll, 4f64.ln());
        assert_eq!(found.agreement, 1.0, "of equal logits the lowest id");
        close(Distance::of(&[5.0, 5.0], &[3f32.ln(), 0.0], 0).gap, 1.5f64.ln());
        assert_eq!(Distance::of(&[0.0, 1.0, 1.0], &[0.0, 1.0, 2.0], 0).agreement, 0.0);
    }

    #[test]
    fn the_other_way_round() {
        let (a, b) = ([0.3, -1.0, 2.0, 0.1], [1.5, 0.0, -0.7, 0.2]);
        let (there, back) = (Distance::of(&a, &b, 2), Distance::of(&b, &a, 2));
        assert_eq!(there.kl_reference_learner, back.kl_learner_reference);
        assert_eq!(there.gap, -back.gap);
        assert_eq!((there.entropy, there.nll), (back.reference_entropy, back.reference_nll));
        assert!((there.kl_reference_learner - there.kl_learner_reference).abs() > 1e-2);
    }

    #[test]
    fn equal_logits_are_no_way_apart() {
        let logits = [0.3, -1.0, 20.0, 0.1, -30.0];
        let found = Distance::of(&logits, &logits, 1);
        assert_eq!((found.gap, found.kl_reference_learner, found.kl_learner_reference), (0.0, 0.0, 0.0));
        assert_eq!(found.agreement, 1.0);
    }

    #[test]
    fn what_is_not_finite_surfaces() {
        assert!(Distance::of(&[0.0, 1.0], &[0.0, 1.0], 0).is_finite());
        assert!(!Distance::of(&[f32::NAN, 1.0], &[0.0, 1.0], 1).is_finite());
        assert!(!Distance::of(&[0.0, 1.0], &[0.0, f32::INFINITY], 0).is_finite());
    }

    #[test]
    fn means_are_over_predictions() {
        let mut sum = Distance::default();
        let rows =
            [Distance::of(&[5.0, 5.0], &[3f32.ln(), 0.0], 1), Distance::of(&[0.0, 1.0], &[1.0, 0.0], 0)];
        rows.iter().for_each(|row| sum.add(row));
        let means = sum.mean(2);
        assert_eq!((means.predictions, means.agreement), (2, 0.5));
        close(means.nll, (2f64.ln() + (1.0 + 1f64.exp()).ln()) / 2.0);
        close(means.gap, (0.5f64.ln() + 1.0) / 2.0);
    }

    /// The divergences and likelihoods of `distillation` in the golden losses, made with PyTorch in float64.
    #[test]
    fn golden_divergences() {
        #[derive(Deserialize)]
        struct File {
            distillation: Section,
        }
        #[derive(Deserialize)]
        struct Section {
            student_logits: Vec<Vec<f32>>,
            teacher_logits: Vec<Vec<f32>>,
            targets: Vec<usize>,
            cases: Vec<Case>,
        }
        #[derive(Deserialize)]
        struct Case {
            alpha: f64,
            temperature: f64,
            direction: String,
            loss: f64,
        }
        let text = include_str!("../golden/losses.json");
        let golden = serde_json::from_str::<File>(text).expect("the golden file parses").distillation;
        let mut sum = Distance::default();
        for ((learner, reference), &target) in
            golden.student_logits.iter().zip(&golden.teacher_logits).zip(&golden.targets)
        {
            sum.add(&Distance::of(learner, reference, target));
        }
        let means = sum.mean(golden.targets.len() as u64);
        let cases: Vec<&Case> = golden.cases.iter().filter(|case| case.temperature == 1.0).collect();
        assert_eq!(cases.len(), 3, "of both directions");
        for case in cases {
            let kl = match case.direction.as_str() {
                "forward" => means.kl_reference_learner,
                _ => means.kl_learner_reference,
            };
            close((1.0 - case.alpha) * means.nll + case.alpha * kl, case.loss);
        }
    }
}
