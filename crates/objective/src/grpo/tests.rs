use serde::Deserialize;

use super::*;
use crate::advantage::advantages;

#[derive(Deserialize)]
struct File {
    grpo: Section,
}

#[derive(Deserialize)]
struct Section {
    rewards: Vec<Vec<f64>>,
    completion_mask: Vec<Vec<f64>>,
    logp_old: Vec<Vec<f64>>,
    logp_new: Vec<Vec<f64>>,
    logp_reference: Vec<Vec<f64>>,
    max_completion_length: usize,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    advantage: String,
    reduction: String,
    clip_low: f64,
    clip_high: f64,
    kl_coefficient: f64,
    advantages: Vec<f64>,
    loss: f64,
    grad: Vec<Vec<f64>>,
    clip_fraction: f64,
}

/// The golden inputs, flat.
struct Golden {
    length: usize,
    group: usize,
    rewards: Vec<f64>,
    mask: Vec<bool>,
    learner: Vec<f32>,
    sampler: Vec<f32>,
    reference: Vec<f32>,
    advantages: Vec<f64>,
    longest: usize,
    cases: Vec<Case>,
}

impl Golden {
    fn load() -> Golden {
        let text = include_str!("../../golden/losses.json");
        let section = serde_json::from_str::<File>(text).expect("the golden file parses").grpo;
        let flat = |rows: Vec<Vec<f64>>| rows.concat().iter().map(|&logp| logp as f32).collect::<Vec<_>>();
        let rewards = section.rewards.concat();
        let group = section.rewards[0].len();
        Golden {
            length: section.logp_new[0].len(),
            group,
            mask: section.completion_mask.concat().iter().map(|&counts| counts == 1.0).collect(),
            learner: flat(section.logp_new),
            sampler: flat(section.logp_old),
            reference: flat(section.logp_reference),
            advantages: advantages(&rewards, group, ScaleRewards::Group),
            rewards,
            longest: section.max_completion_length,
            cases: section.cases,
        }
    }

    fn rollouts(&self) -> Rollouts<'_> {
        Rollouts {
            length: self.length,
            mask: &self.mask,
            learner: &self.learner,
            sampler: Some(&self.sampler),
            reference: Some(&self.reference),
            advantages: &self.advantages,
        }
    }

    /// Every loss type, with and without the KL term, at the golden batch's longest length.
    fn rules(&self) -> Vec<Grpo> {
        let types = [LossType::Grpo, LossType::DrGrpo, LossType::Dapo, LossType::Cispo];
        let rule = |loss_type, beta| Grpo {
            loss_type,
            beta,
            epsilon_high: Some(0.28),
            max_completion_length: self.longest,
            ..Grpo::default()
        };
        types.into_iter().flat_map(|loss_type| [rule(loss_type, 0.0), rule(loss_type, 0.3)]).collect()
    }
}

fn evaluate(rule: &Grpo, rollouts: &Rollouts<'_>, batch: BatchSize) -> (PolicySummary, Vec<f32>) {
    let mut derivative = vec![7.0; rollouts.mask.len()];
    let statistics = rule.evaluate(rollouts, batch, &mut derivative);
    (statistics.summary(), derivative)
}

fn whole(rollouts: &Rollouts<'_>) -> BatchSize {
    BatchSize::count([(rollouts.length, rollouts.mask)])
}

fn close(found: f64, expected: f64, tolerance: f64, what: &dyn std::fmt::Debug) {
    assert!((found - expected).abs() <= tolerance, "{found} is not {expected}: {what:?}");
}

