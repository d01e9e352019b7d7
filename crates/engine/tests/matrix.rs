//! The engine in PyTorch held to that of this process, objective by objective and feature by feature: small models of every
//! family, three steps each. Needs Python with `torch` and `transformers`:
//!
//! ```sh
//! VIRTUAL_ENV=... cargo test --release -p remit-engine --test matrix -- --ignored --nocapture
//! ```

use remit_batch::{Batch, Rule, Window};
use remit_engine::{
    Cpu, Engine, Error, LEARNER, Learning, ModelId, Origin, Predictions, Refusal, Snapshot, Torch,
    TorchSettings, Usage,
};
use remit_model::families::{self, Family};
use remit_model::{Architecture, Decoder, SaveOptions};
use remit_objective::{
    BatchSize, Denominator, Distillation, Dpo, Grpo, Objective, Preferences, Rollouts, Selection, Signals,
    Weighting, z_loss,
};
use remit_optim::{AdamW, WeightDecayRule};
use remit_store::atomic;
use remit_store::tensors::FileDtype;
use serde_json::{Value, json};
use std::path::Path;

const VOCABULARY: usize = 131;
const LENGTH: usize = 29;
const WINDOWS: usize = 8;
const STEPS: usize = 3;
const RATE: f64 = 2e-3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Feature {
    /// One batch, whole windows, no clipping, everything decays.
    Plain,
    /// The head is the embedding, or is not: the other of the two.
    Tied,
    /// Documents hidden from one another, and predictions masked out.
    Documents,
    /// The engine in question takes a window after the other (of preferences, a pair), this process all at once.
    Accumulation,
    /// The gradient is cut short.
    Clipping,
    /// Embeddings do not decay, the others do strongly.
    Decay,
    ZLoss,
    Recompute,
}

impl Feature {
    const ALL: [Feature; 8] = [
        Feature::Plain,
        Feature::Tied,
        Feature::Documents,
        Feature::Accumulation,
        Feature::Clipping,
        Feature::Decay,
        Feature::ZLoss,
        Feature::Recompute,
    ];
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goal {
    Ntp,
    Remit,
    /// Over the batch.
    Rho1,
    Kd,
    Dpo,
    Grpo,
}

const GOALS: [Goal; 6] = [Goal::Ntp, Goal::Remit, Goal::Rho1, Goal::Kd, Goal::Dpo, Goal::Grpo];

/// How far apart two engines are: losses of all steps, the first gradient, parameters after all updates, and what these have
/// changed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Apart {
    loss: f64,
    gradient: f64,
    parameters: f64,
    change: f64,
}

const ALLOWED: Apart = Apart { loss: 1e-5, gradient: 1e-5, parameters: 1e-4, change: 2e-3 };

impl Apart {
    fn raise(&mut self, other: Apart) {
        // What is no number stays.
        let larger = |a: f64, b: f64| if b > a || b.is_nan() { b } else { a };
        self.loss = larger(self.loss, other.loss);
        self.gradient = larger(self.gradient, other.gradient);
        self.parameters = larger(self.parameters, other.parameters);
        self.change = larger(self.change, other.change);
    }

    fn is_good(self) -> bool {
        self.loss <= ALLOWED.loss
            && self.gradient <= ALLOWED.gradient
            && self.parameters <= ALLOWED.parameters
            && self.change <= ALLOWED.change
    }
}

/// A loss as a function of rows.
struct Rows<F>(F);

impl<F: FnMut(usize, &[f32], &[f32], &mut [f32], &mut [f32])> Rule for Rows<F> {
    fn differentiate(
        &mut self,
        first: usize,
        log_probs: &[f32],
        lse: &[f32],
        d_log_probs: &mut [f32],
        d_lse: &mut [f32],
    ) {
        self.0(first, log_probs, lse, d_log_probs, d_lse);
    }
}

/// One engine, with a learner and a reference.
struct Side<'a> {
    engine: &'a mut dyn Engine,
    reference: ModelId,
    batches: Vec<Batch>,
    goal: Goal,
    z: f64,
    /// The learner's log-probabilities before the first step, a vector each batch: those of who sampled.
    sampler: Vec<Vec<f32>>,
}

/// Derivatives of a rule that sees the whole batch, a vector each micro-batch, and its loss.
type Surveyed = (Vec<Vec<f32>>, f64);
/// The loss of rows from one on, given their log-probabilities; writes the derivative.
type Weigh<'a> = Box<dyn FnMut(usize, &[f32], &mut [f32]) -> f64 + 'a>;

