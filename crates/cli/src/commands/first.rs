//! What is learned from, as the model sees it: shown before anything is spent on it.

use crate::render::error::Failure;
use remit_train::First;
use serde_json::{Value, json};
use std::fmt::Write as _;

/// Characters of a part and tokens that are printed; JSON has all.
const LONGEST: usize = 4000;

/// Tokens of one kind in a row.
struct Run {
    is_learned: bool,
    text: Option<String>,
}

/// What is given and what is learned, in turn.
fn runs(first: &First, tokens: &[u32], mask: &[bool]) -> Result<Vec<Run>, Failure> {
    // A prediction is of the token behind it, and nothing predicts the first.
    let is_learned = |t: usize| t > 0 && mask[t - 1];
    let mut runs = Vec::new();
    let mut begin = 0;
    for end in 1..=tokens.len() {
        if end < tokens.len() && is_learned(end) == is_learned(begin) {
            continue;
        }
        let text = first.tokenizer.as_ref().map(|tokenizer| {
            // Of the whole text, for a token's text can depend on what stands before it.
            let (before, with) = (tokenizer.decode(&tokens[..begin])?, tokenizer.decode(&tokens[..end])?);
            Ok::<_, Failure>(match with.strip_prefix(&before) {
                Some(text) => text.to_owned(),
                None => tokenizer.decode(&tokens[begin..end])?,
            })
        });
        runs.push(Run { is_learned: is_learned(begin), text: text.transpose()? });
        begin = end;
    }
    Ok(runs)
}

/// For `--json`.
pub(super) fn facts(first: &First) -> Result<Value, Failure> {
    let part = |(name, example): &(&str, remit_corpus::examples::Example)| {
        let runs = runs(first, &example.tokens, &example.mask)?;
        let runs: Vec<Value> =
            runs.into_iter().map(|run| json!({ "learned": run.is_learned, "text": run.text })).collect();
        let learned: Vec<bool> = std::iter::once(false).chain(example.mask.iter().copied()).collect();
        Ok(json!({ "name": name, "parts": runs, "ids": example.tokens, "learned": learned }))
    };
    Ok(Value::Array(first.parts.iter().map(part).collect::<Result<_, Failure>>()?))
}

/// For people: ends of line are seen, and so is what is learned.
pub(super) fn describe(first: &First) -> Result<String, Failure> {
    let mut out = String::new();
    for (name, example) in &first.parts {
        let (count, learned) = (example.tokens.len(), example.num_completion_tokens());
        let _ = writeln!(out, "first {name}: {count} tokens, of which {learned} are learned");
        for Run { is_learned, text } in runs(first, &example.tokens, &example.mask)? {
            let mut label = if is_learned { "learned" } else { "given" };
            for line in visible(&text.unwrap_or_else(|| "(no tokenizer)".into())) {
                let _ = writeln!(out, "  {label:7} | {line}");
                label = "";
            }
        }
        let ids = example.tokens.iter().take(LONGEST).enumerate().map(|(t, id)| match t {
            t if t > 0 && example.mask[t - 1] => format!("[{id}]"),
            _ => id.to_string(),
        });
        let rest = count.saturating_sub(LONGEST);
        let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
        let _ = writeln!(out, "  ids     | {}{more}", ids.collect::<Vec<_>>().join(" "));
    }
    Ok(out)
}

/// The lines of a text with their ends written out, and with them whatever else cannot be seen.
fn visible(text: &str) -> Vec<String> {
    let shown: String = text.chars().take(LONGEST).collect();
    let mut lines: Vec<String> = shown.split_inclusive('\n').map(escaped).collect();
    let rest = text.chars().count().saturating_sub(LONGEST);
    if rest > 0 {
        lines.push(format!("... and {rest} characters more"));
    }
    lines
}

fn escaped(line: &str) -> String {
    let one = |c: char| match c {
        '\n' => "\\n".to_owned(),
        '\r' => "\\r".to_owned(),
        '\t' => "\\t".to_owned(),
        c if c.is_control() => c.escape_unicode().to_string(),
        c => c.to_string(),
    };
    line.chars().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_seen_is_written_out() {
        assert_eq!(visible("a\r\n\tb\n\nc\u{7}"), ["a\\r\\n", "\\tb\\n", "\\n", "c\\u{7}"]);
        let long = visible(&"x".repeat(LONGEST + 3));
        assert_eq!((long.len(), long[1].as_str()), (2, "... and 3 characters more"));
    }

    #[test]
    fn a_token_is_learned_where_it_is_predicted() {
        let example =
            remit_corpus::examples::Example { tokens: vec![5, 6, 7, 8], mask: vec![false, true, false] };
        let first = First { parts: vec![("example", example)], tokenizer: None };
        let text = describe(&first).expect("no tokenizer is asked");
        assert!(text.starts_with("first example: 4 tokens, of which 1 are learned\n  given "), "{text}");
        assert!(text.ends_with("  ids     | 5 6 [7] 8\n"), "{text}");
        assert_eq!(facts(&first).expect("facts")[0]["learned"], json!([false, false, true, false]));
    }
}
