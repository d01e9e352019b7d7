//! `remit flywheel`: all stages of all arms, iterations and seeds.

use super::prepare::Watch as FileWatch;
use super::train::speed;
use super::{dynamics, eval, prepare, print_json, quickstart, score, stage};
use crate::args::{SECTIONS, Shared, is_of_engine};
use crate::progress::Display;
use crate::render::error::{Failure, warn};
use crate::render::table::Table;
use crate::render::{print, units};
use crate::settings::{self, Resolved};
use clap::Args;
use remit_corpus::{Prepare, TrainTokenizer, train_tokenizer};
use remit_engine::Engine;
use remit_eval::Evaluation;
use remit_eval::dynamics::Dynamics;
use remit_flywheel::{Graph, Node, Recipe, Runner, Tables, Training, Work, prune, report};
use remit_report::Now;
use remit_results::flywheel::{Comparison, Flywheel, NodeState, Owner, Point, State};
use remit_results::{Cost, files};
use remit_store::atomic;
use remit_store::scores::Shard;
use remit_train::{Planned, ScorePlan, Summary, Text};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Flags of the verb.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Run directory
    #[arg(long, value_name = "DIR")]
    pub run: Option<PathBuf>,
    /// Show every node: done, begun, to do, damaged, or stale
    #[arg(long)]
    pub status: bool,
    /// Remove stale nodes: those that the recipe as it is now does not have
    #[arg(long, conflicts_with = "status")]
    pub prune: bool,
}

/// Runs the verb.
pub fn run(arguments: Arguments, shared: &Shared) -> Result<(), Failure> {
    turn(open(shared)?, arguments, shared)
}

/// Runs, or shows, the flywheel of a recipe that has one.
pub(super) fn turn(file: settings::Recipe, arguments: Arguments, shared: &Shared) -> Result<(), Failure> {
    let Arguments { run, status, prune: is_prune } = arguments;
    let (recipe, toml) = read(file, run.as_deref(), shared)?;
    let graph = Graph::new(&recipe)?;
    if is_prune && !shared.dry_run {
        let names = prune(&graph)?;
        let text = || names.iter().map(|name| format!("removed {name}\n")).collect();
        return shared.print(text, &serde_json::json!({ "removed": names }));
    }
    if status || shared.dry_run {
        let report = report::read(&graph)?;
        return match (shared.json, status) {
            (true, _) => print_json(&report),
            (false, true) => print(&(show_nodes(&report) + &show_stale(&report) + &show_results(&report))),
            (false, false) => print(&format!("{toml}\n{}{}", show_nodes(&report), estimate(&graph, &report))),
        };
    }
    std::fs::create_dir_all(&graph.run)
        .map_err(|error| Failure::new(format!("cannot create `{}`: {error}", graph.run.display())))?;
    let mut show = Show {
        engine: shared.engine()?,
        display: shared.display(),
        quiet: shared.quiet,
        node: None,
        label: "",
    };
    let report = match remit_flywheel::run(&graph, &mut show) {
        Ok(report) => report,
        Err(failure) => {
            return Err(match show.node {
                Some(node) => failure.context(node),
                None => failure,
            });
        }
    };
    atomic::write(&graph.run.join(files::RECIPE), toml.as_bytes())?;
    let now = Now { flywheel: report.clone(), recipe: toml };
    let page =
        super::report::write(&graph.run, Some(&now), false, &mut *show.engine)?[0].display().to_string();
    let text = || show_results(&report) + &format!("{}\n{page}\n", graph.run.join(files::FLYWHEEL).display());
    shared.print(text, &report)
}

/// The recipe that was named.
pub(super) fn open(shared: &Shared) -> Result<settings::Recipe, Failure> {
    let Some(path) = &shared.config else {
        return Err(Failure::usage("a flywheel needs a recipe: `--config FILE`")
            .hint("`recipes/flywheel.toml` is one to begin with"));
    };
    let file = settings::Recipe::read(path, &SECTIONS)?;
    if !file.has("flywheel") {
        return Err(Failure::new(format!("`{}` has no table `[flywheel]`", path.display()))
            .hint("`recipes/flywheel.toml` has one"));
    }
    Ok(file)
}

