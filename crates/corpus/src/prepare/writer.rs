//! Tokens to files, so that a kill at any instant loses no more than a unit.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::encode::EncodedUnit;
use super::{HELDOUT_DIRECTORY, Prepare, Vocabulary};
use crate::read::Cursor;
use crate::token_store::{DOCUMENTS_FILE, FORMAT_VERSION, MANIFEST_FILE, TOKENS_FILE, content_hash};
use crate::{Dtype, Error, Manifest, Skipped, Source, SourceEntry, error};

const STATE_FILE: &str = "state.json";

/// Writes the store to train on and, if wanted, the one kept apart.
pub(super) struct Writer {
    directory: PathBuf,
    sources: Vec<Source>,
    header: Header,
    state: State,
    main: PartFiles,
    heldout: Option<PartFiles>,
}

/// What both stores' manifests have in common.
struct Header {
    tokenizer: Option<String>,
    vocab_size: u32,
    dtype: Dtype,
    eos: Option<u32>,
}

/// What is finished and where to go on; replaced as a whole after every unit.
#[derive(Debug, Default, Serialize, Deserialize)]
struct State {
    next: Cursor,
    main: Part,
    heldout: Part,
    /// The document that the last unit ended inside of.
    open: Option<OpenDocument>,
    skipped: Skipped,
    num_empty: u64,
}

/// What is finished of one store.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Part {
    num_tokens: u64,
    num_documents: u64,
    sources: Vec<SourceEntry>,
}

#[derive(Debug, Serialize, Deserialize)]
struct OpenDocument {
    is_held_out: bool,
    first_token: u64,
}

struct PartFiles {
    directory: PathBuf,
    tokens: File,
    documents: File,
}

impl Writer {
    /// Begins in an empty directory.
    pub fn begin(directory: &Path, settings: &Prepare, vocabulary: &Vocabulary) -> Result<Writer, Error> {
        Writer::open(directory, settings, vocabulary, State::default())
    }

    /// Goes on after the last finished unit; `None` when there is none.
    pub fn resume(
        directory: &Path,
        settings: &Prepare,
        vocabulary: &Vocabulary,
    ) -> Result<Option<Writer>, Error> {
        let path = directory.join(STATE_FILE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(cause) => return Err(error::io("read", &path, cause)),
        };
        // A state that cannot be read was not written by this version.
        let Ok(state) = serde_json::from_slice::<State>(&bytes) else { return Ok(None) };
        let dtype = Dtype::for_vocab(vocabulary.size);
        let mut parts = vec![(directory.to_owned(), &state.main)];
        if settings.holdout > 0.0 {
            parts.push((directory.join(HELDOUT_DIRECTORY), &state.heldout));
        }
        for (directory, part) in parts {
            let is_there = |name: &str, bytes: u64| {
                directory.join(name).metadata().is_ok_and(|metadata| metadata.len() >= bytes)
            };
            if !is_there(TOKENS_FILE, part.num_tokens * dtype.width())
                || !is_there(DOCUMENTS_FILE, part.num_documents * 8)
            {
                return Ok(None);
            }
        }
        Writer::open(directory, settings, vocabulary, state).map(Some)
    }

    fn open(
        directory: &Path,
        settings: &Prepare,
        vocabulary: &Vocabulary,
        state: State,
    ) -> Result<Writer, Error> {
        let dtype = Dtype::for_vocab(vocabulary.size);
        let heldout = directory.join(HELDOUT_DIRECTORY);
        Ok(Writer {
            directory: directory.to_owned(),
            sources: settings.sources.clone(),
            header: Header {
                tokenizer: vocabulary.tokenizer.as_ref().map(|tokenizer| tokenizer.hash().to_owned()),
                vocab_size: vocabulary.size,
                dtype,
                eos: vocabulary.eos,
            },
            main: PartFiles::open(directory, &state.main, dtype)?,
            heldout: if settings.holdout > 0.0 {
                Some(PartFiles::open(&heldout, &state.heldout, dtype)?)
            } else {
                None
            },
            state,
        })
    }

    /// Where reading goes on.
    pub fn next(&self) -> Cursor {
        self.state.next.clone()
    }

    /// Tokens written, those kept apart included.
    pub fn num_tokens(&self) -> u64 {
        self.state.main.num_tokens + self.state.heldout.num_tokens
    }

    /// Where the store kept apart is, if there is one.
    pub fn heldout_directory(&self) -> Option<PathBuf> {
        self.heldout.as_ref().map(|files| files.directory.clone())
    }

