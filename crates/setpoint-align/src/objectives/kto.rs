//! Kahneman–Tversky Optimization: rows that are good or bad, without pairs.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::aggregate::constant_like;
use crate::error::{Error, require_non_negative, require_positive};
use crate::row::RowLoss;
use crate::stable::sigmoid;

/// The settings of [`kto`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KtoSettings {
    /// Strength of the pull to the reference, greater than 0. Default 0.1.
    pub beta: f64,
    /// Weight of desirable rows, at least 0. Default 1.
    pub desirable_weight: f64,
    /// Weight of undesirable rows, at least 0. Default 1.
    pub undesirable_weight: f64,
}

impl Default for KtoSettings {
    fn default() -> Self {
        Self { beta: 0.1, desirable_weight: 1.0, undesirable_weight: 1.0 }
    }
}

impl KtoSettings {
    /// Checks every setting's range.
    ///
    /// # Errors
    /// [`Error::Setting`] naming the first setting out of range.
    pub fn validate(&self) -> Result<(), Error> {
        require_positive("beta", self.beta)?;
        require_non_negative("desirable_weight", self.desirable_weight)?;
        require_non_negative("undesirable_weight", self.undesirable_weight)
    }
}

/// The reference point `z` of [`kto`] from the log-ratios of mismatched pairs: prompts with another prompt's response.
///
/// ```text
/// z = max(0, mean h(x_i, y_{i−1}))
/// ```
///
/// An estimate of the policy's KL divergence from the reference, which is not negative. The mean is over the whole global batch.
///
/// # Units
/// Nats.
pub fn kto_reference_point(mismatched_log_ratios: &[f64]) -> f64 {
    if mismatched_log_ratios.is_empty() {
        return 0.0;
    }
    let mean = mismatched_log_ratios.iter().sum::<f64>() / mismatched_log_ratios.len() as f64;
    mean.max(0.0)
}

/// KTO (Ethayarajh et al. 2024, Eq. 8; trl's `KTOTrainer`).
///
/// ```text
/// loss = λ_D·(1 − σ(β(h − z)))     desirable rows
/// loss = λ_U·(1 − σ(β(z − h)))     undesirable rows
/// ```
///
/// Traps: no gradient passes through `z` ([`kto_reference_point`]), and it belongs to the whole batch: taken over micro-batches it changes
/// with their size. With one row a batch the mismatched pair is the row itself, and nothing is learnt. Unequal numbers of good and bad rows
/// want weights such that `λ_D·n_D ≈ λ_U·n_U`.
///
/// # Shapes
/// `log_ratios`: `[n]`; `desirable`: `n` entries.
///
/// # Units
/// `log_ratios` and `reference_point` in nats, log-ratios summed over the response's tokens.
///
/// # Panics
/// If `desirable` has another length than `log_ratios`.
pub fn kto(log_ratios: Tensor<1>, desirable: &[bool], reference_point: f64, settings: &KtoSettings) -> RowLoss {
    let KtoSettings { beta, desirable_weight, undesirable_weight } = *settings;
    assert_eq!(log_ratios.dims(), [desirable.len()], "a label per row");
    let per_row =
        |yes: f64, no: f64| -> Vec<f64> { desirable.iter().map(|&good| if good { yes } else { no }).collect() };
    // 1 − σ(x) = σ(−x), so that both kinds are σ(∓β(h − z)).
    let signs = constant_like(&per_row(-beta, beta), &log_ratios);
    let weights = constant_like(&per_row(desirable_weight, undesirable_weight), &log_ratios);
    let rewards = log_ratios.clone().inner().mul_scalar(beta);
    RowLoss { losses: sigmoid(log_ratios.sub_scalar(reference_point) * signs) * weights, rewards }
}
