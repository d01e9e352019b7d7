//! A run: steps, evaluations, checkpoints and metrics, from wherever the run directory stands to its end.
//!
//! Every stage runs here. What differs from stage to stage is its [`Method`], what a step does; everything else is its
//! [`Frame`].

use crate::Error;
use crate::health::{Health, Monitor};
use crate::held_out::HeldOutPlan;
use crate::metrics::{EvalRecord, HealthRecord, MetricsLog, Record, StepRecord, StepTiming, WeightFigures};
use crate::resume::{self, Progress};
use crate::settings::{CHANGEABLE, Checkpoints, Moments};
use remit_corpus::Companions;
use remit_engine::state::has_moments;
use remit_engine::{Engine, Learning, Origin, Usage};
use remit_model::Architecture;
use remit_optim::Schedule;
use remit_results::files;
use remit_store::atomic;
use remit_store::checkpoint::{Retention, RunDirectory, checkpoints_of};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Everything about a run but what its steps do.
#[derive(Debug)]
pub struct Frame {
    /// The run directory.
    pub run: PathBuf,
    /// What is kept in its `settings.toml`.
    pub settings: toml::Table,
    /// Hashes of what it reads, by what it is: paths stay the same where what lies there does not.
    pub inputs: BTreeMap<String, String>,
    /// How many steps there are.
    pub steps: u64,
    /// The learning rate where the schedule is at its peak.
    pub learning_rate: f64,
    /// Its course.
    pub schedule: Schedule,
    /// The learner to begin with.
    pub start: Start,
    /// How a gradient is made and becomes an update.
    pub learning: Learning,
    /// What the learner's batches are like.
    pub usage: Usage,
    /// What goes into checkpoints beside the model.
    pub companions: Companions,
    /// When and how checkpoints are written.
    pub checkpoints: Checkpoints,
    /// What is evaluated on the way.
    pub held_out: HeldOutPlan,
    /// What is looked at on the way, and what is done about it.
    pub health: Health,
}

/// The learner of a run that has no checkpoint yet.
#[derive(Clone, Debug)]
pub enum Start {
    /// Random parameters from a seed.
    Fresh(Box<Architecture>, u64),
    /// A checkpoint, and what becomes of its moments.
    From(PathBuf, Moments),
}

/// What a run does at each of its steps.
pub trait Method {
    /// What can go wrong.
    type Error: From<Error>;

    /// Does what is to be done before the learner is loaded. Not called for a run that is at its end.
    fn prepare(&mut self, _engine: &mut dyn Engine, _observer: &mut dyn Observer) -> Result<(), Self::Error> {
        Ok(())
    }

    /// Opens what steps need beside the learner, which is there.
    fn begin(&mut self, _engine: &mut dyn Engine) -> Result<(), Self::Error> {
        Ok(())
    }

    /// Takes a step, whose number `progress` has already, and moves its cursor. What it does must follow from the
    /// learner, its moments and `progress` alone: a run that was killed does it again.
    fn step(
        &mut self,
        engine: &mut dyn Engine,
        progress: &mut Progress,
        learning_rate: f64,
    ) -> Result<Taken, Self::Error>;

    /// Brings to the disk what steps have written, ahead of the checkpoint that counts on it.
    fn sync(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }
}

/// A step that was taken.
#[derive(Clone, Debug, PartialEq)]
pub struct Taken {
    /// Its line in the log.
    pub record: StepRecord,
    /// Seconds of its parts, by name, where it has any.
    pub parts: BTreeMap<String, f64>,
    /// Tokens that its time was spent on, for the speed that is shown.
    pub tokens: u64,
}

/// Someone who watches a run.
pub trait Observer {
    /// The run begins or goes on behind `step` of `steps`.
    fn begin(&mut self, step: u64, steps: u64);
    /// A step was taken.
    fn step(&mut self, record: &StepRecord, timing: &StepTiming);
    /// Held-out text was evaluated.
    fn eval(&mut self, record: &EvalRecord);
    /// A rule of the run's health is broken, for the first time. One that stops the run is its error as well.
    fn health(&mut self, _record: &HealthRecord) {}
    /// Something a person should know.
    fn message(&mut self, text: &str);
    /// The reference has read `done` of `total` sequences ahead of the run, the last of them with so many predictions.
    fn reference(&mut self, _done: u64, _total: u64, _predictions: u64) {}
}

