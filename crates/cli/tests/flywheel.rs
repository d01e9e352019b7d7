//! `remit flywheel`: arms that should be equal are, a killed flywheel ends as an uninterrupted one, and nothing is run
//! twice or lost.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use common::{Dice, Home, check_same, tree, wheel_recipe};
use serde_json::Value;

/// The flywheel's own table: two arms beside `ntp`, one of which weighs nothing.
const FLYWHEEL: &str = r#"
[flywheel]
run = "wheel"

[flywheel.data]
tests = { kind = "problems", count = 20, split = "test" }

[[flywheel.arms]]
name = "remit"
objective = { kind = "remit" }

[[flywheel.arms]]
name = "nothing"
objective = { kind = "remit", epsilon_low = 0.0, epsilon_high = 0.0 }
"#;

fn recipe() -> String {
    wheel_recipe(FLYWHEEL)
}

fn home() -> Home {
    let home = Home::new();
    home.write("wheel.toml", recipe());
    home
}

const LINE: &str = "flywheel --config wheel.toml --quiet --threads 1";

/// What the nodes of a flywheel are, by name, places and clocks left out.
fn outcome(home: &Home, run: &str) -> BTreeMap<String, Vec<u8>> {
    let mut files = tree(&home.at(run).join("nodes"));
    files.retain(|name, _| {
        let left_out = ["node.json", "timings.jsonl", "settings.toml", "results.json", ".lock"];
        !left_out.iter().any(|end| name.ends_with(&format!("/{end}"))) && !name.contains("/tensorboard/")
    });
    files
}

fn report(home: &Home, run: &str) -> Value {
    serde_json::from_slice(&home.read(&format!("{run}/flywheel.json"))).unwrap()
}

/// The figures of a report, which do not depend on when or how often it was stopped.
fn figures(report: &Value) -> Vec<Value> {
    report["figures"].as_array().unwrap().clone()
}

/// The nodes of a report that `is` picks, by name.
fn nodes(report: &Value, is: impl Fn(&Value) -> bool) -> Vec<String> {
    let nodes = report["nodes"].as_array().unwrap().iter();
    nodes.filter(|node| is(node)).map(|node| node["name"].as_str().unwrap().to_owned()).collect()
}

/// The one node of a stage that only this arm needs.
fn node_of(report: &Value, stage: &str, arm: &str) -> String {
    let owned = |node: &Value| {
        let owners = node["owners"].as_array().unwrap();
        node["stage"] == stage && !owners.is_empty() && owners.iter().all(|owner| owner["arm"] == arm)
    };
    let found = nodes(report, owned);
    assert_eq!(found.len(), 1, "{stage} of {arm}: {found:?}");
    found.into_iter().next().unwrap()
}

fn states(home: &Home, line: &str) -> BTreeMap<String, String> {
    let report = home.json(&format!("{line} --status --json"));
    let nodes = report["nodes"].as_array().unwrap().iter();
    let word = |node: &Value, key: &str| node[key].as_str().unwrap().to_owned();
    nodes.map(|node| (word(node, "name"), word(node, "state"))).collect()
}

