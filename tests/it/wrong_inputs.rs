//! Sources, targets, outputs and tools that are not what they should be: each has its exit code, a message that says what
//! is wrong with what, and a hint; no half-made file has a final name, and no child is left.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use pacharc_sample::bucket::{Bucket, Directory};
use pacharc_sample::cluster::{self, Options};
use pacharc_sample::postgres::{self, TempServer};
use pacharc_sample::programs;

use crate::support::cluster::{Cluster, target, target_server};
use crate::support::fault_server::{Fault, FaultServer};
use crate::support::program::{Desk, Run, Running, under, wait_until, words};
use crate::support::s3_server::free_port;

/// What a run that must fail says.
struct Case<'a> {
    what: &'a str,
    args: Vec<String>,
    code: i32,
    says: &'a str,
}

impl Case<'_> {
    fn check(&self, desk: &Desk) {
        let Self { what, args, code, says } = self;
        let run = desk.run(args);
        assert_eq!(run.status.code(), Some(*code), "{what}: {}", run.stderr);
        assert!(run.stderr.contains(says), "{what}: {says:?} is not in {}", run.stderr);
        assert_refused(desk, what, &run);
    }
}

/// Nothing is left, and something is advised.
fn assert_refused(desk: &Desk, what: &str, run: &Run) {
    assert!(run.has_advice(), "{what}: no hint in {}", run.stderr);
    assert!(!desk.path("c.pacharc").exists(), "{what}: there is a bundle");
    assert_eq!(desk.leftovers(), [""; 0], "{what}");
}

