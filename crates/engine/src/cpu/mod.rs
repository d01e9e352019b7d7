//! The engine of this process: float32 buffers, the fused kernels, all cores.

mod learner;
mod reader;

use crate::{
    Engine, Error, Instructions, LEARNER, Learning, ModelId, Origin, Precision, Predictions, Refusal,
    Snapshot, Tensor, Usage,
};
use learner::{Learner, Moments};
use reader::Reader;
use remit_batch::{Batch, Rule};
use remit_kernels::matmul::{Matrix, MatrixMut, Write, matmul};
use remit_model::generate::{Completion, Request, Settings as Generation, Watch, generate};
use remit_model::{Architecture, Decoder, Frozen};
use remit_objective::{Denominator, Distance, Distillation, DistillationSums};
use std::path::Path;
use std::time::Instant;

/// The engine of this process.
#[derive(Debug, Default)]
pub struct Cpu {
    /// By their id; 0 is the learner's.
    readers: Vec<Option<Reader>>,
    learner: Option<Learner>,
}

impl Cpu {
    /// An engine without a model.
    pub fn new() -> Cpu {
        Cpu::default()
    }

    /// Takes a model that is in memory already, to read it only.
    ///
    /// # Errors
    /// Windows longer than the model allows.
    pub fn insert(&mut self, model: impl Into<Frozen>, usage: &Usage) -> Result<ModelId, Error> {
        self.readers.push(Some(Reader::new(model.into(), usage)?));
        Ok(ModelId(self.readers.len() as u32))
    }

    /// Takes a learner that is in memory already, with fresh moments.
    ///
    /// # Errors
    /// Windows longer than the model allows; a rule of decay that names no parameter.
    pub fn insert_learner(
        &mut self,
        learner: Decoder,
        learning: &Learning,
        usage: &Usage,
    ) -> Result<(), Error> {
        let moments = Moments::zero(learner.parameters.len());
        self.learner = Some(Learner::new(learner, moments, learning, usage)?);
        Ok(())
    }

    /// The learner's parameters.
    pub fn learner(&self) -> &Decoder {
        &self.learner.as_ref().expect("a learner").decoder
    }

    /// The same, to be changed.
    pub fn learner_mut(&mut self) -> &mut Decoder {
        &mut self.learning().decoder
    }

    /// What has been accumulated, laid out as the parameters.
    pub fn flat_gradients(&self) -> &[f32] {
        &self.learner.as_ref().expect("a learner").gradients
    }

    fn learning(&mut self) -> &mut Learner {
        self.learner.as_mut().expect("a learner")
    }

    fn reader(&mut self, model: ModelId) -> &mut Reader {
        self.readers[model.0 as usize - 1].as_mut().expect("a model that is open")
    }
}

impl Engine for Cpu {
    fn available_memory(&self) -> Option<crate::Available> {
        crate::Available::now()
    }

    fn open(&mut self, checkpoint: &Path, usage: &Usage) -> Result<ModelId, Error> {
        self.insert(Decoder::frozen(checkpoint, usage.precision)?, usage)
    }

    fn learn(&mut self, origin: &Origin, learning: &Learning, usage: &Usage) -> Result<(), Error> {
        let (decoder, moments) = learner::begin(origin)?;
        self.learner = Some(Learner::new(decoder, moments, learning, usage)?);
        Ok(())
    }

    fn close(&mut self, model: ModelId) {
        match model {
            LEARNER => self.learner = None,
            ModelId(index) => self.readers[index as usize - 1] = None,
        }
        while self.readers.last().is_some_and(Option::is_none) {
            self.readers.pop();
        }
    }

    fn clear(&mut self) {
        *self = Cpu::new();
    }

    fn architecture(&self, model: ModelId) -> &Architecture {
        match model {
            LEARNER => self.learner().architecture(),
            ModelId(index) => {
                self.readers[index as usize - 1].as_ref().expect("a model that is open").model.architecture()
            }
        }
    }

