//! A model that is only read, with its buffers.

use crate::{Error, Predictions, Usage};
use remit_batch::Batch;
use remit_kernels::head::Scratch;
use remit_model::{Decoder, Frozen, Input, Keep, Storage, Workspace};
use remit_objective::Distance;

/// A frozen model with its buffers.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) model: Frozen,
    pub(super) buffers: Buffers,
}

/// What a forward pass and its head write to.
#[derive(Debug)]
pub(super) struct Buffers {
    temperature: f32,
    keep: Keep,
    /// There from the first pass on.
    pub(super) workspace: Option<Workspace>,
    /// Rows that the workspace has, or will have at least.
    rows: usize,
    /// What the head reads, where that differs from what the model gave.
    hidden: Vec<f32>,
    pub(super) scratch: Scratch,
}

/// What the model reads of a batch.
pub(super) fn input(batch: &Batch) -> Input<'_> {
    Input { ids: &batch.inputs, length: batch.length, starts: batch.starts.as_deref() }
}

impl Buffers {
    pub(super) fn new(usage: &Usage, keep: Keep) -> Buffers {
        Buffers {
            temperature: usage.temperature,
            keep,
            workspace: None,
            rows: usage.rows,
            hidden: Vec::new(),
            scratch: Scratch::default(),
        }
    }

    /// Makes room for a batch, and rotations for its windows.
    pub(super) fn reserve<P: Storage>(&mut self, model: &mut Decoder<P>, batch: &Batch) -> Result<(), Error> {
        model.allow_length(batch.length)?;
        let rows = batch.num_predictions();
        if self.workspace.is_none() || rows > self.rows {
            self.rows = self.rows.max(rows);
            // The former one goes first: there is never room for both.
            self.workspace = None;
            self.workspace = Some(Workspace::new(model.architecture(), self.rows, self.keep));
        }
        Ok(())
    }

    /// The log-probability of the targets that are asked for.
    pub(super) fn log_probs<P: Storage>(
        &mut self,
        model: &mut Decoder<P>,
        batch: &Batch,
        predictions: Predictions,
    ) -> Result<Vec<f32>, Error> {
        self.reserve(model, batch)?;
        let workspace = self.workspace.as_mut().expect("it was reserved");
        let hidden = model.forward(input(batch), workspace);
        let head = model.head();
        let rows = match predictions {
            Predictions::All => {
                let hidden = cooled(hidden, self.temperature, &mut self.hidden);
                head.log_probs(hidden, model.head_weights(), &batch.targets, &mut self.scratch)
            }
            Predictions::Unmasked => {
                self.hidden.clear();
                let mut targets = Vec::new();
                for (row, _) in batch.mask.iter().enumerate().filter(|(_, counts)| **counts) {
                    let row_hidden = &hidden[row * head.width..][..head.width];
                    match self.temperature {
                        1.0 => self.hidden.extend_from_slice(row_hidden),
                        temperature => self.hidden.extend(row_hidden.iter().map(|value| value / temperature)),
                    }
                    targets.push(batch.targets[row]);
                }
                head.log_probs(&self.hidden, model.head_weights(), &targets, &mut self.scratch)
            }
        };
        Ok(rows.log_probs)
    }
}

/// `hidden` divided by the temperature, in `buffer` where that changes anything: the logits are linear in it.
pub(super) fn cooled<'a>(hidden: &'a [f32], temperature: f32, buffer: &'a mut Vec<f32>) -> &'a [f32] {
    if temperature == 1.0 {
        return hidden;
    }
    buffer.clear();
    buffer.extend(hidden.iter().map(|value| value / temperature));
    buffer
}

impl Reader {
    pub(super) fn new(mut model: Frozen, usage: &Usage) -> Result<Reader, Error> {
        model.allow_length(usage.length)?;
        model.precision = usage.precision;
        Ok(Reader { model, buffers: Buffers::new(usage, Keep::Nothing) })
    }

    pub(super) fn log_probs(&mut self, batch: &Batch, predictions: Predictions) -> Result<Vec<f32>, Error> {
        self.buffers.log_probs(&mut self.model, batch, predictions)
    }

    /// How far `reference` is apart from this model, prediction by prediction.
    pub(super) fn distances(
        &mut self,
        reference: &mut Reader,
        batch: &Batch,
    ) -> Result<Vec<Distance>, Error> {
        for reader in [&mut *self, &mut *reference] {
            reader.buffers.reserve(&mut reader.model, batch)?;
        }
        let [own, other] = [&mut self.buffers, &mut reference.buffers];
        let hidden = self.model.forward(input(batch), own.workspace.as_mut().expect("it was reserved"));
        let other_hidden =
            reference.model.forward(input(batch), other.workspace.as_mut().expect("it was reserved"));
        let distances = self.model.head().compare(
            hidden,
            self.model.head_weights(),
            (&reference.model.head(), other_hidden, reference.model.head_weights()),
            |row, own, other| batch.mask[row].then(|| Distance::of(own, other, batch.targets[row] as usize)),
            &mut own.scratch,
            &mut other.scratch,
        );
        Ok(distances.into_iter().flatten().collect())
    }
}
