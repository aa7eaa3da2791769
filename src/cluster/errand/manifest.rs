//! The Job, as `deploy/chart` renders it (a test compares), and the Secret that it reads what is secret from.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Secret as SecretObject;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Resource as _;
use kube::api::ObjectMeta;
use serde_json::{Map, Value, json};

use super::pod::CONTAINER;
use super::{Error, GRACE, Options};

/// Nobody's number, as in `deploy/Containerfile`.
const USER: i64 = 65532;

/// How long a Job that nobody removed stays: time to read its log.
const REMAINS: u32 = 24 * 3600;

/// The Job of this name. One that needs a Secret is made to wait for it; that has the same name.
///
/// # Errors
/// None that is known: what is made here is a Job.
pub fn manifest(name: &str, options: &Options) -> Result<Job, Error> {
    let labels = json!({
        "app.kubernetes.io/name": "pacharc",
        "app.kubernetes.io/component": "in-cluster",
        "app.kubernetes.io/managed-by": "pacharc",
    });
    let annotations: Map<String, Value> =
        options.annotations.iter().map(|(key, value)| (key.clone(), value.as_str().into())).collect();
    let mut mounts = vec![json!({ "name": "temporary", "mountPath": "/tmp" })];
    let mut volumes = vec![json!({ "name": "temporary", "emptyDir": { "sizeLimit": "10Gi" } })];
    if let Some((claim, path)) = &options.claim {
        mounts.push(json!({ "name": "bundles", "mountPath": path }));
        volumes.push(json!({ "name": "bundles", "persistentVolumeClaim": { "claimName": claim } }));
    }
    let sources = options.env_from.iter().map(|name| json!({ "secretRef": { "name": name } }));
    let variables = options.secrets.iter().map(
        |(variable, _)| json!({ "name": variable, "valueFrom": { "secretKeyRef": { "name": name, "key": variable } } }),
    );
    let container = json!({
        "name": CONTAINER,
        "image": options.image,
        "command": ["pacharc"],
        "args": options.arguments,
        "env": variables.collect::<Vec<_>>(),
        "envFrom": sources.collect::<Vec<_>>(),
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": { "drop": ["ALL"] },
        },
        "resources": { "requests": { "cpu": "500m", "memory": "512Mi" }, "limits": { "memory": "1Gi" } },
        "volumeMounts": mounts,
    });
    let pull_secrets = options.pull_secrets.iter().map(|name| json!({ "name": name }));
    let pod = json!({
        "restartPolicy": "Never",
        "serviceAccountName": options.account,
        "terminationGracePeriodSeconds": GRACE.as_secs(),
        "securityContext": {
            "runAsNonRoot": true,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": { "type": "RuntimeDefault" },
        },
        "imagePullSecrets": pull_secrets.collect::<Vec<_>>(),
        "containers": [container],
        "volumes": volumes,
    });
    let job = json!({
        "metadata": { "name": name, "labels": labels },
        "spec": {
            "backoffLimit": 0,
            "ttlSecondsAfterFinished": REMAINS,
            "suspend": !options.secrets.is_empty(),
            "template": { "metadata": { "labels": labels, "annotations": annotations }, "spec": pod },
        },
    });
    serde_json::from_value(job).map_err(Error::Manifest)
}

/// The Secret of a Job that was made. It belongs to the Job, and so goes with it.
pub(super) fn secret(name: &str, options: &Options, job: &Job) -> SecretObject {
    let values = options.secrets.iter();
    SecretObject {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: job.metadata.labels.clone(),
            owner_references: job.owner_ref(&()).map(|owner| vec![OwnerReference { controller: None, ..owner }]),
            ..ObjectMeta::default()
        },
        string_data: Some(values.map(|(variable, value)| (variable.clone(), value.expose().to_owned())).collect()),
        ..SecretObject::default()
    }
}
