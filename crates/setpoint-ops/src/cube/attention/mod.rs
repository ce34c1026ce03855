//! Attention over the segments of a batch or over texts in a cache, in one launch whatever their number, without the matrix of scores in
//! memory.

mod backward;
mod forward;
mod plan;
mod tile;

use burn::backend::TensorMetadata;
use burn::tensor::DType;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;

use super::choice::Needs;
use super::launch::{CUBES, element, fresh, in_order, units};
use crate::generation::Spans;
use crate::heads::Heads;
use crate::packing::Packing;
use plan::{Batch, plan};
use tile::{KEYS, Layout, PITCH, ROWS, ScoringLaunch, StridesLaunch, UNITS};

/// What the kernels need: the backward pass has more buffers and larger tiles.
pub(super) const NEEDS: Needs =
    Needs { units: UNITS, shared: (3 * ROWS + KEYS) * PITCH * size_of::<f32>(), buffers: 8 };

/// Elements of the largest head.
const LARGEST: usize = 256;

/// Returns why the kernels do not take heads and a number of tokens in a number of segments, if so.
pub(super) fn problem(heads: Heads, tokens: usize, segments: usize) -> Option<String> {
    let Heads { query, kv, dim, .. } = heads;
    let group = query / kv;
    if dim > LARGEST {
        return Some(format!("it takes heads of at most {LARGEST} elements, and finds {dim}"));
    }
    if group > ROWS || kv > CUBES {
        return Some(format!("it takes at most {ROWS} query heads for a key head, and finds {query} for {kv}"));
    }
    // A segment has less than one tile more than its tokens fill.
    let tiles = tokens / (ROWS / group).min(KEYS) + segments;
    (tiles > CUBES).then(|| format!("{tokens} tokens in {segments} segments have more tiles than fit into a grid"))
}

fn scoring(heads: Heads, longest: usize) -> ScoringLaunch {
    // A window as long as the longest text hides nothing.
    let window = heads.window.map_or(longest, |window| window.min(longest));
    ScoringLaunch::new(heads.scale as f32, heads.soft_cap.unwrap_or(1.0) as f32, window)
}

fn grid(tiles: usize, layout: Layout) -> (CubeCount, CubeDim) {
    (CubeCount::new_2d(tiles as u32, layout.kv as u32), CubeDim::new_1d(UNITS as u32))
}

/// Answers the mixed values and the log-sum-exp of each query's scores `[h, t]`.
pub(super) fn forward(
    q: CubeTensor,
    k: CubeTensor,
    v: CubeTensor,
    heads: Heads,
    packing: &Packing,
) -> (CubeTensor, CubeTensor) {
    let strides = StridesLaunch::new(0, heads.dim, heads.kv * heads.dim);
    mix([q, k, v], heads, packing.tokens(), &Batch::Packed(packing.clone()), strides)
}

/// Answers the mixed values of new tokens of texts whose keys and values are in a cache.
pub(super) fn cached(q: CubeTensor, keys: CubeTensor, values: CubeTensor, heads: Heads, spans: &Spans) -> CubeTensor {
    let [_, g, capacity, n] = keys.shape().dims();
    let strides = StridesLaunch::new(g * capacity * n, capacity * n, n);
    mix([q, keys, values], heads, spans.longest(), &Batch::Cached(spans.clone()), strides).0
}

fn mix(
    inputs: [CubeTensor; 3],
    heads: Heads,
    longest: usize,
    batch: &Batch,
    strides: StridesLaunch,
) -> (CubeTensor, CubeTensor) {
    let [q, k, v] = inputs.map(in_order);
    let (client, layout, element) = (q.client.clone(), Layout::new(heads), element(&q));
    let plan = plan(batch, layout.tokens(), &q);
    let shape: [usize; 2] = q.shape().dims();
    let (o, log_sums) = (fresh(&q, shape, q.dtype), fresh(&q, [heads.query, shape[0]], DType::F32));
    let (count, dim) = grid(plan.query_tiles, layout);
    forward::forward_kernel::launch(
        &client,
        count,
        dim,
        q.into_buffer_arg(),
        k.into_buffer_arg(),
        v.into_buffer_arg(),
        plan.queries.into_buffer_arg(),
        o.clone().into_buffer_arg(),
        log_sums.clone().into_buffer_arg(),
        strides,
        scoring(heads, longest),
        layout,
        element,
    );
    (o, log_sums)
}

/// Answers the gradients of `q`, `k` and `v`; `inputs` are these, the result and the log-sum-exp.
pub(super) fn backward(
    inputs: [CubeTensor; 5],
    gradient: CubeTensor,
    heads: Heads,
    packing: &Packing,
) -> [CubeTensor; 3] {
    let [q, k, v, o, log_sums] = inputs.map(in_order);
    let gradient = in_order(gradient);
    let (client, layout, element) = (q.client.clone(), Layout::new(heads), element(&q));
    let plan = plan(&Batch::Packed(packing.clone()), layout.tokens(), &q);
    let [tokens, width]: [usize; 2] = q.shape().dims();
    let rows = fresh(&q, [heads.query, tokens, 2], DType::F32);
    let (count, dim) = units(&client, heads.query * tokens);
    backward::row_kernel::launch(
        &client,
        count,
        dim,
        o.into_buffer_arg(),
        gradient.clone().into_buffer_arg(),
        log_sums.into_buffer_arg(),
        rows.clone().into_buffer_arg(),
        layout,
        element,
    );
    let in_q = fresh(&q, [tokens, width], q.dtype);
    let (count, dim) = grid(plan.query_tiles, layout);
    backward::queries_kernel::launch(
        &client,
        count,
        dim,
        q.clone().into_buffer_arg(),
        k.clone().into_buffer_arg(),
        v.clone().into_buffer_arg(),
        gradient.clone().into_buffer_arg(),
        rows.clone().into_buffer_arg(),
        plan.queries.into_buffer_arg(),
        in_q.clone().into_buffer_arg(),
        scoring(heads, tokens),
        layout,
        element,
    );
    let [in_k, in_v] = [(); 2].map(|()| fresh(&k, [tokens, heads.kv * heads.dim], k.dtype));
    let (count, dim) = grid(plan.key_tiles, layout);
    backward::keys_kernel::launch(
        &client,
        count,
        dim,
        q.into_buffer_arg(),
        k.into_buffer_arg(),
        v.into_buffer_arg(),
        gradient.into_buffer_arg(),
        rows.into_buffer_arg(),
        plan.keys.into_buffer_arg(),
        in_k.clone().into_buffer_arg(),
        in_v.clone().into_buffer_arg(),
        scoring(heads, tokens),
        layout,
        element,
    );
    [in_q, in_k, in_v]
}
