//! `remit rl`.

use super::stage::{self, StageVerb, Training, describe};
use crate::args::Shared;
use crate::render::error::Failure;
use crate::render::table::Table;
use crate::render::units;
use clap::Args;
use remit_rl::{Plan, Rl, Settings};
use remit_train::{Planned, Summary};
use serde_json::{Value, json};
use std::path::PathBuf;

/// Flags of the verb.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Rows to ask: JSONL, JSON or Parquet
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// What all verbs that train have.
    #[command(flatten)]
    pub training: Training,
    /// Chat template: `chatml`, `tulu`, `own` or a Jinja file
    #[arg(long, value_name = "NAME")]
    pub template: Option<String>,
    /// Verifier of every row; otherwise each row names its own
    #[arg(long, value_name = "NAME")]
    pub verifier: Option<String>,
}

/// Runs the verb.
pub fn run(arguments: Arguments, shared: &Shared) -> Result<(), Failure> {
    let Arguments { files, training, template, verifier } = arguments;
    let flags = training
        .flags("rl")
        .value("rl.prompts.files", super::paths(&files)?)
        .value("rl.prompts.template", template)
        .value("rl.verifier", verifier);
    stage::run(Rl, flags, shared)
}

impl StageVerb for Rl {
    fn facts(plan: &Plan) -> Value {
        json!({
            "parameters": plan.architecture.num_parameters(), "prompts": plan.prompts.prompts.len(), "dropped": plan.prompts.dropped, "window": plan.window,
            "completions_per_step": completions(&plan.settings), "memory": plan.memory().total(),
        })
    }

    /// Resolved settings, prompts, what a step samples at most.
    fn describe(plan: &Plan, settings: &str) -> Result<String, Failure> {
        let Plan { settings: rl, architecture, prompts, window, .. } = plan;
        let (steps, count, completions) = (rl.steps(), prompts.prompts.len() as u64, completions(rl));
        let passes = steps as f64 * rl.rollout.prompts as f64 / count as f64;
        let mut facts = Table::new(&["", ""]);
        facts.row(["parameters", &units::count(architecture.num_parameters())]);
        facts.row(["prompts", &units::count(count)]);
        facts.row(["  left out as too long", &units::count(prompts.dropped)]);
        facts.row(["  passes", &format!("{passes:.2}")]);
        facts.row(["steps", &units::count(steps)]);
        facts.row(["completions a step", &units::count(completions)]);
        facts.row(["  tokens at most", &units::count(completions * rl.grpo.max_completion_length as u64)]);
        facts.row(["predictions a window of an update", &units::count(*window as u64)]);
        facts.row(["memory", &units::bytes(plan.memory().total())]);
        Ok(format!("{settings}\n{}", facts.to_plain()))
    }

    fn result(summary: &Summary) -> String {
        let text = describe(summary);
        match summary.last.as_ref().and_then(|last| last.figures.get("reward")) {
            Some(reward) => format!("mean reward of the last step: {reward:.3}\n{text}"),
            None => text,
        }
    }
}

/// Completions of a step, where no further prompts are tried.
fn completions(settings: &Settings) -> u64 {
    (settings.rollout.prompts * settings.grpo.num_generations) as u64
}
