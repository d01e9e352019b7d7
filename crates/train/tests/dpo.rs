//! Preference optimisation through the real trainer: the gradient against finite differences and against the formula
//! on log-probabilities of single sequences; padding, micro-batches; the cache of the reference's log-probabilities.

use remit_batch::Batch;
use remit_corpus::examples::Example;
use remit_engine::{Cpu, Engine, ModelId, Precision, Predictions, Usage};
use remit_model::Decoder;
use remit_objective::{Dpo, PreferenceSummary};
use remit_optim::AdamW;
use remit_store::tensors::TensorFile;
use remit_train::dpo::Settings;
use remit_train::dpo::reference::{Pass, ReferenceLogProbs, key};
use remit_train::dpo::step::{Pair, PreferenceStep};
use remit_train::metrics::{EvalRecord, StepRecord, StepTiming};
use remit_train::{Error, Observer};
use std::path::{Path, PathBuf};

const FAMILIES: [&str; 3] = ["llama", "olmo2", "youtu"];
const RULES: [Dpo; 2] =
    [Dpo { beta: 0.1, length_normalised: false }, Dpo { beta: 5.0, length_normalised: true }];

fn golden(family: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/models").join(family)
}

fn open(family: &str, model: &str) -> Decoder {
    Decoder::open(&golden(family).join(model)).expect("a golden checkpoint")
}

/// A sequence of which the tokens from `given` on are the completion.
fn example(tokens: &[u32], given: usize) -> Example {
    Example { tokens: tokens.to_vec(), mask: (1..tokens.len()).map(|i| i >= given).collect() }
}

/// Eight pairs of many lengths, cut from the golden sequences.
fn pairs(family: &str) -> Vec<[Example; 2]> {
    let file = TensorFile::open(&golden(family).join("forward.safetensors")).expect("a file");
    let ids: Vec<u32> = file
        .bytes("input_ids")
        .expect("ids")
        .chunks(8)
        .map(|b| i64::from_le_bytes(b.try_into().expect("eight bytes")) as u32)
        .collect();
    let sequences: Vec<&[u32]> = ids.chunks(49).collect();
    let cut = |sequence: usize, length: usize, given: usize| example(&sequences[sequence][..length], given);
    vec![
        [cut(0, 40, 20), cut(1, 33, 20)],
        [cut(1, 12, 5), cut(2, 49, 5)],
        [cut(2, 30, 29), cut(0, 9, 1)],
        [cut(0, 49, 30), cut(2, 31, 30)],
        [cut(1, 25, 2), cut(0, 25, 2)],
        [cut(2, 17, 10), cut(1, 41, 10)],
        [cut(1, 49, 48), cut(2, 20, 7)],
        [cut(0, 15, 8), cut(1, 15, 8)],
    ]
}

/// A model's log-probabilities of a completion: of the tokens from the first that the mask asks for to the last, in a
/// forward pass of its own. A mask that is off by one token asks for others.
fn completion_log_probs(engine: &mut Cpu, model: ModelId, side: &Example) -> Vec<f32> {
    let predictions = side.mask.len();
    let batch = Batch::stack(&[side.window(0, predictions, 0)], false);
    let given = side.num_prompt_tokens();
    // The log-probability of token i is that of prediction i - 1.
    engine.log_probs(model, &batch, Predictions::All).expect("short sequences")[given - 1..].to_vec()
}

fn all_log_probs(model: Decoder, pairs: &[[Example; 2]]) -> Vec<[Vec<f32>; 2]> {
    let mut engine = Cpu::new();
    let model =
        engine.insert(model, &Usage { rows: 48, length: 48, ..Usage::default() }).expect("short sequences");
    let mut log_probs = |side: &Example| completion_log_probs(&mut engine, model, side);
    pairs.iter().map(|pair| pair.each_ref().map(&mut log_probs)).collect()
}

