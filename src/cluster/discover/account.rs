//! Whom pods are to a cloud's provider where no keys lie in the cluster: annotations of their ServiceAccount.

use k8s_openapi::api::core::v1::ServiceAccount;
use kube::ResourceExt as _;

use super::{Error, Found};
use crate::cluster::Cluster;

/// Annotations that tie an account to one of a provider: Amazon's IRSA, Google's and Microsoft's workload identity.
const ANNOTATIONS: [&str; 3] =
    ["eks.amazonaws.com/role-arn", "iam.gke.io/gcp-service-account", "azure.workload.identity/client-id"];

/// The provider's account of the ServiceAccount `name`; `None` where it has none, or may not be seen.
pub(super) async fn read(cluster: &Cluster, name: &str) -> Result<Option<Found<String>>, Error> {
    let what = format!("reading ServiceAccount/{name}");
    let account = match cluster.call(what, cluster.api::<ServiceAccount>().get_opt(name)).await {
        Ok(Some(account)) => account,
        Ok(None) => return Ok(None),
        Err(error) if error.is_forbidden() => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let found = ANNOTATIONS.iter().find_map(|annotation| {
        let value = account.annotations().get(*annotation)?.clone();
        Some(Found::new(value, format!("ServiceAccount/{name} annotation {annotation}")))
    });
    Ok(found)
}
