//! What a database is and holds, found out before anything is done; `plan` prints it, a backup begins with it.

use pacharc_format::manifest::{DatabaseKind, DatabaseProperties, Postgres};

use super::catalog::{self, Table};
use super::check;
use super::dump_error::DumpError;
use super::{Error, Server, Session, restore};

/// The databases that are backed up where none is named: Pachyderm's, and Dex's where it is there.
const DEFAULT_DATABASES: [&str; 2] = ["pachyderm", "dex"];

/// One database, as it was found.
#[derive(Clone, Debug)]
pub struct DatabaseSurvey {
    /// Its name.
    pub name: String,
    /// What it is to Pachyderm.
    pub kind: DatabaseKind,
    /// The number of the last migration of Pachyderm's or Dex's schema.
    pub schema_version: Option<i64>,
    /// Encoding, locale, settings, extensions.
    pub properties: DatabaseProperties,
    /// Its tables, with estimates of rows and bytes.
    pub tables: Vec<Table>,
    /// How many sequences it has.
    pub sequences: usize,
    /// How many large objects it has.
    pub large_objects: u64,
    /// Bytes on disk, indexes included.
    pub bytes: u64,
    /// What a dump will leave out, in words.
    pub left_out: Vec<String>,
    /// Its server.
    pub server: Postgres,
}

impl DatabaseSurvey {
    /// The rows that a dump will hold, as the server estimates.
    #[must_use]
    pub fn dumped_rows(&self) -> u64 {
        self.dumped_tables().map(|table| table.rows).sum()
    }

    /// The bytes of heap and TOAST that a dump will read, as the server estimates; indexes are not dumped.
    #[must_use]
    pub fn dumped_bytes(&self) -> u64 {
        self.dumped_tables().map(|table| table.bytes).sum()
    }

    fn dumped_tables(&self) -> impl Iterator<Item = &Table> {
        self.tables.iter().filter(|table| table.has_data(self.server.standby))
    }
}

/// Looks at the databases `names`, or where there are none at `pachyderm` and, if it is there, `dex`.
///
/// # Errors
/// Those of a connection; [`DumpError::HalfRestored`]; [`DumpError::Permission`] if the role may not read everything;
/// [`DumpError::UnfinishedMigration`]; [`DumpError::TwoPachyderms`].
pub async fn inspect(server: &Server, names: &[String]) -> Result<Vec<DatabaseSurvey>, Error> {
    inspect_or(server, names, DEFAULT_DATABASES).await
}

/// The same, where the two databases may have other names.
///
/// # Errors
/// As [`inspect`].
pub async fn inspect_or(
    server: &Server,
    names: &[String],
    [pachyderm, dex]: [&str; 2],
) -> Result<Vec<DatabaseSurvey>, Error> {
    let mut surveys = Vec::new();
    if names.is_empty() {
        let session = server.connect(pachyderm).await?;
        surveys.push(survey(server, &session, pachyderm).await?);
        let found =
            session.query_opt("SELECT FROM pg_catalog.pg_database WHERE datname = $1 AND datallowconn", &[&dex]).await;
        if found.map_err(Error::query("cannot list the databases"))?.is_some() {
            surveys.push(survey(server, &server.connect(dex).await?, dex).await?);
        }
    }
    for name in names {
        if surveys.iter().all(|survey: &DatabaseSurvey| survey.name != *name) {
            surveys.push(survey(server, &server.connect(name).await?, name).await?);
        }
    }
    surveys.sort_by(|a, b| a.name.cmp(&b.name));
    let mut pachyderms = surveys.iter().filter(|survey| survey.kind == DatabaseKind::Pachyderm);
    if let (Some(one), Some(other)) = (pachyderms.next(), pachyderms.next()) {
        return Err(DumpError::TwoPachyderms { one: one.name.clone(), other: other.name.clone() }.into());
    }
    Ok(surveys)
}

async fn survey(server: &Server, session: &Session, name: &str) -> Result<DatabaseSurvey, Error> {
    let mut postgres = describe(server, session).await.map_err(Error::query("cannot read the server's version"))?;
    postgres.system_identifier = restore::system_identifier(session).await?;
    let failed = |source| Error::query(format!("cannot read the catalogs of database \"{name}\""))(source);
    let mut properties = catalog::properties(session, postgres.version_num).await.map_err(failed)?;
    // Before anything else is looked for in it: it may lack whatever comes late in a restore.
    if properties.comment.as_deref().is_some_and(restore::is_mark) {
        return Err(DumpError::HalfRestored { database: name.to_owned() }.into());
    }
    check_permissions(session, name).await?;
    let kind = catalog::kind(session).await.map_err(failed)?;
    let migrations = catalog::migrations(session, kind).await.map_err(failed)?;
    if let Some((id, migration)) = migrations.unfinished {
        return Err(DumpError::UnfinishedMigration { database: name.to_owned(), id, name: migration }.into());
    }
    let bytes = session
        .query_one("SELECT pg_catalog.pg_database_size(pg_catalog.current_database())", &[])
        .await
        .map_err(failed)?;
    // This session has the database's own settings, its search path among them.
    let timezone = "SELECT pg_catalog.current_setting('TimeZone')";
    let timezone = server.bare().connect(name).await?.query_one(timezone, &[]).await;
    properties.timezone = timezone.and_then(|row| row.try_get(0)).map_err(failed)?;
    Ok(DatabaseSurvey {
        name: name.to_owned(),
        kind,
        schema_version: migrations.last,
        properties,
        tables: catalog::tables(session).await.map_err(failed)?,
        sequences: catalog::sequences(session).await.map_err(failed)?.len(),
        large_objects: catalog::large_objects(session).await.map_err(failed)?,
        bytes: catalog::unsigned(bytes.try_get(0).map_err(failed)?),
        left_out: catalog::left_out(session, postgres.standby).await.map_err(failed)?,
        server: postgres,
    })
}

/// An error that names what the role may not read.
pub(super) async fn check_permissions(session: &Session, database: &str) -> Result<(), Error> {
    let unreadable = check::unreadable(session).await;
    let unreadable = unreadable.map_err(Error::query(format!("cannot read the privileges in \"{database}\"")))?;
    match unreadable.split_first() {
        None => Ok(()),
        Some((object, others)) => {
            Err(DumpError::Permission { database: database.to_owned(), object: object.clone(), more: others.len() }
                .into())
        }
    }
}

/// Version and role of the server; its identity, which not everybody may read, is left open.
async fn describe(server: &Server, session: &Session) -> Result<Postgres, tokio_postgres::Error> {
    let row = session
        .query_one(
            "SELECT pg_catalog.current_setting('server_version'),
                    pg_catalog.current_setting('server_version_num')::bigint,
                    pg_catalog.pg_is_in_recovery(),
                    CASE WHEN pg_catalog.pg_is_in_recovery()
                         THEN pg_catalog.pg_wal_lsn_diff(
                                  pg_catalog.pg_last_wal_receive_lsn(), pg_catalog.pg_last_wal_replay_lsn())::bigint END",
            &[],
        )
        .await?;
    Ok(Postgres {
        version: row.try_get(0)?,
        version_num: u32::try_from(row.try_get::<_, i64>(1)?).unwrap_or(0),
        system_identifier: None,
        host: server.address(),
        standby: row.try_get(2)?,
        replay_lag: row.try_get::<_, Option<i64>>(3)?.map(catalog::unsigned),
    })
}
