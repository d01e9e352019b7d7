//! A run: steps, evaluations, checkpoints and metrics, from wherever the run directory stands to its end.

use crate::metrics::{EvalRecord, MetricsLog, Record, StepRecord, StepTiming, WeightRecord};
use crate::plan::Plan;
use crate::reference::{Online, Reference};
use crate::resume::{self, Progress};
use crate::settings::{Checkpoints, Moments as MomentsChoice, Settings};
use crate::step::{Moments, Outcome, Refusal, Trainer};
use crate::{Error, held_out};
use remit_model::Decoder;
use remit_objective::Objective;
use remit_store::atomic;
use remit_store::checkpoint::{Keep, RunDirectory, checkpoints_of};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Someone who watches a run.
pub trait Observer {
    /// The run begins or goes on behind `step` of `steps`.
    fn begin(&mut self, step: u64, steps: u64);
    /// A step was taken.
    fn step(&mut self, record: &StepRecord, timing: &StepTiming);
    /// Held-out text was evaluated.
    fn eval(&mut self, record: &EvalRecord);
    /// Something a person should know.
    fn message(&mut self, text: &str);
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
    pub weights: Option<WeightRecord>,
}

/// Runs to the end; the same call again goes on where the last one was stopped, and does nothing when it was not.
pub fn run(mut plan: Plan, observer: &mut dyn Observer) -> Result<Summary, Error> {
    let directory = RunDirectory::open_or_create(&plan.settings.run)?;
    let latest = directory.latest()?;
    check_settings(&plan, directory.path(), latest.is_some())?;
    let keep = keep(&plan.settings.checkpoints);
    if let Some(checkpoint) = &latest {
        checkpoint.verify()?;
        // A kill between a checkpoint and the removal of older ones leaves one too many.
        directory.retain(keep)?;
        if checkpoint.step() >= plan.steps {
            return summary(directory.path(), plan.steps, checkpoint.path());
        }
    }
    let (learner, moments, mut progress) = match &latest {
        Some(checkpoint) => resume::load(checkpoint.path())?,
        None => begin(&plan, observer)?,
    };
    let mut metrics =
        MetricsLog::open(directory.path(), latest.as_ref().map(|checkpoint| checkpoint.step()))?;
    let reference = reference(&mut plan)?;
    let mut trainer = Trainer::new(learner, moments, reference, &plan.settings)?;
    observer.begin(progress.step, plan.steps);
    if latest.is_none() {
        evaluate(&plan, &mut trainer, &progress, &mut metrics, observer)?;
    }
    while progress.step < plan.steps {
        take_step(&plan, &mut trainer, &mut progress, &mut metrics, observer)?;
        let is_last = progress.step == plan.steps;
        if is_last || due(progress.step, plan.settings.held_out.every) {
            evaluate(&plan, &mut trainer, &progress, &mut metrics, observer)?;
        }
        let settings = &plan.settings.checkpoints;
        if is_last
            || due(progress.step, settings.permanent_every)
            || due(progress.step, settings.ephemeral_every)
        {
            // The log is on disk before the checkpoint that counts on it.
            metrics.sync()?;
            progress.updates = trainer.moments.updates;
            directory.save_checkpoint(progress.step, |path| {
                resume::save(&trainer, &progress, settings, plan.windows.store(), plan.start.as_deref(), path)
            })?;
            directory.retain(keep)?;
        }
    }
    let checkpoint = directory.latest()?.expect("the last step saves a checkpoint");
    summary(directory.path(), plan.steps, checkpoint.path())
}

