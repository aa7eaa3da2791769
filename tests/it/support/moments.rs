//! What happens to a run at a chosen moment: it is killed, or cut off from the API server.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use serde_json::Value;

use super::kubelab::Lab;

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

impl Told {
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let (sender, steps) = channel();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let event: Value = serde_json::from_str(&line).unwrap();
                let name = event["step"].as_str().or(event["phase"].as_str());
                if name.is_some_and(|name| sender.send(name.to_owned()).is_err()) {
                    return;
                }
            }
        });
        Self { child, steps }
    }

    /// Waits until a step is announced, and kills the process there. Whether it came to that step.
    pub fn kill_at(mut self, step: &str) -> bool {
        let came = self.steps.iter().any(|told| told == step);
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        came
    }

    /// All of them to the end.
    pub fn steps(self) -> Vec<String> {
        self.steps.iter().collect()
    }
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
    assert!(Command::new("kill").args(["-KILL", &id.to_string()]).status().unwrap().success());
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
