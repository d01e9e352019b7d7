//! `remit pretrain` and `remit midtrain`.

use super::stage::{self, StageVerb, Training, memory_rows, rate};
use crate::args::Shared;
use crate::render::error::Failure;
use crate::render::table::Table;
use crate::render::units;
use clap::Args;
pub(crate) use remit_engine::cpu::speed;
use remit_train::{Material, Plan, Planned, Text};
use serde_json::{Value, json};
use std::path::PathBuf;

/// Flags of the two verbs.
#[derive(Debug, Args)]
pub struct Arguments {
    /// What all verbs that train have.
    #[command(flatten)]
    pub training: Training,
    /// Length of the run in passes over the data
    #[arg(long, value_name = "N")]
    pub epochs: Option<f64>,
    /// Token store to train on
    #[arg(long, value_name = "DIR")]
    pub tokens: Option<PathBuf>,
    /// Reference: a checkpoint or a run
    #[arg(long, value_name = "DIR")]
    pub reference: Option<PathBuf>,
    /// Score store of the reference
    #[arg(long, value_name = "DIR")]
    pub scores: Option<PathBuf>,
}

/// Runs the verb.
pub fn run(arguments: Arguments, stage: Text, shared: &Shared) -> Result<(), Failure> {
    let Arguments { training, epochs, tokens, reference, scores } = arguments;
    let key = |key: &str| format!("{}.{key}", stage.name());
    let flags = training
        .flags(stage.name())
        .value(&key("epochs"), epochs)
        .path(&key("data.tokens"), tokens.as_deref())
        .path(&key("reference.checkpoint"), reference.as_deref())
        .path(&key("reference.scores"), scores.as_deref());
    stage::run(stage, flags, shared)
}

impl StageVerb for Text {
    fn facts(plan: &Plan) -> Value {
        let memory = plan.memory();
        let mut facts = json!({
            "parameters": plan.architecture.num_parameters(), "steps": plan.steps, "predictions": plan.predictions(), "memory": memory,
            "memory_total": memory.total(), "seconds": seconds(plan),
        });
        if let Material::Examples { packed, .. } = &plan.material {
            facts["examples"] = json!(packed.summary());
        }
        facts
    }

    /// Resolved settings, parameters, tokens, memory, time.
    fn describe(plan: &Plan, _settings: &str) -> Result<String, Failure> {
        // With what the stage decides where the recipe is silent.
        let settings = toml::Value::try_from(&plan.settings).map_err(Failure::new)?;
        let recipe = toml::Table::from_iter([(plan.stage.name().to_owned(), settings)]);
        let mut facts = Table::new(&["", ""]);
        facts.row(["parameters", &units::count(plan.architecture.num_parameters())]);
        facts.row(["steps", &units::count(plan.steps)]);
        facts.row(["predictions", &units::count(plan.predictions())]);
        memory_rows(&mut facts, &plan.memory(), "reference");
        if let Some(seconds) = seconds(plan) {
            facts.row(["time, estimated here and now", &units::duration(seconds)]);
        }
        if let Some(examples) = Text::reading(plan) {
            facts.row(["examples", &examples]);
        }
        let mut sources = Table::new(&["source", "windows", "passes"]);
        for source in plan.sources() {
            sources.row([source.name, units::count(source.num_taken), format!("{:.2}", source.passes)]);
        }
        let text = toml::to_string_pretty(&recipe).map_err(Failure::new)?;
        let (facts, sources) = (facts.to_plain(), sources.to_plain());
        Ok(format!("{text}\n{facts}\n{sources}\nlearning rate  {}\n", rate(plan, plan.steps)))
    }

    fn reading(plan: &Plan) -> Option<String> {
        let Material::Examples { packed, .. } = &plan.material else { return None };
        let summary = packed.summary();
        let dropped = match summary.dropped {
            0 => String::new(),
            dropped => format!(", {dropped} left out as too long"),
        };
        Some(format!(
            "{} examples{dropped}; {} tokens in {} windows, {:.1}% full; {} tokens of completions",
            summary.examples,
            summary.tokens,
            summary.windows,
            100.0 * summary.fill,
            summary.completion_tokens
        ))
    }
}

/// How long a run takes, estimated here and now.
fn seconds(plan: &Plan) -> Option<f64> {
    plan.flops().map(|flops| flops / (0.8 * speed(plan.settings.common.precision)))
}
