//! The forward pass: a tile of queries in each cube, and an online softmax over its keys (Dao et al., "FlashAttention",
//! <https://arxiv.org/abs/2205.14135>, Algorithm 1).

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

use super::plan::TILE;
use super::tile::*;

/// Units that share a row of scores.
const SHARERS: usize = UNITS / ROWS;

/// Keys of a row for each of them.
const SHARE: usize = KEYS / SHARERS;

/// Computes `softmax(a Q Kᵀ) V` and the log-sum-exp of each query's scores.
#[cube(launch)]
pub(super) fn forward_kernel<F: Float>(
    q: &[F],
    k: &[F],
    v: &[F],
    tiles: &[u32],
    o: &mut [F],
    log_sums: &mut [f32],
    strides: Strides,
    scoring: Scoring,
    #[comptime] layout: Layout,
    #[define(F)] _element: ElemType,
) {
    let tile = CUBE_POS_X as usize * comptime!(TILE);
    let kv_head = CUBE_POS_Y as usize;
    let first = tiles[tile] as usize;
    let count = tiles[tile + 1] as usize;
    // The position of the first query in its text, and the end of the keys that the last one sees.
    let position = tiles[tile + 2] as usize;
    let end = position + count;
    let keys = Keys {
        start: tiles[tile + 3] as usize,
        prefix: tiles[tile + 4] as usize,
        before: tiles[tile + 5] as usize,
        base: tiles[tile + 6] as usize * strides.slot + kv_head * strides.head,
        stride: strides.token,
    };
    let group = comptime!(layout.group());
    let chunks = comptime!(layout.chunks());
    let rows = count * group;
    let mut key = first_key(position, &scoring);

    let unit = UNIT_POS as usize;
    let unit_row = unit / comptime!(SIDE);
    let unit_column = unit % comptime!(SIDE);
    let mut wide = Shared::<[f32]>::new_slice(comptime!(ROWS * PITCH));
    let mut narrow = Shared::<[f32]>::new_slice(comptime!(KEYS * PITCH));
    let mut weights = Shared::<[f32]>::new_slice(comptime!(ROWS * PITCH));
    let mut factors = Shared::<[f32]>::new_slice(comptime!(ROWS));
    let mut parts = Shared::<[f32]>::new_slice(comptime!(UNITS));
    let mut mixed = zeros(comptime!(chunks * OWN_ROWS * OWN_COLUMNS));
    // The row that the unit follows, its highest score so far and the sum of its weights.
    let row = unit / comptime!(SHARERS);
    let share = unit % comptime!(SHARERS);
    let mut highest = comptime!(HIDDEN).runtime();
    let mut sum = 0.0f32;

    while key < end {
        let mut products = zeros(comptime!(OWN_ROWS * OWN_KEYS));
        #[unroll]
        for chunk in 0..chunks {
            load_queries::<F>(q, &mut wide, first, rows, kv_head, chunk, layout);
            load_keys::<F>(k, &mut narrow, key, end, &keys, chunk, layout);
            sync_cube();
            add_scores(&wide, &narrow, &mut products);
            sync_cube();
        }
        #[unroll]
        for i in 0..comptime!(OWN_ROWS) {
            #[unroll]
            for j in 0..comptime!(OWN_KEYS) {
                let at_row = unit_row + comptime!(i * SIDE);
                let at_key = unit_column + comptime!(j * SIDE);
                weights[at_row * comptime!(PITCH) + at_key] = score(
                    products[comptime!(i * OWN_KEYS + j)],
                    position + at_row / group,
                    key + at_key,
                    at_row < rows,
                    &scoring,
                    comptime!(layout.is_capped),
                );
            }
        }
        sync_cube();
        let mut top = highest;
        for column in 0..comptime!(KEYS) {
            let value = weights[row * comptime!(PITCH) + column];
            if value > top {
                top = value;
            }
        }
        sync_cube();
        let mut part = 0.0f32;
        for i in 0..comptime!(SHARE) {
            let at = row * comptime!(PITCH) + share * comptime!(SHARE) + i;
            let value = weights[at];
            let mut weight = (value - top).exp();
            if value < comptime!(SEEN) {
                weight = 0.0f32;
            }
            weights[at] = weight;
            part += weight;
        }
        let factor = (highest - top).exp();
        parts[unit] = part;
        if share == 0 {
            factors[row] = factor;
        }
        sync_cube();
        sum *= factor;
        #[unroll]
        for i in 0..comptime!(SHARERS) {
            sum += parts[row * comptime!(SHARERS) + i];
        }
        highest = top;
        #[unroll]
        for i in 0..comptime!(OWN_ROWS) {
            let factor = factors[unit_row + comptime!(i * SIDE)];
            #[unroll]
            for chunk in 0..chunks {
                #[unroll]
                for j in 0..comptime!(OWN_COLUMNS) {
                    let at = comptime!((chunk * OWN_ROWS + i) * OWN_COLUMNS + j);
                    mixed[at] *= factor;
                }
            }
        }
        #[unroll]
        for chunk in 0..chunks {
            load_keys::<F>(v, &mut narrow, key, end, &keys, chunk, layout);
            sync_cube();
            add_mixed(&weights, &narrow, &mut mixed, chunk);
            sync_cube();
        }
        key += comptime!(KEYS);
    }

    if share == 0 {
        factors[row] = 1.0f32 / sum;
        if row < rows {
            let tokens = log_sums.len() / comptime!(layout.query);
            let head = kv_head * group + row % group;
            log_sums[head * tokens + first + row / group] = highest + sum.ln();
        }
    }
    sync_cube();
    #[unroll]
    for i in 0..comptime!(OWN_ROWS) {
        let at_row = unit_row + comptime!(i * SIDE);
        if at_row < rows {
            let head = kv_head * group + at_row % group;
            let begin = ((first + at_row / group) * comptime!(layout.query) + head) * comptime!(layout.dim);
            #[unroll]
            for chunk in 0..chunks {
                #[unroll]
                for j in 0..comptime!(OWN_COLUMNS) {
                    let d = unit_column + comptime!(chunk * CHUNK + j * SIDE);
                    let at = comptime!((chunk * OWN_ROWS + i) * OWN_COLUMNS + j);
                    if d < comptime!(layout.dim) {
                        o[begin + d] = F::cast_from(mixed[at] * factors[at_row]);
                    }
                }
            }
        }
    }
}
