//! Holds an engine to the engine of this process: small models of every family, what each call gives, and how far the
//! two are apart.
//!
//! The models are fresh and seeded, of sizes that are no powers of two; half of the batches have packed documents, and some
//! predictions are masked out. Each figure is the largest over a family's comparisons and has a tolerance beside it.

use crate::settings::Dtype;
use crate::{
    Cpu, Engine, Error, LEARNER, Learning, ModelId, Origin, Predictions, Refusal, Settings, Snapshot, Tensor,
    TorchSettings, Usage, start, state,
};
use remit_batch::{Batch, Rule, Window};
use remit_model::families::{self, Family};
use remit_model::generate::{Request, Sampling, Settings as Generation};
use remit_model::{Architecture, Decoder, SaveOptions};
use remit_objective::{Denominator, Direction, Distance, Distillation, DistillationSums};
use remit_optim::{AdamW, WeightDecayRule};
use remit_store::atomic;
use remit_store::tensors::FileDtype;
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::path::Path;

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Figure {
    /// Log-probabilities of targets.
    LogProbs,
    /// Distances of two models.
    Distances,
    /// The loss of a batch in two micro-batches.
    Loss,
    /// Its gradient, by tensor.
    Gradient,
    /// The sums of distillation.
    Distillation,
    /// The gradient of distillation, by tensor.
    DistillationGradient,
    /// The gradient's norm before each of three updates.
    Norm,
    /// What three updates have changed, the last of them after a checkpoint was written and read.
    Updates,
    /// The moments after three updates.
    Moments,
    /// What greedy continuation gives away, by this process's judgement.
    Greedy,
    /// The log-probabilities that it reports.
    Reported,
}

impl Figure {
    /// Every figure.
    pub const ALL: [Figure; 11] = [
        Figure::LogProbs,
        Figure::Distances,
        Figure::Loss,
        Figure::Gradient,
        Figure::Distillation,
        Figure::DistillationGradient,
        Figure::Norm,
        Figure::Updates,
        Figure::Moments,
        Figure::Greedy,
        Figure::Reported,
    ];

    /// What it is, and how it is measured.
    pub fn label(self) -> &'static str {
        match self {
            Figure::LogProbs => "log-probabilities, largest difference, nats",
            Figure::Distances => "distances of two models, largest difference, nats",
            Figure::Loss => "loss, relative",
            Figure::Gradient => "gradient, relative norm of the worst tensor",
            Figure::Distillation => "distillation, sums, relative",
            Figure::DistillationGradient => "distillation, gradient of the worst tensor",
            Figure::Norm => "gradient norm, relative",
            Figure::Updates => "three updates, relative norm of what they change",
            Figure::Moments => "moments, relative norm",
            Figure::Greedy => "greedy continuation, most given away, nats",
            Figure::Reported => "greedy continuation, log-probabilities, nats",
        }
    }

    /// How far apart is still right.
    fn tolerance(self, dtype: Dtype) -> f64 {
        let (f32, bf16) = match self {
            Figure::LogProbs | Figure::Distances | Figure::Greedy | Figure::Reported => (1e-4, 4e-1),
            Figure::Loss | Figure::Distillation => (1e-5, 2e-2),
            Figure::Norm => (5e-5, 5e-2),
            Figure::Gradient | Figure::DistillationGradient => (3e-4, 3e-1),
            Figure::Updates => (2e-3, 3e-1),
            Figure::Moments => (3e-4, 2e-1),
        };
        match dtype {
            Dtype::F32 => f32,
            Dtype::Bf16 => bf16,
        }
    }
}

/// A figure, family by family.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// What is compared.
    pub figure: Figure,
    /// What the engine computes with; this process computes in float32.
    pub dtype: Dtype,
    /// How far apart is still right.
    pub tolerance: f64,
    /// The figure of each family that was compared, in the order of [`Family::ALL`].
    pub values: Vec<f64>,
}

/// All figures.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// One a figure and type.
    pub rows: Vec<Row>,
}

impl Row {
    /// Whether every family is within the tolerance. What is no number is not.
    pub fn is_good(&self) -> bool {
        self.values.iter().all(|&value| value <= self.tolerance)
    }
}

impl Report {
    /// Whether every figure is within its tolerance.
    pub fn is_good(&self) -> bool {
        self.rows.iter().all(Row::is_good)
    }
}

