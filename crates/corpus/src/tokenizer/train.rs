//! Training a byte-level BPE tokenizer, with the same result for the same input every time.
//!
//! The rule is that of the `tokenizers` library (count words, then merge the most frequent pair of neighbours again
//! and again, the pair of lower ids first among equals), which cannot be used itself: its order among equals depends
//! on the random seeds of its hash maps, and it counts in 32 bits.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::path::Path;

use rayon::prelude::*;
use remit_fault::fault;
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::utils::SysRegex;
use tokenizers::{AddedToken, SplitDelimiterBehavior, Tokenizer as Inner};

use super::byte_level::byte_characters;
use super::{CONFIG_FILE, failed};
use crate::read::{Content, Cursor, UNIT_BYTES, UnitSettings, Units, find_files, total_bytes};
use crate::{Error, Progress, Source, error};

/// How to train a tokenizer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainTokenizer {
    /// What to learn from. Weights and repeats play no part; raw token arrays have no text and are an error.
    pub sources: Vec<Source>,
    /// Tokens wanted in all: special tokens, the 256 bytes and merges. Fewer when the text has no more pairs.
    pub vocab_size: u32,
    /// Special tokens, which take the first ids. The first of them ends documents.
    #[serde(default = "default_special_tokens")]
    pub special_tokens: Vec<String>,
    /// A pair must occur this often to be merged.
    #[serde(default = "default_min_frequency")]
    pub min_frequency: u64,
    /// Whether digits stand alone.
    #[serde(default)]
    pub digits: Digits,
    /// Count, report and skip malformed records.
    #[serde(default)]
    pub skip_bad_records: bool,
}

/// How numbers are split before merging.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Digits {
    /// Every digit is a token, which is easier for arithmetic.
    #[default]
    Single,
    /// Up to three digits may become a token.
    Group,
}

/// A trained tokenizer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrainedTokenizer {
    /// The bytes of `tokenizer.json`.
    pub json: Vec<u8>,
    /// The bytes of `tokenizer_config.json`.
    pub config: Vec<u8>,
    /// Tokens in all.
    pub vocab_size: u32,
}

impl TrainTokenizer {
    /// Settings with everything but the sources and the size at its default.
    pub fn new(sources: Vec<Source>, vocab_size: u32) -> TrainTokenizer {
        TrainTokenizer {
            sources,
            vocab_size,
            special_tokens: default_special_tokens(),
            min_frequency: default_min_frequency(),
            digits: Digits::default(),
            skip_bad_records: false,
        }
    }
}

impl TrainedTokenizer {
    /// Writes `tokenizer.json` to `path` and `tokenizer_config.json` beside it, so that `transformers` opens the
    /// directory with `AutoTokenizer.from_pretrained`. Missing directories are made.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(|cause| error::io("create", parent, cause))?;
        }
        remit_store::atomic::write(&path.with_file_name(CONFIG_FILE), &self.config)?;
        remit_store::atomic::write(path, &self.json)?;
        Ok(())
    }
}

/// Trains a byte-level BPE tokenizer. Memory grows with the number of different words, not with the text.
///
/// # Errors
/// For sources as in [`prepare`](crate::prepare()), and for settings that make no sense.
pub fn train_tokenizer(
    settings: &TrainTokenizer,
    progress: &dyn Progress,
) -> Result<TrainedTokenizer, Error> {
    let TrainTokenizer { sources, vocab_size, special_tokens, min_frequency, digits, skip_bad_records } =
        settings;
    let mut distinct = special_tokens.clone();
    distinct.sort();
    distinct.dedup();
    if distinct.len() < special_tokens.len() || distinct.first().is_some_and(String::is_empty) {
        return Err(fault!(
            "special_tokens must be a list of different, non-empty names, not {special_tokens:?}"
        ));
    }
    if (*vocab_size as usize) < 256 + special_tokens.len() {
        return Err(fault!("vocab_size must be at least 256 bytes and the special tokens, not {vocab_size}"));
    }
    let words = count_words(sources, expression(*digits), *skip_bad_records, progress)?;
    progress.message(&format!("{} different words; merging", words.len()));

    let characters = byte_characters();
    let mut alphabet = characters;
    alphabet.sort_unstable();
    let mut tokens: Vec<String> = special_tokens.clone();
    tokens.extend(alphabet.iter().map(char::to_string));
    let num_merges = *vocab_size as usize - tokens.len();
    let merges = merge(&words, &mut tokens, special_tokens.len(), num_merges, *min_frequency);
    if tokens.len() < *vocab_size as usize {
        progress.message(&format!(
            "the text has pairs for {} tokens only, not for the {vocab_size} asked for",
            tokens.len()
        ));
    }
    let vocab_size = tokens.len() as u32;
    Ok(TrainedTokenizer {
        json: tokenizer_json(&tokens, merges, special_tokens, *digits)?,
        config: config_json(special_tokens),
        vocab_size,
    })
}

