//! The training step over windows of text: next-token prediction, weighted or not.

use crate::Refusal;
use crate::reference::Reference;
use crate::settings::Settings;
use remit_batch::Rule;
use remit_batch::{Batch, Window};
use remit_engine::{Engine, LEARNER, Predictions};
use remit_objective::{Denominator, Distillation, Objective, Signals, Statistics, StepSummary, z_loss};

/// What is minimised over windows of text, and the reference's side of it.
#[derive(Debug)]
pub struct TextStep {
    reference: Reference,
    objective: Objective,
    z_loss: f64,
    micro_batch: usize,
    mask_documents: bool,
}

/// What a step reports.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Losses and weights.
    pub summary: StepSummary,
    /// z-loss, already multiplied by its factor.
    pub z_loss: f64,
    /// Global norm of the gradient before clipping.
    pub gradient_norm: f64,
}

impl TextStep {
    /// The step that `settings` describe.
    pub fn new(reference: Reference, settings: &Settings) -> TextStep {
        TextStep {
            reference,
            objective: settings.objective.clone(),
            z_loss: settings.z_loss,
            micro_batch: settings.data.micro_batch(),
            mask_documents: settings.data.mask_documents,
        }
    }

    /// One optimiser step on `windows`. When it is refused, parameters and moments are as they were.
    pub fn take(
        &self,
        engine: &mut dyn Engine,
        windows: &[Window],
        learning_rate: f64,
    ) -> Result<Outcome, Refusal> {
        let (summary, z_loss) = self.differentiate(engine, windows)?;
        let gradient_norm = engine.update(learning_rate)?;
        Ok(Outcome { summary, z_loss, gradient_norm })
    }

    /// Leaves the gradient of the objective over `windows` in the engine; returns the figures and the z-loss.
    pub fn differentiate(
        &self,
        engine: &mut dyn Engine,
        windows: &[Window],
    ) -> Result<(StepSummary, f64), Refusal> {
        let batches: Vec<Batch> = windows
            .chunks(self.micro_batch)
            .map(|windows| Batch::stack(windows, self.mask_documents))
            .collect();
        let length = batches[0].length;
        let denominator = self.objective.denominator(length, batches.iter().map(|batch| &batch.mask[..]))?;
        // A rule that weighs the batch as a whole needs every log-probability before the first backward pass.
        let whole = !self.objective.is_window_local();
        let mut surveyed =
            if whole && batches.len() > 1 { Some(self.survey(engine, &batches, denominator)?) } else { None };
        let (mut statistics, mut z_loss) = (Statistics::default(), 0.0);
        engine.begin();
        if let Objective::Distillation(rule) = &self.objective {
            let statistics = distill(engine, &batches, rule, &self.reference, denominator)?;
            return Ok((statistics.summary(denominator), 0.0));
        }
        for batch in &batches {
            let reference =
                if surveyed.is_some() { None } else { self.reference.log_probs(engine, batch)? };
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
            };
            let grain = if whole { batch.num_predictions() } else { length };
            engine.accumulate(batch, grain, &mut rule)?;
        }
        Ok((statistics.summary(denominator), denominator.divide(z_loss)))
    }

    /// Log-probabilities, then weights and derivatives, of the whole optimiser batch.
    fn survey(
        &self,
        engine: &mut dyn Engine,
        batches: &[Batch],
        denominator: Denominator,
    ) -> Result<Surveyed, Refusal> {
        let (mut learner, mut reference) = (Vec::new(), Vec::new());
        for batch in batches {
            learner.extend(engine.log_probs(LEARNER, batch, Predictions::All)?);
            reference.extend(self.reference.log_probs(engine, batch)?.into_iter().flatten());
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
}

/// The gradient of soft labels over the vocabulary.
fn distill(
    engine: &mut dyn Engine,
    batches: &[Batch],
    rule: &Distillation,
    reference: &Reference,
    denominator: Denominator,
) -> Result<Statistics, Refusal> {
    let Reference::Online(teacher) = reference else {
        unreachable!("`Settings::validate` asks for a reference without stored scores")
    };
    let mut statistics = Statistics::default();
    for batch in batches {
        let sums = engine.distill(batch, *teacher, rule, denominator)?;
        statistics.merge(&Statistics::unweighted(batch.num_unmasked() as u64, rule.loss_sums(&sums)));
    }
    Ok(statistics)
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
