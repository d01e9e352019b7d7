//! PyTorch in a worker process.
//!
//! The worker is a Python program that is part of this one. It holds the models; here are the settings, the batches and
//! the rules, and what goes between is described in `protocol.rs`. The user brings `torch` and `transformers`.
//!
//! Parameters, gradients and moments are float32 whatever the models compute with. Results are reproducible up to the
//! order of additions, which on CUDA may differ from run to run; they are not the bits of the CPU's engine.

mod error;
mod protocol;
#[cfg(test)]
mod tests;
mod worker;

use crate::settings::{Attention, Dtype, TorchSettings};
use crate::{
    Engine, LEARNER, Learning, ModelId, Origin, Predictions, Refusal, Snapshot, Tensor, Usage, state,
};
pub use error::{Error, Kind};
use protocol::{Array, Values};
use remit_batch::{Batch, Rule};
use remit_fault::fault;
use remit_model::generate::{self, Completion, Finish, Request, Sampling, Settings as Generation, Watch};
use remit_model::{Architecture, Decoder, Entry, SaveOptions};
use remit_objective::{Denominator, Direction, Distance, Distillation, DistillationSums};
use remit_store::tensors::FileDtype;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tempfile::TempDir;
use worker::Worker;
pub use worker::{Device, Hello};

/// PyTorch in a worker process.
#[derive(Debug)]
pub struct Torch {
    worker: Worker,
    hello: Hello,
    python: PathBuf,
    dtype: Dtype,
    /// The worker's program, and a fresh learner on its way to the worker.
    files: Option<TempDir>,
    /// Told that a kernel is not used, once.
    warn: Option<fn(&str)>,
    models: BTreeMap<ModelId, Architecture>,
    last: u32,
    updates: u64,
    /// An error of a call that returns none; the next one does.
    failed: Option<Error>,
}

type Outcome<T> = Result<T, crate::Error>;

impl Torch {
    /// Starts a worker. `warn` is as in [`start`](crate::start).
    ///
    /// # Errors
    /// Settings that make no sense; no Python, or one without the packages that are needed; no such device.
    pub fn start(settings: &TorchSettings, warn: fn(&str)) -> Outcome<Torch> {
        settings.validate()?;
        let python = worker::find_python(settings.python.as_deref())?;
        let files = temporary_files()?;
        // Who asks for one kind of attention is not told about the other.
        let warn = (settings.attention == Attention::Auto).then_some(warn);
        let (worker, hello) = Worker::start(&python, files.path(), settings)?;
        Ok(Torch { python, files: Some(files), warn, ..Torch::with(worker, hello, settings)? })
    }

    fn with(worker: Worker, hello: Hello, settings: &TorchSettings) -> Outcome<Torch> {
        let device = if settings.device == "auto" { &hello.device } else { &settings.device };
        let is_cpu = device == "cpu";
        let dtype = settings.dtype.unwrap_or(if is_cpu { Dtype::F32 } else { Dtype::Bf16 });
        let mut torch = Torch {
            worker,
            hello,
            python: PathBuf::new(),
            dtype,
            files: None,
            warn: None,
            models: BTreeMap::new(),
            last: 0,
            updates: 0,
            failed: None,
        };
        let configuration = json!({
            "device": settings.device,
            "dtype": dtype.name(),
            "compile": settings.compile,
            "attention": settings.attention.name(),
            "tf32": false,
            "seed": 0,
            "sharding": settings.sharding.name(),
            "threads": is_cpu.then(|| (rayon::current_num_threads() / torch.hello.world_size.max(1) as usize).max(1)),
        });
        let answer = torch.worker.call("configure", configuration, &[])?;
        if let Some(device) = answer.header.get("device").and_then(Value::as_str) {
            torch.hello.device = device.to_owned();
        }
        Ok(torch)
    }

    /// What the worker found. The device is the one in use.
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// The Python that was started.
    pub fn python(&self) -> &Path {
        &self.python
    }

