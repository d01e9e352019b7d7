//! The same ids as the `tokenizers` library, several times faster, for the one kind of tokenizer that models of the
//! GPT-2 line share: byte-level BPE without a normalizer.
//!
//! The library tracks where every character of a token came from and copies each token's text. Here words are found
//! with the tokenizer's own expression and looked up in a table of words met before; the library is asked only for
//! new ones. Whatever is not exactly of this kind, and any text that contains an added token, goes the library's way.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};

use aho_corasick::AhoCorasick;
use rustc_hash::FxHashMap;
use serde_json::Value;
use tokenizers::utils::SysRegex;
use tokenizers::{Model, Tokenizer as Inner};

use super::byte_level::byte_characters;
use super::failed;
use crate::Error;

/// What the `ByteLevel` pre-tokenizer splits with when it splits by itself.
const GPT_2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
/// Words remembered by each thread; at this many, all are forgotten.
const MAX_WORDS: usize = 1 << 18;
/// The longest word remembered, in bytes.
const MAX_WORD_BYTES: usize = 64;

/// Encodes as one byte-level BPE tokenizer does.
#[derive(Debug)]
pub(super) struct Fast {
    /// Distinguishes tokenizers in the threads' tables.
    key: u64,
    words: SysRegex,
    /// Finds added tokens; `None` when there are none.
    added: Option<AhoCorasick>,
    characters: [char; 256],
}

/// The words one thread has met, and their ids one after another.
#[derive(Default)]
struct Table {
    key: u64,
    words: FxHashMap<Box<str>, (u32, u32)>,
    ids: Vec<u32>,
}

thread_local! {
    static TABLE: RefCell<Table> = RefCell::default();
}

impl Fast {
    /// `None` when the tokenizer is of another kind.
    pub fn new(json: &Value, inner: &Inner) -> Option<Fast> {
        if !json["normalizer"].is_null() || !is_plain_bpe(&json["model"]) {
            return None;
        }
        let characters = byte_characters();
        // With every byte in the vocabulary there are no unknown tokens.
        let model = inner.get_model();
        if !characters.iter().all(|character| model.token_to_id(&character.to_string()).is_some()) {
            return None;
        }
        let words = SysRegex::new(&split_expression(&json["pre_tokenizer"])?).ok()?;
        let added: Vec<String> =
            inner.get_added_tokens_decoder().into_values().map(|token| token.content).collect();
        let added = if added.is_empty() { None } else { Some(AhoCorasick::new(added).ok()?) };
        static NEXT_KEY: AtomicU64 = AtomicU64::new(1);
        Some(Fast { key: NEXT_KEY.fetch_add(1, Ordering::Relaxed), words, added, characters })
    }

    /// The ids of `text`; `None` when it contains an added token.
    pub fn encode(&self, text: &str, inner: &Inner) -> Result<Option<Vec<u32>>, Error> {
        if self.added.as_ref().is_some_and(|added| added.is_match(text)) {
            return Ok(None);
        }
        TABLE.with_borrow_mut(|table| {
            if table.key != self.key || table.words.len() >= MAX_WORDS {
                *table = Table { key: self.key, ..Table::default() };
            }
            let mut ids = Vec::with_capacity(text.len() / 3);
            let mut end = 0;
            for (from, to) in self.words.find_iter(text) {
                // What lies between two matches is a word of its own.
                if end < from {
                    self.push_word(&text[end..from], inner, table, &mut ids)?;
                }
                if from < to {
                    self.push_word(&text[from..to], inner, table, &mut ids)?;
                }
                end = to;
            }
            if end < text.len() {
                self.push_word(&text[end..], inner, table, &mut ids)?;
            }
            Ok(Some(ids))
        })
    }

