//! The tables of a flywheel made by hand, against numbers worked out by hand.
//!
//! Three seeds of `ntp` and of the arm `remit` with two turns. Of the second turn, seed 3 is still being mid-trained and
//! seed 2 has not come past its mid-training. Student's 97.5th percentile is 12.7062 at one degree of freedom (two
//! seeds) and 4.3027 at two (three seeds), and the error of a mean is `sd / sqrt(seeds)`.

use remit_objective::Means;
use remit_report::{Options, Run, report};
use remit_results::dynamics::{Dynamics, FORMAT_VERSION, Point, Score};
use remit_results::files::DYNAMICS;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use tempfile::TempDir;

const ACCURACY: &str = "exact_match,none";

/// A turn of an arm at a point of the pipeline, by seed from seed 1 on.
struct Scores {
    arm: &'static str,
    iteration: u32,
    point: &'static str,
    /// Held-out loss of `solutions`.
    losses: &'static [f64],
    /// Accuracy on `micro10`; on its member `micro10_clock` it is half of that.
    shares: &'static [f64],
}

const SCORES: [Scores; 6] = [
    Scores {
        arm: "ntp",
        iteration: 0,
        point: "midtrain",
        losses: &[1.00, 1.20, 1.40],
        shares: &[0.40, 0.50, 0.60],
    },
    Scores {
        arm: "remit",
        iteration: 1,
        point: "midtrain",
        losses: &[0.90, 1.00, 1.10],
        shares: &[0.50, 0.62, 0.74],
    },
    Scores { arm: "remit", iteration: 2, point: "midtrain", losses: &[0.70, 0.86], shares: &[0.60, 0.80] },
    Scores {
        arm: "ntp",
        iteration: 0,
        point: "sft",
        losses: &[0.80, 0.90, 1.00],
        shares: &[0.60, 0.70, 0.80],
    },
    Scores {
        arm: "remit",
        iteration: 1,
        point: "sft",
        losses: &[0.79, 0.87, 0.95],
        shares: &[0.61, 0.73, 0.82],
    },
    Scores { arm: "remit", iteration: 2, point: "sft", losses: &[0.75], shares: &[0.64] },
];

/// The comparison as `flywheel.json` has it: turn, point, then of each figure the mean and the difference to `ntp` with
/// its interval. The differences by seed are:
///
/// ```text
/// 1, midtrain: losses -0.10 -0.20 -0.30, mean -0.20, sd 0.10, half the interval 4.3027 * 0.10 / sqrt 3 = 0.248414
///              shares +0.10 +0.12 +0.14, mean  0.12, sd 0.02, half 0.049683
/// 2, midtrain: losses -0.30 -0.34, mean -0.32, error 0.02, half 12.7062 * 0.02 = 0.254124
///              shares +0.20 +0.30, mean  0.25, error 0.05, half 0.635310
/// 1, sft:      losses -0.01 -0.03 -0.05, mean -0.03, sd 0.02, half 0.049683
///              shares +0.01 +0.03 +0.02, mean  0.02, sd 0.01, half 0.024841
/// 2, sft:      losses -0.05; shares +0.04; one seed has no interval
/// ```
fn comparison() -> Vec<Value> {
    let mut all = Vec::new();
    let mut put = |arm: &str, iteration: u32, point: &str, seeds: usize, means: [f64; 2]| {
        for ((task, metric), mean) in
            [("held-out", "solutions"), ("micro10", ACCURACY)].into_iter().zip(means)
        {
            all.push(
                json!({ "arm": arm, "iteration": iteration, "point": point, "task": task, "metric": metric,
                "mean": { "mean": mean, "count": seeds } }),
            );
        }
    };
    put("ntp", 0, "midtrain", 3, [1.2, 0.5]);
    put("remit", 1, "midtrain", 3, [1.0, 0.62]);
    put("remit", 2, "midtrain", 2, [0.78, 0.7]);
    put("ntp", 0, "sft", 3, [0.9, 0.7]);
    put("remit", 1, "sft", 3, [0.87, 0.72]);
    put("remit", 2, "sft", 1, [0.75, 0.64]);
    let differences = [
        (2, 3, [(-0.2, Some(0.248_414)), (0.12, Some(0.049_683))]),
        (4, 2, [(-0.32, Some(0.254_124)), (0.25, Some(0.635_310))]),
        (8, 3, [(-0.03, Some(0.049_683)), (0.02, Some(0.024_841))]),
        (10, 1, [(-0.05, None), (0.04, None)]),
    ];
    for (at, seeds, of) in differences {
        for (offset, (mean, half)) in of.into_iter().enumerate() {
            let interval = half.map(|half: f64| json!({ "low": mean - half, "high": mean + half }));
            all[at + offset]["difference"] =
                json!({ "difference": { "mean": mean, "count": seeds }, "t_interval": interval });
        }
    }
    all
}

