//! An append-only log of JSON objects, one a line, that a resumed run continues as if it had never stopped.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use crate::Error;
use crate::damage;

/// An open log.
#[derive(Debug)]
pub struct JsonLines {
    path: PathBuf,
    file: File,
    /// Length of the file, all of it whole lines.
    bytes: u64,
}

impl JsonLines {
    /// Opens the log at `path`, made if missing, and cuts it before the first line that `keep` refuses. With `keep`
    /// accepting the lines up to a checkpoint's step, the run that goes on from there writes the same file as one that
    /// was never stopped. A last line that a kill has torn is dropped. The cut is one truncation: it happens or not.
    ///
    /// # Errors
    /// A line before the cut that is not a JSON object, by its number; a refusal of the operating system.
    pub fn open_truncated_after(path: &Path, keep: impl Fn(&Value) -> bool) -> Result<JsonLines, Error> {
        let kept = match File::open(path) {
            Ok(file) => kept_bytes(path, file, keep)?,
            Err(cause) if cause.kind() == ErrorKind::NotFound => 0,
            Err(cause) => return Err(Error::io("open", path, cause)),
        };
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .map_err(|cause| Error::io("open", path, cause))?;
        // Not flushed: the next process, too, would cut what a loss of power brings back.
        file.set_len(kept).map_err(|cause| Error::io("cut", path, cause))?;
        Ok(JsonLines { path: path.to_owned(), file, bytes: kept })
    }

    /// Writes one object as one line and hands it to the operating system, so that a kill of this process cannot
    /// lose it.
    ///
    /// # Errors
    /// A refusal of the operating system; the part of the line that was written is taken back.
    ///
    /// # Panics
    /// Where `value` does not serialize to a JSON object.
    pub fn append(&mut self, value: &impl Serialize) -> Result<(), Error> {
        let mut line = serde_json::to_vec(value).expect("what is logged has string keys");
        assert_eq!(line.first(), Some(&b'{'), "a line of `{}` is an object", self.path.display());
        line.push(b'\n');
        if let Err(cause) = self.file.write_all(&line) {
            // A full disk takes half a line; the next line must not end up on it.
            let _ = self.file.set_len(self.bytes);
            return Err(Error::io("append to", &self.path, cause));
        }
        self.bytes += line.len() as u64;
        Ok(())
    }

    /// Flushes all lines to the device. Called before a checkpoint is saved, no loss of power leaves a log that is
    /// behind the checkpoint.
    ///
    /// # Errors
    /// A refusal of the operating system.
    pub fn sync(&self) -> Result<(), Error> {
        self.file.sync_data().map_err(|cause| Error::io("flush", &self.path, cause))
    }
}

/// Length of the lines up to the first that `keep` refuses or that is torn.
fn kept_bytes(path: &Path, file: File, keep: impl Fn(&Value) -> bool) -> Result<u64, Error> {
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    let mut kept = 0;
    for number in 1.. {
        line.clear();
        reader.read_until(b'\n', &mut line).map_err(|cause| Error::io("read", path, cause))?;
        if line.last() != Some(&b'\n') {
            break; // the end, or a torn line
        }
        let value = match serde_json::from_slice(&line) {
            Ok(value @ Value::Object(_)) => value,
            Ok(_) => return Err(damaged(path, number, "it is not an object")),
            Err(error) => return Err(damaged(path, number, &error.to_string())),
        };
        if !keep(&value) {
            break;
        }
        kept += line.len() as u64;
    }
    Ok(kept)
}

fn damaged(path: &Path, number: u64, problem: &str) -> Error {
    damage::damaged(path, "log of JSON lines", format_args!("line {number}: {problem}"))
        .with_hint("repair or remove that line")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;

    fn up_to(step: u64) -> impl Fn(&Value) -> bool {
        move |line| line["step"].as_u64().is_some_and(|at| at <= step)
    }

    fn log(log: &mut JsonLines, steps: std::ops::RangeInclusive<u64>) {
        for step in steps {
            log.append(&json!({ "step": step, "loss": 1.0 / step as f64 })).unwrap();
            if step % 2 == 0 {
                log.append(&json!({ "step": step, "held_out": "yes" })).unwrap();
            }
        }
    }

    /// Killed after any byte and resumed from any checkpoint before it, the log ends as if never stopped.
    #[test]
    fn a_resumed_log_is_the_uninterrupted_one() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("metrics.jsonl");
        log(&mut JsonLines::open_truncated_after(&path, up_to(0)).unwrap(), 1..=6);
        let whole = fs::read(&path).unwrap();
        let checkpoint_end = |step| {
            fs::write(&path, &whole).unwrap();
            JsonLines::open_truncated_after(&path, up_to(step)).unwrap().bytes as usize
        };
        for step in [0, 2, 3, 6] {
            for killed_at in checkpoint_end(step)..=whole.len() {
                fs::write(&path, &whole[..killed_at]).unwrap();
                log(&mut JsonLines::open_truncated_after(&path, up_to(step)).unwrap(), step + 1..=6);
                assert_eq!(fs::read(&path).unwrap(), whole, "step {step}, byte {killed_at}");
            }
        }
    }

    #[test]
    fn lines_are_there_at_once() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("metrics.jsonl");
        let mut log = JsonLines::open_truncated_after(&path, |_| true).unwrap();
        log.append(&json!({ "step": 1 })).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"step\":1}\n");
        log.sync().unwrap();
    }

    #[test]
    fn a_damaged_line_is_named() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("metrics.jsonl");
        let check = |text: &str, expected: &str| {
            fs::write(&path, text).unwrap();
            let error = JsonLines::open_truncated_after(&path, up_to(9)).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text, "nothing is cut");
        };
        check(
            "{\"step\":1}\n{\"step\":\n{\"step\":3}\n",
            "metrics.jsonl` is not a whole log of JSON lines: line 2: EOF while parsing",
        );
        check("{\"step\":1}\n7\n", "line 2: it is not an object");
    }
}
