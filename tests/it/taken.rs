//! Two that write to one place at once: neither's work is lost, and one of them is told.

use crate::support::fault_server::{Condition, Fault, FaultServer, Listing};
use crate::support::program::{Desk, Running, words};

const MEMORY: &[&str] = &["--max-memory", "64M"];
const MARK: &str = "pacharc.restoring";

/// A source without databases.
async fn source() -> FaultServer {
    let source = FaultServer::start().await;
    for number in 0..5 {
        source.hold(&format!("object-{number}"), vec![7; 1000]);
    }
    source
}

/// The URL of a bundle there.
fn bundle(server: &FaultServer) -> String {
    server.url().replace("s3://bucket?", "s3://bucket/c.pacharc?")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_never_replaces_another() {
    let desk = Desk::new();
    let (source, store) = (source().await, FaultServer::start().await);
    let from = words(&["--bucket", &source.url()]);
    let output = bundle(&store);
    // The name is taken when all is written but the last request.
    let mut gate = store.gate("PUT", "c.pacharc");
    let running = Running::start(&mut desk.command(desk.backup_args(&from, &output, MEMORY)));
    gate.reached().await;
    store.hold("c.pacharc", "another's");
    gate.open();
    running.finish().code(5).says("c.pacharc").says("exists already").advises();
    assert_eq!(store.object("c.pacharc").unwrap(), b"another's");
    store.remove("c.pacharc");

    // What a lost answer hides is no other bundle; nor does a server that knows no condition stand in the way.
    store.plan("PUT", [Fault::Lost]);
    desk.backup(&from, &output, MEMORY).code(0);
    store.remove("c.pacharc");
    store.condition(Condition::Refused);
    desk.backup(&from, &output, MEMORY).code(0);
    desk.run(["verify", &output, "--identity", "key.txt"]).code(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_restores_that_start_at_once_one_goes_on() {
    let desk = Desk::new();
    let source = source().await;
    desk.backup(&words(&["--bucket", &source.url()]), "c.pacharc", MEMORY).code(0);
    // At a server that knows no condition the mark is read once more.
    for (condition, method) in [(Condition::Known, "PUT"), (Condition::Ignored, "GET")] {
        let target = FaultServer::start().await;
        target.condition(condition);
        let to = words(&["--bucket", &target.url()]);
        let mut gate = target.gate("PUT", MARK);
        let running = Running::start(&mut desk.command(Desk::restore_args("c.pacharc", &to, MEMORY)));
        gate.reached().await;
        let other = "pacharc restore of bundle 1\n";
        if method == "PUT" {
            target.hold(MARK, other);
            gate.open();
        } else {
            let mut again = target.gate("GET", MARK);
            gate.open();
            again.reached().await;
            target.hold(MARK, other);
            again.open();
        }
        running.finish().code(5).says("pacharc restore of bundle 1").advises();
        assert_eq!(target.object(MARK).unwrap(), other.as_bytes());
        assert_eq!(target.keys(), [MARK], "no object was written");
    }

    // The same bundle, twice at once.
    let target = FaultServer::start().await;
    let to = words(&["--bucket", &target.url()]);
    let mut gate = target.gate("PUT", MARK);
    let slow = Running::start(&mut desk.command(Desk::restore_args("c.pacharc", &to, MEMORY)));
    gate.reached().await;
    let mut objects = target.gate("PUT", "object-0");
    let fast = Running::start(&mut desk.command(Desk::restore_args("c.pacharc", &to, MEMORY)));
    objects.reached().await;
    gate.open();
    slow.finish().code(5).advises();
    objects.open();
    fast.finish().code(0);
    assert_eq!(target.keys(), source.keys());
}

/// A run may live on when its terminal is gone, and is taken for one that was interrupted.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_that_go_on_with_one_restore_the_later_one_ends_it() {
    let desk = Desk::new();
    let source = source().await;
    desk.backup(&words(&["--bucket", &source.url()]), "c.pacharc", MEMORY).code(0);
    for is_at_work in [true, false] {
        let target = FaultServer::start().await;
        let to = words(&["--bucket", &target.url()]);
        let start = || Running::start(&mut desk.command(Desk::restore_args("c.pacharc", &to, MEMORY)));
        let mut written = target.gate("PUT", "object-0");
        let first = start();
        written.reached().await;
        let before = target.object(MARK).unwrap();
        let mut ends = target.gate("DELETE", MARK);
        let second = start();
        ends.reached().await;
        let after = target.object(MARK).unwrap();
        assert!(after != before, "a mark of its own");
        if is_at_work {
            written.open();
            first.finish().code(5).advises().says("is not its own any more: pacharc restore of bundle");
            assert!(target.object(MARK).unwrap() == after, "it is left alone");
            ends.open();
            second.finish().code(0);
        } else {
            ends.open();
            second.finish().code(0);
            written.open();
            first.finish().code(5).advises().says("it is gone");
        }
        assert_eq!(target.keys(), source.keys());
        // A former version's mark is anybody's.
        let named = String::from_utf8(before).unwrap();
        target.hold(MARK, named.lines().next().unwrap().to_owned() + "\n");
        target.remove("object-1");
        desk.restore("c.pacharc", &to, MEMORY).code(0);
        assert_eq!(target.keys(), source.keys());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mark_that_is_read_wrong_once_is_no_other_run() {
    let desk = Desk::new();
    let source = source().await;
    desk.backup(&words(&["--bucket", &source.url()]), "c.pacharc", MEMORY).code(0);
    let target = FaultServer::start().await;
    // There is none, it is set, it is looked at before the proof and at the end.
    target.plan_for(
        "GET",
        MARK,
        [Fault::Pass, Fault::Short(50), Fault::Pass, Fault::Short(50), Fault::Pass, Fault::Flip],
    );
    desk.restore("c.pacharc", &words(&["--bucket", &target.url()]), MEMORY).code(0);
    assert_eq!(target.planned(), 0);
    assert_eq!(target.keys(), source.keys());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_that_repeats_a_page_is_backed_up() {
    let desk = Desk::new();
    let source = source().await;
    source.listing(Listing::Twice);
    desk.backup(&words(&["--bucket", &source.url()]), "c.pacharc", MEMORY).code(0);
    let target = FaultServer::start().await;
    desk.restore("c.pacharc", &words(&["--bucket", &target.url()]), MEMORY).code(0);
    assert_eq!(target.keys(), source.keys());
}

/// What is no chunk has no hash to be told by.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_cut_with_a_length_that_fits_is_read_again() {
    let desk = Desk::new();
    let source = source().await;
    source.plan_for("GET", "object-3", [Fault::Short(22), Fault::Short(999)]);
    desk.backup(&words(&["--bucket", &source.url()]), "c.pacharc", MEMORY).code(0);
    assert_eq!(source.planned(), 0);
    let target = FaultServer::start().await;
    desk.restore("c.pacharc", &words(&["--bucket", &target.url()]), MEMORY).code(0);
    assert!(target.object("object-3") == source.object("object-3"));
}
