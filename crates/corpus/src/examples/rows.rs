//! Files to rows: JSONL, one JSON array, or Parquet, a row at a time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use remit_fault::fault;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::Error;
use crate::error::BadRecord;
use crate::read::find;
use crate::read::input::{Input, plain_name};
use crate::read::jsonl::parse_fields;

/// Where a row stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub path: PathBuf,
    /// The line or the record, counted from 1.
    pub number: u64,
    /// Which of the two.
    pub counted: Counted,
}

/// What the number of a [`Place`] counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// Lines, where files have them.
    Lines,
    /// Records.
    Records,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.counted {
            Counted::Lines => write!(f, "{}:{}", self.path.display(), self.number),
            Counted::Records => write!(f, "{} record {}", self.path.display(), self.number),
        }
    }
}

/// One record of fields.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Where it stands.
    pub place: Place,
    /// Its fields, those that [`Rows::only`] names.
    pub fields: Map<String, Value>,
    /// The same as it was written: chat templates see the fields of tool calls in their order.
    json: String,
    /// The names of all fields, where `json` does not have them.
    names: Option<Arc<[String]>>,
}

/// The fields that are read; all without a set.
pub(super) type Wanted = Option<Arc<BTreeSet<String>>>;

impl Row {
    /// The row that a JSON object is.
    ///
    /// # Errors
    /// When `json` is not one.
    pub fn new(place: Place, json: impl Into<String>) -> Result<Row, Error> {
        Row::read(place, json.into(), &None)
    }

    /// The same with the wanted fields only: whatever is wrong with the values of others does not matter.
    pub(super) fn read(place: Place, json: String, wanted: &Wanted) -> Result<Row, Error> {
        match parse_fields(&json, &|name| wanted.as_ref().is_none_or(|wanted| wanted.contains(name))) {
            Ok(fields) => Ok(Row { place, fields, json, names: None }),
            Err(problem) => Err(problem.in_row().within(place)),
        }
    }

    /// The same with the names of fields that were not read.
    pub(super) fn with_names(self, names: Arc<[String]>) -> Row {
        Row { names: Some(names), ..self }
    }

    /// The names of its fields, sorted.
    pub(super) fn names(&self) -> Vec<String> {
        let mut names = match &self.names {
            Some(names) => names.to_vec(),
            None => {
                let fields: BTreeMap<String, &RawValue> =
                    serde_json::from_str(&self.json).expect("it was read as JSON before");
                fields.into_keys().collect()
            }
        };
        names.sort();
        names
    }

    /// The value of a field as it is written: a number keeps its spelling.
    pub(super) fn spelling(&self, field: &str) -> Option<String> {
        type Fields<'a> = BTreeMap<String, &'a RawValue>;
        let fields: Fields = serde_json::from_str(&self.json).ok()?;
        if let Some(value) = fields.get(field) {
            return Some(value.get().to_owned());
        }
        let mut names = field.split('.');
        let first = *fields.get(names.next()?)?;
        let inside = |value: &RawValue, name: &str| -> Option<String> {
            let fields: Fields = serde_json::from_str(value.get()).ok()?;
            Some(fields.get(name)?.get().to_owned())
        };
        let mut value = first.to_owned();
        for name in names {
            value = RawValue::from_string(inside(&value, name)?).ok()?;
        }
        Some(value.get().to_owned())
    }

    /// The value of a field; a name with dots that is no field leads into objects.
    pub fn get(&self, field: &str) -> Option<&Value> {
        if let Some(value) = self.fields.get(field) {
            return Some(value);
        }
        let mut names = field.split('.');
        let first = self.fields.get(names.next()?)?;
        names.try_fold(first, |value, name| value.get(name))
    }

    /// The text of a field, where it is a string.
    pub fn text(&self, field: &str) -> Option<&str> {
        self.get(field)?.as_str()
    }

    /// The row as it was written.
    #[cfg(test)]
    pub(crate) fn json(&self) -> &str {
        &self.json
    }

