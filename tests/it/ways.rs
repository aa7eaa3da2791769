//! The ways to servers that only a cluster's pods know by name.

use std::process::Command;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Service;
use kube::config::Kubeconfig;
use serde_json::{Value, json};

use crate::support::kubelab::{Kubelab, Lab};
use crate::support::program::{Run, Running};
use crate::support::site::Site;

/// A Service of the name `db` in a namespace, and what it selects.
async fn service(lab: &Lab, spec: Value) {
    lab.apply::<Service>(json!({ "metadata": { "name": "db" }, "spec": spec })).await;
}

/// A release whose database is at this host, with the port of the real server.
fn with_host(site: &Site, host: &str) -> Value {
    let mut values = site.outside();
    values["global"]["postgresql"]["postgresqlHost"] = host.into();
    values
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_in_another_namespace_is_forwarded_to() {
    let Some(site) = Site::make().await else { return };
    let other = Kubelab::shared().unwrap().namespace().await;
    let labels = json!({ "app": "db" });
    let forward = json!({ "kubelab/forward-5432": format!("127.0.0.1:{}", site.postgres.port()) });
    let pod = json!({ "metadata": { "labels": labels, "annotations": forward },
                      "spec": { "containers": [{ "name": "db", "image": "postgres" }] } });
    let spec = json!({ "serviceName": "db", "selector": { "matchLabels": labels }, "template": pod });
    other.apply::<StatefulSet>(json!({ "metadata": { "name": "db" }, "spec": spec })).await;
    let port = json!([{ "port": site.postgres.port(), "targetPort": 5432 }]);
    service(&other, json!({ "selector": labels, "ports": port })).await;
    let ready = |set: Option<&StatefulSet>| set.and_then(|set| set.status.as_ref()?.ready_replicas) == Some(1);
    kube::runtime::wait::await_condition(other.api::<StatefulSet>(), "db", ready).await.unwrap();
    for host in [format!("db.{}", other.name), format!("db.{}.svc.cluster.local", other.name)] {
        site.install(&with_host(&site, &host));
        let text = site.run(&["plan", "backup"], &[]).code(0).text();
        assert!(text.contains("database     pachyderm: about"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_another_name_leads_to_that_name() {
    let Some(site) = Site::make().await else { return };
    service(&site.lab, json!({ "type": "ExternalName", "externalName": "localhost" })).await;
    // There is no pod to lead to: a port-forward would fail.
    site.install(&with_host(&site, "db"));
    let text = site.run(&["plan", "backup"], &[]).code(0).text();
    assert!(text.contains("database     pachyderm: about"), "{text}");
}

/// A plan in a pod whose name server knows Services of its own: here a file does, in a mount namespace of the run's own.
/// `port` is where the pod's API server is.
fn plan_in_pod(site: &Site, hosts: &[&str], port: &str) -> Run {
    std::fs::write(site.desk.path("hosts"), format!("127.0.0.1 localhost {}\n", hosts.join(" "))).unwrap();
    let plan = site.command(&["plan", "backup"], &[]);
    let mut inside = Command::new("unshare");
    inside.args(["-rm", "sh", "-c", "mount --bind hosts /etc/hosts && exec \"$@\"", "sh"]);
    inside.arg(plan.get_program()).args(plan.get_args()).current_dir(site.desk.folder());
    for (name, value) in plan.get_envs() {
        match value {
            Some(value) => inside.env(name, value),
            None => inside.env_remove(name),
        };
    }
    inside.env("KUBERNETES_SERVICE_HOST", "127.0.0.1").env("KUBERNETES_SERVICE_PORT", port);
    Running::start(&mut inside).finish()
}

#[tokio::test(flavor = "multi_thread")]
async fn services_are_reached_directly_in_a_pod_of_the_same_cluster_alone() {
    let Some(site) = Site::make().await else { return };
    let port = json!([{ "port": site.postgres.port() }]);
    service(&site.lab, json!({ "selector": { "app": "nobody" }, "ports": port })).await;
    site.install(&with_host(&site, "db"));
    site.run(&["plan", "backup"], &[]).code(7).says("no pod of Service/db");

    if !Command::new("unshare").args(["-rm", "true"]).status().is_ok_and(|status| status.success()) {
        pacharc_sample::skipped("unshare(1) may not make namespaces here");
        return;
    }
    let kubeconfig = Kubeconfig::read_from(site.lab.kubeconfig()).unwrap();
    let server = kubeconfig.clusters[0].cluster.as_ref().unwrap().server.clone().unwrap();
    let own = server.trim_end_matches('/').rsplit(':').next().unwrap();
    let full = format!("db.{}.svc", site.lab.name);
    let text = plan_in_pod(&site, &[&full], own).code(0).text();
    assert!(text.contains("database     pachyderm: about"), "{text}");

    // In a pod of another cluster these names are of other servers: that of this test would answer to all of them.
    let short = format!("db.{}", site.lab.name);
    let hosts = ["db", &short, &full, "stranger"];
    for host in &hosts[..3] {
        site.install(&with_host(&site, host));
        plan_in_pod(&site, &hosts, "1").code(7).says("no pod of Service/db");
    }
    site.install(&with_host(&site, "stranger"));
    plan_in_pod(&site, &hosts, own).code(0);
    plan_in_pod(&site, &hosts, "1").code(7).says("this pod is in another cluster").advises();
}

#[tokio::test(flavor = "multi_thread")]
async fn much_through_the_api_server_is_advised_against() {
    let Some(site) = Site::make().await else { return };
    site.install(&site.inside());
    site.wait_for("postgres").await;
    site.wait_for("minio").await;
    let advice = "would go through the API server by port-forward: run the backup there, with --in-cluster";
    assert!(!site.run(&["plan", "backup"], &[]).code(0).stderr.contains(advice));
    // The server keeps objects as files: this one takes no room.
    let large = std::fs::File::create(site.s3.folder.path().join("lake/large")).unwrap();
    large.set_len(11 << 30).unwrap();
    site.run(&["plan", "backup"], &[]).code(0).says(advice).says("hint: 11.0");
}