/// Evaluations of a mid-training: tokens, held-out loss of `solutions`, that of `text`.
type Evaluations = [(f64, f64, f64); 3];

/// Of turns and seeds. Those of an arm end before the baseline's tokens do.
const CURVES: [(&str, u32, &[Evaluations]); 3] = [
    (
        "ntp",
        0,
        &[
            [(0.0, 2.0, 4.0), (100.0, 1.5, 3.5), (200.0, 1.00, 3.0)],
            [(0.0, 2.0, 4.0), (100.0, 1.6, 3.0), (200.0, 1.20, 3.0)],
            [(0.0, 2.0, 4.0), (100.0, 1.4, 3.9), (200.0, 1.40, 4.0)],
        ],
    ),
    (
        "remit",
        1,
        &[
            [(0.0, 2.0, 4.0), (80.0, 1.30, 3.2), (160.0, 0.90, 3.1)],
            [(0.0, 2.0, 4.0), (80.0, 1.25, 3.4), (160.0, 1.00, 2.9)],
            [(0.0, 2.0, 4.0), (80.0, 1.20, 3.7), (160.0, 1.10, 3.6)],
        ],
    ),
    (
        "remit",
        2,
        &[
            [(0.0, 2.0, 4.0), (40.0, 0.75, 3.5), (120.0, 0.70, 3.4)],
            [(0.0, 1.8, 4.0), (40.0, 1.00, 3.6), (120.0, 0.86, 3.5)],
            // Not done: nothing of it is in a table.
            [(0.0, 2.0, 4.0), (40.0, 0.10, 0.2), (80.0, 0.10, 0.2)],
        ],
    ),
];

/// Steps of a mid-training that have weights, by turn of the arm; the one that is not done has fewer.
fn num_steps(iteration: u32, seed: u64) -> u32 {
    match (iteration, seed) {
        (0, _) => 0,
        (1, _) => 20,
        (_, 3) => 1,
        _ => 11,
    }
}

/// `metrics.jsonl` of a mid-training.
fn log(iteration: u32, seed: u64, evaluations: &Evaluations) -> String {
    let mut text = String::new();
    for (tokens, solutions, of_text) in evaluations {
        let line = json!({ "step": tokens / 10.0, "tokens": tokens, "held_out": { "solutions": solutions, "text": of_text } });
        let _ = writeln!(text, "{line}");
    }
    for step in 1..=num_steps(iteration, seed) {
        let (turn, seed, at) = (f64::from(iteration), seed as f64, f64::from(step));
        let line = json!({ "step": step, "tokens": at * 8.0,
            "mean_weight": turn + 0.1 * at + 0.01 * seed, "std_weight": 5.0 * turn - 0.2 * at });
        let _ = writeln!(text, "{line}");
    }
    text
}

/// Figures of a store: gap, both divergences, agreement, entropy, loss.
type Base = [f64; 6];

/// What a model is measured to be: `base` and `slope` more with each seed. What is not shown is far off.
fn means(base: Base, slope: f64, seed: u64) -> Means {
    let [gap, kl_reference_learner, kl_learner_reference, agreement, entropy, nll] =
        base.map(|value| value + slope * seed as f64);
    Means {
        predictions: 77,
        gap,
        kl_reference_learner,
        kl_learner_reference,
        agreement,
        entropy,
        reference_entropy: 88.0,
        nll,
        reference_nll: 99.0,
    }
}

/// pass@1 and pass@4, by seed from seed 1 on.
type Samples = &'static [[f64; 2]];

/// A turn as dynamics see it.
struct Course {
    arm: &'static str,
    iteration: u32,
    /// How far the figures of one seed are from those of the next.
    slope: f64,
    /// Stage, the number of seeds that have come to its end, figures, samples.
    stages: &'static [(&'static str, usize, Base, Samples)],
}

