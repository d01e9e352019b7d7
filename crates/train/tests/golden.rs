//! The whole step against PyTorch's recorded values: weights, loss, gradients by name, five AdamW steps.

use remit_batch::Window;
use remit_engine::{Cpu, Usage};
use remit_model::Decoder;
use remit_objective::{Objective, Weighting};
use remit_optim::AdamW;
use remit_store::tensors::TensorFile;
use remit_train::reference::Reference;
use remit_train::settings::Settings;
use remit_train::step::TextStep;
use remit_train::weigh;
use serde_json::Value;
use std::path::{Path, PathBuf};

const FAMILIES: [&str; 6] = ["llama", "llama3", "olmo2", "qwen3", "smollm3", "youtu"];

fn golden(family: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/models").join(family)
}

fn json(family: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(golden(family).join("golden.json")).expect("a file"))
        .expect("JSON")
}

fn open(family: &str, model: &str) -> Decoder {
    Decoder::open(&golden(family).join(model)).expect("a golden checkpoint")
}

fn read(file: &TensorFile, name: &str) -> Vec<f32> {
    let mut values = vec![0.0; file.info(name).expect("a golden tensor").shape.iter().product()];
    file.read_f32(name, &mut values).expect("golden values");
    values
}

fn sequences(family: &str) -> Vec<Vec<u32>> {
    let file = TensorFile::open(&golden(family).join("forward.safetensors")).expect("a file");
    let ids: Vec<u32> = file
        .bytes("input_ids")
        .expect("ids")
        .chunks(8)
        .map(|b| i64::from_le_bytes(b.try_into().expect("eight bytes")) as u32)
        .collect();
    ids.chunks(49).map(<[u32]>::to_vec).collect()
}

fn windows(family: &str) -> Vec<Window> {
    let window = |(index, tokens)| Window { index, tokens, mask: vec![true; 48], documents: vec![0; 48] };
    (0..).zip(sequences(family)).map(window).collect()
}

fn close(what: &str, got: f64, want: &Value, tolerance: f64) {
    let want = want.as_f64().unwrap_or_else(|| panic!("{what} is recorded"));
    println!("{what}: off by {:.1e}", (got / want - 1.0).abs());
    assert!((got / want - 1.0).abs() <= tolerance, "{what}: {got} instead of {want}");
}

/// Batches of up to `rows` predictions in windows of 48.
fn usage(rows: usize) -> Usage {
    Usage { rows, length: 48, ..Usage::default() }
}

/// An engine with this learner and reference, and the step that `settings` describe.
fn engine(settings: &Settings, learner: Decoder, reference: Option<Decoder>, rows: usize) -> (Cpu, TextStep) {
    let mut engine = Cpu::new();
    let reference = match reference {
        Some(model) => Reference::Online(engine.insert(model, &usage(rows)).expect("short windows")),
        None => Reference::None,
    };
    engine.insert_learner(learner, &settings.common.learning(), &usage(rows)).expect("a learner");
    (engine, TextStep::new(reference, settings))
}

fn trainer(family: &str, objective: Objective, micro_batch: usize, recompute: bool) -> (Cpu, TextStep) {
    let mut settings = Settings { objective, ..Settings::default() };
    (settings.common.recompute, settings.common.optimizer) = (recompute, AdamW::new(1e-3));
    settings.data.window = 48;
    settings.data.batch_windows = 3;
    settings.data.micro_batch_windows = micro_batch;
    settings.data.mask_documents = false;
    engine(&settings, open(family, "learner"), Some(open(family, "reference")), micro_batch * 48)
}

fn remit() -> Objective {
    Objective::Weighted(Weighting::default())
}

#[test]
fn weights_and_losses() {
    for family in FAMILIES {
        let file = TensorFile::open(&golden(family).join("forward.safetensors")).expect("a file");
        let mut engine = Cpu::new();
        let [learner, reference] = ["learner", "reference"]
            .map(|model| engine.insert(open(family, model), &usage(48)).expect("short windows"));
        let (weighed, summary) =
            weigh(&mut engine, learner, reference, &remit(), &sequences(family)).expect("weighed");
        for (name, tolerance, stream) in [
            ("logp_learner", 1e-5, weighed.iter().flat_map(|w| w.learner.clone()).collect::<Vec<_>>()),
            ("logp_reference", 1e-5, weighed.iter().flat_map(|w| w.reference.clone()).collect()),
            ("delta", 1e-4, weighed.iter().flat_map(|w| w.delta.clone()).collect()),
            ("weights", 1e-5, weighed.iter().flat_map(|w| w.weights.clone()).collect()),
        ] {
            let want = read(&file, name);
            let largest = want.iter().fold(0f32, |a, b| a.max(b.abs()));
            assert_eq!(stream.len(), want.len());
            for (i, (got, want)) in stream.iter().zip(&want).enumerate() {
                assert!(
                    (got - want).abs() <= tolerance * largest,
                    "{family} {name}[{i}]: {got} instead of {want}"
                );
            }
        }
        let json = json(family);
        close("ntp_loss", summary.ntp_loss, &json["ntp_loss"], 1e-5);
        close("remit_loss", summary.weighted_loss, &json["remit_loss"], 1e-5);
        close("mean_weight", summary.weights.mean_weight, &json["mean_weight"], 1e-5);
        close("clipped_low", summary.weights.clipped_low, &json["clipped_low"], 1e-6);
        close("clipped_high", summary.weights.clipped_high, &json["clipped_high"], 1e-6);
    }
}

