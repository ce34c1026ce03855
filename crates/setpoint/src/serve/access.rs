//! The address that the server listens at, and the key that requests bear.

use std::net::{SocketAddr, TcpListener, ToSocketAddrs as _};

use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, ORIGIN};
use setpoint_files::words;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::failure::{Failure, Outcome};

/// The environment variable that holds the key.
pub const KEY: &str = "SETPOINT_API_KEY";

/// A key, as its digest: digests have one length, so that a comparison tells nothing of the key's.
pub(super) struct Key([u8; 32]);

impl Key {
    /// Reads the key from the environment; none if the variable is unset or empty.
    ///
    /// # Errors
    /// When the variable holds what no header can carry.
    pub(super) fn from_env() -> Outcome<Option<Self>> {
        match std::env::var_os(KEY) {
            None => Ok(None),
            Some(text) => Self::parse(text.to_str()),
        }
    }

    fn parse(text: Option<&str>) -> Outcome<Option<Self>> {
        match text {
            Some("") => Ok(None),
            Some(text) if text.chars().all(|c| c.is_ascii_graphic()) => Ok(Some(Self(digest(text.as_bytes())))),
            _ => Err(Failure::usage(KEY, "the key must be of printable ASCII characters without spaces")),
        }
    }

    /// Returns whether a request bears the key, in constant time.
    pub(super) fn admits(&self, headers: &HeaderMap) -> bool {
        let given = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let bearer = given.and_then(|given| given.split_once(' '));
        let key = bearer.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map_or("", |(_, key)| key.trim());
        digest(key.as_bytes()).ct_eq(&self.0).into()
    }
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Returns whether a browser sends the request for a page that is not of this machine. Without a key, such a page could have the model work
/// for it.
pub(super) fn is_of_foreign_page(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(ORIGIN) else { return false };
    let address = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map_or("", |(_, address)| address);
    let has_port =
        |port: &str| port.is_empty() || port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok());
    !["localhost", "127.0.0.1", "[::1]"].iter().any(|host| address.strip_prefix(host).is_some_and(has_port))
}

/// Begins to listen. Without a key, only at an address of this machine's own.
///
/// # Errors
/// When the address cannot be used, or other machines reach it and there is no key.
pub(super) fn listen(host: &str, port: u16, key: Option<&Key>) -> Outcome<TcpListener> {
    let failed = |error: std::io::Error| {
        let reason = words::without_codes(&error.to_string()).into_owned();
        Failure::run(format!("cannot listen at {host}, port {port}: {reason}"))
            .hint("choose another address or port, as in --host 127.0.0.1 --port 8001")
    };
    let addresses: Vec<SocketAddr> = (host, port).to_socket_addrs().map_err(failed)?.collect();
    if key.is_none()
        && let Some(address) = addresses.iter().find(|address| !address.ip().is_loopback())
    {
        let message = format!("others can reach {}: set {KEY} to a secret, which requests then bear", address.ip());
        return Err(Failure::usage("serve.host", message));
    }
    let listener = TcpListener::bind(&addresses[..]).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearing(value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, value.parse().unwrap());
        headers
    }

    #[test]
    fn only_the_key_is_admitted() {
        let key = Key::parse(Some("sk-1")).unwrap().unwrap();
        assert!(["Bearer sk-1", "bearer sk-1", "BEARER  sk-1"].iter().all(|value| key.admits(&bearing(value))));
        for value in ["Bearer sk-2", "Bearer sk-1x", "Bearer", "Bearer ", "sk-1", "Basic sk-1", ""] {
            assert!(!key.admits(&bearing(value)), "{value}");
        }
        assert!(!key.admits(&HeaderMap::new()));
        assert!(Key::parse(Some("")).unwrap().is_none());
        for text in [Some("a b"), Some("ключ"), Some("a\n"), None] {
            assert!(Key::parse(text).is_err_and(|failure| failure.sentence().contains("printable ASCII")), "{text:?}");
        }
    }

    #[test]
    fn pages_of_other_machines_are_known_by_their_origin() {
        let of = |origin: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(ORIGIN, origin.parse().unwrap());
            is_of_foreign_page(&headers)
        };
        assert!(!is_of_foreign_page(&HeaderMap::new()));
        for origin in ["http://localhost", "http://localhost:3000", "https://127.0.0.1:8000", "http://[::1]:80"] {
            assert!(!of(origin), "{origin}");
        }
        for origin in
            ["https://example.com", "http://localhost.example.com", "http://127.0.0.1.example.com", "null", ""]
        {
            assert!(of(origin), "{origin}");
        }
    }

    #[test]
    fn other_machines_are_served_with_a_key_alone() {
        let refused = listen("0.0.0.0", 0, None).unwrap_err().sentence();
        assert!(refused.contains(KEY) && refused.contains("0.0.0.0"), "{refused}");
        let key = Key::parse(Some("sk-1")).unwrap();
        assert!(listen("0.0.0.0", 0, key.as_ref()).is_ok());
        for host in ["127.0.0.1", "localhost"] {
            assert!(listen(host, 0, None).unwrap().local_addr().unwrap().ip().is_loopback());
        }
        let taken = listen("127.0.0.1", 0, None).unwrap();
        let port = taken.local_addr().unwrap().port();
        let said = listen("127.0.0.1", port, None).unwrap_err().sentence();
        assert!(said.contains(&format!("cannot listen at 127.0.0.1, port {port}")), "{said}");
    }
}
