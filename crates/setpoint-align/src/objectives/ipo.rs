//! Identity Preference Optimization.

use serde::{Deserialize, Serialize};

use crate::error::{Error, require_positive};
use crate::pair::{Pair, PairLoss};

/// What IPO's log-ratios are divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IpoNormalize {
    /// The response's number of tokens, as trl and LLaMA-Factory do.
    #[default]
    Tokens,
    /// Nothing, as the original repository and OpenRLHF do.
    None,
}

/// The settings of [`ipo`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IpoSettings {
    /// The paper's τ, greater than 0: the margin aimed at is `1/(2β)` nats. Default 0.1.
    pub beta: f64,
    /// What the log-ratios are divided by.
    pub normalize: IpoNormalize,
}

impl Default for IpoSettings {
    fn default() -> Self {
        Self { beta: 0.1, normalize: IpoNormalize::Tokens }
    }
}

impl IpoSettings {
    /// Checks every setting's range.
    ///
    /// # Errors
    /// [`Error::Setting`] naming the first setting out of range.
    pub fn validate(&self) -> Result<(), Error> {
        require_positive("beta", self.beta)
    }
}

/// IPO (Azar et al. 2023, Eq. 17).
///
/// ```text
/// loss = (h_w/N_w − h_l/N_l − 1/(2β))²        normalize = tokens
/// loss = (h_w − h_l − 1/(2β))²                normalize = none
/// ```
///
/// Traps: the two forms need values of β that differ by the length of the responses. The logged
/// rewards are `β·h`, not normalised, in both.
///
/// # Shapes
/// `log_ratios` and `tokens` (the responses' token counts): `[b]` per side.
///
/// # Units
/// Log-ratios in nats, summed over the response's tokens.
pub fn ipo(log_ratios: Pair, tokens: Pair, settings: &IpoSettings) -> PairLoss {
    let rewards = log_ratios.clone().without_graph().scaled(settings.beta);
    let normalized = match settings.normalize {
        IpoNormalize::Tokens => log_ratios.divided_by(tokens),
        IpoNormalize::None => log_ratios,
    };
    let residual = normalized.margin().sub_scalar(1.0 / (2.0 * settings.beta));
    PairLoss { losses: residual.clone() * residual, rewards }
}
