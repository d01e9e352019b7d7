//! `remit quickstart`: the whole pipeline on the embedded default, by the very commands that a user would type.

use super::print_json;
use crate::args::{self, Flags, SECTIONS, Shared};
use crate::render::error::Failure;
use crate::render::table::Table;
use crate::render::{print, units};
use crate::settings::Recipe;
use clap::Args;
use remit_corpus::generate::{Family, Level, Noise, Split};
use remit_flywheel::generated::{Generated, Generator, Text};
use remit_store::atomic;
use remit_train::{Summary, read_summary};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The recipe, and the lock file that says which versions of the dependencies the ordinary text comes from.
const RECIPE: &str = include_str!("../../../../recipes/quickstart.toml");
pub(super) const LOCKFILE: &str = include_str!("../../../../Cargo.lock");
/// The directory that the recipe is written for.
const HOME: &str = "runs/quickstart";

/// Flags of the verb.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Where everything goes
    #[arg(long, value_name = "DIR", default_value = HOME)]
    pub dir: PathBuf,
}

/// What the recipe's `[quickstart]` says about generated data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Settings {
    seed: u64,
    problems: usize,
    clean_problems: usize,
    test_problems: usize,
    corrupted: f64,
    filler: f64,
    reference_steps: u64,
}

/// Runs the verb. Every stage resumes or does nothing when it is done already, and so does the whole.
pub fn run(arguments: Arguments, shared: &Shared) -> Result<(), Failure> {
    let home = arguments.dir;
    let path = home.join("recipe.toml");
    let text = RECIPE.replace(HOME, &home.to_string_lossy().replace('\\', "/"));
    let settings = match &shared.config {
        Some(_) => shared.resolve::<Settings>("quickstart", Flags::default())?,
        None => {
            let recipe = Recipe::parse(&path, text.clone(), &SECTIONS)?;
            Shared::with_warnings(recipe.resolve("quickstart", &shared.overrides)?)
        }
    };
    let commands = commands(&home, shared.config.as_deref().unwrap_or(&path), &settings.value);
    if shared.dry_run {
        let lines: Vec<String> = commands.iter().map(|command| shown(command) + "\n").collect();
        return print(&format!("{}\n{}", settings.toml, lines.concat()));
    }
    std::fs::create_dir_all(&home)
        .map_err(|error| Failure::new(format!("cannot create `{}`: {error}", home.display())))?;
    if shared.config.is_none() {
        atomic::write(&path, text.as_bytes())?;
    }
    let started = Instant::now();
    generate(&home, &settings.value)?;
    for command in &commands {
        if !shared.quiet {
            eprintln!("$ {}", shown(command));
        }
        args::run_quietly(command, shared)?;
    }
    report(&home, shared, started.elapsed().as_secs_f64())
}

/// The stages behind the generated data, as they would be typed.
fn commands(home: &Path, recipe: &Path, settings: &Settings) -> Vec<Vec<String>> {
    let at = |name: &str| home.join(name).to_string_lossy().into_owned();
    let command = |words: &[&str]| -> Vec<String> {
        let mut words: Vec<String> = words.iter().map(ToString::to_string).collect();
        words.splice(1..1, ["--config".to_owned(), recipe.to_string_lossy().into_owned()]);
        words
    };
    let prepare = |name: &str| command(&["prepare", &at(&format!("{name}.jsonl")), "--out", &at(name)]);
    vec![
        command(&["train-tokenizer", "--out", &at("tokenizer.json")]),
        command(&["prepare", "--out", &at("corpus")]),
        prepare("text-heldout"),
        prepare("solutions"),
        command(&["prepare", &at("clean.jsonl"), &at("text.jsonl"), "--out", &at("clean")]),
        command(&["pretrain"]),
        command(&[
            "midtrain",
            "--run",
            &at("reference"),
            "--tokens",
            &at("clean"),
            "--midtrain.data.mixture={clean={weight=0.6},text={weight=0.4}}",
            "--midtrain.objective.kind=ntp",
            &format!("--midtrain.steps={}", settings.reference_steps),
        ]),
        command(&["score"]),
        command(&["midtrain", "--run", &at("ntp"), "--midtrain.objective.kind=ntp"]),
        command(&["midtrain"]),
    ]
}

