//! What happens to a run at a chosen moment: it is killed, or cut off from the API server.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, channel};

use serde_json::Value;

use super::kubelab::Lab;
use super::program::wait_until;

/// A process whose events are read.
pub struct Told {
    pub child: Child,
    /// Steps and phases.
    pub steps: Receiver<String>,
}

impl Drop for Told {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// What is told as a phase, and not as a step.
const PHASES: [&str; 9] = ["copy", "snapshot", "delta", "dump", "cluster", "finish", "unpack", "indexes", "prove"];

impl Told {
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let (sender, steps) = channel();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                // The last one of a process that was killed may be a part of one.
                let event: Value = serde_json::from_str(&line).unwrap_or_default();
                let name = event["step"].as_str().or(event["phase"].as_str());
                if let Some(name) = name {
                    // To the end, whoever listens: the process must not stand before a full pipe.
                    sender.send(name.to_owned()).ok();
                }
            }
        });
        Self { child, steps }
    }

    /// Starts it, and waits until it stands still (SIGSTOP) where it announces a step; `None` if it did not come to it.
    /// It stops itself before it says so: a step does not pass while somebody here is slow. Where there is no C compiler
    /// for that, it is stopped when it was heard.
    pub fn stopped_at(command: &mut Command, step: &str) -> Option<Self> {
        if !stop_at(command, step) {
            let mut told = Self::start(command);
            let came = told.steps.iter().any(|told| told == step);
            return (came && signal(told.child.id(), "STOP") && told.child.try_wait().unwrap().is_none())
                .then_some(told);
        }
        let mut told = Self::start(command);
        let (id, mut has_ended) = (told.child.id(), false);
        wait_until(&format!("it comes to {step}"), || {
            has_ended = told.child.try_wait().unwrap().is_some();
            has_ended || is_stopped(id)
        });
        (!has_ended).then_some(told)
    }

    /// Kills it where it announces a step. Whether it came to that step.
    pub fn kill_at(command: &mut Command, step: &str) -> bool {
        Self::stopped_at(command, step).is_some()
    }

    /// Lets one go on that stands still, to its end.
    pub fn go_on(mut self) -> ExitStatus {
        assert!(signal(self.child.id(), "CONT"));
        self.child.wait().unwrap()
    }

    /// All of them to the end.
    pub fn steps(self) -> Vec<String> {
        self.steps.iter().collect()
    }
}

/// Makes a process that tells its events on standard output stop itself (SIGSTOP) where it announces a step, before it says
/// so. Whether it will: that takes a C compiler.
pub fn stop_at(command: &mut Command, step: &str) -> bool {
    let Some(library) = faulty() else { return false };
    let kind = if PHASES.contains(&step) { "phase" } else { "step" };
    command.env("LD_PRELOAD", library).env("FAULTY_STAGE", format!("\"{kind}\":\"{step}\""));
    true
}

/// The decorator of processes, made once; `None` where there is no C compiler.
pub fn faulty() -> Option<&'static Path> {
    static MADE: OnceLock<Option<PathBuf>> = OnceLock::new();
    let made = MADE.get_or_init(|| {
        let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("faulty-{}.so", std::process::id()));
        let place = library.with_extension("").with_file_name("faulty.so");
        (make_faulty(&library) && std::fs::rename(&library, &place).is_ok()).then_some(place)
    });
    made.as_deref()
}

/// Makes the decorator `faulty.c`. Whether there is a C compiler.
pub fn make_faulty(library: &Path) -> bool {
    let code = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/fault_matrix/faulty.c");
    let made = Command::new("cc").args(["-O1", "-shared", "-fPIC", "-o"]).args([library, &code]).status();
    made.is_ok_and(|status| status.success())
}

/// Whether all of a process stands still.
pub fn is_stopped(id: u32) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten();
    let stats: Vec<String> = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("stat")).ok()).collect();
    let is_stopped = |stat: &String| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'));
    !stats.is_empty() && stats.iter().all(is_stopped)
}

fn signal(id: u32, name: &str) -> bool {
    Command::new("kill").args([format!("-{name}"), id.to_string()]).status().unwrap().success()
}

/// The processes of guardians of a namespace.
pub fn guardians(lab: &Lab) -> Vec<u32> {
    let namespace = format!("--namespace={}", lab.name);
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(id) = entry.file_name().to_string_lossy().parse() else { continue };
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words: Vec<String> =
            line.split(|byte| *byte == 0).map(|w| String::from_utf8_lossy(w).into_owned()).collect();
        if words.get(1).is_some_and(|word| word == "guardian") && words.contains(&namespace) {
            found.push(id);
        }
    }
    found
}

pub fn kill(id: u32) {
    assert!(signal(id, "KILL"));
}

/// A way to the API server that can be closed.
pub struct Gate {
    pub kubeconfig: PathBuf,
    open: tokio::sync::watch::Sender<bool>,
}

impl Gate {
    pub async fn new(lab: &Lab, folder: &Path) -> Self {
        Self::through(lab.kubeconfig(), &folder.join("kubeconfig")).await
    }

    /// One in front of the server that a kubeconfig names, with a kubeconfig of its own at `own`.
    pub async fn through(kubeconfig: &Path, own: &Path) -> Self {
        let (text, path) = (std::fs::read_to_string(kubeconfig).unwrap(), own.to_owned());
        let server = text.split("https://127.0.0.1:").nth(1).unwrap();
        let port: u16 = server.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap().port();
        std::fs::write(&path, text.replace(&format!("127.0.0.1:{port}"), &format!("127.0.0.1:{own}"))).unwrap();
        let (open, is_open) = tokio::sync::watch::channel(true);
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let mut is_open = is_open.clone();
                tokio::spawn(async move {
                    if !*is_open.borrow() {
                        return;
                    }
                    let Ok(mut server) = tokio::net::TcpStream::connect(("127.0.0.1", port)).await else { return };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                        _ = is_open.wait_for(|open| !open) => {}
                    }
                });
            }
        });
        Self { kubeconfig: path, open }
    }

    pub fn set(&self, open: bool) {
        self.open.send(open).unwrap();
    }
}
