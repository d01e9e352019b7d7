//! Token stores cut into training sequences.

use remit_batch::Window;
use remit_fault::fault;

use crate::{Error, TokenStore};

/// The version of the cutting rule; part of the layout hash.
const RULE_VERSION: u32 = 1;

/// The windows of one length over a token store.
///
/// Window `k` of a source holds the source's tokens `[k * length, k * length + length + 1)`: neighbours share one
/// token, so that every token but a source's first is asked for exactly once. Windows never cross sources. The last
/// window of a source is filled up with end-of-document tokens (or 0) that no prediction counts for. A source of
/// fewer than two tokens has no window.
#[derive(Clone, Debug)]
pub struct Windows {
    store: TokenStore,
    length: u64,
    /// Index of the first window of each source, and their number at the end.
    first: Vec<u64>,
}

impl Windows {
    /// Cuts `store` into windows of `length` predictions, that is `length + 1` tokens. Takes no time: a window is
    /// read when it is asked for.
    ///
    /// # Errors
    /// When `length` is 0.
    pub fn cut(store: &TokenStore, length: usize) -> Result<Windows, Error> {
        if length == 0 {
            return Err(fault!("the window length must be at least 1, not 0"));
        }
        let length = length as u64;
        let mut first = vec![0];
        for source in &store.manifest().sources {
            let num_windows = source.num_tokens.saturating_sub(1).div_ceil(length);
            first.push(first.last().expect("it begins with 0") + num_windows);
        }
        Ok(Windows { store: store.clone(), length, first })
    }

    /// Window `index`, counted over all sources in order.
    ///
    /// # Panics
    /// When there is no such window.
    pub fn window(&self, index: u64) -> Window {
        let source = self.source_of(index);
        let entry = &self.store.manifest().sources[source];
        let start = entry.first_token + (index - self.first[source]) * self.length;
        let end = (start + self.length + 1).min(entry.first_token + entry.num_tokens);

        let mut tokens = self.store.tokens(start..end);
        let num_real = tokens.len() - 1;
        let length = self.length as usize;
        tokens.resize(length + 1, self.store.eos().unwrap_or(0));
        let mask = (0..length).map(|t| t < num_real).collect();

        // The document of a prediction is that of its target, the token after it.
        let mut document = self.store.document_of(start + 1);
        let first_document = document;
        let mut document_end = self.store.document(document).end;
        let mut documents = Vec::with_capacity(length);
        for target in start + 1..end {
            if target == document_end {
                document += 1;
                document_end = self.store.document(document).end;
            }
            documents.push((document - first_document) as u32);
        }
        documents.resize(length, *documents.last().expect("a window has at least one real prediction"));
        Window { index, tokens, mask, documents }
    }

    /// The store they are cut from.
    pub fn store(&self) -> &TokenStore {
        &self.store
    }

    /// Predictions a window.
    pub fn length(&self) -> usize {
        self.length as usize
    }

    /// Windows in all.
    pub fn len(&self) -> u64 {
        self.first[self.first.len() - 1]
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The index of the source of window `index`, in the order of the manifest.
    ///
    /// # Panics
    /// When there is no such window.
    pub fn source_of(&self, index: u64) -> usize {
        assert!(index < self.len(), "window {index} is one of the {}", self.len());
        self.first.partition_point(|&first| first <= index) - 1
    }

    /// The windows of a source, by its index in the manifest.
    ///
    /// # Panics
    /// When there is no such source.
    pub fn of_source(&self, source: usize) -> std::ops::Range<u64> {
        self.first[source]..self.first[source + 1]
    }

    /// Predictions that count, over all windows once: every token but the first of each source.
    pub fn num_predictions(&self) -> u64 {
        self.store.manifest().sources.iter().map(|source| source.num_tokens.saturating_sub(1)).sum()
    }

    /// What identifies this layout, in hexadecimal: the rule of cutting and the length. What is cut has a hash of its
    /// own, [`TokenStore::content_hash`].
    pub fn layout_hash(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"remit window layout");
        hasher.update(&RULE_VERSION.to_le_bytes());
        hasher.update(&self.length.to_le_bytes());
        hasher.finalize().to_hex().to_string()
    }
}
