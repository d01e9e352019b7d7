//! Where models stand beside the one that the ordinary pipeline ends with.

use super::curves::over_seeds;
use super::{BANDS, Iteration, View, less, mean_interval, write_difference};
use crate::chart::{Chart, Lines, Series};
use crate::document::{Block, Section, Table};
use crate::numbers::Unit;
use remit_objective::Means;
use remit_results::dynamics::{Dynamics, Point};
use remit_results::flywheel::{BASELINE, State};
use std::collections::{BTreeMap, BTreeSet};

/// A figure of a store: its name, what it is measured in, and where it is.
type Figure = (&'static str, Unit, fn(&Means) -> f64);

const FIGURES: [Figure; 6] = [
    ("gap", Unit::Loss, |means| means.gap),
    ("KL(reference, model)", Unit::Loss, |means| means.kl_reference_learner),
    ("KL(model, reference)", Unit::Loss, |means| means.kl_learner_reference),
    ("greedy agreement", Unit::Share, |means| means.agreement),
    ("entropy", Unit::Loss, |means| means.entropy),
    ("loss", Unit::Loss, |means| means.nll),
];
/// Of those, the ones that are drawn.
const DRAWN: [&str; 4] = ["gap", "KL(reference, model)", "greedy agreement", "entropy"];

/// One seed of an iteration: its checkpoints in the order of the pipeline, each with the tokens behind it.
struct Course<'a> {
    seed: u64,
    points: Vec<(f64, &'a Point)>,
}

pub(super) fn section(view: &View<'_>) -> Option<Section> {
    let courses: Vec<(&Iteration, Vec<Course<'_>>)> = view
        .iterations
        .iter()
        .map(|iteration| (iteration, courses(view, iteration)))
        .filter(|(_, of)| !of.is_empty())
        .collect();
    let all = || courses.iter().flat_map(|(_, of)| of).flat_map(|course| &course.points);
    let stores: BTreeSet<&String> = all().flat_map(|(_, point)| point.stores.keys()).collect();
    if courses.is_empty() {
        return None;
    }
    let text = "Every model beside the one that the ordinary pipeline of its seed ends with, the reference: the mean of the reference's log-probability \
                less the model's, in nats; both directions of the divergence; how often both find the same token likeliest, in percent; the model's entropy. \
                Tokens are those of all stages so far, those learnt from in reinforcement learning among them.";
    let mut blocks = vec![Block::Text(text.to_owned())];
    if view.num_seeds > 1 {
        blocks.push(Block::Text(BANDS.to_owned()));
    }
    for store in stores {
        blocks.push(Block::Heading(format!("On {store}")));
        blocks.push(Block::Charts(charts(view, &courses, store)));
        let (means, differences) = ends(view, &courses, store);
        blocks.push(Block::Table(means));
        if !differences.rows.is_empty() {
            let title = format!("On {store}, less ntp after the same stage");
            blocks.push(Block::Details(title, vec![Block::Table(differences)]));
        }
    }
    let tasks: BTreeSet<&String> = all().flat_map(|(_, point)| point.tasks.keys()).collect();
    let is_member = |task: &String| {
        tasks.iter().any(|group| task.strip_prefix(group.as_str()).is_some_and(|rest| rest.starts_with('_')))
    };
    let tables = tasks.iter().map(|task| (task, samples(view, &courses, task)));
    let (mut groups, mut members) = (Vec::new(), Vec::new());
    for (task, table) in tables.filter(|(_, table)| !table.rows.is_empty()) {
        let blocks = if is_member(task) { &mut members } else { &mut groups };
        blocks.push(Block::Heading(format!("Chance that one of k samples is right: {task}")));
        blocks.push(Block::Table(table));
    }
    if !groups.is_empty() {
        let text = "In percent, with the difference to the baseline in points and its 95% interval over seeds. Where pass@1 rises and \
                    pass@k at the largest k does not, samples may have become alike.";
        groups.insert(1, Block::Text(text.to_owned()));
    }
    blocks.append(&mut groups);
    if !members.is_empty() {
        blocks
            .push(Block::Details("Chance that one of k samples is right, task by task".to_owned(), members));
    }
    Some(Section { id: "dynamics", title: "Dynamics".to_owned(), blocks })
}

fn courses<'a>(view: &View<'a>, iteration: &Iteration) -> Vec<Course<'a>> {
    let mut found: Vec<Course<'a>> = Vec::new();
    for (seed, dynamics) in of_iteration(view, &iteration.arm, iteration.number) {
        let ordinary = of_iteration(view, BASELINE, 0).into_iter().find(|(other, _)| *other == seed);
        let before =
            ordinary.filter(|_| iteration.number > 0).map_or(0.0, |(_, ordinary)| pretrained(ordinary));
        found.push(Course { seed, points: in_order(dynamics, before) });
    }
    found.sort_by_key(|course| course.seed);
    found
}

