//! What a write leaves that the system breaks off half way, as it does when the disk fills up. A limit on the size of
//! files stands in for the disk; the test program starts itself again to be the only one under it.

#![cfg(unix)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use remit_store::Error;
use remit_store::json_lines::JsonLines;
use remit_store::scores::{Merge, ScoreDtype, ScoreKey, ScoreStore, ScoreWriter, Shard};
use serde_json::json;

/// Names the directory that the limited process works in.
const VARIABLE: &str = "REMIT_STORE_TEST_DIRECTORY";

/// Odd, so that no number of windows ends at the limit.
const LENGTH: usize = 77;
const NUM_WINDOWS: u64 = 100;

fn open_scores(home: &Path) -> ScoreWriter {
    let key =
        ScoreKey { tokens: "a".into(), layout: "b".into(), reference: "c".into(), precision: "f32".into() };
    ScoreWriter::open(&home.join("scores"), &key, NUM_WINDOWS, LENGTH, ScoreDtype::F32, Shard::WHOLE).unwrap()
}

fn write_scores(writer: &mut ScoreWriter) -> Result<(), Error> {
    while writer.next_window() < NUM_WINDOWS {
        let window = writer.next_window();
        writer.write(window, &[-(window as f32); LENGTH])?;
    }
    Ok(())
}

#[test]
#[ignore = "started by `half_a_record_is_taken_back`"]
fn in_a_limited_process() {
    let Some(home) = std::env::var_os(VARIABLE).map(PathBuf::from) else { return };

    let path = home.join("metrics.jsonl");
    let mut log = JsonLines::open_truncated_after(&path, |_| true).unwrap();
    let error = (0..10_000).find_map(|step| log.append(&json!({ "step": step })).err()).expect("the limit");
    assert!(error.to_string().contains("metrics.jsonl`: File too large"), "{error}");
    assert!(fs::read(&path).unwrap().ends_with(b"}\n"));

    let mut writer = open_scores(&home);
    let error = write_scores(&mut writer).expect_err("the limit");
    assert!(error.to_string().contains("scores.bin`: File too large"), "{error}");
    assert!(write_scores(&mut writer).is_err(), "a second attempt fails as the first one did");
    writer.sync().unwrap();
    let bytes = fs::metadata(home.join("scores/shard-0001-of-0001/scores.bin")).unwrap().len();
    assert_eq!(bytes, writer.next_window() * 4 * LENGTH as u64);

    let journal = home.join("journal");
    fs::write(&journal, vec![b'x'; bytes as usize]).unwrap();
    remit_store::atomic::append(&journal, &[b'y'; 1 << 16]).unwrap_err();
    assert_eq!(fs::metadata(&journal).unwrap().len(), bytes);
}

#[test]
fn half_a_record_is_taken_back() {
    let home = tempfile::tempdir().unwrap();
    // Ignoring the signal turns the limit into an error of the write, like that of a full disk.
    let output = Command::new("sh")
        .args([
            "-c",
            "trap '' XFSZ; ulimit -f 16; exec \"$0\" --exact in_a_limited_process --ignored --nocapture",
        ])
        .arg(std::env::current_exe().unwrap())
        .env(VARIABLE, home.path())
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{words}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(words.contains("1 passed"), "{words}");

    let mut writer = open_scores(home.path());
    assert!((1..NUM_WINDOWS).contains(&writer.next_window()));
    write_scores(&mut writer).unwrap();
    assert_eq!(writer.finish().unwrap(), Merge::Complete);
    let key =
        ScoreKey { tokens: "a".into(), layout: "b".into(), reference: "c".into(), precision: "f32".into() };
    let store = ScoreStore::open(&home.path().join("scores"), &key).unwrap();
    let mut out = [0.0; LENGTH];
    for window in 0..NUM_WINDOWS {
        store.scores(window, &mut out).unwrap();
        assert_eq!(out, [-(window as f32); LENGTH]);
    }
}
