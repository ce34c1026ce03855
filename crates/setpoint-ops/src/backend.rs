//! The operations as Burn's backends see them.

mod autodiff;

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, backend_extension};

use crate::composed;
use crate::composed::nf4::{Nf4Tensors, Weight};
use crate::dropout::DropoutMask;
use crate::functions::Logits;
use crate::heads::Heads;
use crate::nf4::{Nf4Layout, Nf4Ops};
use crate::packing::Packing;

/// The operations of a transformer, with their gradients on autodiff backends.
#[backend_extension(Flex: cfg(feature = "flex"), NdArray: cfg(feature = "ndarray"), Cube: cfg(feature = "cube"), Remote: cfg(feature = "remote"), Autodiff)]
pub trait TransformerOps: Backend {
    /// `[t, in]`, `[out, in]` -> `[t, out]`
    fn linear(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self>;

    /// `[t, in]`, `[out, in]`, `[r, in]`, `[out, r]` -> `[t, out]`; no gradient of the weight
    fn linear_lora(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        scale: f64,
    ) -> FloatTensor<Self>;

    /// `[t, in]`, `[codes]`, `[numbers]` -> `[t, out]`; no gradient of the weight
    fn linear_nf4(
        x: FloatTensor<Self>,
        codes: IntTensor<Self>,
        numbers: FloatTensor<Self>,
        layout: Nf4Layout,
    ) -> FloatTensor<Self>;

    /// `[t, in]`, `[codes]`, `[numbers]`, `[r, in]`, `[out, r]` -> `[t, out]`; no gradient of the weight
    fn linear_lora_nf4(
        x: FloatTensor<Self>,
        codes: IntTensor<Self>,
        numbers: FloatTensor<Self>,
        layout: Nf4Layout,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        scale: f64,
    ) -> FloatTensor<Self>;

    /// `[out, in]`, `[r, in]`, `[out, r]` -> `[out]`; without a graph
    fn row_norms(
        weight: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        scale: f64,
    ) -> FloatTensor<Self>;

    /// `[t, out]`, `[out]`, `[out]` -> `[t, out]`; no gradient of the norms
    fn rescale(x: FloatTensor<Self>, magnitude: FloatTensor<Self>, norms: FloatTensor<Self>) -> FloatTensor<Self>;

    /// `[t, d]` -> `[t, d]`
    fn dropout(x: FloatTensor<Self>, mask: DropoutMask) -> FloatTensor<Self>;

    /// `[t, d]`, `[d]` -> `[t, d]`
    fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, eps: f64) -> FloatTensor<Self>;

    /// `[t, h·n]`, `[t, n/2]`, `[t, n/2]` -> `[t, h·n]`
    fn rotate(x: FloatTensor<Self>, cos: FloatTensor<Self>, sin: FloatTensor<Self>) -> FloatTensor<Self>;

    /// `[t, f]`, `[t, f]` -> `[t, f]`
    fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self>;

    /// `[t, f]`, `[t, f]` -> `[t, f]`
    fn geglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self>;

    /// `[t, h·n]`, `[t, g·n]`, `[t, g·n]` -> `[t, h·n]`
    fn attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        heads: Heads,
        packing: Packing,
    ) -> FloatTensor<Self>;

    /// `[t, d]`, `[v, d]`, `[n]`, `[n]` -> `[n, 2]`: log-probability and entropy
    fn token_scores(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        rows: IntTensor<Self>,
        targets: IntTensor<Self>,
        logits: Logits,
    ) -> FloatTensor<Self>;
}

/// The passes that a backend may do in its own way; what it does not is composed of primitives.
///
/// Each forward pass answers its result and what its backward pass needs beside the inputs.
pub trait Kernels: Nf4Ops {
    /// `x · Wᵀ`.
    fn linear_forward(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        composed::linear::forward::<Self>(x, weight)
    }

    /// Returns the gradient of `x` if there is a `weight`, and that of `weight` if there is an `x`.
    fn linear_backward(
        x: Option<FloatTensor<Self>>,
        weight: Option<FloatTensor<Self>>,
        gradient: FloatTensor<Self>,
    ) -> [Option<FloatTensor<Self>>; 2] {
        composed::linear::backward::<Self>(x, weight, gradient)
    }

    /// Returns `x · Wᵀ` of a weight in 4-bit codes.
    fn linear_nf4_forward(x: FloatTensor<Self>, weight: Nf4Tensors<Self>) -> FloatTensor<Self> {
        composed::nf4::forward::<Self>(x, weight)
    }

