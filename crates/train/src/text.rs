//! The method of pre-training, mid-training and supervised fine-tuning: steps over windows of text.

use crate::Error;
use crate::metrics::{StepRecord, WeightRecord};
use crate::plan::{Material, ReferencePlan};
use crate::reference::{Online, Reference};
use crate::resume::Progress;
use crate::run::{Method, Observer, Taken};
use crate::settings::Settings;
use crate::step::{Outcome, TextStep};
use crate::trainer::{Moments, Refusal, Trainer};
use remit_model::Decoder;
use remit_objective::Objective;
use std::collections::BTreeMap;

/// Steps over windows of text.
pub(crate) struct TextMethod {
    settings: Settings,
    material: Material,
    /// Until the step has it.
    reference: Option<ReferencePlan>,
    step: Option<TextStep>,
}

impl TextMethod {
    pub(crate) fn new(
        settings: Settings,
        material: Material,
        reference: Option<ReferencePlan>,
    ) -> TextMethod {
        TextMethod { settings, material, reference, step: None }
    }
}

impl Method for TextMethod {
    type Error = Error;

    fn trainer(
        &mut self,
        mut learner: Decoder,
        moments: Moments,
        _resumed: Option<u64>,
    ) -> Result<Trainer, Error> {
        learner.add_end_tokens(&self.material.stop_tokens()?);
        let settings = &self.settings;
        let reference = reference(self.reference.take(), settings)?;
        self.step = Some(TextStep::new(reference, settings));
        let rows = settings.data.micro_batch() * settings.data.window;
        Trainer::new(learner, moments, &settings.common.learning(), rows, settings.data.window)
    }

    fn step(
        &mut self,
        trainer: &mut Trainer,
        progress: &mut Progress,
        learning_rate: f64,
        _observer: &mut dyn Observer,
    ) -> Result<Taken, Error> {
        let batch = self.settings.data.batch_windows as u64;
        let windows: Vec<_> = (progress.windows..progress.windows + batch)
            .map(|position| self.material.window(position))
            .collect();
        let step = self.step.as_mut().expect("`trainer` comes first");
        let outcome = step.take(trainer, &windows, learning_rate).map_err(|refusal| match refusal {
            Refusal::Loss(window) => Error::LossNotFinite {
                step: progress.step,
                window,
                source_name: self.material.source_name(window),
            },
            Refusal::Gradient => Error::GradientNotFinite {
                step: progress.step,
                windows: windows.iter().map(|window| window.index).collect(),
            },
            Refusal::Other(error) => error,
        })?;
        progress.windows += batch;
        progress.tokens += outcome.summary.tokens;
        let record = self.record(progress, learning_rate, &outcome);
        Ok(Taken { record, parts: BTreeMap::new(), tokens: outcome.summary.tokens })
    }
}

impl TextMethod {
    fn record(&self, progress: &Progress, learning_rate: f64, outcome: &Outcome) -> StepRecord {
        let summary = &outcome.summary;
        let weighs = !matches!(self.settings.objective, Objective::Ntp | Objective::Distillation(_));
        let weights = weighs.then_some(WeightRecord {
            mean_weight: summary.mean_weight,
            std_weight: summary.std_weight,
            clipped_low: summary.clipped_low,
            clipped_high: summary.clipped_high,
            weighted_up: summary.weighted_up,
            effective_sample_share: summary.effective_sample_share,
            mean_delta: summary.mean_delta,
        });
        StepRecord {
            step: progress.step,
            tokens: progress.tokens,
            loss: summary.weighted_loss + outcome.z_loss,
            ntp_loss: Some(summary.ntp_loss),
            learning_rate,
            grad_norm: outcome.gradient_norm,
            z_loss: (self.settings.z_loss > 0.0).then_some(outcome.z_loss),
            weights,
            figures: BTreeMap::new(),
        }
    }
}

fn reference(plan: Option<ReferencePlan>, settings: &Settings) -> Result<Reference, Error> {
    let Some(reference) = plan else { return Ok(Reference::None) };
    if let Some(scores) = reference.scores {
        return Ok(Reference::Scored(scores));
    }
    let mut model = Decoder::frozen(&reference.checkpoint)?;
    model.precision = settings.common.precision;
    let data = &settings.data;
    Ok(Reference::Online(Box::new(Online::new(model, data.micro_batch() * data.window, data.window)?)))
}
