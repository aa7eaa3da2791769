//! What runs in the namespace: how many of what, from which images, under which account.

use std::collections::BTreeMap;
use std::fmt::Debug;

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{PodSpec, ReplicationController, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::ListParams;
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Error;
use super::omitted::{Credentials, is_noise};
use crate::cluster::Cluster;
use crate::cluster::suspend::Record;

/// Objects asked for at a time.
const PAGE: u32 = 100;

/// `cluster/workloads.yaml`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Workloads {
    /// Deployments, StatefulSets, and the ReplicationControllers of pipelines.
    pub workloads: Vec<Workload>,
    /// The accounts, whose annotations may stand for credentials (IRSA, workload identity).
    pub service_accounts: Vec<Account>,
}

/// One workload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Workload {
    /// `Deployment`, `StatefulSet` or `ReplicationController`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// How many pods it shall have.
    pub replicas: i32,
    /// The images of its containers, by the containers' names.
    pub images: BTreeMap<String, String>,
    /// The account that its pods run under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account: Option<String>,
    /// Its labels: those of a ReplicationController name project, pipeline and version.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// One ServiceAccount.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Account {
    /// Its name.
    pub name: String,
    /// Its annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The Secrets with which its pods pull images.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub image_pull_secrets: Vec<String>,
}

impl Workloads {
    /// Puts the recorded counts in the place of zeros.
    pub(super) fn recall(&mut self, record: &Record) {
        for workload in self.workloads.iter_mut().filter(|workload| workload.replicas == 0) {
            let recorded = match workload.kind.as_str() {
                "Deployment" => record.deployments.get(&workload.name),
                "ReplicationController" => record.workers.get(&workload.name),
                _ => None,
            };
            workload.replicas = recorded.copied().unwrap_or_default();
        }
    }
}

/// What the workloads tell.
pub(super) struct Found {
    pub(super) workloads: Workloads,
    /// Which Secrets hold the source's credentials.
    pub(super) credentials: Credentials,
    /// The Helm release that `pachd` (or `pach-enterprise`) belongs to.
    pub(super) release: Option<String>,
    /// The image of `pachd`.
    pub(super) image: Option<String>,
}

/// Reads them.
pub(super) async fn read(cluster: &Cluster) -> Result<Found, Error> {
    let deployments: Vec<Deployment> = list(cluster).await?;
    let stateful_sets: Vec<StatefulSet> = list(cluster).await?;
    let controllers: Vec<ReplicationController> = list(cluster).await?;
    let accounts: Vec<ServiceAccount> = list(cluster).await?;
    let mut credentials = Credentials::default();
    let (mut release, mut image) = (None, None);
    for deployment in &deployments {
        let Some(spec) = deployment.spec.as_ref().and_then(|spec| spec.template.spec.as_ref()) else { continue };
        credentials.of(spec);
        // The container of an enterprise server is named pachd, too (chart, `templates/enterprise-server/deployment.yaml`).
        let container = spec.containers.iter().find(|container| container.name == "pachd");
        if let Some(container) = container.filter(|_| is_pachd(&deployment.metadata)) {
            let annotations = deployment.metadata.annotations.as_ref();
            release = annotations.and_then(|all| all.get("meta.helm.sh/release-name")).cloned();
            image.clone_from(&container.image);
        }
    }
    let mut workloads: Vec<Workload> = Vec::new();
    for Deployment { metadata, spec, .. } in deployments {
        let spec = spec.unwrap_or_default();
        workloads.push(workload("Deployment", metadata, spec.replicas, spec.template.spec));
    }
    for StatefulSet { metadata, spec, .. } in stateful_sets {
        let spec = spec.unwrap_or_default();
        workloads.push(workload("StatefulSet", metadata, spec.replicas, spec.template.spec));
    }
    for ReplicationController { metadata, spec, .. } in controllers {
        let spec = spec.unwrap_or_default();
        let pods = spec.template.and_then(|template| template.spec);
        workloads.push(workload("ReplicationController", metadata, spec.replicas, pods));
    }
    let service_accounts = accounts.into_iter().map(account).collect();
    Ok(Found { workloads: Workloads { workloads, service_accounts }, credentials, release, image })
}

fn is_pachd(metadata: &ObjectMeta) -> bool {
    matches!(metadata.name.as_deref(), Some("pachd" | "pach-enterprise"))
}

fn workload(kind: &str, metadata: ObjectMeta, replicas: Option<i32>, pods: Option<PodSpec>) -> Workload {
    let pods = pods.unwrap_or_default();
    let images = pods.containers.into_iter().map(|container| (container.name, container.image.unwrap_or_default()));
    Workload {
        kind: kind.to_owned(),
        name: metadata.name.unwrap_or_default(),
        // What Kubernetes takes where none is given.
        replicas: replicas.unwrap_or(1),
        images: images.collect(),
        service_account: pods.service_account_name,
        labels: metadata.labels.unwrap_or_default(),
    }
}

fn account(account: ServiceAccount) -> Account {
    let mut annotations = account.metadata.annotations.unwrap_or_default();
    annotations.retain(|name, _| !is_noise(name));
    Account {
        name: account.metadata.name.unwrap_or_default(),
        annotations,
        image_pull_secrets: account
            .image_pull_secrets
            .unwrap_or_default()
            .into_iter()
            .map(|named| named.name)
            .collect(),
    }
}

async fn list<K>(cluster: &Cluster) -> Result<Vec<K>, Error>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    let api: Api<K> = cluster.api();
    let mut params = ListParams::default().limit(PAGE);
    let mut found = Vec::new();
    loop {
        let page = cluster.call(format!("listing {}s", K::kind(&())), api.list(&params)).await?;
        found.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(found),
        }
    }
}
