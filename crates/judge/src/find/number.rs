//! The last number of a text, exactly, or nothing where it is not plain which number that is.

use std::iter::Peekable;
use std::str::Chars;

use super::latex;

/// Words before a number that make it another: `not 5`, `17 or 18`, `minus 5`, `more than 5`, `4 x 5`.
const TURNING_WORDS: [&str; 21] = [
    "not", "or", "than", "least", "most", "over", "under", "above", "below", "negative", "minus", "plus",
    "times", "by", "point", "hundred", "thousand", "million", "between", "isn't", "x",
];
/// Units that come two to a quantity: `18 dollars and 50 cents`, `2 hours 30 minutes`.
const PAIRED_UNITS: [&str; 38] = [
    "dollar",
    "dollars",
    "euro",
    "euros",
    "pound",
    "pounds",
    "year",
    "years",
    "month",
    "months",
    "week",
    "weeks",
    "day",
    "days",
    "hour",
    "hours",
    "hr",
    "hrs",
    "h",
    "minute",
    "minutes",
    "min",
    "mins",
    "foot",
    "feet",
    "ft",
    "yard",
    "yards",
    "mile",
    "miles",
    "meter",
    "meters",
    "kilometers",
    "lb",
    "lbs",
    "kilograms",
    "kg",
    "gallons",
];
/// Words after a number that make it another: `5 thousand`, `2 thirds`, `5 squared`.
const SCALING_WORDS: [&str; 26] = [
    "hundred",
    "hundreds",
    "thousand",
    "thousands",
    "million",
    "millions",
    "billion",
    "billions",
    "trillion",
    "half",
    "halves",
    "third",
    "thirds",
    "quarter",
    "quarters",
    "fourths",
    "fifth",
    "fifths",
    "sixths",
    "eighths",
    "tenths",
    "hundredths",
    "squared",
    "cubed",
    "factorial",
    "point",
];
/// Letters directly after a number that make it another: `5k`, `5M`, `3x`, `3rd`, `2e`.
const SCALING_SUFFIXES: [&str; 20] = [
    "k", "K", "M", "B", "T", "bn", "mn", "mln", "x", "X", "y", "z", "n", "i", "e", "π", "st", "nd", "rd",
    "th",
];
/// What stands before a number and makes it part of something else, with or without a space between.
const OPERATORS: &str = "-+/^×÷·<>≤≥≠±√∛∜⌊⌈";

/// A number as a fraction, exactly as written: `1.50` is 150/100.
#[derive(Clone, Copy, Debug)]
pub struct Number {
    numerator: i128,
    /// Above 0.
    denominator: i128,
}

impl Number {
    /// Whether two fractions are the same number; never where that is too large to tell.
    pub fn equals(self, other: Number) -> bool {
        let left = self.numerator.checked_mul(other.denominator);
        let right = other.numerator.checked_mul(self.denominator);
        left.is_some() && left == right
    }

    /// The last number of `text`: commas between thousands, a sign, a decimal point, a fraction, a currency before it
    /// and a unit after it are understood, in LaTeX as well (`\\$1{,}000`, `\\boxed{5\\text{ km}}`). Nothing where there is
    /// none, or where it is part of something else: an expression that nobody worked out, a range, a time, a list, two
    /// units, the argument of a command or a function, a larger or smaller number in words.
    pub fn last(text: &str) -> Option<Number> {
        let chars: Vec<char> = latex::plain(text).chars().map(plain).collect();
        let end = 1 + chars.iter().rposition(|&c| c.is_numeric())?;
        let start = start_of(&chars, end);
        if is_inside(&chars[..start]) || is_cut(&chars[start..]) {
            return None;
        }
        let size = parse(&chars[start..end])?;
        let is_fraction = chars[start..end].contains(&'/');
        if !may_precede_rest(&chars[end..]) {
            return None;
        }
        let is_negative = sign(&chars[..start], is_fraction, &chars[start..end])?;
        Some(if is_negative { Number { numerator: -size.numerator, ..size } } else { size })
    }
}

/// In lowest terms.
impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (mut divisor, mut rest) = (self.denominator, self.numerator.checked_abs().unwrap_or(0));
        while rest != 0 {
            (divisor, rest) = (rest, divisor % rest);
        }
        match self.denominator / divisor {
            1 => write!(f, "{}", self.numerator / divisor),
            denominator => write!(f, "{}/{denominator}", self.numerator / divisor),
        }
    }
}

