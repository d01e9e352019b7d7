//! What a regular expression finds, in time linear in the text whatever the pattern.

use regex::{Captures, Regex};

/// The first match of a pattern: the group named `answer`, else the first group, else the whole match.
pub fn first<'a>(pattern: &Regex, text: &'a str) -> Option<&'a str> {
    found(pattern.captures(text)?)
}

/// The last match of a pattern, as [`first`] has it.
pub fn last<'a>(pattern: &Regex, text: &'a str) -> Option<&'a str> {
    found(pattern.captures_iter(text).last()?)
}

/// Nothing where the match went past the group.
fn found(captures: Captures<'_>) -> Option<&str> {
    let group = captures.name("answer").or_else(|| captures.get(usize::from(captures.len() > 1)));
    group.map(|group| group.as_str())
}

/// A pattern of this crate.
pub fn ours(pattern: &str) -> Regex {
    Regex::new(pattern).expect("the pattern is ours")
}
