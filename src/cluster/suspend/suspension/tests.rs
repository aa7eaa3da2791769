use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::super::faulty::{self, Answer, Pachyderm, Request};
use super::*;
use crate::failure::{Class, Explain as _};
use crate::monitor::Silent;
use k8s_openapi::api::apps::v1::Deployment;
use serde_json::json;
use tokio_util::sync::CancellationToken;

fn workload(uid: &str, replicas: i32, generation: i64) -> Workload {
    let made: Deployment = serde_json::from_value(serde_json::json!({
        "metadata": { "name": "pachd", "uid": uid, "generation": generation },
        "spec": { "replicas": replicas, "selector": {}, "template": {} },
    }))
    .unwrap();
    Workload::from(made)
}

#[test]
fn any_change_is_a_loss() {
    let left = [workload("a", 0, 3)];
    let because = |now: &[Workload]| compare(&left, now).map_err(|lost| lost.because);
    assert_eq!(because(&left), Ok(()));
    assert_eq!(because(&[workload("a", 1, 3)]), Err("somebody scaled Deployment pachd to 1".into()));
    // Scaled up and down again in between.
    assert_eq!(because(&[workload("a", 0, 5)]), Err("somebody changed Deployment pachd".into()));
    assert_eq!(because(&[]), Err("somebody deleted or replaced Deployment pachd".into()));
    assert_eq!(because(&[workload("b", 0, 3)]), Err("somebody deleted or replaced Deployment pachd".into()));
    let two = [workload("a", 0, 3), workload("b", 0, 1)];
    assert_eq!(because(&two), Err("somebody made Deployment pachd".into()));
}

const SCALE: &str = "/deployments/pachw/scale";

/// Suspends, or not, a Pachyderm whose server answers some requests otherwise.
async fn suspended(
    pachyderm: &Pachyderm,
    odd: impl Fn(&Request, u32) -> Option<Answer> + Send + Sync + 'static,
) -> Result<Suspension, Error> {
    let cluster = pachyderm.server(odd).cluster();
    super::super::suspend(&cluster, faulty::options(), Arc::new(Silent)).await
}

/// Suspends one whose server, from then on, answers requests with `code` that are `refused`.
async fn suspended_until(
    pachyderm: &Pachyderm,
    options: Options,
    code: u16,
    refused: impl Fn(&Request) -> bool + Send + Sync + 'static,
) -> Suspension {
    let is_down = Arc::new(AtomicBool::new(false));
    let down = Arc::clone(&is_down);
    let odd =
        move |request: &Request, _| (down.load(Ordering::Relaxed) && refused(request)).then_some(Answer::Status(code));
    let cluster = pachyderm.server(odd).cluster();
    let suspension = super::super::suspend(&cluster, options, Arc::new(Silent)).await.unwrap();
    is_down.store(true, Ordering::Relaxed);
    suspension
}

#[tokio::test]
async fn a_server_that_hinders_the_way_down_does_so_no_longer_than_it_may_take() {
    let cases = [
        ("PUT", SCALE, 1, Answer::Status(500)),
        ("PUT", SCALE, 1, Answer::Never),
        ("PUT", "/deployments/pachd/scale", 1, Answer::Status(429)),
        ("PUT", "/configmaps/pacharc-suspended", 1, Answer::Cut),
        // When the pods are gone already.
        ("GET", "/replicationcontrollers", 5, Answer::Status(503)),
    ];
    for (method, end, from, trouble) in cases {
        let told = format!("{method} {end} {trouble:?}");
        let pachyderm = Pachyderm::new(&[("pach-enterprise", 1), ("pachd", 2), ("pachw", 1)]);
        let is_back = Arc::new(AtomicBool::new(false));
        let back = Arc::clone(&is_back);
        let odd = move |request: &Request, seen| {
            if request.is("PATCH", "pachd") && request.body.to_string().contains("pacharc/resuming\":\"") {
                back.store(true, Ordering::Relaxed);
            }
            let is_hindered = request.is(method, end) && seen >= from && !back.load(Ordering::Relaxed);
            is_hindered.then(|| trouble.clone())
        };
        let error = suspended(&pachyderm, odd).await.map(drop).unwrap_err();
        assert!(matches!(error, Error::Late { .. }), "{told}: {error}");
        assert_eq!(error.class(), Class::Other, "{told}");
        let now = ["pach-enterprise", "pachd", "pachw"].map(|name| pachyderm.replicas(name));
        assert_eq!(now, [1, 2, 1], "{told}");
        assert!(is_back.load(Ordering::Relaxed) && !pachyderm.has("/pacharc-suspended"), "{told}");
    }
}

#[tokio::test]
async fn a_proof_that_cannot_be_made_is_given_up() {
    let pachyderm = Pachyderm::new(&[("pachd", 2)]);
    let is_down = Arc::new(AtomicBool::new(false));
    let down = Arc::clone(&is_down);
    let odd = move |request: &Request, _| {
        (request.path.ends_with("/pods") && down.load(Ordering::Relaxed)).then_some(Answer::Status(500))
    };
    let suspension = suspended(&pachyderm, odd).await.unwrap();
    is_down.store(true, Ordering::Relaxed);
    let lost = suspension.check().await.unwrap_err().because;
    assert!(lost.starts_with("the API server did not do for 2 s what was asked of it: listing pods"), "{lost}");
    is_down.store(false, Ordering::Relaxed);
    suspension.resume().await.unwrap();
    assert_eq!(pachyderm.replicas("pachd"), 2);
}

