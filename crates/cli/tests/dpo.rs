//! `remit dpo` as it is used: pairs in, a learner that prefers out; the reference read once; killed and resumed; what
//! is said about rows that are no pairs.

mod common;

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use common::{Dice, Home, check_same};
use remit_store::checkpoint::checkpoints_of;
use remit_store::tensors::TensorFile;
use serde_json::{Value, json};

/// `count` sums whose right answer is preferred to a wrong one.
fn pairs(seed: u64, count: usize) -> String {
    let mut dice = Dice::new(seed);
    let mut line = || {
        let (a, b) = (dice.roll(50), dice.roll(50));
        let row = json!({
            "prompt": format!("{a} plus {b} is "), "chosen": format!("{}.", a + b), "rejected": "the cat sat on a mat.",
        });
        row.to_string() + "\n"
    };
    (0..count).map(|_| line()).collect()
}

/// A home with a pre-trained model, pairs, and a recipe for them.
fn home() -> Home {
    let home = Home::prepared();
    home.ok("pretrain --config recipe.toml --quiet --pretrain.steps=8");
    home.write("pairs.jsonl", pairs(1, 48));
    home.write(
        "dpo.toml",
        r#"[dpo]
run = "dpo"
from = "pretrain"
steps = 24
window = 64
batch_pairs = 16
micro_batch_pairs = 5
examples = { files = ["pairs.jsonl"] }
optimizer = { learning_rate = 3e-3 }
loss = { beta = 0.1 }
"#,
    );
    home
}

/// The files of a cache of log-probabilities.
fn cached(cache: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(cache).into_iter().flatten().flatten();
    let files = entries.map(|entry| entry.path().join("log_probs.safetensors"));
    let mut files: Vec<_> = files.filter(|file| file.exists()).collect();
    files.sort();
    files
}

#[test]
fn a_learner_comes_to_prefer_what_is_chosen() {
    let home = home();
    for (run, more) in [("plain", ""), ("normalised", "--dpo.loss.beta=5 --dpo.loss.length_normalised=true")]
    {
        home.ok(&format!("dpo --config dpo.toml --quiet --run {run} {more}"));
        let metrics = home.metrics(run);
        let figure = |record: &Value, name: &str| {
            record[name].as_f64().unwrap_or_else(|| panic!("no {name} in {record}"))
        };
        let (first, last) = (&metrics[0], &metrics[metrics.len() - 1]);
        assert_eq!((metrics.len(), figure(last, "step")), (24, 24.0));
        assert!((figure(first, "loss") - 2f64.ln()).abs() < 1e-5, "{first}");
        assert!(figure(first, "margin").abs() < 1e-4, "{first}");
        assert!(figure(last, "loss") < 0.5 * figure(first, "loss"), "{last}");
        assert_eq!((figure(last, "accuracy"), figure(last, "pairs")), (1.0, 16.0), "{last}");
        assert!(figure(last, "margin") > 0.1, "{last}");
        assert!(figure(last, "chosen_reward") > figure(last, "rejected_reward"), "{last}");
        // Up over a tenth of the run, then down.
        assert_eq!(figure(first, "learning_rate"), 3e-3 / 2.0, "{first}");
        assert!(figure(last, "learning_rate") < 1e-3, "{last}");
    }
    assert!(home.checkpoint("plain").join("tokenizer.json").exists());
}

#[test]
fn the_reference_reads_once_for_all_runs() {
    let home = home();
    let line = |run: &str| format!("dpo --config dpo.toml --run {run} --dpo.steps=2");
    let first = home.remit(&line("first"));
    assert_eq!(first.code, Some(0), "{}", first.stderr);
    assert!(first.stderr.contains("48 pairs; "), "{}", first.stderr);
    assert!(!first.stderr.contains("read from"), "{}", first.stderr);
    let cache = home.at("reference-log-probs");
    let made = cached(&cache);
    assert_eq!(made.len(), 1);

    let second = home.remit(&(line("second") + " --dpo.loss.beta=0.5 --dpo.micro_batch_pairs=16"));
    assert_eq!(second.code, Some(0), "{}", second.stderr);
    assert!(second.stderr.contains("read from `reference-log-probs/"), "{}", second.stderr);
    assert_eq!(cached(&cache), made);

    home.ok(&(line("model") + " --quiet --reference first"));
    assert_eq!(cached(&cache).len(), 2, "another model");
    home.write("pairs.jsonl", pairs(2, 48));
    home.ok(&(line("rows") + " --quiet"));
    assert_eq!(cached(&cache).len(), 3, "other rows");
    home.ok(&(line("template") + " --quiet --template tulu --dpo.cache=other"));
    assert_eq!((cached(&cache).len(), cached(&home.at("other")).len()), (3, 1), "another template and cache");

    fs::write(&made[0], "nothing").unwrap();
    home.write("pairs.jsonl", pairs(1, 48));
    let damaged = home.remit(&(line("damaged") + " --quiet"));
    assert_eq!(damaged.code, Some(1));
    assert!(
        damaged.stderr.contains("does not hold the log-probabilities of these pairs"),
        "{}",
        damaged.stderr
    );
    assert!(damaged.stderr.contains("hint: remove the file"), "{}", damaged.stderr);
}

