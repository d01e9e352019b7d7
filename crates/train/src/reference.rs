//! The reference's log-probabilities: from its own forward pass, from a score store, or none.

use crate::Error;
use crate::trainer::{cooled, input};
use remit_batch::Batch;
use remit_kernels::head::{Head, Scratch};
use remit_model::{Frozen, Keep, Workspace};
use remit_store::scores::ScoreStore;

/// Where the reference's log-probabilities come from.
#[derive(Debug)]
pub enum Reference {
    /// The objective needs none.
    None,
    /// Computed beside the learner, one forward pass a token.
    Online(Box<Online>),
    /// Read from a score store.
    Scored(ScoreStore),
}

/// A frozen model with its buffers.
#[derive(Debug)]
pub struct Online {
    model: Frozen,
    /// What the logits are divided by; 1 except where the learner's are divided as well.
    pub temperature: f32,
    hidden: Vec<f32>,
    workspace: Workspace,
    scratch: Scratch,
}

impl Online {
    /// For batches of up to `rows` predictions in windows of up to `length`.
    pub fn new(model: impl Into<Frozen>, rows: usize, length: usize) -> Result<Online, Error> {
        let mut model = model.into();
        model.allow_length(length)?;
        let workspace = Workspace::new(model.architecture(), rows, Keep::Nothing);
        Ok(Online { model, temperature: 1.0, hidden: Vec::new(), workspace, scratch: Scratch::default() })
    }

    /// What logits are made of: head, hidden rows and the head's matrix, and a buffer for them.
    pub(crate) fn rows(&mut self, batch: &Batch) -> (Head, &[f32], &[f32], &mut Scratch) {
        let hidden = self.model.forward(input(batch), &mut self.workspace);
        (self.model.head(), hidden, self.model.head_parameters(), &mut self.scratch)
    }

    /// The log-probability of every target, `[W, T]`.
    pub fn log_probs(&mut self, batch: &Batch) -> Vec<f32> {
        let hidden = self.model.forward(input(batch), &mut self.workspace);
        let hidden = cooled(hidden, self.temperature, &mut self.hidden);
        let head = self.model.head();
        head.log_probs(hidden, self.model.head_parameters(), &batch.targets, &mut self.scratch).log_probs
    }
}

impl Reference {
    /// The log-probability of every target of the batch, `[W, T]`.
    pub fn log_probs(&mut self, batch: &Batch) -> Result<Option<Vec<f32>>, Error> {
        match self {
            Reference::None => Ok(None),
            Reference::Online(online) => {
                let scores = online.log_probs(batch);
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
