//! Hugging Face `tokenizer.json` files: text to ids and back.

mod byte_level;
mod fast;
mod train;

pub use train::{Digits, TrainTokenizer, TrainedTokenizer, train_tokenizer};

use std::path::{Path, PathBuf};

use remit_fault::fault;
use serde_json::Value;
use tokenizers::Tokenizer as Inner;

use crate::{Error, error};
use fast::Fast;

/// The name of the tokenizer file in a checkpoint or token store.
pub(crate) const TOKENIZER_FILE: &str = "tokenizer.json";
/// The name of the file beside it that names the special tokens.
pub(crate) const CONFIG_FILE: &str = "tokenizer_config.json";
/// The name of the file beside it with the template of conversations.
pub const CHAT_TEMPLATE_FILE: &str = "chat_template.jinja";

/// Names that models give the token at the end of a document, tried when no `tokenizer_config.json` says.
const USUAL_EOS: [&str; 8] = [
    "<|endoftext|>",
    "<|end_of_text|>",
    "</s>",
    "<eos>",
    "<|eos|>",
    "[EOS]",
    "<|end▁of▁sentence|>",
    "<|im_end|>",
];
/// The same for the token at the beginning.
const USUAL_BOS: [&str; 6] =
    ["<|begin_of_text|>", "<s>", "<bos>", "<|bos|>", "[BOS]", "<|begin▁of▁sentence|>"];

/// An opened tokenizer.
#[derive(Debug)]
pub struct Tokenizer {
    inner: Inner,
    /// A faster way to the same ids, for byte-level BPE.
    fast: Option<Fast>,
    path: PathBuf,
    json: Vec<u8>,
    config: Option<Vec<u8>>,
    chat_template: Option<String>,
    hash: String,
    vocab_size: u32,
    eos: Option<u32>,
    bos: Option<u32>,
}

impl Tokenizer {
    /// Opens a `tokenizer.json`, or the one in a directory, and the `tokenizer_config.json` and `chat_template.jinja`
    /// beside it if there are any.
    ///
    /// # Errors
    /// When the file is missing or is no tokenizer, or when `tokenizer_config.json` is not JSON or names an `eos` or
    /// `bos` token that the tokenizer lacks.
    pub fn open(path: &Path) -> Result<Tokenizer, Error> {
        let path = if path.is_dir() { path.join(TOKENIZER_FILE) } else { path.to_owned() };
        let json = std::fs::read(&path).map_err(|cause| error::io("read", &path, cause))?;
        let config_path = path.with_file_name(CONFIG_FILE);
        let config = match std::fs::read(&config_path) {
            Ok(bytes) => Some(bytes),
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => None,
            Err(cause) => return Err(error::io("read", &config_path, cause)),
        };
        let template_path = path.with_file_name(CHAT_TEMPLATE_FILE);
        let chat_template = match std::fs::read_to_string(&template_path) {
            Ok(source) => Some(source),
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => None,
            Err(cause) => return Err(error::io("read", &template_path, cause)),
        };
        let tokenizer = Tokenizer::new(path, json, config)?;
        Ok(Tokenizer { chat_template: chat_template.or(tokenizer.chat_template), ..tokenizer })
    }

