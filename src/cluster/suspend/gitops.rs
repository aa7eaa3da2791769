//! What would undo a suspend: controllers that hold the replicas at a count of their own.
//!
//! A HorizontalPodAutoscaler leaves a target alone that stands at 0 replicas (`ScalingDisabled`,
//! `pkg/controller/podautoscaler/horizontal.go`), unless its own minimum is 0; so only those count, and KEDA's.

use std::fmt;

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::api::{ListParams, ObjectMeta};

use super::workloads::Workload;
use crate::cluster::discover::HELM_RELEASE;
use crate::cluster::{self, Cluster};

/// A controller that keeps a Deployment as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keeper {
    /// An Argo CD Application.
    Argo {
        /// Its name.
        application: String,
    },
    /// A Kustomization of Flux.
    FluxKustomization {
        /// Its name.
        name: String,
        /// Its namespace.
        namespace: String,
    },
    /// A HelmRelease of Flux.
    FluxHelmRelease {
        /// Its name.
        name: String,
        /// Its namespace.
        namespace: String,
    },
    /// A HorizontalPodAutoscaler that scales up from 0.
    Autoscaler {
        /// Its name.
        name: String,
        /// Its namespace.
        namespace: String,
    },
    /// A ScaledObject of KEDA.
    Keda {
        /// Its name.
        name: String,
        /// Its namespace.
        namespace: String,
    },
}

impl fmt::Display for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Argo { application } => write!(f, "Argo CD (application {application})"),
            Self::FluxKustomization { name, namespace } => write!(f, "Flux (Kustomization {namespace}/{name})"),
            Self::FluxHelmRelease { name, namespace } => write!(f, "Flux (HelmRelease {namespace}/{name})"),
            Self::Autoscaler { name, .. } => write!(f, "HorizontalPodAutoscaler {name}"),
            Self::Keda { name, .. } => write!(f, "KEDA (ScaledObject {name})"),
        }
    }
}

impl Keeper {
    /// The command that pauses it.
    #[must_use]
    pub fn pause(&self) -> String {
        match self {
            Self::Argo { application } => format!("argocd app set {application} --sync-policy none"),
            Self::FluxKustomization { name, namespace } => {
                format!("flux suspend kustomization {name} --namespace {namespace}")
            }
            Self::FluxHelmRelease { name, namespace } => {
                format!("flux suspend helmrelease {name} --namespace {namespace}")
            }
            Self::Autoscaler { name, namespace } => {
                format!("kubectl delete horizontalpodautoscaler {name} --namespace {namespace}")
            }
            Self::Keda { name, namespace } => {
                format!("kubectl annotate scaledobject {name} autoscaling.keda.sh/paused=true --namespace {namespace}")
            }
        }
    }
}

/// Who keeps these Deployments at a count. Autoscalers that may not be listed are not seen.
pub(super) async fn keepers(cluster: &Cluster, deployments: &[Workload]) -> Result<Vec<Keeper>, cluster::Error> {
    let mut found: Vec<Keeper> =
        deployments.iter().filter_map(|deployment| Some(marked(&deployment.meta)?.0)).collect();
    let api = cluster.api::<HorizontalPodAutoscaler>();
    match cluster.call("listing HorizontalPodAutoscalers", api.list(&ListParams::default())).await {
        Ok(list) => found.extend(list.items.iter().filter_map(|scaler| autoscaler(scaler, deployments))),
        Err(error) if error.is_forbidden() || error.is_not_found() => {}
        Err(error) => return Err(error),
    }
    found.dedup();
    Ok(found)
}

/// The GitOps tool that made an object, by what it leaves on what it applies; and which mark that is.
///
/// Argo CD, "Resource Tracking"; Flux, labels of kustomize-controller and helm-controller.
pub(in crate::cluster) fn marked(meta: &ObjectMeta) -> Option<(Keeper, String)> {
    let label = |key: &str| meta.labels.as_ref()?.get(key).cloned();
    let annotation = |key: &str| meta.annotations.as_ref()?.get(key).cloned();
    let namespace = |key: &str| label(key).unwrap_or_else(|| meta.namespace.clone().unwrap_or_default());
    // `<application>:<group>/<kind>:<namespace>/<name>`
    let tracking = "argocd.argoproj.io/tracking-id";
    if let Some(id) = annotation(tracking) {
        let application = id.split(':').next().unwrap_or_default().to_owned();
        return Some((Keeper::Argo { application }, format!("annotation {tracking}")));
    }
    let instance = "argocd.argoproj.io/instance";
    if let Some(application) = label(instance) {
        return Some((Keeper::Argo { application }, format!("label {instance}")));
    }
    let flux = "kustomize.toolkit.fluxcd.io/name";
    if let Some(name) = label(flux) {
        let namespace = namespace("kustomize.toolkit.fluxcd.io/namespace");
        return Some((Keeper::FluxKustomization { name, namespace }, format!("label {flux}")));
    }
    let flux = "helm.toolkit.fluxcd.io/name";
    if let Some(name) = label(flux) {
        let namespace = namespace("helm.toolkit.fluxcd.io/namespace");
        return Some((Keeper::FluxHelmRelease { name, namespace }, format!("label {flux}")));
    }
    // Argo CD's default label is a common one; but then Helm itself has not installed it.
    let instance = "app.kubernetes.io/instance";
    match label(instance) {
        Some(application) if annotation(HELM_RELEASE).is_none() => {
            Some((Keeper::Argo { application }, format!("label {instance}")))
        }
        _ => None,
    }
}

