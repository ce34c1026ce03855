//! The connections. They are served on threads of their own; the model computes on the thread that started the server.

use std::net::TcpListener;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::runtime::Runtime;
use tokio::sync::{Notify, Semaphore};
use tokio::time::{sleep, timeout};

use crate::failure::{Failure, Outcome};

/// The most connections at once; further ones wait to be accepted.
const CONNECTIONS: usize = 1024;
/// The time that a connection may take for the headers of a request, and that it may be idle before one.
const HEADERS: Duration = Duration::from_secs(75);
/// The pause after a connection could not be accepted, as when there are too many open files.
const PAUSE: Duration = Duration::from_millis(50);
/// The time that the last answers may take to reach their clients.
const LAST: Duration = Duration::from_secs(5);
/// Threads that read requests, and the most that turn them into tokens.
const THREADS: usize = 2;
const TOKENIZING: usize = 4;

/// A server that runs.
pub(super) struct Server {
    thread: JoinHandle<std::io::Result<()>>,
    stop: Arc<Notify>,
    is_stopping: bool,
}

impl Server {
    /// Begins to serve connections. A request takes at most `timeout`.
    ///
    /// # Errors
    /// When the system gives no threads.
    pub(super) fn start(listener: TcpListener, router: Router, timeout: Duration) -> Outcome<Self> {
        let failed = |error: std::io::Error| Failure::run(format!("cannot start the server: {error}"));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .max_blocking_threads(TOKENIZING)
            .thread_name("serve")
            .enable_all()
            .build()
            .map_err(failed)?;
        let stop = Arc::new(Notify::new());
        let stopped = stop.clone();
        let thread = std::thread::Builder::new()
            .name("serve".to_owned())
            .spawn(move || run(runtime, listener, router, &stopped, timeout))
            .map_err(failed)?;
        Ok(Self { thread, stop, is_stopping: false })
    }

    /// Accepts no further connection, and ends those that there are after the request that they are at.
    pub(super) fn drain(&mut self) {
        if !self.is_stopping {
            self.is_stopping = true;
            self.stop.notify_one();
        }
    }

    /// Returns whether all connections have ended.
    pub(super) fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits until all connections have ended.
    ///
    /// # Errors
    /// When the server failed.
    pub(super) fn join(self) -> Outcome {
        match self.thread.join() {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Failure::run(format!("the server failed: {error}"))),
            Err(_) => Err(Failure::run("the server failed")),
        }
    }
}

fn run(
    runtime: Runtime,
    listener: TcpListener,
    router: Router,
    stop: &Notify,
    longest: Duration,
) -> std::io::Result<()> {
    let served = runtime.block_on(serve(listener, router, stop, longest));
    // A request whose client has gone may still be turned into tokens.
    runtime.shutdown_timeout(Duration::from_secs(1));
    served
}

async fn serve(listener: TcpListener, router: Router, stop: &Notify, longest: Duration) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let stopped = stop.notified();
    tokio::pin!(stopped);
    loop {
        let accepted = async {
            let place = places.clone().acquire_owned().await.map_err(std::io::Error::other)?;
            Ok::<_, std::io::Error>((listener.accept().await?.0, place))
        };
        let (stream, place) = tokio::select! {
            () = &mut stopped => break,
            accepted = accepted => match accepted {
                Ok(accepted) => accepted,
                Err(_) => {
                    sleep(PAUSE).await;
                    continue;
                }
            },
        };
        // Tokens are small and should not wait for one another.
        let _ = stream.set_nodelay(true);
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADERS)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router.clone()));
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            // A client that breaks off is no failure of the server.
            let _ = connection.await;
            drop(place);
        });
    }
    drop(listener);
    let _ = timeout(longest + LAST, graceful.shutdown()).await;
    Ok(())
}
