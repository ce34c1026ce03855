//! Devices of other machines, which `setpoint lend` lends.

use burn::tensor::Device;

use super::range;
#[cfg(feature = "remote")]
use setpoint::Failure;
use setpoint::Outcome;

/// The text before the address of a server.
pub const PREFIX: &str = "remote:";

/// A server that lends devices, and which of them: all, unless some are named.
#[derive(Debug, PartialEq, Eq)]
pub struct Server<'n> {
    address: &'n str,
    numbers: Vec<usize>,
}

impl Server<'_> {
    /// Returns the number of devices that the name asks for, as far as it tells: at least one.
    pub fn named(&self) -> usize {
        self.numbers.len().max(1)
    }
}

/// Takes `remote:gpu1:3000`, `remote:gpu1:3000/0,1` or `remote:gpu1:3000,remote:gpu2:3000/0-3` apart.
pub fn parse(name: &str) -> Result<Vec<Server<'_>>, String> {
    let mut servers: Vec<Server<'_>> = vec![];
    for item in name.split(',') {
        let number = match (item.strip_prefix(PREFIX), servers.last()) {
            (Some(server), _) => {
                let (address, number) = server.split_once('/').map_or((server, None), |(a, n)| (a, Some(n)));
                let port =
                    address.rsplit_once(':').filter(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
                if port.is_none() {
                    return Err(format!("`{item}`: expected remote:HOST:PORT, as in remote:gpu1:3000"));
                }
                if servers.iter().any(|server| server.address == address) {
                    return Err(format!("`{name}`: {address} is named twice"));
                }
                servers.push(Server { address, numbers: vec![] });
                number
            }
            // More devices of the server before.
            (None, Some(server)) if !server.numbers.is_empty() => Some(item),
            (None, _) => return Err(format!("`{name}`: the devices of a run are of one kind")),
        };
        if let (Some(number), Some(server)) = (number, servers.last_mut()) {
            let found = range(number).ok_or_else(|| format!("`{name}`: `{number}` is not a device number"))?;
            for number in found {
                if server.numbers.contains(&number) {
                    return Err(format!("`{name}`: device {number} of {} is named twice", server.address));
                }
                server.numbers.push(number);
            }
        }
    }
    Ok(servers)
}

/// Connects to devices of other machines.
#[cfg(feature = "remote")]
pub fn connect(servers: &[Server<'_>]) -> Outcome<Vec<Device>> {
    use burn::remote::{ConnectError, RemoteHost};

    let mut devices = vec![];
    for Server { address, numbers } in servers {
        let failed = |error: ConnectError| {
            let failure = Failure::run(format!("{address}: {error}"));
            match error {
                ConnectError::Unreachable { .. } => failure.hint("lend devices there with `setpoint lend`"),
                ConnectError::Unauthorized => failure.hint(format!("set {TOKEN} to the server's")),
                _ => failure,
            }
        };
        let host = RemoteHost::websocket(&format!("ws://{address}"));
        let host = match token() {
            Some(token) => host.with_credential(token),
            None => host,
        };
        let numbers = match numbers.as_slice() {
            [] => (0..host.devices().map_err(failed)?.into_iter().count()).collect(),
            numbers => numbers.to_vec(),
        };
        for number in numbers {
            devices.push(Device::remote_options(&host).device_index(number).init().map_err(failed)?);
        }
    }
    Ok(devices)
}

#[cfg(not(feature = "remote"))]
pub fn connect(_: &[Server<'_>]) -> Outcome<Vec<Device>> {
    Err(super::not_compiled("remote"))
}

/// The variable with the secret that a server asks its clients for.
#[cfg(feature = "remote")]
pub const TOKEN: &str = "SETPOINT_TOKEN";

/// The secret that a server asks its clients for, where there is one.
#[cfg(feature = "remote")]
pub fn token() -> Option<String> {
    std::env::var(TOKEN).ok().filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_lend_all_their_devices_or_those_that_are_named() {
        let of = |name| parse(name).unwrap();
        assert_eq!(of("remote:gpu1:3000"), [Server { address: "gpu1:3000", numbers: vec![] }]);
        let two = [
            Server { address: "gpu1:3000", numbers: vec![0, 2, 3] },
            Server { address: "[::1]:3001", numbers: vec![] },
        ];
        assert_eq!(of("remote:gpu1:3000/0,2-3,remote:[::1]:3001"), two);
        for (name, said) in [
            ("remote:gpu1", "expected remote:HOST:PORT"),
            ("remote::3000", "expected remote:HOST:PORT"),
            ("remote:gpu1:http", "expected remote:HOST:PORT"),
            ("remote:gpu1:3000,cuda:0", "of one kind"),
            ("remote:gpu1:3000,1", "of one kind"),
            ("remote:gpu1:3000/x", "`x` is not a device number"),
            ("remote:gpu1:3000/0,0", "device 0 of gpu1:3000 is named twice"),
            ("remote:gpu1:3000,remote:gpu1:3000", "gpu1:3000 is named twice"),
        ] {
            let error = parse(name).unwrap_err();
            assert!(error.contains(said), "{name}: {error}");
        }
    }
}