/// Holds the engine of `settings` to that of this process: in float32, and where it is another one in bfloat16 too.
/// `warn` is as in [`start`]; `progress` is told what is being compared.
///
/// # Errors
/// An engine that cannot be started or fails.
pub fn run(settings: &Settings, warn: fn(&str), progress: &mut dyn FnMut(&str)) -> Result<Report, Error> {
    let mut report = Report::default();
    let dtypes: &[Dtype] = match settings {
        Settings::Cpu => &[Dtype::F32],
        Settings::Torch(_) => &[Dtype::F32, Dtype::Bf16],
    };
    for &dtype in dtypes {
        let settings = match settings {
            Settings::Cpu => Settings::Cpu,
            Settings::Torch(settings) => {
                Settings::Torch(TorchSettings { dtype: Some(dtype), ..settings.clone() })
            }
        };
        let mut engine = start(&settings, warn)?;
        let mut say = |family: Family| progress(&format!("{} in {}", family.name(), dtype.name()));
        report.rows.extend(compare(engine.as_mut(), dtype, &Family::ALL, &mut say)?);
    }
    Ok(report)
}

/// The figures of one engine.
fn compare(
    engine: &mut dyn Engine,
    dtype: Dtype,
    families: &[Family],
    progress: &mut dyn FnMut(Family),
) -> Result<Vec<Row>, Error> {
    let row = |figure: Figure| Row { figure, dtype, tolerance: figure.tolerance(dtype), values: Vec::new() };
    let mut rows = Figure::ALL.map(row).to_vec();
    for &family in families {
        progress(family);
        let files = tempfile::tempdir()
            .map_err(|cause| remit_store::Error::io("create a directory in", std::env::temp_dir(), cause))?;
        let mut figures = Figures([0.0; Figure::ALL.len()]);
        let mut pair = Pair { engines: [engine, &mut Cpu::new()], figures: &mut figures };
        pair.family(family, files.path())?;
        for (row, value) in rows.iter_mut().zip(figures.0) {
            row.values.push(value);
        }
    }
    Ok(rows)
}

/// The largest of each figure.
struct Figures([f64; Figure::ALL.len()]);

impl Figures {
    fn raise(&mut self, figure: Figure, value: f64) {
        let kept = &mut self.0[figure as usize];
        // What is no number stays.
        if value.is_nan() || value > *kept {
            *kept = value;
        }
    }
}

/// The engine in question and that of this process.
struct Pair<'a> {
    engines: [&'a mut dyn Engine; 2],
    figures: &'a mut Figures,
}

const VOCABULARY: usize = 131;
const LENGTH: usize = 37;
const SEED: u64 = 20;
const RATE: f64 = 3e-3;

