//! What a run writes down as it goes: `metrics.jsonl`, `timings.jsonl` and TensorBoard's event files.
//!
//! `metrics.jsonl` holds only what follows from settings and data, and is cut back to the checkpoint on resume, so a
//! run that was killed ends with the same bytes as one that was not. Whatever a clock says goes to `timings.jsonl`.
//! The event files under `tensorboard/` repeat both for TensorBoard; every start of a run adds one.

mod records;
pub mod tensorboard;

use std::path::Path;

use remit_results::files;
use remit_store::Error;
use remit_store::json_lines::JsonLines;
use serde_json::Value;

pub use records::{EvalRecord, HealthRecord, Record, StepRecord, StepTiming};
pub use remit_objective::WeightFigures;
use tensorboard::EventWriter;

/// The open logs of one run directory.
#[derive(Debug)]
pub struct MetricsLog {
    metrics: JsonLines,
    timings: JsonLines,
    events: EventWriter,
}

impl MetricsLog {
    /// Opens the logs of the run in `directory`, which exists.
    ///
    /// `resumed_step` is the step of the checkpoint that the run goes on from: the first later line and everything
    /// after it are cut off. Without one the run starts from nothing and so do its logs. A step's evaluation must
    /// therefore be logged before its checkpoint is saved: a resumed run keeps the line and does not evaluate again.
    ///
    /// # Errors
    /// When a log cannot be read or written, or a line before the cut is not a JSON object.
    pub fn open(directory: &Path, resumed_step: Option<u64>) -> Result<MetricsLog, Error> {
        // A line without a step belongs to no run of ours; it and what follows are written anew.
        let keep = |line: &Value| match (resumed_step, line.get("step").and_then(Value::as_u64)) {
            (Some(resumed), Some(step)) => step <= resumed,
            _ => false,
        };
        Ok(MetricsLog {
            metrics: JsonLines::open_truncated_after(&directory.join(files::METRICS), keep)?,
            timings: JsonLines::open_truncated_after(&directory.join(files::TIMINGS), keep)?,
            events: EventWriter::create(
                &directory.join(files::TENSORBOARD),
                resumed_step.map_or(0, |step| step + 1),
            )?,
        })
    }

    /// Logs one step.
    ///
    /// # Errors
    /// When a log cannot be written.
    ///
    /// # Panics
    /// When a figure is not finite: such a step is stopped before it is logged, and JSON has no word for it.
    pub fn step(&mut self, record: &StepRecord, timing: &StepTiming) -> Result<(), Error> {
        let mut scalars = records::scalars(record);
        for (name, value) in &scalars {
            assert!(value.is_finite(), "{name} of step {} is {value}", record.step);
        }
        self.metrics.append(record)?;
        self.timings.append(timing)?;
        scalars.push(("speed/tokens_per_second".into(), timing.tokens_per_second));
        let scalars: Vec<(&str, f64)> = scalars.iter().map(|(tag, value)| (tag.as_str(), *value)).collect();
        self.events.scalars(record.step, &scalars)
    }

    /// Logs one evaluation on held-out data.
    ///
    /// # Errors
    /// When a log cannot be written.
    ///
    /// # Panics
    /// When a loss is not finite; see [`MetricsLog::step`].
    pub fn eval(&mut self, record: &EvalRecord) -> Result<(), Error> {
        for (name, value) in &record.held_out {
            assert!(value.is_finite(), "the loss of {name} after step {} is {value}", record.step);
        }
        self.metrics.append(record)?;
        let tags: Vec<String> = record.held_out.keys().map(|name| format!("held_out/{name}")).collect();
        let scalars: Vec<(&str, f64)> =
            tags.iter().zip(record.held_out.values()).map(|(tag, value)| (tag.as_str(), *value)).collect();
        self.events.scalars(record.step, &scalars)
    }

    /// Logs a broken rule.
    ///
    /// # Errors
    /// When the log cannot be written.
    pub fn health(&mut self, record: &HealthRecord) -> Result<(), Error> {
        self.metrics.append(record)
    }

