//! The database itself: whether it may be restored into, its making, and its owner.

use std::time::{Duration, Instant};

use pacharc_format::manifest::DatabaseProperties;
use serde::Serialize;
use tokio_postgres::error::SqlState;

use super::mark::{
    LOADED_CREATED, LOADED_FOUND, Mark, UNDER_WAY_CREATED, UNDER_WAY_FOUND, comment_sql, is_mark, set_mark,
};
use super::settings::literal;
use super::settings::setting_value;
use super::{RestoreError, Target};
use crate::database::catalog::quote_identifier;
use crate::database::{Error, Server, Session};

/// How long a session of the restore itself may need to end before a database is renamed.
const RENAME_PATIENCE: Duration = Duration::from_secs(30);

/// What was found or made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// An empty database.
    Empty,
    /// An earlier run with the same bundle has come to its end.
    Loaded,
}

/// What stands where a database is to be restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// Nothing.
    Free,
    /// What an interrupted restore of the same bundle had made: it is dropped first.
    Left,
    /// An empty database.
    Empty,
    /// One that an earlier run has loaded.
    Loaded,
}

/// Checks everything that can be checked, and changes nothing.
///
/// # Errors
/// Those of [`super::DatabaseRestore::create`] that come before anything is changed.
pub async fn check(target: &Target, properties: &DatabaseProperties) -> Result<Place, Error> {
    let session = maintenance(&target.server, &[&target.database]).await?;
    look(&session, target, properties).await
}

/// Checks everything that can be checked, then creates the database or takes the empty one.
pub(super) async fn create(target: &Target, properties: &DatabaseProperties) -> Result<State, Error> {
    let session = maintenance(&target.server, &[&target.database]).await?;
    let place = look(&session, target, properties).await?;
    let stage = match place {
        Place::Loaded => return Ok(State::Loaded),
        Place::Empty => UNDER_WAY_FOUND,
        Place::Free | Place::Left => {
            if matches!(place, Place::Left) {
                drop_in(&session, &target.database).await?;
            }
            if !make(&session, target, properties).await? {
                // It has come since it was looked for.
                return Box::pin(create(target, properties)).await;
            }
            UNDER_WAY_CREATED
        }
    };
    set_mark(&session, target, stage).await?;
    Ok(State::Empty)
}

/// Looks for whatever stands in the way.
async fn look(session: &Session, target: &Target, properties: &DatabaseProperties) -> Result<Place, Error> {
    // First, since what an earlier run has loaded, or released, is not looked at any further.
    check_roles(session, target, properties).await?;
    let place = place(session, target, properties).await?;
    if !matches!(place, Place::Loaded) {
        check_extensions(session, properties).await?;
        super::settings::check_zone(session, properties).await?;
    }
    if matches!(place, Place::Free | Place::Left) {
        check_making(session, target, properties).await?;
    }
    Ok(place)
}

async fn place(session: &Session, target: &Target, properties: &DatabaseProperties) -> Result<Place, Error> {
    let Target { server, database, .. } = target;
    let Some(found) = find(session, database).await? else { return Ok(Place::Free) };
    let mark = found.comment.as_deref().and_then(Mark::parse);
    match mark {
        Some(mark) if mark.bundle != target.mark => {
            let bundle = mark.bundle.to_owned();
            return Err(RestoreError::OtherBundle { database: database.clone(), bundle }.into());
        }
        Some(Mark { stage: LOADED_CREATED | LOADED_FOUND, .. }) => return Ok(Place::Loaded),
        Some(Mark { stage: UNDER_WAY_CREATED, .. }) => return Ok(Place::Left),
        _ => {}
    }
    if let Some(object) = first_object(&server.connect(database).await?).await? {
        let database = database.clone();
        return Err(match mark {
            Some(_) => RestoreError::Unfinished { database },
            None => RestoreError::NotEmpty { database, found: object },
        }
        .into());
    }
    if found.encoding != properties.encoding {
        let (found, wanted) = (found.encoding, properties.encoding.clone());
        return Err(RestoreError::Encoding { database: database.clone(), found, wanted }.into());
    }
    Ok(Place::Empty)
}

