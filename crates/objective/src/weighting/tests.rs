use proptest::prelude::*;
use serde::de::DeserializeOwned;

use super::*;
use crate::Objective;
use crate::golden::{Case, Golden};

/// A golden case's options in this crate's names.
fn settings(case: &Case) -> Weighting {
    fn get<T: DeserializeOwned>(case: &Case, key: &str, default: T) -> T {
        let value = case.options.get(key).cloned();
        value.map_or(default, |value| serde_json::from_value(value).expect("a known option"))
    }
    let known = ["signal", "center", "scale", "temperature", "map", "lo", "hi", "renorm"];
    assert!(case.options.keys().all(|key| known.contains(&key.as_str())), "{:?}", case.options);
    Weighting {
        signal: get(case, "signal", Signal::Gap),
        center: get(case, "center", Center::Sequence),
        scale: get(case, "scale", Scale::None),
        temperature: get(case, "temperature", 1.0),
        map: get(case, "map", Map::Sigmoid),
        epsilon_low: get(case, "lo", 0.2),
        epsilon_high: get(case, "hi", 0.2),
        renormalise: get(case, "renorm", Renormalise::None),
        stop_gradient: true,
        shuffle: false,
    }
}

fn golden_cases(golden: &Golden) -> Vec<(&Case, Weighting)> {
    let weighted = golden.cases.iter().filter(|case| !case.options.contains_key("select"));
    weighted.map(|case| (case, settings(case))).collect()
}

fn weigh(rule: &Weighting, signals: &Signals<'_>) -> Vec<f32> {
    let mut weights = vec![7.0; signals.mask.len()];
    rule.weigh(signals, &mut weights);
    weights
}

fn close(found: f64, expected: f64, tolerance: f64, what: &dyn std::fmt::Debug) {
    assert!((found - expected).abs() <= tolerance * expected.abs(), "{found} is not {expected}: {what:?}");
}

#[test]
fn golden_weights_losses_and_derivatives() {
    let golden = Golden::load();
    let signals = golden.signals();
    let denominator = Denominator::count([signals.mask]);
    let cases = golden_cases(&golden);
    assert_eq!(cases.len(), 14);
    for (case, rule) in cases {
        let (mut weights, mut derivative) = (vec![7.0; signals.mask.len()], vec![7.0; signals.mask.len()]);
        let objective = Objective::Weighted(rule);
        let loss = objective.evaluate(&signals, denominator, &mut weights, &mut derivative).loss();
        close(denominator.divide(loss.weighted), case.loss, 1e-6, &case.options);
        for (i, golden) in case.weights.concat().into_iter().enumerate() {
            close(f64::from(weights[i]), golden, 1e-6, &(i, &case.options));
        }
        for (i, golden) in case.grad.concat().into_iter().enumerate() {
            close(f64::from(derivative[i]), golden, 1e-6, &(i, &case.options));
        }
    }
}

/// `v` of every prediction in full precision.
fn values(rule: &Weighting, learner: &[f64], reference: &[f64]) -> Vec<f64> {
    let value = |(learner, reference): (&f64, &f64)| match rule.signal {
        Signal::Gap => reference - learner,
        Signal::Reference => *reference,
        Signal::Learner => -learner,
    };
    learner.iter().zip(reference).map(value).collect()
}

/// The same cases without the rounding of the inputs to `f32`, to the last digits of the golden values.
#[test]
fn golden_weights_in_full_precision() {
    let golden = Golden::load();
    for (case, rule) in golden_cases(&golden) {
        let values = values(&rule, &golden.learner_f64, &golden.reference_f64);
        let expected = case.weights.concat();
        for range in golden.signals().groups(rule.scope()) {
            let places: Vec<usize> = golden.signals().unmasked(range).collect();
            let values: Vec<f64> = places.iter().map(|&i| values[i]).collect();
            for (&i, weight) in places.iter().zip(Group::new(&rule, &values).weights) {
                close(weight, expected[i], 1e-13, &(i, &case.options));
            }
        }
    }
}

/// The loss as a function of the learner, weights included, in `f64`.
fn loss(rule: &Weighting, golden: &Golden, learner: &[f64]) -> f64 {
    let values = values(rule, learner, &golden.reference_f64);
    let signals = golden.signals();
    let mut loss = 0.0;
    for range in signals.groups(rule.scope()) {
        let values: Vec<f64> = signals.unmasked(range.clone()).map(|i| values[i]).collect();
        let weights = Group::new(rule, &values).weights;
        loss += signals.unmasked(range).zip(weights).map(|(i, weight)| weight * -learner[i]).sum::<f64>();
    }
    loss / golden.mask.iter().filter(|&&counts| counts).count() as f64
}

