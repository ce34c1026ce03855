//! Tiles of queries and keys in shared memory, and products of them.
//!
//! The rows of a tile of queries are pairs of a token and a head: all heads that read the same keys. Columns are taken in chunks, so that the
//! memory does not grow with the size of a head. The units of a cube form a square; each owns some elements of a product, in registers.

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

pub(super) use crate::cube::launch::zeros;
use crate::heads::Heads;

/// Rows of a tile of queries.
pub(super) const ROWS: usize = 64;

/// Keys in a tile.
pub(super) const KEYS: usize = 32;

/// Columns of a tile.
pub(super) const CHUNK: usize = 32;

/// The distance of two rows in shared memory: neighbouring rows begin in different banks.
pub(super) const PITCH: usize = CHUNK + 1;

/// The side of the square of units.
pub(super) const SIDE: usize = 16;

/// Units of a cube.
pub(super) const UNITS: usize = SIDE * SIDE;

/// Rows of a product that a unit owns: every [`SIDE`]th.
pub(super) const OWN_ROWS: usize = ROWS / SIDE;

/// Keys of a product that a unit owns.
pub(super) const OWN_KEYS: usize = KEYS / SIDE;

/// Columns of a chunk that a unit owns.
pub(super) const OWN_COLUMNS: usize = CHUNK / SIDE;

/// The score of a key that a query does not see; finite, so that no infinities meet.
pub(super) const HIDDEN: f32 = -1e30;

/// Scores below it are those of hidden keys.
pub(super) const SEEN: f32 = -1e29;

/// The heads as a kernel is compiled for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Layout {
    pub(super) query: usize,
    pub(super) kv: usize,
    pub(super) dim: usize,
    pub(super) is_capped: bool,
}

impl Layout {
    pub(super) fn new(heads: Heads) -> Self {
        Self { query: heads.query, kv: heads.kv, dim: heads.dim, is_capped: heads.soft_cap.is_some() }
    }

    /// Returns the query heads that read the same keys.
    pub(super) fn group(self) -> usize {
        self.query / self.kv
    }

    /// Returns the chunks of a head's columns.
    pub(super) fn chunks(self) -> usize {
        self.dim.div_ceil(CHUNK)
    }

    /// Returns the tokens of a full tile of queries.
    pub(super) fn tokens(self) -> usize {
        ROWS / self.group()
    }
}

/// The numbers by which scores become weights.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
#[expand(derive(Clone, Copy))]
pub(super) struct Scoring {
    pub(super) scale: f32,
    /// The bound of scores, if they have one.
    pub(super) cap: f32,
    /// The tokens that a token sees at most.
    pub(super) window: usize,
}

/// Copies a chunk of the columns of a tile of queries, in f32; rows and columns that do not exist are 0.
#[cube]
pub(super) fn load_queries<F: Float>(
    x: &[F],
    tile: &mut Shared<[f32]>,
    token: usize,
    rows: usize,
    kv_head: usize,
    #[comptime] chunk: usize,
    #[comptime] layout: Layout,
) {
    let group = comptime!(layout.group());
    let mut i = UNIT_POS as usize;
    while i < comptime!(ROWS * CHUNK) {
        let row = i / comptime!(CHUNK);
        let column = i % comptime!(CHUNK);
        let d = column + comptime!(chunk * CHUNK);
        let mut value = 0.0f32;
        if row < rows && d < comptime!(layout.dim) {
            let head = kv_head * group + row % group;
            let at = ((token + row / group) * comptime!(layout.query) + head) * comptime!(layout.dim) + d;
            value = f32::cast_from(x[at]);
        }
        tile[row * comptime!(PITCH) + column] = value;
        i += comptime!(UNITS);
    }
}

/// Where the keys of a text are, and its values.
#[derive(CubeType, Clone, Copy)]
#[expand(derive(Clone, Copy))]
pub(super) struct Keys {
    /// The row of the first key of the text's own part.
    pub(super) start: usize,
    /// The row of the first key of the prefix.
    pub(super) prefix: usize,
    /// The number of the prefix's keys, which come first.
    pub(super) before: usize,
    /// The element with which row 0 begins.
    pub(super) base: usize,
    /// The elements from one row to the next.
    pub(super) stride: usize,
}

/// The distances of keys in memory: packed by token, or in a cache with slots.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
#[expand(derive(Clone, Copy))]
pub(super) struct Strides {
    pub(super) slot: usize,
    pub(super) head: usize,
    pub(super) token: usize,
}

