//! Parquet files that no writer makes: each is an error within seconds, without a panic that is seen and without much memory.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_array::{ArrayRef, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::{
    ColumnChunkMetaData, ColumnChunkMetaDataBuilder, FileMetaData, ParquetMetaData, ParquetMetaDataWriter,
    RowGroupMetaData,
};
use parquet::file::properties::WriterProperties;
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::{SchemaDescPtr, SchemaDescriptor};
use setpoint_data::{DatasetConfig, read_rows};

use crate::common::say;

/// Names the case for a process that runs it alone, and the folder of its file.
const CASE: &str = "SETPOINT_TEST_PARQUET";
const FLAT: &str = "message m { required binary text (UTF8); }";
const LIST: &str =
    "message m { optional group text (LIST) { repeated group list { required binary element (UTF8); } } }";

/// A number in Thrift's compact protocol.
fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Structs of whole numbers, and of such structs.
enum Field {
    Number(i64),
    Struct(Vec<(u8, Field)>),
}

fn thrift(fields: &[(u8, Field)], out: &mut Vec<u8>) {
    let mut last = 0;
    for (id, field) in fields {
        let kind = if matches!(field, Field::Number(_)) { 5 } else { 12 };
        out.push((id - last) << 4 | kind);
        last = *id;
        match field {
            Field::Number(value) => varint(((value << 1) ^ (value >> 63)) as u64, out),
            Field::Struct(inner) => thrift(inner, out),
        }
    }
    out.push(0);
}

const PLAIN: i64 = 0;
const RLE: i64 = 3;
const DELTA_LENGTHS: i64 = 6;
const BY_DICTIONARY: i64 = 8;

/// A page of version 1 with a header of one's own.
fn page(kind: i64, unpacked: i64, packed: i64, values: i64, encoding: i64, body: &[u8]) -> Vec<u8> {
    use Field::{Number, Struct};
    let mut out = Vec::new();
    let inner = match kind {
        2 => (7, Struct(vec![(1, Number(values)), (2, Number(encoding))])),
        _ => (5, Struct(vec![(1, Number(values)), (2, Number(encoding)), (3, Number(RLE)), (4, Number(RLE))])),
    };
    thrift(&[(1, Number(kind)), (2, Number(unpacked)), (3, Number(packed)), inner], &mut out);
    out.extend(body);
    out
}

fn data(values: i64, encoding: i64, body: &[u8]) -> Vec<u8> {
    page(0, body.len() as i64, body.len() as i64, values, encoding, body)
}

fn dictionary(values: i64, body: &[u8]) -> Vec<u8> {
    page(2, body.len() as i64, body.len() as i64, values, PLAIN, body)
}

/// A text behind its length.
fn plain(text: &[u8]) -> Vec<u8> {
    let mut out = (text.len() as u32).to_le_bytes().to_vec();
    out.extend(text);
    out
}

/// The claims of a file.
struct Claims {
    schema: &'static str,
    rows: i64,
    values: i64,
    compression: Compression,
    column: fn(ColumnChunkMetaDataBuilder) -> ColumnChunkMetaDataBuilder,
}

fn claims(rows: i64) -> Claims {
    Claims { schema: FLAT, rows, values: rows, compression: Compression::UNCOMPRESSED, column: |c| c }
}