/// One way to write what is written in many.
fn plain(c: char) -> char {
    match c {
        '\u{2212}' | '\u{2010}'..='\u{2013}' | '\u{fe63}' | '\u{ff0d}' => '-',
        '\u{a0}' | '\u{2009}' | '\u{202f}' => ' ',
        '\u{2044}' => '/',
        c => c,
    }
}

/// Whether a number stands in what means something as a whole: the argument of a command or function, an exponent, the
/// last of a tuple or set.
fn is_inside(before: &[char]) -> bool {
    if latex::ends_in_matrix(&before.iter().collect::<String>()) {
        return true;
    }
    let line = before.iter().rposition(|&c| c == '\n').map_or(0, |at| at + 1);
    let line = &before[line..];
    let mut opened = Vec::new();
    for (at, c) in line.iter().enumerate() {
        match c {
            '(' | '[' | '{' => opened.push(at),
            ')' | ']' | '}' => {
                opened.pop();
            }
            _ => {}
        }
    }
    opened.into_iter().any(|at| {
        let outside: String = line[..at].iter().collect();
        let outside = outside.trim_end_matches('*');
        let is_attached = outside.ends_with(|c: char| c.is_alphanumeric() || "^_)]}√\\".contains(c));
        // `\frac {1} {2}` has spaces that mean nothing.
        let is_argument = line[at] == '{' && {
            let outside = outside.trim_end();
            outside.ends_with(['}', ']']) || latex::ends_with_command(outside)
        };
        let has_several = line[at..].contains(&',');
        is_attached || is_argument || has_several
    })
}

/// Whether a decimal goes on without end: `0.333...`.
fn is_cut(from: &[char]) -> bool {
    let run = from.iter().take_while(|c| c.is_ascii_digit() || ".,…".contains(**c)).collect::<String>();
    run.contains('.')
        && run.trim_end_matches(['.', '…']).contains('.')
        && (run.ends_with("..") || run.ends_with('…'))
}

/// Where the run of digits, and of signs that join digits, begins that ends at `end`.
fn start_of(chars: &[char], end: usize) -> usize {
    let mut start = end - 1;
    loop {
        let before = |distance: usize| start.checked_sub(distance).map(|at| chars[at]);
        match before(1) {
            Some(c) if c.is_numeric() => start -= 1,
            Some('.') if !before(2).is_some_and(|c| c.is_alphanumeric() || ".)]".contains(c)) => {
                return start - 1;
            }
            Some(c) if is_joint(c) && before(2).is_some_and(char::is_numeric) => start -= 2,
            Some('-' | '+') if before(2).is_some_and(|c| "eE".contains(c)) => start -= 2,
            _ => return start,
        }
    }
}

/// What makes one thing of the digits on both sides.
fn is_joint(c: char) -> bool {
    ".,/:^_'-+*eE×÷·’".contains(c)
}

/// The size of `1,234.50`, `.5` or `7/2`; nothing for what is written otherwise.
fn parse(run: &[char]) -> Option<Number> {
    let text: String = run.iter().collect();
    match text.split_once('/') {
        None => decimal(&text),
        Some((numerator, denominator)) => {
            let (numerator, denominator) = (whole(numerator)?, whole(denominator)?);
            (denominator > 0).then_some(Number { numerator, denominator })
        }
    }
}

fn decimal(text: &str) -> Option<Number> {
    let (before, after) = text.split_once('.').unwrap_or((text, ""));
    let is_plain = after.chars().all(|c| c.is_ascii_digit());
    if !is_plain || after.is_empty() && text.contains('.') || after.len() > 18 {
        return None;
    }
    let scale = 10i128.pow(after.len() as u32);
    let before = if before.is_empty() { 0 } else { whole(before)? };
    let after: i128 = if after.is_empty() { 0 } else { after.parse().ok()? };
    let numerator = before.checked_mul(scale)?.checked_add(after)?;
    Some(Number { numerator, denominator: scale })
}

/// Digits, with commas between all thousands or none.
fn whole(text: &str) -> Option<i128> {
    let groups: Vec<&str> = text.split(',').collect();
    let is_digits = |group: &&str| !group.is_empty() && group.chars().all(|c| c.is_ascii_digit());
    let is_grouped =
        groups.len() == 1 || groups[0].len() <= 3 && groups[1..].iter().all(|group| group.len() == 3);
    if !is_grouped || !groups.iter().all(is_digits) {
        return None;
    }
    groups.concat().parse().ok()
}

