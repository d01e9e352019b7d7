//! Examples to windows: many short sequences in each, best-fit decreasing, none cut.

use std::collections::BTreeSet;
use std::ops::Range;

use remit_batch::Window;
use remit_fault::fault;

use super::Example;
use crate::Error;
use crate::order::Shuffle;

/// The version of the packing rule; part of the layout hash.
const RULE_VERSION: u32 = 1;

/// Numbers turned into bytes at once.
const HASHED_AT_ONCE: usize = 1 << 18;

/// Examples packed into windows of `T` predictions, in memory.
///
/// A window holds `T + 1` tokens, so that sequences up to that length fit, and as many sequences as fit one after
/// another. Sequences are taken from the longest to the shortest, and each goes where it leaves the least room
/// (best-fit decreasing); equal ones in the order in which they came. The layout is a function of their lengths alone.
#[derive(Clone, Debug)]
pub struct Packed {
    length: usize,
    pad: u32,
    num_dropped: u64,
    /// All sequences, one after another in the order in which they came.
    tokens: Vec<u32>,
    /// By token: whether the prediction that asks for it counts.
    counts: Bits,
    /// The end of each sequence in `tokens`.
    ends: Vec<usize>,
    /// The sequences of all windows, and the end of each window in them.
    sequences: Vec<u32>,
    window_ends: Vec<usize>,
}

/// What a packing holds.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct PackSummary {
    /// Examples packed.
    pub examples: u64,
    /// Examples left out because they are too long.
    pub dropped: u64,
    /// Their windows.
    pub windows: u64,
    /// Tokens of the examples, prompts included.
    pub tokens: u64,
    /// Predictions that count: the tokens of completions.
    pub completion_tokens: u64,
    /// Tokens as a share of what the windows could hold.
    pub fill: f64,
}

impl Packed {
    /// Packs examples into windows of `length` predictions, filled up with `pad`.
    ///
    /// # Errors
    /// When `length` is 0 or there is no example.
    ///
    /// # Panics
    /// When an example is longer than a window: whoever makes examples for windows checks it.
    pub fn pack(
        examples: impl IntoIterator<Item = Example>,
        length: usize,
        pad: u32,
    ) -> Result<Packed, Error> {
        let mut packed = Packed::begin(length, pad)?;
        examples.into_iter().for_each(|example| packed.push(&example));
        packed.finish(0)
    }

    /// A packing that examples are pushed to before it is finished.
    pub(super) fn begin(length: usize, pad: u32) -> Result<Packed, Error> {
        if length == 0 {
            return Err(fault!("the window length must be at least 1, not 0"));
        }
        Ok(Packed {
            length,
            pad,
            num_dropped: 0,
            tokens: Vec::new(),
            counts: Bits::default(),
            ends: Vec::new(),
            sequences: Vec::new(),
            window_ends: Vec::new(),
        })
    }

    /// Lays all examples out; `num_dropped` is kept for the summary.
    pub(super) fn finish(mut self, num_dropped: u64) -> Result<Packed, Error> {
        if self.ends.is_empty() {
            return Err(no_examples(num_dropped, self.length));
        }
        self.num_dropped = num_dropped;
        let lengths: Vec<usize> = (0..self.ends.len()).map(|i| self.sequence(i).len()).collect();
        for bin in best_fit_decreasing(&lengths, self.length + 1) {
            self.sequences.extend(bin);
            self.window_ends.push(self.sequences.len());
        }
        Ok(self)
    }

    pub(super) fn push(&mut self, example: &Example) {
        let Example { tokens, mask } = example;
        assert_eq!(mask.len() + 1, tokens.len(), "one mask entry a prediction");
        assert!(tokens.len() <= self.length + 1, "an example fits a window");
        self.tokens.extend_from_slice(tokens);
        self.counts.push(false);
        mask.iter().for_each(|&counts| self.counts.push(counts));
        self.ends.push(self.tokens.len());
    }

    /// Where sequence `index` lies in `tokens`.
    fn sequence(&self, index: usize) -> Range<usize> {
        index.checked_sub(1).map_or(0, |before| self.ends[before])..self.ends[index]
    }