impl Pair<'_> {
    fn family(&mut self, family: Family, files: &Path) -> Result<(), Error> {
        let architecture = architecture(family)?;
        let [own, other] = ["own", "other"].map(|name| files.join(name));
        for (path, seed) in [(&own, SEED), (&other, SEED + 1)] {
            write_fresh(&architecture, seed, path)?;
        }
        self.frozen(&own, &other)?;
        let teachers = self.open(&other)?;
        self.learner(&architecture, teachers, files)?;
        self.close(teachers);
        self.continuation(&files.join("learnt-1"))
    }

    fn open(&mut self, path: &Path) -> Result<[ModelId; 2], Error> {
        let [engine, cpu] = &mut self.engines;
        Ok([engine.open(path, &usage())?, cpu.open(path, &usage())?])
    }

    fn close(&mut self, models: [ModelId; 2]) {
        self.engines.iter_mut().zip(models).for_each(|(engine, model)| engine.close(model));
    }

    /// Models that are only read.
    fn frozen(&mut self, own: &Path, other: &Path) -> Result<(), Error> {
        let (own, other) = (self.open(own)?, self.open(other)?);
        for batch in batches() {
            for predictions in [Predictions::All, Predictions::Unmasked] {
                let [found, expected] =
                    self.both(|engine, i| engine.log_probs(own[i], &batch, predictions))?;
                self.figures.raise(Figure::LogProbs, largest(&found, &expected));
            }
            let [found, expected] = self.both(|engine, i| engine.distances(own[i], other[i], &batch))?;
            for (found, expected) in found.iter().zip(&expected) {
                for (found, expected) in fields(found).iter().zip(fields(expected)) {
                    self.figures.raise(Figure::Distances, (found - expected).abs());
                }
            }
        }
        self.close(own);
        self.close(other);
        Ok(())
    }

    fn both<T>(
        &mut self,
        mut call: impl FnMut(&mut dyn Engine, usize) -> Result<T, Error>,
    ) -> Result<[T; 2], Error> {
        let [engine, cpu] = &mut self.engines;
        Ok([call(*engine, 0)?, call(*cpu, 1)?])
    }

    /// Gradients, distillation and updates of a learner that begins fresh.
    fn learner(
        &mut self,
        architecture: &Architecture,
        teachers: [ModelId; 2],
        files: &Path,
    ) -> Result<(), Error> {
        let origin = Origin::Fresh { architecture: Box::new(architecture.clone()), seed: SEED };
        self.both(|engine, _| engine.learn(&origin, &learning(), &usage()))?;
        self.distillation(teachers)?;
        for _ in 0..2 {
            self.step()?;
        }
        let paths = ["engine-0", "learnt-0"].map(|name| files.join(name));
        let snapshot = Snapshot { dtype: FileDtype::Bf16, max_shard_bytes: Some(10_000) };
        self.both(|engine, i| save(engine, &paths[i], &snapshot))?;
        let from = |i: usize| Origin::Checkpoint { path: paths[i].clone(), moments: Some(2) };
        self.both(|engine, i| engine.learn(&from(i), &learning(), &usage()))?;
        self.step()?;
        let paths = ["engine-1", "learnt-1"].map(|name| files.join(name));
        let snapshot = Snapshot { dtype: FileDtype::F32, max_shard_bytes: None };
        self.both(|engine, i| save(engine, &paths[i], &snapshot))?;
        self.both(|engine, _| {
            engine.close(LEARNER);
            Ok(())
        })?;
        self.changes(architecture, &paths)
    }

    /// Gradients of distillation, in both directions.
    fn distillation(&mut self, teachers: [ModelId; 2]) -> Result<(), Error> {
        for direction in [Direction::Forward, Direction::Reverse] {
            let rule = Distillation { alpha: 0.7, temperature: 1.5, direction };
            let [(found, gradients), (expected, expected_gradients)] = self.both(|engine, i| {
                engine.begin();
                let mut sums = DistillationSums::default();
                for batch in batches() {
                    let more = engine.distill(&batch, teachers[i], &rule, denominator());
                    sums.merge(&more.map_err(refused)?);
                }
                Ok((sums, engine.gradients()?))
            })?;
            for (found, expected) in
                [(found.cross_entropy, expected.cross_entropy), (found.divergence, expected.divergence)]
            {
                self.figures.raise(Figure::Distillation, relative(found, expected));
            }
            self.figures.raise(Figure::DistillationGradient, worst(&gradients, &expected_gradients));
        }
        Ok(())
    }

    /// One step: loss, gradient and an update.
    fn step(&mut self) -> Result<(), Error> {
        let [found, expected] = self.both(|engine, _| {
            engine.begin();
            let mut loss = 0.0;
            for batch in batches() {
                let mut rule = Loss { batch: &batch, sum: 0.0 };
                engine.accumulate(&batch, LENGTH, &mut rule).map_err(refused)?;
                loss += rule.sum;
            }
            let gradients = engine.gradients()?;
            Ok((loss, gradients, engine.update(RATE).map_err(refused)?))
        })?;
        self.figures.raise(Figure::Loss, relative(found.0, expected.0));
        self.figures.raise(Figure::Gradient, worst(&found.1, &expected.1));
        self.figures.raise(Figure::Norm, relative(found.2, expected.2));
        Ok(())
    }

    /// What has become of parameters and moments.
    fn changes(&mut self, architecture: &Architecture, paths: &[std::path::PathBuf; 2]) -> Result<(), Error> {
        let fresh = Decoder::fresh(architecture.clone(), SEED);
        let [found, expected] = [&paths[0], &paths[1]].map(|path| -> Result<_, Error> {
            let mut decoder = Decoder::open(path)?;
            decoder.parameters.iter_mut().zip(&fresh.parameters).for_each(|(value, before)| *value -= before);
            let mut moments = [vec![0.0; fresh.parameters.len()], vec![0.0; fresh.parameters.len()]];
            let [first, second] = &mut moments;
            state::load_moments(path, fresh.layout(), first, second)?;
            Ok((decoder.parameters, moments))
        });
        let ((found, found_moments), (expected, expected_moments)) = (found?, expected?);
        self.figures.raise(Figure::Updates, distance(&found, &expected));
        for (found, expected) in found_moments.iter().zip(&expected_moments) {
            self.figures.raise(Figure::Moments, distance(found, expected));
        }
        Ok(())
    }

    /// Greedy continuation of some prompts, judged by this process.
    fn continuation(&mut self, path: &Path) -> Result<(), Error> {
        let models = self.open(path)?;
        let requests: Vec<Request> = [1, 3, 9, 16, 2].iter().map(|&length| request(length)).collect();
        let greedy = Generation { batch_size: 3, ..Generation::new(Sampling::Greedy) };
        let [engine, cpu] = &mut self.engines;
        let completions = engine.generate(models[0], &requests, &greedy, &mut ())?;
        for (request, completion) in requests.iter().zip(&completions) {
            let tokens = [&request.prompt[..], &completion.tokens].concat();
            let length = tokens.len() - 1;
            let window = Window {
                index: 0,
                tokens: tokens.clone(),
                mask: vec![true; length],
                documents: vec![0; length],
            };
            let all = cpu.log_probs(models[1], &Batch::stack(&[window], false), Predictions::All)?;
            let own = &all[request.prompt.len() - 1..];
            self.figures.raise(Figure::Reported, largest(&completion.log_probs, own));
            let prefixes: Vec<Request> = (request.prompt.len()..tokens.len())
                .map(|end| Request { prompt: tokens[..end].to_vec(), seed: 0, max_new_tokens: 1 })
                .collect();
            let best = cpu.generate(models[1], &prefixes, &greedy, &mut ())?;
            for (best, own) in best.iter().zip(own) {
                self.figures.raise(Figure::Greedy, f64::from(best.log_probs[0] - own));
            }
        }
        self.close(models);
        Ok(())
    }
}

