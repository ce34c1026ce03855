//! The connections. They are served on threads of their own; the model computes on the thread that started the server.

use std::net::TcpListener;
use std::pin::pin;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep, timeout};

use super::idle::{Connection, Idle};
use crate::failure::{Failure, Outcome};

/// The most connections at once. For a further one, the connection ends that has been without a request for longest; if all have one, it
/// waits.
const CONNECTIONS: u32 = 1024;
/// How long a connection may take for the headers of a request, and how long it may be idle before one.
const HEADERS: Duration = Duration::from_secs(30);
/// How long a connection without a request may take to end.
const ENDING: Duration = Duration::from_secs(1);
/// The pause after a connection could not be accepted, as when there are too many open files.
const PAUSE: Duration = Duration::from_millis(50);
/// The time that the last answers may take to reach their clients.
const LAST: Duration = Duration::from_secs(5);
/// Threads that read requests, and the most that turn them into tokens.
const THREADS: usize = 2;
pub(super) const TOKENIZING: usize = 4;

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
        Self::start_with(listener, router, timeout + LAST, CONNECTIONS)
    }

    /// Does the same with another number of connections. A request and the way of its answer take at most `longest`.
    fn start_with(listener: TcpListener, router: Router, longest: Duration, connections: u32) -> Outcome<Self> {
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
            .spawn(move || {
                let served = runtime.block_on(serve(listener, router, &stopped, longest, connections));
                // A request whose client has gone may still be turned into tokens.
                runtime.shutdown_timeout(Duration::from_secs(1));
                served
            })
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

async fn serve(
    listener: TcpListener,
    router: Router,
    stop: &Notify,
    longest: Duration,
    connections: u32,
) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let places = Arc::new(Semaphore::new(connections as usize));
    let idle = Arc::new(Idle::default());
    let (stopping, is_stopping) = watch::channel(());
    let stopped = stop.notified();
    tokio::pin!(stopped);
    loop {
        let accepted = async {
            let stream = listener.accept().await?.0;
            Ok::<_, std::io::Error>((stream, place(&places, &idle).await?))
        };
        let (stream, place) = tokio::select! {
            () = &mut stopped => break,
            accepted = accepted => match accepted {
                Ok(accepted) => accepted,
                Err(_) => {
                    // As when there are too many open files.
                    idle.end_longest();
                    sleep(PAUSE).await;
                    continue;
                }
            },
        };
        tokio::spawn(attend(stream, router.clone(), Connection::new(&idle), is_stopping.clone(), longest, place));
    }
    drop((listener, stopping));
    let _ = timeout(longest, places.acquire_many(connections)).await;
    Ok(())
}

/// Waits for a place for a connection, and makes room if there is none.
async fn place(places: &Arc<Semaphore>, idle: &Idle) -> std::io::Result<OwnedSemaphorePermit> {
    loop {
        let free = places.clone().acquire_owned();
        let wait = match places.available_permits() {
            // If all have requests, one may soon be without.
            0 if !idle.end_longest() => PAUSE,
            _ => ENDING,
        };
        if let Ok(place) = timeout(wait, free).await {
            return place.map_err(std::io::Error::other);
        }
    }
}

/// Answers the requests of a connection. Its place is free when it has ended, which it does at the latest when an answer has not reached its
/// client in time: one that does not read would keep the place for ever.
async fn attend(
    stream: TcpStream,
    router: Router,
    known: Arc<Connection>,
    is_stopping: watch::Receiver<()>,
    longest: Duration,
    _place: OwnedSemaphorePermit,
) {
    tokio::select! {
        () = answer(stream, router, &known, is_stopping) => {}
        () = known.is_overdue(longest) => {}
    }
}

