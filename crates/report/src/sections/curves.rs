//! Held-out losses of mid-training, and how soon an arm is where the baseline ends.

use super::{BANDS, Iteration, View, mean_interval, short_of};
use crate::chart::{Chart, Lines, Point, Series};
use crate::document::{Block, Section, Table};
use crate::input::{Kind, Log};
use crate::numbers::Unit;
use remit_results::flywheel::{self, BASELINE, State};
use std::collections::BTreeSet;

pub(super) fn section(view: &View<'_>) -> Option<Section> {
    let is_single = view.run.kind == Kind::Single;
    let stores: BTreeSet<String> = view
        .run
        .logs
        .iter()
        .filter(|(name, _)| is_single || name.starts_with(flywheel::Point::Midtrain.name()))
        .flat_map(|(_, log)| &log.held_out)
        .flat_map(|(_, losses)| losses.keys().cloned())
        .collect();
    if stores.is_empty() {
        return None;
    }
    let most = view.iterations.iter().map(|iteration| iteration.number).max().unwrap_or(0).max(1);
    let mut blocks = Vec::new();
    if view.num_seeds > 1 {
        blocks.push(Block::Text(BANDS.to_owned()));
    }
    for store in &stores {
        let mut charts = Vec::new();
        for iteration in 1..=most {
            let series = match is_single {
                true => single(view, store),
                false => lines(view, store, iteration),
            };
            let of = if most > 1 { format!(", iteration {iteration}") } else { String::new() };
            let caption = format!("Held-out loss of {store}{of}");
            let is_worth_it = series.iter().any(|series| series.place > 0) || iteration == 1;
            if is_worth_it && !series.is_empty() {
                charts.push(Chart::Lines(Lines { caption, x: "tokens".to_owned(), series }));
            }
        }
        blocks.push(Block::Charts(charts));
    }
    let mut finals = Table::new(["arm", "seeds"].map(str::to_owned).into_iter().chain(stores.clone()));
    for iteration in view.iterations.iter() {
        let runs = view.run.midtrainings(&iteration.arm, iteration.number);
        let runs: Vec<_> = runs.iter().filter(|(_, node, _)| node.state == State::Done).collect();
        if runs.is_empty() {
            continue;
        }
        let cells = stores.iter().map(|store| {
            let last: Vec<f64> =
                runs.iter().filter_map(|(.., log)| Some(log.losses(store).last()?.1)).collect();
            if last.is_empty() {
                return "-".to_owned();
            }
            Unit::Loss.plain(mean_interval(&last).0) + &short_of(last.len(), runs.len())
        });
        finals.row([view.name(iteration), runs.len().to_string()].into_iter().chain(cells));
    }
    if is_single && let Some(log) = view.run.logs.values().next() {
        let last =
            |store: &String| log.losses(store).last().map_or("-".to_owned(), |last| format!("{:.4}", last.1));
        finals.row(["run".to_owned(), "1".to_owned()].into_iter().chain(stores.iter().map(last)));
    }
    blocks.push(Block::Heading("Held-out loss at the end".to_owned()));
    blocks.push(Block::Table(finals));
    let reached = reached(view, &stores);
    if !reached.rows.is_empty() {
        blocks.push(Block::Heading("Where the baseline ends".to_owned()));
        let text = "The share of the baseline's tokens after which an arm first has the loss that the baseline ends with, seed by seed, \
                    by straight lines between evaluations; mean and 95% interval over the seeds that reached it. ntp itself is below 100% where \
                    its loss was lower before its end. A loss that ntp ends no lower with than it began is left out.";
        blocks.push(Block::Text(text.to_owned()));
        blocks.push(Block::Table(reached));
    }
    Some(Section { id: "curves", title: "Learning curves".to_owned(), blocks })
}

fn single(view: &View<'_>, store: &str) -> Vec<Series> {
    let logs = view.run.logs.values();
    logs.map(|log| Series {
        name: "this run".to_owned(),
        place: 1,
        iteration: 0,
        points: log.losses(store).into_iter().map(|(x, y)| (x, y, None)).collect(),
    })
    .collect()
}

/// The baseline and the arms of an iteration, means over seeds.
fn lines(view: &View<'_>, store: &str, number: u32) -> Vec<Series> {
    let is_shown = |iteration: &&Iteration| iteration.number == number || iteration.number == 0;
    let series = view.iterations.iter().filter(is_shown).enumerate().map(|(index, iteration)| {
        let runs = view.run.drawn(&iteration.arm, iteration.number);
        let curves: Vec<Vec<(f64, f64)>> = runs.iter().map(|(.., log)| log.losses(store)).collect();
        // Nodes that nobody says the arms of stand side by side.
        let place = if view.run.kind == Kind::Nodes { index + 1 } else { view.place(&iteration.arm) };
        Series { name: iteration.arm.clone(), place, iteration: 1, points: over_seeds(&curves) }
    });
    series.filter(|series| !series.points.is_empty()).collect()
}

