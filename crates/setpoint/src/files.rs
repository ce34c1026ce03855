//! Hashes of tokens and texts, and text files that are written whole.

use std::path::Path;

use setpoint_data::hex;
use setpoint_train::Sequence;
use sha2::{Digest, Sha256};

use crate::failure::Outcome;

/// Identifies a run of tokens among others.
pub fn token_hash(ids: &[u32]) -> u64 {
    let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
    let digest = Sha256::digest(&bytes);
    u64::from_le_bytes([digest[0], digest[1], digest[2], digest[3], digest[4], digest[5], digest[6], digest[7]])
}

/// Identifies sequences: their tokens, and what of them is scored.
pub fn sequences_hash<'a>(sequences: impl IntoIterator<Item = &'a Sequence>) -> String {
    let mut hash = SequencesHash::default();
    sequences.into_iter().for_each(|sequence| hash.add(sequence));
    hash.finish()
}

/// A [`sequences_hash`] of sequences that come one after the other.
#[derive(Debug, Default)]
pub struct SequencesHash(Sha256);

impl SequencesHash {
    /// Takes a sequence in.
    pub fn add(&mut self, sequence: &Sequence) {
        for number in [sequence.ids.len(), sequence.prompt_len, sequence.scored_from] {
            self.0.update((number as u64).to_le_bytes());
        }
        sequence.ids.iter().for_each(|id| self.0.update(id.to_le_bytes()));
    }

    /// Returns the hash of all.
    pub fn finish(self) -> String {
        hex(&self.0.finalize())
    }
}

/// A short hash of a text, for fingerprints.
pub fn text_hash(text: &str) -> String {
    hex(&Sha256::digest(text.as_bytes()))
}

/// Writes a text file, replacing an older one only when the new one is whole.
pub fn write_text(path: &Path, text: &str) -> Outcome {
    Ok(setpoint_files::write(path, |out| out.put(text.as_bytes()))?)
}
