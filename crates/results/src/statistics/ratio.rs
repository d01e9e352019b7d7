//! The mean of one thing a unit of another, such as nats a token, over problems that hold different numbers of units.
//!
//! ```text
//! ratio = sum s / sum t        standard error = sqrt( sum (s - ratio t)^2 / (n - 1) / n ) / mean t
//! ```
//!
//! The problem stays the unit that is drawn (its tokens resemble each other), and the error is that of the ratio, to
//! first order (Cochran, Sampling Techniques, chapter 6).

use super::Mean;

/// The ratio of `parts`, `(s, t)` a problem, with `count` the number of problems. The mean is 0 where all `t` are.
pub fn ratio(parts: &[(f64, f64)]) -> Mean {
    let count = parts.len();
    let (sum, units) = parts.iter().fold((0.0, 0.0), |(sum, units), (s, t)| (sum + s, units + t));
    if units == 0.0 {
        return Mean { mean: 0.0, standard_error: None, count };
    }
    let (mean, n) = (sum / units, count as f64);
    let squares: f64 = parts.iter().map(|(s, t)| (s - mean * t) * (s - mean * t)).sum();
    let standard_error = (count > 1).then(|| (squares / (n - 1.0) / n).sqrt() / (units / n));
    Mean { mean, standard_error, count }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closed_form() {
        // 12 nats over 6 tokens: ratio 2; residuals 1 - 2, 5 - 4 and 6 - 6: squares 2; sqrt(2 / 2 / 3) / 2.
        let found = ratio(&[(1.0, 1.0), (5.0, 2.0), (6.0, 3.0)]);
        assert_eq!((found.mean, found.count), (2.0, 3));
        assert!((found.standard_error.expect("three") - (1.0f64 / 3.0).sqrt() / 2.0).abs() < 1e-15);
    }

    #[test]
    fn of_equal_sizes_it_is_the_mean() {
        let values = [1.0, 3.0, 5.0, 7.0];
        let (found, mean) = (ratio(&values.map(|value| (4.0 * value, 4.0))), Mean::of(&values));
        assert_eq!(found.mean, mean.mean);
        assert!((found.standard_error.expect("four") - mean.standard_error.expect("four")).abs() < 1e-15);
    }

    #[test]
    fn few_parts_have_no_error() {
        assert_eq!(ratio(&[]), Mean { mean: 0.0, standard_error: None, count: 0 });
        assert_eq!(ratio(&[(3.0, 2.0)]), Mean { mean: 1.5, standard_error: None, count: 1 });
    }
}
