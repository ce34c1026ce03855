//! The operations as kernels for GPUs: one source for CUDA and for all that wgpu reaches, compiled for the device when it is first used.
//!
//! Numbers are stored as they come (f32, bf16 or f16) and computed with in f32. Sums are taken in an order that depends on shapes alone, so that
//! a repeated run gives the same bits. What a device lacks, and what the user has disabled, goes through the compositions.

mod adamw;
mod attention;
mod choice;
mod dropout;
mod embedding;
mod launch;
mod nf4;
mod nf4_product;
mod rms_norm;
mod rotate;
#[cfg(feature = "cuda-sources")]
mod sources;
mod swiglu;
#[cfg(all(test, feature = "test-wgpu"))]
mod tests;
mod token_scores;

pub use choice::{DISABLED_KERNELS, check_disabled_kernels};
#[cfg(feature = "fusion")]
pub(crate) use nf4_product::FEW_ROWS;
#[cfg(feature = "cuda-sources")]
pub use sources::{CudaKernel, CudaSource, cuda_sources};

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::tensor::{DType, FloatDType};
use burn_cubecl::CubeBackend;

use crate::adamw::{AdamWStep, OptimizerOps};
use crate::backend::Kernels;
use crate::blockwise::BlockwiseOps;
use crate::composed;
use crate::composed::nf4::Nf4Tensors;
use crate::dropout::DropoutMask;
use crate::generation::{GenerationOps, Spans};
use crate::heads::Heads;
use crate::nf4::{Nf4Layout, Nf4Ops};
use crate::packing::Packing;
use choice::{Kernel, Needs};
use launch::{UNITS, needs_nothing, needs_sums, problem, problem_with_f32};

impl Kernels for CubeBackend {
    fn linear_nf4_forward(x: FloatTensor<Self>, weight: Nf4Tensors<Self>) -> FloatTensor<Self> {
        let problem = || nf4_product::problem(&x, &weight);
        if nf4_product::has_few_rows(&x) && Kernel::Nf4Product.is_used(&x.client, nf4_product::NEEDS, problem()) {
            nf4_product::forward(x, weight)
        } else {
            composed::nf4::forward::<Self>(x, weight)
        }
    }

