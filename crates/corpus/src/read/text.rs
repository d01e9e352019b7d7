//! Plain text: a document is a file, a line or a paragraph.

use std::path::{Path, PathBuf};

use super::input::Input;
use super::pieces::{Content, PIECE_BYTES, Piece, cut};
use super::{Item, Position, ReadError, Reader, Split};
use crate::Error;
use crate::error::BadRecord;

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// Reads plain text. Never holds more than one piece and one buffer.
pub(crate) struct TextReader {
    path: PathBuf,
    input: Input,
    split: Split,
    /// Bytes taken from the input.
    taken: u64,
    /// Bytes of the current document that were taken and not yet given.
    pending: Vec<u8>,
    /// Bytes taken after `pending` that belong to no document: line ends, blank lines.
    stripped: Vec<u8>,
    /// Line ends before `pending`.
    lines: u64,
    /// Pieces given of the current document.
    piece: u64,
    /// Where the line being read begins in `pending`.
    line_start: usize,
    /// `pending` begins inside a line.
    mid_line: bool,
    document_ended: bool,
    input_ended: bool,
    /// The rest of the document was bad: only its end is still to be told.
    closing: bool,
}

impl TextReader {
    pub fn open(path: &Path, split: Split, at: Position) -> Result<TextReader, Error> {
        let mut input = Input::open(path, at.offset)?;
        let mut taken = at.offset;
        if taken == 0 && input.fill()?.starts_with(BYTE_ORDER_MARK) {
            input.consume(BYTE_ORDER_MARK.len());
            taken += BYTE_ORDER_MARK.len() as u64;
        }
        Ok(TextReader {
            path: path.to_owned(),
            input,
            split,
            taken,
            pending: Vec::new(),
            stripped: Vec::new(),
            lines: at.record,
            piece: at.piece,
            line_start: 0,
            mid_line: at.mid_line,
            document_ended: false,
            input_ended: false,
            closing: false,
        })
    }

    /// Takes some more of the input: at most one buffer or one line.
    fn take_more(&mut self) -> Result<(), Error> {
        let buffer = self.input.fill()?;
        if buffer.is_empty() {
            self.input_ended = true;
            self.document_ended = true;
            if self.split == Split::BlankLine {
                self.strip_blank_end();
            }
            return Ok(());
        }
        let line_end = match self.split {
            Split::File => None,
            Split::Line | Split::BlankLine => memchr::memchr(b'\n', buffer),
        };
        let count = line_end.map_or(buffer.len(), |at| at + 1);
        self.pending.extend_from_slice(&buffer[..count]);
        self.input.consume(count);
        self.taken += count as u64;
        if line_end.is_none() {
            return Ok(());
        }
        match self.split {
            Split::Line => {
                self.strip_line_end();
                self.document_ended = true;
            }
            Split::BlankLine => {
                let is_blank = !(self.mid_line && self.line_start == 0)
                    && self.pending[self.line_start..].iter().all(u8::is_ascii_whitespace);
                if is_blank {
                    self.strip_blank_end();
                    self.document_ended = true;
                } else {
                    self.line_start = self.pending.len();
                }
            }
            Split::File => {}
        }
        Ok(())
    }

    /// Moves the line end at the end of `pending` to `stripped`.
    fn strip_line_end(&mut self) {
        let mut end = self.pending.len();
        if self.pending[..end].ends_with(b"\n") {
            end -= 1;
            if self.pending[..end].ends_with(b"\r") {
                end -= 1;
            }
        }
        let rest = self.pending.split_off(end);
        self.stripped.splice(0..0, rest);
    }

    /// Moves a blank last line of `pending` and the line end before it to `stripped`.
    fn strip_blank_end(&mut self) {
        if !(self.mid_line && self.line_start == 0)
            && self.pending[self.line_start..].iter().all(u8::is_ascii_whitespace)
        {
            self.stripped = self.pending.split_off(self.line_start);
        }
        self.strip_line_end();
    }

    /// Gives the next `count` bytes of `pending` away.
    fn split_pending(&mut self, count: usize) -> Vec<u8> {
        // Copied, because what is given away lives on and must not keep the room of `pending`.
        let bytes = self.pending[..count].to_vec();
        self.pending.drain(..count);
        self.lines += count_line_ends(&bytes);
        if count > 0 {
            self.mid_line = !bytes.ends_with(b"\n");
        }
        self.line_start = self.line_start.saturating_sub(count);
        bytes
    }

    /// Forgets a document that has been given, and what separated it from the next.
    fn finish_document(&mut self) {
        self.lines += count_line_ends(&self.stripped);
        self.stripped.clear();
        self.piece = 0;
        self.line_start = 0;
        self.mid_line = false;
        self.document_ended = false;
    }

    /// Passes over the rest of a document.
    fn drop_document(&mut self) -> Result<(), Error> {
        while !self.document_ended {
            // In a paragraph the line being read stays whole, so that a blank line can be told; a line as long as
            // a piece is not blank.
            let keeps_line =
                self.split == Split::BlankLine && self.pending.len() - self.line_start < PIECE_BYTES;
            self.split_pending(if keeps_line { self.line_start } else { self.pending.len() });
            self.take_more()?;
        }
        self.split_pending(self.pending.len());
        if self.piece > 0 {
            self.closing = true;
        } else {
            self.finish_document();
        }
        Ok(())
    }

    fn give(&mut self, count: usize, last: bool) -> Result<Option<Item>, ReadError> {
        let line = self.lines;
        let bytes = self.split_pending(count);
        match String::from_utf8(bytes) {
            Ok(text) => {
                let piece = Piece { content: Content::Text(text), first: self.piece == 0, last };
                self.piece += 1;
                if last {
                    self.finish_document();
                }
                Ok(Some(Item::Piece(piece)))
            }
            Err(error) => {
                let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
                let line = line + count_line_ends(before) + 1;
                self.drop_document()?;
                let place = format_args!("{}:{line}", self.path.display());
                Err(ReadError::Record(BadRecord::InvalidUtf8.in_source(place)))
            }
        }
    }
}

impl Reader for TextReader {
    fn next(&mut self) -> Result<Option<Item>, ReadError> {
        if std::mem::take(&mut self.closing) {
            self.finish_document();
            let content = Content::Text(String::new());
            return Ok(Some(Item::Piece(Piece { content, first: false, last: true })));
        }
        loop {
            if let Some(at) = cut(&self.pending) {
                return self.give(at, false);
            }
            if self.document_ended {
                if self.pending.is_empty() && self.piece == 0 {
                    self.finish_document();
                    if self.input_ended {
                        return Ok(None);
                    }
                    continue;
                }
                return self.give(self.pending.len(), true);
            }
            if self.input_ended {
                return Ok(None);
            }
            self.take_more()?;
        }
    }

    fn position(&self) -> Position {
        Position {
            offset: self.taken - (self.pending.len() + self.stripped.len()) as u64,
            record: self.lines,
            piece: self.piece,
            mid_line: self.mid_line,
        }
    }

    fn bytes_read(&self) -> u64 {
        self.input.bytes_read()
    }
}

fn count_line_ends(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}
