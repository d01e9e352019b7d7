//! What can be typed: the verbs, the flags they share, and how a command line becomes a call.
//!
//! Settings have no flag each. They come from a recipe (`--config`) and from dotted overrides such as
//! `--midtrain.optimizer.learning_rate=1e-3`, which are taken out before clap sees the rest; the few flags that
//! there are stand for settings that differ from call to call.

use crate::commands;
use crate::progress::Display;
use crate::render::error::{Failure, exit_code_of};
use crate::settings::{self, Resolved};
use clap::builder::{PathBufValueParser, TypedValueParser};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use remit_engine::{Engine, Instructions};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The tables a recipe may have, in the order of the pipeline.
pub const SECTIONS: [&str; 13] = [
    "engine",
    "flywheel",
    "tokenizer",
    "prepare",
    "pretrain",
    "score",
    "midtrain",
    "sft",
    "dpo",
    "rl",
    "eval",
    "dynamics",
    "weights",
];

/// More than any machine has use for; starting a hundred thousand takes longer than anyone waits.
const MAX_THREADS: usize = 1024;

/// RL-guided mid-training of language models (ReMiT), from text to a better base model
#[derive(Debug, Parser)]
#[command(name = "remit", version, propagate_version = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    shared: Shared,
}

/// Flags of every verb.
#[derive(Clone, Debug, Args)]
pub struct Shared {
    /// Recipe: a TOML file with one table a stage
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Show what would be done, with resolved settings, and stop
    #[arg(long, global = true)]
    pub dry_run: bool,
    /// Print the result (and errors) as JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// No progress
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// Threads; all cores by default. Never changes a result
    #[arg(long, global = true, value_name = "N")]
    pub threads: Option<usize>,
    /// Where models run; the recipe's `[engine]` by default, or else this process
    #[arg(long, global = true, value_name = "KIND")]
    pub engine: Option<EngineKind>,
    /// Dotted overrides, taken out of the command line before clap reads it.
    #[arg(skip)]
    pub overrides: Vec<String>,
}

/// Where models run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EngineKind {
    /// This process
    Cpu,
    /// PyTorch in a worker process
    Torch,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// The flywheel on the embedded default: the ordinary pipeline, and a turn of ReMiT guided by what came of it
    Quickstart(commands::quickstart::Arguments),
    /// Train a byte-level BPE tokenizer
    TrainTokenizer(commands::train_tokenizer::Arguments),
    /// Text, JSONL, Parquet or token arrays to a token store
    Prepare(commands::prepare::Arguments),
    /// Next-token prediction from random parameters or a checkpoint
    Pretrain(commands::train::Arguments),
    /// Write down a reference's log-probabilities of a token store
    Score(commands::score::Arguments),
    /// Train on from the pre-mid checkpoint, with or without token weights from a reference
    Midtrain(commands::train::Arguments),
    /// Write generated problems with worked solutions
    Problems(commands::problems::Arguments),
    /// Fine-tune on completions: prompts with completions, or conversations
    Sft(commands::sft::Arguments),
    /// Direct preference optimisation: raise chosen completions against rejected ones
    Dpo(commands::dpo::Arguments),
    /// Reinforcement learning with verifiable rewards
    Rl(commands::rl::Arguments),
    /// What a verifier says of completions in a file, and why
    Verify(commands::verify::Arguments),
    /// All stages, arms, iterations and seeds of a recipe: each once, whatever stops it
    Flywheel(commands::flywheel::Arguments),
    /// What a flywheel or a run came to: a page and the same as Markdown
    Report(commands::report::Arguments),
    /// Show the weight of each token of a text
    Weights(commands::weights::Arguments),
    /// What a checkpoint is, and what training it would take
    Inspect(commands::inspect::Arguments),
    /// The plain average of checkpoints, as of runs with several seeds
    Average(commands::average::Arguments),
    /// Accuracy, pass@k and likelihood on micro10, GSM8K and SVAMP
    Eval(commands::eval::Arguments),
    /// Evaluations side by side: paired differences, and which can be told from none
    Compare(commands::compare::Arguments),
    /// Every checkpoint of a run beside a frozen reference: gap, divergences, agreement, entropy
    Dynamics(commands::dynamics::Arguments),
    /// The keys of a recipe's tables, with their defaults
    Settings(commands::settings::Arguments),
    /// What an engine finds on this machine, and whether it computes what this process does
    Engine(commands::engine::Arguments),
    /// Continue a prompt
    Generate(commands::generate::Arguments),
}

