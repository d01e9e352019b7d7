//! The reference's side of all pairs: computed once, kept under a hash of all that it follows from.
//!
//! A cache has a directory for each hash, and in it `log_probs.safetensors`: one float32 tensor `log_probs` with the
//! log-probability of every prediction that counts, pair after pair, chosen before rejected. What is hashed: the
//! reference's parameters and configuration; the tokens and masks of all pairs, and so files, template, tokenizer and
//! window; the arithmetic. How sequences are put together for the forward passes follows from their lengths alone, so
//! that equal hashes mean equal bits.

use crate::Error;
use crate::run::Observer;
use remit_batch::Batch;
use remit_corpus::examples::Example;
use remit_engine::{Engine, Precision, Predictions, Usage};
use remit_model::{Architecture, Frozen, Keep, Workspace};
use remit_store::Lock;
use remit_store::hash::{hash_bytes, hash_checkpoint};
use remit_store::tensors::{FileDtype, TensorFile, TensorOut, write_tensors};
use std::ops::Range;
use std::path::Path;

/// The version of how log-probabilities are made and laid out; part of the hash.
const VERSION: u32 = 1;
/// Predictions of a forward pass, where sequences are not longer. Part of what [`VERSION`] stands for.
const ROWS: usize = 2048;
/// The tensor, and its file without the ending.
const NAME: &str = "log_probs";

/// The reference's log-probabilities of every prediction that counts.
#[derive(Clone, Debug, PartialEq)]
pub struct ReferenceLogProbs {
    values: Vec<f32>,
    /// The end of each sequence in `values`; sequence `2 i` is the chosen one of pair `i`, `2 i + 1` the rejected one.
    ends: Vec<usize>,
}

impl ReferenceLogProbs {
    /// Those of a pair, chosen and rejected.
    ///
    /// # Panics
    /// When there is no such pair.
    pub fn pair(&self, index: usize) -> [&[f32]; 2] {
        [2 * index, 2 * index + 1].map(|sequence| &self.values[range(&self.ends, sequence)])
    }

    /// Reads them from the directory `cache`, or computes them and leaves them there. Whoever wants the same at the
    /// same time waits.
    ///
    /// # Errors
    /// A model or a file that cannot be read or written; a log-probability that is not finite.
    pub fn obtain(
        cache: &Path,
        key: &str,
        pairs: &[[Example; 2]],
        pass: &Pass<'_>,
        engine: &mut dyn Engine,
        observer: &mut dyn Observer,
    ) -> Result<ReferenceLogProbs, Error> {
        let directory = cache.join(key);
        std::fs::create_dir_all(&directory)
            .map_err(|error| remit_store::Error::io("create", &directory, error))?;
        let _lock = Lock::acquire(&directory, "cache", |held| {
            observer.message(&format!("{held}; waiting for what it computes"));
        })?;
        let ends = ends(pairs);
        let path = directory.join(format!("{NAME}.safetensors"));
        if path.exists() {
            observer.message(&format!("reference log-probabilities: read from `{}`", path.display()));
            return Ok(ReferenceLogProbs { values: read(&path, ends.last().copied().unwrap_or(0))?, ends });
        }
        let values = pass.run(pairs, &ends, engine, observer)?;
        let tensor = TensorOut { name: NAME, shape: &[values.len()], data: &values };
        write_tensors(&directory, NAME, &[tensor], FileDtype::F32, None)?;
        Ok(ReferenceLogProbs { values, ends })
    }
}

/// What the log-probabilities are of, in hexadecimal.
///
/// # Errors
/// A checkpoint that cannot be read.
pub fn key(checkpoint: &Path, pairs: &[[Example; 2]], precision: Precision) -> Result<String, Error> {
    let (reference, pairs) = (hash_checkpoint(checkpoint)?, content_hash(pairs));
    let text = format!("remit preferences {VERSION} {reference} {pairs} {precision:?}");
    Ok(hash_bytes(text.as_bytes()))
}

