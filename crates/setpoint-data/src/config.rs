//! The settings of reading.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::format::Format;
use crate::sources::{DataSource, StoppingStrategy};

/// A data set: where it is and how its rows are to be understood.
///
/// ```
/// use setpoint_data::DatasetConfig;
///
/// let config = DatasetConfig { max_rows: Some(1000), ..DatasetConfig::new("data/train.jsonl") };
/// assert_eq!(config.path, "data/train.jsonl");
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DatasetConfig {
    /// A file (`.jsonl`, `.ndjson`, `.json`, `.csv`, `.tsv`, each also `.gz` or `.zst`; `.parquet`), a folder in the hub's layout,
    /// or a hub id (`owner/name`). A path that exists wins over a hub id, and a name that ends as a file's does is none.
    ///
    /// Parquet stores one set of keys for a column of objects, with null in each row that lacks a key. So an object's key that is
    /// null in Parquet counts as absent; in JSON it is kept.
    #[serde(default)]
    pub path: String,
    /// Several data sets instead of the one that `path` names, each with its own settings; those of this section hold for all that leave
    /// them out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<DataSource>,
    /// The end of an epoch over data sets with weights.
    #[serde(default, skip_serializing_if = "StoppingStrategy::is_default")]
    pub stopping_strategy: StoppingStrategy,
    /// The split of a folder or hub data set: `train` matches `train.jsonl`, `train-00000-of-00003.parquet` and everything in a folder
    /// `train/`. A single file has none.
    #[serde(default = "default_split")]
    pub split: String,
    /// The subset (the hub's "config"): the folder that holds the split, if several do.
    #[serde(default)]
    pub subset: Option<String>,
    /// The revision of a hub data set: branch, tag or commit.
    #[serde(default = "default_revision")]
    pub revision: String,
    /// The format of the rows; by default it is detected from the columns.
    #[serde(default)]
    pub format: Option<Format>,
    /// The largest number of rows to read, from the beginning; bad rows that are dropped count.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub max_rows: Option<usize>,
    /// Columns to rename before anything else: expected name → the file's name.
    #[serde(default)]
    pub columns: BTreeMap<String, String>,
    /// The form in which a prompt of plain text is read.
    #[serde(default)]
    pub text_prompts: TextPrompts,
    /// A system turn to put before every conversation that has none.
    #[serde(default)]
    pub system: Option<String>,
    /// Reads rewards if there are any, or requires one for every response.
    #[serde(default)]
    pub rewards: Rewards,
    /// The score of UltraFeedback's completions that serves as the reward.
    #[serde(default)]
    pub ultrafeedback_score: UltraFeedbackScore,
    /// The source of the margin of a pair, for reward models.
    #[serde(default)]
    pub margins: Margins,
    /// The treatment of a row whose two responses are judged to be equally good, in a job that needs to know the better one.
    #[serde(default)]
    pub ties: Ties,
    /// The treatment of a row that lacks a value its format needs.
    #[serde(default)]
    pub on_bad_row: BadRows,
    /// The responses that SFT trains on if a row has several.
    ///
    /// Files of settings that are older than this setting mean [`Responses::All`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub responses: Option<Responses>,
    /// The columns that the job looks at; others may hold anything. The job decides, not the user.
    #[serde(skip)]
    pub uses: Uses,
}

fn default_split() -> String {
    "train".into()
}

fn default_revision() -> String {
    "main".into()
}

impl DatasetConfig {
    /// The defaults: split `train`, revision `main`, format detected, every bad row an error.
    pub fn new(path: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            sources: Vec::new(),
            stopping_strategy: StoppingStrategy::default(),
            split: default_split(),
            subset: None,
            revision: default_revision(),
            format: None,
            max_rows: None,
            columns: BTreeMap::new(),
            text_prompts: TextPrompts::default(),
            system: None,
            rewards: Rewards::default(),
            ultrafeedback_score: UltraFeedbackScore::default(),
            margins: Margins::default(),
            ties: Ties::default(),
            on_bad_row: BadRows::default(),
            responses: None,
            uses: Uses::default(),
        }
    }
}

/// The form in which a prompt of plain text is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TextPrompts {
    /// A user turn where the model has a chat template, else plain text. Reading leaves the text as it is; see
    /// [`text_prompts_as_turns`](crate::text_prompts_as_turns).
    #[default]
    Auto,
    /// Plain text stays plain text, without a chat template, as in trl's standard format.
    Plain,
    /// A user turn, rendered with the chat template.
    User,
}

/// The rewards that data must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Rewards {
    /// Read where the file has a column for them. If the job uses rewards, a file that has the column must have it filled in every row.
    #[default]
    IfPresent,
    /// A row without them is a bad row.
    Required,
}

