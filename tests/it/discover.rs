//! `pacharc discover`: what a namespace says, on a real API server, for each generation of Pachyderm's chart.

use std::path::{Path, PathBuf};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, ServiceAccount};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use serde_json::{Value, json};

use super::support::kubelab::{Kubelab, Lab};
use super::support::program::{Desk, Run, words};

pub fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/chart")
}

/// Installs the chart with the values of a generation.
fn install(lab: &Lab, generation: &str) {
    let values = chart().join("generations").join(format!("{generation}.yaml"));
    assert!(values.exists(), "{}", values.display());
    lab.helm(["install".as_ref(), "pachyderm".as_ref(), chart().as_os_str(), "--values".as_ref(), values.as_os_str()]);
}

fn run(lab: &Lab, more: &[&str]) -> Run {
    Desk::new().run([words(&["discover"]), lab.flags(), words(more)].concat())
}

/// The outcome of `discover --json`, in which nothing that was planted must be.
fn discover(lab: &Lab) -> Value {
    let run = run(lab, &["--json"]).code(0);
    let text = run.text();
    for text in [&text, &run.stderr] {
        assert!(!text.contains("planted"), "{text}");
    }
    let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    last["outcome"].clone()
}

/// The value of a fact, and where it was found.
#[track_caller]
fn assert_fact(fact: &Value, value: impl Into<Value>, found_in: &str) {
    assert_eq!(fact["value"], value.into(), "{fact}");
    let place = fact["found_in"].as_str().unwrap_or_default();
    assert!(place.contains(found_in), "{place:?} is not {found_in:?}");
}

