//! moto: Amazon's behaviour imitated in Python; takes every key, knows storage classes, checks no signature.

use std::path::Path;
use std::process::Command;

use super::s3_server::{S3Server, data_folder, program};

/// Starts one; `None` if it is not installed, which is said.
pub async fn start() -> Option<S3Server> {
    let Some(program) = program("moto_server") else {
        eprintln!("skipped: moto is not installed (tests/setup/s3-servers.sh)");
        return None;
    };
    let command = |port: u16, _: &Path| {
        let mut command = Command::new(&program);
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
        command
    };
    Some(S3Server::start(command, data_folder()).await)
}
