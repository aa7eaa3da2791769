//! A PostgreSQL server for one trial: made from the installed programs in a temporary folder, reached by a Unix socket in it
//! and by nothing else, and gone with whoever started it, however that ends.
//!
//! Between pacharc and the server stands a keeper, a process of pacharc's own that waits for the end of a pipe: when pacharc
//! is gone, it stops the server and removes the folder. When the keeper itself is killed, the kernel stops the server.

mod account;
mod error;
mod keeper;

use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

pub use error::ThrowawayError;
pub use keeper::{Keeper, Shim};

use super::{Environment, Error, Server, Tool, Tools};
use crate::farewell;
use account::Account;

/// The role that makes the server, and may do everything in it.
const SUPERUSER: &str = "pacharc";
/// The role that loads a dump: SQL from a bundle gets no more rights than it needs, above all none to run programs.
const LOADER: &str = "loader";
/// How long initdb and the server may take, on a slow disk.
const START: Duration = Duration::from_secs(120);
/// How long the keeper may take to stop the server and to remove the folder.
const STOP: Duration = Duration::from_secs(60);
/// The longest path of a socket that Linux takes has 107 bytes.
const SOCKET_PATH: usize = 107;

/// A running server. Dropped, it goes, and so does everything in it.
#[derive(Debug)]
pub struct Throwaway {
    /// The keeper; its standard input is the pipe that it waits for.
    keeper: Option<Child>,
    socket: PathBuf,
    version: String,
    /// Removed once more when the keeper is gone: it may have been killed.
    folders: Vec<TempDir>,
}

impl Throwaway {
    /// Makes and starts a server that takes dumps of `server_version_num` (e.g. 150018): of the same major version where it
    /// is installed, else of the newest one.
    ///
    /// # Errors
    /// [`Error::ToolMissing`], [`Error::ToolTooOld`]; [`ThrowawayError`].
    pub async fn start(server_version_num: u32, pg_bin: Option<&Path>, temp_dir: &Path) -> Result<Self, Error> {
        let postgres = Tools::find_server(server_version_num, pg_bin).await?;
        let account = Account::needed()?;
        let folder = folder(temp_dir)?;
        let mut folders = vec![folder];
        let mut socket = make(&folders, "socket", account.as_ref())?;
        if socket.join(".s.PGSQL.5432").as_os_str().len() > SOCKET_PATH {
            folders.push(self::folder(Path::new("/tmp"))?);
            socket = make(&folders, "socket", account.as_ref())?;
        }
        make(&folders[..1], "data", account.as_ref())?;
        let mut throwaway = Self { keeper: None, socket, version: postgres.version.clone(), folders };
        throwaway.keep(&postgres, account.as_ref()).await?;
        let session = throwaway.server(SUPERUSER)?.connect("postgres").await?;
        let role = format!("CREATE ROLE {LOADER} LOGIN CREATEDB");
        session.batch_execute(&role).await.map_err(Error::query("cannot make a role on the throwaway server"))?;
        Ok(throwaway)
    }

    /// As the role that loads: it may create databases, and no more.
    ///
    /// # Errors
    /// None that a test has seen.
    pub fn loader(&self) -> Result<Server, Error> {
        self.server(LOADER)
    }

    /// As the superuser.
    ///
    /// # Errors
    /// None that a test has seen.
    pub fn superuser(&self) -> Result<Server, Error> {
        self.server(SUPERUSER)
    }

    /// The server's version, e.g. `15.18`.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Stops the server, and waits until nothing is left of it.
    ///
    /// # Errors
    /// [`ThrowawayError::Left`].
    pub async fn stop(mut self) -> Result<(), Error> {
        end(self.keeper.take(), std::mem::take(&mut self.folders)).await.map_err(Error::from)
    }

    fn server(&self, user: &str) -> Result<Server, Error> {
        let quoted = self.socket.display().to_string().replace('\\', "\\\\").replace('\'', "\\'");
        let address = format!("host='{quoted}' port=5432 dbname=postgres user={user}");
        // Nothing that is meant for another server, such as PGSSLMODE.
        let names = ["PATH", "LD_LIBRARY_PATH", "TMPDIR"];
        let environment: Environment = names.iter().filter_map(|&name| Some((name, std::env::var_os(name)?))).collect();
        Server::new(Some(&address), false, &environment, None)
    }