    /// Window `index`. Each sequence is one document of its own: with masked documents, none sees another. The
    /// prediction from the last token of a sequence to the first of the next counts for nothing and belongs to the
    /// former, so that every sequence's first prediction reads its own first token.
    ///
    /// # Panics
    /// When there is no such window.
    pub fn window(&self, index: u64) -> Window {
        let mut tokens = Vec::with_capacity(self.length + 1);
        let mut counts = Vec::with_capacity(self.length + 1);
        let mut documents = Vec::with_capacity(self.length + 1);
        for (document, &sequence) in self.sequences_of(index).iter().enumerate() {
            let range = self.sequence(sequence as usize);
            documents.resize(documents.len() + range.len(), document as u32);
            counts.extend(range.clone().map(|i| self.counts.get(i)));
            tokens.extend_from_slice(&self.tokens[range]);
        }
        tokens.resize(self.length + 1, self.pad);
        counts.resize(self.length + 1, false);
        documents.resize(self.length, *documents.last().expect("a window has a sequence"));
        Window { index, tokens, mask: counts.split_off(1), documents }
    }

    /// The examples of window `index`, by the order in which they came.
    ///
    /// # Panics
    /// When there is no such window.
    pub fn sequences_of(&self, index: u64) -> &[u32] {
        assert!(index < self.len(), "window {index} is one of the {}", self.len());
        let index = index as usize;
        let start = index.checked_sub(1).map_or(0, |before| self.window_ends[before]);
        &self.sequences[start..self.window_ends[index]]
    }

    /// Predictions a window, `T`.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Windows in all.
    pub fn len(&self) -> u64 {
        self.window_ends.len() as u64
    }

    /// Whether there is none; there always is one.
    pub fn is_empty(&self) -> bool {
        self.window_ends.is_empty()
    }

    /// The window at `position` of an endless order: every window once an epoch, shuffled anew each epoch by `seed`.
    pub fn order(&self, seed: u64, position: u64) -> u64 {
        Shuffle::new(self.len(), seed, "examples").at(position)
    }

    /// Counts.
    pub fn summary(&self) -> PackSummary {
        let tokens = self.tokens.len() as u64;
        PackSummary {
            examples: self.ends.len() as u64,
            dropped: self.num_dropped,
            windows: self.len(),
            tokens,
            completion_tokens: self.counts.num_set(),
            fill: tokens as f64 / (self.len() * (self.length as u64 + 1)) as f64,
        }
    }

    /// What identifies the examples, in hexadecimal: their tokens, their masks and where each ends.
    pub fn content_hash(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"remit examples 1 ").update(&(self.tokens.len() as u64).to_le_bytes());
        let mut update = |bytes: Vec<u8>| {
            hasher.update_rayon(&bytes);
        };
        for tokens in self.tokens.chunks(HASHED_AT_ONCE) {
            update(tokens.iter().flat_map(|token| token.to_le_bytes()).collect());
        }
        for words in self.counts.words.chunks(HASHED_AT_ONCE) {
            update(words.iter().flat_map(|word| word.to_le_bytes()).collect());
        }
        for ends in self.ends.chunks(HASHED_AT_ONCE) {
            update(ends.iter().flat_map(|&end| (end as u64).to_le_bytes()).collect());
        }
        hasher.finalize().to_hex().to_string()
    }

    /// What identifies the layout, in hexadecimal: the rule of packing, the length and the padding. What is packed
    /// has a hash of its own, [`content_hash`](Self::content_hash).
    pub fn layout_hash(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"remit packed layout").update(&RULE_VERSION.to_le_bytes());
        hasher.update(&(self.length as u64).to_le_bytes()).update(&self.pad.to_le_bytes());
        hasher.finalize().to_hex().to_string()
    }
}

pub(super) fn no_examples(num_dropped: u64, length: usize) -> Error {
    let error = match num_dropped {
        0 => fault!("there is no example: the files have no rows"),
        dropped => {
            fault!("there is no example: all {dropped} are longer than a window of {length} predictions")
        }
    };
    error.with_hint("check `files`, and `too_long` if it is \"drop\"")
}

impl Example {
    /// The example alone in a window of `length` predictions, filled up with `pad`.
    ///
    /// # Panics
    /// When it is longer than that: whoever makes examples for windows checks it.
    pub fn window(&self, index: u64, length: usize, pad: u32) -> Window {
        assert!(self.tokens.len() <= length + 1, "an example fits a window");
        let (mut tokens, mut mask) = (self.tokens.clone(), self.mask.clone());
        tokens.resize(length + 1, pad);
        mask.resize(length, false);
        Window { index, tokens, mask, documents: vec![0; length] }
    }
}

