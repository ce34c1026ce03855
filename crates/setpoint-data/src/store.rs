//! Examples on disk: an index in memory, and the tokens in a [`Spool`](crate::Spool).

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::encode::{EncodedResponse, Example};
use crate::error::Error;
use crate::pieces::Pieces;
use crate::record::{Label, Source};

/// Examples that are written once and read in any order. In memory are eight bytes of each; the rest is in memory only as long as it is
/// little, and else in a file without a name.
#[derive(Debug)]
pub struct ExampleStore {
    pieces: Pieces,
    paths: Vec<Arc<Path>>,
    numbers: HashMap<Arc<Path>, u32>,
    piece: Vec<u8>,
}

impl ExampleStore {
    /// The usual limit of the bytes that are kept in memory.
    pub const IN_MEMORY: usize = 16 << 20;

    /// Creates an empty store. `folder`: where the file goes if there are more than `limit` bytes.
    pub fn new(folder: impl Into<PathBuf>, limit: usize) -> Self {
        Self { pieces: Pieces::new(folder, limit), paths: Vec::new(), numbers: HashMap::new(), piece: Vec::new() }
    }

    /// Creates a store of examples that stays in memory.
    ///
    /// # Errors
    /// None that can occur without a file.
    pub fn in_memory<'e>(examples: impl IntoIterator<Item = &'e Example>) -> Result<Self, Error> {
        let mut store = Self::new("", usize::MAX);
        examples.into_iter().try_for_each(|example| store.push(example))?;
        Ok(store)
    }

    /// Adds an example.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn push(&mut self, example: &Example) -> Result<(), Error> {
        let paths = &mut self.paths;
        let number = *self.numbers.entry(example.source.path.clone()).or_insert_with(|| {
            paths.push(example.source.path.clone());
            (paths.len() - 1) as u32
        });
        self.piece.clear();
        write(example, number, &mut self.piece);
        self.pieces.push(&self.piece)
    }

    /// Returns the number of examples.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pieces.len()
    }

    /// Returns whether there are no examples.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns whether the examples were too many for memory.
    #[must_use]
    pub fn has_file(&self) -> bool {
        self.pieces.has_file()
    }

    /// Returns an example.
    ///
    /// # Errors
    /// When the file cannot be read, or is not as it was written.
    ///
    /// # Panics
    /// When there is no such example.
    pub fn get(&self, example: usize) -> Result<Example, Error> {
        read(&mut Cursor(&self.pieces.get(example)?), &self.paths).ok_or_else(|| self.pieces.changed())
    }

    /// Returns all examples in their order.
    pub fn iter(&self) -> impl Iterator<Item = Result<Example, Error>> {
        (0..self.len()).map(|example| self.get(example))
    }
}

/// Appends an example in the form of the file. All numbers are little-endian.
fn write(example: &Example, path: u32, into: &mut Vec<u8>) {
    let Example { row, source, prompt, responses, margin, assistant_spans } = example;
    let mut put = |bytes: &[u8]| into.extend_from_slice(bytes);
    let line = source.line.map_or(0, NonZeroUsize::get);
    for number in [*row, source.row, line, source.set, prompt.len(), responses.len(), assistant_spans.len()] {
        put(&(number as u64).to_le_bytes());
    }
    put(&path.to_le_bytes());
    put(&[u8::from(margin.is_some())]);
    put(&margin.unwrap_or_default().to_le_bytes());
    prompt.iter().for_each(|id| put(&id.to_le_bytes()));
    put_spans(assistant_spans, &mut put);
    for EncodedResponse { index, ids, reward, label, learned, thoughts } in responses {
        for number in [*index, ids.len(), thoughts.len()] {
            put(&(number as u64).to_le_bytes());
        }
        let label = label.map_or(0, |label| 1 + LABELS.iter().position(|known| *known == label).unwrap_or(0) as u8);
        put(&[label, u8::from(*learned), u8::from(reward.is_some())]);
        put(&reward.unwrap_or_default().to_le_bytes());
        ids.iter().for_each(|id| put(&id.to_le_bytes()));
        put_spans(thoughts, &mut put);
    }
}

fn put_spans(spans: &[Range<usize>], put: &mut impl FnMut(&[u8])) {
    for span in spans {
        put(&(span.start as u64).to_le_bytes());
        put(&(span.end as u64).to_le_bytes());
    }
}

const LABELS: [Label; 4] = [Label::Chosen, Label::Rejected, Label::Desirable, Label::Undesirable];

/// The bytes that are left.
struct Cursor<'b>(&'b [u8]);

impl<'b> Cursor<'b> {
    fn bytes(&mut self, count: usize) -> Option<&'b [u8]> {
        let (first, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(first)
    }

