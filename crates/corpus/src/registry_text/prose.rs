//! Markdown and Rust sources to plain paragraphs of English.

/// The comments of a Rust source as Markdown, what is not a comment becoming blank lines.
///
/// Documentation and ordinary comments alike, as long as nothing but space stands before them; code that has been
/// commented out does not survive [`is_prose`].
pub(super) fn comments(source: &str) -> String {
    let mut markdown = String::new();
    let mut in_block = false;
    for line in source.lines() {
        let trimmed = line.trim();
        if in_block {
            in_block = !trimmed.contains("*/");
            let text = line.split("*/").next().unwrap_or_default();
            // Where a block is drawn as a box, a star stands at the margin of each line.
            markdown.push_str(
                text.trim_start().strip_prefix("* ").filter(|_| text.starts_with(" * ")).unwrap_or(text),
            );
        } else if let Some(text) = trimmed.strip_prefix("/*") {
            in_block = !text.contains("*/");
            markdown
                .push_str(text.split("*/").next().unwrap_or_default().trim_start_matches(['!', '*', ' ']));
        } else if let Some(text) = trimmed.strip_prefix("//") {
            let text = text.strip_prefix(['/', '!']).unwrap_or(text);
            markdown.push_str(text.strip_prefix(' ').unwrap_or_default());
        }
        markdown.push('\n');
    }
    markdown
}

/// The paragraphs of a Markdown text that read as plain prose, in order.
///
/// Code, headings, tables, HTML, references and addresses are dropped; links, emphasis and inline code become their
/// text; each item of a list is a paragraph. What remains must look like sentences: see [`is_prose`].
pub(super) fn paragraphs(markdown: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = String::new();
    let mut close = |open: &mut String| {
        if let Some(paragraph) = plain(open)
            && is_prose(&paragraph)
        {
            found.push(paragraph);
        }
        open.clear();
    };
    let mut fence: Option<&str> = None;
    for line in markdown.lines() {
        let text = line.trim();
        if let Some(mark) = fence {
            if text.starts_with(mark) {
                fence = None;
            }
            continue;
        }
        let starts_fence = ["```", "~~~"].into_iter().find(|mark| text.starts_with(mark));
        let is_code = open.is_empty() && (line.starts_with("    ") || line.starts_with('\t'));
        if starts_fence.is_some() {
            fence = starts_fence;
            close(&mut open);
        } else if text.is_empty() || is_code || is_markup(text) {
            close(&mut open);
        } else if let Some(item) = list_item(text) {
            close(&mut open);
            open.push_str(item);
        } else {
            if !open.is_empty() {
                open.push(' ');
            }
            open.push_str(text.trim_start_matches("> "));
        }
    }
    close(&mut open);
    found
}

/// Headings, their underlines, rules, tables, HTML and definitions of references.
fn is_markup(line: &str) -> bool {
    let is_rule = line.len() > 2 && line.chars().all(|c| "-=*_ ".contains(c));
    let is_definition =
        line.starts_with('[') && line.split_once("]:").is_some_and(|(name, _)| !name.contains("]("));
    is_rule || is_definition || line.starts_with(['#', '|', '<'])
}

/// The text of a list's item, without its mark.
fn list_item(line: &str) -> Option<&str> {
    let after_number = line.trim_start_matches(|c: char| c.is_ascii_digit());
    if after_number.len() < line.len() {
        return after_number.strip_prefix(". ").or(after_number.strip_prefix(") ")).map(str::trim_start);
    }
    ["* ", "- ", "+ "].into_iter().find_map(|mark| line.strip_prefix(mark)).map(str::trim_start)
}

