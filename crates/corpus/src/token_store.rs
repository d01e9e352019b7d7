//! A tokenized corpus on disk: `tokens.bin`, `documents.bin`, `manifest.json`, and the tokenizer it was made with.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;
use remit_fault::fault;
use serde::{Deserialize, Serialize};

use crate::hash::hash_file;
use crate::tokenizer::TOKENIZER_FILE;
use crate::{Error, Skipped, Tokenizer, error};

/// The version of the files described here. Another one is an error: stores are cheap to make again.
pub(crate) const FORMAT_VERSION: u32 = 1;

pub(crate) const MANIFEST_FILE: &str = "manifest.json";
/// Token ids, little-endian, [`Dtype`] wide.
pub(crate) const TOKENS_FILE: &str = "tokens.bin";
/// For each document the index of the token after its last, little-endian u64.
pub(crate) const DOCUMENTS_FILE: &str = "documents.bin";

/// An opened token store. Cloning it is cheap: clones share the memory map.
#[derive(Clone, Debug)]
pub struct TokenStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    directory: PathBuf,
    manifest: Manifest,
    /// `None` when there are no tokens: an empty file cannot be mapped everywhere.
    tokens: Option<Mmap>,
    documents: Option<Mmap>,
}

/// What `manifest.json` says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of the format.
    pub version: u32,
    /// blake3 of `tokenizer.json`, in hexadecimal; `None` for arrays of tokens whose tokenizer is not known.
    pub tokenizer: Option<String>,
    /// One more than the highest id of the vocabulary.
    pub vocab_size: u32,
    /// Width of a token.
    pub dtype: Dtype,
    /// The token that ends documents.
    pub eos: Option<u32>,
    /// Tokens in all.
    pub num_tokens: u64,
    /// Documents in all.
    pub num_documents: u64,
    /// Records that had no text.
    pub num_empty: u64,
    /// Malformed records that were skipped.
    pub skipped: Skipped,
    /// The sources in order; together they cover all tokens and documents.
    pub sources: Vec<SourceEntry>,
    /// blake3 over tokens, documents and what gives them their meaning, in hexadecimal.
    pub content_hash: String,
}

/// What one source contributed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceEntry {
    /// Its name.
    pub name: String,
    /// The index of its first token.
    pub first_token: u64,
    /// Its tokens.
    pub num_tokens: u64,
    /// The index of its first document.
    pub first_document: u64,
    /// Its documents.
    pub num_documents: u64,
    /// Its weight in the mixture unless the mixture says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<f64>,
    /// Its repeat unless the mixture says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeat: Option<f64>,
}

/// How wide a stored token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// Two bytes, for vocabularies of at most 65,536 tokens.
    U16,
    /// Four bytes.
    U32,
}

impl Dtype {
    /// The narrowest that holds every id of a vocabulary.
    pub fn for_vocab(vocab_size: u32) -> Dtype {
        if vocab_size <= 1 << 16 { Dtype::U16 } else { Dtype::U32 }
    }

    /// Bytes a token.
    pub fn width(self) -> u64 {
        match self {
            Dtype::U16 => 2,
            Dtype::U32 => 4,
        }
    }

    /// Appends a token as it is stored.
    pub(crate) fn push(self, token: u32, bytes: &mut Vec<u8>) {
        match self {
            Dtype::U16 => bytes.extend_from_slice(&(token as u16).to_le_bytes()),
            Dtype::U32 => bytes.extend_from_slice(&token.to_le_bytes()),
        }
    }
}

impl TokenStore {
    /// Opens the store in `directory`. Checks version and sizes; [`verify`](Self::verify) reads everything.
    ///
    /// # Errors
    /// When a file is missing, cut off or too long, or the manifest is of another version or contradicts itself.
    pub fn open(directory: &Path) -> Result<TokenStore, Error> {
        let wrong = |message: String| bad_store(directory, &message);
        let manifest_path = directory.join(MANIFEST_FILE);
        let bytes = std::fs::read(&manifest_path).map_err(|cause| match cause.kind() {
            std::io::ErrorKind::NotFound if !directory.exists() => wrong("there is no such directory".into()),
            std::io::ErrorKind::NotFound => wrong(format!("`{MANIFEST_FILE}` is missing")),
            _ => error::io("read", &manifest_path, cause),
        })?;
        let not_a_manifest = |error: serde_json::Error| wrong(format!("`{MANIFEST_FILE}`: {error}"));
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        // The version comes first: another version may have other fields.
        let Version { version } = serde_json::from_slice(&bytes).map_err(not_a_manifest)?;
        if version != FORMAT_VERSION {
            return Err(wrong(format!(
                "its format version is {version}; this program reads {FORMAT_VERSION}"
            )));
        }
        let manifest: Manifest = serde_json::from_slice(&bytes).map_err(not_a_manifest)?;
        manifest.check().map_err(wrong)?;
        let tokens = map(directory, TOKENS_FILE, manifest.num_tokens * manifest.dtype.width())?;
        let documents = map(directory, DOCUMENTS_FILE, manifest.num_documents * 8)?;
        let inner = Inner { directory: directory.to_owned(), manifest, tokens, documents };
        let store = TokenStore { inner: Arc::new(inner) };
        let end = store.num_documents().checked_sub(1).map_or(0, |last| store.document_end(last));
        if end != store.num_tokens() {
            return Err(store.wrong(format!(
                "`{DOCUMENTS_FILE}` ends at token {end}, `{TOKENS_FILE}` at {}",
                store.num_tokens()
            )));
        }
        Ok(store)
    }

