//! Who else works on the databases: a suspended cluster is quiet when nobody does.

use serde::Serialize;

use super::{Error, Session};

/// Somebody else's session that is at work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ForeignSession {
    /// The server's number of the process.
    pub pid: i32,
    /// The database.
    pub database: String,
    /// The role.
    pub role: String,
    /// What the client calls itself.
    pub application: String,
    /// Where it comes from; `local` for a Unix socket.
    pub client: String,
    /// `active`, `idle in transaction`, …; `hidden` where this role may not see it.
    pub state: String,
}

/// The sessions of others on `databases` that are active or idle in a transaction. Those that are merely idle do not
/// count: pg-bouncer keeps them open for a cluster that is gone. A state that this role may not see counts: only the same
/// role, or a member of `pg_read_all_stats`, sees it. Sessions with this one's application name (`pacharc`) are ours: our others, and
/// pg_dump's.
///
/// # Errors
/// The server's.
pub async fn foreign_sessions(session: &Session, databases: &[&str]) -> Result<Vec<ForeignSession>, Error> {
    let sql = "SELECT pid, datname::text, coalesce(usename, '')::text, coalesce(application_name, ''),
                      coalesce(host(client_addr), 'local'), coalesce(state, 'hidden')
               FROM pg_catalog.pg_stat_activity
               WHERE datname = ANY ($1::text[]) AND pid <> pg_catalog.pg_backend_pid()
                 AND coalesce(backend_type, 'client backend') = 'client backend'
                 AND coalesce(state, 'hidden') NOT IN ('idle', 'disabled')
                 AND coalesce(application_name, '') <> pg_catalog.current_setting('application_name')
               ORDER BY datname, pid";
    let failed = || Error::query("cannot look for other sessions in pg_stat_activity");
    let rows = session.query(sql, &[&databases]).await.map_err(failed())?;
    let read = |row: &tokio_postgres::Row| {
        Ok(ForeignSession {
            pid: row.try_get(0)?,
            database: row.try_get(1)?,
            role: row.try_get(2)?,
            application: row.try_get(3)?,
            client: row.try_get(4)?,
            state: row.try_get(5)?,
        })
    };
    rows.iter().map(read).collect::<Result<_, _>>().map_err(failed())
}
