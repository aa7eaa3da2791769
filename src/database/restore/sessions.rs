//! The sessions of one restore, all set up in the same way, and the running of SQL in them.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::future;
use tokio_postgres::error::SqlState;

use super::Target;
use super::statements::Script;
use crate::database::catalog::quote_identifier;
use crate::database::{Error, Server, Session};

/// Memory for building an index where the server's own setting is below it, in KiB.
const INDEX_MEMORY: u32 = 256 << 10;
/// The same for all that are built at a time, in KiB: many sessions would else take what a small server does not have.
const INDEX_MEMORY_IN_ALL: u32 = 1 << 20;

/// How often a statement is tried that falls victim to a deadlock with another one.
const TRIES: usize = 10;

/// How long the end of our own sessions is waited for.
pub(super) const ROOM: Duration = Duration::from_secs(10);

/// Statements that the connecting role runs itself: they make what only a superuser may own, or what an extension's
/// own script makes.
const PRIVILEGED: &[&str] = &[
    "CREATE EXTENSION ",
    "COMMENT ON EXTENSION ",
    "CREATE EVENT TRIGGER ",
    "ALTER EVENT TRIGGER ",
    "COMMENT ON EVENT TRIGGER ",
    "CREATE FOREIGN DATA WRAPPER ",
    "CREATE ACCESS METHOD ",
    "CREATE LANGUAGE ",
    "CREATE TRUSTED LANGUAGE ",
    "CREATE PROCEDURAL LANGUAGE ",
    "CREATE TRUSTED PROCEDURAL LANGUAGE ",
    "CREATE OR REPLACE LANGUAGE ",
    "CREATE OR REPLACE PROCEDURAL LANGUAGE ",
];

/// What is not worth a failure where it is not permitted: on managed servers extensions, and up to version 14 the schema
/// public, belong to somebody else.
const DISPENSABLE: &[&str] = &["COMMENT ON EXTENSION ", "COMMENT ON SCHEMA \"public\" "];

/// Sessions that nobody uses at the moment, and how to open more.
#[derive(Debug)]
pub(super) struct Sessions {
    server: Server,
    pub(super) database: String,
    owner: Option<String>,
    pub(super) jobs: usize,
    /// The settings that the server knows: a newer pg_dump sets more.
    known: HashSet<String>,
    idle: Vec<Session>,
    /// The one that runs scripts: their transactions and settings last from one part to the next. It is open from the beginning to
    /// the end, and never another one in its place: see [`Sessions::witness`].
    main: Session,
    warnings: Vec<String>,
}

impl Sessions {
    pub(super) async fn open(target: &Target) -> Result<Self, Error> {
        let owner = target.acting_for().map(str::to_owned);
        let jobs = target.jobs.max(1);
        let main = connect(&target.server, &target.database, &set_role(owner.as_deref()), jobs).await?;
        let rows = main.query("SELECT lower(name) FROM pg_catalog.pg_settings", &[]).await;
        let rows = rows.map_err(Error::query("cannot read the server's settings"))?;
        Ok(Self {
            server: target.server.clone(),
            database: target.database.clone(),
            owner,
            jobs,
            known: rows.iter().filter_map(|row| row.try_get(0).ok()).collect(),
            idle: Vec::new(),
            main,
            warnings: Vec::new(),
        })
    }

    /// An idle session, or a new one.
    pub(super) async fn take(&mut self) -> Result<Session, Error> {
        while let Some(session) = self.idle.pop() {
            if !session.closed() {
                return Ok(session);
            }
        }
        connect(&self.server, &self.database, &self.set_role(), self.jobs).await
    }

    /// The session that has been open all the time, about to commit what is flushed, and with it whatever all others have
    /// committed before.
    ///
    /// They do not wait for the disk: a server that crashes and comes back has lost the last of it, and others that are opened then
    /// know nothing of that. This one is lost, too. So what it commits now says that nothing was.
    pub(super) async fn witness(&self) -> Result<&Session, Error> {
        const FLUSHED: &str = "RESET ROLE; SET synchronous_commit = on";
        self.main.batch_execute(FLUSHED).await.map_err(failed(FLUSHED))?;
        Ok(&self.main)
    }

    /// Gives a session back.
    pub(super) fn put(&mut self, session: Session) {
        if self.idle.len() < self.jobs && !session.closed() {
            self.idle.push(session);
        }
    }

