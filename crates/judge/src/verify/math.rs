//! Mathematical answers, compared exactly as [`crate::math`] does: `\frac{1}{2}` for `0.5`, `(1, 2]` for `\left(1,2\right]`.
//!
//! - `boxed`: the answer is what is in the last `\boxed{...}`, which must be there;
//! - `math`: that, or else what the phrase `Final Answer: The final answer is $...$` says, or else the last `$...$`. A
//!   completion whose box and phrase differ has no answer.
//!
//! The ground truth is an answer, or a solution whose answer is found in the same way. What cannot be decided earns nothing
//! and is reported as undecided.

use serde::{Deserialize, Serialize};

use super::Verifier;
use crate::find::maths::{boxed, final_answer, last_piece};
use crate::math::{Equality, compare, is_empty};
use crate::{Outcome, Verdict};

/// Settings of the comparison.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Whether only what is in a box is an answer.
    pub boxed: bool,
}

/// Accepts the same value.
#[derive(Clone, Debug)]
pub struct Math {
    boxed: bool,
}

impl Math {
    /// The verifier.
    pub fn new(settings: &Settings) -> Math {
        Math { boxed: settings.boxed }
    }

    /// The answer of a completion.
    fn found<'a>(&self, completion: &'a str) -> Result<&'a str, String> {
        let in_box = boxed(completion);
        if self.boxed || completion.contains("\\boxed") || completion.contains("\\fbox") {
            let answer = in_box?;
            return match final_answer(completion).filter(|_| !self.boxed) {
                Some(other) if compare(answer, other) != Equality::Equal => {
                    Err(format!("the box has `{answer}`, and the final answer is `{other}`"))
                }
                _ => Ok(answer),
            };
        }
        let answer = final_answer(completion).or_else(|| last_piece(completion));
        answer.ok_or_else(|| "there is no box, no final answer and nothing between dollars".to_owned())
    }
}

/// The answer of a ground truth: of a solution, or all of it.
fn expected(answer: &str) -> &str {
    boxed(answer).ok().or_else(|| final_answer(answer)).unwrap_or(answer).trim()
}

impl Verifier for Math {
    fn judge(&self, completion: &str, answer: &str) -> Verdict {
        let expected = expected(answer);
        let found = match self.found(completion) {
            Ok(found) if is_empty(found) => return Verdict::no_answer("the answer is empty"),
            Ok(found) => found,
            Err(problem) => return Verdict::no_answer(problem),
        };
        match compare(found, expected) {
            Equality::Equal => Verdict::of(true, found, expected),
            Equality::Different => Verdict::of(false, found, expected),
            Equality::Undecided(problem) => {
                Verdict::new(Outcome::Undecided, format!("`{found}` or `{expected}`? {problem}"))
            }
        }
    }

    fn refusal(&self, answer: &str) -> Option<String> {
        let expected = expected(answer);
        if compare(expected, expected) == Equality::Equal {
            return None;
        }
        Some(if is_empty(expected) { "it is empty" } else { "it is too long for an answer" }.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(is_boxed: bool, completion: &str, answer: &str) -> Outcome {
        Math::new(&Settings { boxed: is_boxed }).judge(completion, answer).outcome
    }

    #[test]
    fn answers_are_found_and_compared() {
        use Outcome::{NoAnswer, Right, Undecided, Wrong};
        for (completion, answer, math, boxed) in [
            (r"So $x = \boxed{\frac{1}{2}}$.", "0.5", Right, Right),
            (r"So $x = \boxed{\frac{1}{2}}$.", "2", Wrong, Wrong),
            (r"\boxed{1{,}000}", "1000", Right, Right),
            (r"\boxed{\frac12}", r"It follows that $\boxed{\dfrac{1}{2}}$.", Right, Right),
            ("Final Answer: The final answer is $[2,5)$. I hope it is correct.", "[2, 5)", Right, NoAnswer),
            (r"so $x = \sqrt{8}$.", r"2\sqrt{2}", Right, NoAnswer),
            ("so it is 5", "5", NoAnswer, NoAnswer),
            (r"\boxed{5} or \boxed{6}", "6", Right, Right),
            (r"\boxed{5} or \boxed{6}", "5", Wrong, Wrong),
            (r"\boxed{5} and \boxed{6", "5", NoAnswer, NoAnswer),
            (r"\boxed{5}. Final Answer: The final answer is $6$.", "5", NoAnswer, Right),
            (r"\boxed{5}. Final Answer: The final answer is $5.0$.", "5", Right, Right),
            (r"\boxed{\sin 5}", "5", Undecided, Undecided),
            (r"\boxed{5 \text{ or } 6}", "5", Undecided, Undecided),
            (r"\boxed{}", "5", NoAnswer, NoAnswer),
            (r"\boxed{5}", "", Undecided, Undecided),
        ] {
            assert_eq!(outcome(false, completion, answer), math, "{completion} for {answer}");
            assert_eq!(outcome(true, completion, answer), boxed, "{completion} for {answer}, boxed");
        }
    }

    #[test]
    fn ground_truths_without_an_answer_are_refused() {
        let math = Math::new(&Settings::default());
        assert_eq!(math.refusal(r"x^2+1"), None);
        assert_eq!(math.refusal(r"\sin x"), None, "the same text is accepted");
        assert_eq!(math.refusal(" ").as_deref(), Some("it is empty"));
        assert_eq!(math.refusal(r"\boxed{}").as_deref(), Some("it is empty"));
        assert_eq!(math.refusal(&"x".repeat(501)).as_deref(), Some("it is too long for an answer"));
    }
}