/// Parses a command line, runs it and shows whatever went wrong.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    // Wanted also where the rest of the command line is not understood.
    let json = args.iter().take_while(|arg| *arg != "--").any(|arg| arg == "--json");
    let (rest, overrides) = match settings::split_overrides(args) {
        Ok(parts) => parts,
        Err(error) => return exit_code_of(json, || Err(error.into())),
    };
    let parsed = command().try_get_matches_from(rest);
    let Cli { verb, mut shared } = match parsed.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) if json && error.use_stderr() => return exit_code_of(true, || Err(misunderstood(&error))),
        Err(error) => error.exit(),
    };
    shared.overrides = overrides;
    exit_code_of(shared.json, || {
        shared.start_threads()?;
        Instructions::choose().map_err(Failure::usage)?;
        if verb.starts_engine() && !shared.dry_run {
            let engine = shared.engine_settings()?.value;
            if let Some(settings) = engine.led() {
                return Ok(remit_engine::torch::serve(settings)?);
            }
        }
        let shows_engine = shared.dry_run && !shared.json && verb.runs_models();
        verb.run(&shared)?;
        if shows_engine { shared.show_engine() } else { Ok(()) }
    })
}

/// The command line, in whose paths `~/` is the home directory: a shell puts it in only where it begins a word.
fn command() -> clap::Command {
    fn at_home(arg: clap::Arg) -> clap::Arg {
        let is_path = arg.get_value_parser().type_id() == std::any::TypeId::of::<PathBuf>();
        let expand = |path: PathBuf| match path.to_str() {
            Some(text) => settings::at_home(text).map(|expanded| expanded.map_or(path, PathBuf::from)),
            None => Ok(path),
        };
        if is_path { arg.value_parser(PathBufValueParser::new().try_map(expand)) } else { arg }
    }
    let verbs: Vec<String> =
        Cli::command().get_subcommands().map(|verb| verb.get_name().to_owned()).collect();
    let command = Cli::command().mut_args(at_home);
    verbs.into_iter().fold(command, |command, verb| {
        command.mut_subcommand(verb, |verb| {
            let help = tables_of(verb.get_name());
            let verb = verb.mut_args(at_home);
            if help.is_empty() { verb } else { verb.after_help(help) }
        })
    })
}

/// What the help of a verb says of its settings; nothing where it has none.
fn tables_of(verb: &str) -> String {
    let table = match verb {
        "train-tokenizer" => "tokenizer",
        verb if SECTIONS.contains(&verb) => verb,
        _ => return String::new(),
    };
    let others = match verb {
        "engine" | "prepare" | "train-tokenizer" => "",
        "flywheel" => ", those of its stages, and [engine]",
        _ => " and [engine]",
    };
    let name = if verb == "flywheel" { "TABLE" } else { table };
    format!(
        "Settings: the recipe's table [{table}]{others}, then these options, then dotted ones such as --{table}.KEY=VALUE.\n\
         `remit settings {name}` lists all keys with their defaults."
    )
}

/// What clap says, parted into message and advice.
fn misunderstood(error: &clap::Error) -> Failure {
    let text = error.to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text).trim();
    match text.split_once("\n\n") {
        Some((message, advice)) => Failure::usage(message).hint(advice),
        None => Failure::usage(text),
    }
}

impl Verb {
    /// Whether a dry run shows the engine at its end. A flywheel shows it among its tables.
    fn runs_models(&self) -> bool {
        matches!(
            self,
            Verb::Pretrain(_)
                | Verb::Score(_)
                | Verb::Midtrain(_)
                | Verb::Sft(_)
                | Verb::Dpo(_)
                | Verb::Rl(_)
                | Verb::Weights(_)
                | Verb::Eval(_)
                | Verb::Dynamics(_)
                | Verb::Generate(_)
        )
    }

    /// Whether it may start an engine.
    fn starts_engine(&self) -> bool {
        self.runs_models()
            || matches!(self, Verb::Quickstart(_) | Verb::Flywheel(_) | Verb::Report(_) | Verb::Engine(_))
    }

