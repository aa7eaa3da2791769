//! A session on one database, and the settings that every session has.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{CancelToken, Client, Config, NoTls, SimpleQueryMessage, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_util::task::AbortOnDropHandle;

use super::Error;
use super::error::reason;
use crate::farewell;

/// A setting's name and its value.
pub(super) type Setting = (&'static str, &'static str);

/// What every session and every child sets, at backup, restore and proof alike, so that the same value always gives
/// the same text, and nothing that is set on a role or a database comes in between.
pub const SESSION_SETTINGS: &[(&str, &str)] = &[
    // pg_dump writes literals as this says, and the server so gives the text of indexes, policies and views.
    ("standard_conforming_strings", "on"),
    ("TimeZone", "UTC"),
    ("DateStyle", "ISO"),
    ("IntervalStyle", "postgres"),
    ("extra_float_digits", "3"),
    ("bytea_output", "hex"),
    ("lc_monetary", "C"),
    ("xmloption", "content"),
    ("row_security", "off"),
    ("search_path", ""),
    ("statement_timeout", "0"),
    ("lock_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
];

/// Settings that only newer servers know: from which `server_version_num` on.
pub(super) const NEWER_SETTINGS: &[(u32, &str, &str)] =
    &[(140_000, "idle_session_timeout", "0"), (170_000, "transaction_timeout", "0")];

/// How often a session says something. Some are needed hours after they were opened, or hold a snapshot for as long; keepalives of
/// TCP do not reach the server where a proxy ends the connection, or a port-forward, and those cut off what is idle: after
/// half an hour (HAProxy before Patroni, RDS Proxy), an hour (Envoy), or some minutes (balancers before API servers).
const PULSE: Duration = Duration::from_secs(30);

/// The first `server_version_num` of a server that can look, in the midst of a statement, whether its client is there still.
const CHECKS_CLIENT_SINCE: u32 = 140_000;
/// How often it is to look.
const CHECK_CLIENT: &str = "SET client_connection_check_interval = '10s'";

/// How long a connection that is given up may take to end. One that is idle takes no time: nothing is waited for.
const LEAVE: Duration = Duration::from_millis(250);
/// How long the server may take to be told to stop, and how long to do so.
const STOP: Duration = Duration::from_secs(5);

/// A session on one database. Dropping it ends the connection, and what the server does for it.
pub struct Session {
    client: Arc<Client>,
    /// What moves the bytes; it ends by itself when the client is gone and nothing is under way.
    driver: Option<AbortOnDropHandle<()>>,
    pulse: JoinHandle<()>,
    tls: Option<MakeRustlsConnect>,
    version: String,
    version_num: u32,
    standby: bool,
    pub(super) read_only: bool,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("version", &self.version).field("client", &self.client).finish_non_exhaustive()
    }
}

impl Session {
    /// Opens one, with TLS where there is a connector for it and `config` wants it.
    pub(super) async fn open(config: &Config, tls: Option<&MakeRustlsConnect>) -> Result<Self, tokio_postgres::Error> {
        let (client, driver, version) = match tls {
            None => connect(config, NoTls).await?,
            Some(tls) => connect(config, tls.clone()).await?,
        };
        let client = Arc::new(client);
        let pulse = tokio::spawn(pulse(Arc::downgrade(&client)));
        let (driver, tls) = (Some(AbortOnDropHandle::new(driver)), tls.cloned());
        Ok(Self { client, driver, pulse, tls, version, version_num: 0, standby: false, read_only: false })
    }

    /// Asks what the server is, and makes sure that the session has the settings that it was to begin with: those that are `sent`
    /// to a server of that version.
    ///
    /// A pooler may drop them without a word. Then text and fingerprints are those of other settings, and what is set later stays
    /// with a session that others use.
    pub(super) async fn prepare(mut self, address: &str, sent: impl Fn(u32) -> Vec<Setting>) -> Result<Self, Error> {
        let shown = sent(u32::MAX).into_iter().map(|(name, _)| format!(", pg_catalog.current_setting('{name}', true)"));
        // Where the settings are the database's own, its owner says what stands first in the search path. And a statement with a
        // name, behind such a pooler, would be another session's.
        let sql = format!(
            "SELECT pg_catalog.current_setting('server_version_num'), pg_catalog.pg_is_in_recovery(), \
             pg_catalog.current_setting('transaction_read_only'){}",
            shown.collect::<String>()
        );
        let failed = Error::query(format!("cannot set up a session on {address}"));
        let answer = self.client.simple_query(&sql).await.map_err(failed)?;
        self.learn(&answer, address, &sent)?;
        // Where the system cannot tell, the server refuses it.
        if self.version_num >= CHECKS_CLIENT_SINCE
            && let Err(error) = self.client.batch_execute(CHECK_CLIENT).await
        {
            tracing::debug!("the server will not look for its client: {}", reason(&error));
        }
        Ok(self)
    }

