//! Parquet, a batch of rows at a time.
//!
//! A file may come from anybody. Its footer ([`footer`]) and each page's header ([`pages`]) are checked before the library
//! reads them, what is unpacked at a time is bounded, and a panic of the library is an error.

mod footer;
mod pages;
mod thrift;
mod window;

use std::collections::HashSet;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Decimal128Type, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::DataType;
use parquet::arrow::arrow_reader::ParquetRecordBatchReader;
use parquet::arrow::{FieldLevels, ProjectionMask, parquet_to_arrow_field_levels};
use parquet::file::metadata::ParquetMetaData;
use serde_json::{Number, Value};

use self::pages::{Budget, Group};
use super::Rows;
use crate::error::Error;
use crate::format::Row;
use crate::record::Source;
use crate::seam::contain;

pub(super) fn rows(path: &Path, mut file: File) -> Result<Rows, Error> {
    let path: Arc<Path> = path.into();
    let opened = contain(|| {
        let metadata = footer::read(&mut file)?;
        // The schema that Arrow puts into the file is left alone: Parquet's own says enough for JSON.
        let schema = metadata.file_metadata().schema_descr();
        let mut names = HashSet::new();
        if let Some(twice) = schema.root_schema().get_fields().iter().find(|field| !names.insert(field.name())) {
            // Of two values of one name, a row could hold the last alone.
            return Err(format!("it has the column `{}` twice", twice.name()));
        }
        let levels = parquet_to_arrow_field_levels(schema, ProjectionMask::all(), None).map_err(|e| e.to_string())?;
        Ok((metadata, levels))
    });
    match opened.and_then(|opened| opened) {
        Ok((metadata, levels)) => Ok(Box::new(Reader {
            path,
            file: Arc::new(file),
            metadata: Arc::new(metadata),
            levels,
            group: 0,
            open: None,
            batch: None,
            left: 0,
            row: 0,
            ended: false,
        })),
        Err(reason) => Err(Error::Parquet { at: Source::row(path, 0), reason: plain(&reason) }),
    }
}

/// The rows of a file, one row group after the other.
struct Reader {
    path: Arc<Path>,
    file: Arc<File>,
    metadata: Arc<ParquetMetaData>,
    levels: FieldLevels,
    /// The next row group.
    group: usize,
    open: Option<(ParquetRecordBatchReader, Arc<Budget>)>,
    /// Decoded rows, and the next of them.
    batch: Option<(RecordBatch, usize)>,
    /// The rows that the open row group claims and that are still to come.
    left: usize,
    /// The number of rows returned.
    row: usize,
    ended: bool,
}

impl Reader {
    fn next_row(&mut self) -> Result<Option<Row>, String> {
        loop {
            if let Some((batch, next)) = &mut self.batch {
                if *next < batch.num_rows() {
                    *next += 1;
                    return Ok(Some(row(batch, *next - 1)));
                }
                self.batch = None;
            }
            if let Some((reader, budget)) = &mut self.open {
                budget.reset();
                match reader.next() {
                    Some(batch) => {
                        let batch = batch.map_err(|e| e.to_string())?;
                        self.left = self.left.saturating_sub(batch.num_rows());
                        self.batch = Some((batch, 0));
                    }
                    None if self.left > 0 => {
                        return Err(format!("row group {} claims {} rows more than it has", self.group - 1, self.left));
                    }
                    None => self.open = None,
                }
                continue;
            }
            if self.group == self.metadata.num_row_groups() {
                return Ok(None);
            }
            if self.metadata.row_group(self.group).num_rows() == 0 {
                self.group += 1;
                continue;
            }
            self.open = Some(self.next_group().map_err(|e| e.to_string())?);
        }
    }

    fn next_group(&mut self) -> Result<(ParquetRecordBatchReader, Arc<Budget>), parquet::errors::ParquetError> {
        let group = Group::open(self.file.clone(), self.metadata.clone(), self.group)?;
        self.group += 1;
        self.left = parquet::arrow::arrow_reader::RowGroups::num_rows(&group);
        let reader = ParquetRecordBatchReader::try_new_with_row_groups(&self.levels, &group, group.batch, None)?;
        Ok((reader, group.budget.clone()))
    }
}

impl Iterator for Reader {
    type Item = Result<(Source, Row), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let at = Source::row(self.path.clone(), self.row);
        let next = contain(|| self.next_row()).and_then(|row| row);
        self.row += 1;
        // Behind an error nothing is known of the reader's state.
        self.ended = !matches!(next, Ok(Some(_)));
        match next {
            Ok(row) => row.map(|row| Ok((at, row))),
            Err(reason) => Some(Err(Error::Parquet { at, reason: plain(&reason) })),
        }
    }
}

