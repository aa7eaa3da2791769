//! versitygw: a gateway from S3 to a directory; strict about signatures and checksums.

use std::path::Path;
use std::process::Command;

use super::s3_server::{ACCESS_KEY, BUCKET, S3Server, SECRET_KEY, data_folder, free_port, program};

/// Starts one; `None` if it is not installed, which is said.
pub async fn start() -> Option<S3Server> {
    let (port, folder) = (free_port(), data_folder());
    Some(S3Server::start(command(port, folder.path())?, port, folder).await)
}

/// As [`start`], behind TLS with this certificate and key.
pub async fn start_tls(certificate: &Path, key: &Path) -> Option<S3Server> {
    let (port, folder) = (free_port(), data_folder());
    // A bucket is a folder here.
    std::fs::create_dir(folder.path().join(BUCKET)).unwrap();
    let mut command = command(port, folder.path())?;
    command.env("VGW_CERT", certificate).env("VGW_KEY", key);
    Some(S3Server::spawn(command, port, folder).await)
}

fn command(port: u16, folder: &Path) -> Option<Command> {
    let Some(program) = program("versitygw") else {
        eprintln!("skipped: versitygw is not installed (tests/setup/s3-servers.sh)");
        return None;
    };
    let mut command = Command::new(program);
    command.args(["--port", &format!("127.0.0.1:{port}"), "--access", ACCESS_KEY, "--secret", SECRET_KEY]);
    command.args(["--quiet", "--keep-alive", "posix"]).arg(folder);
    Some(command)
}