    /// What models compute with.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Most bytes of the device that were in use since this was last asked for.
    ///
    /// # Errors
    /// A worker that fails.
    pub fn peak_bytes(&mut self) -> Outcome<u64> {
        let answer = self.call("memory", json!({}), &[])?;
        let bytes = answer.number("peak_bytes");
        Ok(self.worker.checked("memory", bytes)? as u64)
    }

    /// Asks, unless a call before this one has failed without a word.
    fn call(
        &mut self,
        operation: &'static str,
        header: Value,
        arrays: &[Array],
    ) -> Result<worker::Answer, Error> {
        match self.failed.take() {
            Some(error) => Err(error),
            None => self.worker.call(operation, header, arrays),
        }
    }

    /// The same for calls that return no error.
    fn tell(&mut self, operation: &'static str, header: Value) {
        if self.failed.is_none() {
            self.failed = self.worker.call(operation, header, &[]).err();
        }
    }

    /// Says so where a model does not have the attention that its device is meant for.
    fn tell_attention(&mut self, answer: &worker::Answer) {
        let note = answer.header.get("attention_note").and_then(Value::as_str);
        if let Some(note) = note
            && self.hello.device.starts_with("cuda")
            && let Some(warn) = self.warn.take()
        {
            warn(note);
        }
    }

    fn check_batch(&self, model: ModelId, batch: &Batch) -> Outcome<()> {
        Ok(self.architecture(model).check_length(batch.length)?)
    }

    fn register(&mut self, architecture: Architecture) -> ModelId {
        self.last += 1;
        self.models.insert(ModelId(self.last), architecture);
        ModelId(self.last)
    }

    /// The parameters of the learner, as files call them.
    fn entries(&self) -> Vec<Entry> {
        let architecture = self.architecture(LEARNER);
        architecture.family.layout(architecture).entries().to_vec()
    }

    /// A tensor for each of the learner's parameters.
    fn tensors(&mut self, operation: &'static str) -> Outcome<Vec<Tensor>> {
        let entries = self.entries();
        let mut answer = self.call(operation, json!({}), &[])?;
        let tensors = entries.into_iter().map(|Entry { name, shape, .. }| {
            let values = answer.f32s(&name, &shape)?;
            Ok(Tensor { name, shape, values })
        });
        let tensors = tensors.collect();
        Ok(self.worker.checked(operation, tensors)?)
    }

    /// The learner's exact parameters, a tensor each; for checks.
    ///
    /// # Errors
    /// A worker that fails.
    pub fn parameters(&mut self) -> Outcome<Vec<Tensor>> {
        self.tensors("parameters")
    }

    /// Where a fresh learner lies until the worker has read it.
    fn write_fresh(&self, architecture: &Architecture, seed: u64) -> Outcome<TempDir> {
        let parent = self.files.as_ref().map_or_else(std::env::temp_dir, |files| files.path().to_owned());
        let directory = tempfile::Builder::new()
            .prefix("fresh-")
            .tempdir_in(&parent)
            .map_err(|cause| Error::Temporary { directory: parent, cause })?;
        let decoder = Decoder::fresh(architecture.clone(), seed);
        decoder.save(directory.path(), SaveOptions::default())?;
        Ok(directory)
    }
}

/// The worker computes with its own type of numbers.
fn check_precision(usage: &Usage) -> Outcome<()> {
    if usage.precision.is_default() {
        return Ok(());
    }
    let name = usage.precision.name();
    Err(fault!("`precision` is `{name}`, which is for the engine of this process")
        .with_hint("leave it out; `[engine] dtype` says what the worker computes with")
        .into())
}

impl Engine for Torch {
    fn open(&mut self, checkpoint: &Path, usage: &Usage) -> Outcome<ModelId> {
        check_precision(usage)?;
        let architecture = Architecture::of_checkpoint(checkpoint)?;
        architecture.check_length(usage.length)?;
        let request = json!({
            "model": self.last + 1,
            "path": text(checkpoint)?,
            "temperature": usage.temperature,
        });
        let answer = self.call("open", request, &[])?;
        self.tell_attention(&answer);
        Ok(self.register(architecture))
    }

