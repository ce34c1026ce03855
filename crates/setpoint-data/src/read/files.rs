//! A file to its rows, by its name.

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::path::Path;

use super::{Rows, json, parquet, table};
use crate::error::Error;
use crate::unique::MOST_VALUES;

/// A JSON document is read whole: one that is compressed may unpack to `ALWAYS` bytes, or to `DENSEST` times its length, and have
/// `ALWAYS_VALUES` values, or `DENSEST_VALUES` times its length.
const ALWAYS: u64 = 256 << 20;
const DENSEST: u64 = 100;
const ALWAYS_VALUES: u64 = 4 * MOST_VALUES as u64;
const DENSEST_VALUES: u64 = 2;

/// The most that a Zstandard file may ask to be kept of what was unpacked, as a power of two: 128 MiB, the most that `zstd` itself
/// unpacks unless told otherwise.
const ZSTD_WINDOW: u32 = 27;

/// How a file is encoded, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Lines,
    Json,
    Parquet,
    /// Text in cells, with the byte between them.
    Table(u8),
}

/// How a file is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Packing {
    Plain,
    Gzip,
    Zstd,
}

/// The file's kind and how it is compressed.
fn kind(name: &str) -> Option<(Kind, Packing)> {
    let name = name.to_ascii_lowercase();
    let (plain, packing) = match name.rsplit_once('.')? {
        (plain, "gz") => (plain, Packing::Gzip),
        (plain, "zst") => (plain, Packing::Zstd),
        _ => (name.as_str(), Packing::Plain),
    };
    let kind = match plain.rsplit_once('.')?.1 {
        "jsonl" | "ndjson" => Kind::Lines,
        "json" => Kind::Json,
        "csv" => Kind::Table(b','),
        "tsv" => Kind::Table(b'\t'),
        // It compresses its pages itself.
        "parquet" if packing == Packing::Plain => Kind::Parquet,
        _ => return None,
    };
    Some((kind, packing))
}

/// Returns whether a file of this name holds text in cells.
pub(super) fn is_table(name: &str) -> bool {
    matches!(kind(name), Some((Kind::Table(_), _)))
}

/// Returns whether a name ends as a file's does, of data or not: such a name is no hub id.
pub(super) fn is_file_name(name: &str) -> bool {
    const OTHERS: [&str; 10] = ["txt", "arrow", "feather", "yaml", "yml", "toml", "gz", "zst", "zip", "xz"];
    let extension = name.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase());
    kind(name).is_some() || extension.is_some_and(|e| OTHERS.contains(&e.as_str()))
}

/// Returns whether a file of this name holds rows. `dataset_infos.json` and the like do not.
pub(super) fn is_data(name: &str) -> bool {
    const NOT_DATA: [&str; 5] =
        ["dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json", "config.json"];
    !NOT_DATA.contains(&name) && !name.starts_with('.') && kind(name).is_some()
}

/// The stem that names the split: without extensions and without the hub's `-00000-of-00003(-hash)`.
pub(super) fn split_name(name: &str) -> &str {
    let lower = name.to_ascii_lowercase();
    let extensions = [".gz", ".zst", ".jsonl", ".ndjson", ".json", ".parquet", ".csv", ".tsv"];
    let mut end = name.len();
    for extension in extensions {
        end -= if lower[..end].ends_with(extension) { extension.len() } else { 0 };
    }
    let stem = &name[..end];
    let digits = |s: &str| s.len() == 5 && s.bytes().all(|b| b.is_ascii_digit());
    let shard = stem.match_indices("-of-").find_map(|(at, _)| {
        let (before, after) = (&stem[..at], &stem[at + 4..]);
        let (rest, first) = before.rsplit_once('-')?;
        let count = after.split('-').next()?;
        (digits(first) && digits(count)).then_some(rest)
    });
    shard.unwrap_or(stem)
}

