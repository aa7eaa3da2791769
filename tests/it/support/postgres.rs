//! A private PostgreSQL server in a temporary folder, ended when it is dropped.

use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A running server. Its superuser is `postgres`, trusted on the socket.
pub struct PostgresServer {
    folder: TempDir,
    port: u16,
    process: Child,
    bin: PathBuf,
}

impl PostgresServer {
    /// Starts one; `None`, having said so, where PostgreSQL is not installed.
    pub fn start() -> Option<Self> {
        Self::start_with("", &[], |_| {})
    }

    /// Starts one with more lines of `pg_hba.conf` (after trust on the socket) and settings; `prepare` puts files
    /// into the data folder first.
    pub fn start_with(hba: &str, settings: &[(&str, &str)], prepare: impl FnOnce(&Path)) -> Option<Self> {
        let Some(bin) = bin() else {
            println!("skipped: no PostgreSQL server is installed");
            return None;
        };
        Some(Self::start_in(bin, hba, settings, prepare))
    }

    /// Starts one of this major version; `None`, having said so, where that is not installed.
    pub fn start_version(major: u32) -> Option<Self> {
        let tools = tools().join(major.to_string()).join("bin");
        let packaged = PathBuf::from(format!("/usr/lib/postgresql/{major}/bin"));
        let Some(bin) = [packaged, tools].into_iter().find(|bin| bin.join("initdb").exists()) else {
            println!("skipped: no PostgreSQL {major} is installed");
            return None;
        };
        Some(Self::start_in(bin, "", &[], |_| {}))
    }

    fn start_in(bin: PathBuf, hba: &str, settings: &[(&str, &str)], prepare: impl FnOnce(&Path)) -> Self {
        let folder = tempfile::Builder::new().prefix("pacharc-pg").tempdir_in("/tmp").unwrap();
        let data = folder.path().join("data");
        std::fs::create_dir(&data).unwrap();
        give(folder.path());
        give(&data);
        run(unprivileged(&bin.join("initdb"))
            .args(["-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8"])
            .arg(&data));
        prepare(&data);
        for entry in std::fs::read_dir(&data).unwrap() {
            give(&entry.unwrap().path());
        }
        std::fs::write(data.join("pg_hba.conf"), format!("local all all trust\n{hba}\n")).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = unprivileged(&bin.join("postgres"));
        command.arg("-D").arg(&data).arg("-p").arg(port.to_string()).arg("-k").arg(folder.path());
        for (name, value) in [("fsync", "off"), ("listen_addresses", "127.0.0.1")].iter().chain(settings) {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let process = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let server = Self { folder, port, process, bin };
        let began = Instant::now();
        while !server.command("pg_isready").arg("-q").status().unwrap().success() {
            assert!(began.elapsed() < Duration::from_secs(60), "{}", server.log());
            std::thread::sleep(Duration::from_millis(50));
        }
        server
    }

    /// The socket's folder, which holds the data folder too.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The folder of its programs.
    pub fn bin(&self) -> &Path {
        &self.bin
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// A URL of the socket, as superuser.
    pub fn url(&self) -> String {
        format!("postgres://postgres@/?host={}&port={}", self.folder().display(), self.port)
    }

    /// One of PostgreSQL's programs, with this server in its environment.
    pub fn command(&self, program: &str) -> Command {
        // Some installations have servers alone.
        let own = self.bin.join(program);
        let program = if own.exists() { own } else { bin().unwrap().join(program) };
        let mut command = Command::new(program);
        command.env("PGHOST", self.folder()).env("PGPORT", self.port.to_string()).env("PGUSER", "postgres");
        command
    }

    /// Runs SQL as superuser; what it prints, unaligned.
    pub fn sql(&self, database: &str, sql: &str) -> String {
        let mut command = self.command("psql");
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", database, "-c", sql]);
        run(&mut command)
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder().join("log")).unwrap_or_default()
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        // SIGQUIT to the postmaster: its children end with it, which they would not at SIGKILL.
        let id = self.process.id().to_string();
        let _ = Command::new("kill").args(["-QUIT", &id]).status();
        let _ = self.process.wait();
    }
}

/// Runs a command that must succeed, and gives what it printed.
pub fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The folder of the server's and the clients' programs: `PACHARC_TEST_POSTGRES`, or else the newest installed.
fn bin() -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os("PACHARC_TEST_POSTGRES") {
        return Some(folder.into());
    }
    let folders = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let found = folders.filter_map(|folder| Some(folder.ok()?.path().join("bin")));
    found.filter(|bin| bin.join("initdb").exists()).max()
}

/// Where setup puts the servers that the distribution lacks.
fn tools() -> PathBuf {
    let cache = match std::env::var_os("PACHARC_TOOLS") {
        Some(folder) => PathBuf::from(folder),
        None if is_root() => PathBuf::from("/var/cache/pacharc-tests"),
        None => PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/pacharc-tests"),
    };
    cache.join("postgresql")
}

fn is_root() -> bool {
    std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap()) == 0
}

/// PostgreSQL refuses to run as root: then it runs as nobody.
fn unprivileged(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(program);
    command.current_dir("/");
    command
}

/// Hands a path to whom the server runs as.
fn give(path: &Path) {
    if is_root() {
        chown(path, Some(65534), Some(65534)).unwrap();
    }
}
