//! What the method does to given tokens: both models' log-probabilities, delta and weight of each.

use crate::Error;
use remit_batch::{Batch, Window};
use remit_engine::{Engine, ModelId, Predictions};
use remit_objective::{Objective, Signals, Statistics, StepSummary};

/// One sequence, every stream one shorter than `ids`.
#[derive(Clone, Debug, PartialEq)]
pub struct Weighed {
    /// The tokens.
    pub ids: Vec<u32>,
    /// The learner's log-probability of each token but the first.
    pub learner: Vec<f32>,
    /// The reference's.
    pub reference: Vec<f32>,
    /// Reference minus learner.
    pub delta: Vec<f32>,
    /// The token weight.
    pub weights: Vec<f32>,
}

/// Weighs sequences under `objective`, each by itself; batch-wide statistics run over all of them.
///
/// # Errors
/// Sequences of less than two tokens; otherwise as [`weigh_windows`].
pub fn weigh(
    engine: &mut dyn Engine,
    learner: ModelId,
    reference: ModelId,
    objective: &Objective,
    sequences: &[Vec<u32>],
) -> Result<(Vec<Weighed>, StepSummary), Error> {
    if let Some((index, ids)) = sequences.iter().enumerate().find(|(_, ids)| ids.len() < 2) {
        return Err(Error::TooShort { index, length: ids.len() });
    }
    // Windows of a batch have one length: shorter sequences are filled up, and what is filled up counts nowhere.
    let length = sequences.iter().map(|ids| ids.len() - 1).max().unwrap_or(1);
    let windows: Vec<Window> = sequences
        .iter()
        .map(|ids| {
            let mut tokens = ids.clone();
            tokens.resize(length + 1, 0);
            let mask = (0..length).map(|t| t + 1 < ids.len()).collect();
            Window { index: 0, tokens, mask, documents: vec![0; length] }
        })
        .collect();
    let (mut weighed, summary) = weigh_windows(engine, learner, reference, objective, &windows, false)?;
    for (weighed, ids) in weighed.iter_mut().zip(sequences) {
        let Weighed { ids: filled, learner, reference, delta, weights } = weighed;
        filled.truncate(ids.len());
        for stream in [learner, reference, delta, weights] {
            stream.truncate(ids.len() - 1);
        }
    }
    Ok((weighed, summary))
}

/// Weighs windows of one length under `objective` as a step would, in one batch; `mask_documents` hides the documents of
/// a window from one another.
///
/// # Errors
/// Models of two vocabularies; ids that are none; log-probabilities that are not finite.
pub fn weigh_windows(
    engine: &mut dyn Engine,
    learner: ModelId,
    reference: ModelId,
    objective: &Objective,
    windows: &[Window],
    mask_documents: bool,
) -> Result<(Vec<Weighed>, StepSummary), Error> {
    let vocab_size = |model| engine.architecture(model).vocab_size;
    let (learner_vocab, reference_vocab) = (vocab_size(learner), vocab_size(reference));
    if learner_vocab != reference_vocab {
        return Err(Error::VocabulariesDiffer { learner: learner_vocab, reference: reference_vocab });
    }
    for window in windows {
        engine.architecture(learner).check_ids(&window.tokens)?;
    }
    let length = windows.first().map_or(1, |window| window.mask.len());
    let (mut mask, mut documents, mut streams) = (Vec::new(), Vec::new(), [Vec::new(), Vec::new()]);
    for (index, window) in windows.iter().enumerate() {
        let batch = Batch::stack(std::slice::from_ref(window), mask_documents);
        let models = [(learner, "learner"), (reference, "reference")];
        for ((model, role), stream) in models.into_iter().zip(&mut streams) {
            let log_probs = engine.log_probs(model, &batch, Predictions::All)?;
            let mut counted = log_probs.iter().zip(&window.mask).filter(|(_, counts)| **counts);
            if counted.any(|(log_prob, _)| !log_prob.is_finite()) {
                return Err(Error::SequenceNotFinite { role, index });
            }
            stream.extend(log_probs);
        }
        mask.extend(&window.mask);
        documents.extend(&window.documents);
    }
    let [learner, reference] = streams;
    let signals = Signals {
        length,
        mask: &mask,
        documents: &documents,
        learner: &learner,
        reference: Some(&reference),
    };
    let denominator = objective.denominator(length, [&mask[..]])?;
    let (mut weights, mut derivative) = (vec![0.0; mask.len()], vec![0.0; mask.len()]);
    let statistics: Statistics = objective.evaluate(&signals, denominator, &mut weights, &mut derivative);
    let weighed = windows.iter().enumerate().map(|(index, window)| {
        let range = index * length..(index + 1) * length;
        Weighed {
            ids: window.tokens.clone(),
            learner: learner[range.clone()].to_vec(),
            reference: reference[range.clone()].to_vec(),
            delta: reference[range.clone()].iter().zip(&learner[range.clone()]).map(|(r, l)| r - l).collect(),
            weights: weights[range].to_vec(),
        }
    });
    Ok((weighed.collect(), statistics.summary(denominator)))
}
