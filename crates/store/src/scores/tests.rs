//! The score store from end to end; what a real SIGKILL does to it is in `tests/killed.rs`.

use std::fs;
use std::path::Path;

use super::*;
use crate::Error;
use crate::hash::hash_bytes;

const LENGTH: usize = 5;
const NUM_WINDOWS: u64 = 11;

fn key() -> ScoreKey {
    ScoreKey {
        tokens: hash_bytes(b"tokens"),
        layout: hash_bytes(b"layout"),
        reference: hash_bytes(b"reference"),
        precision: "f32".into(),
    }
}

/// Distinct, and exact in float16.
fn scores_of(window: u64) -> [f32; LENGTH] {
    std::array::from_fn(|t| -(window as f32) - t as f32 / 8.0)
}

fn open(store: &Path, shard: Shard) -> Result<ScoreWriter, Error> {
    ScoreWriter::open(store, &key(), NUM_WINDOWS, LENGTH, ScoreDtype::F16, shard)
}

/// Writes at most `limit` windows, `group` at a time.
fn write(writer: &mut ScoreWriter, group: u64, limit: u64) {
    let end = writer.windows().end.min(writer.next_window() + limit);
    while writer.next_window() < end {
        let first = writer.next_window();
        let scores: Vec<f32> = (first..end.min(first + group)).flat_map(scores_of).collect();
        writer.write(first, &scores).unwrap();
    }
}

fn score(store: &Path, shard: Shard) -> Merge {
    let mut writer = open(store, shard).unwrap();
    write(&mut writer, 2, NUM_WINDOWS);
    writer.finish().unwrap()
}

fn complete(num_shards: u32) -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    for shard in Shard::all(num_shards) {
        score(home.path(), shard);
    }
    home
}

/// All files below a directory with their content, by path.
fn contents(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(contents(&path));
        } else {
            files.push((path.display().to_string(), fs::read(path).unwrap()));
        }
    }
    files.sort();
    files
}

fn same_contents(one: &Path, other: &Path) {
    let strip = |directory: &Path| {
        let prefix = directory.display().to_string();
        contents(directory)
            .into_iter()
            .map(|(path, bytes)| (path[prefix.len()..].to_owned(), bytes))
            .collect::<Vec<_>>()
    };
    assert_eq!(strip(one), strip(other));
}

#[test]
fn scores_come_back_by_window_from_any_number_of_shards() {
    for num_shards in [1, 3, 11, 20] {
        let home = complete(num_shards);
        let store = ScoreStore::open(home.path(), &key()).unwrap();
        assert_eq!(
            (store.num_windows(), store.length(), store.dtype()),
            (NUM_WINDOWS, LENGTH, ScoreDtype::F16)
        );
        assert_eq!(store.key(), &key());
        store.verify().unwrap();
        let mut out = [0.0; LENGTH];
        for window in (0..NUM_WINDOWS).rev() {
            store.scores(window, &mut out).unwrap();
            assert_eq!(out, scores_of(window), "window {window} of {num_shards} shards");
        }
        let error = store.scores(NUM_WINDOWS, &mut out).unwrap_err().to_string();
        assert!(error.starts_with("window 11 is beyond the 11 windows of the scores in `"), "{error}");
        let error = store.scores(0, &mut out[1..]).unwrap_err().to_string();
        assert!(error.ends_with("have window length 5, but 4 is wanted"), "{error}");
    }
}

