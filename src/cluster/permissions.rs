//! Whether the account may do what a job will ask for: looked at before anything is changed, so that no cluster is halted
//! by somebody who may not start it again. What is missing is told as a rule that can be pasted into a Role.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};

use super::{Cluster, Error as ClusterError, readable};
use crate::failure::{Class, Explain};

/// Questions that are asked at a time.
const AT_A_TIME: usize = 8;

/// A right in the namespace: one verb on one kind of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Right {
    /// The API group; empty for the core.
    pub group: &'static str,
    /// The plural name, e.g. `deployments`.
    pub resource: &'static str,
    /// The subresource, e.g. `scale`; empty where it is the object itself.
    pub subresource: &'static str,
    /// `get`, `list`, `watch`, `create`, `patch`, …
    pub verb: &'static str,
    /// The one object it is needed for; `None`: all.
    pub name: Option<&'static str>,
}

impl Right {
    /// A right on all objects of a kind.
    #[must_use]
    pub const fn new(group: &'static str, resource: &'static str, verb: &'static str) -> Self {
        Self { group, resource, subresource: "", verb, name: None }
    }

    /// The same on a subresource.
    #[must_use]
    pub const fn on(self, subresource: &'static str) -> Self {
        Self { subresource, ..self }
    }

    /// The same for one object alone.
    #[must_use]
    pub const fn named(self, name: &'static str) -> Self {
        Self { name: Some(name), ..self }
    }

    /// The resource as a Role names it, e.g. `deployments/scale`.
    fn role_resource(&self) -> String {
        match self.subresource {
            "" => self.resource.to_owned(),
            subresource => format!("{}/{subresource}", self.resource),
        }
    }

    /// Whether reading by name does as well: [`readable`] takes the names from the account's own rules.
    fn may_be_named(&self) -> bool {
        matches!((self.group, self.resource, self.verb), ("", "secrets" | "configmaps", "list" | "get"))
            && self.subresource.is_empty()
            && self.name.is_none()
    }
}

/// E.g. `list secrets`.
impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb, self.role_resource())?;
        self.name.map_or(Ok(()), |name| write!(f, " {name}"))
    }
}

/// Why the rights do not suffice, or are not known.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// Some are missing.
    #[error("the account lacks rights in namespace {namespace}: {}", told(missing))]
    Missing {
        /// The namespace.
        namespace: String,
        /// The rights, sorted.
        missing: Vec<Right>,
    },
}

