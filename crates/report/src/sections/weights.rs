//! Token weights: their statistics over time, and tokens in context.

use super::curves::over_seeds;
use super::{Excerpt, Excerpts, View};
use crate::chart::{Chart, Lines, Point, Series};
use crate::document::{Block, Section, Table};
use crate::input::{Kind, Log, WEIGHT_TITLES};

/// Points of a chart: steps between are averaged.
const MOST_POINTS: usize = 60;

pub(super) fn section(view: &View<'_>) -> Option<Section> {
    let mut runs: Vec<(String, (usize, u32), Vec<&Log>)> = Vec::new();
    if view.run.kind == Kind::Single {
        runs.extend(view.run.logs.values().map(|log| ("this run".to_owned(), (1, 0), vec![log])));
    }
    for (index, iteration) in view.iterations.iter().enumerate() {
        let found = view.run.drawn(&iteration.arm, iteration.number);
        let place = if view.run.kind == Kind::Nodes { index + 1 } else { view.place(&iteration.arm) };
        runs.push((
            view.name(iteration),
            (place, iteration.number),
            found.into_iter().map(|(_, _, log)| log).collect(),
        ));
    }
    runs.retain(|(_, _, logs)| logs.iter().any(|log| !log.weights.is_empty()));
    if runs.is_empty() {
        return None;
    }
    let mut charts = Vec::new();
    let mut table = Table::new(["arm", "figure", "first tenth", "last tenth"]);
    for (figure, name) in WEIGHT_TITLES.into_iter().enumerate() {
        let mut series = Vec::new();
        for (arm, (place, number), logs) in &runs {
            let curves: Vec<Vec<(f64, f64)>> = logs.iter().map(|log| values(log, figure)).collect();
            let mut points = over_seeds(&curves);
            if points.is_empty() {
                continue;
            }
            let mean = |part: &[Point]| part.iter().map(|point| point.1).sum::<f64>() / part.len() as f64;
            let tenth = points.len().div_ceil(10);
            let ends = [mean(&points[..tenth]), mean(&points[points.len() - tenth..])];
            let [first, last] = ends.map(|value| format!("{value:.4}"));
            table.row([arm.clone(), name.to_owned(), first, last]);
            let size = points.len().div_ceil(MOST_POINTS);
            points = points.chunks(size).map(|part| (part[part.len() / 2].0, mean(part), None)).collect();
            series.push(Series { name: arm.clone(), place: *place, iteration: *number, points });
        }
        if !series.is_empty() {
            charts.push(Chart::Lines(Lines { caption: name.to_owned(), x: "tokens".to_owned(), series }));
        }
    }
    let text = "Of each step's batch, means over seeds.".to_owned();
    let blocks = vec![Block::Text(text), Block::Charts(charts), Block::Table(table)];
    Some(Section { id: "weights", title: "Weights over time".to_owned(), blocks })
}

/// Tokens and one of the figures of weights.
fn values(log: &Log, figure: usize) -> Vec<(f64, f64)> {
    log.weights.iter().filter_map(|(tokens, figures)| Some((*tokens, figures[figure]?))).collect()
}

pub(super) fn excerpts(all: &[Excerpts]) -> Option<Section> {
    let mut blocks = Vec::new();
    if all.iter().any(|of| of.skipped.is_none()) {
        let text = "What mid-training of the first turn and seed begins with: the weights of its own learner, reference and objective, in \
                    windows of held-out text. Of a document only one token; where weights are the same, that of the larger gap comes first.";
        blocks.push(Block::Text(text.to_owned()));
    }
    for of in all {
        let mut of_arm: Vec<Block> = of.skipped.clone().map(Block::Text).into_iter().collect();
        for (heading, list) in [("Most", &of.most), ("Least", &of.least)] {
            if !list.is_empty() {
                of_arm.push(Block::Text(format!("{heading}:")));
                of_arm.push(Block::Excerpts(list.iter().map(shown).collect()));
            }
        }
        blocks.push(Block::Details(of.arm.clone(), of_arm));
    }
    let title = "Tokens weighted most and least".to_owned();
    (!blocks.is_empty()).then_some(Section { id: "tokens", title, blocks })
}

fn shown(excerpt: &Excerpt) -> [String; 4] {
    let Excerpt { before, token, after, weight } = excerpt;
    [before.clone(), token.clone(), after.clone(), format!("{weight:.4}")]
}
