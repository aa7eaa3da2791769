//! A private PostgreSQL server: a fresh one in a directory of its own, on a free port of the loopback interface and on a
//! Unix socket, with trust authentication and without fsync.
//!
//! [`TempServer`] belongs to a test: however the test's process ends, a guard process stops the server and removes its
//! directory. [`Server`] is the same without the guard, for the demo, which stops it by itself.

mod temp;

use crate::connection::percent_encode as encode;
use crate::programs;
use anyhow::{Context, Result, bail};
use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

pub use temp::TempServer;

/// The name of the superuser that every server here has.
pub const SUPERUSER: &str = "postgres";

/// How often to begin anew when somebody else takes the free port first, or when killed backends still hold the memory.
const START_ATTEMPTS: u32 = 8;

/// What a server is made with.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Major version; any that is installed if `None`.
    pub major: Option<u32>,
    /// Lines for `postgresql.conf`; the value is quoted here.
    pub settings: Vec<(String, String)>,
    /// Files for the data directory, mode 0600, over what initdb has made: `pg_hba.conf`, a certificate and its key.
    pub files: Vec<(String, Vec<u8>)>,
    /// More arguments for initdb, after `--encoding=UTF8 --locale=C.UTF-8`; what comes last wins.
    pub initdb: Vec<String>,
    /// More variables in the server's environment.
    pub environment: Vec<(String, OsString)>,
}

/// How a server is told to stop (`pg_ctl stop --mode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopMode {
    /// Roll back and disconnect all clients, then shut down cleanly.
    Fast,
    /// Abort without a clean shutdown; the next start recovers.
    Immediate,
}

/// A server in a directory: `data/`, the socket and `server.log` lie in it.
#[derive(Debug)]
pub struct Server {
    dir: PathBuf,
    bin: PathBuf,
    major: u32,
    port: u16,
    account: Option<Account>,
    environment: Vec<(String, OsString)>,
}

/// Whom the server runs as if this process is root.
#[derive(Clone, Debug)]
struct Account {
    uid: u32,
    gid: u32,
}

impl Server {
    /// Makes a server in `dir`, which must be empty or absent, and starts it.
    ///
    /// # Errors
    /// If no such version is installed, or initdb or the server fails; with the end of what they said.
    pub fn create(dir: &Path, options: &Options) -> Result<Self> {
        let (major, bin) = match options.major {
            Some(major) => (major, programs::server(major).with_context(|| absent(options.major))?),
            None => programs::any_server().with_context(|| absent(None))?,
        };
        fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
        let dir = dir.canonicalize()?;
        let account = if programs::is_root() { Some(Account::find()?) } else { None };
        if let Some(account) = &account {
            account.own(&dir)?;
        }
        let mut server = Self { dir, bin, major, port: 0, account, environment: options.environment.clone() };
        server.init(options)?;
        server.start()?;
        Ok(server)
    }

    /// The server that [`Server::create`] made in `dir` and that still runs.
    ///
    /// # Errors
    /// If there is none, or its programs are gone.
    pub fn open(dir: &Path) -> Result<Self> {
        let mut server = Self::in_dir(dir)?;
        server.port = server.pid_file_line(3).context("the server is not running")?.parse()?;
        Ok(server)
    }

    fn in_dir(dir: &Path) -> Result<Self> {
        let dir = dir.canonicalize().with_context(|| format!("open {}", dir.display()))?;
        let major = fs::read_to_string(dir.join("data/PG_VERSION"))
            .with_context(|| format!("there is no server in {}", dir.display()))?
            .trim()
            .parse()?;
        let bin = programs::server(major).with_context(|| absent(Some(major)))?;
        let account = if programs::is_root() { Some(Account::find()?) } else { None };
        Ok(Self { dir, bin, major, port: 0, account, environment: Vec::new() })
    }

    /// The server that [`Server::create`] made in `dir`, started again where it does not run.
    ///
    /// # Errors
    /// As [`Server::open`] and [`Server::start`].
    pub fn reopen(dir: &Path) -> Result<Self> {
        let mut server = Self::in_dir(dir)?;
        if server.pid_file_line(3).is_some() {
            // It ran when its guard was killed, or the machine went down.
            server.stop(StopMode::Immediate).ok();
        }
        server.start()?;
        Ok(server)
    }

