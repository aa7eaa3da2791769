//! A snapshot that is good for a dump: the rows as of one moment, in tables that nobody can empty or rewrite meanwhile.
//!
//! A snapshot protects rows, not tables. A TRUNCATE, an ALTER TABLE that rewrites, or pg_repack, committed after the
//! snapshot was taken, leaves a table that is empty for whoever reads it with that snapshot; pg_dump then writes no rows
//! and ends with success. So the session that holds the snapshot locks every table first.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use tokio_postgres::error::SqlState;

use super::catalog::{self, Migrations, Sequence, Table};
use super::dump_error::DumpError;
use super::{DatabaseSurvey, Error, Server, Session};

/// How long a lock is waited for, in seconds: whoever changes a table for longer than that is better waited out.
pub(super) const LOCK_SECONDS: u32 = 30;
/// How many tables are locked by one statement.
const LOCK_BATCH: usize = 200;
/// How often the list of tables is read again before a new attempt has to be made.
const TRIES: usize = 3;

/// One database's open snapshot, with ACCESS SHARE locks on all of its tables. Both last as long as this value.
#[derive(Debug)]
pub struct Snapshot {
    pub(super) session: Session,
    pub(super) survey: DatabaseSurvey,
    /// What `pg_export_snapshot` returned.
    pub(super) id: String,
    /// The tables that are locked, with their true sizes.
    pub(super) tables: Vec<Table>,
    /// The sequences, as they were just before the snapshot.
    pub(super) sequences: Vec<Sequence>,
    /// How many large objects there are.
    pub(super) large_objects: u64,
    pub(super) opened: Timestamp,
}

