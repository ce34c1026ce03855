//! Kahneman–Tversky Optimization: rows that are good or bad, without pairs.

use burn::tensor::Tensor;

use crate::aggregate::constant_like;
use crate::objective::Objective;
use crate::row::{Baseline, Desirable, RowBatch, RowLoss, RowObjective};
use crate::settings::settings;
use crate::stable::sigmoid;

settings! {
    /// The settings of [`kto`].
    pub struct KtoSettings {
        /// Strength of the pull to the reference.
        beta: f64 = 0.1, POSITIVE;
        /// Weight of desirable rows.
        desirable_weight: f64 = 1.0, NON_NEGATIVE;
        /// Weight of undesirable rows.
        undesirable_weight: f64 = 1.0, NON_NEGATIVE;
        /// The responses that count as desirable if the data has rewards and no labels: `"best"` of a prompt, or `{ above = reward }`.
        desirable: Desirable = Desirable::Best;
    }
}

impl Objective for KtoSettings {
    const TITLE: &'static str = "Kahneman–Tversky Optimization";
    const SOURCE: &'static str = "Ethayarajh et al. 2024";
}

impl RowObjective for KtoSettings {
    fn beta(&self) -> f64 {
        self.beta
    }

    fn losses(&self, batch: &RowBatch) -> RowLoss {
        kto(batch.log_ratios.clone(), &batch.desirable, batch.baseline, self)
    }

    fn desirable(&self) -> Option<Desirable> {
        Some(self.desirable)
    }

    fn baseline(&self) -> Option<Baseline> {
        Some(Baseline { name: "kl", of: kto_reference_point })
    }
}

/// Computes the reference point `z` of [`kto`] from the log-ratios of mismatched pairs: prompts with another prompt's response.
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
/// loss = λ_D·(1 − σ(β(h − z))) = λ_D·σ(−β(h − z))     desirable rows
/// loss = λ_U·(1 − σ(β(z − h))) = λ_U·σ(β(h − z))      undesirable rows
/// ```
///
/// Traps: no gradient passes through `z` ([`kto_reference_point`]), and it belongs to the whole batch: taken over micro-batches it changes
/// with their size. With one row a batch the mismatched pair is the row itself, and nothing is learnt. Unequal numbers of good and bad rows
/// want weights such that `λ_D·n_D ≈ λ_U·n_U`.
///
/// # Shapes
/// `h` (log-ratios): `[n]`; `desirable`: `n` entries.
///
/// # Units
/// `h` and `z` in nats, log-ratios summed over the response's tokens.
///
/// # Panics
/// If `desirable` has another length than `h`.
pub fn kto(h: Tensor<1>, desirable: &[bool], z: f64, settings: &KtoSettings) -> RowLoss {
    let KtoSettings { beta, desirable_weight, undesirable_weight, .. } = *settings;
    assert_eq!(h.dims(), [desirable.len()], "a label per row");
    let per_row = |yes: f64, no: f64| {
        constant_like(&desirable.iter().map(|&good| if good { yes } else { no }).collect::<Vec<_>>(), &h)
    };
    let (signed_beta, lambda) = (per_row(-beta, beta), per_row(desirable_weight, undesirable_weight));
    let rewards = beta * h.clone().inner();
    RowLoss { losses: sigmoid((h - z) * signed_beta) * lambda, rewards }
}