    fn linear_nf4_backward(weight: Nf4Tensors<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self> {
        let problem = || nf4_product::problem(&gradient, &weight);
        if nf4_product::has_few_rows(&gradient)
            && Kernel::Nf4Product.is_used(&gradient.client, nf4_product::NEEDS, problem())
        {
            nf4_product::backward(weight, gradient)
        } else {
            composed::nf4::backward::<Self>(weight, gradient)
        }
    }

    fn drop_elements(x: FloatTensor<Self>, mask: &DropoutMask) -> FloatTensor<Self> {
        let needs = Needs { units: UNITS, ..needs_nothing(3) };
        if Kernel::Dropout.is_used(&x.client, needs, problem(&[&x])) {
            dropout::drop_elements(x, mask)
        } else {
            composed::dropout::on_device::<Self>(x, mask)
        }
    }

    fn rms_norm_forward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        eps: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        if Kernel::RmsNorm.is_used(&x.client, needs_sums(4), problem(&[&x, &weight])) {
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
        if Kernel::RmsNorm.is_used(&x.client, needs_sums(5), problem(&[&x, &weight, &gradient])) {
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
        let problem = problem(&[&x]).or_else(|| problem_with_f32(&[&cos, &sin]));
        if Kernel::Rotate.is_used(&x.client, needs_nothing(4), problem) {
            rotate::rotate(x, cos, sin, back)
        } else {
            composed::rotate::<Self>(x, cos, sin, back)
        }
    }

    fn swiglu_forward(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        if Kernel::SwiGlu.is_used(&gate.client, needs_nothing(3), problem(&[&gate, &up])) {
            swiglu::forward(gate, up)
        } else {
            composed::swiglu::forward::<Self>(gate, up)
        }
    }

    fn swiglu_backward(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        if Kernel::SwiGlu.is_used(&gate.client, needs_nothing(5), problem(&[&gate, &up, &gradient])) {
            swiglu::backward(gate, up, gradient)
        } else {
            composed::swiglu::backward::<Self>(gate, up, gradient)
        }
    }

    fn attention_forward(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        heads: Heads,
        packing: &Packing,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let of_batch = || attention::problem(heads, packing.tokens(), packing.segments().len());
        if Kernel::Attention.is_used(&q.client, attention::NEEDS, problem(&[&q, &k, &v]).or_else(of_batch)) {
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
        let [q, k, v, o, _] = &inputs;
        let of_batch = || attention::problem(heads, packing.tokens(), packing.segments().len());
        let problem = problem(&[q, k, v, o, &gradient]).or_else(of_batch);
        if Kernel::Attention.is_used(&q.client, attention::NEEDS, problem) {
            attention::backward(inputs, gradient, heads, packing)
        } else {
            composed::attention::backward::<Self>(inputs, gradient, heads, packing)
        }
    }

    fn logit_scores(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
        soft_cap: Option<f64>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        if Kernel::TokenScores.is_used(&logits.client, needs_sums(4), problem(&[&logits])) {
            token_scores::forward(logits, targets, soft_cap)
        } else {
            composed::head::scores_of_logits::<Self>(logits, targets, soft_cap)
        }
    }

    fn logit_scores_backward(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
        log_sums: FloatTensor<Self>,
        seed: FloatTensor<Self>,
        soft_cap: Option<f64>,
    ) -> FloatTensor<Self> {
        if Kernel::TokenScores.is_used(&logits.client, needs_nothing(5), problem(&[&logits])) {
            token_scores::backward(logits, targets, log_sums, seed, soft_cap)
        } else {
            composed::head::gradient_of_logits::<Self>(logits, targets, log_sums, seed, soft_cap)
        }
    }
}

impl OptimizerOps for CubeBackend {
    fn adamw(
        weight: FloatTensor<Self>,
        exp_avg: FloatTensor<Self>,
        exp_avg_sq: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        step: AdamWStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let problem = problem_with_f32(&[&weight, &exp_avg, &exp_avg_sq, &gradient]);
        let is_used = Kernel::AdamW.is_used(&weight.client, needs_nothing(4), problem);
        let tensors = [weight, exp_avg, exp_avg_sq];
        if is_used {
            adamw::step(tensors, gradient, step).into()
        } else {
            composed::adamw::step::<Self>(tensors, gradient, step).into()
        }
    }

    fn add_rows(table: FloatTensor<Self>, ids: IntTensor<Self>, rows: FloatTensor<Self>) -> FloatTensor<Self> {
        if Kernel::Embedding.is_used(&table.client, needs_sums(3), problem_with_f32(&[&table, &rows])) {
            embedding::add_rows(table, ids, rows)
        } else {
            composed::adamw::add_rows::<Self>(table, ids, rows)
        }
    }

    fn sum_of_squares(x: FloatTensor<Self>, row: usize) -> FloatTensor<Self> {
        if Kernel::SumOfSquares.is_used(&x.client, needs_sums(2), problem_with_f32(&[&x])) {
            adamw::sum_of_squares(x)
        } else {
            composed::adamw::sum_of_squares::<Self>(x, row)
        }
    }
}

impl GenerationOps for CubeBackend {
    fn cached_attention(
        q: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        heads: Heads,
        spans: Spans,
    ) -> FloatTensor<Self> {
        let of_batch = || attention::problem(heads, spans.tokens(), spans.spans().len());
        let problem = problem(&[&q, &keys, &values]).or_else(of_batch);
        if Kernel::CachedAttention.is_used(&q.client, attention::NEEDS, problem) {
            attention::cached(q, keys, values, heads, &spans)
        } else {
            composed::cache::attention::<Self>(q, keys, values, heads, &spans)
        }
    }
}

impl Nf4Ops for CubeBackend {
    fn nf4_numbers(
        codes: IntTensor<Self>,
        numbers: FloatTensor<Self>,
        layout: Nf4Layout,
        dtype: FloatDType,
    ) -> FloatTensor<Self> {
        let is_written = matches!(dtype, FloatDType::F32 | FloatDType::BF16 | FloatDType::F16);
        let problem = (!is_written).then(|| format!("it does not write {}", DType::from(dtype).name()));
        if Kernel::Nf4.is_used(&codes.client, needs_nothing(3), problem.or_else(|| nf4::problem(&codes, &layout))) {
            nf4::numbers(codes, numbers, layout, dtype)
        } else {
            composed::nf4::numbers::<Self>(codes, numbers, layout, dtype)
        }
    }
}

impl BlockwiseOps for CubeBackend {}
