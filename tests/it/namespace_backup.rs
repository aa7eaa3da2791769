//! `pacharc backup --namespace`, and nothing else: a release that the real helm has installed on a real API server, whose
//! database and bucket are real servers of this machine, reached directly or through the API server.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use k8s_openapi::api::rbac::v1::RoleBinding;
use pacharc_sample::postgres;
use serde_json::{Value, json};

use crate::during_dump::waiting;
use crate::support::authority::Authority;
use crate::support::authorizer::grant;
use crate::support::moments::{is_stopped, stop_at};
use crate::support::program::{Running, has_begun, wait_until, words};
use crate::support::s3_server::{ACCESS_KEY, SECRET_KEY};
use crate::support::site::{PASSWORD, Site};
use crate::support::versitygw;

/// The command lines of a process and its children.
fn command_lines(id: u32) -> BTreeSet<String> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let is_of = |folder: &Path| {
        let status = std::fs::read_to_string(folder.join("status")).unwrap_or_default();
        status.lines().any(|line| line == format!("PPid:\t{id}") || line == format!("Pid:\t{id}"))
    };
    let family = processes.map(|process| process.path()).filter(|folder| is_of(folder));
    let lines = family.filter_map(|folder| std::fs::read(folder.join("cmdline")).ok());
    lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " ")).collect()
}

