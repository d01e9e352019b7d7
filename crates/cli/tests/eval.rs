//! `remit eval`: what a model that knows its questions by heart is said to know, and what is said of bad input.

mod common;

use common::{Home, check_close, tree};
use serde_json::{Value, json};

const PATHS: &str =
    "--eval.paths.gsm8k=known.jsonl --eval.paths.svamp=known.json --eval.max_new_tokens=24 --quiet";

/// Sums, one solved as GSM8K solves them.
fn solved(a: u32, b: u32) -> (String, String) {
    (format!("Add {a} and {b}."), format!("It is {a}+{b}.\n#### {}", a + b))
}

/// Eight sums, no two of one result.
fn sums() -> impl Iterator<Item = (u32, u32)> + Clone {
    (1..9).map(|i| (10 + 7 * i, 3 + 4 * i))
}

fn lines(records: impl Iterator<Item = Value>) -> String {
    records.map(|record| format!("{record}\n")).collect()
}

fn gsm8k(answer: impl Fn(u32, u32) -> String) -> String {
    lines(sums().map(|(a, b)| json!({ "question": solved(a, b).0, "answer": answer(a, b) })))
}

/// With a model that has seen eight solved sums until it knew them by heart.
fn home() -> Home {
    let home = Home::new();
    let text = |(a, b)| {
        let (question, answer) = solved(a, b);
        json!({ "text": format!("Question: {question}\nAnswer: {answer}") })
    };
    home.write("texts.jsonl", lines(sums().cycle().take(400).map(text)));
    home.write("known.jsonl", gsm8k(|a, b| solved(a, b).1));
    let svamp = |(a, b)| json!({ "Body": format!("Add {a}"), "Question": format!("and {b}."), "Answer": f64::from(a + b) });
    home.write("known.json", Value::Array(sums().map(svamp).collect()).to_string());
    home.ok("train-tokenizer texts.jsonl --out tokenizer.json --vocab-size 300 --quiet");
    home.ok("prepare texts.jsonl --tokenizer tokenizer.json --out tokens --quiet");
    home.ok("pretrain --config recipe.toml --pretrain.steps=200 --pretrain.optimizer.learning_rate=1e-2 \
             --pretrain.model.max_position_embeddings=512 --pretrain.data.window=64 --quiet");
    home
}

#[test]
fn a_model_that_knows_its_questions() {
    let home = home();
    let results = home.json(&format!(
        "eval pretrain --tasks gsm8k,svamp --samples 4 --k 1,4 --temperature 0.1 {PATHS} --json"
    ));
    let figure =
        |task: &str, key: &str| results["results"][task][key].as_f64().unwrap_or_else(|| panic!("{results}"));
    for task in ["gsm8k", "svamp"] {
        for filter in ["strict-match", "flexible-extract"] {
            assert_eq!(figure(task, &format!("exact_match,{filter}")), 1.0, "{task} {filter}");
            assert_eq!(figure(task, &format!("exact_match_stderr,{filter}")), 0.0);
            assert!(figure(task, &format!("pass@4,{filter}")) >= figure(task, &format!("pass@1,{filter}")));
            assert!(figure(task, &format!("pass@1,{filter}")) > 0.5, "{results}");
        }
    }
    assert!(figure("gsm8k", "nll,none") < 0.1, "{results}");
    assert_eq!(results["results"]["svamp"].get("nll,none"), None);
    assert_eq!(results["n-samples"]["gsm8k"], json!({ "original": 8, "effective": 8 }));
    assert_eq!(
        results["higher_is_better"]["gsm8k"],
        json!({ "exact_match": true, "nll": false, "pass@1": true, "pass@4": true })
    );

    // In the run directory, with a log that adds up to the figures.
    let out = "pretrain/eval/step-00000200/gsm8k+svamp";
    let written: Value = serde_json::from_slice(&home.read(&format!("{out}/results.json"))).unwrap();
    assert_eq!(written, results);
    let log: Vec<Value> = home
        .text(&format!("{out}/samples_gsm8k.jsonl"))
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(log.len(), 16, "a line for each question and filter");
    let sum = |key: &str| log.iter().map(|line| line[key].as_f64().unwrap()).sum::<f64>();
    check_close("nll", &[sum("nll") / sum("nll_tokens")], &[figure("gsm8k", "nll,none")], 1e-12);
    assert_eq!(log[0]["resps"], json!([[" It is 17+7.\n#### 24"]]));

    // The same questions with other answers: not one is right, and the solutions are no longer likely.
    home.write("known.jsonl", gsm8k(|a, b| format!("It is {b}+{a}.\n#### {}", a + b + 1)));
    let other = home.json(&format!("eval pretrain --tasks gsm8k {PATHS} --json"));
    let scores = &other["results"]["gsm8k"];
    assert_eq!(
        (&scores["exact_match,strict-match"], &scores["exact_match,flexible-extract"]),
        (&json!(0.0), &json!(0.0))
    );
    assert!(scores["nll,none"].as_f64().unwrap() > 1.0, "{scores}");
}