/// Every combination of the options, against central differences.
#[test]
fn the_gradient_through_the_weights_is_the_slope_of_the_loss() {
    let golden = Golden::load();
    let signals = golden.signals();
    let denominator = Denominator::count([signals.mask]);
    let mut checked = 0;
    for signal in [Signal::Gap, Signal::Reference, Signal::Learner] {
        for center in [Center::Sequence, Center::Document, Center::Batch, Center::None] {
            for scale in [Scale::None, Scale::Std] {
                for map in [Map::Sigmoid, Map::Exp, Map::Linear] {
                    for renormalise in [Renormalise::None, Renormalise::MeanOne] {
                        let rule = Weighting {
                            signal,
                            center,
                            scale,
                            map,
                            renormalise,
                            temperature: 0.8,
                            epsilon_low: 0.6,
                            epsilon_high: 0.7,
                            stop_gradient: false,
                            shuffle: false,
                        };
                        check_slope(&rule, &golden, denominator);
                        checked += 1;
                    }
                }
            }
        }
    }
    assert_eq!(checked, 144);
}

fn check_slope(rule: &Weighting, golden: &Golden, denominator: Denominator) {
    let size = golden.mask.len();
    let (mut weights, mut derivative) = (vec![0.0; size], vec![0.0; size]);
    Objective::Weighted(rule.clone()).evaluate(&golden.signals(), denominator, &mut weights, &mut derivative);
    let step = 1e-5;
    for i in 0..size {
        let (mut up, mut down) = (golden.learner_f64.clone(), golden.learner_f64.clone());
        up[i] += step;
        down[i] -= step;
        let slope = (loss(rule, golden, &up) - loss(rule, golden, &down)) / (2.0 * step);
        let found = f64::from(derivative[i]);
        assert!(
            (found - slope).abs() < 1e-6 * (1.0 + slope.abs()),
            "{found} is not {slope} at {i}: {rule:?}"
        );
    }
}

