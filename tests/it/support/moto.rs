//! moto: Amazon's behaviour imitated in Python; takes every key, knows storage classes, checks no signature.

use std::process::Command;

use super::s3_server::{S3Server, data_folder, free_port, program};

/// Starts one; `None` if it is not installed, which is said.
pub async fn start() -> Option<S3Server> {
    let Some(program) = program("moto_server") else {
        eprintln!("skipped: moto is not installed (tests/setup/s3-servers.sh)");
        return None;
    };
    let (port, folder) = (free_port(), data_folder());
    let mut command = Command::new(program);
    command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
    Some(S3Server::start(command, port, folder).await)
}
