//! Sources to a token store, on all cores, in bounded memory, and resumable after a kill at any instant.
//!
//! A reader thread cuts the sources into units of a few MiB; the pool of threads tokenizes a unit; a writer thread
//! appends it to the files in `<out>.partial` and then replaces `state.json`, which says how long the files are and
//! where reading goes on. What a kill leaves beyond that is cut off by the next run. When all is written the
//! manifest is added and the directory takes its final name.

mod encode;
mod inputs;
mod writer;

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use remit_fault::fault;
use serde::{Deserialize, Serialize};

use crate::read::{SourceFiles, UNIT_BYTES, Unit, UnitSettings, Units, find_files, total_bytes};
use crate::{Bos, Dtype, Error, Progress, Skipped, Source, SourceEntry, TokenStore, Tokenizer, error};
use encode::{EncodedUnit, encode};
use inputs::{INPUTS_FILE, Inputs};
use writer::Writer;

/// Where the documents kept apart are, inside the token store's directory.
pub(crate) const HELDOUT_DIRECTORY: &str = "heldout";

/// How to make a token store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prepare {
    /// A `tokenizer.json`, or a directory with one. May be left out when all sources are arrays of tokens; then
    /// `vocab_size` is needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<PathBuf>,
    /// What to read, in order.
    pub sources: Vec<Source>,
    /// Share of the documents kept apart in a store of their own, `heldout` inside the output. Which ones depends on
    /// their text alone (of a long one, its first piece), so that two copies are never on both sides.
    #[serde(default)]
    pub holdout: f64,
    /// End every document of text with the tokenizer's end-of-document token.
    #[serde(default = "default_append_eos")]
    pub append_eos: bool,
    /// What every document of text begins with: `own`, what the tokenizer's post-processor puts in front of a text; `none`;
    /// or a token. Where that is the very token that ends documents, the end of a document is the beginning of the next,
    /// and it is not put there twice.
    #[serde(default)]
    pub bos: Bos,
    /// Count, report and skip malformed records instead of stopping at the first.
    #[serde(default)]
    pub skip_bad_records: bool,
    /// Replace a store made of other inputs.
    #[serde(default)]
    pub overwrite: bool,
    /// Threads that tokenize; 0 is one a core. Never changes the result.
    #[serde(default)]
    pub threads: usize,
    /// The size of the vocabulary, for arrays of tokens without a tokenizer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vocab_size: Option<u32>,
    /// The token that ends documents, for arrays of tokens without a tokenizer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eos: Option<u32>,
}

/// What was made.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// It was there already, made of the very same inputs.
    pub already_prepared: bool,
    /// Width of a token.
    pub dtype: Dtype,
    /// Tokens to train on.
    pub num_tokens: u64,
    /// Documents to train on.
    pub num_documents: u64,
    /// Tokens kept apart.
    pub num_heldout_tokens: u64,
    /// Documents kept apart.
    pub num_heldout_documents: u64,
    /// Records without text.
    pub num_empty: u64,
    /// Malformed records.
    pub skipped: Skipped,
    /// What each source contributed to the tokens to train on.
    pub sources: Vec<SourceEntry>,
    /// The content hash of the tokens to train on.
    pub content_hash: String,
}

/// The files of a source, for a look before the work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InputSummary {
    /// The source.
    pub name: String,
    /// Its files.
    pub num_files: usize,
    /// Their bytes as they lie on disk.
    pub num_bytes: u64,
}

impl Prepare {
    /// Settings with everything but the tokenizer and the sources at its default.
    pub fn new(tokenizer: impl Into<PathBuf>, sources: Vec<Source>) -> Prepare {
        Prepare {
            tokenizer: Some(tokenizer.into()),
            sources,
            holdout: 0.0,
            append_eos: default_append_eos(),
            bos: Bos::default(),
            skip_bad_records: false,
            overwrite: false,
            threads: 0,
            vocab_size: None,
            eos: None,
        }
    }

    /// What every document of text begins and ends with, in words; `None` without a tokenizer.
    ///
    /// # Errors
    /// Those of the settings and the tokenizer.
    pub fn ends(&self) -> Result<Option<[String; 2]>, Error> {
        let vocabulary = Vocabulary::open(self)?;
        let Some(tokenizer) = &vocabulary.tokenizer else { return Ok(None) };
        let end: Vec<u32> = vocabulary.eos.into_iter().filter(|_| self.append_eos).collect();
        let begin = tokenizer.prefix(&self.bos)?;
        let begin = match begin == vocabulary.prefix {
            true => tokenizer.describe_prefix(&begin),
            false => format!("the {} of the one before", tokenizer.describe_prefix(&begin)),
        };
        Ok(Some([begin, tokenizer.describe_prefix(&end)]))
    }