/// Answers requests until the connection ends or is asked to.
async fn answer(stream: TcpStream, router: Router, known: &Arc<Connection>, mut is_stopping: watch::Receiver<()>) {
    // Tokens are small and should not wait for one another.
    let _ = stream.set_nodelay(true);
    let service = TowerToHyperService::new(router);
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let (begun, answer) = (known.begin(), service.call(request));
        async move { answer.await.map(|response| response.map(|body| begun.with(body))) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    // A client that breaks off is no failure of the server.
    tokio::select! {
        _ = connection.as_mut() => return,
        () = known.is_to_end() => {}
        _ = is_stopping.changed() => {}
    }
    // After the request that it is at, if there is one. The end of an answer may be on its way. Incomplete headers are not waited for.
    connection.as_mut().graceful_shutdown();
    while known.idle_for().is_none_or(|idle| idle < ENDING) {
        if timeout(ENDING, connection.as_mut()).await.is_ok() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream;
    use std::time::Instant;

    use axum::body::Body;
    use axum::routing::get;

    use super::*;

    const MOST: u32 = 6;
    const HEAD: &str = "GET /health HTTP/1.1\r\nHost: a\r\n";

    fn connected(server: &(Server, std::net::SocketAddr), text: &str) -> TcpStream {
        let mut stream = TcpStream::connect(server.1).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        stream
    }

    fn started(router: Router, longest: Duration) -> (Server, std::net::SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        (Server::start_with(listener, router, longest, MOST).unwrap(), address)
    }

    fn read(mut stream: TcpStream) -> String {
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn connections_that_send_nothing_keep_nobody_out() {
        let (began, has_begun) = std::sync::mpsc::channel();
        let slow = move || {
            began.send(()).unwrap();
            async {
                sleep(Duration::from_secs(3)).await;
                "slow"
            }
        };
        let router = Router::new().route("/health", get(|| async { "well" })).route("/slow", get(slow));
        let mut server = started(router, Duration::from_secs(10));
        // It has a request for as long as the others come, and stays.
        let working = connected(&server, "GET /slow HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        has_begun.recv().unwrap();
        let begun = Instant::now();
        let mut idle = Vec::new();
        for round in 0..4 * MOST {
            // Without a byte, within its headers, and after a request.
            let text = ["".to_owned(), HEAD.to_owned(), format!("{HEAD}\r\n")][round as usize % 3].clone();
            let mut stream = connected(&server, &text);
            if text.ends_with("\r\n\r\n") {
                let mut answer = Vec::new();
                while !answer.ends_with(b"well") {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).unwrap();
                    answer.extend(byte);
                }
            }
            idle.push(stream);
            if round % MOST == MOST - 1 {
                let asked = Instant::now();
                let text = read(connected(&server, &format!("{HEAD}Connection: close\r\n\r\n")));
                assert!(text.starts_with("HTTP/1.1 200") && text.ends_with("well"), "{text}");
                assert!(asked.elapsed() < HEADERS / 2, "{round}: {:?}", asked.elapsed());
            }
        }
        let text = read(working);
        assert!(text.starts_with("HTTP/1.1 200") && text.ends_with("slow"), "{text}");
        // The longest without a request was told to end.
        assert_eq!(read(idle.swap_remove(2)), "");
        // The end does not wait for headers.
        server.0.drain();
        server.0.join().unwrap();
        assert!(begun.elapsed() < HEADERS, "{:?}", begun.elapsed());
    }

    /// Sends a word when it is dropped.
    struct Told(std::sync::mpsc::Sender<()>);

    impl Told {
        fn chunk(&self) -> std::io::Result<Vec<u8>> {
            Ok(vec![b'x'; 1 << 16])
        }
    }

    impl Drop for Told {
        fn drop(&mut self) {
            let _ = self.0.send(());
        }
    }

    #[test]
    fn a_client_that_does_not_read_its_answer_loses_its_connection() {
        let (sender, ended) = std::sync::mpsc::channel();
        let endless = move || {
            let told = Told(sender.clone());
            async move { Body::from_stream(tokio_stream::iter(std::iter::repeat_with(move || told.chunk()))) }
        };
        let mut server = started(Router::new().route("/endless", get(endless)), Duration::from_secs(1));
        let begun = Instant::now();
        let stream = connected(&server, "GET /endless HTTP/1.1\r\nHost: a\r\n\r\n");
        ended.recv_timeout(Duration::from_secs(60)).unwrap();
        assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
        server.0.drain();
        server.0.join().unwrap();
        drop(stream);
    }
}
