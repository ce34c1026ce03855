use burn::module::{Module, Param, ParamId};
use burn::tensor::{Device, Int, Shape, Tensor, module};
use setpoint_ops::linear;

/// A linear map with the weight as Hugging Face stores it, `y = x · Wᵀ + b`.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[out, in]`.
    pub weight: Param<Tensor<2>>,
    /// `[out]`, if there is one.
    pub bias: Option<Param<Tensor<1>>>,
}

impl Linear {
    /// A map of zeros; no memory is taken until a value is read or loaded.
    pub fn zeros(inputs: usize, outputs: usize, bias: bool, device: &Device) -> Self {
        Self { weight: constant([outputs, inputs], 0.0, device), bias: bias.then(|| constant([outputs], 0.0, device)) }
    }

    /// Applies the map to rows.
    ///
    /// # Shapes
    ///
    /// `[t, in] -> [t, out]`
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        linear(x, self.weight.val(), self.bias.as_ref().map(Param::val))
    }
}

/// A table of token embeddings.
#[derive(Module, Debug)]
pub struct Embedding {
    /// `[vocab, hidden]`.
    pub weight: Param<Tensor<2>>,
}

impl Embedding {
    /// A table of zeros; no memory is taken until a value is read or loaded.
    pub fn zeros(vocab: usize, hidden: usize, device: &Device) -> Self {
        Self { weight: constant([vocab, hidden], 0.0, device) }
    }

    /// Looks tokens up.
    ///
    /// # Shapes
    ///
    /// `[t] -> [t, hidden]`
    pub fn forward(&self, ids: Tensor<1, Int>) -> Tensor<2> {
        // [t] -> [1, t] -> [1, t, hidden] -> [t, hidden]
        module::embedding(self.weight.val(), ids.unsqueeze()).squeeze_dim(0)
    }
}

/// A trainable parameter with the same value everywhere, made when it is first read.
pub(crate) fn constant<const D: usize>(shape: [usize; D], value: f32, device: &Device) -> Param<Tensor<D>> {
    Param::uninitialized(
        ParamId::new(),
        move |device, require_grad| Tensor::full(shape, value, device).set_require_grad(require_grad),
        device.clone(),
        true,
        Shape::from(shape),
    )
}