/// Returns the reason of an error without the names of the libraries that it passed through.
fn plain(reason: &str) -> String {
    const LAYERS: [&str; 8] = [
        "External: ",
        "External error: ",
        "Parquet error: ",
        "Parquet argument error: ",
        "Arrow: ",
        "EOF: ",
        "NYI: ",
        "Invalid argument error: ",
    ];
    let mut plain = reason;
    while let Some(rest) = LAYERS.iter().find_map(|layer| plain.strip_prefix(layer)) {
        plain = rest;
    }
    setpoint_files::words::without_codes(plain).into_owned()
}

fn row(batch: &RecordBatch, index: usize) -> Row {
    let fields = batch.schema_ref().fields();
    fields.iter().zip(batch.columns()).map(|(field, column)| (field.name().clone(), value(column, index))).collect()
}

/// One cell as JSON. Types that no format uses (binary, dates) become null: they can only stand in unused columns, and
/// where a format needs the column, null is reported as missing.
fn value(array: &ArrayRef, i: usize) -> Value {
    if array.is_null(i) {
        return Value::Null;
    }
    let float = |x: f64| match Number::from_f64(x) {
        Some(number) => Value::Number(number),
        // JSON has no NaN; as text it is told apart from a missing number.
        None => Value::String(x.to_string()),
    };
    match array.data_type() {
        DataType::Boolean => array.as_boolean().value(i).into(),
        DataType::Utf8 => array.as_string::<i32>().value(i).into(),
        DataType::LargeUtf8 => array.as_string::<i64>().value(i).into(),
        DataType::Utf8View => array.as_string_view().value(i).into(),
        DataType::Int8 => array.as_primitive::<Int8Type>().value(i).into(),
        DataType::Int16 => array.as_primitive::<Int16Type>().value(i).into(),
        DataType::Int32 => array.as_primitive::<Int32Type>().value(i).into(),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(i).into(),
        DataType::UInt8 => array.as_primitive::<UInt8Type>().value(i).into(),
        DataType::UInt16 => array.as_primitive::<UInt16Type>().value(i).into(),
        DataType::UInt32 => array.as_primitive::<UInt32Type>().value(i).into(),
        DataType::UInt64 => array.as_primitive::<UInt64Type>().value(i).into(),
        DataType::Float16 => float(array.as_primitive::<Float16Type>().value(i).to_f64()),
        DataType::Float32 => float(array.as_primitive::<Float32Type>().value(i).into()),
        DataType::Float64 => float(array.as_primitive::<Float64Type>().value(i)),
        DataType::Decimal128(_, scale) => {
            let unscaled = array.as_primitive::<Decimal128Type>().value(i);
            float(unscaled as f64 / 10f64.powi(i32::from(*scale)))
        }
        DataType::List(_) => items(&array.as_list::<i32>().value(i)),
        DataType::LargeList(_) => items(&array.as_list::<i64>().value(i)),
        DataType::FixedSizeList(..) => items(&array.as_fixed_size_list().value(i)),
        DataType::Struct(fields) => {
            let columns = array.as_struct();
            // A struct has all keys that any row has. In JSON, a row has its own; a key that is null in both is lost here.
            let present = fields.iter().zip(columns.columns()).map(|(f, c)| (f.name().clone(), value(c, i)));
            present.filter(|(_, value)| !value.is_null()).collect()
        }
        DataType::Map(..) => {
            let entries = array.as_map().value(i);
            let (keys, values) = (entries.column(0), entries.column(1));
            let key = |k: usize| match value(keys, k) {
                Value::String(text) => text,
                other => other.to_string(),
            };
            (0..entries.len()).map(|k| (key(k), value(values, k))).collect()
        }
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            value(dictionary.values(), dictionary.normalized_keys()[i])
        }
        _ => Value::Null,
    }
}

