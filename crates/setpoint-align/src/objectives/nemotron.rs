//! Nemotron's reward-aware preference optimization: the difference of the rewards as a target for the margin.

use burn::tensor::Tensor;

use crate::objective::Objective;
use crate::pair::{Pair, PairLoss};
use crate::pairwise::{PairBatch, PairObjective, PairOutput};
use crate::settings::{settings, share_settings};
use crate::stable::{log_sigmoid, sigmoid, square};

settings! {
    /// The settings of [`rpo_sq`], [`rpo_bwd_kl`] and [`rpo_fwd_kl`].
    pub struct NemotronSettings {
        /// Strength of the pull to the reference (NeMo's `ref_policy_kl_penalty`).
        beta: f64 = 0.2, POSITIVE;
        /// Factor on the rewards (NeMo's `gt_reward_scale`).
        reward_scale: f64 = 1.0, FINITE;
    }
}

share_settings! {
    NemotronSettings:
    /// The objective [`rpo_sq`].
    RpoSq,
    /// The objective [`rpo_bwd_kl`].
    RpoBwdKl,
    /// The objective [`rpo_fwd_kl`].
    RpoFwdKl
}

const SOURCE: &str = "Adler et al. 2024 (Nemotron-4)";

impl Objective for RpoSq {
    const TITLE: &'static str = "Nemotron's reward-aware loss: squared distance";
    const SOURCE: &'static str = SOURCE;
    const REWARDS: bool = true;
}

impl Objective for RpoBwdKl {
    const TITLE: &'static str = "Nemotron's reward-aware loss: KL, ground truth first";
    const SOURCE: &'static str = SOURCE;
    const REWARDS: bool = true;
}

impl Objective for RpoFwdKl {
    const TITLE: &'static str = "Nemotron's reward-aware loss: KL, policy first";
    const SOURCE: &'static str = SOURCE;
    const REWARDS: bool = true;
}

impl PairObjective for RpoSq {
    fn losses(&self, batch: &PairBatch) -> PairOutput {
        rpo_sq(batch.log_ratios(), batch.rewards[0].clone(), &self.0).into()
    }
}

impl PairObjective for RpoBwdKl {
    fn losses(&self, batch: &PairBatch) -> PairOutput {
        rpo_bwd_kl(batch.log_ratios(), batch.rewards[0].clone(), &self.0).into()
    }
}

impl PairObjective for RpoFwdKl {
    fn losses(&self, batch: &PairBatch) -> PairOutput {
        rpo_fwd_kl(batch.log_ratios(), batch.rewards[0].clone(), &self.0).into()
    }
}

/// Squared distance (Adler et al. 2024, "Nemotron-4 340B"; NeMo-Aligner's `rpo_sq`).
///
/// ```text
/// D    = β(h_w − h_l),   G = scale·(r_w − r_l)
/// loss = (D − G)²
/// ```
///
/// Traps: with a scale of 1 it is [`crate::rpo`] with one reward model; "RPO" is Fisch et al.'s name too.
///
/// # Shapes
/// `h` (log-ratios) and `r` (rewards): `[b]` per side.
///
/// # Units
/// Log-ratios in nats, summed over the response's tokens. Implicit rewards `β·h`.
pub fn rpo_sq(h: Pair, r: Pair, settings: &NemotronSettings) -> PairLoss {
    let rewards = settings.beta * h.without_graph();
    let (d, g) = distances(h, r, settings);
    PairLoss { losses: square(d - g), rewards }
}

/// The "backward" KL divergence, ground truth first (Adler et al. 2024; NeMo-Aligner's `rpo_bwd_kl`).
///
/// ```text
/// loss = KL(Bern(σ(G)) ‖ Bern(σ(D)))
///      = σ(G)·(log σ(G) − log σ(D)) + σ(−G)·(log σ(−G) − log σ(−D))
/// ```
///
/// with D and G as in [`rpo_sq`]. Its gradient in D is `σ(D) − σ(G)`: DPO whose label is `σ(G)`.
///
/// Traps: what NeMo calls backward is what most call forward.
///
/// # Shapes
/// `h` (log-ratios) and `r` (rewards): `[b]` per side.
///
/// # Units
/// Log-ratios in nats, summed over the response's tokens. Implicit rewards `β·h`.
pub fn rpo_bwd_kl(h: Pair, r: Pair, settings: &NemotronSettings) -> PairLoss {
    let rewards = settings.beta * h.without_graph();
    let (d, g) = distances(h, r, settings);
    PairLoss { losses: bernoulli_kl(g, d), rewards }
}

/// The "forward" KL divergence, policy first (Adler et al. 2024; NeMo-Aligner's `rpo_fwd_kl`).
///
/// ```text
/// loss = KL(Bern(σ(D)) ‖ Bern(σ(G)))
/// ```
///
/// with D and G as in [`rpo_sq`].
///
/// Traps: the gradient vanishes where `σ(D)` is near 0 or 1, so a firm mistake is not unlearned.
///
/// # Shapes
/// `h` (log-ratios) and `r` (rewards): `[b]` per side.
///
/// # Units
/// Log-ratios in nats, summed over the response's tokens. Implicit rewards `β·h`.
pub fn rpo_fwd_kl(h: Pair, r: Pair, settings: &NemotronSettings) -> PairLoss {
    let rewards = settings.beta * h.without_graph();
    let (d, g) = distances(h, r, settings);
    PairLoss { losses: bernoulli_kl(d, g), rewards }
}

/// Computes `D = β(h_w − h_l)` and `G = scale·(r_w − r_l)`.
fn distances(h: Pair, r: Pair, settings: &NemotronSettings) -> (Tensor<1>, Tensor<1>) {
    let NemotronSettings { beta, reward_scale: scale } = *settings;
    (beta * (h.chosen - h.rejected), scale * (r.chosen - r.rejected))
}

/// Computes `KL(Bern(σ(p)) ‖ Bern(σ(q)))` from the logits.
fn bernoulli_kl(p: Tensor<1>, q: Tensor<1>) -> Tensor<1> {
    let yes = log_sigmoid(p.clone()) - log_sigmoid(q.clone());
    let no = log_sigmoid(-p.clone()) - log_sigmoid(-q);
    sigmoid(p.clone()) * yes + sigmoid(-p) * no
}