#[test]
fn equal_arms_are_equal_and_nothing_is_run_twice() {
    let home = home();
    assert!(states(&home, LINE).values().all(|state| state == "todo"));
    let table = home.ok(LINE);
    for word in ["ntp", "remit", "nothing", "midtrain", "accuracy", "own tokens"] {
        assert!(table.contains(word), "{word}: {table}");
    }
    let first = report(&home, "wheel");
    assert!(states(&home, LINE).values().all(|state| state == "done"));

    // Weights of one are plain prediction, bit for bit, through all stages.
    for stage in ["midtrain", "sft", "rl"] {
        let [ntp, nothing, remit] = ["ntp", "nothing", "remit"]
            .map(|arm| home.parameters(&format!("wheel/nodes/{}", node_of(&first, stage, arm))));
        assert!(ntp == nothing, "{stage}: epsilon 0 is not ntp");
        assert!(ntp != remit, "{stage}: remit does nothing");
    }
    let difference = first["comparison"]
        .as_array()
        .unwrap()
        .iter()
        .find(|row| row["arm"] == "nothing" && row["point"] == "rl" && row["task"] == "held-out");
    assert_eq!(difference.unwrap()["difference"]["difference"]["mean"], 0.0);

    // One pre-training, one scoring for both arms, which share the reference.
    for (stage, count) in [("pretrain", 1), ("score", 1), ("midtrain", 3), ("sft", 3), ("rl", 3), ("eval", 9)]
    {
        assert_eq!(nodes(&first, |node| node["stage"] == stage).len(), count, "{stage}");
    }
    // Costs: from a score store a step of remit has the passes of ntp, and the scoring is its own or shared.
    let cost = |arm: &str, key: &str| {
        let name = node_of(&first, "midtrain", arm);
        let node =
            first["nodes"].as_array().unwrap().iter().find(|node| node["name"] == name.as_str()).unwrap();
        node["cost"][key].as_f64().unwrap()
    };
    assert_eq!(cost("remit", "forward"), 6.0 * 8.0 * 32.0);
    assert_eq!(cost("remit", "backward"), cost("ntp", "forward"));
    assert_eq!((cost("remit", "reference"), cost("remit", "tokens")), (0.0, cost("ntp", "tokens")));
    assert!(cost("ntp", "flops") > 0.0 && cost("ntp", "seconds") > 0.0);

    // A turn pays for the scores that it reads, though another arm reads them too; ntp pays for no pre-training.
    let paid = |arm: &str, share: &str, key: &str| {
        let costs = first["costs"].as_array().unwrap();
        let cost = costs.iter().find(|cost| cost["arm"] == arm && cost["point"] == "midtrain").unwrap();
        cost[share][key].as_f64().unwrap()
    };
    assert!(paid("remit", "own", "reference") > 0.0);
    assert_eq!(paid("remit", "own", "reference"), paid("nothing", "own", "reference"));
    assert_eq!(paid("ntp", "own", "forward"), 6.0 * 8.0 * 32.0);
    assert_eq!(paid("ntp", "total", "forward"), (6.0 + 8.0) * 8.0 * 32.0);

    // Again: nothing is touched.
    let times = |home: &Home| -> BTreeMap<PathBuf, std::time::SystemTime> {
        let names = tree(&home.at("wheel/nodes")).into_keys();
        let path = names.map(|name| home.at("wheel/nodes").join(name));
        path.map(|path| (path.clone(), path.metadata().unwrap().modified().unwrap())).collect()
    };
    let before = times(&home);
    home.ok(LINE);
    assert_eq!(before, times(&home));

    // Moved as a whole, it is as done as before.
    fs::rename(home.at("wheel"), home.at("moved")).unwrap();
    assert!(states(&home, &format!("{LINE} --run moved")).values().all(|state| state == "done"));
    fs::rename(home.at("moved"), home.at("wheel")).unwrap();

    // A setting of reinforcement learning is of it alone and of what evaluates it.
    let edited = format!("{LINE} --rl.optimizer.learning_rate=2e-3");
    let dry = home.ok(&format!("{edited} --dry-run"));
    assert!(dry.contains("learning_rate = 0.002") && dry.contains("to do"), "{dry}");
    let todo: Vec<String> = states(&home, &edited)
        .into_iter()
        .filter(|(_, state)| state != "done")
        .map(|(name, _)| name.split('-').next().unwrap().to_owned())
        .collect();
    // Of ntp reinforcement learning and its evaluation; its model is the reference of everything behind it.
    assert_eq!(todo.iter().filter(|stage| *stage == "rl").count(), 3);
    assert!(
        todo.iter()
            .all(|stage| ["rl", "eval", "dynamics", "score", "midtrain", "sft"].contains(&stage.as_str()))
    );
    assert_eq!(todo.iter().filter(|stage| *stage == "midtrain").count(), 2);
    assert!(home.ok(&format!("{edited} --status")).contains("stale, of other settings"));
    let held = home.json(&format!("{edited} --dry-run --json"));
    assert_eq!(held["stale"].as_array().unwrap().len(), todo.len());

    // A setting of an evaluation costs nothing but evaluations; the others stay.
    let asked = format!("{LINE} --eval.micro10.problems=3");
    home.ok(&asked);
    let second = report(&home, "wheel");
    assert_eq!(second["stale"].as_array().unwrap().len(), 9);
    check_trained(&home, &first, &second);
    let removed = home.ok(&format!("{asked} --prune"));
    assert_eq!(removed.lines().count(), 9, "{removed}");
    assert!(states(&home, &asked).values().all(|state| state == "done"));
}

