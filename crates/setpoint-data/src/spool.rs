//! Bytes that are written once and read by place, in memory as long as they are few.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use crate::error::Error;

/// Bytes that are collected before they are written to the file.
const BUFFER: usize = 1 << 20;

/// Pieces of bytes, one behind the other. They are kept in memory up to a limit; beyond it they go to a file without a name, which the
/// system removes with the process.
///
/// ```
/// # fn main() -> Result<(), setpoint_data::Error> {
/// use setpoint_data::Spool;
///
/// let mut spool = Spool::new(std::env::temp_dir(), 4);
/// let places = [spool.push(b"one")?, spool.push(b"two")?];
/// let mut piece = [0; 3];
/// spool.read(places[1], &mut piece)?;
/// assert_eq!(&piece, b"two");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Spool {
    folder: PathBuf,
    /// The most bytes without a file.
    limit: usize,
    file: Option<Mutex<File>>,
    /// The bytes in the file.
    written: u64,
    /// The bytes behind those in the file.
    held: Vec<u8>,
}

impl Spool {
    /// Creates an empty spool. `folder`: where the file goes; `limit`: the bytes that are kept without one.
    pub fn new(folder: impl Into<PathBuf>, limit: usize) -> Self {
        Self { folder: folder.into(), limit, file: None, written: 0, held: Vec::new() }
    }

    /// Adds a piece and returns its place.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn push(&mut self, piece: &[u8]) -> Result<u64, Error> {
        let place = self.len();
        self.held.extend_from_slice(piece);
        let most = if self.file.is_some() { BUFFER.min(self.limit) } else { self.limit };
        if self.held.len() > most {
            self.write_held()?;
        }
        Ok(place)
    }

    /// Returns the number of bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.written + self.held.len() as u64
    }

    /// Returns whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns whether the bytes were too many for memory.
    #[must_use]
    pub fn has_file(&self) -> bool {
        self.file.is_some()
    }

    fn write_held(&mut self) -> Result<(), Error> {
        let folder = self.folder.clone();
        let failed = || Error::io("write a temporary file in", folder.clone());
        if self.file.is_none() {
            let file = tempfile::tempfile_in(&self.folder).map_err(failed())?;
            self.file = Some(Mutex::new(file));
        }
        if let Some(file) = &mut self.file {
            let file = file.get_mut().unwrap_or_else(PoisonError::into_inner);
            // Reading moves the file's position.
            let written = file.seek(SeekFrom::Start(self.written)).and_then(|_| file.write_all(&self.held));
            written.map_err(failed())?;
            self.written += self.held.len() as u64;
            self.held.clear();
            self.held.shrink_to(BUFFER);
        }
        Ok(())
    }

    /// Returns the error of bytes that cannot be read back.
    pub(crate) fn failed(&self, reason: std::io::Error) -> Error {
        Error::io("read a temporary file in", &self.folder)(reason)
    }

    /// Fills `piece` with the bytes at a place. They must be those of one piece, or of several whole ones.
    ///
    /// # Errors
    /// When the file cannot be read, or there are no such bytes.
    pub fn read(&self, place: u64, piece: &mut [u8]) -> Result<(), Error> {
        let mut at = place;
        let mut rest = piece;
        if at < self.written {
            let count = usize::try_from(self.written - at).unwrap_or(usize::MAX).min(rest.len());
            let (of_file, behind) = rest.split_at_mut(count);
            if let Some(file) = &self.file {
                let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
                file.seek(SeekFrom::Start(at))
                    .and_then(|_| file.read_exact(of_file))
                    .map_err(|error| self.failed(error))?;
            }
            at += count as u64;
            rest = behind;
        }
        let start = usize::try_from(at.saturating_sub(self.written)).unwrap_or(usize::MAX);
        let end = start.saturating_add(rest.len());
        let held = self.held.get(start..end).ok_or_else(|| self.failed(std::io::ErrorKind::UnexpectedEof.into()))?;
        rest.copy_from_slice(held);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_read_from_memory_and_from_the_file_alike() {
        let pieces: Vec<Vec<u8>> = (0..50u8).map(|i| vec![i; usize::from(i) * 7 % 23]).collect();
        let all: Vec<u8> = pieces.concat();
        for (limit, has_file) in [(1 << 20, false), (100, true), (0, true)] {
            let folder = tempfile::tempdir().unwrap();
            let mut spool = Spool::new(folder.path(), limit);
            let mut places = Vec::new();
            for piece in &pieces {
                places.push(spool.push(piece).unwrap());
                // Reading in between does not disturb the writing.
                let mut first = vec![9; pieces[0].len()];
                spool.read(places[0], &mut first).unwrap();
                assert_eq!(first, pieces[0]);
            }
            assert_eq!((spool.has_file(), spool.len()), (has_file, all.len() as u64));
            for (place, piece) in places.iter().zip(&pieces).rev() {
                let mut found = vec![0; piece.len()];
                spool.read(*place, &mut found).unwrap();
                assert_eq!(found, *piece, "limit {limit}");
            }
            let mut found = vec![0; all.len()];
            spool.read(0, &mut found).unwrap();
            assert_eq!(found, all);
            assert!(spool.read(1, &mut found).is_err(), "beyond the end");
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the file has no name");
        }
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_named() {
        let mut spool = Spool::new("/no/such/folder", 2);
        let message = spool.push(b"abc").unwrap_err().to_string();
        assert!(message.starts_with("could not write a temporary file in /no/such/folder"), "{message}");
    }
}
