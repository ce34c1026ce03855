//! Requests that change something on the hub. The token goes to the hub's own origin alone, and no redirect is followed.

use std::io::{self, Read, Seek, SeekFrom};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;
use ureq::http::{HeaderMap, Uri};
use ureq::{Agent, SendBody};

use super::PushFile;
use crate::read::hub::cache::shorten;
use crate::read::hub::http::{Failed, Origin, explain, percent_encode};

/// How many times longer than a server of files the hub may stay silent: it looks at the files of a commit before it answers.
const PATIENCE: u32 = 12;
/// The longest answer that is read.
const LONGEST: u64 = 16 << 20;
/// How often a request is sent whose failure may pass.
const ATTEMPTS: u32 = 3;

/// The content of a request.
pub(super) enum Body<'a> {
    /// Bytes of a kind.
    Bytes {
        /// The bytes.
        bytes: &'a [u8],
        /// Their media type.
        kind: &'a str,
    },
    /// A part of a file.
    Part {
        /// The file.
        file: &'a PushFile,
        /// Where the part begins.
        from: u64,
        /// Its length.
        length: u64,
    },
}

/// The answer to a request.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    body: Vec<u8>,
}

/// A client with the token of its hub.
pub(super) struct Client<'a> {
    agent: Agent,
    /// For addresses of this machine, which no proxy reaches.
    direct: Agent,
    endpoint: &'a str,
    home: Origin,
    token: &'a str,
}

impl<'a> Client<'a> {
    /// Makes a client for a server, which fails when the server stays silent for longer than `silence`.
    pub(super) fn new(endpoint: &'a str, token: &'a str, silence: Duration) -> Result<Self, String> {
        let endpoint = endpoint.trim_end_matches('/');
        let uri: Uri = endpoint.parse().map_err(|e| format!("HF_ENDPOINT is not an address: {e}"))?;
        let home = Origin::of(&uri).map_err(|e| format!("HF_ENDPOINT is not an address: {e}"))?;
        if token.chars().any(|c| !c.is_ascii_graphic()) {
            return Err("the token holds spaces or characters that no token has: check HF_TOKEN".into());
        }
        let answer = silence.saturating_mul(PATIENCE);
        let config = || {
            Agent::config_builder()
                .http_status_as_error(false)
                .max_redirects(0)
                .max_redirects_will_error(false)
                .accept_encoding("identity")
                .timeout_resolve(Some(silence))
                .timeout_connect(Some(silence))
                .timeout_per_read(Some(answer))
                .timeout_per_write(Some(answer))
                .timeout_recv_response(Some(answer))
                .timeout_recv_body(Some(answer))
                .user_agent(concat!("setpoint/", env!("CARGO_PKG_VERSION")))
        };
        let (agent, direct) = (config().build().new_agent(), config().proxy(None).build().new_agent());
        Ok(Self { agent, direct, endpoint, home, token })
    }

    /// Returns an address of the hub.
    pub(super) fn url(&self, path: &str) -> String {
        format!("{}/{path}", self.endpoint)
    }

    /// Returns an address of the hub that ends with a revision.
    pub(super) fn url_at(&self, path: &str, revision: &str) -> String {
        let mut url = self.url(path);
        url.push('/');
        percent_encode(revision, "", &mut url);
        url
    }

    /// Returns whether a file's content holds the token.
    pub(super) fn is_secret_in(&self, content: &[u8]) -> bool {
        content.windows(self.token.len()).any(|window| window == self.token.as_bytes())
    }

    /// Gets an address of the hub.
    pub(super) fn get(&self, url: &str) -> Result<Answer, String> {
        repeat(|| {
            let (uri, agent, at_home) = self.reach(url)?;
            let mut request = agent.get(&uri);
            if at_home {
                request = request.header("authorization", format!("Bearer {}", self.token));
            }
            answer(request.call())
        })
    }

    /// Sends JSON to the hub.
    pub(super) fn post_json(&self, url: &str, value: &Value) -> Result<Answer, String> {
        self.post(url, value, "application/json", true)
    }

    /// Sends JSON of a kind. With `with_token`, the token goes along if the address is the hub's own.
    pub(super) fn post(&self, url: &str, value: &Value, kind: &str, with_token: bool) -> Result<Answer, String> {
        let text = value.to_string();
        let body = Body::Bytes { bytes: text.as_bytes(), kind };
        repeat(|| self.send(Method::Post, url, with_token, &body, &mut |_| {}))
    }

    /// Sends a body that must not be sent twice.
    pub(super) fn post_once(&self, url: &str, body: &Body<'_>) -> Result<Answer, String> {
        self.send(Method::Post, url, true, body, &mut |_| {}).map_err(|failed| failed.reason)
    }

    /// Stores a body at an address of the storage, which never sees the token. `sent` is told the bytes of the attempt so far.
    pub(super) fn put(&self, url: &str, body: &Body<'_>, sent: &mut dyn FnMut(u64)) -> Result<Answer, String> {
        repeat(|| self.send(Method::Put, url, false, body, sent))
    }