/// Whether what follows leaves the number what it is.
fn may_precede_rest(rest: &[char]) -> bool {
    let rest: String = rest.iter().collect();
    let closed = rest.trim_start_matches([')', ']', '}', '|']);
    if closed.len() < rest.len() && closed.starts_with(|c: char| c.is_alphabetic() || "^_(√".contains(c)) {
        return false;
    }
    if latex::changes(rest.trim_start_matches([')', ']', '}', ' '])) {
        return false;
    }
    let mut chars = rest.chars().peekable();
    let suffix = word(&mut chars);
    if SCALING_SUFFIXES.contains(&suffix.as_str()) || is_scaling(&suffix) {
        return false;
    }
    let next = chars.next();
    let tail: String = chars.collect();
    let starts_with_letter =
        |text: &str| text.trim_start().starts_with(|c: char| c.is_alphabetic() || c == '(');
    match next {
        Some('^' | '(' | '_' | '+' | '×' | '÷' | '·' | '√' | '±') => return false,
        // A unit, as in `5/hour`, but not a quotient, as in `5/x`.
        Some('/' | '-') => {
            return starts_with_letter(&tail) && word(&mut tail.chars().peekable()).chars().count() > 1;
        }
        _ => {}
    }
    if !suffix.is_empty() || next != Some(' ') {
        return true;
    }
    let tail = tail.trim_start();
    // `3 + x`, `3 * x`, but not the dash of `3 - that is all`.
    if tail.starts_with(['+', '*', '/', '×', '÷', '·', '^', '√', '±']) {
        return false;
    }
    if let Some(subtrahend) = tail.strip_prefix('-') {
        let subtrahend = word(&mut subtrahend.trim_start().chars().peekable());
        return subtrahend.chars().count() != 1;
    }
    let mut words = tail.split(|c: char| !c.is_alphanumeric()).map(str::to_lowercase);
    let first = words.next().unwrap_or_default();
    let is_extended = first == "and"
        && words.next().is_some_and(|second| {
            ["a", "an", "half", "one", "two", "three", "four", "five"].contains(&second.as_str())
        });
    !is_scaling(&first) && !is_extended && !["k", "x"].contains(&first.as_str())
}

/// Whether a word beside a number makes it another.
pub(crate) fn is_turning_or_scaling(word: &str) -> bool {
    is_scaling(word) || TURNING_WORDS.contains(&word)
}

fn is_scaling(word: &str) -> bool {
    SCALING_WORDS.contains(&word.to_lowercase().as_str())
}

fn word(chars: &mut Peekable<Chars<'_>>) -> String {
    let mut word = String::new();
    while let Some(c) = chars.next_if(|c| c.is_alphabetic()) {
        word.push(c);
    }
    word
}

/// Whether what stands before a number makes it negative; nothing where it makes it something else.
fn sign(before: &[char], is_fraction: bool, run: &[char]) -> Option<bool> {
    let mut before = before;
    let mut is_signed = None;
    // `-$5`, `$-5` and `\$5`, in any order, each once.
    loop {
        match before.split_last() {
            Some((c @ ('-' | '+'), rest)) if is_signed.is_none() => {
                (before, is_signed) = (rest, Some(*c == '-'))
            }
            Some(('$' | '€' | '£' | '¥' | '₹' | '\\', rest)) => before = rest,
            _ => break,
        }
    }
    let is_attached = before.last().is_some_and(|c| !c.is_whitespace());
    // Emphasis belongs to the text: `**5**`. The two stars of a power have a number before them.
    while let Some(('*', rest)) = before.split_last() {
        before = rest;
    }
    let is_starred = is_attached && before.last().is_none_or(|c| c.is_whitespace());
    // GSM8K's calculator: `3*6=<<3*6=18>>18`.
    if before.ends_with(&['>', '>']) {
        return Some(is_signed == Some(true));
    }
    if is_attached && !is_starred {
        let last = *before.last()?;
        let is_part = last.is_alphanumeric() || OPERATORS.contains(last) || ")]}_%.|~".contains(last);
        return (!is_part && !is_inequality(before)).then_some(is_signed == Some(true));
    }
    apart(before, is_signed.is_some(), is_fraction, run).then_some(is_signed == Some(true))
}