const COURSES: [Course; 3] = [
    Course {
        arm: "ntp",
        iteration: 0,
        slope: 0.01,
        stages: &[
            ("pretrain", 3, [0.90, 0.80, 0.70, 0.40, 1.50, 2.10], &[]),
            (
                "midtrain",
                3,
                [0.50, 0.40, 0.30, 0.60, 1.10, 1.50],
                &[[0.20, 0.50], [0.30, 0.60], [0.40, 0.70]],
            ),
            // Nobody drew samples of seed 3.
            ("sft", 3, [0.20, 0.16, 0.14, 0.75, 1.00, 1.40], &[[0.50, 0.80], [0.52, 0.84]]),
        ],
    },
    Course {
        arm: "remit",
        iteration: 1,
        slope: 0.03,
        stages: &[
            (
                "midtrain",
                3,
                [0.30, 0.25, 0.12, 0.70, 1.00, 1.31],
                &[[0.25, 0.49], [0.37, 0.58], [0.49, 0.67]],
            ),
            ("sft", 3, [0.11, 0.10, 0.09, 0.78, 0.95, 1.34], &[[0.56, 0.77], [0.62, 0.79], [0.68, 0.90]]),
        ],
    },
    Course {
        arm: "remit",
        iteration: 2,
        slope: 0.03,
        stages: &[
            // That of seed 3 is still being measured: it is in no table.
            (
                "midtrain",
                3,
                [0.10, 0.08, 0.05, 0.80, 0.90, 1.20],
                &[[0.40, 0.55], [0.60, 0.69], [0.99, 0.99]],
            ),
            ("sft", 1, [0.05, 0.04, 0.03, 0.81, 0.90, 1.30], &[[0.70, 0.90]]),
        ],
    },
];

/// `dynamics.json` of one seed. Each stage has a checkpoint halfway, which is no end of it.
fn dynamics(course: &Course, seed: u64) -> Dynamics {
    let mut points = Vec::new();
    let index = seed as usize - 1;
    for (stage, _, base, samples) in course.stages.iter().filter(|(_, seeds, ..)| index < *seeds) {
        let point = |step: u64, base: Base, tasks| Point {
            run: format!("{stage}-{}{seed}", course.iteration).into(),
            step,
            tokens: Some(10 * step),
            checkpoint_hash: format!("{stage}{step}"),
            inputs: String::new(),
            stores: BTreeMap::from([("text".to_owned(), means(base, course.slope, seed))]),
            tasks,
        };
        let score = |mean: f64| Score { mean, standard_error: None };
        let tasks = |[one, four]: &[f64; 2]| {
            let scores = [("pass@1,none", *one), ("pass@4,none", *four)];
            let scores = scores.map(|(metric, mean)| (metric.to_owned(), score(mean)));
            BTreeMap::from([("micro10".to_owned(), BTreeMap::from(scores))])
        };
        points.push(point(5, [7.0; 6], BTreeMap::new()));
        points.push(point(10, *base, samples.get(index).map(tasks).unwrap_or_default()));
    }
    Dynamics {
        format_version: FORMAT_VERSION,
        reference: "sft-01".into(),
        reference_hash: "hash".to_owned(),
        window: 8,
        points,
    }
}

/// Costs: what is a turn's own differs from its total in every number.
fn costs() -> Value {
    let cost = |tokens: u64, forward: u64, flops: f64, seconds: f64| {
        json!({ "tokens": tokens, "forward": forward, "backward": forward + 100, "reference": forward + 200,
            "generated": forward + 300, "flops": flops, "seconds": seconds })
    };
    json!([
        { "arm": "ntp", "iteration": 0, "point": "midtrain", "seeds": 3,
            "own": cost(200, 400, 1.5e9, 30.0), "total": cost(200, 400, 1.5e9, 30.0) },
        { "arm": "remit", "iteration": 1, "point": "midtrain", "seeds": 3, "rl_steps_at_equal_compute": 11,
            "own": cost(160, 1500, 2.5e9, 65.0), "total": cost(900, 9000, 8.5e9, 3900.0) },
        { "arm": "remit", "iteration": 2, "point": "midtrain", "seeds": 2, "rl_steps_at_equal_compute": 17,
            "own": cost(120, 2600, 3.5e9, 7.0), "total": cost(990, 9900, 9.5e9, 7300.0) },
    ])
}

