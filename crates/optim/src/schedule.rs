//! The learning rate at each step, as a share of its peak.
//!
//! With `s` the step counted from 0, `N` steps in the run, `w` of warm-up and `r = final_ratio`:
//!
//! ```text
//! s < w          (s + 1) / w                     every kind: linear warm-up, the peak at its last step
//!
//! constant       1
//! linear         r + (1 - r) (1 - u)             u = (s - w) / (N - w)
//! cosine         r + (1 - r) (1 + cos(pi u)) / 2
//! 1-sqrt         r + (1 - r) (1 - sqrt(u))
//! inverse-sqrt   sqrt(max(w, 1) / (s + 1))
//! wsd            1 until the last d steps, then one of the three shapes above with u = (s - (N - d)) / d
//! ```
//!
//! A decay starts from the peak and would reach `r` at step `N`, one past the last: with `r = 0` no step is wasted on a
//! learning rate of 0. Sources: cosine arXiv 1608.03983, warmup-stable-decay arXiv 2404.06395, its 1-sqrt shape arXiv
//! 2405.18392, inverse square root arXiv 1706.03762.

use std::f64::consts::PI;

use remit_fault::fault;
use serde::{Deserialize, Serialize};

use crate::{Error, out_of_range};

/// Settings of the schedule. The default is a constant learning rate.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// The curve after warm-up.
    pub kind: Kind,
    /// Steps of warm-up; none by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warmup_steps: Option<u64>,
    /// The same as a share of the run, rounded to whole steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warmup_fraction: Option<f64>,
    /// `wsd`: steps of decay at the end of the run; a tenth of it by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decay_steps: Option<u64>,
    /// `wsd`: the same as a share of the run, starting at a whole step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decay_fraction: Option<f64>,
    /// `wsd`: the curve of the decay; linear by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decay_shape: Option<Shape>,
    /// Where a decay leads, as a share of the peak.
    #[serde(default)]
    pub final_ratio: f64,
}

/// The curve after warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The peak throughout.
    #[default]
    Constant,
    /// Down to the final ratio in a straight line.
    Linear,
    /// Down to the final ratio along half a cosine.
    Cosine,
    /// Down to the final ratio, fast at first.
    #[serde(rename = "1-sqrt")]
    OneSqrt,
    /// Down with the root of the step, whatever the length of the run.
    InverseSqrt,
    /// Warm-up, stable, decay.
    Wsd,
}

/// The curve of a decay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shape {
    /// A straight line.
    #[default]
    Linear,
    /// Half a cosine.
    Cosine,
    /// One minus the root: fast at first.
    #[serde(rename = "1-sqrt")]
    OneSqrt,
}

/// The share of the run that `wsd` decays in, where nothing is said.
const DEFAULT_DECAY_FRACTION: f64 = 0.1;

/// One length given in two ways.
fn given_twice(steps: &str, fraction: &str) -> Error {
    fault!("schedule settings `{steps}` and `{fraction}` are both given")
        .with_hint(format!("keep either `{steps}` or `{fraction}`"))
}

impl Schedule {
    /// Checks the settings against the length of the run.
    ///
    /// # Errors
    /// A number outside its range; a setting that the kind ignores; a length given twice; warm-up and decay that do not
    /// fit into `total` steps.
    pub fn validate(&self, total: u64) -> Result<(), Error> {
        let ignored = match self.kind {
            Kind::Wsd => None,
            _ if self.decay_steps.is_some() => Some("decay_steps"),
            _ if self.decay_fraction.is_some() => Some("decay_fraction"),
            _ if self.decay_shape.is_some() => Some("decay_shape"),
            Kind::Constant | Kind::InverseSqrt if self.final_ratio != 0.0 => Some("final_ratio"),
            _ => None,
        };
        if let Some(key) = ignored {
            let kind = self.kind.name();
            return Err(fault!("schedule setting `{key}` has no meaning for kind `{kind}`")
                .with_hint(format!("remove `{key}` or choose another kind")));
        }
        for (key, value) in [
            ("warmup_fraction", self.warmup_fraction),
            ("decay_fraction", self.decay_fraction),
            ("final_ratio", Some(self.final_ratio)),
        ] {
            if let Some(value) = value.filter(|value| !(0.0..=1.0).contains(value)) {
                return Err(out_of_range("schedule", key, value, "between 0 and 1"));
            }
        }
        if self.warmup_steps.is_some() && self.warmup_fraction.is_some() {
            return Err(given_twice("warmup_steps", "warmup_fraction"));
        }
        if self.decay_steps.is_some() && self.decay_fraction.is_some() {
            return Err(given_twice("decay_steps", "decay_fraction"));
        }
        let (warmup, decay) = (self.num_warmup_steps(total), self.num_decay_steps(total));
        let decay = if self.kind == Kind::Wsd { decay } else { 0 };
        if warmup.saturating_add(decay) > total {
            return Err(fault!(
                "schedule needs {warmup} steps of warm-up and {decay} of decay, but the run has {total}"
            )
            .with_hint("shorten them or lengthen the run"));
        }
        Ok(())
    }

