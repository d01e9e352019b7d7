//! Columns of strings in Parquet files.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fs::File;
use std::path::{Path, PathBuf};

use parquet::basic::Type as PhysicalType;
use parquet::column::reader::{ColumnReader, ColumnReaderImpl, get_typed_column_reader};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use remit_fault::fault;

use super::pieces::{Piece, cut_all};
use super::template::Template;
use super::{Item, Position, ReadError, Reader};
use crate::error::{BadRecord, field_hint, list};
use crate::{Error, error};

/// Records taken from a column at once.
const BATCH_RECORDS: usize = 64;

/// Reads the text columns of a Parquet file, a page and a few records at a time.
pub(crate) struct ParquetReader {
    path: PathBuf,
    file: SerializedFileReader<File>,
    file_bytes: u64,
    num_records: u64,
    template: Template,
    columns: Vec<Column>,
    /// The row group after the one being read.
    next_group: usize,
    /// Records of the row group being read that are not yet in a batch.
    group_records_left: u64,
    batch: VecDeque<Vec<Option<ByteArray>>>,
    pieces: VecDeque<Piece>,
    position: Position,
}

struct Column {
    field: String,
    index: usize,
    max_definition: i16,
    reader: Option<ColumnReaderImpl<ByteArrayType>>,
}

impl ParquetReader {
    pub fn open(path: &Path, template: Template, at: Position) -> Result<ParquetReader, Error> {
        let handle = File::open(path).map_err(|cause| error::io("open", path, cause))?;
        let file_bytes = handle.metadata().map_err(|cause| error::io("read", path, cause))?.len();
        let file = SerializedFileReader::new(handle).map_err(|error| error::parquet(path, &error))?;
        let schema = file.metadata().file_metadata().schema_descr_ptr();
        let num_records = file.metadata().row_groups().iter().map(|group| group.num_rows() as u64).sum();
        let mut columns = Vec::new();
        for field in template.fields() {
            let fields = schema.root_schema().get_fields();
            if !fields.iter().any(|one| one.name() == field) {
                let mut available: Vec<_> = fields.iter().map(|field| field.name().to_owned()).collect();
                available.sort();
                let columns = list(&available);
                return Err(fault!("`{}`: no column `{field}`; it has {columns}", path.display())
                    .with_hint(field_hint(field, &available)));
            }
            let not_text = |found: String| {
                fault!("`{}`: column `{field}` is {}, not text", path.display(), found.to_lowercase())
                    .with_hint("set the source's `text_field` to a column of strings")
            };
            let (index, column) = schema
                .columns()
                .iter()
                .enumerate()
                .find(|(_, column)| column.path().parts() == [field.to_owned()])
                .ok_or_else(|| not_text("nested".into()))?;
            if column.physical_type() != PhysicalType::BYTE_ARRAY || column.max_rep_level() != 0 {
                return Err(not_text(column.physical_type().to_string()));
            }
            columns.push(Column {
                field: field.to_owned(),
                index,
                max_definition: column.max_def_level(),
                reader: None,
            });
        }
        let mut reader = ParquetReader {
            path: path.to_owned(),
            file,
            file_bytes,
            num_records,
            template,
            columns,
            next_group: 0,
            group_records_left: 0,
            batch: VecDeque::new(),
            pieces: VecDeque::new(),
            position: Position::default(),
        };
        reader.skip_to(&at)?;
        Ok(reader)
    }

    fn skip_to(&mut self, at: &Position) -> Result<(), Error> {
        if at.record > self.num_records {
            return Err(error::input_changed(&self.path));
        }
        let mut left = at.record;
        while left > 0 {
            self.open_group()?;
            let count = left.min(self.group_records_left);
            if count < self.group_records_left {
                for column in &mut self.columns {
                    let reader = column.reader.as_mut().expect("a row group is open");
                    reader
                        .skip_records(count as usize)
                        .map_err(|error| error::parquet(&self.path, &error))?;
                }
            }
            self.group_records_left -= count;
            left -= count;
        }
        self.position.record = at.record;
        if at.piece > 0 {
            self.read_record()?;
            if self.pieces.len() as u64 <= at.piece {
                return Err(error::input_changed(&self.path));
            }
            self.pieces.drain(..at.piece as usize);
            self.position.piece = at.piece;
        }
        Ok(())
    }

