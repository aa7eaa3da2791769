//! MinIO; optional, since it takes minutes to build.

use std::path::Path;
use std::process::Command;

use super::s3_server::{ACCESS_KEY, S3Server, SECRET_KEY, data_folder, program};

/// Starts one; `None` if it is not installed, which is said.
pub async fn start() -> Option<S3Server> {
    let Some(program) = program("minio") else {
        eprintln!("skipped: MinIO is not installed (PACHARC_MINIO=1 tests/setup/s3-servers.sh)");
        return None;
    };
    let command = |port: u16, folder: &Path| {
        let mut command = Command::new(&program);
        command.env("MINIO_ROOT_USER", ACCESS_KEY).env("MINIO_ROOT_PASSWORD", SECRET_KEY);
        command.arg("server").arg(folder).args(["--quiet", "--address", &format!("127.0.0.1:{port}")]);
        command
    };
    Some(S3Server::start(command, data_folder()).await)
}
