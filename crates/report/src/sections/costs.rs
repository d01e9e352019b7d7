//! What it took, and what makes it again.

use crate::document::{Block, Section, Table};
use crate::input::{Kind, Run};
use crate::numbers::{count, duration};
use remit_store::hash::hash_bytes;

/// The one place with what a clock said.
pub(super) fn section(run: &Run, no_times: bool) -> Option<Section> {
    let costs = &run.wheel.costs;
    if costs.is_empty() {
        return None;
    }
    let mut headings = vec![
        "arm",
        "iteration",
        "up to",
        "seeds",
        "own tokens",
        "forward",
        "backward",
        "reference",
        "generated",
        "own FLOP",
        "total FLOP",
    ];
    if !no_times {
        headings.extend(["own time", "total time"]);
    }
    let mut table = Table::new(headings);
    let mut words = Vec::new();
    for cost in costs {
        let own = &cost.own;
        let mut row = vec![
            cost.arm.clone(),
            cost.iteration.to_string(),
            cost.point.to_string(),
            cost.seeds.to_string(),
        ];
        row.extend(
            [own.tokens, own.forward, own.backward, own.reference, own.generated].map(|n| count(n as f64)),
        );
        row.extend([own.flops, cost.total.flops].map(|flops| format!("{flops:.2e}")));
        if !no_times {
            row.extend([own.seconds, cost.total.seconds].map(duration));
        }
        table.row(row);
        if let Some(steps) = cost.rl_steps_at_equal_compute {
            words.push(format!(
                "{}, iteration {}: all that was spent beyond ntp would give ntp {steps} steps of reinforcement learning in all.",
                cost.arm, cost.iteration
            ));
        }
    }
    let text = "Means over seeds, counted in predictions. Own: what a turn adds to the turn before; total: with all it depends on. \
                Evaluations are left out.";
    let mut blocks = vec![Block::Text(text.to_owned()), Block::Table(table)];
    if !words.is_empty() {
        blocks.push(Block::List(words));
    }
    Some(Section { id: "costs", title: "Costs".to_owned(), blocks })
}

/// Command, version, hashes.
pub(super) fn reproduce(run: &Run) -> Option<Section> {
    let version = format!("This page is by remit {}.", env!("CARGO_PKG_VERSION"));
    let mut blocks = vec![Block::Text(version)];
    if run.kind == Kind::Single {
        let settings = run.settings.values().next();
        let hash = settings.map(hash_of);
        let mut table = Table::new(["what", "hash"]);
        hash.into_iter().for_each(|hash| table.row(["settings, `run` aside".to_owned(), hash]));
        run.inputs.iter().for_each(|(name, hash)| table.row([name, hash]));
        blocks.push(Block::Text("The settings are in settings.toml beside this report.".to_owned()));
        blocks.push(Block::Details("Hashes".to_owned(), vec![Block::Table(table)]));
    } else {
        blocks.push(Block::Code("remit flywheel --config recipe.toml".to_owned()));
        if let Some(recipe) = &run.recipe {
            let hash = recipe.get("flywheel").and_then(|table| table.as_table()).map(|wheel| {
                let mut recipe = recipe.clone();
                let mut wheel = wheel.clone();
                wheel.remove("run");
                recipe.insert("flywheel".to_owned(), wheel.into());
                hash_of(&recipe)
            });
            blocks.extend(hash.map(|hash| Block::Text(format!("Recipe, its `flywheel.run` aside: {hash}"))));
        }
        let mut table = Table::new(["node", "state", "from", "id"]);
        for node in &run.wheel.nodes {
            let from = if node.inputs.is_empty() { "-".to_owned() } else { node.inputs.join(" ") };
            table.row([node.name.clone(), node.state.name().to_owned(), from, node.id.clone()]);
        }
        blocks.push(Block::Details("Every node and its id".to_owned(), vec![Block::Table(table)]));
    }
    Some(Section { id: "reproduce", title: "What makes it again".to_owned(), blocks })
}

/// The hash of settings, `run` aside.
fn hash_of(table: &toml::Table) -> String {
    let mut table = table.clone();
    table.remove("run");
    hash_bytes(toml::to_string(&table).expect("a table is TOML").as_bytes())
}
