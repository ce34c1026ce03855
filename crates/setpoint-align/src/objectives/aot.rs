//! Alignment via Optimal Transport: sorted values are compared, not those of a pair.

use burn::tensor::Tensor;

use crate::objective::Objective;
use crate::pair::{Pair, PairLoss};
use crate::pairwise::{PairBatch, PairObjective, PairOutput, SurveyedPair};
use crate::settings::{settings, share_settings};
use crate::stable::log_sigmoid;

settings! {
    /// The settings of [`aot`] and [`aot_unpaired`].
    pub struct AotSettings {
        /// Strength of the pull to the reference.
        beta: f64 = 0.1, POSITIVE;
        /// The share ε of violations taken to be right.
        label_smoothing: f64 = 0.0, BELOW_HALF;
    }
}

share_settings! {
    AotSettings:
    /// The objective [`aot`].
    Aot,
    /// The objective [`aot_unpaired`].
    AotUnpaired
}

impl Objective for Aot {
    const TITLE: &'static str = "Alignment via Optimal Transport, of margins";
    const SOURCE: &'static str = "Melnyk et al. 2024";
}

impl Objective for AotUnpaired {
    const TITLE: &'static str = "Alignment via Optimal Transport, of sides";
    const SOURCE: &'static str = "Melnyk et al. 2024";
}

impl PairObjective for Aot {
    fn losses(&self, batch: &PairBatch) -> PairOutput {
        aot(batch.logps.clone(), batch.ref_logps.clone(), batch.survey[0].clone(), &self.0).into()
    }

    fn surveys(&self) -> bool {
        true
    }

    fn survey(&self, batch: &[SurveyedPair]) -> Vec<Vec<f64>> {
        let margins: Vec<f64> = batch.iter().map(|pair| pair.logps.margin()).collect();
        let ref_margins: Vec<f64> = batch.iter().map(|pair| pair.ref_logps.margin()).collect();
        vec![match_by_rank(&margins, &ref_margins)]
    }
}

impl PairObjective for AotUnpaired {
    fn losses(&self, batch: &PairBatch) -> PairOutput {
        let [chosen, rejected] = [0, 1].map(|side| batch.survey[side].clone());
        aot_unpaired(batch.log_ratios(), Pair { chosen, rejected }, &self.0).into()
    }

    fn surveys(&self) -> bool {
        true
    }

    fn survey(&self, batch: &[SurveyedPair]) -> Vec<Vec<f64>> {
        let h_w: Vec<f64> = batch.iter().map(|pair| pair.log_ratios().chosen).collect();
        let h_l: Vec<f64> = batch.iter().map(|pair| pair.log_ratios().rejected).collect();
        vec![match_by_rank(&h_w, &h_l), match_by_rank(&h_l, &h_w)]
    }
}

/// For each of `values`, returns the one of `others` that has the same rank; the first of equals ranks lower.
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
    let rewards = settings.beta * (logps.clone() - ref_logps).without_graph();
    let margins = logps.chosen - logps.rejected;
    PairLoss { losses: violation(margins - ref_margins, settings), rewards }
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
pub fn aot_unpaired(h: Pair, matched: Pair, settings: &AotSettings) -> PairLoss {
    let rewards = settings.beta * h.without_graph();
    let half = |losses: Tensor<1>| losses.clone() - losses.inner() * 0.5;
    let chosen = violation(h.chosen - matched.chosen, settings);
    let rejected = violation(matched.rejected - h.rejected, settings);
    PairLoss { losses: half(chosen) + half(rejected), rewards }
}

/// Computes cDPO's loss of a difference.
fn violation(difference: Tensor<1>, settings: &AotSettings) -> Tensor<1> {
    let AotSettings { beta, label_smoothing: e } = *settings;
    let x = beta * difference;
    -(1.0 - e) * log_sigmoid(x.clone()) - e * log_sigmoid(-x)
}
