//! The sessions of one restore, all set up in the same way, and the running of SQL in them.

use std::collections::HashSet;
use std::time::Duration;

use tokio_postgres::error::SqlState;

use super::Target;
use super::statements::Script;
use crate::database::catalog::quote_identifier;
use crate::database::{Error, Server, Session};

/// Memory for building an index where the server's own setting is below it, in KiB.
const INDEX_MEMORY: u32 = 256 << 10;

/// How long the end of our own sessions is waited for.
const ROOM: Duration = Duration::from_secs(10);

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
    /// The one that runs scripts: their transactions and settings last from one part to the next.
    main: Option<Session>,
    warnings: Vec<String>,
}

impl Sessions {
    pub(super) async fn open(target: &Target) -> Result<Self, Error> {
        let mut sessions = Self {
            server: target.server.clone(),
            database: target.database.clone(),
            owner: target.acting_for().map(str::to_owned),
            jobs: target.jobs.max(1),
            known: HashSet::new(),
            idle: Vec::new(),
            main: None,
            warnings: Vec::new(),
        };
        let session = sessions.take().await?;
        let rows = session.query("SELECT lower(name) FROM pg_catalog.pg_settings", &[]).await;
        let rows = rows.map_err(Error::query("cannot read the server's settings"))?;
        sessions.known = rows.iter().filter_map(|row| row.try_get(0).ok()).collect();
        sessions.main = Some(session);
        Ok(sessions)
    }

    /// An idle session, or a new one.
    pub(super) async fn take(&mut self) -> Result<Session, Error> {
        while let Some(session) = self.idle.pop() {
            if !session.closed() {
                return Ok(session);
            }
        }
        let session = self.server.connect(&self.database).await?;
        // What is lost if the server crashes now is restored again: the mark says that the restore is not finished.
        let setup = format!(
            "SET synchronous_commit = off;
             SELECT set_config('maintenance_work_mem', '{INDEX_MEMORY}', false) FROM pg_catalog.pg_settings
             WHERE name = 'maintenance_work_mem' AND setting::int8 < {INDEX_MEMORY};
             {}",
            self.set_role()
        );
        let failed = Error::query(format!("cannot set up a session on database \"{}\"", self.database));
        session.batch_execute(&setup).await.map_err(failed)?;
        Ok(session)
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
        self.server.await_session(&self.database, ROOM, || {}).await
    }

    pub(super) fn set_role(&self) -> String {
        self.owner.as_ref().map(|owner| format!("SET ROLE {};", quote_identifier(owner))).unwrap_or_default()
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
        let session = match self.main.take() {
            Some(session) => session,
            None => self.take().await?,
        };
        for statement in statements {
            if self.is_unknown_setting(&statement) {
                continue;
            }
            match self.run_statement(&session, &statement).await? {
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
        self.main = Some(session);
        Ok(())
    }

    /// Runs a statement, as the connecting role where it must be; inside, what the server says to it.
    async fn run_statement(
        &self,
        session: &Session,
        statement: &str,
    ) -> Result<Result<(), tokio_postgres::Error>, Error> {
        let set_role = self.set_role();
        if set_role.is_empty() || !PRIVILEGED.iter().any(|beginning| statement.starts_with(beginning)) {
            return Ok(session.batch_execute(statement).await);
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

/// The error that a statement failed.
pub(super) fn failed(statement: &str) -> impl FnOnce(tokio_postgres::Error) -> Error + use<> {
    let statement = shown(statement);
    move |source| match source.code() {
        Some(_) => Error::query(format!("the server refuses `{statement}`"))(source),
        None => Error::query(format!("the connection was lost at `{statement}`"))(source),
    }
}

/// A statement's beginning, in one line.
fn shown(statement: &str) -> String {
    const LIMIT: usize = 160;
    let text = statement.split_whitespace().collect::<Vec<_>>().join(" ");
    match text.char_indices().nth(LIMIT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
