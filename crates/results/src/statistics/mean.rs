//! A mean and how far it may be off.
//!
//! ```text
//! mean = sum x / n        standard error = sqrt( sum (x - mean)^2 / (n - 1) / n )
//! ```

use serde::{Deserialize, Serialize};

/// The mean of independent values with its standard error.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mean {
    /// The mean; 0 for no values.
    pub mean: f64,
    /// Its standard error; absent for fewer than two values, which say nothing about their spread.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub standard_error: Option<f64>,
    /// Values.
    pub count: usize,
}

impl Mean {
    /// Of `values`, one an independent problem.
    pub fn of(values: &[f64]) -> Mean {
        let count = values.len();
        if count == 0 {
            return Mean { mean: 0.0, standard_error: None, count };
        }
        let mean = values.iter().sum::<f64>() / count as f64;
        let squares: f64 = values.iter().map(|value| (value - mean) * (value - mean)).sum();
        let variance = squares / (count as f64 - 1.0);
        let standard_error = (count > 1).then(|| (variance / count as f64).sqrt());
        Mean { mean, standard_error, count }
    }

    /// The mean of the means of `strata`, each counting the same whatever its size, drawn independently:
    ///
    /// ```text
    /// mean = sum m_i / S        standard error = sqrt( sum s_i^2 ) / S
    /// ```
    ///
    /// Values of one stratum do not make up for those of another, so only the spread within strata counts. `count` is
    /// that of all values; the error is absent where a stratum has none.
    pub fn of_strata(strata: &[Mean]) -> Mean {
        let count = strata.iter().map(|stratum| stratum.count).sum();
        if strata.is_empty() {
            return Mean { mean: 0.0, standard_error: None, count };
        }
        let size = strata.len() as f64;
        let mean = strata.iter().map(|stratum| stratum.mean).sum::<f64>() / size;
        let squares: Option<f64> =
            strata.iter().map(|stratum| stratum.standard_error.map(|error| error * error)).sum();
        Mean { mean, standard_error: squares.map(|squares| squares.sqrt() / size), count }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closed_form() {
        // Deviations -3, -1, 1, 3: squares 20, variance 20/3, error sqrt(5/3).
        let mean = Mean::of(&[1.0, 3.0, 5.0, 7.0]);
        assert_eq!((mean.mean, mean.count), (4.0, 4));
        assert!((mean.standard_error.expect("four values") - (5.0f64 / 3.0).sqrt()).abs() < 1e-15);
        // A share p of n: sqrt(p (1 - p) / (n - 1)).
        let share = Mean::of(&[1.0, 1.0, 0.0, 1.0, 0.0]);
        assert!((share.standard_error.expect("five values") - (0.24f64 / 4.0).sqrt()).abs() < 1e-15);
    }

    #[test]
    fn strata_count_the_same_whatever_their_size() {
        let strata = [Mean::of(&[1.0, 3.0, 5.0, 7.0]), Mean::of(&[0.0, 1.0])];
        let found = Mean::of_strata(&strata);
        // Squared errors 5/3 and 1/4.
        assert_eq!((found.mean, found.count), (2.25, 6));
        assert!(
            (found.standard_error.expect("two strata") - (5.0f64 / 3.0 + 0.25).sqrt() / 2.0).abs() < 1e-15
        );
        assert_eq!(Mean::of_strata(&[strata[0], Mean::of(&[1.0])]).standard_error, None);
        assert_eq!(Mean::of_strata(&[]).mean, 0.0);
    }

    #[test]
    fn few_values_have_no_error() {
        assert_eq!(Mean::of(&[]), Mean { mean: 0.0, standard_error: None, count: 0 });
        assert_eq!(Mean::of(&[2.0]), Mean { mean: 2.0, standard_error: None, count: 1 });
        assert_eq!(Mean::of(&[2.0, 2.0]).standard_error, Some(0.0));
        assert!(Mean::of(&[f64::NAN, 1.0]).mean.is_nan());
    }
}
