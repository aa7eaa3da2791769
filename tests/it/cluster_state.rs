//! What of a namespace goes into a bundle, on a real API server with what real Helm installed.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, ReplicationController, Secret};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::discover::chart;
use crate::support::cluster::Cluster;
use crate::support::kubelab::{Kubelab, Lab};
use crate::support::program::{Desk, words};

/// The values of the source: they hold what must never be seen in clear.
const VALUES: &str = "\
deployTarget: AMAZON
pachd:
  replicas: 2
  storage:
    storageURL: s3://source?region=eu-central-1
    amazon: {bucket: source, region: eu-central-1, id: PLANTEDID7, secret: plantedBucketSecret}
  serviceAccount: {additionalAnnotations: {eks.amazonaws.com/role-arn: 'arn:aws:iam::1:role/pach'}}
global: {postgresql: {postgresqlPassword: plantedPassword}}
";

/// A namespace as an operator would have it: Helm's release, upgraded once, and what people made beside it.
pub async fn namespace(kubelab: &Kubelab, desk: &Desk) -> Lab {
    let lab = kubelab.namespace().await;
    std::fs::write(desk.path("source-values.yaml"), VALUES).unwrap();
    let (chart, values) = (chart(), desk.path("source-values.yaml"));
    let (chart, values) = (chart.to_str().unwrap(), values.to_str().unwrap());
    lab.helm(["install", "pach", chart, "-f", values]);
    lab.helm(["upgrade", "pach", chart, "-f", values, "--set", "pachd.replicas=3"]);
    lab.apply::<Secret>(json!({
        "metadata": {
            "name": "aws-for-pipelines",
            "labels": { "secret-source": "pachyderm-user", "suite": "pachyderm" },
        },
        "stringData": { "key": "plantedUserSecret", "odd": "a: b\nc\n" },
        "data": { "binary": "AP8Q" },
    }))
    .await;
    let pull = json!({ "metadata": { "name": "pull" }, "type": "kubernetes.io/dockerconfigjson",
        "stringData": { ".dockerconfigjson": "{\"auths\":{}}" } });
    lab.apply::<Secret>(pull).await;
    let tls = json!({ "metadata": { "name": "tls" }, "type": "kubernetes.io/tls",
        "stringData": { "tls.crt": "c", "tls.key": "k" } });
    lab.apply::<Secret>(tls).await;
    lab.apply::<ConfigMap>(json!({ "metadata": { "name": "by-hand" }, "data": { "a": "5432", "b": "yes" } })).await;
    let spec = json!({ "replicas": 1, "selector": { "app": "pipeline" }, "template": {
        "metadata": { "labels": { "app": "pipeline" } }, "spec": { "containers": [{ "name": "user", "image": "i:1" }] } } });
    let labels = json!({ "suite": "pachyderm", "component": "worker", "pipelineName": "edges" });
    lab.apply::<ReplicationController>(
        json!({ "metadata": { "name": "default-edges-v1", "labels": labels }, "spec": spec }),
    )
    .await;
    lab
}