/// A folder with programs of this text beside the real psql; `$real` is the real pg_dump.
pub fn tools(desk: &Desk, name: &str, pg_dump: &str) -> PathBuf {
    let folder = desk.path(name);
    std::fs::create_dir(&folder).unwrap();
    let real = programs::client("pg_dump", 0).unwrap();
    std::os::unix::fs::symlink(real.with_file_name("psql"), folder.join("psql")).unwrap();
    let text = format!("#!/bin/sh\nreal={}\n{pg_dump}\n", real.display());
    std::fs::write(folder.join("pg_dump"), text).unwrap();
    std::fs::set_permissions(folder.join("pg_dump"), std::fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

const VERSION: &str = r#"[ "$1" = --version ] && exec "$real" --version"#;

/// Whether a process whose command line names this path is alive.
fn is_running(path: &Path) -> bool {
    let path = path.to_string_lossy();
    std::fs::read_dir("/proc").unwrap().flatten().any(|process| {
        let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        line.contains(path.as_ref()) && !line.contains("pacharc\0backup")
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn sources() {
    let desk = Desk::new();
    let Some(cluster) = Cluster::small(&desk, "sources").await else { return };
    cluster.server.psql("postgres", "CREATE ROLE reader LOGIN").unwrap();
    let grants =
        "DO $$ DECLARE s text; BEGIN FOR s IN SELECT nspname FROM pg_namespace WHERE nspname !~ '^(pg_|inf)' LOOP
            EXECUTE format('GRANT USAGE ON SCHEMA %I TO reader', s);
            EXECUTE format('GRANT SELECT ON ALL TABLES IN SCHEMA %I TO reader', s);
            EXECUTE format('GRANT SELECT ON ALL SEQUENCES IN SCHEMA %I TO reader', s); END LOOP; END $$";
    for database in [&cluster.database, &cluster.dex] {
        cluster.server.psql(database, grants).unwrap();
    }
    let as_reader = |database: &str| {
        let url = cluster.server.url_as("reader", "postgres");
        words(&["--postgres", &url, "--database", database, "--database", &cluster.dex])
    };
    let backup = |source: Vec<String>| desk.backup_args(&source, "c.pacharc", &[]);
    // With all rights it goes well.
    desk.run(desk.backup_args(&as_reader(&cluster.database), "reader.pacharc", &[])).code(0);
    cluster.server.psql(&cluster.database, "REVOKE SELECT ON storage.filesets FROM reader").unwrap();

    let nowhere = format!("postgres://postgres@127.0.0.1:{}/postgres", free_port());
    let url = cluster.server.url("postgres");
    let cases = [
        ("no permission on one table", backup(as_reader(&cluster.database)), 6, "storage.filesets"),
        ("no such role", backup(words(&["--postgres", &cluster.server.url_as("nobody", "postgres")])), 6, "nobody"),
        ("no such database", backup(words(&["--postgres", &url, "--database", "absent_db"])), 7, "absent_db"),
        ("no such server", backup(words(&["--postgres", &nowhere])), 7, "127.0.0.1"),
        ("no such host", backup(words(&["--postgres", "postgres://u@host.invalid/d"])), 7, "host.invalid"),
        (
            "a password on the command line",
            backup(words(&["--postgres", "postgres://u:hidden@h/d"])),
            2,
            "PACHARC_POSTGRES",
        ),
        (
            "an unsupported parameter",
            backup(words(&["--postgres", &format!("{url}?gssencmode=require")])),
            2,
            "gssencmode",
        ),
        ("no URL of a bucket", backup(words(&["--bucket", "ftp://x/y"])), 2, "ftp"),
        ("no such directory", backup(words(&["--bucket", &desk.bucket("absent")])), 7, "absent"),
    ];
    for (what, args, code, says) in cases {
        Case { what, args, code, says }.check(&desk);
    }
    let run = desk.run(backup(words(&["--postgres", "postgres://u:hidden@h/d"])));
    assert!(!run.stderr.contains("hidden"), "{}", run.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn outputs() {
    let desk = Desk::new();
    let Some(cluster) = Cluster::small(&desk, "outputs").await else { return };
    let backup = |output: &str| desk.backup_args(&cluster.source(), output, &[]);
    std::fs::write(desk.path("there"), "precious").unwrap();
    std::os::unix::fs::symlink("nowhere", desk.path("link")).unwrap();
    let cases = [
        ("the output exists", backup("there"), 5, "there exists"),
        ("the output is a dangling link", backup("link"), 5, "link exists"),
        ("the output's folder is absent", backup("absent/c.pacharc"), 1, "absent/c.pacharc"),
        ("the output is a folder", backup("source"), 5, "exists"),
        ("no such bucket", backup(&format!("s3://b/c?endpoint=http://127.0.0.1:{}", free_port())), 7, "127.0.0.1"),
    ];
    for (what, args, code, says) in cases {
        Case { what, args, code, says }.check(&desk);
    }
    assert_eq!(std::fs::read(desk.path("there")).unwrap(), b"precious");

    // More than the disk holds, and more than is foreseen: no row names it.
    let bytes: Vec<u8> = (0..200_000_u32).flat_map(|n| *blake3::hash(&n.to_le_bytes()).as_bytes()).collect();
    cluster.bucket.put("big", bytes.into()).await.unwrap();
    let args = backup("c.pacharc").iter().map(|arg| format!("'{arg}'")).collect::<Vec<_>>().join(" ");
    let mut limited = desk.command([""; 0]);
    let program = limited.get_program().to_owned();
    limited = {
        let mut shell = Command::new("sh");
        shell.envs(limited.get_envs().filter_map(|(name, value)| Some((name, value?)))).current_dir(desk.folder());
        shell.arg("-c").arg(format!("trap '' XFSZ; ulimit -f 4000; exec '{}' {args}", program.display()));
        shell
    };
    let run = Running::start(&mut limited).finish().code(1).says("File too large").advises();
    assert!(!desk.path("c.pacharc").exists(), "{}", run.stderr);
    assert_eq!(desk.leftovers(), [""; 0]);

    let disk = desk.path("disk");
    std::fs::create_dir(&disk).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"]).arg(&disk).output();
    if !mounted.is_ok_and(|mounted| mounted.status.success()) {
        pacharc_sample::skipped("a full disk: a small one cannot be mounted here");
        return;
    }
    let run = desk.run(backup("disk/c.pacharc"));
    let left = std::fs::read_dir(&disk).unwrap().count();
    assert!(Command::new("umount").arg(&disk).status().unwrap().success());
    run.code(1).says("No space left").advises();
    assert_eq!(left, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn tools_that_are_missing_old_or_die() {
    let desk = Desk::new();
    let Some(cluster) = Cluster::small(&desk, "tools").await else { return };
    let with = |folder: &Path| {
        desk.backup_args(&cluster.source(), "c.pacharc", &["--pg-bin", &folder.to_string_lossy(), "--jobs", "2"])
    };
    // The wrapper itself harms nothing.
    let sound = tools(&desk, "sound", "exec \"$real\" \"$@\"");
    desk.run(desk.backup_args(&cluster.source(), "sound.pacharc", &["--pg-bin", &sound.to_string_lossy()])).code(0);

    let empty = desk.path("empty");
    std::fs::create_dir(&empty).unwrap();
    let old = tools(&desk, "old", "echo 'pg_dump (PostgreSQL) 9.6.24'");
    let half = r#""$real" "$@" | head -c 700; kill -KILL $$"#;
    let killed = tools(&desk, "killed", &format!("{VERSION}\n{half}"));
    let fails = tools(&desk, "fails", &format!("{VERSION}\n\"$real\" \"$@\"; echo 'out of luck' >&2; exit 3"));
    let silent = tools(&desk, "silent", &format!("{VERSION}\n\"$real\" \"$@\" | head -c 700"));
    let cases = [
        ("pg_dump is missing", with(&empty), 7, "pg_dump"),
        ("pg_dump is older than the server", with(&old), 7, "9.6.24"),
        ("pg_dump is killed half-way", with(&killed), 7, "pg_dump"),
        ("pg_dump fails when all is written", with(&fails), 7, "out of luck"),
        ("pg_dump ends early and says that all is well", with(&silent), 7, "pg_dump"),
    ];
    for (what, args, code, says) in cases {
        Case { what, args, code, says }.check(&desk);
    }
    // What comes again word for word is not written into the bundle five times.
    let one = words(&["--postgres", &cluster.server.url("postgres"), "--database", &cluster.dex]);
    let more = ["--pg-bin", &fails.to_string_lossy(), "--json-file", "events"];
    let run = desk.backup(&one, "c.pacharc", &more).code(7).says("2 attempts to dump failed").says("out of luck");
    assert_refused(&desk, "it fails twice alike", &run);
    let events = std::fs::read_to_string(desk.path("events")).unwrap();
    assert_eq!(events.matches("\"attempt_failed\"").count(), 2, "{events}");
    for folder in [&killed, &fails, &silent] {
        wait_until("no pg_dump is left", || !is_running(folder));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_goes_away_half_way() {
    let desk = Desk::new();
    let Some(server) = TempServer::start_or_skip(&postgres::Options::default()).unwrap() else { return };
    let bucket: Arc<dyn Bucket> = Arc::new(Directory::new(desk.path("source")));
    cluster::make(&server.url("postgres"), bucket, &Options { objects: 20, ..Options::default() }).await.unwrap();
    let sleeping =
        tools(&desk, "sleeping", &format!("{VERSION}\ntouch '{}'; exec sleep 3210", desk.path("x").display()));
    let source = words(&["--postgres", &server.url("postgres"), "--bucket", &desk.bucket("source")]);
    let args = desk.backup_args(&source, "c.pacharc", &["--pg-bin", &sleeping.to_string_lossy()]);
    let running = Running::start(&mut desk.command(args));
    wait_until("pg_dump runs", || desk.path("x").exists());
    server.kill().unwrap();
    let run = running.finish().code(7);
    assert_refused(&desk, "the server is gone", &run);
    let sleeper = || Command::new("pgrep").args(["-f", "sleep 3210"]).output().is_ok_and(|o| !o.stdout.is_empty());
    wait_until("no pg_dump is left", || !sleeper());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_away_for_a_while_or_for_good() {
    let desk = Desk::new();
    let server = Arc::new(FaultServer::start().await);
    let bucket: Arc<dyn Bucket> = Arc::clone(&server) as Arc<dyn Bucket>;
    let Some(cluster) = Cluster::make_in(bucket, &server.url(), "away", Options::default()).await else { return };
    let busy = || Fault::Refuse(503, "SlowDown");
    let live = cluster.live().await;
    server.plan_for("GET", &live[3], [busy(), Fault::Cut(1), busy(), Fault::Lost]);
    server.plan_for("GET", &live[20], [Fault::Refuse(500, "InternalError"), Fault::Short(1)]);
    desk.backup(&cluster.source(), "while.pacharc", &[]).code(0).says("closed: all 203 live");
    desk.run(["verify", "while.pacharc", "--identity", "key.txt"]).code(0);

    // The same on the way back; an upload in parts, too.
    let target_server = Arc::new(FaultServer::start().await);
    target_server.plan("PUT", [busy(), Fault::Lost, busy(), Fault::Pass, busy()]);
    target_server.plan_for("PUT", &live[5], [busy(), Fault::Lost]);
    desk.restore("while.pacharc", &target(&target_server.url()), &[]).code(0);
    let restored: Arc<dyn Bucket> = target_server;
    cluster.assert_restored(&restored).await;

    // Forbidden is not a matter of time.
    server.plan_for("GET", &live[3], [Fault::Refuse(403, "AccessDenied")]);
    let run = desk.backup(&cluster.source(), "c.pacharc", &[]).code(6).says(&live[3]);
    assert_refused(&desk, "forbidden", &run);

    // Every request is refused from here on: patience ends after three minutes.
    server.plan_for("GET", &live[0], std::iter::repeat_n(busy(), 1000));
    let run = desk.backup(&cluster.source(), "c.pacharc", &[]).code(7).says(&live[0]);
    assert_refused(&desk, "gone for good", &run);
}

/// An upload of the bundle that fails half-way is the error, not the pipe to it; and it is taken back.
#[tokio::test(flavor = "multi_thread")]
async fn an_output_that_refuses_half_way() {
    let desk = Desk::new();
    let server = FaultServer::start().await;
    let mut bytes = vec![0; 40 << 20];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    std::fs::create_dir(desk.path("source")).unwrap();
    std::fs::write(desk.path("source/big"), bytes).unwrap();
    let output = server.url().replace("s3://bucket", "s3://bucket/c.pacharc");
    let source = words(&["--bucket", &desk.bucket("source")]);
    server.plan_for("PUT", "c.pacharc", [Fault::Pass, Fault::Refuse(403, "AccessDenied")]);
    desk.backup(&source, &output, &[]).code(6).says("AccessDenied").advises();
    assert!(server.keys().is_empty() && !server.uploading());
    server.plan_for("PUT", "c.pacharc", [Fault::Pass, Fault::Lost, Fault::Refuse(503, "SlowDown")]);
    desk.backup(&source, &output, &[]).code(0);
    desk.run(["verify", &output, "--identity", "key.txt"]).code(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_may_not_grow() {
    let desk = Desk::new();
    let Some(cluster) = Cluster::small(&desk, "may_not_grow").await else { return };
    let args = desk.backup_args(&cluster.source(), "c.pacharc", &[]);
    // A limit that is met by a signal, which must not end the program before it has cleared away.
    let mut limited = under(&["prlimit", "--fsize=100000"], &desk.command(args));
    Running::start(&mut limited).finish().code(1).says("File too large").says("limit on the size of files").advises();
    assert!(!desk.path("c.pacharc").exists());
    assert_eq!(desk.leftovers(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn targets() {
    let desk = Desk::new();
    let Some(cluster) = Cluster::small(&desk, "targets").await else { return };
    let Some(to) = target_server() else { return };
    desk.backup(&cluster.source(), "good", &[]).code(0);
    let url = to.url("postgres");
    let restore = |args: &[&str]| Desk::restore_args("good", &words(args), &[]);
    let database = |server: &str, to: &str| {
        words(&["restore", "good", "--identity", "key.txt", "--postgres", server, "--database", to])
    };
    to.psql("postgres", "CREATE DATABASE not_empty; CREATE ROLE limited LOGIN").unwrap();
    to.psql("not_empty", "CREATE TABLE precious (a int)").unwrap();
    let full = Directory::new(desk.path("full"));
    full.put("chunk/precious", "x".into()).await.unwrap();
    let holds_one = Directory::new(desk.path("holds_one"));
    holds_one.put(&cluster.made.foreign[0], "x".into()).await.unwrap();

    let not_empty = format!("{}=not_empty", cluster.database);
    let (main, other) = (cluster.database.clone(), format!("{}=x_limited", cluster.database));
    let new = words(&["--bucket", &desk.bucket("new/bucket")]);
    let nowhere = format!("postgres://postgres@127.0.0.1:{}/postgres", free_port());
    let cases = [
        ("a database that is not empty", database(&url, &not_empty), 5, "precious"),
        ("the same, beside a new bucket", [database(&url, &not_empty), new.clone()].concat(), 5, "precious"),
        (
            "the source beside a new bucket",
            [database(&cluster.server.url("postgres"), &main), new].concat(),
            5,
            "source",
        ),
        ("a bucket that is not empty", restore(&["--bucket", &desk.bucket("full")]), 5, "chunk/precious"),
        ("a bucket that holds one key", restore(&["--bucket", &desk.bucket("holds_one")]), 5, "test/"),
        ("the source's database", database(&cluster.server.url("postgres"), &main), 5, "is the source"),
        ("the source's bucket", restore(&["--bucket", &cluster.bucket_url]), 5, "is the source"),
        ("a role that may not", database(&to.url_as("limited", "postgres"), &other), 6, "limited"),
        ("a prefix", restore(&["--bucket", "s3://b/prefix?endpoint=http://127.0.0.1:1"]), 5, "prefix"),
        ("no such database in it", database(&url, "absent=x"), 2, "absent"),
        ("no such owner", [database(&url, &main), words(&["--owner", "who"])].concat(), 5, "who"),
        ("no such server", restore(&["--postgres", &nowhere]), 7, "127.0.0.1"),
        ("psql is missing", [database(&url, &main), words(&["--pg-bin", "/"])].concat(), 7, "psql"),
        ("no target", restore(&[]), 2, "--postgres"),
    ];
    for (what, args, code, says) in cases {
        Case { what, args, code, says }.check(&desk);
    }
    assert_eq!(to.psql("not_empty", "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").unwrap(), "1");
    assert_eq!(full.keys().await.unwrap(), ["chunk/precious"]);
    assert_eq!(holds_one.get(&cluster.made.foreign[0]).await.unwrap().unwrap(), "x");
    assert!(!desk.path("new").exists(), "a refusal leaves nothing");
    cluster.assert_not_restored();
}
