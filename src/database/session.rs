//! A session on one database, and the settings that every session has.

use std::ops::Deref;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{Client, Config, SimpleQueryMessage, Socket};

use super::Error;

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

/// A session on one database. Dropping it ends the connection.
#[derive(Debug)]
pub struct Session {
    client: Arc<Client>,
    driver: JoinHandle<()>,
    pulse: JoinHandle<()>,
    version: String,
    version_num: u32,
    standby: bool,
    pub(super) read_only: bool,
}

impl Session {
    pub(super) async fn open<T>(config: &Config, tls: T) -> Result<Self, tokio_postgres::Error>
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
                tracing::debug!("a connection to PostgreSQL was lost: {}", super::error::reason(&error));
            }
        });
        let client = Arc::new(client);
        let pulse = tokio::spawn(pulse(Arc::downgrade(&client)));
        Ok(Self { client, driver, pulse, version, version_num: 0, standby: false, read_only: false })
    }

    /// Asks what the server is, and makes sure that the session has the settings that it was to begin with: those that are `sent`
    /// to a server of that version.
    ///
    /// A pooler may drop them without a word. Then text and fingerprints are those of other settings, and what is set later stays
    /// with a session that others use.
    pub(super) async fn prepare(mut self, address: &str, sent: impl Fn(u32) -> Vec<Setting>) -> Result<Self, Error> {
        let all = sent(u32::MAX);
        let shown = all.iter().map(|(name, _)| format!(", pg_catalog.current_setting('{name}', true)"));
        // Where the settings are the database's own, its owner says what stands first in the search path. And a statement with a
        // name, behind such a pooler, would be another session's.
        let sql = format!(
            "SELECT pg_catalog.current_setting('server_version_num'), pg_catalog.pg_is_in_recovery(), \
             pg_catalog.current_setting('transaction_read_only'){}",
            shown.collect::<String>()
        );
        let failed = Error::query(format!("cannot set up a session on {address}"));
        let messages = self.client.simple_query(&sql).await.map_err(failed)?;
        let row = messages.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let column = |number: usize| row.and_then(|row| row.try_get(number).ok().flatten()).unwrap_or_default();
        self.version_num = column(0).parse().unwrap_or(0);
        self.standby = column(1) == "t";
        self.read_only = column(2) == "on";
        let known = sent(self.version_num);
        let mut found = all.iter().zip((3..).map(column)).filter(|(setting, _)| known.contains(setting));
        match found.find(|(setting, found)| !is_in_force(**setting, found)) {
            None => Ok(self),
            Some((&(name, _), found)) => {
                Err(Error::SettingDropped { address: address.to_owned(), name, found: found.to_owned() })
            }
        }
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
        self.driver.abort();
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