#[test]
fn golden_advantages_losses_derivatives_and_clip_shares() {
    let golden = Golden::load();
    assert_eq!(golden.cases.len(), 3);
    for case in &golden.cases {
        let rule = Grpo {
            loss_type: match case.reduction.as_str() {
                "sequence_mean" => LossType::Grpo,
                "token_mean" => LossType::Dapo,
                "constant" => LossType::DrGrpo,
                other => panic!("unknown reduction {other}"),
            },
            scale_rewards: match case.advantage.as_str() {
                "group_std" => ScaleRewards::Group,
                "group_mean" => ScaleRewards::None,
                other => panic!("unknown advantage {other}"),
            },
            epsilon: case.clip_low,
            epsilon_high: Some(case.clip_high),
            beta: case.kl_coefficient,
            max_completion_length: golden.longest,
            ..Grpo::default()
        };
        let advantages = advantages(&golden.rewards, golden.group, rule.scale_rewards);
        for (found, &expected) in advantages.iter().zip(&case.advantages) {
            close(*found, expected, 1e-12, &case.advantage);
        }
        let rollouts = Rollouts { advantages: &advantages, ..golden.rollouts() };
        let (summary, derivative) = evaluate(&rule, &rollouts, whole(&rollouts));
        close(summary.loss, case.loss, 1e-7, &rule);
        close(summary.clipped_low + summary.clipped_high, case.clip_fraction, 1e-12, &rule);
        for (i, expected) in case.grad.concat().into_iter().enumerate() {
            close(f64::from(derivative[i]), expected, 1e-7, &(i, &rule));
        }
    }
}

/// One token by hand: learner at ratio `r` with advantage `a`, no KL.
fn token(rule: &Grpo, r: f64, a: f64) -> (f64, f64) {
    let (learner, sampler) = ([-1.0f32], [(-1.0 - r.ln()) as f32]);
    let rollouts = Rollouts {
        length: 1,
        mask: &[true],
        learner: &learner,
        sampler: Some(&sampler),
        reference: None,
        advantages: &[a],
    };
    let (summary, derivative) = evaluate(rule, &rollouts, whole(&rollouts));
    (summary.loss, f64::from(derivative[0]))
}

#[test]
fn the_clip_acts_in_the_direction_of_the_advantage_only() {
    let rule = Grpo { epsilon: 0.2, epsilon_high: Some(0.28), ..Grpo::default() };
    let check = |r, a, loss, slope| {
        let found = token(&rule, r, a);
        close(found.0, loss, 1e-6, &(r, a));
        close(found.1, slope, 1e-6, &(r, a));
    };
    check(1.5, 2.0, -2.56, 0.0); // Good and already likelier: no more of it.
    check(1.5, -2.0, 3.0, 3.0); // Bad and likelier: back, at full strength.
    check(0.5, -2.0, 1.6, 0.0); // Bad and already rarer: no less of it.
    check(0.5, 2.0, -1.0, -1.0);
    check(1.1, 2.0, -2.2, -2.2);
    check(0.9, -2.0, 1.8, 1.8);
}

#[test]
fn cispo_bounds_the_factor_and_keeps_every_derivative() {
    let rule = Grpo { loss_type: LossType::Cispo, epsilon_high: Some(1.0), ..Grpo::default() };
    let check = |r: f64, a: f64, factor: f64| {
        let found = token(&rule, r, a);
        close(found.0, factor, 1e-6, &(r, a)); // log p = -1, so the loss is the factor itself
        close(found.1, -factor, 1e-6, &(r, a));
    };
    check(3.0, 2.0, 4.0);
    check(3.0, -2.0, -4.0);
    check(1.5, 2.0, 3.0);
    check(0.1, -2.0, -0.2);
}

