//! What ran on what, and what came of it in words.

use super::View;
use crate::document::{Block, Section, Table};
use crate::input::{BASELINE, Kind};
use crate::numbers::Unit;

pub(super) fn section(view: &View<'_>) -> Option<Section> {
    let run = view.run;
    let mut blocks = Vec::new();
    if run.kind == Kind::Single {
        let log = run.logs.values().next()?;
        blocks.push(Block::Text(format!("A single run; {} steps are done.", log.steps)));
        if let Some(objective) = run.settings.values().next().and_then(|settings| settings.get("objective")) {
            blocks.push(Block::Text(format!("Objective: {objective}")));
        }
    } else {
        blocks.extend(wheel(view));
    }
    Some(Section { id: "ran", title: "What ran on what".to_owned(), blocks })
}

fn wheel(view: &View<'_>) -> Vec<Block> {
    let nodes = &view.run.wheel.nodes;
    let done = nodes.iter().filter(|node| node.state == "done").count();
    let left = nodes.len() - done;
    let mut text =
        format!("{done} of {} nodes are done, {left} left; {} seeds.", nodes.len(), view.num_seeds());
    if view.run.kind == Kind::Nodes {
        text = format!(
            "The flywheel has not finished, and its directory does not say yet whose its nodes are: {done} are done, \
             {left} begun. Every mid-training is shown by its own name. With the recipe, as `--config FILE`, arms are known."
        );
    }
    let mut blocks = vec![Block::Text(text)];
    let recipe = view.run.recipe.as_ref();
    let get = |path: &[&str]| {
        let first = recipe?.get(path[0])?;
        path[1..].iter().try_fold(first, |table, key| table.get(key))
    };
    let mut table = Table::new(["arm", "objective", "reference", "iterations"]);
    let of_recipe = get(&["flywheel", "arms"]).and_then(|arms| arms.as_array());
    for arm in view.arms.iter().filter(|_| view.run.kind == Kind::Flywheel) {
        let named = |found: &&toml::Value| found.get("name").and_then(|name| name.as_str()) == Some(arm);
        let found = of_recipe.and_then(|arms| arms.iter().find(named));
        let objective =
            found.and_then(|found| found.get("objective")).map_or("-".to_owned(), ToString::to_string);
        let looks_up = !objective.contains("\"ntp\"");
        let reference = found.and_then(|found| found.get("reference")?.as_str()).unwrap_or("rl");
        let turns =
            view.turns.iter().filter(|turn| turn.arm == *arm).map(|turn| turn.iteration).max().unwrap_or(0);
        let (objective, reference) = match arm == BASELINE {
            true => ("next-token prediction".to_owned(), "-"),
            false if found.is_none() || !looks_up => (objective, "-"),
            false => (objective, reference),
        };
        table.row([arm.clone(), objective, reference.to_owned(), turns.to_string()]);
    }
    if !table.rows.is_empty() {
        blocks.push(Block::Table(table));
    }
    let mut settings = Table::new(["setting", "value"]);
    for path in [
        &["flywheel", "seeds"][..],
        &["flywheel", "pretrain_per_seed"],
        &["pretrain", "model", "kind"],
        &["pretrain", "model", "hidden_size"],
        &["pretrain", "model", "num_hidden_layers"],
        &["pretrain", "model", "num_attention_heads"],
        &["tokenizer", "vocab_size"],
        &["pretrain", "steps"],
        &["midtrain", "steps"],
        &["midtrain", "data", "window"],
        &["midtrain", "data", "batch_windows"],
        &["sft", "epochs"],
        &["rl", "steps"],
    ] {
        if let Some(value) = get(path) {
            settings.row([path.join("."), value.to_string()]);
        }
    }
    if !settings.rows.is_empty() {
        blocks.push(Block::Table(settings));
    }
    let words: Vec<String> = verdicts(view);
    if !words.is_empty() {
        blocks.push(Block::Heading("After mid-training, compared with ntp".to_owned()));
        blocks.push(Block::List(words));
    }
    blocks
}

/// A sentence a turn and headline figure.
fn verdicts(view: &View<'_>) -> Vec<String> {
    let mut words = Vec::new();
    for turn in view.turns.iter().filter(|turn| turn.arm != BASELINE) {
        for (task, metric, name) in view.headlines() {
            let Some(found) = view.find(turn, "midtrain", (&task, &metric)) else { continue };
            let Some(difference) = found.difference else { continue };
            let unit = Unit::of(&task, &metric);
            let seeds = difference.difference.count;
            let amount = unit.signed(difference.difference.mean);
            let what = match difference.t_interval {
                None => "one seed says nothing about chance".to_owned(),
                Some(interval) if interval.low > 0.0 || interval.high < 0.0 => {
                    let is_better = (difference.difference.mean > 0.0) == (unit == Unit::Share);
                    let better = if is_better { "better" } else { "worse" };
                    format!(
                        "95% {} over {seeds} seeds, distinguishable from none: {better}",
                        unit.interval(interval)
                    )
                }
                Some(interval) => {
                    format!(
                        "95% {} over {seeds} seeds, not distinguishable from none",
                        unit.interval(interval)
                    )
                }
            };
            words.push(format!("{}: {name} {amount} {} ({what}).", view.name(turn), unit.word()));
        }
    }
    words
}