fn shown(command: &[String]) -> String {
    let quoted =
        command.iter().map(|word| if word.contains(['{', ' ']) { format!("'{word}'") } else { word.clone() });
    format!("remit {}", quoted.collect::<Vec<_>>().join(" "))
}

/// Ordinary text and problems, where they are not there yet.
fn generate(home: &Path, settings: &Settings) -> Result<(), Failure> {
    let noise = Noise { corrupted: settings.corrupted, filler: settings.filler };
    let problems = |count, noise, split, seed| {
        let families = Family::MICRO10.into();
        Generated::Problems(Generator { count, seed, families, level: Level::default(), split, noise })
    };
    let seed = settings.seed;
    for (name, corpus) in [
        ("text-heldout.jsonl", Generated::Text(Text { held_out: true })),
        ("text.jsonl", Generated::Text(Text { held_out: false })),
        ("problems.jsonl", problems(settings.problems, noise, Split::Train, seed)),
        ("clean.jsonl", problems(settings.clean_problems, Noise::NONE, Split::Train, seed + 1)),
        ("solutions.jsonl", problems(settings.test_problems, Noise::NONE, Split::Test, seed)),
    ] {
        let path = home.join(name);
        if !path.is_file() {
            corpus.write(&path, LOCKFILE)?;
        }
    }
    Ok(())
}

/// The table of the four models.
fn report(home: &Path, shared: &Shared, seconds: f64) -> Result<(), Failure> {
    let arms = [
        ("pre-trained", "pretrain"),
        ("reference (clean solutions)", "reference"),
        ("mid-trained, NTP", "ntp"),
        ("mid-trained, ReMiT", "remit"),
    ];
    let summaries: Vec<(&str, Summary)> = arms
        .iter()
        .map(|(label, name)| Ok((*label, read_summary(&home.join(name))?)))
        .collect::<Result<_, Failure>>()?;
    if shared.json {
        let arms: serde_json::Map<String, serde_json::Value> = arms
            .iter()
            .zip(&summaries)
            .map(|((_, name), (_, summary))| ((*name).to_owned(), serde_json::json!(summary)))
            .collect();
        return print_json(&serde_json::json!({ "arms": arms, "seconds": seconds }));
    }
    let names: Vec<String> = summaries[0].1.held_out.keys().cloned().collect();
    let headings: Vec<String> = ["", "steps"]
        .map(str::to_owned)
        .into_iter()
        .chain(names.iter().map(|name| format!("held-out {name}")))
        .collect();
    let mut losses = Table::new(&headings.iter().map(String::as_str).collect::<Vec<_>>());
    for (label, summary) in &summaries {
        let figures = names
            .iter()
            .map(|name| summary.held_out.get(name).map_or("-".into(), |loss| format!("{loss:.4}")));
        losses.row([(*label).to_owned(), summary.steps.to_string()].into_iter().chain(figures));
    }
    let mut text = format!("\nLoss in nats a token:\n\n{}", losses.to_plain());
    if let Some((_, Summary { weights: Some(weights), .. })) = summaries.last() {
        let mut table = Table::new(&["token weights", "mean over the run"]);
        let percent = |share: f64| format!("{:.1}%", 100.0 * share);
        table.row(["mean".into(), format!("{:.3}", weights.mean_weight)]);
        table.row(["standard deviation".into(), format!("{:.3}", weights.std_weight)]);
        table.row(["clipped low".into(), percent(weights.clipped_low)]);
        table.row(["clipped high".into(), percent(weights.clipped_high)]);
        table.row(["weighted up".into(), percent(weights.weighted_up)]);
        table.row(["effective sample".into(), percent(weights.effective_sample_share)]);
        if let Some(delta) = weights.mean_delta {
            table.row(["mean delta, nats".into(), format!("{delta:.3}")]);
        }
        text += &format!("\n{}", table.to_plain());
    }
    text += &format!(
        "\n{}. Look at the weights of single tokens with\n  remit weights --learner {home} --reference {reference} --text FILE --html weights.html\n",
        units::duration(seconds),
        home = home.join("ntp").display(),
        reference = home.join("reference").display(),
    );
    print(&text)
}