    /// URL of a database over TCP, without a password.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        self.url_as(SUPERUSER, database)
    }

    /// URL of a database over TCP for this role, without a password.
    #[must_use]
    pub fn url_as(&self, role: &str, database: &str) -> String {
        format!("postgres://{}@127.0.0.1:{}/{}", encode(role), self.port, encode(database))
    }

    /// URL of a database over the Unix socket.
    #[must_use]
    pub fn socket_url(&self, database: &str) -> String {
        let host = encode(&self.dir.to_string_lossy());
        format!("postgresql:///{}?host={host}&port={}&user={SUPERUSER}", encode(database), self.port)
    }

    /// The directory of the Unix socket (what `PGHOST` may be).
    #[must_use]
    pub fn socket_dir(&self) -> &Path {
        &self.dir
    }

    /// The data directory; owned by the account the server runs as.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// The TCP port on 127.0.0.1, the same after a restart.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The server's major version.
    #[must_use]
    pub fn major(&self) -> u32 {
        self.major
    }

    /// The directory of the server's own programs; clients may be missing there, see [`programs::client`].
    #[must_use]
    pub fn bin_dir(&self) -> &Path {
        &self.bin
    }

    /// What the server has logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read(self.dir.join("server.log"))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Runs SQL as the superuser, statement by statement, and gives back the rows, unaligned, columns apart by `|`.
    ///
    /// # Errors
    /// If a statement fails, with psql's message; those before it stay done.
    pub fn psql(&self, database: &str, sql: &str) -> Result<String> {
        psql(&self.url(database), sql)
    }

    /// Starts the server again after [`Server::stop`] or [`Server::kill`].
    ///
    /// # Errors
    /// If it does not accept connections within a minute, with the end of its log.
    pub fn start(&mut self) -> Result<()> {
        for attempt in 1.. {
            let port = if self.port == 0 { free_port()? } else { self.port };
            let output = self
                .program("pg_ctl")
                .args(["start", "--wait", "--timeout=60", "--log"])
                .arg(self.dir.join("server.log"))
                .arg("--pgdata")
                .arg(self.data_dir())
                .args(["-o", &format!("-p {port}")])
                .envs(self.environment.iter().map(|(name, value)| (name, value)))
                .output()
                .context("run pg_ctl")?;
            if output.status.success() {
                self.port = port;
                return Ok(());
            }
            if attempt == START_ATTEMPTS {
                bail!("PostgreSQL {} did not start: {}", self.major, tail(&self.log(), 2000));
            }
            thread::sleep(Duration::from_millis(250));
        }
        Ok(())
    }

    /// Stops the server and waits until it is gone.
    ///
    /// # Errors
    /// If it was not running.
    pub fn stop(&self, mode: StopMode) -> Result<()> {
        let output = self.stop_command(mode).output().context("run pg_ctl")?;
        if !output.status.success() {
            bail!("PostgreSQL {} did not stop: {}", self.major, String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }

    /// Kills the server with SIGKILL, as a failing machine would.
    ///
    /// # Errors
    /// If it was not running.
    pub fn kill(&self) -> Result<()> {
        let pid = self.pid_file_line(0).context("the server is not running")?;
        let status = Command::new("kill").args(["-KILL", &pid]).status().context("run kill")?;
        if !status.success() {
            bail!("no process {pid}");
        }
        Ok(())
    }

    fn init(&self, options: &Options) -> Result<()> {
        let output = self
            .program("initdb")
            .args(["--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C.UTF-8", "--username", SUPERUSER])
            .args(&options.initdb)
            .arg("--pgdata")
            .arg(self.data_dir())
            .output()
            .context("run initdb")?;
        if !output.status.success() {
            bail!("initdb failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        let base = [
            ("listen_addresses", "127.0.0.1"),
            ("unix_socket_directories", &self.dir.to_string_lossy()),
            ("timezone", "UTC"),
            ("fsync", "off"),
            ("synchronous_commit", "off"),
            ("full_page_writes", "off"),
            ("max_connections", "200"),
        ];
        let given = options.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let lines: String =
            base.into_iter().chain(given).map(|(n, v)| format!("{n} = '{}'\n", v.replace('\'', "''"))).collect();
        fs::OpenOptions::new()
            .append(true)
            .open(self.data_dir().join("postgresql.conf"))?
            .write_all(lines.as_bytes())?;
        for (name, contents) in &options.files {
            let path = self.data_dir().join(name);
            fs::write(&path, contents).with_context(|| format!("write {}", path.display()))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
            if let Some(account) = &self.account {
                account.own(&path)?;
            }
        }
        Ok(())
    }

    fn stop_command(&self, mode: StopMode) -> Command {
        let mode = match mode {
            StopMode::Fast => "fast",
            StopMode::Immediate => "immediate",
        };
        let mut command = self.program("pg_ctl");
        command.args(["stop", "--wait", "--mode", mode, "--pgdata"]).arg(self.data_dir());
        command
    }

    /// One of the server's programs, run as the server's account.
    fn program(&self, name: &str) -> Command {
        let path = self.bin.join(name);
        let mut command = match &self.account {
            None => Command::new(path),
            Some(Account { uid, gid }) => {
                let mut command = Command::new("setpriv");
                command.arg(format!("--reuid={uid}")).arg(format!("--regid={gid}")).arg("--clear-groups").arg(path);
                command
            }
        };
        clean_environment(&mut command, &self.bin);
        // Whoever runs the server need not be allowed to see the caller's directory.
        command.current_dir(&self.dir).stdin(Stdio::null());
        command
    }

    fn pid_file_line(&self, number: usize) -> Option<String> {
        let text = fs::read_to_string(self.data_dir().join("postmaster.pid")).ok()?;
        text.lines().nth(number).map(|line| line.trim().to_owned())
    }
}

/// Runs SQL at this URL with psql; see [`Server::psql`].
///
/// # Errors
/// If there is no psql, or a statement fails.
pub fn psql(url: &str, sql: &str) -> Result<String> {
    let program = programs::client("psql", 0).context("psql is not installed")?;
    let mut child = Command::new(program)
        .args([
            "--no-psqlrc",
            "--quiet",
            "--no-align",
            "--tuples-only",
            "--set=ON_ERROR_STOP=1",
            "--file=-",
            "--dbname",
            url,
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("run psql")?;
    let mut stdin = child.stdin.take().context("psql's standard input")?;
    let output = thread::scope(|scope| {
        // A psql that stopped at an error closes its input; its exit status tells.
        scope.spawn(move || drop(stdin.write_all(sql.as_bytes())));
        child.wait_with_output()
    })?;
    if !output.status.success() {
        bail!("psql: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}

impl Account {
    /// PostgreSQL's own account, or nobody's.
    fn find() -> Result<Self> {
        let passwd = fs::read_to_string("/etc/passwd").context("read /etc/passwd")?;
        let line = ["postgres:", "nobody:"].iter().find_map(|name| passwd.lines().find(|line| line.starts_with(name)));
        let mut fields = line.context("neither postgres nor nobody is an account here")?.split(':').skip(2);
        let mut id = || -> Result<u32> { Ok(fields.next().context("/etc/passwd is cut short")?.parse()?) };
        Ok(Self { uid: id()?, gid: id()? })
    }

    fn own(&self, path: &Path) -> Result<()> {
        chown(path, Some(self.uid), Some(self.gid)).with_context(|| format!("hand {} to the server", path.display()))
    }
}

/// Takes the caller's `PG…` settings away, and lets a server from the cache find the libraries beside it.
fn clean_environment(command: &mut Command, bin: &Path) {
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG")) {
        command.env_remove(name);
    }
    if bin.starts_with(programs::tools_dir()) {
        command.env("LD_LIBRARY_PATH", bin.with_file_name("lib"));
    }
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

fn absent(major: Option<u32>) -> String {
    match major {
        Some(major) => format!("PostgreSQL {major} is not installed"),
        None => "no PostgreSQL server is installed".to_owned(),
    }
}

fn tail(text: &str, bytes: usize) -> &str {
    let mut start = text.len().saturating_sub(bytes);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}
