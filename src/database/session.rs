//! A session on one database, and the settings that every session has.

use std::ops::Deref;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{Client, Config, Socket};

use super::Error;

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

    /// Asks what the server is.
    pub(super) async fn prepare(mut self, address: &str) -> Result<Self, Error> {
        let failed = || Error::query(format!("cannot set up a session on {address}"));
        let row = self
            .client
            .query_one(
                // Where the settings are the database's own, its owner says what stands first in the search path.
                "SELECT pg_catalog.current_setting('server_version_num')::integer, pg_catalog.pg_is_in_recovery(), \
                 pg_catalog.current_setting('transaction_read_only')::boolean",
                &[],
            )
            .await
            .map_err(failed())?;
        self.version_num = u32::try_from(row.try_get::<_, i32>(0).map_err(failed())?).unwrap_or(0);
        self.standby = row.try_get(1).map_err(failed())?;
        self.read_only = row.try_get(2).map_err(failed())?;
        Ok(self)
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
