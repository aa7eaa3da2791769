//! What of Pachyderm writes, and its scale: Deployments `pachd`, `pach-enterprise`, `pachw`, and the workers'
//! ReplicationControllers. (console, proxy, pg-bouncer, loki and etcd write to neither databases nor bucket.)

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v1::{Scale, ScaleSpec};
use k8s_openapi::api::core::v1::ReplicationController;
use kube::api::{ListParams, ObjectMeta, PostParams};

use crate::cluster::{self, Cluster};

/// The Deployments that write, in the order in which they come back: pachd asks pach-enterprise for its licence, and
/// scales pachw itself.
pub const DEPLOYMENTS: [&str; 3] = ["pach-enterprise", "pachd", "pachw"];

/// Selects the workers' ReplicationControllers in every 2.x (`src/server/pps/server/worker_rc.go`).
pub(super) const WORKERS: &str = "suite=pachyderm,component=worker";

/// What can be scaled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Deployment,
    Worker,
}

/// A Deployment or a ReplicationController, as it was read.
#[derive(Clone, Debug)]
pub(super) struct Workload {
    pub(super) kind: Kind,
    pub(super) meta: ObjectMeta,
    /// How many are wanted.
    pub(super) replicas: i32,
    /// How many its controller counts, and for which generation.
    counted: i32,
    observed: i64,
    /// How many of them are ready.
    pub(super) ready: i32,
}

impl Workload {
    pub(super) fn name(&self) -> &str {
        self.meta.name.as_deref().unwrap_or_default()
    }

    pub(super) fn generation(&self) -> i64 {
        self.meta.generation.unwrap_or_default()
    }

    pub(super) fn title(&self) -> String {
        match self.kind {
            Kind::Deployment => format!("Deployment {}", self.name()),
            Kind::Worker => format!("ReplicationController {}", self.name()),
        }
    }

    /// Whether its controller has seen the newest wish, and counts none.
    pub(super) fn is_empty(&self) -> bool {
        self.replicas == 0 && self.counted == 0 && self.observed >= self.generation()
    }

    /// Whether so many are ready, or as many as are wanted now where that is less: somebody has set it lower since, as an
    /// autoscaler does. At 0, where a late scale-down leaves it, it is not.
    pub(super) fn has_ready(&self, count: i32) -> bool {
        self.replicas > 0 && self.ready >= count.min(self.replicas) && self.observed >= self.generation()
    }
}

impl From<Deployment> for Workload {
    fn from(deployment: Deployment) -> Self {
        let status = deployment.status.unwrap_or_default();
        Self {
            kind: Kind::Deployment,
            meta: deployment.metadata,
            // The server writes its default, 1, itself.
            replicas: deployment.spec.and_then(|spec| spec.replicas).unwrap_or(1),
            counted: status.replicas.unwrap_or_default(),
            observed: status.observed_generation.unwrap_or_default(),
            ready: status.ready_replicas.unwrap_or_default(),
        }
    }
}

impl From<ReplicationController> for Workload {
    fn from(controller: ReplicationController) -> Self {
        let status = controller.status.unwrap_or_default();
        Self {
            kind: Kind::Worker,
            meta: controller.metadata,
            replicas: controller.spec.and_then(|spec| spec.replicas).unwrap_or(1),
            counted: status.replicas,
            observed: status.observed_generation.unwrap_or_default(),
            ready: status.ready_replicas.unwrap_or_default(),
        }
    }
}

/// The workloads of a namespace.
#[derive(Clone, Copy, Debug)]
pub(super) struct Workloads<'a>(pub(super) &'a Cluster);

impl Workloads<'_> {
    /// One Deployment, if it is there.
    pub(super) async fn deployment(&self, name: &str) -> Result<Option<Workload>, cluster::Error> {
        let api = self.0.api::<Deployment>();
        let found = self.0.call(format!("reading Deployment {name}"), api.get_opt(name)).await?;
        Ok(found.map(Workload::from))
    }

    /// Those of the Deployments that are there.
    pub(super) async fn deployments(&self) -> Result<Vec<Workload>, cluster::Error> {
        let mut found = Vec::with_capacity(DEPLOYMENTS.len());
        for name in DEPLOYMENTS {
            found.extend(self.deployment(name).await?);
        }
        Ok(found)
    }

    /// The workers' ReplicationControllers.
    pub(super) async fn workers(&self) -> Result<Vec<Workload>, cluster::Error> {
        let (api, params) = (self.0.api::<ReplicationController>(), ListParams::default().labels(WORKERS));
        let list = self.0.call("listing the workers' ReplicationControllers", api.list(&params)).await?;
        Ok(list.items.into_iter().map(Workload::from).collect())
    }

    /// Scales what was read, and only as it was read: the request names its version and its uid, so that it fails with
    /// a conflict where anybody changed the object since, even its annotations.
    pub(super) async fn scale(&self, workload: &Workload, replicas: i32, dry: bool) -> Result<(), cluster::Error> {
        let name = workload.name();
        let scale = Scale {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some(self.0.namespace().to_owned()),
                uid: workload.meta.uid.clone(),
                resource_version: workload.meta.resource_version.clone(),
                ..ObjectMeta::default()
            },
            spec: Some(ScaleSpec { replicas: Some(replicas) }),
            status: None,
        };
        let params = PostParams { dry_run: dry, field_manager: None };
        let what = format!("scaling {} to {replicas}", workload.title());
        match workload.kind {
            Kind::Deployment => {
                let api = self.0.api::<Deployment>();
                self.0.call(what, api.replace_scale(name, &params, &scale)).await?;
            }
            Kind::Worker => {
                let api = self.0.api::<ReplicationController>();
                self.0.call(what, api.replace_scale(name, &params, &scale)).await?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_lower_is_ready_with_less() {
        let ready = |replicas: i32, ready: i32, observed: i64| {
            let deployment = serde_json::json!({
                "metadata": { "name": "pachd", "generation": 3 },
                "spec": { "replicas": replicas, "selector": {}, "template": {} },
                "status": { "readyReplicas": ready, "observedGeneration": observed },
            });
            Workload::from(serde_json::from_value::<Deployment>(deployment).unwrap()).has_ready(6)
        };
        assert!(ready(6, 6, 3) && ready(8, 6, 3) && ready(2, 2, 3));
        assert!(!ready(6, 5, 3) && !ready(2, 1, 3) && !ready(0, 0, 3) && !ready(0, 6, 3));
        assert!(!ready(2, 2, 2), "its controller has not seen that yet");
    }
}
