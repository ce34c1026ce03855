//! The backward pass: scores are computed again, tile by tile (Dao, "FlashAttention-2", <https://arxiv.org/abs/2307.08691>, Algorithm 2). One
//! kernel has the gradient of the queries, one those of keys and values, so that no two cubes add to the same number.
//!
//! With `P` the weights, `O = P V` and a scale `a`: `∂V = Pᵀ ∂O`, `∂S = P ∘ (∂O Vᵀ − rowsum(∂O ∘ O))`, `∂Q = a ∂S K`, `∂K = a ∂Sᵀ Q`; with a
//! bound of the scores `∂S` is also multiplied by its derivative.

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

use super::plan::{KEY_TILE, TILE, VIEW};
use super::tile::*;

/// Copies the log-sum-exp of each query, and puts `rowsum(∂O ∘ O)` next to it.
#[cube(launch)]
pub(super) fn row_kernel<F: Float>(
    o: &[F],
    gradient: &[F],
    log_sums: &[f32],
    rows: &mut [f32],
    #[comptime] layout: Layout,
    #[define(F)] _element: ElemType,
) {
    let place = ABSOLUTE_POS;
    if place >= log_sums.len() {
        terminate!();
    }
    let tokens = log_sums.len() / comptime!(layout.query);
    let start = (place % tokens * comptime!(layout.query) + place / tokens) * comptime!(layout.dim);
    let mut sum = 0.0f32;
    for d in 0..comptime!(layout.dim) {
        sum += f32::cast_from(gradient[start + d]) * f32::cast_from(o[start + d]);
    }
    rows[place * 2] = log_sums[place];
    rows[place * 2 + 1] = sum;
}

/// Computes a weight and the gradient of its product from the products of a query with a key and of the result's gradient with a value.
#[cube]
fn differentiate(
    products: &Array<f32>,
    in_weights: &Array<f32>,
    row_numbers: &[f32],
    weights: &mut Shared<[f32]>,
    in_products: &mut Shared<[f32]>,
    token: usize,
    position: usize,
    rows: usize,
    key: usize,
    keys: usize,
    kv_head: usize,
    scoring: &Scoring,
    #[comptime] layout: Layout,
) {
    let group = comptime!(layout.group());
    let tokens = row_numbers.len() / comptime!(2 * layout.query);
    #[unroll]
    for i in 0..comptime!(OWN_ROWS) {
        let row = UNIT_POS as usize / comptime!(SIDE) + comptime!(i * SIDE);
        let mut log_sum = 0.0f32;
        let mut along = 0.0f32;
        if row < rows {
            let head = kv_head * group + row % group;
            let at = (head * tokens + token + row / group) * 2;
            log_sum = row_numbers[at];
            along = row_numbers[at + 1];
        }
        #[unroll]
        for j in 0..comptime!(OWN_KEYS) {
            let at_key = UNIT_POS as usize % comptime!(SIDE) + comptime!(j * SIDE);
            let own = comptime!(i * OWN_KEYS + j);
            let found = score(
                products[own],
                position + row / group,
                key + at_key,
                row < rows && at_key < keys,
                scoring,
                comptime!(layout.is_capped),
            );
            let mut weight = (found - log_sum).exp();
            let mut slope = scoring.scale;
            if comptime!(layout.is_capped) {
                let bent = found / scoring.cap;
                slope *= 1.0f32 - bent * bent;
            }
            let mut in_product = weight * (in_weights[own] - along) * slope;
            if found < comptime!(SEEN) {
                weight = 0.0f32;
                in_product = 0.0f32;
            }
            weights[row * comptime!(PITCH) + at_key] = weight;
            in_products[row * comptime!(PITCH) + at_key] = in_product;
        }
    }
}