    /// Checks the settings and finds the files, without reading them.
    pub fn inputs(&self) -> Result<Vec<InputSummary>, Error> {
        let vocabulary = Vocabulary::open(self)?;
        let sources = find_files(&self.sources, &())?;
        vocabulary.check(self, &sources)?;
        Ok(sources
            .into_iter()
            .map(|source| InputSummary {
                name: source.source.name,
                num_files: source.files.len(),
                num_bytes: source.files.iter().map(|file| file.bytes).sum(),
            })
            .collect())
    }
}

/// Makes the token store `out`, with the documents kept apart in `out/heldout`. Killed at any instant and started
/// again it goes on where it was, and the result is the same to the byte. When `out` is there already and made of the
/// very same inputs, nothing is done.
///
/// # Errors
/// For missing or malformed inputs, naming file and line; when a source comes to nothing; when `out` exists and was
/// made of other inputs (`overwrite` replaces it) or is no token store (nothing replaces that).
pub fn prepare(settings: &Prepare, out: &Path, progress: &dyn Progress) -> Result<Summary, Error> {
    run(settings, out, progress, UNIT_BYTES, &|_| {})
}

/// An instant at which tests kill the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Instant {
    /// A unit is in the files, but not in the state.
    Appended,
    /// A unit is in the state.
    Committed,
    /// The manifest is written.
    Complete,
    /// The old store is out of the way.
    MovedAway,
}

fn run(
    settings: &Prepare,
    out: &Path,
    progress: &dyn Progress,
    unit_bytes: usize,
    at: &(dyn Fn(Instant) + Sync),
) -> Result<Summary, Error> {
    let vocabulary = Vocabulary::open(settings)?;
    let sources = find_files(&settings.sources, progress)?;
    vocabulary.check(settings, &sources)?;
    let inputs = Inputs::read(settings, &vocabulary, &sources)?;

    let replaced = sibling(out, "replaced");
    remove_directory(&replaced)?;
    if out.symlink_metadata().is_ok() {
        let Some(before) = Inputs::load(out)? else {
            return Err(fault!("`{}` exists and is not a token store", out.display())
                .with_hint("choose another output"));
        };
        let difference = inputs.difference(&before);
        match difference {
            None if !settings.overwrite => return summary(out, true),
            // A damaged store is made again when asked to; a whole one would come out the same.
            None => {
                if let Ok(summary) = summary(out, true) {
                    return Ok(summary);
                }
            }
            Some(difference) if !settings.overwrite => {
                let out = out.display();
                return Err(fault!("`{out}` holds a token store made of other inputs: {difference}")
                    .with_hint("choose another output, or replace this one with `--overwrite`"));
            }
            Some(_) => {}
        }
    }

    let partial = sibling(out, "partial");
    let (lock, mut writer) = open_partial(out, &partial, &inputs, settings, &vocabulary, progress)?;
    if let Some(writer) = &mut writer {
        let threads = rayon::ThreadPoolBuilder::new()
            .num_threads(settings.threads)
            .build()
            .map_err(|error| error::io("start threads for", out, std::io::Error::other(error)))?;
        let unit_settings = UnitSettings {
            unit_bytes,
            skip_bad_records: settings.skip_bad_records,
            eos: vocabulary.eos,
            vocab_size: vocabulary.size,
        };
        let units = Units::new(&sources, unit_settings, writer.next());
        let work = Work { settings, vocabulary: &vocabulary, threads: &threads, progress, at };
        work.run(units, writer, total_bytes(&sources))?;
        inputs.check_unchanged(&sources)?;
        if let Some(tokenizer) = &vocabulary.tokenizer {
            for directory in [Some(partial.clone()), writer.heldout_directory()].into_iter().flatten() {
                tokenizer.write(&directory)?;
            }
        }
        writer.complete()?;
    }
    at(Instant::Complete);
    writer::remove_state(&partial)?;
    if out.symlink_metadata().is_ok() {
        rename(out, &replaced)?;
        at(Instant::MovedAway);
    }
    rename(&partial, out)?;
    drop(lock);
    remove_directory(&replaced)?;

    let summary = summary(out, false)?;
    if summary.skipped.count > 0 {
        progress.message(&format!(
            "skipped {} malformed records, the first: {}",
            summary.skipped.count,
            summary.skipped.examples.join("; ")
        ));
    }
    if settings.holdout > 0.0 && summary.num_heldout_documents == 0 {
        progress.message(&format!(
            "no document was kept apart: {} of {} documents is too few",
            settings.holdout, summary.num_documents
        ));
    }
    Ok(summary)
}

