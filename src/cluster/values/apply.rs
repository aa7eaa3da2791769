//! The captured Secrets and ConfigMaps in the target's namespace, and what must not run there.

use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::api::{ListParams, PostParams};
use kube::{Api, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Error;
use crate::cluster::Cluster;
use crate::cluster::permissions::Right;

/// What looking for a running `pachd` asks of the API server.
pub const LOOK_RIGHTS: &[Right] = &[
    Right::new("apps", "deployments", "get").named("pachd"),
    Right::new("apps", "deployments", "get").named("pach-enterprise"),
    Right::new("", "pods", "list"),
];
/// What making Secrets and ConfigMaps asks of it.
pub const APPLY_RIGHTS: &[Right] = &[
    Right::new("", "secrets", "get"),
    Right::new("", "secrets", "create"),
    Right::new("", "configmaps", "get"),
    Right::new("", "configmaps", "create"),
];

/// What became of the objects of a kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Made, by name.
    pub created: Vec<String>,
    /// There already, and the same.
    pub unchanged: Vec<String>,
    /// There already with other content, and left so.
    pub different: Vec<String>,
}

/// What is made in the namespace as it was captured.
pub trait Kept:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Serialize
{
    /// Whether the content is the same; labels and annotations are not content.
    fn is_like(&self, other: &Self) -> bool;
}

impl Kept for Secret {
    fn is_like(&self, other: &Self) -> bool {
        // What is not said is Opaque; no data and empty data are the same.
        let type_of = |secret: &Self| secret.type_.clone().unwrap_or_else(|| "Opaque".to_owned());
        let data = |secret: &Self| secret.data.clone().unwrap_or_default();
        data(self) == data(other) && type_of(self) == type_of(other)
    }
}

impl Kept for ConfigMap {
    fn is_like(&self, other: &Self) -> bool {
        let text = |map: &Self| map.data.clone().unwrap_or_default();
        let bytes = |map: &Self| map.binary_data.clone().unwrap_or_default();
        text(self) == text(other) && bytes(self) == bytes(other)
    }
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
        if find(cluster, secret).await?.is_some_and(|found| !found.is_like(secret)) {
            let name = secret.meta().name.clone().unwrap_or_default();
            return Err(Error::Differs { name, namespace: cluster.namespace().to_owned() });
        }
    }
    Ok(())
}

/// Makes `objects`, but for those that are there already.
///
/// # Errors
/// The API server's: what was made before stays, and a second run goes on behind it.
pub async fn apply<K: Kept>(cluster: &Cluster, objects: &[K]) -> Result<Applied, Error> {
    let api: Api<K> = cluster.api();
    let mut applied = Applied::default();
    for object in objects {
        let name = object.meta().name.clone().unwrap_or_default();
        let mut found = find(cluster, object).await?;
        if found.is_none() {
            let params = PostParams { field_manager: Some("pacharc".to_owned()), ..PostParams::default() };
            match cluster.call(format!("making {} {name}", K::kind(&())), api.create(&params, object)).await {
                Ok(_) => {
                    applied.created.push(name);
                    continue;
                }
                // Somebody made it in between.
                Err(error) if error.is_conflict() => found = find(cluster, object).await?,
                Err(error) => return Err(error.into()),
            }
        }
        match found.is_some_and(|found| found.is_like(object)) {
            true => applied.unchanged.push(name),
            false => applied.different.push(name),
        }
    }
    Ok(applied)
}

async fn find<K: Kept>(cluster: &Cluster, object: &K) -> Result<Option<K>, Error> {
    let name = object.meta().name.as_deref().unwrap_or_default();
    let what = format!("looking for {} {name}", K::kind(&()));
    Ok(cluster.call(what, cluster.api::<K>().get_opt(name)).await?)
}
