//! A server that belongs to a test, and goes with it.

use super::{Options, Server, StopMode, absent, clean_environment};
use crate::programs;
use anyhow::{Context, Result};
use std::ops::Deref;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Bytes that some servers of a test's size, side by side, do not come near.
const MUCH: u64 = 4 << 30;

/// A [`Server`] that lives as long as this value, and never longer than this process.
#[derive(Debug)]
pub struct TempServer {
    server: Server,
    guard: Child,
}

impl TempServer {
    /// Makes and starts a server in memory where there is much of it, and else below the temporary directory.
    ///
    /// # Errors
    /// As [`Server::create`].
    pub fn start(options: &Options) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("pacharc-pg-").tempdir_in(folder())?;
        let server = Server::create(dir.path(), options)?;
        let guard = guard(&server, true)?;
        // From here on the guard removes it.
        let _ = dir.keep();
        Ok(Self { server, guard })
    }

    /// The same, but where this version is not installed, the test says so and has nothing to do.
    ///
    /// # Errors
    /// As [`Server::create`], if it is installed.
    pub fn start_or_skip(options: &Options) -> Result<Option<Self>> {
        let present = match options.major {
            Some(major) => programs::server(major).is_some(),
            None => programs::any_server().is_some(),
        };
        if !present {
            crate::skipped(&absent(options.major));
            return Ok(None);
        }
        Self::start(options).map(Some)
    }

    /// A server whose data stay: makes one in `dir`, or starts the one that an earlier process made there. `None`, having
    /// said so, where it is not installed.
    ///
    /// # Errors
    /// As [`Server::create`], if it is installed.
    pub fn start_in(dir: &Path, options: &Options) -> Result<Option<Self>> {
        if programs::any_server().is_none() {
            crate::skipped(&absent(None));
            return Ok(None);
        }
        let server = if dir.exists() { Server::reopen(dir)? } else { Server::create(dir, options)? };
        let guard = guard(&server, false)?;
        Ok(Some(Self { server, guard }))
    }

    /// Starts the server again after [`Server::stop`] or [`Server::kill`], on the same port.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn restart(&mut self) -> Result<()> {
        self.server.start()
    }
}

/// Where servers are made: a database is hundreds of files, and on a disk they take many times as long.
fn folder() -> PathBuf {
    let memory = Path::new("/dev/shm");
    let room = rustix::fs::statvfs(memory).map_or(0, |stat| stat.f_bavail.saturating_mul(stat.f_frsize));
    let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = info.lines().find_map(|line| line.strip_prefix("MemAvailable:")?.split_whitespace().next());
    let available =
        available.and_then(|kilobytes| kilobytes.parse::<u64>().ok()).map_or(0, |kilobytes| kilobytes << 10);
    if room >= MUCH && available >= 2 * MUCH { memory.to_owned() } else { std::env::temp_dir() }
}

impl Deref for TempServer {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

impl Drop for TempServer {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}

/// A process that waits until its standard input ends, which happens however this process ends (a panic, SIGKILL, a
/// static that nobody drops), and then stops the server and, where told so, removes its directory.
fn guard(server: &Server, remove: bool) -> Result<Child> {
    const STOP: &str = r#"trap '' HUP INT TERM; read -r _; shift; "$@""#;
    const STOP_AND_REMOVE: &str = r#"trap '' HUP INT TERM; read -r _; dir=$1; shift; "$@"; cd / && rm -rf -- "$dir""#;
    // What stays must be whole.
    let (script, mode) = if remove { (STOP_AND_REMOVE, StopMode::Immediate) } else { (STOP, StopMode::Fast) };
    let stop = server.stop_command(mode);
    let mut guard = Command::new("sh");
    guard.args(["-c", script, "guard"]).arg(&server.dir).arg(stop.get_program()).args(stop.get_args());
    clean_environment(&mut guard, &server.bin);
    guard.current_dir(&server.dir).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    // Its own process group: the terminal's interrupt is for the test, not for the guard.
    guard.process_group(0).spawn().context("start the server's guard")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::psql;
    use std::net::TcpListener;

    #[test]
    fn a_server_runs_survives_a_crash_and_leaves_nothing_behind() {
        let options = Options { settings: vec![("work_mem".into(), "7MB".into())], ..Options::default() };
        let Some(mut server) = TempServer::start_or_skip(&options).unwrap() else { return };
        assert_eq!(server.psql("postgres", "SHOW work_mem").unwrap(), "7MB");
        server.psql("postgres", "CREATE DATABASE \"odd name\"; CREATE TABLE t (i int);").unwrap();
        assert_eq!(psql(&server.socket_url("odd name"), "SELECT current_database()").unwrap(), "odd name");
        assert!(server.psql("postgres", "SELECT nonsense").unwrap_err().to_string().contains("nonsense"));

        let port = server.port();
        server.psql("postgres", "CHECKPOINT").unwrap();
        server.kill().unwrap();
        server.restart().unwrap();
        assert_eq!(server.port(), port);
        assert_eq!(server.psql("postgres", "SELECT count(*) FROM t").unwrap(), "0");
        server.stop(StopMode::Fast).unwrap();
        assert!(server.psql("postgres", "SELECT 1").is_err());
        server.restart().unwrap();

        let dir = server.socket_dir().to_owned();
        drop(server);
        assert!(!dir.exists());
        assert!(TcpListener::bind(("127.0.0.1", port)).is_ok());
    }

    #[test]
    fn other_versions_run_where_they_are_installed() {
        for major in [13, 17, 18] {
            let Some(server) =
                TempServer::start_or_skip(&Options { major: Some(major), ..Options::default() }).unwrap()
            else {
                continue;
            };
            assert_eq!(server.major(), major);
            let said = server.psql("postgres", "SHOW server_version").unwrap();
            assert!(said.starts_with(&format!("{major}.")), "{said}");
        }
    }
}
