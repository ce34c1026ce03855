//! One answer as it comes: its text, its tokens, and why it ends.

use serde_json::{Value, json};
use setpoint_data::TextEncoder;
use setpoint_transformer::{Drawn, Finish};

use super::error::{Answered, ApiError};
use super::text::{AnswerText, StopScan};
use crate::failure::Failure;

/// A token of an answer.
#[derive(Debug, Clone)]
pub(super) struct Token {
    pub(super) id: u32,
    logp: f32,
    alternatives: Vec<(u32, f32)>,
    /// Characters of the answer before it.
    offset: usize,
}

/// The addition of one token to an answer.
#[derive(Debug)]
pub(super) struct Part {
    /// The text.
    pub(super) text: String,
    /// The token.
    pub(super) token: Token,
    /// OpenAI's word for the end of the answer, if this is it.
    pub(super) finish: Option<&'static str>,
}

/// An answer so far.
#[derive(Debug)]
pub(super) struct Choice {
    /// The place of its prompt in the request.
    pub(super) prompt: usize,
    decoded: AnswerText,
    stops: StopScan,
    /// The text, without a stop sequence.
    pub(super) text: String,
    /// The tokens. If a stop token ended the answer, it is the last one.
    pub(super) tokens: Vec<Token>,
    /// Characters that have been decoded.
    characters: usize,
    /// OpenAI's word for the end of the answer.
    pub(super) finish: Option<&'static str>,
}

/// Returns the failure of a tokenizer.
fn undecodable(error: &setpoint_data::Error) -> ApiError {
    ApiError::failed(Failure::of(error).sentence())
}

impl Choice {
    /// Creates an answer to the tokens of a request's prompt number `prompt`.
    pub(super) fn new(prompt: usize, ids: &[u32], stops: &[String]) -> Self {
        Self {
            prompt,
            decoded: AnswerText::after(ids),
            stops: StopScan::new(stops.to_vec()),
            text: String::new(),
            tokens: Vec::new(),
            characters: 0,
            finish: None,
        }
    }

    /// Adds a token.
    ///
    /// # Errors
    /// When the tokenizer's decoder fails.
    pub(super) fn push(&mut self, encoder: &TextEncoder, drawn: Drawn) -> Answered<Part> {
        let token = Token { id: drawn.id, logp: drawn.logp, alternatives: drawn.alternatives, offset: self.characters };
        let mut new = self.decoded.push(encoder, drawn.id).map_err(|error| undecodable(&error))?;
        if drawn.finish.is_some() {
            new += &self.decoded.finish(encoder).map_err(|error| undecodable(&error))?;
        }
        self.characters += new.chars().count();
        let (mut text, stopped) = self.stops.push(&new);
        self.finish = match drawn.finish {
            _ if stopped => Some("stop"),
            Some(Finish::Length) => Some("length"),
            Some(Finish::Stop | Finish::Interrupted) => Some("stop"),
            None => None,
        };
        if self.finish.is_some() && !stopped {
            text += &self.stops.rest();
        }
        self.text += &text;
        self.tokens.push(token.clone());
        Ok(Part { text, token, finish: self.finish })
    }

    /// Returns the tokens by number.
    pub(super) fn ids(&self) -> Vec<u32> {
        self.tokens.iter().map(|token| token.id).collect()
    }
}

/// Returns the text of a token alone, special or not.
fn text_of(encoder: &TextEncoder, id: u32) -> Answered<String> {
    encoder.decode(&[id]).map_err(|error| undecodable(&error))
}

/// Returns the log-probabilities of tokens as chat completions have them.
///
/// # Errors
/// When the tokenizer's decoder fails.
pub(super) fn chat_logprobs(encoder: &TextEncoder, tokens: &[Token]) -> Answered<Value> {
    let entry = |id: u32, logp: f32| -> Answered<Value> {
        let text = text_of(encoder, id)?;
        // A part of a character has no text, and its bytes are not known.
        let bytes = (!text.contains(char::REPLACEMENT_CHARACTER)).then(|| text.as_bytes().to_vec());
        Ok(json!({ "token": text, "logprob": logp, "bytes": bytes }))
    };
    let content = tokens.iter().map(|token| -> Answered<Value> {
        let mut value = entry(token.id, token.logp)?;
        let top = token.alternatives.iter().map(|&(id, logp)| entry(id, logp)).collect::<Answered<Vec<_>>>()?;
        value["top_logprobs"] = top.into();
        Ok(value)
    });
    Ok(json!({ "content": content.collect::<Answered<Vec<_>>>()?, "refusal": null }))
}

/// Returns the log-probabilities of tokens as plain completions have them.
///
/// # Errors
/// When the tokenizer's decoder fails.
pub(super) fn plain_logprobs(encoder: &TextEncoder, tokens: &[Token]) -> Answered<Value> {
    let texts = tokens.iter().map(|token| text_of(encoder, token.id)).collect::<Answered<Vec<_>>>()?;
    let top = tokens.iter().map(|token| -> Answered<Value> {
        // Tokens with equal texts share an entry, that of the likelier one.
        let mut entries = serde_json::Map::new();
        for &(id, logp) in &token.alternatives {
            entries.entry(text_of(encoder, id)?).or_insert_with(|| json!(logp));
        }
        Ok(Value::Object(entries))
    });
    Ok(json!({
        "tokens": texts,
        "token_logprobs": tokens.iter().map(|token| token.logp).collect::<Vec<_>>(),
        "top_logprobs": top.collect::<Answered<Vec<_>>>()?,
        "text_offset": tokens.iter().map(|token| token.offset).collect::<Vec<_>>(),
    }))
}
