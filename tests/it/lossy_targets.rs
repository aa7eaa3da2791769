//! A target that does not keep what it took, or keeps what it should give up: the restore says so, names it, and does not call
//! itself done.

use pacharc_sample::chunk::Chunk;

use crate::support::fault_server::{Fault, FaultServer};
use crate::support::program::{Desk, words};

const MEMORY: &[&str] = &["--max-memory", "64M"];
const MARK: &str = "pacharc.restoring";

/// A bundle of some chunks and of an object that is uploaded in parts, without databases; its keys, with sizes.
async fn bundle(desk: &Desk) -> Vec<(String, usize)> {
    let source = FaultServer::start().await;
    for number in 0..4 {
        let chunk = Chunk::generate(1, number, &(1000..=1000));
        source.hold(&chunk.key(0), chunk.stored);
    }
    source.hold("large", vec![7; 9_000_000]);
    desk.backup(&words(&["--bucket", &source.url()]), "c.pacharc", MEMORY).code(0);
    let sized = |key: String| (source.object(&key).unwrap().len(), key);
    source.keys().into_iter().map(sized).map(|(size, key)| (key, size)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_bucket_did_not_keep_is_named() {
    let desk = Desk::new();
    let objects = bundle(&desk).await;
    let key = |place: usize| objects[place].0.as_str();
    assert_eq!(key(4), "large");
    for (faults, problem) in [
        (vec![(1, Fault::Forget)], format!("objects/{} is not in the bucket", key(1))),
        (vec![(0, Fault::Clip)], format!("objects/{} has another size", key(0))),
        (
            vec![(3, Fault::Clip), (2, Fault::Forget)],
            format!("objects/{} is not in the bucket, and 1 more difference", key(2)),
        ),
        (vec![(4, Fault::Forget)], "objects/other/large is not in the bucket".to_owned()),
        (vec![(4, Fault::Clip)], "objects/other/large has another size".to_owned()),
    ] {
        let target = FaultServer::start().await;
        for (place, fault) in faults {
            // The large one is there when its parts are put together: by the second POST.
            match key(place) {
                "large" => target.plan_for("POST", "large", [Fault::Pass, fault]),
                key => target.plan_for("PUT", key, [fault]),
            }
        }
        let to = words(&["--bucket", &target.url()]);
        let run = desk.restore("c.pacharc", &to, MEMORY).code(3);
        run.says("the target is not what the bundle holds").says(&problem).says("Do not use the target");
        assert_eq!(target.planned(), 0, "{problem}");
        // A second run calls the target whole if it is, and only then.
        let again = desk.restore("c.pacharc", &to, MEMORY);
        let is_whole = objects.iter().all(|(key, size)| target.object(key).is_some_and(|body| body.len() == *size));
        assert_eq!(again.status.code() == Some(0), is_whole, "{problem}: {}", again.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mark_that_may_not_be_deleted_is_told_before_the_first_byte() {
    let desk = Desk::new();
    bundle(&desk).await;
    let denied = || Fault::Refuse(403, "AccessDenied");
    let target = FaultServer::start().await;
    let to = words(&["--bucket", &target.url()]);
    target.plan_for("DELETE", "pacharc.restoring.probe", [denied()]);
    desk.restore("c.pacharc", &to, MEMORY).code(6).advises().says("could not be taken away again").says("AccessDenied");
    assert_eq!(target.keys(), [""; 0]);
    assert!(target.seen().iter().all(|request| request.method != "PUT"));

    // The right may be lost on the way.
    target.plan_for("DELETE", MARK, [denied(), denied()]);
    for _ in 0..2 {
        let run = desk.restore("c.pacharc", &to, MEMORY).code(6).advises();
        run.says("all is restored and proved, but").says("delete the object pacharc.restoring");
        assert!(target.object(MARK).is_some());
    }
    desk.restore("c.pacharc", &to, MEMORY).code(0);
    assert_eq!(target.object(MARK), None);
}
