//! Direct Preference Optimization, with label smoothing.

use serde::{Deserialize, Serialize};

use crate::error::{Error, require_positive, require_share};
use crate::pair::{Pair, PairLoss};
use crate::stable::log_sigmoid;

/// The settings of [`dpo`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DpoSettings {
    /// Strength of the pull to the reference, greater than 0. Default 0.1.
    pub beta: f64,
    /// The share ε of labels taken to be wrong, in `[0, 0.5)`. Default 0: plain DPO.
    pub label_smoothing: f64,
}

impl Default for DpoSettings {
    fn default() -> Self {
        Self { beta: 0.1, label_smoothing: 0.0 }
    }
}

impl DpoSettings {
    /// Checks every setting's range.
    ///
    /// # Errors
    /// [`Error::Setting`] naming the first setting out of range.
    pub fn validate(&self) -> Result<(), Error> {
        require_positive("beta", self.beta)?;
        require_share("label_smoothing", self.label_smoothing)
    }
}

/// DPO (Rafailov et al. 2023, Eq. 7; DRO paper, Eq. 4), with cDPO's label smoothing (Mitchell 2023).
///
/// ```text
/// loss = −(1−ε)·log σ(β(h_w − h_l)) − ε·log σ(−β(h_w − h_l))
/// ```
///
/// Traps: only the difference of the log-ratios is trained, so both may fall together (likelihood
/// displacement). trl 1.x no longer applies label smoothing to its `sigmoid` loss; the original
/// repository, LLaMA-Factory and OpenRLHF do.
///
/// # Shapes
/// `log_ratios`: `h` of the two sides, `[b]` each.
///
/// # Units
/// Log-ratios in nats, summed over the response's tokens. Implicit rewards `β·h`.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use setpoint_align::{DpoSettings, Pair, dpo};
///
/// let device = Device::flex();
/// let log_ratios = Pair {
///     chosen: Tensor::from_floats([0.0], &device),
///     rejected: Tensor::from_floats([0.0], &device),
/// };
/// let loss = dpo(log_ratios, &DpoSettings::default()).losses.into_scalar::<f32>();
/// assert!((loss - 2f32.ln()).abs() < 1e-6);
/// ```
pub fn dpo(log_ratios: Pair, settings: &DpoSettings) -> PairLoss {
    let smoothing = settings.label_smoothing;
    let logits = log_ratios.clone().margin().mul_scalar(settings.beta);
    let right = log_sigmoid(logits.clone()).mul_scalar(-(1.0 - smoothing));
    let losses = if smoothing == 0.0 { right } else { right - log_sigmoid(logits.neg()).mul_scalar(smoothing) };
    PairLoss { losses, rewards: log_ratios.without_graph().scaled(settings.beta) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_checked() {
        assert_eq!(DpoSettings::default().validate(), Ok(()));
        assert!(DpoSettings { beta: f64::INFINITY, ..Default::default() }.validate().is_err());
        assert!(DpoSettings { label_smoothing: 0.5, ..Default::default() }.validate().is_err());
        assert!(toml::from_str::<DpoSettings>("beta = 0.2\nsmoothing = 0.1").is_err());
        let settings: DpoSettings = toml::from_str("label_smoothing = 0.1").unwrap();
        assert_eq!(settings, DpoSettings { beta: 0.1, label_smoothing: 0.1 });
    }
}
