//! Direct Reward Optimisation of Richemond et al.: a learned value in the place of the normaliser.

use burn::tensor::Tensor;

use crate::objective::Objective;
use crate::row::RowLoss;
use crate::settings::settings;
use crate::stable::square;

settings! {
    /// The settings of [`dro_v`].
    pub struct DroVSettings {
        /// The paper's τ, reward per nat of log-ratio.
        beta: f64 = 1.0, POSITIVE;
    }
}

impl Objective for DroVSettings {
    const TITLE: &'static str = "Direct Reward Optimisation with a learned value, another algorithm of the same name";
    const SOURCE: &'static str = "Richemond et al. 2024";
    const REWARDS: bool = true;
}

/// DRO-V (Richemond et al. 2024, "Offline Regularised Reinforcement Learning for LLM Alignment").
///
/// ```text
/// loss = ½·(r − V(x) − β·h)²
/// ```
///
/// Gradients reach the log-ratios and the values, which a network of their own computes. At the optimum `V(x) = β·log Z(x)`, the number that
/// [`crate::dro`] gets from one setting and the policy itself.
///
/// Traps: another algorithm of the same name. The paper gives policy and value separate networks and learning rates. Values per prompt that
/// are fitted to the data at hand (the mean of `r − β·h`) leave nothing to learn from a prompt with one response.
///
/// # Shapes
/// `h` (log-ratios), `r` (rewards) and `v` (`V(x)` of each response's prompt): `[n]`.
///
/// # Units
/// Log-ratios in nats, summed over the response's tokens; values in units of reward.
pub fn dro_v(h: Tensor<1>, r: Tensor<1>, v: Tensor<1>, settings: &DroVSettings) -> RowLoss {
    let implied = settings.beta * h;
    RowLoss { losses: 0.5 * square(r - v - implied.clone()), rewards: implied.inner() }
}