impl Side<'_> {
    fn objective(&self) -> Objective {
        match self.goal {
            Goal::Remit => Objective::Weighted(Weighting::default()),
            Goal::Rho1 => Objective::Selection(Selection::default()),
            _ => Objective::Ntp,
        }
    }

    /// Loss, gradient and an update.
    fn step(&mut self) -> Result<(f64, Vec<f32>), Refusal> {
        if self.goal == Goal::Grpo && self.sampler.is_empty() {
            for batch in &self.batches {
                self.sampler.push(self.engine.log_probs(LEARNER, batch, Predictions::All)?);
            }
        }
        let loss = self.accumulate()?;
        let gradient = self.engine.gradients()?.into_iter().flat_map(|tensor| tensor.values).collect();
        self.engine.update(RATE)?;
        Ok((loss, gradient))
    }

    /// The gradient of a step. Returns its loss.
    fn accumulate(&mut self) -> Result<f64, Refusal> {
        let tokens: usize = self.batches.iter().map(Batch::num_unmasked).sum();
        let masks = self.batches.iter().map(|batch| &batch.mask[..]);
        let denominator = self.objective().denominator(LENGTH, masks).expect("there are tokens");
        let z_denominator = Denominator::from_tokens(tokens as u64);
        let ahead = (self.goal == Goal::Rho1).then(|| self.survey(denominator)).transpose()?;
        let (mut total, z) = (0.0, self.z);
        self.engine.begin();
        for (index, batch) in self.batches.clone().iter().enumerate() {
            if self.goal == Goal::Kd {
                let rule = Distillation { alpha: 0.7, temperature: 1.5, ..Default::default() };
                let sums = self.engine.distill(batch, self.reference, &rule, denominator)?;
                let scale = rule.alpha * rule.temperature * rule.temperature;
                total += ((1.0 - rule.alpha) * sums.cross_entropy + scale * sums.divergence) / tokens as f64;
                continue;
            }
            let reference = self.engine.log_probs(self.reference, batch, Predictions::All)?;
            let mut weigh = self.rule(index, batch, reference, denominator, ahead.as_ref());
            let mut rule =
                Rows(|first: usize, own: &[f32], lse: &[f32], d: &mut [f32], d_lse: &mut [f32]| {
                    total += weigh(first, own, d);
                    if z > 0.0 {
                        let mask = &batch.mask[first..first + lse.len()];
                        total += z_denominator.divide(z_loss(lse, mask, z, z_denominator, d_lse));
                    }
                });
            let grain = if self.goal == Goal::Dpo { 2 * LENGTH } else { LENGTH };
            self.engine.accumulate(batch, grain, &mut rule)?;
        }
        Ok(total)
    }

    /// The loss of some rows of a batch, whose derivative is written.
    fn rule<'b>(
        &self,
        index: usize,
        batch: &'b Batch,
        reference: Vec<f32>,
        denominator: Denominator,
        ahead: Option<&'b Surveyed>,
    ) -> Weigh<'b> {
        let (goal, objective, sampler) = (self.goal, self.objective(), self.sampler.get(index).cloned());
        let size = BatchSize::count(self.batches.iter().map(|batch| (LENGTH, &batch.mask[..])));
        Box::new(move |first, own, d| {
            let rows = first..first + own.len();
            let (mask, reference) = (&batch.mask[rows.clone()], &reference[rows.clone()]);
            match goal {
                Goal::Kd => unreachable!("it has a call of its own"),
                Goal::Rho1 => {
                    let (derivative, loss) = ahead.expect("it was surveyed");
                    d.copy_from_slice(&derivative[index][rows]);
                    if index == 0 && first == 0 { *loss } else { 0.0 }
                }
                Goal::Ntp | Goal::Remit => {
                    let documents = &batch.documents[rows];
                    let reference = Some(reference);
                    let signals = Signals { length: LENGTH, mask, documents, learner: own, reference };
                    let mut weights = vec![0.0; own.len()];
                    objective
                        .evaluate(&signals, denominator, &mut weights, d)
                        .summary(denominator)
                        .weighted_loss
                }
                Goal::Dpo => {
                    let preferences = Preferences { length: LENGTH, mask, learner: own, reference };
                    let rule = Dpo { beta: 0.3, ..Default::default() };
                    rule.evaluate(&preferences, WINDOWS as u64 / 2, d).summary().loss
                }
                Goal::Grpo => {
                    let advantage = |&index: &u64| [0.9, -1.1, 0.4, -0.2][index as usize % 4];
                    let advantages: Vec<f64> = batch.indices.iter().map(advantage).collect();
                    let rollouts = Rollouts {
                        length: LENGTH,
                        mask,
                        learner: own,
                        sampler: sampler.as_ref().map(|sampler| &sampler[rows]),
                        reference: Some(reference),
                        advantages: &advantages[first / LENGTH..(first + own.len()) / LENGTH],
                    };
                    let rule = Grpo { beta: 0.05, ..Default::default() };
                    rule.evaluate(&rollouts, size, d).summary().loss
                }
            }
        })
    }

    fn survey(&mut self, denominator: Denominator) -> Result<Surveyed, Refusal> {
        let (mut own, mut reference, mut mask, mut documents) = (vec![], vec![], vec![], vec![]);
        for batch in &self.batches {
            own.extend(self.engine.log_probs(LEARNER, batch, Predictions::All)?);
            reference.extend(self.engine.log_probs(self.reference, batch, Predictions::All)?);
            mask.extend_from_slice(&batch.mask);
            documents.extend_from_slice(&batch.documents);
        }
        let signals = Signals {
            length: LENGTH,
            mask: &mask,
            documents: &documents,
            learner: &own,
            reference: Some(&reference),
        };
        let (mut weights, mut derivative) = (vec![0.0; own.len()], vec![0.0; own.len()]);
        let statistics = self.objective().evaluate(&signals, denominator, &mut weights, &mut derivative);
        let parts = self.batches.iter().map(|batch| derivative.drain(..batch.num_predictions()).collect());
        Ok((parts.collect(), statistics.summary(denominator).weighted_loss))
    }
}