/// A loss with weights that differ from row to row, and z-loss.
struct Loss<'a> {
    batch: &'a Batch,
    sum: f64,
}

impl Rule for Loss<'_> {
    fn differentiate(
        &mut self,
        first: usize,
        log_probs: &[f32],
        lse: &[f32],
        d_log_probs: &mut [f32],
        d_lse: &mut [f32],
    ) {
        let tokens = denominator().tokens() as f64;
        for i in (0..log_probs.len()).filter(|&i| self.batch.mask[first + i]) {
            let (weight, z) = (0.5 + ((first + i) % 3) as f64 / 2.0, 1e-2);
            let lse = f64::from(lse[i]);
            self.sum += (-weight * f64::from(log_probs[i]) + z * lse * lse) / tokens;
            d_log_probs[i] = (-weight / tokens) as f32;
            d_lse[i] = (2.0 * z * lse / tokens) as f32;
        }
    }
}

fn usage() -> Usage {
    Usage { rows: 3 * LENGTH, length: LENGTH, ..Usage::default() }
}

fn learning() -> Learning {
    Learning {
        optimizer: AdamW::new(RATE),
        decay: WeightDecayRule { exclude: vec!["*embed_tokens*".into()] },
        clip_norm: 0.5,
        recompute: false,
        end_tokens: Vec::new(),
    }
}

/// A small model of a family: keys and values shared by heads where it has that, no size a power of two.
fn architecture(family: Family) -> Result<Architecture, Error> {
    let mut config = json!({
        "model_type": family.name(), "architectures": [family.class()], "vocab_size": VOCABULARY, "hidden_size": 60,
        "intermediate_size": 52, "num_hidden_layers": 3, "num_attention_heads": 6, "max_position_embeddings": 96,
        "rope_theta": 10000.0, "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}, "rms_norm_eps": 1e-6,
        "initializer_range": 0.15, "hidden_act": "silu", "attention_bias": false, "tie_word_embeddings": true,
        "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": null,
    });
    let more = match family {
        Family::Llama => json!({"num_key_value_heads": 2, "head_dim": 8, "mlp_bias": false}),
        Family::Olmo2 => {
            json!({"num_attention_heads": 5, "num_key_value_heads": 5, "tie_word_embeddings": false})
        }
        Family::SmolLm3 => json!({
            "num_key_value_heads": 2, "no_rope_layers": [1, 0, 1], "no_rope_layer_interval": 2,
        }),
        Family::Youtu => json!({
            "num_attention_heads": 3, "num_key_value_heads": 3, "q_lora_rank": 24, "kv_lora_rank": 20,
            "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16, "rope_interleave": true,
        }),
        Family::Qwen3 => json!({"num_key_value_heads": 3, "head_dim": 16, "tie_word_embeddings": false}),
    };
    let (Value::Object(config), Value::Object(more)) = (&mut config, more) else {
        unreachable!("both are objects")
    };
    config.extend(more);
    let config: Map<String, Value> = std::mem::take(config);
    Ok(families::read(config, Path::new("config.json"))?)
}