/// The mean curve as far as all seeds have come, with its interval. Seeds meet at the same evaluation or step: windows that
/// are filled up make their tokens differ a little.
pub(super) fn over_seeds(curves: &[Vec<(f64, f64)>]) -> Vec<Point> {
    let shortest = curves.iter().map(Vec::len).min().unwrap_or(0);
    let at = |index: usize| -> (Vec<f64>, Vec<f64>) { curves.iter().map(|curve| curve[index]).unzip() };
    let points = (0..shortest).map(|index| {
        let (tokens, values) = at(index);
        let (mean, interval) = mean_interval(&values);
        (mean_interval(&tokens).0, mean, interval.map(|interval| (interval.low, interval.high)))
    });
    points.collect()
}

fn reached(view: &View<'_>, stores: &BTreeSet<String>) -> Table {
    let mut table = Table::new(["arm", "store", "by seed", "mean", "not reached"]);
    let baseline = view.run.midtrainings(BASELINE, 0);
    if view.iterations.iter().all(|iteration| iteration.arm == BASELINE) {
        return table;
    }
    for iteration in &view.iterations {
        for store in stores {
            let mut shares = Vec::new();
            for (seed, node, log) in view.run.midtrainings(&iteration.arm, iteration.number) {
                let theirs =
                    baseline.iter().find(|(other, node, _)| *other == seed && node.state == State::Done);
                if let (Some((_, _, theirs)), State::Done) = (theirs, &node.state)
                    && has_fallen(&theirs.losses(store))
                {
                    shares.push(share(theirs, log, store));
                }
            }
            if shares.is_empty() {
                continue;
            }
            let percent = |share: &f64| format!("{:.1}%", share * 100.0);
            let words: Vec<String> =
                shares.iter().map(|share| share.as_ref().map_or("-".to_owned(), percent)).collect();
            let found: Vec<f64> = shares.iter().copied().flatten().collect();
            let mean = match (found.is_empty(), mean_interval(&found)) {
                (true, _) => "-".to_owned(),
                (false, (mean, Some(interval))) if interval.has_width() => {
                    format!("{} [{:.1}, {:.1}]", percent(&mean), interval.low * 100.0, interval.high * 100.0)
                }
                (false, (mean, _)) => percent(&mean),
            };
            let not = format!("{} of {}", shares.len() - found.len(), shares.len());
            table.row([view.name(iteration), store.clone(), words.join(", "), mean, not]);
        }
    }
    table
}

fn has_fallen(curve: &[(f64, f64)]) -> bool {
    curve.first().zip(curve.last()).is_some_and(|(first, last)| last.1 < first.1)
}

/// After which share of the baseline's tokens a run first has the loss that the baseline ends with.
fn share(baseline: &Log, run: &Log, store: &str) -> Option<f64> {
    let (tokens, goal) = *baseline.losses(store).last()?;
    Some(first_at(&run.losses(store), goal)? / tokens)
}

/// Where a curve first is at or below a goal, by straight lines.
fn first_at(curve: &[(f64, f64)], goal: f64) -> Option<f64> {
    if curve.first()?.1 <= goal {
        return Some(curve[0].0);
    }
    let pair = curve.windows(2).find(|pair| pair[1].1 <= goal)?;
    let [(x0, y0), (x1, y1)] = [pair[0], pair[1]];
    Some(x0 + (y0 - goal) / (y0 - y1) * (x1 - x0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_goal_is_met_between_evaluations() {
        let curve = [(0.0, 4.0), (10.0, 2.0), (20.0, 1.0)];
        assert_eq!(first_at(&curve, 1.5), Some(15.0));
        assert_eq!(first_at(&curve, 2.0), Some(10.0));
        assert_eq!(first_at(&curve, 5.0), Some(0.0));
        assert_eq!(first_at(&curve, 0.5), None);
    }

    #[test]
    fn what_has_not_fallen_has_no_goal() {
        assert!(has_fallen(&[(0.0, 4.0), (10.0, 5.0), (20.0, 3.0)]));
        assert!(!has_fallen(&[(0.0, 4.0), (10.0, 3.0), (20.0, 4.0)]));
        assert!(!has_fallen(&[]));
    }

    #[test]
    fn seeds_are_averaged_where_all_have_come() {
        let curves = [vec![(4.0, 1.0), (8.0, 3.0)], vec![(6.0, 2.0)]];
        let mean = over_seeds(&curves);
        assert_eq!((mean.len(), mean[0].0, mean[0].1), (1, 5.0, 1.5));
        assert!(mean[0].2.is_some_and(|(low, high)| low < 1.0 && high > 2.0));
    }
}
