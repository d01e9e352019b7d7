//! hendrycks_math: the answer between the first and the last dollar, compared as text after a normalisation.

use std::sync::LazyLock;

use regex::Regex;

use crate::find::pattern::ours;

/// The answer in a completion, as `process_results` has it.
pub fn answer(completion: &str) -> &str {
    match (completion.find('$'), completion.rfind('$')) {
        (Some(first), Some(last)) if first < last => &completion[first + 1..last],
        _ => completion,
    }
}

/// Whether two answers are the same after [`strip_string`]; as they stand, where that fails on one of them.
pub fn is_equiv(left: &str, right: &str) -> bool {
    match (strip_string(left), strip_string(right)) {
        (Some(left), Some(right)) => left == right,
        _ => left == right,
    }
}

/// An answer as `strip_string` writes it; nothing where it raises an exception.
pub fn strip_string(text: &str) -> Option<String> {
    let mut text = text
        .replace('\n', "")
        .replace("\\!", "")
        .replace("\\\\", "\\")
        .replace("tfrac", "frac")
        .replace("dfrac", "frac")
        .replace("\\left", "")
        .replace("\\right", "")
        .replace("^{\\circ}", "")
        .replace("^\\circ", "")
        .replace("\\$", "");
    text = without_right_units(&text)?.replace("\\%", "").replace(" .", " 0.").replace("{.", "{0.");
    if text.is_empty() {
        return Some(text);
    }
    if text.starts_with('.') {
        text.insert(0, '0');
    }
    if let [before, after] = text.split('=').collect::<Vec<_>>()[..]
        && before.chars().count() <= 2
    {
        text = after.to_owned();
    }
    text = with_braced_roots(&text)?.replace(' ', "");
    text = with_braced_fractions(&text)?;
    if text == "0.5" {
        text = "\\frac{1}{2}".to_owned();
    }
    slash_to_fraction(text)
}

fn without_right_units(text: &str) -> Option<&str> {
    match text.split("\\text{ ").collect::<Vec<_>>()[..] {
        [all] => Some(all),
        [before, _] => Some(before),
        _ => None,
    }
}

fn with_braced_roots(text: &str) -> Option<String> {
    let mut parts = text.split("\\sqrt");
    let mut braced = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let first = part.chars().next()?;
        braced += &match first {
            '{' => format!("\\sqrt{part}"),
            first => format!("\\sqrt{{{first}}}{}", &part[first.len_utf8()..]),
        };
    }
    Some(braced)
}

fn with_braced_fractions(text: &str) -> Option<String> {
    let mut parts = text.split("\\frac");
    let mut braced = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        braced += "\\frac";
        let mut chars = part.chars();
        match (chars.next()?, chars.next(), chars.as_str()) {
            ('{', ..) => braced += part,
            // One character is no fraction, and then nothing is changed.
            (_, None, _) => return Some(text.to_owned()),
            (above, Some('{'), rest) => braced += &format!("{{{above}}}{{{rest}"),
            (above, Some(below), rest) => braced += &format!("{{{above}}}{{{below}}}{rest}"),
        }
    }
    Some(braced)
}

/// `1/2` as a fraction. What Python would print otherwise (`01`, `+1`) is left as it is; what is no integer raises.
fn slash_to_fraction(text: String) -> Option<String> {
    static INTEGER: LazyLock<Regex> = LazyLock::new(|| ours(r"^\s*[+-]?\d+(_\d+)*\s*$"));
    let is_printed = |number: &str| {
        let digits = number.strip_prefix('-').unwrap_or(number);
        number == "0" || !digits.starts_with('0') && digits.chars().all(|c| c.is_ascii_digit())
    };
    match text.split('/').collect::<Vec<_>>()[..] {
        [above, below] if !INTEGER.is_match(above) || !INTEGER.is_match(below) => None,
        [above, below] if is_printed(above) && is_printed(below) => {
            Some(format!("\\frac{{{above}}}{{{below}}}"))
        }
        _ => Some(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_stands_between_the_first_and_the_last_dollar() {
        assert_eq!(answer("so $x$ is $3$."), "x$ is $3");
        assert_eq!(answer("so $3"), "so $3");
        assert_eq!(answer("3"), "3");
    }

    /// What upstream's function says of these.
    #[test]
    fn answers_are_compared_as_upstream_does() {
        for (left, right) in [
            ("1/2", r"\frac12"),
            ("0.5", r"\frac{1}{2}"),
            (".5", "0.5"),
            (r"x=\dfrac{1}{2}", r"\tfrac12"),
            (r"50\%", "50"),
            (r"\sqrt3", r"\sqrt{3}"),
            (r"5\text{ cm}", "5"),
            (r"90^\circ", "90"),
            (r"\left( 1, 2 \right)", "(1,2)"),
            ("x/2", "x/2"),
            ("", ""),
        ] {
            assert!(is_equiv(left, right), "{left} and {right}");
        }
        for (left, right) in [
            ("x/2", "x/2 "),
            ("01/2", "1/2"),
            ("0.25", r"\frac{1}{4}"),
            ("xyz=1", "1"),
            (r"\frac", r"\frac "),
            (r"5\text{ a}\text{ b}", "5"),
        ] {
            assert!(!is_equiv(left, right), "{left} and {right}");
        }
        assert_eq!(strip_string(r"\frac1{72}").as_deref(), Some(r"\frac{1}{72}"));
        assert_eq!(strip_string(r"\frac1").as_deref(), Some(r"\frac1"));
        assert_eq!(strip_string(r"\sqrt"), None);
    }
}
