//! The choice among the rules, as a recipe writes it:
//!
//! ```toml
//! [objective]
//! kind = "remit" # or "ntp", "rho1", "kd"
//! epsilon_low = 0.2
//! ```

use remit_fault::fault;
use serde::{Deserialize, Serialize};

use crate::loss::{Denominator, weighted_loss};
use crate::signals::Signals;
use crate::{Clipped, Distillation, Error, Selection, Statistics, Weighting};

/// What is minimised. The default is plain next-token prediction.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", from = "Table")]
pub enum Objective {
    /// Next-token prediction: every weight is 1.
    #[default]
    #[serde(rename = "ntp")]
    Ntp,
    /// Token weights from a reference: see [`crate::weighting`].
    #[serde(rename = "remit")]
    Weighted(Weighting),
    /// Only the tokens of highest excess loss: see [`crate::selection`].
    #[serde(rename = "rho1")]
    Selection(Selection),
    /// Soft labels over the vocabulary: see [`crate::distillation`]. It weighs no tokens; the head asks its rule.
    #[serde(rename = "kd")]
    Distillation(Distillation),
}

/// What is read. Serde lets a unit variant pass with unknown keys; one without fields does not.
#[derive(Deserialize)]
#[serde(tag = "kind", deny_unknown_fields)]
enum Table {
    #[serde(rename = "ntp")]
    Ntp {},
    #[serde(rename = "remit")]
    Weighted(Weighting),
    #[serde(rename = "rho1")]
    Selection(Selection),
    #[serde(rename = "kd")]
    Distillation(Distillation),
}

impl From<Table> for Objective {
    fn from(table: Table) -> Objective {
        match table {
            Table::Ntp {} => Objective::Ntp,
            Table::Weighted(weighting) => Objective::Weighted(weighting),
            Table::Selection(selection) => Objective::Selection(selection),
            Table::Distillation(distillation) => Objective::Distillation(distillation),
        }
    }
}

