//! minerva_math: the phrase that an answer stands in, and its normalisation.

use std::sync::LazyLock;

use regex::Regex;

use crate::find::pattern::ours;

/// What stands for an answer that was not found.
pub const INVALID: &str = "[invalidanswer]";

const SUBSTITUTIONS: [(&str, &str); 10] = [
    ("an ", ""),
    ("a ", ""),
    (".$", "$"),
    ("\\$", ""),
    (r"\ ", ""),
    (" ", ""),
    ("mbox", "text"),
    (",\\text{and}", ","),
    ("\\text{and}", ","),
    ("\\text{m}", "\\text{}"),
];

/// Words and signs that are removed, in upstream's order.
const REMOVED: [&str; 42] = [
    "square",
    "ways",
    "integers",
    "dollars",
    "mph",
    "inches",
    "ft",
    "hours",
    "km",
    "units",
    "\\ldots",
    "sue",
    "points",
    "feet",
    "minutes",
    "digits",
    "cents",
    "degrees",
    "cm",
    "gm",
    "pounds",
    "meters",
    "meals",
    "edges",
    "students",
    "childrentickets",
    "multiples",
    "\\text{s}",
    "\\text{.}",
    "\\text{\ns}",
    "\\text{}^2",
    "\\text{}^3",
    "\\text{\n}",
    "\\text{}",
    r"\mathrm{th}",
    r"^\circ",
    r"^{\circ}",
    r"\;",
    r",\!",
    "{,}",
    "\"",
    "\\dots",
];

/// The answer in a completion, as `get_unnormalized_answer` has it.
pub fn unnormalised_answer(completion: &str) -> String {
    static PHRASE: LazyLock<Regex> =
        LazyLock::new(|| ours(r"Final Answer: The final answer is(.*?). I hope it is correct."));
    let text = format!("{completion}I hope it is correct.");
    PHRASE.captures(&text).map_or(INVALID.to_owned(), |found| strip(&found[1]).to_owned())
}

/// A text without white space around it, which for Python includes four separators that are none for Unicode.
fn strip(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c))
}

/// An answer as `normalize_final_answer` writes it.
pub fn normalise_final_answer(answer: &str) -> String {
    static RULES: LazyLock<[(Regex, &str); 8]> = LazyLock::new(|| {
        [
            (ours(r"(.*?)(\$)(.*?)(\$)(.*)"), "$$${3}$$"),
            (ours(r"(\\text\{)(.*?)(\})"), "${2}"),
            (ours(r"(\\textbf\{)(.*?)(\})"), "${2}"),
            (ours(r"(\\overline\{)(.*?)(\})"), "${2}"),
            (ours(r"(\\boxed\{)(.*)(\})"), "${2}"),
            (ours(r"(frac)([^{])(.)"), "frac{${2}}{${3}}"),
            (ours(r"(sqrt)(\[[^\]]*\])(\w)"), "${1}${2}{${3}}"),
            (ours(r"(sqrt)([^{\[])"), "sqrt{${2}}"),
        ]
    });
    static THOUSANDS: LazyLock<Regex> = LazyLock::new(|| ours(r"^-?\d{1,3}(,\d{3})+$"));

    let mut answer = answer.rsplit('=').next().unwrap_or_default().to_owned();
    for word in REMOVED.into_iter().filter(|word| is_word(word)) {
        answer = without_word(&answer, word);
    }
    for (before, after) in SUBSTITUTIONS {
        answer = answer.replace(before, after);
    }
    for removed in REMOVED {
        answer =
            if is_word(removed) { outside_commands(&answer, removed) } else { answer.replace(removed, "") };
    }
    for (pattern, replacement) in RULES.iter() {
        answer = pattern.replace_all(&answer, *replacement).into_owned();
    }
    answer = answer.replace('$', "");
    if THOUSANDS.is_match(&answer) { answer.replace(',', "") } else { answer }
}

fn is_word(expression: &str) -> bool {
    expression.chars().all(char::is_alphabetic)
}

/// Without a word that stands alone and is no command: `(?<!\\)\bWORD\b`.
fn without_word(text: &str, word: &str) -> String {
    let is_in_word = |c: char| c.is_alphanumeric() || c == '_';
    let (mut kept, mut from) = (String::new(), 0);
    for (at, _) in text.match_indices(word) {
        let before = text[..at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        if before.is_some_and(|c| is_in_word(c) || c == '\\') || after.is_some_and(is_in_word) {
            continue;
        }
        kept.push_str(&text[from..at]);
        from = at + word.len();
    }
    kept + &text[from..]
}

/// Without a word wherever it stands but in the names of commands.
fn outside_commands(text: &str, word: &str) -> String {
    static COMMAND: LazyLock<Regex> = LazyLock::new(|| ours(r"\\[a-zA-Z]+"));
    let (mut kept, mut from) = (String::new(), 0);
    for command in COMMAND.find_iter(text) {
        kept += &text[from..command.start()].replace(word, "");
        kept += command.as_str();
        from = command.end();
    }
    kept + &text[from..].replace(word, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_phrase_is_found_as_upstream_finds_it() {
        let found = unnormalised_answer;
        assert_eq!(found("So.\nFinal Answer: The final answer is $3$. I hope it is correct."), "$3$");
        assert_eq!(found("Final Answer: The final answer is $3$. "), "$3$");
        assert_eq!(
            found("Final Answer: The final answer is $3$."),
            "[invalidanswer]",
            "no blank before the end"
        );
        assert_eq!(found("Final Answer: The final answer is\n3. I hope it is correct."), "[invalidanswer]");
        assert_eq!(
            found("Final Answer: The final answer is 3. I hope it is correct. I hope it is correct."),
            "3"
        );
        assert_eq!(found(r"\boxed{3}"), "[invalidanswer]");
    }

    /// What upstream's function makes of these.
    #[test]
    fn answers_are_normalised_as_upstream_does() {
        for (answer, expected) in [
            (r"x = \frac12", r"\frac{1}{2}"),
            (r"$2\pi cm$", r"2\pi"),
            (r"\left(3,\frac{\pi}{2}\right)", r"\left(3,\frac{\pi}{2}\right)"),
            (r"100,000", "100000"),
            ("0,1", "0,1"),
            (r"5 \text{ dollars}", "5"),
            (r"\text{Evelyn}", "Evelyn"),
            (r"\sqrt2", r"\sqrt{2}"),
            (r"\sqrt[3]2", r"\sqrt[3]{2}"),
            (r"\sqrt[3]{2}", r"\sqrt[3]{2}"),
            (r"90^\circ", "90"),
            (r"1{,}000", "1000"),
            (r"\boxed{\{1\}}", r"\{1\}"),
            (r"a $1$ and $2$", "1"),
            ("10\\%", "10\\%"),
        ] {
            assert_eq!(normalise_final_answer(answer), expected, "{answer}");
        }
    }
}
