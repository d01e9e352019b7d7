//! What ran on what, and what came of it in words.

use super::View;
use crate::document::{Block, Section, Table};
use crate::input::Kind;
use crate::numbers::{Unit, count};
use remit_results::flywheel::{BASELINE, Point, State};
use remit_results::statistics::{Mean, Paired};

pub(super) fn section(view: &View<'_>) -> Option<Section> {
    let run = view.run;
    let mut blocks = Vec::new();
    if run.kind == Kind::Single {
        let log = run.logs.values().next()?;
        let model = run.num_parameters.map(|n| format!(", a model of {} parameters", count(n as f64)));
        let model = model.unwrap_or_default();
        blocks.push(Block::Text(format!("A single run{model}; {} steps are done.", log.steps)));
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
    let done = nodes.iter().filter(|node| node.state == State::Done).count();
    let left = nodes.len() - done;
    let seeds = view.num_seeds;
    let seeds = format!("{seeds} seed{}", if seeds == 1 { "" } else { "s" });
    let mut text = format!("{done} of {} nodes are done, {left} left; {seeds}.", nodes.len());
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
    let mut table = Table::new(["arm", "objective", "reference", "iterations", "its own"]);
    let of_recipe = get(&["flywheel", "arms"]).and_then(|arms| arms.as_array());
    let objectives: Vec<&toml::Table> =
        of_recipe.into_iter().flatten().filter_map(|arm| arm.get("objective")?.as_table()).collect();
    for arm in view.arms.iter().filter(|_| view.run.kind == Kind::Flywheel) {
        let named = |found: &&toml::Value| found.get("name").and_then(|name| name.as_str()) == Some(arm);
        let found = of_recipe.and_then(|arms| arms.iter().find(named));
        let objective = found
            .and_then(|found| found.get("objective")?.as_table())
            .map_or("-".to_owned(), |of| in_words(of, &objectives));
        let looks_up = found.is_some_and(|found| needs_reference(found.get("objective")));
        let reference = found.and_then(|found| found.get("reference")?.as_str()).unwrap_or("rl");
        let iterations = view
            .iterations
            .iter()
            .filter(|iteration| iteration.arm == *arm)
            .map(|iteration| iteration.number)
            .max()
            .unwrap_or(0);
        let (objective, reference) = match arm == BASELINE {
            true => ("next-token prediction".to_owned(), "-"),
            false if found.is_none() || !looks_up => (objective, "-"),
            false => (objective, reference),
        };
        let own = found.map_or_else(String::new, own_settings);
        table.row([arm.clone(), objective, reference.to_owned(), iterations.to_string(), own]);
    }
    // Most recipes have arms that differ in nothing but their objective.
    if table.rows.iter().all(|row| row[4].is_empty()) {
        table.headings.pop();
        table.rows.iter_mut().for_each(|row| drop(row.pop()));
    }
    if !table.rows.is_empty() {
        blocks.push(Block::Table(table));
        let kind = |objective: &&toml::Table| objective.get("kind").map(ToString::to_string);
        let mut kinds: Vec<_> = objectives.iter().map(kind).collect();
        kinds.sort_unstable();
        if kinds.windows(2).any(|pair| pair[0] == pair[1]) {
            let text = "Options that all arms with one kind of objective have alike are left out; the recipe has them.";
            blocks.push(Block::Text(text.to_owned()));
        }
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
    if let Some(parameters) = view.run.num_parameters {
        settings.row(["parameters of the model".to_owned(), count(parameters as f64)]);
    }
    if !settings.rows.is_empty() {
        blocks.push(Block::Table(settings));
    }
    let words: Vec<String> = verdicts(view);
    if !words.is_empty() {
        blocks.push(Block::Heading("After mid-training, compared with ntp".to_owned()));
        if words.len() > 1 {
            let text =
                "Each by itself: of twenty differences that are none, one is expected to look like one.";
            blocks.push(Block::Text(text.to_owned()));
        }
        blocks.push(Block::List(words));
    }
    blocks
}

/// Whether an arm with this objective reads another model.
fn needs_reference(objective: Option<&toml::Value>) -> bool {
    let word = |key: &str| objective.and_then(|objective| objective.get(key)?.as_str());
    word("kind") != Some("ntp") && word("signal") != Some("learner")
}

/// What an arm has its own way beside its objective: `until sft, rl.steps 300`.
fn own_settings(arm: &toml::Value) -> String {
    fn flatten(path: &str, value: &toml::Value, found: &mut Vec<String>) {
        match value.as_table() {
            Some(table) => {
                table.iter().for_each(|(key, value)| flatten(&format!("{path}.{key}"), value, found))
            }
            None => found.push(format!("{} {value}", &path[1..])),
        }
    }
    let mut found = Vec::new();
    if let Some(until) = arm.get("until").and_then(|until| until.as_str()) {
        found.push(format!("until {until}"));
    }
    if let Some(settings) = arm.get("settings") {
        flatten("", settings, &mut found);
    }
    found.join(", ")
}

/// `remit, epsilon_low 1.0`: without the options that all arms of its kind have alike.
fn in_words(objective: &toml::Table, all: &[&toml::Table]) -> String {
    let kind = objective.get("kind").and_then(|kind| kind.as_str()).unwrap_or("-").to_owned();
    let kin: Vec<_> = all.iter().filter(|other| other.get("kind") == objective.get("kind")).collect();
    let differs =
        |key: &String| kin.len() < 2 || kin.iter().any(|other| other.get(key) != objective.get(key));
    let options = objective.iter().filter(|(key, _)| *key != "kind" && differs(key));
    options.fold(kind, |text, (key, value)| match value.as_str() {
        Some(word) => format!("{text}, {key} {word}"),
        None => format!("{text}, {key} {value}"),
    })
}

/// A sentence an iteration and headline figure.
fn verdicts(view: &View<'_>) -> Vec<String> {
    let mut words = Vec::new();
    for iteration in view.iterations.iter().filter(|iteration| iteration.arm != BASELINE) {
        for (task, metric, name) in view.headlines() {
            let Some(found) = view.find(iteration, Point::Midtrain, (&task, &metric)) else { continue };
            let Some(difference) = found.difference else { continue };
            words.push(verdict(&view.name(iteration), &name, Unit::of(&task, &metric), difference));
        }
    }
    words
}

/// `remit is better in accuracy on sums: +1.2 points, 95% interval [+0.4, +2.0], 5 seeds.`
fn verdict(arm: &str, figure: &str, unit: Unit, difference: Paired) -> String {
    let Mean { mean, count, .. } = difference.difference;
    let amount = format!("{} {}", unit.signed(mean), unit.word());
    let Some(interval) = difference.telling_interval() else {
        let seeds =
            if count == 1 { "one seed".to_owned() } else { format!("{count} seeds that agree to the digit") };
        return format!("{arm} cannot be told from ntp by {seeds} in {figure}: {amount}.");
    };
    let is_told = interval.low > 0.0 || interval.high < 0.0;
    // Of accuracy more is better, of losses less.
    let what = match (is_told, (mean > 0.0) == (unit == Unit::Share)) {
        (false, _) => "cannot be told from ntp",
        (true, true) => "is better than ntp",
        (true, false) => "is worse than ntp",
    };
    format!("{arm} {what} in {figure}: {amount}, 95% interval {}, {count} seeds.", unit.interval(interval))
}

#[cfg(test)]
mod tests {
    use super::*;
    use remit_results::statistics::{CONFIDENCE, Interval};

    #[test]
    fn arms_are_told_apart_by_what_differs() {
        let [a, b, c] =
            ["kind = 'x'\ne = 1.0\nf = 'g'", "kind = 'x'\ne = 2.0\nf = 'g'", "kind = 'y'\ne = 3.0"]
                .map(|text| text.parse::<toml::Table>().unwrap());
        let all = [&a, &b, &c];
        assert_eq!(all.map(|of| in_words(of, &all)), ["x, e 1.0", "x, e 2.0", "y, e 3.0"]);
    }

    #[test]
    fn what_an_arm_has_its_own_way() {
        let arm = |text: &str| toml::Value::Table(text.parse().unwrap());
        let own =
            own_settings(&arm("until = 'sft'\n[settings.rl]\nsteps = 300\n[settings.rl.grpo]\nbeta = 0.1"));
        assert_eq!(own, "until sft, rl.grpo.beta 0.1, rl.steps 300");
        assert_eq!(own_settings(&arm("name = 'x'")), "");
        for (objective, needs) in
            [("kind = 'ntp'", false), ("kind = 'remit'\nsignal = 'learner'", false), ("kind = 'kd'", true)]
        {
            assert_eq!(needs_reference(Some(&arm(objective))), needs, "{objective}");
        }
    }

    #[test]
    fn verdicts_have_the_sign_of_their_figure() {
        let paired = |mean, count, t_interval| Paired {
            difference: Mean { mean, standard_error: None, count },
            t: None,
            p: None,
            t_interval,
            bootstrap_interval: None,
            confidence: CONFIDENCE,
        };
        let of = |unit, mean, low, high| {
            verdict("arm", "figure", unit, paired(mean, 3, Some(Interval { low, high })))
        };
        let said = of(Unit::Loss, -0.02, -0.03, -0.01);
        assert_eq!(
            said,
            "arm is better than ntp in figure: -0.0200 nats, 95% interval [-0.0300, -0.0100], 3 seeds."
        );
        assert!(of(Unit::Loss, 0.02, 0.01, 0.03).contains("is worse"));
        assert!(of(Unit::Share, 0.02, 0.01, 0.03).contains("is better"));
        assert!(of(Unit::Share, -0.02, -0.03, -0.01).contains("is worse"));
        assert!(of(Unit::Share, 0.02, -0.01, 0.05).contains("cannot be told"));
        assert!(verdict("arm", "figure", Unit::Share, paired(0.1, 1, None)).contains("by one seed"));
    }
}
