//! Files to documents, one piece after another in bounded memory.
//!
//! A document longer than [`pieces::PIECE_BYTES`] comes in several pieces, cut by its content alone, so that a file
//! of any size can be tokenized in parallel and the result depends neither on the format nor on how it was read.
//! Every reader can be opened at a [`Position`] that it gave before and goes on from there as if never closed.

pub(crate) mod input;
pub(crate) mod jsonl;
pub(crate) mod parquet;
mod paths;
mod pieces;
mod source;
pub(crate) mod template;
mod text;
mod tokens;
mod units;

pub use paths::files_at;
pub(crate) use paths::find;
pub(crate) use pieces::{Content, Piece};
pub use source::{Format, Source, Split, TokenDtype};
pub(crate) use source::{ResolvedFormat, expand};
pub use units::Skipped;
pub(crate) use units::{Cursor, SourceFiles, UNIT_BYTES, Unit, UnitSettings, Units, find_files, total_bytes};

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::Error;

/// Where reading a file goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Position {
    /// Bytes (raw token arrays: tokens) of decompressed content before the next piece or the record it is part of.
    pub offset: u64,
    /// Lines (Parquet: records) before that.
    pub record: u64,
    /// Pieces of the current document already given; 0 at the start of a document.
    pub piece: u64,
    /// Plain text: the offset is inside a line.
    pub mid_line: bool,
}

/// What a reader finds next.
pub(crate) enum Item {
    /// A piece of a document.
    Piece(Piece),
    /// A record without any text.
    Empty,
}

/// Why a reader has no next piece.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// One record cannot be read. The reader goes on with the next one.
    Record(Error),
    /// The file cannot be read.
    File(Error),
}

impl From<Error> for ReadError {
    fn from(error: Error) -> ReadError {
        ReadError::File(error)
    }
}

impl From<ReadError> for Error {
    fn from(error: ReadError) -> Error {
        let (ReadError::Record(error) | ReadError::File(error)) = error;
        error
    }
}

/// A file being read.
pub(crate) trait Reader: Send {
    /// The next piece; `None` at the end.
    fn next(&mut self) -> Result<Option<Item>, ReadError>;

    /// Where a reader must be opened to give what this one gives next.
    fn position(&self) -> Position;

    /// Bytes read of the file as it lies on disk.
    fn bytes_read(&self) -> u64;
}

/// Opens `path`, a file of `source` in `format`, at a position given before. For raw token arrays, `eos` ends
/// documents and ids must be below `vocab_size`.
pub(crate) fn open(
    source: &Source,
    path: &Path,
    format: ResolvedFormat,
    at: Position,
    eos: Option<u32>,
    vocab_size: u32,
) -> Result<Box<dyn Reader>, Error> {
    Ok(match format {
        ResolvedFormat::Text => Box::new(text::TextReader::open(path, source.split, at)?),
        ResolvedFormat::Jsonl => {
            Box::new(jsonl::JsonlReader::open(path, template::Template::parse(&source.text_field)?, at)?)
        }
        ResolvedFormat::Parquet => {
            Box::new(parquet::ParquetReader::open(path, template::Template::parse(&source.text_field)?, at)?)
        }
        ResolvedFormat::Tokens | ResolvedFormat::Raw => {
            let has_header = format == ResolvedFormat::Tokens && input::plain_name(path).ends_with(".npy");
            let dtype = source.token_dtype;
            Box::new(tokens::TokenReader::open(path, has_header, dtype, at, eos, vocab_size)?)
        }
    })
}
