//! How the tokens of a batch are cut into tiles, one for each cube.

use std::cell::RefCell;

use burn_cubecl::CubeDevice;
use burn_cubecl::tensor::CubeTensor;

use super::tile::KEYS;
use crate::cube::launch::upload;
use crate::generation::Spans;
use crate::packing::{Packing, Segment};

/// Numbers that describe a tile of queries: its first token, its number of tokens, the position of the first in its text, the rows where the
/// keys of the segment and of its prefix begin, the number of the prefix's keys, and the slot of the keys in a cache.
pub(super) const TILE: usize = 7;

/// Numbers that describe a tile of keys: its first token, its number of tokens, the position of the first in its text, and where the
/// description of the first queries that see it begins and that of the last ends.
pub(super) const KEY_TILE: usize = 5;

/// Numbers that describe queries which see a tile of keys: the first token, the number of tokens, and the position of the first in its text.
pub(super) const VIEW: usize = 3;

/// A batch whose tokens attend to each other, or to texts in a cache.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Batch {
    Packed(Packing),
    Cached(Spans),
}

/// The tiles of a batch, on its device.
#[derive(Clone)]
pub(super) struct Plan {
    pub(super) queries: CubeTensor,
    pub(super) query_tiles: usize,
    /// The tiles, then the queries that see them; nothing for a cache.
    pub(super) keys: CubeTensor,
    pub(super) key_tiles: usize,
}

thread_local! {
    /// The latest plan: all layers of a model, forward and backward, share it, so that it is sent to the device once.
    static LATEST: RefCell<Option<(Batch, usize, CubeDevice, Plan)>> = const { RefCell::new(None) };
}

/// Returns the tiles of a batch, with at most `length` tokens in a tile of queries, on the device of a tensor.
pub(super) fn plan(batch: &Batch, length: usize, like: &CubeTensor) -> Plan {
    LATEST.with_borrow_mut(|latest| match latest {
        Some((of, of_length, on, plan)) if of == batch && *of_length == length && *on == like.device => plan.clone(),
        _ => {
            let plan = new_plan(batch, length, like);
            *latest = Some((batch.clone(), length, like.device.clone(), plan.clone()));
            plan
        }
    })
}

fn new_plan(batch: &Batch, length: usize, like: &CubeTensor) -> Plan {
    let (queries, keys, key_tiles) = match batch {
        Batch::Packed(packing) => (tiles_of_queries(packing, length), tiles_of_keys(packing), key_tiles(packing)),
        Batch::Cached(spans) => (tiles_of_spans(spans, length), vec![0], 0),
    };
    Plan { query_tiles: queries.len() / TILE, queries: upload(like, queries), key_tiles, keys: upload(like, keys) }
}

/// Cuts tokens: the first of each part, and their number.
fn parts(start: usize, len: usize, length: usize) -> impl Iterator<Item = [usize; 2]> {
    (start..start + len).step_by(length).map(move |first| [first, length.min(start + len - first)])
}

fn parts_of(segment: &Segment, length: usize) -> impl Iterator<Item = [usize; 2]> {
    parts(segment.start, segment.len, length)
}

fn narrow(numbers: impl Iterator<Item = usize>) -> Vec<u32> {
    numbers.map(|number| number as u32).collect()
}

fn tiles_of_queries(packing: &Packing, length: usize) -> Vec<u32> {
    let tiles = packing.segments().iter().flat_map(|segment| {
        let (start, prefix) = (segment.start, packing.prefix(segment));
        let before = prefix.len();
        let tile =
            move |[first, count]: [usize; 2]| [first, count, before + first - start, start, prefix.start, before, 0];
        parts_of(segment, length).map(tile)
    });
    narrow(tiles.flatten())
}

fn tiles_of_spans(spans: &Spans, length: usize) -> Vec<u32> {
    let mut token = 0;
    let tiles = spans.spans().iter().flat_map(|span| {
        let (start, position, slot) = (token, span.start, span.slot);
        token += span.len;
        let tile = move |[first, count]: [usize; 2]| [first, count, position + first - start, 0, 0, 0, slot];
        parts(start, span.len, length).map(tile)
    });
    narrow(tiles.flatten())
}

fn key_tiles(packing: &Packing) -> usize {
    packing.segments().iter().map(|segment| segment.len.div_ceil(KEYS)).sum()
}

fn tiles_of_keys(packing: &Packing) -> Vec<u32> {
    let segments = packing.segments();
    let mut views: Vec<Vec<[usize; VIEW]>> = segments.iter().map(|_| vec![]).collect();
    for (i, segment) in segments.iter().enumerate() {
        let view = [segment.start, segment.len, packing.prefix(segment).len()];
        views[i].push(view);
        if let Some(prefix) = segment.prefix {
            views[prefix].push(view);
        }
    }
    let mut tiles = vec![];
    let mut view = KEY_TILE * key_tiles(packing);
    for (segment, views) in segments.iter().zip(&views) {
        let (before, end) = (packing.prefix(segment).len(), view + VIEW * views.len());
        let tile = |[first, count]: [usize; 2]| [first, count, before + first - segment.start, view, end];
        tiles.extend(parts_of(segment, KEYS).map(tile));
        view = end;
    }
    narrow(tiles.into_iter().flatten().chain(views.into_iter().flatten().flatten()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generation::Span;

    fn packing() -> Packing {
        let mut packing = Packing::builder();
        let prompt = packing.push(3, None);
        packing.push(2, Some(prompt));
        packing.push(KEYS + 1, Some(prompt));
        packing.build()
    }

    #[test]
    fn tiles_of_queries_end_with_their_segments() {
        let expected = [[0, 3, 0, 0, 0, 0, 0], [3, 2, 3, 3, 0, 3, 0], [5, 32, 3, 5, 0, 3, 0], [37, 1, 35, 5, 0, 3, 0]];
        assert_eq!(tiles_of_queries(&packing(), KEYS), expected.as_flattened());
    }

    #[test]
    fn the_keys_of_a_prefix_are_seen_by_all_that_continue_it() {
        let table = tiles_of_keys(&packing());
        let (tiles, views) = table.split_at(4 * KEY_TILE);
        let expected = [[0, 3, 0, 20, 29], [3, 2, 3, 29, 32], [5, 32, 3, 32, 35], [37, 1, 35, 32, 35]];
        assert_eq!(tiles, expected.as_flattened());
        let expected = [[0, 3, 0], [3, 2, 3], [5, 33, 3], [3, 2, 3], [5, 33, 3]];
        assert_eq!(views, expected.as_flattened());
    }

    #[test]
    fn new_tokens_of_texts_in_a_cache_keep_their_positions() {
        let spans = Spans::new(vec![Span { slot: 4, start: 7, len: 3 }, Span { slot: 1, start: 0, len: 1 }]);
        let expected = [[0, 2, 7, 0, 0, 0, 4], [2, 1, 9, 0, 0, 0, 4], [3, 1, 0, 0, 0, 0, 1]];
        assert_eq!(tiles_of_spans(&spans, 2), expected.as_flattened());
    }
}
