//! Bundles that never lie on a disk: out to a pipe, in from a pipe.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use pacharc_sample::bucket::{Bucket, Directory};
use pacharc_sample::postgres::{self, TempServer};
use serde_json::Value;

use crate::support::cluster::{Cluster, target, target_server};
use crate::support::fault_server::{Fault, FaultServer};
use crate::support::program::{Desk, Run, Running, words};

/// Runs the first into the second; both ends.
fn piped(mut first: Command, mut second: Command) -> (Child, Run) {
    let mut first = first.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
    second.stdin(first.stdout.take().unwrap());
    let second = Running::start(&mut second).finish();
    (first, second)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_verified_and_restored_through_a_pipe() {
    let desk = Desk::new();
    let Some(cluster) = Cluster::small(&desk, "pipes").await else { return };
    let backup = || desk.command(desk.backup_args(&cluster.source(), "-", &["--quiet"]));

    for (args, says) in [
        (&["verify", "-"][..], "sound"),
        (&["verify", "-", "--identity", "key.txt"], "at level contents, closed"),
        (&["verify", "-", "--identity", "key.txt", "--level", "sums"], "sound"),
    ] {
        let (mut first, second) = piped(backup(), desk.command(args));
        assert!(first.wait().unwrap().success());
        second.code(0).says(says);
    }

    let restore = Desk::restore_args("-", &target(&desk.bucket("target")), &[]);
    let (mut first, second) = piped(backup(), desk.command(restore));
    assert!(first.wait().unwrap().success());
    second.code(0);
    let restored: Arc<dyn Bucket> = Arc::new(Directory::new(desk.path("target")));
    cluster.assert_restored(&restored).await;

    // The databases are there now. More than pipes and buffers hold:
    cluster.bucket.put("big", vec![7; 80 << 20].into()).await.unwrap();
    let restore = Desk::restore_args("-", &target(&desk.bucket("other")), &[]);
    let (mut first, second) = piped(backup(), desk.command(restore));
    second.code(5).says("exists").advises();
    assert!(!first.wait().unwrap().success(), "a backup that nobody reads is no backup");
    assert!(!desk.path("other/chunk").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn list_extract_and_inspect_read_a_pipe() {
    let desk = Desk::new();
    let Some(cluster) = Cluster::small(&desk, "pipes_read").await else { return };
    desk.backup(&cluster.source(), "c.pacharc", &[]).code(0);
    let read = |args: &[&str]| {
        let mut cat = Command::new("cat");
        cat.arg(desk.path("c.pacharc"));
        let (mut first, second) = piped(cat, desk.command(args));
        first.wait().unwrap();
        second
    };
    let key = ["--identity", "key.txt"];
    let from_file = desk.run([&["list", "c.pacharc"][..], &key].concat()).code(0).text();
    let from_pipe = read(&[&["list", "-"][..], &key].concat()).code(0).text();
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort_unstable();
        lines
    };
    assert_eq!(sorted(&from_file), sorted(&from_pipe));
    let path = format!("objects/{}", cluster.made.foreign[0].replace("test/", "other/test%2F"));
    let extracted = read(&[&["extract", "-", &path, "-o", "-"][..], &key].concat()).code(0);
    assert_eq!(extracted.stdout, b"test");
    read(&[&["extract", "-", "database", "objects", "-o", "all"][..], &key].concat()).code(0);
    for live in cluster.bucket.keys().await.unwrap().iter().filter(|key| key.starts_with("chunk/")) {
        let bytes = cluster.bucket.get(live).await.unwrap().unwrap();
        assert!(std::fs::read(desk.path(&format!("all/objects/{live}"))).unwrap() == bytes, "{live}");
    }
    read(&["inspect", "-"]).code(0);
}

/// A part of an object that the backup gave up lies in the bundle before the object that took its place.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_given_up_does_not_come_out_of_a_pipe() {
    let desk = Desk::new();
    let source = FaultServer::start().await;
    source.hold("large", vec![7; 9_000_000]);
    source.plan_for("GET", "large", [Fault::CutAndChange(8_000_000)]);
    desk.backup(&words(&["--bucket", &source.url()]), "c.pacharc", &["--max-memory", "64M"]).code(0);
    assert_eq!(source.planned(), 0);
    let read = |output: &str| {
        let mut cat = Command::new("cat");
        cat.arg(desk.path("c.pacharc"));
        let args = ["extract", "-", "objects/other/large", "--identity", "key.txt", "-o", output];
        let (mut first, second) = piped(cat, desk.command(args));
        first.wait().unwrap();
        second
    };
    read("out").code(0);
    assert!(std::fs::read(desk.path("out/objects/other/large")).unwrap() == b"another");
    // What went to standard output cannot be taken back.
    let run = read("-").code(1).advises().says("objects/other/large is a part that its backup gave up");
    assert!(!run.stdout.is_empty(), "the bundle holds a part that was given up");
    desk.run(["extract", "c.pacharc", "objects", "--identity", "key.txt", "-o", "all"]).code(0);
    assert!(std::fs::read(desk.path("all/objects/other/large")).unwrap() == b"another");
    desk.restore("c.pacharc", &words(&["--bucket", &desk.bucket("target")]), &[]).code(0);
    assert!(std::fs::read(desk.path("target/large")).unwrap() == b"another");
}

/// Objects in pieces are read side by side.
#[tokio::test(flavor = "multi_thread")]
async fn what_comes_mingled_is_not_mingled_on_standard_output() {
    let desk = Desk::new();
    let source = FaultServer::start().await;
    for (key, byte) in [("one", 1), ("two", 2)] {
        source.hold(key, vec![byte; 9_000_000]);
    }
    desk.backup(&words(&["--bucket", &source.url()]), "c.pacharc", &["--max-memory", "64M"]).code(0);
    let mut cat = Command::new("cat");
    cat.arg(desk.path("c.pacharc"));
    let args = ["extract", "-", "objects", "--identity", "key.txt", "-o", "-"];
    let (mut first, second) = piped(cat, desk.command(args));
    first.wait().unwrap();
    // Whether they are depends on the moment.
    match second.status.code() {
        Some(0) => {
            let halves = [second.stdout[0], second.stdout[17_999_999]].map(|byte| vec![byte; 9_000_000]);
            assert!(second.stdout == halves.concat() && halves[0] != halves[1]);
        }
        _ => drop(second.code(1).advises().says("come mingled from this pipe")),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_torn_pipe_brought_is_not_used() {
    let desk = Desk::new();
    let Some(cluster) = Cluster::small(&desk, "pipes_torn").await else { return };
    if target_server().is_none() {
        return;
    }
    desk.backup(&cluster.source(), "c.pacharc", &[]).code(0);
    let bundle = std::fs::read(desk.path("c.pacharc")).unwrap();
    let torn = |length: usize, args: Vec<String>| {
        let mut command = desk.command(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // It may stop reading.
        stdin.write_all(&bundle[..length]).ok();
        drop(stdin);
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (child.wait().unwrap().code(), said)
    };
    // Behind everything but the sums and the trailer; before the manifest; in the midst of the data.
    for length in [bundle.len() - 1024, bundle.len() - 1536, bundle.len() - 6000, bundle.len() - 60_000, 60_000] {
        let bucket = format!("target {length}");
        let (code, said) = torn(length, Desk::restore_args("-", &target(&desk.bucket(&bucket)), &[]));
        assert_eq!(code, Some(3), "{length}: {said}");
        assert!(said.contains("hint: "), "{length}: {said}");
        cluster.assert_not_restored();
        let (code, said) = torn(length, words(&["verify", "-"]));
        assert_eq!(code, Some(3), "{length}: {said}");
    }
}

/// What counts the databases that were made for this bundle under temporary names.
fn temporary(desk: &Desk, bundle: &str) -> String {
    let inspected = desk.run(["inspect", bundle, "--json"]).code(0).text();
    let inspected: Value = serde_json::from_str(inspected.lines().last().unwrap()).unwrap();
    let begin = &inspected["outcome"]["about"]["bundle"].as_str().unwrap()[..8];
    format!("SELECT count(*) FROM pg_database WHERE datname LIKE 'pacharc\\_{begin}\\_%'")
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_what_an_interrupted_pipe_brought() {
    let desk = Desk::new();
    let Some(cluster) = Cluster::small(&desk, "pipes_interrupted").await else { return };
    let Some(to) = target_server() else { return };
    desk.backup(&cluster.source(), "c.pacharc", &[]).code(0);
    let temporary = temporary(&desk, "c.pacharc");
    let bucket = FaultServer::start().await;
    let args = Desk::restore_args("-", &target(&bucket.url()), &[]);
    let from_pipe = || {
        let mut cat = Command::new("cat");
        let mut cat = cat.arg(desk.path("c.pacharc")).stdout(Stdio::piped()).spawn().unwrap();
        let mut restore = desk.command(&args);
        let running = Running::start(restore.stdin(cat.stdout.take().unwrap()));
        (cat, running)
    };
    // While objects are written, and databases are empty; when they are loaded and proved, and the bucket is listed; when its mark,
    // which is there already, is written once more.
    let object = cluster.live().await[4].clone();
    let moments =
        [("PUT", object.as_str(), "INT", 130), ("GET", "", "TERM", 143), ("PUT", "pacharc.restoring", "INT", 130)];
    for (method, key, signal, code) in moments {
        let mut gate = bucket.gate(method, key);
        let (mut cat, running) = from_pipe();
        gate.reached().await;
        assert_eq!(to.psql("postgres", &temporary).unwrap(), "2", "{method} {key}");
        running.signal(signal);
        running.finish().code(code).says("goes on where it stopped");
        cat.wait().unwrap();
        assert_eq!(to.psql("postgres", &temporary).unwrap(), "0", "{method} {key}");
    }
    cluster.assert_not_restored();
    let (mut cat, running) = from_pipe();
    running.finish().code(0);
    assert!(cat.wait().unwrap().success());
    cluster.assert_databases_restored();
}

/// A role may make a database that it is not let into.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_a_database_that_could_be_made_and_no_more() {
    let desk = Desk::new();
    let Some(cluster) = Cluster::small(&desk, "pipes_shut_out").await else { return };
    let hba = format!(
        "local all all trust\nhost all postgres 127.0.0.1/32 trust\nhost postgres,{},{} maker 127.0.0.1/32 trust\n",
        cluster.database, cluster.dex
    );
    let files = vec![("pg_hba.conf".to_owned(), hba.into_bytes())];
    let to = TempServer::start(&postgres::Options { files, ..postgres::Options::default() }).unwrap();
    to.psql("postgres", "CREATE ROLE maker LOGIN CREATEDB").unwrap();
    desk.backup(&cluster.databases(), "c.pacharc", &[]).code(0);
    let args = Desk::restore_args("-", &words(&["--postgres", &to.url_as("maker", "postgres")]), &[]);
    let mut cat = Command::new("cat");
    cat.arg(desk.path("c.pacharc"));
    let (mut first, second) = piped(cat, desk.command(args));
    first.wait().unwrap();
    second.code(6).says("pg_hba.conf").advises();
    assert_eq!(to.psql("postgres", &temporary(&desk, "c.pacharc")).unwrap(), "0");
}
