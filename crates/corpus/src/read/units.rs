//! Sources to units: runs of pieces of a bounded size, each with the place where the next one begins.

use std::path::PathBuf;

use remit_fault::fault;
use serde::{Deserialize, Serialize};

use super::{Item, Piece, Position, ReadError, Reader, ResolvedFormat, Source, expand, open};
use crate::{Error, Progress, error};

/// Text in a unit, in bytes. Units bound the memory and how much is lost by a kill; they never show in the result.
pub(crate) const UNIT_BYTES: usize = 8 << 20;

/// Skipped records whose place is kept.
const NUM_EXAMPLES: usize = 10;

/// What was skipped because it was malformed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Skipped {
    /// Records skipped.
    pub count: u64,
    /// The first few of them, with place and reason.
    pub examples: Vec<String>,
}

impl Skipped {
    /// Adds what was skipped later.
    pub(crate) fn extend(&mut self, later: &Skipped) {
        self.count += later.count;
        let room = NUM_EXAMPLES - self.examples.len().min(NUM_EXAMPLES);
        self.examples.extend(later.examples.iter().take(room).cloned());
    }
}

/// A source and its files.
#[derive(Clone, Debug)]
pub(crate) struct SourceFiles {
    pub source: Source,
    pub files: Vec<InputFile>,
}

/// A file as it was found.
#[derive(Clone, Debug)]
pub(crate) struct InputFile {
    pub path: PathBuf,
    pub format: ResolvedFormat,
    pub bytes: u64,
}

/// Checks the sources and finds their files.
pub(crate) fn find_files(sources: &[Source], progress: &dyn Progress) -> Result<Vec<SourceFiles>, Error> {
    if sources.is_empty() {
        return Err(
            fault!("no source is given").with_hint("add a `[[sources]]` table with `name` and `path`")
        );
    }
    for (i, source) in sources.iter().enumerate() {
        source.check()?;
        if sources[..i].iter().any(|other| other.name == source.name) {
            return Err(fault!("two sources are named `{}`", source.name)
                .with_hint("give each source a name of its own"));
        }
    }
    let files_of = |source: &Source| -> Result<SourceFiles, Error> {
        let mut files = Vec::new();
        for (path, format) in expand(source, progress)? {
            let bytes = path.metadata().map_err(|cause| error::io("read", &path, cause))?.len();
            files.push(InputFile { path, format, bytes });
        }
        Ok(SourceFiles { source: source.clone(), files })
    };
    sources.iter().map(files_of).collect()
}

/// A run of pieces of one source.
pub(crate) struct Unit {
    /// Which source.
    pub source: usize,
    pub pieces: Vec<Piece>,
    pub skipped: Skipped,
    /// Records without text.
    pub num_empty: u64,
    /// The source ends here.
    pub ends_source: bool,
    /// Where the next unit begins.
    pub next: Cursor,
    /// Bytes of all input files that have been read.
    pub bytes_done: u64,
}

/// A place in the sources.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cursor {
    pub source: usize,
    pub file: usize,
    pub position: Position,
}

/// How units are read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UnitSettings {
    /// Where units end, in bytes of text.
    pub unit_bytes: usize,
    /// Count malformed records instead of stopping at the first.
    pub skip_bad_records: bool,
    /// What ends documents in raw token arrays.
    pub eos: Option<u32>,
    /// What the ids of raw token arrays must be below.
    pub vocab_size: u32,
}

/// Reads all sources, one after another.
pub(crate) struct Units<'a> {
    sources: &'a [SourceFiles],
    settings: UnitSettings,
    cursor: Cursor,
    reader: Option<Box<dyn Reader>>,
    /// Bytes of the files before the current one.
    bytes_before: u64,
}

impl<'a> Units<'a> {
    /// Begins or goes on at `cursor`.
    pub fn new(sources: &'a [SourceFiles], settings: UnitSettings, cursor: Cursor) -> Units<'a> {
        let files_before = |(i, source): (usize, &'a SourceFiles)| {
            let count = if i < cursor.source { source.files.len() } else { cursor.file };
            source.files[..count].iter().map(|file| file.bytes).sum::<u64>()
        };
        let bytes_before = sources.iter().enumerate().take(cursor.source + 1).map(files_before).sum();
        Units { sources, settings, cursor, reader: None, bytes_before }
    }

    /// Bytes of the files that are through.
    pub fn bytes_done(&self) -> u64 {
        self.bytes_before
    }

    /// The next unit; `None` when all sources are read.
    pub fn next(&mut self) -> Result<Option<Unit>, Error> {
        let Some(SourceFiles { source, files }) = self.sources.get(self.cursor.source) else {
            return Ok(None);
        };
        let source_index = self.cursor.source;
        let (mut pieces, mut skipped, mut num_empty, mut size) = (Vec::new(), Skipped::default(), 0, 0);
        let mut bytes_done = self.bytes_before;
        let mut ends_source = false;
        while size < self.settings.unit_bytes {
            let Some(file) = files.get(self.cursor.file) else {
                ends_source = true;
                self.cursor = Cursor { source: source_index + 1, file: 0, position: Position::default() };
                break;
            };
            if self.reader.is_none() {
                let UnitSettings { eos, vocab_size, .. } = self.settings;
                let at = self.cursor.position.clone();
                self.reader = Some(open(source, &file.path, file.format, at, eos, vocab_size)?);
            }
            let reader = self.reader.as_mut().expect("a reader was opened above");
            // Every item counts for a little, or a unit of short lines would hold very many.
            size += 64;
            match reader.next() {
                Ok(Some(Item::Piece(piece))) => {
                    size += piece.content.size();
                    pieces.push(piece);
                }
                Ok(Some(Item::Empty)) => num_empty += 1,
                Ok(None) => {
                    self.reader = None;
                    self.bytes_before += file.bytes;
                    bytes_done = self.bytes_before;
                    self.cursor.file += 1;
                    self.cursor.position = Position::default();
                    continue;
                }
                Err(ReadError::Record(error)) if self.settings.skip_bad_records => {
                    skipped.extend(&Skipped { count: 1, examples: vec![error.to_string()] });
                }
                Err(error) => return Err(error.into()),
            }
            self.cursor.position = reader.position();
            bytes_done = self.bytes_before + reader.bytes_read().min(file.bytes);
        }
        let next = self.cursor.clone();
        Ok(Some(Unit { source: source_index, pieces, skipped, num_empty, ends_source, next, bytes_done }))
    }
}

/// Bytes of all input files together.
pub(crate) fn total_bytes(sources: &[SourceFiles]) -> u64 {
    sources.iter().flat_map(|source| &source.files).map(|file| file.bytes).sum()
}
