//! The crate's error type.

/// An error in settings or host data; every variant names the offending input.
///
/// Rows are the caller's own numbers (line of the file, index of the record), responses count
/// from 0 within their row.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting lies outside its range.
    #[error("setting `{name}` must be {expected}, found {found}")]
    Setting {
        /// The setting's name as written in a config file.
        name: &'static str,
        /// The values it may take.
        expected: &'static str,
        /// The value it has.
        found: String,
    },
    /// A reward is NaN or infinite.
    #[error("row {row}, response {response}: the reward is {found}, expected a finite number")]
    Reward {
        /// The caller's row.
        row: usize,
        /// Index of the response within the row.
        response: usize,
        /// The value found.
        found: f64,
    },
    /// A reward that its transform and scale take out of the numbers.
    #[error(
        "row {row}, response {response}: the reward {reward:e} becomes {found} by reward_transform and reward_scale, expected a finite number"
    )]
    TransformedReward {
        /// The caller's row.
        row: usize,
        /// Index of the response within the row.
        response: usize,
        /// The reward before the transform.
        reward: f64,
        /// The reward after it.
        found: f64,
    },
    /// A reward that is too large to train on.
    #[error(
        "row {row}, response {response}: the reward {reward:e} is too large to train on: at this beta it stands for {nats:e} nats, expected \
         at most {limit:e} of either, whose square a 32-bit number still holds"
    )]
    LargeReward {
        /// The caller's row.
        row: usize,
        /// Index of the response within the row.
        response: usize,
        /// The reward, transformed and scaled.
        reward: f64,
        /// The reward over β, nats.
        nats: f64,
        /// The largest magnitude that either may have.
        limit: f64,
    },
    /// A reference log-probability is NaN, infinite or positive.
    #[error(
        "row {row}, response {response}: the reference log-probability is {found}, expected a finite number of at most 0"
    )]
    RefLogp {
        /// The caller's row.
        row: usize,
        /// Index of the response within the row.
        response: usize,
        /// The value found.
        found: f64,
    },
    /// A row lists its responses' values in vectors of different length.
    #[error("row {row}: found {found} {what} for {expected} responses")]
    Lengths {
        /// The caller's row.
        row: usize,
        /// The kind of value that is listed.
        what: &'static str,
        /// The number of responses.
        expected: usize,
        /// The number of values found.
        found: usize,
    },
    /// A row without responses.
    #[error("row {row} has no responses")]
    NoResponses {
        /// The caller's row.
        row: usize,
    },
    /// A prompt with too few samples of the reference model for an estimate of its log Z.
    #[error("log Z(x) needs at least {least} samples of the reference model, found {found}", least = crate::LEAST_SAMPLES)]
    FewSamples {
        /// The number of samples found.
        found: usize,
    },
    /// A number of a sampled response is NaN or infinite.
    #[error("prompt {prompt} of the round, response {response}: the {what} is {found}, expected a finite number")]
    Rollout {
        /// Index of the prompt within the round.
        prompt: usize,
        /// Index of the response among those of the prompt.
        response: usize,
        /// The number that is meant.
        what: &'static str,
        /// The value found.
        found: f64,
    },
    /// A round in which no response got a reward.
    #[error("none of the {responses} responses of the round has a reward; the messages of the reward's source say why")]
    NoRewards {
        /// Number of responses.
        responses: usize,
    },
    /// A statistic was asked of no values at all.
    #[error("{what} needs at least one value, found none")]
    Empty {
        /// The quantity that was to be computed.
        what: &'static str,
    },
    /// `zscore` on rewards that do not differ.
    #[error(
        "cannot apply `zscore`: the {count} rewards have standard deviation {deviation:e} around {mean}, so they do not differ"
    )]
    DegenerateDeviation {
        /// Number of rewards.
        count: usize,
        /// Their mean.
        mean: f64,
        /// Their population standard deviation.
        deviation: f64,
    },
    /// A response refers to a prompt that the batch does not have.
    #[error("response {response} belongs to prompt {found}, but the batch has {prompts} prompts")]
    PromptOutOfRange {
        /// Index of the response within the batch.
        response: usize,
        /// The prompt it names.
        found: usize,
        /// Number of prompts in the batch.
        prompts: usize,
    },
    /// A prompt of a batch without responses.
    #[error("prompt {prompt} of the batch has no responses")]
    PromptWithoutResponses {
        /// Index of the prompt within the batch.
        prompt: usize,
    },
}

impl Error {
    /// The caller's row that the error is about, so that the caller can name it by file and line.
    pub fn row(&self) -> Option<usize> {
        match *self {
            Self::Reward { row, .. }
            | Self::TransformedReward { row, .. }
            | Self::LargeReward { row, .. }
            | Self::RefLogp { row, .. }
            | Self::Lengths { row, .. }
            | Self::NoResponses { row } => Some(row),
            _ => None,
        }
    }
}
