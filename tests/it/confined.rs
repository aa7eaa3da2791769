//! Every command within the memory that it is given, in a cgroup whose kernel kills whoever takes more.

use std::process::{Command, Stdio};
use std::sync::Arc;

use pacharc_sample::bucket::{Bucket, Directory};
use pacharc_sample::cluster::Options;
use pacharc_sample::compare;

use crate::support::cgroup::Cgroup;
use crate::support::cluster::{Cluster, target};
use crate::support::fault_server::{Fault, FaultServer};
use crate::support::program::{Desk, Run, Running, wait_until, words};

const MIB: u64 = 1 << 20;
const GIVEN: u64 = 128 * MIB;
/// What children (pg_dump, psql) and the kernel's buffers for both may take beside.
const BESIDE: u64 = 64 * MIB;

#[test]
fn a_confined_process_that_takes_more_is_killed() {
    let Some(group) = Cgroup::make("killed", 32 * MIB) else { return };
    // It keeps a line until it has its end.
    let mut hungry = Command::new("sh");
    hungry.args(["-c", "head -c 268435456 /dev/zero | tail -n 1 > /dev/null"]);
    assert!(!group.confine(&hungry).status().unwrap().success());
    // The kernel may take the shell, too.
    assert!(group.killed() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_keeps_to_its_memory() {
    let desk = Desk::new();
    let Some(group) = Cgroup::make("commands", GIVEN + BESIDE) else { return };
    // Half again as much as there is memory, in objects of all sizes, some of them in pieces; rows of 1 MB.
    let options =
        Options { objects: 60, sizes: 1 << 16..=30_000_000, jobs: 100, job_bytes: 1_000_000, ..Options::default() };
    let Some(cluster) = Cluster::make(&desk, "confined", options).await else { return };
    assert!(cluster.made.live_bytes > GIVEN + BESIDE, "{} bytes are too few", cluster.made.live_bytes);
    let run = |args: Vec<String>| -> Run {
        let args = [args, words(&["--max-memory", "128M"])].concat();
        let run = Running::start(&mut group.confine(&desk.command(args))).finish();
        assert_eq!(group.killed(), 0, "{}", run.stderr);
        run.code(0)
    };
    run(desk.backup_args(&cluster.source(), "c.pacharc", &[]));
    for level in ["sums", "contents", "closed"] {
        run(words(&["verify", "c.pacharc", "--identity", "key.txt", "--level", level]));
    }
    run(words(&["list", "c.pacharc", "--identity", "key.txt"]));
    run(words(&["extract", "c.pacharc", "objects", "database", "--identity", "key.txt", "-o", "out"]));
    run(Desk::restore_args("c.pacharc", &target(&desk.bucket("target")), &[]));
    cluster.assert_databases_restored();
    let restored: Arc<dyn Bucket> = Arc::new(Directory::new(desk.path("target")));
    let compared = compare::buckets(&cluster.bucket, &restored, None).await.unwrap();
    assert!(compared.is_equal() && compared.compared > 0, "{compared}");

    // A server that is slower than the disk: what waits for it must not gather, least of all of many objects in pieces.
    let slow = Arc::new(FaultServer::start().await);
    slow.plan("PUT", std::iter::repeat_n(Fault::Late(200), 1000));
    run(Desk::restore_args("c.pacharc", &words(&["--bucket", &slow.url()]), &[]));
    let restored: Arc<dyn Bucket> = Arc::clone(&slow) as Arc<dyn Bucket>;
    let compared = compare::buckets(&cluster.bucket, &restored, None).await.unwrap();
    assert!(compared.is_equal() && compared.compared > 0, "{compared}");
}

/// What is small lies scattered over huge pages, and each counts as a whole: many small objects took more than was given.
#[test]
fn little_memory_does_without_huge_pages() {
    let desk = Desk::new();
    let has_huge_pages = |memory: &str, expected: &str| {
        let mut command = desk.command(words(&["verify", "-", "--level", "sums", "--max-memory", memory]));
        // It waits for a bundle that does not come.
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let status = format!("/proc/{}/status", child.id());
        wait_until(&format!("{memory}: {expected}"), || {
            let status = std::fs::read_to_string(&status).unwrap();
            status.lines().any(|line| line == expected)
        });
        child.kill().unwrap();
        child.wait().unwrap();
    };
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    if !own.contains("THP_enabled:\t1") {
        return pacharc_sample::skipped("there are no huge pages");
    }
    has_huge_pages("128M", "THP_enabled:\t0");
    has_huge_pages("256M", "THP_enabled:\t1");
}
