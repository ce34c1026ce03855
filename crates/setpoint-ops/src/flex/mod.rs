//! The operations as kernels for the CPU backend: one pass over memory each, on all threads, vectorised for the processor they run on.
//!
//! Work is cut the same way whatever the number of threads, and partial sums are added in a fixed order: a repeated run gives the same
//! bits. Tensors that are not f32 go through the compositions, except few rows of bf16 whose weight is in 4-bit codes.

mod adamw;
mod attention;
mod blockwise;
mod dora;
mod dropout;
mod elementwise;
mod few_rows;
mod generation;
mod head;
mod host;
mod linear;
mod lookup;
mod lora;
mod nf4;
mod nf4_rows;
mod rms_norm;
mod row_lanes;
mod simd;
mod weight;

use burn::backend::flex::FlexTensor;
use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Flex, TensorMetadata};
use burn::tensor::{DType, FloatDType};

use crate::backend::Kernels;
use crate::composed;
use crate::composed::nf4::{Nf4Tensors, Weight};
use crate::dropout::DropoutMask;
use crate::functions::Logits;
use crate::heads::Heads;
use crate::nf4::{Nf4Layout, Nf4Ops};
use crate::packing::Packing;
use host::all_f32;
use nf4::Nf4;
use weight::F32Weight;

pub(crate) use simd::vectorised;

impl Kernels for Flex {
    fn linear_forward(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        if all_f32(&[&x, &weight]) {
            linear::forward(x, &F32Weight::dense(weight))
        } else {
            composed::linear::forward::<Self>(x, weight)
        }
    }

    fn linear_backward(
        x: Option<FloatTensor<Self>>,
        weight: Option<FloatTensor<Self>>,
        gradient: FloatTensor<Self>,
    ) -> [Option<FloatTensor<Self>>; 2] {
        let others: Vec<&FlexTensor> = x.iter().chain(&weight).collect();
        if all_f32(&others) && all_f32(&[&gradient]) {
            linear::backward(x, weight.map(F32Weight::dense).as_ref(), gradient)
        } else {
            composed::linear::backward::<Self>(x, weight, gradient)
        }
    }

    fn linear_nf4_forward(x: FloatTensor<Self>, weight: Nf4Tensors<Self>) -> FloatTensor<Self> {
        match Nf4::of(&weight) {
            Some(weight) if all_f32(&[&x]) => linear::forward(x, &F32Weight::Nf4(weight)),
            // Burn's product in bf16 is one in f32 that is rounded, too. For few rows the weight need not be dequantised whole.
            Some(weight) if x.dtype() == DType::BF16 && weight.is_bf16() && x.shape()[0] <= linear::FEW => {
                let y = linear::forward(Self::float_cast(x, FloatDType::F32), &F32Weight::Nf4(weight));
                Self::float_cast(y, FloatDType::BF16)
            }
            _ => composed::nf4::forward::<Self>(x, weight),
        }
    }

    fn linear_nf4_backward(weight: Nf4Tensors<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self> {
        match Nf4::of(&weight) {
            Some(weight) if all_f32(&[&gradient]) => linear::gradient_of_x(&F32Weight::Nf4(weight), gradient),
            _ => composed::nf4::backward::<Self>(weight, gradient),
        }
    }

    fn linear_lora_forward(
        x: FloatTensor<Self>,
        weight: Weight<Self>,
        factors: [FloatTensor<Self>; 2],
        scale: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        match F32Weight::of(&weight) {
            Some(weight) if all_f32(&[&x, &factors[0], &factors[1]]) => {
                lora::forward(x, &weight, factors, scale as f32)
            }
            _ => composed::lora::forward::<Self>(x, weight, factors, scale),
        }
    }

    fn linear_lora_backward(
        kept: composed::lora::Kept<Self>,
        gradient: FloatTensor<Self>,
        scale: f64,
        wanted: [bool; 3],
    ) -> [Option<FloatTensor<Self>>; 3] {
        match F32Weight::of(&kept.weight) {
            Some(weight) if all_f32(&[&kept.x, &kept.a, &kept.b, &gradient]) => {
                let composed::lora::Kept { x, a, b, low, .. } = kept;
                lora::backward([x, a, b, low], &weight, gradient, scale as f32, wanted)
            }
            _ => composed::lora::backward::<Self>(kept, gradient, scale, wanted),
        }
    }

    fn row_norms_of(weight: FloatTensor<Self>, factors: [FloatTensor<Self>; 2], scale: f64) -> FloatTensor<Self> {
        if all_f32(&[&weight, &factors[0], &factors[1]]) {
            dora::norms(weight, factors, scale as f32)
        } else {
            composed::dora::norms::<Self>(weight, factors, scale)
        }
    }

    fn scale_columns(x: FloatTensor<Self>, factors: FloatTensor<Self>) -> FloatTensor<Self> {
        if all_f32(&[&x, &factors]) { dora::scale(x, factors) } else { composed::dora::scale::<Self>(x, factors) }
    }

    fn scale_columns_backward(
        x: Option<FloatTensor<Self>>,
        factors: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, Option<FloatTensor<Self>>) {
        if all_f32(&[&factors, &gradient]) && x.as_ref().is_none_or(|x| all_f32(&[x])) {
            dora::scale_backward(x, factors, gradient)
        } else {
            composed::dora::scale_backward::<Self>(x, factors, gradient)
        }
    }

    fn drop_elements(x: FloatTensor<Self>, mask: &DropoutMask) -> FloatTensor<Self> {
        if all_f32(&[&x]) { dropout::dropout(x, mask) } else { composed::dropout::from_host::<Self>(x, mask) }
    }

    fn rms_norm_forward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        eps: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        if all_f32(&[&x, &weight]) {
            rms_norm::forward(x, weight, eps)
        } else {
            composed::rms_norm::forward::<Self>(x, weight, eps)
        }
    }

