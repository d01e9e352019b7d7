//! What the verbs that train have in common: settings, plan, dry run, progress, result.

use super::{first, print_json};
use crate::args::{Flags, Shared};
use crate::progress::{Display, Sequences, StepProgress, Steps};
use crate::render::error::{Failure, warn};
use crate::render::print;
use crate::render::style::{Colours, Ink};
use crate::render::table::Table;
use crate::render::units;
use clap::Args;
use remit_engine::{Available, Engine};
use remit_train::health::Action;
use remit_train::metrics::{EvalRecord, HealthRecord, StepRecord, StepTiming};
use remit_train::settings::StageSettings as _;
use remit_train::{Memory, Observer, Planned, Stage, Summary, Text};
use serde_json::{Value, json};
use std::path::PathBuf;

/// Flags of every verb that trains.
#[derive(Debug, Args)]
pub struct Training {
    /// Run directory
    #[arg(long, value_name = "DIR")]
    pub run: Option<PathBuf>,
    /// Checkpoint or run to start from
    #[arg(long, value_name = "DIR")]
    pub from: Option<PathBuf>,
    /// Length of the run in steps
    #[arg(long, value_name = "N")]
    pub steps: Option<u32>,
    /// Peak learning rate
    #[arg(long, value_name = "RATE")]
    pub learning_rate: Option<f64>,
}

impl Training {
    /// As settings of a stage.
    pub fn flags(&self, stage: &str) -> Flags {
        let key = |key: &str| format!("{stage}.{key}");
        Flags::default()
            .path(&key("run"), self.run.as_deref())
            .path(&key("from"), self.from.as_deref())
            .value(&key("steps"), self.steps)
            .value(&key("optimizer.learning_rate"), self.learning_rate)
    }
}

/// What a stage that trains shows of itself.
pub(super) trait StageVerb: Stage {
    /// What a dry run says as JSON, beside the settings.
    fn facts(plan: &Self::Plan) -> Value;

    /// What a dry run prints; `settings` are the resolved ones as a recipe.
    fn describe(plan: &Self::Plan, settings: &str) -> Result<String, Failure>;

    /// What was read, in one line.
    fn reading(_plan: &Self::Plan) -> Option<String> {
        None
    }

    /// What a run prints at its end.
    fn result(summary: &Summary) -> String {
        describe(summary)
    }
}

/// What a stage decides of tables that its settings leave out.
pub fn defaults(section: &str) -> toml::Table {
    let stages = [Text::Pretrain, Text::Midtrain, Text::Sft];
    let Some(stage) = stages.into_iter().find(|stage| stage.name() == section) else {
        return toml::Table::new();
    };
    let mut settings = remit_train::Settings::default();
    stage.complete(&mut settings);
    toml::Table::try_from(settings).expect("settings are plain values")
}

/// Runs the verb of a stage.
pub(super) fn run<V: StageVerb>(verb: V, flags: Flags, shared: &Shared) -> Result<(), Failure>
where
    Failure: From<V::Error>,
{
    let settings = shared.resolve::<V::Settings>(verb.name(), flags)?;
    let mut plan = verb.plan(settings.value)?;
    if shared.dry_run {
        return look::<V>(&mut plan, &settings.toml, shared);
    }
    if let (Some(reading), false) = (V::reading(&plan), shared.quiet) {
        eprintln!("{reading}");
    }
    let summary = make(plan, verb.name(), &mut *shared.engine()?, shared.display())?;
    shared.print(|| V::result(&summary), &summary)
}

/// Shows what a run will do, the first of what it learns from, and whether memory is enough.
fn look<V: StageVerb>(plan: &mut V::Plan, settings: &str, shared: &Shared) -> Result<(), Failure>
where
    Failure: From<V::Error>,
{
    let available = shared.engine_settings()?.value.available_memory();
    let fitted = remit_train::fit(plan, available);
    let first = plan.first()?;
    if shared.json {
        let mut facts = json!({
            "settings": plan.settings(), "first": first::facts(&first)?, "memory_available": available.map(|available| available.bytes),
            "fits": fitted.is_ok(),
        });
        let (Value::Object(all), Value::Object(own)) = (&mut facts, V::facts(plan)) else {
            unreachable!("both are written as objects")
        };
        all.extend(own);
        print_json(&facts)?;
    } else {
        let mut text = V::describe(plan, settings)?;
        if let Some(Available { bytes, bound }) = available {
            text += &format!(
                "memory         {} needed; {bound} has {} available\n",
                units::bytes(plan.memory().total()),
                units::bytes(bytes)
            );
        }
        if let Ok(Some(size)) = fitted {
            text += &format!("{} = {size}, the largest that memory is enough for\n", plan.micro_batch().key);
        }
        print(&format!("{text}\n{}", first::describe(&first)?))?;
    }
    match fitted {
        Ok(_) => Ok(()),
        // A run may be planned here that is to be made on a larger machine.
        Err(error) => {
            let hint = error.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
            warn(&format!("{error}{hint}"));
            Ok(())
        }
    }
}

/// Runs a plan with progress under a name.
pub(super) fn make<P: Planned>(
    plan: P,
    label: &'static str,
    engine: &mut dyn Engine,
    display: Display,
) -> Result<Summary, P::Error> {
    let mut watch = Watch {
        display,
        label,
        predictions: plan.step_predictions(),
        steps: None,
        reference: None,
        shown: 0,
    };
    let summary = remit_train::run(plan, engine, &mut watch)?;
    if let Some(steps) = watch.steps {
        steps.finish();
    }
    Ok(summary)
}

/// Held-out losses, weights where there are any, and the checkpoint.
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

/// Memory and its parts; `reference` is what the last of them is.
pub(super) fn memory_rows(facts: &mut Table, memory: &Memory, reference: &str) {
    facts.row(["memory", &units::bytes(memory.total())]);
    for (part, bytes) in [
        ("parameters", memory.parameters),
        ("gradients", memory.gradients),
        ("moments", memory.moments),
        ("activations", memory.activations),
        ("logits", memory.logits),
        (reference, memory.reference),
    ] {
        facts.row([&format!("  {part}"), &units::bytes(bytes)]);
    }
}

/// The learning rate over a run of so many steps, as a picture.
pub(super) fn rate(plan: &impl Planned, steps: u64) -> String {
    plan.settings().common().schedule().sparkline(steps, 60)
}

/// Shows a run's progress.
struct Watch {
    display: Display,
    label: &'static str,
    /// Predictions of each step, where all have the same.
    predictions: Option<u64>,
    steps: Option<Steps>,
    /// How far a reference is that reads ahead of the run.
    reference: Option<Sequences>,
    /// Sequences of the reference that the bar has.
    shown: u64,
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
                None => (timing.tokens_per_second * timing.seconds).round() as u64,
                Some(predictions) => predictions,
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

    fn reference(&mut self, done: u64, total: u64, predictions: u64) {
        let bar = self.reference.get_or_insert_with(|| Sequences::start(self.display, "reference", total));
        bar.add(done - self.shown, predictions);
        self.shown = done;
        if let Some(bar) = self.reference.take_if(|_| done == total) {
            bar.finish();
        }
    }
}
