//! Verdicts for figures, as lm-evaluation-harness gives them.
//!
//! micro10 has one rule: what follows the last `=>` of the first line, judged by its problem. The tasks with a number
//! for an answer have the two of lm-evaluation-harness's `gsm8k`, to the letter, so that figures of one name mean one
//! thing: `strict-match` is the number behind the first `####`, `flexible-extract` the last run of digits, points,
//! commas and dollars; commas, dollars and a closing point do not count when the texts are compared.
//!
//! Mathematics and MMLU-Pro: [`minerva`], [`hendrycks`], [`boxed`], [`mmlu_pro`].

pub mod boxed;
pub mod hendrycks;
pub mod minerva;
pub mod mmlu_pro;

use std::sync::LazyLock;

use regex::Regex;
use remit_micro10::{Problem, final_answer};

use crate::find::pattern;

/// What stands for an answer that was not found, as in lm-evaluation-harness.
const INVALID: &str = "[invalid]";

static STRICT: LazyLock<Regex> = LazyLock::new(|| pattern::ours(r"#### (\-?[0-9\.\,]+)"));
static FLEXIBLE: LazyLock<Regex> = LazyLock::new(|| pattern::ours(r"-?[$0-9.,]{2,}|-?[0-9]+"));

/// How an answer is found in a completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// What follows the last `=>` of the first line.
    FinalAnswer,
    /// The number behind the first `####`.
    StrictMatch,
    /// The last thing that looks like a number.
    FlexibleExtract,
}

/// Whether an answer is right.
#[derive(Clone, Debug)]
pub enum Judge {
    /// As a generated problem says.
    Problem(Box<Problem>),
    /// The same number, as text.
    Number(String),
}

impl Filter {
    /// The name in results: what follows the comma of `exact_match,strict-match`.
    pub fn name(self) -> &'static str {
        match self {
            Filter::FinalAnswer => "none",
            Filter::StrictMatch => "strict-match",
            Filter::FlexibleExtract => "flexible-extract",
        }
    }

    /// The answer in a completion; `[invalid]` where there is none.
    pub fn answer(self, completion: &str) -> String {
        let found = match self {
            Filter::FinalAnswer => final_answer(completion),
            Filter::StrictMatch => pattern::first(&STRICT, completion),
            Filter::FlexibleExtract => pattern::last(&FLEXIBLE, completion),
        };
        found.unwrap_or(INVALID).trim().to_owned()
    }
}

impl Judge {
    /// Whether an answer, as [`Filter::answer`] gives it, is right.
    pub fn accepts(&self, answer: &str) -> bool {
        match self {
            Judge::Problem(problem) => answer != INVALID && problem.accepts(answer),
            Judge::Number(number) => comparable(answer) == comparable(number),
        }
    }
}

/// A number's text without what does not count.
fn comparable(number: &str) -> String {
    let text = number.replace([',', '$'], "").to_lowercase();
    text.strip_suffix('.').unwrap_or(&text).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strict_match_takes_the_number_behind_the_first_mark() {
        let answer = |text: &str| Filter::StrictMatch.answer(text);
        assert_eq!(answer("9*2=18\n#### 18\n#### 7"), "18");
        assert_eq!(answer("#### -1,234.50."), "-1,234.50.");
        assert_eq!(answer("#### $18"), "[invalid]", "the pattern has no dollar");
        assert_eq!(answer("####18"), "[invalid]", "the pattern has a blank");
        assert_eq!(answer("18"), "[invalid]");
    }

    #[test]
    fn flexible_extract_takes_the_last_number() {
        let answer = |text: &str| Filter::FlexibleExtract.answer(text);
        assert_eq!(answer("so 3 and $1,200.50 left."), "$1,200.50");
        assert_eq!(answer("it is 7"), "7");
        assert_eq!(answer("it is -7."), "-7.");
        assert_eq!(answer("5-3"), "-3");
        assert_eq!(answer("7 ... or so"), "...", "as the pattern has it");
        assert_eq!(answer("none"), "[invalid]");
    }

    #[test]
    fn numbers_are_compared_without_signs_of_style() {
        let judge = Judge::Number("70000".to_owned());
        for right in ["70000", "70,000", "$70,000.", "70000."] {
            assert!(judge.accepts(right), "{right}");
        }
        for wrong in ["70000.00", "7000", "-70000", "70000..", "[invalid]", ""] {
            assert!(!judge.accepts(wrong), "{wrong}");
        }
    }
}
