//! The clipped ratio of the policy to the one that sampled: the heart of PPO, RLOO, GRPO and REINFORCE++.

use burn::tensor::Tensor;

use crate::settings::Problem;

/// Log-ratios above this limit are set to it, nats: `exp(40)` is 2e17. The gradient beyond it is 0.
///
/// trl has no such limit: there a log-ratio of 89 is an infinite ratio in f32, and its gradient no number.
pub const LARGEST_LOG_RATIO: f64 = 40.0;

/// The range in which a ratio moves the loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Clip {
    /// ε: ratios below `1 − ε` give no further reason to lower a probability.
    pub low: f64,
    /// ε_high: ratios above `1 + ε_high` give no further reason to raise one.
    pub high: f64,
    /// The largest ratio that counts for a negative advantage; `None` for no limit.
    pub cap: Option<f64>,
}

/// The result of [`clipped_policy`].
#[derive(Debug, Clone)]
pub struct ClippedPolicy {
    /// The loss of each entry, unreduced, with its graph, `[n]`.
    pub losses: Tensor<1>,
    /// `ρ`, with its graph, `[n]`.
    pub ratios: Tensor<1>,
}

/// Computes the clipped policy loss (Schulman et al. 2017, Eq. 7; with two widths, Yu et al. 2025, DAPO, Eq. 10).
///
/// ```text
/// ρ    = exp(lp − old)
/// loss = −min(min(ρ, cap)·A, clip(ρ, 1 − ε, 1 + ε_high)·A)
/// ```
///
/// The gradient is 0 where `A > 0` and `ρ > 1 + ε_high`, where `A < 0` and `ρ < 1 − ε`, and where `A < 0` and `ρ > cap`: the
/// policy has moved far enough, and the advantage would move it further. On the other side a clipped ratio has its full
/// gradient. At ρ = 1 the gradient is that of REINFORCE, `−A`.
///
/// `cap` is trl's `delta` (INTELLECT-2) and, which is the same, the constant c of dual-clip PPO (Ye et al. 2020): for a
/// negative advantage the loss is at most `−cap·A`. It must be above `1 + ε_high`.
///
/// # Shapes
/// `log_ratios` and `advantages`: `[n]`, tokens or whole responses.
///
/// # Units
/// Log-ratios in nats, limited to [`LARGEST_LOG_RATIO`]; advantages in any unit, which is that of the loss.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use setpoint_align::online::{Clip, clipped_policy};
///
/// let device = Device::flex();
/// let log_ratios = Tensor::from_floats([1.5f32.ln(), 1.5f32.ln()], &device);
/// let advantages = Tensor::from_floats([1.0, -1.0], &device);
/// let clip = Clip { low: 0.2, high: 0.2, cap: None };
/// let losses = clipped_policy(log_ratios, advantages, &clip).losses.into_data().to_vec::<f32>().unwrap();
/// assert!((losses[0] + 1.2).abs() < 1e-6 && (losses[1] - 1.5).abs() < 1e-6);
/// ```
pub fn clipped_policy(log_ratios: Tensor<1>, advantages: Tensor<1>, clip: &Clip) -> ClippedPolicy {
    let Clip { low, high, cap } = *clip;
    let ratios = exp_limited(log_ratios);
    let clipped = ratios.clone().clamp(1.0 - low, 1.0 + high);
    let free = match cap {
        Some(cap) => ratios.clone().clamp_max(cap),
        None => ratios.clone(),
    };
    // Where both are equal, the free one is taken, whose gradient is that of an unclipped ratio.
    let objective = (free * advantages.clone()).min_pair(clipped * advantages);
    ClippedPolicy { losses: -objective, ratios }
}

/// Computes `exp(x)` of a log-ratio that is limited to [`LARGEST_LOG_RATIO`].
pub(super) fn exp_limited(x: Tensor<1>) -> Tensor<1> {
    x.clamp_max(LARGEST_LOG_RATIO).exp()
}

/// Computes Schulman's k3 estimate `e^d − d − 1` with `d = ref − lp`, and its gradient `1 − e^d` in `lp`.
///
/// # Units
/// Nats.
pub(super) fn k3(logps: Tensor<1>, ref_logps: Tensor<1>) -> Tensor<1> {
    let d = ref_logps - logps;
    exp_limited(d.clone()) - d - 1.0
}

impl Clip {
    /// Returns what is wrong with the cap.
    pub(super) fn problem(&self) -> Option<Problem> {
        let (cap, least) = (self.cap?, 1.0 + self.high);
        let message = || format!("setting `ratio_cap` must be above 1 + clip_high = {least}, found {cap}");
        (cap <= least).then(|| Problem::new(Some("ratio_cap"), message()))
    }

    /// Returns whether the loss of a ratio is clipped below, and whether it is clipped above, as trl counts it.
    pub(super) fn sides(&self, ratio: f64, advantage: f64) -> (bool, bool) {
        (ratio < 1.0 - self.low && advantage < 0.0, ratio > 1.0 + self.high && advantage > 0.0)
    }
}
