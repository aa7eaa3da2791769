//! Dumps of real databases: complete, loadable by psql, and never of an empty table.

mod changes;
mod content;

use std::collections::{BTreeMap, HashMap};
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::TryStreamExt as _;
use pacharc::database::{Attempt, Environment, Error, LiveChunk, Progress, Server, Tools, inspect};
use pacharc::feed::Feed;
use pacharc_format::manifest::Database;
use pacharc_sample::postgres::TempServer;

use crate::support::postgres::{self, Use as _};

/// The entries of a dump, joined: `pre-data.sql`, `data/00001`, …; and the number of pieces of each.
#[derive(Debug, Default)]
struct Dumped {
    databases: Vec<Database>,
    files: BTreeMap<String, Vec<u8>>,
    /// Every entry's path, in the order of the bundle.
    order: Vec<String>,
    /// Bytes of COPY text, as reported on the way.
    reported: u64,
}

fn server(postgres: &TempServer) -> Server {
    Server::new(Some(&postgres.socket()), false, &Environment::of_process(), None).unwrap()
}

async fn open(postgres: &TempServer, server: &Server, names: &[&str]) -> Result<Attempt, Error> {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let surveys = inspect(server, &names).await?;
    let tools = Tools::find(surveys[0].server.version_num, Some(postgres.bin_dir())).await?;
    Attempt::open(server, &tools, &surveys, 1).await
}

/// Dumps an attempt through a feed of small pieces.
async fn collect(attempt: Attempt, jobs: usize) -> Result<Dumped, Error> {
    let (feed, mut entries) = Feed::new(8 << 20, 1 << 20);
    let collecting = tokio::spawn(async move {
        let mut dumped = Dumped::default();
        let mut pieces: HashMap<String, usize> = HashMap::new();
        while let Some(entry) = entries.recv().await {
            assert!(entry.body.len() <= 1 << 20, "{}", entry.path);
            let path = entry.path.splitn(4, '/').nth(3).unwrap();
            // A piece follows its predecessor.
            let (name, piece) = match path.rsplit_once('/') {
                Some((folder, number)) => (folder, number.parse().unwrap()),
                None => (path, 0),
            };
            // Two databases have folders of the same names.
            let folder = entry.path.rsplit_once('/').map_or("", |(folder, _)| folder);
            if name != path {
                let next = pieces.entry(folder.to_owned()).or_default();
                assert_eq!(*next, piece, "{}", entry.path);
                *next += 1;
            }
            dumped.order.push(path.to_owned());
            dumped.files.entry(name.to_owned()).or_default().extend_from_slice(entry.body.first());
        }
        dumped
    });
    let reported = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&reported);
    let count = move |progress: Progress| {
        if let Progress::Bytes(bytes) = progress {
            counter.fetch_add(bytes, Ordering::Relaxed);
        }
    };
    let databases = attempt.dump(&feed, jobs, count).await;
    drop(feed);
    let dumped = collecting.await.unwrap();
    Ok(Dumped { databases: databases?, reported: reported.load(Ordering::Relaxed), ..dumped })
}

async fn dump(postgres: &TempServer, name: &str) -> Result<Dumped, Error> {
    collect(open(postgres, &server(postgres), &[name]).await?, 3).await
}

/// Loads a dump of one database into a new one, with nothing but psql.
fn load(postgres: &TempServer, dumped: &Dumped, target: &str) {
    postgres.sql("postgres", &format!("CREATE DATABASE {target} TEMPLATE template0"));
    let mut names: Vec<&str> = dumped.files.keys().map(String::as_str).collect();
    let rank = |name: &str| {
        ["pre-data", "data/", "large-objects", "sequences", "post-data"]
            .iter()
            .position(|prefix| name.starts_with(prefix))
    };
    names.retain(|name| rank(name).is_some());
    names.sort_by_key(|name| (rank(name), *name));
    let version: u32 = postgres.sql("postgres", "SHOW server_version_num").trim().parse().unwrap();
    for name in names {
        let mut psql = postgres.command("psql");
        psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", target]);
        let mut child = psql.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        let mut body = dumped.files[name].clone();
        // A newer pg_dump's preamble, which an older server stumbles over.
        let line = b"SET transaction_timeout = 0;\n";
        if let Some(at) = body.windows(line.len()).take(2000).position(|w| w == line).filter(|_| version < 170_000) {
            body.drain(at..at + line.len());
        }
        let writing = std::thread::spawn(move || input.write_all(&body));
        let output = child.wait_with_output().unwrap();
        writing.join().unwrap().ok();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// What pg_dump says of a database, without what differs each time.
fn plain_dump(postgres: &TempServer, database: &str, what: &str) -> String {
    let mut command = postgres.command("pg_dump");
    command.args([what, "--no-owner", "--no-privileges", "--no-publications", "--restrict-key=x", database]);
    // Settings of the database must not reach this.
    let mut options = "-c statement_timeout=0 -c lock_timeout=0 -c TimeZone=UTC".to_owned();
    if postgres.sql("postgres", "SHOW server_version_num").trim() >= "140000" {
        options += " -c idle_session_timeout=0";
    }
    command.env("PGOPTIONS", options);
    crate::support::postgres::run(&mut command)
}

async fn live(attempt: &Attempt) -> Vec<LiveChunk> {
    attempt.live_set().await.unwrap().try_collect().await.unwrap()
}

/// A database that is Pachyderm's by what it has, and its table of migrations with these rows.
fn with_migrations(postgres: &TempServer, rows: &str) {
    postgres.sql("postgres", "CREATE DATABASE pachyderm");
    let tables = "CREATE SCHEMA storage; CREATE TABLE storage.chunk_objects ();
         CREATE TABLE migrations (id bigint, name varchar(250), start_time timestamp, end_time timestamp);";
    postgres.sql("pachyderm", &format!("{tables} INSERT INTO migrations VALUES {rows}"));
}

/// The recorded state of a real cluster; `None`, having said so, where it is absent.
fn fixture(postgres: &TempServer, file: &str, database: &str) -> Option<()> {
    let folder = std::env::var("PACHARC_FIXTURES")
        .unwrap_or_else(|_| format!("{}/../shared/fixtures", env!("CARGO_MANIFEST_DIR")));
    let path = Path::new(&folder).join("pachyderm-2.11.6").join(file);
    if !path.exists() {
        println!("skipped: {} is absent", path.display());
        return None;
    }
    postgres
        .sql("postgres", "DO $$ BEGIN CREATE ROLE pachyderm SUPERUSER; EXCEPTION WHEN duplicate_object THEN END $$");
    postgres.sql("postgres", &format!("CREATE DATABASE {database}"));
    let mut zstd = std::process::Command::new("zstd").arg("-dc").arg(&path).stdout(Stdio::piped()).spawn().unwrap();
    let mut psql = postgres.command("psql");
    psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", database]).stdin(zstd.stdout.take().unwrap());
    assert!(psql.stdout(Stdio::null()).status().unwrap().success());
    assert!(zstd.wait().unwrap().success());
    Some(())
}
