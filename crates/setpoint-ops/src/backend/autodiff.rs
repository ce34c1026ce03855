//! The operations with their gradients.

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, AutodiffBackend};

use super::{Kernels, TransformerOps};
use crate::composed;
use crate::composed::nf4::{Nf4Tensors, Weight};
use crate::differentiate::tracked;
use crate::dropout::DropoutMask;
use crate::functions::Logits;
use crate::heads::Heads;
use crate::nf4::Nf4Layout;
use crate::packing::Packing;

impl<B: Kernels, C: CheckpointStrategy> TransformerOps for Autodiff<B, C> {
    fn linear(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        tracked::<B, C, _, 2>(composed::linear::Linear, [x, weight])
    }

    fn linear_lora(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        scale: f64,
    ) -> FloatTensor<Self> {
        let weight = Weight::<B>::Dense(weight.into_primitive());
        tracked::<B, C, _, 3>(composed::lora::LinearLora { weight, scale }, [x, a, b])
    }

    fn linear_nf4(
        x: FloatTensor<Self>,
        codes: IntTensor<Self>,
        numbers: FloatTensor<Self>,
        layout: Nf4Layout,
    ) -> FloatTensor<Self> {
        let weight = Nf4Tensors::<B> { codes, numbers: numbers.into_primitive(), layout };
        tracked::<B, C, _, 1>(composed::nf4::LinearNf4 { weight }, [x])
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
        let weight = Weight::<B>::Nf4(Nf4Tensors { codes, numbers: numbers.into_primitive(), layout });
        tracked::<B, C, _, 3>(composed::lora::LinearLora { weight, scale }, [x, a, b])
    }

    fn row_norms(
        weight: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        scale: f64,
    ) -> FloatTensor<Self> {
        let factors = [a, b].map(|factor| factor.into_primitive());
        <Self as AutodiffBackend>::from_inner(B::row_norms_of(weight.into_primitive(), factors, scale))
    }

    fn rescale(x: FloatTensor<Self>, magnitude: FloatTensor<Self>, norms: FloatTensor<Self>) -> FloatTensor<Self> {
        tracked::<B, C, _, 2>(composed::dora::Rescale::<B> { norms: norms.into_primitive() }, [x, magnitude])
    }

    fn dropout(x: FloatTensor<Self>, mask: DropoutMask) -> FloatTensor<Self> {
        tracked::<B, C, _, 1>(composed::dropout::Dropout { mask }, [x])
    }

    fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, eps: f64) -> FloatTensor<Self> {
        tracked::<B, C, _, 2>(composed::rms_norm::RmsNorm { eps }, [x, weight])
    }

    fn rotate(x: FloatTensor<Self>, cos: FloatTensor<Self>, sin: FloatTensor<Self>) -> FloatTensor<Self> {
        let rotate = composed::Rotate::<B> { cos: cos.into_primitive(), sin: sin.into_primitive() };
        tracked::<B, C, _, 1>(rotate, [x])
    }

    fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        tracked::<B, C, _, 2>(composed::swiglu::SwiGlu, [gate, up])
    }

    fn geglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        tracked::<B, C, _, 2>(composed::geglu::GeGlu, [gate, up])
    }

    fn attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        heads: Heads,
        packing: Packing,
    ) -> FloatTensor<Self> {
        tracked::<B, C, _, 3>(composed::attention::Attention { heads, packing }, [q, k, v])
    }

    fn token_scores(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        rows: IntTensor<Self>,
        targets: IntTensor<Self>,
        logits: Logits,
    ) -> FloatTensor<Self> {
        tracked::<B, C, _, 2>(composed::head::Head::<B> { rows, targets, logits }, [x, weight])
    }
}
