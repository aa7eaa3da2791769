//! What an account needs to suspend and to resume. It is looked at before anything is changed: no cluster is halted by
//! somebody who may not start it again. `deploy/rbac/suspend.yaml` and the guardian's Role hold just these (a test compares).

use k8s_openapi::api::core::v1::ServiceAccount;

use super::guardian::{self, Guard};
use super::{Error, lease, record, workloads};
use crate::cluster::Cluster;
use crate::cluster::permissions::{self, Right};
use crate::monitor::Monitor;

/// Whether KEDA scales a Deployment is seen by its autoscaler; better known, but not needed.
const AUTOSCALERS: Right = Right::new("autoscaling", "horizontalpodautoscalers", "list");

/// To make the guardian's account where there is none. Its Role may hold only what the maker may do himself.
const TO_MAKE_THE_ACCOUNT: [Right; 3] = [
    Right::new("", "serviceaccounts", "create"),
    Right::new("rbac.authorization.k8s.io", "roles", "create"),
    Right::new("rbac.authorization.k8s.io", "rolebindings", "create"),
];

/// What `resume` and a guardian need.
#[must_use]
pub fn to_resume() -> Vec<Right> {
    let mut rights = vec![Right::new("coordination.k8s.io", "leases", "create")];
    for name in workloads::DEPLOYMENTS {
        let verbs = ["get", "list", "watch", "patch"];
        rights.extend(verbs.map(|verb| Right::new("apps", "deployments", verb).named(name)));
        rights.push(Right::new("apps", "deployments", "update").on("scale").named(name));
    }
    for verb in ["get", "update", "delete"] {
        rights.push(Right::new("", "configmaps", verb).named(record::NAME));
        let leases = [lease::RUN, lease::GUARDIAN];
        rights.extend(leases.map(|name| Right::new("coordination.k8s.io", "leases", verb).named(name)));
    }
    rights
}

/// What `suspend`, and a run that suspends, need beside that.
#[must_use]
pub fn to_suspend(guard: &Guard) -> Vec<Right> {
    let mut rights = to_resume();
    rights.extend([
        Right::new("", "configmaps", "create"),
        Right::new("", "pods", "list"),
        Right::new("", "pods", "watch"),
        Right::new("", "replicationcontrollers", "list"),
        Right::new("", "replicationcontrollers", "update").on("scale"),
    ]);
    if matches!(guard, Guard::Job(_)) {
        rights.extend(["create", "list", "delete"].map(|verb| Right::new("batch", "jobs", verb)));
        rights.push(Right::new("", "serviceaccounts", "get").named(guardian::ACCOUNT));
    }
    rights
}

/// Everything that it is good to have: what a Role for whoever suspends should give.
#[must_use]
pub fn all(guard: &Guard) -> Vec<Right> {
    let mut rights = to_suspend(guard);
    rights.push(AUTOSCALERS);
    rights
}

/// Refuses where something is lacking to suspend, and to resume again.
pub(super) async fn require_to_suspend(cluster: &Cluster, guard: &Guard) -> Result<(), Error> {
    permissions::require(cluster, &to_suspend(guard)).await?;
    if matches!(guard, Guard::Job(_)) {
        let accounts = cluster.api::<ServiceAccount>();
        let what = format!("reading ServiceAccount {}", guardian::ACCOUNT);
        if cluster.call(what, accounts.get_opt(guardian::ACCOUNT)).await?.is_none() {
            permissions::require(cluster, &TO_MAKE_THE_ACCOUNT).await?;
        }
    }
    Ok(())
}

/// Warns where what would undo a suspend cannot be seen.
pub(super) async fn warn_of_the_unseen(cluster: &Cluster, monitor: &dyn Monitor) -> Result<(), Error> {
    if !permissions::missing(cluster, &[AUTOSCALERS]).await?.is_empty() {
        monitor.warn(format!("whether an autoscaler would undo it is not known: the account may not {AUTOSCALERS}"));
    }
    Ok(())
}

/// Refuses where something is lacking to resume; by force it is done without Leases, too.
pub(super) async fn require_to_resume(cluster: &Cluster, force: bool) -> Result<(), Error> {
    let mut rights = to_resume();
    rights.retain(|right| !force || right.resource != "leases");
    Ok(permissions::require(cluster, &rights).await?)
}
