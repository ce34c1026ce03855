//! The loop that answers: rows join the batch as soon as there is a place, and leave it when they end or their client has gone.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use setpoint_transformer::{CausalLm, Drawn, LiveBatch, NewRow, RowId};
use tokio::sync::mpsc::UnboundedSender;

use super::gate::Ticket;
use super::metrics::Metrics;
use crate::failure::Failure;

/// The time that the loop waits for work before it looks at whether it should end.
pub(super) const POLL: Duration = Duration::from_millis(20);

/// A row to be answered.
#[derive(Debug)]
pub(super) struct Work {
    /// Its prompt and settings.
    pub(super) row: NewRow,
    /// The receiver of its tokens.
    pub(super) client: Client,
}

/// The receiver of a row's tokens.
#[derive(Debug)]
pub(super) struct Client {
    /// Its place among the answers of the request.
    pub(super) choice: usize,
    /// The request.
    pub(super) events: UnboundedSender<Event>,
    /// Set when no more tokens are wanted.
    pub(super) cancelled: Arc<AtomicBool>,
    /// Its place in the queue.
    pub(super) _ticket: Ticket,
}

/// News for a request.
#[derive(Debug)]
pub(super) enum Event {
    /// A token of one of its answers.
    Drawn(usize, Drawn),
    /// One of its answers failed.
    Failed,
}

impl Client {
    fn is_gone(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// Tells the request; one that has gone sets `cancelled` and needs no news.
    fn tell(&self, event: Event) {
        let _ = self.events.send(event);
    }
}

/// Answers rows until `goes_on` says no, at most `places` at a time and of at most `most` tokens each.
pub(super) fn answer(
    model: &CausalLm,
    (places, most): (usize, usize),
    inbox: &Receiver<Work>,
    metrics: &Metrics,
    goes_on: &mut dyn FnMut() -> bool,
) {
    let mut batch = LiveBatch::new(model, places, most);
    let mut waiting: VecDeque<Work> = VecDeque::new();
    let mut rows: HashMap<RowId, Client> = HashMap::new();
    while goes_on() {
        if rows.is_empty() && waiting.is_empty() {
            match inbox.recv_timeout(POLL) {
                Ok(work) => waiting.push_back(work),
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
        waiting.extend(inbox.try_iter());
        waiting.retain(|work| !work.client.is_gone());
        rows.retain(|&row, client| {
            let stays = !client.is_gone();
            if !stays {
                batch.remove(row);
            }
            stays
        });
        while !batch.is_full()
            && let Some(Work { row, client }) = waiting.pop_front()
        {
            match batch.admit(row) {
                Ok(row) => {
                    rows.insert(row, client);
                }
                Err(error) => {
                    log::warn!("a request failed: {}", Failure::of(&error).sentence());
                    client.tell(Event::Failed);
                }
            }
        }
        metrics.show_load(rows.len(), waiting.len());
        if rows.is_empty() {
            continue;
        }
        match contain(|| batch.step()) {
            Ok(all) => {
                metrics.count_pass(all.len());
                for drawn in all {
                    let (row, ends) = (drawn.row, drawn.finish.is_some());
                    if let Some(client) = rows.get(&row) {
                        client.tell(Event::Drawn(client.choice, drawn));
                    }
                    if ends {
                        rows.remove(&row);
                    }
                }
            }
            Err(reason) => {
                log::warn!("{} in work failed: {reason}", setpoint_data::counted(rows.len(), "answer"));
                rows.drain().for_each(|(_, client)| client.tell(Event::Failed));
                batch = LiveBatch::new(model, places, most);
            }
        }
        metrics.show_load(rows.len(), waiting.len());
    }
}

/// Runs a pass. Devices tell of their failures by panics, and one failed pass must not end the server.
pub(super) fn contain<T, E: std::error::Error>(pass: impl FnOnce() -> Result<T, E>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(pass)) {
        Ok(result) => result.map_err(|error| Failure::of(&error).sentence()),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("the device failed");
            Err(setpoint_train::device_failure(text).unwrap_or_else(|| text.to_owned()))
        }
    }
}