fn of_iteration<'a>(view: &View<'a>, arm: &str, iteration: u32) -> Vec<(u64, &'a Dynamics)> {
    let mut found = Vec::new();
    // While one is being made its file has other names for its runs.
    for node in view.run.wheel.nodes.iter().filter(|node| node.state == State::Done) {
        let Some(dynamics) = view.run.dynamics.get(&node.name) else { continue };
        let ours = node.owners.iter().filter(|owner| owner.arm == arm && owner.iteration == iteration);
        found.extend(ours.map(|owner| (owner.seed, dynamics)));
    }
    found
}

/// The stage of a point, by the name of its node.
fn stage(point: &Point) -> &str {
    let name = point.run.to_str().unwrap_or_default();
    name.rsplit_once('-').map_or(name, |(stage, _)| stage)
}

/// Tokens of pre-training, where it is among the runs.
fn pretrained(dynamics: &Dynamics) -> f64 {
    let points = dynamics.points.iter().filter(|point| stage(point) == "pretrain");
    points.filter_map(|point| point.tokens).max().unwrap_or(0) as f64
}

fn in_order(dynamics: &Dynamics, before: f64) -> Vec<(f64, &Point)> {
    let (mut before, mut last) = (before, before);
    let mut points: Vec<(f64, &Point)> = Vec::new();
    for point in &dynamics.points {
        if points.last().is_some_and(|(_, former)| former.run != point.run) {
            before = last;
        }
        last = before + point.tokens.unwrap_or(0) as f64;
        points.push((last, point));
    }
    points
}

fn charts(view: &View<'_>, courses: &[(&Iteration, Vec<Course<'_>>)], store: &str) -> Vec<Chart> {
    let drawn = FIGURES.iter().filter(|(name, ..)| DRAWN.contains(name));
    let chart = |(name, unit, figure): &Figure| {
        let scale = if *unit == Unit::Share { 100.0 } else { 1.0 };
        let series = courses.iter().map(|(iteration, of)| {
            let curve = |course: &Course<'_>| -> Vec<(f64, f64)> {
                let points = course.points.iter();
                points
                    .filter_map(|(at, point)| Some((*at, scale * figure(point.stores.get(store)?))))
                    .collect()
            };
            // Seeds differ in the tokens of reinforcement learning: their points are those of the same place in the pipeline.
            let curves: Vec<Vec<(f64, f64)>> = of.iter().map(curve).collect();
            Series {
                name: view.name(iteration),
                place: view.place(&iteration.arm),
                iteration: iteration.number,
                points: over_seeds(&curves),
            }
        });
        Chart::Lines(Lines {
            caption: format!("{name}, {store}"),
            x: "tokens".to_owned(),
            series: series.filter(|series| !series.points.is_empty()).collect(),
        })
    };
    drawn.map(chart).collect()
}

/// The last point of a stage.
fn end<'a>(course: &Course<'a>, wanted: &str) -> Option<&'a Point> {
    course.points.iter().rev().map(|(_, point)| *point).find(|point| stage(point) == wanted)
}

const STAGES: [&str; 5] = ["pretrain", "midtrain", "sft", "dpo", "rl"];

/// Figures of a store by stage and iteration: their means, and the differences to the baseline.
fn ends(view: &View<'_>, courses: &[(&Iteration, Vec<Course<'_>>)], store: &str) -> (Table, Table) {
    let table =
        || Table::new(["", "after", "seeds"].into_iter().chain(FIGURES.iter().map(|(name, ..)| *name)));
    let (mut means, mut differences) = (table(), table());
    let by_seed = |of: &[Course<'_>], after: &str, figure: fn(&Means) -> f64| -> BTreeMap<u64, f64> {
        let of_course = |course: &Course<'_>| Some(figure(end(course, after)?.stores.get(store)?));
        of.iter().filter_map(|course| Some((course.seed, of_course(course)?))).collect()
    };
    let baseline = baseline(courses);
    for after in STAGES {
        for (iteration, of) in courses {
            let found = FIGURES.map(|(_, _, figure)| by_seed(of, after, figure));
            let seeds = found[0].len();
            if seeds == 0 {
                continue;
            }
            let plain = FIGURES.iter().zip(&found).map(|((_, unit, _), values)| {
                unit.plain(mean_interval(&values.values().copied().collect::<Vec<_>>()).0)
            });
            means.row([view.name(iteration), after.to_owned(), seeds.to_string()].into_iter().chain(plain));
            let theirs = by_seed(baseline, after, FIGURES[0].2);
            let pairs = found[0].keys().filter(|seed| theirs.contains_key(seed)).count();
            if iteration.number > 0 && pairs > 0 {
                let cells = FIGURES.iter().zip(&found).map(|((_, unit, figure), ours)| {
                    write_difference(less(ours, &by_seed(baseline, after, *figure)).as_ref(), *unit, pairs)
                });
                let start = [view.name(iteration), after.to_owned(), pairs.to_string()];
                differences.row(start.into_iter().chain(cells));
            }
        }
    }
    (means, differences)
}

