//! MMLU-Pro: the letter that a completion settles on.
//!
//! lm-evaluation-harness's task has the first of three patterns. The benchmark's own program tries the three in turn, and
//! where none finds a letter it draws a random option.

use std::sync::LazyLock;

use regex::Regex;

use crate::find::pattern::{first, last, ours};

static ANSWER_IS: LazyLock<Regex> = LazyLock::new(|| ours(r"answer is \(?([A-J])\)?"));
/// White space as Python has it: four separators more than Unicode's.
static ANSWER_COLON: LazyLock<Regex> = LazyLock::new(|| ours(r".*[aA]nswer:[\s\x1c-\x1f]*([A-J])"));
/// `\b[A-J]\b(?!.*\b[A-J]\b)` over all lines: the last letter that stands alone.
static LETTER: LazyLock<Regex> = LazyLock::new(|| ours(r"\b[A-J]\b"));

/// As lm-evaluation-harness's filter `custom-extract`: the first `answer is (X)`.
pub fn custom_extract(completion: &str) -> Option<&str> {
    first(&ANSWER_IS, completion)
}

/// As the benchmark's own program: `answer is (X)`, else `Answer: X`, else the last letter from A to J that stands alone.
pub fn extract(completion: &str) -> Option<&str> {
    custom_extract(completion)
        .or_else(|| first(&ANSWER_COLON, completion))
        .or_else(|| last(&LETTER, completion))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_patterns_in_turn() {
        for (text, expected) in [
            ("The answer is (H). The answer is B", Some("H")),
            ("the answer is not A. Answer: B\nanswer: C", Some("B")),
            ("Answer: A, or Answer: B", Some("B")),
            ("answer:\n\n\x1cD", Some("D")),
            ("First A, then\n(C) and K", Some("C")),
            ("AB_C D1 élE", None),
            ("answer is (K)", None),
            ("", None),
        ] {
            assert_eq!(extract(text), expected, "{text}");
        }
        assert_eq!(custom_extract("Answer: B"), None);
    }
}
