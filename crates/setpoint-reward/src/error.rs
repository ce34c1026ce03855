//! Errors of rewards.

use std::path::PathBuf;

/// A setting of a rule that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleProblem {
    /// The place of the setting inside the rule, such as `terms[1].rule.pattern`.
    pub key: String,
    /// A description of the problem, a clause to follow the key.
    pub message: String,
}

impl std::fmt::Display for RuleProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}` {}", self.key, self.message)
    }
}

/// Everything that can go wrong with reward models, rules and sources.
///
/// Each variant names the offending input, what was expected and what was found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A checkpoint could not be read or written.
    #[error(transparent)]
    Model(#[from] setpoint_transformer::Error),
    /// The engine failed, or a pair could not be made.
    #[error(transparent)]
    Engine(#[from] setpoint_train::Error),
    /// A folder holds a model without a reward head.
    #[error("{}: holds a causal language model, not a reward model (`architectures` ends in ForSequenceClassification)", path.display())]
    NotARewardModel {
        /// The `config.json`.
        path: PathBuf,
    },
    /// A classifier with more than one output.
    #[error("{}: the head has {found} outputs (`num_labels`), a reward model has 1", path.display())]
    Labels {
        /// The `config.json`.
        path: PathBuf,
        /// Its number of labels.
        found: usize,
    },
    /// Mean and standard deviation of a reward that cannot normalise anything.
    #[error("{place}: the normalisation of the reward is {found}, expected a finite `mean` and a finite `std` above 0")]
    Normalization {
        /// The file and key, or how the numbers came about.
        place: String,
        /// The value found.
        found: String,
    },
    /// Normalised rewards were asked of a model that stores no mean and standard deviation.
    #[error(
        "{place}: stores no mean and standard deviation of its rewards; score without normalisation, or fit one first"
    )]
    NoNormalization {
        /// The model.
        place: String,
    },
    /// A rule whose settings make no sense; every problem is listed.
    #[error("the reward rule is wrong: {}", problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Rule {
        /// One entry per problem, never empty.
        problems: Vec<RuleProblem>,
    },
    /// A column of the data that a source reads is missing or of the wrong type.
    #[error("row {row}: the column `{column}` should hold {expected}, found {found}")]
    Field {
        /// Row of the data file, from 0.
        row: usize,
        /// The column.
        column: String,
        /// The expected content.
        expected: String,
        /// The content found.
        found: String,
    },
    /// The data's own reward is asked for, and there is none.
    #[error(
        "row {row}, response {response}: the data gives no reward; name the column that holds one, or score with a model or rules"
    )]
    NotRecorded {
        /// Row of the data file, from 0.
        row: usize,
        /// The number of the response in its row, from 0.
        response: usize,
    },
    /// A source counts or reads tokens, and there are none.
    #[error("row {row}, response {response}: has no tokens, and the reward is computed from them")]
    MissingTokens {
        /// Row of the data file, from 0.
        row: usize,
        /// The number of the response in its row, from 0.
        response: usize,
    },
    /// A token that the model has no embedding for.
    #[error(
        "{place}: token {id} lies outside the model's vocabulary of {vocabulary}; is the tokenizer that of the model?"
    )]
    Token {
        /// The sequence, by row and response or by pair.
        place: String,
        /// The token.
        id: u32,
        /// Size of the vocabulary.
        vocabulary: usize,
    },
    /// A sequence without tokens, of which nothing can be scored.
    #[error("{place}: is empty, expected at least one token")]
    Empty {
        /// The sequence, by row and response or by pair.
        place: String,
    },
    /// A preference pair or a setting of the Bradley–Terry loss that cannot be trained on.
    #[error("{place}: {reason}")]
    Preference {
        /// The pair or the setting.
        place: String,
        /// The expected and the found value.
        reason: String,
    },
    /// A reward that is NaN, infinite, or too large to be added up.
    #[error(
        "row {row}, response {response}: the reward from {source_name} is {value:e}, expected a number from -1e30 to 1e30"
    )]
    NotFinite {
        /// The source, as it describes itself.
        source_name: String,
        /// Row of the data file, from 0.
        row: usize,
        /// The number of the response in its row, from 0.
        response: usize,
        /// The reward.
        value: f64,
    },
    /// A source that returned the wrong number of rewards.
    #[error("{source_name} returned {found} rewards for {expected} responses")]
    Count {
        /// The source, as it describes itself.
        source_name: String,
        /// Number of responses.
        expected: usize,
        /// Number of rewards.
        found: usize,
    },
    /// The device failed while scores were computed or read back.
    #[error("the device failed while computing rewards: {message}")]
    Device {
        /// The message of the device.
        message: String,
    },
    /// A source of somebody's own failed, a judge that does not answer for example.
    #[error("row {row}, response {response}: {source_name} failed: {source}")]
    Source {
        /// The source, as it describes itself.
        source_name: String,
        /// Row of the data file, from 0.
        row: usize,
        /// The number of the response in its row, from 0.
        response: usize,
        /// The reason.
        source: Box<dyn std::error::Error + Send + Sync + 'static>,
    },
}
