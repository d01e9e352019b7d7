//! `remit rl`.

use super::print_json;
use super::train::{Watch, describe};
use crate::args::{Flags, Shared};
use crate::render::error::Failure;
use crate::render::table::Table;
use crate::render::{print, units};
use clap::Args;
use remit_rl::{Plan, Settings};
use std::path::PathBuf;

/// Flags of the verb.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Rows to ask: JSONL, JSON or Parquet
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Run directory
    #[arg(long, value_name = "DIR")]
    pub run: Option<PathBuf>,
    /// Checkpoint or run to start from
    #[arg(long, value_name = "DIR")]
    pub from: Option<PathBuf>,
    /// Steps, each a rollout batch and the updates on it
    #[arg(long, value_name = "N")]
    pub steps: Option<i64>,
    /// Verifier of every row; otherwise each row names its own
    #[arg(long, value_name = "NAME")]
    pub verifier: Option<String>,
}

/// Runs the verb.
pub fn run(arguments: Arguments, shared: &Shared) -> Result<(), Failure> {
    let Arguments { files, run, from, steps, verifier } = arguments;
    let flags = Flags::default()
        .value("rl.prompts.files", super::paths(&files))
        .path("rl.run", run.as_deref())
        .path("rl.from", from.as_deref())
        .value("rl.steps", steps)
        .value("rl.verifier", verifier);
    let settings = shared.resolve::<Settings>("rl", flags)?;
    let plan = Plan::new(settings.value)?;
    if shared.dry_run {
        return dry_run(&plan, &settings.toml, shared.json);
    }
    let mut watch = Watch::new(shared.display(), "rl", 0);
    let summary = remit_rl::run(plan, &mut *shared.engine()?, &mut watch)?;
    watch.finish();
    let rewarded = |text: String| match summary.last.as_ref().and_then(|last| last.figures.get("reward")) {
        Some(reward) => format!("mean reward of the last step: {reward:.3}\n{text}"),
        None => text,
    };
    shared.print(|| rewarded(describe(&summary)), &summary)
}

/// Resolved settings, prompts, what a step samples at most.
fn dry_run(plan: &Plan, settings: &str, json: bool) -> Result<(), Failure> {
    let Plan { settings: rl, architecture, prompts, window, .. } = plan;
    let (count, completions) =
        (prompts.prompts.len() as u64, (rl.rollout.prompts * rl.grpo.num_generations) as u64);
    let (parameters, passes) = (architecture.num_parameters(), rl.steps as f64 * rl.rollout.prompts as f64);
    if json {
        return print_json(&serde_json::json!({
            "settings": rl, "parameters": parameters, "prompts": count, "dropped": prompts.dropped,
            "window": window, "completions_per_step": completions, "memory": plan.memory(),
        }));
    }
    let mut facts = Table::new(&["", ""]);
    facts.row(["parameters", &units::count(parameters)]);
    facts.row(["prompts", &units::count(count)]);
    facts.row(["  left out as too long", &units::count(prompts.dropped)]);
    facts.row(["  passes", &format!("{:.2}", passes / count as f64)]);
    facts.row(["steps", &units::count(rl.steps)]);
    facts.row(["completions a step", &units::count(completions)]);
    facts.row(["  tokens at most", &units::count(completions * rl.grpo.max_completion_length as u64)]);
    facts.row(["predictions a window of an update", &units::count(*window as u64)]);
    facts.row(["memory", &units::bytes(plan.memory())]);
    print(&format!("{settings}\n{}", facts.to_plain()))
}