fn yaml(bytes: &[u8]) -> Value {
    serde_saphyr::from_slice(bytes).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_helm_would_lose_is_in_the_bundle() {
    let Some(kubelab) = Kubelab::shared() else { return };
    let desk = Desk::new();
    let Some(cluster) = Cluster::small(&desk, "cluster_state").await else { return };
    let lab = namespace(kubelab, &desk).await;
    let run = desk.backup(&[cluster.source(), lab.flags()].concat(), "c.pacharc", &[]).code(0);
    for planted in ["planted", "PLANTEDID7"] {
        assert!(!run.stderr.contains(planted), "{}", run.stderr);
    }
    desk.run(["verify", "c.pacharc", "--identity", "key.txt"]).code(0).says("closed");
    let listed = desk.run(["list", "c.pacharc", "cluster", "--identity", "key.txt"]).code(0).text();
    for path in [
        "cluster/helm/values.yaml",
        "cluster/helm/release.json",
        "cluster/workloads.yaml",
        "cluster/omitted.yaml",
        "cluster/secrets/pachyderm-auth.yaml",
        "cluster/secrets/pachyderm-deployment-id-secret.yaml",
        "cluster/secrets/aws-for-pipelines.yaml",
        "cluster/secrets/pull.yaml",
        "cluster/configmaps/by-hand.yaml",
    ] {
        assert!(listed.contains(path), "{path} is not in: {listed}");
    }
    for path in ["sh.helm", "pachyderm-storage-secret", "secrets/postgres", "secrets/tls", "kube-root-ca.crt"] {
        assert!(!listed.contains(path), "{path} is in: {listed}");
    }

    let extract =
        |path: &str| desk.run(["extract", "c.pacharc", path, "--identity", "key.txt", "-o", "-"]).code(0).stdout;
    // Helm itself says the same.
    let helm = |args: &[&str]| lab.helm(args).stdout;
    let release: Value = serde_json::from_slice(&extract("cluster/helm/release.json")).unwrap();
    let values = yaml(&helm(&["get", "values", "pach", "-o", "yaml"]));
    assert_eq!(release["values"], values);
    assert_eq!(yaml(&extract("cluster/helm/values.yaml")), values);
    assert_eq!(release["computed"], yaml(&helm(&["get", "values", "pach", "--all", "-o", "yaml"])));
    assert_eq!((&release["revision"], &release["status"]), (&json!(2), &json!("deployed")));
    let manifest = release["manifest"].as_str().unwrap();
    assert!(manifest.contains("kind: Deployment") && !manifest.contains("planted"), "{manifest}");

    // The Secret is what a cluster would take, byte for byte.
    let user: Secret = serde_saphyr::from_slice(&extract("cluster/secrets/aws-for-pipelines.yaml")).unwrap();
    let live = lab.api::<Secret>().get("aws-for-pipelines").await.unwrap();
    assert_eq!((&user.data, &user.type_, &user.metadata.labels), (&live.data, &live.type_, &live.metadata.labels));
    assert_eq!(user.data.unwrap()["binary"].0, [0, 255, 16]);
    assert_eq!((user.metadata.uid, user.metadata.namespace, user.metadata.managed_fields), (None, None, None));

    let workloads = yaml(&extract("cluster/workloads.yaml"));
    let of = |name: &str| workloads["workloads"].as_array().unwrap().iter().find(|w| w["name"] == name).unwrap();
    assert_eq!((&of("pachd")["replicas"], &of("pachd")["serviceAccount"]), (&json!(3), &json!("pachyderm")));
    assert_eq!(of("pachd")["images"], json!({ "pachd": "pachyderm/pachd:2.11.6" }));
    assert_eq!(of("default-edges-v1")["labels"]["pipelineName"], "edges");
    let accounts = workloads["serviceAccounts"].as_array().unwrap();
    let account = accounts.iter().find(|account| account["name"] == "pachyderm").unwrap();
    assert_eq!(account["annotations"]["eks.amazonaws.com/role-arn"], "arn:aws:iam::1:role/pach");
    let omitted = yaml(&extract("cluster/omitted.yaml"));
    let names: Vec<&str> = omitted.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["pachyderm-storage-secret", "postgres", "tls", "kube-root-ca.crt"]);

    let inspected = desk.run(["inspect", "c.pacharc", "--identity", "key.txt", "--json"]).code(0).text();
    let inspected: Value = serde_json::from_str(inspected.lines().last().unwrap()).unwrap();
    let source = &inspected["outcome"]["manifest"]["source"]["cluster"];
    assert_eq!(source["namespace"], lab.name);
    assert_eq!(source["image"], "pachyderm/pachd:2.11.6");
    assert_eq!(source["release"]["chart_version"], "2.11.6");
    assert_eq!(source["replicas"], json!({ "pachd": 3, "pachw": 0, "pg-bouncer": 1, "postgres": 1 }));
    assert_eq!((&source["config_maps"], &source["by_name"]), (&json!(2), &json!(false)));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_cluster_that_is_held_at_zero_the_recorded_counts_go_in() {
    let Some(kubelab) = Kubelab::shared() else { return };
    let desk = Desk::new();
    let Some(cluster) = Cluster::small(&desk, "held").await else { return };
    let lab = namespace(kubelab, &desk).await;
    desk.run([words(&["suspend"]), lab.flags()].concat()).code(0);
    desk.backup(&[cluster.source(), lab.flags()].concat(), "c.pacharc", &[]).code(0);
    let found =
        desk.run(["extract", "c.pacharc", "cluster/workloads.yaml", "--identity", "key.txt", "-o", "-"]).code(0);
    let workloads = yaml(&found.stdout);
    let count = |name: &str| {
        let found = workloads["workloads"].as_array().unwrap().iter().find(|workload| workload["name"] == name);
        found.unwrap()["replicas"].clone()
    };
    // pachw had none before, either.
    assert_eq!((count("pachd"), count("pachw"), count("default-edges-v1")), (json!(3), json!(0), json!(1)));
    let inspected = desk.run(["inspect", "c.pacharc", "--identity", "key.txt", "--json"]).code(0).text();
    let inspected: Value = serde_json::from_str(inspected.lines().last().unwrap()).unwrap();
    assert_eq!(inspected["outcome"]["manifest"]["source"]["cluster"]["replicas"]["pachd"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_without_helm_and_one_that_is_not_there() {
    let Some(kubelab) = Kubelab::shared() else { return };
    let desk = Desk::new();
    let Some(cluster) = Cluster::small(&desk, "no_helm").await else { return };
    let lab = namespace(kubelab, &desk).await;
    // As Argo CD leaves it, which renders charts itself.
    for revision in ["v1", "v2"] {
        let name = format!("sh.helm.release.v1.pach.{revision}");
        lab.api::<Secret>().delete(&name, &DeleteParams::default()).await.unwrap();
    }
    let unmarked = json!({ "metadata": { "annotations": { "meta.helm.sh/release-name": null } } });
    let patched = lab.api::<Deployment>().patch("pachd", &PatchParams::default(), &Patch::Merge(unmarked)).await;
    patched.unwrap();
    desk.backup(&[cluster.source(), lab.flags()].concat(), "c.pacharc", &[]).code(0);
    let listed = desk.run(["list", "c.pacharc", "cluster", "--identity", "key.txt"]).code(0).text();
    assert!(listed.contains("cluster/workloads.yaml") && !listed.contains("helm"), "{listed}");
    let elsewhere = words(&["--namespace", "no-such", "--kubeconfig", kubelab.kubeconfig().to_str().unwrap()]);
    desk.backup(&[cluster.source(), elsewhere].concat(), "d.pacharc", &[]).code(1).says("no namespace").advises();
}
