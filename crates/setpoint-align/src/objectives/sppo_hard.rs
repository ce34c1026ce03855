//! Self-Play Preference Optimization with hard labels: a target for each log-ratio.

use crate::objective::Objective;
use crate::pair::{Pair, PairLoss};
use crate::pairwise::{PairBatch, PairObjective, PairOutput};
use crate::settings::settings;
use crate::stable::square;

settings! {
    /// The settings of [`sppo_hard`].
    pub struct SppoHardSettings {
        /// The paper's 1/η: the targets are `±1/(2β)` nats.
        beta: f64 = 0.001, POSITIVE;
    }
}

impl Objective for SppoHardSettings {
    const TITLE: &'static str = "Self-Play Preference Optimization, hard labels";
    const SOURCE: &'static str = "Wu et al. 2024";
}

impl PairObjective for SppoHardSettings {
    fn losses(&self, batch: &PairBatch) -> PairOutput {
        sppo_hard(batch.log_ratios(), self).into()
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
/// `h`: the log-ratios of the two sides, `[b]` each.
///
/// # Units
/// Log-ratios in nats, summed over the response's tokens. Implicit rewards `β·h`.
pub fn sppo_hard(h: Pair, settings: &SppoHardSettings) -> PairLoss {
    let rewards = settings.beta * h.without_graph();
    let target = 0.5 / settings.beta;
    PairLoss { losses: square(h.chosen - target) + square(h.rejected + target), rewards }
}
