//! The learner with everything that changes with it: the gradient of a batch, and the update that it makes.
//!
//! What is minimised is not known here: a [`Rule`] turns log-probabilities into their derivative.

use super::reader::{Buffers, Reader, cooled, input};
use crate::{Error, Learning, Origin, Predictions, Refusal, Snapshot, Usage, state};
use remit_batch::{Batch, Rule};
use remit_kernels::head;
use remit_model::{Decoder, Keep, SaveOptions};
use remit_objective::{Denominator, Distillation, DistillationSums};
use remit_optim::{AdamW, Slices, Update, clip_factor, global_norm};
use remit_store::tensors::FileDtype;
use std::ops::Range;
use std::path::Path;

/// A learner and its optimiser.
#[derive(Debug)]
pub(super) struct Learner {
    pub(super) decoder: Decoder,
    pub(super) moments: Moments,
    optimizer: AdamW,
    /// `(range of the flat buffer, whether it decays)`, neighbours of one kind joined.
    groups: Vec<(Range<usize>, bool)>,
    clip_norm: f64,
    /// Laid out as the parameters.
    pub(super) gradients: Vec<f32>,
    temperature: f32,
    buffers: Buffers,
    /// What the head reads, where it is divided by a temperature.
    hidden: Vec<f32>,
    d_hidden: Vec<f32>,
}

/// The optimiser's moments, laid out as the parameters.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Moments {
    /// Updates that made them.
    pub(super) updates: u64,
    /// First moments.
    pub(super) first: Vec<f32>,
    /// Second moments.
    pub(super) second: Vec<f32>,
}

impl Moments {
    /// Fresh moments for a number of parameters.
    pub(super) fn zero(parameters: usize) -> Moments {
        Moments { updates: 0, first: vec![0.0; parameters], second: vec![0.0; parameters] }
    }
}

/// The learner and the moments that `origin` names.
pub(super) fn begin(origin: &Origin) -> Result<(Decoder, Moments), Error> {
    let (path, moments) = match origin {
        Origin::Fresh { architecture, seed } => {
            let decoder = Decoder::fresh((**architecture).clone(), *seed);
            let moments = Moments::zero(decoder.parameters.len());
            return Ok((decoder, moments));
        }
        Origin::Checkpoint { path, moments } => (path, moments),
    };
    let mut decoder = Decoder::open(path)?;
    let layout = decoder.layout().clone();
    state::load_parameters(path, &layout, &mut decoder.parameters)?;
    let mut kept = Moments::zero(decoder.parameters.len());
    if let Some(updates) = moments {
        state::load_moments(path, &layout, &mut kept.first, &mut kept.second)?;
        kept.updates = *updates;
    }
    Ok((decoder, kept))
}

impl Learner {
    pub(super) fn new(
        mut decoder: Decoder,
        moments: Moments,
        learning: &Learning,
        usage: &Usage,
    ) -> Result<Learner, Error> {
        decoder.allow_length(usage.length)?;
        decoder.precision = usage.precision;
        decoder.add_end_tokens(&learning.end_tokens);
        learning.decay.validate(decoder.layout().entries().iter().map(|entry| entry.name.as_str()))?;
        let mut groups: Vec<(Range<usize>, bool)> = Vec::new();
        for entry in decoder.layout().entries() {
            let decays = learning.decay.decays(&entry.name, &entry.shape);
            match groups.last_mut() {
                Some((range, same)) if *same == decays => range.end = entry.range.end,
                _ => groups.push((entry.range.clone(), decays)),
            }
        }
        let keep = if learning.recompute { Keep::BlockInputs } else { Keep::Everything };
        Ok(Learner {
            moments,
            optimizer: learning.optimizer.clone(),
            groups,
            clip_norm: learning.clip_norm,
            gradients: vec![0.0; decoder.parameters.len()],
            temperature: usage.temperature,
            buffers: Buffers::new(usage, keep),
            hidden: Vec::new(),
            d_hidden: vec![0.0; usage.rows * decoder.architecture().width],
            decoder,
        })
    }

    pub(super) fn log_probs(&mut self, batch: &Batch, predictions: Predictions) -> Result<Vec<f32>, Error> {
        self.buffers.log_probs(&mut self.decoder, batch, predictions)
    }

    pub(super) fn begin(&mut self) {
        self.gradients.fill(0.0);
    }

    pub(super) fn accumulate(
        &mut self,
        batch: &Batch,
        grain: usize,
        rule: &mut dyn Rule,
    ) -> Result<(), Refusal> {
        self.reserve(batch)?;
        let Learner { decoder, buffers, .. } = self;
        let workspace = buffers.workspace.as_mut().expect("it was reserved");
        let hidden = cooled(decoder.forward(input(batch), workspace), self.temperature, &mut self.hidden);
        let d_hidden = &mut self.d_hidden[..hidden.len()];
        let gradients =
            head::Gradients { hidden: d_hidden, parameters: &mut self.gradients[decoder.layout().head()] };
        let mut rule = Checked { rule, batch, not_finite: None };
        decoder.head().train(
            hidden,
            decoder.head_parameters(),
            &batch.targets,
            grain,
            &mut rule,
            gradients,
            &mut buffers.scratch,
        );
        if let Some(window) = rule.not_finite {
            return Err(Refusal::Loss(window));
        }
        if self.temperature != 1.0 {
            d_hidden.iter_mut().for_each(|value| *value /= self.temperature);
        }
        decoder.backward(input(batch), d_hidden, workspace, &mut self.gradients);
        Ok(())
    }