#[tokio::test]
async fn whoever_is_cut_off_on_the_way_back_has_not_cut_it_off() {
    let pachyderm = Pachyderm::new(&[("pachd", 2), ("pachw", 1)]);
    let is_returning = CancellationToken::new();
    let token = is_returning.clone();
    let odd = move |request: &Request, seen| {
        if request.is("PUT", SCALE) {
            return Some(Answer::Status(403));
        }
        // The first is that of the way down.
        let is_fence = request.is("PATCH", "/deployments/pachd") && seen == 2;
        is_fence.then(|| {
            token.cancel();
            Answer::Status(500)
        })
    };
    tokio::select! {
        done = suspended(&pachyderm, odd) => panic!("it was not cut off: {:?}", done.map(drop)),
        () = is_returning.cancelled() => {}
    }
    assert_eq!(pachyderm.replicas("pachd"), 0);
    pachyderm.becomes("pachd", 2).await;
}

#[tokio::test]
async fn a_hold_that_nobody_was_told_of_is_none() {
    let pachyderm = Pachyderm::new(&[("pachd", 2), ("pachw", 1)]);
    let is_held = CancellationToken::new();
    let token = is_held.clone();
    let odd = move |request: &Request, seen| {
        (request.is("DELETE", "/leases/pacharc") && seen == 1).then(|| {
            token.cancel();
            Answer::Never
        })
    };
    let suspension = suspended(&pachyderm, odd).await.unwrap();
    tokio::select! {
        done = suspension.hold() => panic!("it was not cut off: {done:?}"),
        () = is_held.cancelled() => {}
    }
    pachyderm.becomes("pachd", 2).await;
}

#[tokio::test]
async fn a_lease_that_cannot_be_had_keeps_nothing_down() {
    // One that is lost by then, and one that may still be ours.
    for (seconds, code) in [(6, 403), (6, 500), (60, 403), (60, 500)] {
        let told = format!("{seconds} s, {code}");
        let pachyderm = Pachyderm::new(&[("pachd", 2), ("pachw", 1)]);
        let options = Options { lease_duration: Duration::from_secs(seconds), ..faulty::options() };
        let suspension = suspended_until(&pachyderm, options, code, |request| request.path.contains("/leases")).await;
        if seconds == 6 {
            suspension.lost().await;
        }
        suspension.resume().await.unwrap_or_else(|error| panic!("{told}: {error}"));
        let now = ["pachd", "pachw"].map(|name| pachyderm.replicas(name));
        assert_eq!((now, pachyderm.has("/pacharc-suspended")), ([2, 1], false), "{told}");
    }
}

#[tokio::test]
async fn a_record_that_cannot_be_read_keeps_nothing_down() {
    for code in [403, 500] {
        let pachyderm = Pachyderm::new(&[("pachd", 2), ("pachw", 1)]);
        let refused = |request: &Request| request.is("GET", "/configmaps/pacharc-suspended");
        let suspension = suspended_until(&pachyderm, faulty::options(), code, refused).await;
        let error = suspension.resume().await.unwrap_err();
        assert!(error.to_string().starts_with("reading ConfigMap pacharc-suspended"), "{error}");
        let now = ["pachd", "pachw"].map(|name| pachyderm.replicas(name));
        // Who resumes again removes it.
        assert_eq!((now, pachyderm.has("/pacharc-suspended")), ([2, 1], true), "{code}");
    }
}

#[tokio::test]
async fn a_worker_that_cannot_be_scaled_keeps_no_other_one_up() {
    let pachyderm = Pachyderm::new(&[("pachd", 2), ("pachw", 1)]);
    let server = pachyderm.server(|request: &Request, _| {
        if request.is("PUT", "/replicationcontrollers/w0/scale") {
            return Some(Answer::Status(403));
        }
        if request.method == "PUT" && request.path.contains("/replicationcontrollers/") {
            return Some(Answer::Json(json!({ "metadata": {}, "spec": { "replicas": 0 } })));
        }
        let worker = |number: u32| {
            json!({ "metadata": { "name": format!("w{number}"), "uid": format!("{number}"), "resourceVersion": "1" },
                    "spec": { "replicas": 1 } })
        };
        let items: Vec<_> = (0..3).map(worker).collect();
        let list = json!({ "metadata": { "resourceVersion": "1" }, "items": items });
        request.is("GET", "/replicationcontrollers").then_some(Answer::Json(list))
    });
    let suspending = super::super::suspend(&server.cluster(), faulty::options(), Arc::new(Silent)).await;
    let error = suspending.map(drop).unwrap_err();
    assert!(matches!(&error, Error::Cluster(error) if error.is_forbidden()), "{error}");
    let asked =
        |name: &str| server.seen(&format!("/api/v1/namespaces/pachyderm/replicationcontrollers/{name}/scale"), false);
    assert_eq!(["w0", "w1", "w2"].map(asked), [1, 1, 1]);
    assert_eq!(pachyderm.replicas("pachd"), 2);
}
