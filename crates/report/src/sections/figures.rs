//! Tables of tasks, gains kept through the pipeline, and iterations.

use super::{Iteration, View, short_of};
use crate::chart::{Chart, Lines, Series, Whiskers};
use crate::document::{Block, Section, Table};
use crate::numbers::Unit;
use remit_results::flywheel::{BASELINE, Comparison, HELD_OUT, Point};

/// Reinforcement learning has windows of a prompt and its completion.
const OWN_WINDOWS: &str = "A stage measures held-out losses in windows of its own length: they compare arms with one another, not stages.";

/// All tasks, by point and iteration.
pub(super) fn tasks(view: &View<'_>) -> Option<Section> {
    let mut metrics: Vec<&str> = Vec::new();
    for found in view.comparison.iter().filter(|found| found.task != HELD_OUT) {
        if !metrics.contains(&found.metric.as_str()) {
            metrics.push(&found.metric);
        }
    }
    if metrics.is_empty() {
        return None;
    }
    let mut blocks = vec![Block::Text(
        "Means over seeds; behind each the difference to ntp with its 95% interval, paired by seed. Accuracies are in \
         percent, their differences in points; nll is in nats a token."
            .to_owned(),
    )];
    for (index, metric) in metrics.iter().enumerate() {
        let mut of_metric = Vec::new();
        for &point in &view.points {
            if let Some(table) = table(view, metric, point) {
                of_metric.push(Block::Heading(format!("{} after {point}", title(metric))));
                of_metric.push(Block::Table(table));
            }
        }
        match index {
            0 => blocks.extend(of_metric),
            _ => blocks.push(Block::Details(title(metric), of_metric)),
        }
    }
    Some(Section { id: "tasks", title: "Tasks".to_owned(), blocks })
}

fn title(metric: &str) -> String {
    let name = metric.strip_suffix(",none").unwrap_or(metric).replace("exact_match", "accuracy");
    if name == "nll" { "Negative log-likelihood of the solutions (nll)".to_owned() } else { name }
}

fn table(view: &View<'_>, metric: &str, point: Point) -> Option<Table> {
    let here = |iteration: &&Iteration| {
        let same = |found: &Comparison| {
            (found.arm.as_str(), found.iteration) == (iteration.arm.as_str(), iteration.number)
        };
        let mut figures =
            view.comparison.iter().filter(|found| found.metric == metric && found.point == point);
        figures.any(same)
    };
    let iterations: Vec<&Iteration> = view.iterations.iter().filter(here).collect();
    let mut tasks: Vec<&str> = Vec::new();
    for found in view.comparison.iter().filter(|found| found.metric == metric && found.task != HELD_OUT) {
        if found.point == point && !tasks.contains(&found.task.as_str()) {
            tasks.push(&found.task);
        }
    }
    if tasks.is_empty() {
        return None;
    }
    let mut headings = vec!["task".to_owned()];
    for iteration in &iterations {
        headings.push(view.name(iteration));
        if iteration.arm != BASELINE {
            headings.push("difference".to_owned());
        }
    }
    let mut table = Table::new(headings);
    for task in tasks {
        let mut row = vec![task.to_owned()];
        for iteration in &iterations {
            let found = view.find(iteration, point, (task, metric));
            row.push(found.map_or("-".to_owned(), |found| mean(view, found)));
            if iteration.arm != BASELINE {
                row.push(view.difference_of(found));
            }
        }
        table.row(row);
    }
    Some(table)
}

/// `45.2`, with the number of seeds where it is not all.
fn mean(view: &View<'_>, found: &Comparison) -> String {
    Unit::of(&found.task, &found.metric).plain(found.mean.mean) + &short_of(found.mean.count, view.num_seeds)
}

