//! PostgreSQL's own programs: where they are, and which of several versions is the right one.
//!
//! pg_dump refuses a server newer than itself. An older server it dumps, but with settings at the head that the older
//! server's psql would stumble over; hence the server's own major version is preferred, and the newest one otherwise.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use super::Error;
use crate::failure::chain;

/// A program, and its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tool {
    /// Where it is.
    pub path: PathBuf,
    /// Its version as it says it, e.g. `15.18 (Debian 15.18-0+deb12u1)`.
    pub version: String,
    /// Major and minor version; a beta's minor is 0.
    pub number: (u32, u32),
}

/// The programs for one server.
#[derive(Clone, Debug)]
pub struct Tools {
    /// Writes a database as SQL.
    pub pg_dump: Tool,
    /// Runs SQL.
    pub psql: Tool,
    /// Writes roles and grants as SQL; what it adds is not needed for a restore.
    pub pg_dumpall: Option<Tool>,
}

/// How long a program may take to say its version.
const PATIENCE: Duration = Duration::from_secs(10);

/// Folders where packages put them, and where installations side by side lie: `*` stands for any folder.
const FOLDERS: &[&str] = &[
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/usr/local/pgsql/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/opt/homebrew/opt/libpq/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/usr/local/opt/libpq/bin",
];

impl Tools {
    /// The programs for a server of `server_version_num` (e.g. 150018), from the folder `pg_bin` alone where it is
    /// given, else from `PATH` and the usual folders.
    ///
    /// # Errors
    /// Of class *unreachable*: pg_dump or psql is missing, or pg_dump is older than the server.
    pub async fn find(server_version_num: u32, pg_bin: Option<&Path>) -> Result<Self, Error> {
        let needed = server_version_num / 10_000;
        let folders = Folders::new(pg_bin);
        let pg_dump = folders.suitable("pg_dump", needed).await?;
        let psql = folders.newest("psql", needed).await?;
        let pg_dumpall = folders.suitable("pg_dumpall", needed).await.ok();
        Ok(Self { pg_dump, psql, pg_dumpall })
    }

    /// psql alone, which is all that a restore needs: the newest, since it runs on older and newer servers.
    ///
    /// # Errors
    /// Of class *unreachable*: it is missing.
    pub async fn find_psql(server_version_num: u32, pg_bin: Option<&Path>) -> Result<Tool, Error> {
        Folders::new(pg_bin).newest("psql", server_version_num / 10_000).await
    }

    /// A server's program `postgres`, with `initdb` beside it, that takes the dump of a server of `server_version_num`.
    ///
    /// # Errors
    /// Of class *unreachable*: there is none, or all are older.
    pub async fn find_server(server_version_num: u32, pg_bin: Option<&Path>) -> Result<Tool, Error> {
        Folders::new(pg_bin).suitable("postgres", server_version_num / 10_000).await
    }
}

struct Folders {
    folders: Vec<PathBuf>,
    described: String,
    /// How long each program is waited for.
    patience: Duration,
}

