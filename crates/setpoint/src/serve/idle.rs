//! Connections without a request. When there are too many, the one that has been without for longest makes room, so that clients that open
//! connections and send nothing keep nobody out.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::sync::Notify;
use tokio::time::sleep;

/// The connections that are without a request, the longest first.
#[derive(Debug, Default)]
pub(super) struct Idle {
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    connections: BTreeMap<u64, Arc<Notify>>,
}

impl Idle {
    /// Asks the connection to end that has been without a request for longest. Returns whether there is one.
    pub(super) fn end_longest(&self) -> bool {
        let longest = self.waiting().connections.pop_first();
        longest.inspect(|(_, end)| end.notify_one()).is_some()
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection, as the others know it.
#[derive(Debug)]
pub(super) struct Connection {
    idle: Arc<Idle>,
    end: Arc<Notify>,
    /// Told of each request that begins.
    begun: Notify,
    place: Mutex<Place>,
}

/// The place of a connection.
#[derive(Debug)]
struct Place {
    /// Its number among those without a request; none while it has one.
    number: Option<u64>,
    /// When it began to be without a request, or its request.
    since: Instant,
}

impl Connection {
    /// Registers a connection, which has no request yet.
    pub(super) fn new(idle: &Arc<Idle>) -> Arc<Self> {
        let place = Place { number: None, since: Instant::now() };
        let connection =
            Self { idle: idle.clone(), end: Arc::default(), begun: Notify::new(), place: Mutex::new(place) };
        connection.wait();
        Arc::new(connection)
    }

    /// Waits until the connection is asked to end.
    pub(super) async fn is_to_end(&self) {
        self.end.notified().await;
    }

    /// Returns for how long it has been without a request, if it is.
    pub(super) fn idle_for(&self) -> Option<Duration> {
        let place = self.place();
        place.number.is_some().then(|| place.since.elapsed())
    }

    /// Returns for how long it has had its request, if it has one.
    fn busy_for(&self) -> Option<Duration> {
        let place = self.place();
        place.number.is_none().then(|| place.since.elapsed())
    }

    /// Waits until a request and its answer have taken this long.
    pub(super) async fn is_overdue(&self, longest: Duration) {
        loop {
            match self.busy_for() {
                None => self.begun.notified().await,
                Some(busy) if busy < longest => sleep(longest - busy).await,
                Some(_) => return,
            }
        }
    }

    /// Begins a request, which ends when the value is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> Request {
        self.leave();
        self.begun.notify_one();
        Request(self.clone())
    }

    fn wait(&self) {
        let mut place = self.place();
        let mut waiting = self.idle.waiting();
        waiting.next += 1;
        let next = waiting.next;
        waiting.connections.insert(next, self.end.clone());
        *place = Place { number: Some(next), since: Instant::now() };
    }

    fn leave(&self) {
        let mut place = self.place();
        if let Some(number) = place.number.take() {
            self.idle.waiting().connections.remove(&number);
            place.since = Instant::now();
        }
    }

    fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.leave();
    }
}

/// A request at which a connection is.
#[derive(Debug)]
pub(super) struct Request(Arc<Connection>);

impl Request {
    /// Lasts as long as the body of its response.
    pub(super) fn with(self, body: Body) -> Body {
        Body::new(Answer { body, _request: self })
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.0.wait();
    }
}

/// The body of a response, with its request.
struct Answer {
    body: Body,
    _request: Request,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_without_a_request_ends_first() {
        let idle = Arc::new(Idle::default());
        let [first, second, third] = std::array::from_fn(|_| Connection::new(&idle));
        let request = first.begin();
        assert!(first.idle_for().is_none() && second.idle_for().is_some());
        drop(request.with(Body::empty()));
        // Now the first is the newest of them.
        assert!(first.idle_for() <= third.idle_for());
        drop(second);
        let order = |connection: &Connection| connection.place().number;
        assert!(order(&third) < order(&first));
        assert!(idle.end_longest() && idle.end_longest() && !idle.end_longest());
        let busy = third.begin();
        assert!(!idle.end_longest(), "a connection that is at a request stays");
        drop(busy);
        assert!(idle.end_longest());
    }

    #[test]
    fn a_request_is_overdue_after_its_own_time_alone() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let idle = Arc::new(Idle::default());
        let connection = Connection::new(&idle);
        let is_overdue = |longest: u64, within: u64| {
            let longest = Duration::from_millis(longest);
            let wait =
                async { tokio::time::timeout(Duration::from_millis(within), connection.is_overdue(longest)).await };
            runtime.block_on(wait).is_ok()
        };
        assert!(!is_overdue(10, 100), "it has no request");
        let request = connection.begin();
        assert!(connection.busy_for().is_some() && !is_overdue(60_000, 100));
        assert!(is_overdue(10, 60_000));
        drop(request);
        assert!(connection.busy_for().is_none() && !is_overdue(10, 100));
    }
}