impl Snapshot {
    /// Locks the tables of the database, opens the snapshot, exports it, and makes sure that they belong together.
    ///
    /// # Errors
    /// [`DumpError::TableChanged`] if the list of tables does not hold still, [`DumpError::Migrated`] or
    /// [`DumpError::UnfinishedMigration`] if the schema is not that of the survey, or any of a connection.
    pub async fn open(server: &Server, survey: &DatabaseSurvey) -> Result<Self, Error> {
        let session = server.connect(&survey.name).await?;
        let mut tries = 0;
        loop {
            tries += 1;
            match Opening::run(&session, survey).await {
                Ok(opening) => {
                    let Opening { id, tables, sequences, large_objects, opened } = opening;
                    return Ok(Self { session, survey: survey.clone(), id, tables, sequences, large_objects, opened });
                }
                Err(error) if tries < TRIES && list_changed(&error) => {
                    session.batch_execute("ROLLBACK").await.map_err(|e| failed(survey, e))?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Counts the rows of `table` that the snapshot shows and a dump holds.
    ///
    /// # Errors
    /// [`DumpError::HolderLost`], or the server's.
    pub async fn count(&self, table: &Table) -> Result<u64, Error> {
        let filter = table.extension_filter.as_deref().unwrap_or_default();
        let sql = format!("SELECT count(*) FROM ONLY {} {filter}", table.quoted());
        let row = self.session.query_one(&sql, &[]).await.map_err(|e| failed(&self.survey, e))?;
        Ok(catalog::unsigned(row.try_get(0).map_err(|e| failed(&self.survey, e))?))
    }

    /// Whether the session, and with it the snapshot, is gone.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.session.closed()
    }

    /// Ends the snapshot; an error if it had ended before.
    ///
    /// # Errors
    /// [`DumpError::HolderLost`].
    pub async fn close(self) -> Result<(), Error> {
        // A pooler may have given us another session's transaction, or none.
        let sql = "SELECT current_setting('transaction_isolation') = 'repeatable read'";
        let row = self.session.query_one(sql, &[]).await.map_err(|e| failed(&self.survey, e))?;
        if !row.try_get::<_, bool>(0).map_err(|e| failed(&self.survey, e))? {
            return Err(DumpError::HolderLost { database: self.survey.name }.into());
        }
        self.session.batch_execute("COMMIT").await.map_err(|e| failed(&self.survey, e))
    }
}

/// What one try finds.
struct Opening {
    id: String,
    tables: Vec<Table>,
    sequences: Vec<Sequence>,
    large_objects: u64,
    opened: Timestamp,
}

impl Opening {
    async fn run(session: &Session, survey: &DatabaseSurvey) -> Result<Self, Error> {
        let failed = |source| failed(survey, source);
        let listed = catalog::tables(session).await.map_err(failed)?;
        let locked: Vec<_> = listed.iter().filter(|table| is_read(table)).collect();
        let sequences = catalog::sequences(session).await.map_err(failed)?;

        // None of these statements takes a snapshot: the first query does, when all locks are held.
        let mut locks =
            format!("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL lock_timeout = '{LOCK_SECONDS}s';");
        for batch in locked.chunks(LOCK_BATCH) {
            let names: Vec<_> = batch.iter().map(|table| format!("ONLY {}", table.quoted())).collect();
            locks.push_str(&format!("LOCK TABLE {} IN ACCESS SHARE MODE;", names.join(", ")));
        }
        locks.push_str("SET LOCAL lock_timeout = 0;");
        session.batch_execute(&locks).await.map_err(failed)?;

        let opened = Timestamp::now();
        let row = session.query_one("SELECT pg_export_snapshot()", &[]).await.map_err(failed)?;
        let id = row.try_get(0).map_err(failed)?;
        same_schema(survey, catalog::migrations(session, survey.kind).await.map_err(failed)?)?;
        let mut tables = catalog::tables(session).await.map_err(failed)?;
        tables.retain(is_read);
        same_tables(survey, &locked, &tables)?;
        let files = files(session, &tables).await.map_err(failed)?;
        for table in tables.iter_mut().filter(|table| !table.partitioned) {
            match files.get(&table.oid) {
                Some((file, bytes)) if *file == table.file => table.bytes = *bytes,
                _ => return Err(changed(survey, table)),
            }
        }
        let large_objects = catalog::large_objects(session).await.map_err(failed)?;
        Ok(Self { id, tables, sequences, large_objects, opened })
    }
}

/// Whether a dump reads the table or its definition. (Of an extension it reads the configuration tables alone.)
fn is_read(table: &Table) -> bool {
    !table.extension_member || table.extension_filter.is_some()
}

/// The bundle says already which schema it holds: that of the survey, which an upgrade may have changed meanwhile.
fn same_schema(survey: &DatabaseSurvey, migrations: Migrations) -> Result<(), Error> {
    let database = survey.name.clone();
    if let Some((id, name)) = migrations.unfinished {
        return Err(DumpError::UnfinishedMigration { database, id, name }.into());
    }
    if migrations.last != survey.schema_version {
        let (before, now) = (survey.schema_version, migrations.last);
        return Err(DumpError::Migrated { database, before, now }.into());
    }
    Ok(())
}

/// Every table that the snapshot shows must be one that was locked: by oid, since a name may have passed to another.
fn same_tables(survey: &DatabaseSurvey, locked: &[&Table], seen: &[Table]) -> Result<(), Error> {
    let locked_oids: HashSet<_> = locked.iter().map(|table| table.oid).collect();
    let seen_oids: HashSet<_> = seen.iter().map(|table| table.oid).collect();
    let new = seen.iter().find(|table| !locked_oids.contains(&table.oid));
    let gone = locked.iter().copied().find(|table| !seen_oids.contains(&table.oid));
    match new.or(gone) {
        Some(table) => Err(changed(survey, table)),
        None => Ok(()),
    }
}

/// The file and the size of each table now, whatever the snapshot shows.
async fn files(session: &Session, tables: &[Table]) -> Result<HashMap<u32, (u32, u64)>, tokio_postgres::Error> {
    let oids: Vec<u32> = tables.iter().filter(|table| !table.partitioned).map(|table| table.oid).collect();
    let rows = session
        .query(
            "SELECT oid, pg_relation_filenode(oid), pg_table_size(oid) FROM unnest($1::oid[]) t (oid)
             WHERE pg_relation_filenode(oid) IS NOT NULL",
            &[&oids],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let bytes: Option<i64> = row.try_get(2)?;
            Ok((row.try_get(0)?, (row.try_get(1)?, catalog::unsigned(bytes.unwrap_or(0)))))
        })
        .collect()
}

fn changed(survey: &DatabaseSurvey, table: &Table) -> Error {
    DumpError::TableChanged { database: survey.name.clone(), table: table.quoted() }.into()
}

/// Whether to read the list of tables again: one was replaced, or dropped before its lock was taken.
fn list_changed(error: &Error) -> bool {
    match error {
        Error::Dump(DumpError::TableChanged { .. }) => true,
        Error::Query { source, .. } => {
            matches!(source.code(), Some(code) if *code == SqlState::UNDEFINED_TABLE || *code == SqlState::INVALID_SCHEMA_NAME)
        }
        _ => false,
    }
}

/// A failed statement of the session that holds the snapshot.
pub(super) fn failed(survey: &DatabaseSurvey, source: tokio_postgres::Error) -> Error {
    // 57P: shut down by the administrator, crash, idle too long; 25P03: idle in transaction too long.
    let lost = match source.code() {
        Some(code) => code.code().starts_with("57P") || *code == SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
        None => source.is_closed() || std::error::Error::source(&source).is_some_and(|s| s.is::<std::io::Error>()),
    };
    if lost {
        DumpError::HolderLost { database: survey.name.clone() }.into()
    } else {
        Error::query(format!("cannot read database \"{}\" by a snapshot", survey.name))(source)
    }
}
