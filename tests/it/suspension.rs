//! A suspension in the hands of a run, as a backup has it: what proves it, what ends it.

use std::sync::Arc;
use std::time::Duration;

use pacharc::cluster::Cluster;
use pacharc::cluster::suspend::{self, Kind, Options, guardian};
use pacharc::monitor::Silent;
use pacharc::options;
use serde_json::json;

use super::support::kubelab::{Kubelab, Lab};
use super::support::pachyderm::{
    cleaned, deployment, install, is_clean, lease, record, replicas, scale, settled, until, worker,
};

async fn cluster(lab: &Lab) -> Cluster {
    let named =
        options::Cluster { namespace: lab.name.clone(), context: None, kubeconfig: Some(lab.kubeconfig().to_owned()) };
    Cluster::connect(&named, None).await.unwrap()
}

fn options(kind: Kind) -> Options {
    Options {
        owner: suspend::owner(),
        kind,
        hold: None,
        drain_timeout: suspend::DRAIN_TIMEOUT,
        ready_timeout: Duration::from_secs(300),
        resume_replicas: None,
        ignore_gitops: false,
        guardian: guardian::Guard::None,
        way: guardian::Way::default(),
        // Longer than a slow machine may stand still.
        lease_duration: Duration::from_secs(30),
        command: "pacharc resume".to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_proved_again_and_again_and_given_back() {
    let Some(kubelab) = Kubelab::shared() else { return };
    let lab = kubelab.namespace().await;
    install(&lab, 2, json!({})).await;
    let cluster = cluster(&lab).await;
    let options = Options { lease_duration: Duration::from_secs(15), ..options(Kind::Run) };
    let suspension = suspend::suspend(&cluster, options, Arc::new(Silent)).await.unwrap();
    assert_eq!(record(&lab).await.unwrap()["kind"], "run");
    // Longer than a Lease lives: it is renewed meanwhile.
    until("the Lease has outlived itself", async || {
        let held = lease(&lab, "pacharc").await.unwrap().spec.unwrap();
        let lived = held.renew_time.unwrap().0.duration_since(held.acquire_time.unwrap().0);
        lived.as_secs() > 15
    })
    .await;
    suspension.check().await.unwrap();
    assert_eq!(suspension.record().unwrap().deployments["pachd"], 2);
    suspension.resume().await.unwrap();
    settled(&lab, "pachd", 2).await;
    assert!(is_clean(&lab).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_comes_between_is_a_loss() {
    let Some(kubelab) = Kubelab::shared() else { return };
    let lab = kubelab.namespace().await;
    install(&lab, 1, json!({})).await;
    let cluster = cluster(&lab).await;
    let begin = async || suspend::suspend(&cluster, options(Kind::Run), Arc::new(Silent)).await.unwrap();

    // Up and down again, so fast that only the generation tells.
    let suspension = begin().await;
    scale(&lab, "pachd", 1).await;
    scale(&lab, "pachd", 0).await;
    let lost = suspension.check().await.unwrap_err();
    assert!(
        lost.because == "somebody changed Deployment pachd" || lost.because.starts_with("there are pods again"),
        "{lost}"
    );
    suspension.resume().await.unwrap();
    settled(&lab, "pachd", 1).await;

    // A worker that nobody knew of.
    let suspension = begin().await;
    worker(&lab, "default-new-v1", 0).await;
    assert_eq!(suspension.check().await.unwrap_err().because, "somebody made ReplicationController default-new-v1");
    suspension.resume().await.unwrap();

    // A pod that belongs to nobody who is scaled.
    let suspension = begin().await;
    let pod = json!({ "metadata": { "name": "stray", "labels": { "suite": "pachyderm", "app": "pachd" } },
                      "spec": { "containers": [{ "name": "pachd", "image": "pachyderm/pachd:2.11.6" }] } });
    lab.apply::<k8s_openapi::api::core::v1::Pod>(pod).await;
    assert_eq!(suspension.check().await.unwrap_err().because, "there are pods again: stray");
    lab.api::<k8s_openapi::api::core::v1::Pod>().delete("stray", &Default::default()).await.unwrap();
    suspension.resume().await.unwrap();

    // The Lease deleted: a renewal must not make it again.
    until("the stray pod is gone", async || super::support::pachyderm::pods(&lab).await == 3).await;
    let suspension = begin().await;
    lab.api::<k8s_openapi::api::coordination::v1::Lease>().delete("pacharc", &Default::default()).await.unwrap();
    assert_eq!(suspension.check().await.unwrap_err().because, "somebody deleted the Lease");
    assert!(lease(&lab, "pacharc").await.is_none());
    suspension.resume().await.unwrap();
    settled(&lab, "pachd", 1).await;
    assert!(is_clean(&lab).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_it_is_given_back() {
    let Some(kubelab) = Kubelab::shared() else { return };
    let lab = kubelab.namespace().await;
    install(&lab, 2, json!({})).await;
    let suspension = suspend::suspend(&cluster(&lab).await, options(Kind::Run), Arc::new(Silent)).await.unwrap();
    drop(suspension);
    settled(&lab, "pachd", 2).await;
    cleaned(&lab).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn resumed_by_others_it_is_not_resumed_twice() {
    let Some(kubelab) = Kubelab::shared() else { return };
    let lab = kubelab.namespace().await;
    install(&lab, 2, json!({})).await;
    let cluster = cluster(&lab).await;
    let first = suspend::suspend(&cluster, options(Kind::Run), Arc::new(Silent)).await.unwrap();
    suspend::resume(&cluster, &options(Kind::Hold), true, &Silent).await.unwrap();
    settled(&lab, "pachd", 2).await;
    // By now another run has suspended it: that one's pause is none of ours.
    let second = suspend::suspend(&cluster, options(Kind::Run), Arc::new(Silent)).await.unwrap();
    assert!(first.check().await.unwrap_err().because.ends_with("took the Lease over"));
    let first = tokio::spawn(first.resume());
    // Each of these renews the Lease: by that the first sees that somebody else is at work.
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        second.check().await.unwrap();
    }
    assert_eq!(replicas(&lab).await["pachd"], 0);
    second.resume().await.unwrap();
    first.await.unwrap().unwrap();
    settled(&lab, "pachd", 2).await;
    assert!(is_clean(&lab).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_is_used_and_left() {
    let Some(kubelab) = Kubelab::shared() else { return };
    let lab = kubelab.namespace().await;
    install(&lab, 1, json!({})).await;
    let cluster = cluster(&lab).await;
    assert!(suspend::adopt(&cluster, options(Kind::Run), Arc::new(Silent)).await.is_err());
    let hold = suspend::suspend(&cluster, options(Kind::Hold), Arc::new(Silent)).await.unwrap().hold().await.unwrap();
    let adopted = suspend::adopt(&cluster, options(Kind::Run), Arc::new(Silent)).await.unwrap();
    adopted.check().await.unwrap();
    assert_eq!(adopted.record(), Some(&hold));
    // Nobody resumes it meanwhile without force.
    assert!(matches!(
        suspend::resume(&cluster, &options(Kind::Hold), false, &Silent).await,
        Err(suspend::Error::Busy { .. })
    ));
    adopted.resume().await.unwrap();
    assert_eq!(replicas(&lab).await["pachd"], 0, "the hold stays");
    assert_eq!(record(&lab).await.unwrap()["state"], "suspended");
    assert!(lease(&lab, "pacharc").await.is_none());
    // One in which somebody runs something is not used.
    deployment(&lab, "pachd", 1, json!({})).await;
    let refused = suspend::adopt(&cluster, options(Kind::Run), Arc::new(Silent)).await;
    assert!(matches!(refused, Err(suspend::Error::Lost(_))));
    suspend::resume(&cluster, &options(Kind::Hold), false, &Silent).await.unwrap();
    // A run may leave its suspension as a hold, too.
    let suspension = suspend::suspend(&cluster, options(Kind::Run), Arc::new(Silent)).await.unwrap();
    suspension.hold().await.unwrap();
    assert_eq!(record(&lab).await.unwrap()["kind"], "hold");
    assert!(lease(&lab, "pacharc").await.is_none());
    suspend::resume(&cluster, &options(Kind::Hold), false, &Silent).await.unwrap();
    settled(&lab, "pachd", 1).await;
    assert!(is_clean(&lab).await);
}