/// What identifies pairs: their tokens and masks, in their order.
fn content_hash(pairs: &[[Example; 2]]) -> String {
    let mut hashes = Vec::with_capacity(64 * pairs.len());
    let mut bytes = Vec::new();
    for pair in pairs {
        bytes.clear();
        for Example { tokens, mask } in pair {
            bytes.extend((tokens.len() as u64).to_le_bytes());
            bytes.extend(tokens.iter().flat_map(|token| token.to_le_bytes()));
            bytes.extend(mask.iter().map(|&counts| u8::from(counts)));
        }
        hashes.extend(hash_bytes(&bytes).into_bytes());
    }
    hash_bytes(&hashes)
}

/// A pass of the reference over all pairs.
#[derive(Clone, Copy, Debug)]
pub struct Pass<'a> {
    /// The reference.
    pub checkpoint: &'a Path,
    /// Arithmetic of matrix products.
    pub precision: Precision,
    /// What sequences are filled up with.
    pub pad: u32,
}

impl Pass<'_> {
    /// The log-probabilities, sequence after sequence as `ends` says.
    fn run(
        &self,
        pairs: &[[Example; 2]],
        ends: &[usize],
        engine: &mut dyn Engine,
        observer: &mut dyn Observer,
    ) -> Result<Vec<f32>, Error> {
        let usage = Usage {
            rows: rows(pairs),
            length: longest(pairs),
            precision: self.precision,
            ..Usage::default()
        };
        let reference = engine.open(self.checkpoint, &usage)?;
        let mut values = vec![0.0; ends.last().copied().unwrap_or(0)];
        let total = ends.len() as u64;
        let mut done = 0;
        observer.reference(0, total, 0);
        for group in groups(pairs) {
            let length = sequence(pairs, group[0]).mask.len();
            let windows: Vec<_> = group
                .iter()
                .map(|&index| sequence(pairs, index).window(index as u64, length, self.pad))
                .collect();
            let batch = Batch::stack(&windows, false);
            let log_probs = engine.log_probs(reference, &batch, Predictions::All)?;
            let rows = log_probs.chunks(length).zip(batch.mask.chunks(length));
            for (&index, (log_probs, mask)) in group.iter().zip(rows) {
                let counting = log_probs.iter().zip(mask).filter(|(_, counts)| **counts);
                for (value, (log_prob, _)) in values[range(ends, index)].iter_mut().zip(counting) {
                    if !log_prob.is_finite() {
                        return Err(Error::PairNotFinite { role: "reference", pair: index as u64 / 2 + 1 });
                    }
                    *value = *log_prob;
                }
            }
            done += group.len() as u64;
            observer.reference(done, total, batch.num_predictions() as u64);
        }
        engine.close(reference);
        Ok(values)
    }
}

/// Bytes that a pass holds, the files of a large reference left out.
pub(super) fn pass_bytes(architecture: &Architecture, pairs: &[[Example; 2]], precision: Precision) -> u64 {
    let logits = (longest(pairs) * architecture.vocab_size * size_of::<f32>()) as u64;
    Frozen::frozen_bytes(architecture, precision)
        + Workspace::bytes(architecture, rows(pairs), Keep::Nothing)
        + logits.clamp(16 << 20, 512 << 20)
}

/// Log-probabilities from a cache, of which there have to be `count`.
fn read(path: &Path, count: usize) -> Result<Vec<f32>, Error> {
    let wrong = |problem: String| Error::Cache { path: path.to_owned(), problem };
    let file = TensorFile::open(path).map_err(|error| wrong(error.to_string()))?;
    let shape = file.info(NAME).map_err(|error| wrong(error.to_string()))?.shape;
    if shape != [count] {
        return Err(wrong(format!("it has the shape {shape:?} instead of [{count}]")));
    }
    let mut values = vec![0.0; count];
    file.read_f32(NAME, &mut values).map_err(|error| wrong(error.to_string()))?;
    match values.iter().position(|value| !value.is_finite()) {
        Some(place) => Err(wrong(format!("number {place} is {}", values[place]))),
        None => Ok(values),
    }
}

fn sequence(pairs: &[[Example; 2]], index: usize) -> &Example {
    &pairs[index / 2][index % 2]
}

