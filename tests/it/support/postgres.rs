//! The sample crate's servers, for tests that each have one of their own and work on it with its own programs.

use std::path::Path;
use std::process::{Command, Stdio};

use pacharc_sample::postgres::{Options, TempServer};
use pacharc_sample::programs;

/// Starts one with trust on the socket alone; `None`, having said so, where PostgreSQL is not installed.
pub fn start() -> Option<TempServer> {
    start_with("", &[], Vec::new())
}

/// Starts one with more lines of `pg_hba.conf` (after trust on the socket), settings, and files in the data folder.
pub fn start_with(hba: &str, settings: &[(&str, &str)], mut files: Vec<(String, Vec<u8>)>) -> Option<TempServer> {
    files.push(("pg_hba.conf".to_owned(), format!("local all all trust\n{hba}\n").into_bytes()));
    let settings = settings.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
    TempServer::start_or_skip(&Options { settings, files, ..Options::default() }).unwrap()
}

/// Starts one of this major version; `None`, having said so, where that is not installed.
pub fn start_version(major: u32) -> Option<TempServer> {
    TempServer::start_or_skip(&Options { major: Some(major), ..Options::default() }).unwrap()
}

/// Starts a standby of `primary` in `folder`, which must be absent.
pub fn start_standby(primary: &TempServer, folder: &Path) -> TempServer {
    let data = folder.join("data");
    std::fs::create_dir_all(folder).unwrap();
    run(primary.command("pg_basebackup").args(["-R", "-c", "fast", "-D"]).arg(&data));
    // Its socket lies beside its data; the last setting wins.
    let socket = format!("unix_socket_directories = '{}'\n", folder.display());
    let mut settings = std::fs::read_to_string(data.join("postgresql.conf")).unwrap();
    settings.push_str(&socket);
    std::fs::write(data.join("postgresql.conf"), settings).unwrap();
    run(Command::new("chown").arg("-R").arg("--reference").arg(primary.data_dir()).arg(folder));
    TempServer::start_in(folder, &Options::default()).unwrap().unwrap()
}

/// What a test does with its server, or fails.
pub trait Use {
    /// A URL of the socket, as superuser.
    fn socket(&self) -> String;

    /// One of PostgreSQL's programs, with this server in its environment, and without timeouts.
    fn command(&self, program: &str) -> Command;

    /// Runs SQL as superuser; what it prints, unaligned.
    fn sql(&self, database: &str, sql: &str) -> String;
}

impl Use for TempServer {
    fn socket(&self) -> String {
        format!("postgres://postgres@/?host={}&port={}", self.socket_dir().display(), self.port())
    }

    fn command(&self, program: &str) -> Command {
        // Some installations have servers alone.
        let own = self.bin_dir().join(program);
        let program = if own.exists() { own } else { programs::client(program, self.major()).unwrap() };
        let mut command = Command::new(program);
        command.env("PGHOST", self.socket_dir()).env("PGPORT", self.port().to_string()).env("PGUSER", "postgres");
        // Some tests give a database timeouts so short that a busy machine would end the test's own sessions.
        let mut options =
            "-c statement_timeout=0 -c lock_timeout=0 -c idle_in_transaction_session_timeout=0".to_owned();
        if self.major() >= 14 {
            options += " -c idle_session_timeout=0";
        }
        command.env("PGOPTIONS", options);
        command
    }

    fn sql(&self, database: &str, sql: &str) -> String {
        let mut command = self.command("psql");
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", database, "-c", sql]);
        run(&mut command)
    }
}

/// Runs a command that must succeed, and gives what it printed.
pub fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
