//! The policy update through the real trainer: its gradient against finite differences of the loss, one token's error,
//! micro-batches, padding, and the sampler's log-probabilities.

use remit_engine::{Cpu, ModelId, Usage};
use remit_model::Decoder;
use remit_model::generate::{Request, Sampling, Settings as Generation, generate};
use remit_objective::{Grpo, LossType};
use remit_rl::Settings;
use remit_rl::update::{Sequence, differentiate};
use std::path::Path;

const WINDOW: usize = 40;

fn open(model: &str) -> Decoder {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/models/llama").join(model);
    Decoder::open(&path).expect("a golden checkpoint")
}

fn settings(grpo: Grpo, micro_batch_windows: usize) -> Settings {
    Settings { grpo, micro_batch_windows, ..Settings::default() }
}

fn usage(settings: &Settings, window: usize, temperature: f32) -> Usage {
    Usage { rows: settings.micro_batch_windows * window, length: window, temperature, ..Usage::default() }
}

fn trainer(learner: Decoder, settings: &Settings, window: usize, temperature: f32) -> Cpu {
    let mut engine = Cpu::new();
    let usage = usage(settings, window, temperature);
    engine.insert_learner(learner, &settings.common.learning(), &usage).expect("a learner");
    engine
}

fn with_reference(engine: &mut Cpu, settings: &Settings, window: usize) -> ModelId {
    engine.insert(open("reference"), &usage(settings, window, 1.0)).expect("a reference")
}

/// Prompts of three lengths with completions that the learner itself has sampled, at a temperature.
fn sampled(temperature: f32) -> Vec<Sequence> {
    let mut learner = open("learner");
    let prompts: Vec<Vec<u32>> =
        (0..12u32).map(|i| (0..3 + i % 3).map(|t| (7 * i + 5 * t) % 90).collect()).collect();
    let requests: Vec<Request> = prompts
        .iter()
        .zip(0..)
        .map(|(prompt, seed)| Request { prompt: prompt.clone(), seed, max_new_tokens: 4 + seed as usize })
        .collect();
    let generation = Generation {
        log_prob_temperature: temperature,
        ..Generation::new(Sampling::Random { temperature, top_k: None, top_p: 1.0 })
    };
    let completions = generate(&mut learner, &requests, &generation, &mut ()).expect("completions");
    let sequence = |(index, (prompt, completion)): (usize, (&Vec<u32>, _))| {
        let completion: remit_model::generate::Completion = completion;
        let advantage = [1.5, -0.5, -1.0, 0.75][index % 4];
        Sequence::new(prompt, &completion.tokens, &completion.log_probs, advantage, true)
    };
    prompts.iter().zip(completions).enumerate().map(sequence).collect()
}

fn gradient(
    sequences: &[Sequence],
    grpo: Grpo,
    micro_batch: usize,
    window: usize,
    on_policy: bool,
) -> (f64, Vec<f32>) {
    let settings = settings(grpo, micro_batch);
    let mut trainer = trainer(open("learner"), &settings, window, 1.0);
    let reference = settings.grpo.needs_reference().then(|| with_reference(&mut trainer, &settings, window));
    let (summary, _) =
        differentiate(&mut trainer, sequences, &settings, window, reference, on_policy).expect("finite");
    (summary.loss, trainer.flat_gradients().to_vec())
}

fn check_close(what: &str, got: &[f32], want: &[f32]) {
    let largest = want.iter().fold(0f32, |a, b| a.max(b.abs()));
    assert!(largest > 0.0, "{what}: nothing to compare");
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert!((got - want).abs() <= 2e-5 * largest, "{what}, parameter {i}: {got} instead of {want}");
    }
}

fn with_kl(loss_type: LossType) -> Grpo {
    Grpo { loss_type, beta: 0.3, max_completion_length: 16, ..Grpo::default() }
}

#[test]
fn the_trainer_agrees_with_the_sampler_about_every_token() {
    for temperature in [1.0, 0.7] {
        let settings = settings(Grpo::default(), 4);
        let mut trainer = trainer(open("learner"), &settings, WINDOW, temperature);
        let sequences = sampled(temperature);
        let (_, gap) =
            differentiate(&mut trainer, &sequences, &settings, WINDOW, None, true).expect("finite");
        assert!(gap < 1e-5, "at {temperature}: {gap:e}");
        // A stream that is one token late is far off.
        let mut late = sequences.clone();
        late.iter_mut().for_each(|sequence| sequence.sampler.rotate_right(1));
        let (_, gap) = differentiate(&mut trainer, &late, &settings, WINDOW, None, true).expect("finite");
        assert!(gap > 0.1, "at {temperature}: {gap:e}");
    }
    // Trained at another temperature than sampled at: they do not.
    let settings = settings(Grpo::default(), 4);
    let mut trainer = trainer(open("learner"), &settings, WINDOW, 1.0);
    let (_, gap) = differentiate(&mut trainer, &sampled(0.7), &settings, WINDOW, None, true).expect("finite");
    assert!(gap > 0.01, "{gap:e}");
}

