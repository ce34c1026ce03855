use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use setpoint_ops::rms_norm;

use crate::linear::constant;

/// Root mean square normalisation: Zhang and Sennrich, <https://arxiv.org/abs/1910.07467>, equation 4.
///
/// `y = w · x / sqrt(mean(x²) + eps)`, the fraction in f32 and rounded to the dtype of `x` before `w` is applied, as transformers does.
#[derive(Module, Debug)]
pub struct RmsNorm {
    /// `[hidden]`.
    pub weight: Param<Tensor<1>>,
    eps: f64,
}

impl RmsNorm {
    /// The norm with weights of one.
    pub fn ones(hidden: usize, eps: f64, device: &Device) -> Self {
        Self { weight: constant([hidden], 1.0, device), eps }
    }

    /// Normalises rows.
    ///
    /// # Shapes
    ///
    /// `[t, hidden] -> [t, hidden]`
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        rms_norm(x, self.weight.val(), self.eps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finite_difference::{check, devices, tensor};

    #[test]
    fn gradients() {
        for device in devices() {
            let norm = RmsNorm { weight: Param::from_tensor(tensor(5, [6], &device)), eps: 1e-5 };
            check([6, 6], &device, |x| norm.forward(x));
            let x = tensor(6, [6, 6], &device);
            check([6], &device, |weight| {
                let norm = RmsNorm { weight: Param::initialized(norm.weight.id, weight), eps: 1e-5 };
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