fn items(array: &ArrayRef) -> Value {
    (0..array.len()).map(|i| value(array, i)).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use arrow_array::builder::{Float64Builder, ListBuilder, StringBuilder};
    use arrow_array::{Float32Array, Int64Array, StringArray, StructArray};
    use arrow_schema::{Field, Fields};
    use parquet::arrow::ArrowWriter;
    use parquet::basic::{Compression, ZstdLevel};
    use parquet::file::properties::WriterProperties;

    use super::*;

    /// A file of two row groups: messages as the hub has them (a list of structs), numbers, lists.
    fn write(path: &Path, compression: Compression) {
        let turn = StructArray::from(vec![
            (
                Arc::new(Field::new("role", DataType::Utf8, true)),
                Arc::new(StringArray::from(vec!["user", "assistant", "user", "assistant"])) as ArrayRef,
            ),
            (
                Arc::new(Field::new("content", DataType::Utf8, true)),
                Arc::new(StringArray::from(vec![Some("Sky?"), Some("Blue."), Some("Tea?"), None])) as ArrayRef,
            ),
        ]);
        let item = Arc::new(Field::new("element", turn.data_type().clone(), true));
        let offsets = arrow_array::ListArray::new(
            item.clone(),
            arrow_buffer::OffsetBuffer::new(vec![0, 2, 4].into()),
            Arc::new(turn),
            None,
        );
        let mut rewards = ListBuilder::new(Float64Builder::new());
        rewards.append_value([Some(1.5), Some(f64::NAN)]);
        rewards.append_null();
        let mut names = ListBuilder::new(StringBuilder::new());
        names.append_value([Some("a"), None]);
        names.append_value(Vec::<Option<&str>>::new());
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("messages", Arc::new(offsets)),
            ("rewards", Arc::new(rewards.finish())),
            ("names", Arc::new(names.finish())),
            ("score", Arc::new(Float32Array::from(vec![0.5, -2.0]))),
            ("count", Arc::new(Int64Array::from(vec![Some(7), None]))),
        ];
        let fields: Fields = columns.iter().map(|(name, c)| Field::new(*name, c.data_type().clone(), true)).collect();
        let schema = Arc::new(arrow_schema::Schema::new(fields));
        let batch = RecordBatch::try_new(schema.clone(), columns.into_iter().map(|(_, c)| c).collect()).unwrap();
        let properties =
            WriterProperties::builder().set_compression(compression).set_max_row_group_row_count(Some(1)).build();
        let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), schema, Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        assert_eq!(writer.close().unwrap().row_groups().len(), 2);
    }

    #[test]
    fn nested_values_survive_each_compression() {
        let dir = tempfile::tempdir().unwrap();
        let compressions = [
            Compression::UNCOMPRESSED,
            Compression::SNAPPY,
            Compression::ZSTD(ZstdLevel::default()),
            Compression::LZ4_RAW,
            Compression::GZIP(Default::default()),
            Compression::BROTLI(Default::default()),
        ];
        for compression in compressions {
            let path = dir.path().join("f.parquet");
            write(&path, compression);
            let read: Vec<_> = rows(&path, File::open(&path).unwrap()).unwrap().map(Result::unwrap).collect();
            let expected = [
                serde_json::json!({"messages": [{"role": "user", "content": "Sky?"}, {"role": "assistant", "content": "Blue."}],
                    "rewards": [1.5, "NaN"], "names": ["a", null], "score": 0.5, "count": 7}),
                serde_json::json!({"messages": [{"role": "user", "content": "Tea?"}, {"role": "assistant"}],
                    "rewards": null, "names": [], "score": -2.0, "count": null}),
            ];
            assert_eq!(read.len(), 2);
            for (i, ((source, row), expected)) in read.into_iter().zip(expected).enumerate() {
                assert_eq!(source.row, i);
                assert_eq!(Value::Object(row), expected);
            }
        }
    }

    #[test]
    fn a_row_group_without_rows_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f.parquet");
        // As pyarrow writes it: a dictionary of no values, and no data page.
        const EMPTY: &str = "504152311504150015024c15001500120000001504192c35001806736368656d61150200150c250218017425004c1c0000001600191c191c26001c150c192500061918017415021600161c161e26002608291c150415001502000000161c16002608161e002820706172717565742d6370702d6172726f772076657273696f6e2032362e302e31191c1c0000007a00000050415231";
        let bytes: Vec<u8> =
            (0..EMPTY.len()).step_by(2).map(|i| u8::from_str_radix(&EMPTY[i..i + 2], 16).unwrap()).collect();
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(rows(&path, File::open(&path).unwrap()).unwrap().count(), 0);
    }

    #[test]
    fn damaged_files_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f.parquet");
        let read = || rows(&path, File::open(&path).unwrap()).and_then(|rows| rows.collect::<Result<Vec<_>, _>>());
        File::create(&path).unwrap().write_all(b"not parquet at all").unwrap();
        let message = read().unwrap_err().to_string();
        assert!(message.contains("f.parquet: row 0: could not read Parquet"), "{message}");
        write(&path, Compression::SNAPPY);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        assert!(matches!(read(), Err(Error::Parquet { .. })), "truncated");
    }

    #[test]
    fn a_column_that_is_there_twice_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f.parquet");
        let read = |names: [&str; 2]| {
            let fields: Fields = names.iter().map(|name| Field::new(*name, DataType::Utf8, true)).collect();
            let schema = Arc::new(arrow_schema::Schema::new(fields));
            let column = |text: &str| Arc::new(StringArray::from(vec![text])) as ArrayRef;
            let batch = RecordBatch::try_new(schema.clone(), vec![column("a"), column("b")]).unwrap();
            let mut writer = ArrowWriter::try_new(File::create(&path).unwrap(), schema, None).unwrap();
            writer.write(&batch).unwrap();
            writer.close().unwrap();
            rows(&path, File::open(&path).unwrap()).map(Iterator::count).map_err(|error| error.to_string())
        };
        assert_eq!(read(["prompt", "completion"]), Ok(1));
        let said = read(["prompt", "prompt"]).unwrap_err();
        assert!(said.contains("it has the column `prompt` twice"), "{said}");
    }

    #[test]
    fn a_reason_names_no_library() {
        assert_eq!(plain("External: Parquet argument error: Parquet error: a page ends early"), "a page ends early");
        assert_eq!(plain("a page ends early"), "a page ends early");
    }
}