/// Opens a file of rows.
pub(super) fn rows(path: &Path) -> Result<Rows, Error> {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    let Some((kind, packing)) = kind(name) else {
        return Err(Error::UnknownFileType { path: path.to_owned() });
    };
    let file = setpoint_files::open(path)?;
    let length = file.metadata().map_or(0, |m| m.len());
    if kind == Kind::Parquet {
        return parquet::rows(path, file);
    }
    let plain: Box<dyn Read + Send> = match packing {
        Packing::Plain => Box::new(file),
        Packing::Gzip => Box::new(flate2::read::MultiGzDecoder::new(BufReader::new(file))),
        Packing::Zstd => Box::new(unpack_zstd(file).map_err(Error::io("read", path))?),
    };
    let mut text = BufReader::new(plain);
    refuse_utf16(&mut text).map_err(Error::io("read", path))?;
    match kind {
        Kind::Lines => Ok(json::lines(path, text)),
        Kind::Table(delimiter) => table::rows(path, text, delimiter),
        _ if packing == Packing::Plain => json::document(path, text, u64::MAX, usize::MAX),
        _ => {
            let most = |densest: u64, always: u64| length.saturating_mul(densest).max(always);
            let values = usize::try_from(most(DENSEST_VALUES, ALWAYS_VALUES)).unwrap_or(usize::MAX);
            json::document(path, text, most(DENSEST, ALWAYS), values)
        }
    }
}

/// Fails if a text begins with the mark of UTF-16, in which PowerShell and spreadsheets write files.
fn refuse_utf16(text: &mut impl BufRead) -> std::io::Result<()> {
    let start = text.fill_buf()?;
    if start.starts_with(b"\xff\xfe") || start.starts_with(b"\xfe\xff") {
        return Err(std::io::Error::new(ErrorKind::InvalidData, "it is text in UTF-16; save it as UTF-8"));
    }
    Ok(())
}

fn unpack_zstd(file: File) -> std::io::Result<zstd::stream::read::Decoder<'static, BufReader<File>>> {
    let mut decoder = zstd::stream::read::Decoder::new(file)?;
    decoder.window_log_max(ZSTD_WINDOW)?;
    Ok(decoder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_by_name() {
        assert_eq!(kind("a.b.JSONL"), Some((Kind::Lines, Packing::Plain)));
        assert_eq!(kind("a.jsonl.gz"), Some((Kind::Lines, Packing::Gzip)));
        assert_eq!(kind("a.ndjson.ZST"), Some((Kind::Lines, Packing::Zstd)));
        assert_eq!(kind("a.json"), Some((Kind::Json, Packing::Plain)));
        assert_eq!(kind("a.csv"), Some((Kind::Table(b','), Packing::Plain)));
        assert_eq!(kind("a.tsv.zst"), Some((Kind::Table(b'\t'), Packing::Zstd)));
        assert_eq!(kind("a.parquet"), Some((Kind::Parquet, Packing::Plain)));
        assert_eq!(kind("a.parquet.gz"), None);
        assert_eq!(kind("a.parquet.zst"), None);
        assert_eq!(kind("a.zst"), None);
        assert_eq!(kind("README.md"), None);
        assert_eq!(kind("json"), None);
        assert!(!is_data("dataset_infos.json"));
        assert!(is_file_name("train.JSONL") && is_file_name("train.csv") && is_file_name("train.json.gz"));
        assert!(!is_file_name("ultrachat_200k") && !is_file_name("v1.0") && !is_file_name("jsonl"));
    }

    #[test]
    fn text_in_utf16_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let text = "[{\"prompt\": \"p\"}]";
        for name in ["a.json", "a.jsonl", "a.csv", "a.tsv"] {
            let path = dir.path().join(name);
            for unit in [u16::to_le_bytes, u16::to_be_bytes] {
                let bytes: Vec<u8> = "\u{feff}".encode_utf16().chain(text.encode_utf16()).flat_map(unit).collect();
                std::fs::write(&path, bytes).unwrap();
                let said = rows(&path).err().unwrap().to_string();
                assert!(said.contains(name) && said.contains("it is text in UTF-16; save it as UTF-8"), "{said}");
            }
            std::fs::write(&path, format!("\u{feff}{text}\n")).unwrap();
            assert!(rows(&path).is_ok(), "the mark of UTF-8 is left out");
        }
    }

    #[test]
    fn splits_by_name() {
        assert_eq!(split_name("train.jsonl"), "train");
        assert_eq!(split_name("train.jsonl.gz"), "train");
        assert_eq!(split_name("train-00000-of-00003.csv.zst"), "train");
        assert_eq!(split_name("train_sft-00000-of-00003-a1b2c3.parquet"), "train_sft");
        assert_eq!(split_name("test-00001-of-00002.parquet"), "test");
        assert_eq!(split_name("state-of-the-art.json"), "state-of-the-art");
    }
}
