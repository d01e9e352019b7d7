//! The answer of a mathematical text: the last `\boxed{...}`, the Minerva phrase, or what stands between dollars.

use std::sync::LazyLock;

use regex::Regex;

use super::pattern::ours;

/// What is in the last `\boxed` or `\fbox`.
///
/// # Errors
/// Why there is none: no box, or one that is not closed, as in a completion that was cut off.
pub fn boxed(text: &str) -> Result<&str, &'static str> {
    let begin =
        ["\\boxed", "\\fbox"].into_iter().filter_map(|name| Some((text.rfind(name)?, name.len()))).max();
    let (at, length) = begin.ok_or("there is no `\\boxed`")?;
    let rest = text[at + length..].trim_start_matches(' ');
    if !rest.starts_with('{') {
        return Err("the last `\\boxed` has no braces");
    }
    let (mut depth, mut is_escaped) = (0, false);
    for (at, c) in rest.char_indices() {
        match c {
            '{' if !is_escaped => depth += 1,
            '}' if !is_escaped => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Ok(rest[1..at].trim());
        }
        is_escaped = c == '\\' && !is_escaped;
    }
    Err("the last `\\boxed` is not closed")
}

/// What the last Minerva phrase says: `Final Answer: The final answer is $3$. I hope it is correct.`, with or without its end.
pub fn final_answer(text: &str) -> Option<&str> {
    static PHRASE: LazyLock<Regex> = LazyLock::new(|| ours(r"(?i)final answer:\s*the final answer is:?"));
    let rest = &text[PHRASE.find_iter(text).last()?.end()..];
    let line = rest.lines().next().unwrap_or_default();
    let answer = line.split("I hope it is correct").next().unwrap_or_default().trim();
    let answer = answer.strip_suffix('.').unwrap_or(answer).trim();
    // `$3$ apples.` and the like: the mathematics is the answer where there is only one piece of it.
    match pieces(answer)[..] {
        [piece] if answer.starts_with('$') && answer.ends_with('$') => Some(piece),
        _ => Some(answer),
    }
    .filter(|answer| !answer.is_empty())
}

/// What stands between the last two dollars, or the last `\(` and `\)`.
pub fn last_piece(text: &str) -> Option<&str> {
    pieces(text).pop().filter(|piece| !piece.is_empty())
}

/// All that stands between `$` and `$`, `$$` and `$$`, `\(` and `\)`, `\[` and `\]`, in order. `\$` is no delimiter.
fn pieces(text: &str) -> Vec<&str> {
    static PIECE: LazyLock<Regex> = LazyLock::new(|| {
        ours(r"(?s)\\\$|\$\$(.*?[^\\])\$\$|\$((?:[^$\\]|\\.)+)\$|\\\((.*?)\\\)|\\\[(.*?)\\\]")
    });
    let piece =
        |found: regex::Captures<'_>| (1..5).find_map(|group| found.get(group)).map(|group| group.range());
    PIECE.captures_iter(text).filter_map(piece).map(|range| text[range].trim()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_box_counts_if_it_is_closed() {
        assert_eq!(boxed(r"\boxed{1}, no: \boxed{\frac{1}{2}}."), Ok(r"\frac{1}{2}"));
        assert_eq!(boxed(r"\boxed {3}"), Ok("3"));
        assert_eq!(boxed(r"\boxed{\{1, 2\}}"), Ok(r"\{1, 2\}"));
        assert_eq!(boxed(r"\boxed{[0, 1\}}"), Ok(r"[0, 1\}"), "an escaped brace closes nothing");
        assert_eq!(boxed(r"\boxed{\\}"), Ok(r"\\"), "an escaped backslash escapes nothing");
        assert_eq!(boxed(r"\boxed{1} \fbox{2}"), Ok("2"));
        assert_eq!(boxed(r"\boxed{1} \boxed{2"), Err("the last `\\boxed` is not closed"));
        assert_eq!(boxed(r"\boxed 3"), Err("the last `\\boxed` has no braces"));
        assert_eq!(boxed("3"), Err("there is no `\\boxed`"));
    }

    #[test]
    fn the_last_phrase_counts() {
        for (text, expected) in [
            ("Final Answer: The final answer is $3$. I hope it is correct.", Some("3")),
            ("Final Answer: The final answer is 3.", Some("3")),
            ("Final Answer: The final answer is $3$ or $4$.", Some("$3$ or $4$")),
            ("Final Answer: The final answer is $(3,4).$ I hope it is correct.\nProblem: 5", Some("(3,4).")),
            ("Final Answer: The final answer is $1$. x\nFinal Answer: The final answer is $2$.", Some("2")),
            ("Final Answer: The final answer is", None),
            ("The final answer is 3", None),
        ] {
            assert_eq!(final_answer(text), expected, "{text}");
        }
    }

    #[test]
    fn mathematics_stands_between_its_delimiters() {
        assert_eq!(pieces(r"a $x$ costs \$5, \(y\) and $$z$$ \[w\]"), ["x", "y", "z", "w"]);
        assert_eq!(last_piece(r"so $\$5$."), Some(r"\$5"));
        assert_eq!(last_piece("it costs $5"), None);
        assert_eq!(last_piece("none"), None);
    }
}
