//! `remit dpo`.

use super::stage::{self, StageVerb, Training, describe, memory_rows, rate};
use crate::args::Shared;
use crate::render::error::Failure;
use crate::render::table::Table;
use crate::render::units;
use clap::Args;
use remit_train::dpo::{Dpo, Plan};
use remit_train::{Planned, Summary};
use serde_json::{Value, json};
use std::path::PathBuf;

/// Flags of the verb.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Rows to learn from: JSONL, JSON or Parquet, with `prompt`, `chosen` and `rejected`
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// What all verbs that train have.
    #[command(flatten)]
    pub training: Training,
    /// Reference: a checkpoint or a run; otherwise what is started from
    #[arg(long, value_name = "DIR")]
    pub reference: Option<PathBuf>,
    /// Length of the run in passes over the pairs
    #[arg(long, value_name = "N")]
    pub epochs: Option<f64>,
    /// Chat template: `chatml`, `tulu`, `own` or a Jinja file
    #[arg(long, value_name = "NAME")]
    pub template: Option<String>,
}

/// Runs the verb.
pub fn run(arguments: Arguments, shared: &Shared) -> Result<(), Failure> {
    let Arguments { files, training, reference, epochs, template } = arguments;
    let flags = training
        .flags("dpo")
        .value("dpo.examples.files", super::paths(&files)?)
        .value("dpo.examples.template", template)
        .path("dpo.reference", reference.as_deref())
        .value("dpo.epochs", epochs);
    stage::run(Dpo, flags, shared)
}

impl StageVerb for Dpo {
    fn facts(plan: &Plan) -> Value {
        let memory = plan.memory();
        json!({
            "parameters": plan.architecture.num_parameters(), "steps": plan.steps, "pairs": plan.pairs.pairs.len(), "dropped": plan.pairs.num_dropped,
            "completion_tokens": completion_tokens(plan), "longest": plan.longest, "passes": passes(plan),
            "memory": memory, "memory_total": memory.total(), "memory_reference_pass": plan.reference_memory(),
        })
    }

    /// Resolved settings, pairs, memory.
    fn describe(plan: &Plan, settings: &str) -> Result<String, Failure> {
        let Plan { architecture, pairs, longest, steps, .. } = plan;
        let mut facts = Table::new(&["", ""]);
        facts.row(["parameters", &units::count(architecture.num_parameters())]);
        facts.row(["pairs", &units::count(pairs.pairs.len() as u64)]);
        facts.row(["  left out as too long", &units::count(pairs.num_dropped)]);
        facts.row(["  tokens of completions", &units::count(completion_tokens(plan))]);
        facts.row(["  predictions of the longest sequence", &units::count(*longest as u64)]);
        facts.row(["  passes", &format!("{:.2}", passes(plan))]);
        facts.row(["steps", &units::count(*steps)]);
        memory_rows(&mut facts, &plan.memory(), "reference log-probabilities");
        facts.row(["memory of the reference's pass, before", &units::bytes(plan.reference_memory())]);
        Ok(format!("{settings}\n{}\nlearning rate  {}\n", facts.to_plain(), rate(plan, plan.steps)))
    }

    fn reading(plan: &Plan) -> Option<String> {
        let dropped = match plan.pairs.num_dropped {
            0 => String::new(),
            dropped => format!(", {dropped} left out as too long"),
        };
        Some(format!(
            "{} pairs{dropped}; {} tokens of completions, the longest sequence has {} predictions",
            plan.pairs.pairs.len(),
            completion_tokens(plan),
            plan.longest
        ))
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
}

fn completion_tokens(plan: &Plan) -> u64 {
    plan.pairs.pairs.iter().flatten().map(|side| side.num_completion_tokens() as u64).sum()
}

/// Length of the run in passes over the pairs.
fn passes(plan: &Plan) -> f64 {
    (plan.steps * plan.settings.batch_pairs as u64) as f64 / plan.pairs.pairs.len() as f64
}
