//! What the release at the target needs: Helm values that start the backed-up version on the restored databases and bucket,
//! the Secrets that Helm alone would lose, and the steps that are left to a person.
//!
//! In clear are written the Secrets, into files of mode 0600, and no credential in values: a placeholder stands there, or a
//! reference to a Secret. pacharc never installs a release and never starts pachd.

mod advice;
mod apply;
mod captured;
mod credentials;
mod drill;
mod error;
mod files;
mod generated;
mod target;

use std::net::SocketAddr;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use serde_json::{Map, Value};

pub use advice::{Pipelines, steps, warnings};
pub use apply::{APPLY_RIGHTS, Applied, LOOK_RIGHTS, apply, check_secrets, refuse_running};
pub use captured::{Captured, Files};
pub use credentials::PLACEHOLDER;
pub use error::Error;
pub use files::{check_folder, write};
pub use generated::SECRET;
pub use target::{DATABASE_KEY, DATABASE_SECRET, Database, Target};

/// Values in which a host name may stand (chart, `values.yaml`).
const HOSTS: [&str; 7] = [
    "proxy.host",
    "ingress.host",
    "oidc.issuerURI",
    "oidc.userAccessibleOauthIssuerHost",
    "pachd.oauthRedirectURI",
    "console.config.oauthRedirectURI",
    "console.config.reactAppRuntimeIssuerURI",
];

/// Everything for the new release.
pub struct Successor {
    /// The values, without a credential.
    pub values: Map<String, Value>,
    /// The credentials of the source that are of use at the target, in clear.
    pub clear: Map<String, Value>,
    /// The Secrets to make.
    pub secrets: Vec<Secret>,
    /// The ConfigMaps to make.
    pub config_maps: Vec<ConfigMap>,
    /// The NetworkPolicy of a rehearsal.
    pub policy: Option<Value>,
    /// The values, by path, in which a placeholder stands: the operator replaces them.
    pub placeholders: Vec<String>,
}

impl Successor {
    /// Makes it from what was captured. `reachable` is where a rehearsal's pods may go.
    #[must_use]
    pub fn new(captured: &Captured, target: &Target, reachable: &[SocketAddr]) -> Self {
        let mut values = captured.own_release().map(|release| release.values.clone()).unwrap_or_default();
        let pinned = generated::pin(&mut values, captured);
        let mut clear = Map::new();
        for (path, value) in pinned.clear {
            set(&mut values, path, PLACEHOLDER.into());
            set(&mut clear, path, value);
        }
        for replaced in credentials::replace(&mut values) {
            // Items of lists cannot be set one by one: Helm takes a list as a whole.
            if let Some(original) = replaced.original.filter(|_| !replaced.path.split('.').any(is_number)) {
                set(&mut clear, &replaced.path, original);
            }
        }
        target.write(&mut values, captured);
        let placeholders = placeholders(&values);
        Self {
            values,
            clear,
            secrets: together(pinned.secret, captured.foreign_secrets().cloned().collect()),
            config_maps: captured.foreign_config_maps().cloned().collect(),
            policy: target.drill.then(|| drill::policy(target.namespace.as_deref(), reachable)),
            placeholders,
        }
    }
}

/// The new Secret with the others, of which each name may come once: a cluster that pacharc has restored before has one of its
/// name, which the values that came with it still refer to.
fn together(pinned: Option<Secret>, mut foreign: Vec<Secret>) -> Vec<Secret> {
    let Some(pinned) = pinned else { return foreign };
    match foreign.iter_mut().find(|secret| secret.metadata.name == pinned.metadata.name) {
        Some(before) => before.data.get_or_insert_default().extend(pinned.data.unwrap_or_default()),
        None => foreign.insert(0, pinned),
    }
    foreign
}

fn is_number(key: &str) -> bool {
    key.bytes().all(|byte| byte.is_ascii_digit())
}

/// Where placeholders stand.
fn placeholders(values: &Map<String, Value>) -> Vec<String> {
    fn walk(path: &str, value: &Value, found: &mut Vec<String>) {
        match value {
            Value::String(text) if text.contains(PLACEHOLDER) => found.push(path.to_owned()),
            Value::Object(map) => map.iter().for_each(|(key, value)| walk(&format!("{path}.{key}"), value, found)),
            Value::Array(items) => {
                items.iter().enumerate().for_each(|(at, value)| walk(&format!("{path}.{at}"), value, found));
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    values.iter().for_each(|(key, value)| walk(key, value, &mut found));
    found
}

/// Sets the value at `path` (keys joined with dots), making what is above it.
fn set(values: &mut Map<String, Value>, path: &str, value: Value) {
    match path.split_once('.') {
        None => {
            values.insert(path.to_owned(), value);
        }
        Some((first, rest)) => {
            let below = values.entry(first).or_insert_with(|| Value::Object(Map::new()));
            if !below.is_object() {
                *below = Value::Object(Map::new());
            }
            if let Value::Object(below) = below {
                set(below, rest, value);
            }
        }
    }
}

/// Takes the value at `path` away.
fn remove(values: &mut Map<String, Value>, path: &str) {
    match path.split_once('.') {
        None => {
            values.remove(path);
        }
        Some((first, rest)) => {
            if let Some(Value::Object(below)) = values.get_mut(first) {
                remove(below, rest);
            }
        }
    }
}

#[cfg(test)]
mod tests;