/// All but `date` and the time is a function of settings, model and questions.
#[test]
fn the_same_again() {
    let home = home();
    let line = |out: &str, more: &str| {
        format!(
            "eval pretrain --tasks micro10_list,gsm8k --problems 5 --samples 2 {PATHS} --out {out} {more}"
        )
    };
    let without_times = |out: &str| {
        let mut results: Value = serde_json::from_slice(&home.read(&format!("{out}/results.json"))).unwrap();
        for key in ["date", "total_evaluation_time_seconds"] {
            results.as_object_mut().unwrap().remove(key).expect("it is there");
        }
        for (table, key) in [("config", "batch_size"), ("settings", "batch_size"), ("settings", "out")] {
            let table =
                if table == "config" { &mut results["config"] } else { &mut results["config"][table] };
            table.as_object_mut().unwrap().remove(key).expect("it is there");
        }
        results
    };
    home.ok(&line("first", ""));
    home.ok(&line("second", "--eval.batch_size=3 --threads 1"));
    assert_eq!(without_times("first"), without_times("second"));
    for log in ["samples_gsm8k.jsonl", "samples_micro10_list.jsonl"] {
        assert_eq!(home.text(&format!("first/{log}")), home.text(&format!("second/{log}")));
    }

    let before = tree(&home.at("first"));
    let again = home.ok(&line("first", ""));
    assert!(again.ends_with("first (was there already)\n"), "{again}");
    assert_eq!(before, tree(&home.at("first")));

    let done = home.remit(&line("first", "--seed 3 --limit 4"));
    assert_eq!(
        (done.code, done.stderr.as_str()),
        (
            Some(1),
            "error: `first` holds the results of another evaluation: limit: none -> 4, seed: 0 -> 3\n\
             hint: choose another output with `--out`, or replace this one with `--overwrite`\n"
        )
    );
    assert_eq!(before, tree(&home.at("first")));
    home.write("known.jsonl", gsm8k(|a, b| format!("#### {}", a * b)));
    let done = home.remit(&line("first", ""));
    assert!(done.stderr.contains("another evaluation: the questions\n"), "{}", done.stderr);
    home.ok(&line("first", "--overwrite"));
    assert_ne!(before["results.json"], home.read("first/results.json"));
    let again = home.ok(&line("first", ""));
    assert!(again.ends_with("first (was there already)\n"), "{again}");

    let shown = home.ok(&line("new", "--dry-run"));
    assert!(shown.contains("micro10_list          5   5\n") && shown.contains("sequences  52\n"), "{shown}");
    assert!(!home.at("new").exists());
}

