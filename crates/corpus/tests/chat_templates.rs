//! Chat templates, held against what `transformers` rendered (`parity/chat_templates.py`).

use std::collections::BTreeMap;

use remit_corpus::examples::{ChatTemplate, Conversation, Counted, Place, Row};
use serde::Deserialize;

#[derive(Deserialize)]
struct Recorded {
    templates: BTreeMap<String, String>,
    rows: BTreeMap<String, String>,
    /// Special tokens by name.
    tokens: BTreeMap<String, String>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    template: String,
    row: String,
    add_generation_prompt: bool,
    text: Option<String>,
    spans: Option<Vec<String>>,
    error: Option<String>,
    /// Whether the last turn is left open.
    #[serde(default)]
    open: bool,
}

/// What Jinja refuses of a value that is not there, and what it is here.
const LENIENT: [(&str, &str); 4] =
    [("missing in 'abc'", "True"), ("missing > 1", "False"), ("missing | int", "0"), ("missing[:1]", "[]")];

#[test]
fn texts_and_spans_are_those_of_transformers() {
    let recorded: Recorded = serde_json::from_str(include_str!("data/chat_templates.json")).unwrap();
    let mut templates = recorded.templates.clone();
    templates.insert("chatml".into(), include_str!("../src/examples/chatml.jinja").into());
    templates.insert("tulu".into(), include_str!("../src/examples/tulu.jinja").into());
    let (mut num_spans, mut num_refused, mut num_lenient) = (0, 0, 0);
    for Case { template, row: row_name, add_generation_prompt, text, spans, error, open } in recorded.cases {
        let what = format!("{template}, {row_name}, {add_generation_prompt}");
        let source = &templates[&template];
        let chat = ChatTemplate::with_tokens(&template, source, recorded.tokens.clone()).unwrap();
        let place = Place { path: "rows".into(), number: 1, counted: Counted::Lines };
        let row = Row::new(place, recorded.rows[&row_name].as_str()).unwrap();
        let conversation = Conversation::of_row(&row, "messages").unwrap();
        let rendered = match open {
            true => chat.prompt(&conversation),
            false => chat.render(&conversation, add_generation_prompt),
        };
        let rendered = match (rendered, text) {
            (Ok(rendered), Some(text)) => {
                assert_eq!(rendered.text, text, "{what}");
                rendered
            }
            (Err(problem), None) => {
                // What a template itself raises is told in its own words.
                let error = error.unwrap();
                assert!(
                    problem.to_string().contains(&error) || !source.contains(&error[..10]),
                    "{what}: {problem} and not {error}"
                );
                num_refused += 1;
                continue;
            }
            (Ok(ours), None) if LENIENT.iter().any(|(asked, _)| template.contains(asked)) => {
                let answer = LENIENT.iter().find(|(asked, _)| template.contains(asked)).unwrap().1;
                assert_eq!(ours.text, answer, "{what}");
                num_lenient += 1;
                continue;
            }
            (ours, theirs) => panic!("{what}: {ours:?} and not {theirs:?}"),
        };
        let ours: Vec<&str> = rendered.spans.iter().map(|span| &rendered.text[span.range.clone()]).collect();
        if open {
            continue;
        }
        assert_eq!(ours, spans.unwrap_or_default(), "{what}");
        num_spans += ours.len();
    }
    assert_eq!(num_lenient, LENIENT.len());
    assert!(num_spans > 50 && num_refused > 5, "{num_spans} spans, {num_refused} refused");
}