/// Computes the gradient of a tile of queries.
#[cube(launch)]
pub(super) fn queries_kernel<F: Float>(
    q: &[F],
    k: &[F],
    v: &[F],
    gradient: &[F],
    row_numbers: &[f32],
    tiles: &[u32],
    in_q: &mut [F],
    scoring: Scoring,
    #[comptime] layout: Layout,
    #[define(F)] _element: ElemType,
) {
    let tile = CUBE_POS_X as usize * comptime!(TILE);
    let kv_head = CUBE_POS_Y as usize;
    let first = tiles[tile] as usize;
    let count = tiles[tile + 1] as usize;
    let position = tiles[tile + 2] as usize;
    let end = position + count;
    let keys = Keys {
        start: tiles[tile + 3] as usize,
        prefix: tiles[tile + 4] as usize,
        before: tiles[tile + 5] as usize,
        base: kv_head * comptime!(layout.dim),
        stride: comptime!(layout.kv * layout.dim).runtime(),
    };
    let group = comptime!(layout.group());
    let chunks = comptime!(layout.chunks());
    let rows = count * group;
    let mut key = first_key(position, &scoring);
    let mut wide = Shared::<[f32]>::new_slice(comptime!(ROWS * PITCH));
    let mut narrow = Shared::<[f32]>::new_slice(comptime!(KEYS * PITCH));
    let mut weights = Shared::<[f32]>::new_slice(comptime!(ROWS * PITCH));
    let mut in_products = Shared::<[f32]>::new_slice(comptime!(ROWS * PITCH));
    let mut sums = zeros(comptime!(chunks * OWN_ROWS * OWN_COLUMNS));

    while key < end {
        let mut products = zeros(comptime!(OWN_ROWS * OWN_KEYS));
        let mut in_weights = zeros(comptime!(OWN_ROWS * OWN_KEYS));
        #[unroll]
        for chunk in 0..chunks {
            load_queries::<F>(q, &mut wide, first, rows, kv_head, chunk, layout);
            load_keys::<F>(k, &mut narrow, key, end, &keys, chunk, layout);
            sync_cube();
            add_scores(&wide, &narrow, &mut products);
            sync_cube();
            load_queries::<F>(gradient, &mut wide, first, rows, kv_head, chunk, layout);
            load_keys::<F>(v, &mut narrow, key, end, &keys, chunk, layout);
            sync_cube();
            add_scores(&wide, &narrow, &mut in_weights);
            sync_cube();
        }
        differentiate(
            &products,
            &in_weights,
            row_numbers,
            &mut weights,
            &mut in_products,
            first,
            position,
            rows,
            key,
            comptime!(KEYS).runtime(),
            kv_head,
            &scoring,
            layout,
        );
        sync_cube();
        #[unroll]
        for chunk in 0..chunks {
            load_keys::<F>(k, &mut narrow, key, end, &keys, chunk, layout);
            sync_cube();
            add_mixed(&in_products, &narrow, &mut sums, chunk);
            sync_cube();
        }
        key += comptime!(KEYS);
    }

    let unit_row = UNIT_POS as usize / comptime!(SIDE);
    let unit_column = UNIT_POS as usize % comptime!(SIDE);
    #[unroll]
    for i in 0..comptime!(OWN_ROWS) {
        let row = unit_row + comptime!(i * SIDE);
        if row < rows {
            let head = kv_head * group + row % group;
            let begin = ((first + row / group) * comptime!(layout.query) + head) * comptime!(layout.dim);
            #[unroll]
            for chunk in 0..chunks {
                #[unroll]
                for j in 0..comptime!(OWN_COLUMNS) {
                    let d = unit_column + comptime!(chunk * CHUNK + j * SIDE);
                    if d < comptime!(layout.dim) {
                        in_q[begin + d] = F::cast_from(sums[comptime!((chunk * OWN_ROWS + i) * OWN_COLUMNS + j)]);
                    }
                }
            }
        }
    }
}

