//! The gate of the feed-forward network.

use burn::backend::TensorMetadata;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;

use super::launch::{element, fresh, in_order, units, vector_size};

/// `silu(g) · u`; `silu(g)` is rounded to the storage's format.
#[cube(launch)]
fn forward_kernel<F: Float, N: Size>(
    gate: &[Vector<F, N>],
    up: &[Vector<F, N>],
    y: &mut [Vector<F, N>],
    #[define(F)] _element: ElemType,
) {
    let place = ABSOLUTE_POS;
    if place >= y.len() {
        terminate!();
    }
    let g = Vector::<f32, N>::cast_from(gate[place]);
    let u = Vector::<f32, N>::cast_from(up[place]);
    let one = Vector::<f32, N>::new(1.0f32);
    let silu = Vector::<F, N>::cast_from(g * (one / (one + (-g).exp())));
    y[place] = Vector::cast_from(Vector::<f32, N>::cast_from(silu) * u);
}

/// `∂g = ∂y · u · σ(g) · (1 + g · (1 − σ(g)))` and `∂u = ∂y · silu(g)`.
#[cube(launch)]
fn backward_kernel<F: Float, N: Size>(
    gate: &[Vector<F, N>],
    up: &[Vector<F, N>],
    gradient: &[Vector<F, N>],
    in_gate: &mut [Vector<F, N>],
    in_up: &mut [Vector<F, N>],
    #[define(F)] _element: ElemType,
) {
    let place = ABSOLUTE_POS;
    if place >= gate.len() {
        terminate!();
    }
    let g = Vector::<f32, N>::cast_from(gate[place]);
    let u = Vector::<f32, N>::cast_from(up[place]);
    let dy = Vector::<f32, N>::cast_from(gradient[place]);
    let one = Vector::<f32, N>::new(1.0f32);
    let sigmoid = one / (one + (-g).exp());
    let slope = sigmoid * (one + g * (one - sigmoid));
    in_gate[place] = Vector::cast_from(dy * u * slope);
    in_up[place] = Vector::cast_from(dy * (g * sigmoid));
}

pub(super) fn forward(gate: CubeTensor, up: CubeTensor) -> CubeTensor {
    let [gate, up] = [gate, up].map(in_order);
    let (client, element, size) = (gate.client.clone(), element(&gate), vector_size(&gate));
    let shape: [usize; 2] = gate.shape().dims();
    let y = fresh(&gate, shape, gate.dtype);
    let (count, dim) = units(&client, shape[0] * shape[1] / size);
    forward_kernel::launch(
        &client,
        count,
        dim,
        size,
        gate.into_buffer_arg(),
        up.into_buffer_arg(),
        y.clone().into_buffer_arg(),
        element,
    );
    y
}

/// Answers the gradients of `gate` and `up`.
pub(super) fn backward(gate: CubeTensor, up: CubeTensor, gradient: CubeTensor) -> (CubeTensor, CubeTensor) {
    let [gate, up, gradient] = [gate, up, gradient].map(in_order);
    let (client, element, size) = (gate.client.clone(), element(&gate), vector_size(&gate));
    let shape: [usize; 2] = gate.shape().dims();
    let [in_gate, in_up] = [(); 2].map(|()| fresh(&gate, shape, gate.dtype));
    let (count, dim) = units(&client, shape[0] * shape[1] / size);
    backward_kernel::launch(
        &client,
        count,
        dim,
        size,
        gate.into_buffer_arg(),
        up.into_buffer_arg(),
        gradient.into_buffer_arg(),
        in_gate.clone().into_buffer_arg(),
        in_up.clone().into_buffer_arg(),
        element,
    );
    (in_gate, in_up)
}
