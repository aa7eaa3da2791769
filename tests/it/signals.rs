//! Signals at each stage: what is half made never looks whole, nothing is left, and the same command goes on.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use pacharc_sample::bucket::{Bucket, Directory};
use pacharc_sample::cluster::Options;
use pacharc_sample::compare;

use crate::support::cluster::{Cluster, target, target_server};
use crate::support::fault_server::{Fault, FaultServer};
use crate::support::moments::Told;
use crate::support::program::{Desk, Run, Running, has_begun, wait_until, words};
use crate::support::sdk_bucket::SdkBucket;
use crate::support::versitygw;

/// What marks a bucket while a restore is under way.
const MARK: &str = "pacharc.restoring";
const SIGNALS: [(&str, i32); 2] = [("INT", 130), ("TERM", 143)];

/// Bytes that do not compress.
fn noise(length: usize) -> Bytes {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes.into()
}

/// Sessions of a run, by what their names begin with, on both servers.
fn assert_no_sessions(cluster: &Cluster) {
    let names = format!("('{}', '{}')", cluster.database, cluster.dex);
    let sql =
        format!("SELECT count(*) FROM pg_stat_activity WHERE datname IN {names} AND application_name LIKE 'pacharc%'");
    for server in [cluster.server, target_server().unwrap()] {
        wait_until("no session is left", || server.psql("postgres", &sql).unwrap() == "0");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_objects_are_copied() {
    let desk = Desk::new();
    let server = Arc::new(FaultServer::start().await);
    let bucket: Arc<dyn Bucket> = Arc::clone(&server) as Arc<dyn Bucket>;
    let options = Options { objects: 20, ..Options::default() };
    let Some(cluster) = Cluster::make_in(bucket, &server.url(), "copying", options).await else { return };
    let held = format!("/bucket/{}", cluster.live().await[4]);
    for (signal, code) in SIGNALS {
        server.seen();
        server.plan_for("GET", &cluster.live().await[4], [Fault::Stall(0)]);
        let running = Running::start(&mut desk.command(desk.backup_args(&cluster.source(), "c.pacharc", &[])));
        wait_until("the object is asked for", || {
            server.seen().iter().any(|request| request.method == "GET" && request.path == held)
        });
        running.signal(signal);
        running.finish().code(code).says("error: ");
        assert!(!desk.path("c.pacharc").exists());
        assert_eq!(desk.leftovers(), [""; 0]);
    }
    desk.backup(&cluster.source(), "c.pacharc", &[]).code(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_dump_is_made() {
    let desk = Desk::new();
    let Some(cluster) = Cluster::small(&desk, "dumping").await else { return };
    let Some(s3) = versitygw::start().await else { return };
    let bundles = SdkBucket::make(&s3, "bundles").await;
    // More than a part goes up before the dump begins.
    cluster.bucket.put("big", noise(40 << 20)).await.unwrap();
    let bin = crate::wrong_inputs::tools(
        &desk,
        "sleeping",
        &format!(
            "[ \"$1\" = --version ] && exec \"$real\" --version\necho $$ >> '{}'; exec sleep 4321",
            desk.path("children").display()
        ),
    );
    let to_s3 = bundles.url.replace("s3://bundles", "s3://bundles/c.pacharc");
    for output in ["c.pacharc", &to_s3] {
        for (signal, code) in SIGNALS {
            std::fs::remove_file(desk.path("children")).ok();
            let args = desk.backup_args(&cluster.source(), output, &["--pg-bin", &bin.to_string_lossy()]);
            let running = Running::start(&mut desk.command(args));
            wait_until("pg_dump runs", || desk.path("children").exists());
            if output != "c.pacharc" {
                assert_eq!(bundles.uploads().await, 1);
            }
            running.signal(signal);
            running.finish().code(code).says("error: ");
            let children = std::fs::read_to_string(desk.path("children")).unwrap();
            for child in children.lines() {
                wait_until("no child is left", || !Path::new("/proc").join(child).exists());
            }
            assert!(!desk.path("c.pacharc").exists());
            assert_eq!(desk.leftovers(), [""; 0]);
            assert_eq!((bundles.uploads().await, bundles.keys().await.unwrap().len()), (0, 0));
        }
    }
    assert_no_sessions(&cluster);
}

/// A source of one large object, and where its bundle goes to.
async fn from_here_to_s3(desk: &Desk) -> (Vec<String>, FaultServer, String) {
    std::fs::create_dir_all(desk.path("source")).unwrap();
    std::fs::write(desk.path("source/big"), noise(40 << 20)).unwrap();
    let store = FaultServer::start().await;
    let output = store.url().replace("s3://bucket?", "s3://bucket/c.pacharc?");
    (desk.backup_args(&words(&["--bucket", &desk.bucket("source")]), &output, &["--max-memory", "64M"]), store, output)
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_bucket_of_the_bundle_hangs() {
    let desk = Desk::new();
    for (signal, code) in SIGNALS {
        let (args, store, _) = from_here_to_s3(&desk).await;
        store.plan_for("PUT", "c.pacharc", [Fault::Silent; 64]);
        let running = Running::start(&mut desk.command(args));
        wait_until("a part is on its way", || {
            store.uploading() && store.seen().iter().any(|request| request.method == "PUT")
        });
        // The next one waits for it.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let begun = Instant::now();
        running.signal(signal);
        running.finish().code(code).says("error: ");
        assert!(begun.elapsed() < Duration::from_secs(50), "{:?}", begun.elapsed());
        assert!(!store.uploading());
        assert_eq!(store.keys(), [""; 0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_bundle_gets_its_name() {
    let desk = Desk::new();
    let (args, store, output) = from_here_to_s3(&desk).await;
    // It is begun, and completed without an answer.
    store.plan_for("POST", "c.pacharc", [Fault::Pass, Fault::Silent, Fault::Silent, Fault::Silent]);
    let running = Running::start(&mut desk.command(args));
    wait_until("the bundle is there", || store.object("c.pacharc").is_some());
    running.signal("INT");
    running.finish().code(130).says("it is whole if there is c.pacharc");
    store.calm();
    desk.run(["verify", &output, "--identity", "key.txt"]).code(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_restore_writes() {
    let desk = Desk::new();
    let Some(cluster) = Cluster::small(&desk, "restoring").await else { return };
    if target_server().is_none() {
        return;
    }
    cluster.bucket.put("big", noise(40 << 20)).await.unwrap();
    desk.backup(&cluster.source(), "c.pacharc", &[]).code(0);
    let to = Arc::new(FaultServer::start().await);
    let held = cluster.live().await[4].clone();
    for (signal, code) in SIGNALS {
        to.seen();
        // The server has it although no answer came.
        to.remove(&held);
        to.plan_for("PUT", &held, [Fault::Silent]);
        let running = Running::start(&mut desk.command(Desk::restore_args("c.pacharc", &target(&to.url()), &[])));
        let path = format!("/bucket/{held}");
        let mut asked = false;
        wait_until("the object is written", || {
            asked |= to.seen().iter().any(|request| request.path == path && request.method == "PUT");
            asked
        });
        running.signal(signal);
        running.finish().code(code).says("goes on where it stopped");
        assert!(!to.uploading());
    }
    assert_no_sessions(&cluster);
    // Another bundle does not go on there.
    desk.backup(&cluster.source(), "other.pacharc", &[]).code(0);
    desk.restore("other.pacharc", &target(&to.url()), &[]).code(5).says("restore");
    desk.restore("c.pacharc", &target(&to.url()), &[]).code(0);
    let restored: Arc<dyn Bucket> = to;
    cluster.assert_databases_restored();
    let compared = compare::buckets(&cluster.bucket, &restored, None).await.unwrap();
    assert!(compared.is_equal(), "{compared}");
}

/// Either it was faster than the signal; or the one before was killed behind its last step: then all is restored, and the target
/// not empty.
fn assert_done(run: &Run) {
    let code = run.status.code();
    assert!(code == Some(0) || code == Some(5) && run.stderr.contains("not empty"), "{code:?}: {}", run.stderr);
}

/// Killed where each phase begins and at many moments after it, and run again until it comes to its end.
async fn killed_and_run_again(desk: &Desk, cluster: &Cluster, bucket: Arc<dyn Bucket>, url: &str) {
    let events = desk.path("events");
    let run = || {
        std::fs::remove_file(&events).ok();
        let more = ["--json-file", "events", "--jobs", "1"];
        Running::start(&mut desk.command(Desk::restore_args("c.pacharc", &target(url), &more)))
    };
    let phases = ["unpack", "indexes", "prove"];
    for phase in phases {
        let mut command = desk.command(Desk::restore_args("c.pacharc", &target(url), &["--json", "--jobs", "1"]));
        assert!(Told::kill_at(&mut command, phase), "{phase}");
    }
    let mut done = false;
    for (phase, delay) in phases.iter().flat_map(|phase| [0, 30, 90, 200].map(|delay| (phase, delay))) {
        let mut running = run();
        wait_until("the phase", || has_begun(&events, phase) || running.has_ended());
        std::thread::sleep(Duration::from_millis(delay));
        if !running.has_ended() {
            running.signal("KILL");
        }
        let run = running.finish();
        if run.status.code().is_some() {
            assert_done(&run);
            done = true;
            break;
        }
    }
    if !done {
        assert_done(&run().finish());
    }
    cluster.assert_databases_restored();
    let compared = compare::buckets(&cluster.bucket, &bucket, None).await.unwrap();
    assert!(compared.is_equal(), "{compared}");
    desk.restore("c.pacharc", &target(url), &[]).code(5);
}

fn larger() -> Options {
    Options { objects: 150, sizes: 1..=200_000, jobs: 2000, job_bytes: 2000, ..Options::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_into_a_directory_that_is_killed_goes_on() {
    let desk = Desk::new();
    let Some(cluster) = Cluster::make(&desk, "killed", larger()).await else { return };
    if target_server().is_none() {
        return;
    }
    desk.backup(&cluster.source(), "c.pacharc", &[]).code(0);
    let bucket = Arc::new(Directory::new(desk.path("target")));
    killed_and_run_again(&desk, &cluster, bucket, &desk.bucket("target")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_into_s3_that_is_killed_goes_on() {
    let desk = Desk::new();
    let Some(cluster) = Cluster::make(&desk, "killed_s3", larger()).await else { return };
    let Some(s3) = versitygw::start().await else { return };
    if target_server().is_none() {
        return;
    }
    cluster.bucket.put("big", noise(60 << 20)).await.unwrap();
    desk.backup(&cluster.source(), "c.pacharc", &[]).code(0);
    let bucket = SdkBucket::make(&s3, "target").await;
    let url = bucket.url.clone();
    killed_and_run_again(&desk, &cluster, Arc::new(bucket), &url).await;
}

/// A killed backup leaves at most what is hidden, and never under the final name.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_backup_has_no_name_or_is_whole() {
    let desk = Desk::new();
    let Some(cluster) = Cluster::small(&desk, "killed_backup").await else { return };
    for phase in ["copy", "dump", "finish"] {
        std::fs::remove_file(desk.path("events")).ok();
        let args = desk.backup_args(&cluster.source(), "c.pacharc", &["--json-file", "events"]);
        let mut running = Running::start(&mut desk.command(args));
        wait_until("the phase", || has_begun(&desk.path("events"), phase) || running.has_ended());
        if running.has_ended() {
            // It was faster.
            running.finish().code(0);
            std::fs::remove_file(desk.path("c.pacharc")).unwrap();
            continue;
        }
        running.signal("KILL");
        running.finish();
        // On a busy machine it may have come to its end meanwhile: what has a name is whole, and nothing else has one.
        if desk.path("c.pacharc").exists() {
            desk.run(["verify", "c.pacharc", "--identity", "key.txt", "--level", "closed"]).code(0);
            std::fs::remove_file(desk.path("c.pacharc")).unwrap();
        }
    }
    assert_no_sessions(&cluster);
    desk.backup(&cluster.source(), "c.pacharc", &[]).code(0);
    desk.run(words(&["verify", "c.pacharc"])).code(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_is_killed_when_its_databases_are_released_is_finished() {
    let desk = Desk::new();
    let Some(cluster) = Cluster::small(&desk, "released").await else { return };
    if target_server().is_none() {
        return;
    }
    desk.backup(&cluster.source(), "c.pacharc", &[]).code(0);
    let to = Arc::new(FaultServer::start().await);
    // By then the databases have lost their marks.
    let mut gate = to.gate("DELETE", MARK);
    let args = Desk::restore_args("c.pacharc", &target(&to.url()), &[]);
    let running = Running::start(&mut desk.command(&args));
    gate.reached().await;
    running.signal("KILL");
    running.finish();
    desk.run(&args).code(0);
    assert_eq!(to.object(MARK), None);
    drop(gate);
    cluster.assert_databases_restored();
    let restored: Arc<dyn Bucket> = to;
    let compared = compare::buckets(&cluster.bucket, &restored, None).await.unwrap();
    assert!(compared.is_equal(), "{compared}");
}
