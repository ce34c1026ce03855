//! GPUs behind fusion: operations wait in a queue, where chains of elementwise ones become one kernel.
//!
//! Each pass that a GPU has a kernel for is one operation of the queue. Its metadata say which shapes and dtypes come out, so that the
//! operations around it can be queued and fused before it has run. All other passes are compositions, which the queue sees through.

use burn::backend::fusion::Fusion;
use burn::backend::fusion::custom::TensorSpec;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, TensorMetadata, backend_extension};
use burn::tensor::{DType, Shape};
use burn_cubecl::CubeBackend;

use crate::backend::Kernels;
use crate::composed;
use crate::composed::nf4::Nf4Tensors;
use crate::cube::FEW_ROWS;
use crate::dropout::DropoutMask;
use crate::heads::Heads;
use crate::nf4::Nf4Layout;
use crate::packing::Packing;

/// Describes f32 numbers.
fn f32(shape: impl Into<Shape>) -> TensorSpec {
    TensorSpec::new(shape.into(), DType::F32)
}

/// Describes one f32 number for each row of a matrix, `[t, 1]`.
fn per_row(x: &TensorSpec) -> TensorSpec {
    f32([x.shape[0], 1])
}

/// Describes the log-sum-exp of each query's scores, `[h, t]`.
fn log_sums(q: &TensorSpec, heads: &Heads) -> TensorSpec {
    f32([heads.query, q.shape[0]])
}

/// The passes of [`Kernels`] with kernels, as the queue takes them: plain tensors in, plain tensors out.
#[backend_extension(Cube, Fusion)]
pub(crate) trait QueuedPasses: Backend {
    /// `[t, in]`, codes and numbers of `[out, in]` -> `[t, out]`
    #[fusion(dtype = x, shape = Shape::from([x[0], layout.shape[0]]))]
    fn queued_nf4_product(
        x: FloatTensor<Self>,
        codes: IntTensor<Self>,
        numbers: FloatTensor<Self>,
        layout: Nf4Layout,
    ) -> FloatTensor<Self>;

    /// `[t, out]`, codes and numbers of `[out, in]` -> `[t, in]`
    #[fusion(dtype = gradient, shape = Shape::from([gradient[0], layout.shape[1]]))]
    fn queued_nf4_product_backward(
        gradient: FloatTensor<Self>,
        codes: IntTensor<Self>,
        numbers: FloatTensor<Self>,
        layout: Nf4Layout,
    ) -> FloatTensor<Self>;

    /// `[t, d]` -> `[t, d]`
    #[fusion(dtype = x, shape = x)]
    fn queued_dropout(x: FloatTensor<Self>, mask: DropoutMask) -> FloatTensor<Self>;

    /// `[t, d]`, `[d]` -> `[t, d]`, `[t, 1]`
    #[fusion(meta = |x, _weight, _eps| (x.clone(), per_row(x)))]
    fn queued_rms_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        eps: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// `[t, d]`, `[d]`, `[t, 1]`, `[t, d]` -> `[t, d]`, `[d]`
    #[fusion(meta = |x, weight, _scale, _gradient| (x.clone(), weight.clone()))]
    fn queued_rms_norm_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// `[t, d]`, `[d]`, `[t, 1]`, `[t, d]` -> `[t, d]`; of a frozen weight
    #[fusion(dtype = x, shape = x)]
    fn queued_rms_norm_backward_x(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
    ) -> FloatTensor<Self>;

    /// `[t, h·n]`, `[t, n/2]`, `[t, n/2]` -> `[t, h·n]`
    #[fusion(dtype = x, shape = x)]
    fn queued_rotate(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        back: bool,
    ) -> FloatTensor<Self>;

    /// `[t, f]`, `[t, f]` -> `[t, f]`
    #[fusion(dtype = gate, shape = gate)]
    fn queued_swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self>;

    /// `[t, f]`, `[t, f]`, `[t, f]` -> `[t, f]`, `[t, f]`
    #[fusion(meta = |gate, up, _gradient| (gate.clone(), up.clone()))]
    fn queued_swiglu_backward(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// `[t, h·n]`, `[t, g·n]`, `[t, g·n]` -> `[t, h·n]`, `[h, t]`
    #[fusion(meta = |q, _k, _v, heads, _packing| (q.clone(), log_sums(q, heads)))]
    fn queued_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        heads: Heads,
        packing: Packing,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// `q`, `k`, `v`, the result, its log-sum-exps and its gradient -> the gradients of `q`, `k` and `v`
    #[fusion(meta = |q, k, v, _o, _log_sums, _gradient, _heads, _packing| (q.clone(), k.clone(), v.clone()))]
    #[allow(clippy::too_many_arguments, reason = "the queue takes plain tensors")]
    fn queued_attention_backward(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        o: FloatTensor<Self>,
        log_sums: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        heads: Heads,
        packing: Packing,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    /// `[c, v]`, `[c]` -> `[c, 2]`, `[c, 1]`
    #[fusion(meta = |logits, _targets, _soft_cap| (f32([logits.shape[0], 2]), per_row(logits)))]
    fn queued_logit_scores(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
        soft_cap: Option<f64>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// `[c, v]`, `[c]`, `[c, 1]`, `[c, 1]` -> `[c, v]`
    #[fusion(dtype = logits, shape = logits)]
    fn queued_logit_scores_backward(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
        log_sums: FloatTensor<Self>,
        seed: FloatTensor<Self>,
        soft_cap: Option<f64>,
    ) -> FloatTensor<Self>;
}

impl QueuedPasses for CubeBackend {
    fn queued_nf4_product(
        x: FloatTensor<Self>,
        codes: IntTensor<Self>,
        numbers: FloatTensor<Self>,
        layout: Nf4Layout,
    ) -> FloatTensor<Self> {
        Self::linear_nf4_forward(x, Nf4Tensors { codes, numbers, layout })
    }

    fn queued_nf4_product_backward(
        gradient: FloatTensor<Self>,
        codes: IntTensor<Self>,
        numbers: FloatTensor<Self>,
        layout: Nf4Layout,
    ) -> FloatTensor<Self> {
        Self::linear_nf4_backward(Nf4Tensors { codes, numbers, layout }, gradient)
    }

    fn queued_dropout(x: FloatTensor<Self>, mask: DropoutMask) -> FloatTensor<Self> {
        Self::drop_elements(x, &mask)
    }

    fn queued_rms_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        eps: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        Self::rms_norm_forward(x, weight, eps)
    }

    fn queued_rms_norm_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let [of_x, of_weight] = Self::rms_norm_backward(x, weight, scale, gradient, [true, true]);
        (of_x.expect("the gradient of x"), of_weight.expect("the gradient of the weight"))
    }

    fn queued_rms_norm_backward_x(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let [of_x, _] = Self::rms_norm_backward(x, weight, scale, gradient, [true, false]);
        of_x.expect("the gradient of x")
    }

    fn queued_rotate(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        back: bool,
    ) -> FloatTensor<Self> {
        Self::rotate_by(x, cos, sin, back)
    }

    fn queued_swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::swiglu_forward(gate, up)
    }

