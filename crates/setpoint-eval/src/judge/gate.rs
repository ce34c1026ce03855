//! When the next request may go: a steady pace, and pauses that the endpoint asks for.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Shared by all workers.
#[derive(Debug)]
pub(super) struct Gate {
    interval: Duration,
    next: Mutex<Instant>,
}

impl Gate {
    pub(super) fn new(requests_per_minute: Option<f64>) -> Self {
        let interval = requests_per_minute.map_or(Duration::ZERO, |rate| Duration::from_secs_f64(60.0 / rate));
        Self { interval, next: Mutex::new(Instant::now()) }
    }

    /// Sleeps until it is this request's turn.
    pub(super) fn wait(&self) {
        let turn = {
            let mut next = self.lock();
            let turn = (*next).max(Instant::now());
            *next = turn + self.interval;
            turn
        };
        std::thread::sleep(turn.saturating_duration_since(Instant::now()));
    }

    /// Holds back every worker's next request.
    pub(super) fn pause(&self, pause: Duration) {
        let mut next = self.lock();
        *next = (*next).max(Instant::now() + pause);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Instant> {
        // An instant is whole at any moment, whoever panicked.
        self.next.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