#[test]
fn gradients_by_name() {
    for family in FAMILIES {
        let file = TensorFile::open(&golden(family).join("grad_remit.safetensors")).expect("a file");
        for (micro_batch, recompute) in [(3, false), (1, false), (2, true)] {
            let (mut engine, step) = trainer(family, remit(), micro_batch, recompute);
            step.differentiate(&mut engine, &windows(family)).expect("finite");
            let entries = engine.learner().layout().entries();
            let mut worst = (0f64, "");
            assert_eq!(entries.len(), file.names().len(), "{family}: every parameter has a gradient");
            for entry in entries {
                let (got, want) = (&engine.flat_gradients()[entry.range.clone()], read(&file, &entry.name));
                let norm = |values: &mut dyn Iterator<Item = f32>| {
                    values.map(|v| f64::from(v).powi(2)).sum::<f64>().sqrt()
                };
                let off =
                    norm(&mut got.iter().zip(&want).map(|(a, b)| a - b)) / norm(&mut want.iter().copied());
                if off > worst.0 {
                    worst = (off, &entry.name);
                }
                assert!(
                    off < 1e-4,
                    "{family} {} in micro-batches of {micro_batch}: off by {off}",
                    entry.name
                );
            }
            println!("{family}: gradients off by {:.1e} at most, {}", worst.0, worst.1);
        }
        let (mut engine, step) = trainer(family, Objective::Ntp, 3, false);
        step.differentiate(&mut engine, &windows(family)).expect("finite");
        for entry in engine.learner().layout().entries() {
            let norm = engine.flat_gradients()[entry.range.clone()]
                .iter()
                .map(|v| f64::from(*v).powi(2))
                .sum::<f64>()
                .sqrt();
            close(&entry.name, norm, &json(family)["grad_ntp_norms"][&entry.name], 1e-4);
        }
    }
}

#[test]
fn five_adamw_steps() {
    for family in FAMILIES {
        for micro_batch in [3, 1] {
            let (mut engine, step) = trainer(family, remit(), micro_batch, false);
            let json = json(family);
            let steps = json["adamw"]["steps"].as_array().expect("steps");
            assert_eq!(steps.len(), 5);
            for want in steps {
                let outcome = step.take(&mut engine, &windows(family), 1e-3).expect("finite");
                close("loss", outcome.summary.weighted_loss, &want["loss"], 1e-4);
                close("ntp_loss", outcome.summary.ntp_loss, &want["ntp_loss"], 1e-4);
                close("grad_norm", outcome.gradient_norm, &want["grad_norm"], 1e-3);
                close("mean_weight", outcome.summary.weights.mean_weight, &want["mean_weight"], 1e-4);
            }
        }
    }
}

/// Rules that weigh the batch as a whole give the same step in one micro-batch and in three.
#[test]
fn batch_wide_rules_survey_first() {
    use remit_objective::weighting::Center;
    for objective in [
        Objective::Selection(remit_objective::Selection::default()),
        Objective::Weighted(Weighting { center: Center::Batch, ..Weighting::default() }),
        Objective::Weighted(Weighting {
            center: Center::Batch,
            stop_gradient: false,
            ..Weighting::default()
        }),
    ] {
        let [one, three] = [3, 1].map(|micro_batch| {
            let (mut engine, step) = trainer("llama", objective.clone(), micro_batch, false);
            let (summary, _) = step.differentiate(&mut engine, &windows("llama")).expect("finite");
            (summary, engine.flat_gradients().to_vec())
        });
        assert!((one.0.weighted_loss / three.0.weighted_loss - 1.0).abs() < 1e-6);
        assert_eq!(one.0.tokens, three.0.tokens);
        let largest = one.1.iter().fold(0f32, |a, b| a.max(b.abs()));
        assert!(one.1.iter().zip(&three.1).all(|(a, b)| (a - b).abs() < 1e-5 * largest));
    }
}

