//! The row formats: which columns belong to which, and how a row becomes a [`Record`].

mod alpaca;
mod columns;
mod conversation;
mod pointwise;
mod preference;
mod sharegpt;
mod single;
mod ultrafeedback;

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub(crate) use self::columns::describe;
pub use self::pointwise::{LABELS, PROMPT, RESPONSES, REWARDS};
use crate::config::{DatasetConfig, Rewards, TextPrompts, Use};
use crate::error::RowProblem;
use crate::record::{Message, Prompt, Record, Source};

/// A row as it stands in the file: column → value, in the file's order.
pub type Row = Map<String, Value>;

/// How the columns of a row are to be understood.
///
/// | format | columns | becomes |
/// |---|---|---|
/// | `pointwise` | `prompt`, `responses`, optional `rewards`, `labels` | one response each |
/// | `preference` | `chosen`, `rejected`, optional `prompt`, rewards, `margin` (trl; ultrafeedback_binarized) | two labelled responses |
/// | `messages` | `messages`, optional `label` (trl; UltraChat-200k; LLaMA-Factory's KTO demo) | the last turn |
/// | `prompt_completion` | `prompt`, `completion` or `response`, optional `label`, `reward` (trl) | one response |
/// | `alpaca` | `instruction`, optional `input`, and `output` or `chosen` with `rejected` | a user turn and its answers |
/// | `sharegpt` | `conversations`, optional `chosen` with `rejected` | the last turn, or two labelled responses |
/// | `ultrafeedback` | `instruction`, `completions` with scores | one response for each completion |
/// | `prompts` | `prompt` and nothing to answer it | no response: rows to generate from |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Any number of responses for a prompt, with rewards: DRO's own form.
    Pointwise,
    /// trl's preference data, as text or as messages, with explicit or implicit prompt.
    Preference,
    /// A conversation; with `label` an unpaired preference.
    Messages,
    /// A prompt and one completion; with `label` an unpaired preference.
    PromptCompletion,
    /// Alpaca's instruction, input and output.
    Alpaca,
    /// ShareGPT's `from` and `value`.
    #[serde(rename = "sharegpt")]
    ShareGpt,
    /// UltraFeedback's completions with scores.
    #[serde(rename = "ultrafeedback")]
    UltraFeedback,
    /// A prompt alone, to generate from.
    Prompts,
}

