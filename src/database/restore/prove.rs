//! The proof of a restore: what the database now holds is read out again, and compared with the manifest.
//!
//! Rows of large tables are read by psql children and not by sessions of our own: a row of 1 GB arrives as one message, which a
//! client must hold as a whole, while psql's output can be read in parts. A child and a connection for each of the many small
//! tables would cost more than their rows do: one session reads them all.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::pin::pin;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::{TryStreamExt as _, future};
use pacharc_format::manifest::{self, LargeObjects};
use pacharc_format::{Fingerprint, LineReader};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio_postgres::error::SqlState;

use super::Target;
use super::create::{self, maintenance};
use super::sessions::{ROOM, failed};
use super::tables::{Check, checks};
use crate::database::catalog::{quote_identifier, quote_qualified};
use crate::database::child::{Child, Label};
use crate::database::{DumpError, Error, Server, Session, Tool};

/// Bytes that are read of a large object at once.
const LARGE_OBJECT_PART: i32 = 1 << 20;
/// Bytes that are read of psql's output at once.
const INPUT_BUFFER: usize = 256 << 10;

/// Bytes of rows below which a table is small.
const SMALL: u64 = 1 << 20;

/// How long a reader pauses that got no connection, and is the last one.
const PAUSE: Duration = Duration::from_millis(200);

/// What the server says of a name that it does not know.
const ABSENT: [SqlState; 3] = [SqlState::UNDEFINED_TABLE, SqlState::INVALID_SCHEMA_NAME, SqlState::UNDEFINED_COLUMN];

/// What the comparison said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proof {
    /// Tables that were compared.
    pub tables: u64,
    /// Rows in them.
    pub rows: u64,
    /// Whatever differs; empty where all is equal.
    pub differences: Vec<Difference>,
}

impl Proof {
    /// Whether the database holds what the manifest says.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.differences.is_empty()
    }
}

/// Something that is not what the manifest says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// What it is, e.g. `table "public"."a"`.
    pub object: String,
    /// What the manifest says.
    pub expected: String,
    /// What the database holds.
    pub found: String,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} expected, {} found", self.object, self.expected, self.found)
    }
}

/// Reads the target database and compares it with `manifest`: rows and fingerprint of each table, sequences, large
/// objects. It reads in a session and `jobs` children at a time, or as many as the server has connections for: as the
/// connecting role where that sees all that the owner owns, else as the owner.
///
/// # Errors
/// What the server or psql says. That something differs is no error, but in the [`Proof`].
pub async fn prove(target: &Target, psql: &Tool, manifest: &manifest::Database) -> Result<Proof, Error> {
    // The sessions of the load may just be ending.
    let server = undisturbed(target).await?;
    let session = server.await_session(&target.database, ROOM, || {}).await?;
    let owner = match target.acting_for() {
        Some(owner) if !sees_all(&session, owner).await? => Some(owner),
        _ => None,
    };
    let mut proof = Proof::default();
    let reader = Reader { target, server, psql, manifest, owner };
    let mut present = Vec::new();
    for mut check in checks(&manifest.tables) {
        match lacking(&session, &check).await? {
            None => {
                check.leave_out_foreign(&session).await?;
                present.push(check);
            }
            Some(found) => {
                proof.tables += check.tables;
                proof.compare(format!("table {}", check.name), check.expected.to_string(), found.to_owned());
            }
        }
    }
    let (small, mut large): (Vec<_>, Vec<_>) = present.into_iter().partition(|check| check.bytes <= SMALL);
    // Else the largest may be what all others wait for at the end.
    large.sort_by_key(|check| Reverse(check.bytes));
    let (small, large) = tokio::try_join!(reader.small(&session, small), reader.large(large))?;
    for (check, fingerprint) in small.into_iter().chain(large) {
        proof.tables += check.tables;
        proof.rows += fingerprint.count();
        proof.compare(format!("table {}", check.name), check.expected, fingerprint);
    }
    let role = reader.role(false);
    session.batch_execute(&role).await.map_err(failed(&role))?;
    proof.sequences(&session, manifest).await?;
    let objects = large_objects(&session).await?;
    let describe = |l: &LargeObjects| format!("{} of {} bytes, {}", l.count, l.bytes, l.fingerprint);
    let expected = match &manifest.large_objects {
        none if none.count == 0 => {
            describe(&LargeObjects { fingerprint: Fingerprint::default().to_hex(), ..none.clone() })
        }
        some => describe(some),
    };
    proof.compare("large objects".to_owned(), expected, describe(&objects));
    proof.differences.sort_by(|a, b| a.object.cmp(&b.object));
    Ok(proof)
}

