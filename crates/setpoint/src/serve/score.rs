//! `/v1/score`: a reward model's scores of responses.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use serde_json::{Value, json};
use setpoint_data::{DatasetConfig, Prompt, Record};
use tokio::sync::oneshot;
use tokio::time::timeout_at;

use super::app::App;
use super::error::{Answered, ApiError, json_response};
use super::fields::{Fields, wrong};
use super::scorer::{Item, ScoreWork};
use super::{body, messages};
use crate::setup;

/// The endpoint.
pub(super) const ENDPOINT: &str = "/v1/score";

/// The most items of a request.
const MOST_ITEMS: usize = 1024;

/// Answers a request.
///
/// # Errors
/// The refusal or failure that the client is told instead.
pub(super) async fn score(app: Arc<App>, body: Body) -> Answered<Response> {
    let (work, _) = app.reward()?;
    let _timed = app.metrics.time(ENDPOINT);
    let deadline = app.deadline();
    let items = body::read(&app, body, deadline, read).await?;
    let tokens: usize = items.iter().map(|item| item.prompt_ids.len() + item.response_ids.len()).sum();
    if items.len() > app.gate.most {
        let (count, most) = (items.len(), app.gate.most);
        let message = format!("`input` has {count} items; this server takes at most {most} (setting serve.queue)");
        return Err(ApiError::field("input", message));
    }
    let tickets = app.gate.enter(items.len()).ok_or_else(ApiError::queue_full)?;
    app.metrics.count_prompt(tokens);
    let (reply, scores) = oneshot::channel();
    work.send(ScoreWork { items, reply, _tickets: tickets }).map_err(|_| ApiError::ending())?;
    let scores = timeout_at(deadline, scores).await.map_err(|_| app.out_of_time())?;
    let scores = scores.map_err(|_| ApiError::failed("the model failed; the server's log says why"))?;
    let data = |(index, score): (usize, &f64)| json!({ "index": index, "object": "score", "score": score });
    Ok(json_response(&json!({
        "object": "list",
        "model": app.name,
        "data": scores.iter().enumerate().map(data).collect::<Vec<_>>(),
        "usage": { "prompt_tokens": tokens, "total_tokens": tokens },
    })))
}

/// Reads a request: `input` is a list of `{"prompt": …, "response": …}`, where a prompt is a text or a conversation.
fn read(app: &App, body: &[u8]) -> Answered<Vec<Item>> {
    let mut fields = Fields::parse(body)?;
    app.check_model(&mut fields)?;
    let input = fields.require("input")?;
    fields.end()?;
    match input {
        Value::Array(items) if (1..=MOST_ITEMS).contains(&items.len()) => {
            items.into_iter().enumerate().map(|(i, item)| tokenize(app, &format!("input[{i}]"), item)).collect()
        }
        other => Err(wrong("input", &format!("a list of 1 to {MOST_ITEMS} prompts with responses"), &other)),
    }
}

/// Turns an item into tokens, as `annotate` does.
fn tokenize(app: &App, name: &str, item: Value) -> Answered<Item> {
    let (_, reading) = app.reward()?;
    let Value::Object(mut item) = item else {
        return Err(wrong(name, "an object with prompt and response", &item));
    };
    let missing = |field: &str| ApiError::field(name, format!("`{name}` has no `{field}`"));
    let place = |field: &str| format!("{name}.{field}");
    let prompt = match item.remove("prompt") {
        None => return Err(missing("prompt")),
        Some(Value::String(text)) => Prompt::Text(text),
        Some(turns @ Value::Array(_)) => Prompt::Messages(messages::read(&place("prompt"), turns)?),
        Some(other) => return Err(wrong(&place("prompt"), "a text or a list of messages", &other)),
    };
    let response = match item.remove("response") {
        None => return Err(missing("response")),
        Some(Value::String(text)) => text,
        Some(other) => return Err(wrong(&place("response"), "a text", &other)),
    };
    if let Some(field) = item.keys().next() {
        return Err(ApiError::field(name, format!("`{}` is unknown; expected prompt and response", place(field))));
    }
    if matches!(prompt, Prompt::Messages(_)) && app.encoder.template().is_none() {
        let message = "this model has no chat template: give the prompt as a text, or start the server with --set model.template=FILE";
        return Err(ApiError::field(place("prompt"), message));
    }
    let text = prompt.question().to_owned();
    let mut records = [Record::new(prompt, Vec::new())];
    // A text becomes a user's turn if the model has a chat template, as in the rows of `annotate`.
    setup::text_prompts_become_turns(&mut records, &DatasetConfig::new(""), &app.encoder);
    let source = records[0].source.to_string();
    let encoded = setup::answer_ids(&app.encoder, &records[0], &response, reading);
    let (prompt_ids, response_ids) =
        encoded.map_err(|failure| ApiError::field(name, failure.with_place(&source, name).sentence()))?;
    app.check_length(name, prompt_ids.len() + response_ids.len(), 0)?;
    Ok(Item { prompt: text, response, prompt_ids, response_ids })
}