#[test]
fn reductions_in_closed_form() {
    // Two sequences of 1 and 3 tokens on policy: l = -A, slope -A.
    let mask = [true, false, false, true, true, true];
    let rollouts = Rollouts {
        length: 3,
        mask: &mask,
        learner: &[-1.0; 6],
        sampler: None,
        reference: None,
        advantages: &[1.0, -2.0],
    };
    let check = |loss_type, loss: f64, slopes: [f64; 2]| {
        let rule = Grpo { loss_type, max_completion_length: 5, ..Grpo::default() };
        let (summary, derivative) = evaluate(&rule, &rollouts, whole(&rollouts));
        close(summary.loss, loss, 1e-12, &rule);
        close(f64::from(derivative[0]), slopes[0], 1e-7, &rule);
        close(f64::from(derivative[4]), slopes[1], 1e-7, &rule);
        assert_eq!(derivative[1..3], [0.0, 0.0]);
        assert_eq!((summary.tokens, summary.mean_ratio, summary.largest_log_ratio), (4, 1.0, 0.0));
    };
    check(LossType::Grpo, (-1.0 + 2.0) / 2.0, [-1.0 / 2.0, 2.0 / 6.0]);
    check(LossType::Dapo, (-1.0 + 6.0) / 4.0, [-1.0 / 4.0, 2.0 / 4.0]);
    check(LossType::DrGrpo, (-1.0 + 6.0) / 10.0, [-1.0 / 10.0, 2.0 / 10.0]);
    // Here the loss is -A log p with log p = -1: the other sign, and the same slope.
    check(LossType::Cispo, (1.0 - 6.0) / 4.0, [-1.0 / 4.0, 2.0 / 4.0]);
}

#[test]
fn the_kl_estimate_in_closed_form() {
    let kl = |learner: f32, reference: f32| {
        let rollouts = Rollouts {
            length: 1,
            mask: &[true],
            learner: &[learner],
            sampler: None,
            reference: Some(&[reference]),
            advantages: &[0.0],
        };
        let (summary, derivative) =
            evaluate(&Grpo { beta: 0.5, ..Grpo::default() }, &rollouts, whole(&rollouts));
        close(summary.loss, 0.5 * summary.kl, 1e-12, &"the loss is beta k3 alone");
        (summary.kl, derivative[0])
    };
    assert_eq!(kl(-1.5, -1.5), (0.0, 0.0));
    let (value, slope) = kl(-2.0, -1.0); // d = 1
    close(value, 1f64.exp() - 2.0, 1e-12, &"k3");
    close(f64::from(slope), -0.5 * (1f64.exp() - 1.0), 1e-6, &"towards the likelier reference");
    let (value, slope) = kl(-1.0, -2.0);
    close(value, (-1f64).exp(), 1e-12, &"k3");
    assert!(slope > 0.0);
    // Beyond 40 the value is that at 40, and flat.
    let (value, slope) = kl(-100.0, -1.0);
    close(value / (40f64.exp_m1() - 40.0), 1.0, 1e-12, &"cut off");
    assert_eq!(slope, 0.0);
    assert_eq!(kl(-1.0, -100.0), ((-40f64).exp_m1() + 40.0, 0.0));
}

#[test]
fn the_derivative_is_the_slope_of_the_loss() {
    let golden = Golden::load();
    for rule in golden.rules().iter().filter(|rule| rule.loss_type != LossType::Cispo) {
        let (_, derivative) = evaluate(rule, &golden.rollouts(), whole(&golden.rollouts()));
        let loss = |i: usize, step: f32| {
            let mut learner = golden.learner.clone();
            learner[i] += step;
            let rollouts = Rollouts { learner: &learner, ..golden.rollouts() };
            let moved = f64::from(learner[i]);
            (evaluate(rule, &rollouts, whole(&rollouts)).0.loss, moved)
        };
        for i in 0..golden.learner.len() {
            let ((up, above), (down, below)) = (loss(i, 1e-3), loss(i, -1e-3));
            close((up - down) / (above - below), f64::from(derivative[i]), 2e-5, &(i, rule));
        }
    }
}

/// The factor of cispo is held constant: the slope is that of `-factor log p`, plus the KL term's.
#[test]
fn the_derivative_of_cispo_is_the_slope_with_its_factor_held() {
    let golden = Golden::load();
    let rollouts = golden.rollouts();
    for rule in golden.rules().iter().filter(|rule| rule.loss_type == LossType::Cispo) {
        let (_, derivative) = evaluate(rule, &rollouts, whole(&rollouts));
        let tokens = whole(&rollouts).tokens as f64;
        for i in (0..golden.learner.len()).filter(|&i| golden.mask[i]) {
            let (learner, sampler) = (f64::from(golden.learner[i]), f64::from(golden.sampler[i]));
            let factor = (learner - sampler).exp().min(1.28) * golden.advantages[i / golden.length];
            let loss = |learner: f64| {
                let d = f64::from(golden.reference[i]) - learner;
                (-factor * learner + rule.beta * (d.exp_m1() - d)) / tokens
            };
            let slope = (loss(learner + 1e-5) - loss(learner - 1e-5)) / 2e-5;
            close(f64::from(derivative[i]), slope, 1e-7, &(i, rule));
        }
    }
}

