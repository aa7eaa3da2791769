//! The keeper of a throwaway server: a process that makes it, and takes it away when whoever asked for it is gone.
//!
//! It runs in a session of its own, so that a terminal's Ctrl-C reaches pacharc alone. Its children are started through a
//! shim, this program again, which gives up root and asks the kernel for a signal at the keeper's death: then it becomes
//! the program.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Gid, Pid, Signal, Uid};

use super::SUPERUSER;

/// The line that says that the server takes connections; any other says why there is none.
pub(super) const READY: &str = "ready";
/// How often a child is looked at.
const INTERVAL: Duration = Duration::from_millis(20);
/// How long a server may take for an immediate shutdown before it is killed.
const PATIENCE: Duration = Duration::from_secs(20);
/// How much of what a server said is told.
const SAID: usize = 600;

/// What a server without a past needs, and no more: nothing of it is to survive, nobody else is to reach it.
const SETTINGS: &[(&str, &str)] = &[
    ("listen_addresses", ""),
    ("port", "5432"),
    ("unix_socket_permissions", "0700"),
    ("fsync", "off"),
    ("synchronous_commit", "off"),
    ("full_page_writes", "off"),
    ("wal_level", "minimal"),
    ("max_wal_senders", "0"),
    ("max_wal_size", "4GB"),
    ("autovacuum", "off"),
    ("max_connections", "300"),
    ("max_prepared_transactions", "0"),
    // In the folder, which is removed, and not in /dev/shm.
    ("dynamic_shared_memory_type", "mmap"),
    ("log_destination", "stderr"),
    ("logging_collector", "off"),
    ("timezone", "UTC"),
];

/// What the keeper is told.
#[derive(Clone, Debug)]
pub struct Keeper {
    /// The program `postgres`; `initdb` lies beside it.
    pub postgres: PathBuf,
    /// Folders that are removed at the end; `data` lies in the first.
    pub folders: Vec<PathBuf>,
    /// The folder of the socket.
    pub socket: PathBuf,
    /// Whom the server runs as, by the numbers of user and group.
    pub run_as: Option<(u32, u32)>,
}

/// What a child of the keeper is told before it becomes its program.
#[derive(Clone, Debug)]
pub struct Shim {
    /// Whom it runs as.
    pub run_as: Option<(u32, u32)>,
    /// The keeper.
    pub parent: u32,
    /// The program and its arguments.
    pub program: Vec<OsString>,
}

/// Why there is no server.
enum End {
    /// Whoever asked for it is gone, or wants no more of it.
    NotWanted,
    /// It could not be made, or it ended.
    Failed(String),
}

