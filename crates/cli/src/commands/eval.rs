//! `remit eval`: what a checkpoint can do.

use super::print_json;
use crate::args::{Flags, Shared};
use crate::progress::{Display, Sequences};
use crate::render::error::Failure;
use crate::render::table::Table;
use crate::render::{print, units};
use clap::Args;
use remit_engine::Engine;
use remit_eval::{Evaluation, Observer, Plan, Results, Settings, Task, evaluate};
use remit_results::statistics::Mean;
use remit_train::locate_checkpoint;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Flags of the verb.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Checkpoint, or a run whose latest checkpoint is meant
    pub model: Option<PathBuf>,
    /// Tasks: micro10, one of its families such as micro10_clock, gsm8k, svamp
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub tasks: Vec<String>,
    /// Problems of each family of micro10
    #[arg(long, value_name = "N")]
    pub problems: Option<usize>,
    /// Problems of each family to leave out before the first, to keep a development set apart
    #[arg(long, value_name = "N")]
    pub skip: Option<usize>,
    /// The first N questions of each task
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// Samples a question, for pass@k
    #[arg(long, value_name = "N")]
    pub samples: Option<usize>,
    /// The k of pass@k; 1 and the number of samples when left out
    #[arg(long, value_name = "K", value_delimiter = ',')]
    pub k: Vec<u32>,
    /// Divisor of the logits of the samples
    #[arg(long, value_name = "T")]
    pub temperature: Option<f64>,
    /// Seed of the samples
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(i64).range(0..))]
    pub seed: Option<i64>,
    /// Directory for the results
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Replace the results of another evaluation
    #[arg(long)]
    pub overwrite: bool,
}

/// Runs the verb.
pub fn run(arguments: Arguments, shared: &Shared) -> Result<(), Failure> {
    let Arguments { model, tasks, problems, skip, limit, samples, k, temperature, seed, out, overwrite } =
        arguments;
    let number = |value: Option<usize>| value.map(|value| value as i64);
    let flags = Flags::default()
        .path("eval.model", model.as_deref())
        .value("eval.tasks", (!tasks.is_empty()).then_some(tasks))
        .value("eval.micro10.problems", number(problems))
        .value("eval.micro10.skip", number(skip))
        .value("eval.limit", number(limit))
        .value("eval.samples", number(samples))
        .value("eval.k", (!k.is_empty()).then(|| k.into_iter().map(i64::from).collect::<Vec<_>>()))
        .value("eval.temperature", temperature)
        .value("eval.seed", seed)
        .path("eval.out", out.as_deref())
        .value("eval.overwrite", overwrite.then_some(true));
    let settings = shared.resolve::<Settings>("eval", flags)?;
    if settings.value.model.as_os_str().is_empty() {
        return Err(Failure::new("no model is given")
            .hint("name a checkpoint or a run: `remit eval DIR`, or set `model` under `[eval]`"));
    }
    let plan = Plan::new(&settings.value, &locate_checkpoint(&settings.value.model)?)?;
    if shared.dry_run {
        return dry_run(&plan, &settings.toml, shared.json);
    }
    let (evaluation, _) = measure(&plan, &mut *shared.engine()?, shared.display())?;
    shared.print(|| describe(&evaluation), &evaluation.results)
}

/// Evaluates with progress; also returns how many tokens were read or generated.
pub(crate) fn measure(
    plan: &Plan,
    engine: &mut dyn Engine,
    display: Display,
) -> Result<(Evaluation, u64), Failure> {
    let mut watch = Watch { display, progress: None, tokens: 0 };
    let evaluation = evaluate(plan, engine, &mut watch)?;
    if let Some(progress) = watch.progress {
        progress.finish();
    }
    Ok((evaluation, watch.tokens))
}

/// Resolved settings, the model, and what it would be asked.
fn dry_run(plan: &Plan, settings: &str, json: bool) -> Result<(), Failure> {
    if json {
        let questions = |task: &Task| (task.name.clone(), task.questions.len());
        return print_json(&serde_json::json!({
            "settings": plan.suite.settings, "checkpoint": plan.checkpoint, "model_hash": plan.model_hash,
            "questions": plan.suite.tasks.iter().map(questions).collect::<BTreeMap<_, _>>(),
            "sequences": plan.suite.num_sequences(), "longest_prompt": plan.suite.longest_prompt(), "begin": plan.suite.begin, "out": plan.out(),
        }));
    }
    let mut tasks = Table::new(&["task", "questions", "of"]);
    for task in &plan.suite.tasks {
        tasks.row([task.name.clone(), task.questions.len().to_string(), task.num_available.to_string()]);
    }
    print(&format!(
        "{settings}\n{}\nmodel      {} ({} parameters)\nsequences  {}\nprompts    {} tokens at most, begin with {}\nresults    {}\n",
        tasks.to_plain(),
        plan.checkpoint.display(),
        units::count(plan.architecture.num_parameters()),
        units::count(plan.suite.num_sequences() as u64),
        plan.suite.longest_prompt(),
        plan.suite.begin,
        plan.out().display()
    ))
}

fn describe(evaluation: &Evaluation) -> String {
    let Evaluation { results, out, already_there } = evaluation;
    let already = if *already_there { " (was there already)" } else { "" };
    format!("{}{}{already}\n", table(results).to_plain(), out.display())
}

/// A row for every task and filter, groups last.
pub(crate) fn table(results: &Results) -> Table {
    let groups = results.groups.keys();
    let tasks = results.results.keys().filter(|name| !results.groups.contains_key(*name));
    let names: Vec<&String> = tasks.chain(groups).collect();
    let mut metrics: Vec<String> = Vec::new();
    for figure in names.iter().flat_map(|name| results.figures(name)) {
        if !metrics.contains(&figure.metric) {
            metrics.push(figure.metric);
        }
    }
    metrics.sort_by_key(|metric| rank(metric));
    let mut headings = vec!["task", "questions", "filter"];
    headings.extend(metrics.iter().map(String::as_str));
    let mut table = Table::new(&headings);
    for name in names {
        let figures = results.figures(name);
        let mut filters: Vec<&str> = figures
            .iter()
            .filter(|figure| figure.metric == "exact_match")
            .map(|figure| figure.filter.as_str())
            .collect();
        filters.dedup();
        for filter in filters {
            let cell = |metric: &String| {
                let found =
                    results.figure(name, metric, filter).or_else(|| results.figure(name, metric, "none"));
                found.map_or("-".to_owned(), show)
            };
            let asked = results.num_samples[name].effective.to_string();
            let mut row = vec![name.clone(), asked, filter.to_owned()];
            row.extend(metrics.iter().map(cell));
            table.row(row);
        }
    }
    table
}

/// Accuracy, pass@k by k, likelihood.
fn rank(metric: &str) -> (u32, u64) {
    match metric.strip_prefix("pass@") {
        Some(k) => (1, k.parse().unwrap_or(u64::MAX)),
        None => (if metric == "exact_match" { 0 } else { 2 }, 0),
    }
}

fn show(mean: Mean) -> String {
    match mean.standard_error {
        Some(error) => format!("{:.4} ± {error:.4}", mean.mean),
        None => format!("{:.4}", mean.mean),
    }
}

struct Watch {
    display: Display,
    progress: Option<Sequences>,
    tokens: u64,
}

impl Observer for Watch {
    fn begin(&mut self, sequences: u64) {
        self.progress = Some(Sequences::start(self.display, "eval", sequences));
    }

    fn advance(&mut self, sequences: u64, tokens: u64) {
        self.tokens += tokens;
        if let Some(progress) = &self.progress {
            progress.add(sequences, tokens);
        }
    }
}