pub(super) struct Found {
    encoding: String,
    pub(super) comment: Option<String>,
}

pub(super) async fn find(session: &Session, database: &str) -> Result<Option<Found>, Error> {
    let failed = || Error::query("cannot read the list of databases");
    let row = session
        .query_opt(
            "SELECT pg_catalog.pg_encoding_to_char(encoding)::text, pg_catalog.shobj_description(oid, 'pg_database')
             FROM pg_catalog.pg_database WHERE datname = $1",
            &[&database],
        )
        .await
        .map_err(failed())?;
    let found = row.map(|row| Ok(Found { encoding: row.try_get(0)?, comment: row.try_get(1)? }));
    found.transpose().map_err(failed())
}

/// The first thing in the database that is nobody's but a user's, e.g. `table public.a`.
async fn first_object(session: &Session) -> Result<Option<String>, Error> {
    // Members of extensions are not counted: managed servers come with some.
    const SQL: &str = "
        WITH spaces AS (
            SELECT oid, nspname FROM pg_catalog.pg_namespace
            WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'),
        members AS (SELECT classid, objid FROM pg_catalog.pg_depend WHERE deptype = 'e')
        SELECT kind || ' ' || name FROM (
            SELECT 'pg_catalog.pg_class'::regclass AS class, c.oid,
                   CASE c.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'S' THEN 'sequence'
                                  WHEN 'c' THEN 'type' WHEN 'f' THEN 'foreign table' ELSE 'table' END AS kind,
                   n.nspname || '.' || c.relname AS name
            FROM pg_catalog.pg_class c JOIN spaces n ON n.oid = c.relnamespace WHERE c.relkind IN ('r','p','v','m','S','c','f')
            UNION ALL
            SELECT 'pg_catalog.pg_type'::regclass, t.oid, 'type', n.nspname || '.' || t.typname
            FROM pg_catalog.pg_type t JOIN spaces n ON n.oid = t.typnamespace WHERE t.typtype IN ('d','e','r')
            UNION ALL
            SELECT 'pg_catalog.pg_proc'::regclass, p.oid, 'function', n.nspname || '.' || p.proname
            FROM pg_catalog.pg_proc p JOIN spaces n ON n.oid = p.pronamespace
            UNION ALL
            SELECT 'pg_catalog.pg_namespace'::regclass, n.oid, 'schema', n.nspname FROM spaces n WHERE n.nspname <> 'public'
            UNION ALL
            SELECT 'pg_catalog.pg_largeobject'::regclass, l.oid, 'large object', l.oid::text
            FROM pg_catalog.pg_largeobject_metadata l) objects
        WHERE NOT EXISTS (SELECT FROM members m WHERE m.classid = objects.class AND m.objid = objects.oid)
        ORDER BY kind <> 'table', name LIMIT 1";
    let row = session.query_opt(SQL, &[]).await;
    let row = row.and_then(|row| row.map(|row| row.try_get(0)).transpose());
    row.map_err(Error::query("cannot find out whether the database is empty"))
}

/// Whether the roles that are needed exist, and may do what is needed.
async fn check_roles(session: &Session, target: &Target, properties: &DatabaseProperties) -> Result<(), Error> {
    let failed = || Error::query("cannot read the server's roles");
    let mut needed = properties.policy_roles.clone();
    needed.extend(target.acting_for().map(str::to_owned));
    let rows = session
        .query(
            "SELECT DISTINCT needed FROM unnest($1::text[]) u (needed)
             WHERE needed <> 'public' AND NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = needed) ORDER BY 1",
            &[&needed],
        )
        .await
        .map_err(failed())?;
    let roles: Vec<String> = rows.iter().filter_map(|row| row.try_get(0).ok()).collect();
    if !roles.is_empty() {
        return Err(RestoreError::RolesMissing { roles }.into());
    }
    if let Some(owner) = target.acting_for() {
        // From 16 on, membership alone does not allow SET ROLE.
        let privilege = if session.version_num() >= 160_000 { "SET" } else { "MEMBER" };
        let row =
            session.query_one("SELECT pg_catalog.pg_has_role($1::text::name, $2::text)", &[&owner, &privilege]).await;
        if !row.and_then(|row| row.try_get::<_, bool>(0)).map_err(failed())? {
            let (role, owner) = (target.server.user().to_owned(), owner.to_owned());
            return Err(RestoreError::MayNotActFor { role, owner }.into());
        }
    }
    Ok(())
}

