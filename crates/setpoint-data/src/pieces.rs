//! Pieces of bytes by number: an index in memory, and the bytes in a [`Spool`].

use std::path::PathBuf;

use crate::error::Error;
use crate::spool::Spool;

/// Pieces that are written once and read by number in any order. In memory are eight bytes of each; the rest is in memory only as long as it
/// is little, and else in a file without a name.
#[derive(Debug)]
pub struct Pieces {
    spool: Spool,
    /// The place of each piece, and the end of the last.
    places: Vec<u64>,
}

impl Pieces {
    /// Creates an empty list. `folder`: where the file goes if there are more than `limit` bytes.
    pub fn new(folder: impl Into<PathBuf>, limit: usize) -> Self {
        Self { spool: Spool::new(folder, limit), places: vec![0] }
    }

    /// Adds a piece.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn push(&mut self, piece: &[u8]) -> Result<(), Error> {
        self.spool.push(piece)?;
        self.places.push(self.spool.len());
        Ok(())
    }

    /// Returns the number of pieces.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len() - 1
    }

    /// Returns whether there are no pieces.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns whether the bytes were too many for memory.
    #[must_use]
    pub fn has_file(&self) -> bool {
        self.spool.has_file()
    }

    /// Reads a piece.
    ///
    /// # Errors
    /// When the file cannot be read.
    ///
    /// # Panics
    /// When there is no such piece.
    pub fn get(&self, number: usize) -> Result<Vec<u8>, Error> {
        let (start, end) = (self.places[number], self.places[number + 1]);
        let mut piece = vec![0; (end - start) as usize];
        self.spool.read(start, &mut piece)?;
        Ok(piece)
    }

    /// Returns the error of a piece that is not as it was written.
    #[must_use]
    pub fn changed(&self) -> Error {
        self.spool.failed(std::io::Error::new(std::io::ErrorKind::InvalidData, "it is not as it was written"))
    }
}
