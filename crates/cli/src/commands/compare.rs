//! `remit compare`: evaluations side by side, and which differences can be told from none.

use crate::args::Shared;
use crate::render::error::Failure;
use crate::render::table::Table;
use clap::Args;
use remit_eval::compare::{
    Arm, Basis, ComparePlan, CompareSettings, Comparison, Difference, FEW_SEEDS, Row, Verdict,
};
use remit_results::statistics::{CONFIDENCE, Interval};
use std::path::PathBuf;

/// Below so many problems the bootstrap is noticeably too narrow.
const FEW_PROBLEMS: usize = 20;

/// Flags of the verb.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Arms: a name and the evaluations of its seeds, directories that `eval` left; the same seeds in the same order
    #[arg(value_name = "NAME=DIR,DIR", required = true, value_parser = arm)]
    pub arms: Vec<Arm>,
    /// The arm that the others are compared with; the first by default
    #[arg(long, value_name = "NAME")]
    pub baseline: Option<String>,
    /// Metrics: exact_match, nll, pass@4; the first two by default
    #[arg(long = "metric", value_name = "NAMES", value_delimiter = ',')]
    pub metrics: Vec<String>,
    /// What the intervals are meant to hold the true difference with
    #[arg(long, value_name = "SHARE", default_value_t = CONFIDENCE)]
    pub confidence: f64,
}

/// Reads `sft=DIR,DIR`.
fn arm(text: &str) -> Result<Arm, String> {
    let (name, evaluations) =
        text.split_once('=').ok_or("an arm is NAME=DIR, or NAME=DIR,DIR with more seeds")?;
    if name.is_empty() {
        return Err("the arm has no name before `=`".to_owned());
    }
    let evaluations = evaluations.split(',').filter(|path| !path.is_empty()).map(PathBuf::from).collect();
    Ok(Arm { name: name.to_owned(), evaluations })
}

/// Runs the verb.
pub fn run(arguments: Arguments, shared: &Shared) -> Result<(), Failure> {
    let Arguments { arms, baseline, metrics, confidence } = arguments;
    let settings = CompareSettings { baseline, metrics, confidence, ..CompareSettings::default() };
    let plan = ComparePlan::new(&arms, &settings)?;
    if shared.dry_run {
        let subjects: Vec<_> = plan.subjects().collect();
        let value = serde_json::json!({ "arms": arms, "settings": settings, "figures": subjects });
        return shared.print(|| first_look(&arms, &plan), &value);
    }
    let comparison = plan.compare();
    shared.print(|| describe(&comparison), &comparison)
}

/// The arms and what would be compared.
fn first_look(arms: &[Arm], plan: &ComparePlan) -> String {
    let mut evaluations = Table::new(&["arm", "seed", "evaluation"]);
    for arm in arms {
        for (place, path) in arm.evaluations.iter().enumerate() {
            evaluations.row([arm.name.clone(), (place + 1).to_string(), path.display().to_string()]);
        }
    }
    let mut figures = Table::new(&["task", "metric", "filter", "problems"]);
    for subject in plan.subjects() {
        let (task, metric, filter) = (&subject.task, &subject.metric, &subject.filter);
        figures.row([task, metric, filter, &subject.problems.to_string()]);
    }
    format!("{}\n{}", evaluations.to_plain(), figures.to_plain())
}

fn describe(comparison: &Comparison) -> String {
    let mut text = table(comparison).to_plain() + "\n";
    for row in &comparison.rows {
        if row.subject.members.is_empty() && in_group(row, comparison) {
            continue;
        }
        for (arm, difference) in differences(row) {
            text += &sentence(row, arm, difference, comparison);
            if !row.subject.members.is_empty() {
                text += &of_members(row, arm, comparison);
            }
        }
    }
    text + "\n" + &notes(comparison)
}

/// A row for every figure: the arms, and how each differs from the baseline.
fn table(comparison: &Comparison) -> Table {
    let baseline = &comparison.baseline;
    let others: Vec<&str> =
        comparison.arms.iter().map(|arm| arm.name.as_str()).filter(|name| name != baseline).collect();
    let of = match comparison.verdict_by {
        Basis::Seeds => "over seeds",
        Basis::Problems => "over problems",
    };
    let interval = format!("{} {of}", share(comparison.confidence));
    let mut headings = vec!["task".to_owned(), "metric".to_owned(), baseline.clone()];
    for other in others {
        headings.extend([other.to_owned(), format!("{other} - {baseline}"), interval.clone()]);
    }
    let mut table = Table::new(&headings.iter().map(String::as_str).collect::<Vec<_>>());
    for row in &comparison.rows {
        let unit = Unit::of(row);
        let of_baseline = row.arms.iter().filter(|arm| arm.difference.is_none());
        let mut cells = vec![row.subject.task.clone(), metric(row)];
        cells.extend(of_baseline.map(|arm| unit.plain(arm.mean)));
        for arm in &row.arms {
            let Some(difference) = &arm.difference else { continue };
            let interval = judged(difference, comparison.verdict_by);
            let interval = interval.map_or("-".to_owned(), |interval| unit.interval(interval));
            cells.extend([unit.plain(arm.mean), unit.signed(difference.mean), interval]);
        }
        table.row(cells);
    }
    table
}