    /// An error of this row.
    pub(crate) fn error(&self, error: Error) -> Error {
        error.within(&self.place)
    }
}

/// The rows of files, in the order of the files as given and of their paths where one is a directory or a pattern.
/// Ends after the first error.
pub struct Rows {
    files: VecDeque<(PathBuf, RowFormat)>,
    wanted: Wanted,
    open: Option<Box<dyn Iterator<Item = Result<Row, Error>> + Send>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RowFormat {
    Jsonl,
    Json,
    Parquet,
}

impl Rows {
    /// Finds the files: each of `files` is a file, a directory or a pattern with `*`. By their names, `.jsonl` and
    /// `.ndjson` hold one object a line, `.json` one array of objects, `.parquet` is Parquet; the first three may be
    /// compressed (`.gz`, `.zst`, `.br`).
    ///
    /// # Errors
    /// When there is no file at one of the paths, or one of another kind; in a directory, those are passed over.
    pub fn open(files: &[PathBuf]) -> Result<Rows, Error> {
        let mut found = VecDeque::new();
        for path in files {
            let (before, mut unknown) = (found.len(), None);
            for file in find(path, || "a path of `files`".into())?.files {
                match RowFormat::of(&file) {
                    Some(format) => found.push_back((file, format)),
                    None => unknown = unknown.or(Some(file)),
                }
            }
            if found.len() == before {
                return Err(match unknown.filter(|_| !path.is_dir()) {
                    Some(file) => fault!("cannot tell the format of `{}` from its name", file.display())
                        .with_hint("examples are read from `.jsonl`, `.json` and `.parquet` files"),
                    None => no_files(path),
                });
            }
        }
        if found.is_empty() {
            return Err(no_files(Path::new("")));
        }
        Ok(Rows { files: found, wanted: None, open: None })
    }

    /// The same with these fields alone: no other column of a Parquet file is read.
    #[must_use]
    pub fn only(self, fields: impl IntoIterator<Item = impl Into<String>>) -> Rows {
        Rows { wanted: Some(Arc::new(fields.into_iter().map(Into::into).collect())), ..self }
    }

    /// The files, in order, of which none has been read yet.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|(path, _)| path.as_path())
    }
}

impl Iterator for Rows {
    type Item = Result<Row, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(row) = self.open.as_mut().and_then(Iterator::next) {
                if row.is_err() {
                    self.open = None;
                    self.files.clear();
                }
                return Some(row);
            }
            let (path, format) = self.files.pop_front()?;
            match open_file(&path, format, self.wanted.clone()) {
                Ok(rows) => self.open = Some(rows),
                Err(error) => {
                    self.files.clear();
                    return Some(Err(error));
                }
            }
        }
    }
}

impl RowFormat {
    fn of(path: &Path) -> Option<RowFormat> {
        match Path::new(&plain_name(path)).extension()?.to_str()? {
            "jsonl" | "ndjson" => Some(RowFormat::Jsonl),
            "json" => Some(RowFormat::Json),
            "parquet" => Some(RowFormat::Parquet),
            _ => None,
        }
    }
}

fn open_file(
    path: &Path,
    format: RowFormat,
    wanted: Wanted,
) -> Result<Box<dyn Iterator<Item = Result<Row, Error>> + Send>, Error> {
    Ok(match format {
        RowFormat::Jsonl => {
            Box::new(Lines { path: path.to_owned(), input: Input::open(path, 0)?, wanted, number: 0 })
        }
        RowFormat::Json => Box::new(array(path, &wanted)?.into_iter()),
        RowFormat::Parquet => Box::new(super::parquet::records(path, wanted)?),
    })
}

/// One object a line.
struct Lines {
    path: PathBuf,
    input: Input,
    wanted: Wanted,
    number: u64,
}

