//! One JSON object a line.

use std::collections::VecDeque;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
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
    let fields = template.fields();
    let record = parse_fields(line, &|name| fields.contains(&name))?;
    template.fill(|field| match record.get(field) {
        Some(Value::String(text)) => Ok(text.as_str().into()),
        Some(other) => Err(BadRecord::NotAString { field: field.to_owned(), found: kind(other) }),
        None => {
            let mut available: Vec<_> = parse_fields(line, &|_| true)?.keys().cloned().collect();
            available.sort();
            Err(BadRecord::MissingField { field: field.to_owned(), available })
        }
    })
}

/// The wanted fields of the object that one line holds. Of the others only the syntax is looked at.
pub(crate) fn parse_fields(
    line: &str,
    is_wanted: &dyn Fn(&str) -> bool,
) -> Result<Map<String, Value>, BadRecord> {
    let mut parser = serde_json::Deserializer::from_str(line);
    let record = Wanted(is_wanted).deserialize(&mut parser).and_then(|record| parser.end().map(|()| record));
    record
        .map_err(|error| {
            // The parser sees one line, so its own line number would only mislead.
            let message = error.to_string();
            let message = message.split(" at line ").next().unwrap_or(&message);
            BadRecord::Json(format!("{message} at column {}", error.column()))
        })?
        .map_err(BadRecord::NotAnObject)
}

/// Reads the wanted fields of an object; of anything else, what it is.
struct Wanted<'a>(&'a dyn Fn(&str) -> bool);

impl<'de> DeserializeSeed<'de> for Wanted<'_> {
    type Value = Result<Map<String, Value>, &'static str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Wanted<'_> {
    type Value = Result<Map<String, Value>, &'static str>;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut record = Map::new();
        while let Some(name) = entries.next_key::<String>()? {
            if (self.0)(&name) {
                record.insert(name, entries.next_value()?);
            } else {
                entries.next_value::<IgnoredAny>()?;
            }
        }
        Ok(Ok(record))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Err(kind(&Value::Array(Vec::new()))))
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(Err(kind(&Value::String(String::new()))))
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Self::Value, E> {
        Ok(Err(kind(&Value::Bool(truth))))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Err(kind(&number.into())))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Err(kind(&number.into())))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
        Ok(Err(kind(&number.into())))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Err(kind(&Value::Null)))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_fields_of_the_template_are_read() {
        let template = Template::parse("{a}|{b}").unwrap();
        let read = |line: &str| text_of(line.as_bytes(), &template).map_err(|problem| problem.to_string());
        // A number that no float holds, a lone surrogate: whatever is not asked for may be anything.
        assert_eq!(read(r#"{"a":"1","n":1e999,"s":"\ud800","o":[{"x":1e999}],"b":"2"}"#).unwrap(), "1|2");
        assert_eq!(read(r#"{"a":"1","b":"2","a":"3"}"#).unwrap(), "3|2");
        assert_eq!(
            read(r#"{"a":1e999,"b":"2"}"#).unwrap_err(),
            "malformed JSON: number out of range at column 10"
        );
        assert_eq!(
            read(r#"{"a":"1","n":1,"c":2}"#).unwrap_err(),
            "no field `b`; the record has `a`, `c`, `n`"
        );
        assert_eq!(
            read(r#"{"a":"1","b":"2"} x"#).unwrap_err(),
            "malformed JSON: trailing characters at column 19"
        );
        for (line, found) in [
            ("[1, {}]", "an array"),
            ("\"x\"", "a string"),
            ("-1", "a number"),
            ("1.5", "a number"),
            ("7", "a number"),
            ("true", "a boolean"),
            ("null", "null"),
        ] {
            assert_eq!(read(line).unwrap_err(), format!("the record is {found}, not an object"));
        }
    }
}
