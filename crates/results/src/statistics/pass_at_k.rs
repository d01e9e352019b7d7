//! pass@k: the chance that at least one of `k` samples solves the problem.
//!
//! The unbiased estimator of Codex (arXiv 2107.03374) from `n` samples of which `c` are right:
//!
//! ```text
//! pass@k = 1 - C(n - c, k) / C(n, k) = 1 - product over i = n-c+1 ..= n of (1 - k / i)
//! ```
//!
//! The product never forms a large binomial. (Plugging `c / n` into `1 - (1 - p)^k` instead is biased low.)

/// The estimate from `samples` samples of one problem, `correct` of them right.
///
/// # Panics
/// When more are right than there are, or `k` is 0 or above `samples`.
pub fn pass_at_k(samples: u64, correct: u64, k: u64) -> f64 {
    assert!(correct <= samples, "{correct} of {samples} right");
    assert!(k > 0 && k <= samples, "{k} of {samples} samples");
    if samples - correct < k {
        return 1.0; // Whichever are taken, a right one is among them.
    }
    let all_wrong: f64 = (samples - correct + 1..=samples).map(|i| 1.0 - k as f64 / i as f64).product();
    1.0 - all_wrong
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Case {
        n: u64,
        c: u64,
        k: u64,
        value: f64,
    }

    #[test]
    fn golden_values() {
        let cases: Vec<Case> = serde_json::from_str(include_str!("../../golden/pass_at_k.json"))
            .expect("the golden file parses");
        assert_eq!(cases.len(), 6);
        for Case { n, c, k, value } in cases {
            assert!((pass_at_k(n, c, k) - value).abs() < 1e-14, "{n} {c} {k}: {}", pass_at_k(n, c, k));
        }
    }

    /// Counts the draws of `k` among `n` that hold one of the first `c`, one by one.
    #[test]
    fn it_is_the_share_of_draws_with_a_right_one() {
        for n in 1..=9u64 {
            for c in 0..=n {
                for k in 1..=n {
                    let draws: Vec<u64> =
                        (0..1 << n).filter(|draw: &u64| u64::from(draw.count_ones()) == k).collect();
                    let solved = draws.iter().filter(|&&draw| draw & ((1 << c) - 1) != 0).count();
                    let share = solved as f64 / draws.len() as f64;
                    assert!((pass_at_k(n, c, k) - share).abs() < 1e-12, "{n} {c} {k}");
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "5 of 4 samples")]
    fn more_cannot_be_taken_than_there_are() {
        pass_at_k(4, 1, 5);
    }
}
