//! The update on sampled completions: sequences packed into windows, the policy loss on top of `train`'s trainer.

use crate::settings::Settings;
use remit_batch::{Batch, Rule};
use remit_corpus::examples::{Example, Packed};
use remit_engine::{Engine, ModelId, Predictions};
use remit_objective::{BatchSize, Grpo, PolicyStatistics, PolicySummary, Rollouts};
use remit_train::Refusal;
use std::ops::Range;

/// A prompt with a sampled completion.
#[derive(Clone, Debug, PartialEq)]
pub struct Sequence {
    /// Its tokens, and which predictions are of the completion's.
    pub example: Example,
    /// `[n - 1]`: the sampler's log-probability of each prediction; of prompts, nothing that matters.
    pub sampler: Vec<f32>,
    /// How much better it is than the others of its group.
    pub advantage: f64,
}

impl Sequence {
    /// Of a prompt and a completion with the sampler's log-probabilities. A completion that does not `count` is in
    /// the batch, but none of its tokens is in the loss.
    pub fn new(
        prompt: &[u32],
        completion: &[u32],
        log_probs: &[f32],
        advantage: f64,
        counts: bool,
    ) -> Sequence {
        let given = prompt.len() - 1;
        let mut mask = vec![false; given];
        mask.resize(given + completion.len(), counts);
        let mut sampler = vec![0.0; given];
        sampler.extend_from_slice(log_probs);
        Sequence { example: Example { tokens: [prompt, completion].concat(), mask }, sampler, advantage }
    }
}

/// What an update reports.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// Loss, clip shares, KL.
    pub summary: PolicySummary,
    /// Global norm of the gradient before clipping.
    pub gradient_norm: f64,
    /// Largest difference of a log-probability between trainer and sampler, in nats.
    pub gap: f64,
}

/// One optimiser step on `sequences`. On policy the ratio to the sampler is 1 by definition; otherwise it is that of
/// the log-probabilities. `window` holds the longest sequence.
///
/// # Errors
/// A loss or gradient that is not finite; parameters and moments are as they were.
pub fn update(
    engine: &mut dyn Engine,
    sequences: &[Sequence],
    settings: &Settings,
    window: usize,
    reference: Option<ModelId>,
    on_policy: bool,
    learning_rate: f64,
) -> Result<Outcome, Refusal> {
    let (summary, gap) = differentiate(engine, sequences, settings, window, reference, on_policy)?;
    let gradient_norm = engine.update(learning_rate)?;
    Ok(Outcome { summary, gradient_norm, gap })
}

/// Leaves the gradient of the policy loss over `sequences` in the engine; returns the figures and the largest difference
/// of a log-probability between trainer and sampler.
pub fn differentiate(
    engine: &mut dyn Engine,
    sequences: &[Sequence],
    settings: &Settings,
    window: usize,
    reference: Option<ModelId>,
    on_policy: bool,
) -> Result<(PolicySummary, f64), Refusal> {
    let grpo = &settings.grpo;
    // The denominator is that of the whole batch, counted before anything is left out.
    let masks = sequences.iter().map(|sequence| (sequence.example.mask.len(), &sequence.example.mask[..]));
    let size = BatchSize::count(masks);
    // Without a KL term a sequence whose advantage is 0 moves nothing, and its passes can be spared.
    let moving: Vec<&Sequence> = sequences
        .iter()
        .filter(|sequence| sequence.advantage != 0.0 || grpo.needs_reference())
        .filter(|sequence| sequence.example.mask.contains(&true))
        .collect();
    engine.begin();
    let (mut statistics, mut gap) = (PolicyStatistics::default(), 0f64);
    if moving.is_empty() {
        return Ok((statistics.summary(), gap));
    }
    let examples = moving.iter().map(|sequence| sequence.example.clone());
    let packed = Packed::pack(examples, window, 0).map_err(remit_train::Error::from)?;
    let indices: Vec<u64> = (0..packed.len()).collect();
    for indices in indices.chunks(settings.micro_batch_windows) {
        let windows: Vec<_> = indices.iter().map(|&index| packed.window(index)).collect();
        let batch = Batch::stack(&windows, true);
        let mut placed = Vec::new();
        for (row, &index) in indices.iter().enumerate() {
            let mut start = row * window;
            for &sequence in packed.sequences_of(index) {
                let sequence = moving[sequence as usize];
                let predictions = sequence.example.mask.len();
                placed.push(Placed { rows: start..start + predictions, sequence });
                start += predictions + 1;
            }
        }
        let log_probs = |reference| engine.log_probs(reference, &batch, Predictions::All);
        let reference = reference.map(log_probs).transpose()?;
        let mut rule = PolicyRule {
            grpo,
            size,
            mask: &batch.mask,
            placed: &placed,
            reference: reference.as_deref(),
            on_policy,
            statistics: &mut statistics,
            gap: &mut gap,
        };
        engine.accumulate(&batch, window, &mut rule)?;
    }
    Ok((statistics.summary(), gap))
}

/// A sequence and the rows of a batch that are its predictions.
struct Placed<'a> {
    rows: Range<usize>,
    sequence: &'a Sequence,
}

/// The policy loss over one micro-batch, in the form that the head asks for it.
struct PolicyRule<'a> {
    grpo: &'a Grpo,
    size: BatchSize,
    mask: &'a [bool],
    /// In the order of their rows.
    placed: &'a [Placed<'a>],
    reference: Option<&'a [f32]>,
    on_policy: bool,
    statistics: &'a mut PolicyStatistics,
    gap: &'a mut f64,
}

impl Rule for PolicyRule<'_> {
    fn differentiate(
        &mut self,
        first: usize,
        log_probs: &[f32],
        _lse: &[f32],
        d_log_probs: &mut [f32],
        _d_lse: &mut [f32],
    ) {
        let end = first + log_probs.len();
        let begin = self.placed.partition_point(|placed| placed.rows.start < first);
        for Placed { rows, sequence } in
            self.placed[begin..].iter().take_while(|placed| placed.rows.start < end)
        {
            let here = rows.start - first..rows.end - first;
            let (mask, learner) = (&self.mask[rows.clone()], &log_probs[here.clone()]);
            for ((learner, sampler), _) in
                learner.iter().zip(&sequence.sampler).zip(mask).filter(|(_, counts)| **counts)
            {
                *self.gap = self.gap.max(f64::from((learner - sampler).abs()));
            }
            let rollouts = Rollouts {
                length: rows.len(),
                mask,
                learner,
                sampler: (!self.on_policy).then_some(&sequence.sampler[..]),
                reference: self.reference.map(|reference| &reference[rows.clone()]),
                advantages: &[sequence.advantage],
            };
            self.statistics.merge(&self.grpo.evaluate(&rollouts, self.size, &mut d_log_probs[here]));
        }
    }
}