    fn run(self, shared: &Shared) -> Result<(), Failure> {
        match self {
            Verb::Quickstart(arguments) => commands::quickstart::run(arguments, shared),
            Verb::TrainTokenizer(arguments) => commands::train_tokenizer::run(arguments, shared),
            Verb::Prepare(arguments) => commands::prepare::run(arguments, shared),
            Verb::Pretrain(arguments) => commands::train::run(arguments, remit_train::Text::Pretrain, shared),
            Verb::Score(arguments) => commands::score::run(arguments, shared),
            Verb::Midtrain(arguments) => commands::train::run(arguments, remit_train::Text::Midtrain, shared),
            Verb::Problems(arguments) => commands::problems::run(arguments, shared),
            Verb::Sft(arguments) => commands::sft::run(arguments, shared),
            Verb::Dpo(arguments) => commands::dpo::run(arguments, shared),
            Verb::Rl(arguments) => commands::rl::run(arguments, shared),
            Verb::Verify(arguments) => commands::verify::run(arguments, shared),
            Verb::Flywheel(arguments) => commands::flywheel::run(arguments, shared),
            Verb::Report(arguments) => commands::report::run(arguments, shared),
            Verb::Weights(arguments) => commands::weights::run(arguments, shared),
            Verb::Inspect(arguments) => commands::inspect::run(arguments, shared),
            Verb::Average(arguments) => commands::average::run(arguments, shared),
            Verb::Eval(arguments) => commands::eval::run(arguments, shared),
            Verb::Compare(arguments) => commands::compare::run(arguments, shared),
            Verb::Dynamics(arguments) => commands::dynamics::run(arguments, shared),
            Verb::Settings(arguments) => commands::settings::run(arguments, shared),
            Verb::Engine(arguments) => commands::engine::run(arguments, shared),
            Verb::Generate(arguments) => commands::generate::run(arguments, shared),
        }
    }
}

impl Shared {
    fn start_threads(&self) -> Result<(), Failure> {
        let Some(threads) = self.threads else { return Ok(()) };
        if !(1..=MAX_THREADS).contains(&threads) {
            return Err(Failure::usage(format!("`--threads {threads}`: from 1 to {MAX_THREADS}")));
        }
        rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().map_err(Failure::new)
    }

    /// Prints a result: `text`, or `value` as JSON where that was asked for.
    pub fn print(&self, text: impl FnOnce() -> String, value: &impl Serialize) -> Result<(), Failure> {
        match self.json {
            true => crate::render::print(&(serde_json::to_string(value).map_err(Failure::new)? + "\n")),
            false => crate::render::print(&text()),
        }
    }

    /// How progress is shown.
    pub fn display(&self) -> Display {
        Display::detect(self.quiet)
    }

    /// Where models run.
    pub fn engine(&self) -> Result<Box<dyn Engine>, Failure> {
        Ok(remit_engine::start(&self.engine_settings()?.value, crate::render::error::warn)?)
    }

    /// The table of the engine, or of the one that everyone has the instructions that serve.
    fn show_engine(&self) -> Result<(), Failure> {
        let settings = self.engine_settings()?;
        if settings.value.is_default() {
            crate::render::print(&format!("\ninstructions  {}\n", Instructions::current().name()))
        } else {
            crate::render::print(&format!("\n{}", settings.toml))
        }
    }

    /// The settings of where models run: `[engine]` of the recipe, `--engine`, and overrides that begin with `engine`.
    pub fn engine_settings(&self) -> Result<Resolved<remit_engine::Settings>, Failure> {
        let recipe = match self.config.as_deref() {
            Some(path) => settings::Recipe::read(path, &SECTIONS)?,
            None => settings::Recipe::empty(&SECTIONS),
        };
        let kind = match self.engine {
            Some(EngineKind::Cpu) => Some("cpu"),
            Some(EngineKind::Torch) => Some("torch"),
            // Most recipes have no such table, and that is fine.
            None if !recipe.has("engine") => Some("cpu"),
            None => None,
        };
        let recipe = if recipe.has("engine") { recipe } else { settings::Recipe::empty(&SECTIONS) };
        let flags = Flags::default().value("engine.kind", kind).0;
        let ours = self.overrides.iter().filter(|argument| is_of_engine(argument)).cloned();
        let overrides: Vec<String> = flags.into_iter().chain(ours).collect();
        Ok(Shared::with_warnings(recipe.resolve("engine", &toml::Table::new(), &overrides)?))
    }

    /// The settings of a stage: recipe, then `flags`, then overrides. Warnings are shown.
    pub fn resolve<T: DeserializeOwned + Serialize>(
        &self,
        section: &str,
        flags: Flags,
    ) -> Result<Resolved<T>, Failure> {
        if let Some(path) = &flags.1 {
            text_of(path)?;
        }
        // Flags come first so that a dotted override, which says exactly what it means, has the last word.
        let others = self.overrides.iter().filter(|argument| !is_of_engine(argument)).cloned();
        let overrides: Vec<String> = flags.0.into_iter().chain(others).collect();
        let defaults = commands::stage::defaults(section);
        let resolved = settings::resolve(self.config.as_deref(), section, &SECTIONS, &defaults, &overrides)?;
        Ok(Shared::with_warnings(resolved))
    }

    /// The same after its warnings are shown.
    pub fn with_warnings<T>(resolved: Resolved<T>) -> Resolved<T> {
        for warning in &resolved.warnings {
            crate::render::error::warn(warning);
        }
        resolved
    }
}

