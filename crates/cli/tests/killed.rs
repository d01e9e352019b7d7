//! The program killed with SIGKILL in the middle of its work and started again with the same command: what it leaves
//! in the end is to the byte what an uninterrupted process leaves.

#![cfg(unix)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{Dice, Home, check_same, sums, tree};
use remit_store::checkpoint::checkpoints_of;
use serde_json::Value;

/// Starts `line` and kills it as soon as `now` says so; whether it was killed before it ended by itself.
fn kill_when(home: &Home, line: &str, mut now: impl FnMut(&Child) -> bool) -> bool {
    let mut process: Child = home.command(line).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    loop {
        if let Some(status) = process.try_wait().unwrap() {
            let stderr = std::io::read_to_string(process.stderr.take().unwrap()).unwrap();
            assert!(status.success(), "{line} failed by itself: {stderr}");
            return false;
        }
        if now(&process) {
            process.kill().unwrap();
            // It may have ended by itself in this very moment.
            return !process.wait().unwrap().success();
        }
        std::thread::sleep(Duration::from_micros(100));
    }
}

/// Kills `line` after times without a pattern, which grow until it ends by itself; how often it was killed.
fn kill_until_done(home: &Home, line: &str, seed: u64, check: impl Fn()) -> usize {
    let mut dice = Dice::new(seed);
    for num_kills in 0..200 {
        let most = 10.0 * 1.08f64.powi(num_kills);
        let delay = Duration::from_secs_f64(most / 1000.0 * (dice.roll(1000) + 1) as f64 / 1000.0);
        let start = Instant::now();
        if !kill_when(home, line, |_| start.elapsed() >= delay) {
            return num_kills as usize;
        }
        check();
    }
    panic!("{line} never finished");
}

/// Names in a directory that may not be there, or lose an entry while it is read.
fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Steps in a run's log, as far as it goes.
fn logged_steps(run: &Path) -> usize {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap_or_default();
    text.lines().filter(|line| line.contains("\"loss\"") && line.ends_with('}')).count()
}

fn latest_step(run: &Path) -> u64 {
    checkpoints_of(run).unwrap().pop().map_or(0, |checkpoint| checkpoint.step())
}

/// What a run's directory must be at any moment.
fn check_checkpoints(run: &Path) {
    for checkpoint in checkpoints_of(run).unwrap() {
        checkpoint.verify().unwrap();
    }
}

/// A run of 40 steps with an evaluation every 5, the reference beside the learner.
fn run_line(run: &str, checkpoints_every: u64) -> String {
    format!(
        "midtrain --config recipe.toml --quiet --run {run} --midtrain.steps=40 --midtrain.held_out.every=5 \
         --midtrain.checkpoints.ephemeral_every={checkpoints_every} --midtrain.checkpoints.permanent_every=20 \
         --midtrain.checkpoints.keep_last=2"
    )
}

#[test]
fn a_run_killed_inside_a_step() {
    let home = Home::trained();
    home.ok(&run_line("whole", 8));
    let (line, run) = (run_line("killed", 8), home.at("killed"));
    let mut lost = 0;
    // Between the checkpoints at 8, 16, 24, 32 and 40; the first before any.
    for steps in [3, 11, 19, 28, 35] {
        if kill_when(&home, &line, |_| logged_steps(&run) >= steps) {
            lost += logged_steps(&run).saturating_sub(latest_step(&run) as usize);
        }
        check_checkpoints(&run);
    }
    home.ok(&line);
    assert!(lost > 0, "no kill cost a step");
    check_same("killed inside steps", &home.outcome("whole"), &home.outcome("killed"));
}

#[test]
fn a_run_killed_inside_a_checkpoint() {
    let home = Home::trained();
    home.ok(&run_line("whole", 4));
    let (line, run) = (run_line("killed", 4), home.at("killed"));
    let directory = run.join("checkpoints");
    let partial = || names(&directory).into_iter().find(|name| name.ends_with(".partial"));
    let (mut seen, mut torn) = (Vec::new(), 0);
    // Each checkpoint is killed once, and written by the run after that.
    while kill_when(&home, &line, |_| partial().is_some_and(|name| !seen.contains(&name))) {
        torn += usize::from(partial().is_some());
        seen.push(partial().unwrap_or_default());
        check_checkpoints(&run);
        assert!(seen.len() <= 40, "the run does not come on: {seen:?}");
    }
    assert!(torn > 0, "no kill left half a checkpoint: {seen:?}");
    assert!(partial().is_none(), "the end clears away what kills have left");
    check_same("killed inside checkpoints", &home.outcome("whole"), &home.outcome("killed"));
}

