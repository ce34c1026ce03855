//! The loop that scores: the items of all requests that wait go through the reward model together.

use std::sync::mpsc::{Receiver, RecvTimeoutError};

use setpoint_reward::{RewardSource, Scored};
use tokio::sync::oneshot;

use super::engine::{POLL, contain};
use super::gate::Ticket;
use super::metrics::Metrics;

/// Items that are scored together, unless a single request has more.
const TOGETHER: usize = 256;

/// A response to be scored.
#[derive(Debug, Clone)]
pub(super) struct Item {
    /// The prompt's text.
    pub(super) prompt: String,
    /// The response's text.
    pub(super) response: String,
    /// The prompt's tokens.
    pub(super) prompt_ids: Vec<u32>,
    /// The response's tokens.
    pub(super) response_ids: Vec<u32>,
}

/// The items of a request.
#[derive(Debug)]
pub(super) struct ScoreWork {
    /// The items.
    pub(super) items: Vec<Item>,
    /// The receiver of the scores; nothing is sent if they could not be computed.
    pub(super) reply: oneshot::Sender<Vec<f64>>,
    /// Its places in the queue.
    pub(super) _tickets: Vec<Ticket>,
}

/// Scores until `goes_on` says no.
pub(super) fn score(
    source: &dyn RewardSource,
    inbox: &Receiver<ScoreWork>,
    metrics: &Metrics,
    goes_on: &mut dyn FnMut() -> bool,
) {
    while goes_on() {
        let first = match inbox.recv_timeout(POLL) {
            Ok(work) => work,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let mut works = vec![first];
        let mut items = works[0].items.len();
        while items < TOGETHER
            && let Ok(work) = inbox.try_recv()
        {
            items += work.items.len();
            works.push(work);
        }
        works.retain(|work| !work.reply.is_closed());
        metrics.show_load(works.iter().map(|work| work.items.len()).sum(), 0);
        let all = rate(source, works.iter().flat_map(|work| &work.items));
        metrics.count_pass(0);
        match all {
            Ok(scores) => {
                let mut scores = scores.into_iter();
                for work in works {
                    let own = scores.by_ref().take(work.items.len()).collect();
                    // The client may have gone meanwhile.
                    let _ = work.reply.send(own);
                }
            }
            // One request must not be the end of the others.
            Err(_) => {
                for work in works {
                    match rate(source, work.items.iter()) {
                        Ok(scores) => {
                            let _ = work.reply.send(scores);
                        }
                        Err(reason) => log::warn!("a request failed: {reason}"),
                    }
                }
            }
        }
        metrics.show_load(0, 0);
    }
}

fn rate<'i>(source: &dyn RewardSource, items: impl Iterator<Item = &'i Item>) -> Result<Vec<f64>, String> {
    let items: Vec<Scored<'_>> = items
        .enumerate()
        .map(|(row, item)| Scored {
            row,
            prompt: &item.prompt,
            response: &item.response,
            prompt_ids: &item.prompt_ids,
            response_ids: &item.response_ids,
            ..Scored::default()
        })
        .collect();
    contain(|| source.score(&items, &mut |_| ()))
}