    fn rms_norm_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        wanted: [bool; 2],
    ) -> [Option<FloatTensor<Self>>; 2] {
        if all_f32(&[&x, &weight, &gradient]) {
            rms_norm::backward(x, weight, scale, gradient, wanted)
        } else {
            composed::rms_norm::backward::<Self>(x, weight, scale, gradient, wanted)
        }
    }

    fn rotate_by(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        back: bool,
    ) -> FloatTensor<Self> {
        if all_f32(&[&x]) {
            elementwise::rotate(x, cos, sin, back)
        } else {
            composed::rotate::<Self>(x, cos, sin, back)
        }
    }

    fn swiglu_forward(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        if all_f32(&[&gate, &up]) { elementwise::swiglu(gate, up) } else { composed::swiglu::forward::<Self>(gate, up) }
    }

    fn swiglu_backward(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        if all_f32(&[&gate, &up, &gradient]) {
            elementwise::swiglu_backward(gate, up, gradient)
        } else {
            composed::swiglu::backward::<Self>(gate, up, gradient)
        }
    }

    fn geglu_forward(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        if all_f32(&[&gate, &up]) { elementwise::geglu(gate, up) } else { composed::geglu::forward::<Self>(gate, up) }
    }

    fn geglu_backward(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        if all_f32(&[&gate, &up, &gradient]) {
            elementwise::geglu_backward(gate, up, gradient)
        } else {
            composed::geglu::backward::<Self>(gate, up, gradient)
        }
    }

    fn attention_forward(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        heads: Heads,
        packing: &Packing,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        if all_f32(&[&q, &k, &v]) {
            attention::forward(q, k, v, heads, packing)
        } else {
            composed::attention::forward::<Self>(q, k, v, heads, packing)
        }
    }

    fn attention_backward(
        inputs: [FloatTensor<Self>; 5],
        gradient: FloatTensor<Self>,
        heads: Heads,
        packing: &Packing,
    ) -> [FloatTensor<Self>; 3] {
        if all_f32(&[&inputs[0], &gradient]) {
            attention::backward(inputs, gradient, heads, packing)
        } else {
            composed::attention::backward::<Self>(inputs, gradient, heads, packing)
        }
    }

    fn token_scores_forward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        rows: IntTensor<Self>,
        targets: IntTensor<Self>,
        logits: Logits,
    ) -> composed::head::Scores<Self> {
        if all_f32(&[&x, &weight]) {
            head::forward(x, weight, rows, targets, logits)
        } else {
            composed::head::forward::<Self>(x, weight, rows, targets, logits)
        }
    }

    fn token_scores_backward(
        kept: composed::head::Kept<Self>,
        gradient: FloatTensor<Self>,
        logits: Logits,
        wanted: [bool; 2],
    ) -> [Option<FloatTensor<Self>>; 2] {
        if all_f32(&[&kept.x, &kept.weight]) {
            head::backward(kept, gradient, logits, wanted)
        } else {
            composed::head::backward::<Self>(kept, gradient, logits, wanted)
        }
    }
}

impl Nf4Ops for Flex {
    fn nf4_numbers(
        codes: IntTensor<Self>,
        numbers: FloatTensor<Self>,
        layout: Nf4Layout,
        dtype: FloatDType,
    ) -> FloatTensor<Self> {
        match Nf4::of(&Nf4Tensors { codes: codes.clone(), numbers: numbers.clone(), layout }) {
            Some(weight) => Self::float_cast(weight.dense(), dtype),
            None => composed::nf4::numbers::<Self>(codes, numbers, layout, dtype),
        }
    }
}
