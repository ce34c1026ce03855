//! The row formats: which columns belong to which, and how a row becomes a [`Record`].
//!
//! Each format is a file with a [`Definition`] and a line in the list below. Detection, names in settings, error messages,
//! the table of docs/DATA.md and the tests that all formats share follow from the list.

mod cells;
mod columns;
mod conversation;
mod judged;
mod names;
#[cfg(test)]
mod published_tests;
mod single;
mod transcript;

use std::fmt;

use serde_json::{Map, Value};

pub(crate) use self::columns::describe;
use self::columns::{Columns, MARGIN};
pub use self::pointwise::{LABELS, PROMPT, RESPONSES, REWARDS};
use crate::config::{DatasetConfig, Margins, Rewards, TextPrompts, Use, Uses};
use crate::error::RowProblem;
use crate::record::{Label, Message, Prompt, Record, Response, Source};

/// Declares the files of the formats and lists their definitions.
macro_rules! formats {
    ($($file:ident,)*) => {
        $(mod $file;)*

        /// Every format, in the order of messages and docs.
        const FORMATS: &[&Definition] = &[$(&$file::FORMAT,)*];
    };
}

formats! {
    pointwise,
    preference,
    messages,
    prompt_completion,
    text,
    alpaca,
    alpaca_farm,
    sharegpt,
    ultrafeedback,
    ultrafeedback_preferences,
    helpsteer,
    helpsteer_preference,
    pku_safe_rlhf,
    shp,
    nectar,
    response_ab,
    prompts,
}

/// A row as it is in the file: column → value, in the file's order.
pub type Row = Map<String, Value>;

/// Everything that is to be known of a format.
struct Definition {
    /// The name in settings.
    name: &'static str,
    /// The columns by which the format is recognised. A row of any of these layouts is of the format.
    layouts: &'static [Layout],
    /// A row that several formats recognise belongs to the one with the highest priority.
    priority: u8,
    /// The responses that a row becomes, in a few words for docs.
    about: &'static str,
    /// A row, as JSON.
    example: &'static str,
    /// Takes the prompt and its responses out of the columns. Columns that it leaves are kept with the record.
    parse: Parse,
}

type Parse = fn(&mut Columns, Uses, &DatasetConfig) -> Result<(Prompt, Vec<Response>), RowProblem>;

/// A set of columns by which a format is recognised.
struct Layout {
    /// The columns that must be there.
    needs: &'static [&'static str],
    /// Further columns that the format reads.
    may_have: &'static [&'static str],
}

/// `needs+needs(+may_have)`.
impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.needs.join("+"))?;
        match self.may_have {
            [] => Ok(()),
            columns => write!(f, "(+{})", columns.join("+")),
        }
    }
}

/// The meaning of the columns of a row.
///
/// [`Format::all`] lists the formats; docs/DATA.md has the same list as a table.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Format(usize);

