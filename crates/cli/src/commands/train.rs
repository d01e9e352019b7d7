//! `remit pretrain` and `remit midtrain`.

use super::print_json;
use crate::args::{Flags, Shared};
use crate::progress::{Display, StepProgress, Steps};
use crate::render::error::Failure;
use crate::render::style::{Colours, Ink};
use crate::render::table::Table;
use crate::render::{print, units};
use clap::Args;
use remit_engine::Engine;
pub(crate) use remit_engine::cpu::speed;
use remit_train::health::Action;
use remit_train::metrics::{EvalRecord, HealthRecord, StepRecord, StepTiming};
use remit_train::{Material, Observer, Plan, Settings, Stage, Summary};
use std::path::PathBuf;

/// Flags of the two verbs.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Run directory
    #[arg(long, value_name = "DIR")]
    pub run: Option<PathBuf>,
    /// Checkpoint or run to start from
    #[arg(long, value_name = "DIR")]
    pub from: Option<PathBuf>,
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
pub fn run(arguments: Arguments, stage: Stage, shared: &Shared) -> Result<(), Failure> {
    let Arguments { run, from, tokens, reference, scores } = arguments;
    let key = |key: &str| format!("{}.{key}", stage.name());
    let flags = Flags::default()
        .path(&key("run"), run.as_deref())
        .path(&key("from"), from.as_deref())
        .path(&key("data.tokens"), tokens.as_deref())
        .path(&key("reference.checkpoint"), reference.as_deref())
        .path(&key("reference.scores"), scores.as_deref());
    let settings = shared.resolve::<Settings>(stage.name(), flags)?;
    let plan = Plan::new(settings.value, stage)?;
    if shared.dry_run {
        return dry_run(&plan, shared.json);
    }
    let summary = train(plan, &mut *shared.engine()?, shared.display())?;
    shared.print(|| describe(&summary), &summary)
}

/// Runs a plan with progress.
pub(crate) fn train(plan: Plan, engine: &mut dyn Engine, display: Display) -> Result<Summary, Failure> {
    let predictions = plan.predictions() / plan.steps;
    let mut watch = Watch::new(display, plan.stage.name(), predictions);
    let summary = remit_train::run(plan, engine, &mut watch)?;
    watch.finish();
    Ok(summary)
}

pub(super) fn describe(summary: &Summary) -> String {
    let mut text = String::new();
    for (name, loss) in &summary.held_out {
        text += &format!("held-out {name}: {loss:.4} nats a token\n");
    }
    if let Some(weights) = &summary.weights {
        text += &format!(
            "weights: mean {:.3}, deviation {:.3}, clipped low {:.1}%, high {:.1}%, effective sample {:.1}%\n",
            weights.mean_weight,
            weights.std_weight,
            100.0 * weights.clipped_low,
            100.0 * weights.clipped_high,
            100.0 * weights.effective_sample_share
        );
    }
    text + &format!("{}\n", summary.checkpoint.display())
}

/// Resolved settings, parameters, tokens, memory, time.
pub(super) fn dry_run(plan: &Plan, json: bool) -> Result<(), Failure> {
    let memory = plan.memory();
    let seconds = plan.flops() / (0.8 * speed(plan.settings.precision));
    if json {
        let mut facts = serde_json::json!({
            "settings": plan.settings, "parameters": plan.num_parameters(), "steps": plan.steps,
            "predictions": plan.predictions(), "memory": memory, "memory_total": memory.total(), "seconds": seconds,
        });
        if let Material::Examples { packed, .. } = &plan.material {
            facts["examples"] = serde_json::json!(packed.summary());
        }
        return print_json(&facts);
    }
    let mut recipe = toml::Table::new();
    recipe.insert(plan.stage.name().into(), toml::Value::try_from(&plan.settings).map_err(Failure::new)?);
    let mut facts = Table::new(&["", ""]);
    facts.row(["parameters", &units::count(plan.num_parameters())]);
    facts.row(["steps", &units::count(plan.steps)]);
    facts.row(["predictions", &units::count(plan.predictions())]);
    facts.row(["memory", &units::bytes(memory.total())]);
    for (part, bytes) in [
        ("  parameters", memory.parameters),
        ("  gradients", memory.gradients),
        ("  moments", memory.moments),
        ("  activations", memory.activations),
        ("  logits", memory.logits),
        ("  reference", memory.reference),
    ] {
        facts.row([part, &units::bytes(bytes)]);
    }
    facts.row(["time, estimated here and now", &units::duration(seconds)]);
    if let Material::Examples { packed, .. } = &plan.material {
        facts.row(["examples", &super::sft::packing(packed)]);
    }
    let mut sources = Table::new(&["source", "windows", "passes"]);
    for source in plan.sources() {
        sources.row([source.name, units::count(source.num_taken), format!("{:.2}", source.passes)]);
    }
    let rate = plan
        .settings
        .schedule
        .as_ref()
        .map(|schedule| schedule.sparkline(plan.steps, 60))
        .unwrap_or_default();
    let text = toml::to_string_pretty(&recipe).map_err(Failure::new)?;
    print(&format!("{text}\n{}\n{}\nlearning rate  {rate}\n", facts.to_plain(), sources.to_plain()))
}

/// Shows a run's progress.
pub(super) struct Watch {
    display: Display,
    label: &'static str,
    /// Predictions a step, where all steps have the same.
    predictions: u64,
    steps: Option<Steps>,
}

impl Watch {
    pub(super) fn new(display: Display, label: &'static str, predictions: u64) -> Watch {
        Watch { display, label, predictions, steps: None }
    }

    pub(super) fn finish(self) {
        if let Some(steps) = self.steps {
            steps.finish();
        }
    }
}

impl Observer for Watch {
    fn begin(&mut self, step: u64, steps: u64) {
        self.steps = Some(Steps::start(self.display, self.label, step, steps));
    }

    fn step(&mut self, record: &StepRecord, timing: &StepTiming) {
        if let Some(steps) = &self.steps {
            let StepRecord { step, loss, learning_rate, ref figures, .. } = *record;
            let reward = figures.get("reward").copied();
            let predictions = match self.predictions {
                0 => (timing.tokens_per_second * timing.seconds).round() as u64,
                predictions => predictions,
            };
            steps.update(&StepProgress { step, loss, reward, learning_rate, predictions });
        }
    }

    fn eval(&mut self, record: &EvalRecord) {
        let losses: Vec<String> =
            record.held_out.iter().map(|(name, loss)| format!("{name} {loss:.4}")).collect();
        self.message(&format!("step {}: held-out {}", record.step, losses.join(", ")));
    }

    fn health(&mut self, record: &HealthRecord) {
        // A run that is stopped says so in its error.
        if record.health.action == Action::Warn {
            let HealthRecord { step, health, .. } = record;
            let warning = Colours::of_stderr().paint(Ink::Warning, "warning");
            self.message(&format!("{warning}: step {step}: {health}: {}", health.rule.meaning()));
        }
    }

    fn message(&mut self, text: &str) {
        match (&self.steps, self.display) {
            (_, Display::Quiet) => {}
            (Some(steps), _) => steps.note(text),
            (None, _) => eprintln!("{text}"),
        }
    }
}