/// The loss by the formula of the paper, in double precision.
fn loss_by_hand(rule: &Dpo, learner: &[[Vec<f32>; 2]], reference: &[[Vec<f32>; 2]]) -> f64 {
    let gain = |learner: &[f32], reference: &[f32]| {
        let sum: f64 = learner.iter().zip(reference).map(|(a, b)| f64::from(*a) - f64::from(*b)).sum();
        if rule.length_normalised { sum / learner.len() as f64 } else { sum }
    };
    let losses = learner.iter().zip(reference).map(|(learner, reference)| {
        let margin = gain(&learner[0], &reference[0]) - gain(&learner[1], &reference[1]);
        -(1.0 / (1.0 + (-rule.beta * margin).exp())).ln()
    });
    losses.sum::<f64>() / learner.len() as f64
}

fn trainer(family: &str) -> Cpu {
    let mut settings = Settings::default();
    settings.common.optimizer = AdamW::new(1e-3);
    let mut engine = Cpu::new();
    let usage = Usage { rows: 16 * 64, length: 64, ..Usage::default() };
    engine.insert_learner(open(family, "learner"), &settings.common.learning(), &usage).expect("a learner");
    engine
}

fn with_reference<'a>(pairs: &'a [[Example; 2]], reference: &'a [[Vec<f32>; 2]]) -> Vec<Pair<'a>> {
    let pair = |(index, (sides, log_probs)): (usize, (&'a [Example; 2], &'a [Vec<f32>; 2]))| Pair {
        index: index as u64,
        sides: sides.each_ref(),
        reference: log_probs.each_ref().map(|log_probs| &log_probs[..]),
    };
    pairs.iter().zip(reference).enumerate().map(pair).collect()
}

/// Figures and gradient of the golden learner.
fn differentiate(
    family: &str,
    rule: &Dpo,
    micro_batch: usize,
    pad: u32,
    pairs: &[[Example; 2]],
    reference: &[[Vec<f32>; 2]],
) -> (PreferenceSummary, Vec<f32>) {
    let mut trainer = trainer(family);
    let step = PreferenceStep { loss: rule.clone(), micro_batch, pad };
    let summary = step.differentiate(&mut trainer, &with_reference(pairs, reference)).expect("finite");
    (summary, trainer.flat_gradients().to_vec())
}

fn norm(values: impl IntoIterator<Item = f32>) -> f64 {
    values.into_iter().map(|value| f64::from(value).powi(2)).sum::<f64>().sqrt()
}

/// How far a gradient is from another, as a share of its norm.
fn off(got: &[f32], want: &[f32]) -> f64 {
    norm(got.iter().zip(want).map(|(a, b)| a - b)) / norm(want.iter().copied())
}

#[test]
fn the_loss_is_the_formula_on_the_models_log_probabilities() {
    for family in FAMILIES {
        let pairs = pairs(family);
        let reference = all_log_probs(open(family, "reference"), &pairs);
        let learner = all_log_probs(open(family, "learner"), &pairs);
        for rule in RULES {
            let (summary, _) = differentiate(family, &rule, 3, 0, &pairs, &reference);
            let want = loss_by_hand(&rule, &learner, &reference);
            println!("{family} {rule:?}: {} and {want}", summary.loss);
            assert!((summary.loss / want - 1.0).abs() < 1e-5, "{family}: {} instead of {want}", summary.loss);
            assert_eq!(summary.pairs, 8);
            assert!((summary.loss - 2f64.ln()).abs() > 1e-3, "two different models");
            let gap = summary.chosen_reward - summary.rejected_reward;
            assert!((gap - rule.beta * summary.margin).abs() < 1e-9);
        }
    }
}

