//! versitygw: a gateway from S3 to a directory; strict about signatures and checksums.

use std::process::Command;

use super::s3_server::{ACCESS_KEY, S3Server, SECRET_KEY, data_folder, free_port, program};

/// Starts one; `None` if it is not installed, which is said. `arguments` come before its back end.
pub async fn start(arguments: &[&str]) -> Option<S3Server> {
    let Some(program) = program("versitygw") else {
        eprintln!("skipped: versitygw is not installed (tests/setup/s3-servers.sh)");
        return None;
    };
    let (port, folder) = (free_port(), data_folder());
    let mut command = Command::new(program);
    command.args(["--port", &format!("127.0.0.1:{port}"), "--access", ACCESS_KEY, "--secret", SECRET_KEY]);
    command.args(["--quiet", "--keep-alive"]).args(arguments).arg("posix").arg(folder.path());
    Some(S3Server::start(command, port, folder).await)
}