    /// Starts the keeper, and waits until the server takes connections.
    async fn keep(&mut self, postgres: &Tool, account: Option<&Account>) -> Result<(), Error> {
        let program = std::env::current_exe().map_err(ThrowawayError::Keeper)?;
        let mut command = Command::new(program);
        command.arg("throwaway").arg("--postgres").arg(&postgres.path).arg("--socket").arg(&self.socket);
        command.args(self.folders.iter().flat_map(|folder| [Path::new("--folder"), folder.path()]));
        if let Some(Account { uid, gid, .. }) = account {
            command.arg(format!("--run-as={uid}:{gid}"));
        }
        command.env_clear();
        for name in ["PATH", "LD_LIBRARY_PATH"] {
            command.envs(std::env::var_os(name).map(|value| (name, value)));
        }
        command.current_dir("/").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut keeper = command.kill_on_drop(false).spawn().map_err(ThrowawayError::Keeper)?;
        let output = keeper.stdout.take();
        self.keeper = Some(keeper);
        let mut said = String::new();
        if let Some(output) = output {
            let mut lines = BufReader::new(output);
            match tokio::time::timeout(START, lines.read_line(&mut said)).await {
                Ok(read) => read.map_err(ThrowawayError::Keeper)?,
                Err(_) => return Err(ThrowawayError::Slow(START.as_secs()).into()),
            };
        }
        match said.trim_end() {
            keeper::READY => Ok(()),
            "" => Err(ThrowawayError::Keeper(std::io::ErrorKind::UnexpectedEof.into()).into()),
            failed => {
                let account = account.map(|account| account.name.clone());
                Err(ThrowawayError::Start { said: failed.to_owned(), account }.into())
            }
        }
    }
}

impl Drop for Throwaway {
    fn drop(&mut self) {
        if let Some(keeper) = self.keeper.take() {
            let folders = std::mem::take(&mut self.folders);
            // The process waits for it before it ends.
            farewell::start(async move {
                if let Err(error) = end(Some(keeper), folders).await {
                    tracing::warn!("{}", crate::failure::chain(&error));
                }
            });
        }
    }
}

/// Closes the pipe, waits for the keeper, and removes what a killed one has left.
async fn end(keeper: Option<Child>, folders: Vec<TempDir>) -> Result<(), ThrowawayError> {
    if let Some(mut keeper) = keeper {
        drop(keeper.stdin.take());
        if tokio::time::timeout(STOP, keeper.wait()).await.is_err() {
            let _ = keeper.start_kill();
        }
    }
    for folder in folders {
        let path = folder.keep();
        match std::fs::remove_dir_all(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(ThrowawayError::Left { folder: path, source: error });
            }
            _ => {}
        }
    }
    Ok(())
}

/// A new folder that the server's account can pass through, and nobody else can write to.
fn folder(parent: &Path) -> Result<TempDir, ThrowawayError> {
    let failed = |source| ThrowawayError::Folder { folder: parent.to_owned(), source };
    let made = tempfile::Builder::new().prefix("pacharc-").tempdir_in(parent).map_err(failed)?;
    std::fs::set_permissions(made.path(), std::fs::Permissions::from_mode(0o711)).map_err(failed)?;
    Ok(made)
}

/// A folder below the last of `folders` for the server's account alone.
fn make(folders: &[TempDir], name: &str, account: Option<&Account>) -> Result<PathBuf, ThrowawayError> {
    let path = folders.last().map(|folder| folder.path().join(name)).unwrap_or_default();
    let made = std::fs::create_dir(&path)
        .and_then(|()| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)))
        .and_then(|()| account.map_or(Ok(()), |account| chown(&path, Some(account.uid), Some(account.gid))));
    made.map(|()| path.clone()).map_err(|source| ThrowawayError::Folder { folder: path, source })
}