fn write(path: &Path, text: impl AsRef<[u8]>) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// A run directory by hand.
fn wheel() -> TempDir {
    let wheel = TempDir::new().unwrap();
    let at = |node: &str, file: &str| wheel.path().join("nodes").join(node).join(file);
    let (mut nodes, mut figures) = (Vec::new(), Vec::new());
    let mut node = |name: &str, stage: &str, owner: &Value, state: &str| {
        nodes.push(json!({ "name": name, "id": format!("id of {name}"), "stage": stage, "owners": [owner], "inputs": [],
            "state": state }));
    };
    let owner =
        |arm: &str, iteration: u32, seed: u64| json!({ "arm": arm, "iteration": iteration, "seed": seed });
    let state = |iteration: u32, seed: u64| if (iteration, seed) == (2, 3) { "begun" } else { "done" };
    for (arm, iteration, curves) in CURVES {
        for (seed, evaluations) in (1..).zip(curves) {
            let name = format!("midtrain-{iteration}{seed}");
            node(&name, "midtrain", &owner(arm, iteration, seed), state(iteration, seed));
            write(&at(&name, "metrics.jsonl"), log(iteration, seed, evaluations));
        }
    }
    for Scores { arm, iteration, point, losses, shares } in SCORES {
        for ((seed, loss), share) in (1..).zip(losses).zip(shares) {
            let name = format!("eval-{point}-{iteration}{seed}");
            node(&name, "eval", &owner(arm, iteration, seed), "done");
            let results = json!({ "results": { "micro10": { ACCURACY: share }, "micro10_clock": { ACCURACY: share / 2.0 } } });
            write(&at(&name, "results.json"), results.to_string());
            for (task, metric, value) in [("held-out", "solutions", loss), ("micro10", ACCURACY, share)] {
                figures.push(
                    json!({ "arm": arm, "iteration": iteration, "seed": seed, "point": point, "task": task,
                    "metric": metric, "value": value, "node": name }),
                );
            }
        }
    }
    for course in &COURSES {
        for seed in 1..=3 {
            let name = format!("dynamics-{}{seed}", course.iteration);
            node(
                &name,
                "dynamics",
                &owner(course.arm, course.iteration, seed),
                state(course.iteration, seed),
            );
            write(&at(&name, DYNAMICS), serde_json::to_vec(&dynamics(course, seed)).unwrap());
        }
    }
    let text = json!({ "format_version": 1, "nodes": nodes, "figures": figures, "comparison": comparison(), "costs": costs() });
    write(&wheel.path().join("flywheel.json"), text.to_string());
    wheel
}

fn markdown(options: &Options) -> String {
    let wheel = wheel();
    report(&Run::read(wheel.path(), None).unwrap(), options).to_markdown()
}

/// What stands below a heading, up to the next of its kind.
fn below<'a>(text: &'a str, heading: &str) -> &'a str {
    let found = text.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("{heading}: {text}"));
    let level = heading.split(' ').next().unwrap();
    found.1.split(&format!("\n{level} ")).next().unwrap()
}

/// The first table below a heading of a section: its headings and rows, without the line between them.
fn table<'a>(markdown: &'a str, section: &str, heading: Option<&str>) -> Vec<&'a str> {
    let mut text = below(markdown, &format!("## {section}"));
    if let Some(heading) = heading {
        text = below(text, &format!("### {heading}"));
    }
    let lines = text.lines().skip_while(|line| !line.starts_with('|'));
    lines.take_while(|line| line.starts_with('|')).filter(|line| !line.starts_with("|-")).collect()
}

