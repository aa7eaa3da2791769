//! The captured Secrets in the target's namespace, and what must not run there.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::Api;
use kube::api::{ListParams, PostParams};

use super::Error;
use crate::cluster::Cluster;
use crate::cluster::permissions::Right;

/// What looking for a running `pachd` asks of the API server.
pub const LOOK_RIGHTS: &[Right] = &[
    Right::new("apps", "deployments", "get").named("pachd"),
    Right::new("apps", "deployments", "get").named("pach-enterprise"),
    Right::new("", "pods", "list"),
];
/// What making Secrets asks of it.
pub const APPLY_RIGHTS: &[Right] = &[Right::new("", "secrets", "get"), Right::new("", "secrets", "create")];

/// What became of the Secrets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Made, by name.
    pub created: Vec<String>,
    /// There already, and the same.
    pub unchanged: Vec<String>,
}

/// Refuses a namespace where `pachd` runs, or is about to.
///
/// # Errors
/// [`Error::Running`]; the API server's.
pub async fn refuse_running(cluster: &Cluster) -> Result<(), Error> {
    let running = |what: String| Error::Running { what, namespace: cluster.namespace().to_owned() };
    let deployments: Api<Deployment> = cluster.api();
    for name in ["pachd", "pach-enterprise"] {
        let read = cluster.call(format!("looking for Deployment {name}"), deployments.get_opt(name)).await?;
        let replicas = read.and_then(|deployment| deployment.spec).map(|spec| spec.replicas.unwrap_or(1));
        if replicas.is_some_and(|replicas| replicas > 0) {
            return Err(running(format!("Deployment {name}")));
        }
    }
    let pods: Api<Pod> = cluster.api();
    let params = ListParams::default().labels("suite=pachyderm,app in (pachd,pachw,pach-enterprise)").limit(1);
    let found = cluster.call("looking for pods of pachd", pods.list_metadata(&params)).await?;
    match found.items.into_iter().find_map(|pod| pod.metadata.name) {
        Some(name) => Err(running(format!("pod {name}"))),
        None => Ok(()),
    }
}

/// Refuses where one of `secrets` is there with other content.
///
/// # Errors
/// [`Error::Differs`]; the API server's.
pub async fn check_secrets(cluster: &Cluster, secrets: &[Secret]) -> Result<(), Error> {
    for secret in secrets {
        is_there(cluster, secret).await?;
    }
    Ok(())
}

/// Makes `secrets`, but for those that are there already.
///
/// # Errors
/// [`Error::Differs`]: what was made before it stays, and a second run goes on behind it. The API server's.
pub async fn apply(cluster: &Cluster, secrets: &[Secret]) -> Result<Applied, Error> {
    let api: Api<Secret> = cluster.api();
    let mut applied = Applied::default();
    for secret in secrets {
        let name = secret.metadata.name.clone().unwrap_or_default();
        if is_there(cluster, secret).await? {
            applied.unchanged.push(name);
            continue;
        }
        let params = PostParams { field_manager: Some("pacharc".to_owned()), ..PostParams::default() };
        match cluster.call(format!("making Secret {name}"), api.create(&params, secret)).await {
            Ok(_) => applied.created.push(name),
            // Somebody made it in between; it must be the same.
            Err(error) if error.is_conflict() => {
                is_there(cluster, secret).await?;
                applied.unchanged.push(name);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(applied)
}

async fn is_there(cluster: &Cluster, secret: &Secret) -> Result<bool, Error> {
    let api: Api<Secret> = cluster.api();
    let name = secret.metadata.name.as_deref().unwrap_or_default();
    let Some(found) = cluster.call(format!("looking for Secret {name}"), api.get_opt(name)).await? else {
        return Ok(false);
    };
    // What is not said is Opaque; no data and empty data are the same.
    let type_of = |secret: &Secret| secret.type_.clone().unwrap_or_else(|| "Opaque".to_owned());
    let same = found.data.unwrap_or_default() == secret.data.clone().unwrap_or_default();
    if same && found.type_.unwrap_or_else(|| "Opaque".to_owned()) == type_of(secret) {
        return Ok(true);
    }
    Err(Error::Differs { name: name.to_owned(), namespace: cluster.namespace().to_owned() })
}
