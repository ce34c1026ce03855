//! β-DPO: DPO whose β follows the margins of the batch.

use burn::tensor::Tensor;

use crate::objective::Objective;
use crate::pair::{Pair, PairLoss};
use crate::pairwise::{PairBatch, PairObjective, PairOutput, SurveyedPair};
use crate::settings::settings;
use crate::stable::log_sigmoid;

settings! {
    /// The settings of [`beta_dpo`].
    pub struct BetaDpoSettings {
        /// The paper's β₀: strength of the pull to the reference at the threshold.
        beta: f64 = 0.1, POSITIVE;
        /// The share of β₀ that each nat of the mean margin above the threshold adds; 0 is DPO.
        alpha: f64 = 0.6, NON_NEGATIVE;
        /// The paper's M₀: the mean margin at which β is β₀, nats.
        threshold: f64 = 0.0, FINITE;
    }
}

impl Objective for BetaDpoSettings {
    const TITLE: &'static str = "β-DPO: β follows the batch's mean margin";
    const SOURCE: &'static str = "Wu et al. 2024 (β-DPO)";
}

impl PairObjective for BetaDpoSettings {
    fn losses(&self, batch: &PairBatch) -> PairOutput {
        let mean_margin = batch.survey[0].clone();
        let metrics = vec![("beta_dpo/beta", batch_beta(mean_margin.clone().inner(), self))];
        PairOutput { loss: beta_dpo(batch.log_ratios(), mean_margin, self), metrics }
    }

    fn surveys(&self) -> bool {
        true
    }

    /// Returns the mean margin, the same for every pair.
    fn survey(&self, batch: &[SurveyedPair]) -> Vec<Vec<f64>> {
        let total: f64 = batch.iter().map(|pair| pair.log_ratios().margin()).sum();
        vec![vec![total / batch.len() as f64; batch.len()]]
    }
}

/// The least β of a batch, as in the authors' code.
const LEAST_BETA: f64 = 1e-3;

/// β-DPO (Wu et al. 2024, "β-DPO: Direct Preference Optimization with Dynamic β"), with batch-level calibration.
///
/// ```text
/// M    = mean over the global batch of h_w − h_l, without a gradient
/// β    = max(β₀·(α(M − M₀) + 1), 0.001)
/// loss = −log σ(β(h_w − h_l))
/// ```
///
/// `mean_margin` holds M for each pair.
///
/// Traps: M is in nats, as in the authors' code, not in units of reward. Their M₀ is a moving average of M (momentum 0.9),
/// and they leave out a fifth of each batch, drawn by how far its margins are from M₀. Both would be state that a resumed
/// run has to restore; here M₀ is a setting and every pair counts. The mean couples all pairs of a batch, so its size is
/// part of the objective.
///
/// # Shapes
/// `h`: the log-ratios of the two sides, `[b]` each; `mean_margin`: `[b]`.
///
/// # Units
/// Nats, summed over the response's tokens. Implicit rewards `β₀·h`, as the authors log them.
pub fn beta_dpo(h: Pair, mean_margin: Tensor<1>, settings: &BetaDpoSettings) -> PairLoss {
    let rewards = settings.beta * h.without_graph();
    let beta = batch_beta(mean_margin, settings);
    PairLoss { losses: -log_sigmoid(beta * (h.chosen - h.rejected)), rewards }
}

/// Computes the β of the batch for each pair.
fn batch_beta(mean_margin: Tensor<1>, settings: &BetaDpoSettings) -> Tensor<1> {
    let BetaDpoSettings { beta, alpha, threshold } = *settings;
    (beta * (alpha * (mean_margin - threshold) + 1.0)).clamp_min(LEAST_BETA)
}
