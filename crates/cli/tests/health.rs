//! Rules of health by the program: warned of, stopped by, gone on from.

mod common;

use common::Home;
use serde_json::{Value, json};

/// The lines of broken rules: step, rule and action.
fn broken(home: &Home, run: &str) -> Vec<Value> {
    let lines = home.metrics(run).into_iter().filter(|line| line.get("health").is_some());
    lines.map(|line| json!([line["step"], line["health"]["rule"], line["health"]["action"]])).collect()
}

#[test]
fn a_run_that_is_stopped_goes_on_with_a_warning() {
    let home = Home::trained();
    // With so small an epsilon nearly every weight is at a bound, but for tokens that are exactly as likely as the mean.
    let line = |run: &str, action: &str| {
        format!(
            "midtrain --config recipe.toml --run {run} --midtrain.objective.epsilon_low=1e-6 \
             --midtrain.objective.epsilon_high=1e-6 --midtrain.health.weights_saturated.span=3 \
             --midtrain.health.weights_saturated.action={action}"
        )
    };
    let warned = home.remit(&line("warned", "warn"));
    assert_eq!(warned.code, Some(0), "{}", warned.stderr);
    assert_eq!(warned.stderr.matches("warning: step 3: clipped_low + clipped_high is ").count(), 1);
    assert_eq!(warned.stderr.matches("warning").count(), 1, "{}", warned.stderr);
    assert_eq!(broken(&home, "warned"), [json!([3, "weights_saturated", "warn"])]);
    assert!(!home.text("warned/settings.toml").contains("[midtrain.health"));

    for again in 0..2 {
        let stopped = home.remit(&line("run", "stop"));
        assert_eq!(stopped.code, Some(1), "{again}: {}", stopped.stderr);
        for part in [
            "error: step 3: the run is stopped: clipped_low + clipped_high is ",
            "the limit is 0.95 (`health.weights_saturated`)\nhint: nearly all weights are at a bound",
            "set `health.weights_saturated.action` to \"warn\" and give the same command again",
        ] {
            assert!(stopped.stderr.contains(part), "{again}: {}", stopped.stderr);
        }
        assert!(!stopped.stderr.contains("warning"), "{}", stopped.stderr);
        assert!(home.at("run/checkpoints/step-00000003/integrity.json").is_file());
        assert_eq!(home.losses("run").len(), 3);
    }
    home.ok(&line("run", "warn"));
    assert_eq!(
        home.text("run/metrics.jsonl").replace("\"stop\"", "\"warn\""),
        home.text("warned/metrics.jsonl")
    );
    assert_eq!(home.parameters("run"), home.parameters("warned"));
    // The rest of the settings stay what they were.
    let other = home.remit(&(line("run", "warn") + " --midtrain.seed=9"));
    assert!(other.stderr.contains("was begun with other settings: `seed`: 1 -> 9\n"), "{}", other.stderr);
}

#[test]
fn forgetting_is_found_at_an_evaluation() {
    let home = Home::trained();
    let line =
        "sft --config recipe.toml --epochs 20 --sft.optimizer.learning_rate=3e-2 --sft.held_out.every=5";
    let stopped = home.remit(&format!("{line} --sft.health.forgetting={{action=\"stop\",limit=0.01}}"));
    assert!(stopped.stderr.contains("rise of held-out text is "), "{}", stopped.stderr);
    let lines = home.metrics("sft");
    let evals: Vec<&Value> = lines.iter().filter(|line| line.get("held_out").is_some()).collect();
    let loss = |eval: &Value| eval["held_out"]["text"].as_f64().unwrap();
    let (first, last) = (loss(evals[0]), loss(evals[evals.len() - 1]));
    let found = lines.last().unwrap();
    assert_eq!(found["health"]["value"].as_f64(), Some(last - first));
    assert_eq!(found["step"], evals[evals.len() - 1]["step"]);
    assert!(evals[..evals.len() - 1].iter().all(|eval| loss(eval) - first <= 0.01));
}

#[test]
fn a_reward_that_never_differs_is_stuck() {
    let home = Home::trained();
    let line = "rl --config recipe.toml --rl.verifiers.digit.pattern=(never) --rl.health.reward_stuck.span=4";
    let done = home.remit(line);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert_eq!(broken(&home, "rl"), [json!([4, "reward_stuck", "warn"])]);
    assert!(
        done.stderr
            .contains("warning: step 4: equal_groups is 1.0000, the limit is 1 (`health.reward_stuck`)")
    );
}

#[test]
fn rules_that_make_no_sense_are_refused() {
    let home = Home::trained();
    for (flag, part) in [
        ("weights_saturated.span=0", "`midtrain.health.weights_saturated.span` is 0"),
        ("forgetting.limit=-1.0", "`midtrain.health.forgetting.limit` must be a finite number, 0 or more"),
        ("forgetting.stores=[\"old\"]", "`midtrain.health.forgetting.stores` names `old`"),
        ("forgetting.span=3", "span"),
        ("forgeting.limit=3.0", "forgeting"),
        ("reward_stuck.action=halt", "halt"),
    ] {
        let done = home.remit(&format!("midtrain --config recipe.toml --run new --midtrain.health.{flag}"));
        assert!(done.code != Some(0) && done.stderr.contains(part), "{flag}: {}", done.stderr);
        assert!(!home.at("new").exists(), "{flag}");
    }
}
