//! Operations on one element, or one pair, at a time.

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

use super::host::{Fresh, Values};
use super::simd::{exp, sigmoid, vectorised};

/// Elements that a thread takes at a time.
pub(super) const PART: usize = 1 << 14;

/// Turns the pairs of each head by the token's angle, or back by it.
pub(super) fn rotate(x: FlexTensor, cos: FlexTensor, sin: FlexTensor, back: bool) -> FlexTensor {
    let (t, width, half) = (x.shape()[0], x.shape()[1], cos.shape()[1]);
    let (x, cos, sin) = (Values::of(x), Values::of(cos), Values::of(sin));
    let (x, cos, sin) = (x.f32(), cos.f32(), sin.f32());
    assert_eq!(width % (2 * half), 0, "whole heads of twice {half} elements in rows of {width}");
    let sign = if back { -1.0 } else { 1.0 };
    let mut y = Fresh::new(t * width);
    let rows = (PART / width).max(1);
    y.slots().par_chunks_mut(rows * width).enumerate().for_each(|(part, y)| {
        vectorised(
            #[inline(always)]
            || {
                for (i, y) in y.chunks_exact_mut(width).enumerate() {
                    let row = part * rows + i;
                    let x = &x[row * width..(row + 1) * width];
                    let (cos, sin) = (&cos[row * half..(row + 1) * half], &sin[row * half..(row + 1) * half]);
                    for (x, y) in x.chunks_exact(2 * half).zip(y.chunks_exact_mut(2 * half)) {
                        let (a, b) = x.split_at(half);
                        let (first, second) = y.split_at_mut(half);
                        for i in 0..half {
                            let sin = sign * sin[i];
                            first[i].write(a[i] * cos[i] - b[i] * sin);
                            second[i].write(b[i] * cos[i] + a[i] * sin);
                        }
                    }
                }
            },
        );
    });
    // SAFETY: the parts are all rows, and a row is whole heads.
    unsafe { y.tensor([t, width]) }
}

/// `silu(gate) · up`.
pub(super) fn swiglu(gate: FlexTensor, up: FlexTensor) -> FlexTensor {
    gated(
        gate,
        up,
        #[inline(always)]
        |g| g * sigmoid(g),
    )
}

/// The gradients of `gate` and `up`.
pub(super) fn swiglu_backward(gate: FlexTensor, up: FlexTensor, gradient: FlexTensor) -> (FlexTensor, FlexTensor) {
    gated_backward(
        [gate, up, gradient],
        #[inline(always)]
        |g| {
            let s = sigmoid(g);
            (g * s, s * (1.0 + g * (1.0 - s)))
        },
    )
}

/// `2·√(2/π)`.
const TWICE_ROOT: f32 = 2.0 * std::f32::consts::FRAC_2_SQRT_PI * std::f32::consts::FRAC_1_SQRT_2;

/// The weight of the cube.
const CUBE: f32 = 0.044_715;

/// `s = (1 + tanh z) / 2 = σ(2z)` and `1 − s`, with `z = √(2/π) · (g + 0.044715 g³)`; in this form no digits are lost where one of the two is
/// small.
#[inline(always)]
fn gelu_shares(g: f32) -> (f32, f32) {
    let e = exp(-(TWICE_ROOT * (g * (1.0 + CUBE * (g * g)))));
    let s = 1.0 / (1.0 + e);
    (s, e * s)
}

/// `gelu(gate) · up`, by the approximation with tanh.
pub(super) fn geglu(gate: FlexTensor, up: FlexTensor) -> FlexTensor {
    gated(
        gate,
        up,
        #[inline(always)]
        |g| g * gelu_shares(g).0,
    )
}

/// The gradients of `gate` and `up`. With `s = σ(2z)`, `gelu' = s + g · s · (1 − s) · 2z'`.
pub(super) fn geglu_backward(gate: FlexTensor, up: FlexTensor, gradient: FlexTensor) -> (FlexTensor, FlexTensor) {
    gated_backward(
        [gate, up, gradient],
        #[inline(always)]
        |g| {
            let (s, rest) = gelu_shares(g);
            (g * s, s + g * (s * rest) * (TWICE_ROOT * (1.0 + 3.0 * CUBE * (g * g))))
        },
    )
}

/// `activation(gate) · up`.
#[inline(always)]
fn gated(gate: FlexTensor, up: FlexTensor, activation: impl Fn(f32) -> f32 + Sync) -> FlexTensor {
    let shape = [gate.shape()[0], gate.shape()[1]];
    let (gate, up) = (Values::of(gate), Values::of(up));
    assert_eq!(gate.f32().len(), up.f32().len(), "as many gates as values");
    let mut y = Fresh::new(gate.f32().len());
    let parts = gate.f32().par_chunks(PART).zip(up.f32().par_chunks(PART));
    y.slots().par_chunks_mut(PART).zip(parts).for_each(|(y, (gate, up))| {
        vectorised(
            #[inline(always)]
            || {
                for ((y, &g), u) in y.iter_mut().zip(gate).zip(up) {
                    y.write(activation(g) * u);
                }
            },
        );
    });
    // SAFETY: every element has a gate and a value.
    unsafe { y.tensor(shape) }
}

/// The gradients of `gate` and `up`. `activation` answers its value and its slope.
#[inline(always)]
fn gated_backward(
    [gate, up, gradient]: [FlexTensor; 3],
    activation: impl Fn(f32) -> (f32, f32) + Sync,
) -> (FlexTensor, FlexTensor) {
    let shape = [gate.shape()[0], gate.shape()[1]];
    let (gate, up, gradient) = (Values::of(gate), Values::of(up), Values::of(gradient));
    let len = gradient.f32().len();
    assert_eq!([gate.f32().len(), up.f32().len()], [len; 2], "as many gates and values as gradients");
    let (mut of_gate, mut of_up) = (Fresh::new(len), Fresh::new(len));
    let inputs = gate.f32().par_chunks(PART).zip(up.f32().par_chunks(PART)).zip(gradient.f32().par_chunks(PART));
    of_gate.slots().par_chunks_mut(PART).zip(of_up.slots().par_chunks_mut(PART)).zip(inputs).for_each(
        |((of_gate, of_up), ((gate, up), gradient))| {
            vectorised(
                #[inline(always)]
                || {
                    for i in 0..gradient.len() {
                        let (value, slope) = activation(gate[i]);
                        of_gate[i].write(gradient[i] * up[i] * slope);
                        of_up[i].write(gradient[i] * value);
                    }
                },
            );
        },
    );
    // SAFETY: every element has a gradient.
    unsafe { (of_gate.tensor(shape), of_up.tensor(shape)) }
}
