use super::super::faulty::{self, Answer, Pachyderm, Request};
use super::super::suspend;
use super::*;
use crate::failure::Explain as _;
use crate::monitor::Silent;
use serde_json::json;
use std::sync::Arc;

/// A cluster that is held.
async fn held() -> Pachyderm {
    let pachyderm = Pachyderm::new(&[("pach-enterprise", 1), ("pachd", 2), ("pachw", 1)]);
    let cluster = pachyderm.server(|_, _| None).cluster();
    let options = Options { kind: Kind::Hold, drain_timeout: Duration::from_secs(60), ..faulty::options() };
    suspend(&cluster, options, Arc::new(Silent)).await.unwrap().hold().await.unwrap();
    assert_eq!(pachyderm.replicas("pachd"), 0);
    pachyderm
}

/// Resumes it at a server that answers some requests otherwise.
async fn resumed(
    pachyderm: &Pachyderm,
    odd: impl Fn(&Request, u32) -> Option<Answer> + Send + Sync + 'static,
) -> Result<Resumed, Error> {
    let options = Options { owner: "you@there".to_owned(), ..faulty::options() };
    resume(&pachyderm.server(odd).cluster(), &options, true, &Silent).await
}

#[tokio::test]
async fn annotations_that_cannot_be_changed_do_not_keep_it_down() {
    for code in [403, 422, 500] {
        let pachyderm = held().await;
        let odd = move |request: &Request, _| (request.method == "PATCH").then_some(Answer::Status(code));
        resumed(&pachyderm, odd).await.unwrap_or_else(|error| panic!("{code}: {error}"));
        let now = ["pach-enterprise", "pachd", "pachw"].map(|name| pachyderm.replicas(name));
        assert_eq!((now, pachyderm.has("/pacharc-suspended")), ([1, 2, 1], false), "{code}");
        // What is left of them is no record.
        let cluster = pachyderm.server(|_, _| None).cluster();
        assert!(Records(&cluster).read().await.unwrap().is_none(), "{code}");
    }
}

#[tokio::test]
async fn without_fence_or_lease_a_late_scale_down_does_not_last() {
    for has_lease in [true, false] {
        let pachyderm = held().await;
        let late = pachyderm.clone();
        let odd = move |request: &Request, seen| {
            // Between scaling up and the first look whether it is ready.
            if request.is("GET", "/deployments") && !request.is_watch && seen == 1 {
                late.scale("pachd", 0);
            }
            (request.method == "PATCH" && has_lease).then_some(Answer::Status(500))
        };
        let options = Options { ready_timeout: Duration::from_secs(4), ..faulty::options() };
        let cluster = pachyderm.server(odd).cluster();
        let returning = Return::new(&cluster, &options, &Silent);
        let found = Records(&cluster).read().await.unwrap().unwrap();
        returning.bring_back(found, By { name: "me", has_lease, again: false }).await.unwrap();
        assert_eq!(pachyderm.replicas("pachd"), 2, "{has_lease}");
    }
}

#[tokio::test]
async fn what_cannot_be_scaled_keeps_nothing_else_down() {
    for code in [403, 500] {
        let pachyderm = held().await;
        let odd = move |request: &Request, _| {
            request.is("PUT", "/deployments/pach-enterprise/scale").then_some(Answer::Status(code))
        };
        let error = resumed(&pachyderm, odd).await.unwrap_err();
        assert!(error.to_string().contains("pach-enterprise"), "{error}");
        assert_eq!([pachyderm.replicas("pachd"), pachyderm.replicas("pachw")], [2, 1], "{code}");
        assert!(pachyderm.has("/pacharc-suspended"), "who resumes again needs it");
    }
}

#[tokio::test]
async fn what_is_set_lower_meanwhile_is_ready_with_that() {
    let pachyderm = held().await;
    let autoscaler = pachyderm.clone();
    let odd = move |request: &Request, seen| {
        // Between scaling up and the first look whether it is ready.
        if request.is("GET", "/deployments") && !request.is_watch && seen == 1 {
            autoscaler.scale("pachd", 1);
        }
        None
    };
    resumed(&pachyderm, odd).await.unwrap();
    assert_eq!((pachyderm.replicas("pachd"), pachyderm.has("/pacharc-suspended")), (1, false));
}

#[tokio::test]
async fn by_force_a_lease_that_cannot_be_had_is_done_without() {
    for code in [403, 500] {
        let pachyderm = held().await;
        let odd = move |request: &Request, _| request.path.contains("/leases").then_some(Answer::Status(code));
        let cluster = pachyderm.server(odd).cluster();
        let error = resume(&cluster, &faulty::options(), false, &Silent).await.unwrap_err();
        assert!(matches!(&error, Error::NoLease { .. }), "{code}: {error}");
        assert!(error.advice().unwrap().ends_with("\npacharc resume --force"), "{code}");
        assert_eq!(pachyderm.replicas("pachd"), 0, "{code}");
        resumed(&pachyderm, odd).await.unwrap_or_else(|error| panic!("{code}: {error}"));
        let now = ["pach-enterprise", "pachd", "pachw"].map(|name| pachyderm.replicas(name));
        assert_eq!((now, pachyderm.has("/pacharc-suspended")), ([1, 2, 1], false), "{code}");
    }
    // Nor is the right to it asked for.
    let pachyderm = held().await;
    let odd = |request: &Request, _| {
        let is_asked = request.body["spec"]["resourceAttributes"]["resource"] == "leases";
        is_asked.then(|| Answer::Json(json!({ "metadata": {}, "spec": {}, "status": { "allowed": false } })))
    };
    let cluster = pachyderm.server(odd).cluster();
    let error = resume(&cluster, &faulty::options(), false, &Silent).await.unwrap_err();
    assert!(matches!(&error, Error::Permissions(_)), "{error}");
    resumed(&pachyderm, odd).await.unwrap();
    assert_eq!(pachyderm.replicas("pachd"), 2);
}