#[test]
fn the_gradient_through_the_weights_is_no_small_change() {
    let golden = Golden::load();
    let denominator = Denominator::count([&golden.mask[..]]);
    let derivative = |stop_gradient| {
        let rule = Weighting { stop_gradient, epsilon_low: 1.0, epsilon_high: 1.0, ..Weighting::default() };
        let (mut weights, mut derivative) = (vec![0.0; golden.mask.len()], vec![0.0; golden.mask.len()]);
        Objective::Weighted(rule).evaluate(&golden.signals(), denominator, &mut weights, &mut derivative);
        derivative
    };
    let largest =
        derivative(true).iter().zip(derivative(false)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(largest > 1e-3, "{largest}");
}

/// By hand: two tokens, gaps 1 and -1, mean 0.
#[test]
fn closed_form() {
    let signals = Signals {
        length: 2,
        mask: &[true; 2],
        documents: &[0; 2],
        learner: &[-2.0, -1.0],
        reference: Some(&[-1.0, -2.0]),
    };
    let wide = Weighting { epsilon_low: 1.0, epsilon_high: 1.0, ..Weighting::default() };
    let logistic = 2.0 / (1.0 + (-1.0f64).exp());
    assert_eq!(weigh(&wide, &signals), [logistic as f32, (2.0 - logistic) as f32]);
    assert_eq!(weigh(&Weighting { map: Map::Linear, ..wide.clone() }, &signals), [2.0, 0.0]);
    assert_eq!(weigh(&Weighting { map: Map::Linear, temperature: 4.0, ..wide }, &signals), [1.25, 0.75]);
    let mut weights = [0.0; 2];
    assert_eq!(Weighting::default().weigh(&signals, &mut weights), Clipped { low: 1, high: 1 });
    assert_eq!(weights, [1.2, 0.8]);
}

#[test]
fn a_value_on_the_bound_is_not_clipped() {
    let signals = Signals {
        length: 2,
        mask: &[true; 2],
        documents: &[0; 2],
        learner: &[-2.0, -1.0],
        reference: Some(&[-1.75, -1.25]),
    };
    let rule = Weighting { map: Map::Linear, epsilon_low: 0.25, epsilon_high: 0.25, ..Weighting::default() };
    let mut weights = [0.0; 2];
    assert_eq!(rule.weigh(&signals, &mut weights), Clipped::default());
    assert_eq!(weights, [1.25, 0.75]);
}

#[test]
fn the_sign_of_every_signal() {
    // At prediction 0 the reference believes more than the learner; the learner is more surprised by prediction 1.
    let signals = Signals {
        length: 2,
        mask: &[true; 2],
        documents: &[0; 2],
        learner: &[-2.0, -3.0],
        reference: Some(&[-1.0, -5.0]),
    };
    for (signal, up) in [(Signal::Gap, 0), (Signal::Reference, 0), (Signal::Learner, 1)] {
        for map in [Map::Sigmoid, Map::Exp, Map::Linear] {
            let weights = weigh(&Weighting { signal, map, ..Weighting::default() }, &signals);
            assert!(weights[up] > 1.0 && weights[1 - up] < 1.0, "{signal:?} {map:?} {weights:?}");
        }
    }
}

/// Every option whose weights should be indifferent to something.
fn all_shapes() -> Vec<Weighting> {
    let mut rules = Vec::new();
    for center in [Center::Sequence, Center::Document, Center::Batch, Center::None] {
        for scale in [Scale::None, Scale::Std] {
            for renormalise in [Renormalise::None, Renormalise::MeanOne] {
                for map in [Map::Sigmoid, Map::Exp, Map::Linear] {
                    rules.push(Weighting { center, scale, renormalise, map, ..Weighting::default() });
                }
            }
        }
    }
    rules
}

#[test]
fn a_reference_equal_to_the_learner_gives_ones() {
    let golden = Golden::load();
    let signals = Signals { reference: Some(&golden.learner), ..golden.signals() };
    let ones: Vec<u32> = golden.mask.iter().map(|&counts| f32::from(u8::from(counts)).to_bits()).collect();
    for rule in all_shapes() {
        let bits: Vec<u32> = weigh(&rule, &signals).iter().map(|weight| weight.to_bits()).collect();
        assert_eq!(bits, ones, "{rule:?}");
    }
}

/// A reference that is off by one constant says nothing about single tokens.
#[test]
fn a_constant_gap_is_centred_away() {
    let golden = Golden::load();
    // Quarters, so that the sums are exact in `f32` too.
    let learner: Vec<f32> = golden.learner.iter().map(|logp| (logp * 4.0).round() / 4.0).collect();
    let reference: Vec<f32> = learner.iter().map(|logp| logp - 1.25).collect();
    let signals = Signals { learner: &learner, reference: Some(&reference), ..golden.signals() };
    for rule in all_shapes().into_iter().filter(|rule| rule.center != Center::None) {
        assert!(weigh(&rule, &signals).iter().all(|&weight| weight == 0.0 || weight == 1.0), "{rule:?}");
    }
}

#[test]
fn masked_predictions_influence_nothing() {
    let golden = Golden::load();
    let disturb = |values: &[f32], value: f32| -> Vec<f32> {
        values.iter().zip(&golden.mask).map(|(&v, &counts)| if counts { v } else { value }).collect()
    };
    let denominator = Denominator::count([&golden.mask[..]]);
    let evaluate = |rule: &Weighting, signals: &Signals<'_>| {
        let (mut weights, mut derivative) = (vec![7.0; golden.mask.len()], vec![7.0; golden.mask.len()]);
        let objective = Objective::Weighted(Weighting { stop_gradient: false, ..rule.clone() });
        let statistics = objective.evaluate(signals, denominator, &mut weights, &mut derivative);
        (weights, derivative, statistics)
    };
    let documents: Vec<u32> =
        golden.documents.iter().zip(&golden.mask).map(|(&d, &counts)| if counts { d } else { 77 }).collect();
    for value in [0.0, -50.0, f32::NAN, f32::NEG_INFINITY] {
        let (learner, reference) = (disturb(&golden.learner, value), disturb(&golden.reference, -value));
        for rule in all_shapes() {
            let signals = Signals {
                learner: &learner,
                reference: Some(&reference),
                documents: &documents,
                ..golden.signals()
            };
            assert_eq!(evaluate(&rule, &signals), evaluate(&rule, &golden.signals()), "{rule:?}");
        }
    }
}

#[test]
fn a_window_without_any_unmasked_prediction() {
    let mask = [false, false, false, true, true, true];
    let signals = Signals {
        length: 3,
        mask: &mask,
        documents: &[0; 6],
        learner: &[f32::NAN, -1.0, -1.0, -1.0, -2.0, -3.0],
        reference: Some(&[-1.0; 6]),
    };
    for rule in all_shapes() {
        let weights = weigh(&rule, &signals);
        assert_eq!(weights[..3], [0.0; 3], "{rule:?}");
        assert!(weights[3..].iter().all(|weight| weight.is_finite() && *weight > 0.0), "{rule:?}");
        let (mut weights, mut derivative) = ([7.0; 3], [7.0; 3]);
        let denominator = Denominator::count([&mask[..3]]);
        let objective = Objective::Weighted(Weighting { stop_gradient: false, ..rule });
        let statistics = objective.evaluate(&signals.window(0), denominator, &mut weights, &mut derivative);
        assert_eq!((weights, derivative), ([0.0; 3], [0.0; 3]));
        assert_eq!(statistics.summary(denominator).weighted_loss, 0.0);
    }
}

