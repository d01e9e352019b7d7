//! The method of pre-training, mid-training and supervised fine-tuning: steps over windows of text.

use crate::Error;
use crate::metrics::StepRecord;
use crate::plan::{Material, ReferencePlan};
use crate::reference::Reference;
use crate::resume::Progress;
use crate::run::{Method, Taken};
use crate::settings::Settings;
use crate::step::{Outcome, TextStep};
use remit_engine::{Engine, Usage};
use remit_objective::Objective;
use std::collections::BTreeMap;

/// Steps over windows of text.
pub(crate) struct TextMethod {
    settings: Settings,
    material: Material,
    /// Until the step has it.
    reference: Option<ReferencePlan>,
    usage: Usage,
    step: Option<TextStep>,
}

impl TextMethod {
    pub(crate) fn new(
        settings: Settings,
        material: Material,
        reference: Option<ReferencePlan>,
        usage: Usage,
    ) -> TextMethod {
        TextMethod { settings, material, reference, usage, step: None }
    }
}

impl Method for TextMethod {
    type Error = Error;

    fn begin(&mut self, engine: &mut dyn Engine) -> Result<(), Error> {
        let reference = match self.reference.take() {
            None => Reference::None,
            Some(ReferencePlan { scores: Some(scores), .. }) => Reference::Scored(Box::new(scores)),
            Some(reference) => Reference::Online(engine.open(&reference.checkpoint, &self.usage)?),
        };
        self.step = Some(TextStep::new(reference, &self.settings));
        Ok(())
    }

    fn step(
        &mut self,
        engine: &mut dyn Engine,
        progress: &mut Progress,
        learning_rate: f64,
    ) -> Result<Taken, Error> {
        let batch = self.settings.data.batch_windows as u64;
        let windows: Vec<_> = (progress.windows..progress.windows + batch)
            .map(|position| self.material.window(position))
            .collect();
        let step = self.step.as_ref().expect("`begin` comes first");
        let outcome = step.take(engine, &windows, learning_rate).map_err(|refusal| {
            refusal.into_error(
                |window| Error::LossNotFinite {
                    step: progress.step,
                    window,
                    source_name: self.material.source_name(window),
                },
                || Error::GradientNotFinite {
                    step: progress.step,
                    windows: windows.iter().map(|window| window.index).collect(),
                },
            )
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
        StepRecord {
            step: progress.step,
            tokens: progress.tokens,
            loss: summary.weighted_loss + outcome.z_loss,
            ntp_loss: Some(summary.ntp_loss),
            learning_rate,
            grad_norm: outcome.gradient_norm,
            z_loss: (self.settings.z_loss > 0.0).then_some(outcome.z_loss),
            weights: weighs.then_some(summary.weights),
            figures: BTreeMap::new(),
        }
    }
}
