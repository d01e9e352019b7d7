//! Records of Parquet files, nested lists and structs included, as the JSON that they would be.

use std::fs::File;
use std::path::Path;

use parquet::file::reader::SerializedFileReader;
use parquet::record::reader::RowIter;
use parquet::record::{Field, Row as Record};

use super::rows::{Counted, Place, Row};
use crate::Error;
use crate::error::BadRecord;

/// The rows of a Parquet file, a batch at a time.
pub(super) fn records(path: &Path) -> Result<impl Iterator<Item = Result<Row, Error>> + use<>, Error> {
    let path = path.to_owned();
    let file = File::open(&path).map_err(|cause| Error::io("open", &path, cause))?;
    let failed = |error: parquet::errors::ParquetError, path: &Path| Error::Parquet {
        path: path.to_owned(),
        message: error.to_string(),
    };
    let reader = SerializedFileReader::new(file).map_err(|error| failed(error, &path))?;
    let records = RowIter::from_file_into(Box::new(reader));
    Ok((1..).zip(records).map(move |(number, record)| {
        let record = record.map_err(|error| failed(error, &path))?;
        let place = Place { path: path.clone(), number, counted: Counted::Records };
        let mut json = String::new();
        match write_object(&mut json, &record) {
            Ok(()) => Row::new(place, json),
            Err(problem) => Err(Error::Row { place, problem: problem.into() }),
        }
    }))
}

/// Written rather than made a value of the JSON library, whose objects forget the order of their fields.
fn write_object(out: &mut String, record: &Record) -> Result<(), BadRecord> {
    let fields = record.get_column_iter().map(|(name, field)| (quoted(name), field));
    write_all(out, ['{', '}'], fields, |out, (name, field)| {
        out.push_str(&name);
        out.push(':');
        write(out, field)
    })
}

fn write(out: &mut String, field: &Field) -> Result<(), BadRecord> {
    match field {
        Field::Group(record) => write_object(out, record),
        Field::ListInternal(list) => write_all(out, ['[', ']'], list.elements().iter(), write),
        Field::MapInternal(map) => write_all(out, ['{', '}'], map.entries().iter(), |out, (key, value)| {
            let key = match key {
                Field::Str(key) => quoted(key),
                other => quoted(&other.to_string()),
            };
            out.push_str(&key);
            out.push(':');
            write(out, value)
        }),
        // Some writers do not say that their text is text.
        Field::Bytes(bytes) => {
            out.push_str(&quoted(bytes.as_utf8().map_err(|_| BadRecord::InvalidUtf8)?));
            Ok(())
        }
        other => {
            out.push_str(&other.to_json_value().to_string());
            Ok(())
        }
    }
}

fn write_all<T>(
    out: &mut String,
    [open, close]: [char; 2],
    items: impl Iterator<Item = T>,
    write: impl Fn(&mut String, T) -> Result<(), BadRecord>,
) -> Result<(), BadRecord> {
    out.push(open);
    for (i, item) in items.enumerate() {
        if i > 0 {
            out.push(',');
        }
        write(out, item)?;
    }
    out.push(close);
    Ok(())
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