#[test]
fn without_a_sampler_the_learner_is_its_own() {
    let golden = Golden::load();
    for rule in golden.rules() {
        let alone = Rollouts { sampler: None, ..golden.rollouts() };
        let twice = Rollouts { sampler: Some(&golden.learner), ..golden.rollouts() };
        assert_eq!(evaluate(&rule, &alone, whole(&alone)), evaluate(&rule, &twice, whole(&twice)));
    }
}

#[test]
fn micro_batches_and_padding_give_the_same_update() {
    let golden = Golden::load();
    let rollouts = golden.rollouts();
    let (length, padded) = (golden.length, golden.length + 3);
    for rule in golden.rules() {
        let batch = whole(&rollouts);
        let (at_once, derivative) = evaluate(&rule, &rollouts, batch);

        // One sequence at a time, each with its own padding of entries that must not matter.
        let mut sums = PolicyStatistics::default();
        for sequence in 0..golden.advantages.len() {
            let range = sequence * length..(sequence + 1) * length;
            let pad = |stream: &[f32]| [&stream[range.clone()], &[f32::NAN; 3]].concat();
            let (learner, sampler, reference) =
                (pad(&golden.learner), pad(&golden.sampler), pad(&golden.reference));
            let mask = [&golden.mask[range.clone()], &[false; 3]].concat();
            let rollouts = Rollouts {
                length: padded,
                mask: &mask,
                learner: &learner,
                sampler: Some(&sampler),
                reference: Some(&reference),
                advantages: &golden.advantages[sequence..=sequence],
            };
            let mut alone = vec![7.0; padded];
            sums.merge(&rule.evaluate(&rollouts, batch, &mut alone));
            assert_eq!(alone[..length], derivative[range], "{rule:?}");
            assert_eq!(alone[length..], [0.0; 3]);
        }
        let one_by_one = sums.summary();
        close(one_by_one.loss, at_once.loss, 1e-12, &rule);
        close(one_by_one.kl, at_once.kl, 1e-12, &rule);
        assert_eq!(one_by_one.clipped_low, at_once.clipped_low);
        assert_eq!(one_by_one.clipped_high, at_once.clipped_high);
        assert_eq!(one_by_one.largest_log_ratio, at_once.largest_log_ratio);
    }
}

#[test]
fn the_batch_is_counted_over_micro_batches_of_any_length() {
    let (first, second) = ([true, false, true, true], [false, false, true]);
    let size = BatchSize::count([(2, &first[..]), (3, &second[..])]);
    assert_eq!(size, BatchSize { sequences: 3, tokens: 4 });
}

#[test]
fn truncated_completions_leave_the_loss_and_stay_in_the_count() {
    let golden = Golden::load();
    let mut truncated = vec![false; golden.advantages.len()];
    truncated[3] = true;
    let mut mask = golden.mask.clone();
    Grpo::default().mask_truncated(&truncated, &mut mask);
    assert_eq!(mask, golden.mask, "off by default");
    let rule = Grpo { mask_truncated_completions: true, loss_type: LossType::Grpo, ..Grpo::default() };
    rule.mask_truncated(&truncated, &mut mask);
    let masked: Vec<usize> = (0..mask.len()).filter(|&i| mask[i] != golden.mask[i]).collect();
    assert_eq!(masked, (3 * golden.length..4 * golden.length).collect::<Vec<_>>());

    let rollouts = Rollouts { mask: &mask, ..golden.rollouts() };
    let batch = whole(&rollouts);
    assert_eq!((batch.sequences, batch.tokens), (12, 63));
    let (summary, derivative) = evaluate(&rule, &rollouts, batch);
    assert!(derivative[3 * golden.length..4 * golden.length].iter().all(|&slope| slope == 0.0));
    assert!(summary.loss.is_finite());
    // The others pull exactly as before: there are still 12 sequences.
    let (_, before) = evaluate(&rule, &golden.rollouts(), whole(&golden.rollouts()));
    assert_eq!(derivative[..3 * golden.length], before[..3 * golden.length]);
}

