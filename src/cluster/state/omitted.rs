//! What stays out of a bundle: what the new environment must define itself (credentials of bucket and database, TLS), what
//! Kubernetes or pachd make again, and Helm's history.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{ConfigMap, PodSpec, Secret};
use serde::{Deserialize, Serialize};

/// Of `cluster/omitted.yaml`: an object of which the bundle has the name alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Omitted {
    /// `Secret` or `ConfigMap`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Which of its keys; absent where it is all of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
    /// Why.
    pub reason: String,
}

const STORAGE: &str = "credentials of the bucket: the new environment has its own";
const DATABASE: &str = "credentials of the database: the new environment has its own";
const TLS: &str = "TLS: the new environment has its own";
const TOKEN: &str = "a token that Kubernetes makes again";
const WORKER: &str = "pachd makes it again; an old one would be a token that the restored database does not know";
const MODE: &str = "says whether pachd is paused";
const KUBERNETES: &str = "Kubernetes makes it again";
const OWN: &str = "pacharc's own";

/// The Secrets whose names the chart fixes, and that are the environment's (chart, `templates/pachd/storage-secret.yaml`,
/// `templates/pachd/postgres-secret.yaml`, `templates/pgbouncer`, `dependencies/postgresql`), and one that pachd makes
/// (`ensurePJSWorkerSecret` in `src/internal/pachd/builder.go`).
const SECRETS: [(&str, &str); 4] = [
    ("pachyderm-storage-secret", STORAGE),
    ("postgres", DATABASE),
    ("pg-ca-cert", TLS),
    ("pachyderm-pjs-worker-authentication", WORKER),
];

/// Which keys of which Secrets hold the database's password.
#[derive(Clone, Debug, Default)]
pub(super) struct Credentials {
    password: BTreeSet<(String, String)>,
}

impl Credentials {
    /// Adds what the containers of a Deployment take from Secrets as the database's password: `pachd` and others have it in
    /// `POSTGRES_PASSWORD`, `pg-bouncer` in `POSTGRESQL_PASSWORD`.
    pub(super) fn of(&mut self, pods: &PodSpec) {
        let variables = pods.containers.iter().flat_map(|container| container.env.iter().flatten());
        for variable in variables.filter(|v| matches!(v.name.as_str(), "POSTGRES_PASSWORD" | "POSTGRESQL_PASSWORD")) {
            let reference = variable.value_from.as_ref().and_then(|from| from.secret_key_ref.as_ref());
            self.password.extend(reference.map(|reference| (reference.name.clone(), reference.key.clone())));
        }
    }
}