impl Lines {
    fn read(&mut self) -> Result<Option<Row>, Error> {
        let mut line = Vec::new();
        loop {
            line.clear();
            if self.input.read_line(&mut line)? == 0 {
                return Ok(None);
            }
            self.number += 1;
            if self.number == 1 && line.starts_with(b"\xEF\xBB\xBF") {
                line.drain(..3);
            }
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let place = Place { path: self.path.clone(), number: self.number, counted: Counted::Lines };
            return match String::from_utf8(line) {
                Ok(json) => Row::read(place, json, &self.wanted).map(Some),
                Err(_) => Err(BadRecord::InvalidUtf8.in_row().within(place)),
            };
        }
    }
}

impl Iterator for Lines {
    type Item = Result<Row, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}

/// A path of examples leads to no file.
fn no_files(path: &Path) -> Error {
    fault!("no file at `{}`", path.display())
        .with_hint("check the path in `files`; it may be a file, a directory or a pattern with `*`")
}

/// One array of objects, read whole.
fn array(path: &Path, wanted: &Wanted) -> Result<Vec<Result<Row, Error>>, Error> {
    let place = |number| Place { path: path.to_owned(), number, counted: Counted::Lines };
    let wrong = |line, problem: BadRecord| problem.in_row().within(place(line));
    let mut input = Input::open(path, 0)?;
    let mut bytes = Vec::new();
    while input.read_line(&mut bytes)? > 0 {}
    let text = String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        wrong(line_at(before), BadRecord::InvalidUtf8)
    })?;
    let text = text.strip_prefix('\u{FEFF}').unwrap_or(&text);
    if !text.trim_start().starts_with('[') {
        return Err(fault!("the file is no JSON array")
            .with_hint("a `.json` file is one array of objects; name one object a line `.jsonl`")
            .within(place(1)));
    }
    let elements: Vec<&RawValue> = serde_json::from_str(text).map_err(|error| {
        let message = error.to_string();
        let message = message.split(" at line ").next().unwrap_or(&message);
        wrong(error.line() as u64, BadRecord::Json(format!("{message} at column {}", error.column())))
    })?;
    let (mut line, mut counted) = (1, 0);
    let rows = elements.into_iter().map(|element| {
        // The parser lends parts of the text, and their place in it tells the line.
        let offset = element.get().as_ptr() as usize - text.as_ptr() as usize;
        line += line_at(&text.as_bytes()[counted..offset]) - 1;
        counted = offset;
        Row::read(place(line), element.get().to_owned(), wanted)
    });
    Ok(rows.collect())
}