    /// Returns an address with the agent that reaches it, and whether it is the hub's own.
    fn reach(&self, url: &str) -> Result<(Uri, &Agent, bool), Failed> {
        let uri: Uri = url.parse().map_err(|e| Failed::for_good(format!("{:?}: {e}", shorten(url))))?;
        let origin = Origin::of(&uri).map_err(Failed::for_good)?;
        if self.home.is_encrypted() && !origin.is_encrypted() {
            return Err(Failed::for_good(format!("the hub leads from https to {:?}", shorten(&without_query(url)))));
        }
        let agent = if origin.is_loopback() { &self.direct } else { &self.agent };
        let at_home = origin == self.home;
        Ok((uri, agent, at_home))
    }

    fn send(
        &self,
        method: Method,
        url: &str,
        with_token: bool,
        body: &Body<'_>,
        sent: &mut dyn FnMut(u64),
    ) -> Result<Answer, Failed> {
        let (uri, agent, at_home) = self.reach(url)?;
        let mut request = match method {
            Method::Post => agent.post(&uri),
            Method::Put => agent.put(&uri),
        };
        if with_token && at_home {
            request = request.header("authorization", format!("Bearer {}", self.token));
        }
        match body {
            Body::Bytes { bytes, kind } => {
                if kind.contains("git-lfs") {
                    request = request.header("accept", *kind);
                }
                answer(request.header("content-type", *kind).send(*bytes))
            }
            Body::Part { file, from, length } => {
                let local = |error: io::Error| {
                    Failed::for_good(setpoint_files::Error::io("read", &file.path)(error).to_string())
                };
                let mut source = setpoint_files::open(&file.path).map_err(|e| Failed::for_good(e.to_string()))?;
                source.seek(SeekFrom::Start(*from)).map_err(local)?;
                let mut counting = Counting { source: source.take(*length), done: 0, sent };
                // With a length: the storage takes no body in chunks.
                let request = request.header("content-length", length.to_string());
                answer(request.send(SendBody::from_reader(&mut counting)))
            }
        }
    }
}

/// The method of a request with a body.
#[derive(Clone, Copy)]
enum Method {
    Post,
    Put,
}

/// Repeats a request whose failure may pass, up to [`ATTEMPTS`] times.
fn repeat(mut request: impl FnMut() -> Result<Answer, Failed>) -> Result<Answer, String> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        let last = attempt == ATTEMPTS;
        match request() {
            Ok(answer) if last || !matches!(answer.status, 408 | 425 | 429 | 500 | 502..=504) => return Ok(answer),
            Err(failed) if last || !failed.passes => return Err(failed.reason),
            _ => std::thread::sleep(Duration::from_millis(300) * attempt),
        }
    }
}

/// Reads an answer whole.
fn answer(response: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<Answer, Failed> {
    let (parts, body) = response.map_err(explain)?.into_parts();
    let mut bytes = Vec::new();
    let read = body.into_reader().take(LONGEST + 1).read_to_end(&mut bytes);
    read.map_err(|error| Failed { reason: format!("the answer broke off: {error}"), passes: true })?;
    if bytes.len() as u64 > LONGEST {
        return Err(Failed::for_good(format!("the answer is longer than {} MiB", LONGEST >> 20)));
    }
    Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body: bytes })
}

/// An address without its query, which may hold a signature.
pub(super) fn without_query(url: &str) -> String {
    url.split('?').next().unwrap_or_default().to_owned()
}

impl Answer {
    /// Fails if the status is not one of success.
    pub(super) fn check(&self, id: &str) -> Result<(), String> {
        let said = self.said();
        Err(match self.status {
            200..=299 => return Ok(()),
            300..=399 => format!("status {}: the hub leads elsewhere. Has {id} another name now?", self.status),
            401 => {
                format!("status 401: the hub does not accept the token{said}. Set HF_TOKEN to one with write access")
            }
            403 => format!("status 403: this token may not write to {id}{said}. Set HF_TOKEN to one with write access"),
            404 => format!("status 404: no such repository or branch, or this token does not see it{said}"),
            409 | 412 => {
                format!("status {}: the repository changed meanwhile{said}. Run the same command again", self.status)
            }
            413 => format!("status 413: a file is larger than the hub takes{said}"),
            429 => format!("status 429: too many requests{said}. Try again later"),
            status => format!("status {status}{said}"),
        })
    }

    /// Reads an answer of success. `what` it is expected to be.
    pub(super) fn parse<T: DeserializeOwned>(&self, what: &str, id: &str) -> Result<T, String> {
        self.check(id)?;
        serde_json::from_slice(&self.body).map_err(|_| format!("the hub's answer is not {what}"))
    }

    /// Returns the server's own words, to be part of a sentence.
    fn said(&self) -> String {
        let header =
            self.headers.get("x-error-message").map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let body = || {
            let value: Value = serde_json::from_slice(&self.body).ok()?;
            let message = value.get("error").or_else(|| value.get("message"))?;
            message.as_str().map(str::to_owned)
        };
        match header.or_else(body).filter(|text| !text.trim().is_empty()) {
            Some(text) => format!(" ({:?})", shorten(text.trim())),
            None => String::new(),
        }
    }
}

/// A reader that tells how much was read.
struct Counting<'a, R> {
    source: R,
    done: u64,
    sent: &'a mut dyn FnMut(u64),
}

impl<R: Read> Read for Counting<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.done += count as u64;
        (self.sent)(self.done);
        Ok(count)
    }
}