/// A small model of a family.
fn architecture(family: Family, feature: Feature) -> Architecture {
    let is_tied = matches!(family, Family::Llama | Family::SmolLm3 | Family::Youtu);
    let mut config = json!({
        "model_type": family.name(), "architectures": [family.class()], "vocab_size": VOCABULARY, "hidden_size": 48,
        "intermediate_size": 52, "num_hidden_layers": 3, "num_attention_heads": 6, "num_key_value_heads": 2,
        "max_position_embeddings": 96, "rope_theta": 10000.0, "rms_norm_eps": 1e-6, "initializer_range": 0.05,
        "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}, "hidden_act": "silu",
        "attention_bias": false, "tie_word_embeddings": is_tied != (feature == Feature::Tied),
        "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": null,
    });
    let more = match family {
        Family::Llama => json!({"head_dim": 8, "mlp_bias": false}),
        Family::Olmo2 => json!({"num_key_value_heads": 6}),
        Family::SmolLm3 => json!({"no_rope_layers": [1, 0, 1], "no_rope_layer_interval": 2}),
        Family::Youtu => json!({
            "num_attention_heads": 3, "num_key_value_heads": 3, "q_lora_rank": 24, "kv_lora_rank": 20,
            "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16, "rope_interleave": true,
        }),
        Family::Qwen3 => json!({"head_dim": 16}),
    };
    let (Value::Object(config), Value::Object(more)) = (&mut config, more) else { unreachable!("objects") };
    config.extend(more);
    families::read(std::mem::take(config), Path::new("config.json")).expect("a configuration")
}

/// All windows, some to a batch.
fn batches(feature: Feature, windows_each: usize) -> Vec<Batch> {
    let is_masked = feature == Feature::Documents;
    let window = |index: usize| {
        let token = |t: usize| {
            let place = 100 * index + t;
            ((place * place * 7 + place * 13 + 5) % VOCABULARY) as u32
        };
        let ends = [4, 5, 15 + index, LENGTH];
        Window {
            index: index as u64,
            tokens: (0..=LENGTH).map(token).collect(),
            mask: (0..LENGTH).map(|t| !is_masked || !(t + index).is_multiple_of(4)).collect(),
            documents: (0..LENGTH).map(|t| ends.iter().filter(|&&end| end <= t).count() as u32).collect(),
        }
    };
    let windows: Vec<Window> = (0..WINDOWS).map(window).collect();
    windows.chunks(windows_each).map(|windows| Batch::stack(windows, is_masked)).collect()
}

fn learning(feature: Feature) -> Learning {
    let is_decay = feature == Feature::Decay;
    let exclude = if is_decay { vec!["*embed_tokens*".into()] } else { Vec::new() };
    Learning {
        optimizer: AdamW { weight_decay: if is_decay { 20.0 } else { 0.1 }, ..AdamW::new(RATE) },
        decay: WeightDecayRule { exclude },
        clip_norm: if feature == Feature::Clipping { 1e-2 } else { 0.0 },
        recompute: feature == Feature::Recompute,
        end_tokens: Vec::new(),
    }
}

fn distance(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len(), "one layout");
    let apart: f64 = found.iter().zip(expected).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum();
    let size: f64 = expected.iter().map(|&value| f64::from(value).powi(2)).sum();
    assert!(size > 0.0, "there is something to compare");
    (apart / size).sqrt()
}

