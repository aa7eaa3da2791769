//! A running pg_dump: started with nothing in its arguments that is secret, watched, drained, and ended with its owner.

use std::ffi::OsString;
use std::path::Path;
use std::process::Stdio;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{ChildStdout, Command};
use tokio::task::JoinHandle;

use super::Error;
use super::copy::ScriptError;
use super::dump_error::DumpError;

/// How much of what a child writes to standard error is kept, in bytes; the rest is read and dropped.
const MESSAGE_LIMIT: usize = 16 << 10;
/// What a child needs of our own environment, beside what names the server.
const INHERITED: [&str; 8] = ["PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH", "SYSTEMROOT", "LC_ALL", "LC_CTYPE", "LANG"];

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
    messages: JoinHandle<String>,
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
        let inherited = INHERITED.iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
        let mut process = Command::new(program)
            .args(arguments)
            .env_clear()
            .envs(inherited)
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
        Ok((Self { label, process, messages }, output))
    }

    /// Waits for the end of a child whose output was read to its end; returns what it warned about, if anything.
    ///
    /// # Errors
    /// [`DumpError::Child`] if it ended with anything but success.
    pub(super) async fn finish(mut self) -> Result<Option<String>, Error> {
        let status = self.process.wait().await.map_err(|e| self.label.script(e.into()))?;
        let message = (&mut self.messages).await.unwrap_or_default();
        if !status.success() {
            let Label { program, database, part } = self.label.clone();
            return Err(DumpError::Child { database, program, part, status, message }.into());
        }
        let Label { program, part, .. } = &self.label;
        Ok((!message.is_empty()).then(|| format!("{program} ({part}) warned: {message}")))
    }

    /// The reason why the output of this child could not be read: how it ended, if it died, or else `error`.
    pub(super) async fn explain(self, error: Error) -> Error {
        match error {
            Error::Dump(DumpError::Script { source: ScriptError::Truncated, .. }) => {
                self.finish().await.err().unwrap_or(error)
            }
            error => error,
        }
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
