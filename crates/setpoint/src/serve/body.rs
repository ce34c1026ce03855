//! The bodies of requests.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_stream::StreamExt as _;

use super::app::App;
use super::error::{Answered, ApiError};

/// The most bytes of a body: 1 MB.
pub(super) const MOST: usize = 1 << 20;
/// The bytes beyond that are read and dropped, so that the client, which is still sending, comes to read the refusal.
const DROPPED: usize = 16 << 20;
/// The time that a body may take to arrive. A client that stalls holds its connection, and the end of a server that drains, for as long.
const ARRIVAL: Duration = Duration::from_secs(75);

/// Reads a body and turns it into a request on a thread of its own, since templates and tokenizers take their time.
///
/// # Errors
/// When the body is too large, incomplete or late, the time is over, or `parse` refuses it.
pub(super) async fn read<T: Send + 'static>(
    app: &Arc<App>,
    body: Body,
    deadline: Instant,
    parse: impl FnOnce(&App, &[u8]) -> Answered<T> + Send + 'static,
) -> Answered<T> {
    let work = async {
        let bytes = arrived(body, ARRIVAL).await?;
        let known = app.clone();
        let parsed = on_thread(&app.readers, move || parse(&known, &bytes)).await;
        let failed = || Err(ApiError::failed("the request could not be read; the server's log says why"));
        parsed.unwrap_or_else(failed)
    };
    timeout_at(deadline, work).await.unwrap_or_else(|_| Err(app.out_of_time()))
}

/// Runs work on a thread of its own once one of the `readers` is free; `None` if it panics. Work whose client has left is dropped
/// before its turn: otherwise clients that send a body and leave could fill the memory.
async fn on_thread<T: Send + 'static>(
    readers: &Arc<Semaphore>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let reader = readers.clone().acquire_owned().await.ok()?;
    let done = spawn_blocking(move || {
        let done = work();
        drop(reader);
        done
    });
    done.await.ok()
}

/// Reads a body that is there `within` this time.
async fn arrived(body: Body, within: Duration) -> Answered<Vec<u8>> {
    timeout(within, bytes_of(body)).await.unwrap_or_else(|_| Err(ApiError::late_body(within.as_secs())))
}

async fn bytes_of(body: Body) -> Answered<Vec<u8>> {
    let mut parts = body.into_data_stream();
    let mut bytes = Vec::new();
    let mut size = 0;
    while let Some(part) = parts.next().await {
        let part = part.map_err(|_| ApiError::invalid("the body ended early"))?;
        size += part.len();
        if size > MOST + DROPPED {
            break;
        }
        if size <= MOST {
            bytes.extend_from_slice(&part);
        }
    }
    if size > MOST { Err(ApiError::too_large(MOST)) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_above_the_limit_is_refused() {
        let read = |size: usize| {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(bytes_of(Body::from(vec![b' '; size])))
        };
        assert_eq!(read(MOST).map(|bytes| bytes.len()), Ok(MOST));
        assert_eq!(read(MOST + 1), Err(ApiError::too_large(MOST)));
    }

    #[test]
    fn a_body_that_stalls_is_not_waited_for() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let stalled = Body::from_stream(tokio_stream::pending::<std::io::Result<Vec<u8>>>());
        let read = runtime.block_on(arrived(stalled, Duration::from_millis(20)));
        assert_eq!(read, Err(ApiError::late_body(0)));
    }

    #[test]
    fn a_request_that_nobody_waits_for_is_dropped_before_its_turn() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let readers = Arc::new(Semaphore::new(1));
            let (go, wait) = std::sync::mpsc::channel::<()>();
            let others = readers.clone();
            let first = tokio::spawn(async move { on_thread(&others, move || wait.recv().is_ok()).await });
            while readers.available_permits() > 0 {
                tokio::task::yield_now().await;
            }
            let bytes = Arc::new(());
            let held = bytes.clone();
            let second = timeout(Duration::from_millis(20), on_thread(&readers, move || drop(held)));
            assert!(second.await.is_err(), "the only reader is at work");
            assert_eq!(Arc::strong_count(&bytes), 1);
            go.send(()).unwrap();
            assert_eq!(first.await.unwrap(), Some(true));
            // A reader that panics is free again.
            let broken = on_thread(&readers, || -> u8 { std::panic::resume_unwind(Box::new("broken")) });
            assert_eq!((broken.await, on_thread(&readers, || 3).await), (None, Some(3)));
        });
    }
}