    /// Reads everything and compares it with the content hash; also checks that documents and ids are in range and
    /// the tokenizer is the one named.
    pub fn verify(&self) -> Result<(), Error> {
        let manifest = self.manifest();
        let found = content_hash(manifest, self.directory())?;
        if found != manifest.content_hash {
            return Err(self
                .wrong(format!("its content hash is {found}, the manifest says {}", manifest.content_hash)));
        }
        let mut before = 0;
        for index in 0..self.num_documents() {
            let end = self.document_end(index);
            if end <= before {
                return Err(self.wrong(format!("document {index} ends at token {end}, before it begins")));
            }
            before = end;
        }
        for start in (0..self.num_tokens()).step_by(1 << 16) {
            let tokens = self.tokens(start..self.num_tokens().min(start + (1 << 16)));
            if let Some(at) = tokens.iter().position(|&token| token >= manifest.vocab_size) {
                return Err(self.wrong(format!(
                    "token {} is {}, outside the vocabulary of {}",
                    start + at as u64,
                    tokens[at],
                    manifest.vocab_size
                )));
            }
        }
        if let (Some(hash), Some(path)) = (&manifest.tokenizer, self.tokenizer_path()) {
            let bytes = std::fs::read(&path).map_err(|cause| error::io("read", &path, cause))?;
            if blake3::hash(&bytes).to_hex().as_str() != hash {
                return Err(self.wrong(format!("`{TOKENIZER_FILE}` is not the one it was made with")));
            }
        }
        Ok(())
    }

    /// Where it is.
    pub fn directory(&self) -> &Path {
        &self.inner.directory
    }

    /// What the manifest says.
    pub fn manifest(&self) -> &Manifest {
        &self.inner.manifest
    }

    /// blake3 over tokens, documents and what gives them their meaning, in hexadecimal.
    pub fn content_hash(&self) -> &str {
        &self.inner.manifest.content_hash
    }

    /// The token that ends documents.
    pub fn eos(&self) -> Option<u32> {
        self.inner.manifest.eos
    }

    /// The copy of `tokenizer.json`; `None` when the store was made of arrays without a tokenizer.
    pub fn tokenizer_path(&self) -> Option<PathBuf> {
        self.inner.manifest.tokenizer.as_ref().map(|_| self.inner.directory.join(TOKENIZER_FILE))
    }

    /// Opens the copy of the tokenizer, if there is one.
    pub fn tokenizer(&self) -> Result<Option<Tokenizer>, Error> {
        self.tokenizer_path().map(|path| Tokenizer::open(&path)).transpose()
    }

    /// Tokens in all.
    pub fn num_tokens(&self) -> u64 {
        self.inner.manifest.num_tokens
    }

    /// Documents in all.
    pub fn num_documents(&self) -> u64 {
        self.inner.manifest.num_documents
    }

    /// Token `index`.
    ///
    /// # Panics
    /// When there is no such token.
    pub fn token(&self, index: u64) -> u32 {
        self.tokens(index..index + 1)[0]
    }

    /// The tokens of a range.
    ///
    /// # Panics
    /// When the range reaches beyond the last token.
    pub fn tokens(&self, range: Range<u64>) -> Vec<u32> {
        assert!(
            range.end <= self.num_tokens(),
            "the range {range:?} ends within the {} tokens",
            self.num_tokens()
        );
        let Some(map) = &self.inner.tokens else { return Vec::new() };
        let dtype = self.inner.manifest.dtype;
        let bytes = &map[(range.start * dtype.width()) as usize..(range.end * dtype.width()) as usize];
        match dtype {
            Dtype::U16 => {
                bytes.chunks_exact(2).map(|b| u32::from(u16::from_le_bytes([b[0], b[1]]))).collect()
            }
            Dtype::U32 => {
                bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
            }
        }
    }

