//! A hinge on the difference of the log-ratios.

use burn::tensor::activation::relu;

use crate::objective::Objective;
use crate::pair::{Pair, PairLoss};
use crate::pairwise::{PairBatch, PairObjective, PairOutput};
use crate::settings::settings;

settings! {
    /// The settings of [`hinge`].
    pub struct HingeSettings {
        /// The reciprocal of the margin in nats.
        beta: f64 = 0.1, POSITIVE;
    }
}

impl Objective for HingeSettings {
    const TITLE: &'static str = "RSO's hinge";
    const SOURCE: &'static str = "Liu et al. 2023";
}

impl PairObjective for HingeSettings {
    fn losses(&self, batch: &PairBatch) -> PairOutput {
        hinge(batch.log_ratios(), self).into()
    }
}

/// The hinge loss of RSO (Liu et al. 2023, "Statistical Rejection Sampling"; trl's `hinge`).
///
/// ```text
/// loss = max(0, 1 − β(h_w − h_l))
/// ```
///
/// Traps: trl files it under SLiC-HF, which has no reference; that is [`crate::slic_hf`]. A pair with a margin of `1/β` nats or more has
/// no gradient at all; at the kink itself the gradient is 0 too, as in torch.
///
/// # Shapes
/// `h`: the log-ratios of the two sides, `[b]` each.
///
/// # Units
/// Log-ratios in nats, summed over the response's tokens. Implicit rewards `β·h`.
pub fn hinge(h: Pair, settings: &HingeSettings) -> PairLoss {
    let beta = settings.beta;
    let rewards = beta * h.without_graph();
    PairLoss { losses: relu(1.0 - beta * (h.chosen - h.rejected)), rewards }
}
