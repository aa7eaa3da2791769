//! The program under test, run as a user runs it: in a folder of its own, with a key, and nothing from outside.

use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::s3_server::{ACCESS_KEY, SECRET_KEY};

/// No run of a test takes as long; one that does hangs.
const PATIENCE: Duration = Duration::from_secs(900);

/// A working folder with a key in it.
pub struct Desk {
    folder: PathBuf,
    /// What takes the folder away, unless it is to stay.
    _temporary: Option<TempDir>,
    /// Who can open what is made here.
    pub recipient: String,
}

impl Desk {
    pub fn new() -> Self {
        // Not in /tmp, which may be memory.
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let desk = Self::at(folder.path());
        Self { _temporary: Some(folder), ..desk }
    }

    /// One that stays: in this folder, with the key that lies there.
    pub fn at(folder: &Path) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        let mut desk = Self { folder: folder.to_owned(), _temporary: None, recipient: String::new() };
        if !desk.path("key.txt").exists() {
            desk.run(["keygen", "-o", "key.txt"]).code(0);
        }
        let key = std::fs::read_to_string(desk.path("key.txt")).unwrap();
        desk.recipient = key.lines().find_map(|line| line.strip_prefix("# public key: ")).unwrap().to_owned();
        desk
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The URL of a directory bucket here.
    pub fn bucket(&self, name: &str) -> String {
        format!("file://{}", self.path(name).display())
    }

    /// Whether a backup left something here that is not a whole bundle.
    pub fn leftovers(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
        names.filter(|name| name.contains(".partial") || name.starts_with('.')).collect()
    }

    /// The program, about to be run here: the one just built, or the one that `PACHARC_TEST_PROGRAM` names.
    pub fn command<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Command {
        let program = std::env::var_os("PACHARC_TEST_PROGRAM").unwrap_or_else(|| env!("CARGO_BIN_EXE_pacharc").into());
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            if ["PACHARC_", "PG", "AWS_"].iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
                command.env_remove(name);
            }
        }
        command.current_dir(self.folder()).args(args).stdin(Stdio::null());
        command.env("AWS_ACCESS_KEY_ID", ACCESS_KEY).env("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
        command.env("TMPDIR", self.folder());
        command
    }

    /// Runs the program here to its end.
    pub fn run<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Run {
        Running::start(&mut self.command(args)).finish()
    }

    /// `backup` of a source into `output`, with the key of this desk.
    pub fn backup(&self, source: &[String], output: &str, more: &[&str]) -> Run {
        self.run(self.backup_args(source, output, more))
    }

    pub fn backup_args(&self, source: &[String], output: &str, more: &[&str]) -> Vec<String> {
        let mut args = words(&["backup", "-o", output, "--recipient", &self.recipient]);
        args.extend_from_slice(source);
        args.extend(words(more));
        args
    }

    /// `restore` of a bundle into a target, with the key of this desk.
    pub fn restore(&self, bundle: &str, target: &[String], more: &[&str]) -> Run {
        self.run(Self::restore_args(bundle, target, more))
    }

    pub fn restore_args(bundle: &str, target: &[String], more: &[&str]) -> Vec<String> {
        let mut args = words(&["restore", bundle, "--identity", "key.txt"]);
        args.extend_from_slice(target);
        args.extend(words(more));
        args
    }
}

/// The command, run by another one that is given it as its last arguments.
pub fn under(outer: &[&str], inner: &Command) -> Command {
    let mut command = Command::new(outer[0]);
    command.args(&outer[1..]).arg(inner.get_program()).args(inner.get_args()).stdin(Stdio::null());
    if let Some(folder) = inner.get_current_dir() {
        command.current_dir(folder);
    }
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

pub fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

/// A process that is under way; ended when dropped.
pub struct Running {
    child: Child,
    what: String,
    stdout: Option<JoinHandle<Vec<u8>>>,
    stderr: Option<JoinHandle<Vec<u8>>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Running {
    pub fn start(command: &mut Command) -> Self {
        let what = format!("{command:?}");
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (stdout, stderr) = (child.stdout.take().map(drain), child.stderr.take().map(drain));
        Self { child, what, stdout, stderr }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal, by its name: `INT`, `TERM`, `KILL`.
    pub fn signal(&self, signal: &str) {
        let kill = Command::new("kill").args([format!("-{signal}"), self.id().to_string()]).status().unwrap();
        assert!(kill.success(), "{} has ended", self.what);
    }

    /// The most memory that it has had resident, in bytes; children apart. `None` when it has ended.
    pub fn peak_memory(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    pub fn finish(mut self) -> Run {
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if begun.elapsed() > PATIENCE {
                self.child.kill().unwrap();
                self.child.wait().unwrap();
                panic!("{} hangs: {}", self.what, String::from_utf8_lossy(&joined(&mut self.stderr)));
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let stderr = String::from_utf8_lossy(&joined(&mut self.stderr)).into_owned();
        Run { status, stdout: joined(&mut self.stdout), stderr, what: self.what.clone() }
    }
}

fn joined(reading: &mut Option<JoinHandle<Vec<u8>>>) -> Vec<u8> {
    reading.take().unwrap().join().unwrap()
}

fn drain(mut pipe: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut all = Vec::new();
        pipe.read_to_end(&mut all).unwrap();
        all
    })
}

/// What came of a run.
#[derive(Debug)]
pub struct Run {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: String,
    what: String,
}

impl Run {
    /// The exit code, which must be this one.
    #[track_caller]
    pub fn code(self, wanted: i32) -> Self {
        assert_eq!(self.status.code(), Some(wanted), "{}: {}", self.what, self.stderr);
        self
    }

    /// What it said on standard error, which must contain this.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "{}: {:?} is not in: {}", self.what, text, self.stderr);
        self
    }

    /// Behind its error there must be advice. (A hint of another kind may stand before it.)
    #[track_caller]
    pub fn advises(self) -> Self {
        assert!(self.has_advice(), "{}: no hint in: {}", self.what, self.stderr);
        self
    }

    pub fn has_advice(&self) -> bool {
        self.stderr.split_once("pacharc: error: ").is_some_and(|(_, error)| error.contains("\nhint: "))
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.stdout.clone()).unwrap()
    }
}

/// Whether the JSON events in this file say that the phase has begun.
pub fn has_begun(events: &Path, phase: &str) -> bool {
    let events = std::fs::read_to_string(events).unwrap_or_default();
    events.contains(&format!("\"event\":\"phase\",\"phase\":\"{phase}\""))
}

/// Waits until something is so.
#[track_caller]
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(300), "{what}: not within five minutes");
        std::thread::sleep(Duration::from_millis(10));
    }
}
