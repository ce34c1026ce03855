//! Thrift's compact protocol, as far as needed to look at a Parquet footer or page header before the library does: its
//! decoder reserves memory for whatever length a file claims, and recurses as deep as a file wants.

use std::io::Read;

/// The deepest nesting of structs and lists; Parquet's own has about ten.
const DEEPEST: usize = 24;
/// The longest list of structs: columns, row groups, elements of the schema.
const LONGEST: u64 = 200_000;

/// A reader that counts what it has read.
pub(super) struct Thrift<R> {
    input: R,
    read: u64,
    limit: u64,
}

/// Why a text is not Thrift.
pub(super) type Broken = String;

/// The types of fields.
const STOP: u8 = 0;
pub(super) const I32: u8 = 5;
pub(super) const LIST: u8 = 9;
pub(super) const STRUCT: u8 = 12;

impl<R: Read> Thrift<R> {
    /// Reads from `input`, of which no more than `limit` bytes belong to the message.
    pub(super) fn new(input: R, limit: u64) -> Self {
        Self { input, read: 0, limit }
    }

    /// The bytes read so far.
    pub(super) fn read(&self) -> u64 {
        self.read
    }

    fn byte(&mut self) -> Result<u8, Broken> {
        if self.read >= self.limit {
            return Err("it ends in the middle of a header".into());
        }
        let mut byte = [0];
        self.input.read_exact(&mut byte).map_err(|e| e.to_string())?;
        self.read += 1;
        Ok(byte[0])
    }

    pub(super) fn varint(&mut self) -> Result<u64, Broken> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err("a number in a header has too many digits".into())
    }

    pub(super) fn int(&mut self) -> Result<i64, Broken> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// The next field of a struct: its number and type; `None` at the end.
    pub(super) fn field(&mut self, last: &mut i64) -> Result<Option<(i64, u8)>, Broken> {
        let byte = self.byte()?;
        if byte == STOP {
            return Ok(None);
        }
        *last = match byte >> 4 {
            0 => self.int()?,
            delta => last.wrapping_add(i64::from(delta)),
        };
        Ok(Some((*last, byte & 0x0f)))
    }

    /// The length of a list and the type of its elements.
    pub(super) fn list(&mut self) -> Result<(u64, u8), Broken> {
        let byte = self.byte()?;
        let count = match byte >> 4 {
            15 => self.varint()?,
            count => u64::from(count),
        };
        let kind = byte & 0x0f;
        let most = if kind == STRUCT { LONGEST } else { u64::MAX };
        if count > most || count > self.limit.saturating_sub(self.read) {
            return Err(format!("a header claims a list of {count}"));
        }
        Ok((count, kind))
    }

    fn pass_over(&mut self, count: u64) -> Result<(), Broken> {
        if count > self.limit.saturating_sub(self.read) {
            return Err(format!("a header claims a text of {count} bytes"));
        }
        let passed =
            std::io::copy(&mut (&mut self.input).take(count), &mut std::io::sink()).map_err(|e| e.to_string())?;
        self.read += passed;
        if passed == count { Ok(()) } else { Err("it ends in the middle of a header".into()) }
    }

    /// Passes over a value.
    pub(super) fn skip(&mut self, kind: u8) -> Result<(), Broken> {
        self.skip_at(kind, 0, false)
    }

    fn skip_at(&mut self, kind: u8, depth: usize, in_list: bool) -> Result<(), Broken> {
        if depth > DEEPEST {
            return Err("its headers are nested too deeply".into());
        }
        match kind {
            1 | 2 if in_list => self.pass_over(1),
            1 | 2 => Ok(()),
            3 => self.pass_over(1),
            4..=6 => self.varint().map(drop),
            7 => self.pass_over(8),
            8 => {
                let length = self.varint()?;
                self.pass_over(length)
            }
            LIST | 10 => {
                let (count, kind) = self.list()?;
                (0..count).try_for_each(|_| self.skip_at(kind, depth + 1, true))
            }
            11 => {
                let count = self.varint()?;
                if count > self.limit.saturating_sub(self.read) {
                    return Err(format!("a header claims a map of {count}"));
                }
                let kinds = if count > 0 { self.byte()? } else { 0 };
                for _ in 0..count {
                    self.skip_at(kinds >> 4, depth + 1, true)?;
                    self.skip_at(kinds & 0x0f, depth + 1, true)?;
                }
                Ok(())
            }
            STRUCT => {
                let mut last = 0;
                while let Some((_, kind)) = self.field(&mut last)? {
                    self.skip_at(kind, depth + 1, false)?;
                }
                Ok(())
            }
            13 => self.pass_over(16),
            other => Err(format!("a header has a value of the unknown type {other}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skip(bytes: &[u8]) -> Result<u64, Broken> {
        let mut thrift = Thrift::new(bytes, bytes.len() as u64);
        thrift.skip(STRUCT).map(|()| thrift.read())
    }

    #[test]
    fn values_are_passed_over() {
        // Field 1: i32 -3; field 2: "ab"; field 3: a list of two i32; field 4: true; the end.
        assert_eq!(skip(&[0x15, 0x05, 0x18, 2, b'a', b'b', 0x19, 0x25, 2, 4, 0x11, 0]), Ok(12));
        let mut thrift = Thrift::new(&[0x05_u8][..], 1);
        assert_eq!(thrift.int(), Ok(-3));
    }

    #[test]
    fn hostile_lengths_and_depths() {
        for (bytes, expected) in [
            (&[0x19, 0xfc, 0xff, 0xff, 0xff, 0x7f][..], "a list of"),
            (&[0x18, 0xff, 0xff, 0xff, 0xff, 0x0f], "a text of"),
            (&[0x1b, 0xff, 0xff, 0xff, 0x0f], "a map of"),
            (&[0x15, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], "too many digits"),
            (&[0x1c; 4000], "too deeply"),
            (&[0x15], "ends in the middle"),
            (&[0x1f, 0], "unknown type 15"),
        ] {
            let message = skip(bytes).unwrap_err();
            assert!(message.contains(expected), "{message}");
        }
    }
}
