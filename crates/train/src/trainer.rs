//! A learner with everything that changes with it: the gradient of a batch, and the update that it makes.
//!
//! What is minimised is not known here: a [`Rule`] turns log-probabilities into their derivative. Every stage takes
//! its steps in the same three moves, [`Trainer::begin`], [`Trainer::accumulate`] for each micro-batch, and
//! [`Trainer::update`].

use crate::Error;
use crate::reference::Online;
use crate::settings::Learning;
use remit_batch::Batch;
use remit_batch::Rule;
use remit_kernels::head::{self, Scratch};
use remit_model::{Decoder, Input, Keep, Workspace};
use remit_optim::{AdamW, Slices, Update, clip_factor, global_norm};

/// A learner and its optimiser.
#[derive(Debug)]
pub struct Trainer {
    /// The learner.
    pub learner: Decoder,
    /// The optimiser's moments.
    pub moments: Moments,
    /// What the logits are divided by; 1 except where completions were sampled at another temperature.
    pub temperature: f32,
    optimizer: AdamW,
    /// `(range of the flat buffer, whether it decays)`, neighbours of one kind joined.
    groups: Vec<(std::ops::Range<usize>, bool)>,
    clip_norm: f64,
    gradients: Vec<f32>,
    /// What the head reads, divided by the temperature: the logits are linear in it.
    hidden: Vec<f32>,
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

/// Why a step was not taken; the caller knows the step's number and what its batch was made of.
#[derive(Debug)]
pub enum Refusal {
    /// A log-probability of this window, by its [`index`](remit_batch::Window::index), is not finite.
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
    /// A trainer for micro-batches of up to `rows` predictions in windows of up to `length`.
    ///
    /// # Errors
    /// Windows longer than the model allows; a rule of decay that names no parameter.
    pub fn new(
        mut learner: Decoder,
        moments: Moments,
        learning: &Learning<'_>,
        rows: usize,
        length: usize,
    ) -> Result<Trainer, Error> {
        learner.allow_length(length)?;
        learner.precision = learning.precision;
        learning.decay.validate(learner.layout().entries().iter().map(|entry| entry.name.as_str()))?;
        let mut groups: Vec<(std::ops::Range<usize>, bool)> = Vec::new();
        for entry in learner.layout().entries() {
            let decays = learning.decay.decays(&entry.name, &entry.shape);
            match groups.last_mut() {
                Some((range, same)) if *same == decays => range.end = entry.range.end,
                _ => groups.push((entry.range.clone(), decays)),
            }
        }
        Ok(Trainer {
            moments,
            temperature: 1.0,
            optimizer: learning.optimizer.clone(),
            groups,
            clip_norm: learning.clip_norm,
            gradients: vec![0.0; learner.parameters.len()],
            hidden: Vec::new(),
            d_hidden: vec![0.0; rows * learner.architecture().width],
            workspace: Workspace::new(learner.architecture(), rows, learning.keep()),
            scratch: Scratch::default(),
            learner,
        })
    }

    /// Forgets the gradient of the step before.
    pub fn begin(&mut self) {
        self.gradients.fill(0.0);
    }

    /// Adds the gradient of one micro-batch, whose derivative `rule` writes `grain` rows, or a multiple of it, at a
    /// time.
    ///
    /// # Errors
    /// [`Refusal::Loss`] when an unmasked log-probability is not finite.
    pub fn accumulate(&mut self, batch: &Batch, grain: usize, rule: &mut dyn Rule) -> Result<(), Refusal> {
        let hidden = self.learner.forward(input(batch), &mut self.workspace);
        let hidden = cooled(hidden, self.temperature, &mut self.hidden);
        let d_hidden = &mut self.d_hidden[..hidden.len()];
        let gradients = head::Gradients {
            hidden: d_hidden,
            parameters: &mut self.gradients[self.learner.layout().head()],
        };
        let mut rule = Checked { rule, batch, not_finite: None };
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
        if self.temperature != 1.0 {
            d_hidden.iter_mut().for_each(|value| *value /= self.temperature);
        }
        self.learner.backward(input(batch), d_hidden, &mut self.workspace, &mut self.gradients);
        Ok(())
    }

    /// Adds the gradient of one micro-batch under a rule that compares rows of logits with those of `teacher`: see
    /// [`head::Head::distill`]. Returns what the rule does, in the order of the rows.
    pub fn distill<S: Send>(
        &mut self,
        batch: &Batch,
        teacher: &mut Online,
        rule: impl Fn(usize, &[f32], &[f32], &mut [f32]) -> S + Sync,
    ) -> Vec<S> {
        let (teacher_head, teacher_hidden, teacher_parameters, teacher_scratch) = teacher.rows(batch);
        let hidden = self.learner.forward(input(batch), &mut self.workspace);
        let d_hidden = &mut self.d_hidden[..hidden.len()];
        let gradients = head::Gradients {
            hidden: d_hidden,
            parameters: &mut self.gradients[self.learner.layout().head()],
        };
        let sums = self.learner.head().distill(
            hidden,
            self.learner.head_parameters(),
            (&teacher_head, teacher_hidden, teacher_parameters),
            rule,
            gradients,
            &mut self.scratch,
            teacher_scratch,
        );
        self.learner.backward(input(batch), d_hidden, &mut self.workspace, &mut self.gradients);
        sums
    }

    /// Clips the gradient and takes an optimiser step; returns the gradient's global norm before clipping.
    ///
    /// # Errors
    /// [`Refusal::Gradient`] when it is not finite; parameters and moments are as they were.
    pub fn update(&mut self, learning_rate: f64) -> Result<f64, Refusal> {
        let gradient_norm = global_norm([&self.gradients[..]]);
        if !gradient_norm.is_finite() {
            return Err(Refusal::Gradient);
        }
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
        Ok(gradient_norm)
    }

    /// The learner's log-probability of every target, `[W, T]`.
    pub fn log_probs(&mut self, batch: &Batch) -> Vec<f32> {
        let hidden = self.learner.forward(input(batch), &mut self.workspace);
        let hidden = cooled(hidden, self.temperature, &mut self.hidden);
        self.learner
            .head()
            .log_probs(hidden, self.learner.head_parameters(), &batch.targets, &mut self.scratch)
            .log_probs
    }

    /// What has been accumulated, laid out as the parameters.
    pub fn gradients(&self) -> &[f32] {
        &self.gradients
    }
}

/// `hidden` divided by the temperature, in `buffer` where that changes anything.
pub(crate) fn cooled<'a>(hidden: &'a [f32], temperature: f32, buffer: &'a mut Vec<f32>) -> &'a [f32] {
    if temperature == 1.0 {
        return hidden;
    }
    buffer.clear();
    buffer.extend(hidden.iter().map(|value| value / temperature));
    buffer
}

impl Learning<'_> {
    /// What a forward pass keeps for its backward pass.
    pub fn keep(&self) -> Keep {
        if self.recompute { Keep::BlockInputs } else { Keep::Everything }
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
