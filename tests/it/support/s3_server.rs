//! What all S3 servers have in common: a child process on a free loopback port, ended with the test, and one bucket.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pacharc::bucket::{self, Bucket, Credentials, Options};
use tempfile::TempDir;

pub const ACCESS_KEY: &str = "pacharc-test";
pub const SECRET_KEY: &str = "pacharc-test-secret";
pub const BUCKET: &str = "bucket";

/// A running server with an empty bucket; ends when dropped.
pub struct S3Server {
    child: Child,
    port: u16,
    /// Where it keeps its data; goes away with it.
    pub folder: TempDir,
}

impl S3Server {
    /// Starts what `command` makes, which is told the port to listen on and the folder, and makes the bucket.
    pub async fn start(command: impl Fn(u16, &Path) -> Command, folder: TempDir) -> Self {
        let server = Self::spawn(command, folder).await;
        server.client().create_bucket().bucket(BUCKET).send().await.unwrap();
        server
    }

    /// Starts what `command` makes, which is told the port to listen on and the folder.
    pub async fn spawn(command: impl Fn(u16, &Path) -> Command, folder: TempDir) -> Self {
        let (child, port) = begin(&command, folder.path());
        let mut server = Self { child, port, folder };
        let begun = Instant::now();
        // Somebody else may have taken the port meanwhile: then it is he who answers there, and ours ends.
        while !server.listens() {
            let made = command(server.port, server.folder.path());
            assert!(begun.elapsed() < Duration::from_secs(300), "{made:?} does not listen on port {}", server.port);
            tokio::time::sleep(Duration::from_millis(50)).await;
            if server.child.try_wait().unwrap().is_some() {
                (server.child, server.port) = begin(&command, server.folder.path());
            }
        }
        server
    }

    /// Whether it is this very process that listens on the port.
    fn listens(&self) -> bool {
        let of_child = |inode: &str| {
            let files = std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).into_iter().flatten().flatten();
            let socket = format!("socket:[{inode}]");
            files.filter_map(|file| file.path().read_link().ok()).any(|link| link.as_os_str() == socket.as_str())
        };
        let port = format!(":{:04X}", self.port);
        ["tcp", "tcp6"].iter().any(|table| {
            let text = std::fs::read_to_string(format!("/proc/net/{table}")).unwrap_or_default();
            let mut lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
            // Address, state (0A: it listens) and inode.
            lines.any(|line| line.len() > 9 && line[1].ends_with(&port) && line[3] == "0A" && of_child(line[9]))
        })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The URL of the bucket; `prefix` is empty or begins with a slash.
    pub fn url(&self, prefix: &str) -> String {
        format!("s3://{BUCKET}{prefix}?endpoint={}&region=us-east-1&path_style=true", self.endpoint())
    }

    pub async fn open(&self, prefix: &str) -> Arc<dyn Bucket> {
        bucket::open(&self.url(prefix).parse().unwrap(), &options()).await.unwrap()
    }

    /// The SDK's own client, for what the trait does not do.
    pub fn client(&self) -> aws_sdk_s3::Client {
        let credentials = aws_sdk_s3::config::Credentials::new(ACCESS_KEY, SECRET_KEY, None, None, "test");
        let config = aws_sdk_s3::Config::builder()
            .behavior_version_latest()
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .credentials_provider(credentials)
            .region(aws_sdk_s3::config::Region::new("us-east-1"))
            .endpoint_url(self.endpoint())
            .force_path_style(true);
        aws_sdk_s3::Client::from_conf(config.build())
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn begin(command: &impl Fn(u16, &Path) -> Command, folder: &Path) -> (Child, u16) {
    let port = free_port();
    let mut made = command(port, folder);
    let child = made.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    (child.unwrap_or_else(|e| panic!("{made:?}: {e}")), port)
}

pub fn options() -> Options {
    let credentials = Credentials {
        access_key_id: ACCESS_KEY.to_owned(),
        secret_access_key: SECRET_KEY.to_owned(),
        session_token: None,
    };
    Options { credentials: Some(credentials), ..Options::default() }
}

/// The program `name`, from the folder that `tests/setup/s3-servers.sh` fills or from `PATH`.
pub fn program(name: &str) -> Option<PathBuf> {
    let tools = std::env::var_os("PACHARC_TOOLS").map(PathBuf::from);
    let tools = tools.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/pacharc-tests")));
    let path = std::env::var_os("PATH").unwrap_or_default();
    tools
        .map(|tools| tools.join("bin"))
        .into_iter()
        .chain(std::env::split_paths(&path))
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
}

pub fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// A folder for a server's data, on the disk of the build (some keep metadata in extended attributes, which `/tmp` may lack).
pub fn data_folder() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}
