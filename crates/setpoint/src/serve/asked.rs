//! A request for completions: its prompts as tokens, and its sampling.

use serde_json::{Map, Value};
use setpoint_data::{OWN_VARIABLES, Prompt, Record};

use super::app::App;
use super::error::{Answered, ApiError};
use super::fields::{Fields, wrong};
use super::messages;
use super::sampling::{Sampling, require_known};
use crate::failure::Failure;

/// The most of the likeliest tokens that are told.
const MOST_ALTERNATIVES: usize = 20;
/// The most log-probabilities that are told at once; each takes some hundred bytes.
const MOST_LOGPROBS: usize = 1 << 20;
/// The most prompts of a request.
const MOST_PROMPTS: usize = 1024;

/// The two forms of completions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// A conversation is answered.
    Chat,
    /// A text is continued.
    Plain,
}

impl Form {
    /// Returns the endpoint.
    pub(super) fn endpoint(self) -> &'static str {
        match self {
            Self::Chat => "/v1/chat/completions",
            Self::Plain => "/v1/completions",
        }
    }

    /// Returns the name of its answers.
    pub(super) fn object(self) -> &'static str {
        match self {
            Self::Chat => "chat.completion",
            Self::Plain => "text_completion",
        }
    }

    /// Returns the name of a part of a streamed answer.
    pub(super) fn part(self) -> &'static str {
        match self {
            Self::Chat => "chat.completion.chunk",
            Self::Plain => "text_completion",
        }
    }

    /// Returns the beginning of an answer's id.
    pub(super) fn id(self) -> &'static str {
        match self {
            Self::Chat => "chatcmpl",
            Self::Plain => "cmpl",
        }
    }
}

/// A request that has been read.
#[derive(Debug)]
pub(super) struct Asked {
    /// Its form.
    pub(super) form: Form,
    /// The tokens of each prompt.
    pub(super) prompts: Vec<Vec<u32>>,
    /// The sampling of the answers.
    pub(super) sampling: Sampling,
    /// The number of likeliest tokens that are told with each log-probability; none if log-probabilities are not told.
    pub(super) logprobs: Option<usize>,
}

/// A prompt that is not tokens yet.
enum Unread {
    Record(Box<Record>),
    Ids(Vec<u32>),
}

impl Asked {
    /// Reads a request.
    ///
    /// # Errors
    /// A sentence about the field that is wrong.
    pub(super) fn read(app: &App, form: Form, body: &[u8]) -> Answered<Self> {
        let (_, settings) = app.policy()?;
        let mut fields = Fields::parse(body)?;
        app.check_model(&mut fields)?;
        let sampling = Sampling::read(&mut fields, settings, app.vocabulary)?;
        let (name, unread, logprobs) = match form {
            Form::Chat => {
                let record = conversation(app, &mut fields)?;
                ("messages", vec![Unread::Record(Box::new(record))], chat_logprobs(&mut fields)?)
            }
            Form::Plain => {
                for (field, expected) in [("echo", "false"), ("suffix", "\"\""), ("best_of", "the value of n")] {
                    fields.neutral(field, expected, |value| match value {
                        Value::Bool(flag) => !flag,
                        Value::String(text) => text.is_empty(),
                        value => field == "best_of" && value.as_u64() == Some(sampling.n as u64),
                    })?;
                }
                let unread = plain_prompts(fields.require("prompt")?)?;
                ("prompt", unread, fields.count("logprobs", 0, MOST_ALTERNATIVES)?)
            }
        };
        fields.end()?;
        let prompts = unread.into_iter().map(|prompt| ids_of(app, name, prompt)).collect::<Answered<Vec<_>>>()?;
        // The model's own length bounds a single answer.
        let is_single = prompts.len() * sampling.n == 1;
        if let Some(alternatives) = logprobs.filter(|_| !sampling.stream && !is_single) {
            let tokens: usize = prompts.iter().map(|ids| sampling.config.room(ids.len(), app.most)).sum();
            check_logprobs(tokens.saturating_mul(sampling.n).saturating_mul(alternatives + 1))?;
        }
        Ok(Self { form, prompts, sampling, logprobs })
    }
}

/// Fails if an answer that is not streamed would tell more log-probabilities than the memory is for.
fn check_logprobs(told: usize) -> Answered<()> {
    if told <= MOST_LOGPROBS {
        return Ok(());
    }
    let message = format!(
        "`logprobs` asks for up to {told} log-probabilities, and at most {MOST_LOGPROBS} are told at once: ask for fewer tokens, \
         answers (`n`) or likeliest tokens, or stream the answer"
    );
    Err(ApiError::field("logprobs", message))
}

