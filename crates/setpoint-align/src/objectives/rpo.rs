//! Reward-model distillation: the difference of the rewards, by least squares.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::error::{Error, require_non_negative, require_positive};
use crate::pair::{Pair, PairLoss};

/// The settings of [`rpo`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RpoSettings {
    /// Reward per nat of log-ratio, greater than 0. Default 0.1.
    pub beta: f64,
    /// Weight γ of the pessimistic term, at least 0. Default 0: none.
    pub pessimism: f64,
}

impl Default for RpoSettings {
    fn default() -> Self {
        Self { beta: 0.1, pessimism: 0.0 }
    }
}

impl RpoSettings {
    /// Checks every setting's range.
    ///
    /// # Errors
    /// [`Error::Setting`] naming the first setting out of range.
    pub fn validate(&self) -> Result<(), Error> {
        require_positive("beta", self.beta)?;
        require_non_negative("pessimism", self.pessimism)
    }
}

/// Robust Preference Optimization by reward distillation (Fisch et al. 2024), with its ensemble and
/// pessimistic forms.
///
/// ```text
/// loss = min over reward models of (r_w − r_l − β(h_w − h_l))²  +  γ·½(−h_w − h_l)
/// ```
///
/// The DRO paper's baseline has one reward model and γ = 0. With two responses per prompt,
/// `L_DRO = ¼·L_RPO + mean of ((e_1 + e_2)/2)²`: RPO is the part of DRO that fits differences.
///
/// Traps: the pairs need no order, and rewards that contradict a label are followed, not the label.
/// Nemotron's "RPO" is another family.
///
/// # Shapes
/// `log_ratios` and each of `rewards`: `[b]` per side; one entry of `rewards` per reward model.
///
/// # Units
/// Log-ratios in nats, losses in squared units of reward.
///
/// # Panics
/// If `rewards` is empty.
pub fn rpo(log_ratios: Pair, rewards: &[Pair], settings: &RpoSettings) -> PairLoss {
    let implied = log_ratios.clone().margin().mul_scalar(settings.beta);
    let squares = rewards.iter().map(|model| {
        let residual = model.clone().margin() - implied.clone();
        residual.clone() * residual
    });
    let losses = squares.reduce(Tensor::min_pair).expect("at least one reward model");
    let losses = if settings.pessimism == 0.0 {
        losses
    } else {
        let both = log_ratios.chosen.clone() + log_ratios.rejected.clone();
        losses - both.mul_scalar(0.5 * settings.pessimism)
    };
    PairLoss { losses, rewards: log_ratios.without_graph().scaled(settings.beta) }
}
