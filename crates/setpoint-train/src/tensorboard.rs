//! TensorBoard event files: TFRecords of `Event` protobufs, with scalars only.
//!
//! A record is `length: u64 · masked crc32c(length) · data · masked crc32c(data)`, little endian, where
//! `masked(c) = rotate_right(c, 15) + 0xa282ead8` (TensorFlow, `tfrecord_writer`). The fields used
//! of `tensorflow/core/util/event.proto`: `wall_time = 1` (double), `step = 2` (int64),
//! `file_version = 3` (string), `summary = 5`, `session_log = 7`.

use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::Error;
use crate::storage::AppendLog;

/// Protobuf wire types.
const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;
const FIXED32: u64 = 5;

/// Writes scalars to a new event file.
#[derive(Debug)]
pub(crate) struct EventWriter {
    log: AppendLog,
}

impl EventWriter {
    /// Starts a new file in `dir`.
    ///
    /// Where there are older files, TensorBoard is told to forget their events from step
    /// `purge_step` on: they belong to work that was lost with a killed process.
    pub(crate) fn create(dir: &Path, purge_step: u64) -> Result<Self, Error> {
        setpoint_files::create_dir(dir)?;
        let newest = newest_timestamp(dir)?;
        // TensorBoard reads the files of a folder by name; a later one must have a later name.
        let timestamp = newest.map_or(now() as u64, |newest| (now() as u64).max(newest + 1));
        let name = format!("events.out.tfevents.{timestamp:010}.setpoint.{}", std::process::id());
        let mut writer = Self { log: AppendLog::open(&dir.join(name), 0, None)? };
        let mut version = event(None);
        field(&mut version, 3, b"brain.Event:2");
        writer.record(&version)?;
        if newest.is_some() {
            // SessionLog { status = 1: START }
            let mut start = event(Some(purge_step));
            field(&mut start, 7, &[(1 << 3 | VARINT) as u8, 1]);
            writer.record(&start)?;
        }
        Ok(writer)
    }

    /// Adds scalars of one step.
    pub(crate) fn scalars(&mut self, step: u64, values: &[(String, f64)]) -> Result<(), Error> {
        let mut summary = vec![];
        for (tag, value) in values {
            // Summary.Value { tag = 1: string, simple_value = 2: float }
            let mut entry = vec![];
            field(&mut entry, 1, tag.as_bytes());
            varint(&mut entry, 2 << 3 | FIXED32);
            entry.extend((*value as f32).to_le_bytes());
            field(&mut summary, 1, &entry);
        }
        let mut data = event(Some(step));
        field(&mut data, 5, &summary);
        self.record(&data)
    }

    fn record(&mut self, data: &[u8]) -> Result<(), Error> {
        let length = (data.len() as u64).to_le_bytes();
        let mut record = Vec::with_capacity(data.len() + 16);
        record.extend(length);
        record.extend(masked_crc(&length).to_le_bytes());
        record.extend(data);
        record.extend(masked_crc(data).to_le_bytes());
        self.log.append(&record)
    }
}