/// Takes the fields of a conversation.
fn conversation(app: &App, fields: &mut Fields) -> Answered<Record> {
    if app.encoder.template().is_none() {
        let message =
            "this model has no chat template: ask /v1/completions, or start the server with --set model.template=FILE";
        return Err(ApiError::invalid(message));
    }
    let messages = messages::read("messages", fields.require("messages")?)?;
    let mut record = Record::new(Prompt::Messages(messages), Vec::new());
    match fields.take("chat_template_kwargs") {
        None => {}
        Some(Value::Object(arguments)) => {
            if let Some(name) = OWN_VARIABLES.iter().find(|name| arguments.contains_key(**name)) {
                let message = format!("`chat_template_kwargs` cannot set `{name}`, which the conversation gives");
                return Err(ApiError::field("chat_template_kwargs", message));
            }
            record.extra.insert("chat_template_kwargs".to_owned(), Value::Object(arguments));
        }
        Some(other) => return Err(wrong("chat_template_kwargs", "an object of the template's variables", &other)),
    }
    let is_empty = |value: &Value| value.as_array().is_some_and(Vec::is_empty);
    fields.neutral("tools", "[]", is_empty)?;
    fields.neutral("functions", "[]", is_empty)?;
    fields.neutral("tool_choice", "\"none\"", |value| value == "none" || value == "auto")?;
    fields.neutral("parallel_tool_calls", "true or false", Value::is_boolean)?;
    fields.neutral("response_format", "{\"type\": \"text\"}", |value| is_only(value.as_object(), "type", "text"))?;
    fields.neutral("modalities", "[\"text\"]", |value| *value == serde_json::json!(["text"]))?;
    Ok(record)
}

fn is_only(object: Option<&Map<String, Value>>, key: &str, value: &str) -> bool {
    object.is_some_and(|object| object.len() == 1 && object.get(key).is_some_and(|found| found == value))
}

/// Takes `logprobs` and `top_logprobs` of a chat completion.
fn chat_logprobs(fields: &mut Fields) -> Answered<Option<usize>> {
    let wanted = fields.flag("logprobs")?;
    match fields.count("top_logprobs", 0, MOST_ALTERNATIVES)? {
        Some(count) if count > 0 && !wanted => {
            Err(ApiError::field("top_logprobs", "`top_logprobs` needs `logprobs: true`"))
        }
        count => Ok(wanted.then(|| count.unwrap_or(0))),
    }
}

/// Reads the prompts of a plain completion: a text, several, a list of tokens, or several.
fn plain_prompts(value: Value) -> Answered<Vec<Unread>> {
    let text = |text: &str| Unread::Record(Box::new(Record::new(Prompt::Text(text.to_owned()), Vec::new())));
    let ids = |items: &[Value]| -> Option<Unread> {
        let id = |item: &Value| item.as_u64().and_then(|id| u32::try_from(id).ok());
        Some(Unread::Ids(items.iter().map(id).collect::<Option<_>>()?))
    };
    let found = match &value {
        Value::String(one) => Some(vec![text(one)]),
        Value::Array(items) if items.first().is_some_and(Value::is_number) => ids(items).map(|one| vec![one]),
        Value::Array(items) if !items.is_empty() && items.len() <= MOST_PROMPTS => {
            let one = |item: &Value| match item {
                Value::String(one) => Some(text(one)),
                Value::Array(tokens) => ids(tokens),
                _ => None,
            };
            items.iter().map(one).collect()
        }
        _ => None,
    };
    found.ok_or_else(|| {
        let expected = format!("a text, a list of tokens, or a list of up to {MOST_PROMPTS} of these");
        wrong("prompt", &expected, &value)
    })
}

/// Returns the tokens of a prompt, which leave room for one token at least.
fn ids_of(app: &App, name: &str, prompt: Unread) -> Answered<Vec<u32>> {
    let ids = match prompt {
        Unread::Record(record) => {
            let encoded = app.encoder.encode_prompt_of(&record);
            encoded.map_err(|problem| ApiError::field(name, Failure::of(&problem).sentence()))?
        }
        Unread::Ids(ids) => ids,
    };
    if ids.is_empty() {
        return Err(ApiError::field(name, format!("`{name}` has no tokens")));
    }
    let ids = require_known(name, ids, app.vocabulary)?;
    app.check_length(name, ids.len(), 1)?;
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn plain_prompts_are_texts_or_tokens() {
        let kinds = |value: Value| -> Vec<String> {
            let shown = |prompt: Unread| match prompt {
                Unread::Record(record) => record.prompt.question().to_owned(),
                Unread::Ids(ids) => format!("{ids:?}"),
            };
            plain_prompts(value).unwrap().into_iter().map(shown).collect()
        };
        assert_eq!(kinds(json!("a")), ["a"]);
        assert_eq!(kinds(json!(["a", "b"])), ["a", "b"]);
        assert_eq!(kinds(json!([1, 2])), ["[1, 2]"]);
        assert_eq!(kinds(json!([[1], [2, 3]])), ["[1]", "[2, 3]"]);
        for value in [json!([]), json!(5), json!([1, "a"]), json!([[1.5]]), json!([-1]), json!({"text": "a"})] {
            let error = plain_prompts(value.clone()).err().unwrap().body().to_string();
            assert!(error.contains("`prompt` must be a text"), "{value}: {error}");
        }
    }

    #[test]
    fn log_probabilities_are_asked_for_in_two_fields() {
        let read = |text: &str| chat_logprobs(&mut Fields::parse(text.as_bytes()).unwrap());
        assert_eq!(read("{}"), Ok(None));
        assert_eq!(read(r#"{"logprobs":true}"#), Ok(Some(0)));
        assert_eq!(read(r#"{"logprobs":true,"top_logprobs":5}"#), Ok(Some(5)));
        assert!(read(r#"{"top_logprobs":5}"#).is_err() && read(r#"{"logprobs":true,"top_logprobs":21}"#).is_err());
    }
}