/// What a difference is, and whether it can be told from none.
fn sentence(row: &Row, arm: &str, difference: &Difference, comparison: &Comparison) -> String {
    let (unit, baseline) = (Unit::of(row), &comparison.baseline);
    let amount = unit.amount(difference.mean.abs());
    // Where more is better, above and below say enough.
    let (above, below) =
        if row.subject.higher_is_better { ("", "") } else { (", which is worse", ", which is better") };
    let what = match difference.verdict {
        Verdict::Above => format!("{arm} is above {baseline} by {amount}{above}"),
        Verdict::Below => format!("{arm} is below {baseline} by {amount}{below}"),
        Verdict::NotDistinguishable => format!(
            "{arm} and {baseline} are not distinguishable from no difference; it is {}",
            unit.amount_signed(difference.mean)
        ),
    };
    let over_seeds = difference
        .over_seeds
        .map(|interval| format!("over {} seeds: {}", comparison.seeds, unit.interval(interval)));
    let over_problems = difference
        .over_problems
        .map(|interval| format!("over {} problems: {}", row.subject.problems, unit.interval(interval)));
    let intervals: Vec<String> = match comparison.verdict_by {
        Basis::Seeds => [over_seeds, over_problems],
        Basis::Problems => [over_problems, over_seeds],
    }
    .into_iter()
    .flatten()
    .collect();
    let intervals = match intervals.is_empty() {
        true => "no interval from one problem".to_owned(),
        false => format!("{} {}", share(comparison.confidence), intervals.join("; ")),
    };
    format!("{} {}: {what} ({intervals})\n", row.subject.task, metric(row))
}

/// In which tasks of a group an arm differs.
fn of_members(group: &Row, arm: &str, comparison: &Comparison) -> String {
    let verdict_of =
        |row: &Row| differences(row).find(|(name, _)| *name == arm).map(|(_, difference)| difference.verdict);
    let same_figure = |row: &&Row| {
        group.subject.members.contains(&row.subject.task)
            && (&row.subject.metric, &row.subject.filter) == (&group.subject.metric, &group.subject.filter)
    };
    let with = |verdict: Verdict| -> Vec<&str> {
        let rows = comparison.rows.iter().filter(same_figure);
        rows.filter(|row| verdict_of(row) == Some(verdict)).map(|row| row.subject.task.as_str()).collect()
    };
    let named = |tasks: Vec<&str>| if tasks.is_empty() { "none".to_owned() } else { tasks.join(", ") };
    format!(
        "  of its {} tasks: above in {}; below in {}; {} not distinguishable\n",
        group.subject.members.len(),
        named(with(Verdict::Above)),
        named(with(Verdict::Below)),
        with(Verdict::NotDistinguishable).len()
    )
}

/// What the intervals stand for, and what they do not.
fn notes(comparison: &Comparison) -> String {
    let seeds = comparison.seeds;
    let mut notes = match (comparison.verdict_by, seeds) {
        (Basis::Seeds, _) => format!(
            "Verdicts go by the interval over seeds: what other seeds would give. It is wide for few seeds, here {seeds}.\n"
        ),
        (Basis::Problems, 1) => "Verdicts go by the interval over problems. It says nothing about other seeds, and there is one seed.\n".to_owned(),
        (Basis::Problems, _) => format!(
            "Verdicts go by the interval over problems, as there are fewer than {FEW_SEEDS} seeds. It says nothing about \
             other seeds; the interval over {seeds} seeds does, and is very wide.\n"
        ),
    };
    let few = comparison.rows.iter().any(|row| row.subject.problems < FEW_PROBLEMS);
    if few {
        notes +=
            &format!("With fewer than {FEW_PROBLEMS} problems the interval over problems is too narrow.\n");
    }
    let count: usize = comparison.rows.iter().map(|row| differences(row).count()).sum();
    if count > 1 {
        notes += &format!(
            "Of {count} comparisons without a difference, about {:.1} would seem to have one by chance.\n",
            count as f64 * (1.0 - comparison.confidence)
        );
    }
    notes
}

fn in_group(row: &Row, comparison: &Comparison) -> bool {
    comparison.rows.iter().any(|group| group.subject.members.contains(&row.subject.task))
}

fn differences(row: &Row) -> impl Iterator<Item = (&str, &Difference)> {
    row.arms.iter().filter_map(|arm| Some((arm.arm.as_str(), arm.difference.as_ref()?)))
}

fn judged(difference: &Difference, basis: Basis) -> Option<Interval> {
    match basis {
        Basis::Seeds => difference.over_seeds,
        Basis::Problems => difference.over_problems,
    }
}

/// With its filter where there is a choice.
fn metric(row: &Row) -> String {
    match row.subject.filter.as_str() {
        "none" => row.subject.metric.clone(),
        filter => format!("{},{filter}", row.subject.metric),
    }
}

/// `95%`, `99.9%`.
fn share(confidence: f64) -> String {
    format!("{}%", (confidence * 1e6).round() / 1e4)
}

/// What a figure is shown in.
#[derive(Clone, Copy)]
enum Unit {
    /// Hundredths of a share.
    Points,
    /// Nats a token.
    Nats,
}

impl Unit {
    fn of(row: &Row) -> Unit {
        if row.subject.metric == "nll" { Unit::Nats } else { Unit::Points }
    }

    fn plain(self, value: f64) -> String {
        match self {
            Unit::Points => format!("{:.2}", 100.0 * value),
            Unit::Nats => format!("{value:.4}"),
        }
    }

    fn signed(self, value: f64) -> String {
        match self {
            Unit::Points => format!("{:+.2}", 100.0 * value),
            Unit::Nats => format!("{value:+.4}"),
        }
    }

    fn interval(self, interval: Interval) -> String {
        format!("{} to {}", self.plain(interval.low), self.plain(interval.high))
    }

    fn amount(self, value: f64) -> String {
        format!("{} {}", self.plain(value), self.name())
    }

    fn amount_signed(self, value: f64) -> String {
        format!("{} {}", self.signed(value), self.name())
    }

    fn name(self) -> &'static str {
        match self {
            Unit::Points => "points",
            Unit::Nats => "nats a token",
        }
    }
}
