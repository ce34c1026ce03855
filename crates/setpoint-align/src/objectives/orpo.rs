//! Odds Ratio Preference Optimization: NLL with a penalty on the odds ratio, no reference.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::error::{Error, require_non_negative};
use crate::pair::Pair;
use crate::stable::{log_sigmoid, log1mexp};

/// The settings of [`orpo`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OrpoSettings {
    /// Weight λ of the odds-ratio term (trl calls it `beta`), at least 0. Default 0.1.
    pub lambda: f64,
}

impl Default for OrpoSettings {
    fn default() -> Self {
        Self { lambda: 0.1 }
    }
}

impl OrpoSettings {
    /// Checks every setting's range.
    ///
    /// # Errors
    /// [`Error::Setting`] naming the first setting out of range.
    pub fn validate(&self) -> Result<(), Error> {
        require_non_negative("lambda", self.lambda)
    }
}

/// What [`orpo`] returns.
#[derive(Debug, Clone)]
pub struct OrpoLoss {
    /// The loss of each pair, unreduced, with its graph, `[b]`.
    pub losses: Tensor<1>,
    /// `log odds_w − log odds_l`, without a graph, `[b]`.
    pub log_odds_ratios: Tensor<1>,
    /// The implicit rewards `λ·m` that trl logs, without a graph.
    pub rewards: Pair,
}

/// ORPO (Hong et al. 2024, Eq. 6 and 7).
///
/// ```text
/// loss     = nll − λ·log σ(log odds_w − log odds_l)
/// log odds = m − log(1 − exp(m)),      m = log π_θ(y|x)/N_y
/// ```
///
/// `nll` is each pair's share of the chosen side's NLL, chosen such that its mean over the global
/// batch is the NLL wanted: for a mean over tokens, `−logp_i·(pairs/tokens of the batch)`.
///
/// Traps: paper and trl take the NLL over prompt and response, others over the response alone.
/// `1 − exp(m)` cancels for near-certain responses, and `log(sigmoid(·))` underflows; both are
/// computed stably here.
///
/// # Shapes
/// `mean_logps`: `[b]` per side, `nll`: `[b]`.
///
/// # Units
/// `mean_logps` in nats per token, at most 0; `nll` in nats.
pub fn orpo(mean_logps: Pair, nll: Tensor<1>, settings: &OrpoSettings) -> OrpoLoss {
    let log_odds = |m: Tensor<1>| m.clone() - log1mexp(m);
    let Pair { chosen, rejected } = mean_logps.clone();
    let ratios = log_odds(chosen) - log_odds(rejected);
    OrpoLoss {
        losses: nll - log_sigmoid(ratios.clone()).mul_scalar(settings.lambda),
        log_odds_ratios: ratios.inner(),
        rewards: mean_logps.without_graph().scaled(settings.lambda),
    }
}
