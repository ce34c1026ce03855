//! Identity Preference Optimization.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::objective::{Axis, Objective};
use crate::pair::{Pair, PairLoss};
use crate::pairwise::{PairBatch, PairObjective, PairOutput};
use crate::settings::settings;
use crate::stable::square;

/// The divisor of IPO's log-ratios.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum IpoNormalize {
    /// The response's number of tokens, as trl and LLaMA-Factory do.
    #[default]
    Tokens,
    /// Nothing, as the original repository and OpenRLHF do.
    None,
}

settings! {
    /// The settings of [`ipo`].
    pub struct IpoSettings {
        /// The paper's τ: the margin aimed at is `1/(2β)` nats.
        beta: f64 = 0.1, POSITIVE;
        /// The divisor of the log-ratios.
        normalize: IpoNormalize = IpoNormalize::Tokens;
    }
}

impl Objective for IpoSettings {
    const TITLE: &'static str = "Identity Preference Optimization";
    const SOURCE: &'static str = "Azar et al. 2023";
    const SEARCH: &'static [Axis] = &[Axis::BETA, Axis::RATE];
}

impl PairObjective for IpoSettings {
    fn losses(&self, batch: &PairBatch) -> PairOutput {
        ipo(batch.log_ratios(), batch.tokens.clone(), self).into()
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
/// `h` (log-ratios) and `tokens` (the responses' token counts): `[b]` per side.
///
/// # Units
/// Log-ratios in nats, summed over the response's tokens.
pub fn ipo(h: Pair, tokens: Pair, settings: &IpoSettings) -> PairLoss {
    let beta = settings.beta;
    let rewards = beta * h.without_graph();
    let h = match settings.normalize {
        IpoNormalize::Tokens => h / tokens,
        IpoNormalize::None => h,
    };
    PairLoss { losses: square(h.chosen - h.rejected - 1.0 / (2.0 * beta)), rewards }
}