/// A file of one column with these pages.
fn file(claims: Claims, pages: &[Vec<u8>]) -> Vec<u8> {
    let schema: SchemaDescPtr = Arc::new(SchemaDescriptor::new(Arc::new(parse_message_type(claims.schema).unwrap())));
    let mut out = b"PAR1".to_vec();
    let has_dictionary = pages.first().is_some_and(|p| p[1] == 4);
    let first = pages.first().map_or(0, Vec::len) as i64;
    pages.iter().for_each(|page| out.extend(page));
    let column = ColumnChunkMetaData::builder(schema.column(0))
        .set_compression(claims.compression)
        .set_encodings(vec![Encoding::PLAIN])
        .set_num_values(claims.values)
        .set_total_compressed_size(out.len() as i64 - 4)
        .set_total_uncompressed_size(out.len() as i64 - 4)
        .set_data_page_offset(if has_dictionary { 4 + first } else { 4 })
        .set_dictionary_page_offset(has_dictionary.then_some(4));
    let column = (claims.column)(column).build().unwrap();
    let group = RowGroupMetaData::builder(schema.clone())
        .set_num_rows(claims.rows)
        .set_total_byte_size(100)
        .set_column_metadata(vec![column])
        .build()
        .unwrap();
    let metadata = FileMetaData::new(2, claims.rows, None, None, schema, None);
    ParquetMetaDataWriter::new(&mut out, &ParquetMetaData::new(metadata, vec![group])).finish().unwrap();
    out
}

/// A file with a footer of these bytes.
fn with_footer(footer: &[u8]) -> Vec<u8> {
    let mut out = b"PAR1".to_vec();
    out.extend(footer);
    out.extend((footer.len() as u32).to_le_bytes());
    out.extend(b"PAR1");
    out
}

fn deep_schema(depth: usize) -> Vec<u8> {
    // Field 1: version 1. Field 2: a list of structs, each with field 4 (name) and field 5 (children).
    let mut footer = vec![0x15, 2, 0x19, 0xfc];
    varint(depth as u64 + 1, &mut footer);
    for _ in 0..depth {
        footer.extend([0x35, 0, 0x18, 1, b'g', 0x15, 2, 0]);
    }
    footer.extend([0x15, 4, 0x25, 0, 0x18, 1, b'x', 0, 0x16, 0, 0x19, 0x0c, 0]);
    with_footer(&footer)
}

/// Writes texts of one length with Arrow.
fn written(text: &str, rows: usize, compression: Compression) -> Vec<u8> {
    let batch =
        RecordBatch::try_from_iter([("text", Arc::new(StringArray::from(vec![text; rows])) as ArrayRef)]).unwrap();
    let properties = WriterProperties::builder().set_compression(compression).build();
    let mut out = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut out, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    out
}

fn gzip(bytes: usize) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let zeros = vec![0; 1 << 20];
    (0..bytes >> 20).for_each(|_| encoder.write_all(&zeros).unwrap());
    encoder.finish().unwrap()
}

fn brotli(bytes: usize) -> Vec<u8> {
    let mut out = Vec::new();
    {
        let mut encoder = brotli::CompressorWriter::new(&mut out, 1 << 16, 1, 22);
        let zeros = vec![0; 1 << 20];
        (0..bytes >> 20).for_each(|_| encoder.write_all(&zeros).unwrap());
    }
    out
}

/// Levels of a list whose values all belong to one row (the first is 0, the others 1), as runs.
fn levels_of_one_row(values: u64) -> Vec<u8> {
    let mut runs = vec![2, 0];
    varint((values - 1) << 1, &mut runs);
    runs.push(1);
    runs
}

/// A page of dictionary indices that are all 0, of a list that is one row.
fn one_long_row(values: u64) -> Vec<u8> {
    let mut body = Vec::new();
    let repetition = levels_of_one_row(values);
    body.extend((repetition.len() as u32).to_le_bytes());
    body.extend(repetition);
    let mut definition = Vec::new();
    varint(values << 1, &mut definition);
    definition.push(1);
    body.extend((definition.len() as u32).to_le_bytes());
    body.extend(definition);
    body.push(1);
    varint(values << 1, &mut body);
    body.push(0);
    data(values as i64, BY_DICTIONARY, &body)
}

/// Indices into a dictionary, all 0.
fn indices(values: u64) -> Vec<u8> {
    let mut body = vec![1];
    varint(values << 1, &mut body);
    body.push(0);
    body
}

fn good() -> Vec<Vec<u8>> {
    vec![data(1, PLAIN, &plain(b"hello"))]
}

