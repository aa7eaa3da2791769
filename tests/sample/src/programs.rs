//! Where PostgreSQL's programs lie: the distribution's, those on the path, and those that `tests/setup.sh` has put into
//! the cache of test tools. Servers and clients are looked up apart, since some of the cached servers come without any
//! client, and since a dump of a newer server needs a newer `pg_dump`.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

/// The `bin` directory of a server of this major version; the environment's `PACHARC_TEST_PG<major>` wins.
#[must_use]
pub fn server(major: u32) -> Option<PathBuf> {
    let named = env::var_os(format!("PACHARC_TEST_PG{major}")).map(PathBuf::from);
    named.or_else(|| installed().into_iter().find(|(m, bin)| *m == major && is_server(bin)).map(|(_, bin)| bin))
}

/// The server to test with where the version does not matter: the first one installed, in the order of [`installed`].
#[must_use]
pub fn any_server() -> Option<(u32, PathBuf)> {
    installed().into_iter().find(|(_, bin)| is_server(bin))
}

/// A client program (`psql`, `pg_dump`, …) of at least this major version: the oldest that will do, so that tests meet
/// the version a user would have.
#[must_use]
pub fn client(program: &str, at_least: u32) -> Option<PathBuf> {
    let mut fitting: Vec<_> =
        installed().into_iter().filter(|(major, bin)| *major >= at_least && bin.join(program).is_file()).collect();
    fitting.sort_by_key(|(major, _)| *major);
    fitting.into_iter().next().map(|(_, bin)| bin.join(program))
}

/// Every `bin` directory of PostgreSQL on this machine with its major version: Debian's folders (newest first), those on
/// the path, then the cache.
#[must_use]
pub fn installed() -> Vec<(u32, PathBuf)> {
    let mut found = versions_below(Path::new("/usr/lib/postgresql"));
    for dir in env::split_paths(&env::var_os("PATH").unwrap_or_default()) {
        if dir.join("initdb").is_file()
            && let Some(major) = ask_version(&dir)
        {
            found.push((major, dir));
        }
    }
    found.extend(versions_below(&tools_dir().join("postgresql")));
    found
}

/// The cache of test tools, as `tests/setup/tools-dir.sh` has it: a server runs as another user than root, who cannot
/// look into root's home.
#[must_use]
pub fn tools_dir() -> PathBuf {
    if let Some(dir) = env::var_os("PACHARC_TOOLS") {
        return dir.into();
    }
    match env::var_os("HOME") {
        Some(home) if !is_root() => Path::new(&home).join(".cache/pacharc-tests"),
        _ => "/var/cache/pacharc-tests".into(),
    }
}

/// Whether this process runs as root, under which a PostgreSQL server refuses to start.
#[must_use]
pub fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

fn is_server(bin: &Path) -> bool {
    ["initdb", "pg_ctl", "postgres"].iter().all(|program| bin.join(program).is_file())
}

/// `<root>/<major>/bin`, newest first.
fn versions_below(root: &Path) -> Vec<(u32, PathBuf)> {
    let mut found: Vec<_> = fs::read_dir(root)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .filter(|(_, bin)| bin.is_dir())
        .collect();
    found.sort_by_key(|(major, _): &(u32, PathBuf)| Reverse(*major));
    found
}

/// The major version, asked once, in `initdb (PostgreSQL) 15.18 (…)`.
fn ask_version(bin: &Path) -> Option<u32> {
    static ASKED: Mutex<BTreeMap<PathBuf, Option<u32>>> = Mutex::new(BTreeMap::new());
    let ask = || {
        let output = Command::new(bin.join("initdb")).arg("--version").output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        text.split_whitespace().nth(2)?.split('.').next()?.parse().ok()
    };
    *ASKED.lock().ok()?.entry(bin.to_owned()).or_insert_with(ask)
}