    /// The share of the peak learning rate at `step`, counted from 0, in a run of `total` steps; settings that
    /// [`validate`](Self::validate) accepts. Past the end it stays where the decay led.
    pub fn factor(&self, step: u64, total: u64) -> f64 {
        let warmup = self.num_warmup_steps(total);
        if step < warmup {
            return (step + 1) as f64 / warmup as f64;
        }
        let shape = match self.kind {
            Kind::Constant => return 1.0,
            Kind::InverseSqrt => return (warmup.max(1) as f64 / (step + 1) as f64).sqrt(),
            Kind::Linear => Shape::Linear,
            Kind::Cosine => Shape::Cosine,
            Kind::OneSqrt => Shape::OneSqrt,
            Kind::Wsd => self.decay_shape.unwrap_or_default(),
        };
        let start = total.saturating_sub(self.num_decay_steps(total));
        if step < start {
            return 1.0;
        }
        let progress = if step < total { (step - start) as f64 / (total - start) as f64 } else { 1.0 };
        self.final_ratio + (1.0 - self.final_ratio) * shape.remaining(progress)
    }

    /// Steps of warm-up, `w`.
    pub fn num_warmup_steps(&self, total: u64) -> u64 {
        self.warmup_steps.or(self.warmup_fraction.map(|share| share_of(share, total))).unwrap_or(0)
    }

    /// Steps in which the learning rate falls: `d` for `wsd`, everything after warm-up for other kinds that decay.
    pub fn num_decay_steps(&self, total: u64) -> u64 {
        match self.kind {
            Kind::Constant => 0,
            Kind::Wsd => self.decay_steps.unwrap_or_else(|| {
                // Its start is rounded, not its length: two halves of an odd run then fit into it.
                let fraction = self.decay_fraction.unwrap_or(DEFAULT_DECAY_FRACTION);
                total - share_of(1.0 - fraction, total)
            }),
            _ => total.saturating_sub(self.num_warmup_steps(total)),
        }
    }

    /// The curve as a line of block characters, for a look at what is planned. Each shows the middle of its share of
    /// the run, from an empty space for 0 to a full block for the peak.
    pub fn sparkline(&self, total: u64, width: usize) -> String {
        const BLOCKS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
        let step = |column: usize| ((column as f64 + 0.5) / width as f64 * total as f64) as u64;
        (0..width).map(|column| BLOCKS[(self.factor(step(column), total) * 8.0).round() as usize]).collect()
    }
}

impl Kind {
    /// The name in a recipe.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Constant => "constant",
            Kind::Linear => "linear",
            Kind::Cosine => "cosine",
            Kind::OneSqrt => "1-sqrt",
            Kind::InverseSqrt => "inverse-sqrt",
            Kind::Wsd => "wsd",
        }
    }
}

impl Shape {
    /// What is left of the way down, from 1 at `u = 0` to 0 at `u = 1`.
    fn remaining(self, u: f64) -> f64 {
        match self {
            Shape::Linear => 1.0 - u,
            Shape::Cosine => 0.5 * (1.0 + (PI * u).cos()),
            Shape::OneSqrt => 1.0 - u.sqrt(),
        }
    }
}

