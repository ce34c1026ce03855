//! How records become examples: the settings.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::config::BadRows;
use crate::template::{TemplateChoice, TemplateDate};

/// Options for loading a [`TextEncoder`](super::TextEncoder).
#[derive(Debug, Clone, Default)]
pub struct EncoderOptions {
    /// The chat template.
    pub template: TemplateChoice,
    /// Further variables of the template, such as `date_string`.
    pub template_kwargs: Map<String, Value>,
    /// The date that the template prints, where it prints one. By default that of the model's `setpoint.json`, else today's.
    pub template_date: Option<TemplateDate>,
    /// The BOS token, where the folder does not name it or names another one.
    pub bos_token: Option<String>,
    /// The EOS token, likewise.
    pub eos_token: Option<String>,
    /// The folder with `config.json` and `generation_config.json`, where it is not the tokenizer's.
    pub model_dir: Option<PathBuf>,
}

/// The beginning of a response, and the treatment of rows where tokenising it together with its prompt would merge tokens across the
/// boundary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Boundary {
    /// Tokenise the two apart, as they are when the model generates, and count the row.
    #[default]
    Separate,
    /// Stop, naming the row.
    Error,
    /// Like `separate`, but a response begins where the rendered conversation has it, not where the generation prompt ends. For
    /// templates whose generation prompt opens `<think>` while they render past turns without it.
    Rendered,
}

/// The end of a templated response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ResponseEnd {
    /// Its stop token.
    #[default]
    Stop,
    /// The last token that the template prints (Qwen2.5 prints a line break after the stop token), as trl counts.
    Template,
    /// The end with which the reward model that reads it was trained; elsewhere as [`Stop`](Self::Stop).
    Auto,
}

/// The treatment of a row that is longer than allowed. A response is never cut: its reward was given for the whole text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LongRows {
    /// Leave the row out and count it.
    #[default]
    Drop,
    /// Stop, naming the row.
    Error,
    /// Cut the prompt from the left, but keep its first tokens; a row that is too long even so is left out.
    CutPrompt,
}

/// The treatment of a response that the template does not print completely.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LostText {
    /// The record is bad: what is lost cannot be learned.
    #[default]
    Bad,
    /// Count it: a reward model may be meant to read the answer without its thoughts.
    Count,
}

/// The conversion of records to examples.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EncodeOptions {
    /// The largest number of tokens of prompt and longest response together.
    #[schemars(range(min = 1), extend("x-unit" = "tokens"))]
    pub max_length: Option<usize>,
    /// The largest number of tokens of a prompt.
    #[schemars(range(min = 1))]
    pub max_prompt_length: Option<usize>,
    /// The treatment of rows beyond these limits.
    pub long_rows: LongRows,
    /// The first tokens of a prompt (t0) that a cut keeps.
    #[schemars(extend("x-unit" = "tokens"))]
    pub keep_first: usize,
    /// The beginning of a response if tokenising it together with its prompt would merge tokens across the boundary.
    pub boundary: Boundary,
    /// The end of a templated response.
    pub response_end: ResponseEnd,
    /// Finds the earlier assistant turns of a prompt, which SFT learns, too.
    pub assistant_spans: bool,
    /// Learns the thoughts of the turns that SFT learns, as it does by default: the text between `<think>` and `</think>`, or of
    /// `reasoning_content`. If false, thoughts are context: the answer behind them is learned, they are not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train_on_thoughts: Option<bool>,
    /// The treatment of a record that cannot be encoded exactly.
    pub on_bad_row: BadRows,
    /// Reads from messages if they are learned (`"weight": 0`), as SFT does, the job that learns turns, and learns texts without a prompt.
    #[serde(skip)]
    pub weighted_turns: bool,
    /// Most tokens that the model has positions for. The job knows it, not the user.
    #[serde(skip)]
    pub positions: Option<usize>,
    /// The treatment of a response of which the template drops a part. The job decides, not the user.
    #[serde(skip)]
    pub lost_text: LostText,
}

impl Default for EncodeOptions {
    fn default() -> Self {
        Self {
            max_length: None,
            max_prompt_length: None,
            long_rows: LongRows::default(),
            keep_first: 1,
            boundary: Boundary::default(),
            response_end: ResponseEnd::default(),
            assistant_spans: false,
            train_on_thoughts: None,
            on_bad_row: BadRows::default(),
            weighted_turns: false,
            positions: None,
            lost_text: LostText::default(),
        }
    }
}

impl EncodeOptions {
    /// Returns whether the thoughts of learned turns are learned.
    #[must_use]
    pub fn learns_thoughts(&self) -> bool {
        self.train_on_thoughts.unwrap_or(true)
    }
}
