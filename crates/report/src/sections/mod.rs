//! The sections of a report, each left out where there is nothing to say.

mod between;
mod costs;
mod curves;
mod dynamics;
mod figures;
mod ran;
mod weights;

use crate::document::{Block, Document, Section, Table};
use crate::input::{Kind, Run};
use crate::numbers::Unit;
use remit_results::flywheel::{BASELINE, Comparison, HELD_OUT, Point};
use remit_results::statistics::{CONFIDENCE, Interval, Mean, Paired, paired};
use std::collections::{BTreeMap, BTreeSet};

/// Of charts with bands.
const BANDS: &str = "Shaded: the 95% interval over seeds, cut where it would leave the chart.";

/// What a report has beside what the files say.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Whether what a clock said is left out.
    pub no_times: bool,
    /// Tokens weighted most and least, an arm each.
    pub excerpts: Vec<Excerpts>,
}

/// The tokens that an arm weights most and least.
#[derive(Clone, Debug, PartialEq)]
pub struct Excerpts {
    /// The arm.
    pub arm: String,
    /// Highest weights first.
    pub most: Vec<Excerpt>,
    /// Lowest weights first.
    pub least: Vec<Excerpt>,
    /// Why there are none, where that is so.
    pub skipped: Option<String>,
}

/// A token in its context.
#[derive(Clone, Debug, PartialEq)]
pub struct Excerpt {
    /// The text in front of it.
    pub before: String,
    /// The token.
    pub token: String,
    /// The text behind it.
    pub after: String,
    /// Its weight.
    pub weight: f64,
}

/// Makes a report of a run directory.
pub fn report(run: &Run, options: &Options) -> Document {
    let view = View::new(run);
    let sections = [
        ran::section(&view),
        figures::tasks(&view),
        curves::section(&view),
        figures::gains(&view),
        figures::iterations(&view),
        between::section(&view),
        weights::section(&view),
        weights::excerpts(&options.excerpts),
        dynamics::section(&view),
        health(run),
        costs::section(run, options.no_times),
        costs::reproduce(run),
    ];
    let title = if run.kind == Kind::Single { "A run" } else { "A flywheel" };
    Document { title: title.to_owned(), sections: sections.into_iter().flatten().collect() }
}

/// An arm's iteration; number 0 is the baseline's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Iteration {
    arm: String,
    number: u32,
}

/// A run with what several sections need.
struct View<'a> {
    run: &'a Run,
    /// The baseline first, arms in the order of the recipe.
    iterations: Vec<Iteration>,
    arms: Vec<String>,
    points: Vec<Point>,
    comparison: Vec<Comparison>,
    num_seeds: usize,
}

