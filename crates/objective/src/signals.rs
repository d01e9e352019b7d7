//! The input of every rule: equal-length streams, one entry a prediction.
//!
//! Shape letters: `W` windows, `T` predictions a window; all streams are `[W, T]`, row-major.

use std::ops::Range;

/// What is known about each prediction, named by who computed it. A view: nothing is copied.
///
/// Masked predictions influence nothing, whatever their entries hold.
#[derive(Clone, Copy, Debug)]
pub struct Signals<'a> {
    /// Predictions a window, `T`.
    pub length: usize,
    /// `[W, T]`: true where the prediction counts.
    pub mask: &'a [bool],
    /// `[W, T]`: the document of each prediction, never decreasing within a window.
    pub documents: &'a [u32],
    /// `[W, T]`: the learner's log-probability of the target, in nats.
    pub learner: &'a [f32],
    /// `[W, T]`: the reference's log-probability of the same target, where there is a reference.
    pub reference: Option<&'a [f32]>,
}

impl<'a> Signals<'a> {
    /// Number of windows, `W`.
    pub fn num_windows(&self) -> usize {
        self.mask.len() / self.length
    }

    /// The signals of one window alone.
    pub fn window(&self, index: usize) -> Signals<'a> {
        let range = index * self.length..(index + 1) * self.length;
        Signals {
            length: self.length,
            mask: &self.mask[range.clone()],
            documents: &self.documents[range.clone()],
            learner: &self.learner[range.clone()],
            reference: self.reference.map(|reference| &reference[range]),
        }
    }

    /// The learner's loss of prediction `i`, in nats.
    pub(crate) fn nll(&self, i: usize) -> f64 {
        -f64::from(self.learner[i])
    }

    /// log p_reference - log p_learner of prediction `i`.
    pub(crate) fn gap(&self, i: usize) -> f64 {
        self.reference(i) - f64::from(self.learner[i])
    }

    /// The reference's log-probability of prediction `i`.
    pub(crate) fn reference(&self, i: usize) -> f64 {
        f64::from(self.reference.expect("the caller asked `needs_reference` before it built the signals")[i])
    }

    /// The places of the unmasked predictions in `range`, in order.
    pub(crate) fn unmasked(&self, range: Range<usize>) -> impl Iterator<Item = usize> + use<'a> {
        let mask = self.mask;
        range.filter(move |&i| mask[i])
    }

    /// The places of all unmasked predictions, in order.
    pub(crate) fn all_unmasked(&self) -> impl Iterator<Item = usize> + use<'a> {
        self.unmasked(0..self.mask.len())
    }

    /// Cuts the predictions into the groups that share a mean; they are contiguous and cover everything.
    pub(crate) fn groups(&self, scope: Scope) -> Vec<Range<usize>> {
        let windows = (0..self.num_windows()).map(|w| w * self.length..(w + 1) * self.length);
        match scope {
            Scope::Batch => vec![Range { start: 0, end: self.mask.len() }],
            Scope::Window => windows.collect(),
            Scope::Document => windows.flat_map(|window| self.documents_of(window)).collect(),
        }
    }

    /// The documents of one window. Only unmasked predictions open a new one, so that the document written at a masked
    /// prediction has no influence.
    fn documents_of(&self, window: Range<usize>) -> Vec<Range<usize>> {
        let mut starts = Vec::new();
        let mut current = None;
        for i in self.unmasked(window.clone()) {
            if current != Some(self.documents[i]) {
                current = Some(self.documents[i]);
                starts.push(i);
            }
        }
        let ends = starts.iter().copied().skip(1).chain([window.end]);
        starts.iter().copied().zip(ends).map(|(start, end)| start..end).collect()
    }

    /// Asserts that the streams belong together.
    pub(crate) fn check(&self, outputs: &[&[f32]]) {
        let size = self.mask.len();
        assert!(
            self.length > 0 && size.is_multiple_of(self.length),
            "{size} predictions in windows of {}",
            self.length
        );
        assert_eq!(self.documents.len(), size, "one document a prediction");
        assert_eq!(self.learner.len(), size, "one learner log-probability a prediction");
        if let Some(reference) = self.reference {
            assert_eq!(reference.len(), size, "one reference log-probability a prediction");
        }
        for output in outputs {
            assert_eq!(output.len(), size, "one output a prediction");
        }
    }
}

/// Which predictions are looked at together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// All predictions given.
    Batch,
    /// Each window by itself.
    Window,
    /// Each document of each window by itself.
    Document,
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [bool; 6] = [true; 6];

    fn signals<'a>(mask: &'a [bool], documents: &'a [u32]) -> Signals<'a> {
        Signals { length: 3, mask, documents, learner: &[0.0; 6], reference: None }
    }

    #[test]
    fn groups_follow_windows_and_documents() {
        let documents = [0, 0, 1, 1, 1, 1];
        let signals = signals(&ALL, &documents);
        assert_eq!(signals.groups(Scope::Batch), vec![Range { start: 0, end: 6 }]);
        assert_eq!(signals.groups(Scope::Window), [0..3, 3..6]);
        // The same number in two windows is two documents.
        assert_eq!(signals.groups(Scope::Document), [0..2, 2..3, 3..6]);
    }

    #[test]
    fn a_masked_prediction_opens_no_document() {
        let mask = [true, false, true, false, true, true];
        assert_eq!(signals(&mask, &[0, 9, 0, 7, 1, 1]).groups(Scope::Document), [0..3, 4..6]);
        assert_eq!(signals(&[false; 6], &[0; 6]).groups(Scope::Document), []);
    }

    #[test]
    fn a_window_is_cut_out_of_every_stream() {
        let learner = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0];
        let batch = Signals {
            length: 2,
            mask: &[true, true, false, true, true, true],
            documents: &[0, 0, 1, 2, 3, 4],
            learner: &learner,
            reference: Some(&learner),
        };
        let window = batch.window(1);
        assert_eq!((batch.num_windows(), window.num_windows()), (3, 1));
        assert_eq!((window.mask, window.documents), (&[false, true][..], &[1, 2][..]));
        assert_eq!((window.learner, window.reference), (&[2.0, 3.0][..], Some(&[2.0, 3.0][..])));
    }
}