/// Whether an override is about where models run, whatever the stage.
pub fn is_of_engine(argument: &str) -> bool {
    argument.split(['.', '=']).next() == Some("engine")
}

/// Flags of a verb, as overrides of its table, and a path among them that cannot be one.
#[derive(Clone, Debug, Default)]
pub struct Flags(Vec<String>, Option<PathBuf>);

/// A path as the text of a setting.
///
/// # Errors
/// A path that is not UTF-8, which no text can name.
pub fn text_of(path: &Path) -> Result<String, Failure> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| {
        Failure::usage(format!("`{}` is not UTF-8, and settings are", path.display()))
            .hint("name the directory that it lies in, or a pattern with `*`; or rename it")
    })
}

impl Flags {
    /// `section.key = path`, where the flag was given.
    #[must_use]
    pub fn path(mut self, key: &str, path: Option<&Path>) -> Flags {
        self.1 = self.1.or_else(|| path.filter(|path| path.to_str().is_none()).map(Path::to_owned));
        self.value(key, path.map(|path| path.to_string_lossy().into_owned()))
    }

    /// `section.key = value`, where the flag was given.
    #[must_use]
    pub fn value(mut self, key: &str, value: Option<impl Into<toml::Value>>) -> Flags {
        self.0.extend(value.map(|value| format!("{key}={}", value.into())));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        command().debug_assert();
    }

    /// The verbs that can say what is written in a file of a crate.
    fn verbs_of(path: &str) -> Vec<&str> {
        let command = path.strip_prefix("cli/src/commands/").and_then(|name| name.strip_suffix(".rs"));
        match (command, path.split_once("/src/")) {
            (Some("train"), _) => vec!["pretrain", "midtrain"],
            (Some("train_tokenizer"), _) => vec!["train-tokenizer"],
            (Some(verb), _) => vec![verb],
            (_, Some(("corpus", "prepare/mod.rs"))) => vec!["prepare"],
            (_, Some(("corpus", _))) => vec!["prepare", "train-tokenizer"],
            (_, Some(("eval", rest))) if rest.starts_with("dynamics") => vec!["dynamics"],
            (_, Some(("eval", rest))) if rest.starts_with("compare") => vec!["compare"],
            (_, Some(("eval", _))) => vec!["eval"],
            (_, Some(("results", _))) => vec!["eval", "dynamics"],
            (_, Some(("flywheel", _))) => vec!["flywheel"],
            (_, Some(("train", _))) => vec!["pretrain", "midtrain", "sft", "dpo", "rl", "score"],
            // Anyone: what these name must be an option of every verb.
            _ => Vec::new(),
        }
    }

    #[test]
    fn every_option_that_a_message_names_exists() {
        let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let files = remit_corpus::files_at(&crates.join("*/src/**/*.rs")).expect("the sources");
        let command = command();
        let has = |verb: &str, option: &str| {
            let verb = command.find_subcommand(verb).unwrap_or_else(|| panic!("there is no verb `{verb}`"));
            let mut all = verb.get_arguments().chain(command.get_arguments());
            all.any(|argument| argument.get_long() == Some(option))
        };
        let mut count = 0;
        for file in files {
            let path = file.strip_prefix(&crates).expect("a path below").to_str().expect("ASCII").to_owned();
            if path.contains("tests") {
                continue;
            }
            let text = std::fs::read_to_string(&file).expect("a source");
            let shown = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            for quoted in shown.flat_map(|line| line.split('`').skip(1).step_by(2)) {
                let words: Vec<&str> = quoted.split_whitespace().collect();
                let verbs = match words[..] {
                    ["remit", verb, ..] => vec![verb],
                    [option, ..] if option.starts_with("--") => verbs_of(&path),
                    _ => continue,
                };
                let options = words.iter().filter_map(|word| word.strip_prefix("--")?.split('=').next());
                let named = |option: &&str| {
                    option.starts_with(|c: char| c.is_ascii_lowercase())
                        && option.chars().all(|c| c.is_ascii_lowercase() || c == '-')
                };
                for option in options.filter(named) {
                    count += 1;
                    let is_everyones =
                        command.get_arguments().any(|argument| argument.get_long() == Some(option));
                    let is_theirs = !verbs.is_empty() && verbs.iter().all(|verb| has(verb, option));
                    assert!(
                        is_everyones || is_theirs,
                        "{path}: `{quoted}` names --{option}, which {verbs:?} lack"
                    );
                }
            }
        }
        assert!(count > 20, "only {count} were found");
    }

    #[test]
    fn flags_are_quoted() {
        let flags =
            Flags::default().path("score.out", Some(Path::new("a \"b\""))).value("score.window", Some(64));
        assert_eq!(flags.0, ["score.out='a \"b\"'", "score.window=64"]);
    }
}