#[test]
fn tasks_have_the_arm_less_the_baseline() {
    let text = markdown(&Options::default());
    let found = table(&text, "Tasks", Some("accuracy after midtrain"));
    // The member is not in the comparison. Its differences are half of the group's: 5, 6, 7 points, sd 1, half the
    // interval 4.3027 / sqrt 3 = 2.4841; in turn 2 they are 10 and 15, error 2.5, half 31.7655.
    assert_eq!(
        found,
        [
            "| task | ntp | remit, iteration 1 | difference | remit, iteration 2 | difference |",
            "| micro10 | 50.0 | 62.0 | +12.0 [+7.0, +17.0] | 70.0 (2 seeds) | +25.0 [-38.5, +88.5] (2 seeds) |",
            "| micro10\\_clock | 25.0 | 31.0 | +6.0 [+3.5, +8.5] | 35.0 (2 seeds) | +12.5 [-19.3, +44.3] (2 seeds) |",
        ]
    );
    // 0.5, 1.5, 1.0 points: sd 0.5, half 1.2421.
    let found = table(&text, "Tasks", Some("accuracy after sft"));
    assert_eq!(
        found[1..],
        [
            "| micro10 | 70.0 | 72.0 | +2.0 [-0.5, +4.5] | 64.0 (1 seed) | +4.0 (1 seed) |",
            "| micro10\\_clock | 35.0 | 36.0 | +1.0 [-0.2, +2.2] | 32.0 (1 seed) | +2.0 (1 seed) |",
        ]
    );
}

#[test]
fn verdicts_are_those_of_the_comparison() {
    let text = markdown(&Options::default());
    let words = below(below(&text, "## What ran on what"), "### After mid-training, compared with ntp");
    let found: Vec<&str> = words.lines().filter(|line| line.starts_with("- ")).collect();
    assert_eq!(
        found,
        [
            "- remit, iteration 1 cannot be told from ntp in held-out loss of solutions: -0.2000 nats, 95% interval [-0.4484, +0.0484], 3 seeds.",
            "- remit, iteration 1 is better than ntp in accuracy on micro10: +12.0 points, 95% interval [+7.0, +17.0], 3 seeds.",
            "- remit, iteration 2 is better than ntp in held-out loss of solutions: -0.3200 nats, 95% interval [-0.5741, -0.0659], 2 seeds.",
            "- remit, iteration 2 cannot be told from ntp in accuracy on micro10: +25.0 points, 95% interval [-38.5, +88.5], 2 seeds.",
        ]
    );
}

#[test]
fn losses_at_the_end_are_those_of_finished_midtrainings() {
    let text = markdown(&Options::default());
    // Of `text`: (3.0 + 3.0 + 4.0) / 3, (3.1 + 2.9 + 3.6) / 3, (3.4 + 3.5) / 2.
    assert_eq!(
        table(&text, "Learning curves", Some("Held-out loss at the end")),
        [
            "| arm | seeds | solutions | text |",
            "| ntp | 3 | 1.2000 | 3.3333 |",
            "| remit, iteration 1 | 3 | 1.0000 | 3.2000 |",
            "| remit, iteration 2 | 2 | 0.7800 | 3.4500 |",
        ]
    );
}

/// Shares of the baseline's 200 tokens.
///
/// ```text
/// ntp, solutions: seed 3 is at 1.4 after 100 already. 100 100 50: sd 28.868, half 4.3027 * 28.868 / sqrt 3 = 71.711
/// ntp, text:      seed 2 is at 3.0 after 100 already, seed 3 ends where it began. 100 50: error 25, half 317.655
/// 1, solutions:   to 1.0, (1.3 - 1.0) / 0.4 of the way from 80 to 160: 140 tokens, 70%
///                 to 1.2, (1.25 - 1.2) / 0.25 of the way from 80 to 160: 96, 48%
///                 to 1.4, (2.0 - 1.4) / 0.8 of the way from 0 to 80: 60, 30%
///                 mean 49.333, sd 20.033, half 49.766
/// 1, text:        seed 1 ends at 3.1, above 3.0; to 3.0, (3.4 - 3.0) / 0.5 of the way from 80 to 160: 144, 72%
/// 2, solutions:   to 1.0, 1.0 / 1.25 of the way from 0 to 40: 32, 16%; to 1.2, 0.6 / 0.8 of it: 30, 15%
///                 mean 15.5, error 0.5, half 6.353
/// 2, text:        neither is there
/// ```
#[test]
fn where_the_baseline_ends() {
    let text = markdown(&Options::default());
    assert_eq!(
        table(&text, "Learning curves", Some("Where the baseline ends")),
        [
            "| arm | store | by seed | mean | not reached |",
            "| ntp | solutions | 100.0%, 100.0%, 50.0% | 83.3% [11.6, 155.0] | 0 of 3 |",
            "| ntp | text | 100.0%, 50.0% | 75.0% [-242.7, 392.7] | 0 of 2 |",
            "| remit, iteration 1 | solutions | 70.0%, 48.0%, 30.0% | 49.3% [-0.4, 99.1] | 0 of 3 |",
            "| remit, iteration 1 | text | -, 72.0% | 72.0% | 1 of 2 |",
            "| remit, iteration 2 | solutions | 16.0%, 15.0% | 15.5% [9.1, 21.9] | 0 of 2 |",
            "| remit, iteration 2 | text | -, - | - | 2 of 2 |",
        ]
    );
}

