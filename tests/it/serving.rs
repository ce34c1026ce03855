//! A server that `setpoint serve` starts, and a client that sees every byte.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::fixture::{Ran, command};

/// A server that ends with the test.
pub struct Server {
    child: Option<Child>,
    /// Where it listens.
    pub address: String,
    /// The first line that it prints.
    pub said: String,
}

/// A response.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Reply {
    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The body as JSON; fails the test unless the status is 200.
    #[track_caller]
    pub fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{self:?}");
        self.json()
    }

    /// The data of the server-sent events.
    pub fn events(&self) -> Vec<String> {
        self.body.lines().filter_map(|line| line.strip_prefix("data: ")).map(str::to_owned).collect()
    }
}

impl Server {
    /// Serves a model with further arguments, at a free port.
    pub fn start(model: &Path, arguments: &[&str]) -> Self {
        Self::start_with(model, arguments, None)
    }

    /// The same with a key.
    pub fn start_with(model: &Path, arguments: &[&str], key: Option<&str>) -> Self {
        let model = model.display().to_string();
        let mut command = command(&["serve", "--model", &model, "--port", "0"]);
        command.args(arguments).env_remove("SETPOINT_API_KEY").stdout(Stdio::piped()).stderr(Stdio::piped());
        if let Some(key) = key {
            command.env("SETPOINT_API_KEY", key);
        }
        let mut child = command.spawn().unwrap();
        let mut said = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
        let Some((_, rest)) = said.split_once("http://") else {
            panic!("{:#?}", Ran::of(&child.wait_with_output().unwrap()));
        };
        let address = rest.split(',').next().unwrap().to_owned();
        Self { child: Some(child), address, said }
    }

    /// Sends a request; returns the connection, from which the reply can be read.
    pub fn send(&self, method: &str, path: &str, headers: &str, body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
        let length = body.len();
        // With HTTP/1.0 the end of the connection is that of the body, also of a stream's.
        let head = format!("{method} {path} HTTP/1.0\r\nHost: here\r\nContent-Length: {length}\r\n{headers}\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body.as_bytes()).unwrap();
        stream
    }

    /// Sends a request and reads the reply.
    pub fn request(&self, method: &str, path: &str, headers: &str, body: &str) -> Reply {
        reply(self.send(method, path, headers, body))
    }

    /// Posts JSON.
    pub fn post(&self, path: &str, body: &Value) -> Reply {
        self.request("POST", path, "Content-Type: application/json\r\n", &body.to_string())
    }

    /// Gets a page.
    pub fn get(&self, path: &str) -> Reply {
        self.request("GET", path, "", "")
    }

    /// Sends a signal.
    #[cfg(unix)]
    pub fn signal(&self, name: &str) {
        let id = self.child.as_ref().unwrap().id().to_string();
        assert!(std::process::Command::new("kill").args([&format!("-{name}"), &id]).status().unwrap().success());
    }

    /// Waits until the server has ended by itself.
    pub fn end(mut self) -> Ran {
        Ran::of(&self.child.take().unwrap().wait_with_output().unwrap())
    }
}

/// Reads a reply to its end.
pub fn reply(mut stream: TcpStream) -> Reply {
    let mut text = Vec::new();
    stream.read_to_end(&mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{text:?}"));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Reply { status: status.unwrap_or_else(|| panic!("{head}")), head: head.to_owned(), body: body.to_owned() }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
