//! `remit compare`: evaluations made by hand, what is said of them, and what cannot be compared.

mod common;

use common::{Home, check_close};
use serde_json::{Value, json};

/// Writes an evaluation of ten problems a task, of which the first `right` are answered, with `nll` nats a problem.
fn evaluation(home: &Home, name: &str, right: [usize; 2], nll: f64, change: impl Fn(&mut Value)) {
    let tasks = ["micro10_clock", "micro10_list"];
    std::fs::create_dir_all(home.at(name)).unwrap();
    let figures = |share: f64| json!({ "exact_match,none": share, "nll,none": nll / 4.0 });
    let group = figures((right[0] + right[1]) as f64 / 20.0);
    let better = json!({ "exact_match": true, "nll": false });
    let counts = |count: usize| json!({ "original": count, "effective": count });
    let mut results = json!({
        "results": {
            "micro10": group, tasks[0]: figures(right[0] as f64 / 10.0), tasks[1]: figures(right[1] as f64 / 10.0),
        },
        "groups": { "micro10": group }, "group_subtasks": { "micro10": tasks }, "configs": {},
        "versions": { "micro10": 1 }, "n-shot": {},
        "higher_is_better": { "micro10": better, tasks[0]: better, tasks[1]: better },
        "n-samples": { "micro10": counts(20), tasks[0]: counts(10), tasks[1]: counts(10) },
        "config": { "model_hash": name, "settings": { "nll": true, "out": name, "max_new_tokens": 8 } },
        "task_hashes": { tasks[0]: "a", tasks[1]: "b" }, "date": 0.0, "total_evaluation_time_seconds": "1",
    });
    change(&mut results);
    home.write(&format!("{name}/results.json"), results.to_string());
    for (task, right) in tasks.into_iter().zip(right) {
        let line = |id: usize| {
            json!({
                "doc_id": id, "doc": { "question": id }, "prompt": format!("Q: {id}"), "target": "1", "filter": "none",
                "exact_match": if id < right { 1.0 } else { 0.0 }, "nll": nll, "nll_tokens": 4,
            })
        };
        let log: String = (0..10).map(|id| format!("{}\n", line(id))).collect();
        home.write(&format!("{name}/samples_{task}.jsonl"), log);
    }
}

/// Arms `a` and `b` of three seeds: `b` has 20, 25 and 30 points more.
fn home() -> Home {
    let home = Home::new();
    let unchanged = |_: &mut Value| ();
    for (seed, right) in [(1, [2, 4]), (2, [3, 4]), (3, [4, 2])] {
        evaluation(&home, &format!("a-{seed}"), right, 2.0, unchanged);
    }
    for (seed, right) in [(1, [4, 6]), (2, [8, 4]), (3, [7, 5])] {
        evaluation(&home, &format!("b-{seed}"), right, 1.0, unchanged);
    }
    home
}

const ARMS: &str = "a=a-1,a-2,a-3 b=b-1,b-2,b-3/results.json";

#[test]
fn arms_side_by_side() {
    let home = home();
    let found = home.json(&format!("compare {ARMS} --json"));
    let row = |task: &str, metric: &str| {
        let mut rows = found["rows"].as_array().unwrap().iter();
        rows.find(|row| row["task"] == task && row["metric"] == metric).unwrap().clone()
    };
    let number = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("{found}"));
    let group = row("micro10", "exact_match");
    let difference = &group["arms"][1]["difference"];
    // 0.2, 0.25, 0.3: error 0.05 / sqrt 3, and 4.302653 of Student's two degrees of freedom.
    let half = 4.302_652_73 * 0.05 / 3.0f64.sqrt();
    let interval = &difference["over_seeds"];
    check_close(
        "over seeds",
        &[number(&difference["mean"]), number(&interval["low"]), number(&interval["high"])],
        &[0.25, 0.25 - half, 0.25 + half],
        1e-8,
    );
    assert_eq!((&difference["verdict"], &found["verdict_by"]), (&json!("above"), &json!("seeds")));
    assert_eq!(row("micro10", "nll")["arms"][1]["difference"]["verdict"], "below");
    assert_eq!(row("micro10_list", "exact_match")["arms"][1]["difference"]["verdict"], "not_distinguishable");

    let text = home.ok(&format!("compare {ARMS}"));
    let sentence = "micro10 exact_match: b is above a by 25.00 points (95% over 3 seeds: 12.58 to 37.42; over 20 problems: ";
    assert!(text.contains(sentence), "{text}");
    let sentence = "micro10 nll: b is below a by 0.2500 nats a token, which is better (95% over 3 seeds: -0.2500 to -0.2500;";
    assert!(text.contains(sentence), "{text}");
    assert!(text.contains("Verdicts go by the interval over seeds"), "{text}");

    let turned = home.ok(&format!("compare {ARMS} --baseline b --metric exact_match"));
    assert!(
        turned.contains(
            "micro10 exact_match: a is below b by 25.00 points (95% over 3 seeds: -37.42 to -12.58;"
        ),
        "{turned}"
    );
    assert!(!turned.contains("nll"), "{turned}");
    let one = home.ok("compare a=a-1 b=b-1");
    assert!(one.contains("there is one seed") && !one.contains("seeds:"), "{one}");
    // The lines of a log may come in any order: pairs are made by number.
    let log = home.text("b-2/samples_micro10_clock.jsonl");
    home.write(
        "b-2/samples_micro10_clock.jsonl",
        log.lines().rev().map(|line| format!("{line}\n")).collect::<String>(),
    );
    assert_eq!(text, home.ok(&format!("compare {ARMS}")));
}

