//! Rho-1 (arXiv 2404.07965): train only on the tokens with the highest excess loss.
//!
//! ```text
//! excess_t = log p_reference - log p_learner    the learner's loss minus the reference's; higher is kept
//! k        = floor(fraction * unmasked)
//! w_t      = 1 for the k highest of the scope, 0 otherwise
//! loss     = sum over selected t of -log p_learner / number selected
//! ```
//!
//! Of equal excess losses the earlier prediction is kept. Because `k` follows from the masks alone, the denominator is
//! known before the first forward pass, as everywhere else. The selection is a constant to the derivative.

use std::cmp::Ordering;

use remit_fault::fault;
use serde::{Deserialize, Serialize};

use crate::loss::{Denominator, count_unmasked};
use crate::signals::{Scope, Signals};
use crate::{Error, check};

/// Settings of the selection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Selection {
    /// The share of unmasked tokens to keep, above 0 and at most 1.
    pub fraction: f64,
    /// Among which tokens the highest are taken.
    pub scope: SelectionScope,
}

/// Among which tokens the highest are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SelectionScope {
    /// All predictions of the optimiser batch: every log-probability is needed before the first backward.
    #[default]
    Batch,
    /// Each window by itself.
    Sequence,
}

impl Default for Selection {
    /// The paper's 60%, of the batch.
    fn default() -> Self {
        Selection { fraction: 0.6, scope: SelectionScope::Batch }
    }
}

impl Selection {
    /// Checks the numbers; everything below takes checked settings for granted.
    ///
    /// # Errors
    /// A fraction outside its range.
    pub fn validate(&self) -> Result<(), Error> {
        let value = self.fraction;
        check(value > 0.0 && value <= 1.0, "fraction", value, "above 0 and at most 1")
    }

    /// Whether a window's selection depends on that window alone.
    pub fn is_window_local(&self) -> bool {
        self.scope == SelectionScope::Sequence
    }

    /// Writes 1 where a prediction is selected and 0 elsewhere. With `scope = batch` the signals must be those of the
    /// whole optimiser batch.
    ///
    /// # Panics
    /// When the streams differ in length or there is no reference.
    pub fn weigh(&self, signals: &Signals<'_>, weights: &mut [f32]) {
        signals.check(&[weights]);
        weights.fill(0.0);
        let scope = match self.scope {
            SelectionScope::Batch => Scope::Batch,
            SelectionScope::Sequence => Scope::Window,
        };
        for range in signals.groups(scope) {
            // Adding 0 turns -0 into 0, so that the two tie.
            let mut candidates: Vec<(f64, usize)> =
                signals.unmasked(range).map(|i| (signals.gap(i) + 0.0, i)).collect();
            let kept = self.num_selected(candidates.len() as u64) as usize;
            if kept > 0 && kept < candidates.len() {
                candidates.select_nth_unstable_by(kept - 1, higher_then_earlier);
            }
            for &(_, i) in &candidates[..kept] {
                weights[i] = 1.0;
            }
        }
    }

    /// The number of tokens that will be selected from the given masks, `[W, T]` each with `T = length`.
    ///
    /// # Errors
    /// When there are unmasked tokens and none of them is selected.
    pub fn denominator<'a>(
        &self,
        length: usize,
        masks: impl IntoIterator<Item = &'a [bool]>,
    ) -> Result<Denominator, Error> {
        let windows = masks.into_iter().flat_map(|mask| mask.chunks(length)).map(count_unmasked);
        let (mut unmasked, mut selected) = (0, 0);
        for window in windows {
            unmasked += window;
            selected += self.num_selected(window);
        }
        if self.scope == SelectionScope::Batch {
            selected = self.num_selected(unmasked);
        }
        if selected == 0 && unmasked > 0 {
            return Err(fault!(
                "`fraction` {} of {unmasked} unmasked tokens selects none of them",
                self.fraction
            )
            .with_hint("raise `fraction`, enlarge the batch, or use `scope = \"batch\"`"));
        }
        Ok(Denominator::from_tokens(selected))
    }

    fn num_selected(&self, unmasked: u64) -> u64 {
        (self.fraction * unmasked as f64).floor() as u64
    }
}

