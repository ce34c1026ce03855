//! `setpoint lend`: lends this machine's devices to trainings that are started on another.

use setpoint::Outcome;
use setpoint::Session;

/// Lends the session's devices at an address until Ctrl+C.
#[cfg(feature = "remote")]
pub fn run(session: &Session, listen: &str) -> Outcome {
    use std::io::IsTerminal;

    use burn::server::{AllowAll, RemoteServer, TokenAuthorizer, WebSocketTransport};

    use crate::device::remote::{TOKEN, token};
    use crate::progress;
    use setpoint::Failure;

    let listener = std::net::TcpListener::bind(listen)
        .map_err(|error| Failure::run(format!("cannot listen at {listen}: {error}")))?;
    let address = listener.local_addr().map_err(|error| Failure::run(format!("{listen}: {error}")))?;
    let server = RemoteServer::new(session.devices.devices().to_vec());
    let server = match token() {
        Some(token) => server.with_authorizer(TokenAuthorizer::new(token).map_err(Failure::run)?),
        None if address.ip().is_loopback() => server.with_authorizer(AllowAll),
        None => {
            let message =
                format!("others can reach {address}: set {TOKEN} to a secret, here and where the training is started");
            return Err(Failure::usage("--listen", message));
        }
    };
    // Burn tells of every tensor that goes from server to server.
    if std::env::var_os("RUST_LOG").is_none() {
        tracing_subscriber::fmt()
            .with_max_level(tracing_subscriber::filter::LevelFilter::WARN)
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal())
            .init();
    }
    let count = session.devices.len();
    let devices = if count == 1 { "one device".to_owned() } else { format!("{count} devices") };
    progress::say(format!("lending {devices} at {address} until Ctrl+C: use --device remote:{address}"));
    server.serve(WebSocketTransport::from_listener(listener)).map_err(Failure::run)
}

/// Says that this binary cannot.
#[cfg(not(feature = "remote"))]
pub fn run(_: &Session, _: &str) -> Outcome {
    Err(crate::device::not_compiled("remote"))
}
