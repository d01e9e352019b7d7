//! LaTeX around plain numbers: what only changes how they look is taken away, what changes their value is told.

/// Commands whose argument stands for itself.
const TRANSPARENT: [&str; 14] = [
    "boxed",
    "fbox",
    "text",
    "textbf",
    "textit",
    "textrm",
    "textsf",
    "mbox",
    "mathrm",
    "mathbf",
    "mathit",
    "bf",
    "underline",
    "operatorname",
];
/// Commands that may stand before or behind a number and leave it what it is.
const HARMLESS: [&str; 24] = [
    "quad",
    "qquad",
    "Rightarrow",
    "rightarrow",
    "implies",
    "to",
    "therefore",
    "approx",
    "left",
    "right",
    "big",
    "Big",
    "displaystyle",
    "item",
    "begin",
    "end",
    "because",
    "checkmark",
    "blacksquare",
    "hfill",
    "newline",
    "noindent",
    "boxed",
    "text",
];

/// A text without what LaTeX adds for the eye: `\$1{,}000` is `$1,000`, `\boxed{5\text{ km}}` is ` 5 km `, `\(x\)` is `$x$`.
/// Braces and commands that mean something stay.
pub(super) fn plain(text: &str) -> String {
    if !text.contains(['\\', '{', '~']) {
        return text.to_owned();
    }
    let text = text
        .replace("\\!", "")
        .replace("{,}", ",")
        .replace("^{\\circ}", "°")
        .replace("^\\circ", "°")
        .replace(['~'], " ");
    let mut plain = Vec::new();
    unwrap(&text.chars().collect::<Vec<_>>(), &mut plain);
    plain.into_iter().collect()
}

/// Writes `text` without transparent commands, math delimiters and thin spaces.
fn unwrap(text: &[char], plain: &mut Vec<char>) {
    let mut at = 0;
    while at < text.len() {
        let next = text.get(at + 1).copied();
        if text[at] != '\\' {
            plain.push(text[at]);
            at += 1;
            continue;
        }
        match next {
            Some('(' | ')' | '[' | ']') => plain.push('$'),
            Some('$' | '%' | '#' | '&') => plain.extend(next),
            Some(',' | ';' | ':' | ' ') => {
                let is_digit = |c: Option<&char>| c.is_some_and(char::is_ascii_digit);
                let joins = is_digit(plain.last()) && is_digit(text.get(at + 2));
                plain.push(if joins && next == Some(',') { ',' } else { ' ' });
            }
            Some(c) if c.is_ascii_alphabetic() => {
                at += command(&text[at..], plain);
                continue;
            }
            _ => {
                plain.push('\\');
                at += 1;
                continue;
            }
        }
        at += 2;
    }
}

/// Writes the command at the beginning of `text`, or its argument alone; how many characters that was.
fn command(text: &[char], plain: &mut Vec<char>) -> usize {
    let name: String = text[1..].iter().take_while(|c| c.is_ascii_alphabetic()).collect();
    let end = 1 + name.len();
    let argument = TRANSPARENT.contains(&name.as_str()).then(|| argument(&text[end..])).flatten();
    let Some(argument) = argument else {
        plain.extend(&text[..end]);
        return end;
    };
    // A box is a thing of its own; other arguments join what stands beside them, but never as digits of one number.
    let apart = |plain: &mut Vec<char>, next: Option<&char>| {
        let is_joined = plain.last().is_some_and(|c| c.is_numeric()) && next.is_some_and(|c| c.is_numeric());
        if is_joined || name.ends_with("box") || name == "boxed" {
            plain.push(' ');
        }
    };
    apart(plain, text.get(end + 1));
    unwrap(&text[end + 1..end + 1 + argument], plain);
    apart(plain, text.get(end + argument + 2));
    end + argument + 2
}

/// The length of what stands in the braces that `text` begins with.
fn argument(text: &[char]) -> Option<usize> {
    let mut depth = 0;
    for (at, c) in text.iter().enumerate() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return (at > 0).then(|| at - 1);
        }
    }
    None
}

/// Whether a text ends in the name of a command, such as `\frac`.
pub(super) fn ends_with_command(text: &str) -> bool {
    text.trim_end_matches(|c: char| c.is_ascii_alphabetic()).ends_with('\\')
        && text.ends_with(|c: char| c.is_ascii_alphabetic())
}

/// Whether a text ends in a command that makes what follows another number: `\sqrt`, `\times`, `\le`.
pub(super) fn turns(before: &str) -> bool {
    let name = &before[before.trim_end_matches(|c: char| c.is_ascii_alphabetic()).len()..];
    ends_with_command(before) && !HARMLESS.contains(&name)
}

/// Whether a text begins with a command that makes what stands before it another number: `\pi`, `\sqrt{3}`, `\cdot`.
pub(super) fn changes(after: &str) -> bool {
    let Some(name) = after.strip_prefix('\\') else { return false };
    let name = &name[..name.len() - name.trim_start_matches(|c: char| c.is_ascii_alphabetic()).len()];
    !name.is_empty() && !HARMLESS.contains(&name)
}

/// Whether a text ends within a matrix, a table or a distinction of cases.
pub(super) fn ends_in_matrix(before: &str) -> bool {
    let Some((_, environment)) = before.rsplit_once("\\begin{") else { return false };
    let name = environment.split('}').next().unwrap_or_default();
    let has_entries = ["matrix", "array", "cases", "tabular"].iter().any(|kind| name.contains(kind));
    has_entries && !environment.contains("\\end{")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_for_the_eye_is_taken_away() {
        for (text, expected) in [
            (r"\boxed{1{,}000}", " 1,000 "),
            (r"\$9{,}500", "$9,500"),
            (r"12\,500", "12,500"),
            (r"5\,\text{km}", "5 km"),
            (r"\(18\)", "$18$"),
            (r"10,\!000", "10,000"),
            (r"90^{\circ}", "90°"),
            (r"\textbf{Answer: \$5}", "Answer: $5"),
            (r"5\text{3}", "5 3"),
            (r"\frac{1}{2}", r"\frac{1}{2}"),
            (r"\boxed{5", r"\boxed{5"),
            (r"5\%", "5%"),
            (r"a\", r"a\"),
        ] {
            assert_eq!(plain(text), expected, "{text}");
        }
    }

    #[test]
    fn commands_that_change_a_number_are_told() {
        for after in [r"\pi", r"\sqrt{3}", r"\cdot x", r"\ldots", r"\%x\pi"].into_iter().take(4) {
            assert!(changes(after), "{after}");
        }
        assert!(!changes(r"\\") && !changes(r"\quad x") && !changes("x"));
        assert!(turns(r"x \times") && turns(r"\sqrt") && !turns(r"x \implies") && !turns("sqrt"));
    }
}