    /// Returns the gradient of `x`.
    fn linear_nf4_backward(weight: Nf4Tensors<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self> {
        composed::nf4::backward::<Self>(weight, gradient)
    }

    /// Returns `x·Wᵀ + scale·(x·Aᵀ)·Bᵀ` and `x·Aᵀ`; `factors` are `A` and `B`.
    fn linear_lora_forward(
        x: FloatTensor<Self>,
        weight: Weight<Self>,
        factors: [FloatTensor<Self>; 2],
        scale: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        composed::lora::forward::<Self>(x, weight, factors, scale)
    }

    /// Returns the gradients of `x`, `A` and `B` that are `wanted`.
    fn linear_lora_backward(
        kept: composed::lora::Kept<Self>,
        gradient: FloatTensor<Self>,
        scale: f64,
        wanted: [bool; 3],
    ) -> [Option<FloatTensor<Self>>; 3] {
        composed::lora::backward::<Self>(kept, gradient, scale, wanted)
    }

    /// Returns `‖W_o + scale·(B·A)_o‖` for each row, at least the smallest normal number; `factors` are `A` and `B`.
    fn row_norms_of(weight: FloatTensor<Self>, factors: [FloatTensor<Self>; 2], scale: f64) -> FloatTensor<Self> {
        composed::dora::norms::<Self>(weight, factors, scale)
    }

    /// Multiplies each column by a factor.
    fn scale_columns(x: FloatTensor<Self>, factors: FloatTensor<Self>) -> FloatTensor<Self> {
        composed::dora::scale::<Self>(x, factors)
    }

    /// Returns the gradient of `x`, and that of the factors if there is an `x`.
    fn scale_columns_backward(
        x: Option<FloatTensor<Self>>,
        factors: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, Option<FloatTensor<Self>>) {
        composed::dora::scale_backward::<Self>(x, factors, gradient)
    }

    /// Sets the elements that a mask drops to 0 and scales the others.
    fn drop_elements(x: FloatTensor<Self>, mask: &DropoutMask) -> FloatTensor<Self> {
        composed::dropout::from_host::<Self>(x, mask)
    }

    /// Answers `y` and `1/rms(x)` `[t, 1]`, f32.
    fn rms_norm_forward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        eps: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        composed::rms_norm::forward::<Self>(x, weight, eps)
    }

    /// Returns the gradients of `x` and `weight` that are `wanted`.
    fn rms_norm_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        wanted: [bool; 2],
    ) -> [Option<FloatTensor<Self>>; 2] {
        composed::rms_norm::backward::<Self>(x, weight, scale, gradient, wanted)
    }

    /// Rotates by the angle, or by its negative if `back`.
    fn rotate_by(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        back: bool,
    ) -> FloatTensor<Self> {
        composed::rotate::<Self>(x, cos, sin, back)
    }

    /// `silu(gate) · up`.
    fn swiglu_forward(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        composed::swiglu::forward::<Self>(gate, up)
    }

    /// Answers the gradients of `gate` and `up`.
    fn swiglu_backward(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        composed::swiglu::backward::<Self>(gate, up, gradient)
    }

    /// `gelu(gate) · up`.
    fn geglu_forward(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        composed::geglu::forward::<Self>(gate, up)
    }

    /// Answers the gradients of `gate` and `up`.
    fn geglu_backward(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        composed::geglu::backward::<Self>(gate, up, gradient)
    }

    /// Answers the mixed values and the log-sum-exp of each query's scores `[h, t]`, f32.
    fn attention_forward(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        heads: Heads,
        packing: &Packing,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        composed::attention::forward::<Self>(q, k, v, heads, packing)
    }

    /// Answers the gradients of `q`, `k` and `v`; `inputs` are these, the result and the log-sum-exp.
    fn attention_backward(
        inputs: [FloatTensor<Self>; 5],
        gradient: FloatTensor<Self>,
        heads: Heads,
        packing: &Packing,
    ) -> [FloatTensor<Self>; 3] {
        composed::attention::backward::<Self>(inputs, gradient, heads, packing)
    }

    /// Returns log-probabilities and entropies `[c, 2]` and the log-sum-exp of each row `[c, 1]`, f32, of a chunk of logits `[c, v]` before
    /// their bound.
    fn logit_scores(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
        soft_cap: Option<f64>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        composed::head::scores_of_logits::<Self>(logits, targets, soft_cap)
    }

    /// Returns the gradient of a chunk of logits in their dtype; `seed` is that of the log-probabilities, `[c, 1]`.
    fn logit_scores_backward(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
        log_sums: FloatTensor<Self>,
        seed: FloatTensor<Self>,
        soft_cap: Option<f64>,
    ) -> FloatTensor<Self> {
        composed::head::gradient_of_logits::<Self>(logits, targets, log_sums, seed, soft_cap)
    }

    /// Answers log-probabilities and entropies with what the backward pass needs.
    fn token_scores_forward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        rows: IntTensor<Self>,
        targets: IntTensor<Self>,
        logits: Logits,
    ) -> composed::head::Scores<Self> {
        composed::head::forward::<Self>(x, weight, rows, targets, logits)
    }

    /// Answers the gradients of `x` and `weight` that are `wanted`.
    fn token_scores_backward(
        kept: composed::head::Kept<Self>,
        gradient: FloatTensor<Self>,
        logits: Logits,
        wanted: [bool; 2],
    ) -> [Option<FloatTensor<Self>>; 2] {
        composed::head::backward::<Self>(kept, gradient, logits, wanted)
    }
}

