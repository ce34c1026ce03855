//! A chat endpoint on loopback that does what it is told, mishaps included.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

/// The answers of the server to a request.
#[derive(Debug, Clone)]
pub enum Action {
    /// Answers with this text as the message's content.
    Say(String),
    /// Answers with this JSON.
    Json(Value),
    /// Answers with this status, further header lines and body.
    Status(u16, String, String),
    /// Closes the connection without a word.
    Cut,
    /// Sends half of an answer and closes the connection.
    Half,
    /// Waits, then answers.
    Slow(Duration),
}

/// A request that arrived.
#[derive(Debug, Clone)]
pub struct Arrived {
    /// The head, as sent.
    pub head: String,
    /// The body.
    pub body: Value,
}

pub struct Server {
    pub base_url: String,
    pub arrived: Arc<Mutex<Vec<Arrived>>>,
    /// Most requests under way at once.
    pub most: Arc<AtomicUsize>,
}

impl Server {
    /// `act` is given the number of the request, from 0, and the request.
    pub fn start(act: impl Fn(usize, &Arrived) -> Action + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base_url = format!("http://{}/v1", listener.local_addr().unwrap());
        let arrived = Arc::new(Mutex::new(Vec::new()));
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let act = Arc::new(act);
        let (seen, peak) = (Arc::clone(&arrived), Arc::clone(&most));
        // Ends with the process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (act, seen, now, peak) = (Arc::clone(&act), Arc::clone(&seen), Arc::clone(&now), Arc::clone(&peak));
                std::thread::spawn(move || {
                    let mut stream = stream;
                    while let Some(request) = read(&mut stream) {
                        let number = {
                            let mut seen = seen.lock().unwrap();
                            seen.push(request.clone());
                            seen.len() - 1
                        };
                        peak.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        let on = answer(&mut stream, act(number, &request));
                        now.fetch_sub(1, Ordering::SeqCst);
                        if !on {
                            break;
                        }
                    }
                });
            }
        });
        Self { base_url, arrived, most }
    }

    pub fn count(&self) -> usize {
        self.arrived.lock().unwrap().len()
    }
}

fn read(stream: &mut TcpStream) -> Option<Arrived> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break end + 4;
        }
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return None,
            Ok(n) => bytes.extend_from_slice(&buffer[..n]),
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let length: usize = head
        .lines()
        .find_map(|l| l.to_lowercase().strip_prefix("content-length:").map(|v| v.trim().parse().unwrap()))
        .unwrap_or(0);
    while bytes.len() < end + length {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return None,
            Ok(n) => bytes.extend_from_slice(&buffer[..n]),
        }
    }
    Some(Arrived { head, body: serde_json::from_slice(&bytes[end..]).unwrap() })
}

/// An answer of the endpoint, with ten prompt tokens and two of completion.
pub fn completion(content: &str) -> Value {
    json!({
        "id": "x",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12}
    })
}

/// Answers, and returns whether the connection goes on.
fn answer(stream: &mut TcpStream, action: Action) -> bool {
    let mut send = |status: u16, headers: &str, body: &str| {
        let length = body.len();
        let head = format!(
            "HTTP/1.1 {status} x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n{headers}\r\n"
        );
        stream.write_all(format!("{head}{body}").as_bytes()).is_ok()
    };
    match action {
        Action::Say(text) => send(200, "", &completion(&text).to_string()),
        Action::Json(json) => send(200, "", &json.to_string()),
        Action::Status(status, headers, body) => send(status, &headers, &body),
        Action::Cut => false,
        Action::Half => {
            let text = completion("half").to_string();
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{}", text.len(), &text[..text.len() / 2]);
            let _ = stream.write_all(head.as_bytes());
            false
        }
        Action::Slow(pause) => {
            std::thread::sleep(pause);
            send(200, "", &completion("late").to_string())
        }
    }
}