/// Checks that the owner may use everything in a database that an earlier run has loaded, perhaps for another owner.
///
/// # Errors
/// [`super::RestoreError::OwnerLacks`]; what the server says.
pub async fn check_owner(target: &Target) -> Result<(), Error> {
    let session = undisturbed(target).await?.await_session(&target.database, ROOM, || {}).await?;
    create::check_owner(&session, target).await
}

/// The server, without event triggers where the role may do without them: one on login may write into what is read here.
async fn undisturbed(target: &Target) -> Result<Server, Error> {
    // Who has no other database to ask in has to do with them.
    let Ok(session) = maintenance(&target.server, &[&target.database]).await else { return Ok(target.server.clone()) };
    let sql = "SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = session_user";
    let is_superuser = session.query_one(sql, &[]).await.and_then(|row| row.try_get(0));
    Ok(match is_superuser.map_err(Error::query("cannot read the server's roles"))? {
        true => target.server.without_event_triggers(),
        false => target.server.clone(),
    })
}

/// Whether the connecting role may read all that `owner` owns, rows that a policy hides from the owner itself included.
async fn sees_all(session: &Session, owner: &str) -> Result<bool, Error> {
    let sql = "SELECT rolsuper OR rolbypassrls AND pg_catalog.pg_has_role($1::text::name, 'USAGE')
               FROM pg_catalog.pg_roles WHERE rolname = session_user";
    let row = session.query_one(sql, &[&owner]).await;
    row.and_then(|row| row.try_get(0)).map_err(Error::query("cannot read the server's roles"))
}

/// What is found instead of a table with these columns.
async fn lacking(session: &Session, check: &Check) -> Result<Option<&'static str>, Error> {
    // to_regclass would fail in a schema that the role may not use.
    let sql = "SELECT r.oid IS NOT NULL, (SELECT count(*) FROM pg_catalog.pg_attribute
               WHERE attrelid = r.oid AND attname::text = ANY ($3) AND attnum > 0 AND NOT attisdropped)
               FROM (SELECT (SELECT oid FROM pg_catalog.pg_class WHERE relname = $2 AND relnamespace =
                   (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = $1))) r (oid)";
    let failed = || Error::query(format!("cannot look for table {}", check.name));
    let (schema, name) = &check.place;
    let row = session.query_one(sql, &[schema, name, &check.columns]).await.map_err(failed())?;
    let (exists, columns): (bool, i64) = (row.try_get(0).map_err(failed())?, row.try_get(1).map_err(failed())?);
    Ok(match (exists, usize::try_from(columns) == Ok(check.columns.len())) {
        (true, true) => None,
        (true, false) => Some("other columns"),
        (false, _) => Some("no table"),
    })
}

impl Proof {
    fn compare<T: PartialEq + ToString>(&mut self, object: String, expected: T, found: T) {
        if expected != found {
            self.differences.push(Difference { object, expected: expected.to_string(), found: found.to_string() });
        }
    }

