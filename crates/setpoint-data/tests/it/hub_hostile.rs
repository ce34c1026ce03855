//! Servers that answer as no hub does: nothing is written outside the cache, nothing hangs, and the token stays at home.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use setpoint_data::{DatasetConfig, Error, Hub, read_records_from};
use sha2::{Digest, Sha256};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const ROW: &str = "{\"prompt\": \"a\", \"completion\": \"1\"}\n";
const FILE: &str = "train.jsonl";

/// A request's first line and its headers, in lower case.
type Request = (String, Vec<String>);
/// Answers a request by its path.
type Answer = dyn Fn(&str, &[String], &mut TcpStream) + Send + Sync;

struct Server {
    endpoint: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    fn start(answer: impl Fn(&str, &[String], &mut TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (log, answer): (_, Arc<Answer>) = (requests.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let (log, answer) = (log.clone(), answer.clone());
                std::thread::spawn(move || {
                    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
                    let Some(request) = lines.next() else { return };
                    let headers: Vec<String> =
                        lines.take_while(|l| !l.is_empty()).map(|l| l.to_ascii_lowercase()).collect();
                    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
                    log.lock().unwrap().push((path.clone(), headers.clone()));
                    answer(&path, &headers, &mut stream);
                });
            }
        });
        Self { endpoint, requests }
    }

    /// A hub with one file, of which `answer` sends the body.
    fn hub(answer: impl Fn(&str, &[String], &mut TcpStream) + Send + Sync + 'static) -> Self {
        Self::start(move |path, headers, stream| {
            if path.starts_with("/api/") { list(stream, &[FILE], COMMIT) } else { answer(path, headers, stream) }
        })
    }

    /// Returns whether any request carried the token.
    fn saw_token(&self) -> bool {
        self.requests.lock().unwrap().iter().any(|(_, headers)| headers.iter().any(|h| h.contains("hf_secret")))
    }
}

fn list(stream: &mut TcpStream, names: &[&str], sha: &str) {
    let siblings: Vec<_> = names.iter().map(|n| serde_json::json!({"rfilename": n})).collect();
    let body = serde_json::json!({"siblings": siblings, "sha": sha}).to_string();
    send(stream, "200 OK", "", body.as_bytes());
}

fn send(stream: &mut TcpStream, status: &str, headers: &str, body: &[u8]) {
    let length = body.len();
    let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n");
    let _ = stream.write_all(body);
}

fn send_row(stream: &mut TcpStream) {
    send(stream, "200 OK", &format!("X-Repo-Commit: {COMMIT}\r\n"), ROW.as_bytes());
}

fn rows(hub: &Hub) -> Result<usize, Error> {
    read_records_from(&DatasetConfig::new("someone/pairs"), hub)?.try_fold(0, |count, row| row.map(|_| count + 1))
}

/// A cache within a folder of its own, in which anything that leaves the cache is seen.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap() };
        std::fs::write(place.folder.path().join("canary"), "untouched").unwrap();
        place
    }

    fn hub(&self, server: &Server) -> Hub {
        Hub::new(&server.endpoint, self.folder.path().join("a/b/c/hub")).with_timeout(Duration::from_secs(1))
    }

    fn assert_contained(&self) {
        let mut found = Vec::new();
        files(self.folder.path(), &mut found);
        let cache = self.folder.path().join("a/b/c/hub");
        let outside: Vec<_> = found.iter().filter(|f| !f.starts_with(&cache)).collect();
        assert_eq!(outside, [&self.folder.path().join("canary")]);
        assert_eq!(std::fs::read_to_string(outside[0]).unwrap(), "untouched");
        let unfinished: Vec<_> = found.iter().filter(|f| f.extension().is_some_and(|e| e == "part")).collect();
        assert!(unfinished.is_empty(), "{unfinished:?}");
    }

    /// The error's text, after at most `seconds`.
    fn refused(&self, server: &Server, seconds: u64) -> String {
        let begun = Instant::now();
        let message = rows(&self.hub(server)).unwrap_err().to_string();
        assert!(begun.elapsed() < Duration::from_secs(seconds), "{:?}: {message}", begun.elapsed());
        self.assert_contained();
        assert!(message.starts_with("hub data set someone/pairs (http://127.0.0.1:"), "{message}");
        message
    }
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() && !path.is_symlink() { files(&path, found) } else { found.push(path) }
    }
}

