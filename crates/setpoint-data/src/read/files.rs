//! A file to its rows, by its name.

use std::io::{BufReader, Read};
use std::path::Path;

use super::{Rows, json, parquet};
use crate::error::Error;

/// A JSON document is read whole: one that is compressed may unpack to `ALWAYS` bytes, or to `DENSEST` times its length.
const ALWAYS: u64 = 256 << 20;
const DENSEST: u64 = 100;

/// How a file is encoded, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Lines,
    Json,
    Parquet,
}

/// The file's kind and whether it is compressed with gzip.
fn kind(name: &str) -> Option<(Kind, bool)> {
    let name = name.to_ascii_lowercase();
    let (plain, gzip) = match name.strip_suffix(".gz") {
        Some(plain) => (plain, true),
        None => (name.as_str(), false),
    };
    let kind = match plain.rsplit_once('.')?.1 {
        "jsonl" | "ndjson" => Kind::Lines,
        "json" => Kind::Json,
        "parquet" if !gzip => Kind::Parquet,
        _ => return None,
    };
    Some((kind, gzip))
}

/// Whether a name ends as a file's does, of data or not: such a name is no hub id.
pub(super) fn is_file_name(name: &str) -> bool {
    const OTHERS: [&str; 12] =
        ["csv", "tsv", "txt", "arrow", "feather", "yaml", "yml", "toml", "gz", "zst", "zip", "xz"];
    let extension = name.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase());
    kind(name).is_some() || extension.is_some_and(|e| OTHERS.contains(&e.as_str()))
}

/// Whether a file of this name holds rows. `dataset_infos.json` and the like do not.
pub(super) fn is_data(name: &str) -> bool {
    const NOT_DATA: [&str; 5] =
        ["dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json", "config.json"];
    !NOT_DATA.contains(&name) && !name.starts_with('.') && kind(name).is_some()
}

/// The stem that names the split: without extensions and without the hub's `-00000-of-00003(-hash)`.
pub(super) fn split_name(name: &str) -> &str {
    let lower = name.to_ascii_lowercase();
    let extensions = [".gz", ".jsonl", ".ndjson", ".json", ".parquet"];
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
    let Some((kind, gzip)) = kind(name) else {
        return Err(Error::UnknownFileType { path: path.to_owned() });
    };
    let file = setpoint_files::open(path)?;
    let length = file.metadata().map_or(0, |m| m.len());
    let unpacked = if gzip { length.saturating_mul(DENSEST).max(ALWAYS) } else { u64::MAX };
    if kind == Kind::Parquet {
        return parquet::rows(path, file);
    }
    let plain: Box<dyn Read + Send> =
        if gzip { Box::new(flate2::read::MultiGzDecoder::new(BufReader::new(file))) } else { Box::new(file) };
    match kind {
        Kind::Lines => Ok(json::lines(path, BufReader::new(plain))),
        _ => json::document(path, plain, unpacked),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_by_name() {
        assert_eq!(kind("a.b.JSONL"), Some((Kind::Lines, false)));
        assert_eq!(kind("a.jsonl.gz"), Some((Kind::Lines, true)));
        assert_eq!(kind("a.json"), Some((Kind::Json, false)));
        assert_eq!(kind("a.parquet"), Some((Kind::Parquet, false)));
        assert_eq!(kind("a.parquet.gz"), None);
        assert_eq!(kind("README.md"), None);
        assert_eq!(kind("json"), None);
        assert!(!is_data("dataset_infos.json"));
        assert!(is_file_name("train.JSONL") && is_file_name("train.csv") && is_file_name("train.json.gz"));
        assert!(!is_file_name("ultrachat_200k") && !is_file_name("v1.0") && !is_file_name("jsonl"));
    }

    #[test]
    fn splits_by_name() {
        assert_eq!(split_name("train.jsonl"), "train");
        assert_eq!(split_name("train.jsonl.gz"), "train");
        assert_eq!(split_name("train_sft-00000-of-00003-a1b2c3.parquet"), "train_sft");
        assert_eq!(split_name("test-00001-of-00002.parquet"), "test");
        assert_eq!(split_name("state-of-the-art.json"), "state-of-the-art");
    }
}
