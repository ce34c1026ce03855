//! Simple Preference Optimization: mean log-probabilities with a margin, no reference.

use crate::objective::{Axis, Objective};
use crate::pair::{Pair, PairLoss};
use crate::pairwise::{PairBatch, PairObjective, PairOutput};
use crate::settings::settings;
use crate::stable::log_sigmoid;

settings! {
    /// The settings of [`simpo`].
    pub struct SimpoSettings {
        /// Scale of the mean log-probabilities.
        beta: f64 = 2.0, POSITIVE;
        /// The target margin γ as a multiple of β.
        gamma_beta_ratio: f64 = 0.5, FINITE;
    }
}

impl Objective for SimpoSettings {
    const TITLE: &'static str = "Simple Preference Optimization";
    const SOURCE: &'static str = "Meng et al. 2024";
    const REFERENCE: bool = false;
    const SEARCH: &'static [Axis] = &[
        Axis::numbers("align.beta", &[1.0, 2.0, 2.5]),
        // The table has γ.
        Axis::numbers("align.gamma_beta_ratio", &[0.3, 0.5, 0.7, 1.0, 1.5]).divided_by("align.beta"),
    ];
}

impl PairObjective for SimpoSettings {
    fn losses(&self, batch: &PairBatch) -> PairOutput {
        simpo(batch.mean_logps(), self).into()
    }
}

/// SimPO (Meng et al. 2024, Eq. 6).
///
/// ```text
/// γ    = β·gamma_beta_ratio
/// loss = −log σ(β(m_w − m_l) − γ),      m = log π_θ(y|x)/N_y
/// ```
///
/// Traps: DPO's β (0.1) is far too small here, since `m` is a mean. trl's `CPOTrainer` takes γ itself
/// and adds an NLL term unless told not to.
///
/// # Shapes
/// `m` (mean log-probs): `[b]` per side.
///
/// # Units
/// Nats per token. Implicit rewards `β·m`.
pub fn simpo(m: Pair, settings: &SimpoSettings) -> PairLoss {
    let SimpoSettings { beta, gamma_beta_ratio } = *settings;
    let rewards = beta * m.without_graph();
    let gamma = beta * gamma_beta_ratio;
    PairLoss { losses: -log_sigmoid(beta * (m.chosen - m.rejected) - gamma), rewards }
}