#[track_caller]
fn assert_no_secret(text: &str) {
    for secret in [PASSWORD, SECRET_KEY, "plantedPassword"] {
        assert!(!text.contains(secret), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_is_enough_and_its_servers_are_reached_through_the_api_server() {
    let Some(site) = Site::make().await else { return };
    site.install(&site.inside());
    site.wait_for("postgres").await;
    site.wait_for("minio").await;

    let plan = site.run(&["plan", "backup"], &["-vvv"]).code(0);
    let text = plan.text();
    let live = format!("{} live", site.made.live);
    for fact in ["[Deployment/pachd env POSTGRES_HOST]", "[Deployment/pachd env STORAGE_URL]", "2.11.x", &live] {
        assert!(text.contains(fact), "{fact} is not in: {text}");
    }
    assert_no_secret(&text);
    assert_no_secret(&plan.stderr);

    let recipient = site.desk.recipient.clone();
    let args = ["backup", "-o", "{cluster}-{namespace}.pacharc", "--recipient", &recipient];
    // Each waits until it was seen.
    let tools = waiting(&site.desk).display().to_string();
    let mut running = Running::start(&mut site.command(&args, &["-vvv", "--json-file", "events", "--pg-bin", &tools]));
    let mut lines = BTreeSet::new();
    while !running.has_ended() {
        lines.extend(command_lines(running.id()));
        if lines.iter().any(|line| line.contains("pg_dump")) {
            std::fs::write(site.desk.path("go"), "").unwrap();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let run = running.finish().code(0).says("closed: all");
    assert!(lines.iter().any(|line| line.contains("pg_dump")), "no child was seen");
    lines.iter().for_each(|line| assert_no_secret(line));
    assert_no_secret(&run.stderr);
    assert_no_secret(&run.text());
    assert_no_secret(&std::fs::read_to_string(site.desk.path("events")).unwrap());
    // The source is called what the cluster calls it, not by the way to it.
    let bundle = format!("kubelab-{}.pacharc", site.lab.name);
    let manifest = site.desk.run(["inspect", &bundle, "--identity", "key.txt", "--json"]).code(0).text();
    assert!(manifest.contains("endpoint=http://minio:9000"), "{manifest}");
    assert_no_secret(&manifest);
    site.assert_whole(&bundle, "inside").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_can_be_reached_are_reached_directly() {
    let Some(site) = Site::make().await else { return };
    site.install(&site.outside());
    // There is no pod to lead to: a port-forward would fail.
    let run = site.backup("b.pacharc", &[]).code(0);
    let run = run.says("Deployment/pachd image is 2.9.4, and the database's schema is that of 2.11.x");
    assert_no_secret(&run.stderr);
    site.assert_whole("b.pacharc", "outside").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_user_names_wins() {
    let Some(site) = Site::make().await else { return };
    let mut values = site.outside();
    values["global"]["postgresql"]["postgresqlHost"] = "nowhere.invalid".into();
    values["pachd"]["storage"]["amazon"]["bucket"] = "nowhere".into();
    site.install(&values);
    let failed = site.run(&["plan", "backup"], &[]).code(7).advises();
    assert!(failed.stderr.contains("nowhere"), "{}", failed.stderr);

    // The server from the command line, its role and password from the cluster; a bucket with the keys of its user.
    let server = format!("postgres://127.0.0.1:{}", site.postgres.port());
    let bucket = format!("s3://lake?endpoint={}&region=us-east-1&path_style=true", site.s3.endpoint());
    let more = ["--postgres", &server, "--bucket", &bucket, "--database", "dex"];
    let mut command = site.command(&["plan", "backup"], &more);
    command.env("AWS_ACCESS_KEY_ID", ACCESS_KEY).env("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
    // By libpq's rules it would be another address of the user's own server.
    command.env_remove("PGHOSTADDR");
    let text = Running::start(&mut command).finish().code(0).text();
    assert!(text.contains("database     dex: about") && !text.contains("database     pachyderm: about"), "{text}");

    // A role of the user's own does not get the password of the cluster's.
    let server = format!("postgres://pachyderm@127.0.0.1:{}", site.postgres.port());
    let mut command = site.command(&["plan", "backup"], &["--postgres", &server, "--bucket", &bucket]);
    command.env("PGPASSWORD", "wrong").env_remove("PGHOSTADDR");
    Running::start(&mut command).finish().code(6).says("password");
    let typed = format!("postgres://u:typedPassword@127.0.0.1:{}", site.postgres.port());
    let run = site.run(&["plan", "backup"], &["--postgres", &typed]).code(2).advises();
    assert!(!run.stderr.contains("typedPassword"));
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_hold_the_name_of_the_service_even_through_a_forward() {
    let authority = Authority::new();
    authority.sign("postgres", "/CN=ignored", "subjectAltName=DNS:postgres");
    authority.sign("pachyderm", "/CN=pachyderm", "basicConstraints=CA:FALSE");
    let read = |name: &str| std::fs::read(authority.path(name)).unwrap();
    let options = postgres::Options {
        settings: vec![("ssl".into(), "on".into()), ("ssl_ca_file".into(), "ca.crt".into())],
        files: vec![
            ("server.crt".into(), read("postgres.crt")),
            ("server.key".into(), read("postgres.key")),
            ("ca.crt".into(), read("ca.crt")),
        ],
        ..postgres::Options::default()
    };
    // A client without certificate is refused: so the cluster's own one is used.
    let Some(site) = Site::make_with(options, "hostssl all pachyderm 127.0.0.1/32 cert\nhostssl").await else { return };
    let text = |name: &str| String::from_utf8(read(name)).unwrap();
    let client = json!({ "tls.crt": text("pachyderm.crt"), "tls.key": text("pachyderm.key") });
    site.lab.apply::<Secret>(json!({ "metadata": { "name": "pg-client" }, "stringData": client })).await;
    let mut values = site.inside();
    let postgres = &mut values["global"]["postgresql"];
    postgres["postgresqlSSL"] = "verify-full".into();
    postgres["postgresqlSSLCACert"] = text("ca.crt").into();
    postgres["postgresqlSSLSecret"] = "pg-client".into();
    site.install(&values);
    site.wait_for("postgres").await;
    site.wait_for("minio").await;
    let run = site.backup("b.pacharc", &[]).code(0);
    assert!(!run.stderr.contains("sslmode"), "{}", run.stderr);

    // Another authority's certificate, and another name, are refused.
    values["global"]["postgresql"]["postgresqlSSLCACert"] = text("other-ca.crt").into();
    site.install(&values);
    site.run(&["plan", "backup"], &[]).code(7).advises().says("certificate");
    values["global"]["postgresql"]["postgresqlSSLCACert"] = text("ca.crt").into();
    values["global"]["postgresql"]["postgresqlHost"] = format!("postgres.{}.svc.cluster.local", site.lab.name).into();
    site.install(&values);
    site.run(&["plan", "backup"], &[]).code(7).advises().says("certificate");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_behind_tls_is_checked_through_a_forward() {
    let authority = Authority::new();
    authority.sign("minio", "/CN=ignored", "subjectAltName=DNS:minio");
    let Some(site) = Site::make().await else { return };
    let (certificate, key) = (PathBuf::from(authority.path("minio.crt")), PathBuf::from(authority.path("minio.key")));
    let Some(secure) = versitygw::start_tls(&certificate, &key).await else { return };
    // Only the bucket matters here: databases with nothing live belong to any.
    let mut values = site.inside();
    values["minio"]["podAnnotations"]["kubelab/forward-9000"] = format!("127.0.0.1:{}", secure.port()).into();
    values["pachd"]["storage"]["storageURL"] = "s3://bucket?endpoint=minio:9000&region=us-east-1".into();
    site.install(&values);
    site.wait_for("postgres").await;
    site.wait_for("minio").await;
    site.run(&["plan", "backup"], &["--database", "dex"]).code(6).advises().says("certificate");
    let ca_file = authority.path("ca.crt");
    site.run(&["plan", "backup"], &["--database", "dex", "--ca-file", &ca_file]).code(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_reached_is_named_with_what_to_do() {
    let Some(site) = Site::make().await else { return };
    let plan = || site.run(&["plan", "backup"], &[]);
    let mut values = site.inside();
    values["postgresql"]["podAnnotations"]["kubelab/ready"] = "false".into();
    site.install(&values);
    let run = plan().code(7).says("no pod of Service/postgres").says("is ready").advises();
    assert!(run.stderr.contains("get pods -l app=postgres,suite=pachyderm"), "{}", run.stderr);
    values["global"]["postgresql"]["postgresqlPort"] = "5433".into();
    site.install(&values);
    plan().code(7).advises().says("has no port 5433");
    values["global"]["postgresql"]["postgresqlHost"] = "pg-bouncer".into();
    site.install(&values);
    plan().code(1).advises().says("Deployment/pachd env POSTGRES_HOST leads to pg-bouncer");

    let mut values = site.outside();
    values["deployTarget"] = "GOOGLE".into();
    values["pachd"]["storage"]["google"]["bucket"] = "lake".into();
    site.install(&values);
    plan().code(1).advises().says("the bucket is gs://lake (Secret/pachyderm-storage-secret key GOOGLE_BUCKET)");
    values["deployTarget"] = "LOCAL".into();
    values["pachd"]["storage"]["local"]["hostPath"] = "/var/pachyderm/".into();
    site.install(&values);
    plan().code(1).advises().says("the bucket is the folder /var/pachyderm/pachd of a node");

    // No keys in the cluster: the user's own, with a word on whose the pods are.
    let mut values = site.outside();
    values["pachd"]["storage"]["amazon"]["id"] = "".into();
    let role = "arn:aws:iam::123456789012:role/pachyderm";
    values["pachd"]["serviceAccount"] = json!({ "additionalAnnotations": { "eks.amazonaws.com/role-arn": role } });
    site.install(&values);
    let mut command = site.command(&["plan", "backup"], &[]);
    let run = Running::start(command.env("AWS_ACCESS_KEY_ID", ACCESS_KEY)).finish();
    run.code(6).advises().says(role).says("your own credentials are used");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_enterprise_server_has_databases_and_no_bucket() {
    let Some(site) = Site::make().await else { return };
    let mut values = site.inside();
    values["pachd"]["enabled"] = false.into();
    values["enterpriseServer"] = json!({ "enabled": true });
    site.install(&values);
    site.wait_for("postgres").await;
    let run = site.backup("b.pacharc", &[]).code(0).says("database pachyderm").says("database dex");
    assert!(!run.stderr.contains("bucket:"), "{}", run.stderr);
}

/// A pod that is replaced during a backup costs its connections: what they carried is read again.
#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_whose_pod_is_replaced_is_read_on() {
    let Some(site) = Site::make().await else { return };
    site.install(&site.inside());
    site.wait_for("postgres").await;
    site.wait_for("minio").await;
    for n in 0..40 {
        site.bucket.put(&format!("filler/{n}"), vec![n; 4 << 20].into()).await.unwrap();
    }
    let recipient = site.desk.recipient.clone();
    let args = ["backup", "-o", "b.pacharc", "--recipient", &recipient, "--json", "--json-file", "events"];
    let mut command = site.command(&args, &[]);
    let stops = stop_at(&mut command, "copy");
    let mut running = Running::start(&mut command);
    let (events, id) = (site.desk.path("events"), running.id());
    wait_until("objects are about to be copied", || {
        assert!(!running.has_ended(), "it has ended before");
        if stops { is_stopped(id) } else { has_begun(&events, "copy") }
    });
    let pods = site.lab.api::<k8s_openapi::api::core::v1::Pod>();
    let now = kube::api::DeleteParams::default().grace_period(0);
    pods.delete("minio-0", &now).await.unwrap();
    if stops {
        running.signal("CONT");
    }
    // And once more in the midst of it, where it takes so long.
    tokio::time::sleep(Duration::from_millis(700)).await;
    pods.delete("minio-0", &now).await.ok();
    running.finish().code(0);
    site.desk.run(["verify", "b.pacharc", "--identity", "key.txt"]).code(0).says("closed");
}

/// The rights that docs/kubernetes.md names do, and each of them that is missing is named.
#[tokio::test(flavor = "multi_thread")]
async fn the_rights_that_a_forward_needs() {
    let Some(site) = Site::make().await else { return };
    site.install(&site.inside());
    site.wait_for("postgres").await;
    site.wait_for("minio").await;
    site.lab.apply::<ServiceAccount>(json!({ "metadata": { "name": "reader" } })).await;
    let subject = json!({ "kind": "ServiceAccount", "name": "reader", "namespace": site.lab.name });
    let reference = json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader" });
    let binding = json!({ "metadata": { "name": "reader" }, "subjects": [subject], "roleRef": reference });
    site.lab.apply::<RoleBinding>(binding).await;
    let flags = site.lab.flags_as("reader", &site.desk.path("kubeconfig")).await;
    let plan = || site.desk.run([words(&["plan", "backup"]), flags.clone()].concat());
    let rule = |group: &str, resource: &str, verbs: &[&str]| json!({ "apiGroups": [group], "resources": [resource], "verbs": verbs });
    // What any backup needs, and then what a way into the cluster needs.
    let state = [
        rule("", "secrets", &["get", "list"]),
        rule("", "configmaps", &["get", "list"]),
        rule("", "serviceaccounts", &["list"]),
        rule("", "replicationcontrollers", &["list"]),
        rule("apps", "deployments", &["get", "list"]),
        rule("apps", "statefulsets", &["list"]),
    ];
    plan().code(6).advises().says("list secrets").says("resources: [\"deployments\"]");
    let rules = [
        (rule("", "services", &["get"]), "reading Service/postgres"),
        (rule("", "pods", &["list"]), "listing the pods of Service/postgres"),
        (rule("", "pods/portforward", &["get", "create"]), "opening a port-forward to pod postgres-0"),
    ];
    for (at, (_, needed)) in rules.iter().enumerate() {
        let granted: Vec<&Value> = rules[..at].iter().map(|(rule, _)| rule).chain(&state).collect();
        grant(&site.lab, json!({ "metadata": { "name": "reader" }, "rules": granted }), "reader").await;
        plan().code(6).advises().says(needed).says("HTTP 403");
    }
    let granted: Vec<&Value> = rules.iter().map(|(rule, _)| rule).chain(&state).collect();
    grant(&site.lab, json!({ "metadata": { "name": "reader" }, "rules": granted }), "reader").await;
    plan().code(0);
}
