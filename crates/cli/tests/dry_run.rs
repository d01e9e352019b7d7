//! What is seen before anything is spent: the first example, the memory, the keys of the settings.

mod common;

use common::{Done, Home};
use serde_json::{Value, json};

/// The first example's parts that are learned, or that are not.
fn texts(part: &Value, learned: bool) -> Vec<&str> {
    let parts = part["parts"].as_array().unwrap().iter().filter(|part| part["learned"] == json!(learned));
    parts.map(|part| part["text"].as_str().unwrap()).collect()
}

/// The ids that are learned.
fn learned_ids(part: &Value) -> Vec<&Value> {
    let [ids, learned] = ["ids", "learned"].map(|key| part[key].as_array().unwrap());
    assert_eq!(ids.len(), learned.len());
    ids.iter().zip(learned).filter(|(_, learned)| **learned == json!(true)).map(|(id, _)| id).collect()
}

#[test]
fn the_first_example_is_shown_with_what_is_learned_of_it() {
    let home = Home::trained();
    home.write("one.jsonl", "{\"prompt\":\"a b\\n\\tc:\",\"completion\":\" 12\\n\",\"chosen\":\" 1\",\"rejected\":\" 2\",\"answer\":\"7\"}\n");
    let plan = home.json("sft one.jsonl --config recipe.toml --dry-run --json");
    let [example] = &plan["first"].as_array().unwrap()[..] else { panic!("{plan}") };
    assert!(texts(example, false)[0].ends_with("a b\n\tc:"), "{example}");
    let [learned] = texts(example, true)[..] else { panic!("{example}") };
    assert!(learned.starts_with(" 12\n") && learned.len() > 4, "with the end token: {learned:?}");
    let completion = &plan["examples"]["completion_tokens"];
    assert_eq!(Some(learned_ids(example).len() as u64), completion.as_u64());
    let shown = home.ok("sft one.jsonl --config recipe.toml --dry-run");
    for line in ["a b\\n\n          | \\tc:\n", "  learned |  12\\n\n", "  ids     | "] {
        assert!(shown.contains(line), "no {line:?} in {shown}");
    }

    let plan =
        home.json("dpo one.jsonl --from pretrain --run dpo --epochs 1 --dpo.window=64 --dry-run --json");
    let [chosen, rejected] = &plan["first"].as_array().unwrap()[..] else { panic!("{plan}") };
    assert_eq!((&chosen["name"], &rejected["name"]), (&json!("chosen"), &json!("rejected")));
    assert_eq!(texts(chosen, false), texts(rejected, false));
    assert!(texts(chosen, true)[0].starts_with(" 1") && texts(rejected, true)[0].starts_with(" 2"));

    let plan = home.json("rl one.jsonl --config recipe.toml --dry-run --json");
    let prompt = &plan["first"][0];
    assert_eq!((texts(prompt, false)[0].ends_with("a b\n\tc:"), learned_ids(prompt).len()), (true, 0));

    for verb in ["pretrain", "midtrain"] {
        let plan = home.json(&format!("{verb} --config recipe.toml --dry-run --json"));
        let ids = plan["first"][0]["ids"].as_array().unwrap();
        assert_eq!(learned_ids(&plan["first"][0]).len(), ids.len() - 1, "all but the first of a text");
    }
}

/// Runs with a limit on address space, so that it is the same on every machine.
fn limited(home: &Home, line: &str) -> Done {
    limited_to(home, 6_000_000, line)
}

/// The same with a limit in KiB.
fn limited_to(home: &Home, limit: u64, line: &str) -> Done {
    let mut command = std::process::Command::new("sh");
    let line = format!("ulimit -v {limit}; exec {} {line}", env!("CARGO_BIN_EXE_remit"));
    command.args(["-c", &line]).current_dir(home.path()).env_remove("RUST_BACKTRACE");
    Done::of(command)
}

#[test]
fn the_micro_batch_is_the_largest_that_memory_is_enough_for() {
    let home = Home::trained();
    let line = "midtrain --config recipe.toml --run new --steps 1 --midtrain.objective.kind=ntp --midtrain.data.batch_windows=400000";
    let plan = |more: &str| -> Value {
        serde_json::from_str(&limited(&home, &format!("{line} {more} --dry-run --json")).ok(line)).unwrap()
    };
    let bytes = |plan: &Value, key: &str| plan[key].as_u64().unwrap();
    let fitted = plan("");
    let size = fitted["settings"]["data"]["micro_batch_windows"].as_u64().unwrap();
    assert!((1..400_000).contains(&size), "{size}");
    assert!(bytes(&fitted, "memory_total") <= bytes(&fitted, "memory_available"));
    assert_eq!(fitted["fits"], json!(true));
    // Half as much again is too much.
    let more = plan(&format!("--midtrain.data.micro_batch_windows={}", size + size / 2));
    assert!(bytes(&more, "memory_total") > bytes(&more, "memory_available"));
    assert_eq!(more["fits"], json!(false));
    // What is asked for by name is not made smaller, and nothing is begun.
    let done = limited(&home, &format!("{line} --midtrain.data.micro_batch_windows=400000"));
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    for part in [
        "error: the run needs ",
        " of memory, and the limit on address space (`ulimit -v`) has ",
        "hint: `data.micro_batch_windows = ",
    ] {
        assert!(done.stderr.contains(part), "no {part:?} in {}", done.stderr);
    }
    assert!(!home.at("new").exists());
    // Where all of a step fits, nothing is said or changed.
    let small = home.json("midtrain --config recipe.toml --dry-run --json");
    assert_eq!(small["settings"]["data"]["micro_batch_windows"], json!(0));
}