/// What the three threads share.
struct Work<'a> {
    settings: &'a Prepare,
    vocabulary: &'a Vocabulary,
    threads: &'a rayon::ThreadPool,
    progress: &'a dyn Progress,
    at: &'a (dyn Fn(Instant) + Sync),
}

impl Work<'_> {
    /// Reads, tokenizes and writes at once, a unit or two apart. The first error in the order of the input ends it.
    fn run(&self, units: Units<'_>, writer: &mut Writer, total_bytes: u64) -> Result<(), Error> {
        self.progress.advance(units.bytes_done(), total_bytes, writer.num_tokens());
        let (to_encode, from_reader) = sync_channel(1);
        let (to_write, from_encoder) = sync_channel(1);
        std::thread::scope(|scope| {
            scope.spawn(|| read(units, to_encode));
            let writing = scope.spawn(|| self.write(from_encoder, writer, total_bytes));
            for unit in from_reader {
                let encoded = unit
                    .and_then(|unit| self.threads.install(|| encode(unit, self.settings, self.vocabulary)));
                let failed = encoded.is_err();
                if to_write.send(encoded).is_err() || failed {
                    break;
                }
            }
            drop(to_write);
            writing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn write(
        &self,
        units: Receiver<Result<EncodedUnit, Error>>,
        writer: &mut Writer,
        total_bytes: u64,
    ) -> Result<(), Error> {
        for unit in units {
            let unit = unit?;
            writer.append(&unit)?;
            (self.at)(Instant::Appended);
            writer.commit()?;
            (self.at)(Instant::Committed);
            self.progress.advance(unit.bytes_done, total_bytes, writer.num_tokens());
        }
        Ok(())
    }
}

/// Sends units until the input ends or nobody listens.
fn read(mut units: Units<'_>, to_encode: SyncSender<Result<Unit, Error>>) {
    loop {
        match units.next() {
            Ok(None) => return,
            Ok(Some(unit)) => {
                if to_encode.send(Ok(unit)).is_err() {
                    return;
                }
            }
            Err(error) => {
                // When nobody listens any more, an earlier error has ended the work.
                let _ = to_encode.send(Err(error));
                return;
            }
        }
    }
}

/// Opens or begins the unfinished store; without a writer when all is written and only the name is missing. The file
/// returned holds the lock.
fn open_partial(
    out: &Path,
    partial: &Path,
    inputs: &Inputs,
    settings: &Prepare,
    vocabulary: &Vocabulary,
    progress: &dyn Progress,
) -> Result<(File, Option<Writer>), Error> {
    if partial.symlink_metadata().is_ok() {
        // Looked at under the lock only: another process may be at work in there.
        let lock = match File::open(partial.join(INPUTS_FILE)) {
            Ok(file) => Some(lock(file, out)?),
            Err(_) => None,
        };
        let before = Inputs::load(partial)?;
        match (lock, before.map(|before| inputs.difference(&before))) {
            (Some(lock), Some(None)) => {
                if writer::is_complete(partial) {
                    return Ok((lock, None));
                }
                if let Some(writer) = Writer::resume(partial, settings, vocabulary)? {
                    progress.message(&format!("continuing after {} tokens", writer.num_tokens()));
                    return Ok((lock, Some(writer)));
                }
                progress.message("nothing of use in the unfinished work: beginning anew");
            }
            (_, Some(Some(difference))) => {
                progress.message(&format!("discarding unfinished work on other inputs: {difference}"));
            }
            _ => {}
        }
        remove_directory(partial)?;
    }
    fs::create_dir_all(partial).map_err(|cause| error::io("create", partial, cause))?;
    inputs.save(partial)?;
    let path = partial.join(INPUTS_FILE);
    let lock = lock(File::open(&path).map_err(|cause| error::io("open", &path, cause))?, out)?;
    Ok((lock, Some(Writer::begin(partial, settings, vocabulary)?)))
}

fn lock(file: File, out: &Path) -> Result<File, Error> {
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(fault!("another process is preparing `{}`", out.display())
            .with_hint("wait for it to end, or choose another output")),
        Err(TryLockError::Error(cause)) => Err(error::io("lock", out, cause)),
    }
}

fn summary(out: &Path, already_prepared: bool) -> Result<Summary, Error> {
    let store = TokenStore::open(out)?;
    let manifest = store.manifest().clone();
    let heldout = out.join(HELDOUT_DIRECTORY);
    let heldout = if heldout.exists() { Some(TokenStore::open(&heldout)?) } else { None };
    Ok(Summary {
        already_prepared,
        dtype: manifest.dtype,
        num_tokens: manifest.num_tokens,
        num_documents: manifest.num_documents,
        num_heldout_tokens: heldout.as_ref().map_or(0, TokenStore::num_tokens),
        num_heldout_documents: heldout.as_ref().map_or(0, TokenStore::num_documents),
        num_empty: manifest.num_empty,
        skipped: manifest.skipped,
        sources: manifest.sources,
        content_hash: manifest.content_hash,
    })
}

/// What the tokenizer, or the settings in its place, say of ids.
struct Vocabulary {
    tokenizer: Option<Tokenizer>,
    size: u32,
    eos: Option<u32>,
    /// What a document of text begins with.
    prefix: Vec<u32>,
}

impl Vocabulary {
    fn open(settings: &Prepare) -> Result<Vocabulary, Error> {
        if !(0.0..1.0).contains(&settings.holdout) {
            return Err(fault!("holdout must be at least 0 and below 1, not {}", settings.holdout));
        }
        if let Some(path) = &settings.tokenizer {
            let tokenizer = Tokenizer::open(path)?;
            if let (Some(given), size) = (settings.vocab_size, tokenizer.vocab_size())
                && given != size
            {
                return Err(fault!("vocab_size must be that of the tokenizer, or left out, not {given}"));
            }
            if settings.eos.is_some() && settings.eos != tokenizer.eos() {
                return Err(fault!("eos must be that of the tokenizer, or left out, not {:?}", settings.eos));
            }
            let (size, eos) = (tokenizer.vocab_size(), tokenizer.eos());
            let mut prefix = tokenizer.prefix(&settings.bos)?;
            if settings.append_eos && eos.is_some_and(|eos| prefix == [eos]) {
                prefix.clear();
            }
            return Ok(Vocabulary { tokenizer: Some(tokenizer), size, eos, prefix });
        }
        let Some(size) = settings.vocab_size.filter(|&size| size > 0) else {
            return Err(fault!("vocab_size must be given where there is no tokenizer, not left out"));
        };
        if let Some(eos) = settings.eos.filter(|&eos| eos >= size) {
            return Err(fault!("eos must be below vocab_size, not {eos}"));
        }
        Ok(Vocabulary { tokenizer: None, size, eos: settings.eos, prefix: Vec::new() })
    }

    /// Whether what the sources need is there, before any work is done.
    fn check(&self, settings: &Prepare, sources: &[SourceFiles]) -> Result<(), Error> {
        let is_text = |source: &&SourceFiles| source.files.iter().any(|file| !file.format.is_tokens());
        let Some(source) = sources.iter().find(is_text) else { return Ok(()) };
        let Some(tokenizer) = &self.tokenizer else {
            return Err(fault!(
                "tokenizer must be given where a source is text, not left out: source `{}` is text",
                source.source.name
            ));
        };
        if settings.append_eos && self.eos.is_none() {
            let path = tokenizer.path().display();
            return Err(fault!("the tokenizer `{path}` names no eos token").with_hint(
                "name it as `eos_token` in the `tokenizer_config.json` beside the tokenizer, or set `append_eos` to false",
            ));
        }
        Ok(())
    }
}

fn default_append_eos() -> bool {
    true
}

/// A path beside `path` with an ending of ours.
fn sibling(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    PathBuf::from(name)
}

fn rename(from: &Path, to: &Path) -> Result<(), Error> {
    fs::rename(from, to).map_err(|cause| error::io("rename to", to, cause))?;
    let parent = match to.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(parent).and_then(|parent| parent.sync_all()).map_err(|cause| error::io("flush", parent, cause))
}

fn remove_directory(path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => Err(error::io("remove", path, cause)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
