//! The objects of a kind that this account may read. A Role can allow all of a namespace, or fix them by name
//! (`resourceNames`): then they cannot be listed, and the account's own rules tell the names.

use std::collections::BTreeSet;
use std::fmt::Debug;

use k8s_openapi::api::authorization::v1::{SelfSubjectRulesReview, SelfSubjectRulesReviewSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{ListParams, PostParams};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

use super::{Cluster, Error};

/// Metadata asked for at a time.
const PAGE: u32 = 200;

/// What was found.
pub(super) struct Readable {
    /// The objects' metadata.
    pub(super) found: Vec<ObjectMeta>,
    /// Whether these are all there are; otherwise those that the account's rules name.
    pub(super) complete: bool,
}

/// The metadata of all objects of a kind with these labels (`""`: of all); where they are fixed by name, of all that are
/// named, whatever their labels.
pub(super) async fn labelled<K>(cluster: &Cluster, api: &Api<K>, labels: &str) -> Result<Readable, Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    match list(cluster, api, labels).await {
        Ok(found) => Ok(Readable { found, complete: true }),
        Err(error) if error.is_forbidden() => match named(cluster, api).await? {
            Some(found) => Ok(Readable { found, complete: false }),
            None => Err(error),
        },
        Err(error) => Err(error),
    }
}

async fn list<K>(cluster: &Cluster, api: &Api<K>, labels: &str) -> Result<Vec<ObjectMeta>, Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let mut params = ListParams::default().labels(labels).limit(PAGE);
    let mut found = Vec::new();
    loop {
        let what = format!("listing {}s", K::kind(&()));
        let page = cluster.call(what, api.list_metadata(&params)).await?;
        found.extend(page.items.into_iter().map(|object| object.metadata));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(found),
        }
    }
}

/// Those that a rule lets this account get by name; `None` where no rule names any.
async fn named<K>(cluster: &Cluster, api: &Api<K>) -> Result<Option<Vec<ObjectMeta>>, Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let names = names(cluster, &K::group(&()), &K::plural(&())).await?;
    if names.is_empty() {
        return Ok(None);
    }
    let mut found = Vec::new();
    for name in names {
        let what = format!("reading {} {name}", K::kind(&()));
        // A Role may name what is not there.
        if let Some(object) = cluster.call(what, api.get_metadata_opt(&name)).await? {
            found.push(object.metadata);
        }
    }
    Ok(Some(found))
}

/// The names of objects that this account may get because a rule names them.
pub(super) async fn names(cluster: &Cluster, group: &str, plural: &str) -> Result<BTreeSet<String>, Error> {
    let spec = SelfSubjectRulesReviewSpec { namespace: Some(cluster.namespace().to_owned()) };
    let review = SelfSubjectRulesReview { spec, ..SelfSubjectRulesReview::default() };
    let reviews: Api<SelfSubjectRulesReview> = Api::all(cluster.client().clone());
    let params = PostParams::default();
    let review = cluster.call("asking which names may be read", reviews.create(&params, &review)).await?;
    let has = |list: &[String], item: &str| list.iter().any(|one| one == item || one == "*");
    let rules = review.status.unwrap_or_default().resource_rules.into_iter();
    let rules = rules.filter(|rule| {
        has(&rule.verbs, "get")
            && has(rule.api_groups.as_deref().unwrap_or_default(), group)
            && has(rule.resources.as_deref().unwrap_or_default(), plural)
    });
    Ok(rules.flat_map(|rule| rule.resource_names.unwrap_or_default()).collect())
}
