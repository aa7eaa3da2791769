//! A guardian as a process of its own on this machine.

use std::path::Path;
use std::process::Stdio;

use tokio::process::{Child, Command};

use super::super::Error;
use super::Way;

/// Starts it, without a terminal. It leaves this process's session by itself; nothing is scaled before that.
pub(super) fn spawn(args: Vec<String>, way: &Way) -> Result<Child, Error> {
    let failed = |source| Error::Spawn { source };
    let mut command = Command::new(std::env::current_exe().map_err(failed)?);
    command.args(args);
    command.args(way.context.iter().flat_map(|context| ["--context", context]));
    for (flag, file) in [("--kubeconfig", &way.kubeconfig), ("--ca-file", &way.ca_file)] {
        command.args(file.iter().flat_map(|file| [Path::new(flag), file]));
    }
    // Its flags say all that it needs: what is meant for this run, and secrets, are not for it.
    for (name, _) in std::env::vars_os() {
        if ["PACHARC_", "PG"].iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.kill_on_drop(false).spawn().map_err(failed)
}

/// Leaves the session of whoever started this process: no terminal that closes ends it.
pub(super) fn leave_session() {
    // It fails for the leader of a session or group, who has left already.
    if let Err(error) = rustix::process::setsid() {
        tracing::debug!("setsid: {error}");
    }
}