/// A fresh model on disk.
fn write_fresh(architecture: &Architecture, seed: u64, path: &Path) -> Result<(), Error> {
    let decoder = Decoder::fresh(architecture.clone(), seed);
    atomic::directory(path, |directory| Ok(decoder.save(directory, SaveOptions::default())?))
}

fn save(engine: &mut dyn Engine, path: &Path, snapshot: &Snapshot) -> Result<(), Error> {
    atomic::directory(path, |directory| engine.save(directory, snapshot))
}

/// Tokens with no pattern that matters.
fn token(place: usize) -> u32 {
    ((place * place * 7 + place * 13 + 5) % VOCABULARY) as u32
}

fn request(length: usize) -> Request {
    let prompt = (0..length).map(|i| token(i + 50 * length)).collect();
    Request { prompt, seed: 0, max_new_tokens: 12 }
}

/// Three windows with packed documents, and two without.
fn batches() -> [Batch; 2] {
    let window = |index: usize| {
        let tokens = (0..=LENGTH).map(|t| token(100 * index + t)).collect();
        let ends = [5, 6, 20 + index, LENGTH];
        let documents = (0..LENGTH).map(|t| ends.iter().filter(|&&end| end <= t).count() as u32).collect();
        let mask = (0..LENGTH).map(|t| !(t + index).is_multiple_of(4)).collect();
        Window { index: index as u64, tokens, mask, documents }
    };
    let windows: Vec<Window> = (0..5).map(window).collect();
    [Batch::stack(&windows[..3], true), Batch::stack(&windows[3..], false)]
}

fn denominator() -> Denominator {
    Denominator::from_tokens(batches().iter().map(|batch| batch.num_unmasked() as u64).sum())
}

/// A refusal as an error.
fn refused(refusal: Refusal) -> Error {
    match refusal {
        Refusal::Engine(error) => error,
        Refusal::Loss(_) => Error::Check { problem: "a loss is not finite" },
        Refusal::Gradient => Error::Check { problem: "a gradient is not finite" },
    }
}

fn fields(distance: &Distance) -> [f64; 7] {
    // Agreement flips where two logits are equal but for rounding.
    [
        distance.gap,
        distance.kl_reference_learner,
        distance.kl_learner_reference,
        distance.entropy,
        distance.reference_entropy,
        distance.nll,
        distance.reference_nll,
    ]
}

fn relative(found: f64, expected: f64) -> f64 {
    (found - expected).abs() / expected.abs().max(f64::MIN_POSITIVE)
}

fn largest(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len(), "one figure a prediction");
    let differences = found.iter().zip(expected).map(|(a, b)| f64::from(a - b).abs());
    differences.fold(
        0.0,
        |largest, difference| if difference > largest || difference.is_nan() { difference } else { largest },
    )
}

/// `|found - expected| / |expected|`, and 0 where both are 0.
fn distance(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len(), "one layout");
    let square = |value: f64| value * value;
    let apart: f64 = found.iter().zip(expected).map(|(&a, &b)| square(f64::from(a) - f64::from(b))).sum();
    let size: f64 = expected.iter().map(|&value| square(f64::from(value))).sum();
    if apart == 0.0 { 0.0 } else { (apart / size).sqrt() }
}

/// The distance of the worst tensor.
fn worst(found: &[Tensor], expected: &[Tensor]) -> f64 {
    assert_eq!(found.len(), expected.len(), "one tensor a parameter");
    let mut worst = 0.0;
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!((&found.name, &found.shape), (&expected.name, &expected.shape));
        let apart = distance(&found.values, &expected.values);
        if apart > worst || apart.is_nan() {
            worst = apart;
        }
    }
    worst
}

#[cfg(test)]
mod tests {
    use super::*;
    use remit_model::generate::{Completion, Watch};
    use std::cell::Cell;

    /// The engine of this process with one thing wrong.
    #[derive(Debug)]
    struct Wrong {
        engine: Cpu,
        what: Figure,
        calls: Cell<u32>,
    }

    impl Wrong {
        fn is(&self, what: Figure) -> bool {
            self.what == what
        }
    }

    impl Engine for Wrong {
        fn open(&mut self, checkpoint: &Path, usage: &Usage) -> Result<ModelId, Error> {
            self.engine.open(checkpoint, usage)
        }

