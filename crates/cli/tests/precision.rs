//! Products of bfloat16: what must not change their results, what they are kept apart from, and which instructions serve.

mod common;

use std::fs;

use common::{Home, check_same};
use serde_json::json;

const RUN: &str = "midtrain --config recipe.toml --quiet --midtrain.precision=bf16";

#[test]
fn threads_recomputation_and_resumption_change_nothing() {
    let home = Home::trained();
    let line = |run: &str| {
        format!(
            "{RUN} --run {run} --midtrain.checkpoints.ephemeral_every=3 --midtrain.checkpoints.keep_last=9"
        )
    };
    home.ok(&format!("{} --threads 1", line("one")));
    for (run, more) in
        [("two", "--threads 2"), ("three", "--threads 3"), ("again", "--midtrain.recompute=true")]
    {
        home.ok(&format!("{} {more}", line(run)));
        check_same(run, &home.outcome("one"), &home.outcome(run));
    }
    for step in [6, 9, 12] {
        fs::remove_dir_all(home.at(&format!("two/checkpoints/step-{step:08}"))).unwrap();
    }
    home.ok(&line("two"));
    check_same("resumed", &home.outcome("one"), &home.outcome("two"));
    home.ok(&format!("{RUN} --run exact --midtrain.precision=f32"));
    assert!(home.parameters("one") != home.parameters("exact"), "the setting has an effect");
    // A run goes on with what it was begun with.
    let refused = home.remit(&format!("{} --midtrain.precision=f32", line("one")));
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("precision"), "{}", refused.stderr);
}

#[test]
fn every_instruction_set_gives_the_same_bytes() {
    let home = Home::trained();
    let there = home.ok("engine");
    let there = there.lines().find(|line| line.starts_with("instructions")).expect("it says so");
    let there: Vec<&str> = there.split(" of ").nth(1).expect("all of them").split(", ").collect();
    for precision in ["f32", "bf16"] {
        let line = |run: &str| format!("{RUN} --run {run} --midtrain.precision={precision}");
        home.ok(&line(precision));
        for name in &there {
            let run = format!("{precision}-{name}");
            let mut command = home.command(&line(&run));
            common::Done::of({
                command.env("REMIT_INSTRUCTIONS", name);
                command
            })
            .ok(name);
            let [mut all, mut forced] = [home.outcome(precision), home.outcome(&run)];
            let engines: Vec<_> = [&mut all, &mut forced].map(|files| files.remove("engines.json")).into();
            assert_eq!(engines[1].is_some(), precision == "bf16");
            if let Some(engines) = &engines[1] {
                let text = String::from_utf8_lossy(engines);
                assert!(text.contains(&format!("bf16 with {name}\"")), "{text}");
            }
            check_same(&run, &all, &forced);
        }
    }
}

#[test]
fn every_stage_takes_it() {
    let home = Home::trained();
    home.write("pairs.jsonl", "{\"prompt\":\"1 plus 1 is\",\"chosen\":\" 2.\",\"rejected\":\" 3.\"}\n");
    for (stage, line) in [
        ("pretrain", "pretrain --config recipe.toml"),
        ("sft", "sft --config recipe.toml"),
        ("dpo", "dpo pairs.jsonl --from pretrain --dpo.window=32"),
        ("rl", "rl --config recipe.toml --rl.grpo.beta=0.1 --rl.reference=pretrain"),
        ("midtrain", "midtrain --config recipe.toml --midtrain.objective.kind=kd"),
    ] {
        let run = |precision: &str| {
            let run = format!("{stage}-{precision}");
            home.ok(&format!("{line} --quiet --steps 1 --run {run} --{stage}.precision={precision}"));
            home.parameters(&run)
        };
        assert!(run("f32") != run("bf16"), "{stage}: the setting has an effect");
    }
}

#[test]
fn instructions_that_are_not_there_are_refused() {
    let home = Home::new();
    let mut command = home.command("engine");
    command.env("REMIT_INSTRUCTIONS", "sse");
    let refused = common::Done::of(command);
    assert_eq!(refused.code, Some(2));
    let error = "error: `REMIT_INSTRUCTIONS` is `sse`; this machine has plain";
    assert!(refused.stderr.starts_with(error), "{}", refused.stderr);
}

#[test]
fn scores_and_answers_say_what_they_were_made_with() {
    let home = Home::trained();
    home.ok("score --config recipe.toml --quiet --out exact");
    home.ok("score --config recipe.toml --quiet --out rounded --score.precision=bf16");
    assert_ne!(common::tree(&home.at("exact")), common::tree(&home.at("rounded")));
    let scored = |precision: &str, scores: &str| {
        format!(
            "{RUN} --run {precision}-{scores} --midtrain.precision={precision} \
             --midtrain.reference.scores={scores}"
        )
    };
    home.ok(&scored("f32", "exact"));
    home.ok(&scored("bf16", "rounded"));
    for (precision, scores) in [("bf16", "exact"), ("f32", "rounded")] {
        let refused = home.remit(&scored(precision, scores));
        assert_eq!(refused.code, Some(1));
        assert!(refused.stderr.contains("another precision ("), "{}", refused.stderr);
    }
    // Samples of one sequence, alone and among others.
    let generate = |more: &str| {
        home.json(&format!(
            "generate --model pretrain --prompt=3+4= --max-new-tokens 6 --num-samples 5 --log-probs --json {more}"
        ))
    };
    let rounded = generate("--precision bf16");
    assert_eq!(rounded, generate("--precision bf16 --batch-size 2 --threads 1"));
    assert_ne!(rounded, generate(""));
    let refused = home.remit("generate --model pretrain --prompt=3 --max-new-tokens 1 --precision fp8");
    assert_eq!(refused.code, Some(2));
    assert!(refused.stderr.contains("`f32` or `bf16`"), "{}", refused.stderr);
    let results = |run: &str| -> serde_json::Value {
        serde_json::from_slice(&home.read(&format!("{run}/results.json"))).unwrap()
    };
    let eval = "eval pretrain --tasks micro10_clock --problems 1 --eval.max_new_tokens=1 --eval.nll=false";
    home.ok(&format!("{eval} --out half --eval.precision=bf16"));
    assert_eq!(results("half")["config"]["settings"]["precision"], json!("bf16"));
}
