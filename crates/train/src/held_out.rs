//! Mean loss on text that is not trained on.

use crate::Error;
use crate::health::Monitor;
use crate::metrics::{EvalRecord, MetricsLog};
use crate::plan::{check_model, cut};
use crate::resume::Progress;
use crate::run::Observer;
use crate::settings::HeldOut;
use remit_batch::Batch;
use remit_corpus::{TokenStore, Windows};
use remit_engine::{Engine, LEARNER, Predictions};
use remit_model::Architecture;
use std::collections::BTreeMap;
use std::path::Path;

/// Held-out text and when it is evaluated.
#[derive(Debug, Default)]
pub struct HeldOutPlan {
    /// Steps between evaluations; one at the start and one at the end there is always.
    pub every: u64,
    /// Windows of each store, from its beginning; 0 for all.
    pub limit: u64,
    /// Windows a forward pass.
    pub micro_batch: usize,
    /// Whether the documents of a window are hidden from one another.
    pub mask_documents: bool,
    /// Windows by the name they have in metrics.
    pub stores: BTreeMap<String, Windows>,
}

impl HeldOutPlan {
    /// Opens the stores that `settings` name, for the model of `checkpoint` and windows of `window` predictions,
    /// `micro_batch` a forward pass.
    ///
    /// # Errors
    /// Stores that cannot be read, or that the model cannot.
    pub fn open(
        settings: &HeldOut,
        checkpoint: &Path,
        architecture: &Architecture,
        window: usize,
        micro_batch: usize,
    ) -> Result<HeldOutPlan, Error> {
        let mut stores = BTreeMap::new();
        for (name, path) in &settings.stores {
            let store = TokenStore::open(path)?;
            check_model("learner", checkpoint, architecture, &store, window)?;
            stores.insert(name.clone(), cut(&store, window)?);
        }
        let HeldOut { every, windows: limit, .. } = *settings;
        Ok(HeldOutPlan { every, limit, micro_batch, mask_documents: true, stores })
    }

    /// Evaluates every store and logs the losses.
    pub(crate) fn evaluate(
        &self,
        engine: &mut dyn Engine,
        progress: &Progress,
        metrics: &mut MetricsLog,
        monitor: &mut Monitor,
        observer: &mut dyn Observer,
    ) -> Result<(), Error> {
        if self.stores.is_empty() {
            return Ok(());
        }
        let mut losses = BTreeMap::new();
        for (name, windows) in &self.stores {
            let loss = self.loss(engine, windows)?;
            if !loss.is_finite() {
                return Err(Error::HeldOutNotFinite { step: progress.step, store: name.clone() });
            }
            losses.insert(name.clone(), loss);
        }
        let record = EvalRecord { step: progress.step, tokens: progress.tokens, held_out: losses };
        metrics.eval(&record)?;
        observer.eval(&record);
        monitor.eval(&record, metrics, observer)
    }

    /// Mean next-token loss, in nats a token.
    fn loss(&self, engine: &mut dyn Engine, windows: &Windows) -> Result<f64, Error> {
        let count = if self.limit == 0 { windows.len() } else { self.limit.min(windows.len()) };
        let (mut sum, mut tokens) = (0.0, 0u64);
        for first in (0..count).step_by(self.micro_batch) {
            let part: Vec<_> = (first..count.min(first + self.micro_batch as u64))
                .map(|index| windows.window(index))
                .collect();
            let batch = Batch::stack(&part, self.mask_documents);
            let log_probs = engine.log_probs(LEARNER, &batch, Predictions::All)?;
            for (log_prob, _) in log_probs.iter().zip(&batch.mask).filter(|(_, counts)| **counts) {
                sum -= f64::from(*log_prob);
                tokens += 1;
            }
        }
        Ok(sum / tokens as f64)
    }
}