/// One step and its line in the log.
fn take_step(
    plan: &Plan,
    trainer: &mut Trainer,
    progress: &mut Progress,
    metrics: &mut MetricsLog,
    observer: &mut dyn Observer,
) -> Result<(), Error> {
    let started = Instant::now();
    let batch = plan.settings.data.batch_windows as u64;
    let windows: Vec<_> = (progress.windows..progress.windows + batch)
        .map(|position| plan.windows.window(plan.order.window_index(position)))
        .collect();
    let learning_rate =
        plan.settings.optimizer.learning_rate * plan.settings.schedule().factor(progress.step, plan.steps);
    progress.step += 1;
    let outcome = trainer.step(&windows, learning_rate).map_err(|refusal| match refusal {
        Refusal::Loss(window) => {
            let source_name =
                plan.windows.store().manifest().sources[plan.windows.source_of(window)].name.clone();
            Error::LossNotFinite { step: progress.step, window, source_name }
        }
        Refusal::Gradient => Error::GradientNotFinite {
            step: progress.step,
            windows: windows.iter().map(|window| window.index).collect(),
        },
        Refusal::Other(error) => error,
    })?;
    progress.windows += batch;
    progress.tokens += outcome.summary.tokens;
    let seconds = started.elapsed().as_secs_f64();
    let timing = StepTiming {
        step: progress.step,
        seconds,
        tokens_per_second: outcome.summary.tokens as f64 / seconds,
    };
    let record = record(plan, progress, learning_rate, &outcome);
    metrics.step(&record, &timing)?;
    observer.step(&record, &timing);
    Ok(())
}

fn record(plan: &Plan, progress: &Progress, learning_rate: f64, outcome: &Outcome) -> StepRecord {
    let summary = &outcome.summary;
    let weights = (plan.settings.objective != Objective::Ntp).then_some(WeightRecord {
        mean_weight: summary.mean_weight,
        std_weight: summary.std_weight,
        clipped_low: summary.clipped_low,
        clipped_high: summary.clipped_high,
        weighted_up: summary.weighted_up,
        effective_sample_share: summary.effective_sample_share,
        mean_delta: summary.mean_delta,
    });
    StepRecord {
        step: progress.step,
        tokens: progress.tokens,
        loss: summary.weighted_loss + outcome.z_loss,
        ntp_loss: summary.ntp_loss,
        learning_rate,
        grad_norm: outcome.gradient_norm,
        z_loss: (plan.settings.z_loss > 0.0).then_some(outcome.z_loss),
        weights,
    }
}

fn evaluate(
    plan: &Plan,
    trainer: &mut Trainer,
    progress: &Progress,
    metrics: &mut MetricsLog,
    observer: &mut dyn Observer,
) -> Result<(), Error> {
    if plan.held_out.is_empty() {
        return Ok(());
    }
    let Settings { held_out, data, .. } = &plan.settings;
    let mut losses = BTreeMap::new();
    for (name, windows) in &plan.held_out {
        let loss =
            held_out::loss(trainer, windows, held_out.windows, data.micro_batch(), data.mask_documents);
        if !loss.is_finite() {
            return Err(Error::HeldOutNotFinite { step: progress.step, store: name.clone() });
        }
        losses.insert(name.clone(), loss);
    }
    let record = EvalRecord { step: progress.step, tokens: progress.tokens, held_out: losses };
    metrics.eval(&record)?;
    observer.eval(&record);
    Ok(())
}

/// Learner, moments and progress of a run that has no checkpoint yet.
fn begin(plan: &Plan, observer: &mut dyn Observer) -> Result<(Decoder, Moments, Progress), Error> {
    let Some(start) = &plan.start else {
        let learner = Decoder::fresh(plan.architecture.clone(), plan.settings.seed);
        let moments = Moments::zero(learner.parameters.len());
        return Ok((learner, moments, Progress::start(0)));
    };
    let exact = start.join("state/parameters.safetensors").is_file();
    let learner = if exact { resume::load(start)?.0 } else { Decoder::open(start)? };
    let kept = match plan.settings.moments {
        MomentsChoice::Keep if !resume::has_moments(start) => {
            return Err(Error::NoMoments { checkpoint: start.clone() });
        }
        MomentsChoice::Keep => true,
        MomentsChoice::Auto => resume::has_moments(start),
        MomentsChoice::Reset => false,
    };
    observer.message(&format!(
        "starting from `{}` with {} optimiser moments",
        start.display(),
        if kept { "its" } else { "fresh" }
    ));
    let moments =
        if kept { resume::moments_of(start, &learner)? } else { Moments::zero(learner.parameters.len()) };
    let updates = moments.updates;
    Ok((learner, moments, Progress::start(updates)))
}