#[test]
fn headers_never_name_a_place() {
    let place = Place::new();
    let outside = place.folder.path().join("canary").display().to_string();
    let etags =
        [outside.clone(), "../../../../../canary".into(), "..".into(), "a/b".into(), "x".repeat(5000), String::new()];
    for etag in etags {
        for header in ["ETag", "X-Linked-Etag"] {
            let etag = etag.clone();
            let server = Server::hub(move |_, _, stream| {
                send(stream, "200 OK", &format!("{header}: \"{etag}\"\r\nX-Repo-Commit: {COMMIT}\r\n"), ROW.as_bytes());
            });
            let place = Place::new();
            assert_eq!(rows(&place.hub(&server)).unwrap(), 1);
            place.assert_contained();
        }
    }
    for commit in [outside.as_str(), "../../../X", "..", "main", "", "ffffffffffffffffffffffffffffffffffffffff"] {
        let of_file = commit.to_owned();
        let server = Server::hub(move |_, _, stream| {
            send(stream, "200 OK", &format!("X-Repo-Commit: {of_file}\r\n"), ROW.as_bytes());
        });
        let message = place.refused(&server, 5);
        assert!(message.contains("is of the commit"), "{message}");
        let of_list = commit.to_owned();
        let server =
            Server::start(
                move |path, _, stream| {
                    if path.starts_with("/api/") { list(stream, &[FILE], &of_list) } else { send_row(stream) }
                },
            );
        if commit.len() != 40 {
            let message = place.refused(&server, 5);
            assert!(message.contains("expected 40 hexadecimal digits"), "{message}");
        }
    }
}

#[test]
fn listed_names_never_leave_the_folder() {
    for name in [
        "../train.jsonl",
        "../../../../../train.jsonl",
        "/tmp/train.jsonl",
        "data/../../../train.jsonl",
        "data\\..\\../train.jsonl",
        "..\\..\\x/train.jsonl",
        "./train.jsonl",
        "data//train.jsonl",
        "C:x/train.jsonl",
        "data\u{0}/train.jsonl",
        "\u{1b}]0;x\u{7}/train.jsonl",
        &format!("{}/train.jsonl", "x".repeat(300)),
    ] {
        let listed = name.to_owned();
        let server =
            Server::start(
                move |path, _, stream| {
                    if path.starts_with("/api/") { list(stream, &[&listed], COMMIT) } else { send_row(stream) }
                },
            );
        let message = Place::new().refused(&server, 5);
        assert!(message.contains("the server lists the file"), "{name:?}: {message}");
        assert!(!message.contains(char::is_control), "{message:?}");
    }
}

#[test]
fn a_name_that_is_a_file_and_a_folder() {
    let server = Server::start(move |path, _, stream| {
        let names = ["train", "train/0000.jsonl", "train/0000.jsonl/0001.jsonl"];
        if path.starts_with("/api/") { list(stream, &names, COMMIT) } else { send_row(stream) }
    });
    let place = Place::new();
    let config =
        DatasetConfig { subset: Some("train/0000.jsonl".into()), split: "0001".into(), ..DatasetConfig::new("a/b") };
    let _ = read_records_from(&config, &place.hub(&server)).map(|rows| rows.count());
    let _ = rows(&place.hub(&server));
    place.assert_contained();
}

