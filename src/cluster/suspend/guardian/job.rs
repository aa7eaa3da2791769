//! A guardian as a Job in the cluster, with an account that may do no more than resume.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::api::batch::v1 as batch;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::Resource;
use kube::api::{DeleteParams, ListParams, PostParams};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use uuid::Uuid;

use super::super::{Error, rights};
use super::RUN;
use crate::cluster::{self, Cluster, permissions};

/// The account, its Role and its RoleBinding.
pub const ACCOUNT: &str = "pacharc-guardian";

/// A pod that fails is replaced; the pauses between grow to minutes.
const RETRIES: u32 = 100;

/// How the Job is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// An image with `pacharc` in its path.
    pub image: String,
    /// Annotations of its pod, e.g. `sidecar.istio.io/inject=false`: a pod whose sidecar goes on does not end.
    pub annotations: BTreeMap<String, String>,
}

/// The rules of the guardian's Role, as in a manifest: it may resume, and no more.
#[must_use]
pub fn rules() -> Value {
    permissions::policy(&rights::to_resume())
}

/// Makes the account where there is none, and the Job.
pub(super) async fn create(cluster: &Cluster, job: &Job, run: Uuid, args: Vec<String>) -> Result<(), Error> {
    let account = cluster.api::<ServiceAccount>();
    let what = format!("reading ServiceAccount {ACCOUNT}");
    if cluster.call(what, account.get_opt(ACCOUNT)).await?.is_none() {
        let meta = json!({ "name": ACCOUNT, "labels": labels() });
        make::<Role>(cluster, json!({ "metadata": meta, "rules": rules() })).await?;
        let subject = json!({ "kind": "ServiceAccount", "name": ACCOUNT, "namespace": cluster.namespace() });
        let role = json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": ACCOUNT });
        make::<RoleBinding>(cluster, json!({ "metadata": meta, "roleRef": role, "subjects": [subject] })).await?;
        make::<ServiceAccount>(cluster, json!({ "metadata": meta })).await?;
    }
    make::<batch::Job>(cluster, manifest(job, run, args)).await
}

/// Removes the Jobs of a run that needs no guardian any more, or got none: a pod that never starts is not left behind.
pub(in super::super) async fn remove(cluster: &Cluster, run: Uuid) {
    let jobs = cluster.api::<batch::Job>();
    let params = ListParams::default().labels(&format!("{RUN}={run}"));
    let removed = async {
        for job in cluster.call("listing the guardian's Jobs", jobs.list(&params)).await?.items {
            let name = job.metadata.name.unwrap_or_default();
            let what = format!("removing Job {name}");
            cluster.call(what, jobs.delete(&name, &DeleteParams::background())).await?;
        }
        Ok::<_, cluster::Error>(())
    };
    if let Err(error) = removed.await {
        tracing::info!("the guardian's Job is left: {}", crate::failure::chain(&error));
    }
}

fn labels() -> Value {
    json!({ "app.kubernetes.io/name": ACCOUNT, "app.kubernetes.io/managed-by": "pacharc" })
}

/// A Job that the pod security level *restricted* accepts.
fn manifest(job: &Job, run: Uuid, args: Vec<String>) -> Value {
    let command: Vec<String> = std::iter::once("pacharc".to_owned()).chain(args).collect();
    let confined = json!({
        "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": { "drop": ["ALL"] },
    });
    let container = json!({
        "name": "guardian", "image": job.image, "command": command, "securityContext": confined,
        "resources": { "requests": { "cpu": "10m", "memory": "32Mi" }, "limits": { "memory": "128Mi" } },
    });
    let pod = json!({
        "serviceAccountName": ACCOUNT,
        "restartPolicy": "OnFailure",
        "securityContext": { "runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": { "type": "RuntimeDefault" } },
        "containers": [container],
    });
    let mut of_run = labels();
    of_run[RUN] = run.to_string().into();
    json!({
        // A second guardian of the same run has a name of its own.
        "metadata": { "generateName": format!("{ACCOUNT}-{}-", short(run)), "labels": of_run },
        "spec": {
            "backoffLimit": RETRIES,
            "ttlSecondsAfterFinished": 600,
            "template": { "metadata": { "labels": labels(), "annotations": job.annotations }, "spec": pod },
        },
    })
}

fn short(run: Uuid) -> String {
    run.simple().to_string().chars().take(8).collect()
}

/// Makes an object; one that is there already stays as it is.
async fn make<K>(cluster: &Cluster, object: Value) -> Result<(), Error>
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope> + Clone + fmt::Debug + DeserializeOwned + serde::Serialize,
    K::DynamicType: Default,
{
    let kind = K::kind(&K::DynamicType::default()).into_owned();
    let object: K = serde_json::from_value(object)
        .map_err(|source| Error::Guardian { problem: format!("its {kind} cannot be made: {source}") })?;
    let made = cluster
        .call(format!("making {kind} of the guardian"), cluster.api::<K>().create(&PostParams::default(), &object))
        .await;
    match made {
        Ok(_) => Ok(()),
        Err(error) if error.is_conflict() => Ok(()),
        Err(error) => Err(error.into()),
    }
}
