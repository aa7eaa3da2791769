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
    /// `active`, `idle in transaction`, …; `in a transaction` where this role may not see which.
    pub state: String,
}

/// In words, e.g. `pgbench of postgres at 10.0.0.7 (active in pachyderm, process 42)`.
impl std::fmt::Display for ForeignSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { pid, database, role, application, client, state } = self;
        let application = if application.is_empty() { "a session" } else { application };
        write!(f, "{application} of {role} at {client} ({state} in {database}, process {pid})")
    }
}

/// The sessions of others on `databases` that are active or idle in a transaction. Those that are merely idle do not
/// count: pg-bouncer keeps them open for a cluster that is gone. Sessions with this one's application name (`pacharc`) are
/// ours: our others, and pg_dump's.
///
/// The state of another role's session is hidden from all but members of `pg_read_all_stats`. But everybody sees the lock that
/// each transaction holds on its own virtual number
/// (<https://www.postgresql.org/docs/current/view-pg-locks.html>): so that one is looked for. Where the kind of process is
/// hidden, too, one without a role is none of a client's (autovacuum).
///
/// # Errors
/// The server's.
pub async fn foreign_sessions(session: &Session, databases: &[&str]) -> Result<Vec<ForeignSession>, Error> {
    let sql = "SELECT pid, datname::text, coalesce(usename, '')::text, coalesce(application_name, ''),
                      coalesce(host(client_addr), 'local'), coalesce(nullif(state, 'disabled'), 'in a transaction')
               FROM pg_catalog.pg_stat_activity AS session
               WHERE datname = ANY ($1::text[]) AND pid <> pg_catalog.pg_backend_pid()
                 AND coalesce(backend_type = 'client backend', usename IS NOT NULL)
                 AND coalesce(application_name, '') <> pg_catalog.current_setting('application_name')
                 AND CASE WHEN coalesce(state, 'disabled') <> 'disabled' THEN state <> 'idle'
                          ELSE EXISTS (SELECT FROM pg_catalog.pg_locks AS held
                                       WHERE held.pid = session.pid AND locktype = 'virtualxid' AND granted) END
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