/// A total order, so that the selected set is one and the same however it is found. Not-a-number comes first: it is
/// selected and surfaces as a loss that is not finite.
fn higher_then_earlier(a: &(f64, usize), b: &(f64, usize)) -> Ordering {
    let not_a_number_first = b.0.is_nan().cmp(&a.0.is_nan());
    not_a_number_first.then(b.0.total_cmp(&a.0)).then(a.1.cmp(&b.1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::Golden;
    use crate::loss::weighted_loss;

    fn select(selection: &Selection, signals: &Signals<'_>) -> Vec<f32> {
        let mut weights = vec![7.0; signals.mask.len()];
        selection.weigh(signals, &mut weights);
        weights
    }

    fn of_excess<'a>(excess: &'a [f32], mask: &'a [bool], zeros: &'a [f32]) -> Signals<'a> {
        Signals { length: 4, mask, documents: &[0; 8], learner: zeros, reference: Some(excess) }
    }

    #[test]
    fn golden_cases() {
        let golden = Golden::load();
        let cases: Vec<_> = golden.cases.iter().filter(|case| case.options.contains_key("select")).collect();
        assert_eq!(cases.len(), 2);
        for case in cases {
            let fraction = case.options["fraction"].as_f64().expect("a number");
            let selection = Selection { fraction, scope: SelectionScope::Batch };
            let weights = select(&selection, &golden.signals());
            assert_eq!(weights, case.weights.concat().iter().map(|&w| w as f32).collect::<Vec<_>>());
            let denominator =
                selection.denominator(golden.length, [&golden.mask[..]]).expect("some are selected");
            let mut derivative = vec![0.0; weights.len()];
            let sums = weighted_loss(&golden.signals(), &weights, denominator, &mut derivative);
            let loss = denominator.divide(sums.weighted);
            assert!((loss / case.loss - 1.0).abs() < 1e-6, "{loss} {}", case.loss);
        }
    }

    #[test]
    fn higher_excess_is_kept_and_ties_go_to_the_earlier() {
        let selection = Selection { fraction: 0.5, scope: SelectionScope::Batch };
        let excess = [0.0, 3.0, 1.0, 1.0, 5.0, -0.0, 1.0, 9.0];
        let mut mask = [true; 8];
        assert_eq!(
            select(&selection, &of_excess(&excess, &mask, &[0.0; 8])),
            [0., 1., 1., 0., 1., 0., 0., 1.]
        );
        mask[7] = false; // Seven left, three of them kept.
        assert_eq!(
            select(&selection, &of_excess(&excess, &mask, &[0.0; 8])),
            [0., 1., 1., 0., 1., 0., 0., 0.]
        );
        let selection = Selection { fraction: 0.25, scope: SelectionScope::Batch };
        let zeros = [-1.0, 0.0, -1.0, -0.0, 0.0, -1.0, -1.0, -1.0];
        assert_eq!(
            select(&selection, &of_excess(&zeros, &[true; 8], &[0.0; 8])),
            [0., 1., 0., 1., 0., 0., 0., 0.]
        );
    }

    #[test]
    fn a_window_selects_for_itself() {
        let selection = Selection { fraction: 0.5, scope: SelectionScope::Sequence };
        let excess = [0.0, 3.0, 1.0, 1.0, 5.0, 6.0, 7.0, 9.0];
        let mask = [true, true, true, true, false, true, true, true];
        let signals = of_excess(&excess, &mask, &[0.0; 8]);
        assert_eq!(select(&selection, &signals), [0., 1., 1., 0., 0., 0., 0., 1.]);
        assert_eq!(select(&selection, &signals.window(1)), [0., 0., 0., 1.]);
        assert_eq!(selection.denominator(4, [&mask[..]]).map(Denominator::tokens), Ok(3));
        let batch = Selection { scope: SelectionScope::Batch, ..selection };
        // 7 / 2 is 3 as well, but 3 / 2 + 4 / 2 over micro-batches of one must not be rounded apart.
        assert_eq!(batch.denominator(4, mask.chunks(4)).map(Denominator::tokens), Ok(3));
        let odd = [true, true, true, false, true, true, true, false];
        assert_eq!(batch.denominator(4, odd.chunks(4)).map(Denominator::tokens), Ok(3));
        assert_eq!(selection.denominator(4, odd.chunks(4)).map(Denominator::tokens), Ok(2));
    }

    #[test]
    fn everything_kept_is_plain_prediction() {
        let all = Selection { fraction: 1.0, scope: SelectionScope::Sequence };
        let mask = [true, true, false, true, true, true, true, true];
        let weights = select(&all, &of_excess(&[0.0; 8], &mask, &[0.0; 8]));
        assert_eq!(weights, mask.map(|counts| f32::from(u8::from(counts))));
    }

    #[test]
    fn not_a_number_is_not_hidden() {
        let selection = Selection { fraction: 0.2, scope: SelectionScope::Batch };
        for nan in [f32::NAN, -f32::NAN] {
            let excess = [0.0, f32::INFINITY, 1.0, nan, 0.0, 0.0, 0.0, 0.0];
            let weights = select(&selection, &of_excess(&excess, &[true; 8], &[0.0; 8]));
            assert_eq!(weights[3], 1.0);
        }
    }

    #[test]
    fn an_empty_selection_is_an_error() {
        let selection = Selection { fraction: 0.1, scope: SelectionScope::Sequence };
        let error = selection.denominator(4, [&[true; 8][..]]).expect_err("0.4 of a token a window");
        assert_eq!(error.to_string(), "`fraction` 0.1 of 8 unmasked tokens selects none of them");
        assert_eq!(
            error.hint().as_deref(),
            Some("raise `fraction`, enlarge the batch, or use `scope = \"batch\"`")
        );
        // Nothing to select from is not the selection's fault.
        assert_eq!(selection.denominator(4, [&[false; 8][..]]).map(Denominator::tokens), Ok(0));
    }

    #[test]
    fn fractions_outside_their_range() {
        for (fraction, message) in [
            (0.0, "objective setting `fraction` is 0, but must be above 0 and at most 1"),
            (1.5, "objective setting `fraction` is 1.5, but must be above 0 and at most 1"),
            (f64::NAN, "objective setting `fraction` is NaN, but must be above 0 and at most 1"),
        ] {
            let selection = Selection { fraction, scope: SelectionScope::Batch };
            assert_eq!(selection.validate().expect_err("out of range").to_string(), message);
        }
        assert_eq!(Selection::default().validate(), Ok(()));
    }
}