impl Objective {
    /// The name in a recipe.
    pub fn kind(&self) -> &'static str {
        match self {
            Objective::Ntp => "ntp",
            Objective::Weighted(_) => "remit",
            Objective::Selection(_) => "rho1",
            Objective::Distillation(_) => "kd",
        }
    }

    /// Checks the settings, and that there is a reference where the rule needs one.
    ///
    /// # Errors
    /// A number outside its range; a missing reference.
    pub fn validate(&self, has_reference: bool) -> Result<(), Error> {
        match self {
            Objective::Ntp => {}
            Objective::Weighted(weighting) => weighting.validate()?,
            Objective::Selection(selection) => selection.validate()?,
            Objective::Distillation(distillation) => distillation.validate()?,
        }
        if self.needs_reference() && !has_reference {
            return Err(fault!("objective `{}` needs a reference, and none is given", self.kind()).with_hint(
                "name a reference checkpoint or a score store, or choose an objective that needs none: `kind = \"ntp\"`",
            ));
        }
        Ok(())
    }

    /// Whether the rule reads the reference's log-probabilities.
    pub fn needs_reference(&self) -> bool {
        match self {
            Objective::Ntp => false,
            Objective::Weighted(weighting) => weighting.needs_reference(),
            Objective::Selection(_) | Objective::Distillation(_) => true,
        }
    }

    /// Whether the rule reads the reference's logits, which no score store has.
    pub fn needs_logits(&self) -> bool {
        matches!(self, Objective::Distillation(_))
    }

    /// Whether weights and derivative of a window depend on that window alone (and the denominator): then each window
    /// can be evaluated as soon as its log-probabilities are known. Otherwise [`evaluate`](Self::evaluate) wants the
    /// signals of the whole optimiser batch at once.
    pub fn is_window_local(&self) -> bool {
        match self {
            Objective::Ntp | Objective::Distillation(_) => true,
            Objective::Weighted(weighting) => weighting.is_window_local(),
            Objective::Selection(selection) => selection.is_window_local(),
        }
    }

    /// What the loss of an optimiser batch is divided by, counted from its masks before the first micro-batch: the
    /// unmasked tokens, or for a selection the number that will be selected. Masks are `[W, T]` with `T = length`.
    ///
    /// # Errors
    /// A selection that selects nothing.
    pub fn denominator<'a>(
        &self,
        length: usize,
        masks: impl IntoIterator<Item = &'a [bool]>,
    ) -> Result<Denominator, Error> {
        match self {
            Objective::Ntp | Objective::Weighted(_) | Objective::Distillation(_) => {
                Ok(Denominator::count(masks))
            }
            Objective::Selection(selection) => selection.denominator(length, masks),
        }
    }

    /// Writes the weight of every prediction, 0 where masked.
    ///
    /// # Panics
    /// When the streams differ in length, or the rule needs a reference and there is none, or logits.
    pub fn weigh(&self, signals: &Signals<'_>, weights: &mut [f32]) -> Clipped {
        match self {
            Objective::Ntp => {
                signals.check(&[weights]);
                for (weight, &counts) in weights.iter_mut().zip(signals.mask) {
                    *weight = if counts { 1.0 } else { 0.0 };
                }
                Clipped::default()
            }
            Objective::Weighted(weighting) => weighting.weigh(signals, weights),
            Objective::Selection(selection) => {
                selection.weigh(signals, weights);
                Clipped::default()
            }
            Objective::Distillation(_) => unreachable!("whoever trains asks `needs_logits` first"),
        }
    }

    /// Everything at once: writes weights and `d(loss)/d(log p)`, `[W, T]` each, and returns the sums of these
    /// windows, whose [`summary`](Statistics::summary) over the optimiser batch holds the loss.
    ///
    /// # Panics
    /// As [`weigh`](Self::weigh).
    pub fn evaluate(
        &self,
        signals: &Signals<'_>,
        denominator: Denominator,
        weights: &mut [f32],
        derivative: &mut [f32],
    ) -> Statistics {
        let clipped = self.weigh(signals, weights);
        let sums = weighted_loss(signals, weights, denominator, derivative);
        if let Objective::Weighted(weighting) = self
            && !weighting.stop_gradient
        {
            weighting.add_gradient_through_weights(signals, denominator, derivative);
        }
        Statistics::of(signals, weights, clipped, sums)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::Golden;
    use crate::selection::SelectionScope;
    use crate::weighting::{Center, Map, Renormalise, Scale, Signal};

    fn parse(text: &str) -> Result<Objective, String> {
        toml::from_str(text).map_err(|error| error.message().to_string())
    }

    #[test]
    fn tables_are_read() {
        assert_eq!(parse("kind = 'ntp'"), Ok(Objective::Ntp));
        assert_eq!(parse("kind = 'remit'"), Ok(Objective::Weighted(Weighting::default())));
        let everything = "temperature = 2\nkind = 'remit'\nsignal = 'learner'\ncenter = 'document'\nscale = 'std'\n\
            map = 'exp'\nepsilon_low = 1\nepsilon_high = 0.5\nrenormalise = 'mean-one'\nstop_gradient = false";
        let expected = Weighting {
            signal: Signal::Learner,
            center: Center::Document,
            scale: Scale::Std,
            temperature: 2.0,
            map: Map::Exp,
            epsilon_low: 1.0,
            epsilon_high: 0.5,
            renormalise: Renormalise::MeanOne,
            stop_gradient: false,
            shuffle: false,
        };
        assert_eq!(parse(everything), Ok(Objective::Weighted(expected)));
        let selection = Selection { fraction: 0.3, scope: SelectionScope::Sequence };
        assert_eq!(
            parse("kind = 'rho1'\nfraction = 0.3\nscope = 'sequence'"),
            Ok(Objective::Selection(selection))
        );
    }

    #[test]
    fn what_is_written_is_read_back() {
        let objectives = [
            Objective::Ntp,
            Objective::Weighted(Weighting { renormalise: Renormalise::MeanOne, ..Weighting::default() }),
            Objective::Selection(Selection::default()),
        ];
        for objective in objectives {
            let text = toml::to_string(&objective).expect("plain values");
            assert!(text.contains(&format!("kind = \"{}\"", objective.kind())), "{text}");
            assert_eq!(parse(&text), Ok(objective), "{text}");
        }
        let text = toml::to_string(&Objective::Weighted(Weighting::default())).expect("plain values");
        assert!(text.contains("epsilon_low = 0.2\n"), "{text}");
    }

    #[test]
    fn mistakes_in_a_table() {
        let check = |text: &str, expected: &str| assert_eq!(parse(text), Err(expected.to_string()), "{text}");
        check(
            "kind = 'remit'\nepsilom = 0.2",
            "unknown field `epsilom`, expected one of `signal`, `center`, `scale`, `temperature`, `map`, \
             `epsilon_low`, `epsilon_high`, `renormalise`, `stop_gradient`, `shuffle`",
        );
        check(
            "kind = 'rho1'\nepsilon_low = 0.2",
            "unknown field `epsilon_low`, expected `fraction` or `scope`",
        );
        check("kind = 'ntp'\nepsilon_low = 0.2", "unknown field `epsilon_low`, there are no fields");
        check("kind = 'kl'", "unknown variant `kl`, expected one of `ntp`, `remit`, `rho1`, `kd`");
        check("epsilon_low = 0.2", "missing field `kind`");
        check(
            "kind = 'remit'\ncenter = 'window'",
            "unknown variant `window`, expected one of `sequence`, `document`, `batch`, `none`",
        );
        check("kind = 'remit'\ntemperature = 'hot'", "invalid type: string \"hot\", expected f64");
    }

    #[test]
    fn a_missing_reference_is_named() {
        let learner = Weighting { signal: Signal::Learner, ..Weighting::default() };
        assert_eq!(Objective::Weighted(learner).validate(false), Ok(()));
        assert_eq!(Objective::Ntp.validate(false), Ok(()));
        let error = Objective::Selection(Selection::default()).validate(false).expect_err("none given");
        assert_eq!(error.to_string(), "objective `rho1` needs a reference, and none is given");
        assert!(error.hint().is_some_and(|hint| hint.contains("score store")));
        let hot = Weighting { temperature: 0.0, ..Weighting::default() };
        let error = Objective::Weighted(hot).validate(true).expect_err("no temperature");
        assert_eq!(
            error.to_string(),
            "objective setting `temperature` is 0, but must be a finite number above 0"
        );
    }

    #[test]
    fn epsilon_zero_is_plain_prediction_bit_for_bit() {
        let golden = Golden::load();
        let signals = golden.signals();
        let denominator = Denominator::count([signals.mask]);
        let evaluate = |objective: &Objective| {
            let size = signals.mask.len();
            let (mut weights, mut derivative) = (vec![7.0; size], vec![7.0; size]);
            let loss = objective.evaluate(&signals, denominator, &mut weights, &mut derivative).loss();
            let bits = |values: Vec<f32>| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            (bits(weights), bits(derivative), loss.weighted.to_bits())
        };
        let plain = evaluate(&Objective::Ntp);
        for stop_gradient in [true, false] {
            let weighting =
                Weighting { epsilon_low: 0.0, epsilon_high: 0.0, stop_gradient, ..Weighting::default() };
            assert_eq!(evaluate(&Objective::Weighted(weighting)), plain);
        }
    }
}