#[test]
fn a_run_killed_at_any_moment() {
    let home = Home::trained();
    home.ok(&run_line("whole", 2));
    let run = home.at("killed");
    let num_kills = kill_until_done(&home, &run_line("killed", 2), 1, || check_checkpoints(&run));
    assert!(num_kills > 3, "only {num_kills} kills landed before the end");
    check_same("killed at any moment", &home.outcome("whole"), &home.outcome("killed"));
}

#[test]
fn pre_training_killed_at_any_moment() {
    let home = Home::prepared();
    let line = |run: &str| {
        format!("pretrain --config recipe.toml --quiet --run {run} --pretrain.checkpoints.ephemeral_every=3")
    };
    home.ok(&line("whole"));
    let num_kills = kill_until_done(&home, &line("killed"), 2, || check_checkpoints(&home.at("killed")));
    assert!(num_kills > 3, "only {num_kills} kills landed before the end");
    check_same("killed at any moment", &home.outcome("whole"), &home.outcome("killed"));
}

#[test]
fn fine_tuning_killed_at_any_moment() {
    let home = Home::trained();
    let line = |run: &str| {
        format!("sft --config recipe.toml --quiet --run {run} --epochs 8 --sft.checkpoints.ephemeral_every=3")
    };
    home.ok(&line("whole"));
    let num_kills = kill_until_done(&home, &line("killed"), 7, || check_checkpoints(&home.at("killed")));
    assert!(num_kills > 3, "only {num_kills} kills landed before the end");
    check_same("fine-tuning", &home.outcome("whole"), &home.outcome("killed"));
}

/// Rollouts, updates and checkpoints alike. Dynamic sampling moves the cursor by more than a step's prompts, several
/// updates share a rollout batch, and a reference stands beside the policy.
#[test]
fn reinforcement_learning_killed_at_any_moment() {
    let home = Home::trained();
    let line = |run: &str| {
        format!(
            "rl --config recipe.toml --quiet --run {run} --rl.checkpoints.ephemeral_every=2 \
             --rl.grpo.dynamic_sampling=true --rl.steps_per_generation=2 --rl.num_iterations=2 --rl.grpo.beta=0.05"
        )
    };
    home.ok(&line("whole"));
    let whole = home.outcome("whole");
    assert!(whole.keys().any(|name| name.starts_with("transcripts/")), "{:?}", whole.keys());
    let num_kills = kill_until_done(&home, &line("killed"), 8, || check_checkpoints(&home.at("killed")));
    assert!(num_kills > 3, "only {num_kills} kills landed before the end");
    check_same("reinforcement learning", &whole, &home.outcome("killed"));
}

/// A home with many sources, each a unit of work of `prepare`, and the command that reads them.
fn many_sources() -> (Home, impl Fn(&str) -> String) {
    let home = Home::prepared();
    let files: Vec<String> = (0..40).map(|seed| format!("sums-{seed}.jsonl")).collect();
    for (seed, file) in files.iter().enumerate() {
        home.write(file, sums(seed as u64, 400));
    }
    let files = files.join(" ");
    (home, move |out: &str| format!("prepare {files} --tokenizer tokenizer.json --holdout 0.2 --out {out}"))
}

#[test]
fn prepare_killed_between_its_units() {
    let (home, line) = many_sources();
    home.ok(&line("whole"));
    let state = home.at("killed.partial/state.json");
    let (mut before, mut num_kills) = (Vec::new(), 0);
    let changed = |before: &[u8]| fs::read(&state).ok().filter(|now| now != before);
    while num_kills < 6 && kill_when(&home, &line("killed"), |_| changed(&before).is_some()) {
        let Ok(now) = fs::read(&state) else { break }; // late: all units were done
        assert!(!home.at("killed").exists(), "a store appears when it is complete");
        before = now;
        num_kills += 1;
    }
    assert!(num_kills > 0, "no kill landed inside");
    let unfinished = state.exists();
    let done = home.remit(&line("killed"));
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert_eq!(done.stderr.contains("continuing after "), unfinished, "{}", done.stderr);
    assert!(!home.at("killed.partial").exists());
    check_same("killed between units", &tree(&home.at("whole")), &tree(&home.at("killed")));
}