    fn learn(&mut self, origin: &Origin, learning: &Learning, usage: &Usage) -> Outcome<()> {
        check_precision(usage)?;
        let (mut architecture, checkpoint, updates) = match origin {
            Origin::Fresh { architecture, .. } => ((**architecture).clone(), None, None),
            Origin::Checkpoint { path, moments } => {
                (Architecture::of_checkpoint(path)?, Some(path.as_path()), *moments)
            }
        };
        architecture.check_length(usage.length)?;
        let layout = architecture.family.layout(&architecture);
        let entries = layout.entries();
        learning.decay.validate(entries.iter().map(|entry| entry.name.as_str()))?;
        let state = match checkpoint {
            Some(path) => state::Files::find(path, &layout, updates.is_some())?,
            None => state::Files::default(),
        };
        let fresh = match origin {
            Origin::Fresh { seed, .. } => Some(self.write_fresh(&architecture, *seed)?),
            Origin::Checkpoint { .. } => None,
        };
        let path = checkpoint.or(fresh.as_ref().map(TempDir::path)).expect("it is one of the two");
        architecture.add_end_tokens(&learning.end_tokens);
        let decayed = entries.iter().filter(|entry| learning.decay.decays(&entry.name, &entry.shape));
        let optimizer = &learning.optimizer;
        let request = json!({
            "model": LEARNER.0,
            "path": text(path)?,
            "temperature": usage.temperature,
            "parameters": state.parameters.as_deref().map(text).transpose()?,
            "moments": state.moments.as_deref().map(text).transpose()?,
            "updates": updates.unwrap_or(0),
            "decayed": decayed.map(|entry| &entry.name).collect::<Vec<_>>(),
            "optimizer": {
                "beta1": optimizer.betas[0],
                "beta2": optimizer.betas[1],
                "epsilon": optimizer.epsilon,
                "weight_decay": optimizer.weight_decay,
            },
            "clip_norm": learning.clip_norm,
            "recompute": learning.recompute,
            "end_tokens": architecture.end_tokens,
        });
        let answer = self.call("learn", request, &[])?;
        self.tell_attention(&answer);
        self.updates = updates.unwrap_or(0);
        self.models.insert(LEARNER, architecture);
        Ok(())
    }

    fn about(&self) -> Option<String> {
        let Hello { torch, transformers, device, .. } = &self.hello;
        let index = device.strip_prefix("cuda:").and_then(|index| index.parse::<usize>().ok());
        let name = index.and_then(|index| self.hello.devices.get(index));
        let name = name.map_or(String::new(), |device| format!(" ({})", device.name));
        Some(format!("torch {torch}, transformers {transformers}, {} on {device}{name}", self.dtype.name()))
    }

    fn close(&mut self, model: ModelId) {
        self.models.remove(&model).expect("a model that is open");
        self.tell("close", json!({"model": model.0}));
    }

    fn clear(&mut self) {
        let models: Vec<ModelId> = self.models.keys().copied().collect();
        models.into_iter().for_each(|model| self.close(model));
    }

    fn architecture(&self, model: ModelId) -> &Architecture {
        self.models.get(&model).expect("a model that is open")
    }

    fn log_probs(&mut self, model: ModelId, batch: &Batch, predictions: Predictions) -> Outcome<Vec<f32>> {
        self.check_batch(model, batch)?;
        let (unmasked, rows) = match predictions {
            Predictions::All => (false, batch.num_predictions()),
            Predictions::Unmasked => (true, batch.num_unmasked()),
        };
        let request = json!({"model": model.0, "unmasked": unmasked});
        let mut answer = self.call("log_probs", request, &arrays(batch))?;
        Ok(self.worker.checked("log_probs", answer.f32s("log_probs", &[rows]))?)
    }

    fn distances(&mut self, model: ModelId, reference: ModelId, batch: &Batch) -> Outcome<Vec<Distance>> {
        let vocabularies = [model, reference].map(|model| self.architecture(model).vocab_size);
        assert_eq!(vocabularies[0], vocabularies[1], "one vocabulary");
        self.check_batch(model, batch)?;
        self.check_batch(reference, batch)?;
        let request = json!({"learner": model.0, "reference": reference.0});
        let mut answer = self.call("distances", request, &arrays(batch))?;
        let shape = [batch.num_unmasked(), 8];
        let values = self.worker.checked("distances", answer.f64s("distances", &shape))?;
        Ok(values.as_chunks::<8>().0.iter().map(distance).collect())
    }