fn told(missing: &[Right]) -> String {
    missing.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl Explain for Error {
    fn class(&self) -> Class {
        match self {
            Self::Cluster(error) => error.class(),
            Self::Missing { .. } => Class::Credentials,
        }
    }

    fn advice(&self) -> Option<String> {
        match self {
            Self::Cluster(error) => error.advice(),
            Self::Missing { namespace, missing } => Some(format!(
                "Add to its Role in namespace {namespace} (deploy/rbac has whole ones): {}",
                rules(missing)
            )),
        }
    }
}

/// Refuses where the account lacks any of `rights`.
///
/// # Errors
/// [`Error::Missing`]; the API server's.
pub async fn require(cluster: &Cluster, rights: &[Right]) -> Result<(), Error> {
    let missing = missing(cluster, rights).await?;
    if missing.is_empty() {
        return Ok(());
    }
    Err(Error::Missing { namespace: cluster.namespace().to_owned(), missing })
}

/// Those of `rights` that the account lacks, sorted.
///
/// # Errors
/// The API server's.
pub async fn missing(cluster: &Cluster, rights: &[Right]) -> Result<Vec<Right>, ClusterError> {
    let rights: BTreeSet<Right> = rights.iter().copied().collect();
    let asked = rights.into_iter().map(|right| async move {
        let allowed = is_allowed(cluster, &right).await? || is_named(cluster, &right).await?;
        Ok::<_, ClusterError>((!allowed).then_some(right))
    });
    // Answers keep the order of the questions.
    let missing: Vec<Option<Right>> = futures::stream::iter(asked).buffered(AT_A_TIME).try_collect().await?;
    Ok(missing.into_iter().flatten().collect())
}

async fn is_allowed(cluster: &Cluster, right: &Right) -> Result<bool, ClusterError> {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let attributes = ResourceAttributes {
        namespace: text(cluster.namespace()),
        verb: text(right.verb),
        group: text(right.group),
        resource: text(right.resource),
        subresource: text(right.subresource),
        name: right.name.map(str::to_owned),
        ..ResourceAttributes::default()
    };
    let spec = SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() };
    let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
    let reviews: Api<SelfSubjectAccessReview> = Api::all(cluster.client().clone());
    let params = PostParams::default();
    let answer = cluster.call(format!("asking for the right to {right}"), reviews.create(&params, &review)).await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

/// Whether the right is fixed to names, and that will do.
async fn is_named(cluster: &Cluster, right: &Right) -> Result<bool, ClusterError> {
    if !right.may_be_named() {
        return Ok(false);
    }
    Ok(!readable::names(cluster, right.group, right.resource).await?.is_empty())
}

/// The rules of a Role that gives `rights` and no more.
#[must_use]
pub fn policy(rights: &[Right]) -> Value {
    let mut verbs: BTreeMap<_, BTreeSet<&str>> = BTreeMap::new();
    for right in rights {
        verbs.entry((right.group, right.role_resource(), right.name)).or_default().insert(right.verb);
    }
    // What is allowed on several objects alike is one rule.
    let mut names: BTreeMap<_, Vec<&str>> = BTreeMap::new();
    for ((group, resource, name), verbs) in verbs {
        names.entry((group, resource, name.is_some(), verbs)).or_default().extend(name);
    }
    let rules = names.into_iter().map(|((group, resource, _, verbs), names)| {
        let mut rule = json!({ "apiGroups": [group], "resources": [resource] });
        if !names.is_empty() {
            rule["resourceNames"] = names.into();
        }
        rule["verbs"] = verbs.into_iter().collect();
        rule
    });
    rules.collect()
}

/// The same as YAML in one line, as everything is that an error says.
#[must_use]
pub fn rules(rights: &[Right]) -> String {
    let strings = |list: &Value| list.to_string().replace("\",", "\", ");
    let rules = policy(rights);
    let rules = rules.as_array().into_iter().flatten().map(|rule| {
        let keys = ["apiGroups", "resources", "resourceNames", "verbs"].into_iter();
        let fields = keys.filter_map(|key| Some(format!("{key}: {}", strings(rule.get(key)?))));
        format!("{{{}}}", fields.collect::<Vec<_>>().join(", "))
    });
    format!("rules: [{}]", rules.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_can_be_pasted() {
        let rights = [
            Right::new("apps", "deployments", "patch").on("scale"),
            Right::new("", "secrets", "list"),
            Right::new("", "secrets", "get"),
            Right::new("", "configmaps", "update").named("pacharc-last"),
            Right::new("", "configmaps", "update").named("pacharc-suspended"),
            Right::new("", "configmaps", "create"),
        ];
        let yaml = rules(&rights);
        let parsed: serde_json::Value = serde_saphyr::from_str(&yaml).unwrap();
        let wanted = serde_json::json!([
            { "apiGroups": [""], "resources": ["configmaps"], "verbs": ["create"] },
            { "apiGroups": [""], "resources": ["configmaps"],
              "resourceNames": ["pacharc-last", "pacharc-suspended"], "verbs": ["update"] },
            { "apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list"] },
            { "apiGroups": ["apps"], "resources": ["deployments/scale"], "verbs": ["patch"] },
        ]);
        assert_eq!(parsed["rules"], wanted);
        assert_eq!(yaml.lines().count(), 1);
        let error = Error::Missing { namespace: "ns".into(), missing: rights.to_vec() };
        assert!(error.to_string().contains("patch deployments/scale, list secrets"), "{error}");
        assert!(error.advice().unwrap().ends_with(&yaml));
    }
}
