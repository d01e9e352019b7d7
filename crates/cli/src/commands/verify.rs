//! `remit verify`: what a verifier says of completions in a file, and which ground truths it can never accept.

use super::paths;
use crate::args::{Flags, Shared};
use crate::progress::Sequences;
use crate::render::error::Failure;
use clap::Args;
use remit_corpus::examples::{Row, Rows, text_of, usual_answer};
use remit_judge::Outcome;
use remit_rl::Settings;
use remit_rl::verifiers::Verifiers;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

/// Flags of the verb.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Rows with completions and ground truths: JSONL, JSON or Parquet
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// Verifier of every row; otherwise each row names its own
    #[arg(long, value_name = "NAME")]
    pub verifier: Option<String>,
    /// Field with the completion. Of a row without it, only the ground truth is checked
    #[arg(long, value_name = "FIELD", default_value = "completion")]
    pub completion: String,
    /// Field with the ground truth; `solution`, `ground_truth` or `answer` by default
    #[arg(long, value_name = "FIELD")]
    pub answer: Option<String>,
}

/// Runs the verb.
pub fn run(arguments: Arguments, shared: &Shared) -> Result<(), Failure> {
    let Arguments { files, verifier, completion, answer } = arguments;
    let flags = Flags::default().value("rl.prompts.files", paths(&files)?).value("rl.verifier", verifier);
    let settings: Settings = shared.resolve("rl", flags)?.value;
    let verifiers = Verifiers::new(&settings.verifiers, settings.verifier.as_deref())?;
    let rows: Vec<Row> = Rows::open(&settings.prompts.files)?.collect::<Result<_, _>>()?;
    let progress = Sequences::start(shared.display(), "verify", rows.len() as u64);
    let mut judged = Vec::new();
    for row in &rows {
        judged.push(judge(row, &verifiers, &completion, answer.as_deref(), shared.dry_run)?);
        progress.add(1, 0);
    }
    progress.finish();
    shared.print(|| describe(&judged), &facts(&judged))
}

/// What a row came to.
struct Judged {
    place: String,
    verifier: String,
    /// Why no completion could be right.
    impossible: Option<String>,
    /// Nothing where there is no completion.
    verdict: Option<remit_judge::Verdict>,
}

fn judge(
    row: &Row,
    verifiers: &Verifiers,
    completion: &str,
    answer: Option<&str>,
    only_check: bool,
) -> Result<Judged, Failure> {
    let answer = match answer {
        Some(field) => text_of(row, field)?.into_owned(),
        None => usual_answer(row)?,
    };
    let verifier = verifiers.of(row)?;
    let has_completion = !only_check && row.get(completion).is_some_and(|value| !value.is_null());
    let completion = has_completion.then(|| text_of(row, completion)).transpose()?;
    Ok(Judged {
        place: row.place.to_string(),
        impossible: verifiers.refusal(&verifier, &answer),
        verdict: completion.map(|completion| verifiers.judge(&verifier, &completion, &answer)),
        verifier,
    })
}

/// Completions by outcome, the impossible ground truths, and the mean reward.
fn totals(judged: &[Judged]) -> (BTreeMap<&'static str, usize>, usize, Option<f64>) {
    let outcomes: Vec<Outcome> =
        judged.iter().filter_map(|row| Some(row.verdict.as_ref()?.outcome)).collect();
    let mut counts = BTreeMap::new();
    for outcome in &outcomes {
        *counts.entry(outcome.name()).or_default() += 1;
    }
    let impossible = judged.iter().filter(|row| row.impossible.is_some()).count();
    let sum: f64 = outcomes.iter().map(|outcome| outcome.reward()).sum();
    (counts, impossible, (!outcomes.is_empty()).then(|| sum / outcomes.len() as f64))
}

fn facts(judged: &[Judged]) -> Value {
    let row = |row: &Judged| {
        let Judged { place, verifier, impossible, verdict } = row;
        let outcome = verdict.as_ref().map(|verdict| verdict.outcome);
        json!({
            "place": place, "verifier": verifier, "impossible": impossible,
            "reward": outcome.map(Outcome::reward), "outcome": outcome.map(Outcome::name),
            "why": verdict.as_ref().map(|verdict| &verdict.why),
        })
    };
    let (outcomes, impossible, mean_reward) = totals(judged);
    json!({
        "rows": judged.iter().map(row).collect::<Vec<_>>(),
        "outcomes": outcomes, "impossible": impossible, "mean_reward": mean_reward,
    })
}

fn describe(judged: &[Judged]) -> String {
    let mut out = String::new();
    let one_line = |text: &str| text.replace('\n', "\\n");
    for Judged { place, verifier, impossible, verdict } in judged {
        if let Some(verdict) = verdict {
            let (reward, name) = (verdict.outcome.reward(), verdict.outcome.name().replace('_', " "));
            let _ = writeln!(out, "{place}: {reward} {name}: {}", one_line(&verdict.why));
        }
        if let Some(problem) = impossible {
            let _ =
                writeln!(out, "{place}: verifier `{verifier}` can never accept the ground truth: {problem}");
        }
    }
    let (outcomes, impossible, mean_reward) = totals(judged);
    let outcomes: Vec<String> =
        outcomes.iter().map(|(name, count)| format!("{count} {}", name.replace('_', " "))).collect();
    let _ = match mean_reward {
        Some(mean) => writeln!(out, "{} rows: {}; mean reward {mean:.3}", judged.len(), outcomes.join(", ")),
        None => writeln!(out, "{} rows, no completion", judged.len()),
    };
    if impossible > 0 {
        let _ = writeln!(out, "impossible ground truths: {impossible}");
    }
    out
}