    fn number(&mut self) -> Option<usize> {
        let bytes = self.bytes(8)?.try_into().ok()?;
        usize::try_from(u64::from_le_bytes(bytes)).ok()
    }

    fn flag(&mut self) -> Option<bool> {
        Some(self.bytes(1)? == [1])
    }

    fn float(&mut self) -> Option<f64> {
        Some(f64::from_le_bytes(self.bytes(8)?.try_into().ok()?))
    }

    fn ids(&mut self, count: usize) -> Option<Vec<u32>> {
        let bytes = self.bytes(count.checked_mul(4)?)?;
        Some(bytes.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect())
    }

    fn spans(&mut self, count: usize) -> Option<Vec<Range<usize>>> {
        (0..count).map(|_| Some(self.number()?..self.number()?)).collect()
    }
}

/// Reads an example back.
fn read(piece: &mut Cursor<'_>, paths: &[Arc<Path>]) -> Option<Example> {
    let mut numbers = [0; 7];
    for number in &mut numbers {
        *number = piece.number()?;
    }
    let [row, source_row, line, set, prompt, responses, spans] = numbers;
    let path = paths.get(piece.ids(1)?[0] as usize)?.clone();
    let has_margin = piece.flag()?;
    let margin = Some(piece.float()?).filter(|_| has_margin);
    let prompt = piece.ids(prompt)?;
    let spans = piece.spans(spans)?;
    let mut response = |_| -> Option<EncodedResponse> {
        let (index, count, thoughts) = (piece.number()?, piece.number()?, piece.number()?);
        let label = match piece.bytes(1)?[0] {
            0 => None,
            label => Some(*LABELS.get(usize::from(label) - 1)?),
        };
        let (learned, has_reward) = (piece.flag()?, piece.flag()?);
        let reward = Some(piece.float()?).filter(|_| has_reward);
        let (ids, thoughts) = (piece.ids(count)?, piece.spans(thoughts)?);
        Some(EncodedResponse { index, ids, reward, label, learned, thoughts })
    };
    let responses = (0..responses).map(&mut response).collect::<Option<Vec<_>>>()?;
    let source = Source { path, row: source_row, line: NonZeroUsize::new(line), set };
    piece.0.is_empty().then_some(Example { row, source, prompt, responses, margin, assistant_spans: spans })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(row: usize) -> Example {
        let path = Path::new(if row.is_multiple_of(3) { "a.jsonl" } else { "b.parquet" });
        let source = if row.is_multiple_of(2) { Source::line(path, row, row + 1) } else { Source::row(path, row) };
        let response = |index: usize| EncodedResponse {
            index,
            ids: (0..(row + index) as u32 % 7).map(|id| id * 1000).collect(),
            reward: index.is_multiple_of(2).then_some(row as f64 / 3.0 - 1.0),
            label: [None, Some(Label::Undesirable), Some(Label::Chosen), Some(Label::Rejected), Some(Label::Desirable)]
                [(row + index) % 5],
            learned: !(row + index).is_multiple_of(4),
            thoughts: (0..index).map(|i| i..row).collect(),
        };
        Example {
            row,
            source: Source { set: row % 4, ..source },
            prompt: vec![row as u32; row % 11 + 1],
            responses: (0..row % 4).map(response).collect(),
            margin: row.is_multiple_of(5).then_some(-0.25),
            assistant_spans: (0..row % 3).map(|i| i..i + row).collect(),
        }
    }

    #[test]
    fn examples_come_back_as_they_were() {
        let examples: Vec<Example> = (0..60).map(example).collect();
        for (limit, has_file) in [(ExampleStore::IN_MEMORY, false), (500, true)] {
            let folder = tempfile::tempdir().unwrap();
            let mut store = ExampleStore::new(folder.path(), limit);
            examples.iter().for_each(|example| store.push(example).unwrap());
            assert_eq!((store.len(), store.has_file()), (60, has_file));
            for row in (0..60).rev() {
                assert_eq!(store.get(row).unwrap(), examples[row]);
            }
            assert_eq!(store.iter().collect::<Result<Vec<_>, _>>().unwrap(), examples);
        }
    }

    #[test]
    fn a_piece_that_was_cut_is_no_example() {
        let mut bytes = Vec::new();
        write(&example(7), 0, &mut bytes);
        let paths = [Arc::from(Path::new("a"))];
        assert!(read(&mut Cursor(&bytes), &paths).is_some());
        assert!((0..bytes.len()).all(|end| read(&mut Cursor(&bytes[..end]), &paths).is_none()));
        assert!(read(&mut Cursor(&bytes), &[]).is_none(), "an unknown file");
    }
}