#[test]
fn a_run_goes_on_with_the_micro_batch_that_it_was_begun_with() {
    let home = Home::trained();
    let line = "midtrain --config recipe.toml --run new --steps 1 --midtrain.objective.kind=ntp --midtrain.data.batch_windows=8000 --quiet";
    let done = limited_to(&home, 1_000_000, line);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let settings: toml::Table = home.text("new/settings.toml").parse().unwrap();
    let size = settings["data"]["micro_batch_windows"].as_integer().unwrap();
    assert!((1..8000).contains(&size), "{size}");
    // With all memory it is the same run, and not one of other settings.
    let before = home.outcome("new");
    home.ok(line);
    common::check_same("the same again", &before, &home.outcome("new"));
}

#[test]
fn one_override_changes_one_thing_of_a_stage() {
    let home = Home::trained();
    let settings =
        |line: &str| home.json(&format!("{line} --config recipe.toml --dry-run --json"))["settings"].clone();
    let plain = settings("sft");
    let mut cosine = settings("sft --schedule.kind=cosine");
    assert_eq!(cosine["schedule"]["warmup_fraction"], json!(0.03));
    cosine["schedule"]["kind"] = plain["schedule"]["kind"].clone();
    assert_eq!(cosine, plain);
    let warm = settings("pretrain --schedule.warmup_steps=3");
    assert_eq!(warm["schedule"], json!({ "kind": "constant", "warmup_steps": 3, "final_ratio": 0.0 }));
    let rl = settings("rl --learning-rate 0.5 --steps 3 --rl.checkpoints.keep_last=2");
    assert_eq!(
        (&rl["optimizer"]["learning_rate"], &rl["optimizer"]["weight_decay"]),
        (&json!(0.5), &json!(0.0))
    );
    assert_eq!((&rl["steps"], &rl["checkpoints"]["ephemeral_every"]), (&json!(3), &json!(20)));
    let sft = settings("sft --steps 3 --learning-rate 0.25 --template tulu --sft.data.window=64");
    assert_eq!(
        (&sft["steps"], &sft["epochs"]),
        (&json!(3), &Value::Null),
        "in the place of the recipe's epochs"
    );
    assert_eq!(sft["data"]["examples"]["template"], json!("tulu"));
}

#[test]
fn the_help_of_a_verb_leads_to_its_keys() {
    let home = Home::new();
    for (verb, table) in [("sft", "sft"), ("midtrain", "midtrain"), ("train-tokenizer", "tokenizer")] {
        let help = home.ok(&format!("{verb} --help"));
        assert!(
            help.contains(&format!("[{table}]")) && help.contains(&format!("`remit settings {table}`")),
            "{help}"
        );
        assert!(home.ok(&format!("settings {table}")).starts_with(&format!("[{table}]\n")));
    }
}

#[test]
fn paths_begin_at_home_and_patterns_are_typed_as_they_are() {
    let home = Home::prepared();
    let line = [
        "prepare",
        "--tokenizer=~/tokenizer.json",
        "--out=~/new",
        "--text-field",
        "{a}\\n{b}",
        "~/x/*.jsonl",
    ];
    std::fs::create_dir(home.at("x")).unwrap();
    home.write("x/a.jsonl", "{\"a\":\"q\",\"b\":\"w\"}\n");
    let mut command = home.command_of(&line);
    Done::of({
        command.env("HOME", home.path());
        command
    })
    .ok("prepare");
    home.write("joined.txt", "q\nw");
    home.ok("prepare joined.txt --tokenizer tokenizer.json --out joined");
    assert_eq!(home.read("new/tokens.bin"), home.read("joined/tokens.bin"));
}

#[test]
fn no_memory_is_an_error_and_no_abort() {
    let home = Home::new();
    home.ok("train-tokenizer --config recipe.toml --out tokenizer.json --quiet");
    // One line, which is read whole and larger than the limit; the file has a hole, and takes no room on disk.
    let mut command = std::process::Command::new("sh");
    let line = format!(
        "truncate -s 3G huge.jsonl; ulimit -v 2000000; exec {} prepare huge.jsonl --tokenizer tokenizer.json --out new --quiet",
        env!("CARGO_BIN_EXE_remit")
    );
    command.args(["-c", &line]).current_dir(home.path());
    let done = Done::of(command);
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    assert!(done.stderr.starts_with("error: out of memory: "), "{}", done.stderr);
    assert!(done.stderr.contains("\nhint: "), "{}", done.stderr);
}