impl Format {
    /// Returns every format.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..FORMATS.len()).map(Self)
    }

    fn definition(self) -> &'static Definition {
        FORMATS[self.0]
    }

    /// Returns the format of a name.
    ///
    /// ```
    /// use setpoint_data::Format;
    ///
    /// assert_eq!(Format::named("messages").unwrap().to_string(), "messages");
    /// assert_eq!(Format::named("csv"), None);
    /// ```
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::all().find(|format| format.name() == name)
    }

    /// Returns the name in configuration files.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.definition().name
    }

    /// Returns the responses that a row becomes, in a few words.
    #[must_use]
    pub fn about(self) -> &'static str {
        self.definition().about
    }

    /// Returns a row of the format, as JSON.
    #[must_use]
    pub fn example(self) -> &'static str {
        self.definition().example
    }

    /// Returns the format that these columns belong to.
    ///
    /// More specific formats win: a row with `prompt`, `chosen`, `rejected` and `messages` (ultrafeedback_binarized) is a
    /// preference.
    ///
    /// ```
    /// use setpoint_data::Format;
    ///
    /// assert_eq!(Format::detect(["instruction", "input", "output"]), Format::named("alpaca"));
    /// assert_eq!(Format::detect(["question", "answer"]), None);
    /// ```
    pub fn detect<'a>(columns: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let columns: std::collections::HashSet<&str> = columns.into_iter().collect();
        let fits = |layout: &Layout| layout.needs.iter().all(|column| columns.contains(column));
        let recognised = Self::all().filter(|format| format.definition().layouts.iter().any(fits));
        let found = recognised.max_by_key(|format| format.definition().priority)?;
        // A text next to an answer is not all that is to be learned.
        let is_part = found.name() == text::FORMAT.name && text::ANSWERS.iter().any(|column| columns.contains(column));
        (!is_part).then_some(found)
    }

    /// Returns the columns of all formats in one line, for messages.
    pub(crate) fn known_columns() -> String {
        let layouts = FORMATS.iter().flat_map(|format| format.layouts);
        layouts.map(Layout::to_string).collect::<Vec<_>>().join("; ")
    }

    /// Turns a row into a record.
    ///
    /// # Errors
    /// A [`RowProblem`] that names the column, if the row does not hold what the format needs.
    pub fn parse(self, row: Row, source: Source, config: &DatasetConfig) -> Result<Record, RowProblem> {
        self.parse_columns(Columns::new(row, self.name()), source, config)
    }

    /// Turns a row of a table, whose values are all text, into a record.
    pub(crate) fn parse_cells(self, row: Row, source: Source, config: &DatasetConfig) -> Result<Record, RowProblem> {
        self.parse_columns(Columns::of_cells(row, self.name()), source, config)
    }

    fn parse_columns(self, mut row: Columns, source: Source, config: &DatasetConfig) -> Result<Record, RowProblem> {
        let mut uses = config.uses;
        let from_scores = uses.margin && config.margins == Margins::Scores;
        if config.rewards == Rewards::Required || from_scores {
            uses.rewards = Use::Always;
        }
        let (prompt, responses) = (self.definition().parse)(&mut row, uses, config)?;
        let mut margin = row.take_finite(MARGIN, uses.margin)?;
        if from_scores && margin.is_none() {
            margin = difference(&responses)?;
        }
        if config.rewards == Rewards::Required
            && let Some(index) = responses.iter().position(|r| r.reward.is_none())
        {
            let column = if responses.len() == 1 { "reward".to_owned() } else { format!("{REWARDS}[{index}]") };
            return Err(RowProblem::MissingReward { column });
        }
        let whole = self.name() == text::FORMAT.name;
        let prompt = if whole { prompt } else { dress(prompt, config) };
        Ok(Record { source, prompt, responses, margin, extra: row.rest(), whole })
    }
}

/// By how much the reward of the chosen response is greater than that of the rejected one; without labels, the best than the worst.
fn difference(responses: &[Response]) -> Result<Option<f64>, RowProblem> {
    let labelled = |label| responses.iter().find(|response| response.label == Some(label));
    if let (Some(chosen), Some(rejected)) = (labelled(Label::Chosen), labelled(Label::Rejected)) {
        return match (chosen.reward, rejected.reward) {
            (Some(chosen), Some(rejected)) => Ok(Some(chosen - rejected)),
            _ => Err(RowProblem::NoScores),
        };
    }
    let rewards: Option<Vec<f64>> = responses.iter().map(|response| response.reward).collect();
    let Some(rewards) = rewards.filter(|rewards| rewards.len() > 1) else { return Ok(None) };
    let best = rewards.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let worst = rewards.iter().copied().fold(f64::INFINITY, f64::min);
    Ok(Some(best - worst))
}

