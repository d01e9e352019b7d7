//! Arms compared with one another, not with the baseline alone.

use super::{CONFIDENCE, Turn, View};
use crate::document::{Block, Section, Table};
use crate::input::Interval;
use crate::numbers::Unit;
use remit_eval::metrics::{Bootstrap, paired};
use std::collections::BTreeMap;

/// With two turns, what there is to say is said as the difference to the baseline.
const FEWEST_TURNS: usize = 3;

pub(super) fn section(view: &View<'_>) -> Option<Section> {
    let mut blocks = Vec::new();
    for point in &view.points {
        for (task, metric, name) in view.headlines() {
            let turns: Vec<(&Turn, BTreeMap<u64, f64>)> = view
                .turns
                .iter()
                .map(|turn| (turn, by_seed(view, turn, point, (&task, &metric))))
                .filter(|(_, values)| !values.is_empty())
                .collect();
            if turns.len() >= FEWEST_TURNS {
                blocks.push(Block::Heading(format!("{name} after {point}")));
                blocks.push(Block::Table(table(view, &turns, Unit::of(&task, &metric))));
            }
        }
    }
    if blocks.is_empty() {
        return None;
    }
    let text = "Row less column, over the seeds that both have, with its 95% interval. Many comparisons stand here side by side: about one in \
                twenty excludes nothing by chance alone.";
    let blocks = vec![Block::Text(text.to_owned()), Block::Details("All pairs".to_owned(), blocks)];
    Some(Section { id: "between", title: "Between arms".to_owned(), blocks })
}

fn by_seed(view: &View<'_>, turn: &Turn, point: &str, (task, metric): (&str, &str)) -> BTreeMap<u64, f64> {
    let figures = view.run.wheel.figures.iter();
    let ours = figures.filter(|figure| {
        figure.owner.arm == turn.arm
            && figure.owner.iteration == turn.iteration
            && figure.point == point
            && (figure.task.as_str(), figure.metric.as_str()) == (task, metric)
    });
    ours.map(|figure| (figure.owner.seed, figure.value)).collect()
}

fn table(view: &View<'_>, turns: &[(&Turn, BTreeMap<u64, f64>)], unit: Unit) -> Table {
    let names = turns.iter().map(|(turn, _)| view.name(turn));
    let mut table = Table::new(std::iter::once(String::new()).chain(names));
    for (row, ours) in turns {
        let cells = turns.iter().map(|(column, theirs)| match row == column {
            true => "-".to_owned(),
            false => difference(ours, theirs, unit),
        });
        table.row(std::iter::once(view.name(row)).chain(cells));
    }
    table
}

fn difference(ours: &BTreeMap<u64, f64>, theirs: &BTreeMap<u64, f64>, unit: Unit) -> String {
    let pairs = ours.iter().filter_map(|(seed, ours)| Some((*theirs.get(seed)?, *ours)));
    let (a, b): (Vec<f64>, Vec<f64>) = pairs.unzip();
    if a.is_empty() {
        return "-".to_owned();
    }
    // The bootstrap is not shown.
    let found = paired(&a, &b, CONFIDENCE, &Bootstrap { resamples: 1, ..Bootstrap::default() });
    let interval = found.t_interval.map(|t| Interval { low: t.low, high: t.high });
    unit.difference(found.difference.mean, interval)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_less_columns_over_the_seeds_that_both_have() {
        let of = |values: &[(u64, f64)]| values.iter().copied().collect::<BTreeMap<u64, f64>>();
        let (ours, theirs) = (of(&[(1, 0.5), (2, 0.7), (3, 0.1)]), of(&[(1, 0.4), (2, 0.5)]));
        // Differences 0.1 and 0.2: mean 0.15, standard error 0.05, t at one degree of freedom 12.706.
        assert_eq!(difference(&ours, &theirs, Unit::Share), "+15.0 [-48.5, +78.5]");
        assert_eq!(difference(&theirs, &ours, Unit::Share), "-15.0 [-78.5, +48.5]");
        assert_eq!(difference(&ours, &of(&[(9, 1.0)]), Unit::Share), "-");
    }
}