/// Three steps on both engines, the one in question first.
fn compare(
    engines: [&mut dyn Engine; 2],
    family: Family,
    goal: Goal,
    feature: Feature,
) -> Result<Apart, Refusal> {
    let files = tempfile::tempdir().expect("a directory");
    let architecture = architecture(family, feature);
    let fresh = Decoder::fresh(architecture.clone(), 3);
    let path = files.path().join("reference");
    std::fs::create_dir(&path).expect("a directory");
    Decoder::fresh(architecture.clone(), 4).save(&path, SaveOptions::default()).map_err(Error::from)?;
    let usage = Usage { rows: WINDOWS * LENGTH, length: LENGTH, ..Usage::default() };
    let origin = Origin::Fresh { architecture: Box::new(architecture), seed: 3 };
    let z = if feature == Feature::ZLoss { 1e-2 } else { 0.0 };
    let mut sides = Vec::new();
    for (number, engine) in engines.into_iter().enumerate() {
        engine.learn(&origin, &learning(feature), &usage)?;
        let windows_each = match (number, feature, goal) {
            (0, Feature::Accumulation, Goal::Dpo) => 2,
            (0, Feature::Accumulation, _) => 1,
            _ => WINDOWS,
        };
        let (reference, batches) = (engine.open(&path, &usage)?, batches(feature, windows_each));
        sides.push(Side { engine, reference, batches, goal, z, sampler: Vec::new() });
    }
    let mut apart = Apart::default();
    for step in 0..STEPS {
        let (found, gradient) = sides[0].step()?;
        let (expected, expected_gradient) = sides[1].step()?;
        let loss = (found - expected).abs() / expected.abs();
        // Later ones are those of other parameters.
        let gradient = if step == 0 { distance(&gradient, &expected_gradient) } else { 0.0 };
        apart.raise(Apart { loss, gradient, ..Default::default() });
    }
    let (mut parameters, mut changes) = (Vec::new(), Vec::new());
    for (number, side) in sides.iter_mut().enumerate() {
        let path = files.path().join(number.to_string());
        let snapshot = Snapshot { dtype: FileDtype::F32, max_shard_bytes: None };
        atomic::directory(&path, |directory| side.engine.save(directory, &snapshot))?;
        let mut decoder = Decoder::open(&path).map_err(Error::from)?;
        parameters.push(decoder.parameters.clone());
        decoder.parameters.iter_mut().zip(&fresh.parameters).for_each(|(value, before)| *value -= before);
        changes.push(decoder.parameters);
        side.engine.clear();
    }
    let [parameters, change] = [parameters, changes].map(|both| distance(&both[0], &both[1]));
    apart.raise(Apart { parameters, change, ..Default::default() });
    Ok(apart)
}

#[test]
#[ignore = "needs Python with torch and transformers"]
fn every_objective_with_every_feature() {
    assert!(std::env::var_os("VIRTUAL_ENV").is_some(), "VIRTUAL_ENV names the environment to use");
    let settings = TorchSettings { device: "cpu".into(), ..Default::default() };
    let mut torch = Torch::start(&settings, |_| {}).expect("an engine");
    let mut cpu = Cpu::new();
    println!("| | | {} |", Feature::ALL.map(|feature| format!("{feature:?}")).join(" | "));
    let mut bad = Vec::new();
    for goal in GOALS {
        let mut columns = Vec::new();
        for feature in Feature::ALL {
            let mut worst = Apart::default();
            // Distillation has no z-loss.
            for family in Family::ALL.into_iter().filter(|_| (goal, feature) != (Goal::Kd, Feature::ZLoss)) {
                let apart = compare([&mut torch, &mut cpu], family, goal, feature).expect("three steps");
                worst.raise(apart);
                if !apart.is_good() {
                    bad.push(format!("{} {goal:?} {feature:?}: {apart:?}", family.name()));
                }
            }
            columns.push(worst);
        }
        let row = |what: &str, figure: fn(&Apart) -> f64| {
            let cells: Vec<String> = columns.iter().map(|apart| format!("{:.1e}", figure(apart))).collect();
            println!("| {goal:?} | {what} | {} |", cells.join(" | "));
        };
        row("losses", |apart| apart.loss);
        row("gradients", |apart| apart.gradient);
        row("parameters after three steps", |apart| apart.parameters);
        row("what three steps change", |apart| apart.change);
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

/// What holds the engines to one another, without Python: an engine is no distance from itself, and windows taken one after
/// another come to the same.
#[test]
fn an_engine_is_no_distance_from_itself() {
    for goal in GOALS {
        for feature in [Feature::Documents, Feature::Accumulation] {
            let [mut found, mut expected] = [Cpu::new(), Cpu::new()];
            let apart = compare([&mut found, &mut expected], Family::Llama, goal, feature).expect("steps");
            let is_same = apart == Apart::default();
            assert!(apart.is_good() && is_same == (feature == Feature::Documents), "{goal:?}: {apart:?}");
        }
    }
}
