//! The likeliest token of logits, and their norm.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::{IntDType, Shape};

pub(crate) fn likeliest<B: Backend>(logits: FloatTensor<B>) -> (IntTensor<B>, FloatTensor<B>) {
    let b = logits.shape()[0];
    let ids = B::int_reshape(B::float_argmax(logits.clone(), 1, IntDType::I32), Shape::from([b]));
    let highest = B::float_max_dim(logits.clone(), 1);
    let sum = B::float_sum_dim(B::float_exp(B::float_sub(logits, highest.clone())), 1);
    (ids, B::float_cat(vec![highest, B::float_log(sum)], 1))
}