/// Items of the given sizes in bins of one capacity: from the largest to the smallest, each into the fullest bin that
/// has room, the earliest of equals; a new bin where none has. In `O(n log n)`.
fn best_fit_decreasing(sizes: &[usize], capacity: usize) -> Vec<Vec<u32>> {
    let mut order: Vec<u32> = (0..u32::try_from(sizes.len()).expect("fewer than 2^32 examples")).collect();
    order.sort_by_key(|&item| std::cmp::Reverse(sizes[item as usize]));
    let mut bins: Vec<Vec<u32>> = Vec::new();
    // Bins with room, by how much.
    let mut open: BTreeSet<(usize, usize)> = BTreeSet::new();
    for item in order {
        let size = sizes[item as usize];
        let (room, bin) = match open.range((size, 0)..).next() {
            Some(&fullest) => {
                open.remove(&fullest);
                fullest
            }
            None => {
                bins.push(Vec::new());
                (capacity, bins.len() - 1)
            }
        };
        bins[bin].push(item);
        if room > size {
            open.insert((room - size, bin));
        }
    }
    bins
}

/// A vector of bits.
#[derive(Clone, Debug, Default)]
struct Bits {
    words: Vec<u64>,
    len: usize,
}

impl Bits {
    fn push(&mut self, bit: bool) {
        if self.len.is_multiple_of(64) {
            self.words.push(0);
        }
        *self.words.last_mut().expect("there is a word") |= u64::from(bit) << (self.len % 64);
        self.len += 1;
    }

    fn get(&self, index: usize) -> bool {
        self.words[index / 64] >> (index % 64) & 1 == 1
    }