/// The tables of the recipe, resolved, and all of them as a recipe again.
pub(super) fn read(
    file: settings::Recipe,
    run: Option<&Path>,
    shared: &Shared,
) -> Result<(Recipe, String), Failure> {
    let engine = shared.engine_settings()?;
    let overrides = shared.overrides.iter().filter(|argument| !is_of_engine(argument)).cloned().collect();
    let toml = if engine.value.is_default() { String::new() } else { engine.toml + "\n" };
    let mut tables = OpenTables { file, overrides, toml };
    if let Some(run) = run {
        tables
            .overrides
            .insert(0, format!("flywheel.run={}", toml::Value::from(run.to_string_lossy().as_ref())));
    }
    tables.check_overrides()?;
    let recipe =
        Recipe { engine: engine.value.identity(), ..Recipe::read(&mut tables, quickstart::LOCKFILE)? };
    Ok((recipe, tables.toml))
}

/// Tables of one recipe, each with its own overrides.
struct OpenTables {
    file: settings::Recipe,
    overrides: Vec<String>,
    toml: String,
}

impl OpenTables {
    /// An override of a table that is not there would change nothing, and nobody would notice.
    fn check_overrides(&self) -> Result<(), Failure> {
        for argument in &self.overrides {
            let section = section_of(argument);
            if section == "weights" {
                return Err(Failure::usage(format!("`--{argument}`: a flywheel does not read `[weights]`")));
            }
            if SECTIONS.contains(&section) && !self.file.has(section) {
                return Err(Failure::usage(format!("`--{argument}`: the recipe has no table `[{section}]`"))
                    .hint("a stage is in the flywheel where the recipe has its table, even an empty one"));
            }
        }
        Ok(())
    }
}

impl Tables for OpenTables {
    type Error = Failure;

    /// A table where the recipe has it. An override without its table's name is the flywheel's.
    fn table<T: DeserializeOwned + Serialize>(&mut self, section: &str) -> Result<Option<T>, Failure> {
        if !self.file.has(section) {
            return Ok(None);
        }
        let is_ours = |argument: &&String| {
            let first = section_of(argument);
            first == section || (section == "flywheel" && !SECTIONS.contains(&first))
        };
        let overrides: Vec<String> = self.overrides.iter().filter(is_ours).cloned().collect();
        let Resolved { value, toml, .. } =
            Shared::with_warnings(self.file.resolve::<T>(section, &stage::defaults(section), &overrides)?);
        self.toml += &(toml + "\n");
        Ok(Some(value))
    }
}

/// The first name of an override.
fn section_of(argument: &str) -> &str {
    argument.split(['.', '=']).next().unwrap_or_default()
}

/// Runs stages with progress.
struct Show {
    engine: Box<dyn Engine>,
    display: Display,
    quiet: bool,
    /// What is at work, for the message of what stops it.
    node: Option<String>,
    label: &'static str,
}

impl Runner for Show {
    type Error = Failure;

    fn begin(&mut self, node: &Node, done: usize, total: usize) {
        self.label = node.stage.name();
        self.node = Some(format!("{} ({})", node.name(), node.label()));
        self.message(&format!("[{}/{total}] {}", done + 1, node.label()));
    }

    fn message(&mut self, text: &str) {
        if !self.quiet {
            eprintln!("{text}");
        }
    }

    fn warn(&mut self, text: &str) {
        warn(text);
    }

    fn tokenizer(&mut self, settings: &TrainTokenizer, out: &Path) -> Result<(), Failure> {
        let watch = FileWatch::new(self.display, "train-tokenizer");
        train_tokenizer(settings, &watch)?.write(out)?;
        watch.finish();
        Ok(())
    }

    fn prepare(&mut self, settings: &Prepare, out: &Path) -> Result<(), Failure> {
        prepare::make(settings, out, self.display).map(|_| ())
    }

    fn train<P: Planned<Error: Into<remit_flywheel::Error>>>(&mut self, plan: P) -> Result<Summary, Failure> {
        let made = stage::make(plan, self.label, &mut *self.engine, self.display);
        made.map_err(|error| Failure::from(error.into()))
    }

    fn score(&mut self, plan: &ScorePlan) -> Result<(), Failure> {
        score::make(plan, Shard::WHOLE, &mut *self.engine, self.display).map(|_| ())
    }

    fn eval(&mut self, plan: &remit_eval::Plan) -> Result<(Evaluation, u64), Failure> {
        eval::measure(plan, &mut *self.engine, self.display)
    }

    fn dynamics(&mut self, plan: &remit_eval::dynamics::Plan) -> Result<Dynamics, Failure> {
        dynamics::measure(plan, &mut *self.engine, self.display)
    }
}