#[test]
fn the_token_stays_at_home() {
    let other = Server::start(|_, _, stream| send(stream, "200 OK", "", ROW.as_bytes()));
    let elsewhere = format!("{}/{FILE}", other.endpoint);
    let hub = Server::hub(move |_, _, stream| {
        let headers = format!("Location: {elsewhere}\r\nX-Repo-Commit: {COMMIT}\r\nX-Linked-Size: {}\r\n", ROW.len());
        send(stream, "302 Found", &headers, b"");
    });
    let place = Place::new();
    assert_eq!(rows(&place.hub(&hub).with_token("hf_secret")).unwrap(), 1);
    assert!(hub.saw_token() && !other.saw_token());
    assert_eq!(other.requests.lock().unwrap().len(), 1);

    // By another name of the same machine, and back home after a detour.
    let home = Arc::new(Mutex::new(String::new()));
    let of_other = home.clone();
    let other = Server::start(move |_, _, stream| {
        let back = format!("Location: {}/final\r\n", of_other.lock().unwrap());
        send(stream, "307 Temporary Redirect", &back, b"");
    });
    let port = other.endpoint.rsplit(':').next().unwrap().to_owned();
    let hub = Server::hub(move |path, _, stream| match path {
        "/final" => send_row(stream),
        _ => {
            send(
                stream,
                "302 Found",
                &format!("Location: http://localhost:{port}/x\r\nX-Repo-Commit: {COMMIT}\r\n"),
                b"",
            );
        }
    });
    home.lock().unwrap().clone_from(&hub.endpoint);
    assert_eq!(rows(&Place::new().hub(&hub).with_token("hf_secret")).unwrap(), 1);
    assert!(!other.saw_token());
    let requests = hub.requests.lock().unwrap();
    let (_, headers) = requests.iter().find(|(path, _)| path == "/final").unwrap();
    assert!(!headers.iter().any(|h| h.contains("hf_secret")), "not after a detour");
    drop(requests);

    // The list of files itself.
    let other = Server::start(|_, _, stream| list(stream, &[FILE], COMMIT));
    let elsewhere = other.endpoint.clone();
    let hub = Server::start(move |path, _, stream| match path.starts_with("/api/") {
        true => send(stream, "301 Moved Permanently", &format!("Location: {elsewhere}/list\r\n"), b""),
        false => send_row(stream),
    });
    assert_eq!(rows(&Place::new().hub(&hub).with_token("hf_secret")).unwrap(), 1);
    assert!(hub.saw_token() && !other.saw_token());

    // Within the hub the token is needed.
    let hub = Server::hub(move |path, _, stream| match path {
        "/renamed" => send_row(stream),
        _ => send(stream, "307 Temporary Redirect", "Location: /renamed\r\n", b""),
    });
    assert_eq!(rows(&Place::new().hub(&hub).with_token("hf_secret")).unwrap(), 1);
    let requests = hub.requests.lock().unwrap();
    assert!(requests.iter().all(|(_, headers)| headers.iter().any(|h| h == "authorization: bearer hf_secret")));
}

#[test]
fn redirects_that_lead_nowhere() {
    let cases: [(&str, &str); 6] = [
        ("302 Found", ""),
        ("304 Not Modified", "Location: /x\r\n"),
        ("302 Found", "Location: ?again\r\n"),
        ("308 Permanent Redirect", "Location: file:///etc/passwd\r\n"),
        ("302 Found", "Location: http://\r\n"),
        ("302 Found", "Location: ht!tp://[x\r\n"),
    ];
    for (status, headers) in cases {
        let server = Server::hub(move |_, _, stream| send(stream, status, headers, b""));
        let message = Place::new().refused(&server, 10);
        assert!(message.contains("redirect") || message.contains("Location"), "{message}");
        let server = Server::start(move |_, _, stream| send(stream, status, headers, b""));
        Place::new().refused(&server, 10);
    }
}

/// A name, the answer to a request for the file, and a part of the message.
type Body = (&'static str, fn(&mut TcpStream), &'static str);

#[test]
fn bodies_that_are_not_the_file() {
    let bodies: [Body; 9] = [
        (
            "endless, of no length",
            |stream| {
                let _ = write!(stream, "HTTP/1.1 200 OK\r\nX-Repo-Commit: {COMMIT}\r\n\r\n");
                while stream.write_all(&[b' '; 1 << 16]).is_ok() {}
            },
            "longer than the 268435456 bytes",
        ),
        (
            "larger than the disk",
            |stream| {
                let _ = write!(
                    stream,
                    "HTTP/1.1 200 OK\r\nX-Repo-Commit: {COMMIT}\r\nContent-Length: 1000000000000000000\r\n\r\n"
                );
                while stream.write_all(&[b' '; 1 << 16]).is_ok() {}
            },
            "has 1000000000000000000 bytes and the disk of the cache has",
        ),
        (
            "longer than announced",
            |stream| {
                let _ = write!(
                    stream,
                    "HTTP/1.1 200 OK\r\nX-Repo-Commit: {COMMIT}\r\nX-Linked-Size: 10\r\nConnection: close\r\n\r\n{ROW}"
                );
            },
            "longer than the 10 bytes that the server announced",
        ),
        (
            "of two lengths",
            |stream| {
                send(stream, "200 OK", &format!("X-Repo-Commit: {COMMIT}\r\nX-Linked-Size: 10\r\n"), ROW.as_bytes());
            },
            "the hub announces 10 bytes",
        ),
        (
            "short",
            |stream| {
                let _ =
                    write!(stream, "HTTP/1.1 200 OK\r\nX-Repo-Commit: {COMMIT}\r\nContent-Length: 1000\r\n\r\n{ROW}");
            },
            "broke off after",
        ),
        (
            "short, and of no length in its own headers",
            |stream| {
                let _ = write!(
                    stream,
                    "HTTP/1.1 200 OK\r\nX-Repo-Commit: {COMMIT}\r\nX-Linked-Size: 1000\r\nConnection: close\r\n\r\n{ROW}"
                );
            },
            "the server announced 1000 bytes and sent",
        ),
        (
            "stalled",
            |stream| {
                let _ =
                    write!(stream, "HTTP/1.1 200 OK\r\nX-Repo-Commit: {COMMIT}\r\nContent-Length: 1000\r\n\r\n{ROW}");
                std::thread::sleep(Duration::from_secs(20));
            },
            "broke off after",
        ),
        (
            "silent",
            |stream| {
                let _ = stream.flush();
                std::thread::sleep(Duration::from_secs(20));
            },
            "no answer in time",
        ),
        (
            "of another digest",
            |stream| {
                let headers = format!("X-Repo-Commit: {COMMIT}\r\nX-Linked-Etag: \"{}\"\r\n", "ab".repeat(32));
                send(stream, "200 OK", &headers, ROW.as_bytes());
            },
            "the hub names abababab",
        ),
    ];
    for (name, body, expected) in bodies {
        let server = Server::hub(move |_, _, stream| body(stream));
        let message = Place::new().refused(&server, 20);
        assert!(message.contains(expected), "{name}: {message}");
        assert!(!message.contains('\n'), "{name}: {message}");
    }
}