    /// Ends those that nobody uses, and waits until the server has room for another: where it was full, its own processes end a
    /// moment later than our connections.
    pub(super) async fn dismiss(&mut self) -> Result<(), Error> {
        self.idle.clear();
        self.server.await_session(&self.database, ROOM, || {}).await.map(drop)
    }

    pub(super) fn set_role(&self) -> String {
        set_role(self.owner.as_deref())
    }

    pub(super) fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    /// Runs the statements that are complete once `part` is added to `script`, in their order.
    pub(super) async fn run(&mut self, script: &mut Script, part: &[u8]) -> Result<(), Error> {
        script.push(part)?;
        while let Some(statement) = script.next()? {
            self.run_statements([statement]).await?;
        }
        Ok(())
    }

    /// Runs statements in their order.
    pub(super) async fn run_statements(&mut self, statements: impl IntoIterator<Item = String>) -> Result<(), Error> {
        for statement in statements {
            if self.is_unknown_setting(&statement) {
                continue;
            }
            match self.run_statement(&statement).await? {
                Ok(()) => {}
                Err(error)
                    if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE)
                        && DISPENSABLE.iter().any(|beginning| statement.starts_with(beginning)) =>
                {
                    self.warnings.push(format!("not permitted: {}", shown(&statement)));
                }
                Err(error) => return Err(failed(&statement)(error)),
            }
        }
        Ok(())
    }

    /// Runs statements in any order, `jobs` of them at a time, each session after `setup`.
    pub(super) async fn run_at_once(&mut self, statements: VecDeque<String>, setup: &str) -> Result<(), Error> {
        let mut workers = Vec::new();
        while workers.len() < self.jobs.min(statements.len()) {
            match self.take().await {
                Ok(session) => workers.push(session),
                // Fewer do it, too.
                Err(error) if error.is_full() && !workers.is_empty() => break,
                Err(error) => return Err(error),
            }
        }
        for worker in &workers {
            worker.batch_execute(setup).await.map_err(failed(setup))?;
        }
        let queue = Mutex::new(statements);
        let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let work = async |session: Session| {
            while let Some(statement) = next() {
                run_again(&session, &statement).await?;
            }
            Ok::<_, Error>(session)
        };
        for session in future::try_join_all(workers.into_iter().map(work)).await? {
            self.put(session);
        }
        Ok(())
    }

    /// Runs a statement, as the connecting role where it must be; inside, what the server says to it.
    async fn run_statement(&self, statement: &str) -> Result<Result<(), tokio_postgres::Error>, Error> {
        let session = &self.main;
        let set_role = self.set_role();
        if set_role.is_empty() || !PRIVILEGED.iter().any(|beginning| statement.starts_with(beginning)) {
            match session.batch_execute(statement).await {
                // A sequence of an extension, which belongs to whoever created that.
                Err(error)
                    if !set_role.is_empty()
                        && error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE)
                        && is_setval(statement) => {}
                outcome => return Ok(outcome),
            }
        }
        session.batch_execute("RESET ROLE").await.map_err(failed("RESET ROLE"))?;
        let outcome = session.batch_execute(statement).await;
        session.batch_execute(&set_role).await.map_err(failed(&set_role))?;
        Ok(outcome)
    }

    /// Whether it is one of the settings at the head of a dump, and of a newer server than this one.
    fn is_unknown_setting(&self, statement: &str) -> bool {
        let name = statement.strip_prefix("SET ").and_then(|rest| rest.split_once(" = "));
        name.is_some_and(|(name, _)| {
            let name = name.trim_matches('"').to_lowercase();
            !name.contains('.') && !self.known.contains(&name)
        })
    }
}

/// Runs one statement, again where it was the victim of a deadlock with another one.
async fn run_again(session: &Session, statement: &str) -> Result<(), Error> {
    let mut tries = 1;
    loop {
        match session.batch_execute(statement).await {
            Err(error) if error.code() == Some(&SqlState::T_R_DEADLOCK_DETECTED) && tries < TRIES => tries += 1,
            outcome => return outcome.map_err(failed(statement)),
        }
    }
}

/// Whether it sets a sequence and does no more: `SELECT pg_catalog.setval('…', 1, true);`. It may be run with more rights than
/// the rest of a dump.
fn is_setval(statement: &str) -> bool {
    let parts = statement.trim().strip_prefix("SELECT pg_catalog.setval('").and_then(|rest| rest.rsplit_once("', "));
    let Some((name, (value, is_called))) = parts.and_then(|(name, rest)| Some((name, rest.split_once(", ")?))) else {
        return false;
    };
    !name.replace("''", "").contains('\'') && value.parse::<i64>().is_ok() && matches!(is_called, "true);" | "false);")
}

