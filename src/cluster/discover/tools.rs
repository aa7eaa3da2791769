//! Others who write to Pachyderm's Deployments: GitOps tools, known by the marks that they leave, and autoscalers, known by
//! their targets. What may not be looked at is unknown, and said to be.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::ResourceExt as _;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, ListParams};
use serde::Serialize;

use super::Error;
use crate::cluster::suspend::gitops::{Keeper, marked};
use crate::cluster::{self, Cluster};

/// Deployments that matter: who scales them undoes a suspend.
const TARGETS: [&str; 3] = ["pachd", "pachw", "pach-enterprise"];

/// What kind of tool it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolKind {
    /// Argo CD.
    ArgoCd,
    /// Flux.
    Flux,
    /// A HorizontalPodAutoscaler.
    HorizontalPodAutoscaler,
    /// KEDA.
    Keda,
}

impl ToolKind {
    /// Its name, as people write it.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::ArgoCd => "Argo CD",
            Self::Flux => "Flux",
            Self::HorizontalPodAutoscaler => "HorizontalPodAutoscaler",
            Self::Keda => "KEDA",
        }
    }
}

/// A tool that writes to one of Pachyderm's Deployments.
#[derive(Clone, Debug, Serialize)]
pub struct Tool {
    /// Its kind.
    pub kind: ToolKind,
    /// The name of its application, release or autoscaler.
    pub name: String,
    /// The Deployment that it writes to.
    pub target: String,
    /// What gave it away.
    pub found_in: String,
}

/// All of them.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Tools {
    /// Those that were found.
    pub found: Vec<Tool>,
    /// Resources that may not be looked at.
    pub unknown: Vec<String>,
}

impl Tools {
    /// Those that keep Deployments as a repository has them.
    pub fn gitops(&self) -> impl Iterator<Item = &Tool> {
        self.found.iter().filter(|tool| matches!(tool.kind, ToolKind::ArgoCd | ToolKind::Flux))
    }

    pub(super) async fn read(cluster: &Cluster, deployments: &[&Deployment]) -> Result<Self, Error> {
        let mut tools = Self::default();
        tools.found.extend(deployments.iter().filter_map(|deployment| gitops(deployment)));
        let params = ListParams::default();
        let list = cluster.api::<HorizontalPodAutoscaler>();
        let list = cluster.call("listing HorizontalPodAutoscalers", list.list(&params)).await;
        for scaler in tools.seen("horizontalpodautoscalers.autoscaling", list)? {
            let name = scaler.name_any();
            let target = scaler.spec.map(|spec| spec.scale_target_ref.name);
            tools.add(ToolKind::HorizontalPodAutoscaler, name, target);
        }
        let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("keda.sh", "v1alpha1", "ScaledObject"));
        let list = Api::<DynamicObject>::namespaced_with(cluster.client().clone(), cluster.namespace(), &kind);
        let list = cluster.call("listing KEDA's ScaledObjects", list.list(&params)).await;
        for scaler in tools.seen("scaledobjects.keda.sh", list)? {
            let target = scaler.data.pointer("/spec/scaleTargetRef/name");
            let target = target.and_then(|name| name.as_str()).map(str::to_owned);
            tools.add(ToolKind::Keda, scaler.name_any(), target);
        }
        Ok(tools)
    }

    /// A list, where it may be seen; a kind that the API server does not know is a tool that is not installed.
    fn seen<K: Clone>(
        &mut self,
        resource: &str,
        list: Result<kube::api::ObjectList<K>, cluster::Error>,
    ) -> Result<Vec<K>, Error> {
        match list {
            Ok(list) => Ok(list.items),
            Err(error) if error.is_not_found() => Ok(Vec::new()),
            Err(error) if error.is_forbidden() => {
                self.unknown.push(resource.to_owned());
                Ok(Vec::new())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn add(&mut self, kind: ToolKind, name: String, target: Option<String>) {
        let Some(target) = target.filter(|target| TARGETS.contains(&target.as_str())) else { return };
        let object = if kind == ToolKind::Keda { "ScaledObject" } else { "HorizontalPodAutoscaler" };
        let found_in = format!("{object}/{name} scaleTargetRef");
        self.found.push(Tool { kind, name, target, found_in });
    }
}

/// The GitOps tool that made a Deployment.
fn gitops(deployment: &Deployment) -> Option<Tool> {
    let (keeper, mark) = marked(&deployment.metadata)?;
    let (kind, name) = match keeper {
        Keeper::Argo { application } => (ToolKind::ArgoCd, application),
        Keeper::FluxKustomization { name, .. } | Keeper::FluxHelmRelease { name, .. } => (ToolKind::Flux, name),
        Keeper::Autoscaler { .. } | Keeper::Keda { .. } => return None,
    };
    let target = deployment.name_any();
    let found_in = format!("Deployment/{target} {mark}");
    Some(Tool { kind, name, target, found_in })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool(labels: &[(&str, &str)], annotations: &[(&str, &str)]) -> Option<(ToolKind, String)> {
        let owned = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let mut deployment = Deployment::default();
        deployment.metadata.labels = Some(owned(labels));
        deployment.metadata.annotations = Some(owned(annotations));
        gitops(&deployment).map(|tool| (tool.kind, tool.name))
    }

    #[test]
    fn gitops_tools_are_known_by_their_marks() {
        let helm = (super::super::HELM_RELEASE, "pachyderm");
        let instance = ("app.kubernetes.io/instance", "a");
        assert_eq!(tool(&[("app", "pachd")], &[helm]), None);
        assert_eq!(tool(&[instance], &[helm]), None);
        assert_eq!(tool(&[instance], &[]), Some((ToolKind::ArgoCd, "a".into())));
        let tracked = ("argocd.argoproj.io/tracking-id", "team:apps/Deployment:ns/pachd");
        assert_eq!(tool(&[], &[tracked]), Some((ToolKind::ArgoCd, "team".into())));
        assert_eq!(tool(&[("helm.toolkit.fluxcd.io/name", "p")], &[helm]), Some((ToolKind::Flux, "p".into())));
        assert_eq!(tool(&[("kustomize.toolkit.fluxcd.io/name", "k")], &[]), Some((ToolKind::Flux, "k".into())));
    }
}