impl Format {
    /// The name in configuration files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pointwise => "pointwise",
            Self::Preference => "preference",
            Self::Messages => "messages",
            Self::PromptCompletion => "prompt_completion",
            Self::Alpaca => "alpaca",
            Self::ShareGpt => "sharegpt",
            Self::UltraFeedback => "ultrafeedback",
            Self::Prompts => "prompts",
        }
    }

    /// The format that these columns belong to, or `None`.
    ///
    /// More specific formats win: a row with `prompt`, `chosen`, `rejected` and `messages` (ultrafeedback_binarized) is a
    /// preference.
    ///
    /// ```
    /// use setpoint_data::Format;
    ///
    /// assert_eq!(Format::detect(["instruction", "input", "output"]), Some(Format::Alpaca));
    /// assert_eq!(Format::detect(["question", "answer"]), None);
    /// ```
    pub fn detect<'a>(columns: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let columns: std::collections::HashSet<&str> = columns.into_iter().collect();
        let has = |names: &[&str]| names.iter().all(|n| columns.contains(n));
        let answered = has(&["output"]) || has(&["chosen", "rejected"]);
        Some(if has(&["prompt", "responses"]) {
            Self::Pointwise
        } else if has(&["instruction", "completions"]) {
            Self::UltraFeedback
        } else if has(&["instruction"]) && answered {
            Self::Alpaca
        } else if has(&["conversations"]) {
            Self::ShareGpt
        } else if has(&["chosen", "rejected"]) {
            Self::Preference
        } else if has(&["messages"]) {
            Self::Messages
        } else if has(&["prompt", "completion"]) || has(&["prompt", "response"]) {
            Self::PromptCompletion
        } else if has(&["prompt"]) {
            Self::Prompts
        } else {
            return None;
        })
    }

    pub(crate) fn known_columns() -> &'static str {
        "prompt+responses(+rewards); prompt+chosen+rejected; chosen+rejected; messages(+label); prompt+completion(+label); \
         instruction+input+output; instruction+input+chosen+rejected; conversations(+chosen+rejected); instruction+completions; \
         prompt"
    }

    /// Turns a row into a record.
    ///
    /// # Errors
    /// A [`RowProblem`] that names the column, where the row does not hold what the format needs.
    pub fn parse(self, row: Row, source: Source, config: &DatasetConfig) -> Result<Record, RowProblem> {
        let mut row = columns::Columns::new(row, self.name());
        let mut uses = config.uses;
        if config.rewards == Rewards::Required {
            uses.rewards = Use::Always;
        }
        let (prompt, responses) = match self {
            Self::Pointwise => pointwise::parse(&mut row, uses)?,
            Self::Preference => preference::parse(&mut row, uses)?,
            Self::Messages => single::parse_messages(&mut row, uses)?,
            Self::PromptCompletion => single::parse_completion(&mut row, uses)?,
            Self::Alpaca => alpaca::parse(&mut row, uses)?,
            Self::ShareGpt => sharegpt::parse(&mut row, uses)?,
            Self::UltraFeedback => ultrafeedback::parse(&mut row, config.ultrafeedback_score, uses)?,
            Self::Prompts => (single::parse_prompt(&mut row)?, Vec::new()),
        };
        let margin = row.take_finite("margin", uses.margin)?;
        if config.rewards == Rewards::Required
            && let Some(index) = responses.iter().position(|r| r.reward.is_none())
        {
            let column = if responses.len() == 1 { "reward".to_owned() } else { format!("{REWARDS}[{index}]") };
            return Err(RowProblem::MissingReward { column });
        }
        let prompt = dress(prompt, config);
        Ok(Record { source, prompt, responses, margin, extra: row.rest() })
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Makes a plain prompt a user turn and puts the system turn before a conversation, as configured.
fn dress(prompt: Prompt, config: &DatasetConfig) -> Prompt {
    let mut messages = match prompt {
        Prompt::Text(text) if config.text_prompts != TextPrompts::User => return Prompt::Text(text),
        Prompt::Text(text) => vec![Message::user(text)],
        Prompt::Messages(messages) => messages,
    };
    if let Some(system) = &config.system
        && messages.first().is_none_or(|m| m.role != "system")
    {
        messages.insert(0, Message::system(system));
    }
    Prompt::Messages(messages)
}

/// Makes user turns of the prompts that are plain text, with the configured system turn before them, and returns how many there were:
/// what [`TextPrompts::Auto`] means for a model with a chat template. A prompt without any text stays as it is.
pub fn text_prompts_as_turns(records: &mut [Record], config: &DatasetConfig) -> usize {
    let config = DatasetConfig { text_prompts: TextPrompts::User, ..config.clone() };
    let mut count = 0;
    for record in records {
        if let Prompt::Text(text) = &record.prompt
            && !text.trim().is_empty()
        {
            record.prompt = dress(Prompt::Text(text.clone()), &config);
            count += 1;
        }
    }
    count
}

#[cfg(test)]
pub(crate) mod testing {
    //! Shorthand for the formats' tests.

    use super::*;

    /// Parses a row given as JSON text.
    pub fn parse(format: Format, json: &str) -> Result<Record, RowProblem> {
        parse_with(format, json, &DatasetConfig::new("test"))
    }

    /// The same with a configuration.
    pub fn parse_with(format: Format, json: &str, config: &DatasetConfig) -> Result<Record, RowProblem> {
        let row: Row = serde_json::from_str(json).unwrap();
        assert_eq!(Format::detect(row.keys().map(String::as_str)), Some(format), "detection");
        format.parse(row, Source::row(std::path::Path::new("test"), 0), config)
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{parse, parse_with};
    use super::*;

    #[test]
    fn ultrafeedback_binarized_is_a_preference_although_it_has_messages() {
        let columns = ["prompt", "prompt_id", "chosen", "rejected", "messages", "score_chosen", "score_rejected"];
        assert_eq!(Format::detect(columns), Some(Format::Preference));
        assert_eq!(Format::detect(["prompt", "prompt_id", "messages"]), Some(Format::Messages), "UltraChat-200k");
    }

    #[test]
    fn names_are_those_of_the_configuration() {
        use Format::*;
        for format in [Pointwise, Preference, Messages, PromptCompletion, Alpaca, ShareGpt, UltraFeedback] {
            assert_eq!(serde_json::to_value(format).unwrap(), format.name());
        }
    }

    #[test]
    fn plain_prompts_become_user_turns_where_asked() {
        let row = r#"{"prompt": "Why?", "completion": "Because."}"#;
        assert_eq!(parse(Format::PromptCompletion, row).unwrap().prompt, Prompt::Text("Why?".into()));
        let config = DatasetConfig {
            text_prompts: TextPrompts::User,
            system: Some("Be brief.".into()),
            ..DatasetConfig::new("test")
        };
        let record = parse_with(Format::PromptCompletion, row, &config).unwrap();
        let turns = Prompt::Messages(vec![Message::system("Be brief."), Message::user("Why?")]);
        assert_eq!(record.prompt, turns);
        // Whether there is a template is known later.
        let config = DatasetConfig { text_prompts: TextPrompts::Auto, ..config };
        let mut records = [parse_with(Format::PromptCompletion, row, &config).unwrap()];
        assert_eq!(records[0].prompt, Prompt::Text("Why?".into()));
        assert_eq!(text_prompts_as_turns(&mut records, &config), 1);
        assert_eq!(records[0].prompt, turns);
        let mut blank = [Record::new(Prompt::Text(" ".into()), vec![])];
        assert_eq!(text_prompts_as_turns(&mut blank, &config), 0, "nothing to ask");
    }

    #[test]
    fn a_system_turn_is_not_put_before_another() {
        let config = DatasetConfig { system: Some("New.".into()), ..DatasetConfig::new("test") };
        let row = r#"{"messages": [{"role": "system", "content": "Own."}, {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]}"#;
        let record = parse_with(Format::Messages, row, &config).unwrap();
        assert_eq!(record.prompt, Prompt::Messages(vec![Message::system("Own."), Message::user("Hi")]));
    }

    #[test]
    fn required_rewards_are_required() {
        let config = DatasetConfig { rewards: Rewards::Required, ..DatasetConfig::new("test") };
        let problem =
            parse_with(Format::Preference, r#"{"prompt": "p", "chosen": "a", "rejected": "b"}"#, &config).unwrap_err();
        assert_eq!(problem, RowProblem::MissingReward { column: "rewards[0]".into() });
    }

    #[test]
    fn unused_columns_are_kept_in_order() {
        let record = parse(
            Format::Preference,
            r#"{"z": 1, "prompt": "p", "chosen": "a", "a": [2], "rejected": "b", "margin": 0.5}"#,
        )
        .unwrap();
        assert_eq!(record.extra.keys().collect::<Vec<_>>(), ["z", "a"]);
        assert_eq!(record.margin, Some(0.5));
    }
}