/// A row a node.
fn show_nodes(report: &Flywheel) -> String {
    let mut table = Table::new(&["node", "of", "state", "time", "from"]);
    for node in &report.nodes {
        let time = node.cost.map_or("-".into(), |cost| units::duration(cost.seconds));
        let inputs = match node.inputs.is_empty() {
            true => "-".to_owned(),
            false => node.inputs.join(" "),
        };
        table.row([node.name.clone(), owners(node), node.state.word().to_owned(), time, inputs]);
    }
    let mut text = table.to_plain();
    for node in &report.nodes {
        if let State::Damaged(problem) | State::Outdated(problem) = &node.state {
            text += &format!("{}: {problem}; it will be made again\n", node.name);
        }
    }
    let count = |word: &str| report.nodes.iter().filter(|node| node.state.word() == word).count();
    let states = ["done", "begun", "to do", "damaged", "outdated"].map(|word| (count(word), word));
    let words: Vec<String> = states
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, word)| format!("{count} {word}"))
        .collect();
    text + &format!("\n{} nodes: {}\n", report.nodes.len(), words.join(", "))
}

/// `remit i1 s1-3`, or what is in it.
fn owners(node: &NodeState) -> String {
    let mut turns: BTreeMap<(&str, u32), Vec<String>> = BTreeMap::new();
    for Owner { arm, iteration, seed } in &node.owners {
        turns.entry((arm, *iteration)).or_default().push(seed.to_string());
    }
    let turn = |((arm, iteration), seeds): ((&str, u32), Vec<String>)| {
        format!("{arm} i{iteration} s{}", seeds.join(","))
    };
    let turns = turns.into_iter().map(turn).collect::<Vec<_>>().join(", ");
    match &node.subject {
        Some(subject) if turns.is_empty() => subject.clone(),
        Some(subject) => format!("{subject} of {turns}"),
        None if turns.is_empty() => "all".to_owned(),
        None => turns,
    }
}

fn show_stale(report: &Flywheel) -> String {
    if report.stale.is_empty() {
        return String::new();
    }
    let names: String = report.stale.iter().map(|name| format!("  {name}\n")).collect();
    format!("\nstale, of other settings (`--prune` removes them):\n{names}")
}

/// The arms side by side, and what they took.
fn show_results(report: &Flywheel) -> String {
    let mut text = String::new();
    if !report.comparison.is_empty() {
        text += &format!(
            "\nmeans over seeds, and differences to ntp with their standard errors:\n\n{}",
            arms(report)
        );
    }
    if !report.costs.is_empty() {
        text += &format!(
            "\ncosts, means over seeds (own: what a turn adds to the turn before; total: with all it depends on):\n\n{}",
            costs(report)
        );
    }
    text
}

/// The figures worth a column: accuracy and likelihood of tasks, losses of held-out text.
fn columns(report: &Flywheel) -> Vec<(String, String)> {
    let mut columns: Vec<(String, String)> = Vec::new();
    for Comparison { task, metric, .. } in &report.comparison {
        let key = (task.clone(), metric.clone());
        let is_shown = task == "held-out" || metric.starts_with("exact_match,") || metric.starts_with("nll,");
        if is_shown && !columns.contains(&key) {
            columns.push(key);
        }
    }
    // Held-out text last: it is what every run has.
    columns.sort_by_key(|(task, _)| task == "held-out");
    columns
}

fn arms(report: &Flywheel) -> String {
    let columns = columns(report);
    let title = |(task, metric): &(String, String)| {
        let metric = metric.strip_suffix(",none").unwrap_or(metric).replace("exact_match", "accuracy");
        format!("{task} {metric}")
    };
    let mut headings = vec!["arm".to_owned(), "iteration".to_owned(), "after".to_owned(), "seeds".to_owned()];
    headings.extend(columns.iter().flat_map(|column| [title(column), "difference".to_owned()]));
    let mut table = Table::new(&headings.iter().map(String::as_str).collect::<Vec<_>>());
    let mut points: Vec<Point> = Vec::new();
    let mut turns: Vec<(&str, u32)> = Vec::new();
    for Comparison { arm, iteration, point, .. } in &report.comparison {
        if !points.contains(point) {
            points.push(*point);
        }
        if !turns.contains(&(arm, *iteration)) {
            turns.push((arm, *iteration));
        }
    }
    for point in points {
        for &(arm, iteration) in &turns {
            let of = |(task, metric): &(String, String)| {
                report.comparison.iter().find(|found| {
                    (found.arm.as_str(), found.iteration, found.point, &found.task, &found.metric)
                        == (arm, iteration, point, task, metric)
                })
            };
            let found: Vec<Option<&Comparison>> = columns.iter().map(of).collect();
            let Some(seeds) = found.iter().flatten().map(|found| found.mean.count).max() else { continue };
            let mut row =
                vec![arm.to_owned(), iteration.to_string(), point.name().to_owned(), seeds.to_string()];
            for found in found {
                row.push(found.map_or("-".into(), |found| format!("{:.4}", found.mean.mean)));
                row.push(found.and_then(|found| found.difference).map_or("-".into(), |difference| {
                    let difference = difference.difference;
                    match difference.standard_error {
                        Some(error) => format!("{:+.4} ± {error:.4}", difference.mean),
                        None => format!("{:+.4}", difference.mean),
                    }
                }));
            }
            table.row(row);
        }
    }
    table.to_plain()
}