        fn learn(&mut self, origin: &Origin, learning: &Learning, usage: &Usage) -> Result<(), Error> {
            let mut learning = learning.clone();
            if self.is(Figure::Updates) {
                learning.decay.exclude.clear();
            }
            if self.is(Figure::Moments) {
                learning.optimizer.betas[1] = 0.951;
            }
            self.engine.learn(origin, &learning, usage)
        }

        fn close(&mut self, model: ModelId) {
            self.engine.close(model);
        }

        fn clear(&mut self) {
            self.engine.clear();
        }

        fn architecture(&self, model: ModelId) -> &Architecture {
            self.engine.architecture(model)
        }

        fn log_probs(
            &mut self,
            model: ModelId,
            batch: &Batch,
            predictions: Predictions,
        ) -> Result<Vec<f32>, Error> {
            let mut log_probs = self.engine.log_probs(model, batch, predictions)?;
            if self.is(Figure::LogProbs) {
                log_probs[3] = f32::NAN;
            }
            Ok(log_probs)
        }

        fn distances(
            &mut self,
            learner: ModelId,
            reference: ModelId,
            batch: &Batch,
        ) -> Result<Vec<Distance>, Error> {
            match self.is(Figure::Distances) {
                true => self.engine.distances(reference, learner, batch),
                false => self.engine.distances(learner, reference, batch),
            }
        }

        fn generate(
            &mut self,
            model: ModelId,
            requests: &[Request],
            settings: &Generation,
            watch: &mut dyn Watch,
        ) -> Result<Vec<Completion>, Error> {
            let mut settings = settings.clone();
            if self.is(Figure::Reported) {
                settings.log_prob_temperature = 1.1;
            }
            if self.is(Figure::Greedy) {
                settings.sampling = Sampling::Random { temperature: 1.0, top_k: None, top_p: 1.0 };
            }
            self.engine.generate(model, requests, &settings, watch)
        }

        fn begin(&mut self) {
            self.calls.set(self.calls.get() + 1);
            // The second step of one learner: what `learn` makes begins with no gradient of its own accord.
            if !(self.is(Figure::Gradient) && self.calls.get() == 4) {
                self.engine.begin();
            }
        }

        fn accumulate(&mut self, batch: &Batch, grain: usize, rule: &mut dyn Rule) -> Result<(), Refusal> {
            let mut batch = batch.clone();
            if self.is(Figure::Loss) {
                batch.starts = None;
            }
            self.engine.accumulate(&batch, grain, rule)
        }

        fn distill(
            &mut self,
            batch: &Batch,
            teacher: ModelId,
            rule: &Distillation,
            denominator: Denominator,
        ) -> Result<DistillationSums, Refusal> {
            let mut rule = rule.clone();
            if self.is(Figure::Distillation) {
                rule.temperature += 0.1;
            }
            if self.is(Figure::DistillationGradient) {
                rule.alpha += 0.01;
            }
            self.engine.distill(batch, teacher, &rule, denominator)
        }

        fn update(&mut self, learning_rate: f64) -> Result<f64, Refusal> {
            let norm = self.engine.update(learning_rate)?;
            Ok(if self.is(Figure::Norm) { norm * 1.0001 } else { norm })
        }

        fn updates(&self) -> u64 {
            self.engine.updates()
        }

        fn gradients(&mut self) -> Result<Vec<Tensor>, Error> {
            self.engine.gradients()
        }

        fn save(&mut self, directory: &Path, snapshot: &Snapshot) -> Result<(), Error> {
            self.engine.save(directory, snapshot)
        }
    }

    #[test]
    fn an_engine_is_no_distance_from_itself() {
        let rows = compare(&mut Cpu::new(), Dtype::F32, &Family::ALL, &mut |_| {}).unwrap();
        for row in &rows {
            // Generation computes rows as if alone, and not in whole windows.
            let exact = !matches!(row.figure, Figure::Greedy | Figure::Reported);
            assert!(row.is_good() && (!exact || row.values == [0.0; 5]), "{row:?}");
        }
        assert_eq!(rows.len(), Figure::ALL.len());
    }

    #[test]
    fn every_figure_sees_what_it_is_for() {
        for what in Figure::ALL {
            let mut wrong = Wrong { engine: Cpu::new(), what, calls: Cell::new(0) };
            let rows = compare(&mut wrong, Dtype::F32, &[Family::Llama], &mut |_| {}).unwrap();
            let row = rows.iter().find(|row| row.figure == what).expect("every figure");
            assert!(!row.is_good(), "{row:?}");
            assert!(!Report { rows }.is_good());
        }
    }
}
