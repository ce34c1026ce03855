//! An answer that is sent while it is generated, as server-sent events.

use std::convert::Infallible;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};
use tokio::sync::mpsc::{Sender, channel};
use tokio::time::timeout_at;
use tokio_stream::wrappers::ReceiverStream;

use super::asked::Form;
use super::choice::{Part, chat_logprobs, plain_logprobs};
use super::completion::Run;
use super::error::{Answered, ApiError};

/// Events that may wait for a slow client.
const AHEAD: usize = 32;

/// Begins the response, whose first token has come.
pub(super) fn respond(mut run: Run, first: Option<(usize, Part)>) -> Response {
    let (sender, receiver) = channel(AHEAD);
    tokio::spawn(async move {
        if let Err(error) = send_all(&mut run, first, &Events(&sender)).await {
            // A client that has gone, or does not read, needs no news.
            let _ = sender.try_send(Ok(Event::default().data(error.body().to_string())));
        }
    });
    Sse::new(ReceiverStream::new(receiver)).keep_alive(KeepAlive::default()).into_response()
}

/// The way to the client.
struct Events<'s>(&'s Sender<Result<Event, Infallible>>);

impl Events<'_> {
    async fn send(&self, run: &Run, data: String) -> Answered<()> {
        let sent = timeout_at(run.deadline, self.0.send(Ok(Event::default().data(data)))).await;
        // Without a client the answer ends like one without time.
        if matches!(sent, Ok(Ok(()))) { Ok(()) } else { Err(run.app.out_of_time()) }
    }

    /// Sends a part of one of the answers.
    async fn send_choice(&self, run: &Run, choice: Value) -> Answered<()> {
        let mut object = run.head(run.asked.form.part());
        object["choices"] = json!([choice]);
        if run.asked.sampling.include_usage {
            object["usage"] = Value::Null;
        }
        self.send(run, object.to_string()).await
    }
}

async fn send_all(run: &mut Run, first: Option<(usize, Part)>, events: &Events<'_>) -> Answered<()> {
    if run.asked.form == Form::Chat {
        for index in 0..run.choices.len() {
            let delta = json!({ "role": "assistant", "content": "" });
            let choice = json!({ "index": index, "delta": delta, "logprobs": null, "finish_reason": null });
            events.send_choice(run, choice).await?;
        }
    }
    let mut next = first;
    while let Some((index, part)) = next {
        for choice in parts_of(run, index, &part)? {
            events.send_choice(run, choice).await?;
        }
        next = run.next().await?;
    }
    if run.asked.sampling.include_usage {
        let mut object = run.head(run.asked.form.part());
        object["choices"] = json!([]);
        object["usage"] = run.usage();
        events.send(run, object.to_string()).await?;
    }
    events.send(run, "[DONE]".to_owned()).await
}

/// Returns the parts that are sent for a token: none if it adds no text, ends nothing and its log-probability was not asked for.
fn parts_of(run: &Run, index: usize, part: &Part) -> Result<Vec<Value>, ApiError> {
    let tokens = std::slice::from_ref(&part.token);
    let encoder = &run.app.encoder;
    let logprobs = run.asked.logprobs.map(|_| match run.asked.form {
        Form::Chat => chat_logprobs(encoder, tokens),
        Form::Plain => plain_logprobs(encoder, tokens),
    });
    let logprobs = logprobs.transpose()?;
    let has_content = !part.text.is_empty() || logprobs.is_some();
    let mut all = Vec::new();
    match run.asked.form {
        Form::Chat => {
            if has_content {
                let delta = json!({ "content": part.text });
                all.push(json!({ "index": index, "delta": delta, "logprobs": logprobs, "finish_reason": null }));
            }
            if part.finish.is_some() {
                all.push(json!({ "index": index, "delta": {}, "logprobs": null, "finish_reason": part.finish }));
            }
        }
        Form::Plain if has_content || part.finish.is_some() => all.push(json!({
            "index": index,
            "text": part.text,
            "logprobs": logprobs,
            "finish_reason": part.finish,
        })),
        Form::Plain => {}
    }
    Ok(all)
}