#[test]
fn a_document_boundary_moved_by_one_is_noticed() {
    let golden = Golden::load();
    let rule =
        Weighting { center: Center::Document, epsilon_low: 1.0, epsilon_high: 1.0, ..Weighting::default() };
    let weights = weigh(&rule, &golden.signals());
    // The first document of the first window has 7 predictions.
    let mut documents = golden.documents.clone();
    assert_eq!((documents[6], documents[7]), (0, 1));
    documents[7] = 0;
    let moved = weigh(&rule, &Signals { documents: &documents, ..golden.signals() });
    let differing = weights.iter().zip(&moved).filter(|(a, b)| a != b).count();
    assert_eq!(differing, 15, "both documents' means move, nothing else");
    assert_eq!(weights[15..], moved[15..]);
}

#[test]
fn weights_that_are_all_zero_stay_zero() {
    let signals = Signals {
        length: 2,
        mask: &[true; 2],
        documents: &[0; 2],
        learner: &[-1.0, -1.0],
        reference: Some(&[-5.0, -6.0]),
    };
    let rule = Weighting {
        center: Center::None,
        map: Map::Linear,
        epsilon_low: 1.0,
        renormalise: Renormalise::MeanOne,
        ..Weighting::default()
    };
    assert_eq!(weigh(&rule, &signals), [0.0; 2]);
}

#[test]
fn a_score_that_is_not_a_number_is_not_hidden() {
    let golden = Golden::load();
    let mut reference = golden.reference.clone();
    reference[30] = f32::NAN;
    let weights = weigh(&Weighting::default(), &Signals { reference: Some(&reference), ..golden.signals() });
    assert!(weights[24..48].iter().all(|weight| weight.is_nan()));
    assert!(weights[..24].iter().all(|weight| weight.is_finite()));
}

#[test]
fn the_learner_signal_reads_no_reference() {
    let golden = Golden::load();
    let rule = Weighting { signal: Signal::Learner, ..Weighting::default() };
    assert!(!rule.needs_reference());
    let without = weigh(&rule, &Signals { reference: None, ..golden.signals() });
    assert_eq!(without, weigh(&rule, &golden.signals()));
}

/// Whether the rule says of itself what is true of it.
#[test]
fn window_local_rules_give_a_window_alone_the_same_weights() {
    let golden = Golden::load();
    let signals = golden.signals();
    let mut num_local = 0;
    for rule in all_shapes() {
        let together = weigh(&rule, &signals);
        let alone: Vec<f32> = (0..4).flat_map(|w| weigh(&rule, &signals.window(w))).collect();
        assert_eq!(together == alone, rule.is_window_local(), "{rule:?}");
        num_local += usize::from(rule.is_window_local());
    }
    assert_eq!(num_local, 24 + 3);
}

#[test]
fn numbers_outside_their_range() {
    let check = |rule: Weighting, message: &str| {
        assert_eq!(rule.validate().expect_err("out of range").to_string(), message);
    };
    let default = Weighting::default();
    assert_eq!(default.validate(), Ok(()));
    check(
        Weighting { temperature: f64::INFINITY, ..default.clone() },
        "objective setting `temperature` is inf, but must be a finite number above 0",
    );
    check(
        Weighting { epsilon_low: 1.5, ..default.clone() },
        "objective setting `epsilon_low` is 1.5, but must be between 0 and 1, so that no weight is negative",
    );
    check(
        Weighting { epsilon_low: f64::NAN, ..default.clone() },
        "objective setting `epsilon_low` is NaN, but must be between 0 and 1, so that no weight is negative",
    );
    check(
        Weighting { epsilon_high: -0.1, ..default },
        "objective setting `epsilon_high` is -0.1, but must be a finite number, 0 or more",
    );
}