/// Copies a chunk of the columns of the keys from `first` to `end`, or of values, in f32; what does not exist is 0.
#[cube]
pub(super) fn load_keys<F: Float>(
    x: &[F],
    tile: &mut Shared<[f32]>,
    first: usize,
    end: usize,
    keys: &Keys,
    #[comptime] chunk: usize,
    #[comptime] layout: Layout,
) {
    let mut i = UNIT_POS as usize;
    while i < comptime!(KEYS * CHUNK) {
        let row = i / comptime!(CHUNK);
        let column = i % comptime!(CHUNK);
        let d = column + comptime!(chunk * CHUNK);
        let key = first + row;
        let mut value = 0.0f32;
        if key < end && d < comptime!(layout.dim) {
            let mut place = keys.prefix + key;
            if key >= keys.before {
                place = keys.start + key - keys.before;
            }
            value = f32::cast_from(x[keys.base + place * keys.stride + d]);
        }
        tile[row * comptime!(PITCH) + column] = value;
        i += comptime!(UNITS);
    }
}

/// Adds the products of a chunk of queries and of keys to the elements that a unit owns, row by row.
#[cube]
pub(super) fn add_scores(queries: &Shared<[f32]>, keys: &Shared<[f32]>, sums: &mut Array<f32>) {
    let row = UNIT_POS as usize / comptime!(SIDE);
    let key = UNIT_POS as usize % comptime!(SIDE);
    for d in 0..comptime!(CHUNK) {
        #[unroll]
        for i in 0..comptime!(OWN_ROWS) {
            let query = queries[(row + comptime!(i * SIDE)) * comptime!(PITCH) + d];
            #[unroll]
            for j in 0..comptime!(OWN_KEYS) {
                let at = comptime!(i * OWN_KEYS + j);
                sums[at] += query * keys[(key + comptime!(j * SIDE)) * comptime!(PITCH) + d];
            }
        }
    }
}

/// Adds `weights · x` to the elements of a chunk that a unit owns: `[rows, keys] · [keys, columns]`.
#[cube]
pub(super) fn add_mixed(weights: &Shared<[f32]>, x: &Shared<[f32]>, sums: &mut Array<f32>, #[comptime] chunk: usize) {
    let row = UNIT_POS as usize / comptime!(SIDE);
    let column = UNIT_POS as usize % comptime!(SIDE);
    for key in 0..comptime!(KEYS) {
        #[unroll]
        for i in 0..comptime!(OWN_ROWS) {
            let weight = weights[(row + comptime!(i * SIDE)) * comptime!(PITCH) + key];
            #[unroll]
            for j in 0..comptime!(OWN_COLUMNS) {
                let at = comptime!((chunk * OWN_ROWS + i) * OWN_COLUMNS + j);
                sums[at] += weight * x[key * comptime!(PITCH) + column + comptime!(j * SIDE)];
            }
        }
    }
}

/// Adds `weightsᵀ · x` to the elements of a chunk that a unit owns: `[keys, rows] · [rows, columns]`.
#[cube]
pub(super) fn add_transposed(
    weights: &Shared<[f32]>,
    x: &Shared<[f32]>,
    sums: &mut Array<f32>,
    #[comptime] chunk: usize,
) {
    let key = UNIT_POS as usize / comptime!(SIDE);
    let column = UNIT_POS as usize % comptime!(SIDE);
    for row in 0..comptime!(ROWS) {
        #[unroll]
        for i in 0..comptime!(OWN_KEYS) {
            let weight = weights[row * comptime!(PITCH) + key + comptime!(i * SIDE)];
            #[unroll]
            for j in 0..comptime!(OWN_COLUMNS) {
                let at = comptime!((chunk * OWN_KEYS + i) * OWN_COLUMNS + j);
                sums[at] += weight * x[row * comptime!(PITCH) + column + comptime!(j * SIDE)];
            }
        }
    }
}

/// Returns the first key that is read for a query at `position`: the window's first, or one before it.
#[cube]
pub(super) fn first_key(position: usize, scoring: &Scoring) -> usize {
    let mut key = 0usize;
    if position + 1 > scoring.window {
        key = (position + 1 - scoring.window) / comptime!(KEYS) * comptime!(KEYS);
    }
    key
}

/// Returns the score of a product, scaled and bounded, or [`HIDDEN`] if the query at `position` does not see the key.
#[cube]
pub(super) fn score(
    product: f32,
    position: usize,
    key: usize,
    exists: bool,
    scoring: &Scoring,
    #[comptime] is_capped: bool,
) -> f32 {
    let mut found = product * scoring.scale;
    if comptime!(is_capped) {
        found = (found / scoring.cap).tanh() * scoring.cap;
    }
    if !exists || key > position || key + scoring.window <= position {
        found = comptime!(HIDDEN).runtime();
    }
    found
}
