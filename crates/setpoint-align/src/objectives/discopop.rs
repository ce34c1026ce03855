//! The loss that a language model discovered: logistic and exponential, blended.

use crate::objective::Objective;
use crate::pair::{Pair, PairLoss};
use crate::pairwise::{PairBatch, PairObjective, PairOutput};
use crate::settings::settings;
use crate::stable::{log_sigmoid, sigmoid};

settings! {
    /// The settings of [`discopop`].
    pub struct DiscopopSettings {
        /// Strength of the pull to the reference.
        beta: f64 = 0.05, POSITIVE;
        /// Temperature τ of the blend: above 1 the exponential outgrows its weight, and the loss of a
        /// wrong pair overflows.
        tau: f64 = 0.05, SHARE;
    }
}

impl Objective for DiscopopSettings {
    const TITLE: &'static str = "the discovered log-ratio modulated loss";
    const SOURCE: &'static str = "Lu et al. 2024";
}

impl PairObjective for DiscopopSettings {
    fn losses(&self, batch: &PairBatch) -> PairOutput {
        discopop(batch.log_ratios(), self).into()
    }
}

/// DiscoPOP, the log-ratio modulated loss (Lu et al. 2024, Eq. 5; trl's `discopop`).
///
/// ```text
/// x    = β(h_w − h_l),   s = σ(x/τ)
/// loss = −(1−s)·log σ(x) + s·exp(−x)
/// ```
///
/// Traps: not convex, and around `x = −2τ` a local optimum turns wrong pairs the wrong way. `s·exp(−x)` is computed as `exp(log s − x)`:
/// the product is 0·∞ for a pair that is far the wrong way round.
///
/// # Shapes
/// `h`: the log-ratios of the two sides, `[b]` each.
///
/// # Units
/// Log-ratios in nats, summed over the response's tokens. Implicit rewards `β·h`.
pub fn discopop(h: Pair, settings: &DiscopopSettings) -> PairLoss {
    let DiscopopSettings { beta, tau } = *settings;
    let rewards = beta * h.without_graph();
    let x = beta * (h.chosen - h.rejected);
    // Not `x / tau`: its gradient takes the reciprocal in f32, whatever the dtype.
    let blend = x.clone() * (1.0 / tau);
    let logistic = sigmoid(-blend.clone()) * -log_sigmoid(x.clone());
    let exponential = (log_sigmoid(blend) - x).exp();
    PairLoss { losses: logistic + exponential, rewards }
}
