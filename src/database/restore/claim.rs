//! One run at a time: a second one that began on the same database would drop what the first is loading.

use std::time::{Duration, Instant};

use super::RestoreError;
use super::create::maintenance;
use crate::database::{Error, Server, Session};

/// The lock of a run that was killed goes with its session, a moment later.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often the lock is tried.
const PAUSE: Duration = Duration::from_millis(200);

/// What makes the lock's number of a database's name.
const SEED: i64 = i64::from_be_bytes(*b"\0pacharc");

/// Says that a restore into these databases is under way, as long as the session lives that is returned.
///
/// # Errors
/// [`RestoreError::UnderWay`]; what the server says.
pub async fn claim(server: &Server, databases: &[&str]) -> Result<Session, Error> {
    // Another run may have come in by another database, and a lock is one within its database alone. Of two that take theirs in the
    // same moment, both wait for the other.
    const SQL: &str = "SELECT pg_catalog.pg_try_advisory_lock(key), (
            SELECT pid FROM pg_catalog.pg_locks
            WHERE locktype = 'advisory' AND objsubid = 1 AND granted AND classid::int8 << 32 | objid::int8 = key
            AND pid <> pg_catalog.pg_backend_pid() LIMIT 1)
        FROM pg_catalog.hashtextextended($1, $2) k (key)";
    // A server learns late that the other machine is gone, unless it asks. Where it cannot, it does without.
    const KEEPALIVES: &str =
        "SET tcp_keepalives_idle = 60; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3";
    let failed = || Error::query("cannot find out whether another restore is under way");
    let session = maintenance(server, databases).await?;
    session.batch_execute(KEEPALIVES).await.map_err(failed())?;
    let began = Instant::now();
    for &database in databases {
        loop {
            let row = session.query_one(SQL, &[&database, &SEED]).await.map_err(failed())?;
            let is_taken: bool = row.try_get(0).map_err(failed())?;
            let other: Option<i32> = row.try_get(1).map_err(failed())?;
            if is_taken && other.is_none() {
                break;
            }
            if began.elapsed() > PATIENCE {
                let session = other.unwrap_or_default();
                return Err(RestoreError::UnderWay { database: database.to_owned(), session }.into());
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
    Ok(session)
}
