//! `remit dpo`.

use super::print_json;
use super::train::{Watch, describe};
use crate::args::{Flags, Shared};
use crate::progress::{Display, Sequences};
use crate::render::error::Failure;
use crate::render::table::Table;
use crate::render::{print, units};
use clap::Args;
use remit_engine::Engine;
use remit_train::dpo::{Plan, Settings, run as train};
use remit_train::metrics::{EvalRecord, HealthRecord, StepRecord, StepTiming};
use remit_train::{Memory, Observer, Summary};
use std::path::PathBuf;

/// Flags of the verb.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Rows to learn from: JSONL, JSON or Parquet, with `prompt`, `chosen` and `rejected`
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Run directory
    #[arg(long, value_name = "DIR")]
    pub run: Option<PathBuf>,
    /// Checkpoint or run to start from
    #[arg(long, value_name = "DIR")]
    pub from: Option<PathBuf>,
    /// Reference: a checkpoint or a run; otherwise what is started from
    #[arg(long, value_name = "DIR")]
    pub reference: Option<PathBuf>,
    /// Passes over the pairs
    #[arg(long, value_name = "N")]
    pub epochs: Option<f64>,
    /// Chat template: `chatml`, `tulu`, `own` or a Jinja file
    #[arg(long, value_name = "NAME")]
    pub template: Option<String>,
}

/// Runs the verb.
pub fn run(arguments: Arguments, shared: &Shared) -> Result<(), Failure> {
    let Arguments { files, run, from, reference, epochs, template } = arguments;
    let flags = Flags::default()
        .value("dpo.examples.files", super::paths(&files))
        .value("dpo.examples.template", template)
        .path("dpo.run", run.as_deref())
        .path("dpo.from", from.as_deref())
        .path("dpo.reference", reference.as_deref())
        .value("dpo.epochs", epochs);
    let settings = shared.resolve::<Settings>("dpo", flags)?;
    let plan = Plan::new(settings.value)?;
    if shared.dry_run {
        return dry_run(&plan, &settings.toml, shared.json);
    }
    if !shared.quiet {
        eprintln!("{}", reading(&plan));
    }
    let summary = make(plan, &mut *shared.engine()?, shared.display())?;
    shared.print(|| result(&summary), &summary)
}

/// Runs a plan with progress.
pub(crate) fn make(plan: Plan, engine: &mut dyn Engine, display: Display) -> Result<Summary, Failure> {
    let mut watch = PairWatch { display, steps: Watch::new(display, "dpo", 0), bar: None, shown: 0 };
    let summary = train(plan, engine, &mut watch)?;
    watch.steps.finish();
    Ok(summary)
}

/// What the rows came to, in one line.
fn reading(plan: &Plan) -> String {
    let dropped = match plan.pairs.num_dropped {
        0 => String::new(),
        dropped => format!(", {dropped} left out as too long"),
    };
    format!(
        "{} pairs{dropped}; {} tokens of completions, the longest sequence has {} predictions",
        plan.pairs.pairs.len(),
        completion_tokens(plan),
        plan.longest
    )
}

fn completion_tokens(plan: &Plan) -> u64 {
    plan.pairs.pairs.iter().flatten().map(|side| side.num_completion_tokens() as u64).sum()
}

fn result(summary: &Summary) -> String {
    let figure = |name: &str| summary.last.as_ref().and_then(|last| last.figures.get(name));
    match (figure("accuracy"), figure("margin")) {
        (Some(accuracy), Some(margin)) => format!(
            "last step: {:.1}% of pairs rightly ordered, mean margin {margin:.4}\n{}",
            100.0 * accuracy,
            describe(summary)
        ),
        _ => describe(summary),
    }
}

/// Resolved settings, pairs, memory.
fn dry_run(plan: &Plan, settings: &str, json: bool) -> Result<(), Failure> {
    let Plan { settings: dpo, architecture, pairs, longest, steps, .. } = plan;
    let (count, parameters) = (pairs.pairs.len() as u64, architecture.num_parameters());
    let (memory, pass) = (plan.memory(), plan.reference_memory());
    let passes = (steps * dpo.batch_pairs as u64) as f64 / count as f64;
    if json {
        return print_json(&serde_json::json!({
            "settings": dpo, "parameters": parameters, "steps": steps, "pairs": count,
            "dropped": pairs.num_dropped, "completion_tokens": completion_tokens(plan), "longest": longest,
            "passes": passes, "memory": memory, "memory_total": memory.total(), "memory_reference_pass": pass,
        }));
    }
    let Memory { parameters: held, gradients, moments, activations, logits, reference } = memory;
    let mut facts = Table::new(&["", ""]);
    facts.row(["parameters", &units::count(parameters)]);
    facts.row(["pairs", &units::count(count)]);
    facts.row(["  left out as too long", &units::count(pairs.num_dropped)]);
    facts.row(["  tokens of completions", &units::count(completion_tokens(plan))]);
    facts.row(["  predictions of the longest sequence", &units::count(*longest as u64)]);
    facts.row(["  passes", &format!("{passes:.2}")]);
    facts.row(["steps", &units::count(*steps)]);
    facts.row(["memory", &units::bytes(memory.total())]);
    for (part, bytes) in [
        ("  parameters", held),
        ("  gradients", gradients),
        ("  moments", moments),
        ("  activations", activations),
        ("  logits", logits),
        ("  reference log-probabilities", reference),
    ] {
        facts.row([part, &units::bytes(bytes)]);
    }
    facts.row(["memory of the reference's pass, before", &units::bytes(pass)]);
    let rate = dpo.schedule.sparkline(*steps, 60);
    print(&format!("{settings}\n{}\nlearning rate  {rate}\n", facts.to_plain()))
}

/// Shows how far the reference is, then a run's progress.
struct PairWatch {
    display: Display,
    steps: Watch,
    bar: Option<Sequences>,
    shown: u64,
}

impl Observer for PairWatch {
    fn begin(&mut self, step: u64, steps: u64) {
        self.steps.begin(step, steps);
    }

    fn step(&mut self, record: &StepRecord, timing: &StepTiming) {
        self.steps.step(record, timing);
    }

    fn eval(&mut self, record: &EvalRecord) {
        self.steps.eval(record);
    }

    fn health(&mut self, record: &HealthRecord) {
        self.steps.health(record);
    }

    fn message(&mut self, text: &str) {
        self.steps.message(text);
    }

    fn reference(&mut self, done: u64, total: u64, predictions: u64) {
        let bar = self.bar.get_or_insert_with(|| Sequences::start(self.display, "reference", total));
        bar.add(done - self.shown, predictions);
        self.shown = done;
        if let Some(bar) = self.bar.take_if(|_| done == total) {
            bar.finish();
        }
    }
}
