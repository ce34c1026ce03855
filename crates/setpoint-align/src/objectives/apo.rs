//! Anchored Preference Optimization: where both sides go, relative to the reference.

use crate::objective::Objective;
use crate::pair::{Pair, PairLoss};
use crate::pairwise::{PairBatch, PairObjective, PairOutput};
use crate::settings::{settings, share_settings};
use crate::stable::sigmoid;

settings! {
    /// The settings of [`apo_zero`] and [`apo_down`].
    pub struct ApoSettings {
        /// Strength of the pull to the reference.
        beta: f64 = 0.1, POSITIVE;
    }
}

share_settings! {
    ApoSettings:
    /// The objective [`apo_zero`].
    ApoZero,
    /// The objective [`apo_down`].
    ApoDown
}

impl Objective for ApoZero {
    const TITLE: &'static str = "Anchored Preference Optimization: chosen up, rejected down";
    const SOURCE: &'static str = "D'Oosterlinck et al. 2024";
}

impl Objective for ApoDown {
    const TITLE: &'static str = "Anchored Preference Optimization: both down, rejected more";
    const SOURCE: &'static str = "D'Oosterlinck et al. 2024";
}

impl PairObjective for ApoZero {
    fn losses(&self, batch: &PairBatch) -> PairOutput {
        apo_zero(batch.log_ratios(), &self.0).into()
    }
}

impl PairObjective for ApoDown {
    fn losses(&self, batch: &PairBatch) -> PairOutput {
        apo_down(batch.log_ratios(), &self.0).into()
    }
}

/// APO-zero (D'Oosterlinck et al. 2024, Eq. 7; trl's `apo_zero`): chosen up, rejected down.
///
/// ```text
/// loss = 1 − σ(β·h_w) + σ(β·h_l)
/// ```
///
/// For data whose chosen responses are better than what the policy says.
///
/// Traps: bounded, so the gradient vanishes for responses far from the reference on either side.
///
/// # Shapes
/// `h`: the log-ratios of the two sides, `[b]` each.
///
/// # Units
/// Log-ratios in nats, summed over the response's tokens. Implicit rewards `β·h`.
pub fn apo_zero(h: Pair, settings: &ApoSettings) -> PairLoss {
    let rewards = settings.beta * h;
    let logged = rewards.without_graph();
    // 1 − σ(x) = σ(−x), without cancellation.
    PairLoss { losses: sigmoid(-rewards.chosen) + sigmoid(rewards.rejected), rewards: logged }
}

/// APO-down (D'Oosterlinck et al. 2024, Eq. 8; trl's `apo_down`): both down, rejected more.
///
/// ```text
/// loss = σ(β·h_w) + 1 − σ(β(h_w − h_l))
/// ```
///
/// For data whose chosen responses are worse than what the policy says.
///
/// Traps: the chosen response's probability falls by design, which the displacement warning will say.
///
/// # Shapes
/// `h`: the log-ratios of the two sides, `[b]` each.
///
/// # Units
/// Log-ratios in nats, summed over the response's tokens. Implicit rewards `β·h`.
pub fn apo_down(h: Pair, settings: &ApoSettings) -> PairLoss {
    let rewards = settings.beta * h;
    let logged = rewards.without_graph();
    // 1 − σ(x) = σ(−x), without cancellation.
    let losses = sigmoid(rewards.chosen.clone()) + sigmoid(-(rewards.chosen - rewards.rejected));
    PairLoss { losses, rewards: logged }
}
