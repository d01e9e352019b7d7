//! Knowledge distillation over the whole vocabulary: the soft-label rival of token weights.
//!
//! Hinton et al. (arXiv 1503.02531). For a row of logits of student `z` and teacher `y` over `V` tokens, with the
//! target `x` and the temperature `tau`:
//!
//! ```text
//! s = softmax(z / tau),  t = softmax(y / tau),  p = softmax(z)
//! KL   = sum_v t_v (log t_v - log s_v)                 forward: KL(teacher || student)
//!      = sum_v s_v (log s_v - log t_v)                 reverse: KL(student || teacher)
//! loss = sum over unmasked rows of (1 - alpha) (-log p_x) + alpha tau^2 KL, over the denominator
//! ```
//!
//! `tau^2` keeps the size of the gradient when the temperature changes. **Gradient**, by logit:
//!
//! ```text
//! d(-log p_x)/dz_v = p_v - [v = x]
//! tau^2 dKL/dz_v   = tau (s_v - t_v)                               forward
//!                  = tau s_v (log s_v - log t_v - KL)              reverse
//! ```
//!
//! Unlike the other rules this one needs logits, not log-probabilities of targets: the head calls [`Distillation::row`]
//! while a row is in cache. The words student and teacher are this method's own.

use serde::{Deserialize, Serialize};

use crate::loss::{Denominator, LossSums};
use crate::{Error, check};

/// Settings of the distillation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Distillation {
    /// The share of the divergence; the rest is plain next-token prediction. Between 0 and 1.
    pub alpha: f64,
    /// Above 1 flattens both distributions before they are compared; above 0.
    pub temperature: f64,
    /// Which distribution the divergence is averaged over.
    pub direction: Direction,
}

/// Which distribution the divergence is averaged over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// The teacher's: the student covers all that the teacher does.
    #[default]
    Forward,
    /// The student's: the student keeps to what the teacher does.
    Reverse,
}

/// Sums over unmasked rows, to be divided by a denominator once all micro-batches are in.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DistillationSums {
    /// Sum of `-log p_x`, in nats.
    pub cross_entropy: f64,
    /// Sum of KL at the temperature, without `tau^2`, in nats.
    pub divergence: f64,
}

impl DistillationSums {
    /// Adds the sums of another row or micro-batch.
    pub fn merge(&mut self, other: &DistillationSums) {
        self.cross_entropy += other.cross_entropy;
        self.divergence += other.divergence;
    }
}

impl Default for Distillation {
    /// Half and half, as is.
    fn default() -> Self {
        Distillation { alpha: 0.5, temperature: 1.0, direction: Direction::Forward }
    }
}

impl Distillation {
    /// Checks the numbers; everything below takes checked settings for granted.
    ///
    /// # Errors
    /// A number outside its range.
    pub fn validate(&self) -> Result<(), Error> {
        let (alpha, temperature) = (self.alpha, self.temperature);
        check((0.0..=1.0).contains(&alpha), "alpha", alpha, "between 0 and 1")?;
        let warm = temperature.is_finite() && temperature > 0.0;
        check(warm, "temperature", temperature, "a finite number above 0")
    }

    /// One unmasked row: writes `d(loss)/d(student logits)` and returns the row's sums. All are `[V]`.
    ///
    /// # Panics
    /// When the rows differ in length, or the target is no token.
    pub fn row(
        &self,
        student: &[f32],
        teacher: &[f32],
        target: usize,
        denominator: Denominator,
        gradient: &mut [f32],
    ) -> DistillationSums {
        let size = student.len();
        assert_eq!((teacher.len(), gradient.len()), (size, size), "one logit a token");
        assert!(target < size, "target {target} of {size} tokens");
        let (plain, tau) = (LogSoftmax::of(student, 1.0), self.temperature);
        let (soft, aim) = (LogSoftmax::of(student, tau), LogSoftmax::of(teacher, tau));
        let sums = DistillationSums {
            cross_entropy: -plain.at(student, target),
            divergence: self.divergence((student, &soft), (teacher, &aim)),
        };
        for (v, gradient) in gradient.iter_mut().enumerate() {
            let hard = plain.at(student, v).exp() - if v == target { 1.0 } else { 0.0 };
            let (log_s, log_t) = (soft.at(student, v), aim.at(teacher, v));
            let pull = match self.direction {
                Direction::Forward => log_s.exp() - log_t.exp(),
                Direction::Reverse => expected(log_s, log_s - log_t - sums.divergence),
            };
            *gradient = denominator.divide((1.0 - self.alpha) * hard + self.alpha * tau * pull) as f32;
        }
        sums
    }

