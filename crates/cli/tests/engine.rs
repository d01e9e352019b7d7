//! Which engine runs models, as it is typed and written down.

mod common;

use common::Home;

#[test]
fn the_engine_of_this_process_is_there_without_a_word() {
    let home = Home::new();
    let text = home.ok("engine");
    assert!(text.starts_with("engine        cpu: this process\nthreads       "), "{text}");
    assert_eq!(home.ok("engine --dry-run"), "[engine]\nkind = \"cpu\"\n");
    assert_eq!(home.json("engine --threads 1 --json")["engine"]["threads"], 1);
}

#[test]
fn the_engine_of_this_process_is_no_distance_from_itself() {
    let home = Home::new();
    let report = home.json("engine --check --json");
    assert_eq!(report["good"], true);
    let rows = report["check"].as_array().unwrap();
    assert_eq!(rows.len(), 11);
    assert_eq!(rows[3]["values"], serde_json::json!([0.0, 0.0, 0.0, 0.0, 0.0]));
}

#[test]
fn settings_come_from_the_recipe_the_flag_and_overrides() {
    let home = Home::new();
    home.write("torch.toml", "[engine]\nkind = \"torch\"\ndevice = \"cpu\"\n");
    let table = |more: &str| home.ok(&format!("engine --config torch.toml --dry-run {more}"));
    let expected = "[engine]\nkind = \"torch\"\ndevice = \"cpu\"\ncompile = false\nattention = \"auto\"\ntimeout_seconds = 600.0\nprocesses = 1\nsharding = \"full\"\n";
    assert_eq!(table(""), expected);
    assert!(table("--engine.dtype=bf16").contains("dtype = \"bf16\"\n"));
    assert!(table("--engine.kind=cpu").contains("kind = \"cpu\"\n"));
    assert_eq!(table("--engine cpu"), "[engine]\nkind = \"cpu\"\n");
    assert!(home.ok("engine --dry-run --engine torch").contains("device = \"auto\"\n"));
    for (line, error) in [
        ("--engine.dtyp=bf16", "unknown key `engine.dtyp`"),
        ("--engine.dtype=f16", "`engine.dtype` has the unknown value `f16`"),
        ("--engine.sharding=some", "`engine.sharding` has the unknown value `some`"),
        ("--engine.timeout_seconds=soon", "`engine.timeout_seconds`"),
    ] {
        let done = home.remit(&format!("engine --config torch.toml --dry-run {line}"));
        assert_eq!(done.code, Some(1), "{}", done.stderr);
        assert!(done.stderr.contains(error), "{}", done.stderr);
    }
}

#[test]
fn a_dry_run_shows_another_engine_and_no_stage_takes_its_settings_for_its_own() {
    let home = Home::prepared();
    let plain = home.ok("pretrain --config recipe.toml --dry-run");
    assert!(!plain.contains("[engine]"));
    let done = home.remit("pretrain --config recipe.toml --dry-run --engine torch --engine.dtype=f32");
    assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""));
    assert!(done.stdout.ends_with("sharding = \"full\"\n"), "{}", done.stdout);
    assert!(done.stdout.contains("\n[engine]\nkind = \"torch\"\n"), "{}", done.stdout);
}

#[test]
fn an_engine_that_is_not_there_is_an_error_with_a_hint() {
    let home = Home::prepared();
    let line = "pretrain --config recipe.toml --engine torch --engine.python=no/such/python --quiet";
    let done = home.remit(line);
    assert_eq!(
        (done.code, done.stderr.as_str()),
        (
            Some(1),
            "error: cannot start `no/such/python`: No such file or directory (os error 2)\n\
             hint: set `[engine] python` to a Python 3.10 or later\n"
        )
    );
    let done = home.remit("engine --engine torch --engine.python=/bin/false --quiet");
    assert_eq!(done.code, Some(1));
    assert!(
        done.stderr.starts_with("error: the PyTorch worker has ended (exit status: 1) during `start`\n"),
        "{}",
        done.stderr
    );
}

/// A program that notes what it is started with, and ends.
#[cfg(unix)]
fn python(home: &Home) {
    use std::os::unix::fs::PermissionsExt;
    home.write("python", "#!/bin/sh\necho \"$@\" > started\n");
    std::fs::set_permissions(home.at("python"), std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[cfg(unix)]
#[test]
fn all_but_the_first_of_a_launchers_processes_serve_whatever_the_verb() {
    let home = Home::new();
    python(&home);
    let line =
        "midtrain --config recipe.toml --engine torch --engine.python=./python --engine.launcher=torchrun";
    let run = |rank: &str, line: &str| {
        let mut command = home.command(line);
        command.env("RANK", rank);
        common::Done::of(command)
    };
    // There is nothing of what the verb needs; it is not asked for.
    run("1", line).ok(line);
    let started = home.text("started");
    assert!(started.ends_with("worker.py --limit 600 --launcher torchrun\n"), "{started}");
    assert_eq!(run("0", line).code, Some(1));
    let done = run("0", &line.replace("midtrain", "engine"));
    assert!(done.stderr.contains("the PyTorch worker has ended (exit status: 0) during `start`"), "{done:?}");
    let done = run("0", &line.replace("midtrain", "engine --check"));
    assert!(done.code == Some(2) && done.stderr.contains("`--check` starts the engine more than once"));
}

#[cfg(unix)]
#[test]
fn processes_are_a_number_that_makes_sense() {
    let home = Home::new();
    python(&home);
    let line = "engine --engine torch --engine.python=./python";
    home.remit(&format!("{line} --engine.processes=3"));
    assert!(home.text("started").ends_with("worker.py --limit 600 --processes 3\n"));
    for (more, error) in [
        ("--engine.processes=0", "`engine.processes` = 0 is out of range: 1 to 64"),
        ("--engine.processes=65", "`engine.processes` = 65 is out of range: 1 to 64"),
        ("--engine.processes=2 --engine.launcher=slurm", "where there is a `launcher`"),
    ] {
        let done = home.remit(&format!("{line} {more}"));
        assert!(done.code == Some(1) && format!("{done:?}").contains(error), "{done:?}");
    }
}
