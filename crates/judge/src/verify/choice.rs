//! A letter among choices: `(B)`, `B.`, `The answer is B`.
//!
//! Looked for in this order, the first that is found decides:
//! 1. the last `answer is X` or `answer: X`, in any case and with brackets or emphasis around the letter;
//! 2. a completion that is, or begins with, a letter and a bracket, point, colon or line feed: `B`, `(B) because`;
//! 3. bracketed letters, if all are the same and none is negated: `I choose (B)`.
//!
//! An answer that names further letters (`A or B`) is none, and letters beyond the last choice are no letters.

use std::sync::LazyLock;

use regex::Regex;
use serde::{Deserialize, Serialize};

use super::Verifier;
use crate::find::pattern::ours;
use crate::{Error, Verdict};

/// Settings of the comparison.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// How many choices there are, from 2 to 26: 4 are A to D.
    pub choices: u8,
}

impl Default for Settings {
    /// A to D.
    fn default() -> Self {
        Settings { choices: 4 }
    }
}

/// Accepts the letter of the right choice.
#[derive(Clone, Debug)]
pub struct Choice {
    last: char,
}

impl Choice {
    /// The verifier.
    ///
    /// # Errors
    /// A number of choices outside its range.
    pub fn new(settings: &Settings) -> Result<Choice, Error> {
        let choices = settings.choices;
        if !(2..=26).contains(&choices) {
            return Err(Error::Choices { choices });
        }
        Ok(Choice { last: char::from(b'A' + choices - 1) })
    }

    /// The letter that a completion settles on.
    fn letter(&self, completion: &str) -> Option<char> {
        static ANSWER: LazyLock<Regex> =
            LazyLock::new(|| ours(r"(?i)\banswer(?:\s+is)?\s*:?\s*[(\[*_]*([A-Z])\b"));
        static START: LazyLock<Regex> = LazyLock::new(|| ours(r"^[(\[*_]*([A-Z])(?:[)\].:*_]|\n|$)"));
        static BRACKETED: LazyLock<Regex> = LazyLock::new(|| ours(r"\(([A-Z])\)"));

        let completion = completion.trim();
        if let Some(announced) = ANSWER.captures_iter(completion).last() {
            let letter = announced.get(1)?;
            let rest = rest_of_line(completion, letter.end());
            return self.settled(letter.as_str(), rest).filter(|_| is_letter(letter.as_str(), rest));
        }
        if let Some(start) = START.captures(completion) {
            let letter = start.get(1)?;
            return self.settled(letter.as_str(), rest_of_line(completion, letter.end()));
        }
        if completion.to_lowercase().contains("not (") {
            return None;
        }
        let mut letters =
            BRACKETED.captures_iter(completion).map(|found| self.settled(found.get(1)?.as_str(), ""));
        let first = letters.next()??;
        letters.all(|other| other == Some(first)).then_some(first)
    }

    /// The letter, unless it is no choice or the rest of its line names another.
    fn settled(&self, letter: &str, rest: &str) -> Option<char> {
        static OTHER: LazyLock<Regex> = LazyLock::new(|| {
            ours(r"\b(?i:or|and|nor|but)\s+[(\[*_]*[A-Z]\b|^[)\].*_]*\s*[/&,]\s*[(\[*_]*[A-Z]\b")
        });
        static IN_BRACKETS: LazyLock<Regex> = LazyLock::new(|| ours(r"\(([A-Za-z])\)"));
        let names_another =
            IN_BRACKETS.captures_iter(rest).any(|found| !found[1].eq_ignore_ascii_case(letter));
        let letter = letter.chars().next()?.to_ascii_uppercase();
        (letter <= self.last && !names_another && !OTHER.is_match(rest)).then_some(letter)
    }
}

/// Whether an announced letter is one, and not the word `a` or `I`.
fn is_letter(letter: &str, rest: &str) -> bool {
    let is_closed = rest.is_empty() || rest.starts_with([')', ']', '*', '_', '.', ',', ';', ':', '!']);
    let reason = rest.trim_start();
    let gives_reason = ["because", "since", "as ", "for "].iter().any(|word| reason.starts_with(word));
    let may_be_word = letter.starts_with(char::is_lowercase) || ["A", "I"].contains(&letter);
    is_closed || !may_be_word || gives_reason && letter.starts_with(char::is_uppercase)
}

fn rest_of_line(text: &str, from: usize) -> &str {
    text[from..].lines().next().unwrap_or_default()
}

impl Verifier for Choice {
    fn judge(&self, completion: &str, answer: &str) -> Verdict {
        match (self.letter(completion), self.letter(answer)) {
            (None, _) => Verdict::no_answer(format!("it settles on no letter from A to {}", self.last)),
            (Some(_), None) => {
                Verdict::undecided(format!("the ground truth names no letter from A to {}", self.last))
            }
            (Some(found), Some(expected)) => Verdict::of(found == expected, found, expected),
        }
    }

    fn refusal(&self, answer: &str) -> Option<String> {
        self.letter(answer).is_none().then(|| format!("it names no letter from A to {}", self.last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(completion: &str) -> Option<char> {
        Choice::new(&Settings::default()).expect("good settings").letter(completion)
    }

    #[test]
    fn letters_are_found_however_they_are_given() {
        for right in [
            "B",
            " B\n",
            "(B)",
            "B.",
            "B)",
            "[B]",
            "**B**",
            "B: Paris",
            "(B) Paris, since A is in Spain",
            "The answer is B",
            "The answer is B.",
            "the answer is (b).",
            "Answer: B",
            "answer: **B**",
            "The answer is (B) Paris.",
            "First A seems right. The answer is A. No: the answer is B.",
            "Because of this,\nthe answer is B\nand that is all",
            "I choose (B).",
            "(B) is right, so I choose (B)",
            "B\nbecause A is wrong",
        ] {
            assert_eq!(letter(right), Some('B'), "{right}");
        }
    }

    #[test]
    fn what_names_no_letter_or_several_is_none() {
        for wrong in [
            "",
            "A good question",
            "I think so",
            "The answer is a banana",
            "The answer is not B",
            "It is not (B)",
            "The answer is A or B",
            "The answer is A and B",
            "The answer is A, B",
            "The answer is A/B",
            "The answer is (A) or (B)",
            "(A) or (B)",
            "(A) and later (B)",
            "The answer is E",
            "E",
            "the answer is 5",
            "Because",
            "B or C",
            "BA",
        ] {
            assert_eq!(letter(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_letter_decides() {
        let verifier = Choice::new(&Settings { choices: 10 }).expect("good settings");
        assert_eq!(verifier.reward("the answer is (J)", "J"), 1.0);
        assert_eq!(verifier.reward("the answer is (J)", "(J)"), 1.0);
        assert_eq!(verifier.reward("the answer is (I)", "J"), 0.0);
        assert_eq!(verifier.reward("the answer is (K)", "K"), 0.0);
        assert_eq!(verifier.reward("", ""), 0.0);
    }
}
