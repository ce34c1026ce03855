//! Pages of a column, each looked at before it is unpacked, so that memory is bounded by limits and not by the file.

use std::fs::File;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parquet::arrow::arrow_reader::RowGroups;
use parquet::basic::{Compression, Encoding, Type};
use parquet::column::page::{Page, PageIterator, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};
use parquet::file::reader::{ChunkReader, SerializedPageReader};

use super::thrift::{I32, STRUCT, Thrift};
use super::window::Window;

/// The most rows that are decoded at a time, and about how many bytes.
const MOST_ROWS: usize = 256;
const BATCH_BYTES: f64 = (32 << 20) as f64;
/// The pages that one batch needs may unpack to `FREE` bytes, or to `RATIO` times their length, but never to more than `MOST`.
const FREE: u64 = 64 << 20;
const RATIO: u64 = 100;
const MOST: u64 = 1 << 30;
/// The most bytes that a dictionary can blow one batch up to.
const EXPANDED: u64 = 512 << 20;
/// About what a value takes once it is decoded, whatever its length.
const VALUE: u64 = 64;
/// The longest page header.
const LONGEST_HEADER: u64 = 4 << 20;
/// The most values in a page of an encoding that is decoded whole.
const MOST_DELTAS: u64 = 16 << 20;

fn refuse(reason: String) -> ParquetError {
    ParquetError::General(reason)
}

/// The sizes of the pages of one batch.
#[derive(Default)]
pub(super) struct Budget {
    packed: AtomicU64,
    unpacked: AtomicU64,
}

impl Budget {
    /// Begins a new batch.
    pub(super) fn reset(&self) {
        self.packed.store(0, Ordering::Relaxed);
        self.unpacked.store(0, Ordering::Relaxed);
    }

    fn spend(&self, packed: u64, unpacked: u64) -> Result<()> {
        let packed = self.packed.fetch_add(packed, Ordering::Relaxed) + packed;
        let unpacked = self.unpacked.fetch_add(unpacked, Ordering::Relaxed) + unpacked;
        let most = packed.saturating_mul(RATIO).saturating_add(FREE).min(MOST);
        if unpacked > most {
            return Err(refuse(format!(
                "{packed} bytes would unpack to {unpacked}, more than the {most} that are unpacked at a time"
            )));
        }
        Ok(())
    }
}

/// One row group of a file.
pub(super) struct Group {
    file: Arc<File>,
    metadata: Arc<ParquetMetaData>,
    number: usize,
    /// For each column, the longest value of its dictionary.
    longest: Vec<u64>,
    pub(super) batch: usize,
    pub(super) budget: Arc<Budget>,
}

impl Group {
    /// Looks at the dictionaries of a row group and decides how many rows are decoded at a time.
    pub(super) fn open(file: Arc<File>, metadata: Arc<ParquetMetaData>, number: usize) -> Result<Self> {
        let columns = metadata.row_group(number).num_columns();
        let mut group =
            Self { file, metadata, number, longest: vec![0; columns], batch: MOST_ROWS, budget: Arc::default() };
        for i in 0..columns {
            group.longest[i] = group.longest_in_dictionary(i)?;
        }
        let rows = group.row_group().num_rows().max(1) as f64;
        let bytes_of_row: f64 = (0..columns)
            .map(|i| {
                let column = group.row_group().column(i);
                let values = column.num_values().max(1) as f64;
                values / rows * (column.uncompressed_size() as f64 / values).max(group.longest[i].max(VALUE) as f64)
            })
            .sum();
        group.batch = ((BATCH_BYTES / bytes_of_row.max(1.0)) as usize).clamp(1, MOST_ROWS);
        Ok(group)
    }

    fn row_group(&self) -> &RowGroupMetaData {
        self.metadata.row_group(self.number)
    }

    fn longest_in_dictionary(&self, i: usize) -> Result<u64> {
        let column = self.row_group().column(i);
        if column.column_type() != Type::BYTE_ARRAY || column.num_values() == 0 {
            return Ok(0);
        }
        self.budget.reset();
        let mut pages = self.pages(i)?;
        if !pages.peek_next_page()?.is_some_and(|page| page.is_dict) {
            return Ok(0);
        }
        match pages.get_next_page()? {
            Some(Page::DictionaryPage { buf, .. }) => Ok(longest_plain(&buf)),
            _ => Ok(0),
        }
    }

