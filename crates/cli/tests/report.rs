//! `remit report`: a page of a tiny flywheel, its figures against the files they come from, and what is no run.

mod common;

use common::{Home, wheel_recipe};
use serde_json::{Value, json};

const ACCURACY: &str = "exact_match,none";

/// A flywheel of two seeds by hand: `ntp` and an arm `a<b`, mid-training alone.
fn home() -> Home {
    let home = Home::new();
    let mut nodes = Vec::new();
    let mut figures = Vec::new();
    for (arm, iteration, losses, shares) in
        [("ntp", 0, [1.0, 1.2], [0.5, 0.4]), ("a<b", 1, [0.9, 1.0], [0.6, 0.7])]
    {
        for seed in 1..=2usize {
            let (loss, share) = (losses[seed - 1], shares[seed - 1]);
            let owner = json!({ "arm": arm, "iteration": iteration, "seed": seed });
            for stage in ["midtrain", "eval"] {
                let name = format!("{stage}-{iteration}{seed}");
                std::fs::create_dir_all(home.at(&format!("wheel/nodes/{name}"))).unwrap();
                nodes.push(
                    json!({ "name": name, "id": format!("{name}-id"), "stage": stage, "owners": [owner],
                    "inputs": [], "state": "done" }),
                );
            }
            let line = |tokens: f64, loss: f64| json!({ "step": tokens, "tokens": tokens, "held_out": { "solutions": loss } });
            let log = format!("{}\n{}\n{{\"step\":", line(0.0, 2.0), line(100.0, loss));
            home.write(&format!("wheel/nodes/midtrain-{iteration}{seed}/metrics.jsonl"), log);
            let results = json!({ "results": { "micro10": { ACCURACY: share }, "micro10_clock": { ACCURACY: share / 2.0 } } });
            home.write(&format!("wheel/nodes/eval-{iteration}{seed}/results.json"), results.to_string());
            figures.push(json!({ "arm": arm, "iteration": iteration, "seed": seed, "point": "midtrain",
                "task": "micro10", "metric": ACCURACY, "value": share, "node": format!("eval-{iteration}{seed}") }));
        }
    }
    let wheel = json!({ "format_version": 1, "nodes": nodes, "stale": [], "figures": figures, "comparison": [], "costs": [] });
    home.write("wheel/flywheel.json", wheel.to_string());
    home
}