impl Folders {
    fn new(pg_bin: Option<&Path>) -> Self {
        if let Some(folder) = pg_bin {
            let described = folder.display().to_string();
            return Self { folders: vec![folder.to_owned()], described, patience: PATIENCE };
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::env::split_paths(&path).chain(FOLDERS.iter().flat_map(|pattern| expand(pattern))).collect();
        Self { folders, described: "PATH and the usual folders of PostgreSQL".to_owned(), patience: PATIENCE }
    }

    /// All programs of this name, each once. One that cannot be run (it may be a folder) is an error only where there is no
    /// other.
    async fn all(&self, name: &'static str) -> Result<Vec<Tool>, Error> {
        let mut seen = HashSet::new();
        let (mut tools, mut broken) = (Vec::new(), None);
        for folder in &self.folders {
            let path = folder.join(name);
            let Ok(real) = path.canonicalize() else { continue };
            // Debian's wrapper starts another version according to the machine's clusters.
            if real.file_name().is_some_and(|name| name == "pg_wrapper") || !seen.insert(real) {
                continue;
            }
            match Tool::ask(path, self.patience).await {
                Ok(tool) => tools.extend(tool),
                Err(error) => {
                    tracing::info!("passed over: {}", chain(&error));
                    broken.get_or_insert(error);
                }
            }
        }
        match broken {
            Some(error) if tools.is_empty() => Err(error),
            _ => Ok(tools),
        }
    }

    fn missing(&self, program: &'static str, needed: u32) -> Error {
        Error::ToolMissing { program, searched: self.described.clone(), needed }
    }

    async fn newest(&self, program: &'static str, needed: u32) -> Result<Tool, Error> {
        let tools = self.all(program).await?;
        tools.into_iter().max_by_key(|tool| tool.number).ok_or_else(|| self.missing(program, needed))
    }

    async fn suitable(&self, program: &'static str, needed: u32) -> Result<Tool, Error> {
        let tools = self.all(program).await?;
        let best = tools.into_iter().max_by_key(|tool| (tool.number.0 == needed, tool.number));
        let tool = best.ok_or_else(|| self.missing(program, needed))?;
        if tool.number.0 < needed {
            return Err(Error::ToolTooOld { program, path: tool.path, found: tool.version, needed });
        }
        Ok(tool)
    }
}

/// The folders that a pattern with at most one `*` stands for.
fn expand(pattern: &str) -> Vec<PathBuf> {
    let Some((before, after)) = pattern.split_once('*') else { return vec![PathBuf::from(pattern)] };
    let (parent, prefix) = before.rsplit_once('/').unwrap_or(("", before));
    let Ok(entries) = std::fs::read_dir(parent) else { return Vec::new() };
    let names = entries.filter_map(|entry| Some(entry.ok()?.file_name()));
    let names = names.filter(|name| name.as_encoded_bytes().starts_with(prefix.as_bytes()));
    names.map(|name| Path::new(parent).join(name).join(after.trim_start_matches('/'))).collect()
}

impl Tool {
    /// Asks the program for its version; `None` where it does not answer like one of PostgreSQL's.
    async fn ask(path: PathBuf, patience: Duration) -> Result<Option<Self>, Error> {
        let mut command = Command::new(&path);
        command.arg("--version").stdin(Stdio::null()).kill_on_drop(true);
        let output = match tokio::time::timeout(patience, command.output()).await {
            Ok(output) => output,
            Err(_) => Err(std::io::Error::other("it does not say its version")),
        };
        let output = output.map_err(|source| Error::ToolBroken { path: path.clone(), source })?;
        let said = String::from_utf8_lossy(&output.stdout);
        // `pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`
        let Some((_, version)) = said.trim().split_once("(PostgreSQL) ") else { return Ok(None) };
        let Some(number) = version_number(version) else { return Ok(None) };
        Ok(Some(Self { path, version: version.to_owned(), number }))
    }
}

fn version_number(version: &str) -> Option<(u32, u32)> {
    let number = version.split_whitespace().next()?;
    let digits = |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>();
    let major = digits(number);
    let minor = number[major.len()..].strip_prefix('.').map(digits).unwrap_or_default();
    Some((major.parse().ok()?, minor.parse().unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A program that only says its version; the file system under test is real.
    fn fake(folder: &Path, name: &str, version: &str) {
        let path = folder.join(name);
        std::fs::write(&path, format!("#!/bin/sh\necho '{name} (PostgreSQL) {version}'\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn folders(folders: &[&Path]) -> Folders {
        let folders = folders.iter().map(|folder| folder.to_path_buf()).collect();
        Folders { folders, described: "x".to_owned(), patience: PATIENCE }
    }

    #[test]
    fn versions() {
        assert_eq!(version_number("15.18 (Debian 15.18-0+deb12u1)"), Some((15, 18)));
        assert_eq!(version_number("18beta1"), Some((18, 0)));
        assert_eq!(version_number("devel"), None);
    }

    #[tokio::test]
    async fn the_servers_own_version_comes_first_then_the_newest() {
        let folder = tempfile::tempdir().unwrap();
        let mut folders = folders(&[]);
        for version in ["15.2", "13.1", "17.4", "16.9"] {
            let bin = folder.path().join(version);
            std::fs::create_dir(&bin).unwrap();
            fake(&bin, "pg_dump", version);
            folders.folders.push(bin);
        }
        assert_eq!(folders.suitable("pg_dump", 15).await.unwrap().number, (15, 2));
        assert_eq!(folders.suitable("pg_dump", 14).await.unwrap().number, (17, 4));
        assert_eq!(folders.newest("pg_dump", 13).await.unwrap().number, (17, 4));
        let error = folders.suitable("pg_dump", 18).await.unwrap_err().to_string();
        assert!(error.contains("17.4") && error.contains("18"), "{error}");
        assert!(matches!(folders.newest("psql", 15).await, Err(Error::ToolMissing { needed: 15, .. })));
    }
    #[tokio::test]
    async fn what_cannot_be_run_hides_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let [directory, text, silent, sound] =
            ["directory", "text", "silent", "sound"].map(|name| folder.path().join(name));
        std::fs::create_dir_all(directory.join("psql")).unwrap();
        for bin in [&text, &silent, &sound] {
            std::fs::create_dir(bin).unwrap();
        }
        std::fs::write(text.join("psql"), "").unwrap();
        std::fs::write(silent.join("psql"), "#!/bin/sh\nexec sleep 600\n").unwrap();
        std::fs::set_permissions(silent.join("psql"), std::fs::Permissions::from_mode(0o755)).unwrap();
        fake(&sound, "psql", "15.2");
        assert_eq!(folders(&[&directory, &text, &sound]).newest("psql", 15).await.unwrap().number, (15, 2));
        assert_eq!(folders(&[&sound, &directory]).suitable("psql", 15).await.unwrap().number, (15, 2));

        let only = folders(&[&directory, &text]).newest("psql", 15).await.unwrap_err();
        assert!(matches!(&only, Error::ToolBroken { path, .. } if path.starts_with(&directory)), "{only}");
        let hanging = Folders { patience: Duration::from_millis(100), ..folders(&[&silent]) };
        let hanging = hanging.newest("psql", 15).await.unwrap_err();
        assert!(matches!(hanging, Error::ToolBroken { .. }), "{hanging}");
    }
}