type Case = (&'static str, fn() -> Vec<u8>);

fn cases() -> Vec<Case> {
    fn tweaked(column: fn(ColumnChunkMetaDataBuilder) -> ColumnChunkMetaDataBuilder) -> Vec<u8> {
        file(Claims { column, ..claims(1) }, &good())
    }
    fn packed(compression: Compression, unpacked: i64, body: &[u8]) -> Vec<u8> {
        let page = page(0, unpacked, body.len() as i64, 1, PLAIN, body);
        file(Claims { compression, ..claims(1) }, &[page])
    }
    vec![
        // The footer lies.
        ("a negative start", || tweaked(|c| c.set_data_page_offset(-5))),
        ("a negative dictionary", || tweaked(|c| c.set_dictionary_page_offset(Some(-1)))),
        ("a start beyond the file", || tweaked(|c| c.set_data_page_offset(1 << 40))),
        ("a start in the magic", || tweaked(|c| c.set_data_page_offset(0))),
        ("a negative length", || tweaked(|c| c.set_total_compressed_size(-1))),
        ("an endless length", || tweaked(|c| c.set_total_compressed_size(i64::MAX))),
        ("a negative count of values", || tweaked(|c| c.set_num_values(-7))),
        ("a negative size", || tweaked(|c| c.set_total_uncompressed_size(i64::MIN))),
        ("negative rows", || file(claims(-1), &good())),
        ("values of 2 GB", || {
            file(
                Claims { schema: "message m { required fixed_len_byte_array(2000000000) text; }", ..claims(1) },
                &good(),
            )
        }),
        ("a footer longer than the file", || b"PAR1xxxx\xff\xff\xff\x7fPAR1".to_vec()),
        ("nothing but magic", || b"PAR1PAR1".to_vec()),
        ("an empty file", Vec::new),
        ("a footer of zeros", || with_footer(&[0; 100])),
        ("a footer of ones", || with_footer(&[0xff; 100])),
        ("a list of 2 billion", || with_footer(&[0x15, 2, 0x19, 0xfc, 0xff, 0xff, 0xff, 0xff, 0x07, 0, 0, 0])),
        ("nested structs", || with_footer(&[0x1c; 100_000])),
        ("a schema 100,000 deep", || deep_schema(100_000)),
        ("a schema 100 deep", || deep_schema(100)),
        // Pages lie.
        ("no pages", || file(claims(1), &[])),
        ("a page of 2 GB", || packed(Compression::ZSTD(ZstdLevel::default()), i64::from(i32::MAX), b"xxxx")),
        ("a page of negative size", || packed(Compression::SNAPPY, -1, b"xxxx")),
        ("a page of negative length", || file(claims(1), &[page(0, 9, -9, 1, PLAIN, &plain(b"hello"))])),
        ("a page longer than its column", || file(claims(1), &[page(0, 9, 1000, 1, PLAIN, &plain(b"hello"))])),
        ("a page of an unknown kind", || file(claims(1), &[page(77, 9, 9, 1, PLAIN, &plain(b"hello"))])),
        ("a page without a header of its kind", || file(claims(1), &[page(3, 9, 9, 1, PLAIN, &plain(b"hello"))])),
        ("a page of a negative count", || file(claims(1), &[page(0, 9, 9, -1, PLAIN, &plain(b"hello"))])),
        ("a value longer than its page", || file(claims(1), &[data(1, PLAIN, b"\xff\xff\xff\x7fhello")])),
        ("text that is no UTF-8", || file(claims(1), &[data(1, PLAIN, &plain(b"\xff\xfe"))])),
        ("indices without a dictionary", || file(claims(1), &[data(1, BY_DICTIONARY, &indices(1))])),
        ("indices beyond the dictionary", || {
            file(claims(1), &[dictionary(1, &plain(b"x")), data(1, BY_DICTIONARY, &[7, 2, 99])])
        }),
        ("a dictionary of 2 billion", || {
            file(claims(1), &[dictionary(2_000_000_000, &plain(b"x")), data(1, BY_DICTIONARY, &indices(1))])
        }),
        ("two dictionaries", || {
            file(
                claims(1),
                &[dictionary(1, &plain(b"x")), dictionary(1, &plain(b"x")), data(1, BY_DICTIONARY, &indices(1))],
            )
        }),
        ("500 million lengths", || {
            let mut body = Vec::new();
            [128, 4, 500_000_000, 0].into_iter().for_each(|n| varint(n, &mut body));
            body.extend([0; 64]);
            file(claims(500_000_000), &[data(500_000_000, DELTA_LENGTHS, &body)])
        }),
        ("another codec than was used", || packed(Compression::SNAPPY, 9, &plain(b"hello"))),
        ("a codec that is not supported", || packed(Compression::LZO, 9, &plain(b"hello"))),
        // Little that unpacks to much.
        ("one text of 100 MB", || written(&"a".repeat(100_000_000), 1, Compression::ZSTD(ZstdLevel::default()))),
        ("100 MB of gzip under 9 bytes", || packed(Compression::GZIP(Default::default()), 9, &gzip(100 << 20))),
        ("40 MB of brotli under 9 bytes", || packed(Compression::BROTLI(Default::default()), 9, &brotli(40 << 20))),
        ("one row of 100 million values", || {
            let claims = Claims { schema: LIST, values: 100_000_000, ..claims(1) };
            file(claims, &[dictionary(1, &plain(b"x")), one_long_row(100_000_000)])
        }),
        ("one row of a thousand long values", || {
            let claims = Claims { schema: LIST, values: 1000, ..claims(1) };
            file(claims, &[dictionary(1, &plain(&vec![b'x'; 2 << 20])), one_long_row(1000)])
        }),
    ]
}

/// Reads all rows of a file, as far as they go.
fn read(path: &Path) -> Result<usize, String> {
    let rows = read_rows(&DatasetConfig::new(path.to_str().unwrap())).map_err(|e| e.to_string())?;
    let mut count = 0;
    for row in rows {
        row.map_err(|e| e.to_string())?;
        count += 1;
    }
    Ok(count)
}

/// Runs one of the tests below in a process of its own, with a bound on its addresses.
#[cfg(unix)]
fn alone(test: &str, case: &str, folder: &Path) -> (bool, String, Duration) {
    let begun = Instant::now();
    let output = Command::new("sh")
        .args(["-c", "ulimit -v 1500000; exec \"$@\"", "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &format!("hostile_parquet::{test}"), "--ignored", "--nocapture", "--test-threads=1"])
        .env(CASE, format!("{case}|{}", folder.display()))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success() && !said.contains("panicked"), said, begun.elapsed())
}

fn path_of(folder: &str) -> std::path::PathBuf {
    Path::new(folder).join("train.parquet")
}

/// Each case in a process of its own, as an abort cannot be caught, with 1.5 GB of addresses.
#[cfg(unix)]
#[test]
fn each_is_an_error_in_good_time() {
    let mut wrong = Vec::new();
    for (name, _) in cases() {
        let dir = tempfile::tempdir().unwrap();
        let (fine, said, took) = alone("one_case", name, dir.path());
        if !fine || !said.contains("REFUSED: ") || took > Duration::from_secs(10) {
            wrong.push(format!("{name} ({took:?}): {said}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(cases().len() >= 40);
}

#[test]
#[ignore = "started by each_is_an_error_in_good_time"]
fn one_case() {
    let case = std::env::var(CASE).unwrap();
    let (name, folder) = case.split_once('|').unwrap();
    let path = path_of(folder);
    // Made here, as some take much memory to make, which other tests of the parent measure.
    std::fs::write(&path, cases().into_iter().find(|(n, _)| *n == name).unwrap().1()).unwrap();
    match read(&path) {
        Ok(rows) => say(&format!("READ {rows} rows")),
        Err(message) => {
            assert!(message.lines().count() == 1 && message.contains("train.parquet: row "), "{message}");
            say(&format!("REFUSED: {message}"));
        }
    }
}

/// Whatever single byte of a good file is changed, reading it ends, with rows or with an error.
#[cfg(unix)]
#[test]
fn damaged_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let (fine, said, _) = alone("all_damages", "", dir.path());
    assert!(fine, "{said}");
}

#[test]
#[ignore = "started by damaged_bytes"]
fn all_damages() {
    let case = std::env::var(CASE).unwrap();
    let path = path_of(case.split_once('|').unwrap().1);
    let good = written("some text", 20, Compression::SNAPPY);
    for i in 0..good.len() {
        for value in [0, 0xff, good[i] ^ 0x80, good[i].wrapping_add(1)] {
            let mut bytes = good.clone();
            bytes[i] = value;
            std::fs::write(&path, &bytes).unwrap();
            let _ = read(&path);
        }
    }
    std::fs::write(&path, &good).unwrap();
    assert_eq!(read(&path), Ok(20));
}

/// Of 20 million rows in a few kilobytes the first are read in the memory that a batch takes.
#[cfg(unix)]
#[test]
fn memory_does_not_grow_with_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("train.parquet");
    let pages = [dictionary(1, &plain(b"the same answer")), data(20_000_000, BY_DICTIONARY, &indices(20_000_000))];
    std::fs::write(&path, file(claims(20_000_000), &pages)).unwrap();
    let (fine, said, _) = alone("many_rows", "", dir.path());
    assert!(fine, "{said}");
    // A dictionary's long value, 300 times: a batch holds a few of them.
    let pages = [dictionary(1, &plain(&vec![b'x'; 8 << 20])), data(300, BY_DICTIONARY, &indices(300))];
    std::fs::write(&path, file(claims(300), &pages)).unwrap();
    let (fine, said, _) = alone("many_rows", "", dir.path());
    assert!(fine, "{said}");
}

#[test]
#[ignore = "started by memory_does_not_grow_with_the_file"]
fn many_rows() {
    let case = std::env::var(CASE).unwrap();
    let path = path_of(case.split_once('|').unwrap().1);
    let rows = read_rows(&DatasetConfig::new(path.to_str().unwrap())).unwrap();
    let read = rows.take(300_000).map(|row| row.unwrap().1["text"].as_str().unwrap().len()).filter(|l| *l > 0).count();
    assert!(read == 300_000 || read == 300, "{read}");
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|l| l.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse::<u64>().ok());
    assert!(peak.is_none_or(|kib| kib < 400 << 10), "{peak:?} KiB");
}

/// Many rows that are as they should be, in several row groups, come out whole and in order.
#[test]
fn a_large_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("train.parquet");
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(7000))
        .build();
    let of = |rows: std::ops::Range<usize>| {
        let texts: Vec<String> = rows.map(|i| format!("row {i} {}", "text ".repeat(i % 50))).collect();
        RecordBatch::try_from_iter([("text", Arc::new(StringArray::from(texts)) as ArrayRef)]).unwrap()
    };
    let out = std::fs::File::create(&path).unwrap();
    let mut writer = ArrowWriter::try_new(out, of(0..1).schema(), Some(properties)).unwrap();
    (0..30).for_each(|i| writer.write(&of(1000 * i..1000 * (i + 1))).unwrap());
    writer.close().unwrap();
    let rows = read_rows(&DatasetConfig::new(path.to_str().unwrap())).unwrap();
    let mut count = 0;
    for (i, row) in rows.enumerate() {
        let (source, row) = row.unwrap();
        assert_eq!(source.row, i);
        assert!(row["text"].as_str().unwrap().starts_with(&format!("row {i} ")));
        count += 1;
    }
    assert_eq!(count, 30_000);
}
