//! What stands in front of a text.

use std::fmt;

use remit_fault::fault;
use serde::{Deserialize, Serialize};
use tokenizers::Tokenizer as Inner;

use super::{Tokenizer, failed};
use crate::Error;

/// What stands in front of every text: of a document in a store, of a plain prompt, of a text to weigh. A conversation is not
/// concerned: its template alone says what it begins with.
///
/// As text: `own`, `none`, or a token of the vocabulary.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Bos {
    /// What the tokenizer's post-processor puts there, as `tokenizer(text)` does in `transformers`.
    #[default]
    Own,
    /// Nothing.
    None,
    /// This token.
    Token(String),
}

impl From<String> for Bos {
    fn from(text: String) -> Bos {
        match text.as_str() {
            "own" => Bos::Own,
            "none" => Bos::None,
            _ => Bos::Token(text),
        }
    }
}

impl From<Bos> for String {
    fn from(bos: Bos) -> String {
        bos.to_string()
    }
}

impl fmt::Display for Bos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Bos::Own => "own",
            Bos::None => "none",
            Bos::Token(text) => text,
        })
    }
}

impl Tokenizer {
    /// The ids that stand in front of a text.
    ///
    /// # Errors
    /// When `bos` names a token that the vocabulary lacks.
    pub fn prefix(&self, bos: &Bos) -> Result<Vec<u32>, Error> {
        match bos {
            Bos::Own => Ok(self.prefix.clone()),
            Bos::None => Ok(Vec::new()),
            Bos::Token(text) => match self.id(text) {
                Some(id) => Ok(vec![id]),
                None => Err(fault!("bos must be own, none or a token of the vocabulary, not `{text}`")
                    .with_hint("own is what the tokenizer's post-processor puts in front of a text")),
            },
        }
    }

    /// The tokens of `prefix` as the vocabulary writes them, for people: "`<s>` (1)", or "nothing".
    pub fn describe_prefix(&self, prefix: &[u32]) -> String {
        let describe = |&id: &u32| format!("{} ({id})", self.token(id).unwrap_or_default());
        match prefix {
            [] => "nothing".to_owned(),
            ids => ids.iter().map(describe).collect::<Vec<_>>().join(" "),
        }
    }
}

/// The ids that the post-processor puts in front of a text.
///
/// # Errors
/// When it does anything beyond putting tokens in front and the end token behind.
pub(super) fn prefix(inner: &Inner, eos: Option<u32>) -> Result<Vec<u32>, Error> {
    for text in ["a", "0", "\u{4e00}"] {
        let plain = inner.encode_fast(text, false).map_err(failed)?;
        let all = inner.encode_fast(text, true).map_err(failed)?;
        let (plain, all) = (plain.get_ids(), all.get_ids());
        if plain.is_empty() {
            continue;
        }
        let Some(at) = (0..all.len()).find(|&at| all[at..].starts_with(plain)) else {
            return Err(fault!("its post-processor changes the ids of a text, which is not supported"));
        };
        let behind = &all[at + plain.len()..];
        if !behind.iter().all(|&id| Some(id) == eos) {
            let names: Vec<_> = behind.iter().filter_map(|&id| inner.id_to_token(id)).collect();
            return Err(fault!(
                "its post-processor puts `{}` behind a text, where only the end token is supported",
                names.join("")
            ));
        }
        return Ok(all[..at].to_vec());
    }
    Ok(Vec::new())
}