    /// Appends a unit to the files. It counts once it is committed.
    ///
    /// # Errors
    /// When the unit ends a source that has no tokens, besides errors of the system.
    pub fn append(&mut self, unit: &EncodedUnit) -> Result<(), Error> {
        let State { next, main, heldout, open, skipped, num_empty } = &mut self.state;
        main.begin_sources(&self.sources[..=unit.source]);
        heldout.begin_sources(&self.sources[..=unit.source]);
        let mut bytes = [Bytes::default(), Bytes::default()];
        for piece in &unit.pieces {
            if let Some(is_held_out) = piece.begins {
                let part = if is_held_out { &*heldout } else { &*main };
                *open = Some(OpenDocument { is_held_out, first_token: part.num_tokens });
            }
            let OpenDocument { is_held_out, first_token } =
                open.as_ref().expect("a piece begins a document or goes on with one");
            let (part, bytes) =
                if *is_held_out { (&mut *heldout, &mut bytes[1]) } else { (&mut *main, &mut bytes[0]) };
            for &token in &piece.tokens {
                self.header.dtype.push(token, &mut bytes.tokens);
            }
            part.num_tokens += piece.tokens.len() as u64;
            let source = part.sources.last_mut().expect("the unit's source was begun above");
            source.num_tokens += piece.tokens.len() as u64;
            if piece.ends {
                if part.num_tokens > *first_token {
                    bytes.documents.extend_from_slice(&part.num_tokens.to_le_bytes());
                    part.num_documents += 1;
                    source.num_documents += 1;
                } else {
                    // Text of which the tokenizer makes nothing.
                    *num_empty += 1;
                }
                *open = None;
            }
        }
        skipped.extend(&unit.skipped);
        *num_empty += unit.num_empty;
        *next = unit.next.clone();

        if unit.ends_source {
            let source = main.sources.last().expect("the unit's source was begun above");
            if source.num_tokens == 0 {
                let num_heldout = heldout.sources.last().map_or(0, |source| source.num_documents);
                let why = format!(
                    "{num_heldout} documents kept apart; in all sources so far {num_empty} records without text and \
                     {} malformed",
                    skipped.count
                );
                return Err(error::empty_source(&source.name, why));
            }
        }
        self.main.append(&bytes[0])?;
        if let Some(files) = &mut self.heldout {
            files.append(&bytes[1])?;
        }
        Ok(())
    }

    /// Makes what was appended count.
    pub fn commit(&mut self) -> Result<(), Error> {
        let bytes = serde_json::to_vec(&self.state).expect("plain values are valid JSON");
        remit_store::atomic::write(&self.directory.join(STATE_FILE), &bytes)
    }

    /// Writes the manifests, the main one last: with it the store is complete.
    pub fn complete(&self) -> Result<(), Error> {
        if let Some(files) = &self.heldout {
            // What was empty or malformed belongs to neither side; it is told once, in the main manifest.
            self.write_manifest(&files.directory, &self.state.heldout, 0, &Skipped::default())?;
        }
        self.write_manifest(&self.directory, &self.state.main, self.state.num_empty, &self.state.skipped)
    }

    fn write_manifest(
        &self,
        directory: &Path,
        part: &Part,
        num_empty: u64,
        skipped: &Skipped,
    ) -> Result<(), Error> {
        let Header { tokenizer, vocab_size, dtype, eos } = &self.header;
        let mut manifest = Manifest {
            version: FORMAT_VERSION,
            tokenizer: tokenizer.clone(),
            vocab_size: *vocab_size,
            dtype: *dtype,
            eos: *eos,
            num_tokens: part.num_tokens,
            num_documents: part.num_documents,
            num_empty,
            skipped: skipped.clone(),
            sources: part.sources.clone(),
            content_hash: String::new(),
        };
        manifest.content_hash = content_hash(&manifest, directory)?;
        remit_store::atomic::write_json(&directory.join(MANIFEST_FILE), &manifest)
    }
}

/// Whether only the final name is missing.
pub(super) fn is_complete(directory: &Path) -> bool {
    directory.join(MANIFEST_FILE).exists()
}

/// A finished store has no state.
pub(super) fn remove_state(directory: &Path) -> Result<(), Error> {
    let path = directory.join(STATE_FILE);
    match fs::remove_file(&path) {
        Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => Err(error::io("remove", &path, cause)),
        _ => Ok(()),
    }
}

impl Part {
    /// Adds entries for sources that begin now.
    fn begin_sources(&mut self, sources: &[Source]) {
        for source in &sources[self.sources.len()..] {
            self.sources.push(SourceEntry {
                name: source.name.clone(),
                first_token: self.num_tokens,
                num_tokens: 0,
                first_document: self.num_documents,
                num_documents: 0,
                weight: source.weight,
                repeat: source.repeat,
            });
        }
    }
}

/// A unit's bytes for one store.
#[derive(Default)]
struct Bytes {
    tokens: Vec<u8>,
    documents: Vec<u8>,
}

impl PartFiles {
    /// Opens the files at the lengths that the state knows, cutting off what a kill left beyond.
    fn open(directory: &Path, part: &Part, dtype: Dtype) -> Result<PartFiles, Error> {
        fs::create_dir_all(directory).map_err(|cause| error::io("create", directory, cause))?;
        let open = |name: &str, bytes: u64| {
            let path = directory.join(name);
            let open = || {
                let mut file = OpenOptions::new().create(true).write(true).truncate(false).open(&path)?;
                file.set_len(bytes)?;
                file.seek(SeekFrom::Start(bytes))?;
                Ok(file)
            };
            open().map_err(|cause| error::io("open", &path, cause))
        };
        Ok(PartFiles {
            tokens: open(TOKENS_FILE, part.num_tokens * dtype.width())?,
            documents: open(DOCUMENTS_FILE, part.num_documents * 8)?,
            directory: directory.to_owned(),
        })
    }

    fn append(&mut self, bytes: &Bytes) -> Result<(), Error> {
        let files = [
            (&mut self.tokens, &bytes.tokens, TOKENS_FILE),
            (&mut self.documents, &bytes.documents, DOCUMENTS_FILE),
        ];
        for (file, bytes, name) in files {
            if !bytes.is_empty() {
                // On the device before the state that counts it.
                file.write_all(bytes)
                    .and_then(|()| file.sync_data())
                    .map_err(|cause| error::io("write", self.directory.join(name), cause))?;
            }
        }
        Ok(())
    }
}
