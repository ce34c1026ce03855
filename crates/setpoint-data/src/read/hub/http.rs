//! Requests to the hub: redirects that keep the token at home, and limits on time and size.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use ureq::http::{HeaderMap, StatusCode, Uri};

use super::cache::shorten;

/// How long the headers of an answer may take.
const HEADERS: Duration = Duration::from_secs(30);
/// How long any body may take, and the speed, in bytes a second, that it must have beyond that.
const GRACE: Duration = Duration::from_secs(30);
const SLOWEST: u64 = 4 << 10;
/// The most redirects in a row.
const REDIRECTS: usize = 8;

/// A client with the token of its hub.
pub(super) struct Client {
    agent: ureq::Agent,
    /// For addresses of this machine, which no proxy reaches.
    direct: ureq::Agent,
    home: Origin,
    token: Option<String>,
}

/// Scheme, host and port of an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    https: bool,
    host: String,
    port: u16,
}

impl Origin {
    pub(super) fn of(uri: &Uri) -> Result<Self, String> {
        let https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(format!("{:?} is not an http or https address", shorten(&uri.to_string()))),
        };
        let host = uri.host().filter(|h| !h.is_empty()).ok_or_else(|| format!("{uri} names no host"))?;
        let port = match uri.authority().and_then(|a| a.port()) {
            Some(port) => port.as_str().parse().map_err(|_| format!("{uri} has no valid port"))?,
            None if https => 443,
            None => 80,
        };
        Ok(Self { https, host: host.to_ascii_lowercase(), port })
    }

    pub(super) fn is_loopback(&self) -> bool {
        matches!(self.host.as_str(), "127.0.0.1" | "localhost" | "[::1]")
    }

    pub(super) fn is_encrypted(&self) -> bool {
        self.https
    }
}

/// The reason for which a request failed, and whether it may succeed at another time.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) reason: String,
    pub(super) passes: bool,
}

impl Failed {
    pub(super) fn for_good(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), passes: false }
    }

    fn for_now(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), passes: true }
    }
}

/// An answer after all redirects.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// The headers of the last answer, wherever it came from.
    pub(super) headers: HeaderMap,
    /// The headers that the hub itself gave, those of its last answer before earlier ones.
    pub(super) of_hub: HeaderMap,
    pub(super) body: Timed<ureq::BodyReader<'static>>,
}

impl Client {
    /// Makes a client for a server, which fails when the server stays silent for longer than `silence`.
    pub(super) fn new(endpoint: &str, token: Option<&str>, silence: Duration) -> Result<Self, String> {
        let home = endpoint
            .parse::<Uri>()
            .map_err(|e| e.to_string())
            .and_then(|uri| Origin::of(&uri))
            .map_err(|e| format!("HF_ENDPOINT is not an address: {e}"))?;
        let config = || {
            ureq::Agent::config_builder()
                .http_status_as_error(false)
                // Followed here, where it is known who may see the token.
                .max_redirects(0)
                .max_redirects_will_error(false)
                .accept_encoding("identity")
                .timeout_resolve(Some(silence))
                .timeout_connect(Some(silence))
                .timeout_per_read(Some(silence))
                .timeout_recv_response(Some(HEADERS.max(silence)))
                .user_agent(concat!("setpoint/", env!("CARGO_PKG_VERSION")))
        };
        Ok(Self {
            agent: config().build().new_agent(),
            direct: config().proxy(None).build().new_agent(),
            home,
            token: token.map(str::to_owned),
        })
    }

    /// Gets an address, following redirects. The token goes to the hub's own origin only, and not after a detour.
    pub(super) fn get(&self, url: &str, from: u64) -> Result<Answer, Failed> {
        let mut uri: Uri = url.parse().map_err(|e| Failed::for_good(format!("{:?}: {e}", shorten(url))))?;
        let mut at_home = true;
        let mut of_hub = HeaderMap::new();
        for _ in 0..=REDIRECTS {
            let origin = Origin::of(&uri).map_err(Failed::for_good)?;
            at_home &= origin == self.home;
            let agent = if origin.is_loopback() { &self.direct } else { &self.agent };
            let mut request = agent.get(&uri);
            if let Some(token) = self.token.as_ref().filter(|_| at_home) {
                request = request.header("authorization", format!("Bearer {token}"));
            }
            if from > 0 {
                request = request.header("range", format!("bytes={from}-"));
            }
            let response = request.call().map_err(explain)?;
            let (parts, body) = response.into_parts();
            if at_home {
                // A redirect within the hub names the commit, and what it leads to may not repeat it.
                of_hub.extend(parts.headers.clone());
            }
            if !parts.status.is_redirection() {
                let body = Timed::new(body.into_reader());
                return Ok(Answer { status: parts.status, headers: parts.headers, of_hub, body });
            }
            let location = parts.headers.get("location").map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned());
            let Some(location) = location.filter(|_| parts.status != StatusCode::NOT_MODIFIED) else {
                return Err(Failed::for_good(format!("status {} without a Location to go to", parts.status.as_u16())));
            };
            let next = resolve(&uri, &location).map_err(Failed::for_good)?;
            if origin.https && next.scheme_str() != Some("https") {
                return Err(Failed::for_good(format!("it redirects from https to {:?}", shorten(&location))));
            }
            uri = next;
        }
        Err(Failed::for_good(format!("more than {REDIRECTS} redirects in a row")))
    }

    /// The body of an answer with a status of success, up to a limit.
    pub(super) fn read(&self, url: &str, limit: u64) -> Result<Vec<u8>, String> {
        let answer = self.get(url, 0).map_err(|e| e.reason)?;
        if !answer.status.is_success() {
            return Err(refusal(answer.status));
        }
        let mut bytes = Vec::new();
        answer.body.take(limit + 1).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
        if bytes.len() as u64 > limit {
            return Err(format!("the answer is longer than {} MiB", limit >> 20));
        }
        Ok(bytes)
    }
}