#[test]
fn micro_batches_and_padding_change_nothing_but_rounding() {
    let sequences = sampled(1.0);
    for loss_type in [LossType::Grpo, LossType::DrGrpo, LossType::Dapo, LossType::Cispo] {
        let (loss, whole) = gradient(&sequences, with_kl(loss_type), 8, WINDOW, false);
        for (micro_batch, window) in [(1, WINDOW), (3, WINDOW), (8, 21), (1, 21), (2, 64)] {
            let (other, parts) = gradient(&sequences, with_kl(loss_type), micro_batch, window, false);
            assert!(
                (other - loss).abs() <= 1e-6 * loss.abs().max(1.0),
                "{loss_type:?}: {other} instead of {loss}"
            );
            check_close(&format!("{loss_type:?} in {micro_batch} x {window}"), &parts, &whole);
        }
    }
}

/// `loss(parameters + h direction)` against the gradient, along the gradient's own direction and a few parameters'.
#[test]
fn the_gradient_is_that_of_the_loss() {
    let mut sequences = sampled(1.0);
    // Off policy, for on policy the loss itself does not move with the parameters.
    sequences.iter_mut().flat_map(|sequence| &mut sequence.sampler).for_each(|log_prob| *log_prob -= 0.03);
    for loss_type in [LossType::Grpo, LossType::DrGrpo, LossType::Dapo] {
        let grpo = with_kl(loss_type);
        let (_, gradient) = gradient(&sequences, grpo.clone(), 4, WINDOW, false);
        let norm = gradient.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
        let settings = settings(grpo, 4);
        let loss = |h: f64| {
            let mut learner = open("learner");
            for (parameter, g) in learner.parameters.iter_mut().zip(&gradient) {
                *parameter += (h * f64::from(*g) / norm) as f32;
            }
            let mut trainer = trainer(learner, &settings, WINDOW, 1.0);
            let reference = with_reference(&mut trainer, &settings, WINDOW);
            differentiate(&mut trainer, &sequences, &settings, WINDOW, Some(reference), false)
                .expect("finite")
                .0
                .loss
        };
        let h = 2e-3;
        let slope = (loss(h) - loss(-h)) / (2.0 * h);
        assert!(
            (slope / norm - 1.0).abs() < 0.01,
            "{loss_type:?}: slope {slope}, norm of the gradient {norm}"
        );
    }
}

#[test]
fn on_policy_and_off_policy_meet_where_the_parameters_have_not_moved() {
    let sequences = sampled(1.0);
    let grpo = Grpo { max_completion_length: 16, ..Grpo::default() };
    let (_, on) = gradient(&sequences, grpo.clone(), 4, WINDOW, true);
    let (_, off) = gradient(&sequences, grpo, 4, WINDOW, false);
    check_close("on and off policy", &off, &on);
}

#[test]
fn the_mask_is_the_completion_to_the_token() {
    let sequences = sampled(1.0);
    let (_, right) = gradient(&sequences, Grpo::default(), 4, WINDOW, true);
    for shift in [-1i32, 1] {
        let mut shifted = sequences.clone();
        for sequence in &mut shifted {
            let mask = &mut sequence.example.mask;
            if shift < 0 { mask.rotate_left(1) } else { mask.rotate_right(1) }
        }
        let (_, wrong) = gradient(&shifted, Grpo::default(), 4, WINDOW, true);
        let off: f64 = right.iter().zip(&wrong).map(|(a, b)| f64::from(a - b).powi(2)).sum();
        let norm: f64 = right.iter().map(|a| f64::from(*a).powi(2)).sum();
        assert!((off / norm).sqrt() > 0.05, "a mask that is off by {shift} goes unnoticed");
    }
    // Of `n` tokens behind a prompt of `p`, predictions `p - 1` to `p + n - 2` count.
    let sequence = Sequence::new(&[1, 2, 3], &[4, 5], &[-0.5, -0.25], 1.0, true);
    assert_eq!(sequence.example.tokens, [1, 2, 3, 4, 5]);
    assert_eq!(sequence.example.mask, [false, false, true, true]);
    assert_eq!(sequence.sampler, [0.0, 0.0, -0.5, -0.25]);
}

/// Equal rewards teach nothing, but their tokens are in the denominator; a truncated completion's are not.
#[test]
fn what_does_not_move_still_counts_in_the_denominator() {
    let sequences = sampled(1.0);
    let (_, without) = gradient(&sequences[..6], Grpo::default(), 4, WINDOW, true);
    let mut zeros = sequences.clone();
    zeros[6..].iter_mut().for_each(|sequence| sequence.advantage = 0.0);
    let (_, with) = gradient(&zeros, Grpo::default(), 4, WINDOW, true);
    let tokens = |sequences: &[Sequence]| -> usize {
        sequences.iter().map(|sequence| sequence.example.num_completion_tokens()).sum()
    };
    let share = tokens(&sequences[..6]) as f32 / tokens(&sequences) as f32;
    let scaled: Vec<f32> = without.iter().map(|g| g * share).collect();
    check_close("with groups of equal rewards", &with, &scaled);
    zeros[6..].iter_mut().for_each(|sequence| sequence.example.mask.fill(false));
    let (_, masked) = gradient(&zeros, Grpo::default(), 4, WINDOW, true);
    check_close("with truncated completions masked", &masked, &without);
}
