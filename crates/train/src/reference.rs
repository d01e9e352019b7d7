//! The reference's log-probabilities: from its own forward pass, from a score store, or none.

use crate::Error;
use remit_batch::Batch;
use remit_engine::{Engine, ModelId, Predictions};
use remit_store::scores::ScoreStore;

/// Where the reference's log-probabilities come from.
#[derive(Debug)]
pub enum Reference {
    /// The objective needs none.
    None,
    /// Computed beside the learner, one forward pass a token.
    Online(ModelId),
    /// Read from a score store.
    Scored(Box<ScoreStore>),
}

impl Reference {
    /// The log-probability of every target of the batch, `[W, T]`.
    ///
    /// # Errors
    /// One that counts and is not finite; scores that cannot be read; an engine that fails.
    pub fn log_probs(&self, engine: &mut dyn Engine, batch: &Batch) -> Result<Option<Vec<f32>>, Error> {
        match self {
            Reference::None => Ok(None),
            Reference::Online(model) => {
                let scores = engine.log_probs(*model, batch, Predictions::All)?;
                let bad =
                    scores.iter().zip(&batch.mask).position(|(score, &counts)| counts && !score.is_finite());
                match bad {
                    Some(row) => Err(Error::ReferenceNotFinite { window: batch.indices[row / batch.length] }),
                    None => Ok(Some(scores)),
                }
            }
            Reference::Scored(store) => {
                let mut scores = vec![0.0; batch.num_predictions()];
                for (&window, scores) in batch.indices.iter().zip(scores.chunks_mut(batch.length)) {
                    store.scores(window, scores)?;
                }
                Ok(Some(scores))
            }
        }
    }
}
