//! What must not change a result: the clock, the number of threads, how a batch is cut up, what is kept in memory, and
//! where a run was stopped.

mod common;

use std::fs;

use common::{Home, check_close, check_same, doubles};

/// Mid-training with everything in it that could be out of order: a reference beside the learner, evaluations,
/// checkpoints, a mixture.
const RUN: &str =
    "midtrain --config recipe.toml --quiet --midtrain.data.mixture={sums={weight=0.7},words={weight=0.3}}";

fn check_equal_runs(home: &Home, first: &str, second: &str) {
    check_same(&format!("{first} and {second}"), &home.outcome(first), &home.outcome(second));
}

#[test]
fn one_seed_twice_gives_the_same_bytes_and_another_seed_others() {
    let home = Home::trained();
    for run in ["first", "second"] {
        home.ok(&format!("{RUN} --run {run}"));
        home.ok(&format!("pretrain --config recipe.toml --quiet --run fresh-{run}"));
    }
    check_equal_runs(&home, "first", "second");
    check_equal_runs(&home, "fresh-first", "fresh-second");
    home.ok(&format!("{RUN} --run other --midtrain.seed=2"));
    assert!(home.parameters("other") != home.parameters("first"), "the seed decides the order of windows");
    home.ok("pretrain --config recipe.toml --quiet --run fresh-other --pretrain.seed=2");
    assert!(home.parameters("fresh-other") != home.parameters("fresh-first"));
}

#[test]
fn threads_change_nothing() {
    let home = Home::prepared();
    for threads in [1, 2, 3] {
        let all = format!("--config recipe.toml --quiet --threads {threads}");
        home.ok(&format!("train-tokenizer {all} --out tokenizer-{threads}.json"));
        home.ok(&format!("prepare {all} --out tokens-{threads}"));
        home.ok(&format!("pretrain {all} --run pretrain-{threads}"));
        let learner = format!("--from pretrain-{threads} --reference pretrain-1");
        home.ok(&format!("midtrain {all} --run remit-{threads} {learner} --midtrain.moments=reset"));
        home.ok(&format!("score {all} --reference pretrain-{threads} --out scores-{threads}"));
    }
    for threads in [2, 3] {
        let [one, more] = [1, threads].map(|threads| home.read(&format!("tokenizer-{threads}.json")));
        assert!(one == more, "tokenizer with {threads} threads");
        for name in ["tokens", "scores"] {
            let [one, more] =
                [1, threads].map(|threads| common::tree(&home.at(&format!("{name}-{threads}"))));
            check_same(&format!("{name} with {threads} threads"), &one, &more);
        }
        check_equal_runs(&home, "pretrain-1", &format!("pretrain-{threads}"));
        check_equal_runs(&home, "remit-1", &format!("remit-{threads}"));
    }
}

/// One window after another instead of eight at once, under `objective`.
fn check_accumulation(home: &Home, name: &str, objective: &str) {
    let runs = [(1, format!("{name}-one")), (3, format!("{name}-three")), (8, format!("{name}-all"))];
    for (windows, run) in &runs {
        home.ok(&format!("{RUN} {objective} --run {run} --midtrain.data.micro_batch_windows={windows}"));
    }
    let whole = &runs[2].1;
    for (_, run) in &runs[..2] {
        let what = format!("{run} against {whole}");
        check_close(&what, &home.losses(run), &home.losses(whole), 1e-6);
        check_close(&what, &doubles(&home.parameters(run)), &doubles(&home.parameters(whole)), 1e-5);
    }
}

#[test]
fn accumulation_gives_the_same_update() {
    let home = Home::trained();
    check_accumulation(&home, "ntp", "--midtrain.objective.kind=ntp");
    check_accumulation(&home, "remit", "");
    // The rules that need the log-probabilities of the whole batch before the first backward pass.
    check_accumulation(&home, "batch", "--midtrain.objective.center=batch --midtrain.objective.scale=std");
    check_accumulation(&home, "rho1", "--midtrain.objective.kind=rho1");
    assert!(home.parameters("remit-all") != home.parameters("batch-all"), "the settings had an effect");
}

#[test]
fn recomputed_activations_are_the_same_activations() {
    let home = Home::trained();
    for recompute in [false, true] {
        home.ok(&format!("{RUN} --run recompute-{recompute} --midtrain.recompute={recompute}"));
    }
    check_equal_runs(&home, "recompute-false", "recompute-true");
}

/// Takes the last checkpoints away, as if the run had been stopped after `step`, and goes on.
fn check_resumed(home: &Home, name: &str, settings: &str) {
    let line = |run: &str| {
        format!(
            "{RUN} {settings} --run {run} --midtrain.checkpoints.ephemeral_every=3 \
             --midtrain.checkpoints.keep_last=9"
        )
    };
    let [straight, resumed] = ["straight", "resumed"].map(|end| format!("{name}-{end}"));
    home.ok(&line(&straight));
    home.ok(&line(&resumed));
    for stopped_after in [9, 3] {
        for step in (stopped_after + 3..=12).step_by(3) {
            fs::remove_dir_all(home.at(&format!("{resumed}/checkpoints/step-{step:08}"))).unwrap();
        }
        home.ok(&line(&resumed));
        check_equal_runs(home, &straight, &resumed);
    }
}

#[test]
fn a_run_goes_on_from_an_ephemeral_checkpoint_as_if_it_had_not_stopped() {
    let home = Home::trained();
    check_resumed(&home, "exact", "");
    // Parameters rounded in the checkpoint are kept exactly beside it.
    check_resumed(&home, "rounded", "--midtrain.checkpoints.dtype=bf16");
    home.ok(&format!("{RUN} --run whole"));
    assert!(
        home.metrics("whole") == home.metrics("exact-straight"),
        "checkpoints do not change what is trained"
    );
}

#[test]
fn a_finished_run_is_left_alone() {
    let home = Home::trained();
    home.ok(&format!("{RUN} --run done"));
    let before = common::tree(&home.at("done"));
    let first = home.json(&format!("{RUN} --run done --json"));
    check_same("done", &before, &common::tree(&home.at("done")));
    assert_eq!(first["steps"], 12);
    assert_eq!(
        first["last"]["loss"],
        home.metrics("done").iter().rev().find_map(|record| record.get("loss")).unwrap().clone()
    );
}