fn costs(report: &Flywheel) -> String {
    let mut table = Table::new(&[
        "arm",
        "iteration",
        "up to",
        "own tokens",
        "forward",
        "backward",
        "reference",
        "generated",
        "FLOP",
        "time",
        "total FLOP",
        "total time",
    ]);
    let flops = |cost: &Cost| format!("{:.2e}", cost.flops);
    for cost in &report.costs {
        let own = cost.own;
        let mut row = vec![
            cost.arm.clone(),
            cost.iteration.to_string(),
            cost.point.name().to_owned(),
            units::count(own.tokens),
        ];
        row.extend([own.forward, own.backward, own.reference, own.generated].map(units::count));
        row.extend([
            flops(&own),
            units::duration(own.seconds),
            flops(&cost.total),
            units::duration(cost.total.seconds),
        ]);
        table.row(row);
    }
    let mut text = table.to_plain();
    for cost in &report.costs {
        if let Some(steps) = cost.rl_steps_at_equal_compute {
            text += &format!(
                "{}, iteration {}: all that was spent beyond ntp would give ntp {steps} steps of reinforcement learning in all\n",
                cost.arm, cost.iteration
            );
        }
    }
    text
}

/// How much is left: nodes, steps, time.
fn estimate(graph: &Graph, report: &Flywheel) -> String {
    let mut measured: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for node in &report.nodes {
        if let Some(cost) = node.cost {
            measured.entry(&node.stage).or_default().push(cost.seconds);
        }
    }
    let (mut steps, mut seconds, mut unknown) = (0, 0.0, BTreeSet::new());
    let flops = speed_of(graph);
    for (node, now) in graph.nodes.iter().zip(&report.nodes).filter(|(_, now)| now.state != State::Done) {
        steps += steps_of(node).unwrap_or(0);
        match (measured.get(node.stage.name()), predicted(node, flops.as_ref())) {
            (Some(times), _) => seconds += times.iter().sum::<f64>() / times.len() as f64,
            (None, Some(time)) => seconds += time,
            (None, None) => {
                unknown.insert(now.stage.as_str());
            }
        }
    }
    let mut text = format!(
        "to do: {} nodes, {} steps of training whose number is known\n",
        report.left(),
        units::count(steps)
    );
    text += &format!("time, estimated here and now: {}", units::duration(seconds));
    if !unknown.is_empty() {
        text += &format!(
            ", and what takes longer or shorter with the data: {}",
            unknown.into_iter().collect::<Vec<_>>().join(", ")
        );
    }
    text + "\n"
}

fn steps_of(node: &Node) -> Option<u64> {
    let Work::Train(training) = &node.work else { return None };
    let tokens = match training {
        Training::Text(_, settings) => settings.tokens.map(|tokens| {
            tokens.div_ceil((settings.data.batch_windows * settings.data.window).max(1) as u64)
        }),
        _ => None,
    };
    training.common().steps.or(tokens)
}

/// Operations a second, and those of a prediction, where the model is known before it is trained.
fn speed_of(graph: &Graph) -> Option<(f64, remit_model::Architecture)> {
    let vocab_size = graph.nodes.iter().find_map(|node| match &node.work {
        Work::Tokenizer(settings) => Some(settings.vocab_size as usize),
        _ => None,
    })?;
    graph.nodes.iter().find_map(|node| match &node.work {
        Work::Train(Training::Text(Text::Pretrain, settings)) => {
            let architecture = settings.model.as_ref()?.build(vocab_size, None).ok()?;
            Some((0.8 * speed(settings.common.precision), architecture))
        }
        _ => None,
    })
}

/// Seconds of a run over text of known length.
fn predicted(node: &Node, flops: Option<&(f64, remit_model::Architecture)>) -> Option<f64> {
    let (speed, architecture) = flops?;
    let Work::Train(Training::Text(_, settings)) = &node.work else { return None };
    let data = &settings.data;
    let predictions = steps_of(node)? as f64 * (data.batch_windows * data.window) as f64;
    Some(predictions * architecture.training_flops(data.window) / speed)
}
