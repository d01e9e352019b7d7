//! The step over pairs: chosen and rejected through the learner, the preference loss, the gradient.

use crate::Refusal;
use remit_batch::Batch;
use remit_batch::Rule;
use remit_corpus::examples::Example;
use remit_engine::Engine;
use remit_objective::dpo::PreferenceStatistics;
use remit_objective::{Dpo, PreferenceSummary, Preferences};

/// A pair with what the reference says about it.
#[derive(Clone, Copy, Debug)]
pub struct Pair<'a> {
    /// Its place among all pairs.
    pub index: u64,
    /// Chosen and rejected.
    pub sides: [&'a Example; 2],
    /// The reference's log-probabilities of the predictions that count, of the two.
    pub reference: [&'a [f32]; 2],
}

/// What is minimised over pairs.
#[derive(Clone, Debug, PartialEq)]
pub struct PreferenceStep {
    /// The loss.
    pub loss: Dpo,
    /// Pairs a forward pass.
    pub micro_batch: usize,
    /// What sequences are filled up with. It changes nothing: no prediction that counts sees it.
    pub pad: u32,
}

/// What a step reports.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// Loss, margin, accuracy, rewards.
    pub summary: PreferenceSummary,
    /// Global norm of the gradient before clipping.
    pub gradient_norm: f64,
}

impl PreferenceStep {
    /// One optimiser step on `pairs`.
    ///
    /// # Errors
    /// A loss, named by its pair's index, or a gradient that is not finite; parameters and moments are as they were.
    pub fn take(
        &self,
        engine: &mut dyn Engine,
        pairs: &[Pair],
        learning_rate: f64,
    ) -> Result<Outcome, Refusal> {
        let summary = self.differentiate(engine, pairs)?;
        let gradient_norm = engine.update(learning_rate)?;
        Ok(Outcome { summary, gradient_norm })
    }

    /// Leaves the gradient of the loss over `pairs` in the engine; returns the figures.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    ///
    /// # Panics
    /// When a pair has another number of log-probabilities than of predictions that count.
    pub fn differentiate(
        &self,
        engine: &mut dyn Engine,
        pairs: &[Pair],
    ) -> Result<PreferenceSummary, Refusal> {
        let mut statistics = PreferenceStatistics::default();
        engine.begin();
        for part in pairs.chunks(self.micro_batch) {
            let batch = self.stack(part);
            let reference = reference(part, &batch);
            let mut rule = PreferenceRule {
                loss: &self.loss,
                batch: &batch,
                reference: &reference,
                batch_pairs: pairs.len() as u64,
                statistics: &mut statistics,
            };
            // Two rows together, so that whatever the head cuts the micro-batch into has whole pairs.
            engine.accumulate(&batch, 2 * batch.length, &mut rule)?;
        }
        Ok(statistics.summary())
    }

    /// The sequences of some pairs, each chosen one in front of its rejected one, filled up to the longest.
    fn stack(&self, pairs: &[Pair]) -> Batch {
        let sequences = || pairs.iter().flat_map(|pair| pair.sides.map(|side| (pair.index, side)));
        let length = sequences().map(|(_, side)| side.mask.len()).max().expect("a micro-batch has a pair");
        let windows: Vec<_> = sequences().map(|(index, side)| side.window(index, length, self.pad)).collect();
        Batch::stack(&windows, false)
    }
}

/// The reference's log-probabilities laid out as the predictions of `batch`, 0 where none counts.
fn reference(pairs: &[Pair], batch: &Batch) -> Vec<f32> {
    let mut stream = vec![0.0; batch.num_predictions()];
    let sequences = pairs.iter().flat_map(|pair| pair.reference);
    let rows = stream.chunks_mut(batch.length).zip(batch.mask.chunks(batch.length));
    for ((row, mask), log_probs) in rows.zip(sequences) {
        let counting = row.iter_mut().zip(mask).filter(|(_, counts)| **counts).map(|(entry, _)| entry);
        let mut given = log_probs.iter();
        counting.for_each(|entry| *entry = *given.next().expect("a log-probability a prediction"));
        assert_eq!(given.len(), 0, "a prediction a log-probability");
    }
    stream
}

/// The preference loss over one micro-batch, in the form that the head asks for it.
struct PreferenceRule<'a> {
    loss: &'a Dpo,
    batch: &'a Batch,
    reference: &'a [f32],
    /// Of the whole optimiser batch.
    batch_pairs: u64,
    statistics: &'a mut PreferenceStatistics,
}

impl Rule for PreferenceRule<'_> {
    fn differentiate(
        &mut self,
        first: usize,
        log_probs: &[f32],
        _lse: &[f32],
        d_log_probs: &mut [f32],
        _d_lse: &mut [f32],
    ) {
        let rows = first..first + log_probs.len();
        let preferences = Preferences {
            length: self.batch.length,
            mask: &self.batch.mask[rows.clone()],
            learner: log_probs,
            reference: &self.reference[rows],
        };
        self.statistics.merge(&self.loss.evaluate(&preferences, self.batch_pairs, d_log_probs));
    }
}