    /// Brings the logs to the disk. Called before a checkpoint is saved, it keeps the log from being behind the
    /// checkpoint after a loss of power.
    ///
    /// # Errors
    /// When a log cannot be synced.
    pub fn sync(&mut self) -> Result<(), Error> {
        self.metrics.sync()?;
        self.timings.sync()?;
        self.events.sync()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;

    use super::*;

    fn record(step: u64, weighted: bool) -> StepRecord {
        StepRecord {
            step,
            tokens: step * 2048,
            loss: 3.5 - step as f64 / 7.0,
            ntp_loss: Some(3.25),
            learning_rate: 1e-3,
            grad_norm: 0.5,
            z_loss: None,
            weights: weighted.then_some(WeightFigures {
                mean_weight: 1.0 / 3.0,
                std_weight: 0.1,
                clipped_low: 0.25,
                clipped_high: 0.125,
                weighted_up: 0.5,
                effective_sample_share: 0.75,
                mean_delta: Some(-0.0625),
            }),
            figures: BTreeMap::new(),
        }
    }

    fn log(log: &mut MetricsLog, steps: std::ops::RangeInclusive<u64>) {
        for step in steps {
            // Times differ from run to run; metrics must not.
            let seconds = 0.1 + step as f64 * f64::from(std::process::id());
            let timing =
                StepTiming { step, seconds, tokens_per_second: 2048.0 / seconds, parts: BTreeMap::new() };
            log.step(&record(step, true), &timing).unwrap();
            if step % 2 == 0 {
                let held_out = BTreeMap::from([("text".to_string(), 3.0), ("gsm8k".to_string(), 1.5)]);
                log.eval(&EvalRecord { step, tokens: step * 2048, held_out }).unwrap();
            }
        }
    }

    #[test]
    fn lines_are_the_file_format() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = MetricsLog::open(folder.path(), None).unwrap();
        let timing = StepTiming { step: 1, seconds: 0.5, tokens_per_second: 4096.0, parts: BTreeMap::new() };
        log.step(&record(1, false), &timing).unwrap();
        log.step(&record(2, true), &StepTiming { step: 2, ..timing.clone() }).unwrap();
        let held_out = BTreeMap::from([("text".to_string(), 3.0), ("gsm8k".to_string(), 1.5)]);
        log.eval(&EvalRecord { step: 2, tokens: 4096, held_out }).unwrap();
        let metrics = fs::read_to_string(folder.path().join("metrics.jsonl")).unwrap();
        assert_eq!(
            metrics.lines().collect::<Vec<_>>(),
            [
                r#"{"step":1,"tokens":2048,"loss":3.357142857142857,"ntp_loss":3.25,"learning_rate":0.001,"grad_norm":0.5}"#,
                r#"{"step":2,"tokens":4096,"loss":3.2142857142857144,"ntp_loss":3.25,"learning_rate":0.001,"grad_norm":0.5,"mean_weight":0.3333333333333333,"std_weight":0.1,"clipped_low":0.25,"clipped_high":0.125,"weighted_up":0.5,"effective_sample_share":0.75,"mean_delta":-0.0625}"#,
                r#"{"step":2,"tokens":4096,"held_out":{"gsm8k":1.5,"text":3.0}}"#,
            ]
        );
        let timings = fs::read_to_string(folder.path().join("timings.jsonl")).unwrap();
        assert_eq!(
            timings,
            "{\"step\":1,\"seconds\":0.5,\"tokens_per_second\":4096.0}\n\
             {\"step\":2,\"seconds\":0.5,\"tokens_per_second\":4096.0}\n"
        );
        let read: Vec<Record> = metrics.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(read[0], Record::Step(record(1, false)));
        assert_eq!(read[1], Record::Step(record(2, true)));
        assert!(matches!(&read[2], Record::Eval(eval) if eval.held_out["gsm8k"] == 1.5));
    }

    #[test]
    fn a_resumed_run_writes_the_same_metrics() {
        let [straight, killed] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        log(&mut MetricsLog::open(straight.path(), None).unwrap(), 1..=9);
        log(&mut MetricsLog::open(killed.path(), None).unwrap(), 1..=7);
        // Killed in the middle of a line of step 8, last checkpoint at step 4.
        let metrics = killed.path().join("metrics.jsonl");
        let torn = fs::read_to_string(&metrics).unwrap() + "{\"step\":8,\"lo";
        fs::write(&metrics, torn).unwrap();
        log(&mut MetricsLog::open(killed.path(), Some(4)).unwrap(), 5..=9);
        for (name, lines) in [("metrics.jsonl", 13), ("timings.jsonl", 9)] {
            let [straight, killed] =
                [&straight, &killed].map(|folder| fs::read_to_string(folder.path().join(name)).unwrap());
            assert_eq!(straight, killed, "{name}");
            assert_eq!(straight.lines().count(), lines);
        }
        let mut events: Vec<_> = fs::read_dir(killed.path().join("tensorboard"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        events.sort();
        let steps: Vec<Vec<u64>> = events
            .iter()
            .map(|path| tensorboard::tests::read_scalars(path).iter().map(|(step, _)| *step).collect())
            .collect();
        assert_eq!(steps, [vec![1, 2, 2, 3, 4, 4, 5, 6, 6, 7], vec![5, 6, 6, 7, 8, 8, 9]]);
    }

    #[test]
    fn a_run_from_nothing_starts_its_logs_from_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut first = MetricsLog::open(folder.path(), None).unwrap();
        first.eval(&EvalRecord { step: 0, tokens: 0, held_out: BTreeMap::new() }).unwrap();
        log(&mut first, 1..=3);
        MetricsLog::open(folder.path(), None).unwrap();
        assert_eq!(fs::read(folder.path().join("metrics.jsonl")).unwrap(), b"");
        assert_eq!(fs::read(folder.path().join("timings.jsonl")).unwrap(), b"");
    }

    #[test]
    #[should_panic(expected = "train/loss of step 3 is NaN")]
    fn a_loss_that_is_not_a_number_is_never_logged() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = MetricsLog::open(folder.path(), None).unwrap();
        let timing = StepTiming { step: 3, seconds: 1.0, tokens_per_second: 1.0, parts: BTreeMap::new() };
        let _ = log.step(&StepRecord { loss: f64::NAN, ..record(3, true) }, &timing);
    }
}
