//! The footer of a Parquet file, checked before anything in it is believed.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use parquet::basic::Type;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, ParquetMetaDataReader};

use super::thrift::{Broken, I32, LIST, STRUCT, Thrift};

/// The longest footer.
const LONGEST: u64 = 32 << 20;
/// The deepest nesting of columns, and the most of them.
const DEEPEST: usize = 64;
const MOST_COLUMNS: usize = 10_000;
/// The longest value of a fixed length.
const LONGEST_FIXED: i32 = 1 << 20;
const MAGIC: &[u8; 4] = b"PAR1";

/// Reads the footer and checks every place and length in it against the file.
pub(super) fn read(file: &mut File) -> Result<ParquetMetaData, Broken> {
    let io = |e: std::io::Error| e.to_string();
    let length = file.metadata().map_err(io)?.len();
    if length < 12 {
        return Err(format!("the file has {length} bytes, too few for Parquet"));
    }
    let mut tail = [0; 8];
    file.seek(SeekFrom::Start(length - 8)).and_then(|_| file.read_exact(&mut tail)).map_err(io)?;
    if &tail[4..] != MAGIC {
        return Err("the file does not end with PAR1: it is no Parquet file, or was cut off".into());
    }
    let footer = u64::from(u32::from_le_bytes([tail[0], tail[1], tail[2], tail[3]]));
    if footer > LONGEST || footer > length - 12 {
        return Err(format!("the footer claims {footer} bytes of a file of {length}"));
    }
    let begin = length - 8 - footer;
    let mut bytes = vec![0; footer as usize];
    file.seek(SeekFrom::Start(begin)).and_then(|_| file.read_exact(&mut bytes)).map_err(io)?;
    check_shape(&bytes)?;
    let metadata = ParquetMetaDataReader::decode_metadata(&bytes).map_err(|e| e.to_string())?;
    check_places(&metadata, begin)?;
    Ok(metadata)
}

/// Walks over the whole footer and checks how deep the schema is.
fn check_shape(bytes: &[u8]) -> Result<(), Broken> {
    let mut thrift = Thrift::new(bytes, bytes.len() as u64);
    let mut last = 0;
    while let Some((id, kind)) = thrift.field(&mut last)? {
        if (id, kind) == (2, LIST) { check_schema(&mut thrift)? } else { thrift.skip(kind)? }
    }
    Ok(())
}

fn check_schema(thrift: &mut Thrift<&[u8]>) -> Result<(), Broken> {
    let (count, kind) = thrift.list()?;
    if kind != STRUCT {
        return Err("its schema is not a list of columns".into());
    }
    // The elements come in preorder: how many children are still to come, on each level.
    let mut open: Vec<i64> = Vec::new();
    for _ in 0..count {
        let (mut last, mut children) = (0, 0);
        while let Some((id, kind)) = thrift.field(&mut last)? {
            if (id, kind) == (5, I32) { children = thrift.int()? } else { thrift.skip(kind)? }
        }
        if !(0..=i64::from(u16::MAX)).contains(&children) {
            return Err(format!("a column claims {children} parts"));
        }
        if children > 0 {
            open.push(children);
            if open.len() > DEEPEST {
                return Err(format!("its columns are nested more than {DEEPEST} deep"));
            }
            continue;
        }
        while let Some(left) = open.last_mut() {
            *left -= 1;
            if *left > 0 {
                break;
            }
            open.pop();
        }
    }
    Ok(())
}

fn check_places(metadata: &ParquetMetaData, end: u64) -> Result<(), Broken> {
    let schema = metadata.file_metadata().schema_descr();
    if schema.num_columns() > MOST_COLUMNS {
        return Err(format!("it has {} columns; at most {MOST_COLUMNS} are read", schema.num_columns()));
    }
    for column in schema.columns() {
        let fixed = column.physical_type() == Type::FIXED_LEN_BYTE_ARRAY;
        if fixed && !(0..=LONGEST_FIXED).contains(&column.type_length()) {
            return Err(format!("column {:?} has values of {} bytes", column.path().string(), column.type_length()));
        }
    }
    let mut rows: i64 = 0;
    for (number, group) in metadata.row_groups().iter().enumerate() {
        if group.num_rows() < 0 || group.num_columns() != schema.num_columns() {
            let found = (group.num_rows(), group.num_columns());
            return Err(format!("row group {number} claims {} rows and {} columns", found.0, found.1));
        }
        rows = rows.checked_add(group.num_rows()).ok_or("it claims too many rows")?;
        // Writers give a group without rows places that do not exist. It is not read.
        for column in group.columns().iter().filter(|_| group.num_rows() > 0) {
            check_column(column, end)
                .map_err(|e| format!("column {:?} of row group {number} {e}", column.column_path().string()))?;
        }
    }
    if rows != metadata.file_metadata().num_rows() {
        return Err(format!("it claims {} rows and its row groups have {rows}", metadata.file_metadata().num_rows()));
    }
    Ok(())
}

fn check_column(column: &ColumnChunkMetaData, end: u64) -> Result<(), Broken> {
    let begin = column.dictionary_page_offset().unwrap_or(column.data_page_offset());
    let length = column.compressed_size();
    let inside = |from: i64| from >= 4 && u64::try_from(from).is_ok_and(|from| from <= end);
    let whole = u64::try_from(begin).ok().zip(u64::try_from(length).ok()).and_then(|(b, l)| b.checked_add(l));
    if !inside(begin) || !inside(column.data_page_offset()) || whole.is_none_or(|whole| whole > end) {
        return Err(format!("claims the bytes from {begin} on, {length} of them, in a file whose data end at {end}"));
    }
    if column.num_values() < 0 || column.uncompressed_size() < 0 {
        return Err(format!("claims {} values in {} bytes", column.num_values(), column.uncompressed_size()));
    }
    Ok(())
}