    fn num_set(&self) -> u64 {
        self.words.iter().map(|word| u64::from(word.count_ones())).sum()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use remit_batch::Batch;

    use super::*;

    fn example(tokens: &[u32], mask: &[bool]) -> Example {
        Example { tokens: tokens.to_vec(), mask: mask.to_vec() }
    }

    fn three() -> Vec<Example> {
        vec![
            example(&[1, 2, 3], &[false, true]),
            example(&[4, 5], &[true]),
            example(&[6, 7, 8, 9], &[false, true, true]),
        ]
    }

    #[test]
    fn windows_hold_whole_examples_and_seams_count_for_nothing() {
        let packed = Packed::pack(three(), 4, 99).unwrap();
        let alone = Window {
            index: 0,
            tokens: vec![6, 7, 8, 9, 99],
            mask: vec![false, true, true, false],
            documents: vec![0, 0, 0, 0],
        };
        let shared = Window {
            index: 1,
            tokens: vec![1, 2, 3, 4, 5],
            mask: vec![false, true, false, true],
            documents: vec![0, 0, 0, 1],
        };
        assert_eq!((packed.len(), packed.window(0), packed.window(1)), (2, alone.clone(), shared.clone()));
        let batch = Batch::stack(&[alone, shared], true);
        assert_eq!(batch.starts, Some(vec![0, 0, 0, 0, 0, 0, 0, 3]), "the second begins at its first token");
        let summary = packed.summary();
        assert_eq!((summary.examples, summary.windows, summary.tokens), (3, 2, 9));
        assert_eq!((summary.completion_tokens, summary.fill), (4, 0.9));
        assert_eq!((packed.sequences_of(0), packed.sequences_of(1)), (&[2][..], &[0, 1][..]));
    }

    #[test]
    fn an_example_alone_is_padded() {
        let window = example(&[1, 2, 3], &[false, true]).window(5, 4, 99);
        let expected = Window {
            index: 5,
            tokens: vec![1, 2, 3, 99, 99],
            mask: vec![false, true, false, false],
            documents: vec![0; 4],
        };
        assert_eq!(window, expected);
    }

    #[test]
    fn hashes_tell_contents_and_layouts_apart() {
        let base = Packed::pack(three(), 4, 99).unwrap();
        assert_eq!(Packed::pack(three(), 4, 99).unwrap().content_hash(), base.content_hash());
        let change = |change: fn(&mut Vec<Example>)| {
            let mut examples = three();
            change(&mut examples);
            Packed::pack(examples, 4, 99).unwrap().content_hash()
        };
        let others = [
            change(|examples| examples[1].tokens[0] = 44),
            change(|examples| examples[0].mask[0] = true),
            change(|examples| examples.swap(0, 1)),
            // The same tokens and bits, cut elsewhere.
            change(|examples| {
                examples[0] = example(&[1, 2], &[false]);
                examples[1] = example(&[3, 4, 5], &[false, true]);
            }),
        ];
        for other in others {
            assert_ne!(other, base.content_hash());
        }
        let longer = Packed::pack(three(), 5, 99).unwrap();
        assert_eq!(longer.content_hash(), base.content_hash());
        assert_ne!(longer.layout_hash(), base.layout_hash());
    }

    #[test]
    fn each_epoch_is_another_permutation() {
        let examples = (0..50).map(|i| example(&[i, i + 1], &[true]));
        let packed = Packed::pack(examples, 1, 0).unwrap();
        assert_eq!(packed.len(), 50);
        let epoch = |seed, epoch: u64| -> Vec<u64> {
            (epoch * 50..(epoch + 1) * 50).map(|position| packed.order(seed, position)).collect()
        };
        let all: Vec<u64> = (0..50).collect();
        let orders = [epoch(1, 0), epoch(1, 1), epoch(2, 0)];
        for order in &orders {
            let mut sorted = order.clone();
            sorted.sort();
            assert_eq!(sorted, all);
        }
        assert!(orders[0] != orders[1] && orders[0] != orders[2] && orders[0] != all);
        assert_eq!(epoch(1, 1), orders[1]);
    }

    #[test]
    fn nothing_to_pack_is_an_error() {
        assert_eq!(
            Packed::pack([], 4, 0).unwrap_err().to_string(),
            "there is no example: the files have no rows"
        );
        assert_eq!(
            Packed::pack(three(), 0, 0).unwrap_err().to_string(),
            "the window length must be at least 1, not 0"
        );
    }

    /// In the order in which they come, each into the first bin that has room.
    fn first_fit(sizes: &[usize], capacity: usize) -> usize {
        let mut rooms: Vec<usize> = Vec::new();
        for &size in sizes {
            match rooms.iter_mut().find(|room| **room >= size) {
                Some(room) => *room -= size,
                None => rooms.push(capacity - size),
            }
        }
        rooms.len()
    }

    /// No theorem (a few sizes that fit badly are a counterexample), but so it is with lengths as data have them.
    #[test]
    fn windows_are_at_least_as_full_as_by_first_fit() {
        let mut state = 1u64;
        let mut dice = move |sides: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 33) % sides) as usize
        };
        let (mut saved, capacity) = (0, 257);
        for round in 0..40 {
            let sizes: Vec<usize> = (0..600)
                .map(|_| match round % 4 {
                    0 => 2 + dice(255),
                    1 => 2 + dice(100) * dice(100) / 100,
                    2 => 60 + dice(80),
                    _ => 2 + [dice(20), dice(255)][dice(2)],
                })
                .collect();
            let bins = best_fit_decreasing(&sizes, capacity).len();
            let by_first_fit = first_fit(&sizes, capacity);
            assert!(bins <= by_first_fit, "{bins} and {by_first_fit}");
            saved += by_first_fit - bins;
        }
        assert!(saved > 100, "{saved}");
    }

    proptest! {
        #[test]
        fn every_example_is_there_once_unbroken_with_its_mask(
            length in 1usize..40,
            shapes in prop::collection::vec((2usize..60, any::<u64>()), 1..80),
        ) {
            let mut next = 0;
            let examples: Vec<Example> = shapes
                .iter()
                .map(|&(size, bits)| {
                    let size = size.min(length + 1);
                    let tokens: Vec<u32> = (next..next + size as u32).collect();
                    next += size as u32;
                    Example { tokens, mask: (0..size - 1).map(|i| bits >> (i % 64) & 1 == 1).collect() }
                })
                .collect();
            let packed = Packed::pack(examples.clone(), length, u32::MAX).unwrap();
            let mut seen = vec![0; examples.len()];
            let mut num_counted = 0;
            let mut rooms = Vec::new();
            for index in 0..packed.len() {
                let window = packed.window(index);
                prop_assert_eq!((window.tokens.len(), window.mask.len()), (length + 1, length));
                prop_assert_eq!(window.documents.len(), length);
                num_counted += window.mask.iter().filter(|&&counts| counts).count();
                let mut start = 0;
                for (document, &sequence) in packed.sequences_of(index).iter().enumerate() {
                    let example = &examples[sequence as usize];
                    let end = start + example.tokens.len();
                    seen[sequence as usize] += 1;
                    prop_assert_eq!(&window.tokens[start..end], &example.tokens[..]);
                    prop_assert_eq!(&window.mask[start..end - 1], &example.mask[..]);
                    let documents = &window.documents[start..end.min(length)];
                    prop_assert!(documents.iter().all(|&one| one == document as u32));
                    start = end;
                }
                prop_assert!(window.tokens[start..].iter().all(|&token| token == u32::MAX));
                rooms.push(length + 1 - start);
            }
            prop_assert!(seen.iter().all(|&count| count == 1));
            // Nothing counts but what examples count.
            prop_assert_eq!(num_counted, examples.iter().map(Example::num_completion_tokens).sum::<usize>());
            // No two windows could be one.
            rooms.sort();
            if let [.., a, b] = rooms[..] {
                prop_assert!(a + b <= length + 1);
            }
        }
    }
}
