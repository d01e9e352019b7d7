//! What the method does to given tokens: both models' log-probabilities, delta and weight of each.

use crate::Error;
use crate::reference::Online;
use remit_batch::{Batch, Window};
use remit_model::Frozen;
use remit_objective::{Objective, Signals, Statistics, Summary};

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
pub fn weigh(
    learner: impl Into<Frozen>,
    reference: impl Into<Frozen>,
    objective: &Objective,
    sequences: &[Vec<u32>],
) -> Result<(Vec<Weighed>, Summary), Error> {
    let (learner, reference) = (learner.into(), reference.into());
    let (learner_vocab, reference_vocab) =
        (learner.architecture().vocab_size, reference.architecture().vocab_size);
    if learner_vocab != reference_vocab {
        return Err(Error::VocabulariesDiffer { learner: learner_vocab, reference: reference_vocab });
    }
    for (index, ids) in sequences.iter().enumerate() {
        if ids.len() < 2 {
            return Err(Error::TooShort { index, length: ids.len() });
        }
        learner.check_ids(ids)?;
    }
    // Windows of a batch have one length: shorter sequences are filled up, and what is filled up counts nowhere.
    let length = sequences.iter().map(|ids| ids.len() - 1).max().unwrap_or(1);
    let mut models = [Online::new(learner, length, length)?, Online::new(reference, length, length)?];
    let (mut mask, mut streams) = (Vec::new(), [Vec::new(), Vec::new()]);
    for (index, ids) in sequences.iter().enumerate() {
        let mut tokens = ids.clone();
        tokens.resize(length + 1, 0);
        let counts: Vec<bool> = (0..length).map(|t| t + 1 < ids.len()).collect();
        let window = Window { index: 0, tokens, mask: counts.clone(), documents: vec![0; length] };
        let batch = Batch::stack(&[window], false);
        for ((model, stream), role) in models.iter_mut().zip(&mut streams).zip(["learner", "reference"]) {
            let log_probs = model.log_probs(&batch);
            if log_probs[..ids.len() - 1].iter().any(|log_prob| !log_prob.is_finite()) {
                return Err(Error::SequenceNotFinite { role, index });
            }
            stream.extend(log_probs);
        }
        mask.extend(counts);
    }
    let [learner, reference] = streams;
    let signals = Signals {
        length,
        mask: &mask,
        documents: &vec![0; mask.len()],
        learner: &learner,
        reference: Some(&reference),
    };
    let denominator = objective.denominator(length, [&mask[..]])?;
    let (mut weights, mut derivative) = (vec![0.0; mask.len()], vec![0.0; mask.len()]);
    let statistics: Statistics = objective.evaluate(&signals, denominator, &mut weights, &mut derivative);
    let weighed = sequences.iter().enumerate().map(|(index, ids)| {
        let range = index * length..index * length + ids.len() - 1;
        Weighed {
            ids: ids.clone(),
            learner: learner[range.clone()].to_vec(),
            reference: reference[range.clone()].to_vec(),
            delta: reference[range.clone()].iter().zip(&learner[range.clone()]).map(|(r, l)| r - l).collect(),
            weights: weights[range].to_vec(),
        }
    });
    Ok((weighed.collect(), statistics.summary(denominator)))
}