    fn pages(&self, i: usize) -> Result<Pages> {
        let column = self.row_group().column(i);
        let rows = usize::try_from(self.row_group().num_rows())?;
        let (begin, length) = column.byte_range();
        Ok(Pages {
            inner: SerializedPageReader::new(self.file.clone(), column, rows, None)?,
            file: self.file.clone(),
            codec: column.compression(),
            at: begin,
            end: begin + length,
            first: true,
            longest: self.longest[i],
            window: (column.column_descr().max_rep_level() > 0).then(|| Window::new(self.batch)),
            rep_bits: u16::BITS - (column.column_descr().max_rep_level() as u16).leading_zeros(),
            budget: self.budget.clone(),
        })
    }
}

impl RowGroups for Group {
    fn num_rows(&self) -> usize {
        usize::try_from(self.row_group().num_rows()).unwrap_or_default()
    }

    fn column_chunks(&self, i: usize) -> Result<Box<dyn PageIterator>> {
        Ok(Box::new(Once(Some(self.pages(i)?))))
    }

    fn row_groups(&self) -> Box<dyn Iterator<Item = &RowGroupMetaData> + '_> {
        Box::new(std::iter::once(self.row_group()))
    }

    fn metadata(&self) -> &ParquetMetaData {
        &self.metadata
    }
}

struct Once(Option<Pages>);

impl Iterator for Once {
    type Item = Result<Box<dyn PageReader>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.take().map(|pages| Ok(Box::new(pages) as Box<dyn PageReader>))
    }
}

impl PageIterator for Once {}

/// The length of the longest value among plain ones, each behind its length.
fn longest_plain(mut bytes: &[u8]) -> u64 {
    let mut longest = 0;
    while let Some((length, rest)) = bytes.split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*length);
        longest = longest.max(u64::from(length));
        bytes = rest.get(length as usize..).unwrap_or_default();
    }
    longest
}

/// The sizes that a page's header claims.
struct Header {
    kind: i64,
    unpacked: u64,
    packed: u64,
    length: u64,
    /// The bytes of a page of version 2 that come before the packed ones.
    levels: u64,
}

/// The library's page reader, behind checks of each page.
struct Pages {
    inner: SerializedPageReader<File>,
    file: Arc<File>,
    codec: Compression,
    /// Where the next page's header begins.
    at: u64,
    end: u64,
    first: bool,
    longest: u64,
    /// Of a column that holds lists: the values in as many rows as a batch has.
    window: Option<Window>,
    rep_bits: u32,
    budget: Arc<Budget>,
}

const INDEX_PAGE: i64 = 1;
const DICTIONARY_PAGE: i64 = 2;
/// The field of a page header that describes a data page of version 2.
const V2_HEADER: i64 = 8;

/// The lengths of both kinds of levels in a header of version 2.
fn levels_of_v2(thrift: &mut Thrift<impl Read>) -> Result<u64> {
    let (mut last, mut sum) = (0, 0_u64);
    while let Some((id, kind)) = thrift.field(&mut last).map_err(refuse)? {
        if matches!((id, kind), (5 | 6, I32)) {
            let length = thrift.int().map_err(refuse)?;
            let length =
                u64::try_from(length).map_err(|_| refuse(format!("a page claims {length} bytes of levels")))?;
            sum = sum.saturating_add(length);
        } else {
            thrift.skip(kind).map_err(refuse)?;
        }
    }
    Ok(sum)
}

impl Pages {
    fn header(&self) -> Result<Header> {
        let room = (self.end - self.at).min(LONGEST_HEADER);
        let mut thrift = Thrift::new(self.file.get_read(self.at)?, room);
        let (mut sizes, mut levels) = ([None; 4], 0_u64);
        let mut last = 0;
        while let Some((id, kind)) = thrift.field(&mut last).map_err(refuse)? {
            match (id, kind) {
                (1..=3, I32) => sizes[id as usize] = Some(thrift.int().map_err(refuse)?),
                (V2_HEADER, STRUCT) => levels = levels_of_v2(&mut thrift)?,
                _ => thrift.skip(kind).map_err(refuse)?,
            }
        }
        let size = |i: usize| sizes[i].and_then(|s: i64| u64::try_from(s).ok());
        let (Some(kind), Some(unpacked), Some(packed)) = (sizes[1], size(2), size(3)) else {
            return Err(refuse(format!("the page at byte {} has no valid sizes", self.at)));
        };
        let length = thrift.read();
        if levels > packed || packed > self.end - self.at - length {
            return Err(refuse(format!(
                "the page at byte {} claims {packed} bytes, more than its column has",
                self.at
            )));
        }
        Ok(Header { kind, unpacked, packed, length, levels })
    }