fn default_special_tokens() -> Vec<String> {
    vec!["<|endoftext|>".into()]
}

fn default_min_frequency() -> u64 {
    2
}

/// What is a word: the expression of GPT-4 and Llama 3, with single digits if wanted.
fn expression(digits: Digits) -> &'static str {
    match digits {
        Digits::Single => {
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        }
        Digits::Group => {
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        }
    }
}

/// How often each word occurs, sorted by word.
fn count_words(
    sources: &[Source],
    expression: &str,
    skip_bad_records: bool,
    progress: &dyn Progress,
) -> Result<Vec<(String, u64)>, Error> {
    let regex = SysRegex::new(expression).map_err(failed)?;
    let count = |counts: &mut FxHashMap<String, u64>, text: &str| {
        let mut add = |word: &str| match counts.get_mut(word) {
            Some(count) => *count += 1,
            None => {
                counts.insert(word.to_owned(), 1);
            }
        };
        let mut end = 0;
        for (from, to) in regex.find_iter(text) {
            if end < from {
                add(&text[end..from]);
            }
            add(&text[from..to]);
            end = to;
        }
        if end < text.len() {
            add(&text[end..]);
        }
    };
    let sources = find_files(sources, progress)?;
    for source in &sources {
        if let Some(file) = source.files.iter().find(|file| file.format.is_tokens()) {
            let path = file.path.display();
            return Err(fault!("`{path}`: a tokenizer learns from text, and this is an array of tokens"));
        }
    }
    let unit_settings = UnitSettings { unit_bytes: UNIT_BYTES, skip_bad_records, eos: None, vocab_size: 0 };
    let mut units = Units::new(&sources, unit_settings, Cursor::default());
    let total_bytes = total_bytes(&sources);
    let (mut total, mut num_skipped): (FxHashMap<String, u64>, u64) = Default::default();
    progress.advance(units.bytes_done(), total_bytes, 0);
    while let Some(unit) = units.next()? {
        let texts: Vec<&str> = unit
            .pieces
            .iter()
            .map(|piece| match &piece.content {
                Content::Text(text) => text.as_str(),
                Content::Tokens(_) => "",
            })
            .collect();
        let counted = texts
            .par_chunks(texts.len().div_ceil(4 * rayon::current_num_threads()).max(1))
            .map(|texts| {
                let mut counts = FxHashMap::default();
                texts.iter().for_each(|text| count(&mut counts, text));
                counts
            })
            .collect::<Vec<_>>();
        for (word, count) in counted.into_iter().flatten() {
            *total.entry(word).or_default() += count;
        }
        num_skipped += unit.skipped.count;
        progress.advance(unit.bytes_done, total_bytes, 0);
    }
    if num_skipped > 0 {
        progress.message(&format!("skipped {num_skipped} malformed records"));
    }
    if total.is_empty() {
        let names: Vec<_> = sources.iter().map(|source| source.source.name.as_str()).collect();
        return Err(error::empty_source(&names.join("`, `"), "there is no text"));
    }
    let mut words: Vec<_> = total.into_iter().collect();
    words.sort_unstable();
    Ok(words)
}

type Pair = (u32, u32);