    fn generate(
        &mut self,
        model: ModelId,
        requests: &[Request],
        settings: &Generation,
        watch: &mut dyn Watch,
    ) -> Outcome<Vec<Completion>> {
        settings.validate()?;
        let architecture = self.architecture(model).clone();
        generate::check(&architecture, requests)?;
        if let Some(error) = self.failed.take() {
            return Err(error.into());
        }
        let (header, arrays) = generation(model, &architecture, requests, settings);
        self.worker.send("generate", header, &arrays)?;
        Continuing::new(&architecture, requests, settings, watch).follow(&mut self.worker)
    }

    fn begin(&mut self) {
        self.tell("begin", json!({}));
    }

    fn accumulate(&mut self, batch: &Batch, grain: usize, rule: &mut dyn Rule) -> Result<(), Refusal> {
        self.check_batch(LEARNER, batch)?;
        let rows = batch.num_predictions();
        assert!(rows.is_multiple_of(grain), "{rows} rows in grains of {grain}");
        let mut answer = self.call("forward", json!({}), &arrays(batch))?;
        let log_probs = self.worker.checked("forward", answer.f32s("log_probs", &[rows]))?;
        let lse = self.worker.checked("forward", answer.f32s("lse", &[rows]))?;
        let bad = (0..rows).find(|&row| batch.mask[row] && !log_probs[row].is_finite());
        if let Some(row) = bad {
            self.call("forget", json!({}), &[])?;
            return Err(Refusal::Loss(batch.indices[row / batch.length]));
        }
        let (mut d_log_probs, mut d_lse) = (vec![0.0; rows], vec![0.0; rows]);
        rule.differentiate(0, &log_probs, &lse, &mut d_log_probs, &mut d_lse);
        let slopes = [
            Array::new("d_log_probs", &[rows], Values::F32(d_log_probs)),
            Array::new("d_lse", &[rows], Values::F32(d_lse)),
        ];
        self.call("backward", json!({}), &slopes)?;
        Ok(())
    }

    fn distill(
        &mut self,
        batch: &Batch,
        teacher: ModelId,
        rule: &Distillation,
        denominator: Denominator,
    ) -> Result<DistillationSums, Refusal> {
        let vocabularies = [LEARNER, teacher].map(|model| self.architecture(model).vocab_size);
        assert_eq!(vocabularies[0], vocabularies[1], "one vocabulary");
        self.check_batch(LEARNER, batch)?;
        self.check_batch(teacher, batch)?;
        let request = json!({
            "teacher": teacher.0,
            "alpha": rule.alpha,
            "temperature": rule.temperature,
            "direction": match rule.direction {
                Direction::Forward => "forward",
                Direction::Reverse => "reverse",
            },
            "denominator": denominator.tokens() as f64,
        });
        let answer = self.call("distill", request, &arrays(batch))?;
        let bad = answer.header.get("bad_row").and_then(Value::as_u64);
        if let Some(row) = bad {
            let window = batch.indices.get(row as usize / batch.length).copied();
            let window = window.ok_or_else(|| format!("there is no row {row}"));
            return Err(Refusal::Loss(self.worker.checked("distill", window)?));
        }
        let [cross_entropy, divergence] = ["cross_entropy", "divergence"].map(|key| answer.number(key));
        let cross_entropy = self.worker.checked("distill", cross_entropy)?;
        let divergence = self.worker.checked("distill", divergence)?;
        Ok(DistillationSums { cross_entropy, divergence })
    }

    fn update(&mut self, learning_rate: f64) -> Result<f64, Refusal> {
        let answer = self.call("update", json!({"learning_rate": learning_rate}), &[])?;
        let norm = answer.number("gradient_norm");
        let norm = self.worker.checked("update", norm)?;
        if !norm.is_finite() {
            return Err(Refusal::Gradient);
        }
        self.updates += 1;
        Ok(norm)
    }

    fn updates(&self) -> u64 {
        self.updates
    }