async fn check_extensions(session: &Session, properties: &DatabaseProperties) -> Result<(), Error> {
    let needed: Vec<&str> = properties.extensions.iter().map(|extension| extension.name.as_str()).collect();
    let rows = session
        .query(
            "SELECT needed FROM unnest($1::text[]) u (needed)
             WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_available_extensions WHERE name = needed)",
            &[&needed],
        )
        .await;
    let rows = rows.map_err(Error::query("cannot read the server's extensions"))?;
    let extensions: Vec<String> = rows.iter().filter_map(|row| row.try_get(0).ok()).collect();
    if extensions.is_empty() { Ok(()) } else { Err(RestoreError::ExtensionsMissing { extensions }.into()) }
}

/// Whether the server has what the database needs, and the role may make it.
async fn check_making(session: &Session, target: &Target, properties: &DatabaseProperties) -> Result<(), Error> {
    making(session, target, properties)?;
    let sql = "SELECT rolsuper OR rolcreatedb FROM pg_catalog.pg_roles WHERE rolname = current_user";
    let row = session.query_one(sql, &[]).await;
    match row.and_then(|row| row.try_get(0)).map_err(Error::query("cannot read the server's roles"))? {
        true => Ok(()),
        false => Err(may_not_create(target)),
    }
}

fn may_not_create(target: &Target) -> Error {
    let role = target.server.user().to_owned();
    RestoreError::MayNotCreate { role, database: target.database.clone() }.into()
}

/// The statement that makes the database.
fn making(session: &Session, target: &Target, properties: &DatabaseProperties) -> Result<String, RestoreError> {
    create_statement(&target.database, Some(target.owner()), properties, session.version_num()).ok_or_else(|| {
        RestoreError::LocaleProvider {
            version: session.version().to_owned(),
            provider: properties.locale_provider.clone(),
        }
    })
}

/// Makes the database; `false` where another one has made it at the same moment. A server carries out the statement of a run
/// that was ended meanwhile, so that may have been ours.
async fn make(session: &Session, target: &Target, properties: &DatabaseProperties) -> Result<bool, Error> {
    let statement = making(session, target, properties)?;
    if let Err(error) = session.batch_execute(&statement).await {
        return match error.code() {
            Some(&(SqlState::DUPLICATE_DATABASE | SqlState::UNIQUE_VIOLATION)) => Ok(false),
            Some(&SqlState::INSUFFICIENT_PRIVILEGE) => Err(may_not_create(target)),
            _ => Err(Error::query(format!("cannot create database \"{}\"", target.database))(error)),
        };
    }
    if session.version_num() < 150_000 && target.owner.is_some() {
        // From 15 on the schema public belongs to the database's owner. Before, it is the superuser's, and only a
        // superuser can change that; who is none can still create in it.
        let inside = target.server.connect(&target.database).await?;
        let sql = format!("ALTER SCHEMA public OWNER TO {}", quote_identifier(target.owner()));
        match inside.batch_execute(&sql).await {
            Err(error) if error.code() != Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
                return Err(super::sessions::failed(&sql)(error));
            }
            _ => {}
        }
    }
    Ok(true)
}

/// What makes a database like the one that `properties` describe, as SQL for psql: for those who restore without
/// pacharc. The role that runs it owns the database. `None` where a server of `version` has no such locale provider.
#[must_use]
pub fn create_script(database: &str, properties: &DatabaseProperties, version: u32) -> Option<String> {
    let mut script = create_statement(database, None, properties, version)? + ";\n";
    let database = quote_identifier(database);
    if !properties.timezone.is_empty() {
        let zone = literal(&properties.timezone);
        script += &format!("ALTER DATABASE {database} SET \"TimeZone\" = {zone};\n");
    }
    for setting in properties.settings.iter().filter(|setting| setting.role.is_none()) {
        let name = setting.name.split('.').map(quote_identifier).collect::<Vec<_>>().join(".");
        let value = setting_value(&setting.name, &setting.value);
        script += &format!("ALTER DATABASE {database} SET {name} = {value};\n");
    }
    Some(script)
}