    async fn sequences(&mut self, session: &Session, manifest: &manifest::Database) -> Result<(), Error> {
        for sequence in &manifest.sequences {
            let name = quote_qualified(&sequence.schema, &sequence.name);
            let failed = || Error::query(format!("cannot read sequence {name}"));
            let describe =
                |(value, called): (i64, bool)| format!("{value} ({})", if called { "used" } else { "not used" });
            let found = match session.query_one(&format!("SELECT last_value, is_called FROM {name}"), &[]).await {
                Ok(row) => describe((row.try_get(0).map_err(failed())?, row.try_get(1).map_err(failed())?)),
                Err(error) if error.code().is_some_and(|code| ABSENT.contains(code)) => "no sequence".to_owned(),
                Err(error) => return Err(failed()(error)),
            };
            let expected = (sequence.last_value, sequence.is_called);
            self.compare(format!("sequence {name}"), describe(expected), found);
        }
        Ok(())
    }
}

struct Reader<'a> {
    target: &'a Target,
    server: Server,
    psql: &'a Tool,
    manifest: &'a manifest::Database,
    /// Whom it acts for, where the connecting role may not see everything itself.
    owner: Option<&'a str>,
}

/// Tables that wait to be read, and how many readers are left.
struct Queue {
    checks: VecDeque<Check>,
    readers: usize,
}