#[test]
fn prepare_killed_at_any_moment() {
    let (home, line) = many_sources();
    home.ok(&line("whole"));
    let num_kills = kill_until_done(&home, &line("killed"), 3, || ());
    assert!(num_kills > 3, "only {num_kills} kills landed before the end");
    check_same("killed at any moment", &tree(&home.at("whole")), &tree(&home.at("killed")));
}

/// Windows that a score store under way claims to have on the device.
fn claimed(out: &Path) -> u64 {
    let journal = fs::read_to_string(out.join("shard-0001-of-0001/journal")).unwrap_or_default();
    journal.lines().last().and_then(|line| line.parse().ok()).unwrap_or(0)
}

/// Sends a signal by its name.
fn signal(process: &Child, name: &str) {
    let status = Command::new("sh").args(["-c", &format!("kill -{name} {}", process.id())]).status().unwrap();
    assert!(status.success());
}

#[test]
fn scoring_killed_before_and_behind_its_first_claim() {
    let home = Home::prepared();
    home.ok("pretrain --config recipe.toml --quiet --run reference --pretrain.steps=1 \
             --pretrain.data.batch_windows=1 --pretrain.model.hidden_size=128 \
             --pretrain.model.num_hidden_layers=4");
    let line = |out: &str| {
        format!("score --config recipe.toml --threads 1 --quiet --out {out} --score.batch_windows=1")
    };
    home.ok(&line("whole"));
    let out = home.at("killed");
    let written = || out.join("shard-0001-of-0001/scores.bin").metadata().map_or(0, |data| data.len());
    assert!(kill_when(&home, &line("killed"), |_| written() > 0), "too quick to be killed");
    // Every two seconds what is written becomes a claim. Held for so long, the process claims with its next write.
    let mut held = false;
    let killed = kill_when(&home, &line("killed"), |process| {
        if !held && written() > 0 {
            held = true;
            signal(process, "STOP");
            std::thread::sleep(Duration::from_millis(2100));
            signal(process, "CONT");
        }
        claimed(&out) > 0
    });
    assert!(killed, "too quick to be killed behind a claim");
    let windows = claimed(&out);
    let resumed = home.remit(&line("killed").replace("--quiet", "--json"));
    assert_eq!(resumed.code, Some(0), "{}", resumed.stderr);
    // The last line is `score  N windows in ...`.
    let scored =
        resumed.stderr.lines().last().and_then(|text| text.split_whitespace().nth(1)?.parse::<u64>().ok());
    let total = serde_json::from_str::<Value>(&resumed.stdout).unwrap()["windows"].as_u64().unwrap();
    assert_eq!(scored, Some(total - windows), "what was claimed is not computed again: {}", resumed.stderr);
    check_same("killed while scoring", &tree(&home.at("whole")), &tree(&out));
}

#[test]
fn shards_killed_at_any_moment() {
    let home = Home::trained();
    let line =
        |out: &str, shard: &str| format!("score --config recipe.toml --quiet --out {out} --shard {shard}");
    let mut num_kills = 0;
    for (seed, shard) in (4..).zip(["1/2", "2/2"]) {
        home.ok(&line("whole", shard));
        num_kills += kill_until_done(&home, &line("killed", shard), seed, || ());
    }
    assert!(num_kills > 2, "only {num_kills} kills landed before the end");
    let files: [BTreeMap<String, Vec<u8>>; 2] = ["whole", "killed"].map(|name| tree(&home.at(name)));
    check_same("killed shards", &files[0], &files[1]);
}

#[test]
fn a_file_is_whole_or_not_there() {
    let home = Home::new();
    home.write("sums.jsonl", sums(1, 20_000));
    let out: PathBuf = home.at("made/tokenizer.json");
    home.ok("train-tokenizer --config recipe.toml --out whole/tokenizer.json --quiet");
    let line = "train-tokenizer --config recipe.toml --out made/tokenizer.json --quiet";
    let num_kills = kill_until_done(&home, line, 6, || {
        if out.exists() {
            assert!(fs::read(&out).unwrap() == home.read("whole/tokenizer.json"));
        }
    });
    assert!(num_kills > 3, "only {num_kills} kills landed before the end");
    check_same("tokenizer", &tree(&home.at("whole")), &tree(&home.at("made")));
}
