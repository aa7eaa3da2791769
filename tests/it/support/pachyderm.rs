//! What of Pachyderm runs in a namespace, as its chart and pachd make it: enough to be suspended.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, ReplicationController};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::kubelab::Lab;

/// Nothing in the lab takes as long, even on a machine that is busy, unless it never comes.
const PATIENCE: Duration = Duration::from_secs(300);

/// Makes pachd, pachw and a pipeline's worker, and waits until they run. `annotations` steer pachd's pods.
pub async fn install(lab: &Lab, pachd: i32, annotations: Value) {
    deployment(lab, "pachd", pachd, annotations).await;
    deployment(lab, "pachw", 2, json!({})).await;
    worker(lab, "default-edges-v1", 2).await;
    settled(lab, "pachd", pachd).await;
    settled(lab, "pachw", 2).await;
}

pub async fn deployment(lab: &Lab, name: &str, replicas: i32, annotations: Value) {
    let labels = json!({ "suite": "pachyderm", "app": name });
    let pod = json!({
        "metadata": { "labels": labels, "annotations": annotations },
        "spec": { "containers": [{ "name": name, "image": "pachyderm/pachd:2.11.6" }] },
    });
    let spec = json!({ "replicas": replicas, "selector": { "matchLabels": labels }, "template": pod,
                       "strategy": { "type": "Recreate" } });
    lab.apply::<Deployment>(json!({ "metadata": { "name": name, "labels": labels }, "spec": spec })).await;
}

pub async fn worker(lab: &Lab, name: &str, replicas: i32) {
    let labels = json!({ "suite": "pachyderm", "app": "pipeline", "component": "worker", "pipelineName": name });
    let containers =
        json!([{ "name": "user", "image": "edges" }, { "name": "storage", "image": "pachyderm/pachd:2.11.6" }]);
    let pod = json!({ "metadata": { "labels": labels }, "spec": { "containers": containers } });
    let spec = json!({ "replicas": replicas, "selector": labels, "template": pod });
    lab.apply::<ReplicationController>(json!({ "metadata": { "name": name, "labels": labels }, "spec": spec })).await;
}

/// Waits until a Deployment wants so many, and has them ready.
pub async fn settled(lab: &Lab, name: &str, replicas: i32) {
    until(&format!("{replicas} of {name}"), async || {
        let found = lab.api::<Deployment>().get(name).await.unwrap();
        let ready = found.status.and_then(|status| status.ready_replicas).unwrap_or_default();
        found.spec.unwrap().replicas == Some(replicas) && ready == replicas
    })
    .await;
}

/// Waits until nothing of pacharc is left.
pub async fn cleaned(lab: &Lab) {
    let begun = std::time::Instant::now();
    loop {
        let left = left(lab).await;
        if left.is_empty() {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{left:?} is left");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until something is so.
pub async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !is_so().await {
        assert!(begun.elapsed() < PATIENCE, "{what}: not within {} s", PATIENCE.as_secs());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// How many replicas are wanted of each Deployment and worker.
pub async fn replicas(lab: &Lab) -> BTreeMap<String, i32> {
    let all = ListParams::default();
    let deployments = lab.api::<Deployment>().list(&all).await.unwrap().items;
    let workers = lab.api::<ReplicationController>().list(&all).await.unwrap().items;
    let deployments = deployments.into_iter().map(|d| (d.metadata.name, d.spec.and_then(|spec| spec.replicas)));
    let workers = workers.into_iter().map(|w| (w.metadata.name, w.spec.and_then(|spec| spec.replicas)));
    deployments.chain(workers).map(|(name, count)| (name.unwrap(), count.unwrap_or(1))).collect()
}

pub async fn scale(lab: &Lab, name: &str, replicas: i32) {
    let patch = Patch::Merge(json!({ "spec": { "replicas": replicas } }));
    lab.api::<Deployment>().patch_scale(name, &PatchParams::default(), &patch).await.unwrap();
}

pub async fn pods(lab: &Lab) -> usize {
    lab.api::<Pod>().list(&ListParams::default().labels("suite=pachyderm")).await.unwrap().items.len()
}

/// The record, as it lies in the ConfigMap.
pub async fn record(lab: &Lab) -> Option<Value> {
    let map = lab.api::<ConfigMap>().get_opt("pacharc-suspended").await.unwrap()?;
    Some(serde_json::from_str(&map.data.unwrap()["record.json"]).unwrap())
}

pub async fn lease(lab: &Lab, name: &str) -> Option<Lease> {
    lab.api::<Lease>().get_opt(name).await.unwrap()
}

/// Makes a Lease lapse soon whose holder was killed: who waits for that goes by the duration that stands in it. So the
/// Leases of tests are long ones, which a slow machine does not lose, and nobody waits long for their end.
pub async fn lapse_soon(lab: &Lab, name: &str) {
    let patch = Patch::Merge(json!({ "spec": { "leaseDurationSeconds": 2 } }));
    match lab.api::<Lease>().patch(name, &PatchParams::default(), &patch).await {
        // There may be none.
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        done => drop(done.unwrap()),
    }
}

/// Lets the pods of an app end that were made [`stuck`]; those that come after them are as they were.
pub async fn unstick(lab: &Lab, app: &str) {
    let pods = lab.api::<Pod>();
    let patch = Patch::Merge(json!({ "metadata": { "annotations": { "kubelab/stop-after": "0s" } } }));
    for pod in pods.list(&ListParams::default().labels(&format!("app={app}"))).await.unwrap().items {
        pods.patch(&pod.metadata.name.unwrap(), &PatchParams::default(), &patch).await.unwrap();
    }
}

/// The annotations of pods that end when they are let go, and not before: [`unstick`].
pub fn stuck() -> Value {
    json!({ "kubelab/stop-after": "stuck" })
}

pub async fn delete_record(lab: &Lab) {
    lab.api::<ConfigMap>().delete("pacharc-suspended", &DeleteParams::default()).await.unwrap();
}

/// What is left of pacharc: record, annotations, Lease.
pub async fn left(lab: &Lab) -> Vec<String> {
    let deployments = lab.api::<Deployment>().list(&ListParams::default()).await.unwrap().items;
    let annotations = deployments.into_iter().flat_map(|deployment| deployment.metadata.annotations).flatten();
    let mut left: Vec<String> = annotations.map(|(key, _)| key).filter(|key| key.starts_with("pacharc/")).collect();
    left.extend(record(lab).await.map(|record| record.to_string()));
    for name in ["pacharc", "pacharc-guardian"] {
        let lease = lease(lab, name).await;
        left.extend(lease.and_then(|lease| lease.spec?.holder_identity).map(|holder| format!("{name}: {holder}")));
    }
    left
}

/// Whether nothing of pacharc is left.
pub async fn is_clean(lab: &Lab) -> bool {
    left(lab).await.is_empty()
}
