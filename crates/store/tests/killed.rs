//! What a real SIGKILL leaves. The test program starts itself again as the process to be killed.

#![cfg(unix)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use remit_store::checkpoint::{Retention, RunDirectory, checkpoints_of};
use remit_store::json_lines::JsonLines;
use remit_store::scores::{ScoreDtype, ScoreKey, ScoreStore, ScoreWriter, Shard};
use remit_store::tensors::{FileDtype, TensorDirectory, TensorOut, write_tensors};
use serde_json::json;

/// Names the directory that the killed process works in.
const VARIABLE: &str = "REMIT_STORE_TEST_DIRECTORY";

/// Runs the ignored test `child` in a process of its own, again and again until it ends by itself, and kills it
/// after ever longer times. `check` looks at what each kill has left.
fn kill_until_done(child: &str, directory: &Path, check: impl Fn()) {
    let mut num_kills = 0;
    let mut delay = Duration::from_millis(1);
    for _ in 0..300 {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", child, "--ignored", "--nocapture"])
            .env(VARIABLE, directory)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let end = Instant::now() + delay;
        delay = delay.mul_f64(1.05);
        let status = loop {
            if let Some(status) = process.try_wait().unwrap() {
                break Some(status);
            }
            if Instant::now() >= end {
                process.kill().unwrap();
                process.wait().unwrap();
                num_kills += 1;
                break None;
            }
            std::thread::sleep(Duration::from_micros(200));
        };
        check();
        if let Some(status) = status {
            assert!(status.success(), "{child} failed by itself");
            assert!(num_kills > 0, "{child} was too quick to be killed");
            return;
        }
    }
    panic!("{child} never finished");
}

/// The directory to work in, in the process that is to be killed; elsewhere there is nothing to do.
fn child_directory() -> Option<PathBuf> {
    std::env::var_os(VARIABLE).map(PathBuf::from)
}

const NUM_STEPS: u64 = 40;

/// Goes on from the latest checkpoint as a run does: a line a step, a checkpoint every second one.
fn run(directory: &Path) {
    let run = RunDirectory::open_or_create(directory).unwrap();
    let keep = Retention { every: Some(10), last: 2 };
    run.retain(keep).unwrap(); // the former process may have been killed between saving and retaining
    let latest = run.latest().unwrap();
    let start = latest.as_ref().map_or(0, |checkpoint| checkpoint.step());
    let mut state = vec![1.0f32; 20_000];
    if let Some(checkpoint) = latest {
        checkpoint.verify().unwrap();
        TensorDirectory::open(checkpoint.path()).unwrap().read_f32("state", &mut state).unwrap();
    }
    let mut log = JsonLines::open_truncated_after(&directory.join("metrics.jsonl"), |line| {
        line["step"].as_u64().is_some_and(|step| step <= start)
    })
    .unwrap();
    for step in start + 1..=NUM_STEPS {
        state.iter_mut().enumerate().for_each(|(i, value)| *value += 1.0 / (i as f32 + step as f32));
        log.append(&json!({ "step": step, "sum": state.iter().sum::<f32>() })).unwrap();
        if step % 2 == 0 {
            log.sync().unwrap();
            run.save_checkpoint(step, |checkpoint| {
                let tensors = [TensorOut { name: "state", shape: &[state.len()], data: &state }];
                write_tensors(checkpoint, "model", &tensors, FileDtype::F32, None)
            })
            .unwrap();
            run.retain(keep).unwrap();
        }
    }
}

#[test]
#[ignore = "started by `a_killed_run_ends_as_if_never_killed`"]
fn run_in_a_process() {
    child_directory().iter().for_each(|directory| run(directory));
}

#[test]
fn a_killed_run_ends_as_if_never_killed() {
    let home = tempfile::tempdir().unwrap();
    let (whole, killed) = (home.path().join("whole"), home.path().join("killed"));
    run(&whole);
    kill_until_done("run_in_a_process", &killed, || {
        for checkpoint in checkpoints_of(&killed).unwrap() {
            checkpoint.verify().unwrap();
        }
    });
    let files = |directory: &Path| {
        let mut files = vec![directory.join("metrics.jsonl")];
        for checkpoint in checkpoints_of(directory).unwrap() {
            files.extend(["model.safetensors", "integrity.json"].map(|name| checkpoint.path().join(name)));
        }
        let read =
            |path: PathBuf| (path.strip_prefix(directory).unwrap().to_owned(), fs::read(&path).unwrap());
        files.into_iter().map(read).collect::<Vec<_>>()
    };
    let (expected, found) = (files(&whole), files(&killed));
    let names = |files: &[(PathBuf, Vec<u8>)]| files.iter().map(|(path, _)| path.clone()).collect::<Vec<_>>();
    assert_eq!(names(&expected), names(&found));
    for ((path, expected), (_, found)) in expected.iter().zip(&found) {
        assert!(expected == found, "{}", path.display());
    }
    let steps: Vec<u64> =
        checkpoints_of(&killed).unwrap().iter().map(|checkpoint| checkpoint.step()).collect();
    assert_eq!(steps, [10, 20, 30, 38, 40]);
}

const LENGTH: usize = 64;

fn key() -> ScoreKey {
    ScoreKey { tokens: "a".into(), layout: "b".into(), reference: "c".into(), precision: "f32".into() }
}

fn score(directory: &Path) {
    let mut writer =
        ScoreWriter::open(directory, &key(), 400, LENGTH, ScoreDtype::F16, Shard::WHOLE).unwrap();
    while writer.next_window() < writer.windows().end {
        let first = writer.next_window();
        let scores: Vec<f32> = (0..4 * LENGTH as u64).map(|i| -((first * 64 + i) as f32).sqrt()).collect();
        writer.write(first, &scores).unwrap();
        // Far more often than a real run, so that kills fall between claims and inside them.
        if first.is_multiple_of(12) {
            writer.sync().unwrap();
        }
    }
    writer.finish().unwrap();
}

#[test]
#[ignore = "started by `killed_scores_end_as_if_never_killed`"]
fn score_in_a_process() {
    child_directory().iter().for_each(|directory| score(directory));
}

#[test]
fn killed_scores_end_as_if_never_killed() {
    let home = tempfile::tempdir().unwrap();
    let (whole, killed) = (home.path().join("whole"), home.path().join("killed"));
    score(&whole);
    kill_until_done("score_in_a_process", &killed, || ());
    ScoreStore::open(&killed, &key()).unwrap().verify().unwrap();
    for file in ["manifest.json", "shard-0001-of-0001/shard.json", "shard-0001-of-0001/scores.bin"] {
        assert!(fs::read(whole.join(file)).unwrap() == fs::read(killed.join(file)).unwrap(), "{file}");
    }
    assert!(!killed.join("shard-0001-of-0001/journal").exists());
}