/// Differences to the baseline from point to point.
pub(super) fn gains(view: &View<'_>) -> Option<Section> {
    let (mut blocks, mut charts) = (Vec::new(), Vec::new());
    for (task, metric, name) in view.headlines() {
        let unit = Unit::of(&task, &metric);
        let mut table =
            Table::new(std::iter::once("arm").chain(view.points.iter().map(|point| point.name())));
        let mut rows = Vec::new();
        for iteration in view.iterations.iter().filter(|iteration| iteration.arm != BASELINE) {
            let found: Vec<_> =
                view.points.iter().map(|&point| view.find(iteration, point, (&task, &metric))).collect();
            if found.iter().all(Option::is_none) {
                continue;
            }
            table.row(
                std::iter::once(view.name(iteration))
                    .chain(found.iter().map(|found| view.difference_of(*found))),
            );
            for (point, found) in view.points.iter().zip(&found) {
                let Some(difference) = found.and_then(|found| found.difference) else { continue };
                let scale = if unit == Unit::Share { 100.0 } else { 1.0 };
                let interval = difference.telling_interval().map(|t| (t.low * scale, t.high * scale));
                let short = match view.name(iteration).split_once(", iteration ") {
                    Some((arm, iteration)) => format!("{arm} i{iteration}"),
                    None => iteration.arm.clone(),
                };
                let value = difference.difference.mean * scale;
                rows.push((format!("{short} · {point}"), view.place(&iteration.arm), value, interval));
            }
        }
        if rows.is_empty() {
            continue;
        }
        blocks.push(Block::Heading(name.clone()));
        blocks.push(Block::Table(table));
        let x = format!("difference to ntp, {}", unit.word());
        charts.push(Chart::Whiskers(Whiskers { caption: name, x, rows }));
    }
    if blocks.is_empty() {
        return None;
    }
    let text = "Differences to ntp at each point of the pipeline, with 95% intervals over seeds: whether what mid-training \
                gained is still there behind it. An arrow: the interval goes on.";
    let text = format!("{text} {OWN_WINDOWS}");
    blocks.insert(0, Block::Text(text));
    blocks.insert(1, Block::Charts(charts));
    Some(Section { id: "gains", title: "Gains kept".to_owned(), blocks })
}

/// Arms with more than one iteration, one by one.
pub(super) fn iterations(view: &View<'_>) -> Option<Section> {
    let most = view.iterations.iter().map(|iteration| iteration.number).max().filter(|most| *most > 1)?;
    let arms: Vec<&String> = view
        .arms
        .iter()
        .filter(|arm| view.iterations.iter().any(|iteration| iteration.arm == **arm && iteration.number > 1))
        .collect();
    let of = |arm: &str, number: u32| match number {
        0 => Iteration { arm: BASELINE.to_owned(), number },
        _ => Iteration { arm: arm.to_owned(), number },
    };
    let mut blocks = vec![Block::Text(format!(
        "Iteration 0 is ntp. Means over seeds; behind them each iteration less the one before it, with its 95% interval over seeds. \
         {OWN_WINDOWS}"
    ))];
    for (task, metric, name) in view.headlines() {
        let unit = Unit::of(&task, &metric);
        let headings = ["arm".to_owned(), "after".to_owned()].into_iter();
        let headings = headings.chain((0..=most).map(|n| format!("iteration {n}")));
        let mut table = Table::new(headings.chain((1..=most).map(|n| format!("{n} less {}", n - 1))));
        let mut charts = Vec::new();
        for &point in &view.points {
            let mut series = Vec::new();
            for arm in &arms {
                let found = (0..=most).map(|n| view.find(&of(arm, n), point, (&task, &metric)));
                let found: Vec<Option<&Comparison>> = found.collect();
                let cells = found.iter().map(|found| found.map_or("-".to_owned(), |found| mean(view, found)));
                let by_seed = |n| view.by_seed(&of(arm, n), point, (&task, &metric));
                let steps = (1..=most).map(|n| view.difference_between(&by_seed(n), &by_seed(n - 1), unit));
                table.row([(*arm).clone(), point.to_string()].into_iter().chain(cells).chain(steps));
                let scale = if unit == Unit::Share { 100.0 } else { 1.0 };
                let points = found
                    .iter()
                    .enumerate()
                    .filter_map(|(n, found)| Some((n as f64, (*found)?.mean.mean * scale, None)));
                series.push(Series {
                    name: (*arm).clone(),
                    place: view.place(arm),
                    iteration: 0,
                    points: points.collect(),
                });
            }
            let caption = format!("{name} after {point}");
            charts.push(Chart::Lines(Lines { caption, x: "iteration".to_owned(), series }));
        }
        blocks.push(Block::Heading(name));
        blocks.push(Block::Table(table));
        blocks.push(Block::Charts(charts));
    }
    (blocks.len() > 1).then(|| Section {
        id: "iterations",
        title: "Iteration by iteration".to_owned(),
        blocks,
    })
}