fn reference(plan: &mut Plan) -> Result<Reference, Error> {
    let Some(reference) = &mut plan.reference else { return Ok(Reference::None) };
    if let Some(scores) = reference.scores.take() {
        return Ok(Reference::Scored(scores));
    }
    let mut model = Decoder::frozen(&reference.checkpoint)?;
    model.precision = plan.settings.precision;
    let data = &plan.settings.data;
    Ok(Reference::Online(Box::new(Online::new(model, data.micro_batch() * data.window, data.window)?)))
}

fn keep(settings: &Checkpoints) -> Keep {
    Keep {
        every: (settings.permanent_every > 0).then_some(settings.permanent_every),
        last: settings.keep_last,
    }
}

fn due(step: u64, every: u64) -> bool {
    every > 0 && step.is_multiple_of(every)
}

/// A run directory keeps the settings it was begun with, and goes on with no others. Where no checkpoint was saved
/// there is nothing to go on with, and the run begins anew with the settings that it is given now. Its own path does
/// not count: a run may be moved.
fn check_settings(plan: &Plan, run: &Path, has_checkpoint: bool) -> Result<(), Error> {
    let path = run.join("settings.toml");
    let mut current = toml::Table::try_from(&plan.settings).expect("settings are plain values");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) if has_checkpoint => text,
        _ => {
            let text = toml::to_string_pretty(&current).expect("a table can always be written");
            return Ok(atomic::write(&path, text.as_bytes())?);
        }
    };
    let mut before: toml::Table = toml::from_str(&text)
        .map_err(|error| Error::State { path: path.clone(), problem: error.message().to_owned() })?;
    before.remove("run");
    current.remove("run");
    let mut differences = Vec::new();
    compare("", &before, &current, &mut differences);
    if differences.is_empty() {
        Ok(())
    } else {
        Err(Error::OtherSettings { run: run.to_owned(), differences })
    }
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
    let path = run.join("metrics.jsonl");
    let text =
        std::fs::read_to_string(&path).map_err(|error| remit_store::Error::io("read", &path, error))?;
    let (mut held_out, mut last, mut weights) = (BTreeMap::new(), None, Vec::new());
    for line in text.lines() {
        let record = serde_json::from_str(line)
            .map_err(|error| Error::State { path: path.clone(), problem: error.to_string() })?;
        match record {
            Record::Step(step) => {
                weights.extend(step.weights.clone());
                last = Some(step);
            }
            Record::Eval(eval) => held_out = eval.held_out,
        }
    }
    Ok(Summary { steps, checkpoint: checkpoint.to_owned(), held_out, last, weights: mean(&weights) })
}

fn mean(records: &[WeightRecord]) -> Option<WeightRecord> {
    let count = records.len() as f64;
    let over = |value: fn(&WeightRecord) -> f64| records.iter().map(value).sum::<f64>() / count;
    (!records.is_empty()).then(|| WeightRecord {
        mean_weight: over(|r| r.mean_weight),
        std_weight: over(|r| r.std_weight),
        clipped_low: over(|r| r.clipped_low),
        clipped_high: over(|r| r.clipped_high),
        weighted_up: over(|r| r.weighted_up),
        effective_sample_share: over(|r| r.effective_sample_share),
        mean_delta: records.iter().map(|r| r.mean_delta).sum::<Option<f64>>().map(|sum| sum / count),
    })
}