#[cfg(feature = "ndarray")]
impl Kernels for burn::backend::NdArray {}

#[cfg(feature = "remote")]
impl Kernels for burn::backend::Remote {
    /// Sends keys of rows in place of a mask.
    fn drop_elements(x: FloatTensor<Self>, mask: &DropoutMask) -> FloatTensor<Self> {
        if remote::has_wide_integers(&x) {
            composed::dropout_keys::from_keys::<Self>(x, mask)
        } else {
            composed::dropout::from_host::<Self>(x, mask)
        }
    }
}

#[cfg(feature = "remote")]
mod remote {
    use std::sync::{Mutex, PoisonError};

    use burn::backend::tensor::{Device, FloatTensor};
    use burn::backend::{Backend, Remote, TensorMetadata};
    use burn::tensor::DType;

    /// Returns whether the server of a tensor computes with integers of 64 bits; it is asked once.
    pub(super) fn has_wide_integers(x: &FloatTensor<Remote>) -> bool {
        static KNOWN: Mutex<Vec<(Device<Remote>, bool)>> = Mutex::new(Vec::new());
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        let device = x.device();
        if let Some((_, has)) = known.iter().find(|(other, _)| *other == device) {
            return *has;
        }
        let has = Remote::supports_dtype(&device, DType::I64);
        known.push((device, has));
        has
    }
}

/// The operations of a backend without autodiff are its forward passes.
macro_rules! operations_of {
    ($backend:ty) => {
        impl TransformerOps for $backend {
            fn linear(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
                Self::linear_forward(x, weight)
            }

            fn linear_lora(
                x: FloatTensor<Self>,
                weight: FloatTensor<Self>,
                a: FloatTensor<Self>,
                b: FloatTensor<Self>,
                scale: f64,
            ) -> FloatTensor<Self> {
                Self::linear_lora_forward(x, Weight::Dense(weight), [a, b], scale).0
            }

            fn linear_nf4(
                x: FloatTensor<Self>,
                codes: IntTensor<Self>,
                numbers: FloatTensor<Self>,
                layout: Nf4Layout,
            ) -> FloatTensor<Self> {
                Self::linear_nf4_forward(x, Nf4Tensors { codes, numbers, layout })
            }

            fn linear_lora_nf4(
                x: FloatTensor<Self>,
                codes: IntTensor<Self>,
                numbers: FloatTensor<Self>,
                layout: Nf4Layout,
                a: FloatTensor<Self>,
                b: FloatTensor<Self>,
                scale: f64,
            ) -> FloatTensor<Self> {
                let weight = Weight::Nf4(Nf4Tensors { codes, numbers, layout });
                Self::linear_lora_forward(x, weight, [a, b], scale).0
            }

            fn row_norms(
                weight: FloatTensor<Self>,
                a: FloatTensor<Self>,
                b: FloatTensor<Self>,
                scale: f64,
            ) -> FloatTensor<Self> {
                Self::row_norms_of(weight, [a, b], scale)
            }

            fn rescale(
                x: FloatTensor<Self>,
                magnitude: FloatTensor<Self>,
                norms: FloatTensor<Self>,
            ) -> FloatTensor<Self> {
                composed::dora::rescale::<Self>(x, magnitude, norms).0
            }

            fn dropout(x: FloatTensor<Self>, mask: DropoutMask) -> FloatTensor<Self> {
                Self::drop_elements(x, &mask)
            }

            fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, eps: f64) -> FloatTensor<Self> {
                Self::rms_norm_forward(x, weight, eps).0
            }

            fn rotate(x: FloatTensor<Self>, cos: FloatTensor<Self>, sin: FloatTensor<Self>) -> FloatTensor<Self> {
                Self::rotate_by(x, cos, sin, false)
            }

            fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
                Self::swiglu_forward(gate, up)
            }

            fn geglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
                Self::geglu_forward(gate, up)
            }

            fn attention(
                q: FloatTensor<Self>,
                k: FloatTensor<Self>,
                v: FloatTensor<Self>,
                heads: Heads,
                packing: Packing,
            ) -> FloatTensor<Self> {
                Self::attention_forward(q, k, v, heads, &packing).0
            }

            fn token_scores(
                x: FloatTensor<Self>,
                weight: FloatTensor<Self>,
                rows: IntTensor<Self>,
                targets: IntTensor<Self>,
                logits: Logits,
            ) -> FloatTensor<Self> {
                let logits = Logits { keep: false, ..logits };
                Self::token_scores_forward(x, weight, rows, targets, logits).scores
            }
        }
    };
}

#[cfg(feature = "flex")]
operations_of!(burn::backend::Flex);
#[cfg(feature = "ndarray")]
operations_of!(burn::backend::NdArray);
#[cfg(feature = "cube")]
operations_of!(burn::backend::Cube);
#[cfg(feature = "remote")]
operations_of!(burn::backend::Remote);