/// An observer that looks away.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {
    fn begin(&mut self, _: u64, _: u64) {}
    fn step(&mut self, _: &StepRecord, _: &StepTiming) {}
    fn eval(&mut self, _: &EvalRecord) {}
    fn message(&mut self, _: &str) {}
}

/// What a finished run has to show.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Summary {
    /// Steps of the run.
    pub steps: u64,
    /// Its last checkpoint.
    pub checkpoint: PathBuf,
    /// Held-out losses after the last step.
    pub held_out: BTreeMap<String, f64>,
    /// The last step.
    pub last: Option<StepRecord>,
    /// Weights averaged over all steps, where the objective weighs tokens.
    pub weights: Option<WeightFigures>,
}

/// Runs to the end; the same call again goes on where the last one was stopped, and does nothing when it was not.
pub fn run<M: Method>(
    frame: &Frame,
    method: &mut M,
    engine: &mut dyn Engine,
    observer: &mut dyn Observer,
) -> Result<Summary, M::Error> {
    let directory = RunDirectory::open_or_create(&frame.run).map_err(Error::from)?;
    let latest = directory.latest().map_err(Error::from)?;
    check_settings(frame, directory.path(), latest.is_some())?;
    check_inputs(frame, directory.path(), latest.is_some())?;
    let keep = keep(&frame.checkpoints);
    let resumed = latest.as_ref().map(|checkpoint| checkpoint.step());
    let mut monitor = Monitor::open(&frame.health, &directory.path().join(files::METRICS), resumed)?;
    if let Some(checkpoint) = &latest {
        checkpoint.verify().map_err(Error::from)?;
        // A kill between a checkpoint and the removal of older ones leaves one too many.
        directory.retain(keep).map_err(Error::from)?;
        if let Some(error) = monitor.stopped() {
            return Err(error.into());
        }
        if checkpoint.step() >= frame.steps {
            return Ok(summary(directory.path(), frame.steps, checkpoint.path())?);
        }
    }
    engine.clear();
    method.prepare(engine, observer)?;
    let (origin, mut progress) = match &latest {
        Some(checkpoint) => resume::load(checkpoint.path())?,
        None => begin(&frame.start, observer)?,
    };
    let mut metrics = MetricsLog::open(directory.path(), resumed).map_err(Error::from)?;
    engine.learn(&origin, &frame.learning, &frame.usage).map_err(Error::from)?;
    method.begin(engine)?;
    record_engine(engine.about(), progress.step, directory.path())?;
    observer.begin(progress.step, frame.steps);
    if latest.is_none() {
        frame.held_out.evaluate(engine, &progress, &mut metrics, &mut monitor, observer)?;
    }
    while progress.step < frame.steps {
        let record = take_step(frame, method, engine, &mut progress, &mut metrics, observer)?;
        monitor.step(&record, &mut metrics, observer)?;
        let is_last = progress.step == frame.steps;
        if is_last || due(progress.step, frame.held_out.every) {
            frame.held_out.evaluate(engine, &progress, &mut metrics, &mut monitor, observer)?;
        }
        let unhealthy = monitor.stopped();
        let settings = &frame.checkpoints;
        if is_last
            || unhealthy.is_some()
            || due(progress.step, settings.permanent_every)
            || due(progress.step, settings.ephemeral_every)
        {
            // The logs are on disk before the checkpoint that counts on them.
            metrics.sync().map_err(Error::from)?;
            method.sync()?;
            progress.updates = engine.updates();
            directory.save_checkpoint(progress.step, |path| {
                resume::save(engine, &progress, settings, &frame.companions, path)
            })?;
            directory.retain(keep).map_err(Error::from)?;
        }
        if let Some(error) = unhealthy {
            return Err(error.into());
        }
    }
    engine.clear();
    let checkpoint = directory.latest().map_err(Error::from)?.expect("the last step saves a checkpoint");
    Ok(summary(directory.path(), frame.steps, checkpoint.path())?)
}

