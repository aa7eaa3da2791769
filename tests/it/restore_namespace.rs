//! A whole cluster into another namespace: databases, bucket, Secrets, and values that real Helm installs.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;

use k8s_openapi::ByteString;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde_json::{Value, json};

use crate::cluster_state::namespace;
use crate::discover::chart;
use crate::support::cluster::{Cluster, target};
use crate::support::kubelab::{Kubelab, Lab};
use crate::support::program::{Desk, Run, words};

/// What must be seen nowhere but in Secrets.
const PLANTED: [&str; 2] = ["planted", "PLANTEDID7"];

/// A pipeline `lab/hourly` that ticks, writes to somewhere, and mounts a Secret, as `pps.proto` has it.
const CRON: &str = "INSERT INTO collections.pipelines (proto, key) VALUES ('\\x0a0f0a06686f75726c7912050a036c6162622f0a152a130a116177732d666f722d706970656c696e657322060a0473333a2f6a0e320c0a0474696b6b220440686f75', 'lab/hourly@1')";

async fn data(lab: &Lab, name: &str) -> BTreeMap<String, ByteString> {
    lab.api::<Secret>().get(name).await.unwrap().data.unwrap_or_default()
}

fn yaml(bytes: &[u8]) -> Value {
    serde_saphyr::from_slice(bytes).unwrap()
}

#[track_caller]
fn shows_nothing(run: &Run) {
    for planted in PLANTED {
        assert!(!run.stderr.contains(planted) && !run.text().contains(planted), "{}", run.stderr);
    }
}

/// Source, bundle, and an empty namespace to restore into.
async fn prepared(kubelab: &'static Kubelab, desk: &Desk, name: &str) -> Option<(Lab, Lab)> {
    let cluster = Cluster::small(desk, name).await?;
    cluster.server.psql(&cluster.database, CRON).unwrap();
    let from = namespace(kubelab, desk).await;
    desk.backup(&[cluster.source(), from.flags()].concat(), "c.pacharc", &[]).code(0);
    Some((from, kubelab.namespace().await))
}