    fn push_word(
        &self,
        word: &str,
        inner: &Inner,
        table: &mut Table,
        ids: &mut Vec<u32>,
    ) -> Result<(), Error> {
        if let Some(&(from, to)) = table.words.get(word) {
            ids.extend_from_slice(&table.ids[from as usize..to as usize]);
            return Ok(());
        }
        let written: String = word.bytes().map(|byte| self.characters[byte as usize]).collect();
        let start = ids.len();
        ids.extend(inner.get_model().tokenize(&written).map_err(failed)?.into_iter().map(|token| token.id));
        if word.len() <= MAX_WORD_BYTES && table.words.len() < MAX_WORDS {
            let from = table.ids.len() as u32;
            table.ids.extend_from_slice(&ids[start..]);
            table.words.insert(word.into(), (from, table.ids.len() as u32));
        }
        Ok(())
    }
}

fn is_plain_bpe(model: &Value) -> bool {
    let is_unset = |key: &str| match &model[key] {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        _ => false,
    };
    model["type"] == "BPE"
        && ["dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"]
            .into_iter()
            .all(is_unset)
}

/// The expression that finds words, when the pre-tokenizer is `ByteLevel` alone or one `Split` before it.
fn split_expression(pre_tokenizer: &Value) -> Option<String> {
    let is_byte_level = |value: &Value, use_regex: bool| {
        value["type"] == "ByteLevel"
            && value["add_prefix_space"] == false
            && value["use_regex"].as_bool().unwrap_or(true) == use_regex
    };
    if is_byte_level(pre_tokenizer, true) {
        return Some(GPT_2.to_owned());
    }
    let [split, byte_level] = pre_tokenizer["pretokenizers"].as_array()?.as_slice() else {
        return None;
    };
    let is_split = split["type"] == "Split" && split["behavior"] == "Isolated" && split["invert"] == false;
    if !is_split || !is_byte_level(byte_level, false) {
        return None;
    }
    split["pattern"]["Regex"].as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_fast(change: impl FnOnce(&mut Value)) -> bool {
        let vocab: serde_json::Map<_, _> = byte_characters()
            .iter()
            .enumerate()
            .map(|(id, character)| (character.to_string(), id.into()))
            .collect();
        let mut json = serde_json::json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true},
            "post_processor": null, "decoder": null,
            "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
                "end_of_word_suffix": "", "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": []},
        });
        change(&mut json);
        let bytes = serde_json::to_vec(&json).unwrap();
        Fast::new(&json, &Inner::from_bytes(&bytes).unwrap()).is_some()
    }

    #[test]
    fn the_short_way_is_for_plain_byte_level_bpe_only() {
        assert!(is_fast(|_| {}));
        let split = serde_json::json!({"type": "Split", "pattern": {"Regex": "\\p{N}| ?\\p{L}+"},
            "behavior": "Isolated", "invert": false});
        let byte_level = serde_json::json!({"type": "ByteLevel", "add_prefix_space": false,
            "trim_offsets": true, "use_regex": false});
        let sequence = |parts: &[&Value]| serde_json::json!({"type": "Sequence", "pretokenizers": parts});
        assert!(is_fast(|json| json["pre_tokenizer"] = sequence(&[&split, &byte_level])));
        assert!(!is_fast(|json| json["pre_tokenizer"] = sequence(&[&split, &split, &byte_level])));
        let mut removed = split.clone();
        removed["behavior"] = "Removed".into();
        assert!(!is_fast(|json| json["pre_tokenizer"] = sequence(&[&removed, &byte_level])));
        assert!(!is_fast(|json| json["pre_tokenizer"]["add_prefix_space"] = true.into()));
        assert!(!is_fast(|json| json["pre_tokenizer"]["use_regex"] = false.into()));
        assert!(!is_fast(|json| json["pre_tokenizer"] = Value::Null));
        assert!(!is_fast(|json| json["normalizer"] = serde_json::json!({"type": "NFC"})));
        assert!(!is_fast(|json| json["model"]["dropout"] = 0.1.into()));
        assert!(!is_fast(|json| json["model"]["end_of_word_suffix"] = "</w>".into()));
        let without_byte = |json: &mut Value| {
            json["model"]["vocab"].as_object_mut().unwrap().remove("a");
        };
        assert!(!is_fast(without_byte));
    }
}
