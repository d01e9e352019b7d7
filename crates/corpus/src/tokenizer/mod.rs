//! Hugging Face `tokenizer.json` files: text to ids and back.

mod bos;
mod byte_level;
mod class;
mod companions;
mod fast;
mod seams;
mod special;
mod train;

pub use bos::Bos;
pub use companions::Companions;
pub use train::{Digits, TrainTokenizer, TrainedTokenizer, train_tokenizer};

use std::path::{Path, PathBuf};

use remit_fault::fault;
use serde_json::Value;
use tokenizers::Tokenizer as Inner;

use crate::{Error, error};
use fast::Fast;
use special::Special;

/// The name of the tokenizer file in a checkpoint or token store.
pub(crate) const TOKENIZER_FILE: &str = "tokenizer.json";
/// The name of the file beside it that names the special tokens.
pub(crate) const CONFIG_FILE: &str = "tokenizer_config.json";
/// The older file that names them.
pub(crate) const SPECIAL_TOKENS_FILE: &str = "special_tokens_map.json";
/// The older file with tokens added to the vocabulary.
pub(crate) const ADDED_TOKENS_FILE: &str = "added_tokens.json";
/// The file of a checkpoint that names its kind of model.
const MODEL_FILE: &str = "config.json";

/// Names that models give the token at the end of a document, tried when no file says. Two of them in a vocabulary say
/// nothing.
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
/// A tokenizer's files as they are, by name.
#[derive(Clone, Debug, Default)]
struct Files(Vec<(&'static str, Vec<u8>)>);

impl Files {
    fn get(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|(file, _)| *file == name).map(|(_, bytes)| bytes.as_slice())
    }
}

/// An opened tokenizer.
#[derive(Debug)]
pub struct Tokenizer {
    inner: Inner,
    /// A faster way to the same ids, for byte-level BPE.
    fast: Option<Fast>,
    /// The same without a blank in front, where the tokenizer puts one there.
    unprefixed: Option<Inner>,
    path: PathBuf,
    files: Files,
    /// The files with templates of conversations.
    templates: Vec<(String, Vec<u8>)>,
    /// By name.
    chat_templates: Vec<(String, String)>,
    hash: String,
    vocab_size: u32,
    special: Special,
    eos: Option<u32>,
    /// What the post-processor puts in front of a text.
    prefix: Vec<u32>,
}

impl Tokenizer {
    /// Opens a `tokenizer.json`, or the one in a directory, with what stands beside it: `tokenizer_config.json`,
    /// `special_tokens_map.json`, `added_tokens.json`, `chat_template.jinja`, and the kind of model in `config.json`.
    ///
    /// # Errors
    /// When the file is missing or is no tokenizer; when a file beside it is malformed, names an end or beginning token
    /// that the tokenizer lacks, or gives a token another id than it has; when the post-processor puts anything but the
    /// end token behind a text.
    pub fn open(path: &Path) -> Result<Tokenizer, Error> {
        let path = if path.is_dir() { path.join(TOKENIZER_FILE) } else { path.to_owned() };
        let directory = path.parent().unwrap_or(Path::new(""));
        let json = std::fs::read(&path).map_err(|cause| error::io("read", &path, cause))?;
        let mut files = Files(vec![(TOKENIZER_FILE, json)]);
        for name in [CONFIG_FILE, SPECIAL_TOKENS_FILE, ADDED_TOKENS_FILE] {
            files.0.extend(companions::read(directory, name)?.map(|bytes| (name, bytes)));
        }
        if let Some(bytes) = companions::read(directory, MODEL_FILE)?
            && let Ok(model) = serde_json::from_slice::<Value>(&bytes)
        {
            let kind = serde_json::json!({"model_type": model["model_type"], "tokenizer_class": model["tokenizer_class"]});
            files.0.push((MODEL_FILE, kind.to_string().into_bytes()));
            if !class::is_decided_by_model(&files) {
                files.0.pop();
            }
        }
        let templates = Companions::chat_template_files(directory)?;
        Tokenizer::new(path, files, templates)
    }

    /// A tokenizer from the bytes of `tokenizer.json` and `tokenizer_config.json`.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_bytes(json: &[u8], config: Option<&[u8]>) -> Result<Tokenizer, Error> {
        let mut files = Files(vec![(TOKENIZER_FILE, json.to_vec())]);
        files.0.extend(config.map(|config| (CONFIG_FILE, config.to_vec())));
        Tokenizer::new(TOKENIZER_FILE.into(), files, Vec::new())
    }

    fn new(path: PathBuf, files: Files, templates: Vec<(String, Vec<u8>)>) -> Result<Tokenizer, Error> {
        let wrong = |name: &str, message: String| {
            // `tokenizer.json` may go by another name, the files beside it may not.
            let path = if name == TOKENIZER_FILE { path.clone() } else { path.with_file_name(name) };
            fault!("`{}` is not a usable tokenizer: {message}", path.display())
                .with_hint("give a Hugging Face `tokenizer.json`, or make one with `remit train-tokenizer`")
        };
        let unusable = |error: tokenizers::Error| wrong(TOKENIZER_FILE, error.to_string());
        let json = files.get(TOKENIZER_FILE).expect("it is the first");
        let mut inner = Inner::from_bytes(json).map_err(unusable)?;
        let mut value: Value = serde_json::from_slice(json).expect("it was read as a tokenizer");
        let class = class::rebuilt(&value, &files).map_err(|message| wrong(CONFIG_FILE, message))?;
        let (rebuilt, defaults) = class.map_or((None, &[][..]), |(rebuilt, names)| (Some(rebuilt), names));
        let rebuilt = rebuilt.filter(|rebuilt| class::ways(rebuilt) != class::ways(&value));
        let is_rebuilt = rebuilt.is_some();
        if let Some(rebuilt) = rebuilt {
            let bytes = serde_json::to_vec(&rebuilt).expect("it is JSON");
            inner = Inner::from_bytes(bytes).map_err(unusable)?;
            value = rebuilt;
        }
        // Limits that a tokenizer carries for some model's input would cut documents silently.
        inner.with_truncation(None).map_err(unusable)?;
        inner.with_padding(None);

        let special = Special::read(&files, defaults).map_err(|(name, message)| wrong(name, message))?;
        let before = inner.get_added_tokens_decoder();
        special.add_to(&mut inner).map_err(|(name, message)| wrong(name, message))?;
        inner.set_encode_special_tokens(special.split);
        let is_changed = is_rebuilt || special.split || inner.get_added_tokens_decoder() != before;

        let highest = inner.get_vocab(true).into_values().max();
        // Not the number of entries: a vocabulary may have holes, and ids count from its highest.
        let vocab_size = highest.ok_or_else(|| wrong(TOKENIZER_FILE, "its vocabulary is empty".into()))? + 1;
        let eos = match special.named("eos_token") {
            Some(name) => name.and_then(|name| inner.token_to_id(name)),
            None => usual_eos(&inner),
        };
        let prefix = bos::prefix(&inner, eos).map_err(|error| wrong(TOKENIZER_FILE, error.to_string()))?;
        let unprefixed = seams::unprefixed(&value, &inner)?;
        let fast = Fast::new(&value, &inner);
        let hash = hash_of(json, is_changed.then_some((&inner, &value)));
        let settings: Value = files
            .get(CONFIG_FILE)
            .map_or(Value::Null, |config| serde_json::from_slice(config).expect("it was read as JSON"));
        let chat_templates = companions::chat_templates(&templates, &settings).map_err(|(name, cause)| {
            let cause = std::io::Error::new(std::io::ErrorKind::InvalidData, cause);
            error::io("read", path.with_file_name(name), cause)
        })?;
        Ok(Tokenizer {
            inner,
            fast,
            unprefixed,
            path,
            files,
            templates,
            chat_templates,
            hash,
            vocab_size,
            special,
            eos,
            prefix,
        })
    }

    /// The tokenizer of a checkpoint directory, if it has one.
    ///
    /// # Errors
    /// As [`open`](Tokenizer::open), where it has one.
    pub fn of_checkpoint(directory: &Path) -> Result<Option<Tokenizer>, Error> {
        let path = directory.join(TOKENIZER_FILE);
        if path.is_file() { Tokenizer::open(&path).map(Some) } else { Ok(None) }
    }

    /// The ids of `text` behind `prefix` (see [`prefix`](Tokenizer::prefix)), which is not put there a second time where
    /// the text spells it out itself.
    ///
    /// # Errors
    /// As [`encode`](Tokenizer::encode).
    pub fn encode_document(&self, prefix: &[u32], text: &str) -> Result<Vec<u32>, Error> {
        Ok(self.encode_document_parts(prefix, &[text])?.0)
    }

    /// The same for texts that stand one behind the other, with the end of each; see
    /// [`encode_parts`](Tokenizer::encode_parts).
    ///
    /// # Errors
    /// As [`encode`](Tokenizer::encode).
    pub fn encode_document_parts(
        &self,
        prefix: &[u32],
        parts: &[&str],
    ) -> Result<(Vec<u32>, Vec<usize>), Error> {
        let (mut ids, mut ends) = self.encode_parts(parts)?;
        if !ids.starts_with(prefix) {
            ids.splice(0..0, prefix.iter().copied());
            ends.iter_mut().for_each(|end| *end += prefix.len());
        }
        Ok((ids, ends))
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

    /// The token that ends a document: the `eos_token` that a file names. Where none does, the one usual name that the
    /// vocabulary has; two of them say nothing.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// The text of a special token by the name that files give it: `bos_token`, `pad_token`, `unk_token` and the like.
    pub fn special(&self, key: &str) -> Option<&str> {
        self.special.named(key).flatten()
    }

    /// The `bos_token` that a file names. It stands in front of a text only where the post-processor puts it there: see
    /// [`prefix`](Tokenizer::prefix).
    pub fn bos(&self) -> Option<u32> {
        self.id(self.special("bos_token")?)
    }

    /// The Jinja template of conversations that came with it and goes by `default`.
    pub fn chat_template(&self) -> Option<&str> {
        self.chat_templates.iter().find(|(name, _)| name == "default").map(|(_, source)| source.as_str())
    }

    /// All templates of conversations that came with it, by name: `chat_template.jinja` and
    /// `additional_chat_templates/`, or those of `tokenizer_config.json`.
    pub fn chat_templates(&self) -> &[(String, String)] {
        &self.chat_templates
    }

    /// blake3 of the bytes of `tokenizer.json`, and of what the files beside it change of it, in hexadecimal.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// Where it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The bytes of `tokenizer.json`.
    pub fn json(&self) -> &[u8] {
        self.files.get(TOKENIZER_FILE).expect("it is the first")
    }

    /// The bytes of `tokenizer_config.json`, if there was one.
    pub fn config(&self) -> Option<&[u8]> {
        self.files.get(CONFIG_FILE)
    }

    /// Writes its files and the chat templates that came with it into a directory.
    ///
    /// # Errors
    /// What the operating system refuses.
    pub fn write(&self, directory: &Path) -> Result<(), Error> {
        let own = self.files().map(|(name, bytes)| (name.to_owned(), bytes.to_vec()));
        Companions { files: own.chain(self.templates.iter().cloned()).collect() }.write(directory)
    }

    /// The files that say what the ids of a text are, with their bytes: `tokenizer.json` and those beside it.
    pub fn files(&self) -> impl Iterator<Item = (&'static str, &[u8])> {
        self.files.0.iter().map(|(name, bytes)| (*name, bytes.as_slice()))
    }
}

/// The one usual name that the vocabulary has.
fn usual_eos(inner: &Inner) -> Option<u32> {
    let mut found = USUAL_EOS.iter().filter_map(|name| inner.token_to_id(name));
    let first = found.next()?;
    found.next().is_none().then_some(first)
}

/// Two tokenizers of one hash give the same ids.
fn hash_of(json: &[u8], changed: Option<(&Inner, &Value)>) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(json);
    if let Some((inner, value)) = changed {
        let mut added: Vec<_> = inner.get_added_tokens_decoder().into_iter().collect();
        added.sort_by_key(|(id, _)| *id);
        let added = (added, inner.get_encode_special_tokens(), class::ways(value));
        hasher.update(&serde_json::to_vec(&added).expect("plain values are valid JSON"));
    }
    hasher.finalize().to_hex().to_string()
}

fn failed(error: tokenizers::Error) -> Error {
    fault!("the tokenizer failed: {error}")
}
