//! The training step.

use crate::Error;
use crate::reference::Reference;
use crate::settings::Settings;
use remit_batch::{Batch, Window};
use remit_kernels::head::{self, Rule, Scratch};
use remit_model::{Decoder, Input, Keep, Workspace};
use remit_objective::{Denominator, Objective, Signals, Statistics, Summary, z_loss};
use remit_optim::{AdamW, Slices, Update, clip_factor, global_norm};

/// A learner and everything that changes with it.
#[derive(Debug)]
pub struct Trainer {
    /// The learner.
    pub learner: Decoder,
    /// The optimiser's moments.
    pub moments: Moments,
    reference: Reference,
    objective: Objective,
    optimizer: AdamW,
    /// `(range of the flat buffer, whether it decays)`, neighbours of one kind joined.
    groups: Vec<(std::ops::Range<usize>, bool)>,
    clip_norm: f64,
    z_loss: f64,
    micro_batch: usize,
    mask_documents: bool,
    gradients: Vec<f32>,
    d_hidden: Vec<f32>,
    workspace: Workspace,
    scratch: Scratch,
}

/// The optimiser's moments, laid out as the parameters.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Moments {
    /// Updates that made them.
    pub updates: u64,
    /// First moments.
    pub first: Vec<f32>,
    /// Second moments.
    pub second: Vec<f32>,
}

impl Moments {
    /// Fresh moments for a number of parameters.
    pub fn zero(parameters: usize) -> Moments {
        Moments { updates: 0, first: vec![0.0; parameters], second: vec![0.0; parameters] }
    }
}

/// What a step reports.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Losses and weights.
    pub summary: Summary,
    /// z-loss, already multiplied by its factor.
    pub z_loss: f64,
    /// Global norm of the gradient before clipping.
    pub gradient_norm: f64,
}

/// Why a step was not taken; the caller knows the step's number and the windows' sources.
#[derive(Debug)]
pub enum Refusal {
    /// The loss of this window, by its index in the layout, is not finite.
    Loss(u64),
    /// The gradient is not finite.
    Gradient,
    /// Something else.
    Other(Error),
}

impl<E: Into<Error>> From<E> for Refusal {
    fn from(error: E) -> Refusal {
        Refusal::Other(error.into())
    }
}

/// What the model reads of a batch.
pub(crate) fn input(batch: &Batch) -> Input<'_> {
    Input { ids: &batch.inputs, length: batch.length, starts: batch.starts.as_deref() }
}

impl Trainer {
    /// A trainer for windows as `settings.data` describes them.
    pub fn new(
        mut learner: Decoder,
        moments: Moments,
        reference: Reference,
        settings: &Settings,
    ) -> Result<Trainer, Error> {
        let rows = settings.data.micro_batch() * settings.data.window;
        learner.allow_length(settings.data.window)?;
        learner.precision = settings.precision;
        settings.decay.validate(learner.layout().entries().iter().map(|entry| entry.name.as_str()))?;
        let mut groups: Vec<(std::ops::Range<usize>, bool)> = Vec::new();
        for entry in learner.layout().entries() {
            let decays = settings.decay.decays(&entry.name, &entry.shape);
            match groups.last_mut() {
                Some((range, same)) if *same == decays => range.end = entry.range.end,
                _ => groups.push((entry.range.clone(), decays)),
            }
        }
        let keep = if settings.recompute { Keep::BlockInputs } else { Keep::Everything };
        Ok(Trainer {
            moments,
            reference,
            objective: settings.objective.clone(),
            optimizer: settings.optimizer.clone(),
            groups,
            clip_norm: settings.clip_norm,
            z_loss: settings.z_loss,
            micro_batch: settings.data.micro_batch(),
            mask_documents: settings.data.mask_documents,
            gradients: vec![0.0; learner.parameters.len()],
            d_hidden: vec![0.0; rows * learner.architecture().width],
            workspace: Workspace::new(learner.architecture(), rows, keep),
            scratch: Scratch::default(),
            learner,
        })
    }

    /// One optimiser step on `windows`. When it is refused, parameters and moments are as they were.
    pub fn step(&mut self, windows: &[Window], learning_rate: f64) -> Result<Outcome, Refusal> {
        let (summary, z_loss) = self.differentiate(windows)?;
        let gradient_norm = global_norm([&self.gradients[..]]);
        if !gradient_norm.is_finite() {
            return Err(Refusal::Gradient);
        }
        self.update(learning_rate, gradient_norm);
        Ok(Outcome { summary, z_loss, gradient_norm })
    }

    /// The gradient of the objective over `windows`, laid out as the parameters: see [`Trainer::gradients`].
    pub fn differentiate(&mut self, windows: &[Window]) -> Result<(Summary, f64), Refusal> {
        let batches: Vec<Batch> = windows
            .chunks(self.micro_batch)
            .map(|windows| Batch::stack(windows, self.mask_documents))
            .collect();
        let length = batches[0].length;
        let denominator = self.objective.denominator(length, batches.iter().map(|batch| &batch.mask[..]))?;
        // A rule that weighs the batch as a whole needs every log-probability before the first backward pass.
        let whole = !self.objective.is_window_local();
        let mut surveyed =
            if whole && batches.len() > 1 { Some(self.survey(&batches, denominator)?) } else { None };
        let (mut statistics, mut z_loss) = (Statistics::default(), 0.0);
        self.gradients.fill(0.0);
        for batch in &batches {
            let reference = if surveyed.is_some() { None } else { self.reference.log_probs(batch)? };
            let hidden = self.learner.forward(input(batch), &mut self.workspace);
            let mut rule = BatchRule {
                objective: &self.objective,
                batch,
                reference,
                denominator,
                z_factor: self.z_loss,
                whole,
                statistics: &mut statistics,
                z_loss: &mut z_loss,
                surveyed: surveyed.as_mut(),
                not_finite: None,
            };
            let d_hidden = &mut self.d_hidden[..hidden.len()];
            let gradients = head::Gradients {
                hidden: d_hidden,
                parameters: &mut self.gradients[self.learner.layout().head()],
            };
            let grain = if whole { batch.num_predictions() } else { length };
            self.learner.head().train(
                hidden,
                self.learner.head_parameters(),
                &batch.targets,
                grain,
                &mut rule,
                gradients,
                &mut self.scratch,
            );
            if let Some(window) = rule.not_finite {
                return Err(Refusal::Loss(window));
            }
            self.learner.backward(input(batch), d_hidden, &mut self.workspace, &mut self.gradients);
        }
        Ok((statistics.summary(denominator), denominator.divide(z_loss)))
    }

