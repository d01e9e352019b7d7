//! Recorded outputs of models, judged again.
//!
//! ```text
//! cargo run --release -p remit-judge --example replay -- mmlu-pro model_outputs.json
//! cargo run --release -p remit-judge --example replay -- math < ROWS > VERDICTS
//! ```
//!
//! `mmlu-pro` compares the letters with those that the benchmark's own program recorded (`pred`) and prints every
//! difference. `math` reads JSON lines with `completion` and `solution` and writes, line by line, what this crate makes of
//! them; `parity/replay.py` compares that with lm-evaluation-harness's own functions.

use std::io::{self, BufRead, Write};
use std::process::ExitCode;

use remit_judge::harness::{boxed, hendrycks, minerva, mmlu_pro};
use remit_judge::verify::Verify;
use remit_judge::{Filter, Judge, Verifier, math};
use serde_json::{Value, json};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match &arguments[..] {
        [what, path] if what == "mmlu-pro" => replay_mmlu_pro(path),
        [what] if what == "math" => replay_math(),
        _ => Err("usage: replay mmlu-pro FILE | replay math < ROWS".into()),
    };
    match result {
        Ok(is_same) => ExitCode::from(u8::from(!is_same)),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Whether every letter is the recorded one.
fn replay_mmlu_pro(path: &str) -> Result<bool> {
    let rows: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(path)?)?;
    let (mut num_different, mut num_right, mut num_found, mut num_by_task) = (0, 0, 0, 0);
    for row in &rows {
        let text = row["generated_text"].as_str().ok_or("a row without `generated_text`")?;
        let (found, recorded) = (mmlu_pro::extract(text), row["pred"].as_str());
        num_found += usize::from(found.is_some());
        num_right += usize::from(found.is_some() && found == row["answer"].as_str());
        let by_task = mmlu_pro::custom_extract(text);
        num_by_task += usize::from(by_task.is_some() && by_task == row["answer"].as_str());
        if found != recorded {
            num_different += 1;
            println!("question {}: {found:?}, recorded {recorded:?}", row["question_id"]);
        }
    }
    println!(
        "{} outputs, {num_found} letters found, {num_right} right, {num_different} different",
        rows.len()
    );
    println!("lm-evaluation-harness's pattern alone: {num_by_task} right");
    Ok(num_different == 0)
}

fn replay_math() -> Result<bool> {
    let built_in = Verify::built_in();
    let verifier = |wanted: &str| -> Result<Box<dyn Verifier>> {
        let found = built_in.iter().find(|(name, _)| *name == wanted).ok_or("no such verifier")?;
        Ok(found.1.build()?)
    };
    let verifiers =
        [("math", verifier("math")?), ("boxed", verifier("boxed")?), ("gsm8k", verifier("gsm8k")?)];
    let mut out = io::BufWriter::new(io::stdout().lock());
    for line in io::stdin().lock().lines() {
        let row: Value = serde_json::from_str(&line?)?;
        let text = |field: &str| row[field].as_str().ok_or(format!("a row without `{field}`"));
        let (completion, solution) = (text("completion")?, text("solution")?);
        let mut verdicts = json!({});
        for (name, verifier) in &verifiers {
            let verdict = verifier.judge(completion, solution);
            verdicts[name] = json!({ "outcome": verdict.outcome.name(), "why": verdict.why });
        }
        let boxed = boxed::last_boxed(solution);
        if let Some(expected) = boxed.as_deref().and_then(boxed::remove_boxed) {
            let found = minerva::normalise_final_answer(&minerva::unnormalised_answer(completion));
            let normalised = minerva::normalise_final_answer(expected);
            verdicts["minerva"] = json!({
                "found": found, "expected": normalised, "equality": format!("{:?}", math::compare(&found, &normalised)),
            });
            let answer = hendrycks::answer(completion);
            verdicts["hendrycks"] = json!({
                "found": hendrycks::strip_string(answer), "expected": hendrycks::strip_string(expected),
                "right": hendrycks::is_equiv(answer, expected),
            });
        }
        if let Some((_, number)) = solution.rsplit_once("#### ") {
            let judge = Judge::Number(number.trim().to_owned());
            for filter in [Filter::StrictMatch, Filter::FlexibleExtract] {
                verdicts[filter.name()] = json!(judge.accepts(&filter.answer(completion)));
            }
        }
        writeln!(out, "{verdicts}")?;
    }
    Ok(true)
}
