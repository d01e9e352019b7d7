//! The weighted next-token loss, its denominator, and the z-loss.
//!
//! ```text
//! loss = sum over unmasked t of w_t (-log p_t) / denominator        d(loss)/d(log p_t) = -w_t / denominator
//! z    = coefficient * sum over unmasked t of lse_t^2 / denominator  d(z)/d(lse_t) = 2 coefficient lse_t / denominator
//! ```
//!
//! with the weights held constant. Plain next-token prediction is `w = 1`. The denominator is that of the whole
//! optimiser batch, counted before the first micro-batch, so that accumulating micro-batches gives the update of one
//! large batch: were each micro-batch divided by its own tokens, those of short ones would silently gain weight.

use crate::signals::Signals;

/// What a loss is divided by: tokens of the whole optimiser batch, all micro-batches and all processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denominator(u64);

impl Denominator {
    /// The unmasked predictions of all masks of the optimiser batch.
    pub fn count<'a>(masks: impl IntoIterator<Item = &'a [bool]>) -> Denominator {
        Denominator(masks.into_iter().map(count_unmasked).sum())
    }

    /// From a count made elsewhere, such as one summed over processes.
    pub fn from_tokens(tokens: u64) -> Denominator {
        Denominator(tokens)
    }

    /// The tokens counted.
    pub fn tokens(self) -> u64 {
        self.0
    }

    /// `sum / denominator`; 0 where no token counts, for then there is nothing in the sum either.
    pub fn divide(self, sum: f64) -> f64 {
        if self.0 == 0 { 0.0 } else { sum / self.0 as f64 }
    }
}

/// Sums over unmasked predictions, to be divided by a denominator once all micro-batches are in.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LossSums {
    /// Sum of `w (-log p)`, in nats.
    pub weighted: f64,
    /// Sum of `-log p`, in nats.
    pub ntp: f64,
}

impl LossSums {
    /// Adds the sums of another micro-batch.
    pub fn merge(&mut self, other: &LossSums) {
        self.weighted += other.weighted;
        self.ntp += other.ntp;
    }
}

/// Writes `d(loss)/d(log p)` for given weights, 0 where masked, and returns the sums. All `[W, T]`.
///
/// # Panics
/// When the streams differ in length.
pub fn weighted_loss(
    signals: &Signals<'_>,
    weights: &[f32],
    denominator: Denominator,
    derivative: &mut [f32],
) -> LossSums {
    signals.check(&[weights, derivative]);
    derivative.fill(0.0);
    let mut sums = LossSums::default();
    for i in signals.all_unmasked() {
        let weight = f64::from(weights[i]);
        sums.weighted += weight * signals.nll(i);
        sums.ntp += signals.nll(i);
        derivative[i] = -denominator.divide(weight) as f32;
    }
    sums
}

/// The z-loss, which keeps the logarithm of the softmax's normaliser near 0 (PaLM, arXiv 2204.02311).
///
/// Writes `d(z)/d(lse)`, 0 where masked, and returns `coefficient * sum(lse^2)`, which
/// [`Denominator::divide`] turns into the loss. The normaliser belongs to every unmasked prediction, selected or not:
/// the denominator is [`Denominator::count`] whatever the objective.
///
/// # Panics
/// When the streams differ in length.
pub fn z_loss(
    lse: &[f32],
    mask: &[bool],
    coefficient: f64,
    denominator: Denominator,
    derivative: &mut [f32],
) -> f64 {
    assert_eq!((lse.len(), derivative.len()), (mask.len(), mask.len()), "one entry a prediction");
    derivative.fill(0.0);
    let mut sum = 0.0;
    for i in (0..mask.len()).filter(|&i| mask[i]) {
        let lse = f64::from(lse[i]);
        sum += lse * lse;
        derivative[i] = denominator.divide(2.0 * coefficient * lse) as f32;
    }
    coefficient * sum
}