    fn gradients(&mut self) -> Outcome<Vec<Tensor>> {
        self.tensors("gradients")
    }

    fn save(&mut self, directory: &Path, snapshot: &Snapshot) -> Outcome<()> {
        let dtype = match snapshot.dtype {
            FileDtype::F32 => "f32",
            FileDtype::Bf16 => "bf16",
        };
        let max_shard_bytes = snapshot.max_shard_bytes;
        let request =
            json!({"directory": text(directory)?, "dtype": dtype, "max_shard_bytes": max_shard_bytes});
        self.call("save", request, &[])?;
        Ok(self.architecture(LEARNER).save(directory, snapshot.dtype)?)
    }
}

/// The directory of the worker's program.
fn temporary_files() -> Result<TempDir, Error> {
    let files = tempfile::Builder::new().prefix("remit-").tempdir();
    files.map_err(|cause| Error::Temporary { directory: std::env::temp_dir(), cause })
}

/// Serves a run that another process leads: this is one of the processes that a launcher has started, and not the first.
/// Returns when the run has ended.
///
/// # Errors
/// As [`Torch::start`]; a worker that fails.
pub fn serve(settings: &TorchSettings) -> Outcome<()> {
    settings.validate()?;
    let python = worker::find_python(settings.python.as_deref())?;
    let files = temporary_files()?;
    let mut command = worker::command(&python, files.path(), settings)?;
    let status = command.stdin(Stdio::null()).status();
    let status = status.map_err(|cause| Error::Start { python, cause })?;
    if !status.success() {
        let words = "its standard error is above".to_owned();
        return Err(Error::Ended { operation: "serve", status: status.to_string(), words }.into());
    }
    Ok(())
}

/// A path as JSON has it, whatever the worker's current directory.
fn text(path: &Path) -> Result<String, Error> {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    path.into_os_string().into_string().map_err(|path| Error::Path { path: PathBuf::from(path) })
}

/// A batch as arrays, `[W, T]` each.
fn arrays(batch: &Batch) -> Vec<Array> {
    let shape = [batch.num_windows, batch.length];
    let mask = batch.mask.iter().map(|&counts| u8::from(counts)).collect();
    let mut arrays = vec![
        Array::new("inputs", &shape, Values::U32(batch.inputs.clone())),
        Array::new("targets", &shape, Values::U32(batch.targets.clone())),
        Array::new("mask", &shape, Values::U8(mask)),
    ];
    let starts = batch.starts.as_ref();
    arrays.extend(starts.map(|starts| Array::new("starts", &shape, Values::U32(starts.clone()))));
    arrays
}

/// A row of the worker's distances, in the order of the fields.
fn distance(values: &[f64; 8]) -> Distance {
    let [
        gap,
        kl_reference_learner,
        kl_learner_reference,
        agreement,
        entropy,
        reference_entropy,
        nll,
        reference_nll,
    ] = *values;
    Distance {
        gap,
        kl_reference_learner,
        kl_learner_reference,
        agreement,
        entropy,
        reference_entropy,
        nll,
        reference_nll,
    }
}

/// What the worker is told of requests to continue.
fn generation(
    model: ModelId,
    architecture: &Architecture,
    requests: &[Request],
    settings: &Generation,
) -> (Value, [Array; 4]) {
    let (greedy, temperature, top_k, top_p) = match settings.sampling {
        Sampling::Greedy => (true, 1.0, None, 1.0),
        Sampling::Random { temperature, top_k, top_p } => (false, temperature, top_k, top_p),
    };
    let header = json!({
        "model": model.0,
        "max_batch": settings.batch_size,
        "greedy": greedy,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "log_prob_temperature": settings.log_prob_temperature,
        "stop_sequences": settings.stop_sequences,
        "end_tokens": architecture.end_tokens,
        "watch": true,
    });
    let prompts = requests.iter().flat_map(|request| request.prompt.iter().copied()).collect::<Vec<_>>();
    let row = |number: fn(&Request) -> usize| {
        Values::U32(requests.iter().map(|request| number(request) as u32).collect())
    };
    // The bits of a seed; the protocol has no unsigned 64-bit integers.
    let seeds = Values::I64(requests.iter().map(|request| request.seed as i64).collect());
    let count = [requests.len()];
    let arrays = [
        Array::new("prompts", &[prompts.len()], Values::U32(prompts)),
        Array::new("lengths", &count, row(|request| request.prompt.len())),
        Array::new("max_new", &count, row(|request| request.max_new_tokens)),
        Array::new("seeds", &count, seeds),
    ];
    (header, arrays)
}