/// Nodes that two reports have in common were not made again.
fn check_trained(home: &Home, first: &Value, second: &Value) {
    let trained = |node: &Value| node["stage"] != "eval";
    let names = nodes(first, trained);
    assert_eq!(names, nodes(second, trained));
    for name in names {
        let path = home.at("wheel/nodes").join(&name).join("node.json");
        assert!(path.is_file(), "{name}");
    }
    let costs = |report: &Value| -> Vec<Value> {
        let nodes = report["nodes"].as_array().unwrap().iter();
        nodes.filter(|node| trained(node)).map(|node| node["cost"].clone()).collect()
    };
    assert_eq!(costs(first), costs(second), "seconds of a node that was made again would differ");
}

/// Starts the flywheel and kills it after `delay`; whether it was killed before it ended.
fn kill_after(home: &Home, line: &str, delay: Duration) -> bool {
    let mut process: Child = home.command(line).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let start = Instant::now();
    while start.elapsed() < delay {
        if let Some(status) = process.try_wait().unwrap() {
            let stderr = std::io::read_to_string(process.stderr.take().unwrap()).unwrap();
            assert!(status.success(), "{line} failed by itself: {stderr}");
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    process.kill().unwrap();
    !process.wait().unwrap().success()
}

#[test]
fn killed_at_twenty_random_moments() {
    let home = home();
    let line = |run: &str| format!("{LINE} --run {run} --rl.checkpoints.ephemeral_every=2");
    let start = Instant::now();
    home.ok(&line("whole"));
    let whole = start.elapsed();
    let mut dice = Dice::new(5);
    // Spread over the whole work: each start makes some of it and loses a little. Where the machine has become faster since
    // the work was timed, it is done before twenty have landed, and they come closer together.
    let landed = (0..8).any(|attempt| {
        let _ = fs::remove_dir_all(home.at("killed"));
        let pace = whole.as_secs_f64() / 20.0 / f64::from(1 << attempt);
        for turn in 0i32..200 {
            let most = pace * 1.05f64.powi((turn - 20).max(0));
            let delay = Duration::from_secs_f64(most * (dice.roll(1000) + 1) as f64 / 1000.0);
            if !kill_after(&home, &line("killed"), delay) {
                return turn >= 20;
            }
        }
        true
    });
    assert!(landed, "twenty kills did not land before the end");
    home.ok(&line("killed"));
    check_same("killed", &outcome(&home, "whole"), &outcome(&home, "killed"));
    let [whole, killed] = ["whole", "killed"].map(|run| report(&home, run));
    assert_eq!(figures(&whole), figures(&killed));
    let counted = |report: &Value| -> Vec<Value> {
        let nodes = report["nodes"].as_array().unwrap().iter();
        let cost = nodes.map(|node| node["cost"].clone());
        cost.map(|mut cost| {
            cost.as_object_mut().unwrap().remove("seconds");
            cost
        })
        .collect()
    };
    assert_eq!(counted(&whole), counted(&killed), "costs, time aside");
    // The page says the same, byte for byte, once what a clock said is left out.
    let reports = ["whole", "killed"].map(|run| {
        let named = ["report.html", "report.md"].map(|name| home.read(&format!("{run}/{name}")));
        assert!(named.iter().all(|bytes| bytes.len() > 1000), "{run} has no report at its end");
        home.ok(&format!("report {run} --no-times"));
        ["report.html", "report.md"].map(|name| home.text(&format!("{run}/{name}")))
    });
    for (whole, killed) in reports[0].iter().zip(&reports[1]) {
        let lines = whole.lines().zip(killed.lines());
        lines.for_each(|(whole, killed)| assert_eq!(whole, killed));
        assert!(whole == killed);
    }
}

/// Preference between the stages: generated pairs, the optimised model as the next turn's reference, two turns.
#[test]
fn pairs_are_generated_and_what_prefers_is_the_next_reference() {
    let home = Home::new();
    let wheel = r#"
[flywheel]
run = "wheel"
iterations = 2
after = ["sft", "dpo"]

[flywheel.data]
tests = { kind = "problems", count = 20, split = "test" }
pairs = { kind = "pairs", count = 16 }

[[flywheel.arms]]
name = "remit"
objective = { kind = "remit" }
reference = "dpo"

[dpo]
epochs = 1
window = 160
batch_pairs = 8

[dpo.examples]
files = ["@pairs"]
"#;
    home.write("wheel.toml", wheel_recipe(wheel));
    home.ok(LINE);
    let report = report(&home, "wheel");
    let turn = |name: &str| {
        let node = report["nodes"].as_array().unwrap().iter().find(|node| node["name"] == name).unwrap();
        let owner = &node["owners"][0];
        (owner["arm"].as_str().unwrap().to_owned(), owner["iteration"].as_u64().unwrap())
    };
    let record = |name: &str| -> Value {
        serde_json::from_slice(&home.read(&format!("wheel/nodes/{name}/node.json"))).unwrap()
    };
    let dpo = nodes(&report, |node| node["stage"] == "dpo");
    let mut turns: Vec<(String, u64)> = dpo.iter().map(|name| turn(name)).collect();
    turns.sort();
    let wanted = [("ntp", 0), ("remit", 1), ("remit", 2)].map(|(arm, turn)| (arm.to_owned(), turn));
    assert_eq!(turns, wanted);

    // Each turn is scored by what the turn before it ended with.
    for scores in nodes(&report, |node| node["stage"] == "score") {
        let (_, iteration) = turn(&scores);
        let before = dpo.iter().find(|name| turn(name).1 == iteration - 1).unwrap();
        assert_eq!(record(&scores)["identity"]["inputs"]["reference"], record(before)["id"], "{scores}");
    }
    // The pairs went in: the loss starts at log 2 of an untouched reference.
    for name in &dpo {
        let losses = home.losses(&format!("wheel/nodes/{name}"));
        assert!((losses[0] - 2f64.ln()).abs() < 1e-5, "{losses:?}");
    }
    let after: Vec<&str> =
        report["figures"].as_array().unwrap().iter().map(|f| f["point"].as_str().unwrap()).collect();
    assert!(after.contains(&"dpo"), "{after:?}");
    // Turn by turn, and the second less the first.
    let page = home.text("wheel/report.md");
    for words in ["Iteration by iteration", "2 less 1", "after dpo"] {
        assert!(page.contains(words), "{words}: {page}");
    }
}

#[test]
fn damage_is_named_and_made_good() {
    let home = home();
    home.write(
        "small.toml",
        recipe().replace("name = \"nothing\"", "name = \"none\"").replace("after = ", ""),
    );
    let line = "flywheel --config wheel.toml --threads 1 --flywheel.after=[\"sft\"] --flywheel.arms.0.reference=sft \
                --flywheel.arms.1.reference=sft";
    home.ok(line);
    let (first, before) = (report(&home, "wheel"), outcome(&home, "wheel"));
    let pretrain = nodes(&first, |node| node["stage"] == "pretrain").remove(0);
    // What a kill leaves that comes right behind a node's record.
    home.write(&format!("wheel/nodes/{pretrain}/begun.json"), "{}");
    home.ok(line);
    check_same("begun.json", &before, &outcome(&home, "wheel"));
    let damage: [(&str, &dyn Fn()); 3] = [
        ("is missing", &|| fs::remove_dir_all(home.checkpoint(&format!("wheel/nodes/{pretrain}"))).unwrap()),
        ("is missing or cut", &|| {
            let path = home.checkpoint(&format!("wheel/nodes/{pretrain}")).join("model.safetensors");
            let bytes = fs::read(&path).unwrap();
            fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        }),
        ("`metrics.jsonl` had", &|| {
            fs::write(home.at(&format!("wheel/nodes/{pretrain}/metrics.jsonl")), "").unwrap()
        }),
    ];
    for (said, damage) in damage {
        damage();
        let status = home.ok(&format!("{line} --status"));
        assert!(status.contains(&pretrain) && status.contains("damaged"), "{status}");
        let done = home.remit(line);
        assert_eq!(done.code, Some(0), "{}", done.stderr);
        assert!(done.stderr.contains(&pretrain) && done.stderr.contains(said), "{said}: {}", done.stderr);
        assert!(done.stderr.contains("it is made again"), "{}", done.stderr);
        assert!(!done.stderr.contains("] sft"), "what depends on it was made again: {}", done.stderr);
        check_same(said, &before, &outcome(&home, "wheel"));
    }
    // Results that are gone count for nothing, and `--status` says so.
    let eval = nodes(&first, |node| node["stage"] == "eval").remove(0);
    let results = home.at(&format!("wheel/nodes/{eval}/results.json"));
    fs::remove_file(&results).unwrap();
    assert_eq!(states(&home, line)[&eval], "damaged");
    assert_ne!(figures(&home.json(&format!("{line} --status --json"))), figures(&first));
    home.ok(line);
    assert!(results.is_file());
    assert_eq!(figures(&report(&home, "wheel")), figures(&first));
    // A single bit in what another node is to be made from: found before it is built upon.
    let sft = node_of(&first, "sft", "remit");
    let midtrain = node_of(&first, "midtrain", "remit");
    let path = home.checkpoint(&format!("wheel/nodes/{midtrain}")).join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&path, bytes).unwrap();
    fs::remove_dir_all(home.at(&format!("wheel/nodes/{sft}"))).unwrap();
    let done = home.remit(line);
    assert!(done.stderr.contains(&midtrain) && done.stderr.contains("has changed since"), "{}", done.stderr);
    check_same("a bit", &before, &outcome(&home, "wheel"));
}

#[test]
fn what_was_begun_from_something_else_begins_anew() {
    let home = home();
    let line = format!("{LINE} --flywheel.arms=[] --flywheel.after=[]").replace("--quiet ", "");
    home.ok(&line);
    let (first, before) = (report(&home, "wheel"), outcome(&home, "wheel"));
    let midtrain = nodes(&first, |node| node["stage"] == "midtrain").remove(0);
    let at = |name: &str| format!("wheel/nodes/{midtrain}/{name}");
    let record: Value = serde_json::from_slice(&home.read(&at("node.json"))).unwrap();
    // As a kill leaves it, whose parent came out differently since: its checkpoints are of another start.
    let mut inputs = record["inputs"].clone();
    inputs["from"] = "another".into();
    fs::remove_file(home.at(&at("node.json"))).unwrap();
    home.write(&at("begun.json"), inputs.to_string());
    let done = home.remit(&line);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert!(done.stderr.contains("it was begun with another `from`; it begins anew"), "{}", done.stderr);
    check_same("begun anew", &before, &outcome(&home, "wheel"));
    assert!(!home.at(&at("begun.json")).exists());

    // From the same start it goes on: there is nothing left to do.
    fs::remove_file(home.at(&at("node.json"))).unwrap();
    home.write(&at("begun.json"), record["inputs"].to_string());
    let done = home.remit(&line);
    assert!(!done.stderr.contains("begins anew") && !done.stderr.contains("loss"), "{}", done.stderr);
    check_same("gone on with", &before, &outcome(&home, "wheel"));
}

#[test]
fn a_corpus_may_be_called_something_else() {
    let home = home();
    let line = format!("{LINE} --flywheel.arms=[] --flywheel.after=[]");
    home.ok(&line);
    home.write(
        "wheel.toml",
        recipe().replace("tests = { kind", "exams = { kind").replace("@tests", "@exams"),
    );
    let states = states(&home, &line);
    let mut corpora = states.iter().filter(|(name, _)| name.starts_with("data"));
    assert!(corpora.all(|(_, state)| state == "done"), "{states:?}");
    // A store names its sources, so it is prepared anew: from the file with the old name.
    home.ok(&line);
}

/// A limit on the size of files stands in for a disk that fills up: the optimiser's state does not fit.
#[cfg(unix)]
#[test]
fn a_full_disk_stops_it_and_loses_nothing() {
    let home = home();
    let line = |run: &str| format!("{LINE} --run {run} --flywheel.arms=[] --flywheel.after=[]");
    home.ok(&line("whole"));
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "trap '' XFSZ; ulimit -f 300; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_remit")]);
    command.args(line("new").split_whitespace()).current_dir(home.path());
    let full = common::Done::of(command);
    assert_eq!(full.code, Some(1), "{}", full.stderr);
    for word in
        ["error: pretrain-", "state/optimizer.safetensors", "File too large", "hint: nothing that was there"]
    {
        assert!(full.stderr.contains(word), "{word}: {}", full.stderr);
    }
    // The pre-training stopped at its checkpoint; what came before it is done, and nothing behind it is begun.
    let states = states(&home, &line("new"));
    for (stage, wanted) in
        [("tokenizer", "done"), ("pretrain", "begun"), ("midtrain", "todo"), ("eval", "todo")]
    {
        let mut of_stage = states.iter().filter(|(name, _)| name.starts_with(stage));
        assert!(of_stage.all(|(_, state)| state == wanted), "{stage}: {states:?}");
    }
    home.ok(&line("new"));
    check_same("with space again", &outcome(&home, "whole"), &outcome(&home, "new"));
}