pub(crate) fn count_unmasked(mask: &[bool]) -> u64 {
    mask.iter().filter(|&&counts| counts).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const MASK: [bool; 4] = [true, false, true, true];

    fn signals(learner: &[f32]) -> Signals<'_> {
        Signals { length: 2, mask: &MASK, documents: &[0; 4], learner, reference: None }
    }

    #[test]
    fn closed_form() {
        let denominator = Denominator::count([&MASK[..], &[true, false]]);
        assert_eq!(denominator.tokens(), 4);
        let mut derivative = [7.0; 4];
        let sums = weighted_loss(
            &signals(&[-1.0, -9.0, -2.0, -4.0]),
            &[0.5, 3.0, 1.0, 1.5],
            denominator,
            &mut derivative,
        );
        assert_eq!(sums, LossSums { weighted: 0.5 + 2.0 + 6.0, ntp: 7.0 });
        assert_eq!(derivative, [-0.125, 0.0, -0.25, -0.375]);
        assert_eq!(denominator.divide(sums.weighted), 8.5 / 4.0);
    }

    #[test]
    fn the_derivative_is_the_slope_of_the_loss() {
        let (learner, weights) = ([-1.0, -9.0, -2.0, -4.0], [0.5, 3.0, 1.0, 1.5]);
        let denominator = Denominator::count([&MASK[..]]);
        let mut derivative = [0.0; 4];
        let loss = |learner: &[f32]| {
            denominator
                .divide(weighted_loss(&signals(learner), &weights, denominator, &mut [0.0; 4]).weighted)
        };
        weighted_loss(&signals(&learner), &weights, denominator, &mut derivative);
        for i in 0..4 {
            let (mut up, mut down) = (learner, learner);
            up[i] += 0.25;
            down[i] -= 0.25;
            assert!(
                ((loss(&up) - loss(&down)) / 0.5 - f64::from(derivative[i])).abs() < 1e-7,
                "prediction {i}"
            );
        }
    }

    #[test]
    fn micro_batches_add_up_to_the_batch() {
        let (learner, weights) = ([-1.0, -9.0, -2.0, -4.0], [0.5, 3.0, 1.0, 1.5]);
        let denominator = Denominator::count(MASK.chunks(2));
        let (mut whole, mut parts) = ([0.0; 4], [0.0; 4]);
        let sums = weighted_loss(&signals(&learner), &weights, denominator, &mut whole);
        let mut merged = LossSums::default();
        for (w, part) in parts.chunks_mut(2).enumerate() {
            let window = signals(&learner).window(w);
            merged.merge(&weighted_loss(&window, &weights[2 * w..2 * w + 2], denominator, part));
        }
        assert_eq!((sums, whole), (merged, parts));
    }

    #[test]
    fn z_loss_closed_form() {
        let denominator = Denominator::count([&MASK[..]]);
        let mut derivative = [7.0; 4];
        let sum = z_loss(&[2.0, f32::NAN, -1.0, 4.0], &MASK, 0.5, denominator, &mut derivative);
        assert_eq!(sum, 0.5 * 21.0);
        assert_eq!(denominator.divide(sum), 3.5);
        assert_eq!(derivative, [2.0 / 3.0, 0.0, -1.0 / 3.0, 4.0 / 3.0]);
    }

    #[test]
    fn nothing_unmasked_is_a_loss_of_zero() {
        let denominator = Denominator::count([&[false; 4][..]]);
        let signals = Signals { mask: &[false; 4], ..signals(&[-1.0, f32::NAN, f32::NEG_INFINITY, -4.0]) };
        let mut derivative = [7.0; 4];
        let sums = weighted_loss(&signals, &[0.0; 4], denominator, &mut derivative);
        assert_eq!((denominator.divide(sums.weighted), derivative), (0.0, [0.0; 4]));
        assert_eq!(
            denominator.divide(z_loss(&[1.0; 4], &[false; 4], 1.0, denominator, &mut derivative)),
            0.0
        );
    }
}