    fn queued_swiglu_backward(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        Self::swiglu_backward(gate, up, gradient)
    }

    fn queued_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        heads: Heads,
        packing: Packing,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        Self::attention_forward(q, k, v, heads, &packing)
    }

    fn queued_attention_backward(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        o: FloatTensor<Self>,
        log_sums: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        heads: Heads,
        packing: Packing,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        Self::attention_backward([q, k, v, o, log_sums], gradient, heads, &packing).into()
    }

    fn queued_logit_scores(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
        soft_cap: Option<f64>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        Self::logit_scores(logits, targets, soft_cap)
    }

    fn queued_logit_scores_backward(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
        log_sums: FloatTensor<Self>,
        seed: FloatTensor<Self>,
        soft_cap: Option<f64>,
    ) -> FloatTensor<Self> {
        Self::logit_scores_backward(logits, targets, log_sums, seed, soft_cap)
    }
}

/// Returns whether a product with a matrix in codes is one operation of the queue. With many rows it is a composition, whose product the
/// queue fuses with its neighbours.
fn is_queued(x: &FloatTensor<Fusion<CubeBackend>>) -> bool {
    x.shape()[0] <= FEW_ROWS
}

impl Kernels for Fusion<CubeBackend> {
    fn linear_nf4_forward(x: FloatTensor<Self>, weight: Nf4Tensors<Self>) -> FloatTensor<Self> {
        let Nf4Tensors { codes, numbers, layout } = weight.clone();
        match is_queued(&x) {
            true => Self::queued_nf4_product(x, codes, numbers, layout),
            false => composed::nf4::forward::<Self>(x, weight),
        }
    }

    fn linear_nf4_backward(weight: Nf4Tensors<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self> {
        let Nf4Tensors { codes, numbers, layout } = weight.clone();
        match is_queued(&gradient) {
            true => Self::queued_nf4_product_backward(gradient, codes, numbers, layout),
            false => composed::nf4::backward::<Self>(weight, gradient),
        }
    }

    fn drop_elements(x: FloatTensor<Self>, mask: &DropoutMask) -> FloatTensor<Self> {
        Self::queued_dropout(x, mask.clone())
    }

    fn rms_norm_forward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        eps: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        Self::queued_rms_norm(x, weight, eps)
    }

    fn rms_norm_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        wanted: [bool; 2],
    ) -> [Option<FloatTensor<Self>>; 2] {
        match wanted {
            [true, true] => {
                let (of_x, of_weight) = Self::queued_rms_norm_backward(x, weight, scale, gradient);
                [Some(of_x), Some(of_weight)]
            }
            [true, false] => [Some(Self::queued_rms_norm_backward_x(x, weight, scale, gradient)), None],
            [false, _] => composed::rms_norm::backward::<Self>(x, weight, scale, gradient, wanted),
        }
    }

    fn rotate_by(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        back: bool,
    ) -> FloatTensor<Self> {
        Self::queued_rotate(x, cos, sin, back)
    }

    fn swiglu_forward(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::queued_swiglu(gate, up)
    }

    fn swiglu_backward(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        Self::queued_swiglu_backward(gate, up, gradient)
    }

    fn attention_forward(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        heads: Heads,
        packing: &Packing,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        Self::queued_attention(q, k, v, heads, packing.clone())
    }

    fn attention_backward(
        [q, k, v, o, log_sums]: [FloatTensor<Self>; 5],
        gradient: FloatTensor<Self>,
        heads: Heads,
        packing: &Packing,
    ) -> [FloatTensor<Self>; 3] {
        Self::queued_attention_backward(q, k, v, o, log_sums, gradient, heads, packing.clone()).into()
    }

    fn logit_scores(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
        soft_cap: Option<f64>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        Self::queued_logit_scores(logits, targets, soft_cap)
    }

    fn logit_scores_backward(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
        log_sums: FloatTensor<Self>,
        seed: FloatTensor<Self>,
        soft_cap: Option<f64>,
    ) -> FloatTensor<Self> {
        Self::queued_logit_scores_backward(logits, targets, log_sums, seed, soft_cap)
    }
}