/// The responses of a row that SFT trains on.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Responses {
    /// The chosen response if one is marked, else the best by reward, else the only one; otherwise the row is bad.
    #[default]
    Auto,
    /// The response that is marked as chosen.
    Chosen,
    /// The response with the greatest reward, the first of equals: rejection sampling (best of n) on sampled rows.
    Best,
    /// All of them, each as an example.
    All,
    /// Keeps responses with a greater reward than this; a row without any is left out.
    Above(f64),
}

/// When a job looks at an optional column of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Use {
    /// Never: a value that is no value for it is ignored.
    Never,
    /// In rows with several responses.
    Several,
    /// In rows without labels.
    Unlabelled,
    /// In rows with several responses and no labels.
    SeveralUnlabelled,
    /// Always.
    #[default]
    Always,
}

impl Use {
    /// Returns whether the column of a row with so many responses, labelled or not, is looked at.
    pub(crate) fn applies(self, responses: usize, labelled: bool) -> bool {
        match self {
            Self::Never => false,
            Self::Several => responses > 1,
            Self::Unlabelled => !labelled,
            Self::SeveralUnlabelled => responses > 1 && !labelled,
            Self::Always => true,
        }
    }
}

/// The optional columns that a job looks at. In a column that it does not look at a value that is missing or of another type (a topic
/// in `label`, null in `score`) is no error; one that fits is read all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uses {
    /// Rewards and scores.
    pub rewards: Use,
    /// Labels.
    pub labels: Use,
    /// The margin.
    pub margin: bool,
    /// The rejected response.
    pub rejected: bool,
}

impl Default for Uses {
    fn default() -> Self {
        Self { rewards: Use::Always, labels: Use::Always, margin: true, rejected: true }
    }
}

impl Uses {
    /// Prompts and responses alone.
    pub const TEXT: Self = Self { rewards: Use::Never, labels: Use::Never, margin: false, rejected: true };
    /// The prompt alone.
    pub const PROMPT: Self = Self { rejected: false, ..Self::TEXT };
    /// Pairs of responses, by label where there are labels, else by reward.
    pub const PAIRS: Self = Self { rewards: Use::Unlabelled, labels: Use::Several, margin: false, rejected: true };

    /// Returns the columns that SFT needs to select its responses.
    #[must_use]
    pub fn of_selection(responses: Responses) -> Self {
        let (rewards, labels) = match responses {
            Responses::Auto => (Use::SeveralUnlabelled, Use::Several),
            Responses::Chosen => (Use::Never, Use::Several),
            Responses::Best => (Use::Several, Use::Never),
            Responses::Above(_) => (Use::Always, Use::Never),
            Responses::All => (Use::Never, Use::Never),
        };
        let rejected = !matches!(responses, Responses::Auto | Responses::Chosen);
        Self { rewards, labels, margin: false, rejected }
    }
}

/// The scores of UltraFeedback's completions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UltraFeedbackScore {
    /// `fine-grained_score`: the mean of the four aspects' ratings.
    FineGrained,
    /// `overall_score`: the judge's single score, from which ultrafeedback_binarized was built.
    #[default]
    Overall,
}

/// The source of margins: by how much the chosen response is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Margins {
    /// The column `margin`, if there is one.
    #[default]
    Column,
    /// The column `margin`, else the difference of the two responses' scores, or the strength of HelpSteer's preference. The chosen and
    /// the rejected response of a row must then have scores.
    Scores,
}

/// The treatment of rows in which neither response is preferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Ties {
    /// A bad row.
    #[default]
    Error,
    /// Leave it out and count it.
    Drop,
    /// Read the two responses without labels: for jobs that go by rewards.
    Keep,
}

/// The treatment of bad rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BadRows {
    /// Stop, naming the row.
    #[default]
    Error,
    /// Leave it out and count it.
    Drop,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_path_is_needed_and_unknown_keys_are_refused() {
        let parse = |json: &str| serde_json::from_str::<DatasetConfig>(json);
        assert_eq!(parse(r#"{"path": "a.jsonl"}"#).unwrap(), DatasetConfig::new("a.jsonl"));
        let message = parse(r#"{"path": "a.jsonl", "splitt": "test"}"#).unwrap_err().to_string();
        assert!(message.contains("unknown field `splitt`"), "{message}");
        let message = parse(r#"{"path": "a.jsonl", "format": "csv"}"#).unwrap_err().to_string();
        assert!(message.contains("unknown variant `csv`, expected one of `pointwise`"), "{message}");
    }
}