#[test]
fn equal_models_and_epsilon_zero_are_next_token_prediction_bit_for_bit() {
    let gradient = |objective: Objective, reference: &str| {
        let mut settings = Settings { objective, ..Settings::default() };
        (settings.data.window, settings.data.batch_windows, settings.data.mask_documents) = (48, 3, false);
        let (mut engine, step) =
            engine(&settings, open("llama", "learner"), Some(open("llama", reference)), 144);
        step.differentiate(&mut engine, &windows("llama")).expect("finite");
        engine.flat_gradients().to_vec()
    };
    let ntp = gradient(Objective::Ntp, "reference");
    assert_eq!(ntp, gradient(remit(), "learner"));
    let zero = Weighting { epsilon_low: 0.0, epsilon_high: 0.0, ..Weighting::default() };
    assert_eq!(ntp, gradient(Objective::Weighted(zero), "reference"));
    assert_ne!(ntp, gradient(remit(), "reference"));
}

/// Soft labels over the whole vocabulary, through the head that never holds all logits.
mod distillation {
    use super::*;
    use remit_objective::{Direction, Distillation};

    fn gradient(family: &str, rule: Distillation, micro_batch: usize, teacher: &str) -> (f64, f64, Vec<f32>) {
        gradient_at(open(family, "learner"), family, rule, micro_batch, teacher)
    }

    fn gradient_at(
        learner: Decoder,
        family: &str,
        rule: Distillation,
        micro_batch: usize,
        teacher: &str,
    ) -> (f64, f64, Vec<f32>) {
        let mut settings = Settings { objective: Objective::Distillation(rule), ..Settings::default() };
        (settings.data.window, settings.data.batch_windows) = (48, 3);
        (settings.data.micro_batch_windows, settings.data.mask_documents) = (micro_batch, false);
        let (mut engine, step) = engine(&settings, learner, Some(open(family, teacher)), 144);
        let mut windows = windows(family);
        // A masked prediction counts nowhere.
        windows[1].mask[7] = false;
        let (summary, _) = step.differentiate(&mut engine, &windows).expect("finite");
        (summary.weighted_loss, summary.ntp_loss, engine.flat_gradients().to_vec())
    }

    fn check_close(what: &str, got: &[f32], want: &[f32]) {
        let largest = want.iter().fold(0f32, |a, b| a.max(b.abs()));
        assert!(got.iter().zip(want).all(|(a, b)| (a - b).abs() <= 2e-5 * largest), "{what}");
    }

    #[test]
    fn without_soft_labels_it_is_next_token_prediction() {
        let hard = Distillation { alpha: 0.0, ..Distillation::default() };
        let (loss, ntp, got) = gradient("llama", hard, 3, "reference");
        assert!((loss / ntp - 1.0).abs() < 1e-12);
        let mut settings = Settings::default();
        (settings.data.window, settings.data.batch_windows, settings.data.mask_documents) = (48, 3, false);
        let (mut engine, step) = engine(&settings, open("llama", "learner"), None, 144);
        let mut windows = windows("llama");
        windows[1].mask[7] = false;
        let (summary, _) = step.differentiate(&mut engine, &windows).expect("finite");
        assert!((summary.ntp_loss / ntp - 1.0).abs() < 1e-6);
        check_close("alpha 0", &got, engine.flat_gradients());
    }

    #[test]
    fn a_teacher_that_says_the_same_teaches_nothing() {
        for direction in [Direction::Forward, Direction::Reverse] {
            let soft = Distillation { alpha: 1.0, temperature: 2.0, direction };
            let (loss, _, gradient) = gradient("qwen3", soft, 3, "learner");
            assert!(loss.abs() < 1e-9, "{loss}");
            assert!(gradient.iter().all(|g| g.abs() < 1e-6));
        }
    }

    #[test]
    fn micro_batches_give_the_same_gradient_and_it_is_that_of_the_loss() {
        for direction in [Direction::Forward, Direction::Reverse] {
            let rule = Distillation { alpha: 0.7, temperature: 1.5, direction };
            let (_, _, whole) = gradient("llama", rule.clone(), 3, "reference");
            let (_, _, parts) = gradient("llama", rule.clone(), 1, "reference");
            check_close("3x1 instead of 1x3", &parts, &whole);
            let norm = whole.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
            let loss = |h: f64| {
                let mut learner = open("llama", "learner");
                for (parameter, g) in learner.parameters.iter_mut().zip(&whole) {
                    *parameter += (h * f64::from(*g) / norm) as f32;
                }
                gradient_at(learner, "llama", rule.clone(), 3, "reference").0
            };
            let slope = (loss(2e-3) - loss(-2e-3)) / 4e-3;
            assert!((slope / norm - 1.0).abs() < 0.01, "{direction:?}: slope {slope}, norm {norm}");
        }
    }
}