    /// A tokenizer from the bytes of its files.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_bytes(json: &[u8], config: Option<&[u8]>) -> Result<Tokenizer, Error> {
        Tokenizer::new(TOKENIZER_FILE.into(), json.to_vec(), config.map(<[u8]>::to_vec))
    }

    fn new(path: PathBuf, json: Vec<u8>, config: Option<Vec<u8>>) -> Result<Tokenizer, Error> {
        let wrong = |path: &Path, message: String| {
            fault!("`{}` is not a usable tokenizer: {message}", path.display())
                .with_hint("give a Hugging Face `tokenizer.json`, or make one with `remit train-tokenizer`")
        };
        let mut inner = Inner::from_bytes(&json).map_err(|error| wrong(&path, error.to_string()))?;
        // Limits that a tokenizer carries for some model's input would cut documents silently.
        inner.with_truncation(None).map_err(|error| wrong(&path, error.to_string()))?;
        inner.with_padding(None);

        let highest = inner.get_vocab(true).into_values().max();
        // Not the number of entries: a vocabulary may have holes, and ids count from its highest.
        let vocab_size = highest.ok_or_else(|| wrong(&path, "its vocabulary is empty".into()))? + 1;

        let config_path = path.with_file_name(CONFIG_FILE);
        let settings: Value = match &config {
            Some(bytes) => {
                serde_json::from_slice(bytes).map_err(|error| wrong(&config_path, error.to_string()))?
            }
            None => Value::Null,
        };
        let special = |key: &str, usual: &[&str]| -> Result<Option<u32>, Error> {
            let named = match &settings[key] {
                Value::String(name) => Some(name.as_str()),
                Value::Object(token) => token.get("content").and_then(Value::as_str),
                _ => None,
            };
            match named {
                Some(name) => match inner.token_to_id(name) {
                    Some(id) => Ok(Some(id)),
                    None => Err(wrong(&config_path, format!("its {key} `{name}` is not in the vocabulary"))),
                },
                None if config.is_some() && settings.get(key).is_some() => Ok(None),
                None => Ok(usual.iter().find_map(|name| inner.token_to_id(name))),
            }
        };
        let (eos, bos) = (special("eos_token", &USUAL_EOS)?, special("bos_token", &USUAL_BOS)?);
        let hash = blake3::hash(&json).to_hex().to_string();
        let fast = Fast::new(&json, &inner);
        let chat_template = chat_template_of(&settings["chat_template"]);
        Ok(Tokenizer { inner, fast, path, json, config, chat_template, hash, vocab_size, eos, bos })
    }

    /// The tokenizer of a checkpoint directory, if it has one.
    ///
    /// # Errors
    /// As [`open`](Tokenizer::open), where it has one.
    pub fn of_checkpoint(directory: &Path) -> Result<Option<Tokenizer>, Error> {
        let path = directory.join(TOKENIZER_FILE);
        if path.is_file() { Tokenizer::open(&path).map(Some) } else { Ok(None) }
    }

    /// The token that documents begin with in training: the beginning token, or else the end token, which stands in
    /// front of every document in a corpus.
    pub fn start(&self) -> Option<u32> {
        self.bos.or(self.eos)
    }

    /// The ids of `text` as a document begins in training: behind [`start`](Tokenizer::start), where the tokenizer has
    /// one and the text does not spell it out itself.
    ///
    /// # Errors
    /// As [`encode`](Tokenizer::encode).
    pub fn encode_document(&self, text: &str) -> Result<Vec<u32>, Error> {
        let mut ids = self.encode(text)?;
        if let Some(start) = self.start().filter(|start| ids.first() != Some(start)) {
            ids.insert(0, start);
        }
        Ok(ids)
    }

    /// The ids of `text`, without any special tokens of a template around them. A special token spelled out in the
    /// text becomes that token, as in Python's `encode(text, add_special_tokens=False)`.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        if let Some(fast) = &self.fast
            && let Some(ids) = fast.encode(text, &self.inner)?
        {
            return Ok(ids);
        }
        let encoding = self.inner.encode_fast(text, false).map_err(failed)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of `ids`, special tokens included.
    pub fn decode(&self, ids: &[u32]) -> Result<String, Error> {
        self.inner.decode(ids, false).map_err(failed)
    }

    /// Whether the text of `ids` has come to one of `texts` with its last token: where a completion stops.
    pub fn has_reached(&self, ids: &[u32], texts: &[impl AsRef<str>]) -> bool {
        let Some(longest) = texts.iter().map(|text| text.as_ref().len()).max() else { return false };
        // A token is a byte at least, so a text that ends now begins among the last few.
        let tail = &ids[ids.len().saturating_sub(longest + 4)..];
        self.decode(tail).is_ok_and(|text| texts.iter().any(|stop| text.contains(stop.as_ref())))
    }

    /// The text of `ids` before the first of `texts` in it.
    ///
    /// # Errors
    /// As [`decode`](Tokenizer::decode).
    pub fn decode_before(&self, ids: &[u32], texts: &[impl AsRef<str>]) -> Result<String, Error> {
        let mut text = self.decode(ids)?;
        if let Some(end) = texts.iter().filter_map(|stop| text.find(stop.as_ref())).min() {
            text.truncate(end);
        }
        Ok(text)
    }

    /// How the vocabulary writes a token (byte-level BPE shows a blank as `Ġ`).
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The id of a token as the vocabulary writes it.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// One more than the highest id, added tokens included. A model's embedding has at least as many rows.
    pub fn vocab_size(&self) -> u32 {
        self.vocab_size
    }

    /// The token that ends a document: what `tokenizer_config.json` says, or else the first of the usual names that
    /// the vocabulary has.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// The token that begins a document, found in the same way.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The Jinja template of conversations that came with it: `chat_template.jinja`, or the one that
    /// `tokenizer_config.json` has (of several, the `default`).
    pub fn chat_template(&self) -> Option<&str> {
        self.chat_template.as_deref()
    }

    /// blake3 of the bytes of `tokenizer.json`, in hexadecimal.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// Where it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The bytes of `tokenizer.json`.
    pub fn json(&self) -> &[u8] {
        &self.json
    }

    /// The bytes of `tokenizer_config.json`, if there was one.
    pub fn config(&self) -> Option<&[u8]> {
        self.config.as_deref()
    }
}

/// A template, or a list of named ones.
fn chat_template_of(value: &Value) -> Option<String> {
    let template = match value {
        Value::Array(named) => &named.iter().find(|one| one["name"] == "default")?["template"],
        one => one,
    };
    template.as_str().map(str::to_owned)
}

fn failed(error: tokenizers::Error) -> Error {
    fault!("the tokenizer failed: {error}")
}