/// The line, counted from 1, that follows these bytes.
fn line_at(before: &[u8]) -> u64 {
    1 + memchr::memchr_iter(b'\n', before).count() as u64
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn read(files: &[PathBuf]) -> Vec<String> {
        let rows = match Rows::open(files) {
            Ok(rows) => rows,
            Err(error) => return vec![error.to_string()],
        };
        let shown = |row: Result<Row, Error>| match row {
            Ok(row) => format!("{} {}", row.place, row.get("a").unwrap_or(&Value::Null)),
            Err(error) => error.to_string(),
        };
        rows.map(shown).collect()
    }

    #[test]
    fn lines_arrays_and_compressed_files_come_in_order_with_their_places() {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name);
        std::fs::write(at("2.jsonl"), "\u{FEFF}{\"a\":1}\n\n{\"a\":2}").unwrap();
        std::fs::write(at("1.json"), "[\n{\"a\":3},\n\n{\"a\":\n4}, {\"a\":5}]\n").unwrap();
        std::fs::write(at("readme.md"), "no rows").unwrap();
        let mut zip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        zip.write_all(b"{\"a\":6}\n").unwrap();
        std::fs::write(at("3.jsonl.gz"), zip.finish().unwrap()).unwrap();
        let prefix = format!("{}/", home.path().display());
        let named = |files: &[PathBuf]| {
            read(files).into_iter().map(|row| row.replace(&prefix, "")).collect::<Vec<_>>()
        };
        let array = ["1.json:2 3", "1.json:4 4", "1.json:5 5"];
        let lines = ["2.jsonl:1 1", "2.jsonl:3 2"];
        assert_eq!(named(&[at("2.jsonl"), at("1.json")]), [&lines[..], &array].concat());
        assert_eq!(named(&[home.path().into()]), [&array[..], &lines, &["3.jsonl.gz:1 6"]].concat());
        assert_eq!(named(&[at("*.jsonl")]), lines);
    }

    #[test]
    fn names_with_dots_lead_into_objects() {
        let place = Place { path: "x".into(), number: 1, counted: Counted::Lines };
        let row = Row::new(place, r#"{"a": {"b": "c"}, "a.d": "e", "n": 3}"#).unwrap();
        assert_eq!((row.text("a.b"), row.text("a.d"), row.text("n")), (Some("c"), Some("e"), None));
        assert_eq!((row.get("a.x"), row.get("n.b"), row.get("b")), (None, None, None));
    }

    #[test]
    fn numbers_keep_their_spelling() {
        let place = Place { path: "x".into(), number: 1, counted: Counted::Lines };
        let json =
            r#"{"a": 0.10, "b": {"c": 1e3, "d.e": -0}, "big": 123456789012345678901234567890, "f.g": 1.0}"#;
        let row = Row::new(place, json).unwrap();
        let spelt = |field| row.spelling(field).unwrap_or_default();
        assert_eq!([spelt("a"), spelt("b.c"), spelt("f.g")], ["0.10", "1e3", "1.0"]);
        assert_eq!(spelt("big"), "123456789012345678901234567890");
        assert_eq!((spelt("b.d.e"), spelt("none")), (String::new(), String::new()), "as `get` has it");
    }

    #[test]
    fn fields_that_nobody_asks_for_may_be_anything() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("a.jsonl");
        std::fs::write(&path, "{\"a\":1,\"b\":1e999}\n").unwrap();
        let rows = Rows::open(std::slice::from_ref(&path)).unwrap();
        assert!(rows.map(Result::unwrap_err).next().unwrap().to_string().contains("number out of range"));
        let row = Rows::open(&[path]).unwrap().only(["a"]).next().unwrap().unwrap();
        assert_eq!((row.fields.len(), row.names()), (1, vec!["a".to_owned(), "b".into()]));
    }

    #[test]
    fn wrong_rows_are_named_and_end_the_reading() {
        let home = tempfile::tempdir().unwrap();
        let check = |name: &str, content: &[u8], expected: &[&str]| {
            let path = home.path().join(name);
            std::fs::write(&path, content).unwrap();
            let found = read(&[path]);
            let prefix = format!("{}/", home.path().display());
            let found: Vec<String> = found.into_iter().map(|row| row.replace(&prefix, "")).collect();
            assert_eq!(found, expected);
        };
        check(
            "a.jsonl",
            b"{\"a\":1}\n{\"a\":\n{}",
            &["a.jsonl:1 1", "a.jsonl:2: malformed JSON: EOF while parsing a value at column 0"],
        );
        check("b.jsonl", b"[]\n{}", &["b.jsonl:1: the record is an array, not an object"]);
        check("c.jsonl", b"\n\xFF\n{}", &["c.jsonl:2: invalid UTF-8"]);
        check(
            "a.json",
            b"[{\"a\":1},\n3]",
            &["a.json:1 1", "a.json:2: the record is a number, not an object"],
        );
        check("b.json", b"[{},\n{]", &["b.json:2: malformed JSON: key must be a string at column 2"]);
        check("c.json", b"{}", &["c.json:1: the file is no JSON array"]);
        check("d.json", b"[\n\n\xFF]", &["d.json:3: invalid UTF-8"]);
        check("a.csv", b"", &["cannot tell the format of `a.csv` from its name"]);
        assert!(read(&[home.path().join("none*")])[0].starts_with("no file at `"));
    }
}