#[test]
fn the_data_are_little_endian_rows() {
    let home = complete(1);
    let bytes = fs::read(home.path().join("shard-0001-of-0001/scores.bin")).unwrap();
    assert_eq!(bytes.len(), 2 * LENGTH * NUM_WINDOWS as usize);
    let expected = half::f16::from_f32(-(7.0 + 3.0 / 8.0)).to_le_bytes();
    assert_eq!(bytes[2 * (7 * LENGTH + 3)..][..2], expected);
    let manifest: serde_json::Value =
        serde_json::from_slice(&fs::read(home.path().join("manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest["format_version"], 1);
    assert_eq!(manifest["tokens"], hash_bytes(b"tokens"));
    assert_eq!(manifest["layout"], hash_bytes(b"layout"));
    assert_eq!(manifest["reference"], hash_bytes(b"reference"));
    assert_eq!(manifest["num_windows"], NUM_WINDOWS);
    assert_eq!(manifest["length"], LENGTH);
    assert_eq!(manifest["dtype"], "f16");
    assert_eq!(manifest["shards"][0]["blake3"], hash_bytes(&bytes));
}

#[test]
fn float32_scores_are_exact() {
    let home = tempfile::tempdir().unwrap();
    let scores = [-0.1f32, -1e-30, -123456.78];
    let mut writer = ScoreWriter::open(home.path(), &key(), 1, 3, ScoreDtype::F32, Shard::WHOLE).unwrap();
    writer.write(0, &scores).unwrap();
    assert_eq!(writer.finish().unwrap(), Merge::Complete);
    let mut out = [0.0; 3];
    ScoreStore::open(home.path(), &key()).unwrap().scores(0, &mut out).unwrap();
    assert_eq!(out, scores);
}

/// Dropping without `sync` and appending garbage is what a kill inside a write leaves.
#[test]
fn a_stopped_shard_goes_on_from_what_is_durable() {
    let whole = complete(2);
    let home = tempfile::tempdir().unwrap();
    let shard = Shard { index: 1, count: 2 };
    let windows = shard.windows(NUM_WINDOWS);
    let data = home.path().join("shard-0002-of-0002/scores.bin");
    let journal = home.path().join("shard-0002-of-0002/journal");
    let mut writer = open(home.path(), shard).unwrap();
    assert_eq!((writer.windows(), writer.next_window()), (windows.clone(), windows.start));
    write(&mut writer, 1, 2);
    writer.sync().unwrap();
    write(&mut writer, 1, 1);
    drop(writer);
    atomic_append(&data, b"torn");
    atomic_append(&journal, b"3");

    let mut writer = open(home.path(), shard).unwrap();
    assert_eq!(writer.next_window(), windows.start + 2, "the third window was written but not claimed");
    write(&mut writer, 1, NUM_WINDOWS);
    assert!(matches!(writer.finish().unwrap(), Merge::Waiting(_)));
    score(home.path(), Shard { index: 0, count: 2 });
    same_contents(whole.path(), home.path());
    // The same commands again change nothing.
    for shard in Shard::all(2) {
        let writer = open(home.path(), shard).unwrap();
        assert_eq!(writer.next_window(), writer.windows().end);
        assert_eq!(writer.finish().unwrap(), Merge::Complete);
    }
    same_contents(whole.path(), home.path());
}

fn atomic_append(path: &Path, bytes: &[u8]) {
    crate::atomic::append(path, bytes).unwrap();
}

/// Killed between the last shard's completion and the manifest.
#[test]
fn the_manifest_is_made_by_whoever_comes_next() {
    let home = complete(2);
    let manifest = fs::read(home.path().join("manifest.json")).unwrap();
    fs::remove_file(home.path().join("manifest.json")).unwrap();
    ScoreStore::open(home.path(), &key()).unwrap().verify().unwrap();
    assert_eq!(merge(home.path()).unwrap(), Merge::Complete);
    assert_eq!(fs::read(home.path().join("manifest.json")).unwrap(), manifest);
}

#[test]
fn shards_that_finish_together_make_one_manifest() {
    let whole = complete(8);
    for _ in 0..4 {
        let home = tempfile::tempdir().unwrap();
        let merges: Vec<Merge> = std::thread::scope(|scope| {
            let threads: Vec<_> = Shard::all(8)
                .map(|shard| {
                    scope.spawn({
                        let home = &home;
                        move || score(home.path(), shard)
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(merges.contains(&Merge::Complete));
        same_contents(whole.path(), home.path());
    }
}

#[test]
fn each_of_the_three_differences_is_named() {
    let home = complete(1);
    let check = |wanted: ScoreKey, expected: &[String]| {
        let error = ScoreStore::open(home.path(), &wanted).unwrap_err();
        let message = error.to_string();
        assert_eq!(
            message,
            format!("the scores in `{}` are of {}", home.path().display(), expected.join(" and "))
        );
        assert!(error.hint().unwrap().contains("remit score"), "{:?}", error.hint());
        let resumed =
            ScoreWriter::open(home.path(), &wanted, NUM_WINDOWS, LENGTH, ScoreDtype::F16, Shard::WHOLE)
                .unwrap_err();
        assert_eq!(resumed.to_string(), message);
    };
    let other = hash_bytes(b"other");
    let difference = |what: &str, stored: &str| {
        format!("another {what} ({} there, {} wanted)", &stored[..12], &other[..12])
    };
    let tokens = difference("token store", &key().tokens);
    let layout = difference("window layout", &key().layout);
    let reference = difference("reference", &key().reference);
    check(ScoreKey { tokens: other.clone(), ..key() }, std::slice::from_ref(&tokens));
    check(ScoreKey { layout: other.clone(), ..key() }, &[layout]);
    check(ScoreKey { reference: other.clone(), ..key() }, std::slice::from_ref(&reference));
    check(ScoreKey { tokens: other.clone(), reference: other.clone(), ..key() }, &[tokens, reference]);
    let precision = "another precision (f32 there, bf16 wanted)".to_owned();
    check(ScoreKey { precision: "bf16".into(), ..key() }, &[precision]);
}

#[test]
fn what_was_begun_otherwise_is_not_gone_on_with() {
    let home = tempfile::tempdir().unwrap();
    drop(open(home.path(), Shard { index: 0, count: 2 }).unwrap());
    let check = |num_windows, length, dtype, shard: Shard, expected: &str| {
        let error = ScoreWriter::open(home.path(), &key(), num_windows, length, dtype, shard).unwrap_err();
        assert!(error.to_string().ends_with(expected), "{error}");
    };
    let second = Shard { index: 1, count: 2 };
    check(12, 5, ScoreDtype::F16, second, "have number of windows 11, but 12 is wanted");
    check(11, 6, ScoreDtype::F16, second, "have window length 5, but 6 is wanted");
    check(11, 5, ScoreDtype::F32, second, "have dtype f16, but f32 is wanted");
    check(11, 5, ScoreDtype::F16, Shard::WHOLE, "were begun in 2 shard(s), not in 1");
    check(11, 5, ScoreDtype::F16, Shard { index: 2, count: 2 }, "and n at most 9999");
    let other = ScoreKey { layout: "other".into(), ..key() };
    let error = ScoreWriter::open(home.path(), &other, 11, 5, ScoreDtype::F16, second).unwrap_err();
    assert!(error.to_string().contains("another window layout"), "{error}");
    let first = open(home.path(), Shard { index: 0, count: 2 }).unwrap();
    let error = open(home.path(), Shard { index: 0, count: 2 }).unwrap_err();
    assert!(error.to_string().contains("is using score shard `"), "{error}");
    drop(first);
}

#[test]
fn missing_shards_are_named() {
    let home = tempfile::tempdir().unwrap();
    let check = |expected: &str| {
        let error = ScoreStore::open(home.path(), &key()).unwrap_err().to_string();
        assert!(error.ends_with(expected), "{error:?} should end with {expected:?}");
    };
    let error = ScoreStore::open(&home.path().join("nowhere"), &key()).unwrap_err();
    assert!(error.to_string().starts_with("there are no scores in `"), "{error}");
    assert!(error.hint().unwrap().contains("remit score"));
    check("`");
    assert!(matches!(score(home.path(), Shard { index: 1, count: 3 }), Merge::Waiting(_)));
    let mut writer = open(home.path(), Shard { index: 0, count: 3 }).unwrap();
    write(&mut writer, 1, 2);
    let error = writer.finish().unwrap_err().to_string();
    assert!(error.ends_with("are not complete: shard 1/3 has 2 of 3 windows"), "{error}");
    check("are not complete: shard 1/3 has 2 of 3 windows, shard 3/3 has not been begun");
    let other = ScoreKey { tokens: "other".into(), ..key() };
    let error = ScoreStore::open(home.path(), &other).unwrap_err().to_string();
    assert!(error.contains("another token store"), "{error}");
}

#[test]
fn damaged_stores_name_the_file() {
    let check = |damage: &dyn Fn(&Path), expected: &str| {
        let home = complete(2);
        damage(home.path());
        let error = ScoreStore::open(home.path(), &key()).and_then(|store| store.verify()).unwrap_err();
        assert!(error.to_string().contains(expected), "{error} should contain {expected:?}");
        error.hint().unwrap();
    };
    let data = |home: &Path| home.join("shard-0002-of-0002/scores.bin");
    let edit = |from: &'static str, to: &'static str| {
        move |home: &Path| {
            let path = home.join("manifest.json");
            let text = fs::read_to_string(&path).unwrap();
            assert!(text.contains(from), "{text}");
            fs::write(path, text.replace(from, to)).unwrap();
        }
    };
    check(
        &|home| fs::remove_file(data(home)).unwrap(),
        "shard-0002-of-0002/scores.bin` is not a whole part of a score store: it is missing",
    );
    check(
        &|home| fs::write(data(home), [0; 59]).unwrap(),
        "it has 59 bytes, and 6 windows of 5 scores in f16 take 60",
    );
    check(&|home| fs::write(data(home), [0; 60]).unwrap(), "its content has changed since it was written");
    check(&edit("{", ""), "manifest.json` is not a whole part of a score store");
    check(
        &edit("\"format_version\": 1", "\"format_version\": 9"),
        "has format version 9, and version 1 is supported",
    );
    check(&edit("\"num_windows\": 11", "\"num_windows\": 18446744073709551615"), "take 18446744073709551615");
    check(&edit("\"length\": 5", "\"length\": 6"), "and 5 windows of 6 scores in f16 take 60");
    check(&edit("\"f16\"", "\"f64\""), "unknown variant `f64`");

    let home = tempfile::tempdir().unwrap();
    let mut writer = open(home.path(), Shard::WHOLE).unwrap();
    write(&mut writer, 1, 3);
    writer.sync().unwrap();
    drop(writer);
    fs::write(home.path().join("shard-0001-of-0001/scores.bin"), [0; 29]).unwrap();
    let error = open(home.path(), Shard::WHOLE).unwrap_err().to_string();
    assert!(error.contains("it has 29 bytes, but the journal beside it counts 3 windows of 11"), "{error}");
}

#[test]
fn a_score_that_is_not_finite_is_refused_with_its_place() {
    let home = tempfile::tempdir().unwrap();
    let mut writer = open(home.path(), Shard::WHOLE).unwrap();
    write(&mut writer, 1, 1);
    for value in [f32::NAN, f32::NEG_INFINITY, f32::INFINITY] {
        let mut scores = [scores_of(1), scores_of(2), scores_of(3)].concat();
        scores[LENGTH + 3] = value;
        let error = writer.write(1, &scores).unwrap_err();
        assert_eq!(error.to_string(), format!("the score of window 2 at position 3 is {value}"));
        assert_eq!(writer.next_window(), 1);
    }
    write(&mut writer, 4, NUM_WINDOWS);
    assert_eq!(writer.finish().unwrap(), Merge::Complete);
    same_contents(complete(1).path(), home.path());
}