    /// The sums as those of any other loss: what is minimised, and plain next-token prediction.
    pub fn loss_sums(&self, sums: &DistillationSums) -> LossSums {
        let soft = self.alpha * self.temperature * self.temperature;
        let weighted = (1.0 - self.alpha) * sums.cross_entropy + soft * sums.divergence;
        LossSums { weighted, ntp: sums.cross_entropy }
    }

    /// The loss of an optimiser batch.
    pub fn loss(&self, sums: &DistillationSums, denominator: Denominator) -> f64 {
        denominator.divide(self.loss_sums(sums).weighted)
    }

    fn divergence(&self, student: (&[f32], &LogSoftmax), teacher: (&[f32], &LogSoftmax)) -> f64 {
        let (over, other) = match self.direction {
            Direction::Forward => (teacher, student),
            Direction::Reverse => (student, teacher),
        };
        let term = |v: usize| {
            let log_p = over.1.at(over.0, v);
            expected(log_p, log_p - other.1.at(other.0, v))
        };
        (0..over.0.len()).map(term).sum()
    }
}

/// `e^log_p value`, and 0 where the probability is 0 whatever the value.
fn expected(log_p: f64, value: f64) -> f64 {
    let p = log_p.exp();
    if p == 0.0 { 0.0 } else { p * value }
}

/// What turns a row of logits into log-probabilities at a temperature.
struct LogSoftmax {
    temperature: f64,
    normaliser: f64,
}

impl LogSoftmax {
    fn of(logits: &[f32], temperature: f64) -> LogSoftmax {
        let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let highest = f64::from(highest) / temperature;
        let sum: f64 = logits.iter().map(|&logit| (f64::from(logit) / temperature - highest).exp()).sum();
        LogSoftmax { temperature, normaliser: highest + sum.ln() }
    }

    fn at(&self, logits: &[f32], v: usize) -> f64 {
        f64::from(logits[v]) / self.temperature - self.normaliser
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        direction: Direction,
        loss: f64,
        grad: Vec<Vec<f64>>,
    }

    impl Section {
        fn load() -> Section {
            let text = include_str!("../golden/losses.json");
            serde_json::from_str::<File>(text).expect("the golden file parses").distillation
        }
    }

    fn close(found: f64, expected: f64, tolerance: f64, what: &dyn std::fmt::Debug) {
        assert!((found - expected).abs() <= tolerance, "{found} is not {expected}: {what:?}");
    }

    /// The loss and the gradient of one row alone.
    fn row(rule: &Distillation, student: &[f32], teacher: &[f32], target: usize) -> (f64, Vec<f32>) {
        let mut gradient = vec![7.0; student.len()];
        let one = Denominator::from_tokens(1);
        let sums = rule.row(student, teacher, target, one, &mut gradient);
        (rule.loss(&sums, one), gradient)
    }

    #[test]
    fn golden_losses_and_gradients() {
        let golden = Section::load();
        assert_eq!(golden.cases.len(), 4);
        let rows = golden.targets.len();
        let denominator = Denominator::from_tokens(rows as u64);
        for case in &golden.cases {
            let rule =
                Distillation { alpha: case.alpha, temperature: case.temperature, direction: case.direction };
            let mut sums = DistillationSums::default();
            for i in 0..rows {
                let (student, teacher) = (&golden.student_logits[i], &golden.teacher_logits[i]);
                let mut gradient = vec![7.0; student.len()];
                sums.merge(&rule.row(student, teacher, golden.targets[i], denominator, &mut gradient));
                for (found, &expected) in gradient.iter().zip(&case.grad[i]) {
                    close(f64::from(*found), expected, 1e-7, &(i, &rule));
                }
            }
            close(rule.loss(&sums, denominator), case.loss, 1e-6, &rule);
        }
    }

