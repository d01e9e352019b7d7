//! `remit dynamics`: every checkpoint of a run beside a frozen reference.

use super::{paths, print_json};
use crate::args::{Flags, Shared};
use crate::progress::{Display, Windows};
use crate::render::error::Failure;
use crate::render::table::Table;
use crate::render::{print, units};
use clap::Args;
use remit_engine::Engine;
use remit_eval::dynamics::{Dynamics, Observer, Plan, Point, Settings, measure as measure_plan};
use std::path::PathBuf;

/// Flags of the verb.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Runs, all of whose checkpoints are measured, and single checkpoints
    #[arg(value_name = "RUN")]
    pub runs: Vec<PathBuf>,
    /// The frozen reference: a checkpoint, or a run whose latest checkpoint is meant
    #[arg(long, value_name = "DIR")]
    pub reference: Option<PathBuf>,
    /// A held-out token store and the name that its figures have
    #[arg(long = "store", value_name = "NAME=STORE")]
    pub stores: Vec<String>,
    /// Predictions a window
    #[arg(long, value_name = "N")]
    pub window: Option<usize>,
    /// Windows of each store, from its beginning; 0 for all
    #[arg(long, value_name = "N")]
    pub windows: Option<usize>,
    /// Tasks that each checkpoint is put to, as `remit eval` has them
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub tasks: Vec<String>,
    /// Problems of each family of micro10
    #[arg(long, value_name = "N")]
    pub problems: Option<usize>,
    /// Samples a question, for pass@k
    #[arg(long, value_name = "N")]
    pub samples: Option<usize>,
    /// The k of pass@k; 1 and the number of samples when left out
    #[arg(long, value_name = "K", value_delimiter = ',')]
    pub k: Vec<u32>,
    /// File for the results; `dynamics.json` in the run when left out
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// Runs the verb.
pub fn run(arguments: Arguments, shared: &Shared) -> Result<(), Failure> {
    let Arguments { runs, reference, stores, window, windows, tasks, problems, samples, k, out } = arguments;
    let number = |value: Option<usize>| value.map(|value| value as i64);
    let flags = Flags::default()
        .value("dynamics.runs", paths(&runs)?)
        .path("dynamics.reference", reference.as_deref())
        .value("dynamics.stores", named(&stores)?)
        .value("dynamics.window", number(window))
        .value("dynamics.windows", number(windows))
        .value("dynamics.eval.tasks", (!tasks.is_empty()).then_some(tasks))
        .value("dynamics.eval.micro10.problems", number(problems))
        .value("dynamics.eval.samples", number(samples))
        .value("dynamics.eval.k", (!k.is_empty()).then(|| k.into_iter().map(i64::from).collect::<Vec<_>>()))
        .path("dynamics.out", out.as_deref());
    let settings = shared.resolve::<Settings>("dynamics", flags)?;
    let plan = Plan::new(settings.value)?;
    if shared.dry_run {
        return dry_run(&plan, &settings.toml, shared.json);
    }
    let dynamics = measure(&plan, &mut *shared.engine()?, shared.display())?;
    let text = || format!("{}{}\n", tables(&dynamics), plan.out.display());
    shared.print(text, &dynamics)
}

/// `NAME=STORE` each, as a table of a recipe.
fn named(stores: &[String]) -> Result<Option<toml::Value>, Failure> {
    let mut table = toml::Table::new();
    for store in stores {
        let parts = store.split_once('=').filter(|(name, path)| !name.is_empty() && !path.is_empty());
        let (name, path) = parts.ok_or_else(|| {
            Failure::usage(format!("`--store {store}` is not a name with a token store"))
                .hint("for example `--store text=tokens/heldout`")
        })?;
        if table.insert(name.to_owned(), path.into()).is_some() {
            return Err(Failure::usage(format!("two stores are called `{name}`"))
                .hint("give each store a name of its own"));
        }
    }
    Ok((!table.is_empty()).then(|| table.into()))
}

/// Measures with progress.
pub(crate) fn measure(plan: &Plan, engine: &mut dyn Engine, display: Display) -> Result<Dynamics, Failure> {
    let mut watch = Watch { display, bar: None };
    let dynamics = measure_plan(plan, engine, &mut watch)?;
    if let Some(bar) = watch.bar {
        bar.finish();
    }
    Ok(dynamics)
}

