//! Where a server listens: a host and a port, or a socket in a folder.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;

use super::Error;
use super::resolve::Settings;

/// One of the places that a server may be at.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    /// A name, an address, or a socket's folder; empty where only `address` is known.
    pub(super) host: String,
    pub(super) address: Option<IpAddr>,
    pub(super) port: u16,
}

impl Endpoint {
    pub(super) fn is_socket(&self) -> bool {
        self.host.starts_with(['/', '@']) && self.address.is_none()
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.host, self.address) {
            (host, _) if self.is_socket() => write!(f, "{host}/.s.PGSQL.{}", self.port),
            (host, Some(address)) if host.is_empty() => write!(f, "{}", std::net::SocketAddr::new(address, self.port)),
            (host, _) if host.contains(':') => write!(f, "[{host}]:{}", self.port),
            (host, _) => write!(f, "{host}:{}", self.port),
        }
    }
}

/// The hosts, addresses and ports, which libpq gives as three lists.
pub(super) fn endpoints(settings: &Settings) -> Result<Vec<Endpoint>, Error> {
    let list = |name| settings.text(name).map(|text| text.split(',').map(str::trim).collect::<Vec<_>>());
    let (hosts, addresses, ports) = (list("host"), list("hostaddr"), list("port"));
    let count = addresses.as_ref().or(hosts.as_ref()).map_or(1, Vec::len);
    if hosts.as_ref().is_some_and(|hosts| hosts.len() != count) {
        return Err(settings.error("hostaddr", "there must be as many as of host"));
    }
    if ports.as_ref().is_some_and(|ports| ports.len() != count && ports.len() != 1) {
        return Err(settings.error("port", "there must be one, or as many as of host"));
    }
    let endpoint = |number: usize| {
        let address = match addresses.as_ref().map(|addresses| addresses[number]) {
            None | Some("") => None,
            Some(text) => Some(text.parse().map_err(|_| settings.error("hostaddr", "it is not an IP address"))?),
        };
        let host = match hosts.as_ref().map(|hosts| hosts[number]) {
            None | Some("") if address.is_none() => default_socket_folder(),
            host => host.unwrap_or_default(),
        };
        let port = ports.as_ref().map_or("", |ports| ports.get(number).unwrap_or(&ports[0]));
        let port = match port {
            "" => 5432,
            text => match text.parse() {
                Ok(0) | Err(_) => return Err(settings.error("port", "it is not a number from 1 to 65535")),
                Ok(port) => port,
            },
        };
        Ok(Endpoint { host: host.to_owned(), address, port })
    };
    (0..count).map(endpoint).collect()
}

/// Where libpq looks for a socket: what Debian's and Red Hat's packages are built with, or else PostgreSQL's own.
pub(super) fn default_socket_folder() -> &'static str {
    const PACKAGED: &str = "/var/run/postgresql";
    if Path::new(PACKAGED).is_dir() { PACKAGED } else { "/tmp" }
}