    /// The token ranges of all documents in order.
    pub fn documents(&self) -> impl ExactSizeIterator<Item = Range<u64>> + '_ {
        (0..self.num_documents() as usize).map(|index| self.document(index as u64))
    }

    /// The tokens of document `index`.
    ///
    /// # Panics
    /// When there is no such document.
    pub fn document(&self, index: u64) -> Range<u64> {
        let start = if index == 0 { 0 } else { self.document_end(index - 1) };
        start..self.document_end(index)
    }

    /// The document that token `index` is part of.
    ///
    /// # Panics
    /// When there is no such token.
    pub fn document_of(&self, index: u64) -> u64 {
        assert!(index < self.num_tokens(), "token {index} is one of the {}", self.num_tokens());
        let (mut low, mut high) = (0, self.num_documents() - 1);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.document_end(middle) > index {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        low
    }

    fn document_end(&self, index: u64) -> u64 {
        let map = self.inner.documents.as_ref().expect("a store with documents has a map of them");
        let at = index as usize * 8;
        u64::from_le_bytes(map[at..at + 8].try_into().expect("the slice has eight bytes"))
    }

    fn wrong(&self, message: String) -> Error {
        bad_store(&self.inner.directory, &message)
    }
}

impl Manifest {
    fn check(&self) -> Result<(), String> {
        let (mut tokens, mut documents) = (0, 0);
        for source in &self.sources {
            if (source.first_token, source.first_document) != (tokens, documents) {
                return Err(format!("source `{}` does not begin where the one before it ends", source.name));
            }
            tokens += source.num_tokens;
            documents += source.num_documents;
        }
        if (tokens, documents) != (self.num_tokens, self.num_documents) {
            return Err(format!(
                "its sources have {tokens} tokens and {documents} documents, the whole has {} and {}",
                self.num_tokens, self.num_documents
            ));
        }
        if self.dtype != Dtype::for_vocab(self.vocab_size) {
            return Err(format!("its dtype does not fit a vocabulary of {} tokens", self.vocab_size));
        }
        Ok(())
    }
}

/// blake3 over what makes two stores interchangeable: the tokens, the documents, where sources part, and how to read
/// them. Weights and repeats are left out: they say how often a window is drawn, not what is in it.
pub(crate) fn content_hash(manifest: &Manifest, directory: &Path) -> Result<String, Error> {
    let sources: Vec<_> = manifest
        .sources
        .iter()
        .map(|source| (&source.name, source.num_tokens, source.num_documents))
        .collect();
    let facts = serde_json::json!({
        "format": "remit token store",
        "version": manifest.version,
        "tokenizer": manifest.tokenizer,
        "vocab_size": manifest.vocab_size,
        "dtype": manifest.dtype,
        "eos": manifest.eos,
        "sources": sources,
        "tokens": hash_file(&directory.join(TOKENS_FILE))?,
        "documents": hash_file(&directory.join(DOCUMENTS_FILE))?,
    });
    Ok(blake3::hash(facts.to_string().as_bytes()).to_hex().to_string())
}

/// A file of the store is missing, of another version, or contradicts the manifest.
fn bad_store(directory: &Path, message: &str) -> Error {
    fault!("token store `{}`: {message}", directory.display()).with_hint(if directory.exists() {
        "make it again with `remit prepare --overwrite`"
    } else {
        "check the path, or make the store with `remit prepare`"
    })
}

fn map(directory: &Path, name: &str, expected: u64) -> Result<Option<Mmap>, Error> {
    let wrong = |message: String| bad_store(directory, &message);
    let path = directory.join(name);
    let file = File::open(&path).map_err(|cause| match cause.kind() {
        std::io::ErrorKind::NotFound => wrong(format!("`{name}` is missing")),
        _ => error::io("open", &path, cause),
    })?;
    let found = file.metadata().map_err(|cause| error::io("read", &path, cause))?.len();
    if found != expected {
        return Err(wrong(format!("`{name}` has {found} bytes; the manifest asks for {expected}")));
    }
    if found == 0 {
        return Ok(None);
    }
    // SAFETY: the file is mapped for reading only. A finished store is never written to again by this program;
    // another program that cuts it off while it is mapped can end this one with a bus error, as with any memory map.
    let map = unsafe { Mmap::map(&file) }.map_err(|cause| error::io("map", &path, cause))?;
    Ok(Some(map))
}