#[test]
fn two_at_once() {
    let home = home();
    let line = format!("{LINE} --pretrain.steps=100000");
    let mut first = home.command(&line).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let start = Instant::now();
    while !home.at("wheel/.lock").is_file() && start.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_millis(200));
    for more in ["", "--prune"] {
        let second = home.remit(&format!("{line} {more}"));
        assert_eq!(second.code, Some(1), "{}", second.stderr);
        let said = format!("another process (pid {}) is using flywheel `wheel`", first.id());
        assert!(second.stderr.contains(&said), "{}", second.stderr);
        assert!(second.stderr.contains("wait for it to end"), "{}", second.stderr);
    }
    // Looking is allowed.
    home.ok(&format!("{line} --status"));
    first.kill().unwrap();
    first.wait().unwrap();
}

#[test]
fn mistakes_are_named_before_anything_is_made() {
    let home = home();
    let recipe = recipe();
    let without = |table: &str| {
        let start = recipe.find(&format!("[{table}]")).unwrap();
        let rest = &recipe[start + 1..];
        let end = rest.find(&format!("\n[{table}.")).or(rest.find("\n[")).unwrap();
        format!("{}{}", &recipe[..start], &rest[end + 1..])
    };
    for (name, text, wanted) in [
        ("table", without("prepare"), "the recipe has no table `[prepare]`"),
        (
            "seeds",
            recipe.replace("run = \"wheel\"", "run = \"wheel\"\nseeds = []"),
            "`flywheel.seeds` is empty",
        ),
        ("twice", recipe.replace("name = \"nothing\"", "name = \"remit\""), "two arms are named `remit`"),
        ("baseline", recipe.replace("name = \"nothing\"", "name = \"ntp\""), "two arms are named `ntp`"),
        (
            "reference",
            recipe.replace("name = \"nothing\"", "name = \"nothing\"\nreference = \"lr\""),
            "reference `lr` of arm `nothing` is neither a stage nor a checkpoint",
        ),
        (
            "step",
            recipe.replace("name = \"nothing\"", "name = \"nothing\"\nreference = \"rl@2\""),
            "reference `rl@2` of arm `nothing` is not kept",
        ),
        (
            "owned",
            recipe.replace("[rl]\n", "[rl]\nfrom = \"x\"\n"),
            "`rl.from` is set, but the flywheel fills it in",
        ),
        ("data", recipe.replace("\"@tests\"", "\"@test\""), "did you mean `@tests`?"),
        ("key", recipe.replace("[flywheel]\n", "[flywheel]\niteration = 1\n"), "iterations"),
        (
            "stage",
            recipe.replace(
                "name = \"nothing\"",
                "name = \"nothing\"\nsettings = { prepare = { holdout = 0.5 } }",
            ),
            "settings.prepare` is no stage that an arm can have its own way",
        ),
        (
            "setting",
            recipe.replace("name = \"nothing\"", "name = \"nothing\"\nsettings = { rl = { stepz = 5 } }"),
            "stepz",
        ),
    ] {
        home.write(&format!("{name}.toml"), text);
        let done = home.remit(&format!("flywheel --config {name}.toml --quiet"));
        assert_eq!(done.code, Some(1), "{name}: {}", done.stderr);
        assert!(done.stderr.contains(wanted), "{name}: {}", done.stderr);
        assert!(done.stderr.contains("hint: "), "{name}: {}", done.stderr);
        assert!(!home.at("wheel").exists(), "{name}: something was made");
    }
    home.write("wheel.toml", recipe);
    for (override_, wanted) in [
        ("--dpo.steps=4", "the recipe has no table `[dpo]`"),
        ("--weights.top=4", "does not read `[weights]`"),
    ] {
        let done = home.remit(&format!("{LINE} --dry-run {override_}"));
        assert_eq!(done.code, Some(2), "{}", done.stderr);
        assert!(done.stderr.contains(wanted), "{}", done.stderr);
    }
    let none = home.remit("flywheel");
    assert_eq!(none.code, Some(2));
    assert!(none.stderr.contains("a flywheel needs a recipe"), "{}", none.stderr);
}
