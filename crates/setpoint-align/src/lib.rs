//! The objectives of alignment as pure functions on tensors, and what surrounds them on the host:
//! reward transforms, `log_z0`, the audit, metrics, the displacement warning.
//!
//! Nothing here knows a model, a tokenizer or an optimizer. An objective takes a few numbers per
//! sequence (log-probabilities from one forward pass of the policy, stored reference
//! log-probabilities, rewards) and returns unreduced losses with their graph. The backend is a
//! property of the tensors' [`Device`](burn::tensor::Device), so the same functions run on all.
//!
//! # Direct Reward Optimization
//!
//! RLHF's objective has a known optimum, `π̂(y|x) = π_ref(y|x)·exp(r(x,y)/β)/Z(x)` (paper, Eq. 5
//! and 14). DPO cancels the unknown `Z(x)` by comparing two responses, and with it any say over
//! where their probabilities end up: both may fall. DRO keeps `Z(x)`. If the reward of a text does
//! not depend on where it is split into prompt and response, normalisers of nested prefixes differ
//! by a log-ratio (Eq. 6),
//!
//! ```text
//! log Z(x) = log Z(t0) + log π̂(x|t0) − log π_ref(x|t0)
//! ```
//!
//! so one number, `log_z0 = log Z(t0)` of the prefix `t0` that all prompts share, fixes all of
//! them. DRO takes it as a setting, uses the current policy for `π̂` without a gradient, and fits
//! the rest by least squares (Eq. 7): every response gets an exact target for its log-ratio,
//! `r/β − log Z(x)`. Differences of rewards set differences of log-ratios, `log_z0` sets their
//! level. [`dro`] is that function.
//!
//! What follows from it, and is tested here:
//!
//! - a reward of `β·log_z0` (the [break-even reward](break_even_reward)) leaves a response's
//!   probability where it is; the paper's β = 0.1 and `log_z0` = 50 put it at 5;
//! - targets are probabilities only if `Σ_y π_ref(y|x)·exp(r/β) ≤ exp(log Z(x))` over the data of a
//!   prompt; [`audit`] checks this and what else can be known before training;
//! - the level of the rewards matters, and a Bradley–Terry model leaves it free per prompt;
//!   [`RewardTransform::CenterPerPrompt`] removes it.
//!
//! For readers of the paper: its "Z_0 = 50" is a logarithm, in nats. Its Eq. 8 conditions the
//! wrong way round (read: all tokens after `t0`, given `t0`); "are within our optimization scope"
//! below it must read "are not"; the middle line of Eq. 17 has a stray β and a wrong sign;
//! Algorithm 1 mixes epochs and steps; Fig. 2(b) and (c) use different units. The method appears
//! in a later paper under the name RAO; "DRO" of Richemond et al. (2024) is another algorithm.
//!
//! # How a training loop uses it
//!
//! Before training: transform the rewards ([`RewardTransform::fit`]), resolve `log_z0`
//! ([`LogZ0::resolve`]), [`audit`]. Per micro-batch: put host numbers beside the log-probs
//! ([`constant_like`]), call the objective, reduce with the weights of the global batch
//! ([`Aggregate`], [`weighted_sum`]). Per step: read what is [`Unread`], record and merge the
//! [`Metrics`], and feed the [`DisplacementDetector`].

mod aggregate;
mod audit;
mod displacement;
mod error;
mod levers;
mod list;
mod log_z0;
mod method;
mod metrics;
mod nll;
mod objective;
mod objectives;
pub mod online;
mod pair;
mod pairwise;
mod preferences;
mod prompt_index;
mod prompt_log_z;
mod prompt_rewards;
mod prompts;
mod reward_transform;
mod row;
mod settings;
mod stable;
mod summary;
mod unread;

pub use aggregate::{Aggregate, constant_like, weighted_sum};
pub use audit::{
    AuditData, AuditPrompt, AuditReport, AuditSettings, Estimated, FEASIBILITY_TOLERANCE, Fall, Feasibility, Finding,
    InfeasiblePrompt, LabelDisagreement, Masses, Offsets, Quarter, Recommended, ScoredResponse, Severity, Shares,
    Subject, TELLING_SHARE, Targets, Verdict, audit, audit_data, least_level_per_token, prompt_log_mass,
};
pub use displacement::{
    ChosenStep, DisplacementDetector, DisplacementSettings, DisplacementThreshold, DisplacementWarning,
};
pub use error::Error;
pub use levers::{Closeness, LevelSetting, Levers};
pub use log_z0::{LogZ0, break_even_reward, log_z0_of};
pub use method::{Mix, PairRule, Pairwise, PairwiseMethod, Training, Weighted};
pub use metrics::{Metric, Metrics, Moments, ResponsePoint};
pub use nll::{best_nll, mixed, token_mean_nll};
pub use objective::{About, Axis, Objective, Preset, TrainsOn, Value, Values};
pub use objectives::*;
pub use pair::{Pair, PairLoss};
pub use pairwise::{PairBatch, PairObjective, PairOutput, Sides, SurveyedPair, WeightedObjective};
pub use preferences::Preferences;
pub use prompt_index::PromptIndex;
pub use prompt_log_z::{LEAST_SAMPLES, PromptLogZ, ReferenceSample, log_z_of_samples, prompt_log_z};
pub use prompt_rewards::{PromptRewards, Role, check_targets, chosen_rewards};
pub use prompts::{PromptBatch, PromptObjective, PromptOutput, PromptValues, T0Name, T0Setting, Update};
pub use reward_transform::{ClipRange, FittedTransform, RewardTransform};
pub use row::{Baseline, Desirable, RowBatch, RowLoss, RowObjective};
pub use settings::{Problem, Settings};
pub use stable::{log_sigmoid, log1mexp, sigmoid};
pub use summary::{Summary, mean_std};
pub use unread::Unread;
