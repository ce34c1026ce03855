use burn::module::{Module, Param};
use burn::tensor::{Device, FloatDType, Tensor};
use setpoint_ops::rms_norm;

use crate::config::ModelConfig;
use crate::design::NormWeight;
use crate::linear::constant;

/// Root mean square normalisation: Zhang and Sennrich, <https://arxiv.org/abs/1910.07467>, equation 4.
///
/// `y = w · x / sqrt(mean(x²) + eps)`, the fraction in f32. [`NormWeight`] says how the weight applies to it: by default, it is rounded to the
/// dtype of `x` first, as transformers does.
#[derive(Module, Debug)]
pub struct RmsNorm {
    /// `[hidden]`.
    pub weight: Param<Tensor<1>>,
    eps: f64,
    #[module(skip)]
    kind: NormWeight,
}

impl RmsNorm {
    /// Creates a norm of a model, with weights that change nothing.
    pub(crate) fn fresh(width: usize, config: &ModelConfig, device: &Device) -> Self {
        let kind = config.design.norm_weight;
        let neutral = if kind == NormWeight::OnePlus { 0.0 } else { 1.0 };
        Self { weight: constant([width], neutral, device), eps: config.rms_norm_eps, kind }
    }

    /// The norm with weights of one.
    pub fn ones(hidden: usize, eps: f64, device: &Device) -> Self {
        Self { weight: constant([hidden], 1.0, device), eps, kind: NormWeight::Rounded }
    }

    /// Normalises rows.
    ///
    /// # Shapes
    ///
    /// `[t, hidden] -> [t, hidden]`
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let weight = self.weight.val();
        if self.kind == NormWeight::Rounded {
            return rms_norm(x, weight, self.eps);
        }
        let dtype: FloatDType = x.dtype().into();
        let weight = weight.cast(FloatDType::F32);
        let weight = if self.kind == NormWeight::OnePlus { weight.add_scalar(1.0) } else { weight };
        rms_norm(x.cast(FloatDType::F32), weight, self.eps).cast(dtype)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finite_difference::{check, devices, tensor};

    #[test]
    fn gradients() {
        let kinds = [NormWeight::Rounded, NormWeight::Wide, NormWeight::OnePlus];
        for (device, kind) in devices().into_iter().flat_map(|device| kinds.map(|kind| (device.clone(), kind))) {
            let norm = RmsNorm { weight: Param::from_tensor(tensor(5, [6], &device)), eps: 1e-5, kind };
            check([6, 6], &device, |x| norm.forward(x));
            let x = tensor(6, [6, 6], &device);
            check([6], &device, |weight| {
                let norm = RmsNorm { weight: Param::initialized(norm.weight.id, weight), eps: 1e-5, kind };
                norm.forward(x.clone())
            });
        }
    }

    #[test]
    fn epsilon_keeps_zeros_finite() {
        for device in devices() {
            let y = RmsNorm::ones(4, 1e-6, &device).forward(Tensor::zeros([1, 4], &device));
            assert_eq!(y.into_data().try_into_vec::<f32>().unwrap(), [0.0; 4]);
        }
    }
}
