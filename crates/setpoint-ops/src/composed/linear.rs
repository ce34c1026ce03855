//! The linear map.

use burn::backend::Backend;
use burn::backend::tensor::FloatTensor;

use crate::backend::Kernels;
use crate::differentiate::Operation;

pub(crate) fn forward<B: Backend>(x: FloatTensor<B>, weight: FloatTensor<B>) -> FloatTensor<B> {
    B::float_matmul(x, B::float_transpose(weight))
}

pub(crate) fn backward<B: Backend>(
    x: Option<FloatTensor<B>>,
    weight: Option<FloatTensor<B>>,
    gradient: FloatTensor<B>,
) -> [Option<FloatTensor<B>>; 2] {
    // [t, out] · [out, in], [out, t] · [t, in]
    let of_x = weight.map(|weight| B::float_matmul(gradient.clone(), weight));
    let of_weight = x.map(|x| B::float_matmul(B::float_transpose(gradient), x));
    [of_x, of_weight]
}

/// `y = x · Wᵀ`. The gradient of the weight is one product that lies in memory as the weight does.
#[derive(Clone, Debug)]
pub(crate) struct Linear;

impl<B: Kernels> Operation<B, 2> for Linear {
    /// The input for the gradient of the weight, and the weight for that of the input: a frozen map keeps no input.
    type Kept = [Option<FloatTensor<B>>; 2];

    fn forward(&self, [x, weight]: [FloatTensor<B>; 2], wanted: [bool; 2]) -> (FloatTensor<B>, Self::Kept) {
        let kept = [wanted[1].then(|| x.clone()), wanted[0].then(|| weight.clone())];
        (B::linear_forward(x, weight), kept)
    }

    fn backward(
        &self,
        [x, weight]: Self::Kept,
        gradient: FloatTensor<B>,
        _wanted: [bool; 2],
    ) -> [Option<FloatTensor<B>>; 2] {
        B::linear_backward(x, weight, gradient)
    }
}
