//! DPO-Shift: DPO that pushes the rejected response down with less force.

use serde::{Deserialize, Serialize};

use crate::error::{Error, require_positive};
use crate::pair::{Pair, PairLoss};
use crate::stable::log_sigmoid;

/// The settings of [`dpo_shift`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DpoShiftSettings {
    /// Strength of the pull to the reference, greater than 0. Default 0.01, the paper's recipe.
    pub beta: f64,
    /// The factor f on the rejected log-ratio, in `(0, 1]`. Default 0.95; 1 is DPO.
    pub shift: Shift,
}

/// The factor of DPO-Shift over the training: the paper's f(λ).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a number, or { from = …, to = … }")]
pub enum Shift {
    /// The same at every step (the authors' `fixed`).
    Fixed(f64),
    /// On a straight line.
    Linear(LinearShift),
}

/// A straight line over the training: with `from < to` the authors' `increase_linear`, which ends as DPO for `to = 1`; with `from > to` their
/// `decrease_linear`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinearShift {
    /// At the first step.
    pub from: f64,
    /// What it would be at the step after the last.
    pub to: f64,
}

impl Shift {
    /// The factor when a share of the training's steps is done.
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

impl Default for DpoShiftSettings {
    fn default() -> Self {
        Self { beta: 0.01, shift: Shift::Fixed(0.95) }
    }
}

impl DpoShiftSettings {
    /// Checks every setting's range.
    ///
    /// # Errors
    /// [`Error::Setting`] naming the first setting out of range.
    pub fn validate(&self) -> Result<(), Error> {
        require_positive("beta", self.beta)?;
        let wrong =
            |name, found: f64| Error::Setting { name, expected: "above 0 and at most 1", found: found.to_string() };
        let ends = match self.shift {
            Shift::Fixed(factor) => vec![("shift", factor)],
            Shift::Linear(LinearShift { from, to }) => vec![("shift.from", from), ("shift.to", to)],
        };
        match ends.into_iter().find(|(_, factor)| !(*factor > 0.0 && *factor <= 1.0)) {
            Some((name, factor)) => Err(wrong(name, factor)),
            None => Ok(()),
        }
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
/// `log_ratios`: `h` of the two sides, `[b]` each.
///
/// # Units
/// Log-ratios in nats, summed over the response's tokens. Implicit rewards `β·h`.
pub fn dpo_shift(log_ratios: Pair, progress: f64, settings: &DpoShiftSettings) -> PairLoss {
    let (beta, factor) = (settings.beta, settings.shift.at(progress));
    let Pair { chosen, rejected } = log_ratios.clone();
    let logits = (chosen - rejected.mul_scalar(factor)).mul_scalar(beta);
    PairLoss { losses: log_sigmoid(logits).neg(), rewards: log_ratios.without_graph().scaled(beta) }
}