/// Inline markup to its text; nothing if a link is left open.
fn plain(markdown: &str) -> Option<String> {
    let mut text = String::with_capacity(markdown.len());
    let mut rest = markdown;
    while let Some(at) = rest.find(['[', '`', '*', '\\']) {
        text.push_str(&rest[..at]);
        let (mark, after) = rest[at..].split_at(1);
        rest = match mark {
            "[" => {
                let end = after.find(']')?;
                text.push_str(&after[..end].replace(['`', '*'], ""));
                link_target(&after[end + 1..])?
            }
            // What stands between the marks is kept as it is.
            "`" => {
                let marks = 1 + after.len() - after.trim_start_matches('`').len();
                let inside = &after[marks - 1..];
                let end = inside.find(&"`".repeat(marks))?;
                text.push_str(inside[..end].trim());
                &inside[end + marks..]
            }
            // A lone star between spaces is a product, not emphasis.
            "*" if after.starts_with(' ') && text.ends_with(' ') => {
                text.push('*');
                after
            }
            "\\" => {
                let escaped = after.chars().next().filter(char::is_ascii_punctuation);
                text.extend(escaped);
                &after[escaped.map_or(0, char::len_utf8)..]
            }
            _ => after,
        };
    }
    text.push_str(rest);
    Some(text.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// What follows the target of a link whose text has just ended.
fn link_target(rest: &str) -> Option<&str> {
    let close = match rest.chars().next() {
        Some('(') => ')',
        Some('[') => ']',
        _ => return Some(rest),
    };
    rest.find(close).map(|end| &rest[end + 1..])
}

/// Whether a paragraph is whole sentences of English, rather than a label, a signature, an address or a licence.
fn is_prose(text: &str) -> bool {
    const UNWANTED: [&str; 15] = [
        "://", "www.", "](", "&lt;", "&gt;", "&nbsp;", "</", "/>", "::<", "#[", "opyright", "(c) ",
        "WARRANT", "LICENSE", "icensed ",
    ];
    let is_word = |word: &&str| word.chars().all(|c| c.is_ascii_alphabetic() || ",.'".contains(c));
    let num_words = text.split(' ').filter(is_word).count();
    let num_letters = text.bytes().filter(|c| c.is_ascii_alphabetic() || *c == b' ').count();
    let begins = text.starts_with(|c: char| c.is_ascii_uppercase());
    let ends = text.trim_end_matches([')', '"', '\'']).ends_with(['.', '!', '?', ':']);
    let is_english = num_letters * 100 >= text.len() * 88 && num_words >= 8;
    begins && ends && is_english && !UNWANTED.iter().any(|unwanted| text.contains(unwanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROSE: &str = "The quick brown fox jumps over the lazy dog, and then it sleeps.";

    fn check(markdown: &str, expected: &[&str]) {
        assert_eq!(paragraphs(markdown), expected, "{markdown}");
    }

    #[test]
    fn lines_are_joined_and_blank_lines_separate() {
        let (first, second) = PROSE.split_at(20);
        check(
            &format!("{first}\n{second}\n\n{PROSE}"),
            &[&format!("{} {}", first.trim(), second.trim()), PROSE],
        );
    }

    #[test]
    fn code_headings_tables_html_and_references_are_dropped() {
        let markdown = format!(
            "# A heading which is as long as a sentence, and also ends like one.\n{PROSE}\n```rust\n{PROSE}\n```\n\n    \
             {PROSE}\n\n| {PROSE} |\n<p>{PROSE}</p>\n[a]: {PROSE}\n---\n~~~\n{PROSE}"
        );
        check(&markdown, &[PROSE]);
    }

    #[test]
    fn each_item_of_a_list_is_a_paragraph() {
        check(
            &format!("* {PROSE}\n* {PROSE}\n1. {PROSE}\n> {PROSE}"),
            &[PROSE, PROSE, &format!("{PROSE} {PROSE}")],
        );
    }

    #[test]
    fn inline_markup_becomes_its_text() {
        let expected = "The quick fox jumps over the lazy dog and [then] it sleeps at a * b o'clock.";
        for markdown in [
            "The **quick** fox [jumps](a/b.html) over the [lazy `dog`][dog] and \\[then\\] it `sleeps` at a * b o'clock.",
            "The *quick* ``fox`` jumps over [the](#x) [lazy] dog and `[then]` it sleeps at `a * b` o'clock.",
        ] {
            check(markdown, &[expected]);
        }
        check("An [unclosed link makes the whole of this paragraph worthless, so it goes.", &[]);
    }

    #[test]
    fn what_is_not_a_sentence_is_dropped() {
        for markdown in [
            "Too short.",
            "no capital at the beginning of this line, though it is long enough.",
            "There is no full stop at the end of this line of eleven words",
            "Permission to read this is granted; see <https://example.org> for all the rest.",
            "Copyright of this whole file is with the authors who wrote it.",
            "A + b == c && d[0] != e(1, 2) || 0x1234_5678 the of and to in is it.",
        ] {
            check(markdown, &[]);
        }
    }

    #[test]
    fn comments_of_every_kind_are_found() {
        let source = "//! One.\n//! Two.\nfn f() { // no\n    /// Three.\n    // Four.\n}\n/*!\nFive.\n*/\n/* Six. */\n/**\n * Seven.\n */\n//// no\n";
        let found = comments(source);
        assert_eq!(found.lines().count(), source.lines().count());
        let lines: Vec<&str> = found.lines().filter(|line| !line.trim().is_empty()).collect();
        assert_eq!(lines, ["One.", "Two.", "Three.", "Four.", "Five.", "Six. ", "Seven."]);
    }
}