/// Starts `line` and kills it as soon as `now` says so; whether it was killed before it ended by itself.
fn kill_when(home: &Home, line: &str, mut now: impl FnMut() -> bool) -> bool {
    let mut process: Child = home.command(line).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    loop {
        if let Some(status) = process.try_wait().unwrap() {
            let stderr = std::io::read_to_string(process.stderr.take().unwrap()).unwrap();
            assert!(status.success(), "{line} failed by itself: {stderr}");
            return false;
        }
        if now() {
            process.kill().unwrap();
            return !process.wait().unwrap().success();
        }
        std::thread::sleep(Duration::from_micros(100));
    }
}

#[test]
fn killed_and_resumed_it_ends_with_the_same_bytes() {
    let home = home();
    let line = |run: &str| {
        format!(
            "dpo --config dpo.toml --quiet --run {run}/run --dpo.steps=30 --dpo.batch_pairs=7 \
             --dpo.checkpoints.ephemeral_every=4"
        )
    };
    home.ok(&line("whole"));
    let (run, cache) = (home.at("killed/run"), home.at("killed/reference-log-probs"));
    let killed = line("killed");
    // While the reference reads: what it leaves is no file, or a whole one.
    let begun = || fs::read_dir(&cache).is_ok_and(|mut entries| entries.next().is_some());
    let mut kills = usize::from(kill_when(&home, &killed, begun));
    for file in cached(&cache) {
        TensorFile::open(&file).unwrap().info("log_probs").unwrap();
    }
    let latest = || checkpoints_of(&run).ok().and_then(|mut all| all.pop()).map_or(0, |last| last.step());
    for step in [4, 12, 20] {
        kills += usize::from(kill_when(&home, &killed, || latest() >= step));
    }
    assert!(kills > 1, "only {kills} kills landed before the end");

    home.ok(&killed);
    check_same("killed and resumed", &home.outcome("whole/run"), &home.outcome("killed/run"));
    let read =
        |cache: &str| cached(&home.at(cache)).iter().map(|file| fs::read(file).unwrap()).collect::<Vec<_>>();
    assert_eq!(read("whole/reference-log-probs"), read("killed/reference-log-probs"));
    assert_eq!(home.parameters("whole/run"), home.parameters("killed/run"));
}

#[test]
fn other_pairs_under_the_same_name_are_not_gone_on_with() {
    let home = home();
    let line = "dpo --config dpo.toml --dpo.steps=8 --dpo.checkpoints.ephemeral_every=4 \
                --dpo.checkpoints.keep_last=2";
    home.ok(&format!("{line} --quiet"));
    let whole = home.outcome("dpo");
    // As a kill behind the first checkpoint leaves it.
    fs::remove_dir_all(home.checkpoint("dpo")).unwrap();
    home.write("pairs.jsonl", pairs(2, 48));
    check(
        &home,
        line,
        "run `dpo` was begun with other data: pairs and reference: ",
        "a file or a checkpoint has changed where it lies",
    );
    home.write("pairs.jsonl", pairs(1, 48));
    home.ok(&format!("{line} --quiet"));
    check_same("gone on with", &whole, &home.outcome("dpo"));
}

#[test]
fn conversations_are_pairs_too() {
    let home = home();
    let turn = |role: &str, content: &str| json!({ "role": role, "content": content });
    let rows: String = (0..8)
        .map(|n| {
            let row = json!({
                "prompt": [turn("user", &format!("{n} plus 1"))],
                "chosen": [turn("assistant", &format!("{}.", n + 1))],
                "rejected": [turn("assistant", "mat")],
            });
            row.to_string() + "\n"
        })
        .collect();
    home.write("chat.jsonl", rows);
    home.ok("dpo chat.jsonl --config dpo.toml --quiet --template tulu --dpo.batch_pairs=8");
    let losses = home.losses("dpo");
    assert!((losses[0] - 2f64.ln()).abs() < 1e-5 && losses[23] < 0.3, "{losses:?}");
    assert!(home.checkpoint("dpo").join("chat_template.jinja").exists());
}

