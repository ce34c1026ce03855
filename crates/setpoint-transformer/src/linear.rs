// The factors of an adapter have the names that they have in PEFT's files.
#![allow(non_snake_case)]

use burn::module::{Module, Param, ParamId};
use burn::tensor::{Device, FloatDType, Int, Shape, Tensor, module};
use setpoint_ops::{
    DropoutMask, LowRank, RowLengths, dropout, linear, linear_lora, linear_lora_nf4, linear_nf4, rescale,
};

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
    /// The key of the masks of its dropout.
    lora_mask: u64,
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
            lora_mask: 0,
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

    /// [`forward`](Self::forward) with a mask for the rows, by which elements of the update's input are dropped.
    pub(crate) fn forward_masked(&self, x: Tensor<2>, mask: Option<&DropoutMask>) -> Tensor<2> {
        match mask.and_then(|mask| Some((mask, self.update()?))) {
            Some((mask, update)) => self.forward_dropped(x, update, &mask.for_matrix(self.lora_mask)),
            None => self.forward(x),
        }
    }

    /// With `d` for the input without the elements that are dropped: `x·Wᵀ + b + s·(d·Aᵀ)·Bᵀ`. If the lengths of the rows are trained, `m` from
    /// `n`, they change what both factors make of `d`, as in PEFT: `x·Wᵀ + b + (m/n) ∘ (d·Wᵀ + s·(d·Aᵀ)·Bᵀ) − d·Wᵀ`. All sums are taken in the
    /// dtype of `A`; a new adapter changes no bit.
    fn forward_dropped(&self, x: Tensor<2>, update: LowRank, mask: &DropoutMask) -> Tensor<2> {
        let (own, wide): (FloatDType, FloatDType) = (x.dtype().into(), update.a.dtype().into());
        let base = self.product(x.clone(), self.bias.as_ref().map(Param::val), None).cast(wide);
        let dropped = dropout(x.cast(wide), mask);
        let LowRank { a, b, scale } = update.clone();
        // The scale meets the few inner values.
        let change = linear(linear(dropped.clone(), a, None).mul_scalar(scale), b, None);
        let sum = match self.magnitude() {
            None => base + change,
            Some(magnitude) => {
                let lengths = RowLengths { magnitude, norms: self.norms.of(&self.weight, &update) };
                let through = self.product(dropped.cast(own), None, None).cast(wide);
                base + (rescale(through.clone() + change, lengths, None) - through)
            }
        };
        sum.cast(own)
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

    /// Gives the map an update: the factors `A` and `B`, and lengths of its rows if these are trained. `mask` is the key of its masks.
    pub(crate) fn set_update(
        &mut self,
        [a, b]: [Param<Tensor<2>>; 2],
        magnitude: Option<Param<Tensor<1>>>,
        scale: f64,
        mask: u64,
    ) {
        self.lora_mask = mask;
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use burn::tensor::TensorData;
    use setpoint_ops::extend_key;

    use super::*;

    const RATE: f64 = 0.4;
    const SCALE: f64 = 1.5;

    fn tensor<const D: usize>(seed: f32, shape: [usize; D], device: &Device) -> Tensor<D> {
        let values: Vec<f32> = (0..shape.iter().product::<usize>()).map(|i| (seed + 1.7 * i as f32).sin()).collect();
        Tensor::from_data(TensorData::new(values, shape), device)
    }

    fn host<const D: usize>(x: Tensor<D>) -> Vec<f32> {
        x.into_data().try_into_vec().unwrap()
    }

    #[track_caller]
    fn assert_close(found: &[f32], expected: &[f32], what: &str) {
        assert_eq!(found.len(), expected.len(), "{what}");
        for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
            assert!(
                (found - expected).abs() < 1e-5 * (1.0 + expected.abs()),
                "{what}[{i}]: {found} against {expected}"
            );
        }
    }

    /// PEFT's `Linear.forward` and `DoraLinearLayer.forward` with a mask of ours in the place of `nn.Dropout`, composed of Burn's operations.
    #[test]
    fn a_masked_map_is_that_of_peft_in_values_and_gradients() {
        let device = Device::flex().autodiff();
        let (t, inputs, outputs, rank) = (40, 12, 7, 3);
        let mask = DropoutMask::new((0..t as u64).map(|row| extend_key(row, 1)).collect::<Arc<[u64]>>(), RATE);
        let own = mask.for_matrix(11);
        let factor = |i: usize| if own.keeps(i / inputs, i % inputs) { own.scale() as f32 } else { 0.0 };
        let factors = TensorData::new((0..t * inputs).map(factor).collect::<Vec<f32>>(), [t, inputs]);
        let factors = Tensor::<2>::from_data(factors, &device);
        let [weight, x, a, b] = [[outputs, inputs], [t, inputs], [rank, inputs], [outputs, rank]];
        let (weight, x) = (tensor::<2>(1.0, weight, &device), tensor::<2>(2.0, x, &device));
        let (a, b) = (tensor::<2>(3.0, a, &device), tensor::<2>(4.0, b, &device));
        let (bias, magnitude) = (tensor::<1>(5.0, [outputs], &device), tensor::<1>(6.0, [outputs], &device));
        let seeds = tensor::<2>(7.0, [t, outputs], &device);
        for dora in [false, true] {
            let mut map = Linear::zeros(inputs, outputs, true, &device);
            map.weight = Weight::Dense(Param::from_tensor(weight.clone()).set_require_grad(false));
            map.bias = Some(Param::from_tensor(bias.clone()).set_require_grad(false));
            let factors_of = [a.clone(), b.clone()].map(Param::from_tensor);
            map.set_update(factors_of, dora.then(|| Param::from_tensor(magnitude.clone())), SCALE, 11);
            let input = x.clone().require_grad();
            let y = map.forward_masked(input.clone(), Some(&mask));
            let mut gradients = (y.clone() * seeds.clone()).sum().backward();
            let mut found = vec![host(y.inner()), host(input.grad_remove(&mut gradients).unwrap())];
            for factor in [&map.lora_A, &map.lora_B] {
                found.push(host(factor.as_ref().unwrap().weight.val().grad_remove(&mut gradients).unwrap()));
            }
            found.extend(map.magnitude().map(|m| host(m.grad_remove(&mut gradients).unwrap())));

            let [x, a, b] = [&x, &a, &b].map(|tensor| tensor.clone().require_grad());
            let magnitude = magnitude.clone().require_grad();
            let dropped = x.clone() * factors.clone();
            let update = dropped.clone().matmul(a.clone().transpose()).matmul(b.clone().transpose()).mul_scalar(SCALE);
            let base = x.clone().matmul(weight.clone().transpose()) + bias.clone().unsqueeze();
            let y = if dora {
                let sum = weight.clone() + b.clone().matmul(a.clone()).mul_scalar(SCALE);
                let norms = sum.square().sum_dim(1).sqrt().detach().transpose(); // [out, 1] -> [1, out]
                let ratio = magnitude.clone().unsqueeze::<2>() / norms;
                base + (ratio.clone() - 1.0) * dropped.matmul(weight.clone().transpose()) + ratio * update
            } else {
                base + update
            };
            let mut gradients = (y.clone() * seeds.clone()).sum().backward();
            let mut expected = vec![host(y.inner())];
            expected.extend([x, a, b].map(|leaf| host(leaf.grad_remove(&mut gradients).unwrap())));
            expected.extend(dora.then(|| host(magnitude.grad_remove(&mut gradients).unwrap())));
            assert_eq!(found.len(), expected.len());
            for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
                assert_close(found, expected, &format!("dora {dora}, tensor {i}"));
            }
        }
    }
}