/// In the direction of each tensor's gradient the loss rises by the gradient's norm.
#[test]
fn gradients_are_slopes_of_the_loss() {
    for family in FAMILIES {
        let pairs = pairs(family);
        let reference = all_log_probs(open(family, "reference"), &pairs);
        for rule in RULES {
            let (_, gradient) = differentiate(family, &rule, 3, 0, &pairs, &reference);
            let layout = open(family, "learner").layout().clone();
            let mut worst = 0f64;
            for entry in layout.entries() {
                let part = &gradient[entry.range.clone()];
                let length = norm(part.iter().copied());
                assert!(length > 0.0, "{family} {}: nothing moves it", entry.name);
                // Far enough for float32, near enough for a straight line.
                let distance = (2e-3 / length).min(2e-2);
                let loss = |distance: f64| {
                    let mut model = open(family, "learner");
                    for (parameter, slope) in model.parameters[entry.range.clone()].iter_mut().zip(part) {
                        *parameter += (distance * f64::from(*slope) / length) as f32;
                    }
                    loss_by_hand(&rule, &all_log_probs(model, &pairs), &reference)
                };
                let slope = (loss(distance) - loss(-distance)) / (2.0 * distance);
                worst = worst.max((slope / length - 1.0).abs());
                assert!(
                    (slope / length - 1.0).abs() < 0.02,
                    "{family} {}: slope {slope}, gradient {length}",
                    entry.name
                );
            }
            println!("{family} {rule:?}: slopes off by {worst:.1e} at most");
        }
    }
}

#[test]
fn a_mask_shifted_by_one_token_is_another_loss() {
    let pairs = pairs("llama");
    let reference = all_log_probs(open("llama", "reference"), &pairs);
    for rule in RULES {
        let (right, gradient) = differentiate("llama", &rule, 8, 0, &pairs, &reference);
        // As many predictions count, each a token earlier, where there is an earlier one.
        let shifted: Vec<[Example; 2]> = pairs
            .iter()
            .map(|pair| {
                pair.clone().map(|side| {
                    let mut mask = side.mask.clone();
                    if !mask[0] {
                        mask.rotate_left(1);
                    }
                    Example { mask, ..side }
                })
            })
            .collect();
        let (wrong, other) = differentiate("llama", &rule, 8, 0, &shifted, &reference);
        assert!((wrong.loss - right.loss).abs() > 1e-3, "{} and {}", wrong.loss, right.loss);
        assert!(off(&other, &gradient) > 0.1);
    }
}

#[test]
fn micro_batches_do_not_change_the_update() {
    for rule in RULES {
        let pairs = pairs("llama");
        let reference = all_log_probs(open("llama", "reference"), &pairs);
        let (whole, gradient) = differentiate("llama", &rule, 8, 0, &pairs, &reference);
        for micro_batch in [1, 3] {
            let (parts, parted) = differentiate("llama", &rule, micro_batch, 0, &pairs, &reference);
            assert!(off(&parted, &gradient) < 1e-5, "{micro_batch}: {}", off(&parted, &gradient));
            assert!((parts.loss - whole.loss).abs() < 1e-6 * whole.loss);
            assert!((parts.margin - whole.margin).abs() < 1e-5);
            assert_eq!((parts.pairs, parts.accuracy), (whole.pairs, whole.accuracy));
        }
    }
}

#[test]
fn padding_does_not_change_the_update() {
    let pairs = pairs("llama");
    let reference = all_log_probs(open("llama", "reference"), &pairs);
    for rule in RULES {
        let (summary, gradient) = differentiate("llama", &rule, 4, 0, &pairs, &reference);
        let (same, other_pad) = differentiate("llama", &rule, 4, 77, &pairs, &reference);
        assert_eq!(summary, same, "what it is filled up with");
        assert_eq!(gradient, other_pad, "what it is filled up with");
        let longer = pairs.clone().map_sides(|mut side| {
            side.tokens.extend([5; 13]);
            side.mask.extend([false; 13]);
            side
        });
        let (padded, further) = differentiate("llama", &rule, 4, 0, &longer, &reference);
        assert!(off(&further, &gradient) < 1e-5, "{}", off(&further, &gradient));
        assert!((padded.loss - summary.loss).abs() < 1e-6 * summary.loss);
    }
}

trait MapSides {
    fn map_sides(self, change: impl Fn(Example) -> Example) -> Self;
}

impl MapSides for Vec<[Example; 2]> {
    fn map_sides(self, change: impl Fn(Example) -> Example) -> Self {
        self.into_iter().map(|pair| pair.map(&change)).collect()
    }
}

