//! What a regular expression finds: its last match in the completion must be the answer.
//!
//! The text compared is the group named `answer`, else the first group, else the whole match; spaces around it do not
//! count. MMLU-Pro's rule is `answer is \(?([A-J])\)?`. Matching takes time linear in the completion, whatever the
//! pattern.

use regex::Regex;
use serde::{Deserialize, Serialize};

use super::Verifier;
use crate::find::pattern;
use crate::{Error, Verdict};

/// Settings of the comparison.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The regular expression.
    pub pattern: String,
}

/// Accepts what a pattern finds.
#[derive(Clone, Debug)]
pub struct Pattern(Regex);

impl Pattern {
    /// The verifier.
    ///
    /// # Errors
    /// A pattern that is no regular expression.
    pub fn new(settings: &Settings) -> Result<Pattern, Error> {
        let pattern = Regex::new(&settings.pattern);
        pattern.map(Pattern).map_err(|cause| Error::Pattern { cause: Box::new(cause) })
    }
}

impl Verifier for Pattern {
    fn judge(&self, completion: &str, answer: &str) -> Verdict {
        match pattern::last(&self.0, completion).map(str::trim) {
            None => Verdict::no_answer("the pattern finds nothing"),
            Some("") => Verdict::no_answer("the pattern finds an empty text"),
            Some(found) => Verdict::of(found == answer.trim(), found, answer.trim()),
        }
    }

    /// A pattern that cannot find a text in any completion is not told.
    fn refusal(&self, answer: &str) -> Option<String> {
        answer.trim().is_empty().then(|| "it is empty".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, completion: &str, answer: &str, expected: f64) {
        let verifier = Pattern::new(&Settings { pattern: pattern.to_owned() }).expect(pattern);
        assert_eq!(verifier.reward(completion, answer), expected, "{pattern} in {completion}");
    }

    #[test]
    fn the_last_match_and_the_right_group() {
        check(r"answer is \(?([A-J])\)?", "the answer is (A). Or: the answer is C", "C", 1.0);
        check(r"answer is \(?([A-J])\)?", "the answer is (A). Or: the answer is C", "A", 0.0);
        check(r"(so|thus) (?P<answer>\d+)", "so 1, thus 2", "2", 1.0);
        check(r"(so|thus) (?P<answer>\d+)", "so 1, thus 2", "thus", 0.0);
        check(r"\d+", "1 2 3", "3", 1.0);
        check(r"\d+", "none", "3", 0.0);
        check(r"x(\d)?", "x", "", 0.0);
        check(r"=(.*)", "a= 5 ", "5", 1.0);
    }

    #[test]
    fn a_pattern_that_backtracks_elsewhere_is_fast_here() {
        check(r"(a+)+$", &("a".repeat(20_000) + "b"), "a", 0.0);
    }
}
