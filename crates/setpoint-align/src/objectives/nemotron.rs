//! Nemotron's reward-aware preference optimization: the difference of the rewards as a target for the margin.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::error::{Error, require_finite, require_positive};
use crate::pair::{Pair, PairLoss};
use crate::stable::{log_sigmoid, sigmoid};

/// The settings of [`rpo_sq`], [`rpo_bwd_kl`] and [`rpo_fwd_kl`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NemotronSettings {
    /// Strength of the pull to the reference (NeMo's `ref_policy_kl_penalty`), greater than 0. Default 0.2.
    pub beta: f64,
    /// Factor on the rewards (NeMo's `gt_reward_scale`). Default 1.
    pub reward_scale: f64,
}

impl Default for NemotronSettings {
    fn default() -> Self {
        Self { beta: 0.2, reward_scale: 1.0 }
    }
}

impl NemotronSettings {
    /// Checks every setting's range.
    ///
    /// # Errors
    /// [`Error::Setting`] naming the first setting out of range.
    pub fn validate(&self) -> Result<(), Error> {
        require_positive("beta", self.beta)?;
        require_finite("reward_scale", self.reward_scale)
    }
}

/// Squared distance (Adler et al. 2024, "Nemotron-4 340B"; NeMo-Aligner's `rpo_sq`).
///
/// ```text
/// loss = (D − G)²,      D = β(h_w − h_l),   G = scale·(r_w − r_l)
/// ```
///
/// Traps: with a scale of 1 it is [`crate::rpo`] with one reward model; "RPO" is Fisch et al.'s name too.
///
/// # Shapes
/// `log_ratios` and `rewards`: `[b]` per side.
///
/// # Units
/// Log-ratios in nats, summed over the response's tokens. Implicit rewards `β·h`.
pub fn rpo_sq(log_ratios: Pair, rewards: Pair, settings: &NemotronSettings) -> PairLoss {
    let truth = rewards.margin().mul_scalar(settings.reward_scale);
    let residual = log_ratios.clone().margin().mul_scalar(settings.beta) - truth;
    PairLoss { losses: residual.clone() * residual, rewards: log_ratios.without_graph().scaled(settings.beta) }
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
/// `log_ratios` and `rewards`: `[b]` per side.
///
/// # Units
/// Log-ratios in nats, summed over the response's tokens. Implicit rewards `β·h`.
pub fn rpo_bwd_kl(log_ratios: Pair, rewards: Pair, settings: &NemotronSettings) -> PairLoss {
    let truth = rewards.margin().mul_scalar(settings.reward_scale);
    let implied = log_ratios.clone().margin().mul_scalar(settings.beta);
    PairLoss { losses: bernoulli_kl(truth, implied), rewards: log_ratios.without_graph().scaled(settings.beta) }
}

/// The "forward" KL divergence, policy first (Adler et al. 2024; NeMo-Aligner's `rpo_fwd_kl`).
///
/// ```text
/// loss = KL(Bern(σ(D)) ‖ Bern(σ(G)))
/// ```
///
/// with D and G as in [`rpo_sq`].
///
/// Traps: the gradient vanishes where `σ(D)` is near 0 or 1, so a firm mistake is not unlearnt.
///
/// # Shapes
/// `log_ratios` and `rewards`: `[b]` per side.
///
/// # Units
/// Log-ratios in nats, summed over the response's tokens. Implicit rewards `β·h`.
pub fn rpo_fwd_kl(log_ratios: Pair, rewards: Pair, settings: &NemotronSettings) -> PairLoss {
    let truth = rewards.margin().mul_scalar(settings.reward_scale);
    let implied = log_ratios.clone().margin().mul_scalar(settings.beta);
    PairLoss { losses: bernoulli_kl(implied, truth), rewards: log_ratios.without_graph().scaled(settings.beta) }
}

/// `KL(Bern(σ(p)) ‖ Bern(σ(q)))` from the logits.
fn bernoulli_kl(p: Tensor<1>, q: Tensor<1>) -> Tensor<1> {
    let yes = log_sigmoid(p.clone()) - log_sigmoid(q.clone());
    let no = log_sigmoid(p.clone().neg()) - log_sigmoid(q.neg());
    sigmoid(p.clone()) * yes + sigmoid(p.neg()) * no
}