#[test]
fn gains_go_along_the_pipeline() {
    let text = markdown(&Options::default());
    assert_eq!(
        table(&text, "Gains kept", Some("held-out loss of solutions")),
        [
            "| arm | midtrain | sft |",
            "| remit, iteration 1 | -0.2000 [-0.4484, +0.0484] | -0.0300 [-0.0797, +0.0197] |",
            "| remit, iteration 2 | -0.3200 [-0.5741, -0.0659] (2 seeds) | -0.0500 (1 seed) |",
        ]
    );
    assert_eq!(
        table(&text, "Gains kept", Some("accuracy on micro10")),
        [
            "| arm | midtrain | sft |",
            "| remit, iteration 1 | +12.0 [+7.0, +17.0] | +2.0 [-0.5, +4.5] |",
            "| remit, iteration 2 | +25.0 [-38.5, +88.5] (2 seeds) | +4.0 (1 seed) |",
        ]
    );
}

/// Turn 2 less turn 1 is over the seeds of turn 2.
///
/// ```text
/// midtrain: losses 0.70 - 0.90 = -0.20, 0.86 - 1.00 = -0.14: mean -0.17, error 0.03, half 12.7062 * 0.03 = 0.381186
///           (the means of the columns differ by 0.78 - 1.00 = -0.22)
///           points 60 - 50 = 10, 80 - 62 = 18: mean 14, error 4, half 50.825
/// sft:      losses 0.75 - 0.79, points 64 - 61
/// ```
#[test]
fn each_iteration_less_the_one_before_it() {
    let text = markdown(&Options::default());
    assert_eq!(
        table(&text, "Iteration by iteration", Some("held-out loss of solutions")),
        [
            "| arm | after | iteration 0 | iteration 1 | iteration 2 | 1 less 0 | 2 less 1 |",
            "| remit | midtrain | 1.2000 | 1.0000 | 0.7800 (2 seeds) | -0.2000 [-0.4484, +0.0484] | -0.1700 [-0.5512, +0.2112] (2 seeds) |",
            "| remit | sft | 0.9000 | 0.8700 | 0.7500 (1 seed) | -0.0300 [-0.0797, +0.0197] | -0.0400 (1 seed) |",
        ]
    );
    assert_eq!(
        table(&text, "Iteration by iteration", Some("accuracy on micro10"))[1..],
        [
            "| remit | midtrain | 50.0 | 62.0 | 70.0 (2 seeds) | +12.0 [+7.0, +17.0] | +14.0 [-36.8, +64.8] (2 seeds) |",
            "| remit | sft | 70.0 | 72.0 | 64.0 (1 seed) | +2.0 [-0.5, +4.5] | +3.0 (1 seed) |",
        ]
    );
}

#[test]
fn between_arms_it_is_row_less_column() {
    let text = markdown(&Options::default());
    assert_eq!(
        table(&text, "Between arms", Some("held-out loss of solutions after midtrain")),
        [
            "|  | ntp | remit, iteration 1 | remit, iteration 2 |",
            "| ntp | - | +0.2000 [-0.0484, +0.4484] | +0.3200 [+0.0659, +0.5741] (2 seeds) |",
            "| remit, iteration 1 | -0.2000 [-0.4484, +0.0484] | - | +0.1700 [-0.2112, +0.5512] (2 seeds) |",
            "| remit, iteration 2 | -0.3200 [-0.5741, -0.0659] (2 seeds) | -0.1700 [-0.5512, +0.2112] (2 seeds) | - |",
        ]
    );
    assert_eq!(
        table(&text, "Between arms", Some("accuracy on micro10 after sft"))[1..],
        [
            "| ntp | - | -2.0 [-4.5, +0.5] | -4.0 (1 seed) |",
            "| remit, iteration 1 | +2.0 [-0.5, +4.5] | - | -3.0 (1 seed) |",
            "| remit, iteration 2 | +4.0 (1 seed) | +3.0 (1 seed) | - |",
        ]
    );
}