    pub(super) fn distill(
        &mut self,
        batch: &Batch,
        teacher: &mut Reader,
        rule: &Distillation,
        denominator: Denominator,
    ) -> Result<DistillationSums, Refusal> {
        self.reserve(batch)?;
        let Reader { model, buffers: teacher_buffers } = teacher;
        teacher_buffers.reserve(model, batch)?;
        let teacher_workspace = teacher_buffers.workspace.as_mut().expect("it was reserved");
        let teacher_hidden = model.forward(input(batch), teacher_workspace);
        let Learner { decoder, buffers, .. } = self;
        let workspace = buffers.workspace.as_mut().expect("it was reserved");
        let hidden = decoder.forward(input(batch), workspace);
        let d_hidden = &mut self.d_hidden[..hidden.len()];
        let gradients =
            head::Gradients { hidden: d_hidden, parameters: &mut self.gradients[decoder.layout().head()] };
        let rows = decoder.head().distill(
            hidden,
            decoder.head_parameters(),
            (&model.head(), teacher_hidden, model.head_weights()),
            |row, student, teacher, gradient| {
                if batch.mask[row] {
                    rule.row(student, teacher, batch.targets[row] as usize, denominator, gradient)
                } else {
                    gradient.fill(0.0);
                    DistillationSums::default()
                }
            },
            gradients,
            &mut buffers.scratch,
            &mut teacher_buffers.scratch,
        );
        decoder.backward(input(batch), d_hidden, workspace, &mut self.gradients);
        let bad = rows.iter().position(|sums| !(sums.cross_entropy + sums.divergence).is_finite());
        if let Some(row) = bad {
            return Err(Refusal::Loss(batch.indices[row / batch.length]));
        }
        let mut sums = DistillationSums::default();
        rows.iter().for_each(|row| sums.merge(row));
        Ok(sums)
    }

    pub(super) fn update(&mut self, learning_rate: f64) -> Result<f64, Refusal> {
        let gradient_norm = global_norm([&self.gradients[..]]);
        if !gradient_norm.is_finite() {
            return Err(Refusal::Gradient);
        }
        let factor = if self.clip_norm > 0.0 { clip_factor(gradient_norm, self.clip_norm) } else { 1.0 };
        self.moments.updates += 1;
        let update = Update { step: self.moments.updates, learning_rate, gradient_scale: factor as f32 };
        for (range, decays) in &self.groups {
            let slices = Slices {
                parameters: &mut self.decoder.parameters[range.clone()],
                gradients: &self.gradients[range.clone()],
                first: &mut self.moments.first[range.clone()],
                second: &mut self.moments.second[range.clone()],
            };
            self.optimizer.step(&update, *decays, slices);
        }
        Ok(gradient_norm)
    }

    pub(super) fn save(&self, directory: &Path, snapshot: &Snapshot) -> Result<(), Error> {
        let Snapshot { dtype, max_shard_bytes } = *snapshot;
        self.decoder.save(directory, SaveOptions { dtype, max_shard_bytes })?;
        let state = state::directory(directory);
        std::fs::create_dir(&state).map_err(|error| remit_store::Error::io("create", &state, error))?;
        let layout = self.decoder.layout();
        state::save_moments(directory, layout, &self.moments.first, &self.moments.second)?;
        if dtype != FileDtype::F32 {
            state::save_parameters(directory, layout, &self.decoder.parameters)?;
        }
        Ok(())
    }

    fn reserve(&mut self, batch: &Batch) -> Result<(), Error> {
        self.buffers.reserve(&mut self.decoder, batch)?;
        let size = batch.num_predictions() * self.decoder.architecture().width;
        if self.d_hidden.len() < size {
            self.d_hidden.resize(size, 0.0);
        }
        Ok(())
    }
}

/// A rule that is asked only while everything is finite.
struct Checked<'a> {
    rule: &'a mut dyn Rule,
    batch: &'a Batch,
    /// The first window with a log-probability that is not.
    not_finite: Option<u64>,
}

impl Rule for Checked<'_> {
    fn differentiate(
        &mut self,
        first: usize,
        log_probs: &[f32],
        lse: &[f32],
        d_log_probs: &mut [f32],
        d_lse: &mut [f32],
    ) {
        let mask = &self.batch.mask[first..first + log_probs.len()];
        let bad = log_probs.iter().zip(mask).position(|(log_prob, &counts)| counts && !log_prob.is_finite());
        if let Some(row) = bad {
            self.not_finite.get_or_insert(self.batch.indices[(first + row) / self.batch.length]);
        } else if self.not_finite.is_none() {
            self.rule.differentiate(first, log_probs, lse, d_log_probs, d_lse);
        }
    }
}