fn baseline<'a, 'b>(courses: &'a [(&Iteration, Vec<Course<'b>>)]) -> &'a [Course<'b>] {
    courses.iter().find(|(iteration, _)| iteration.number == 0).map_or(&[], |(_, of)| of)
}

/// pass@k by stage and iteration.
fn samples(view: &View<'_>, courses: &[(&Iteration, Vec<Course<'_>>)], task: &str) -> Table {
    let k_of = |metric: &str| metric.strip_prefix("pass@")?.split(',').next()?.parse::<u32>().ok();
    let points = courses.iter().flat_map(|(_, of)| of).flat_map(|course| &course.points);
    let metrics: BTreeMap<u32, &String> = points
        .filter_map(|(_, point)| point.tasks.get(task))
        .flat_map(|scores| scores.keys())
        .filter_map(|metric| Some((k_of(metric)?, metric)))
        .collect();
    let headings = ["", "after", "seeds"].map(str::to_owned).into_iter();
    let mut table = Table::new(headings.chain(metrics.keys().map(|k| format!("pass@{k}"))));
    if metrics.is_empty() {
        return table;
    }
    let by_seed = |of: &[Course<'_>], after: &str, metric: &str| -> BTreeMap<u64, f64> {
        let score = |course: &Course<'_>| Some(end(course, after)?.tasks.get(task)?.get(metric)?.mean);
        of.iter().filter_map(|course| Some((course.seed, score(course)?))).collect()
    };
    let baseline = baseline(courses);
    for after in STAGES {
        for (iteration, of) in courses {
            let mut seeds = 0;
            let cells: Vec<String> = metrics
                .values()
                .map(|metric| {
                    let ours = by_seed(of, after, metric);
                    seeds = seeds.max(ours.len());
                    let theirs = (iteration.number > 0).then(|| by_seed(baseline, after, metric));
                    cell(&ours, theirs.as_ref())
                })
                .collect();
            if seeds > 0 {
                let start = [view.name(iteration), after.to_owned(), seeds.to_string()];
                table.row(start.into_iter().chain(cells));
            }
        }
    }
    table
}

/// `45.2`, or with what it is compared with `45.2, +1.0 [-0.2, +2.2]`.
fn cell(ours: &BTreeMap<u64, f64>, theirs: Option<&BTreeMap<u64, f64>>) -> String {
    if ours.is_empty() {
        return "-".to_owned();
    }
    let (mean, _) = mean_interval(&ours.values().copied().collect::<Vec<_>>());
    let mean = Unit::Share.plain(mean);
    match theirs.and_then(|theirs| less(ours, theirs)) {
        Some(found) => format!("{mean}, {}", write_difference(Some(&found), Unit::Share, ours.len())),
        None => mean,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_add_up_along_the_pipeline() {
        let point = |run: &str, step: u64, tokens: u64| Point {
            run: run.into(),
            step,
            tokens: Some(tokens),
            checkpoint_hash: String::new(),
            inputs: String::new(),
            stores: BTreeMap::new(),
            tasks: BTreeMap::new(),
        };
        let dynamics = Dynamics {
            format_version: 1,
            reference: "rl-3".into(),
            reference_hash: String::new(),
            window: 8,
            points: vec![
                point("pretrain-1", 5, 50),
                point("pretrain-1", 10, 100),
                point("midtrain-2", 4, 40),
                point("rl-3", 2, 7),
            ],
        };
        let at = |before| in_order(&dynamics, before).iter().map(|(at, _)| *at).collect::<Vec<_>>();
        assert_eq!(at(0.0), [50.0, 100.0, 140.0, 147.0]);
        assert_eq!(at(1.0)[3], 148.0);
        assert_eq!(pretrained(&dynamics), 100.0);
        assert_eq!(stage(&dynamics.points[2]), "midtrain");
    }

    #[test]
    fn a_cell_has_the_difference_seed_by_seed() {
        let of = |values: &[f64]| values.iter().enumerate().map(|(seed, v)| (seed as u64, *v)).collect();
        let (ours, theirs): (BTreeMap<u64, f64>, BTreeMap<u64, f64>) = (of(&[0.5, 0.7]), of(&[0.4, 0.5]));
        // Differences 0.1 and 0.2: mean 0.15, standard error 0.05, t at one degree of freedom 12.706.
        assert_eq!(cell(&ours, Some(&theirs)), "60.0, +15.0 [-48.5, +78.5]");
        assert_eq!(cell(&ours, None), "60.0");
        assert_eq!(cell(&BTreeMap::new(), Some(&theirs)), "-");
    }
}