#[test]
fn a_dry_run_shows_what_would_be_done() {
    let home = home();
    let long = json!({ "prompt": "a ".repeat(80), "chosen": "b", "rejected": "c" });
    home.write("pairs.jsonl", pairs(1, 48) + &long.to_string() + "\n");
    let line = "dpo --config dpo.toml --dry-run --dpo.examples.too_long=drop";
    let plan = home.json(&format!("{line} --json"));
    assert_eq!((&plan["pairs"], &plan["dropped"], &plan["steps"]), (&json!(48), &json!(1), &json!(24)));
    assert_eq!(plan["passes"], json!(8.0));
    assert!(plan["memory_total"].as_u64() > plan["parameters"].as_u64().map(|count| 16 * count));
    let text = home.ok(line);
    for part in
        ["[dpo]", "beta = 0.1", "left out as too long", "memory of the reference's pass", "learning rate"]
    {
        assert!(text.contains(part), "no {part} in {text}");
    }
    assert!(!home.at("dpo").exists() && !home.at("reference-log-probs").exists(), "nothing is written");
}

/// Checks that a command ends with an error that begins so, and with this hint where one is given.
#[track_caller]
fn check(home: &Home, line: &str, error: &str, hint: &str) {
    let done = home.remit(&format!("{line} --quiet"));
    assert_eq!((done.code, done.stdout.as_str()), (Some(1), ""), "remit {line}\n{}", done.stderr);
    assert!(done.stderr.contains(&format!("error: {error}")), "remit {line}\n{}", done.stderr);
    let hint = if hint.is_empty() { String::new() } else { format!("hint: {hint}") };
    assert!(done.stderr.contains(&hint), "remit {line}\n{}", done.stderr);
}

#[test]
fn rows_that_are_no_pairs_are_named() {
    let home = home();
    let line = "dpo bad.jsonl --config dpo.toml --run new";
    let good = json!({ "prompt": "1 plus 1 is ", "chosen": "2.", "rejected": "3." });
    let bad = |row: Value| home.write("bad.jsonl", format!("{good}\n{row}\n"));
    for part in ["chosen", "rejected"] {
        let mut row = good.clone();
        row[part] = json!("");
        bad(row);
        check(&home, line, &format!("bad.jsonl:2: the {part} is empty"), "repair or remove the record");
    }
    bad(json!({ "prompt": "1 plus 1 is ", "chosen": "2.", "rejected": "2." }));
    check(&home, line, "bad.jsonl:2: `chosen` and `rejected` are the same", "");
    bad(json!({ "prompt": "1 plus 1 is ", "chosen": "2.", "reject": "3." }));
    check(
        &home,
        line,
        "bad.jsonl:2: no field `rejected`; the record has `chosen`, `prompt`, `reject`",
        "did you mean `reject`?",
    );
    bad(json!({ "prompt": "1 plus 1 is ", "chosen": "the cat ".repeat(80), "rejected": "3." }));
    check(&home, line, "bad.jsonl:2: the sequence has ", "choose a longer window");
    home.write("bad.jsonl", "");
    check(&home, line, "there is no example: the files have no rows", "");
    assert!(!home.at("new").exists(), "nothing is begun before everything is checked");
}

#[test]
fn settings_that_make_no_sense_are_named() {
    let home = home();
    let line = "dpo --config dpo.toml --run new";
    check(
        &home,
        &format!("{line} --epochs 1 --steps 2"),
        "`dpo.steps` is the length of the run",
        "`--dry-run` shows",
    );
    check(&home, &format!("{line} --dpo.loss.beta=0"), "objective setting `beta` is 0", "");
    check(
        &home,
        &format!("{line} --dpo.window=65"),
        "windows of 65 predictions are longer",
        "set `window` to",
    );
    check(&home, &format!("{line} --reference nowhere"), "`nowhere` is neither a checkpoint nor a run", "");
    let unknown = home.remit(&format!("{line} --dpo.beta=0.1"));
    assert_eq!(unknown.code, Some(1), "{}", unknown.stderr);
    assert!(unknown.stderr.contains("beta"), "{}", unknown.stderr);
    assert!(!home.at("new").exists(), "nothing is begun before everything is checked");
}