/// One step and its line in the log.
fn take_step<M: Method>(
    frame: &Frame,
    method: &mut M,
    engine: &mut dyn Engine,
    progress: &mut Progress,
    metrics: &mut MetricsLog,
    observer: &mut dyn Observer,
) -> Result<StepRecord, M::Error> {
    let started = Instant::now();
    let learning_rate = frame.learning_rate * frame.schedule.factor(progress.step, frame.steps);
    progress.step += 1;
    let Taken { record, parts, tokens } = method.step(engine, progress, learning_rate)?;
    let seconds = started.elapsed().as_secs_f64();
    let timing =
        StepTiming { step: progress.step, seconds, tokens_per_second: tokens as f64 / seconds, parts };
    metrics.step(&record, &timing).map_err(Error::from)?;
    observer.step(&record, &timing);
    Ok(record)
}

/// The learner and the progress of a run that has no checkpoint yet.
fn begin(start: &Start, observer: &mut dyn Observer) -> Result<(Origin, Progress), Error> {
    let (checkpoint, choice) = match start {
        Start::Fresh(architecture, seed) => {
            return Ok((
                Origin::Fresh { architecture: architecture.clone(), seed: *seed },
                Progress::start(0),
            ));
        }
        Start::From(checkpoint, choice) => (checkpoint, choice),
    };
    let kept = match choice {
        Moments::Keep if !has_moments(checkpoint) => {
            return Err(Error::NoMoments { checkpoint: checkpoint.clone() });
        }
        Moments::Keep => true,
        Moments::Auto => has_moments(checkpoint),
        Moments::Reset => false,
    };
    observer.message(&format!(
        "starting from `{}` with {} optimiser moments",
        checkpoint.display(),
        if kept { "its" } else { "fresh" }
    ));
    let moments = kept.then(|| resume::updates_of(checkpoint)).transpose()?;
    let origin = Origin::Checkpoint { path: checkpoint.clone(), moments };
    Ok((origin, Progress::start(moments.unwrap_or(0))))
}

/// An engine, and the step after which it took over.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct EngineRecord {
    after_step: u64,
    engine: String,
}

/// Keeps account of the engines of a run in `engines.json`, once one of them is not that of this process.
fn record_engine(about: Option<String>, step: u64, run: &Path) -> Result<(), Error> {
    let path = run.join("engines.json");
    if about.is_none() && !path.exists() {
        return Ok(());
    }
    let wrong = |problem: String| Error::State { path: path.clone(), problem };
    let mut records: Vec<EngineRecord> = match std::fs::read_to_string(&path) {
        Ok(text) => serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(wrong(error.to_string())),
    };
    if records.is_empty() && step > 0 {
        records.push(EngineRecord { after_step: 0, engine: "cpu".into() });
    }
    // What was done after the checkpoint that the run goes on from is done again.
    records.retain(|record| record.after_step < step);
    let engine = about.unwrap_or_else(|| "cpu".into());
    if records.last().is_none_or(|last| last.engine != engine) {
        records.push(EngineRecord { after_step: step, engine });
    }
    Ok(atomic::write_json(&path, &records)?)
}

fn keep(settings: &Checkpoints) -> Retention {
    Retention {
        every: (settings.permanent_every > 0).then_some(settings.permanent_every),
        last: settings.keep_last,
    }
}

fn due(step: u64, every: u64) -> bool {
    every > 0 && step.is_multiple_of(every)
}

/// A run directory keeps the settings it was begun with, and goes on with no others. Where no checkpoint was saved
/// there is nothing to go on with, and the run begins anew with the settings that it is given now. Its own path does
/// not count: a run may be moved. Nor do the rules of its health, which change no step: a run that they have stopped may
/// go on without them.
fn check_settings(frame: &Frame, run: &Path, has_checkpoint: bool) -> Result<(), Error> {
    let path = run.join(files::SETTINGS);
    let mut current = frame.settings.clone();
    let text = match std::fs::read_to_string(&path) {
        Ok(text) if has_checkpoint => text,
        _ => {
            let text = toml::to_string_pretty(&current).expect("a table can always be written");
            return Ok(atomic::write(&path, text.as_bytes())?);
        }
    };
    let mut before: toml::Table = toml::from_str(&text)
        .map_err(|error| Error::State { path: path.clone(), problem: error.message().to_owned() })?;
    for key in CHANGEABLE {
        before.remove(key);
        current.remove(key);
    }
    let mut differences = Vec::new();
    compare("", &before, &current, &mut differences);
    if differences.is_empty() {
        Ok(())
    } else {
        Err(Error::OtherSettings { run: run.to_owned(), differences })
    }
}