impl Keeper {
    /// Makes the server and stays until standard input ends; then nothing is left.
    ///
    /// # Errors
    /// Where something is left all the same.
    pub fn keep(&self) -> io::Result<()> {
        // It fails for the leader of a session, who needs none.
        let _ = rustix::process::setsid();
        let (sender, owner_gone) = mpsc::channel();
        thread::spawn(move || {
            let mut ignored = [0; 64];
            while io::stdin().read(&mut ignored).is_ok_and(|count| count > 0) {}
            // Nobody to tell is nobody who waits.
            let _ = sender.send(());
        });
        if let Err(End::Failed(why)) = self.run(&owner_gone) {
            // Whoever asked may be gone.
            let _ = writeln!(io::stdout(), "{}", why.replace(['\n', '\r'], " "));
        }
        for folder in &self.folders {
            match fs::remove_dir_all(folder) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    fn run(&self, owner_gone: &Receiver<()>) -> Result<(), End> {
        let folder = self.folders.first().ok_or_else(|| End::Failed("it has no folder".to_owned()))?;
        let (data, log) = (folder.join("data"), folder.join("server.log"));
        let initdb = self.postgres.with_file_name("initdb");
        let user = format!("--username={SUPERUSER}");
        let arguments = ["--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C", &user, "--pgdata"];
        let arguments = arguments.iter().map(OsString::from).chain([data.clone().into()]);
        let mut child = self.start(&initdb, arguments, &log)?;
        let made = wait(&mut child, owner_gone, Signal::KILL)?;
        if !made.success() {
            return Err(End::Failed(format!("initdb: {}", said(&log))));
        }
        let socket = ("unix_socket_directories", self.socket.to_string_lossy());
        let settings = SETTINGS.iter().map(|&(name, value)| (name, value.into())).chain([socket]);
        let settings = settings.flat_map(|(name, value)| [OsString::from("-c"), format!("{name}={value}").into()]);
        let arguments = [OsString::from("-D"), data.clone().into()].into_iter().chain(settings);
        let mut server = self.start(&self.postgres, arguments, &log)?;
        let mut is_ready = false;
        loop {
            if let Some(status) = server.try_wait().map_err(|error| End::Failed(error.to_string()))? {
                return Err(End::Failed(format!("it ended ({status}): {}", said(&log))));
            }
            if !is_ready && ready(&data) {
                is_ready = true;
                let told = writeln!(io::stdout(), "{READY}").and_then(|()| io::stdout().flush());
                told.map_err(|_| End::NotWanted).or_else(|end| stop(&mut server, Signal::QUIT).and(Err(end)))?;
            }
            match owner_gone.recv_timeout(INTERVAL) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(()) | Err(RecvTimeoutError::Disconnected) => return stop(&mut server, Signal::QUIT).map(|_| ()),
            }
        }
    }

    /// Starts a program through the shim; what it says goes to `log`.
    fn start(&self, program: &Path, arguments: impl Iterator<Item = OsString>, log: &Path) -> Result<Child, End> {
        let failed = |error: io::Error| End::Failed(format!("cannot run {}: {error}", program.display()));
        let log = File::options().create(true).append(true).open(log).map_err(failed)?;
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        command.arg("throwaway").arg(format!("--parent={}", std::process::id()));
        command.args(self.run_as.map(|(uid, gid)| format!("--run-as={uid}:{gid}")));
        command.arg("--").arg(program).args(arguments);
        // A group of its own: what ends it ends what it has started.
        command.process_group(0).current_dir("/").stdin(Stdio::null());
        command.stdout(log.try_clone().map_err(failed)?).stderr(log);
        command.spawn().map_err(failed)
    }
}

impl Shim {
    /// Becomes the program; returns only where that fails.
    #[must_use]
    pub fn become_program(&self) -> io::Error {
        let Err(error) = self.try_become();
        error
    }

    fn try_become(&self) -> io::Result<std::convert::Infallible> {
        if let Some((uid, gid)) = self.run_as {
            // There is one thread yet, so that a thread's rights are the process's.
            rustix::thread::set_thread_groups(&[])?;
            rustix::thread::set_thread_gid(Gid::from_raw(gid))?;
            rustix::thread::set_thread_uid(Uid::from_raw(uid))?;
        }
        // Kept by the program, since it has no rights of its own file's; a change of user would have cleared it. A server
        // takes it for an immediate shutdown, and initdb ends.
        rustix::process::set_parent_process_death_signal(Some(Signal::QUIT))?;
        let parent = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
        if parent != Some(self.parent) {
            return Err(io::Error::other("the keeper is gone"));
        }
        let (program, arguments) = self.program.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        Err(Command::new(program).args(arguments).exec())
    }
}

/// Waits for the end of a child, and ends it if nobody wants it any more.
fn wait(child: &mut Child, owner_gone: &Receiver<()>, signal: Signal) -> Result<ExitStatus, End> {
    loop {
        if let Some(status) = child.try_wait().map_err(|error| End::Failed(error.to_string()))? {
            return Ok(status);
        }
        match owner_gone.recv_timeout(INTERVAL) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => {
                stop(child, signal)?;
                return Err(End::NotWanted);
            }
        }
    }
}

/// Ends a child and all of its group; by force where it takes too long.
fn stop(child: &mut Child, signal: Signal) -> Result<ExitStatus, End> {
    let failed = |error: io::Error| End::Failed(error.to_string());
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let send = |signal| group.map_or(Ok(()), |group| rustix::process::kill_process_group(group, signal));
    // Where it has ended by itself there is nobody to signal.
    let _ = send(signal);
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().map_err(failed)? {
            return Ok(status);
        }
        if begun.elapsed() > PATIENCE {
            let _ = send(Signal::KILL);
        }
        thread::sleep(INTERVAL);
    }
}

/// Whether the server says of itself that it takes connections: the eighth line of its own file, as pg_ctl reads it.
fn ready(data: &Path) -> bool {
    let file = fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
    file.lines().nth(7).is_some_and(|state| state.trim() == "ready")
}

/// The end of a log.
fn said(log: &Path) -> String {
    let text = fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned()).unwrap_or_default();
    let start = text.char_indices().rev().nth(SAID).map_or(0, |(at, _)| at);
    text.get(start..).unwrap_or_default().to_owned()
}
