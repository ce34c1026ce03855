//! Alignment via Optimal Transport: sorted values are compared, not those of a pair.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::error::{Error, require_positive, require_share};
use crate::pair::{Pair, PairLoss};
use crate::stable::log_sigmoid;

/// The settings of [`aot`] and [`aot_unpaired`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AotSettings {
    /// Strength of the pull to the reference, greater than 0. Default 0.1.
    pub beta: f64,
    /// The share ε of violations taken to be right, in `[0, 0.5)`. Default 0.
    pub label_smoothing: f64,
}

impl Default for AotSettings {
    fn default() -> Self {
        Self { beta: 0.1, label_smoothing: 0.0 }
    }
}

impl AotSettings {
    /// Checks every setting's range.
    ///
    /// # Errors
    /// [`Error::Setting`] naming the first setting out of range.
    pub fn validate(&self) -> Result<(), Error> {
        require_positive("beta", self.beta)?;
        require_share("label_smoothing", self.label_smoothing)
    }

    /// cDPO's loss of a difference.
    fn violation(&self, difference: Tensor<1>) -> Tensor<1> {
        let logits = difference.mul_scalar(self.beta);
        let right = log_sigmoid(logits.clone()).mul_scalar(-(1.0 - self.label_smoothing));
        right - log_sigmoid(logits.neg()).mul_scalar(self.label_smoothing)
    }
}

/// For each of `values`, the one of `others` that has the same rank; the first of equals ranks lower.
///
/// Both are those of the whole global batch: ranks within a micro-batch are other ranks.
///
/// # Panics
/// If the two differ in length.
///
/// ```
/// use setpoint_align::match_by_rank;
///
/// assert_eq!(match_by_rank(&[3.0, 1.0, 2.0], &[20.0, 30.0, 10.0]), [30.0, 10.0, 20.0]);
/// ```
pub fn match_by_rank(values: &[f64], others: &[f64]) -> Vec<f64> {
    assert_eq!(values.len(), others.len(), "as many values on both sides");
    let sorted = |values: &[f64]| {
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
        order
    };
    let mut matched = vec![0.0; values.len()];
    for (own, other) in sorted(values).into_iter().zip(sorted(others)) {
        matched[own] = others[other];
    }
    matched
}

/// AOT on pairs (Melnyk et al. 2024; trl's `aot`): the policy's margins shall dominate the reference's.
///
/// ```text
/// loss of pair i = −(1−ε)·log σ(β·d) − ε·log σ(−β·d),      d = m_i − m_ref of the same rank
/// m              = logp_w − logp_l, and the same of the reference, each sorted over the global batch
/// ```
///
/// `ref_margins` holds, for each pair, the reference's margin of the rank that the pair's own margin has among the policy's
/// ([`match_by_rank`]).
///
/// Traps: the loss couples all pairs of a batch, so its size is part of the objective; trl sorts within one device's micro-batch. A pair's
/// own reference margin is not what it is compared with.
///
/// # Shapes
/// `logps` and `ref_logps`: `[b]` per side; `ref_margins`: `[b]`.
///
/// # Units
/// Nats, summed over the response's tokens. Implicit rewards `β·h`.
pub fn aot(logps: Pair, ref_logps: Pair, ref_margins: Tensor<1>, settings: &AotSettings) -> PairLoss {
    let rewards = logps.clone().without_graph().minus(ref_logps).scaled(settings.beta);
    PairLoss { losses: settings.violation(logps.margin() - ref_margins), rewards }
}

/// AOT without pairs (Melnyk et al. 2024; trl's `aot_unpaired`): the chosen log-ratios shall dominate the rejected ones.
///
/// ```text
/// L = mean over ranks k of −(1−ε)·log σ(β·d_k) − ε·log σ(−β·d_k),      d_k = h_w of rank k − h_l of rank k
/// ```
///
/// `matched` holds, for each chosen response, the rejected log-ratio of its rank (`matched.chosen`), and for each rejected response the
/// chosen one of its rank (`matched.rejected`), by [`match_by_rank`] over the global batch. Each rank's loss is shared in halves by its two
/// responses, whose gradients are whole: sums over the batch are those of the formula, however the batch is cut.
///
/// Traps: those of [`aot`]; and the loss of a single pair means nothing.
///
/// # Shapes
/// `log_ratios` and `matched`: `[b]` per side.
///
/// # Units
/// Nats, summed over the response's tokens. Implicit rewards `β·h`.
pub fn aot_unpaired(log_ratios: Pair, matched: Pair, settings: &AotSettings) -> PairLoss {
    let rewards = log_ratios.clone().without_graph().scaled(settings.beta);
    let half = |losses: Tensor<1>| losses.clone() - losses.inner().mul_scalar(0.5);
    let chosen = settings.violation(log_ratios.chosen - matched.chosen);
    let rejected = settings.violation(matched.rejected - log_ratios.rejected);
    PairLoss { losses: half(chosen) + half(rejected), rewards }
}
