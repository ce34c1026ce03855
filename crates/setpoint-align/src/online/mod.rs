//! Online methods: PPO, RLOO, GRPO and REINFORCE++, whose responses the policy itself samples during training.
//!
//! A *round* samples responses to some prompts, scores them and takes optimizer steps on them. For each response the
//! training loop collects the numbers of [`Sampled`]: its reward, and for each of its `N` tokens the log-probability
//! under the policy that sampled (`old`), under the reference (`ref`), and the value network's estimate. From these,
//! [`OnlineObjective::prepare`] computes once per round an advantage for every token, in f64 on the host. Every step
//! then computes log-probabilities with a graph, and [`OnlineObjective::losses`] the loss of each response.
//!
//! ```text
//! rewards ──► clip, normalise, penalties ──► advantages ──► losses ──► Σ losses / Σ weights
//!             rewards.rs                     advantage.rs   ratio.rs   the training loop
//! ```
//!
//! # Notation
//!
//! `y_1 … y_N` is a response, which ends with its stop token or is cut. `lp_t`, `old_t` and `ref_t` are log-probabilities
//! of `y_t` in nats, **at the sampling temperature** (logits divided by it). `ρ = exp(lp − old)` is the ratio of the
//! policy to the one that sampled. A response of weight 0 takes no part: one without a reward, or one that
//! `mask_truncated` leaves out.
//!
//! # Sampling
//!
//! The formulas hold if the policy that is trained is the one that sampled: top-p 1, top-k 0, no repetition penalty.

mod advantage;
mod grpo;
mod guards;
mod kl;
mod list;
mod metrics;
mod objective;
mod ppo;
mod ratio;
mod reinforce_pp;
mod repetition;
mod rewards;
mod rloo;
mod runs;
mod sampling;
mod value;

pub use advantage::{
    DEVIATION_FLOOR, Gae, ScaleRewards, gae, group_relative, leave_one_out, normalize, returns_to_go, whiten,
};
pub use grpo::{GrpoLoss, GrpoSettings, Importance};
pub use guards::{GuardAction, GuardWarning, Guards, RoundSigns, Sign};
pub use kl::{KlController, KlEstimator};
pub use list::{ONLINE_METHODS, OnlineMethod};
pub use metrics::rollout_metrics;
pub use objective::{OnlineObjective, OnlineState, PolicyBatch, PolicyMetrics, PolicyOutput, Prepared, Sampled};
pub use ppo::{PpoSettings, RewardAt, ValueInit, ValueSource};
pub use ratio::{Clip, ClippedPolicy, LARGEST_LOG_RATIO, clipped_policy};
pub use reinforce_pp::{GroupBaseline, ReinforcePpSettings};
pub use repetition::{correlation, equal_share, repetitive_share};
pub use rewards::{RewardShape, combine_rewards, source_metrics, token_rewards};
pub use rloo::RlooSettings;
pub use sampling::{SamplingCorrection, correction_metrics, limited_share, sampling_weights};
pub use value::{ValueBatch, ValueOutput, clipped_value, explained_variance};