impl Reader<'_> {
    /// The settings that the dump was made with.
    fn settings(&self) -> impl Iterator<Item = String> {
        let set = |(name, value): &(String, String)| {
            format!("SET {} = '{}'", quote_identifier(name), value.replace('\'', "''"))
        };
        self.manifest.session.iter().map(set)
    }

    /// An extension's tables belong to whoever created it.
    fn role(&self, is_extension: bool) -> String {
        let owner = self.owner.filter(|_| !is_extension);
        format!("SET ROLE {}", owner.map_or("NONE".to_owned(), quote_identifier))
    }

    fn label(&self, program: &str, check: &Check) -> Label {
        Label { program: program.into(), database: self.target.database.clone(), part: format!("table {}", check.name) }
    }

    /// Reads the rows of small tables, one after the other, in a session.
    async fn small(&self, session: &Session, checks: Vec<Check>) -> Result<Vec<(Check, Fingerprint)>, Error> {
        for sql in self.settings() {
            session.batch_execute(&sql).await.map_err(failed(&sql))?;
        }
        let mut found = Vec::with_capacity(checks.len());
        for check in checks {
            let role = self.role(check.extension);
            session.batch_execute(&role).await.map_err(failed(&role))?;
            let mut lines = LineReader::default();
            for copy in check.copies() {
                let mut rows = pin!(session.copy_out(&copy).await.map_err(failed(&copy))?);
                while let Some(row) = rows.try_next().await.map_err(failed(&copy))? {
                    lines.read(&row);
                }
            }
            let cut = || self.label("COPY", &check).script(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            let fingerprint = lines.finish().ok_or_else(cut)?;
            found.push((check, fingerprint));
        }
        Ok(found)
    }

    /// Reads the rows of large tables, several at a time.
    async fn large(&self, checks: Vec<Check>) -> Result<Vec<(Check, Fingerprint)>, Error> {
        let readers = self.target.jobs.clamp(1, checks.len().max(1));
        let queue = Mutex::new(Queue { checks: checks.into(), readers });
        let queue = || queue.lock().unwrap_or_else(PoisonError::into_inner);
        let read = async || {
            let mut found = Vec::new();
            let mut refused = None;
            loop {
                let next = {
                    let mut queue = queue();
                    let next = queue.checks.pop_front();
                    queue.readers -= usize::from(next.is_none());
                    next
                };
                let Some(check) = next else { return Ok(found) };
                match self.fingerprint(&check).await {
                    Ok(fingerprint) => {
                        found.push((check, fingerprint));
                        refused = None;
                    }
                    // The server has no more connections for us: fewer do it, too. Those of readers that have ended may still
                    // be ending.
                    Err(error) if has_no_session(&error) => {
                        let began = *refused.get_or_insert_with(Instant::now);
                        {
                            let mut queue = queue();
                            queue.checks.push_front(check);
                            if queue.readers > 1 {
                                queue.readers -= 1;
                                return Ok(found);
                            }
                        }
                        if began.elapsed() > ROOM {
                            return Err(error);
                        }
                        tokio::time::sleep(PAUSE).await;
                    }
                    Err(error) => return Err(error),
                }
            }
        };
        let found = future::try_join_all((0..readers).map(|_| read())).await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// Reads the rows through a psql.
    async fn fingerprint(&self, check: &Check) -> Result<Fingerprint, Error> {
        let mut arguments: Vec<OsString> = ["-X", "-q", "-v", "ON_ERROR_STOP=1"].iter().map(Into::into).collect();
        for sql in self.settings().chain([self.role(check.extension)]).chain(check.copies()) {
            arguments.extend(["-c".into(), sql.into()]);
        }
        let label = self.label("psql", check);
        let environment = self.server.child_environment(&self.target.database);
        let (mut child, output) = Child::start(label.clone(), &self.psql.path, &arguments, &environment)?;
        // A task of its own: several tables are hashed at a time. It ends with the child.
        let reading = tokio::spawn(fingerprint(output)).await.map_err(io::Error::other).flatten();
        let fingerprint = reading.map_err(|error| label.script(error.into()))?;
        child.finish().await?;
        Ok(fingerprint)
    }
}

/// Whether a psql got no connection, or lost it.
fn has_no_session(error: &Error) -> bool {
    /// psql's `EXIT_BADCONN`.
    const NO_SESSION: i32 = 2;
    matches!(error, Error::Dump(DumpError::Child { status, .. }) if status.code() == Some(NO_SESSION))
}

/// The fingerprint of lines, of which none need fit into memory.
async fn fingerprint(input: impl AsyncRead + Unpin) -> Result<Fingerprint, io::Error> {
    let mut input = BufReader::with_capacity(INPUT_BUFFER, input);
    let mut lines = LineReader::default();
    loop {
        let available = input.fill_buf().await?;
        if available.is_empty() {
            // A last line without its end: psql was cut off, and what was read must not look complete.
            return lines.finish().ok_or(io::ErrorKind::UnexpectedEof.into());
        }
        lines.read(available);
        let length = available.len();
        input.consume(length);
    }
}

async fn large_objects(session: &Session) -> Result<LargeObjects, Error> {
    let failed = || Error::query("cannot read the large objects");
    let mut fingerprint = Fingerprint::default();
    let mut bytes = 0;
    let mut last = 0_u32;
    loop {
        let sql = "SELECT oid FROM pg_catalog.pg_largeobject_metadata WHERE oid > $1 ORDER BY oid LIMIT 1000";
        let rows = session.query(sql, &[&last]).await.map_err(failed())?;
        if rows.is_empty() {
            let count = fingerprint.count();
            return Ok(LargeObjects { count, bytes, fingerprint: fingerprint.to_hex() });
        }
        for row in rows {
            last = row.try_get(0).map_err(failed())?;
            let mut hasher = blake3::Hasher::new();
            hasher.update(&last.to_be_bytes());
            let mut offset = 0_i64;
            loop {
                let sql = "SELECT pg_catalog.lo_get($1, $2, $3)";
                let row = session.query_one(sql, &[&last, &offset, &LARGE_OBJECT_PART]).await.map_err(failed())?;
                let part: &[u8] = row.try_get(0).map_err(failed())?;
                hasher.update(part);
                bytes += part.len() as u64;
                offset += i64::from(LARGE_OBJECT_PART);
                if part.len() < LARGE_OBJECT_PART as usize {
                    break;
                }
            }
            fingerprint.hash(&hasher.finalize());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_of_any_length_count_once() {
        let text = format!("a\n\n{}\nb\n", "x".repeat(3 * INPUT_BUFFER));
        let found = fingerprint(text.as_bytes()).await.unwrap();
        let mut expected = Fingerprint::default();
        text.lines().for_each(|line| expected.line(line.as_bytes()));
        assert_eq!(found, expected);
        assert!(fingerprint(&b"a\nb"[..]).await.is_err());
    }
}