/// Predictions of the longest sequence.
pub(super) fn longest(pairs: &[[Example; 2]]) -> usize {
    pairs.iter().flatten().map(|side| side.mask.len()).max().unwrap_or(0)
}

/// Predictions of the largest forward pass.
fn rows(pairs: &[[Example; 2]]) -> usize {
    ROWS.max(longest(pairs))
}

/// Sequences that go through the reference together: the longest first, as many as [`ROWS`] holds filled up to the
/// first of them, at least one.
fn groups(pairs: &[[Example; 2]]) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..2 * pairs.len()).collect();
    order.sort_by_key(|&index| std::cmp::Reverse(sequence(pairs, index).mask.len()));
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for index in order {
        match groups.last_mut() {
            Some(group) if (group.len() + 1) * sequence(pairs, group[0]).mask.len() <= ROWS => {
                group.push(index)
            }
            _ => groups.push(vec![index]),
        }
    }
    groups
}

/// The end of each sequence among all predictions that count.
fn ends(pairs: &[[Example; 2]]) -> Vec<usize> {
    let counts = pairs.iter().flatten().map(Example::num_completion_tokens);
    counts
        .scan(0, |end, count| {
            *end += count;
            Some(*end)
        })
        .collect()
}

fn range(ends: &[usize], sequence: usize) -> Range<usize> {
    sequence.checked_sub(1).map_or(0, |before| ends[before])..ends[sequence]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sequence of so many predictions, of which the last two count.
    fn example(predictions: usize) -> Example {
        let mask = (0..predictions).map(|t| t + 2 >= predictions).collect();
        Example { tokens: (0..=predictions as u32).collect(), mask }
    }

    fn pair(chosen: usize, rejected: usize) -> [Example; 2] {
        [example(chosen), example(rejected)]
    }

    #[test]
    fn every_sequence_goes_through_once_and_no_pass_is_too_large() {
        let pairs = [pair(900, 5), pair(3000, 1000), pair(700, 3), pair(2048, 900)];
        let groups = groups(&pairs);
        let length = |index: &usize| sequence(&pairs, *index).mask.len();
        assert_eq!(groups[0], [2], "one that is longer than a pass has one of its own");
        let lengths: Vec<Vec<usize>> =
            groups.iter().map(|group| group.iter().map(length).collect()).collect();
        assert_eq!(lengths, [vec![3000], vec![2048], vec![1000, 900], vec![900, 700], vec![5, 3]]);
        assert_eq!(rows(&pairs), 3000);
        let mut all = groups.concat();
        all.sort_unstable();
        assert_eq!(all, (0..8).collect::<Vec<_>>());
    }

    #[test]
    fn the_hash_of_pairs_knows_tokens_masks_sides_and_order() {
        let pairs = [pair(4, 5), pair(6, 3)];
        let hash = content_hash(&pairs);
        assert_eq!(hash, content_hash(&pairs.clone()));
        let changed = |change: fn(&mut [[Example; 2]; 2])| {
            let mut pairs = pairs.clone();
            change(&mut pairs);
            content_hash(&pairs)
        };
        let all = [
            hash,
            changed(|pairs| pairs[1][0].tokens[2] += 1),
            changed(|pairs| pairs[1][1].mask[0] = true),
            changed(|pairs| pairs[0].reverse()),
            changed(|pairs| pairs.reverse()),
        ];
        for (i, hash) in all.iter().enumerate() {
            assert!(!all[..i].contains(hash), "{i}");
        }
    }

    #[test]
    fn sequences_lie_one_after_another() {
        let mut pairs = [pair(4, 5), pair(6, 3)];
        pairs[0][1].mask[0] = true;
        let log_probs = ReferenceLogProbs { values: (0..9).map(|n| n as f32).collect(), ends: ends(&pairs) };
        assert_eq!(log_probs.pair(0), [&[0.0, 1.0][..], &[2.0, 3.0, 4.0]]);
        assert_eq!(log_probs.pair(1), [&[5.0, 6.0][..], &[7.0, 8.0]]);
    }
}