fn set_role(owner: Option<&str>) -> String {
    owner.map(|owner| format!("SET ROLE {};", quote_identifier(owner))).unwrap_or_default()
}

/// What each of `jobs` sessions may take for an index, in KiB.
fn index_memory(jobs: usize) -> u32 {
    let jobs = u32::try_from(jobs).unwrap_or(u32::MAX).max(1);
    INDEX_MEMORY.min(INDEX_MEMORY_IN_ALL / jobs)
}

async fn connect(server: &Server, database: &str, set_role: &str, jobs: usize) -> Result<Session, Error> {
    let session = server.connect(database).await?;
    let memory = index_memory(jobs);
    // What is lost if the server crashes now is restored again: the mark says that the restore is not finished, and whether it
    // may be set the witness knows.
    let setup = format!(
        "SET synchronous_commit = off;
         SELECT set_config('maintenance_work_mem', '{memory}', false) FROM pg_catalog.pg_settings
         WHERE name = 'maintenance_work_mem' AND setting::int8 < {memory};
         {set_role}"
    );
    let failed = Error::query(format!("cannot set up a session on database \"{database}\""));
    session.batch_execute(&setup).await.map_err(failed)?;
    Ok(session)
}

/// The error that a statement failed.
pub(super) fn failed(statement: &str) -> impl FnOnce(tokio_postgres::Error) -> Error + use<> {
    let statement = shown(statement);
    move |source| match source.code() {
        Some(_) => Error::query(format!("the server refuses `{statement}`"))(source),
        None => Error::query(format!("the connection was lost at `{statement}`"))(source),
    }
}

/// A statement's beginning, in one line: up to its first literal or list of options, which may be a password.
fn shown(statement: &str) -> String {
    const LIMIT: usize = 160;
    let text = statement.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut quoted = false;
    let value = text.char_indices().find(|&(at, character)| {
        quoted ^= character == '"';
        !quoted && (matches!(character, '\'' | '$') || text.get(at..).is_some_and(|rest| rest.starts_with("OPTIONS (")))
    });
    let limit = text.char_indices().nth(LIMIT);
    match [value, limit].into_iter().flatten().map(|(at, _)| at).min() {
        Some(end) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_is_set_and_nothing_else_is_run() {
        assert!(is_setval("SELECT pg_catalog.setval('\"public\".\"it''s\"', -7, true);"));
        assert!(is_setval("SELECT pg_catalog.setval('s', 1, false);\n"));
        for other in [
            "SELECT pg_catalog.setval(evil(), 1, true);",
            "SELECT pg_catalog.setval('s', evil(), true);",
            "SELECT pg_catalog.setval('s', 1, evil('x', 1, true);",
            "SELECT pg_catalog.setval('s'||evil()||'t', 1, true);",
            "SELECT pg_catalog.setval('s', 1, true); SELECT evil();",
            "SELECT pg_catalog.setval('s', 1, true), evil('t', 1, true);",
        ] {
            assert!(!is_setval(other), "{other}");
        }
    }

    #[test]
    fn many_sessions_share_the_memory_for_indexes() {
        assert_eq!([0, 1, 2, 4].map(index_memory), [256 << 10; 4]);
        assert_eq!([8, 32, usize::MAX].map(index_memory), [128 << 10, 32 << 10, 0]);
    }

    #[test]
    fn what_is_shown_of_a_statement_holds_no_values() {
        for (statement, text) in [
            ("CREATE TABLE \"a'$b\"\n (\"OPTIONS (\" int);", "CREATE TABLE \"a'$b\" (\"OPTIONS (\" int);"),
            (
                "CREATE USER MAPPING FOR \"u\" SERVER \"s\" OPTIONS (\n    \"password\" 'x'\n);",
                "CREATE USER MAPPING FOR \"u\" SERVER \"s\" …",
            ),
            ("ALTER TABLE t ALTER c SET DEFAULT 'x'::text;", "ALTER TABLE t ALTER c SET DEFAULT …"),
            (
                "CREATE FUNCTION f() RETURNS text LANGUAGE sql AS $_$ x $_$;",
                "CREATE FUNCTION f() RETURNS text LANGUAGE sql AS …",
            ),
        ] {
            assert_eq!(shown(statement), text);
        }
        assert_eq!(shown(&"é".repeat(200)), format!("{}…", "é".repeat(160)));
    }
}