/// `None` where a server of this version has no such locale provider.
fn create_statement(
    database: &str,
    owner: Option<&str>,
    properties: &DatabaseProperties,
    version: u32,
) -> Option<String> {
    let owner = owner.map(|owner| format!(" OWNER {}", quote_identifier(owner))).unwrap_or_default();
    let mut statement = format!(
        "CREATE DATABASE {}{owner} TEMPLATE template0 ENCODING {} LC_COLLATE {} LC_CTYPE {}",
        quote_identifier(database),
        literal(&properties.encoding),
        literal(&properties.collate),
        literal(&properties.ctype)
    );
    let (since, locale) = match properties.locale_provider.as_str() {
        "icu" => (150_000, "ICU_LOCALE"),
        "builtin" => (170_000, "BUILTIN_LOCALE"),
        _ => (150_000, ""),
    };
    if version >= since {
        statement += &format!(" LOCALE_PROVIDER {}", properties.locale_provider);
    } else if !locale.is_empty() {
        return None;
    }
    if let Some(name) = properties.locale.as_deref().filter(|_| !locale.is_empty()) {
        statement += &format!(" {locale} {}", literal(name));
    }
    if let Some(rules) = properties.icu_rules.as_deref().filter(|_| locale == "ICU_LOCALE") {
        if version < 160_000 {
            return None;
        }
        statement += &format!(" ICU_RULES {}", literal(rules));
    }
    Some(statement)
}

/// Checks that the owner may use the database of `session` and everything in it.
pub(super) async fn check_owner(session: &Session, target: &Target) -> Result<(), Error> {
    // Extensions' members are left out: they are whoever's who created the extension, with grants of their own.
    const SQL: &str = "
        WITH spaces AS (
            SELECT oid, nspname FROM pg_catalog.pg_namespace
            WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'),
        members AS (SELECT classid, objid FROM pg_catalog.pg_depend WHERE deptype = 'e')
        SELECT object FROM (
            SELECT 'the database' AS object WHERE NOT pg_catalog.has_database_privilege($1::text::name, current_database(), 'CONNECT')
            UNION ALL
            SELECT 'schema ' || nspname FROM spaces n
            WHERE NOT pg_catalog.has_schema_privilege($1::text::name, n.oid, 'USAGE')
              AND NOT EXISTS (SELECT FROM members WHERE classid = 'pg_catalog.pg_namespace'::regclass AND objid = n.oid)
            UNION ALL
            SELECT CASE c.relkind WHEN 'S' THEN 'sequence ' ELSE 'table ' END || n.nspname || '.' || c.relname
            FROM pg_catalog.pg_class c JOIN spaces n ON n.oid = c.relnamespace
            WHERE CASE
                    WHEN c.relkind = 'S' THEN NOT pg_catalog.has_sequence_privilege($1::text::name, c.oid, 'USAGE')
                    WHEN c.relkind IN ('r','p','v','m','f') THEN
                        NOT (pg_catalog.has_table_privilege($1::text::name, c.oid, 'SELECT')
                             AND pg_catalog.has_table_privilege($1::text::name, c.oid, 'INSERT')
                             AND pg_catalog.has_table_privilege($1::text::name, c.oid, 'UPDATE')
                             AND pg_catalog.has_table_privilege($1::text::name, c.oid, 'DELETE'))
                    ELSE false END
              AND NOT EXISTS (SELECT FROM members WHERE classid = 'pg_catalog.pg_class'::regclass AND objid = c.oid)) lacking
        LIMIT 1";
    let row = session.query_opt(SQL, &[&target.owner()]).await;
    let object: Option<String> = row
        .and_then(|row| row.map(|row| row.try_get(0)).transpose())
        .map_err(Error::query("cannot check the owner's privileges"))?;
    match object {
        None => Ok(()),
        Some(object) => {
            let (owner, database) = (target.owner().to_owned(), target.database.clone());
            Err(RestoreError::OwnerLacks { owner, object, database }.into())
        }
    }
}

/// A database that is loaded and proved.
#[derive(Clone, Copy, Debug)]
pub struct Proved<'a> {
    /// What it is called now.
    pub database: &'a str,
    /// What it is to be called, if that is something else.
    pub rename_to: Option<&'a str>,
    /// What the bundle says of it.
    pub properties: &'a DatabaseProperties,
}