impl<'a> View<'a> {
    fn new(run: &'a Run) -> View<'a> {
        let mut arms: Vec<String> = vec![BASELINE.to_owned()];
        let recipe = run.recipe.as_ref().and_then(|recipe| recipe.get("flywheel"));
        let named = recipe.and_then(|table| table.get("arms")?.as_array()).into_iter().flatten();
        arms.extend(named.filter_map(|arm| Some(arm.get("name")?.as_str()?.to_owned())));
        let mut iterations = Vec::new();
        for owner in run.wheel.nodes.iter().flat_map(|node| &node.owners) {
            if !arms.contains(&owner.arm) {
                arms.push(owner.arm.clone());
            }
            let iteration = Iteration { arm: owner.arm.clone(), number: owner.iteration };
            if !iterations.contains(&iteration) {
                iterations.push(iteration);
            }
        }
        arms.retain(|arm| iterations.iter().any(|iteration| iteration.arm == *arm));
        iterations
            .sort_by_key(|iteration| (iteration.number, arms.iter().position(|arm| *arm == iteration.arm)));
        let comparison = with_members(run);
        let is_there = |point: &Point| comparison.iter().any(|found| found.point == *point);
        let points = Point::ALL.into_iter().filter(is_there).collect();
        let owners = run.wheel.nodes.iter().flat_map(|node| &node.owners);
        let num_seeds = owners.map(|owner| owner.seed).collect::<BTreeSet<u64>>().len();
        View { run, iterations, arms, points, comparison, num_seeds }
    }

    fn place(&self, arm: &str) -> usize {
        let others: Vec<&String> = self.arms.iter().filter(|arm| *arm != BASELINE).collect();
        match others.iter().position(|other| *other == arm) {
            Some(index) => index + 1,
            None => 0,
        }
    }

    fn name(&self, iteration: &Iteration) -> String {
        let is_alone = self.iterations.iter().filter(|other| other.arm == iteration.arm).count() == 1;
        match iteration.number {
            0 => iteration.arm.clone(),
            _ if is_alone => iteration.arm.clone(),
            number => format!("{}, iteration {number}", iteration.arm),
        }
    }

    fn find(&self, iteration: &Iteration, point: Point, (task, metric): (&str, &str)) -> Option<&Comparison> {
        self.comparison.iter().find(|found| {
            (found.arm.as_str(), found.iteration, found.point, found.task.as_str(), found.metric.as_str())
                == (iteration.arm.as_str(), iteration.number, point, task, metric)
        })
    }

    /// A iteration's values of one figure.
    fn by_seed(
        &self,
        iteration: &Iteration,
        point: Point,
        (task, metric): (&str, &str),
    ) -> BTreeMap<u64, f64> {
        let ours = self.run.wheel.figures.iter().filter(|figure| {
            figure.owner.arm == iteration.arm
                && figure.owner.iteration == iteration.number
                && figure.point == point
                && (figure.task.as_str(), figure.metric.as_str()) == (task, metric)
        });
        ours.map(|figure| (figure.owner.seed, figure.value)).collect()
    }

    /// The figures that stand for all: held-out loss of `solutions`, or else of the first store, and mean accuracy.
    fn headlines(&self) -> Vec<(String, String, String)> {
        let stores: Vec<&Comparison> =
            self.comparison.iter().filter(|found| found.task == HELD_OUT).collect();
        let store = stores.iter().find(|found| found.metric == "solutions").or(stores.first());
        let loss = store.map(|found| {
            let name = format!("held-out loss of {}", found.metric);
            (HELD_OUT.to_owned(), found.metric.clone(), name)
        });
        // The group comes before its members.
        let accuracy = self.comparison.iter().find(|found| found.metric.starts_with("exact_match,"));
        let accuracy = accuracy
            .map(|found| (found.task.clone(), found.metric.clone(), format!("accuracy on {}", found.task)));
        loss.into_iter().chain(accuracy).collect()
    }

    /// A comparison's difference to the baseline, as it stands in a table.
    fn difference_of(&self, found: Option<&Comparison>) -> String {
        let unit = found.map_or(Unit::Loss, |found| Unit::of(&found.task, &found.metric));
        write_difference(found.and_then(|found| found.difference.as_ref()), unit, self.num_seeds)
    }

    /// `ours` less `theirs` over the seeds that both have, as it stands in a table.
    fn difference_between(
        &self,
        ours: &BTreeMap<u64, f64>,
        theirs: &BTreeMap<u64, f64>,
        unit: Unit,
    ) -> String {
        write_difference(less(ours, theirs).as_ref(), unit, self.num_seeds)
    }
}

/// The comparison, and the same of the members of groups, which only the evaluations have.
fn with_members(run: &Run) -> Vec<Comparison> {
    let mut all = run.wheel.comparison.clone();
    type Key = (Point, String, String);
    let mut found: BTreeMap<(String, u32), BTreeMap<Key, BTreeMap<u64, f64>>> = BTreeMap::new();
    for figure in &run.wheel.figures {
        let Some(results) = run.results.get(&figure.node).filter(|_| figure.task != HELD_OUT) else {
            continue;
        };
        let of = found.entry((figure.owner.arm.clone(), figure.owner.iteration)).or_default();
        for (task, entries) in results {
            for (metric, value) in entries {
                let Some(value) = value.as_f64().filter(|_| !metric.contains("_stderr,")) else { continue };
                let key = (figure.point, task.clone(), metric.clone());
                of.entry(key).or_default().insert(figure.owner.seed, value);
            }
        }
    }
    let baseline = found.get(&(BASELINE.to_owned(), 0)).cloned().unwrap_or_default();
    for ((arm, iteration), figures) in found {
        for ((point, task, metric), ours) in figures {
            let is_known = all.iter().any(|known| {
                (&known.arm, known.iteration, known.point, &known.task, &known.metric)
                    == (&arm, iteration, point, &task, &metric)
            });
            if is_known {
                continue;
            }
            let theirs = baseline.get(&(point, task.clone(), metric.clone()));
            let difference = theirs.filter(|_| arm != BASELINE).and_then(|theirs| less(&ours, theirs));
            let values: Vec<f64> = ours.into_values().collect();
            all.push(Comparison {
                arm: arm.clone(),
                iteration,
                point,
                task,
                metric,
                mean: Mean::of(&values),
                difference,
            });
        }
    }
    all
}

/// The mean of `b - a` and its interval by Student's distribution, where there are two.
fn difference(a: &[f64], b: &[f64]) -> Paired {
    paired(a, b, CONFIDENCE, None)
}

/// `ours` less `theirs`, over the seeds that both have.
fn less(ours: &BTreeMap<u64, f64>, theirs: &BTreeMap<u64, f64>) -> Option<Paired> {
    let pairs = ours.iter().filter_map(|(seed, ours)| Some((*theirs.get(seed)?, *ours)));
    let (a, b): (Vec<f64>, Vec<f64>) = pairs.unzip();
    (!a.is_empty()).then(|| difference(&a, &b))
}

/// The mean of values and its interval, where there are two.
fn mean_interval(values: &[f64]) -> (f64, Option<Interval>) {
    let found = difference(&vec![0.0; values.len()], values);
    (found.difference.mean, found.t_interval)
}

/// A difference in a table: `+1.2 [-0.3, +2.7]`, or a dash; `of` is how many seeds it should be of.
fn write_difference(found: Option<&Paired>, unit: Unit, of: usize) -> String {
    let Some(found) = found else { return "-".to_owned() };
    let text = unit.difference(found.difference.mean, found.telling_interval());
    text + &short_of(found.difference.count, of)
}

/// ` (2 seeds)` where there should be more.
fn short_of(seeds: usize, of: usize) -> String {
    match seeds {
        _ if seeds >= of => String::new(),
        1 => " (1 seed)".to_owned(),
        _ => format!(" ({seeds} seeds)"),
    }
}

fn health(run: &Run) -> Option<Section> {
    if run.logs.is_empty() {
        return None;
    }
    let mut table = Table::new(["run", "step", "rule", "value", "limit", "action"]);
    for (name, log) in &run.logs {
        for health in &log.health {
            let [value, limit] = [&health.value, &health.limit].map(|value| match value.as_f64() {
                Some(number) => format!("{number:.4}"),
                None => value.to_string(),
            });
            table.row([
                name.clone(),
                health.step.to_string(),
                health.rule.clone(),
                value,
                limit,
                health.action.clone(),
            ]);
        }
    }
    let block = match table.rows.is_empty() {
        true => Block::Text("No rule was broken.".to_owned()),
        false => Block::Table(table),
    };
    Some(Section { id: "health", title: "Health".to_owned(), blocks: vec![block] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_less_columns_over_the_seeds_that_both_have() {
        let of = |values: &[(u64, f64)]| values.iter().copied().collect::<BTreeMap<u64, f64>>();
        let (ours, theirs) = (of(&[(1, 0.5), (2, 0.7), (3, 0.1)]), of(&[(1, 0.4), (2, 0.5)]));
        // Differences 0.1 and 0.2: mean 0.15, standard error 0.05, t at one degree of freedom 12.706.
        fn words(ours: &BTreeMap<u64, f64>, theirs: &BTreeMap<u64, f64>, of: usize) -> String {
            write_difference(less(ours, theirs).as_ref(), Unit::Share, of)
        }
        assert_eq!(words(&ours, &theirs, 2), "+15.0 [-48.5, +78.5]");
        assert_eq!(words(&theirs, &ours, 3), "-15.0 [-78.5, +48.5] (2 seeds)");
        assert_eq!(words(&ours, &of(&[(9, 1.0)]), 2), "-");
        assert_eq!(words(&ours, &of(&[(1, 0.25)]), 2), "+25.0 (1 seed)");
    }

    #[test]
    fn seeds_that_differ_by_the_same_are_no_certainty() {
        let of = |a: f64, b: f64| difference(&[0.25, 0.5], &[0.25 + a, 0.5 + b]);
        assert_eq!(of(0.25, 0.25).telling_interval(), None);
        // 1.0 - 0.7 and 1.2 - 0.9 are not the same to the bit.
        assert_eq!(difference(&[1.0, 1.2], &[0.7, 0.9]).telling_interval(), None);
        assert_eq!(of(0.0, 0.0).telling_interval(), Some(Interval { low: 0.0, high: 0.0 }));
        assert!(of(0.25, 0.125).telling_interval().is_some());
    }
}
