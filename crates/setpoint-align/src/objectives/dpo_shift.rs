//! DPO-Shift: DPO that pushes the rejected response down with less force.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::objective::Objective;
use crate::pair::{Pair, PairLoss};
use crate::pairwise::{PairBatch, PairObjective, PairOutput};
use crate::settings::{Numbers, settings};
use crate::stable::log_sigmoid;

settings! {
    /// The settings of [`dpo_shift`].
    pub struct DpoShiftSettings {
        /// Strength of the pull to the reference.
        beta: f64 = 0.01, POSITIVE;
        /// The factor f on the rejected log-ratio; 1 is DPO.
        shift: Shift = Shift::Fixed(0.95), SHARE;
    }
}

/// The factor of DPO-Shift over the training: the paper's f(λ).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a number, or { from = …, to = … }")]
pub enum Shift {
    /// The same at every step (the authors' `fixed`).
    Fixed(f64),
    /// On a straight line.
    Linear(LinearShift),
}

/// A straight line over the training: with `from < to` the authors' `increase_linear`, which ends as DPO for `to = 1`; with `from > to` their
/// `decrease_linear`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LinearShift {
    /// The factor at the first step.
    pub from: f64,
    /// The factor that the step after the last would have.
    pub to: f64,
}

impl Shift {
    /// Returns the factor when a share of the training's steps is done.
    ///
    /// ```text
    /// f(t) = from + (to − from)·t/T,      t = 0, 1, …, T − 1
    /// ```
    ///
    /// ```
    /// use setpoint_align::{LinearShift, Shift};
    ///
    /// assert_eq!(Shift::Fixed(0.95).at(0.5), 0.95);
    /// assert_eq!(Shift::Linear(LinearShift { from: 0.75, to: 1.0 }).at(0.5), 0.875);
    /// ```
    pub fn at(self, progress: f64) -> f64 {
        match self {
            Self::Fixed(factor) => factor,
            Self::Linear(LinearShift { from, to }) => from + (to - from) * progress,
        }
    }
}

impl Numbers for Shift {
    fn numbers(&self, name: &'static str) -> Vec<(&'static str, f64)> {
        match *self {
            Self::Fixed(factor) => vec![(name, factor)],
            Self::Linear(LinearShift { from, to }) => vec![("shift.from", from), ("shift.to", to)],
        }
    }
}

impl Objective for DpoShiftSettings {
    const TITLE: &'static str = "DPO-Shift, fixed or over the training";
    const SOURCE: &'static str = "Yang et al. 2025";
}

impl PairObjective for DpoShiftSettings {
    fn losses(&self, batch: &PairBatch) -> PairOutput {
        let h = batch.log_ratios();
        let factors = h.chosen.clone().inner().zeros_like() + self.shift.at(batch.progress);
        let loss = dpo_shift(h, batch.progress, self);
        PairOutput { loss, metrics: vec![("dpo_shift/factor", factors)] }
    }
}

/// DPO-Shift (Yang et al. 2025).
///
/// ```text
/// loss = −log σ(β(h_w − f·h_l))
/// ```
///
/// f is that of [`Shift::at`] when the share `progress` of the training's steps is done.
///
/// Traps: the loss is no longer a function of the margin: adding the same number to both log-ratios changes it. The implicit rewards do not have
/// the factor.
///
/// # Shapes
/// `h`: the log-ratios of the two sides, `[b]` each.
///
/// # Units
/// Log-ratios in nats, summed over the response's tokens. Implicit rewards `β·h`.
pub fn dpo_shift(h: Pair, progress: f64, settings: &DpoShiftSettings) -> PairLoss {
    let (beta, f) = (settings.beta, settings.shift.at(progress));
    let rewards = beta * h.without_graph();
    PairLoss { losses: -log_sigmoid(beta * (h.chosen - f * h.rejected)), rewards }
}
