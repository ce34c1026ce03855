//! `/v1/chat/completions` and `/v1/completions`: a request becomes rows of the batch, and their tokens its answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::response::Response;
use serde_json::{Value, json};
use setpoint_transformer::NewRow;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::{Instant, timeout_at};

use super::app::App;
use super::asked::{Asked, Form};
use super::choice::{Choice, Part, chat_logprobs, plain_logprobs};
use super::engine::{Client, Event, Work};
use super::error::{Answered, ApiError, json_response};
use super::metrics::Timed;
use super::sampling::random;
use super::{body, stream};

/// Answers a request.
///
/// # Errors
/// The refusal or failure that the client is told instead.
pub(super) async fn complete(app: Arc<App>, form: Form, body: Body) -> Answered<Response> {
    app.policy()?;
    let timed = app.metrics.time(form.endpoint());
    let deadline = app.deadline();
    let asked = body::read(&app, body, deadline, move |app, bytes| Asked::read(app, form, bytes)).await?;
    let mut run = Run::start(app, asked, deadline, timed)?;
    // The status of a stream, too, waits for its first token.
    let first = run.next().await?;
    run.timed.first_token();
    if run.asked.sampling.stream {
        return Ok(stream::respond(run, first));
    }
    while run.next().await?.is_some() {}
    Ok(json_response(&run.answer()?))
}

/// Tells the rows of a request, when it is dropped, that their tokens are no longer wanted.
struct Flags(Vec<Arc<AtomicBool>>);

impl Drop for Flags {
    fn drop(&mut self) {
        self.0.iter().for_each(|flag| flag.store(true, Ordering::Relaxed));
    }
}

/// A request in work.
pub(super) struct Run {
    pub(super) app: Arc<App>,
    pub(super) asked: Asked,
    pub(super) choices: Vec<Choice>,
    pub(super) deadline: Instant,
    timed: Timed,
    id: String,
    created: u64,
    events: UnboundedReceiver<Event>,
    flags: Flags,
    /// Answers that have not ended.
    open: usize,
}

impl Run {
    /// Puts the rows of a request into the queue.
    fn start(app: Arc<App>, asked: Asked, deadline: Instant, timed: Timed) -> Answered<Self> {
        let sampling = &asked.sampling;
        let count = asked.prompts.len() * sampling.n;
        if count > app.gate.most {
            let message = format!("the request asks for {count} answers; this server takes at most {}", app.gate.most);
            return Err(ApiError::field("n", message));
        }
        let tickets = app.gate.enter(count).ok_or_else(ApiError::queue_full)?;
        let (sender, events) = unbounded_channel();
        let flags = Flags((0..count).map(|_| Arc::new(AtomicBool::new(false))).collect());
        let (work, _) = app.policy()?;
        let mut choices = Vec::with_capacity(count);
        for (choice, ticket) in tickets.into_iter().enumerate() {
            let (prompt, stream) = (choice / sampling.n, choice % sampling.n);
            let ids = &asked.prompts[prompt];
            let row = NewRow {
                prompt: ids.clone(),
                config: sampling.config.clone(),
                seed: sampling.seed,
                stream: stream as u64,
                alternatives: asked.logprobs.unwrap_or(0),
            };
            let cancelled = flags.0[choice].clone();
            let client = Client { choice, events: sender.clone(), cancelled, _ticket: ticket };
            work.send(Work { row, client }).map_err(|_| ApiError::ending())?;
            choices.push(Choice::new(prompt, ids, &sampling.stops));
        }
        app.metrics.count_prompt(asked.prompts.iter().map(Vec::len).sum());
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let id = format!("{}-{:016x}{:016x}", asked.form.id(), random(), random());
        Ok(Self { app, asked, choices, deadline, timed, id, created, events, flags, open: count })
    }

    /// Waits for the next token; none if all answers have ended.
    ///
    /// # Errors
    /// When the time is over, the model fails or the server ends.
    pub(super) async fn next(&mut self) -> Answered<Option<(usize, Part)>> {
        while self.open > 0 {
            let event = timeout_at(self.deadline, self.events.recv()).await.map_err(|_| self.app.out_of_time())?;
            match event {
                None => return Err(ApiError::ending()),
                Some(Event::Failed) => return Err(ApiError::failed("the model failed; the server's log says why")),
                Some(Event::Drawn(index, drawn)) => {
                    let choice = &mut self.choices[index];
                    // The batch goes on until it has seen the flag.
                    if choice.finish.is_some() {
                        continue;
                    }
                    let part = choice.push(&self.app.encoder, drawn)?;
                    if part.finish.is_some() {
                        self.flags.0[index].store(true, Ordering::Relaxed);
                        self.open -= 1;
                    }
                    return Ok(Some((index, part)));
                }
            }
        }
        Ok(None)
    }

    /// Returns the fields that every object of an answer begins with.
    pub(super) fn head(&self, object: &str) -> Value {
        json!({ "id": self.id, "object": object, "created": self.created, "model": self.app.name })
    }

    /// Returns the numbers of tokens.
    pub(super) fn usage(&self) -> Value {
        let prompt: usize = self.asked.prompts.iter().map(Vec::len).sum();
        let completion: usize = self.choices.iter().map(|choice| choice.tokens.len()).sum();
        json!({
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
        })
    }

    /// Returns the whole answer.
    fn answer(&self) -> Answered<Value> {
        let token_ids = self.asked.sampling.token_ids;
        let mut all = Vec::with_capacity(self.choices.len());
        for (index, choice) in self.choices.iter().enumerate() {
            let logprobs = self.asked.logprobs.map(|_| match self.asked.form {
                Form::Chat => chat_logprobs(&self.app.encoder, &choice.tokens),
                Form::Plain => plain_logprobs(&self.app.encoder, &choice.tokens),
            });
            let mut value = json!({
                "index": index,
                "logprobs": logprobs.transpose()?,
                "finish_reason": choice.finish,
            });
            match self.asked.form {
                Form::Chat => {
                    value["message"] = json!({ "role": "assistant", "content": choice.text, "refusal": null });
                }
                Form::Plain => value["text"] = choice.text.clone().into(),
            }
            if token_ids {
                value["token_ids"] = choice.ids().into();
                value["prompt_token_ids"] = self.asked.prompts[choice.prompt].clone().into();
            }
            all.push(value);
        }
        let mut answer = self.head(self.asked.form.object());
        answer["choices"] = all.into();
        answer["usage"] = self.usage();
        Ok(answer)
    }
}
