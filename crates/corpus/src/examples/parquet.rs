//! Records of Parquet files, nested lists and structs included, as the JSON that they would be.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::reader::RowIter;
use parquet::record::{Field, Row as Record};
use parquet::schema::types::Type;

use super::rows::{Counted, Place, Row, Wanted};
use crate::error::BadRecord;
use crate::{Error, error};

/// The rows of a Parquet file, a batch at a time. Only the columns of wanted fields are read.
pub(super) fn records(
    path: &Path,
    wanted: Wanted,
) -> Result<impl Iterator<Item = Result<Row, Error>> + use<>, Error> {
    let path = path.to_owned();
    let file = File::open(&path).map_err(|cause| error::io("open", &path, cause))?;
    let reader = SerializedFileReader::new(file).map_err(|error| error::parquet(&path, &error))?;
    let schema = reader.metadata().file_metadata().schema().clone();
    let names: Arc<[String]> = schema.get_fields().iter().map(|field| field.name().to_owned()).collect();
    let records = RowIter::from_file_into(Box::new(reader));
    let columns = |wanted: &BTreeSet<String>| {
        let fields = schema.get_fields().iter().filter(|field| wanted.contains(field.name()));
        Type::group_type_builder(schema.name()).with_fields(fields.cloned().collect()).build()
    };
    let records = wanted
        .as_ref()
        .map(|wanted| columns(wanted))
        .transpose()
        .and_then(|columns| records.project(columns))
        .map_err(|error| error::parquet(&path, &error))?;
    Ok((1..).zip(records).map(move |(number, record)| {
        let record = record.map_err(|error| error::parquet(&path, &error))?;
        let place = Place { path: path.clone(), number, counted: Counted::Records };
        let mut json = String::new();
        match write_object(&mut json, &record) {
            Ok(()) => Ok(Row::new(place, json)?.with_names(names.clone())),
            Err(problem) => Err(problem.in_row().within(place)),
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
        // The shortest spelling that means this number, not one of the wider number that it would become.
        Field::Float(number) if number.is_finite() => {
            out.push_str(&format!("{number:?}"));
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

#[cfg(test)]
mod tests {
    use parquet::data_type::{ByteArray, ByteArrayType, DoubleType};
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;

    use super::*;

    /// Four rows: two messages of which one has no content, no messages, null, and one message.
    fn write(path: &Path, first: &[u8]) {
        let schema = "message m { required binary id; optional group messages (LIST) { repeated group list { optional \
                      group element { optional binary role (UTF8); optional binary content (UTF8); } } } required double \
                      score; }";
        let schema = Arc::new(parse_message_type(schema).unwrap());
        let mut writer =
            SerializedFileWriter::new(File::create(path).unwrap(), schema, Arc::default()).unwrap();
        let mut group = writer.next_row_group().unwrap();
        let mut text = |values: &[&[u8]], levels: Option<[&[i16]; 2]>| {
            let values: Vec<ByteArray> = values.iter().map(|value| value.to_vec().into()).collect();
            let mut column = group.next_column().unwrap().unwrap();
            let [definitions, repetitions] = levels.map_or([None, None], |levels| levels.map(Some));
            column.typed::<ByteArrayType>().write_batch(&values, definitions, repetitions).unwrap();
            column.close().unwrap();
        };
        text(&[first, b"b", b"c", b"d"], None);
        text(&[b"user", b"assistant", b"user"], Some([&[4, 4, 1, 0, 4], &[0, 1, 0, 0, 0]]));
        text(&[b"\"1\"", b"2"], Some([&[4, 3, 1, 0, 4], &[0, 1, 0, 0, 0]]));
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<DoubleType>().write_batch(&[0.5, 1.0, 1.5, 2.0], None, None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
        writer.close().unwrap();
    }

    #[test]
    fn lists_of_structs_are_arrays_of_objects_in_the_order_of_the_columns() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("a.parquet");
        write(&path, b"a");
        let rows: Vec<Row> = records(&path, None).unwrap().map(Result::unwrap).collect();
        let expected = [
            r#"{"id":"a","messages":[{"role":"user","content":"\"1\""},{"role":"assistant","content":null}],"score":0.5}"#,
            r#"{"id":"b","messages":[],"score":1.0}"#,
            r#"{"id":"c","messages":null,"score":1.5}"#,
            r#"{"id":"d","messages":[{"role":"user","content":"2"}],"score":2.0}"#,
        ];
        assert_eq!(rows.iter().map(Row::json).collect::<Vec<_>>(), expected);
        assert_eq!(rows[3].place.to_string(), format!("{} record 4", path.display()));
    }

    #[test]
    fn columns_that_nobody_asks_for_are_not_read() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("a.parquet");
        // The column of ids is no text, as that of an image.
        write(&path, b"\xFF");
        let wanted = |names: &[&str]| Some(Arc::new(names.iter().map(|name| (*name).to_owned()).collect()));
        let rows: Vec<Row> =
            records(&path, wanted(&["score", "none"])).unwrap().map(Result::unwrap).collect();
        assert_eq!(
            rows.iter().map(Row::json).collect::<Vec<_>>(),
            [0.5, 1.0, 1.5, 2.0].map(|score| format!("{{\"score\":{score:?}}}"))
        );
        assert_eq!(rows[0].names(), ["id", "messages", "score"], "for who asks for another");
        let rows: Vec<Row> = records(&path, wanted(&["messages"])).unwrap().map(Result::unwrap).collect();
        assert_eq!(rows[3].json(), r#"{"messages":[{"role":"user","content":"2"}]}"#);
        // Nothing of it: as many rows without fields.
        assert_eq!(
            records(&path, wanted(&["none"]))
                .unwrap()
                .filter(|row| row.as_ref().is_ok_and(|row| row.fields.is_empty()))
                .count(),
            4
        );
    }

    #[test]
    fn bytes_that_are_no_text_and_damaged_files_are_errors() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("a.parquet");
        write(&path, b"\xFF");
        let error = records(&path, None).unwrap().next().unwrap().unwrap_err().to_string();
        assert_eq!(error, format!("{} record 1: invalid UTF-8", path.display()));
        std::fs::write(&path, b"PAR1 and nothing more").unwrap();
        let error = records(&path, None).err().unwrap().to_string();
        assert!(error.starts_with(&format!("cannot read `{}` as Parquet: ", path.display())), "{error}");
    }
}