/// Gives databases their names, and their sources' comments instead of the marks of a restore: all of them at once, or none.
/// Sessions that are about to end are waited for where there is something to rename.
///
/// # Errors
/// What the server says, e.g. that somebody uses one of them.
pub async fn release(server: &Server, all: &[Proved<'_>]) -> Result<(), Error> {
    let renamed: Vec<&str> =
        all.iter().filter(|proved| proved.rename_to.is_some()).map(|proved| proved.database).collect();
    let session = maintenance(server, &renamed).await?;
    // Statements that are sent together are one transaction.
    let mut sql = String::new();
    for Proved { database, rename_to, properties } in all {
        if let Some(name) = rename_to {
            sql += &format!("ALTER DATABASE {} RENAME TO {};", quote_identifier(database), quote_identifier(name));
        }
        // Earlier versions have backed up databases with the mark of a restore: another run would take it for its own.
        let comment = properties.comment.as_deref().filter(|comment| !is_mark(comment));
        sql += &comment_sql(rename_to.unwrap_or(database), comment);
    }
    let began = Instant::now();
    loop {
        match session.batch_execute(&sql).await {
            // The server itself waits for 5 seconds; a backend with much to clean up takes longer to go.
            Err(error) if error.code() == Some(&SqlState::OBJECT_IN_USE) && began.elapsed() < RENAME_PATIENCE => {}
            outcome => {
                return outcome.map_err(Error::query("cannot give the databases their names and comments"));
            }
        }
    }
}

/// Drops a database with the sessions on it: one that a restore made and that proved wrong.
///
/// # Errors
/// What the server says.
pub async fn drop_database(server: &Server, database: &str) -> Result<(), Error> {
    drop_in(&maintenance(server, &[database]).await?, database).await
}

async fn drop_in(session: &Session, database: &str) -> Result<(), Error> {
    let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", quote_identifier(database));
    session.batch_execute(&sql).await.map_err(Error::query(format!("cannot drop database \"{database}\"")))
}

/// What tells one server's data from another's: two servers with the same are one, or copies. `None` where the role may
/// not ask.
///
/// # Errors
/// What the server says, but for a lack of privilege.
pub async fn system_identifier(session: &Session) -> Result<Option<String>, Error> {
    let sql = "SELECT system_identifier::text FROM pg_catalog.pg_control_system()";
    match session.query_one(sql, &[]).await.and_then(|row| row.try_get(0)) {
        Ok(identifier) => Ok(Some(identifier)),
        Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => Ok(None),
        Err(error) => Err(Error::query("cannot read the server's identity")(error)),
    }
}

/// A session on any database but these, which may be dropped or renamed from there. On `template1` only where nothing else can be
/// had: as long as somebody is there, nobody can make a database.
///
/// # Errors
/// Those of a connection.
pub(crate) async fn maintenance(server: &Server, others: &[&str]) -> Result<Session, Error> {
    let mut failure = None;
    let names = ["postgres"].into_iter().chain(server.default_database()).chain(["template1"]);
    for name in names.filter(|name| !others.contains(name)) {
        match server.connect(name).await {
            Ok(session) => return Ok(session),
            Err(error) => {
                failure.get_or_insert(error);
            }
        }
    }
    Err(failure
        .unwrap_or_else(|| Error::DatabaseMissing { address: server.address(), database: "postgres".to_owned() }))
}
