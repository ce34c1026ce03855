//! Reward-model distillation: the difference of the rewards, by least squares.

use std::path::PathBuf;

use burn::tensor::Tensor;

use crate::objective::Objective;
use crate::pair::{Pair, PairLoss};
use crate::pairwise::{PairBatch, PairObjective, PairOutput};
use crate::settings::settings;
use crate::stable::square;

settings! {
    /// The settings of [`rpo`].
    pub struct RpoSettings {
        /// Reward per nat of log-ratio.
        beta: f64 = 0.1, POSITIVE;
        /// Weight γ of the pessimistic term; 0 turns it off.
        pessimism: f64 = 0.0, NON_NEGATIVE;
        /// The training file annotated by further reward models: each pair uses the model that gives it the lowest loss.
        ensemble: Vec<PathBuf> = Vec::new();
    }
}

impl Objective for RpoSettings {
    const TITLE: &'static str = "reward-model distillation, with an ensemble and pessimistic";
    const SOURCE: &'static str = "Fisch et al. 2024";
    const REWARDS: bool = true;
}

impl PairObjective for RpoSettings {
    fn losses(&self, batch: &PairBatch) -> PairOutput {
        // Held-out rows have the rewards of the first model alone.
        let models = batch.rewards.len().min(1 + self.ensemble.len());
        rpo(batch.log_ratios(), &batch.rewards[..models], self).into()
    }

    fn reward_files(&self) -> &[PathBuf] {
        &self.ensemble
    }
}

/// Robust Preference Optimization by reward distillation (Fisch et al. 2024), with its ensemble and
/// pessimistic forms.
///
/// ```text
/// loss = min over reward models of (r_w − r_l − β(h_w − h_l))²  −  ½·γ·(h_w + h_l)
/// ```
///
/// The DRO paper's baseline has one reward model and γ = 0. With two responses per prompt,
/// `L_DRO = ¼·L_RPO + mean of ((e_1 + e_2)/2)²`: RPO is the part of DRO that fits differences.
///
/// Traps: the pairs need no order, and rewards that contradict a label are followed, not the label.
/// Nemotron's "RPO" is another family.
///
/// # Shapes
/// `h` (log-ratios) and each of `models` (the rewards `r` by one model): `[b]` per side.
///
/// # Units
/// Log-ratios in nats, losses in squared units of reward.
///
/// # Panics
/// If there is no reward model.
pub fn rpo(h: Pair, models: &[Pair], settings: &RpoSettings) -> PairLoss {
    let RpoSettings { beta, pessimism, .. } = *settings;
    let rewards = beta * h.without_graph();
    let implied = beta * h.clone().margin();
    let squares = models.iter().map(|r| square(r.clone().margin() - implied.clone()));
    let losses = squares.reduce(Tensor::min_pair).expect("at least one reward model");
    let losses = match pessimism {
        0.0 => losses,
        gamma => losses - 0.5 * gamma * (h.chosen + h.rejected),
    };
    PairLoss { losses, rewards }
}