    /// Checks the next page that holds anything, and passes over it.
    fn admit(&mut self) -> Result<()> {
        while self.at < self.end {
            let header = self.header()?;
            let body = self.at + header.length;
            if header.kind == DICTIONARY_PAGE && !self.first {
                return Err(refuse(format!("a second dictionary at byte {}", self.at)));
            }
            self.at = body + header.packed;
            if header.kind == INDEX_PAGE {
                continue;
            }
            self.first = false;
            self.budget.spend(header.packed, header.unpacked)?;
            // These two codecs unpack whatever is there, not what the header claims.
            if matches!(self.codec, Compression::GZIP(_) | Compression::BROTLI(_)) {
                let packed = self.file.get_bytes(body, header.packed as usize)?;
                self.check_stream(&packed[header.levels as usize..], header.unpacked)?;
            }
            return Ok(());
        }
        Ok(())
    }

    fn check_stream(&self, packed: &[u8], claimed: u64) -> Result<()> {
        let unpacked: Box<dyn Read + '_> = match self.codec {
            Compression::GZIP(_) => Box::new(flate2::read::MultiGzDecoder::new(packed)),
            _ => Box::new(brotli::Decompressor::new(packed, 1 << 16)),
        };
        // A stream that breaks off is reported by the library, which has less to unpack then.
        let length = std::io::copy(&mut unpacked.take(claimed + 1), &mut std::io::sink()).unwrap_or(0);
        if length > claimed {
            return Err(refuse(format!("a page unpacks to more than the {claimed} bytes that its header claims")));
        }
        Ok(())
    }

    /// Checks what only the unpacked page shows.
    fn inspect(&mut self, page: &Page) -> Result<()> {
        let bytes = page.buffer();
        let values = u64::from(page.num_values());
        if page.is_dictionary_page() {
            if values > bytes.len() as u64 {
                return Err(refuse(format!("a dictionary claims {values} values in {} bytes", bytes.len())));
            }
            return Ok(());
        }
        if matches!(page.encoding(), Encoding::DELTA_LENGTH_BYTE_ARRAY | Encoding::DELTA_BYTE_ARRAY)
            && values > MOST_DELTAS
        {
            return Err(refuse(format!("a page claims {values} values; at most {MOST_DELTAS} are decoded at once")));
        }
        let Some(window) = &mut self.window else { return Ok(()) };
        // The levels say where rows begin; they come first in a page.
        let levels = match page {
            Page::DataPage { rep_level_encoding: Encoding::RLE, buf, .. } => {
                buf.split_first_chunk::<4>().and_then(|(length, rest)| rest.get(..u32::from_le_bytes(*length) as usize))
            }
            Page::DataPageV2 { rep_levels_byte_len, buf, .. } => buf.get(..*rep_levels_byte_len as usize),
            _ => None,
        };
        let of_dictionary = matches!(page.encoding(), Encoding::RLE_DICTIONARY | Encoding::PLAIN_DICTIONARY);
        let length = if of_dictionary { self.longest.max(VALUE) } else { VALUE };
        let most = (EXPANDED / length).max(1);
        if window.read(levels.unwrap_or_default(), self.rep_bits, values, most) {
            return Ok(());
        }
        Err(refuse(format!(
            "{} rows hold more than {most} values of up to {length} bytes in one column",
            window.size()
        )))
    }
}

impl Iterator for Pages {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl PageReader for Pages {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        self.admit()?;
        let page = self.inner.get_next_page()?;
        if let Some(page) = &page {
            self.inspect(page)?;
        }
        Ok(page)
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        if self.at < self.end {
            self.header()?;
        }
        self.inner.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.admit()?;
        self.inner.skip_next_page()
    }

    fn at_record_boundary(&mut self) -> Result<bool> {
        self.inner.at_record_boundary()
    }
}
