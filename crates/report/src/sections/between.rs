//! Arms compared with one another, not with the baseline alone.

use super::{Iteration, View};
use crate::document::{Block, Section, Table};
use crate::numbers::Unit;
use std::collections::BTreeMap;

/// With two iterations, what there is to say is said as the difference to the baseline.
const FEWEST_ITERATIONS: usize = 3;

pub(super) fn section(view: &View<'_>) -> Option<Section> {
    let mut blocks = Vec::new();
    for &point in &view.points {
        for (task, metric, name) in view.headlines() {
            let iterations: Vec<(&Iteration, BTreeMap<u64, f64>)> = view
                .iterations
                .iter()
                .map(|iteration| (iteration, view.by_seed(iteration, point, (&task, &metric))))
                .filter(|(_, values)| !values.is_empty())
                .collect();
            if iterations.len() >= FEWEST_ITERATIONS {
                blocks.push(Block::Heading(format!("{name} after {point}")));
                blocks.push(Block::Table(table(view, &iterations, Unit::of(&task, &metric))));
            }
        }
    }
    if blocks.is_empty() {
        return None;
    }
    let text = "Row less column, over the seeds that both have, with its 95% interval. Of twenty differences that are none, one is expected to \
                look like one.";
    let blocks = vec![Block::Text(text.to_owned()), Block::Details("All pairs".to_owned(), blocks)];
    Some(Section { id: "between", title: "Between arms".to_owned(), blocks })
}

fn table(view: &View<'_>, iterations: &[(&Iteration, BTreeMap<u64, f64>)], unit: Unit) -> Table {
    let names = iterations.iter().map(|(iteration, _)| view.name(iteration));
    let mut table = Table::new(std::iter::once(String::new()).chain(names));
    for (row, ours) in iterations {
        let cells = iterations.iter().map(|(column, theirs)| match row == column {
            true => "-".to_owned(),
            false => view.difference_between(ours, theirs, unit),
        });
        table.row(std::iter::once(view.name(row)).chain(cells));
    }
    table
}
