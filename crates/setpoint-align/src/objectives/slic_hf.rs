//! Sequence Likelihood Calibration with Human Feedback: a hinge on log-probabilities, no reference.

use burn::tensor::activation::relu;

use crate::objective::{Axis, Objective};
use crate::pair::{Pair, PairLoss};
use crate::pairwise::{PairBatch, PairObjective, PairOutput};
use crate::settings::settings;

settings! {
    /// The settings of [`slic_hf`].
    pub struct SlicHfSettings {
        /// The margin δ of the hinge, nats.
        delta: f64 = 1.0, NON_NEGATIVE;
        /// Weight λ of the likelihood term.
        lambda: f64 = 0.1, NON_NEGATIVE;
    }
}

impl Objective for SlicHfSettings {
    const TITLE: &'static str = "Sequence Likelihood Calibration";
    const SOURCE: &'static str = "Zhao et al. 2023";
    const REFERENCE: bool = false;
    const SEARCH: &'static [Axis] =
        &[Axis::numbers("align.lambda", &[0.05, 0.1, 0.5, 1.0, 5.0]), Axis::rates(&[1e-7, 2e-7, 5e-7])];
}

impl PairObjective for SlicHfSettings {
    fn losses(&self, batch: &PairBatch) -> PairOutput {
        slic_hf(batch.logps.clone(), self).into()
    }
}

/// SLiC-HF (Zhao et al. 2023, Eq. 2), with the chosen response as the likelihood term's target.
///
/// ```text
/// loss = max(0, δ − (logp_w − logp_l)) − λ·logp_w
/// ```
///
/// Traps: log-probabilities are sums, and there is no reference; trl's `hinge` is another loss (on
/// `β(h_w − h_l)`).
///
/// # Shapes
/// `logps`: `log π_θ(y|x)` of the two sides, `[b]` each.
///
/// # Units
/// Nats, summed over the response's tokens. The implicit reward is the log-probability itself.
pub fn slic_hf(logps: Pair, settings: &SlicHfSettings) -> PairLoss {
    let SlicHfSettings { delta, lambda } = *settings;
    let rewards = logps.without_graph();
    let Pair { chosen, rejected } = logps;
    PairLoss { losses: relu(delta - (chosen.clone() - rejected)) - lambda * chosen, rewards }
}
