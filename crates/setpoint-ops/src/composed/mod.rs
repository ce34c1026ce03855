//! The operations as compositions of primitives: right on every backend, and the reference for the kernels.

pub(crate) mod adamw;
pub(crate) mod attention;
pub(crate) mod blockwise;
pub(crate) mod cache;
pub(crate) mod dora;
pub(crate) mod dropout;
pub(crate) mod dropout_keys;
pub(crate) mod geglu;
pub(crate) mod head;
mod likeliest;
pub(crate) mod linear;
pub(crate) mod lora;
mod mask;
pub(crate) mod nf4;
pub(crate) mod rms_norm;
mod rotate;
pub(crate) mod swiglu;

pub(crate) use likeliest::likeliest;
pub(crate) use rotate::{Rotate, rotate};

use std::ops::Range;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::{FloatDType, Shape, Slice};

/// The dtype of a float tensor.
fn dtype<B: Backend>(x: &FloatTensor<B>) -> FloatDType {
    x.dtype().into()
}

fn f32<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    B::float_cast(x, FloatDType::F32)
}

fn reshape<B: Backend, const D: usize>(x: FloatTensor<B>, shape: [usize; D]) -> FloatTensor<B> {
    B::float_reshape(x, Shape::from(shape))
}

/// Rows of a matrix.
fn rows<B: Backend>(x: FloatTensor<B>, rows: Range<usize>) -> FloatTensor<B> {
    let columns = x.shape()[1];
    B::float_slice(x, &[Slice::from(rows), Slice::from(0..columns)])
}