/// Elements of the page in which every end has its beginning.
fn check_page(page: &str) {
    for outside in ["src=", "url(", "@import", "http-equiv", "http:", "https:", "<script", "<link"] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert!(page.split("href=\"").skip(1).all(|rest| rest.starts_with('#')));
    let mut open: Vec<&str> = Vec::new();
    for part in page.split('<').skip(1) {
        let tag = part.split('>').next().unwrap();
        let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap();
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name));
        } else if !tag.ends_with('/') && !tag.starts_with('!') && name != "meta" {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

/// A figure as the page has it, its interval in a column of its own.
fn cells(figure: &str) -> String {
    match figure.split_once(" [") {
        Some((mean, interval)) => {
            format!("<td class=\"mean\">{mean}</td><td class=\"interval\">[{interval}</td>")
        }
        None => format!("<td>{figure}</td>"),
    }
}

/// The row of a Markdown table under a heading.
fn row(markdown: &str, heading: &str, name: &str) -> String {
    let rest = markdown.split(heading).nth(1).unwrap_or_else(|| panic!("{heading}: {markdown}"));
    let mut rows = rest.lines().filter(|line| line.starts_with(&format!("| {name} |")));
    rows.next().unwrap_or_else(|| panic!("{name}: {rest}")).to_owned()
}

#[test]
fn figures_are_those_of_the_files() {
    let home = home();
    let paths = home.json("report wheel --json");
    assert_eq!(paths, json!({ "html": "wheel/report.html", "markdown": "wheel/report.md" }));
    let (page, markdown) = (home.text("wheel/report.html"), home.text("wheel/report.md"));
    check_page(&page);
    assert!(page.contains("a&lt;b") && !page.contains("a<b"));
    // Differences 0.1 and 0.3: mean 0.2, error 0.1, and 12.7062 of Student's one degree of freedom.
    let group = row(&markdown, "### accuracy after midtrain", "micro10");
    assert_eq!(group, "| micro10 | 45.0 | 65.0 | +20.0 [-107.1, +147.1] |");
    let member = row(&markdown, "### accuracy after midtrain", "micro10\\_clock");
    assert_eq!(member, "| micro10\\_clock | 22.5 | 32.5 | +10.0 [-53.5, +73.5] |");
    assert!(page.contains(&cells("+20.0 [-107.1, +147.1]")), "the page says the same");
    let last = row(&markdown, "## Learning curves", "a&lt;b");
    assert_eq!(last, "| a&lt;b | 2 | 0.9500 |");
    // From 2 to 0.9 it passes 1 at 10/11 of the way, from 2 to 1 it passes 1.2 at 8/10.
    let share = row(&markdown, "### Where the baseline ends", "a&lt;b");
    assert!(share.contains("90.9%, 80.0% | 85.5% [") && share.ends_with("| 0 of 2 |"), "{share}");
    assert!(markdown.contains("No rule was broken."));
}

#[test]
fn broken_rules_are_listed() {
    let home = home();
    let health =
        json!({ "step": 7, "health": { "rule": "grad_norm", "value": 9.5, "limit": 5.0, "action": "warn" } });
    home.write("wheel/nodes/midtrain-11/metrics.jsonl", format!("{health}\n"));
    home.ok("report wheel");
    let found = row(&home.text("wheel/report.md"), "## Health", "midtrain-11");
    assert_eq!(found, "| midtrain-11 | 7 | grad\\_norm | 9.5000 | 5.0000 | warn |");
}

#[test]
fn unfinished_single_and_wrong_directories() {
    let home = home();
    std::fs::remove_file(home.at("wheel/flywheel.json")).unwrap();
    home.ok("report wheel");
    let markdown = home.text("wheel/report.md");
    assert!(markdown.contains("has not finished") && markdown.contains("midtrain-11"), "{markdown}");
    home.ok("report wheel/nodes/midtrain-11");
    let page = home.text("wheel/nodes/midtrain-11/report.html");
    check_page(&page);
    assert!(page.contains("Held-out loss of solutions") && page.contains("0.9000"));
    std::fs::create_dir(home.at("empty")).unwrap();
    let done = home.remit("report empty");
    assert_ne!(done.code, Some(0));
    assert!(
        done.stderr.contains("`empty` is no run directory") && done.stderr.contains("hint"),
        "{}",
        done.stderr
    );
    home.write("wheel/flywheel.json", "{");
    let done = home.remit("report wheel");
    assert!(done.stderr.contains("flywheel.json` cannot be read"), "{}", done.stderr);
}

/// Two seeds of `ntp` and of one arm, with a corpus that has a held-out loss of its own.
const FLYWHEEL: &str = r#"
[flywheel]
run = "wheel"
seeds = [1, 2]
after = ["sft"]

[flywheel.data]
tests = { kind = "problems", count = 20, split = "test" }

[[flywheel.arms]]
name = "remit"
objective = { kind = "remit", epsilon_low = 1.0, epsilon_high = 1.0 }
reference = "sft"
"#;

/// The node of this arm, seed and stage; the point is what an evaluation follows.
fn node_of(wheel: &Value, arm: &str, seed: u64, stage: &str) -> String {
    let owns = |node: &&Value| {
        let owners = node["owners"].as_array().unwrap();
        node["stage"] == stage && owners.iter().any(|owner| owner["arm"] == arm && owner["seed"] == seed)
    };
    let found: Vec<&Value> = wheel["nodes"].as_array().unwrap().iter().filter(owns).collect();
    assert_eq!(found.len(), 1, "{stage} of {arm}, seed {seed}");
    found[0]["name"].as_str().unwrap().to_owned()
}

/// The evaluation of a node's model.
fn evaluation_of(wheel: &Value, node: &str) -> String {
    let reads = |found: &&Value| {
        found["stage"] == "eval" && found["inputs"].as_array().unwrap().iter().any(|input| input == node)
    };
    let nodes = wheel["nodes"].as_array().unwrap();
    nodes.iter().find(reads).unwrap_or_else(|| panic!("{node}"))["name"].as_str().unwrap().to_owned()
}

/// The last held-out losses that a node's log has.
fn last_loss(home: &Home, node: &str, store: &str) -> f64 {
    let log = home.metrics(&format!("wheel/nodes/{node}"));
    log.iter().rev().find_map(|line| line["held_out"][store].as_f64()).unwrap()
}

fn signed(value: f64) -> String {
    let text = format!("{value:+.4}");
    if text == "-0.0000" { "+0.0000".to_owned() } else { text }
}

/// `+0.0120 [-0.0300, +0.0540]`: the mean of two differences and its interval, of Student's one degree of freedom.
fn difference(a: [f64; 2], b: [f64; 2]) -> String {
    let [x, y] = [b[0] - a[0], b[1] - a[1]];
    let mean = (x + y) / 2.0;
    let error = (x - y).abs() / 2.0;
    // The 97.5th percentile of Cauchy's distribution.
    let quantile = (0.475 * std::f64::consts::PI).tan();
    let [low, high] = [mean - quantile * error, mean + quantile * error];
    format!("{} [{}, {}]", signed(mean), signed(low), signed(high))
}

fn mean(values: [f64; 2]) -> String {
    format!("{:.4}", (values[0] + values[1]) / 2.0)
}

#[test]
fn a_real_flywheel_has_its_report_at_its_end() {
    let home = Home::new();
    home.write("wheel.toml", wheel_recipe(FLYWHEEL));
    // Documents see one another, as in the verb that weighs texts.
    home.ok("flywheel --config wheel.toml --quiet --threads 1 --midtrain.data.mask_documents=false");
    let (page, markdown) = (home.text("wheel/report.html"), home.text("wheel/report.md"));
    check_page(&page);
    let wheel: Value = serde_json::from_slice(&home.read("wheel/flywheel.json")).unwrap();
    let of = |arm: &str, stage: &str| [1, 2].map(|seed| node_of(&wheel, arm, seed, stage));
    let says = |row: String, wanted: &str| {
        assert!(row.contains(wanted), "{wanted}: {row}");
        assert!(page.contains(&cells(wanted)), "the page has not {wanted}");
    };
    let loss =
        |arm: &str, stage: &str, store: &str| of(arm, stage).map(|node| last_loss(&home, &node, store));
    for store in ["tests", "text"] {
        for arm in ["ntp", "remit"] {
            let found = row(&markdown, "### Held-out loss at the end", arm);
            says(found, &mean(loss(arm, "midtrain", store)));
        }
    }
    // The headline of a flywheel without `solutions` is its first store, at every point.
    let gains = row(&markdown, "### held-out loss of tests", "remit");
    for stage in ["midtrain", "sft"] {
        let [ours, theirs] = ["remit", "ntp"].map(|arm| loss(arm, stage, "tests"));
        assert_ne!(ours, theirs);
        says(gains.clone(), &difference(theirs, ours));
    }
    let likelihood = |arm: &str, stage: &str| {
        of(arm, stage).map(|node| {
            let evaluation = evaluation_of(&wheel, &node);
            let results: Value =
                serde_json::from_slice(&home.read(&format!("wheel/nodes/{evaluation}/results.json")))
                    .unwrap();
            results["results"]["micro10_clock"]["nll,none"].as_f64().unwrap()
        })
    };
    for stage in ["midtrain", "sft"] {
        let heading = format!("### Negative log-likelihood of the solutions (nll) after {stage}");
        let found = row(&markdown, &heading, "micro10\\_clock");
        let [ours, theirs] = ["remit", "ntp"].map(|arm| likelihood(arm, stage));
        assert_ne!(ours, theirs);
        for figure in [mean(theirs), mean(ours), difference(theirs, ours)] {
            says(found.clone(), &figure);
        }
    }
    // What a clock says is in one place, and gone where it is not wanted.
    assert!(markdown.contains("own time"));
    home.ok("report wheel --no-times");
    let left = home.text("wheel/report.md");
    assert!(!left.contains(" time |") && left.contains("own FLOP"));
    let same = |text: &str| text.split("## Costs").next().unwrap().to_owned();
    assert_eq!(same(&left), same(&markdown));
    check_excerpts(&home, &wheel, &markdown);
    // It says the same of a run that was moved, whatever the threads.
    std::fs::rename(home.at("wheel"), home.at("moved")).unwrap();
    home.ok("report moved --no-times --threads 3");
    assert_eq!(home.text("moved/report.md"), left);
    // Where a model is gone it is named, by its node alone.
    let reference = node_of(&wheel, "ntp", 1, "sft");
    std::fs::remove_dir_all(home.at(&format!("moved/nodes/{reference}/checkpoints"))).unwrap();
    home.ok("report moved --no-times");
    let said = format!("Its reference, {reference}, is not there.");
    assert!(home.text("moved/report.md").contains(&said), "{said}");
}

/// The tokens that `remit weights` finds to weigh most and least in the same windows.
fn check_excerpts(home: &Home, wheel: &Value, markdown: &str) {
    const LENGTH: usize = 32;
    let midtrain = node_of(wheel, "remit", 1, "midtrain");
    let settings: toml::Table = home.text(&format!("wheel/nodes/{midtrain}/settings.toml")).parse().unwrap();
    let tokens = settings["data"]["tokens"].as_str().unwrap();
    let store = remit_corpus::TokenStore::open(&home.at(tokens)).unwrap();
    let learner = settings["from"].as_str().unwrap();
    let reference = settings["reference"]["checkpoint"].as_str().unwrap();
    let windows = remit_corpus::Windows::cut(&store, LENGTH).unwrap();
    let count = windows.len().min(64);
    let ids: Vec<Vec<u32>> = (0..count)
        .map(|n| {
            let window = windows.window(n * windows.len() / count);
            let real = window.mask.iter().filter(|counts| **counts).count();
            window.tokens[..=real].to_vec()
        })
        .collect();
    home.write("ids.json", serde_json::to_vec(&ids).unwrap());
    home.write("weights.toml", "[weights]\nepsilon_low = 1.0\nepsilon_high = 1.0\n");
    let line = format!(
        "weights --config weights.toml --ids ids.json --learner {learner} --reference {reference} --json"
    );
    let weighed = home.json(&line);
    let mut all: Vec<(f64, String)> = Vec::new();
    let tokenizer = remit_corpus::Tokenizer::of_checkpoint(&home.checkpoint(learner)).unwrap().unwrap();
    for (sequence, ids) in weighed["sequences"].as_array().unwrap().iter().zip(&ids) {
        for (weight, id) in sequence["weights"].as_array().unwrap().iter().zip(&ids[1..]) {
            all.push((weight.as_f64().unwrap(), tokenizer.decode(&[*id]).unwrap()));
        }
    }
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let section = markdown.split("## Tokens weighted most and least").nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    assert!(section.contains("### remit\n"));
    let rows: Vec<Vec<&str>> = section
        .lines()
        .filter(|line| line.starts_with("| ") && !line.contains("in context"))
        .map(|line| line.split(" | ").collect())
        .collect();
    assert_eq!(rows.len(), 24);
    let number = |row: &Vec<&str>| row[0].trim_start_matches("| ").parse::<f64>().unwrap();
    for (row, (weight, token)) in [(&rows[0], &all[all.len() - 1]), (&rows[12], &all[0])] {
        assert!((number(row) - weight).abs() < 1e-4, "{row:?}: {weight}");
        let plain = |text: &str| text.replace(['\\', '\n'], "").trim().replace("&lt;", "<");
        assert_eq!(plain(row[1]), plain(token));
        assert!(plain(row[2]).contains(plain(token).trim()), "{row:?}");
    }
    assert!(rows[..12].is_sorted_by(|a, b| number(a) >= number(b)));
    assert!(rows[12..].is_sorted_by(|a, b| number(a) <= number(b)));
}