#[test]
fn what_cannot_be_evaluated() {
    let home = home();
    let check = |line: &str, error: &str, hint: &str| {
        let done = home.remit(&format!("eval {line} --quiet"));
        let hint = if hint.is_empty() { String::new() } else { format!("hint: {hint}\n") };
        assert_eq!(
            (done.code, done.stderr),
            (Some(1), format!("error: {error}\n{hint}")),
            "remit eval {line}"
        );
        assert_eq!(done.stdout, "");
    };
    let names = "`micro10`, `micro10_multiplication`, `micro10_modulo`, `micro10_equation`, `micro10_story`, \
                 `micro10_list`, `micro10_text`, `micro10_complete`, `micro10_ordering`, `micro10_clock`, `micro10_sets`, \
                 `gsm8k`, `svamp`";
    check(
        "",
        "no model is given",
        "name a checkpoint or a run: `remit eval DIR`, or set `model` under `[eval]`",
    );
    check(
        "nowhere",
        "`nowhere` is neither a checkpoint nor a run with one",
        "give a directory with `config.json`, or a run directory whose run has saved a checkpoint",
    );
    check(
        "pretrain --tasks gsmk",
        "there is no task `gsmk`",
        &format!("did you mean `gsm8k`? the tasks are {names}"),
    );
    check("pretrain --tasks zzz", "there is no task `zzz`", &format!("the tasks are {names}"));
    check(
        "pretrain --tasks svamp",
        "task `svamp` has no file of questions",
        "set `svamp` under `[eval.paths]`, or give `--eval.paths.svamp=FILE`; `docs/evaluation.md` says where such files \
         come from",
    );
    check(
        "pretrain --tasks gsm8k --eval.paths.gsm8k=none.jsonl",
        "cannot read `none.jsonl`: No such file or directory (os error 2)",
        "",
    );
    check(
        "pretrain --samples 4 --k 8",
        "pass@8 cannot be estimated from 4 samples a question",
        "raise `samples`, or lower `k`",
    );
    check(
        "pretrain --problems 1001 --tasks micro10_sets",
        "1001 test problems of level 2 asked of 1 families, at most 1000 are certain to be distinct",
        "ask for fewer, or name more families",
    );
    let rows = |row: &str, error: &str| {
        home.write("rows.jsonl", format!("{}{row}\n", gsm8k(|a, b| solved(a, b).1)));
        check("pretrain --tasks gsm8k --eval.paths.gsm8k=rows.jsonl", error, "");
    };
    rows(r#"{"question":"a"}"#, "rows.jsonl:9: no field `answer`");
    rows(r#"{"question":"a","answer":7}"#, "rows.jsonl:9: `answer` is 7, not text");
    rows(r#"{"question":"a","answer":"7"}"#, "rows.jsonl:9: its `answer` has no number behind `#### `");
    rows("{", "rows.jsonl:9: malformed JSON: EOF while parsing an object at line 1 column 1");
    home.write("rows.json", r#"[{"Body":"a","Question":"b","Answer":2},{"Body":"a","Question":"b"}]"#);
    check(
        "pretrain --tasks svamp --eval.paths.svamp=rows.json",
        "rows.json: record 2: no field `Answer`",
        "",
    );
    home.write("rows.json", "[]");
    check("pretrain --tasks svamp --eval.paths.svamp=rows.json", "rows.json: there is no record", "");

    let long = "x ".repeat(600);
    home.write("rows.jsonl", json!({ "question": long, "answer": "#### 1" }).to_string());
    let done = home.remit("eval pretrain --tasks gsm8k --eval.paths.gsm8k=rows.jsonl");
    assert!(
        done.stderr.contains("question 0 of `gsm8k` has ")
            && done.stderr.contains("with 256 more of an answer they are more than the 512 positions"),
        "{}",
        done.stderr
    );
    home.write("rows.jsonl", json!({ "question": "x", "answer": format!("{long}\n#### 1") }).to_string());
    let done = home.remit("eval pretrain --tasks gsm8k --eval.paths.gsm8k=rows.jsonl");
    assert!(
        done.stderr.contains("more of its solution") && done.stderr.contains("--eval.nll=false"),
        "{}",
        done.stderr
    );
    home.ok(
        "eval pretrain --tasks gsm8k --eval.paths.gsm8k=rows.jsonl --eval.nll=false --out unsolved --quiet",
    );

    home.write("unsolved/results.json", "{}");
    let done = home
        .remit("eval pretrain --tasks gsm8k --eval.paths.gsm8k=rows.jsonl --eval.nll=false --out unsolved");
    assert!(
        done.stderr.contains("`unsolved/results.json` is not a results file: missing field"),
        "{}",
        done.stderr
    );

    let checkpoint = home.checkpoint("pretrain");
    home.copy(checkpoint.strip_prefix(home.path()).unwrap().to_str().unwrap(), "bare");
    std::fs::remove_file(home.at("bare/tokenizer.json")).unwrap();
    check("bare", "`bare` has no `tokenizer.json`", "put that of the model beside its `config.json`");
}