/// A status as a reason.
pub(super) fn refusal(status: StatusCode) -> String {
    match status.as_u16() {
        code @ (401 | 403) => format!("status {code}: no access with this token, or no such repository"),
        code @ 404 => format!("status {code}: no such repository, revision or file"),
        code => format!("status {code}"),
    }
}

pub(super) fn explain(error: ureq::Error) -> Failed {
    match error {
        // Headers that trickle in are no passing fault, and each attempt would take as long.
        ureq::Error::Timeout(timeout @ ureq::Timeout::RecvResponse) => {
            Failed::for_good(format!("no answer in time ({timeout})"))
        }
        ureq::Error::Timeout(timeout) => Failed::for_now(format!("no answer in time ({timeout})")),
        ureq::Error::Io(e) => Failed::for_now(e.to_string()),
        ureq::Error::ConnectionFailed | ureq::Error::HostNotFound => Failed::for_now(error.to_string()),
        error => Failed::for_good(error.to_string()),
    }
}

/// The address that a `Location` leads to.
fn resolve(from: &Uri, location: &str) -> Result<Uri, String> {
    let bad = |e: String| format!("it redirects to {:?}, which is not an address: {e}", shorten(location));
    let location = location.split('#').next().unwrap_or_default().trim();
    let authority = from.authority().map(|a| a.as_str()).unwrap_or_default();
    let scheme = from.scheme_str().unwrap_or("http");
    let absolute =
        location.split_once("://").is_some_and(|(scheme, _)| scheme.bytes().all(|b| b.is_ascii_alphanumeric()));
    let text = if absolute {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else if location.starts_with('?') {
        format!("{scheme}://{authority}{}{location}", from.path())
    } else {
        let folder = from.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{scheme}://{authority}{folder}/{location}")
    };
    let uri: Uri = text.parse().map_err(|e: ureq::http::uri::InvalidUri| bad(e.to_string()))?;
    Origin::of(&uri).map_err(bad)?;
    if uri.authority().is_some_and(|a| a.as_str().contains('@')) && uri.authority() != from.authority() {
        return Err(bad("it holds a user name".into()));
    }
    Ok(uri)
}

/// Appends a text in which everything but letters, digits, `_.-~` and `safe` is encoded.
pub(super) fn percent_encode(text: &str, safe: &str, out: &mut String) {
    use std::fmt::Write as _;
    for byte in text.bytes() {
        let c = char::from(byte);
        if c.is_ascii_alphanumeric() || "_.-~".contains(c) || safe.contains(c) {
            out.push(c);
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

/// A reader that fails when its source is too slow for its length: a server that sends a byte now and then would
/// otherwise hold the program for days.
pub(super) struct Timed<R> {
    source: R,
    begun: Instant,
    read: u64,
    grace: Duration,
}

impl<R> Timed<R> {
    fn new(source: R) -> Self {
        Self { source, begun: Instant::now(), read: 0, grace: GRACE }
    }
}

impl<R: Read> Read for Timed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.read += count as u64;
        if count > 0 && self.begun.elapsed() > self.grace + Duration::from_secs(self.read / SLOWEST) {
            let reason = format!("too slow: {} bytes in {} s", self.read, self.begun.elapsed().as_secs());
            return Err(io::Error::new(io::ErrorKind::TimedOut, reason));
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_resolved() {
        let from: Uri = "https://hub.co:8443/a/b?c=d".parse().unwrap();
        let to = |location: &str| resolve(&from, location).map(|uri| uri.to_string());
        assert_eq!(to("/x?y=/z").unwrap(), "https://hub.co:8443/x?y=/z");
        assert_eq!(to("x#part").unwrap(), "https://hub.co:8443/a/x");
        assert_eq!(to("?e=f").unwrap(), "https://hub.co:8443/a/b?e=f");
        assert_eq!(to("//cdn.co/x").unwrap(), "https://cdn.co/x");
        assert_eq!(to("https://cdn.co/x").unwrap(), "https://cdn.co/x");
        for hostile in
            ["file:///etc/passwd", "ftp://cdn.co/", "https://", "https://hub.co@evil.co/", "http://[::1", "\u{7f}"]
        {
            assert!(to(hostile).is_err(), "{hostile}");
        }
    }

    #[test]
    fn origins_differ_in_scheme_host_and_port() {
        let of = |text: &str| Origin::of(&text.parse().unwrap()).unwrap();
        assert_eq!(of("https://Hub.co/a"), of("https://hub.co:443/b"));
        for other in [
            "http://hub.co",
            "https://hub.co.evil.co",
            "https://hub.co:8443",
            "https://a.hub.co",
            "https://hub@evil.co",
        ] {
            assert_ne!(of("https://hub.co"), of(other), "{other}");
        }
    }

    #[test]
    fn a_trickle_is_too_slow() {
        struct Trickle;
        impl Read for Trickle {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                std::thread::sleep(Duration::from_millis(5));
                buffer[0] = b' ';
                Ok(1)
            }
        }
        let mut timed = Timed { grace: Duration::from_millis(50), ..Timed::new(Trickle) };
        let error = timed.read_to_end(&mut Vec::new()).unwrap_err();
        assert!(error.to_string().starts_with("too slow: "), "{error}");
    }
}