/// What becomes of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It goes in, but for these keys.
    Keep { without: Vec<String>, reason: &'static str },
    /// It is named in `cluster/omitted.yaml`.
    Name(&'static str),
    /// It is passed over: Helm's history, of which nobody wants a list.
    Pass,
}

const WHOLE: Verdict = Verdict::Keep { without: Vec::new(), reason: "" };

/// Whether an object is Helm's record of a release, by its labels and name.
fn is_history(metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> bool {
    metadata.name.as_deref().is_some_and(|name| name.starts_with("sh.helm.release.v1."))
}

pub(super) fn secret(secret: &Secret, credentials: &Credentials) -> Verdict {
    let name = secret.metadata.name.as_deref().unwrap_or_default();
    match secret.type_.as_deref() {
        Some("helm.sh/release.v1") => return Verdict::Pass,
        Some("kubernetes.io/service-account-token" | "bootstrap.kubernetes.io/token") => return Verdict::Name(TOKEN),
        Some("kubernetes.io/tls") => return Verdict::Name(TLS),
        _ => {}
    }
    if let Some((_, reason)) = SECRETS.iter().find(|(fixed, _)| *fixed == name) {
        return Verdict::Name(reason);
    }
    // pachd makes it with the pipeline (`createWorkerPachctlSecret` in `src/server/pps/server/worker_rc.go`).
    if name.starts_with("spout-pachctl-secret") {
        return Verdict::Name(WORKER);
    }
    // One Secret may hold the database's password and the cluster's own secrets.
    let is_password = |key: &&String| credentials.password.contains(&(name.to_owned(), (*key).clone()));
    let keys = secret.data.iter().flat_map(|data| data.keys());
    let (without, kept): (Vec<&String>, Vec<&String>) = keys.partition(is_password);
    match (without.is_empty(), kept.is_empty()) {
        (true, _) => WHOLE,
        (false, true) => Verdict::Name(DATABASE),
        (false, false) => Verdict::Keep { without: without.into_iter().cloned().collect(), reason: DATABASE },
    }
}

pub(super) fn config_map(map: &ConfigMap) -> Verdict {
    let name = map.metadata.name.as_deref().unwrap_or_default();
    let is_election = |name: &String| name == "control-plane.alpha.kubernetes.io/leader";
    if is_history(&map.metadata) {
        return Verdict::Pass;
    }
    if matches!(name, "kube-root-ca.crt" | "openshift-service-ca.crt" | "istio-ca-root-cert")
        || map.metadata.annotations.iter().flat_map(|all| all.keys()).any(is_election)
    {
        return Verdict::Name(KUBERNETES);
    }
    if name.starts_with("pacharc-") {
        return Verdict::Name(OWN);
    }
    // `pachctl enterprise pause` writes it; a restored cluster must not begin paused.
    let paused = name == "pachd-config" && map.data.as_ref().is_some_and(|data| data.contains_key("MODE"));
    match map.data.as_ref().map_or(0, std::collections::BTreeMap::len) {
        1 if paused => Verdict::Name(MODE),
        _ if paused => Verdict::Keep { without: vec!["MODE".to_owned()], reason: MODE },
        _ => WHOLE,
    }
}

/// An annotation that is no part of an object: what a tool keeps for itself. The first one is a copy of the whole object.
pub(super) fn is_noise(annotation: &str) -> bool {
    annotation == "kubectl.kubernetes.io/last-applied-configuration"
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
    use serde_json::json;

    use super::*;

    fn named(name: &str) -> ObjectMeta {
        ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() }
    }

    fn of_type(name: &str, type_: &str, keys: &[&str]) -> Secret {
        let data = keys.iter().map(|key| ((*key).to_owned(), ByteString(b"x".to_vec()))).collect();
        Secret { metadata: named(name), type_: Some(type_.to_owned()), data: Some(data), ..Secret::default() }
    }

    #[test]
    fn secrets_of_the_environment_stay_out() {
        let pods = json!({ "containers": [
            { "name": "pachd", "env": [
                { "name": "POSTGRES_PASSWORD", "valueFrom": { "secretKeyRef": { "name": "global", "key": "pw" } } },
                { "name": "AUTH_ROOT_TOKEN", "valueFrom": { "secretKeyRef": { "name": "global", "key": "root-token" } } },
            ] },
            { "name": "pg-bouncer", "env": [
                { "name": "POSTGRESQL_PASSWORD", "valueFrom": { "secretKeyRef": { "name": "only-pw", "key": "pw" } } },
            ] },
        ] });
        let mut credentials = Credentials::default();
        credentials.of(&serde_json::from_value(pods).unwrap());
        let verdict = |name, type_, keys: &[&str]| secret(&of_type(name, type_, keys), &credentials);
        assert_eq!(verdict("sh.helm.release.v1.p.v1", "helm.sh/release.v1", &["release"]), Verdict::Pass);
        assert_eq!(verdict("t", "kubernetes.io/service-account-token", &["token"]), Verdict::Name(TOKEN));
        assert_eq!(verdict("cert", "kubernetes.io/tls", &["tls.key"]), Verdict::Name(TLS));
        assert_eq!(verdict("pachyderm-storage-secret", "Opaque", &["AMAZON_ID"]), Verdict::Name(STORAGE));
        assert_eq!(verdict("postgres", "Opaque", &["postgresql-password"]), Verdict::Name(DATABASE));
        assert_eq!(verdict("only-pw", "Opaque", &["pw"]), Verdict::Name(DATABASE));
        let without = vec!["pw".to_owned()];
        assert_eq!(verdict("global", "Opaque", &["pw", "root-token"]), Verdict::Keep { without, reason: DATABASE });
        for (name, type_) in [
            ("pachyderm-auth", "Opaque"),
            ("pachyderm-deployment-id-secret", "Opaque"),
            ("mine", "Opaque"),
            ("pull", "kubernetes.io/dockerconfigjson"),
        ] {
            assert_eq!(verdict(name, type_, &["key"]), WHOLE, "{name}");
        }
    }

    #[test]
    fn config_maps_that_come_back_by_themselves_stay_out() {
        let map = |name: &str, keys: &[&str]| ConfigMap {
            metadata: named(name),
            data: Some(keys.iter().map(|key| ((*key).to_owned(), String::new())).collect()),
            ..ConfigMap::default()
        };
        assert_eq!(config_map(&map("kube-root-ca.crt", &["ca.crt"])), Verdict::Name(KUBERNETES));
        assert_eq!(config_map(&map("sh.helm.release.v1.p.v1", &["release"])), Verdict::Pass);
        assert_eq!(config_map(&map("pachd-config", &["MODE"])), Verdict::Name(MODE));
        let without = vec!["MODE".to_owned()];
        assert_eq!(config_map(&map("pachd-config", &["MODE", "X"])), Verdict::Keep { without, reason: MODE });
        assert_eq!(config_map(&map("pachd-config", &["X"])), WHOLE);
        assert_eq!(config_map(&map("pachyderm-identity-config", &["oidc-clients"])), WHOLE);
    }
}