    fn learn(
        &mut self,
        answer: &[SimpleQueryMessage],
        address: &str,
        sent: &impl Fn(u32) -> Vec<Setting>,
    ) -> Result<(), Error> {
        let row = answer.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let column = |number: usize| row.and_then(|row| row.try_get(number).ok().flatten()).unwrap_or_default();
        self.version_num = column(0).parse().unwrap_or(0);
        self.standby = column(1) == "t";
        self.read_only = column(2) == "on";
        let known = sent(self.version_num);
        for (number, setting) in (3..).zip(sent(u32::MAX)) {
            let found = column(number);
            if known.contains(&setting) && !is_in_force(setting, found) {
                let (address, (name, _), found) = (address.to_owned(), setting, found.to_owned());
                return Err(Error::SettingDropped { address, name, found });
            }
        }
        Ok(())
    }

    /// `server_version`, e.g. `15.18 (Debian 15.18-0+deb12u1)`.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// `server_version_num`, e.g. 150018.
    #[must_use]
    pub fn version_num(&self) -> u32 {
        self.version_num
    }

    /// Whether the server was in recovery when the session was opened.
    #[must_use]
    pub fn is_standby(&self) -> bool {
        self.standby
    }

    /// Whether the connection is lost.
    #[must_use]
    pub fn closed(&self) -> bool {
        self.client.is_closed()
    }
}

impl Deref for Session {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.pulse.abort();
        if let Some(driver) = self.driver.take().filter(|driver| !driver.is_finished()) {
            farewell::start(leave(driver, self.client.cancel_token(), self.tls.take()));
        }
    }
}

/// Opens a connection. Beside the client come the task that moves its bytes and the server's version.
async fn connect<T>(config: &Config, tls: T) -> Result<(Client, JoinHandle<()>, String), tokio_postgres::Error>
where
    T: MakeTlsConnect<Socket>,
    T::Stream: Send + 'static,
    T::TlsConnect: Send,
    <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
{
    let (client, connection) = config.connect(tls).await?;
    let version = connection.parameter("server_version").unwrap_or_default().to_owned();
    let driver = tokio::spawn(async move {
        // Whoever uses the client gets the error too.
        if let Err(error) = connection.await {
            tracing::debug!("a connection to PostgreSQL was lost: {}", reason(&error));
        }
    });
    Ok((client, driver, version))
}

/// Waits for the end of a connection whose client is gone. Where something is under way it does not come: a server that counts
/// or sorts does not notice that nobody waits for it, and keeps snapshot and locks until it is done. So it is told to stop, as
/// long as the connection is there, and its process therefore nobody else's.
async fn leave(mut driver: AbortOnDropHandle<()>, token: CancelToken, tls: Option<MakeRustlsConnect>) {
    if timeout(LEAVE, &mut driver).await.is_ok() {
        return;
    }
    let stop = async {
        match tls {
            None => token.cancel_query(NoTls).await,
            Some(tls) => token.cancel_query(tls).await,
        }
    };
    match timeout(STOP, stop).await {
        Ok(Ok(())) => drop(timeout(STOP, &mut driver).await),
        Ok(Err(error)) => tracing::debug!("the server could not be told to stop: {}", reason(&error)),
        Err(_) => tracing::debug!("the server could not be told to stop in time"),
    }
}

/// Whether the server shows a setting as it was sent.
fn is_in_force((name, value): Setting, found: &str) -> bool {
    match name {
        // The order of day and month is the server's own.
        "DateStyle" => found.starts_with(value),
        "TimeZone" => [value, "Etc/UTC"].contains(&found),
        "search_path" => found.trim_matches('"').is_empty(),
        _ => found == value,
    }
}

/// Sends an empty query now and then. One waits for its turn behind whatever is under way, in any transaction, and changes
/// nothing.
async fn pulse(client: Weak<Client>) {
    loop {
        tokio::time::sleep(PULSE).await;
        let Some(client) = client.upgrade() else { return };
        if client.batch_execute("").await.is_err() && client.is_closed() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_known_by_what_the_server_shows() {
        let is_in_force = |name: &str, found: &str| {
            let sent = SESSION_SETTINGS.iter().find(|(setting, _)| *setting == name).unwrap();
            is_in_force(*sent, found)
        };
        for (name, found) in [
            ("DateStyle", "ISO, DMY"),
            ("TimeZone", "UTC"),
            ("TimeZone", "Etc/UTC"),
            ("search_path", ""),
            ("search_path", "\"\""),
            ("lock_timeout", "0"),
        ] {
            assert!(is_in_force(name, found), "{name} {found}");
        }
        for (name, found) in [
            ("DateStyle", "German, DMY"),
            ("TimeZone", "Europe/Berlin"),
            ("TimeZone", ""),
            ("search_path", "\"$user\", public"),
            ("lock_timeout", "50ms"),
        ] {
            assert!(!is_in_force(name, found), "{name} {found}");
        }
    }
}
