//! Whether two mathematical answers are the same, exactly or not at all.
//!
//! [`compare`] says equal, different or undecided. Equal is what can be proved: the same text but for what LaTeX adds for
//! the eye, or the same value. Values are rational functions of letters, with square roots of rationals, computed in whole
//! numbers; tuples, intervals, sets, lists and matrices of them; and units. Whatever cannot be read, or is read in two
//! ways, is undecided: functions, `3\frac12` (three and a half, or three halves?), `2, 1` for `1, 2`, `50` for `50\%`.
//!
//! In reading order: `token` cuts the text, `parse` builds the value, `polynomial` calculates, `equal` compares.

mod equal;
mod parse;
mod polynomial;
mod rational;
mod token;

/// Characters of an answer at most. What is longer is no answer but a text.
const LONGEST: usize = 500;

/// What a comparison comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Equality {
    /// The same.
    Equal,
    /// Two values that differ.
    Different,
    /// Neither can be shown, for this reason.
    Undecided(String),
}

/// Why something has no value that can be compared.
type Problem = String;

/// Compares two answers, in LaTeX or plain text.
pub fn compare(found: &str, expected: &str) -> Equality {
    for text in [found, expected] {
        if text.chars().count() > LONGEST {
            return Equality::Undecided(format!("more than {LONGEST} characters are no answer"));
        }
    }
    let (left, right) = (token::tokens(found), token::tokens(expected));
    if left.is_empty() || right.is_empty() {
        return Equality::Undecided("an answer is empty".to_owned());
    }
    if left == right {
        return Equality::Equal;
    }
    let read = |tokens: &[token::Token], text: &str| {
        parse::answer(tokens).map_err(|problem| format!("`{}` cannot be read: {problem}", text.trim()))
    };
    match (read(&left, found), read(&right, expected)) {
        (Ok(left), Ok(right)) => equal::compare(&left, &right),
        (Err(problem), _) | (_, Err(problem)) => Equality::Undecided(problem),
    }
}

/// Whether there is anything in an answer that could be compared.
pub fn is_empty(answer: &str) -> bool {
    token::tokens(answer).is_empty()
}

#[cfg(test)]
mod tests;
