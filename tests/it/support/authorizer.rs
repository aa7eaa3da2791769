//! Roles that are in force before they are used: the API server judges by a copy of them, which follows a little later.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};

use super::kubelab::Lab;
use super::pachyderm::until;

/// The API group of what there is not.
const NOWHERE: &str = "test.invalid";

/// Applies a Role, and waits until the server goes by it for an account that is bound to it.
pub async fn grant(lab: &Lab, role: Value, account: &str) {
    let (role, marker) = marked(role);
    lab.apply::<Role>(role).await;
    in_force(lab, account, &marker).await;
}

/// Applies Roles and what binds them, and waits until the server goes by them.
pub async fn grant_all(lab: &Lab, roles: Vec<Value>, bindings: Vec<Value>) {
    let mut markers = BTreeMap::new();
    for role in roles {
        let (role, marker) = marked(role);
        markers.insert(role["metadata"]["name"].as_str().unwrap().to_owned(), marker);
        lab.apply::<Role>(role).await;
    }
    for binding in &bindings {
        lab.apply::<RoleBinding>(binding.clone()).await;
    }
    for binding in &bindings {
        let Some(marker) = markers.get(binding["roleRef"]["name"].as_str().unwrap()) else { continue };
        for subject in binding["subjects"].as_array().unwrap() {
            in_force(lab, subject["name"].as_str().unwrap(), marker).await;
        }
    }
}

/// Whether an account may do something with all objects of a kind, as the server sees it now.
pub async fn may(lab: &Lab, account: &str, verb: &str, group: &str, resource: &str) -> bool {
    let attributes = ResourceAttributes {
        namespace: Some(lab.name.clone()),
        verb: Some(verb.to_owned()),
        group: Some(group.to_owned()),
        resource: Some(resource.to_owned()),
        ..ResourceAttributes::default()
    };
    let user = format!("system:serviceaccount:{}:{account}", lab.name);
    let spec = SubjectAccessReviewSpec {
        user: Some(user),
        resource_attributes: Some(attributes),
        ..SubjectAccessReviewSpec::default()
    };
    let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
    let reviews: Api<SubjectAccessReview> = Api::all(lab.client.clone());
    reviews.create(&PostParams::default(), &review).await.unwrap().status.unwrap().allowed
}

/// The Role with one right more, to something that there is not: by it this very version of the Role is known.
fn marked(mut role: Value) -> (Value, String) {
    static NUMBER: AtomicU32 = AtomicU32::new(1);
    let marker = format!("markers-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    let rule = json!({ "apiGroups": [NOWHERE], "resources": [marker], "verbs": ["get"] });
    role["rules"].as_array_mut().unwrap().push(rule);
    (role, marker)
}

async fn in_force(lab: &Lab, account: &str, marker: &str) {
    until("the Role is in force", async || may(lab, account, "get", NOWHERE, marker).await).await;
}
