//! The shared nouns: packed windows, document spans, the loss mask, and the one next-token alignment rule.
//!
//! A window of length `T` holds `T + 1` consecutive tokens and so `T` *predictions*: prediction `t` sees tokens
//! `0..=t` and is asked for token `t + 1`. Neighbouring windows of a corpus overlap by one token, so every token but
//! the very first of a source is predicted exactly once. Everything that is per token from here on (mask, documents,
//! log-probabilities, scores, weights) is indexed by prediction: `T` a window, row-major `[W, T]` a batch.
//!
//! Shape letters: `W` windows, `T` predictions a window.

mod rule;

pub use rule::Rule;

/// One packed training sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Its place in the window layout of its token store; scores are found by it.
    pub index: u64,
    /// `T + 1` token ids.
    pub tokens: Vec<u32>,
    /// `[T]`: true where the prediction counts in the loss. Padding and, later, prompts do not.
    pub mask: Vec<bool>,
    /// `[T]`: the document of each prediction, counted from 0 in every window, never decreasing.
    /// A prediction belongs to the document of the token it is asked for, so the end-of-document token in front of a
    /// document is the first thing that document's predictions see. Where each document brings its own first token
    /// (packed examples), a prediction belongs to the document of the token that it reads: the one from the last token
    /// of a document to the first of the next is the former's, and is masked out.
    pub documents: Vec<u32>,
}

/// Windows stacked for one forward pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Number of windows, `W`.
    pub num_windows: usize,
    /// Predictions a window, `T`.
    pub length: usize,
    /// The windows' places in their layout, `[W]`.
    pub indices: Vec<u64>,
    /// What the model reads, `[W, T]`.
    pub inputs: Vec<u32>,
    /// What it is asked for, `[W, T]`: `targets[w, t]` is the token after `inputs[w, t]`.
    pub targets: Vec<u32>,
    /// `[W, T]`, true where the prediction counts in the loss.
    pub mask: Vec<bool>,
    /// `[W, T]`, the document of each prediction within its window.
    pub documents: Vec<u32>,
    /// `[W, T]`, the first position each prediction may attend to; `None` when documents see one another.
    pub starts: Option<Vec<u32>>,
}

impl Batch {
    /// Stacks windows of one length. With `mask_documents`, predictions attend within their own document only.
    ///
    /// # Panics
    /// When there is no window or the windows differ in length: whoever cuts windows gives them one length.
    pub fn stack(windows: &[Window], mask_documents: bool) -> Batch {
        let length = windows.first().expect("a batch has at least one window").mask.len();
        let mut batch = Batch {
            num_windows: windows.len(),
            length,
            indices: windows.iter().map(|window| window.index).collect(),
            inputs: Vec::with_capacity(windows.len() * length),
            targets: Vec::with_capacity(windows.len() * length),
            mask: Vec::with_capacity(windows.len() * length),
            documents: Vec::with_capacity(windows.len() * length),
            starts: None,
        };
        for window in windows {
            assert_eq!(window.tokens.len(), length + 1, "windows of one batch have one length");
            assert_eq!(window.mask.len(), length, "one mask entry a prediction");
            assert_eq!(window.documents.len(), length, "one document a prediction");
            let (inputs, targets) = align(&window.tokens);
            batch.inputs.extend_from_slice(inputs);
            batch.targets.extend_from_slice(targets);
            batch.mask.extend_from_slice(&window.mask);
            batch.documents.extend_from_slice(&window.documents);
        }
        if mask_documents {
            batch.starts = Some(batch.documents.chunks(length).flat_map(document_starts).collect());
        }
        batch
    }

    /// Number of predictions, masked ones included: `W * T`.
    pub fn num_predictions(&self) -> usize {
        self.inputs.len()
    }

    /// Number of predictions that count in the loss.
    pub fn num_unmasked(&self) -> usize {
        self.mask.iter().filter(|&&counts| counts).count()
    }
}

/// The next-token alignment rule: of `n + 1` tokens, what the model reads and what it is asked for.
pub fn align(tokens: &[u32]) -> (&[u32], &[u32]) {
    assert!(tokens.len() >= 2, "a window has at least one prediction");
    (&tokens[..tokens.len() - 1], &tokens[1..])
}

/// For each prediction of one window, the first position of its document.
fn document_starts(documents: &[u32]) -> Vec<u32> {
    let mut start = 0;
    (0..documents.len())
        .map(|t| {
            if t > 0 && documents[t] != documents[t - 1] {
                start = t as u32;
            }
            start
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(tokens: &[u32], documents: &[u32]) -> Window {
        Window {
            index: 7,
            tokens: tokens.to_vec(),
            mask: vec![true; documents.len()],
            documents: documents.to_vec(),
        }
    }

    #[test]
    fn the_target_of_a_position_is_the_token_after_it() {
        assert_eq!(align(&[5, 6, 7, 8]), (&[5, 6, 7][..], &[6, 7, 8][..]));
    }

    #[test]
    fn stacking_keeps_order_and_counts() {
        let mut second = window(&[4, 5, 6], &[0, 0]);
        second.mask[1] = false;
        let batch = Batch::stack(&[window(&[1, 2, 3], &[0, 1]), second], false);
        assert_eq!(batch.inputs, [1, 2, 4, 5]);
        assert_eq!(batch.targets, [2, 3, 5, 6]);
        assert_eq!((batch.num_predictions(), batch.num_unmasked()), (4, 3));
        assert_eq!(batch.starts, None);
    }

    #[test]
    fn masked_documents_start_where_they_begin() {
        let batch = Batch::stack(&[window(&[1, 2, 3, 4, 5, 6], &[0, 0, 1, 2, 2])], true);
        assert_eq!(batch.starts, Some(vec![0, 0, 2, 3, 3]));
    }
}