/// Two of 20 steps are a tenth, and of 11 steps a tenth is made whole: two as well.
///
/// ```text
/// 1, mean:     1 + 0.1 * 1.5 + 0.01 * 2 = 1.17 of steps 1 and 2, 1 + 0.1 * 19.5 + 0.02 = 2.97 of steps 19 and 20
/// 1, standard: 5 - 0.2 * 1.5 = 4.7, 5 - 0.2 * 19.5 = 1.1
/// 2, mean:     2 + 0.15 + 0.01 * 1.5 = 2.165 of the two seeds that are done, 2 + 1.05 + 0.015 = 3.065 of steps 10 and 11
/// 2, standard: 10 - 0.3 = 9.7, 10 - 2.1 = 7.9
/// ```
#[test]
fn weights_go_from_the_first_tenth_to_the_last() {
    let text = markdown(&Options::default());
    assert_eq!(
        table(&text, "Weights over time", None),
        [
            "| arm | figure | first tenth | last tenth |",
            "| remit, iteration 1 | mean weight | 1.1700 | 2.9700 |",
            "| remit, iteration 2 | mean weight | 2.1650 | 3.0650 |",
            "| remit, iteration 1 | standard deviation of the weight | 4.7000 | 1.1000 |",
            "| remit, iteration 2 | standard deviation of the weight | 9.7000 | 7.9000 |",
        ]
    );
}

/// A mean is the base and the slope times the mean of the seeds: 0.01 * 2 = 0.02 more than the base for `ntp`, and
/// 0.03 * 2 = 0.06, 0.03 * 1.5 = 0.045 or 0.03 for three, two or one seed of the arm.
#[test]
fn dynamics_are_of_the_last_checkpoint_of_a_stage() {
    let text = markdown(&Options::default());
    assert_eq!(
        table(&text, "Dynamics", Some("On text")),
        [
            "|  | after | seeds | gap | KL(reference, model) | KL(model, reference) | greedy agreement | entropy | loss |",
            "| ntp | pretrain | 3 | 0.9200 | 0.8200 | 0.7200 | 42.0 | 1.5200 | 2.1200 |",
            "| ntp | midtrain | 3 | 0.5200 | 0.4200 | 0.3200 | 62.0 | 1.1200 | 1.5200 |",
            "| remit, iteration 1 | midtrain | 3 | 0.3600 | 0.3100 | 0.1800 | 76.0 | 1.0600 | 1.3700 |",
            "| remit, iteration 2 | midtrain | 2 | 0.1450 | 0.1250 | 0.0950 | 84.5 | 0.9450 | 1.2450 |",
            "| ntp | sft | 3 | 0.2200 | 0.1800 | 0.1600 | 77.0 | 1.0200 | 1.4200 |",
            "| remit, iteration 1 | sft | 3 | 0.1700 | 0.1600 | 0.1500 | 84.0 | 1.0100 | 1.4000 |",
            "| remit, iteration 2 | sft | 1 | 0.0800 | 0.0700 | 0.0600 | 84.0 | 0.9300 | 1.3300 |",
        ]
    );
}

/// By seed a difference grows by 0.02. Three seeds: the difference of the bases and 0.04, sd 0.02, half the interval
/// 0.049683. Two seeds: and 0.03, error 0.01, half 0.127062. One seed: and 0.02. Gap of turn 1 after mid-training:
/// 0.30 - 0.50 + 0.04 = -0.16.
#[test]
fn dynamics_less_those_of_ntp() {
    let text = markdown(&Options::default());
    assert_eq!(
        table(&text, "Dynamics", Some("On text, less ntp after the same stage")),
        [
            "|  | after | seeds | gap | KL(reference, model) | KL(model, reference) | greedy agreement | entropy | loss |",
            "| remit, iteration 1 | midtrain | 3 | -0.1600 [-0.2097, -0.1103] | -0.1100 [-0.1597, -0.0603] | -0.1400 [-0.1897, -0.0903] \
             | +14.0 [+9.0, +19.0] | -0.0600 [-0.1097, -0.0103] | -0.1500 [-0.1997, -0.1003] |",
            "| remit, iteration 2 | midtrain | 2 | -0.3700 [-0.4971, -0.2429] | -0.2900 [-0.4171, -0.1629] | -0.2200 [-0.3471, -0.0929] \
             | +23.0 [+10.3, +35.7] | -0.1700 [-0.2971, -0.0429] | -0.2700 [-0.3971, -0.1429] |",
            "| remit, iteration 1 | sft | 3 | -0.0500 [-0.0997, -0.0003] | -0.0200 [-0.0697, +0.0297] | -0.0100 [-0.0597, +0.0397] \
             | +7.0 [+2.0, +12.0] | -0.0100 [-0.0597, +0.0397] | -0.0200 [-0.0697, +0.0297] |",
            "| remit, iteration 2 | sft | 1 | -0.1300 | -0.1000 | -0.0900 | +8.0 | -0.0800 | -0.0800 |",
        ]
    );
}

