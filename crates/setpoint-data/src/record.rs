//! One record type for conversations, preferences, labelled rows and scored responses.

use std::fmt;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The place that a record came from: a file and a row in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Source {
    /// The file.
    pub path: Arc<Path>,
    /// Index of the row within the file, from 0.
    pub row: usize,
    /// The line within the file, from 1, where rows are lines.
    pub line: Option<NonZeroUsize>,
    /// Index of the data set among those that a job reads, from 0.
    pub set: usize,
}

impl Source {
    /// A row of a file whose rows are not lines.
    pub fn row(path: impl Into<Arc<Path>>, row: usize) -> Self {
        Self { path: path.into(), row, line: None, set: 0 }
    }

    /// A line of a file.
    pub fn line(path: impl Into<Arc<Path>>, row: usize, line: usize) -> Self {
        Self { path: path.into(), row, line: NonZeroUsize::new(line), set: 0 }
    }

    /// Returns whether the record was read from a file.
    #[must_use]
    pub fn is_file(&self) -> bool {
        *self.path != *Path::new(MEMORY)
    }
}

/// The name in place of a file's for records that were made in memory.
const MEMORY: &str = "<memory>";

/// `data.jsonl:12` where rows are lines (from 1), `data.parquet: row 11` elsewhere (from 0).
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}", self.path.display()),
            None => write!(f, "{}: row {}", self.path.display(), self.row),
        }
    }
}

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user`, `assistant` or `tool`; other roles are passed to the template as they are.
    pub role: String,
    /// The text.
    pub content: String,
    /// Further fields that a template may read, such as `tool_calls` or `name`.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Message {
    /// A turn without further fields.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into(), extra: Map::new() }
    }

    /// A user turn.
    pub fn user(content: impl Into<String>) -> Self {
        Self::new("user", content)
    }

    /// An assistant turn.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self::new("assistant", content)
    }

    /// A system turn.
    pub fn system(content: impl Into<String>) -> Self {
        Self::new("system", content)
    }

    /// The tools that the turn calls (`tool_calls`, or the older `function_call`), also where the row has them as JSON text.
    #[must_use]
    pub fn tool_calls(&self) -> Vec<Value> {
        let mut calls = Vec::new();
        for field in ["tool_calls", "function_call"] {
            let value = match self.extra.get(field) {
                // Text that is not JSON is a call in the words of its template.
                Some(Value::String(text)) => serde_json::from_str(text).unwrap_or_else(|_| text.trim().into()),
                Some(value) => value.clone(),
                None => Value::Null,
            };
            match value {
                Value::Array(items) => calls.extend(items),
                other => calls.push(other),
            }
        }
        calls.retain(|call| match call {
            Value::Null | Value::Bool(false) => false,
            Value::String(text) => !text.is_empty(),
            Value::Object(fields) => !fields.is_empty(),
            _ => true,
        });
        calls
    }

    /// Returns whether the turn says nothing: no text but whitespace, and no tool call.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        is_blank(&self.content) && self.tool_calls().is_empty()
    }
}

/// Returns whether a character is whitespace to Python, and so to the `trim` of a chat template: Unicode's White_Space and the separators
/// U+001C to U+001F.
pub(crate) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// Returns whether a text has nothing but whitespace, which templates trim.
pub(crate) fn is_blank(text: &str) -> bool {
    text.chars().all(is_space)
}

/// The text or conversation that the responses answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Prompt {
    /// Plain text: tokenised as it is, without a chat template.
    Text(String),
    /// The turns before the response: rendered with the chat template.
    Messages(Vec<Message>),
}

impl Prompt {
    /// The plain text, or the last user turn: what a reader or a judge calls the question.
    #[must_use]
    pub fn question(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::Messages(messages) => {
                messages.iter().rev().find(|m| m.role == "user").or(messages.last()).map_or("", |m| m.content.as_str())
            }
        }
    }
}

/// The judgement of a response, besides its reward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Label {
    /// The preferred of a pair.
    Chosen,
    /// The other of a pair.
    Rejected,
    /// A good response, without a pair (KTO's `label: true`).
    Desirable,
    /// A bad response, without a pair (KTO's `label: false`).
    Undesirable,
}

/// One response: an assistant turn, or the text that continues a plain prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct Response {
    /// The turn. After a plain prompt only its content counts.
    pub message: Message,
    /// Its reward; finite.
    pub reward: Option<f64>,
    /// Its label.
    pub label: Option<Label>,
}

impl Response {
    /// A response without reward and label.
    pub fn new(text: impl Into<String>) -> Self {
        Self { message: Message::assistant(text), reward: None, label: None }
    }

    /// The same with a label.
    #[must_use]
    pub fn labelled(mut self, label: Label) -> Self {
        self.label = Some(label);
        self
    }

    /// The same with a reward.
    #[must_use]
    pub fn rewarded(mut self, reward: f64) -> Self {
        self.reward = Some(reward);
        self
    }

    /// The response's text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.message.content
    }
}

/// A prompt with its responses: an SFT conversation (one response), a preference (chosen and rejected), a labelled row
/// (one response) or a point-wise row (any number of responses with rewards).
///
/// ```
/// use setpoint_data::{Label, Prompt, Record, Response};
///
/// let record = Record::new(
///     Prompt::Text("The sky is".into()),
///     vec![Response::new(" blue.").labelled(Label::Chosen), Response::new(" green.").labelled(Label::Rejected)],
/// );
/// assert_eq!(record.chosen().unwrap().text(), " blue.");
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// The place that it came from.
    pub source: Source,
    /// The text or conversation that is answered.
    pub prompt: Prompt,
    /// The answers; none in a row that is only a prompt.
    pub responses: Vec<Response>,
    /// By how much chosen is better than rejected, where the file says so.
    pub margin: Option<f64>,
    /// The columns that the format does not use, in the file's order. `tools` and `chat_template_kwargs` among them are
    /// passed to the chat template.
    pub extra: Map<String, Value>,
    /// True of a whole text, which has no prompt (the format `text`).
    pub whole: bool,
}

impl Record {
    /// A record made in memory; its source is `<memory>`, row 0.
    #[must_use]
    pub fn new(prompt: Prompt, responses: Vec<Response>) -> Self {
        let source = Source::row(Path::new(MEMORY), 0);
        Self { source, prompt, responses, margin: None, extra: Map::new(), whole: false }
    }

    /// The response labelled [`Label::Chosen`].
    #[must_use]
    pub fn chosen(&self) -> Option<&Response> {
        self.responses.iter().find(|r| r.label == Some(Label::Chosen))
    }

    /// The response labelled [`Label::Rejected`].
    #[must_use]
    pub fn rejected(&self) -> Option<&Response> {
        self.responses.iter().find(|r| r.label == Some(Label::Rejected))
    }
}