#[tokio::test(flavor = "multi_thread")]
async fn helm_installs_what_was_written_and_nothing_is_made_anew() {
    let Some(kubelab) = Kubelab::shared() else { return };
    let desk = Desk::new();
    let Some((from, to)) = prepared(kubelab, &desk, "into_namespace").await else { return };
    let into = [target(&desk.bucket("target")), to.flags()].concat();
    let more = ["--apply-secrets", "--write-to", "release", "--owner", "pachyderm", "--host", "new.example"];
    let run = desk.restore("c.pacharc", &into, &[&more[..], &["--pachyderm-version", "2.12.0"]].concat()).code(0);
    shows_nothing(&run);
    let run = run.says("two clusters use one bucket").says("hourly").says("helm install pach pachyderm/pachyderm");
    let run = run
        .says("--version 2.12.0")
        .says("pachctl config set context")
        .says("service accounts have annotations")
        .says("postgres, tls");
    let run = run.says("real places outside: lab/hourly");

    // Secrets: those of people are the same, those of the chart are pinned in one of their own.
    for name in ["aws-for-pipelines", "pull"] {
        assert_eq!(data(&from, name).await, data(&to, name).await, "{name}");
    }
    let map = to.api::<ConfigMap>().get("by-hand").await.unwrap();
    assert_eq!(map.data.unwrap(), [("a", "5432"), ("b", "yes")].map(|(k, v)| (k.to_owned(), v.to_owned())).into());
    assert!(!run.stderr.contains("Make the ConfigMaps"), "{}", run.stderr);
    let pinned = data(&to, "pachyderm-restored").await;
    let auth = data(&from, "pachyderm-auth").await;
    assert_eq!(pinned["root-token"], auth["root-token"]);
    assert_eq!(pinned["pachd-oauth-client-secret"], auth["pachd-oauth-client-secret"]);
    assert_eq!(pinned["OAUTH_CLIENT_SECRET"], data(&from, "pachyderm-console-secret").await["OAUTH_CLIENT_SECRET"]);
    for absent in ["tls", "pachyderm-storage-secret", "pachyderm-auth", "postgres"] {
        assert!(to.api::<Secret>().get_opt(absent).await.unwrap().is_none(), "{absent}");
    }

    // Values: no credential, all of the new place.
    let text = std::fs::read_to_string(desk.path("release/values.yaml")).unwrap();
    for secret in PLANTED {
        assert!(!text.contains(secret), "{text}");
    }
    let values = yaml(text.as_bytes());
    assert_eq!(values["pachd"]["replicas"], 3, "what the user gave last stays");
    assert_eq!(values["pachd"]["image"]["tag"], "2.11.6");
    // A folder here is none of the nodes', and S3's settings are of no use there.
    assert_eq!(values["pachd"]["storage"], json!({ "backend": "LOCAL", "local": { "hostPath": "REPLACE-ME" } }));
    assert!(!run.stderr.contains("oidc.mockIDP"), "the identity providers are pinned: {}", run.stderr);
    assert_eq!(values["global"]["postgresql"]["postgresqlUsername"], "pachyderm");
    assert_eq!(values["proxy"]["host"], "new.example");
    for path in ["release/values.yaml", "release/secrets/aws-for-pipelines.yaml", "release/NEXT-STEPS.txt"] {
        assert_eq!(std::fs::metadata(desk.path(path)).unwrap().permissions().mode() & 0o777, 0o600, "{path}");
    }
    assert!(!desk.path("release/values.secret.yaml").exists());

    // The steps: the database's password, the placeholders, helm.
    let password =
        json!({ "metadata": { "name": "pachyderm-database" }, "stringData": { "postgresql-password": "new" } });
    to.apply::<Secret>(password).await;
    let (chart, file) = (chart(), desk.path("release/values.yaml"));
    let (chart, file) = (chart.to_str().unwrap(), file.to_str().unwrap());
    to.helm(["install", "pach", chart, "-f", file]);
    assert_eq!(yaml(&to.helm(["get", "values", "pach", "-o", "yaml"]).stdout), values);
    let before = data(&from, "pachyderm-deployment-id-secret").await;
    assert_eq!(before, data(&to, "pachyderm-deployment-id-secret").await);
    let made = data(&to, "pachyderm-auth").await;
    assert!(!made.contains_key("root-token") && !made.contains_key("cluster-role-bindings"), "{:?}", made.keys());
    let pachd = to.api::<Deployment>().get("pachd").await.unwrap();
    let container = &pachd.spec.unwrap().template.spec.unwrap().containers[0];
    assert_eq!(container.image.as_deref(), Some("pachyderm/pachd:2.11.6"));
    let reference = |name: &str| {
        let variable = container.env.as_ref().unwrap().iter().find(|variable| variable.name == name).unwrap();
        variable.value_from.as_ref().unwrap().secret_key_ref.as_ref().unwrap().name.clone()
    };
    assert_eq!(reference("AUTH_ROOT_TOKEN"), "pachyderm-restored");
    assert_eq!(reference("POSTGRES_PASSWORD"), "pachyderm-database");

    // Now pachd runs there: no restore goes in any more.
    desk.restore("c.pacharc", &into, &["--write-to", "again"]).code(5).says("pachd runs in namespace").advises();
    assert!(!desk.path("again").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_the_way_is_refused_before_the_first_byte() {
    let Some(kubelab) = Kubelab::shared() else { return };
    let desk = Desk::new();
    let Some((_, to)) = prepared(kubelab, &desk, "in_the_way").await else { return };
    let into = [target(&desk.bucket("target")), to.flags()].concat();
    let untouched = || assert!(!desk.path("target").exists());

    // A Secret with other content is not overwritten; the same content is no matter.
    let other = json!({ "metadata": { "name": "aws-for-pipelines" }, "stringData": { "key": "another" } });
    to.apply::<Secret>(other).await;
    to.apply::<ConfigMap>(json!({ "metadata": { "name": "by-hand" }, "data": { "a": "mine" } })).await;
    desk.restore("c.pacharc", &into, &["--apply-secrets"]).code(5).says("Secret aws-for-pipelines exists").advises();
    untouched();
    assert_eq!(data(&to, "aws-for-pipelines").await["key"].0, b"another");
    desk.run([words(&["plan"]), Desk::restore_args("c.pacharc", &into, &["--apply-secrets"])].concat()).code(5);

    std::fs::create_dir(desk.path("full")).unwrap();
    std::fs::write(desk.path("full/values.yaml"), "mine").unwrap();
    desk.restore("c.pacharc", &into, &["--write-to", "full"]).code(5).says("full is not empty").advises();
    let older = ["--write-to", "release", "--pachyderm-version", "2.10.9"];
    desk.restore("c.pacharc", &into, &older).code(5).says("2.10.9 is older than 2.11.6").advises();
    untouched();
    assert!(!desk.path("release").exists());
    // A ConfigMap with other content is left as it is, and named.
    to.api::<Secret>().delete("aws-for-pipelines", &Default::default()).await.unwrap();
    let run = desk.restore("c.pacharc", &into, &["--apply-secrets"]).code(0);
    let run = run.says("ConfigMaps exist with other content, and were left so: by-hand");
    assert!(run.stderr.contains("ConfigMaps: 0 made, 1 there already"), "{}", run.stderr);
    assert_eq!(to.api::<ConfigMap>().get("by-hand").await.unwrap().data.unwrap()["a"], "mine");
    for args in [&["--apply-secrets"][..], &["--drill"], &["--secret-values"], &["--host", "h"]] {
        desk.restore("c.pacharc", &target(&desk.bucket("target")), args).code(2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_without_a_namespace_and_a_schema_of_no_known_release() {
    let Some(kubelab) = Kubelab::shared() else { return };
    let desk = Desk::new();
    let Some(cluster) = Cluster::small(&desk, "no_namespace").await else { return };
    desk.backup(&cluster.source(), "plain.pacharc", &[]).code(0);
    let into = target(&desk.bucket("target"));
    let none = desk.restore("plain.pacharc", &into, &["--write-to", "release"]).code(2);
    drop(none.says("holds no state of Kubernetes").advises());
    let bundle = std::fs::File::open(desk.path("plain.pacharc")).unwrap();
    let mut piped = desk.command(Desk::restore_args("-", &into, &["--write-to", "release"]));
    assert_eq!(piped.stdin(bundle).output().unwrap().status.code(), Some(2));

    cluster
        .server
        .psql(&cluster.database, "INSERT INTO migrations (id, name, end_time) VALUES (9999, 'of tomorrow', now())")
        .unwrap();
    let lab = namespace(kubelab, &desk).await;
    desk.backup(&[cluster.source(), lab.flags()].concat(), "new.pacharc", &[]).code(0);
    let unknown = desk.restore("new.pacharc", &into, &["--write-to", "release"]).code(5);
    drop(unknown.says("unknown release (migration 9999)").advises());
    desk.restore("new.pacharc", &into, &["--write-to", "release", "--allow-unknown-schema"]).code(0);
    assert!(desk.path("release/values.yaml").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drill_from_a_pipe_with_credentials_on_request() {
    let Some(kubelab) = Kubelab::shared() else { return };
    let desk = Desk::new();
    let Some((_, to)) = prepared(kubelab, &desk, "drill").await else { return };
    let into = [target(&desk.bucket("target")), to.flags()].concat();
    let bundle = std::fs::File::open(desk.path("c.pacharc")).unwrap();
    let more = ["--write-to", "drill", "--drill", "--secret-values", "--json"];
    let output = desk.command(Desk::restore_args("-", &into, &more)).stdin(bundle).output().unwrap();
    let (stdout, stderr) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr).into_owned());
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    for planted in PLANTED {
        assert!(!stdout.contains(planted) && !stderr.contains(planted));
    }
    let finished: Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
    let release = &finished["outcome"]["release"];
    let files: Vec<&str> = release["files"].as_array().unwrap().iter().map(|file| file.as_str().unwrap()).collect();
    let wanted = [
        "values.yaml",
        "values.secret.yaml",
        "secrets/pachyderm-restored.yaml",
        "secrets/aws-for-pipelines.yaml",
        "secrets/pull.yaml",
        "configmaps/by-hand.yaml",
        "networkpolicy.yaml",
        "NEXT-STEPS.txt",
    ];
    assert_eq!(files, wanted);
    // The API server takes the policy, and the Secrets.
    let policy = to.apply::<NetworkPolicy>(yaml(&std::fs::read(desk.path("drill/networkpolicy.yaml")).unwrap())).await;
    assert_eq!(policy.spec.unwrap().policy_types.unwrap(), ["Ingress", "Egress"]);
    let user = yaml(&std::fs::read(desk.path("drill/secrets/aws-for-pipelines.yaml")).unwrap());
    to.apply::<Secret>(user).await;
    // Crons cannot be kept from ticking; what writes outside is cut off.
    let warnings: Vec<&str> = stdout.lines().filter(|line| line.contains(r#""event":"warning""#)).collect();
    let warnings = warnings.join("\n");
    assert!(warnings.contains("lab/hourly") && !warnings.contains("real places"), "{warnings}");
    // The source's password of the database is not even in what is written in clear.
    let clear = std::fs::read_to_string(desk.path("drill/values.secret.yaml")).unwrap();
    assert!(!clear.contains("planted"), "{clear}");
}