/// Points by seed, at k 1 and 4.
///
/// ```text
/// 1, midtrain: 5 7 9, mean 7, sd 2, half 4.3027 * 2 / sqrt 3 = 4.968; -1 -2 -3, mean -2, sd 1, half 2.484
/// 2, midtrain: 20 30, mean 25, error 5, half 63.531; 5 9, mean 7, error 2, half 25.412
/// 1, sft:      of the two seeds that ntp has, 6 10, mean 8, half 25.412; -3 -5, mean -4, error 1, half 12.706
///              (its own mean is over three: (77 + 79 + 90) / 3 = 82)
/// 2, sft:      70 - 50, 90 - 80
/// ```
#[test]
fn chances_of_samples_less_those_of_ntp() {
    let text = markdown(&Options::default());
    assert_eq!(
        table(&text, "Dynamics", Some("Chance that one of k samples is right: micro10")),
        [
            "|  | after | seeds | pass@1 | pass@4 |",
            "| ntp | midtrain | 3 | 30.0 | 60.0 |",
            "| remit, iteration 1 | midtrain | 3 | 37.0, +7.0 [+2.0, +12.0] | 58.0, -2.0 [-4.5, +0.5] |",
            "| remit, iteration 2 | midtrain | 2 | 50.0, +25.0 [-38.5, +88.5] | 62.0, +7.0 [-18.4, +32.4] |",
            "| ntp | sft | 2 | 51.0 | 82.0 |",
            "| remit, iteration 1 | sft | 3 | 62.0, +8.0 [-17.4, +33.4] (2 seeds) | 82.0, -4.0 [-16.7, +8.7] (2 seeds) |",
            "| remit, iteration 2 | sft | 1 | 70.0, +20.0 | 90.0, +10.0 |",
        ]
    );
}

#[test]
fn costs_are_a_turns_own_and_then_the_total() {
    let text = markdown(&Options::default());
    let found = table(&text, "Costs", None);
    assert_eq!(
        found,
        [
            "| arm | iteration | up to | seeds | own tokens | forward | backward | reference | generated | own FLOP | total FLOP \
             | own time | total time |",
            "| ntp | 0 | midtrain | 3 | 200 | 400 | 500 | 600 | 700 | 1.50e9 | 1.50e9 | 30 s | 30 s |",
            "| remit | 1 | midtrain | 3 | 160 | 1.50k | 1.60k | 1.70k | 1.80k | 2.50e9 | 8.50e9 | 1 m 05 s | 1 h 05 m |",
            "| remit | 2 | midtrain | 2 | 120 | 2.60k | 2.70k | 2.80k | 2.90k | 3.50e9 | 9.50e9 | 7.0 s | 2 h 01 m |",
        ]
    );
    let items: Vec<&str> = below(&text, "## Costs").lines().filter(|line| line.starts_with("- ")).collect();
    let said = [(1, 11), (2, 17)].map(|(turn, steps)| {
        format!("- remit, iteration {turn}: all that was spent beyond ntp would give ntp {steps} steps of reinforcement learning in all.")
    });
    assert_eq!(items, said);
    let text = markdown(&Options { no_times: true, ..Options::default() });
    assert_eq!(
        table(&text, "Costs", None)[3],
        "| remit | 2 | midtrain | 2 | 120 | 2.60k | 2.70k | 2.80k | 2.90k | 3.50e9 | 9.50e9 |"
    );
}
