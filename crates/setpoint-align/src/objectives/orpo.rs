//! Odds Ratio Preference Optimization: NLL with a penalty on the odds ratio, no reference.

use burn::tensor::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::objective::{Axis, Objective};
use crate::pair::{Pair, PairLoss};
use crate::pairwise::{PairBatch, PairObjective, PairOutput};
use crate::settings::settings;
use crate::stable::{log_sigmoid, log1mexp};

settings! {
    /// The settings of [`orpo`].
    pub struct OrpoSettings {
        /// Weight λ of the odds-ratio term (trl calls it `beta`).
        lambda: f64 = 0.1, NON_NEGATIVE;
        /// The tokens that the NLL counts.
        nll_on: NllOn = NllOn::PromptAndResponse;
    }
}

/// Tokens that ORPO's NLL counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NllOn {
    /// Prompt and chosen response, as in the paper and trl.
    PromptAndResponse,
    /// The chosen response.
    Response,
}

impl Objective for OrpoSettings {
    const TITLE: &'static str = "Odds Ratio Preference Optimization";
    const SOURCE: &'static str = "Hong et al. 2024";
    const REFERENCE: bool = false;
    const SEARCH: &'static [Axis] = &[Axis::numbers("align.lambda", &[0.01, 0.05, 0.1, 1.0])];
}

impl PairObjective for OrpoSettings {
    fn losses(&self, batch: &PairBatch) -> PairOutput {
        let nll = match self.nll_on {
            NllOn::PromptAndResponse => batch.whole_nll.clone(),
            NllOn::Response => batch.response_nll.clone(),
        };
        let OrpoLoss { losses, log_odds_ratios, rewards } = orpo(batch.mean_logps(), nll.clone(), self);
        PairOutput {
            loss: PairLoss { losses, rewards },
            metrics: vec![
                // trl's names: the ratio is the log-sigmoid of what it calls chosen.
                ("log_odds_ratio", log_sigmoid(log_odds_ratios.clone())),
                ("log_odds_chosen", log_odds_ratios),
                ("nll_loss", nll.inner()),
            ],
        }
    }

    fn prompt_nll(&self) -> bool {
        self.nll_on == NllOn::PromptAndResponse
    }
}

/// The result of [`orpo`].
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
/// log odds = m − log(1 − exp(m)),      m = log π_θ(y|x)/N_y
/// ratio    = log odds_w − log odds_l
/// loss     = nll − λ·log σ(ratio)
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
/// `m` (mean log-probs): `[b]` per side, `nll`: `[b]`.
///
/// # Units
/// `m` in nats per token, at most 0; `nll` in nats.
pub fn orpo(m: Pair, nll: Tensor<1>, settings: &OrpoSettings) -> OrpoLoss {
    let lambda = settings.lambda;
    let rewards = lambda * m.without_graph();
    let log_odds = |m: Tensor<1>| m.clone() - log1mexp(m);
    let ratio = log_odds(m.chosen) - log_odds(m.rejected);
    OrpoLoss { losses: nll - lambda * log_sigmoid(ratio.clone()), log_odds_ratios: ratio.inner(), rewards }
}