    fn log_probs(
        &mut self,
        model: ModelId,
        batch: &Batch,
        predictions: Predictions,
    ) -> Result<Vec<f32>, Error> {
        match model {
            LEARNER => self.learning().log_probs(batch, predictions),
            _ => self.reader(model).log_probs(batch, predictions),
        }
    }

    fn distances(
        &mut self,
        model: ModelId,
        reference: ModelId,
        batch: &Batch,
    ) -> Result<Vec<Distance>, Error> {
        let places = [model, reference].map(|model| model.0 as usize - 1);
        let [model, reference] =
            self.readers.get_disjoint_mut(places).expect("two models that are only read");
        let (Some(model), Some(reference)) = (model, reference) else { panic!("models that are open") };
        model.distances(reference, batch)
    }

    fn generate(
        &mut self,
        model: ModelId,
        requests: &[Request],
        settings: &Generation,
        watch: &mut dyn Watch,
    ) -> Result<Vec<Completion>, Error> {
        Ok(match model {
            LEARNER => generate(&mut self.learning().decoder, requests, settings, watch)?,
            _ => generate(&mut self.reader(model).model, requests, settings, watch)?,
        })
    }

    fn begin(&mut self) {
        self.learning().begin();
    }

    fn accumulate(&mut self, batch: &Batch, grain: usize, rule: &mut dyn Rule) -> Result<(), Refusal> {
        self.learning().accumulate(batch, grain, rule)
    }

    fn distill(
        &mut self,
        batch: &Batch,
        teacher: ModelId,
        rule: &Distillation,
        denominator: Denominator,
    ) -> Result<DistillationSums, Refusal> {
        let teacher = self.readers[teacher.0 as usize - 1].as_mut().expect("a model that is open");
        self.learner.as_mut().expect("a learner").distill(batch, teacher, rule, denominator)
    }

    fn update(&mut self, learning_rate: f64) -> Result<f64, Refusal> {
        self.learning().update(learning_rate)
    }

    /// Products of bfloat16 are the one thing that instructions change, for numbers that are too small to be normal.
    fn about(&self) -> Option<String> {
        let learner = self.learner.as_ref()?;
        let is_bf16 = learner.decoder.precision == Precision::Bf16;
        is_bf16.then(|| format!("cpu, bf16 with {}", Instructions::current().name()))
    }

    fn updates(&self) -> u64 {
        self.learner.as_ref().expect("a learner").moments.updates
    }

    fn gradients(&mut self) -> Result<Vec<Tensor>, Error> {
        let entries = self.learner().layout().entries().iter();
        let tensor = |entry: &remit_model::Entry| Tensor {
            name: entry.name.clone(),
            shape: entry.shape.clone(),
            values: self.flat_gradients()[entry.range.clone()].to_vec(),
        };
        Ok(entries.map(tensor).collect())
    }

    fn save(&mut self, directory: &Path, snapshot: &Snapshot) -> Result<(), Error> {
        self.learning().save(directory, snapshot)
    }
}

/// Floating-point operations a second that matrix products reach on this machine, measured for a moment.
pub fn speed(precision: Precision) -> f64 {
    const SIZE: usize = 512;
    let (a, b) = (vec![0.5; SIZE * SIZE], vec![0.25; SIZE * SIZE]);
    let mut c = vec![0.0; SIZE * SIZE];
    let mut best = 0f64;
    let started = Instant::now();
    while started.elapsed().as_millis() < 60 {
        let moment = Instant::now();
        matmul(
            MatrixMut::new(&mut c, SIZE, SIZE),
            Write::Replace,
            Matrix::new(&a, SIZE, SIZE),
            Matrix::new(&b, SIZE, SIZE),
            precision,
        );
        best = best.max(2.0 * (SIZE * SIZE * SIZE) as f64 / moment.elapsed().as_secs_f64());
    }
    best
}