    #[test]
    fn two_tokens_by_hand() {
        // Student 1/2, 1/2; teacher 3/4, 1/4.
        let (student, teacher) = ([0.0, 0.0], [3f32.ln(), 0.0]);
        let forward = Distillation { alpha: 1.0, ..Distillation::default() };
        let (loss, gradient) = row(&forward, &student, &teacher, 1);
        close(loss, 0.75 * 1.5f64.ln() + 0.25 * 0.5f64.ln(), 1e-7, &forward);
        close(f64::from(gradient[0]), -0.25, 1e-7, &"towards what the teacher likes");
        close(f64::from(gradient[1]), 0.25, 1e-7, &"away from the rest");
        let reverse = Distillation { direction: Direction::Reverse, ..forward };
        let (loss, _) = row(&reverse, &student, &teacher, 1);
        close(loss, 0.5 * (2.0 / 3.0f64).ln() + 0.5 * 2f64.ln(), 1e-7, &reverse);
    }

    #[test]
    fn the_gradient_is_the_slope_of_the_loss() {
        let golden = Section::load();
        for (alpha, temperature) in [(0.0, 1.0), (0.3, 0.5), (1.0, 2.0)] {
            for direction in [Direction::Forward, Direction::Reverse] {
                let rule = Distillation { alpha, temperature, direction };
                let (student, teacher) = (&golden.student_logits[0], &golden.teacher_logits[0]);
                let (_, gradient) = row(&rule, student, teacher, 8);
                for v in 0..student.len() {
                    let loss = |step: f32| {
                        let mut moved = student.clone();
                        moved[v] += step;
                        (row(&rule, &moved, teacher, 8).0, f64::from(moved[v]))
                    };
                    let ((up, above), (down, below)) = (loss(1e-2), loss(-1e-2));
                    close((up - down) / (above - below), f64::from(gradient[v]), 2e-4, &(v, &rule));
                }
            }
        }
    }

    #[test]
    fn a_student_equal_to_its_teacher_is_left_alone() {
        let golden = Section::load();
        let logits = &golden.student_logits[0];
        for direction in [Direction::Forward, Direction::Reverse] {
            let rule = Distillation { alpha: 1.0, temperature: 2.0, direction };
            let shifted: Vec<f32> = logits.iter().map(|logit| logit + 1.0).collect();
            let (loss, gradient) = row(&rule, logits, &shifted, 0);
            close(loss, 0.0, 1e-6, &rule);
            assert!(gradient.iter().all(|slope| slope.abs() < 1e-6), "{gradient:?}");
        }
    }

    #[test]
    fn a_token_that_the_teacher_excludes() {
        let (student, teacher) = ([0.0, 0.0, 0.0], [0.0, 0.0, f32::NEG_INFINITY]);
        let forward = Distillation { alpha: 1.0, ..Distillation::default() };
        let (loss, gradient) = row(&forward, &student, &teacher, 0);
        close(loss, 1.5f64.ln(), 1e-7, &forward);
        close(f64::from(gradient[2]), 1.0 / 3.0, 1e-7, &"down");
        let reverse = Distillation { direction: Direction::Reverse, ..forward };
        assert_eq!(row(&reverse, &student, &teacher, 0).0, f64::INFINITY);
        assert!(row(&forward, &[f32::NAN, 0.0, 0.0], &[0.0; 3], 0).0.is_nan(), "it surfaces");
    }

    #[test]
    fn settings() {
        let rule: Distillation = toml::from_str("alpha = 1\ndirection = 'reverse'").expect("a good table");
        assert_eq!(rule, Distillation { alpha: 1.0, temperature: 1.0, direction: Direction::Reverse });
        assert!(toml::from_str::<Distillation>("tau = 2").is_err());
        assert_eq!(Distillation::default().validate(), Ok(()));
        let error = Distillation { alpha: 1.5, ..Distillation::default() }.validate().expect_err("a share");
        assert_eq!(error.to_string(), "objective setting `alpha` is 1.5, but must be between 0 and 1");
        let error =
            Distillation { temperature: 0.0, ..Distillation::default() }.validate().expect_err("cold");
        assert_eq!(
            error.to_string(),
            "objective setting `temperature` is 0, but must be a finite number above 0"
        );
    }
}