    /// Log-probabilities, then weights and derivatives, of the whole optimiser batch.
    fn survey(&mut self, batches: &[Batch], denominator: Denominator) -> Result<Surveyed, Error> {
        let (mut learner, mut reference) = (Vec::new(), Vec::new());
        for batch in batches {
            learner.extend(self.log_probs(batch));
            reference.extend(self.reference.log_probs(batch)?.into_iter().flatten());
        }
        let mask: Vec<bool> = batches.iter().flat_map(|batch| batch.mask.iter().copied()).collect();
        let documents: Vec<u32> = batches.iter().flat_map(|batch| batch.documents.iter().copied()).collect();
        let signals = Signals {
            length: batches[0].length,
            mask: &mask,
            documents: &documents,
            learner: &learner,
            reference: (!reference.is_empty()).then_some(&reference),
        };
        let (mut weights, mut derivative) = (vec![0.0; mask.len()], vec![0.0; mask.len()]);
        let statistics = self.objective.evaluate(&signals, denominator, &mut weights, &mut derivative);
        Ok(Surveyed { derivative: derivative.into(), statistics: Some(statistics) })
    }

    /// The learner's log-probability of every target, `[W, T]`.
    pub fn log_probs(&mut self, batch: &Batch) -> Vec<f32> {
        let hidden = self.learner.forward(input(batch), &mut self.workspace);
        self.learner
            .head()
            .log_probs(hidden, self.learner.head_parameters(), &batch.targets, &mut self.scratch)
            .log_probs
    }

    /// What [`Trainer::differentiate`] left, laid out as the parameters.
    pub fn gradients(&self) -> &[f32] {
        &self.gradients
    }

    fn update(&mut self, learning_rate: f64, gradient_norm: f64) {
        let factor = if self.clip_norm > 0.0 { clip_factor(gradient_norm, self.clip_norm) } else { 1.0 };
        self.moments.updates += 1;
        let update = Update { step: self.moments.updates, learning_rate, gradient_scale: factor as f32 };
        for (range, decays) in &self.groups {
            let slices = Slices {
                parameters: &mut self.learner.parameters[range.clone()],
                gradients: &self.gradients[range.clone()],
                first: &mut self.moments.first[range.clone()],
                second: &mut self.moments.second[range.clone()],
            };
            self.optimizer.step(&update, *decays, slices);
        }
    }
}

/// Derivatives made ahead of the backward passes.
struct Surveyed {
    /// Of the predictions still to come, in order.
    derivative: std::collections::VecDeque<f32>,
    /// Of the whole batch; taken by the first micro-batch.
    statistics: Option<Statistics>,
}

/// The objective over one micro-batch, in the form that the head asks for it.
struct BatchRule<'a> {
    objective: &'a Objective,
    batch: &'a Batch,
    reference: Option<Vec<f32>>,
    denominator: Denominator,
    z_factor: f64,
    /// Whether all rows of the micro-batch are weighed together.
    whole: bool,
    statistics: &'a mut Statistics,
    z_loss: &'a mut f64,
    surveyed: Option<&'a mut Surveyed>,
    /// The first window whose loss is not finite, by its index in the layout.
    not_finite: Option<u64>,
}

impl Rule for BatchRule<'_> {
    fn differentiate(
        &mut self,
        first: usize,
        log_probs: &[f32],
        lse: &[f32],
        d_log_probs: &mut [f32],
        d_lse: &mut [f32],
    ) {
        let rows = first..first + log_probs.len();
        let mask = &self.batch.mask[rows.clone()];
        let bad = log_probs.iter().zip(mask).position(|(log_prob, &counts)| counts && !log_prob.is_finite());
        if let Some(row) = bad {
            self.not_finite.get_or_insert(self.batch.indices[(first + row) / self.batch.length]);
            return;
        }
        if let Some(surveyed) = &mut self.surveyed {
            if let Some(statistics) = surveyed.statistics.take() {
                self.statistics.merge(&statistics);
            }
            for (derivative, ahead) in
                d_log_probs.iter_mut().zip(surveyed.derivative.drain(..log_probs.len()))
            {
                *derivative = ahead;
            }
        } else {
            let signals = Signals {
                length: self.batch.length,
                mask,
                documents: &self.batch.documents[rows.clone()],
                learner: log_probs,
                reference: self.reference.as_ref().map(|reference| &reference[rows]),
            };
            let grain = if self.whole { log_probs.len() } else { self.batch.length };
            let mut weights = vec![0.0; grain];
            for (index, derivative) in d_log_probs.chunks_mut(grain).enumerate() {
                let part = if self.whole { signals } else { signals.window(index) };
                self.statistics.merge(&self.objective.evaluate(
                    &part,
                    self.denominator,
                    &mut weights,
                    derivative,
                ));
            }
        }
        if self.z_factor > 0.0 {
            *self.z_loss += z_loss(lse, mask, self.z_factor, self.denominator, d_lse);
        }
    }
}