/// Resolved settings, the models, and what would be read.
fn dry_run(plan: &Plan, settings: &str, json: bool) -> Result<(), Failure> {
    let windows = plan.windows() * plan.points.len() as u64;
    if json {
        let point = |point: &remit_eval::dynamics::Planned| {
            serde_json::json!({
                "run": point.run, "step": point.step, "tokens": point.tokens, "checkpoint": point.checkpoint,
                "checkpoint_hash": point.checkpoint_hash,
            })
        };
        return print_json(&serde_json::json!({
            "settings": plan.settings, "reference": plan.reference, "reference_hash": plan.reference_hash,
            "points": plan.points.iter().map(point).collect::<Vec<_>>(), "windows": windows, "out": plan.out,
        }));
    }
    let mut points = Table::new(&["run", "step", "checkpoint"]);
    for point in &plan.points {
        let (run, checkpoint) = (point.run.display(), point.checkpoint.display());
        points.row([run.to_string(), point.step.to_string(), checkpoint.to_string()]);
    }
    let sequences: usize =
        plan.points.iter().filter_map(|point| Some(point.eval.as_ref()?.suite.num_sequences())).sum();
    print(&format!(
        "{settings}\n{}\nreference  {} ({} parameters)\nwindows    {} of {} predictions, by two models\n\
         sequences  {}\nresults    {}\n",
        points.to_plain(),
        plan.reference.display(),
        units::count(plan.architecture.num_parameters()),
        units::count(windows),
        plan.settings.window,
        units::count(sequences as u64),
        plan.out.display()
    ))
}

/// A row for every store and checkpoint, then one for every task and checkpoint.
fn tables(dynamics: &Dynamics) -> String {
    let mut text = String::new();
    let place = |point: &Point| [point.run.display().to_string(), point.step.to_string()];
    if dynamics.points.iter().any(|point| !point.stores.is_empty()) {
        text += &format!("{}\n", distances(dynamics, place).to_plain());
    }
    if dynamics.points.iter().any(|point| !point.tasks.is_empty()) {
        let mut table = Table::new(&["task", "run", "step", "metric", "mean", "error"]);
        let points = &dynamics.points;
        for task in names(points.iter().flat_map(|point| point.tasks.keys())) {
            for point in points {
                for (metric, score) in &point.tasks[task] {
                    let [run, step] = place(point);
                    let error = score.standard_error.map_or("-".to_owned(), |error| format!("{error:.4}"));
                    let metric = metric.strip_suffix(",none").unwrap_or(metric);
                    table.row([
                        task.clone(),
                        run,
                        step,
                        metric.to_owned(),
                        format!("{:.4}", score.mean),
                        error,
                    ]);
                }
            }
        }
        text += &format!("{}\n", table.to_plain());
    }
    text
}

fn distances(dynamics: &Dynamics, place: impl Fn(&Point) -> [String; 2]) -> Table {
    let mut table = Table::new(&[
        "store",
        "run",
        "step",
        "gap",
        "KL(ref|learner)",
        "KL(learner|ref)",
        "agreement",
        "entropy",
        "of ref",
        "nll",
        "of ref",
    ]);
    for store in names(dynamics.points.iter().flat_map(|point| point.stores.keys())) {
        for point in &dynamics.points {
            let means = &point.stores[store];
            let [run, step] = place(point);
            let number = |value: f64| format!("{value:.4}");
            table.row([
                store.clone(),
                run,
                step,
                number(means.gap),
                number(means.kl_reference_learner),
                number(means.kl_learner_reference),
                format!("{:.2}%", 100.0 * means.agreement),
                number(means.entropy),
                number(means.reference_entropy),
                number(means.nll),
                number(means.reference_nll),
            ]);
        }
    }
    table
}

/// Each once, in the order of the alphabet.
fn names<'a>(all: impl Iterator<Item = &'a String>) -> std::collections::BTreeSet<&'a String> {
    all.collect()
}

struct Watch {
    display: Display,
    bar: Option<Windows>,
}

impl remit_eval::Observer for Watch {}

impl Observer for Watch {
    fn start(&mut self, reused: u64, total: u64) {
        self.bar = Some(Windows::start(self.display, "dynamics", reused, total));
    }

    fn read(&mut self, windows: u64, predictions: u64) {
        if let Some(bar) = &self.bar {
            bar.add(windows, predictions);
        }
    }
}
