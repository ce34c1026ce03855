// The factors of an adapter have the names that they have in PEFT's files.
#![allow(non_snake_case)]

use burn::module::{Module, Param, ParamId};
use burn::tensor::{Device, Int, Shape, Tensor, module};
use setpoint_ops::{LowRank, RowLengths, linear, linear_lora, linear_lora_nf4, linear_nf4, rescale};

use crate::lora::RowNorms;
use crate::weight::Weight;

/// A linear map with the weight as Hugging Face stores it, `y = x · Wᵀ + b`, and the low-rank update of an adapter, if it has one.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[out, in]`.
    pub weight: Weight,
    /// `[out]`, if there is one.
    pub bias: Option<Param<Tensor<1>>>,
    /// The first factor of the update, `[r, in]`.
    lora_A: Option<Factor>,
    /// The second one, `[out, r]`.
    lora_B: Option<Factor>,
    /// The lengths of the rows of weight and update, `[out]`, if they are trained apart from the direction.
    lora_magnitude_vector: Option<Param<Tensor<1>>>,
    /// Their present lengths.
    norms: RowNorms,
    /// The factor of their product.
    lora_scale: f64,
}

/// A factor of a low-rank update.
#[derive(Module, Debug)]
struct Factor {
    weight: Param<Tensor<2>>,
}

impl Linear {
    /// A map of zeros; no memory is taken until a value is read or loaded.
    pub fn zeros(inputs: usize, outputs: usize, bias: bool, device: &Device) -> Self {
        Self {
            weight: Weight::Dense(constant([outputs, inputs], 0.0, device)),
            bias: bias.then(|| constant([outputs], 0.0, device)),
            lora_A: None,
            lora_B: None,
            lora_magnitude_vector: None,
            norms: RowNorms::default(),
            lora_scale: 1.0,
        }
    }

    /// Applies the map to rows.
    ///
    /// # Shapes
    ///
    /// `[t, in] -> [t, out]`
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let bias = self.bias.as_ref().map(Param::val);
        match (self.update(), self.magnitude()) {
            (Some(update), Some(magnitude)) => {
                let lengths = RowLengths { magnitude, norms: self.norms.of(&self.weight, &update) };
                rescale(self.product(x, None, Some(update)), lengths, bias)
            }
            (update, _) => self.product(x, bias, update),
        }
    }

    /// Applies weight and update, without the lengths of the rows.
    fn product(&self, x: Tensor<2>, bias: Option<Tensor<1>>, update: Option<LowRank>) -> Tensor<2> {
        match (&self.weight, update) {
            (Weight::Dense(weight), None) => linear(x, weight.val(), bias),
            (Weight::Dense(weight), Some(update)) => linear_lora(x, weight.val(), bias, update),
            (Weight::Nf4(weight), None) => linear_nf4(x, &weight.matrix(), bias),
            (Weight::Nf4(weight), Some(update)) => linear_lora_nf4(x, &weight.matrix(), bias, update),
        }
    }

    /// Returns the low-rank update, if there is one.
    pub(crate) fn update(&self) -> Option<LowRank> {
        let (a, b) = (self.lora_A.as_ref()?, self.lora_B.as_ref()?);
        Some(LowRank { a: a.weight.val(), b: b.weight.val(), scale: self.lora_scale })
    }

    /// Returns the trained lengths of the rows, if there are any.
    pub(crate) fn magnitude(&self) -> Option<Tensor<1>> {
        self.lora_magnitude_vector.as_ref().map(Param::val)
    }

    /// Gives the map an update: the factors `A` and `B`, and lengths of its rows if these are trained.
    pub(crate) fn set_update(
        &mut self,
        [a, b]: [Param<Tensor<2>>; 2],
        magnitude: Option<Param<Tensor<1>>>,
        scale: f64,
    ) {
        (self.lora_A, self.lora_B, self.lora_scale) = (Some(Factor { weight: a }), Some(Factor { weight: b }), scale);
        (self.lora_magnitude_vector, self.norms) = (magnitude, RowNorms::default());
    }

    /// Takes the update away, if there is one.
    pub(crate) fn remove_update(&mut self) {
        (self.lora_A, self.lora_B, self.lora_magnitude_vector) = (None, None, None);
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