/// Never more than the whole, whatever the share: sizes are shown before settings are checked.
fn share_of(share: f64, total: u64) -> u64 {
    ((share * total as f64).round() as u64).min(total)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn schedule(text: &str) -> Schedule {
        toml::from_str(text).expect("it parses")
    }

    fn check(text: &str, total: u64, expected: &[(u64, f64)]) {
        let schedule = schedule(text);
        assert_eq!(schedule.validate(total), Ok(()));
        for &(step, factor) in expected {
            let found = schedule.factor(step, total);
            assert!((found - factor).abs() < 1e-15, "{text}, step {step}: {found} is not {factor}");
        }
    }

    #[test]
    fn constant() {
        check("kind = 'constant'", 10, &[(0, 1.0), (9, 1.0), (10, 1.0)]);
        let warm = [(0, 0.25), (1, 0.5), (2, 0.75), (3, 1.0), (4, 1.0), (9, 1.0)];
        check("kind = 'constant'\nwarmup_steps = 4", 10, &warm);
        check("kind = 'constant'\nwarmup_fraction = 0.4", 10, &warm);
        check("kind = 'constant'\nwarmup_fraction = 0.36", 10, &warm);
    }

    #[test]
    fn linear() {
        check("kind = 'linear'", 8, &[(0, 1.0), (1, 0.875), (4, 0.5), (7, 0.125), (8, 0.0), (99, 0.0)]);
        let text = "kind = 'linear'\nwarmup_steps = 2\nfinal_ratio = 0.5";
        check(text, 10, &[(0, 0.5), (1, 1.0), (2, 1.0), (3, 0.9375), (6, 0.75), (9, 0.5625), (10, 0.5)]);
    }

    #[test]
    fn cosine() {
        let third = 0.5 * (1.0 + (PI / 3.0).cos());
        check("kind = 'cosine'", 6, &[(0, 1.0), (2, third), (3, 0.5), (4, 1.0 - third), (6, 0.0)]);
        check(
            "kind = 'cosine'\nfinal_ratio = 0.1\nwarmup_steps = 4",
            12,
            &[(3, 1.0), (4, 1.0), (8, 0.55), (12, 0.1)],
        );
    }

    #[test]
    fn one_sqrt() {
        check("kind = '1-sqrt'", 16, &[(0, 1.0), (1, 0.75), (4, 0.5), (9, 0.25), (16, 0.0)]);
    }

    #[test]
    fn inverse_sqrt() {
        check("kind = 'inverse-sqrt'\nwarmup_steps = 4", 100, &[(0, 0.25), (3, 1.0), (15, 0.5), (63, 0.25)]);
        check("kind = 'inverse-sqrt'", 100, &[(0, 1.0), (3, 0.5), (99, 0.1)]);
    }

    #[test]
    fn warmup_stable_decay() {
        let text = "kind = 'wsd'\nwarmup_steps = 2\ndecay_steps = 4";
        check(text, 12, &[(0, 0.5), (1, 1.0), (7, 1.0), (8, 1.0), (9, 0.75), (11, 0.25), (12, 0.0)]);
        let text = "kind = 'wsd'\ndecay_fraction = 0.5\ndecay_shape = '1-sqrt'\nfinal_ratio = 0.2";
        check(text, 32, &[(15, 1.0), (16, 1.0), (17, 0.8), (20, 0.6), (25, 0.4), (32, 0.2)]);
        check("kind = 'wsd'\ndecay_steps = 6\ndecay_shape = 'cosine'", 6, &[(0, 1.0), (3, 0.5)]);
        // A tenth unless said otherwise.
        check("kind = 'wsd'", 100, &[(89, 1.0), (90, 1.0), (91, 0.9), (99, 0.1)]);
        check("kind = 'wsd'\ndecay_steps = 0", 4, &[(3, 1.0)]);
        check(
            "kind = 'wsd'\nwarmup_fraction = 0.5\ndecay_fraction = 0.5",
            5,
            &[(2, 1.0), (3, 1.0), (4, 0.5)],
        );
    }

    #[test]
    fn a_warmup_of_the_whole_run() {
        for kind in ["linear", "cosine", "1-sqrt", "inverse-sqrt"] {
            check(&format!("kind = '{kind}'\nwarmup_fraction = 1"), 4, &[(0, 0.25), (3, 1.0)]);
        }
        check("kind = 'linear'\nwarmup_steps = 4", 4, &[(4, 0.0)]);
    }

    #[test]
    fn mistakes() {
        let check = |text: &str, message: &str, hint: Option<&str>| {
            let error = schedule(text).validate(100).expect_err("a mistake");
            assert_eq!((error.to_string().as_str(), error.hint().as_deref()), (message, hint));
        };
        check(
            "kind = 'cosine'\ndecay_steps = 10",
            "schedule setting `decay_steps` has no meaning for kind `cosine`",
            Some("remove `decay_steps` or choose another kind"),
        );
        check(
            "kind = '1-sqrt'\ndecay_shape = 'linear'",
            "schedule setting `decay_shape` has no meaning for kind `1-sqrt`",
            Some("remove `decay_shape` or choose another kind"),
        );
        check(
            "kind = 'constant'\nfinal_ratio = 0.1",
            "schedule setting `final_ratio` has no meaning for kind `constant`",
            Some("remove `final_ratio` or choose another kind"),
        );
        check(
            "kind = 'wsd'\ndecay_steps = 10\ndecay_fraction = 0.1",
            "schedule settings `decay_steps` and `decay_fraction` are both given",
            Some("keep either `decay_steps` or `decay_fraction`"),
        );
        check(
            "kind = 'linear'\nwarmup_steps = 10\nwarmup_fraction = 0.1",
            "schedule settings `warmup_steps` and `warmup_fraction` are both given",
            Some("keep either `warmup_steps` or `warmup_fraction`"),
        );
        check(
            "kind = 'wsd'\nwarmup_steps = 30\ndecay_steps = 71",
            "schedule needs 30 steps of warm-up and 71 of decay, but the run has 100",
            Some("shorten them or lengthen the run"),
        );
        check(
            "kind = 'linear'\nwarmup_steps = 101",
            "schedule needs 101 steps of warm-up and 0 of decay, but the run has 100",
            Some("shorten them or lengthen the run"),
        );
        check(
            "kind = 'linear'\nfinal_ratio = 1.5",
            "schedule setting `final_ratio` is 1.5, but must be between 0 and 1",
            None,
        );
        let parse = |text| toml::from_str::<Schedule>(text).expect_err("a mistake").message().to_string();
        assert!(
            parse("kind = 'linear'\nwarmup = 3")
                .starts_with("unknown field `warmup`, expected one of `kind`, ")
        );
        assert_eq!(
            parse("kind = 'poly'"),
            "unknown variant `poly`, expected one of `constant`, `linear`, `cosine`, `1-sqrt`, `inverse-sqrt`, `wsd`"
        );
    }

    #[test]
    fn names_are_those_of_recipes() {
        for kind in [Kind::Constant, Kind::Linear, Kind::Cosine, Kind::OneSqrt, Kind::InverseSqrt, Kind::Wsd]
        {
            let text = toml::to_string(&Schedule { kind, ..Schedule::default() }).expect("plain values");
            assert_eq!(text, format!("kind = \"{}\"\nfinal_ratio = 0.0\n", kind.name()));
            assert_eq!(schedule(&text).kind, kind);
        }
    }

    #[test]
    fn sparklines() {
        assert_eq!(
            schedule("kind = 'wsd'\nwarmup_steps = 32\ndecay_steps = 32").sparkline(96, 12),
            "▁▃▅▇████▇▅▃▁"
        );
        assert_eq!(schedule("kind = 'constant'").sparkline(1, 3), "███");
        assert_eq!(schedule("kind = 'linear'").sparkline(0, 2), "  ");
    }

    proptest! {
        #[test]
        fn factors_are_shares(
            kind in 0usize..6, warmup in 0.0..=0.5, decay in 0.0..=0.5, shape in 0usize..3, final_ratio in 0.0..=1.0,
            total in 1u64..200,
        ) {
            let kind = [Kind::Constant, Kind::Linear, Kind::Cosine, Kind::OneSqrt, Kind::InverseSqrt, Kind::Wsd][kind];
            let wsd = kind == Kind::Wsd;
            let decays = !matches!(kind, Kind::Constant | Kind::InverseSqrt);
            let schedule = Schedule {
                kind,
                warmup_fraction: Some(warmup),
                decay_fraction: wsd.then_some(decay),
                decay_shape: wsd.then_some([Shape::Linear, Shape::Cosine, Shape::OneSqrt][shape]),
                final_ratio: if decays { final_ratio } else { 0.0 },
                ..Schedule::default()
            };
            prop_assert_eq!(schedule.validate(total), Ok(()));
            let factors: Vec<f64> = (0..total).map(|step| schedule.factor(step, total)).collect();
            prop_assert!(factors.iter().all(|&factor| factor > 0.0 && factor <= 1.0), "{:?}", factors);
            let peak = schedule.num_warmup_steps(total).saturating_sub(1) as usize;
            prop_assert!(factors[..=peak].windows(2).all(|pair| pair[0] < pair[1]));
            prop_assert!(factors[peak..].windows(2).all(|pair| pair[0] >= pair[1]));
            prop_assert_eq!(factors[peak], 1.0);
            prop_assert_eq!(schedule.sparkline(total, 20).chars().count(), 20);
        }
    }
}