/// Computes the gradients of a tile of keys and of its values: a sum over all queries that see them.
#[cube(launch)]
pub(super) fn keys_kernel<F: Float>(
    q: &[F],
    k: &[F],
    v: &[F],
    gradient: &[F],
    row_numbers: &[f32],
    table: &[u32],
    in_k: &mut [F],
    in_v: &mut [F],
    scoring: Scoring,
    #[comptime] layout: Layout,
    #[define(F)] _element: ElemType,
) {
    let tile = CUBE_POS_X as usize * comptime!(KEY_TILE);
    let kv_head = CUBE_POS_Y as usize;
    let first = table[tile] as usize;
    let count = table[tile + 1] as usize;
    let key = table[tile + 2] as usize;
    let mut view = table[tile + 3] as usize;
    let views = table[tile + 4] as usize;
    let keys = Keys {
        start: first,
        prefix: 0usize.runtime(),
        before: 0usize.runtime(),
        base: kv_head * comptime!(layout.dim),
        stride: comptime!(layout.kv * layout.dim).runtime(),
    };
    let group = comptime!(layout.group());
    let chunks = comptime!(layout.chunks());
    let mut wide = Shared::<[f32]>::new_slice(comptime!(ROWS * PITCH));
    let mut narrow = Shared::<[f32]>::new_slice(comptime!(KEYS * PITCH));
    let mut weights = Shared::<[f32]>::new_slice(comptime!(ROWS * PITCH));
    let mut in_products = Shared::<[f32]>::new_slice(comptime!(ROWS * PITCH));
    let mut of_keys = zeros(comptime!(chunks * OWN_KEYS * OWN_COLUMNS));
    let mut of_values = zeros(comptime!(chunks * OWN_KEYS * OWN_COLUMNS));

    while view < views {
        let start = table[view] as usize;
        let length = table[view + 1] as usize;
        let offset = table[view + 2] as usize;
        // The positions of the queries that see one of the keys.
        let mut position = max(offset, key);
        let end = min(offset + length, key + count - 1 + scoring.window);
        while position < end {
            let token = start + position - offset;
            let rows = min(comptime!(layout.tokens()).runtime(), end - position) * group;
            let mut products = zeros(comptime!(OWN_ROWS * OWN_KEYS));
            let mut in_weights = zeros(comptime!(OWN_ROWS * OWN_KEYS));
            #[unroll]
            for chunk in 0..chunks {
                load_queries::<F>(q, &mut wide, token, rows, kv_head, chunk, layout);
                load_keys::<F>(k, &mut narrow, 0usize, count, &keys, chunk, layout);
                sync_cube();
                add_scores(&wide, &narrow, &mut products);
                sync_cube();
                load_queries::<F>(gradient, &mut wide, token, rows, kv_head, chunk, layout);
                load_keys::<F>(v, &mut narrow, 0usize, count, &keys, chunk, layout);
                sync_cube();
                add_scores(&wide, &narrow, &mut in_weights);
                sync_cube();
            }
            differentiate(
                &products,
                &in_weights,
                row_numbers,
                &mut weights,
                &mut in_products,
                token,
                position,
                rows,
                key,
                count,
                kv_head,
                &scoring,
                layout,
            );
            #[unroll]
            for chunk in 0..chunks {
                load_queries::<F>(gradient, &mut wide, token, rows, kv_head, chunk, layout);
                sync_cube();
                add_transposed(&weights, &wide, &mut of_values, chunk);
                sync_cube();
                load_queries::<F>(q, &mut wide, token, rows, kv_head, chunk, layout);
                sync_cube();
                add_transposed(&in_products, &wide, &mut of_keys, chunk);
                sync_cube();
            }
            position += comptime!(layout.tokens());
        }
        view += comptime!(VIEW);
    }

    let unit_row = UNIT_POS as usize / comptime!(SIDE);
    let unit_column = UNIT_POS as usize % comptime!(SIDE);
    #[unroll]
    for i in 0..comptime!(OWN_KEYS) {
        let row = unit_row + comptime!(i * SIDE);
        if row < count {
            let begin = ((first + row) * comptime!(layout.kv) + kv_head) * comptime!(layout.dim);
            #[unroll]
            for chunk in 0..chunks {
                #[unroll]
                for j in 0..comptime!(OWN_COLUMNS) {
                    let d = unit_column + comptime!(chunk * CHUNK + j * SIDE);
                    if d < comptime!(layout.dim) {
                        let at = comptime!((chunk * OWN_KEYS + i) * OWN_COLUMNS + j);
                        in_k[begin + d] = F::cast_from(of_keys[at]);
                        in_v[begin + d] = F::cast_from(of_values[at]);
                    }
                }
            }
        }
    }
}