/// Requests that the worker is continuing. Who is finished is found here, by the rule of every engine; the worker finds
/// the same.
struct Continuing<'a> {
    architecture: &'a Architecture,
    requests: &'a [Request],
    settings: &'a Generation,
    watch: &'a mut dyn Watch,
    completions: Vec<Completion>,
    is_finished: Vec<bool>,
}

impl<'a> Continuing<'a> {
    fn new(
        architecture: &'a Architecture,
        requests: &'a [Request],
        settings: &'a Generation,
        watch: &'a mut dyn Watch,
    ) -> Continuing<'a> {
        let empty = || Completion { tokens: Vec::new(), log_probs: Vec::new(), finish: Finish::Length };
        let completions: Vec<_> = requests.iter().map(|_| empty()).collect();
        let is_finished: Vec<_> = requests.iter().map(|request| request.max_new_tokens == 0).collect();
        for index in (0..requests.len()).filter(|&index| is_finished[index]) {
            watch.finish(index, &completions[index]);
        }
        Continuing { architecture, requests, settings, watch, completions, is_finished }
    }

    /// Follows the worker to its answer.
    fn follow(mut self, worker: &mut Worker) -> Outcome<Vec<Completion>> {
        loop {
            let mut answer = worker.answer("generate")?;
            if !answer.header.contains_key("event") {
                let lengths = answer.u32_row("lengths").and_then(|lengths| self.check(&lengths));
                worker.checked("generate", lengths)?;
                return Ok(self.completions);
            }
            let step = self.step(&mut answer);
            let stop = worker.checked("generate", step)?;
            worker.send("continue", json!({"stop": stop}), &[])?;
        }
    }

    /// Adds a token to each of some requests. Returns those that end here.
    fn step(&mut self, answer: &mut worker::Answer) -> Result<Vec<usize>, String> {
        let (requests, tokens) = (answer.u32_row("requests")?, answer.u32_row("tokens")?);
        let log_probs = answer.f32_row("log_probs")?;
        if tokens.len() != requests.len() || log_probs.len() != requests.len() {
            let (requests, tokens, log_probs) = (requests.len(), tokens.len(), log_probs.len());
            return Err(format!("{tokens} tokens and {log_probs} log-probabilities of {requests} requests"));
        }
        let mut stop = Vec::new();
        for ((&request, &token), &log_prob) in requests.iter().zip(&tokens).zip(&log_probs) {
            let index = request as usize;
            if self.is_finished.get(index) != Some(&false) {
                return Err(format!("a token of request {index}, which is not at work"));
            }
            self.architecture.check_ids(&[token]).map_err(|error| error.to_string())?;
            let completion = &mut self.completions[index];
            completion.tokens.push(token);
            completion.log_probs.push(log_prob);
            let stopped = self.watch.stop(index, &completion.tokens);
            let request = &self.requests[index];
            let finish = self.settings.finish(self.architecture, request, &completion.tokens, stopped);
            if let Some(finish) = finish {
                completion.finish = finish;
                self.is_finished[index] = true;
                stop.push(index);
                self.watch.finish(index, &self.completions[index]);
            }
        }
        self.watch.advance(tokens.len());
        Ok(stop)
    }

    /// Whether the worker has come to the same.
    fn check(&self, lengths: &[u32]) -> Result<(), String> {
        let unfinished = self.is_finished.iter().position(|is_finished| !is_finished);
        if let Some(index) = unfinished {
            return Err(format!("request {index} is not finished"));
        }
        let own = self.completions.iter().map(|completion| completion.tokens.len() as u32);
        if !own.eq(lengths.iter().copied()) {
            return Err("completions have other lengths than the tokens that were told".into());
        }
        Ok(())
    }
}