/// Seconds in the names of the files that are there.
fn newest_timestamp(dir: &Path) -> Result<Option<u64>, Error> {
    let mut newest = None;
    for entry in fs::read_dir(dir).map_err(Error::io("list", dir))? {
        let name = entry.map_err(Error::io("list", dir))?.file_name();
        let timestamp = name
            .to_string_lossy()
            .strip_prefix("events.out.tfevents.")
            .and_then(|rest| rest.split('.').next()?.parse().ok());
        newest = newest.max(timestamp);
    }
    Ok(newest)
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// An `Event` with its time and step.
fn event(step: Option<u64>) -> Vec<u8> {
    let mut out = vec![];
    varint(&mut out, 1 << 3 | FIXED64);
    out.extend(now().to_le_bytes());
    if let Some(step) = step {
        varint(&mut out, 2 << 3 | VARINT);
        varint(&mut out, step);
    }
    out
}

/// A field of bytes, a string or a message.
fn field(out: &mut Vec<u8>, number: u64, bytes: &[u8]) {
    varint(out, number << 3 | BYTES);
    varint(out, bytes.len() as u64);
    out.extend(bytes);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn masked_crc(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Splits a file into records, checking lengths and checksums.
    fn records(mut bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut found = vec![];
        while !bytes.is_empty() {
            let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
            let check = |data: &[u8], at: usize| {
                // Unmask: (masked - delta) rotated left by 15, on the polynomial's bitwise definition.
                let masked = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
                let crc = masked.wrapping_sub(0xa282_ead8).rotate_left(15);
                assert_eq!(crc, slow_crc32c(data));
            };
            check(&bytes[..8], 8);
            check(&bytes[12..12 + length], 12 + length);
            found.push(bytes[12..12 + length].to_vec());
            bytes = &bytes[16 + length..];
        }
        found
    }

    fn slow_crc32c(data: &[u8]) -> u32 {
        let mut crc = u32::MAX;
        for &byte in data {
            crc ^= u32::from(byte);
            for _ in 0..8 {
                crc = (crc >> 1) ^ (0x82f6_3b78 * (crc & 1));
            }
        }
        !crc
    }

    fn read_varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let byte = bytes[0];
            *bytes = &bytes[1..];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        value
    }

    /// Number and payload of each field of a message.
    fn fields(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
        let mut found = vec![];
        while !bytes.is_empty() {
            let key = read_varint(&mut bytes);
            let length = match key & 7 {
                VARINT => {
                    let value = read_varint(&mut bytes);
                    found.push((key >> 3, value.to_le_bytes().to_vec()));
                    continue;
                }
                FIXED64 => 8,
                FIXED32 => 4,
                BYTES => read_varint(&mut bytes) as usize,
                other => panic!("wire type {other}"),
            };
            found.push((key >> 3, bytes[..length].to_vec()));
            bytes = &bytes[length..];
        }
        found
    }

    fn files(dir: &Path) -> Vec<std::path::PathBuf> {
        let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
        files.sort();
        files
    }

    #[test]
    fn the_checksum_is_castagnolis() {
        assert_eq!(slow_crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn scalars_are_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = EventWriter::create(dir.path(), 0).unwrap();
        let values = [("train/loss".to_string(), 0.25), ("train/grad_norm".to_string(), -3.0)];
        writer.scalars(300, &values).unwrap();

        let records = records(&fs::read(&files(dir.path())[0]).unwrap());
        assert_eq!(records.len(), 2);
        assert_eq!(fields(&records[0])[1], (3, b"brain.Event:2".to_vec()));
        let event = fields(&records[1]);
        assert_eq!(event[1], (2, 300u64.to_le_bytes().to_vec()));
        assert_eq!(event[2].0, 5);
        let read: Vec<_> = fields(&event[2].1)
            .into_iter()
            .map(|(number, value)| {
                assert_eq!(number, 1);
                let value = fields(&value);
                let tag = String::from_utf8(value[0].1.clone()).unwrap();
                (tag, f64::from(f32::from_le_bytes(value[1].1.clone().try_into().unwrap())))
            })
            .collect();
        assert_eq!(read, values);
    }

    #[test]
    fn a_second_writer_takes_a_later_name_and_purges() {
        let dir = tempfile::tempdir().unwrap();
        EventWriter::create(dir.path(), 0).unwrap();
        let first = files(dir.path());
        EventWriter::create(dir.path(), 7).unwrap();
        let both = files(dir.path());
        assert_eq!(both[0], first[0]);
        let records = records(&fs::read(&both[1]).unwrap());
        let purge = fields(&records[1]);
        assert_eq!(purge[1], (2, 7u64.to_le_bytes().to_vec()));
        assert_eq!(purge[2], (7, vec![1 << 3, 1]));
    }
}