proptest! {
    #[test]
    fn weights_keep_to_their_bounds(
        learner in prop::collection::vec(-30.0f32..0.0, 24),
        reference in prop::collection::vec(-30.0f32..0.0, 24),
        mask in prop::collection::vec(any::<bool>(), 24),
        (epsilon_low, epsilon_high, temperature) in (0.0..=1.0, 0.0..3.0, 0.01..10.0),
    ) {
        let documents: Vec<u32> = (0..24).map(|i| i % 8 / 3).collect();
        let signals = Signals { length: 8, mask: &mask, documents: &documents, learner: &learner, reference: Some(&reference) };
        for rule in all_shapes() {
            let rule = Weighting { epsilon_low, epsilon_high, temperature, ..rule };
            let weights = weigh(&rule, &signals);
            let (lowest, highest) = bounds(&rule);
            for (i, &weight) in weights.iter().enumerate() {
                if !mask[i] {
                    prop_assert_eq!(weight, 0.0);
                } else if rule.renormalise == Renormalise::None {
                    prop_assert!(weight >= lowest as f32 && weight <= highest as f32, "{} {:?}", weight, rule);
                } else {
                    prop_assert!(weight.is_finite() && weight >= 0.0, "{} {:?}", weight, rule);
                }
            }
            if rule.renormalise == Renormalise::MeanOne {
                for range in signals.groups(rule.scope()) {
                    let group: Vec<f64> = signals.unmasked(range).map(|i| f64::from(weights[i])).collect();
                    let all_zero = group.iter().all(|&weight| weight == 0.0);
                    prop_assert!(all_zero || (mean(group.iter().copied()) - 1.0).abs() < 1e-6);
                }
            }
        }
    }

    #[test]
    fn the_order_of_windows_does_not_matter(
        learner in prop::collection::vec(-30.0f32..0.0, 24),
        reference in prop::collection::vec(-30.0f32..0.0, 24),
        mask in prop::collection::vec(any::<bool>(), 24),
        order in Just(vec![0usize, 1, 2]).prop_shuffle(),
    ) {
        fn permuted<T: Copy>(values: &[T], order: &[usize]) -> Vec<T> {
            order.iter().flat_map(|&w| values[8 * w..8 * w + 8].to_vec()).collect()
        }
        let documents: Vec<u32> = (0..24).map(|i| i % 8 / 3).collect();
        let signals = Signals { length: 8, mask: &mask, documents: &documents, learner: &learner, reference: Some(&reference) };
        let (mask, learner, reference) =
            (permuted(&mask, &order), permuted(&learner, &order), permuted(&reference, &order));
        let shuffled = Signals { length: 8, mask: &mask, documents: &documents, learner: &learner, reference: Some(&reference) };
        for rule in all_shapes().into_iter().filter(Weighting::is_window_local) {
            prop_assert_eq!(permuted(&weigh(&rule, &signals), &order), weigh(&rule, &shuffled));
        }
    }
}

/// Within each window the same weights as without, at other predictions; masked ones have none.
#[test]
fn shuffled_weights_keep_their_distribution_and_lose_their_places() {
    let length = 40;
    let learner: Vec<f32> = (0..3 * length).map(|i| -((i * 37 % 101) as f32) / 20.0).collect();
    let reference: Vec<f32> = (0..3 * length).map(|i| -((i * 53 % 97) as f32) / 20.0).collect();
    let mask: Vec<bool> = (0..3 * length).map(|i| i % 7 != 3).collect();
    let documents = vec![0; 3 * length];
    let signals = Signals {
        length,
        mask: &mask,
        documents: &documents,
        learner: &learner,
        reference: Some(&reference),
    };
    let weigh = |shuffle| {
        let rule = Weighting { shuffle, epsilon_low: 1.0, epsilon_high: 1.0, ..Weighting::default() };
        let mut weights = vec![9.0; 3 * length];
        let clipped = rule.weigh(&signals, &mut weights);
        (weights, clipped)
    };
    let ((plain, clipped), (shuffled, clipped_again)) = (weigh(false), weigh(true));
    assert_eq!(clipped, clipped_again);
    assert_eq!(weigh(true).0, shuffled, "the same signals give the same order");
    let sorted = |weights: &[f32]| {
        let mut weights = weights.to_vec();
        weights.sort_by(f32::total_cmp);
        weights
    };
    for (plain, shuffled) in plain.chunks(length).zip(shuffled.chunks(length)) {
        assert_eq!(sorted(plain), sorted(shuffled));
        let moved = plain.iter().zip(shuffled).filter(|(a, b)| a != b).count();
        assert!(moved > length / 2, "only {moved} weights have moved");
    }
    assert!(shuffled.iter().zip(&mask).all(|(&weight, &counts)| counts || weight == 0.0));
    let through = Weighting { shuffle: true, stop_gradient: false, ..Weighting::default() };
    assert!(through.validate().is_err());
}