/// The same for what lies behind the paths in the settings.
fn check_inputs(frame: &Frame, run: &Path, has_checkpoint: bool) -> Result<(), Error> {
    let path = run.join(files::INPUTS);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) if has_checkpoint => text,
        _ => {
            return Ok(atomic::write_json(&path, &frame.inputs)?);
        }
    };
    let before: BTreeMap<String, String> = serde_json::from_str(&text)
        .map_err(|error| Error::State { path: path.clone(), problem: error.to_string() })?;
    let names: std::collections::BTreeSet<&String> = before.keys().chain(frame.inputs.keys()).collect();
    let show = |hash: Option<&String>| hash.map_or("(absent)".to_owned(), |hash| format!("{hash:.12}"));
    let differences: Vec<String> = names
        .into_iter()
        .map(|name| (name, before.get(name), frame.inputs.get(name)))
        .filter(|(_, before, now)| before != now)
        .map(|(name, before, now)| format!("{name}: {} -> {}", show(before), show(now)))
        .collect();
    if differences.is_empty() { Ok(()) } else { Err(Error::OtherInputs { run: run.to_owned(), differences }) }
}

fn compare(prefix: &str, before: &toml::Table, now: &toml::Table, differences: &mut Vec<String>) {
    let keys: std::collections::BTreeSet<&String> = before.keys().chain(now.keys()).collect();
    for key in keys {
        let name = format!("{prefix}{key}");
        match (before.get(key), now.get(key)) {
            (Some(toml::Value::Table(before)), Some(toml::Value::Table(now))) => {
                compare(&format!("{name}."), before, now, differences)
            }
            (before, now) if before != now => {
                let show =
                    |value: Option<&toml::Value>| value.map_or("(absent)".to_owned(), ToString::to_string);
                differences.push(format!("`{name}`: {} -> {}", show(before), show(now)));
            }
            _ => {}
        }
    }
}

/// What a run has to show so far, from its log and its latest checkpoint.
pub fn read_summary(run: &Path) -> Result<Summary, Error> {
    match checkpoints_of(run)?.pop() {
        Some(checkpoint) => summary(run, checkpoint.step(), checkpoint.path()),
        None => Err(Error::NoCheckpoint { path: run.to_owned() }),
    }
}

fn summary(run: &Path, steps: u64, checkpoint: &Path) -> Result<Summary, Error> {
    let path = run.join(files::METRICS);
    let text =
        std::fs::read_to_string(&path).map_err(|error| remit_store::Error::io("read", &path, error))?;
    let (mut held_out, mut last, mut weights) = (BTreeMap::new(), None, Vec::new());
    for line in text.lines() {
        let record = serde_json::from_str(line)
            .map_err(|error| Error::State { path: path.clone(), problem: error.to_string() })?;
        match record {
            Record::Step(step) => {
                weights.extend(step.weights);
                last = Some(step);
            }
            Record::Eval(eval) => held_out = eval.held_out,
            Record::Health(_) => {}
        }
    }
    Ok(Summary {
        steps,
        checkpoint: checkpoint.to_owned(),
        held_out,
        last,
        weights: WeightFigures::mean(&weights),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_are_recorded_once_there_is_another() {
        let run = tempfile::tempdir().unwrap();
        let record = |about: Option<&str>, step| {
            record_engine(about.map(str::to_owned), step, run.path()).unwrap();
            let text = std::fs::read_to_string(run.path().join("engines.json")).ok()?;
            let records: Vec<EngineRecord> = serde_json::from_str(&text).unwrap();
            Some(records.into_iter().map(|record| (record.after_step, record.engine)).collect::<Vec<_>>())
        };
        let expected = |records: &[(u64, &str)]| {
            Some(records.iter().map(|(step, engine)| (*step, (*engine).to_owned())).collect::<Vec<_>>())
        };
        assert_eq!(record(None, 0), None);
        assert_eq!(record(None, 10), None);
        assert_eq!(record(Some("torch"), 20), expected(&[(0, "cpu"), (20, "torch")]));
        assert_eq!(record(Some("torch"), 30), expected(&[(0, "cpu"), (20, "torch")]));
        assert_eq!(record(None, 40), expected(&[(0, "cpu"), (20, "torch"), (40, "cpu")]));
        // From an earlier checkpoint again.
        assert_eq!(record(Some("other"), 40), expected(&[(0, "cpu"), (20, "torch"), (40, "other")]));
        assert_eq!(record(Some("other"), 0), expected(&[(0, "other")]));
    }
}