/// Makes a plain prompt a user turn (a transcript its turns) and puts the system turn before a conversation, as configured.
fn dress(prompt: Prompt, config: &DatasetConfig) -> Prompt {
    let mut messages = match prompt {
        Prompt::Text(text) if config.text_prompts != TextPrompts::User => return Prompt::Text(text),
        Prompt::Text(text) => transcript::turns(&text).unwrap_or_else(|| vec![Message::user(text)]),
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
    pub fn parse(format: &str, json: &str) -> Result<Record, RowProblem> {
        parse_with(format, json, &DatasetConfig::new("test"))
    }

    /// The same with a configuration.
    pub fn parse_with(format: &str, json: &str, config: &DatasetConfig) -> Result<Record, RowProblem> {
        let row: Row = serde_json::from_str(json).unwrap();
        let format = Format::named(format).unwrap();
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
        assert_eq!(Format::detect(columns), Format::named("preference"));
        assert_eq!(Format::detect(["prompt", "prompt_id", "messages"]), Format::named("messages"), "UltraChat-200k");
    }

    #[test]
    fn every_format_reads_its_example() {
        for format in Format::all() {
            let record = parse(format.name(), format.example()).unwrap();
            assert!(record.extra.is_empty(), "{format}: its example has columns that it leaves");
            assert_eq!(serde_json::to_value(format).unwrap(), format.name());
            assert_eq!(serde_json::from_value::<Format>(format.name().into()).unwrap(), format);
        }
    }

    #[test]
    fn names_and_priorities_are_distinct() {
        for (i, format) in FORMATS.iter().enumerate() {
            for other in &FORMATS[..i] {
                assert!(
                    format.name != other.name && format.priority != other.priority,
                    "{} {}",
                    format.name,
                    other.name
                );
            }
        }
    }

    #[test]
    fn the_docs_list_all_formats() {
        let columns = |layout: &Layout| {
            let names = |columns: &[&str]| columns.iter().map(|c| format!("`{c}`")).collect::<Vec<_>>().join(", ");
            let optional = if layout.may_have.is_empty() { "" } else { ", optional " };
            format!("{}{optional}{}", names(layout.needs), names(layout.may_have))
        };
        let mut table = String::from("| `data.format` | columns | becomes |\n|---|---|---|\n");
        for format in FORMATS {
            let layouts: Vec<String> = format.layouts.iter().map(columns).collect();
            table += &format!("| `\"{}\"` | {} | {} |\n", format.name, layouts.join("; or "), format.about);
        }
        let docs = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/DATA.md")).unwrap();
        assert!(docs.contains(&format!("\n\n{table}\n")), "docs/DATA.md must hold this table:\n\n{table}");
    }

    #[test]
    fn plain_prompts_become_user_turns_where_asked() {
        let row = r#"{"prompt": "Why?", "completion": "Because."}"#;
        assert_eq!(parse("prompt_completion", row).unwrap().prompt, Prompt::Text("Why?".into()));
        let config = DatasetConfig {
            text_prompts: TextPrompts::User,
            system: Some("Be brief.".into()),
            ..DatasetConfig::new("test")
        };
        let record = parse_with("prompt_completion", row, &config).unwrap();
        let turns = Prompt::Messages(vec![Message::system("Be brief."), Message::user("Why?")]);
        assert_eq!(record.prompt, turns);
        // Whether there is a template is known later.
        let config = DatasetConfig { text_prompts: TextPrompts::Auto, ..config };
        let mut records = [parse_with("prompt_completion", row, &config).unwrap()];
        assert_eq!(records[0].prompt, Prompt::Text("Why?".into()));
        assert_eq!(text_prompts_as_turns(&mut records, &config), 1);
        assert_eq!(records[0].prompt, turns);
        let mut blank = [Record::new(Prompt::Text(" ".into()), vec![])];
        assert_eq!(text_prompts_as_turns(&mut blank, &config), 0, "nothing to ask");
    }

    #[test]
    fn a_transcript_becomes_its_turns() {
        let row = r#"{"chosen": "\n\nHuman: Hi\n\nAssistant: Ho\n\nHuman: Sky?\n\nAssistant: Blue.",
            "rejected": "\n\nHuman: Hi\n\nAssistant: Ho\n\nHuman: Sky?\n\nAssistant: Green."}"#;
        let plain = parse("preference", row).unwrap().prompt;
        assert_eq!(plain, Prompt::Text("\n\nHuman: Hi\n\nAssistant: Ho\n\nHuman: Sky?\n\nAssistant:".into()));
        let config = DatasetConfig { text_prompts: TextPrompts::User, ..DatasetConfig::new("test") };
        let record = parse_with("preference", row, &config).unwrap();
        let turns = vec![Message::user("Hi"), Message::assistant("Ho"), Message::user("Sky?")];
        assert_eq!(record.prompt, Prompt::Messages(turns));
        assert_eq!(record.chosen().unwrap().text(), " Blue.");
    }

    #[test]
    fn margins_come_from_scores_where_asked() {
        let row = r#"{"prompt": "p", "chosen": "a", "rejected": "b", "score_chosen": 4, "score_rejected": 1.5}"#;
        assert_eq!(parse("preference", row).unwrap().margin, None);
        let config = DatasetConfig { margins: Margins::Scores, ..DatasetConfig::new("test") };
        assert_eq!(parse_with("preference", row, &config).unwrap().margin, Some(2.5));
        // The reward model's job looks at scores for this reason alone.
        let pairs = DatasetConfig { uses: Uses { margin: true, ..Uses::PAIRS }, ..config.clone() };
        assert_eq!(parse_with("preference", row, &pairs).unwrap().margin, Some(2.5));
        let own = row.replace(r#""score_chosen""#, r#""margin": 1, "score_chosen""#);
        assert_eq!(parse_with("preference", &own, &config).unwrap().margin, Some(1.0));
        let none = r#"{"prompt": "p", "chosen": "a", "rejected": "b"}"#;
        let problem = parse_with("preference", none, &pairs).unwrap_err();
        assert_eq!(problem, RowProblem::NoScores);
        assert!(problem.to_string().starts_with("`data.margins` is \"scores\""), "{problem}");
        let scored = r#"{"prompt": "p", "responses": ["a", "b", "c"], "rewards": [1, -2, 3.5]}"#;
        assert_eq!(parse_with("pointwise", scored, &pairs).unwrap().margin, Some(5.5), "of the best and the worst");
        let dpo = DatasetConfig { uses: Uses::PAIRS, ..config };
        assert_eq!(parse_with("preference", none, &dpo).unwrap().margin, None, "a job without margins");
    }

    #[test]
    fn a_system_turn_is_not_put_before_another() {
        let config = DatasetConfig { system: Some("New.".into()), ..DatasetConfig::new("test") };
        let row = r#"{"messages": [{"role": "system", "content": "Own."}, {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]}"#;
        let record = parse_with("messages", row, &config).unwrap();
        assert_eq!(record.prompt, Prompt::Messages(vec![Message::system("Own."), Message::user("Hi")]));
    }

    #[test]
    fn required_rewards_are_required() {
        let config = DatasetConfig { rewards: Rewards::Required, ..DatasetConfig::new("test") };
        let problem =
            parse_with("preference", r#"{"prompt": "p", "chosen": "a", "rejected": "b"}"#, &config).unwrap_err();
        assert_eq!(problem, RowProblem::MissingReward { column: "rewards[0]".into() });
    }

    #[test]
    fn unused_columns_are_kept_in_order() {
        let record =
            parse("preference", r#"{"z": 1, "prompt": "p", "chosen": "a", "a": [2], "rejected": "b", "margin": 0.5}"#)
                .unwrap();
        assert_eq!(record.extra.keys().collect::<Vec<_>>(), ["z", "a"]);
        assert_eq!(record.margin, Some(0.5));
    }
}