fn warnings(found: &Value) -> String {
    found["warnings"].as_array().unwrap().iter().map(|w| format!("{}\n", w.as_str().unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lab_runs_pods() {
    let Some(kubelab) = Kubelab::shared() else { return };
    let lab = kubelab.namespace().await;
    install(&lab, "minio");
    let ready = |deployment: Option<&Deployment>| {
        deployment.and_then(|d| d.status.as_ref()).and_then(|status| status.ready_replicas) == Some(1)
    };
    kube::runtime::wait::await_condition(lab.api::<Deployment>(), "pachd", ready).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_in_the_storage_secret() {
    let Some(kubelab) = Kubelab::shared() else { return };
    let lab = kubelab.namespace().await;
    install(&lab, "2.2-amazon");
    let found = discover(&lab);
    assert_fact(&found["version"], "2.2.7", "Deployment/pachd image");
    assert_fact(&found["release"], "pachyderm", "Deployment/pachd annotation meta.helm.sh/release-name");
    let chart = json!({ "chart": "pachyderm", "version": "2.11.6", "revision": 1, "status": "deployed" });
    assert_fact(&found["chart"], chart, "Helm's sh.helm.release.v1.pachyderm.v1");
    assert_eq!(found["enterprise_server"], false);
    let database = &found["database"];
    assert_fact(&database["host"], "postgres", "Deployment/pachd env POSTGRES_HOST");
    assert_fact(&database["port"], 5432, "Deployment/pachd env POSTGRES_PORT");
    assert_fact(&database["user"], "pachyderm", "env POSTGRES_USER");
    let place = "Secret/postgres key postgresql-password (Deployment/pachd env POSTGRES_PASSWORD)";
    assert_fact(&database["password"], "***", place);
    assert_fact(&database["pachyderm"], "pachyderm", "env POSTGRES_DATABASE");
    assert_fact(&database["dex"], "dex", "env IDENTITY_SERVER_DATABASE");
    assert_fact(&database["sslmode"], "prefer", "Deployment/pg-bouncer env PGBOUNCER_SERVER_TLS_SSLMODE");
    let bucket = &found["bucket"];
    assert_fact(&bucket["backend"], "AMAZON", "Deployment/pachd env STORAGE_BACKEND");
    assert_eq!(bucket["place"]["kind"], "s3");
    let url = "s3://lake?region=eu-central-1";
    assert_fact(&bucket["place"]["url"], url, "Secret/pachyderm-storage-secret key AMAZON_BUCKET");
    for (part, key) in [("id", "AMAZON_ID"), ("secret", "AMAZON_SECRET"), ("token", "AMAZON_TOKEN")] {
        assert_fact(&bucket["credentials"][part], "***", &format!("Secret/pachyderm-storage-secret key {key}"));
    }
    assert_eq!(bucket["account"], Value::Null);
    assert!(found["tools"]["found"].as_array().unwrap().is_empty());
    assert!(found["tools"]["unknown"].as_array().unwrap().is_empty());
    assert!(warnings(&found).contains("sslmode prefer"), "{}", warnings(&found));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_url_that_is_not_in_force_is_passed_over() {
    let Some(kubelab) = Kubelab::shared() else { return };
    let lab = kubelab.namespace().await;
    install(&lab, "2.9-amazon");
    let bucket = discover(&lab)["bucket"].clone();
    let url = "s3://lake?endpoint=https://s3.example:9000&region=eu-central-1&path_style=true";
    assert_fact(&bucket["place"]["url"], url, "key AMAZON_BUCKET");
    assert_eq!(bucket["credentials"]["token"], Value::Null);
    // Switched on by hand, it counts.
    let env = json!([{ "name": "GOCDK_ENABLED", "value": "true" }]);
    let spec = json!({ "template": { "spec": { "containers": [{ "name": "pachd", "env": env }] } } });
    let patch = kube::api::Patch::Strategic(json!({ "spec": spec }));
    lab.api::<Deployment>().patch("pachd", &Default::default(), &patch).await.unwrap();
    let bucket = discover(&lab)["bucket"].clone();
    assert_fact(&bucket["place"]["url"], "s3://not-this-one?region=eu-central-1", "env STORAGE_URL");
    assert_fact(&bucket["credentials"]["id"], "***", "key AWS_ACCESS_KEY_ID");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_url_wins_over_a_stale_secret_and_its_path_is_ignored() {
    let Some(kubelab) = Kubelab::shared() else { return };
    let lab = kubelab.namespace().await;
    install(&lab, "2.10-url");
    let found = discover(&lab);
    let bucket = &found["bucket"];
    assert_fact(&bucket["place"]["url"], "s3://lake?region=us-east-2", "Deployment/pachd env STORAGE_URL");
    assert_eq!(bucket["credentials"], Value::Null);
    let role = "arn:aws:iam::123456789012:role/pachyderm";
    assert_fact(&bucket["account"], role, "ServiceAccount/pachyderm annotation eks.amazonaws.com/role-arn");
    assert!(warnings(&found).contains("Pachyderm ignores the path /ignored"), "{}", warnings(&found));
}

#[tokio::test(flavor = "multi_thread")]
async fn checks_that_are_switched_off_are_said_to_be() {
    let Some(kubelab) = Kubelab::shared() else { return };
    let lab = kubelab.namespace().await;
    install(&lab, "2.11-endpoint");
    let found = discover(&lab);
    assert_fact(&found["version"], "2.11.6", "Deployment/pachd image");
    let url = "s3://lake?endpoint=http://minio.storage:9000&region=dummy-region&path_style=true";
    assert_fact(&found["bucket"]["place"]["url"], url, "env STORAGE_URL");
    assert!(warnings(&found).contains("NO_VERIFY_SSL"), "{}", warnings(&found));
}

#[tokio::test(flavor = "multi_thread")]
async fn back_ends_of_every_kind() {
    let Some(kubelab) = Kubelab::shared() else { return };
    let lab = kubelab.namespace().await;
    install(&lab, "minio");
    let bucket = discover(&lab)["bucket"].clone();
    let url = "s3://lake?endpoint=http://minio:9000&path_style=true";
    assert_fact(&bucket["place"]["url"], url, "key MINIO_BUCKET");
    assert_fact(&bucket["credentials"]["secret"], "***", "key MINIO_SECRET");

    let lab = kubelab.namespace().await;
    install(&lab, "local");
    let bucket = discover(&lab)["bucket"].clone();
    assert_eq!(bucket["place"]["kind"], "folder");
    assert_fact(&bucket["place"]["path"], "/var/pachyderm/pachd", "Deployment/pachd volume pach-disk");

    let lab = kubelab.namespace().await;
    install(&lab, "google");
    let bucket = discover(&lab)["bucket"].clone();
    assert_eq!(bucket["place"]["kind"], "other");
    assert_fact(&bucket["place"]["url"], "gs://lake", "key GOOGLE_BUCKET");

    let lab = kubelab.namespace().await;
    install(&lab, "microsoft");
    let bucket = discover(&lab)["bucket"].clone();
    assert_fact(&bucket["place"]["url"], "azblob://lake", "env STORAGE_URL");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_enterprise_server_is_a_source() {
    let Some(kubelab) = Kubelab::shared() else { return };
    let lab = kubelab.namespace().await;
    install(&lab, "enterprise");
    let secret = |name: &str, data: Value| json!({ "metadata": { "name": name }, "stringData": data });
    // A reference that leads nowhere is named, with who refers to it.
    let failed = run(&lab, &[]).code(1).advises();
    failed.says(
        "Deployment/pach-enterprise env POSTGRES_PASSWORD refers to Secret/database-access, which does not exist",
    );
    lab.apply::<Secret>(secret("database-access", json!({ "other": "planted" }))).await;
    run(&lab, &[]).code(1).says("refers to key word of Secret/database-access, which it does not have");
    lab.apply::<Secret>(secret("database-access", json!({ "word": "planted-word" }))).await;
    lab.apply::<Secret>(secret("pg-client", json!({ "tls.crt": "planted", "tls.key": "planted" }))).await;
    let found = discover(&lab);
    assert_eq!((&found["enterprise_server"], &found["bucket"]), (&json!(true), &Value::Null));
    assert_fact(&found["version"], "2.9.4", "Deployment/pach-enterprise image");
    let database = &found["database"];
    assert_fact(&database["host"], "db.example", "Deployment/pach-enterprise env POSTGRES_HOST");
    assert_fact(&database["port"], 6432, "env POSTGRES_PORT");
    assert_fact(&database["pachyderm"], "licenses", "env POSTGRES_DATABASE");
    assert_fact(&database["dex"], "licenses_dex", "env IDENTITY_SERVER_DATABASE");
    assert_fact(&database["password"], "***", "Secret/database-access key word");
    assert_fact(&database["sslmode"], "verify-full", "Deployment/pg-bouncer");
    assert_fact(&database["authorities"], "***", "Secret/pg-ca-cert key ca.crt");
    assert_fact(&database["client"]["certificate"], "***", "Secret/pg-client key tls.crt");
    assert_fact(&database["client"]["key"], "***", "Secret/pg-client key tls.key");
    assert_eq!(warnings(&found), "");
}

/// A Deployment written by hand, with every way to set a variable.
#[tokio::test(flavor = "multi_thread")]
async fn variables_are_followed_as_kubernetes_does() {
    let Some(kubelab) = Kubelab::shared() else { return };
    let lab = kubelab.namespace().await;
    let map = |name: &str, data: Value| json!({ "metadata": { "name": name }, "data": data });
    lab.apply::<ConfigMap>(map(
        "first",
        json!({ "HOST": "lost", "POSTGRES_USER": "lost", "STORAGE_BACKEND": "LOCAL" }),
    ))
    .await;
    lab.apply::<ConfigMap>(map("second", json!({ "HOST": "db", "USER": "from-map" }))).await;
    let env = json!([
        { "name": "DOMAIN", "value": "example" },
        { "name": "POSTGRES_HOST", "value": "$(PREFIX_HOST).$(DOMAIN)-$$(DOMAIN)-$(LATER)-$" },
        { "name": "LATER", "value": "later" },
        { "name": "POSTGRES_PORT", "valueFrom": { "configMapKeyRef": { "name": "absent", "key": "x", "optional": true } } },
        { "name": "POSTGRES_USER", "valueFrom": { "configMapKeyRef": { "name": "second", "key": "USER" } } },
        { "name": "POSTGRES_PASSWORD", "value": "Using-iamLogin" },
        { "name": "POSTGRES_SSL", "value": "require" },
        { "name": "NODE", "valueFrom": { "fieldRef": { "fieldPath": "spec.nodeName" } } },
    ]);
    let sources = json!([
        { "configMapRef": { "name": "first" } },
        { "prefix": "PREFIX_", "configMapRef": { "name": "second" } },
        { "configMapRef": { "name": "absent", "optional": true } },
        { "secretRef": { "name": "absent", "optional": true } },
    ]);
    let container = json!({ "name": "pachd", "image": "r:5000/pachd@sha256:1234", "env": env, "envFrom": sources });
    let sidecar = json!({ "name": "a-sidecar", "image": "proxy:1.0.0" });
    let pod = json!({ "metadata": { "labels": { "app": "pachd" } }, "spec": { "containers": [sidecar, container] } });
    let spec = json!({ "replicas": 1, "selector": { "matchLabels": { "app": "pachd" } }, "template": pod });
    lab.apply::<Deployment>(json!({ "metadata": { "name": "pachd" }, "spec": spec })).await;
    let found = discover(&lab);
    assert_eq!(found["version"], Value::Null);
    let database = &found["database"];
    assert_fact(&database["host"], "db.example-$(DOMAIN)-$(LATER)-$", "Deployment/pachd env POSTGRES_HOST");
    assert_fact(&database["port"], 5432, "default");
    assert_fact(&database["user"], "from-map", "ConfigMap/second key USER");
    assert_eq!(database["password"], Value::Null);
    assert_fact(&database["pachyderm"], "pachyderm", "default");
    assert_fact(&database["sslmode"], "require", "Deployment/pachd env POSTGRES_SSL");
    assert_fact(&found["bucket"]["backend"], "LOCAL", "ConfigMap/first key STORAGE_BACKEND");
    assert_eq!(found["bucket"]["place"]["path"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_else_writes_to_the_deployments_is_found() {
    let Some(kubelab) = Kubelab::shared() else { return };
    let lab = kubelab.namespace().await;
    install(&lab, "minio");
    let mark =
        json!({ "metadata": { "annotations": { "argocd.argoproj.io/tracking-id": "team:apps/Deployment:ns/pachd" } } });
    let patch = kube::api::Patch::Merge(mark);
    lab.api::<Deployment>().patch("pachd", &Default::default(), &patch).await.unwrap();
    for (name, target) in [("workers", "pachw"), ("console", "console")] {
        let target = json!({ "apiVersion": "apps/v1", "kind": "Deployment", "name": target });
        let spec = json!({ "scaleTargetRef": target, "maxReplicas": 3 });
        lab.apply::<HorizontalPodAutoscaler>(json!({ "metadata": { "name": name }, "spec": spec })).await;
    }
    let tools = discover(&lab)["tools"]["found"].clone();
    let said = |n: usize| (tools[n]["kind"].clone(), tools[n]["name"].clone(), tools[n]["target"].clone());
    assert_eq!(said(0), (json!("argo_cd"), json!("team"), json!("pachd")));
    assert_eq!(said(1), (json!("horizontal_pod_autoscaler"), json!("workers"), json!("pachw")));
    assert_eq!(tools.as_array().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn people_read_where_everything_was_found() {
    let Some(kubelab) = Kubelab::shared() else { return };
    let lab = kubelab.namespace().await;
    run(&lab, &[]).code(1).advises().says("there is no Pachyderm in namespace");
    install(&lab, "2.2-amazon");
    let text = run(&lab, &[]).code(0).says("warning").text();
    for line in [
        format!("namespace    {} at https://127.0.0.1:", lab.name),
        "Pachyderm    2.2.7  [Deployment/pachd image]".to_owned(),
        "PostgreSQL   postgres:5432  [Deployment/pachd env POSTGRES_HOST]".to_owned(),
        "password     ***  [Secret/postgres key postgresql-password".to_owned(),
        "bucket       s3://lake?region=eu-central-1  [Secret/pachyderm-storage-secret key AMAZON_BUCKET]".to_owned(),
    ] {
        assert!(text.contains(&line), "{line} is not in: {text}");
    }
    assert!(!text.contains("planted"), "{text}");
}

/// With rights to read what is needed and no more, autoscalers are unknown; without those, the error names the right.
#[tokio::test(flavor = "multi_thread")]
async fn least_rights() {
    let Some(kubelab) = Kubelab::shared() else { return };
    let lab = kubelab.namespace().await;
    install(&lab, "2.2-amazon");
    let desk = Desk::new();
    lab.apply::<ServiceAccount>(json!({ "metadata": { "name": "reader" } })).await;
    let flags = lab.flags_as("reader", &desk.path("kubeconfig")).await;
    let discover = || desk.run([words(&["discover"]), flags.clone()].concat());
    discover().code(6).advises().says("reading Deployment/pachd").says("forbidden");
    let get =
        |groups: &str, resources: &[&str]| json!({ "apiGroups": [groups], "resources": resources, "verbs": ["get"] });
    let rules = [get("apps", &["deployments"]), get("", &["secrets", "configmaps"])];
    let role = |rules: &[Value]| json!({ "metadata": { "name": "reader" }, "rules": rules });
    lab.apply::<Role>(role(&rules[..1])).await;
    let subject = json!({ "kind": "ServiceAccount", "name": "reader", "namespace": lab.name });
    let reference = json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader" });
    let binding = json!({ "metadata": { "name": "reader" }, "subjects": [subject], "roleRef": reference });
    lab.apply::<RoleBinding>(binding).await;
    discover().code(6).advises().says("reading Secret/pachyderm-storage-secret");
    lab.apply::<Role>(role(&rules)).await;
    let text = discover().code(0).text();
    assert!(text.contains("horizontalpodautoscalers.autoscaling: may not be listed"), "{text}");
}
