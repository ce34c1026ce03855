//! Self-Play Preference Optimization with hard labels: a target for each log-ratio.

use serde::{Deserialize, Serialize};

use crate::error::{Error, require_positive};
use crate::pair::{Pair, PairLoss};

/// The settings of [`sppo_hard`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SppoHardSettings {
    /// The paper's 1/η, greater than 0: the targets are `±1/(2β)` nats. Default 0.001.
    pub beta: f64,
}

impl Default for SppoHardSettings {
    fn default() -> Self {
        Self { beta: 0.001 }
    }
}

impl SppoHardSettings {
    /// Checks every setting's range.
    ///
    /// # Errors
    /// [`Error::Setting`] naming the first setting out of range.
    pub fn validate(&self) -> Result<(), Error> {
        require_positive("beta", self.beta)
    }
}

/// SPPO with hard labels (Wu et al. 2024, Eq. 4.7 with a win probability of 1; trl's `sppo_hard`).
///
/// ```text
/// loss = (h_w − 1/(2β))² + (h_l + 1/(2β))²
/// ```
///
/// With rewards of ±½, `log_z0 = 0` and no prompt term, `L_DRO = β²/2 · L_SPPO` for two responses per prompt.
///
/// Traps: the paper's β asks for ±500 nats, a direction rather than a target.
///
/// # Shapes
/// `log_ratios`: `h` of the two sides, `[b]` each.
///
/// # Units
/// Log-ratios in nats, summed over the response's tokens. Implicit rewards `β·h`.
pub fn sppo_hard(log_ratios: Pair, settings: &SppoHardSettings) -> PairLoss {
    let target = 0.5 / settings.beta;
    let chosen = log_ratios.chosen.clone().sub_scalar(target);
    let rejected = log_ratios.rejected.clone().add_scalar(target);
    PairLoss {
        losses: chosen.clone() * chosen + rejected.clone() * rejected,
        rewards: log_ratios.without_graph().scaled(settings.beta),
    }
}
