//! Two models on the same problems: the mean difference, its t statistic and its intervals.
//!
//! With `d_i = b_i - a_i` over `n` problems, mean `m` and standard error `s` of the `d_i`:
//!
//! ```text
//! t = m / s with n - 1 degrees of freedom        p = P(|T| >= |t|)        interval = m -+ quantile(1 - (1-c)/2) s
//! ```
//!
//! Positive means that `b` is better. The bootstrap interval resamples problems, keeping each pair together.

use serde::{Deserialize, Serialize};

use super::bootstrap::{Bootstrap, bootstrap_mean};
use super::mean::Mean;
use super::student::{student_cdf, student_quantile};

/// From a lower to a higher end.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The lower end.
    pub low: f64,
    /// The higher end.
    pub high: f64,
}

/// A paired comparison.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Paired {
    /// The mean of `b - a` with its standard error.
    pub difference: Mean,
    /// `difference / standard error`; absent for fewer than two problems or equal differences.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub t: Option<f64>,
    /// The two-sided p value of `t`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p: Option<f64>,
    /// The interval of Student's distribution.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub t_interval: Option<Interval>,
    /// The bootstrap interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bootstrap_interval: Option<Interval>,
    /// What the intervals are meant to hold the true difference with, such as 0.95.
    #[serde(default = "usual_confidence")]
    pub confidence: f64,
}

/// What intervals are meant to hold the true value with where nothing is said.
pub const CONFIDENCE: f64 = 0.95;

fn usual_confidence() -> f64 {
    CONFIDENCE
}

/// Sums of the same numbers in another order differ by less.
const NOTHING: f64 = 1e-9;

impl Interval {
    /// Whether its ends differ by more than rounding.
    pub fn has_width(&self) -> bool {
        self.high - self.low > NOTHING
    }
}

impl Paired {
    /// The interval of Student's distribution, where it says something: differences that are the very same, as two may
    /// be by chance, have one without width.
    pub fn telling_interval(&self) -> Option<Interval> {
        self.t_interval.filter(|interval| interval.has_width() || self.difference.mean.abs() < NOTHING)
    }
}

/// Compares the scores `b` with the scores `a` of the same problems in the same order; without `bootstrap` by Student's
/// distribution alone.
///
/// # Panics
/// When the two differ in length, or the confidence is not between 0 and 1.
pub fn paired(a: &[f64], b: &[f64], confidence: f64, bootstrap: Option<&Bootstrap>) -> Paired {
    assert_eq!(a.len(), b.len(), "the same problems");
    assert!(confidence > 0.0 && confidence < 1.0, "a confidence of {confidence}");
    let differences: Vec<f64> = a.iter().zip(b).map(|(a, b)| b - a).collect();
    let difference = Mean::of(&differences);
    let degrees = difference.count as f64 - 1.0;
    let t = difference.standard_error.filter(|&error| error > 0.0).map(|error| difference.mean / error);
    let half = |error: f64| student_quantile(0.5 + confidence / 2.0, degrees) * error;
    Paired {
        difference,
        t,
        p: t.map(|t| 2.0 * student_cdf(-t.abs(), degrees)),
        t_interval: difference.standard_error.map(|error| Interval {
            low: difference.mean - half(error),
            high: difference.mean + half(error),
        }),
        bootstrap_interval: bootstrap.and_then(|settings| bootstrap_mean(&differences, confidence, settings)),
        confidence,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Student's own data (Biometrika, 1908): hours of sleep gained by ten patients under two drugs. His paper has
    /// the mean difference 1.58; R's `t.test(extra ~ group, data = sleep, paired = TRUE)` prints t = -4.0621, df = 9,
    /// p = 0.002833 and the interval -2.4598858 to -0.7001142 for the other sign.
    const FIRST: [f64; 10] = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0];
    const SECOND: [f64; 10] = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4];

    fn close(found: f64, expected: f64, tolerance: f64) {
        assert!((found - expected).abs() <= tolerance, "{found} is not {expected}");
    }

    #[test]
    fn students_sleep_data() {
        let found = paired(&FIRST, &SECOND, 0.95, Some(&Bootstrap::default()));
        close(found.difference.mean, 1.58, 1e-12);
        close(found.t.expect("ten pairs"), 4.0621, 5e-5);
        close(found.p.expect("ten pairs"), 0.002833, 5e-7);
        let interval = found.t_interval.expect("ten pairs");
        close(interval.low, 0.7001142, 5e-8);
        close(interval.high, 2.4598858, 5e-8);
        let bootstrap = found.bootstrap_interval.expect("ten pairs");
        assert!(bootstrap.low > interval.low && bootstrap.high < interval.high, "{bootstrap:?}");
        assert!(bootstrap.low < 1.1 && bootstrap.high > 2.0, "{bootstrap:?}");

        let turned = paired(&SECOND, &FIRST, 0.95, Some(&Bootstrap::default()));
        close(turned.t.expect("ten pairs"), -4.0621, 5e-5);
        assert_eq!(turned.p, found.p);
        close(turned.t_interval.expect("ten pairs").low, -interval.high, 1e-12);
    }

    #[test]
    fn few_or_equal_differences() {
        let one = paired(&[1.0], &[3.0], 0.95, Some(&Bootstrap::default()));
        assert_eq!((one.difference.mean, one.t, one.p, one.t_interval), (2.0, None, None, None));
        let equal = paired(&[1.0, 2.0], &[2.0, 3.0], 0.95, Some(&Bootstrap::default()));
        assert_eq!((equal.t, equal.t_interval), (None, Some(Interval { low: 1.0, high: 1.0 })));
        let none = paired(&[], &[], 0.95, Some(&Bootstrap::default()));
        assert_eq!((none.difference.count, none.bootstrap_interval), (0, None));
    }

    #[test]
    #[should_panic(expected = "the same problems")]
    fn other_problems_cannot_be_paired() {
        paired(&[1.0], &[1.0, 2.0], 0.95, Some(&Bootstrap::default()));
    }
}
