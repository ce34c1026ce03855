//! One HTTP exchange, and what its outcome means.

use std::time::{Duration, SystemTime};

use serde_json::Value;
use setpoint_files::words;

use super::chat::excerpt;
use super::completion::EndpointRequest;
use super::secret::Key;
use super::settings::JudgeSettings;
use crate::error::Error;

/// Longest pause that an endpoint may ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(900);
/// Longest answer that is read.
const LONGEST_ANSWER: u64 = 16 << 20;

/// The end of an attempt.
pub(super) enum Attempt {
    /// With JSON.
    Answer(Value),
    /// With something that passes; after the pause, if the endpoint named one.
    Again { reason: String, pause: Option<Duration> },
    /// With a refusal of this very request.
    Refused(String),
    /// With a refusal of every request: wrong key, unknown model, no money.
    Hopeless(String),
}

/// An agent with its key.
#[derive(Debug)]
pub(super) struct Endpoint {
    agent: ureq::Agent,
    /// Without the path of a request.
    base: String,
    key: Key,
}

impl Endpoint {
    pub(super) fn new(settings: &JudgeSettings) -> Result<Self, Error> {
        let base = settings.base();
        let key = Key::from_env(&settings.api_key_env)?;
        if key.is_in(&base) {
            return Err(Error::KeyInAddress { variable: settings.api_key_env.clone() });
        }
        let mut config = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs_f64(settings.timeout_seconds)))
            .http_status_as_error(false)
            // A redirect would carry the request to somebody who was not asked.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .max_idle_connections_per_host(settings.concurrency)
            .user_agent(concat!("setpoint/", env!("CARGO_PKG_VERSION")));
        if is_loopback(&base) {
            config = config.proxy(None);
        }
        Ok(Self { agent: config.build().new_agent(), base, key })
    }

    /// Returns the address that requests of this kind go to.
    pub(super) fn url<R: EndpointRequest>(&self) -> String {
        format!("{}{}", self.base, R::PATH)
    }

    /// Takes the key out of a value.
    pub(super) fn redact(&self, value: &mut Value) {
        self.key.redact_value(value);
    }

    /// Sends the body of a request to its address.
    pub(super) fn post(&self, url: &str, body: &str) -> Attempt {
        let again = |reason: String| Attempt::Again { reason, pause: None };
        let mut request = self.agent.post(url).header("content-type", "application/json");
        if let Some(header) = self.key.header() {
            request = request.header("authorization", header);
        }
        let mut response = match request.send(body) {
            Ok(response) => response,
            Err(ureq::Error::BadUri(reason)) => return Attempt::Hopeless(self.key.redact(reason)),
            Err(error) => return again(self.key.redact(explain(&error))),
        };
        let status = response.status().as_u16();
        let pause = retry_after(response.headers());
        let text = match response.body_mut().with_config().limit(LONGEST_ANSWER).read_to_string() {
            Ok(text) => text,
            Err(error) => return again(self.key.redact(explain(&error))),
        };
        let shown = || excerpt(&self.key.redact_body(text.clone()));
        let reason = || format!("status {status}: {}", shown());
        match status {
            200..=299 => match serde_json::from_str(&text) {
                // Redacted once it is read: before, the key may be escaped in any way that JSON allows.
                Ok(mut json) => {
                    self.key.redact_value(&mut json);
                    Attempt::Answer(json)
                }
                Err(_) => again(format!("the answer is no JSON: {}", shown())),
            },
            429 if text.contains("insufficient_quota") => Attempt::Hopeless(reason()),
            408 | 409 | 425 | 429 | 500..=599 => match pause {
                Some(pause) if pause > LONGEST_PAUSE => {
                    Attempt::Hopeless(format!("{}; it asks to wait {} s", reason(), pause.as_secs()))
                }
                pause => Attempt::Again { reason: reason(), pause },
            },
            300..=399 | 401 | 403 | 404 | 405 => Attempt::Hopeless(reason()),
            _ => Attempt::Refused(reason()),
        }
    }
}

/// Says why there is no answer.
fn explain(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Timeout(_) => "no answer in time (`timeout_seconds`)".into(),
        ureq::Error::ConnectionFailed => "no connection".into(),
        ureq::Error::HostNotFound => "no machine of this name is known".into(),
        ureq::Error::BodyExceedsLimit(most) => format!("the answer has more than {most} bytes"),
        ureq::Error::TooManyRedirects | ureq::Error::RedirectFailed => "it sends requests to another address".into(),
        ureq::Error::Io(error) => match error.kind() {
            std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::ConnectionReset => {
                "it closed the connection".into()
            }
            std::io::ErrorKind::ConnectionRefused => "nothing answers at this address".into(),
            _ => format!("the connection broke off: {}", words::system(error)),
        },
        error => error.to_string(),
    }
}

/// `Retry-After` in seconds or as a date (RFC 9110, 10.2.3), or OpenAI's `retry-after-ms`.
fn retry_after(headers: &ureq::http::HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).map(str::trim);
    let seconds = |text: &str| text.parse::<f64>().ok().and_then(|s| Duration::try_from_secs_f64(s).ok());
    if let Some(pause) = text("retry-after-ms").and_then(seconds) {
        return Some(pause / 1000);
    }
    let value = text("retry-after")?;
    seconds(value).or_else(|| {
        let date = httpdate::parse_http_date(value).ok()?;
        Some(date.duration_since(SystemTime::now()).unwrap_or_default())
    })
}

fn is_loopback(url: &str) -> bool {
    let host = url.split("://").nth(1).unwrap_or_default();
    ["127.0.0.1", "localhost", "[::1]"]
        .iter()
        .any(|h| host.strip_prefix(h).is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '/'])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_read_in_all_its_forms() {
        let of = |name: &'static str, value: &str| {
            let mut headers = ureq::http::HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            retry_after(&headers)
        };
        assert_eq!(of("retry-after", "7"), Some(Duration::from_secs(7)));
        assert_eq!(of("retry-after-ms", "250"), Some(Duration::from_millis(250)));
        assert_eq!(of("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO), "a date that is past");
        let later = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(100));
        let pause = of("retry-after", &later).unwrap();
        assert!((98..=100).contains(&pause.as_secs()), "{pause:?}");
        assert_eq!(of("retry-after", "soon"), None);
        assert_eq!(of("retry-after", "-3"), None);
    }

    #[test]
    fn loopback_is_told_from_names_that_begin_like_it() {
        assert!(is_loopback("http://127.0.0.1:8000/v1") && is_loopback("http://localhost/v1"));
        assert!(!is_loopback("http://localhost.example.com/v1") && !is_loopback("https://127.0.0.10/v1"));
    }
}
