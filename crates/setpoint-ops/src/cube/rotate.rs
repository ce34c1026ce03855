//! Rotary position embedding, a pair of elements in each unit.

use burn::backend::TensorMetadata;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;

use super::launch::{element, fresh, in_order, units};

/// `(a, b) -> (a cos − b sin, b cos + a sin)`; `sign` is that of the angle.
#[cube(launch)]
fn rotate_kernel<F: Float>(
    x: &[F],
    cos: &[f32],
    sin: &[f32],
    y: &mut [F],
    pairs: usize,
    half: usize,
    sign: f32,
    #[define(F)] _element: ElemType,
) {
    let place = ABSOLUTE_POS;
    if place >= y.len() / 2 {
        terminate!();
    }
    let token = place / pairs;
    let pair = place % pairs;
    let i = pair % half;
    let first = token * pairs * 2 + pair / half * half * 2 + i;
    let a = f32::cast_from(x[first]);
    let b = f32::cast_from(x[first + half]);
    let c = cos[token * half + i];
    let s = sin[token * half + i] * sign;
    y[first] = F::cast_from(a * c - b * s);
    y[first + half] = F::cast_from(b * c + a * s);
}

/// Turns the pairs of each head by the token's angle, or `back` by it.
pub(super) fn rotate(x: CubeTensor, cos: CubeTensor, sin: CubeTensor, back: bool) -> CubeTensor {
    let [x, cos, sin] = [x, cos, sin].map(in_order);
    let (client, element) = (x.client.clone(), element(&x));
    let [tokens, width] = x.shape().dims();
    let [_, half] = cos.shape().dims();
    let y = fresh(&x, [tokens, width], x.dtype);
    let (count, dim) = units(&client, tokens * width / 2);
    rotate_kernel::launch(
        &client,
        count,
        dim,
        x.into_buffer_arg(),
        cos.into_buffer_arg(),
        sin.into_buffer_arg(),
        y.clone().into_buffer_arg(),
        width / 2,
        half,
        if back { -1.0 } else { 1.0 },
        element,
    );
    y
}
