//! `pacharc discover`: what a namespace says, on a real API server.

use k8s_openapi::api::apps::v1::Deployment;
use serde_json::json;

use super::support::kubelab::Kubelab;

#[tokio::test(flavor = "multi_thread")]
async fn the_lab_runs_pods() {
    let Some(kubelab) = Kubelab::shared() else { return };
    let lab = kubelab.namespace().await;
    let pod = json!({
        "metadata": { "labels": { "app": "pachd" } },
        "spec": { "containers": [{ "name": "pachd", "image": "pachyderm/pachd:2.11.6" }] },
    });
    let spec = json!({ "replicas": 1, "selector": { "matchLabels": { "app": "pachd" } }, "template": pod });
    lab.apply::<Deployment>(json!({ "metadata": { "name": "pachd" }, "spec": spec })).await;
    let ready = |deployment: Option<&Deployment>| {
        deployment.and_then(|d| d.status.as_ref()).and_then(|status| status.ready_replicas) == Some(1)
    };
    kube::runtime::wait::await_condition(lab.api::<Deployment>(), "pachd", ready).await.unwrap();
}