/// Whether a number is one of its own, given what stands before the space before it.
fn apart(before: &[char], is_signed: bool, is_fraction: bool, run: &[char]) -> bool {
    let num_spaces = before.iter().rev().take_while(|c| c.is_whitespace()).count();
    let is_new_line = before[before.len() - num_spaces..].contains(&'\n');
    let text = &before[..before.len() - num_spaces];
    let Some(&last) = text.last() else { return true };
    if is_new_line {
        return true;
    }
    // `6 -3`, `1 234`, `3 1/2`.
    let follows_number = last.is_numeric() || ")]".contains(last);
    let is_group = run.len() == 3 && run.iter().all(char::is_ascii_digit);
    if follows_number && (is_signed || is_group || is_fraction) {
        return false;
    }
    if OPERATORS.contains(last) || last == '}' || is_inequality(text) {
        return false;
    }
    let before: String = text.iter().collect();
    if latex::turns(&before) || is_second_unit(&before) {
        return false;
    }
    if last == '*' {
        return !multiplies(text);
    }
    let word: String = {
        let reversed = text.iter().rev().take_while(|c| c.is_alphabetic() || **c == '\'').collect::<Vec<_>>();
        reversed.into_iter().rev().collect()
    };
    !TURNING_WORDS.contains(&word.to_lowercase().as_str())
}

/// Whether what stands before a number is the first part of a quantity: `18 dollars and`, `2 hours`, `5 ft,`.
fn is_second_unit(before: &str) -> bool {
    let without = |text: &str, end: &str| text.strip_suffix(end).map(|text| text.trim_end().to_owned());
    let mut text = before.trim_end().to_lowercase();
    for end in ["and", "&", ","] {
        text = without(&text, end).unwrap_or(text);
    }
    let unit_at = text
        .rfind(|c: char| !c.is_alphabetic())
        .map_or(0, |at| at + text[at..].chars().next().map_or(1, char::len_utf8));
    let (count, unit) = text.split_at(unit_at);
    PAIRED_UNITS.contains(&unit) && count.trim_end().ends_with(char::is_numeric)
}

/// Whether the stars at the end of a text multiply: `2 *`, `(x+1)*`, `hours *`, but not `* ` of a list and not the
/// emphasis of `**Answer:**` or `**Answer**`.
fn multiplies(text: &[char]) -> bool {
    let Some(end) = text.iter().rposition(|&c| c != '*') else { return false };
    let operand = &text[..=end];
    let is_apart = operand.last() == Some(&' ');
    let Some(last) = operand.iter().rev().find(|c| **c != ' ') else { return false };
    let letters = operand.iter().rev().take_while(|c| c.is_alphabetic()).count();
    last.is_numeric() || ")]".contains(*last) || last.is_alphabetic() && (is_apart || letters == 1)
}

/// Whether the text ends in `!=`, `<=` or `>=`.
fn is_inequality(text: &[char]) -> bool {
    matches!(text, [.., '!' | '<' | '>', '='])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value(text: &str) -> Option<(i128, i128)> {
        Number::last(text).map(|number| (number.numerator, number.denominator))
    }

    #[test]
    fn numbers_are_exact() {
        assert_eq!(value("1,234.50"), Some((123_450, 100)));
        assert_eq!(value("-.5"), Some((-5, 10)));
        assert_eq!(value("7/2"), Some((7, 2)));
        assert_eq!(value("none"), None);
        let huge = Number { numerator: i128::MAX, denominator: 3 };
        assert!(!huge.equals(huge), "what cannot be told apart is not called equal");
        assert!(Number { numerator: 1, denominator: 2 }.equals(Number { numerator: -50, denominator: -100 }));
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text in "[-+*/^×.,:$%()=<> a-e0-9½\n]{0,24}") {
            let _ = Number::last(&text);
        }

        #[test]
        fn a_number_is_what_it_says(whole in -999_999i64..1_000_000, cents in 0u8..100) {
            let sign = if whole < 0 { -1 } else { 1 };
            let text = format!("so it is {whole}.{cents:02} in all.");
            let expected = 100 * i128::from(whole) + sign * i128::from(cents);
            prop_assert_eq!(value(&text), Some((expected, 100)));
        }
    }
}