#[test]
fn what_cannot_be_compared() {
    let home = home();
    let check = |line: &str, error: &str, hint: &str| {
        let done = home.remit(&format!("compare {line}"));
        assert_eq!((done.code, done.stdout.as_str()), (Some(1), ""), "{}", done.stderr);
        assert_eq!(done.stderr, format!("error: {error}\nhint: {hint}\n"), "remit compare {line}");
    };
    evaluation(&home, "hashed", [1, 1], 2.0, |results| results["task_hashes"]["micro10_list"] = json!("c"));
    evaluation(&home, "longer", [1, 1], 2.0, |results| {
        results["config"]["settings"]["max_new_tokens"] = json!(9)
    });
    evaluation(&home, "run/eval/step/micro10", [1, 1], 2.0, |_| ());
    evaluation(&home, "asked", [1, 1], 2.0, |_| ());
    let list = "samples_micro10_list.jsonl";
    home.write(&format!("asked/{list}"), home.text(&format!("asked/{list}")).replace("Q: 7", "Q: 8"));
    evaluation(&home, "unlogged", [1, 1], 2.0, |_| ());
    std::fs::remove_file(home.at("unlogged").join(list)).unwrap();
    evaluation(&home, "cut", [3, 3], 2.0, |results| {
        results["results"]["micro10_list"]["exact_match,none"] = json!(0.9)
    });
    evaluation(&home, "tokens", [1, 1], 2.0, |results| {
        for task in ["micro10_clock", "micro10_list", "micro10"] {
            results["results"][task]["nll,none"] = json!(0.25);
        }
    });
    for task in ["clock", "list"] {
        let log = format!("tokens/samples_micro10_{task}.jsonl");
        home.write(&log, home.text(&log).replace("\"nll_tokens\":4", "\"nll_tokens\":8"));
    }
    let questions = "evaluate all on the same questions";
    check("a=a-1 b=hashed", "`a-1` and `hashed` have different questions in `micro10_list`", questions);
    check("a=a-1 b=asked", "`a-1` and `asked` have different questions in `micro10_list`", questions);
    check(
        "a=a-1 b=longer",
        "`a-1` and `longer` were evaluated differently: max_new_tokens: 8 -> 9",
        "evaluate all with the same settings, or choose with `--metric` what does not depend on these",
    );
    check(
        "a=a-1,a-2 b=b-1",
        "arm `a` has 2 evaluations, arm `b` has 1",
        "give every arm the same seeds in the same order: they are compared pair by pair",
    );
    check(
        "a=a-1,a-1 b=b-1,b-2",
        "`a-1` and `a-1` of arm `a` are evaluations of the same model",
        "give each arm one evaluation a seed",
    );
    check(
        "fine-tuned=a-1 rl=b-1 --baseline fine-tunde",
        "there is no arm `fine-tunde` to compare with",
        "did you mean `fine-tuned`? the arms are `fine-tuned`, `rl`",
    );
    check(
        "a=a-1 b=b-1 --metric exact_mach",
        "the evaluations have no metric `exact_mach`",
        "did you mean `exact_match`? there are `exact_match`, `nll`",
    );
    check(
        "a=a-1 b=run",
        "`run` is no evaluation: it has no `results.json`",
        "did you mean `run/eval/step/micro10`?",
    );
    let again = "evaluate again with `remit eval --overwrite`: the answers to each question are needed";
    check("a=a-1 b=unlogged", "`unlogged/samples_micro10_list.jsonl` is not there", again);
    check(
        "a=a-1 b=cut",
        "`cut/samples_micro10_list.jsonl` does not go with its results: its 10 questions come to exact_match 0.3, where \
         `results.json` has 0.9",
        again,
    );
    check(
        "a=a-1 b=tokens",
        "`a-1` and `tokens` count the tokens of `micro10_clock`'s solutions differently",
        "nats a token can be compared between models of one tokenizer only; leave them out with `--metric exact_match`",
    );
    home.ok("compare a=a-1 b=tokens --metric exact_match");
    assert_eq!(home.remit("compare a-1 b=b-1").code, Some(2));
}
