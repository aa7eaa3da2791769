//! A running pg_dump: started with nothing in its arguments that is secret, watched, drained, and ended with its owner.

use std::ffi::OsString;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{ChildStdout, Command};
use tokio::task::JoinHandle;

use super::dump_error::DumpError;
use super::script::ScriptError;
use super::{Error, Session};

/// How much of what a child writes to standard error is kept, in bytes; the rest is read and dropped.
const MESSAGE_LIMIT: usize = 16 << 10;
/// What a child is, for messages.
#[derive(Clone, Debug)]
pub(super) struct Label {
    pub(super) program: String,
    pub(super) database: String,
    /// What it dumps, e.g. `pre-data`.
    pub(super) part: String,
}

impl Label {
    /// An error of reading this child's output.
    pub(super) fn script(&self, source: ScriptError) -> Error {
        let Self { program, database, part } = self.clone();
        DumpError::Script { database, program, part, source }.into()
    }
}

/// A child process. Dropped, it is killed.
#[derive(Debug)]
pub(super) struct Child {
    pub(super) label: Label,
    process: tokio::process::Child,
    messages: Option<JoinHandle<String>>,
    /// The name of its session, where it is a pg_dump.
    application: String,
    /// The tables that it locks, by oid.
    locks: Vec<u32>,
}

impl Child {
    /// Starts `program`; its standard output is returned apart.
    pub(super) fn start(
        label: Label,
        program: &Path,
        arguments: &[OsString],
        environment: &[(OsString, OsString)],
    ) -> Result<(Self, ChildStdout), Error> {
        let cannot = |source| DumpError::Start { program: program.display().to_string(), source };
        let mut process = Command::new(program)
            .args(arguments)
            .env_clear()
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(cannot)?;
        let missing = || cannot(std::io::Error::other("its output is not connected"));
        let output = process.stdout.take().ok_or_else(missing)?;
        let messages = tokio::spawn(drain(process.stderr.take().ok_or_else(missing)?));
        let messages = Some(messages);
        Ok((Self { label, process, messages, application: String::new(), locks: Vec::new() }, output))
    }

    /// Starts a pg_dump that locks the tables `locks`; `run` and the name of its part make its session known.
    pub(super) fn start_dump(
        label: Label,
        program: &Path,
        arguments: &[OsString],
        mut environment: Vec<(OsString, OsString)>,
        locks: Vec<u32>,
    ) -> Result<(Self, ChildStdout), Error> {
        let application = format!("pacharc {}", uuid::Uuid::new_v4().simple());
        environment.push(("PGAPPNAME".into(), application.clone().into()));
        let (child, output) = Self::start(label, program, arguments, &environment)?;
        Ok((Self { application, locks, ..child }, output))
    }

    /// Waits until the child's session holds its locks, or is gone; looks every `interval`, `times` at most.
    pub(super) async fn check_locks(&self, session: &Session, interval: Duration, times: usize) -> Result<(), Error> {
        const SQL: &str = "SELECT EXISTS (
            SELECT FROM pg_stat_activity a, unnest($2::oid[]) t (oid)
            WHERE a.application_name = $1 AND NOT EXISTS (
                SELECT FROM pg_locks l JOIN pg_database d ON d.oid = l.database
                WHERE l.pid = a.pid AND d.datname = current_database() AND l.locktype = 'relation'
                  AND l.relation = t.oid AND l.mode = 'AccessShareLock' AND l.granted))";
        for _ in 0..times {
            let lacks = session.query_one(SQL, &[&self.application, &self.locks]).await;
            if !lacks.and_then(|row| row.try_get::<_, bool>(0)).map_err(Error::query("cannot read pg_locks"))? {
                return Ok(());
            }
            // It may be about to end: the locks go before the session does.
            tokio::time::sleep(interval).await;
        }
        let Label { program, database, part } = self.label.clone();
        Err(DumpError::Unlocked { database, program, part }.into())
    }

    /// Waits for the end of a child whose output was read to its end; returns what it warned about, if anything.
    ///
    /// # Errors
    /// [`DumpError::Child`] if it ended with anything but success.
    pub(super) async fn finish(&mut self) -> Result<Option<String>, Error> {
        let status = self.process.wait().await.map_err(|e| self.label.script(e.into()))?;
        let message = match self.messages.take() {
            Some(messages) => messages.await.unwrap_or_default(),
            None => String::new(),
        };
        if !status.success() {
            let Label { program, database, part } = self.label.clone();
            return Err(DumpError::Child { database, program, part, status, message }.into());
        }
        let Label { program, part, .. } = &self.label;
        Ok((!message.is_empty()).then(|| format!("{program} ({part}) warned: {message}")))
    }

    /// Why the output of this child could not be read: how it ended, if it died, or else `error`.
    pub(super) async fn explain(&mut self, error: ScriptError) -> Error {
        if matches!(error, ScriptError::Truncated)
            && let Err(died) = self.finish().await
        {
            return died;
        }
        self.label.script(error)
    }
}

/// Reads all, and keeps the beginning.
async fn drain(mut input: impl AsyncRead + Unpin) -> String {
    let mut kept = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = input.read(&mut buffer).await {
        let room = MESSAGE_LIMIT - kept.len();
        kept.extend_from_slice(&buffer[..length.min(room)]);
    }
    String::from_utf8_lossy(&kept).trim().to_owned()
}