/// A name and the answer to a request for the list.
type List = (&'static str, fn(&mut TcpStream));

#[test]
fn lists_that_are_none() {
    let lists: [List; 4] = [
        ("endless", |stream| {
            let _ = write!(stream, "HTTP/1.1 200 OK\r\n\r\n");
            while stream.write_all(&[b' '; 1 << 16]).is_ok() {}
        }),
        ("stalled", |stream| {
            let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{{");
            std::thread::sleep(Duration::from_secs(20));
        }),
        ("too deep", |stream| send(stream, "200 OK", "", "[".repeat(1_000_000).as_bytes())),
        ("no list", |stream| send(stream, "200 OK", "", b"{\"siblings\": 7}")),
    ];
    for (name, body) in lists {
        let server = Server::start(move |_, _, stream| body(stream));
        let message = Place::new().refused(&server, 20);
        assert!(!message.contains('\n'), "{name}: {message}");
    }
}

#[test]
fn a_transfer_that_breaks_off_is_taken_up_again() {
    let digest: String = Sha256::digest(ROW.repeat(3)).iter().map(|b| format!("{b:02x}")).collect();
    let server = Server::hub(move |_, headers, stream| {
        let text = ROW.repeat(3);
        let common =
            format!("X-Repo-Commit: {COMMIT}\r\nX-Linked-Etag: \"{digest}\"\r\nX-Linked-Size: {}\r\n", text.len());
        match headers.iter().find_map(|h| h.strip_prefix("range: bytes=")?.strip_suffix('-')?.parse::<usize>().ok()) {
            Some(from) => {
                let range = format!("{common}Content-Range: bytes {from}-{}/{}\r\n", text.len() - 1, text.len());
                send(stream, "206 Partial Content", &range, &text.as_bytes()[from..]);
            }
            None => {
                let _ =
                    write!(stream, "HTTP/1.1 200 OK\r\n{common}Content-Length: {}\r\n\r\n{}", text.len(), &text[..40]);
            }
        }
    });
    let place = Place::new();
    assert_eq!(rows(&place.hub(&server)).unwrap(), 3);
    place.assert_contained();
    assert_eq!(server.requests.lock().unwrap().len(), 3, "the list, the beginning and the rest");
}

#[test]
fn half_a_split_in_the_cache_is_none() {
    let server = Server::start(|path, _, stream| match path {
        _ if path.starts_with("/api/") => {
            list(stream, &["train-00000-of-00002.jsonl", "train-00001-of-00002.jsonl", "test.jsonl"], COMMIT);
        }
        _ if path.ends_with("00001-of-00002.jsonl") => send(stream, "404 Not Found", "", b""),
        _ => send_row(stream),
    });
    let place = Place::new();
    let of = |split: &str| DatasetConfig { split: split.into(), ..DatasetConfig::new("someone/pairs") };
    let count = |split: &str, hub: &Hub| read_records_from(&of(split), hub).map(|rows| rows.count());
    let message = count("train", &place.hub(&server)).unwrap_err().to_string();
    assert!(message.contains("404"), "{message}");
    assert_eq!(count("test", &place.hub(&server)).unwrap(), 1);
    let nowhere = Hub::new("http://127.0.0.1:1", place.folder.path().join("a/b/c/hub"));
    assert_eq!(count("test", &nowhere).unwrap(), 1);
    assert!(count("train", &nowhere).is_err(), "one of two files is there");
}