    /// Opens the next row group; false when there is none.
    fn open_group(&mut self) -> Result<bool, Error> {
        if self.next_group == self.file.num_row_groups() {
            return Ok(false);
        }
        let group =
            self.file.get_row_group(self.next_group).map_err(|error| error::parquet(&self.path, &error))?;
        for column in &mut self.columns {
            let reader: ColumnReader =
                group.get_column_reader(column.index).map_err(|error| error::parquet(&self.path, &error))?;
            column.reader = Some(get_typed_column_reader(reader));
        }
        self.group_records_left = group.metadata().num_rows() as u64;
        self.next_group += 1;
        Ok(true)
    }

    /// Fills the batch; false at the end of the file.
    fn read_batch(&mut self) -> Result<bool, Error> {
        while self.group_records_left == 0 {
            if !self.open_group()? {
                return Ok(false);
            }
        }
        let count = self.group_records_left.min(BATCH_RECORDS as u64) as usize;
        self.batch = (0..count).map(|_| Vec::with_capacity(self.columns.len())).collect();
        for column in &mut self.columns {
            let reader = column.reader.as_mut().expect("a row group is open");
            let mut values = Vec::with_capacity(count);
            let mut definitions = Vec::with_capacity(count);
            let mut num_read = 0;
            while num_read < count {
                let levels = (column.max_definition > 0).then_some(&mut definitions);
                let (records, _, _) = reader
                    .read_records(count - num_read, levels, None, &mut values)
                    .map_err(|error| error::parquet(&self.path, &error))?;
                if records == 0 {
                    let error = ParquetError::General(format!("column `{}` is too short", column.field));
                    return Err(error::parquet(&self.path, &error));
                }
                num_read += records;
            }
            let mut values = values.into_iter();
            for (i, record) in self.batch.iter_mut().enumerate() {
                let is_set = column.max_definition == 0 || definitions[i] == column.max_definition;
                record.push(if is_set { values.next() } else { None });
            }
        }
        self.group_records_left -= count as u64;
        Ok(true)
    }

    /// Reads the next record; `None` at the end, `Some(false)` when it has no text.
    fn read_record(&mut self) -> Result<Option<bool>, ReadError> {
        if self.batch.is_empty() && !self.read_batch()? {
            return Ok(None);
        }
        let record = self.batch.pop_front().expect("a batch is not empty");
        let text = self.template.fill(|field| {
            let column = self.columns.iter().position(|column| column.field == field);
            match &record[column.expect("every field of the template has a column")] {
                Some(bytes) => bytes.as_utf8().map(Cow::Borrowed).map_err(|_| BadRecord::InvalidUtf8),
                None => Err(BadRecord::NotAString { field: field.to_owned(), found: "null" }),
            }
        });
        match text {
            Ok(text) if text.is_empty() => {
                self.position.record += 1;
                Ok(Some(false))
            }
            Ok(text) => {
                self.pieces = cut_all(text).into();
                Ok(Some(true))
            }
            Err(problem) => {
                self.position.record += 1;
                let place = format!("{} record {}", self.path.display(), self.position.record);
                Err(ReadError::Record(problem.in_source(place)))
            }
        }
    }
}

