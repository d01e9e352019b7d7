//! One JSON object a line.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::input::Input;
use super::pieces::{Piece, cut_all};
use super::template::Template;
use super::{Item, Position, ReadError, Reader};
use crate::error::BadRecord;
use crate::{Error, error};

/// Reads JSONL. Holds one record at a time.
pub(crate) struct JsonlReader {
    path: PathBuf,
    input: Input,
    template: Template,
    /// Where the current record begins, or the next one when none is current.
    position: Position,
    /// Bytes and lines of the current record.
    record_bytes: u64,
    record_lines: u64,
    /// Pieces of the current record not yet given.
    pieces: VecDeque<Piece>,
    line: Vec<u8>,
}

impl JsonlReader {
    pub fn open(path: &Path, template: Template, at: Position) -> Result<JsonlReader, Error> {
        let mut reader = JsonlReader {
            path: path.to_owned(),
            input: Input::open(path, at.offset)?,
            template,
            position: Position { piece: 0, ..at },
            record_bytes: 0,
            record_lines: 0,
            pieces: VecDeque::new(),
            line: Vec::new(),
        };
        if at.piece > 0 {
            reader.read_record()?;
            if reader.pieces.len() as u64 <= at.piece {
                return Err(error::input_changed(path));
            }
            reader.pieces.drain(..at.piece as usize);
            reader.position.piece = at.piece;
        }
        Ok(reader)
    }

    /// Reads lines up to the next record with text in it; `None` at the end, `Some(false)` when it has none.
    fn read_record(&mut self) -> Result<Option<bool>, ReadError> {
        loop {
            self.line.clear();
            self.record_bytes = self.input.read_line(&mut self.line)? as u64;
            if self.record_bytes == 0 {
                return Ok(None);
            }
            self.record_lines = 1;
            let mut line = self.line.as_slice();
            if self.position.offset == 0 {
                line = line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line);
            }
            if line.iter().all(u8::is_ascii_whitespace) {
                self.finish_record();
                continue;
            }
            return match text_of(line, &self.template) {
                Ok(text) if text.is_empty() => {
                    self.finish_record();
                    Ok(Some(false))
                }
                Ok(text) => {
                    self.pieces = cut_all(text).into();
                    Ok(Some(true))
                }
                Err(problem) => {
                    let place = format!("{}:{}", self.path.display(), self.position.record + 1);
                    self.finish_record();
                    Err(ReadError::Record(problem.in_source(place)))
                }
            };
        }
    }

    fn finish_record(&mut self) {
        self.position.offset += self.record_bytes;
        self.position.record += self.record_lines;
        self.position.piece = 0;
    }
}

impl Reader for JsonlReader {
    fn next(&mut self) -> Result<Option<Item>, ReadError> {
        if self.pieces.is_empty() {
            match self.read_record()? {
                None => return Ok(None),
                Some(false) => return Ok(Some(Item::Empty)),
                Some(true) => {}
            }
        }
        let piece = self.pieces.pop_front().expect("a record with text has a piece");
        self.position.piece += 1;
        if piece.last {
            self.finish_record();
        }
        Ok(Some(Item::Piece(piece)))
    }

    fn position(&self) -> Position {
        self.position.clone()
    }

    fn bytes_read(&self) -> u64 {
        self.input.bytes_read()
    }
}

fn text_of(line: &[u8], template: &Template) -> Result<String, BadRecord> {
    let line = std::str::from_utf8(line).map_err(|_| BadRecord::InvalidUtf8)?;
    let record = parse_object(line)?;
    template.fill(|field| match record.get(field) {
        Some(Value::String(text)) => Ok(text.as_str().into()),
        Some(other) => Err(BadRecord::NotAString { field: field.to_owned(), found: kind(other) }),
        None => {
            let mut available: Vec<_> = record.keys().cloned().collect();
            available.sort();
            Err(BadRecord::MissingField { field: field.to_owned(), available })
        }
    })
}

/// The object that one line holds.
pub(crate) fn parse_object(line: &str) -> Result<Map<String, Value>, BadRecord> {
    let value: Value = serde_json::from_str(line).map_err(|error| {
        // The parser sees one line, so its own line number would only mislead.
        let message = error.to_string();
        let message = message.split(" at line ").next().unwrap_or(&message);
        BadRecord::Json(format!("{message} at column {}", error.column()))
    })?;
    match value {
        Value::Object(record) => Ok(record),
        other => Err(BadRecord::NotAnObject(kind(&other))),
    }
}

/// What a value is, with its article.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