#[test]
fn an_empty_batch_has_no_loss() {
    let rollouts = Rollouts {
        length: 2,
        mask: &[false; 4],
        learner: &[f32::NAN; 4],
        sampler: None,
        reference: None,
        advantages: &[1.0, -1.0],
    };
    for loss_type in [LossType::Grpo, LossType::DrGrpo, LossType::Dapo, LossType::Cispo] {
        let rule = Grpo { loss_type, ..Grpo::default() };
        let (summary, derivative) = evaluate(&rule, &rollouts, whole(&rollouts));
        assert_eq!((summary.loss, summary.mean_ratio, derivative), (0.0, 0.0, vec![0.0; 4]));
    }
}

#[test]
fn what_is_not_a_number_surfaces() {
    let rollouts = Rollouts {
        length: 2,
        mask: &[true, true],
        learner: &[f32::NAN, -1.0],
        sampler: Some(&[-1.0, -1.0]),
        reference: None,
        advantages: &[1.0],
    };
    let (summary, derivative) = evaluate(&Grpo::default(), &rollouts, whole(&rollouts));
    assert!(summary.loss.is_nan() && summary.largest_log_ratio.is_nan() && derivative[0].is_nan());
}

#[test]
fn tables_are_read_by_the_names_people_know() {
    let text = "loss_type = 'dr_grpo'\nscale_rewards = 'none'\nepsilon = 0.1\nepsilon_high = 0.28\nbeta = 0.01\n\
        num_generations = 16\nmask_truncated_completions = true\nsoft_punish_cache = 20\ndynamic_sampling = true";
    let rule: Grpo = toml::from_str(text).expect("a good table");
    assert_eq!((rule.loss_type, rule.epsilon_high(), rule.num_generations), (LossType::DrGrpo, 0.28, 16));
    assert!(rule.needs_reference() && !Grpo::default().needs_reference());
    assert_eq!(rule.validate(), Ok(()));
    assert_eq!(Grpo::default().epsilon_high(), 0.2);
    let again: Grpo =
        toml::from_str(&toml::to_string(&rule).expect("plain values")).expect("what was written");
    assert_eq!(again, rule);
    let error = toml::from_str::<Grpo>("loss_type = 'ppo'").expect_err("there is none").to_string();
    assert!(error.contains("expected one of `grpo`, `dr_grpo`, `dapo`, `cispo`"), "{error}");
}

#[test]
fn numbers_outside_their_range_are_named() {
    let check = |rule: Grpo, expected: &str| {
        assert_eq!(rule.validate().expect_err("out of range").to_string(), expected);
    };
    check(
        Grpo { epsilon: 1.5, ..Grpo::default() },
        "objective setting `epsilon` is 1.5, but must be between 0 and 1",
    );
    check(
        Grpo { epsilon_high: Some(f64::NAN), ..Grpo::default() },
        "objective setting `epsilon_high` is NaN, but must be a finite number, 0 or more",
    );
    check(
        Grpo { beta: -0.1, ..Grpo::default() },
        "objective setting `beta` is -0.1, but must be a finite number, 0 or more",
    );
    check(
        Grpo { num_generations: 1, ..Grpo::default() },
        "objective setting `num_generations` is 1, but must be 2 or more: a group is compared with itself",
    );
    check(
        Grpo { soft_punish_cache: 300, ..Grpo::default() },
        "objective setting `soft_punish_cache` is 300, but must be at most `max_completion_length`",
    );
}
