//! The text but for what writers differ in: case, runs of spaces, quotes and emphasis around it, closing punctuation.
//!
//! Nothing inside the answer is removed, and no sign or point before it: `-5` is not `5`, `1.5` is not `15`.

use super::{Verifier, refusal_of_text};
use crate::Verdict;
use crate::find::Marker;

/// Accepts the text behind its marker however it is written.
#[derive(Clone, Debug)]
pub struct Normalised(pub Marker);

impl Verifier for Normalised {
    fn judge(&self, completion: &str, answer: &str) -> Verdict {
        let Some(found) = self.0.answer(completion) else { return Verdict::no_answer(self.0.missing()) };
        let (found, answer) = (normalise(found), normalise(answer));
        match found.is_empty() {
            true => Verdict::no_answer("there is no text"),
            false => Verdict::of(found == answer, found, answer),
        }
    }

    fn refusal(&self, answer: &str) -> Option<String> {
        // Runs of spaces do not count, so an answer may have several lines where a completion may.
        let answer = if self.0.text().is_empty() { normalise(answer) } else { answer.trim().to_owned() };
        refusal_of_text(&self.0, if normalise(&answer).is_empty() { "" } else { &answer })
    }
}

fn normalise(text: &str) -> String {
    let is_wrapping = |c: char| "\"'`*_“”‘’«»".contains(c);
    let is_closing = |c: char| is_wrapping(c) || ".,;:!?".contains(c) || c.is_whitespace();
    let words: Vec<String> = text
        .trim_start_matches(|c: char| is_wrapping(c) || c.is_whitespace())
        .trim_end_matches(is_closing)
        .split_whitespace()
        .map(str::to_lowercase)
        .collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(completion: &str, answer: &str, expected: f64) {
        let verifier = Normalised(Marker::new(None).expect("a good marker"));
        assert_eq!(verifier.reward(completion, answer), expected, "{completion} for {answer}");
    }

    #[test]
    fn case_spaces_quotes_and_closing_punctuation_do_not_count() {
        for right in ["New York", "new  york", "NEW\tYORK.", "\"New York\"", "**New York**!", "“New York.”"]
        {
            check(right, "New York", 1.0);
        }
        check("ÄPFEL", "äpfel", 1.0);
    }

    #[test]
    fn everything_else_does() {
        for (completion, answer) in [
            ("-5", "5"),
            ("5", "-5"),
            (".5", "5"),
            ("1.5", "15"),
            ("1 5", "15"),
            ("New York City", "New York"),
            ("NewYork", "New York"),
            ("not yes", "yes"),
            ("yes no", "yes"),
            ("", ""),
            ("...", "."),
        ] {
            check(completion, answer, 0.0);
        }
    }
}
