//! Direct Preference Optimization, with label smoothing.

use crate::objective::{Axis, Objective};
use crate::pair::{Pair, PairLoss};
use crate::pairwise::{PairBatch, PairObjective, PairOutput};
use crate::settings::settings;
use crate::stable::log_sigmoid;

settings! {
    /// The settings of [`dpo`].
    pub struct DpoSettings {
        /// Strength of the pull to the reference.
        beta: f64 = 0.1, POSITIVE;
        /// The share ε of labels taken to be wrong; 0 is plain DPO.
        label_smoothing: f64 = 0.0, BELOW_HALF;
    }
}

impl Objective for DpoSettings {
    const TITLE: &'static str = "Direct Preference Optimization, with label smoothing cDPO";
    const SOURCE: &'static str = "Rafailov et al. 2023; Mitchell 2023";
    const SEARCH: &'static [Axis] = &[Axis::BETA, Axis::RATE];
}

impl PairObjective for DpoSettings {
    fn losses(&self, batch: &PairBatch) -> PairOutput {
        dpo(batch.log_ratios(), self).into()
    }
}

/// DPO (Rafailov et al. 2023, Eq. 7; DRO paper, Eq. 4), with cDPO's label smoothing (Mitchell 2023).
///
/// ```text
/// x    = β(h_w − h_l)
/// loss = −(1−ε)·log σ(x) − ε·log σ(−x)
/// ```
///
/// Traps: only the difference of the log-ratios is trained, so both may fall together (likelihood
/// displacement). trl 1.x no longer applies label smoothing to its `sigmoid` loss; the original
/// repository, LLaMA-Factory and OpenRLHF do.
///
/// # Shapes
/// `h`: the log-ratios of the two sides, `[b]` each.
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
pub fn dpo(h: Pair, settings: &DpoSettings) -> PairLoss {
    let DpoSettings { beta, label_smoothing: e } = *settings;
    let rewards = beta * h.without_graph();
    let x = beta * (h.chosen - h.rejected);
    let losses = match e {
        0.0 => -log_sigmoid(x),
        e => -(1.0 - e) * log_sigmoid(x.clone()) - e * log_sigmoid(-x),
    };
    PairLoss { losses, rewards }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

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