#[test]
fn a_learner_that_is_the_reference_begins_at_log_two_and_prefers_after_a_step() {
    for family in FAMILIES {
        for rule in RULES {
            let pairs = pairs(family);
            let reference = all_log_probs(open(family, "learner"), &pairs);
            let pairs = with_reference(&pairs, &reference);
            let mut trainer = trainer(family);
            let step = PreferenceStep { loss: rule, micro_batch: 3, pad: 0 };
            let first = step.take(&mut trainer, &pairs, 1e-3).expect("finite");
            assert!((first.summary.loss - 2f64.ln()).abs() < 1e-6, "{family}: {}", first.summary.loss);
            assert!(first.summary.margin.abs() < 1e-5, "{family}: {}", first.summary.margin);
            assert!(first.gradient_norm > 0.0);
            let second = step.differentiate(&mut trainer, &pairs).expect("finite");
            assert!(second.loss < first.summary.loss, "{family}: {}", second.loss);
            assert!(second.margin > 0.0 && second.chosen_reward > second.rejected_reward);
            assert!(second.accuracy > 0.5, "{family}: {}", second.accuracy);
        }
    }
}

/// Counts what it is told of the reference.
#[derive(Default)]
struct Watch {
    calls: Vec<(u64, u64)>,
}

impl Observer for Watch {
    fn begin(&mut self, _: u64, _: u64) {}
    fn step(&mut self, _: &StepRecord, _: &StepTiming) {}
    fn eval(&mut self, _: &EvalRecord) {}
    fn message(&mut self, _: &str) {}
    fn reference(&mut self, done: u64, total: u64, _: u64) {
        self.calls.push((done, total));
    }
}

#[test]
fn the_reference_reads_all_pairs_once() {
    let (home, pairs) = (tempfile::tempdir().expect("a directory"), pairs("llama"));
    let checkpoint = golden("llama").join("reference");
    let name = key(&checkpoint, &pairs, Precision::F32).expect("a key");
    let pass = Pass { checkpoint: &checkpoint, precision: Precision::F32, pad: 0 };
    let file = home.path().join(&name).join("log_probs.safetensors");
    let obtain = || {
        let mut watch = Watch::default();
        let result =
            ReferenceLogProbs::obtain(home.path(), &name, &pairs, &pass, &mut Cpu::new(), &mut watch);
        (result, watch.calls)
    };
    // What a killed process may have left.
    std::fs::create_dir(home.path().join(&name)).expect("a directory");
    std::fs::write(file.with_extension("safetensors.partial"), "half").expect("a file");
    let (made, calls) = obtain();
    let made = made.expect("log-probabilities");
    assert_eq!((calls[0], calls[calls.len() - 1]), ((0, 16), (16, 16)));
    let want = all_log_probs(open("llama", "reference"), &pairs);
    for (index, want) in want.iter().enumerate() {
        for (got, want) in made.pair(index).iter().zip(want) {
            assert_eq!(got.len(), want.len());
            assert!(got.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-5), "pair {index}");
        }
    }
    let (read, calls) = obtain();
    assert_eq!((read.expect("the same again"), calls.len()), (made, 0));

    let bytes = std::fs::read(&file).expect("the file");
    for damaged in [&bytes[..bytes.len() - 4], &[]] {
        std::fs::write(&file, damaged).expect("a shorter file");
        let (error, _) = obtain();
        assert!(matches!(error, Err(Error::Cache { .. })), "{error:?}");
    }
}

#[test]
fn another_model_and_other_pairs_have_other_keys() {
    let pairs = pairs("llama");
    let key_of = |model: &str, pairs: &[[Example; 2]]| {
        key(&golden("llama").join(model), pairs, Precision::F32).expect("a key")
    };
    let keys = [key_of("reference", &pairs), key_of("learner", &pairs), key_of("reference", &pairs[1..])];
    assert_eq!(keys[0], key_of("reference", &pairs.clone()));
    assert!(keys[0] != keys[1] && keys[0] != keys[2] && keys[1] != keys[2]);
}