/// Merges the most frequent pairs, appending to `tokens`; the merges in order.
fn merge(
    words: &[(String, u64)],
    tokens: &mut Vec<String>,
    first_character: usize,
    num_wanted: usize,
    min_frequency: u64,
) -> Vec<(String, String)> {
    let characters = byte_characters();
    let mut ids: FxHashMap<String, u32> = tokens
        .iter()
        .enumerate()
        .skip(first_character)
        .map(|(id, token)| (token.clone(), id as u32))
        .collect();
    let byte_ids = characters.map(|character| ids[&character.to_string()]);
    let mut split: Vec<Vec<u32>> =
        words.iter().map(|(word, _)| word.bytes().map(|byte| byte_ids[byte as usize]).collect()).collect();

    let mut counts: FxHashMap<Pair, u64> = FxHashMap::default();
    // Words in which a pair occurs or has occurred; looked at when the pair is merged.
    let mut places: FxHashMap<Pair, Vec<u32>> = FxHashMap::default();
    for (index, symbols) in split.iter().enumerate() {
        for pair in symbols.windows(2) {
            let pair = (pair[0], pair[1]);
            *counts.entry(pair).or_default() += words[index].1;
            let places = places.entry(pair).or_default();
            if places.last() != Some(&(index as u32)) {
                places.push(index as u32);
            }
        }
    }
    let mut queue: BinaryHeap<(u64, Reverse<Pair>)> =
        counts.iter().map(|(&pair, &count)| (count, Reverse(pair))).collect();

    let target = tokens.len() + num_wanted;
    let mut merges = Vec::new();
    while tokens.len() < target {
        let Some((count, Reverse(pair))) = queue.pop() else { break };
        let now = counts.get(&pair).copied().unwrap_or(0);
        if now != count {
            // An entry of the queue goes out of date when a neighbour is merged; it goes back to its right place.
            if now > 0 {
                queue.push((now, Reverse(pair)));
            }
            continue;
        }
        if count < min_frequency.max(1) {
            break;
        }
        let (left, right) = (&tokens[pair.0 as usize], &tokens[pair.1 as usize]);
        let token = format!("{left}{right}");
        merges.push((left.clone(), right.clone()));
        // Two ways to the same text share one token.
        let id = *ids.entry(token).or_insert_with_key(|token| {
            tokens.push(token.clone());
            (tokens.len() - 1) as u32
        });

        // What a merge adds to and takes from each pair; ordered, so that equal runs push in an equal order.
        let mut changes: BTreeMap<Pair, i64> = BTreeMap::new();
        let mut at = places.remove(&pair).unwrap_or_default();
        at.sort_unstable();
        at.dedup();
        for index in at {
            let symbols = &mut split[index as usize];
            let weight = words[index as usize].1 as i64;
            for pair in symbols.windows(2) {
                *changes.entry((pair[0], pair[1])).or_default() -= weight;
            }
            replace(symbols, pair, id);
            for pair in symbols.windows(2) {
                let pair = (pair[0], pair[1]);
                *changes.entry(pair).or_default() += weight;
                if pair.0 == id || pair.1 == id {
                    let places = places.entry(pair).or_default();
                    if places.last() != Some(&index) {
                        places.push(index);
                    }
                }
            }
        }
        for (changed, change) in changes {
            if change == 0 {
                continue;
            }
            let count = counts.entry(changed).or_default();
            *count =
                count.checked_add_signed(change).expect("no pair is taken away more often than it occurs");
            let count = *count;
            if count == 0 {
                counts.remove(&changed);
            } else if change > 0 {
                queue.push((count, Reverse(changed)));
            }
        }
    }
    merges
}

/// Replaces each occurrence of `pair`, from the left, by `id`.
fn replace(symbols: &mut Vec<u32>, pair: Pair, id: u32) {
    let (mut from, mut to) = (0, 0);
    while from < symbols.len() {
        if from + 1 < symbols.len() && (symbols[from], symbols[from + 1]) == pair {
            symbols[to] = id;
            from += 2;
        } else {
            symbols[to] = symbols[from];
            from += 1;
        }
        to += 1;
    }
    symbols.truncate(to);
}

fn tokenizer_json(
    tokens: &[String],
    merges: Vec<(String, String)>,
    special_tokens: &[String],
    digits: Digits,
) -> Result<Vec<u8>, Error> {
    let vocab = tokens.iter().enumerate().map(|(id, token)| (token.clone(), id as u32));
    let model = BPE::builder().vocab_and_merges(vocab.collect::<Vocab>(), merges).build().map_err(failed)?;
    let split =
        Split::new(SplitPattern::Regex(expression(digits).into()), SplitDelimiterBehavior::Isolated, false)
            .map_err(failed)?;
    let byte_level = ByteLevel::new(false, false, false);
    let mut tokenizer = Inner::new(model);
    tokenizer.with_pre_tokenizer(Some(Sequence::new(vec![split.into(), byte_level.into()])));
    tokenizer.with_decoder(Some(ByteLevel::new(false, false, true)));
    let special: Vec<_> = special_tokens.iter().map(|token| AddedToken::from(token.as_str(), true)).collect();
    tokenizer.add_special_tokens(special).map_err(failed)?;
    let json = tokenizer.to_string(true).map_err(failed)?;
    Ok(json.into_bytes())
}

fn config_json(special_tokens: &[String]) -> Vec<u8> {
    let mut config = serde_json::json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": false,
        "model_max_length": 1_000_000_000_u64,
    });
    if let Some(eos) = special_tokens.first() {
        config["eos_token"] = eos.as_str().into();
        // Named as absent so that nothing else is taken for it.
        config["bos_token"] = serde_json::Value::Null;
    }
    let mut bytes = serde_json::to_vec_pretty(&config).expect("a map of plain values is valid JSON");
    bytes.push(b'\n');
    bytes
}