fn autoscaler(scaler: &HorizontalPodAutoscaler, deployments: &[Workload]) -> Option<Keeper> {
    let target = &scaler.spec.as_ref()?.scale_target_ref;
    let is_ours = target.kind == "Deployment" && deployments.iter().any(|deployment| deployment.name() == target.name);
    if !is_ours {
        return None;
    }
    // KEDA works by an autoscaler of its own making.
    let label = scaler.metadata.labels.as_ref().and_then(|labels| labels.get("scaledobject.keda.sh/name"));
    let owner = scaler.metadata.owner_references.iter().flatten().find(|owner| owner.kind == "ScaledObject");
    let namespace = scaler.metadata.namespace.clone().unwrap_or_default();
    match label.or(owner.map(|owner| &owner.name)) {
        Some(name) => Some(Keeper::Keda { name: name.clone(), namespace }),
        None if scaler.spec.as_ref()?.min_replicas != Some(0) => None,
        None => Some(Keeper::Autoscaler { name: scaler.metadata.name.clone().unwrap_or_default(), namespace }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tools_are_told_by_their_marks() {
        let told = |meta| marked(&serde_json::from_value(meta).unwrap()).map(|(keeper, _)| keeper.to_string());
        let argo = json!({ "annotations": { "argocd.argoproj.io/tracking-id": "pach:apps/Deployment:ns/pachd" } });
        assert_eq!(told(argo).unwrap(), "Argo CD (application pach)");
        let argo = json!({ "labels": { "argocd.argoproj.io/instance": "pach" } });
        assert_eq!(told(argo).unwrap(), "Argo CD (application pach)");
        let flux = json!({ "namespace": "ns", "labels": { "kustomize.toolkit.fluxcd.io/name": "apps",
                            "kustomize.toolkit.fluxcd.io/namespace": "flux-system" } });
        assert_eq!(told(flux).unwrap(), "Flux (Kustomization flux-system/apps)");
        let flux = json!({ "namespace": "ns", "labels": { "helm.toolkit.fluxcd.io/name": "pach" } });
        assert_eq!(told(flux).unwrap(), "Flux (HelmRelease ns/pach)");
        // In its default tracking Argo CD leaves this label alone; Helm leaves it, too, with an annotation of its own.
        let common = json!({ "app.kubernetes.io/instance": "pach" });
        assert_eq!(told(json!({ "labels": common })).unwrap(), "Argo CD (application pach)");
        assert_eq!(told(json!({ "labels": common, "annotations": { "meta.helm.sh/release-name": "pach" } })), None);
    }

    #[test]
    fn autoscalers_count_where_they_scale_what_is_suspended() {
        let deployment = |name: &str| {
            let made: k8s_openapi::api::apps::v1::Deployment =
                serde_json::from_value(json!({ "metadata": { "name": name } })).unwrap();
            Workload::from(made)
        };
        let deployments = [deployment("pachd"), deployment("pachw")];
        let told = |meta, target: &str, least: i32| {
            let target = json!({ "kind": "Deployment", "name": target });
            let spec = json!({ "minReplicas": least, "maxReplicas": 3, "scaleTargetRef": target });
            let made = serde_json::from_value(json!({ "metadata": meta, "spec": spec })).unwrap();
            autoscaler(&made, &deployments)
        };
        assert_eq!(
            told(json!({ "name": "a", "namespace": "ns" }), "pachw", 0),
            Some(Keeper::Autoscaler { name: "a".into(), namespace: "ns".into() })
        );
        assert_eq!(told(json!({ "name": "a" }), "pachw", 1), None);
        assert_eq!(told(json!({ "name": "a" }), "console", 0), None);
        let keda = json!({ "name": "keda-hpa-x", "namespace": "ns", "labels": { "scaledobject.keda.sh/name": "x" } });
        let keda = told(keda, "pachd", 1).unwrap();
        assert_eq!(keda, Keeper::Keda { name: "x".into(), namespace: "ns".into() });
        assert!(keda.pause().ends_with(" --namespace ns"));
    }
}
