//! versitygw: a gateway from S3 to a directory; strict about signatures and checksums.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::s3_server::{ACCESS_KEY, BUCKET, S3Server, SECRET_KEY, data_folder, program};

/// Starts one; `None` if it is not installed, which is said.
pub async fn start() -> Option<S3Server> {
    let program = installed()?;
    Some(S3Server::start(|port, folder| command(&program, port, folder), data_folder()).await)
}

/// As [`start`], behind TLS with this certificate and key.
pub async fn start_tls(certificate: &Path, key: &Path) -> Option<S3Server> {
    let (program, folder) = (installed()?, data_folder());
    // A bucket is a folder here.
    std::fs::create_dir(folder.path().join(BUCKET)).unwrap();
    let secure = |port: u16, folder: &Path| {
        let mut command = command(&program, port, folder);
        command.env("VGW_CERT", certificate).env("VGW_KEY", key);
        command
    };
    Some(S3Server::spawn(secure, folder).await)
}

fn installed() -> Option<PathBuf> {
    let found = program("versitygw");
    if found.is_none() {
        eprintln!("skipped: versitygw is not installed (tests/setup/s3-servers.sh)");
    }
    found
}

fn command(program: &Path, port: u16, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.args(["--port", &format!("127.0.0.1:{port}"), "--access", ACCESS_KEY, "--secret", SECRET_KEY]);
    command.args(["--quiet", "--keep-alive", "posix"]).arg(folder);
    command
}