impl Reader for ParquetReader {
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
            self.position.piece = 0;
            self.position.record += 1;
        }
        Ok(Some(Item::Piece(piece)))
    }

    fn position(&self) -> Position {
        self.position.clone()
    }

    fn bytes_read(&self) -> u64 {
        // The text columns may be a small part of the file; what a person wants to know is how much is left.
        (self.file_bytes as f64 * self.position.record as f64 / self.num_records.max(1) as f64) as u64
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use parquet::data_type::Int64Type;
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;

    use super::*;
    use crate::read::Content;

    /// Writes a file with an `id`, a required `title` and an optional `text`, `group_len` records a row group.
    pub(crate) fn write(path: &Path, texts: &[Option<&[u8]>], group_len: usize) {
        let schema =
            "message m { required int64 id; required binary title (UTF8); optional binary text (UTF8); }";
        let schema = Arc::new(parse_message_type(schema).unwrap());
        let properties = WriterProperties::builder()
            .set_compression(parquet::basic::Compression::SNAPPY)
            .set_data_page_row_count_limit(3)
            .set_write_batch_size(2)
            .build();
        let file = File::create(path).unwrap();
        let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties)).unwrap();
        for (group, texts) in texts.chunks(group_len).enumerate() {
            let mut row_group = writer.next_row_group().unwrap();
            let ids: Vec<i64> = (0..texts.len()).map(|i| (group * group_len + i) as i64).collect();
            let titles: Vec<ByteArray> =
                ids.iter().map(|id| format!("title {id}").into_bytes().into()).collect();
            let set: Vec<ByteArray> = texts.iter().flatten().map(|text| text.to_vec().into()).collect();
            let levels: Vec<i16> = texts.iter().map(|text| i16::from(text.is_some())).collect();
            let mut column = row_group.next_column().unwrap().unwrap();
            column.typed::<Int64Type>().write_batch(&ids, None, None).unwrap();
            column.close().unwrap();
            let mut column = row_group.next_column().unwrap().unwrap();
            column.typed::<ByteArrayType>().write_batch(&titles, None, None).unwrap();
            column.close().unwrap();
            let mut column = row_group.next_column().unwrap().unwrap();
            column.typed::<ByteArrayType>().write_batch(&set, Some(&levels), None).unwrap();
            column.close().unwrap();
            row_group.close().unwrap();
        }
        writer.close().unwrap();
    }

    fn open(path: &Path, template: &str, at: Position) -> Result<ParquetReader, Error> {
        ParquetReader::open(path, Template::parse(template)?, at)
    }

    /// Each record as its text, `-` without one, or the error.
    fn read_all(reader: &mut ParquetReader) -> Vec<(String, Position)> {
        let mut all = Vec::new();
        loop {
            let text = match reader.next() {
                Ok(None) => return all,
                Ok(Some(Item::Empty)) => "-".into(),
                Ok(Some(Item::Piece(Piece { content: Content::Text(text), .. }))) => text,
                Ok(Some(Item::Piece(_))) => panic!("text stays text"),
                Err(error) => Error::from(error).to_string().rsplit('/').next().unwrap().to_owned(),
            };
            all.push((text, reader.position()));
        }
    }

    #[test]
    fn records_come_in_order_and_from_any_place() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("a.parquet");
        let texts: Vec<String> = (0..200).map(|i| format!("text {i}")).collect();
        let mut values: Vec<Option<&[u8]>> = texts.iter().map(|text| Some(text.as_bytes())).collect();
        (values[5], values[70], values[71]) = (None, Some(&b""[..]), Some(&b"\xFF"[..]));
        write(&path, &values, 67);
        let all = read_all(&mut open(&path, "text", Position::default()).unwrap());
        let expected: Vec<String> = (0..200)
            .map(|i| match i {
                5 => "a.parquet record 6: field `text` is null, not a string".into(),
                70 => "-".into(),
                71 => "a.parquet record 72: invalid UTF-8".into(),
                i => format!("text {i}"),
            })
            .collect();
        assert_eq!(all.iter().map(|(text, _)| text.clone()).collect::<Vec<_>>(), expected);
        for (i, (_, position)) in all.iter().enumerate() {
            let rest = read_all(&mut open(&path, "text", position.clone()).unwrap());
            assert_eq!(rest, all[i + 1..], "from {position:?}");
        }
        let both = read_all(&mut open(&path, "{title}: {text}", Position::default()).unwrap());
        assert_eq!(both[199].0, "title 199: text 199");
        assert_eq!(both[70].0, "title 70: ");
    }

    #[test]
    fn wrong_columns_and_files() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("a.parquet");
        write(&path, &[Some(b"x")], 1);
        let check = |template: &str, message: &str, hint: &str| {
            let error = open(&path, template, Position::default()).err().unwrap();
            assert_eq!(error.to_string(), format!("`{}`: {message}", path.display()));
            assert_eq!(error.hint().unwrap(), hint);
        };
        check(
            "texts",
            "no column `texts`; it has `id`, `text`, `title`",
            "did you mean `text`? Set the source's `text_field`",
        );
        check("id", "column `id` is int64, not text", "set the source's `text_field` to a column of strings");
        std::fs::write(&path, b"PAR1 and nothing more").unwrap();
        let error = open(&path, "text", Position::default()).err().unwrap().to_string();
        assert!(error.starts_with(&format!("cannot read `{}` as Parquet: ", path.display())), "{error}");
    }
}
