use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::cluster::helm::{Chart, Release, coalesce};
use crate::pachyderm::pipelines::Pipeline;

mod place;

fn object(value: Value) -> Map<String, Value> {
    let Value::Object(map) = value else { panic!("{value}") };
    map
}

fn secret(name: &str, helm: bool, data: &[(&str, &str)]) -> (String, Secret) {
    let labels = helm.then(|| [("app.kubernetes.io/managed-by".to_owned(), "Helm".to_owned())].into());
    let data: BTreeMap<String, ByteString> =
        data.iter().map(|(key, text)| ((*key).to_owned(), ByteString(text.as_bytes().to_vec()))).collect();
    let metadata = ObjectMeta { name: Some(name.to_owned()), labels, ..ObjectMeta::default() };
    (name.to_owned(), Secret { metadata, data: Some(data), ..Secret::default() })
}

/// What was captured from a release of a chart with `defaults`, installed with `values`.
fn captured(defaults: Value, values: Value) -> Captured {
    let (mut computed, values) = (object(defaults), object(values));
    coalesce(&mut computed, &values);
    let release = Release {
        name: "pach".into(),
        namespace: "source".into(),
        revision: 1,
        status: "deployed".into(),
        deployed: None,
        chart: Chart { name: "pachyderm".into(), version: "2.11.6".into(), app_version: Some("2.11.6".into()) },
        values,
        computed,
        manifest: String::new(),
    };
    let secrets = [
        secret("pachyderm-auth", true, &[("root-token", "oldRoot"), ("pachd-oauth-client-secret", "oldOauth")]),
        secret("pachyderm-console-secret", true, &[("OAUTH_CLIENT_SECRET", "oldConsole")]),
        secret("pachyderm-identity", true, &[("upstream-idps", "- id: mock\n")]),
        secret("pachyderm-deployment-id-secret", true, &[("CLUSTER_DEPLOYMENT_ID", "theId")]),
        secret("by-user", false, &[("k", "userSecret")]),
    ];
    Captured { release: Some(release), secrets: secrets.into(), ..Captured::default() }
}

/// The values of the chart of 2.11, as far as they matter here.
fn modern() -> Value {
    json!({
        "global": { "postgresql": { "postgresqlExistingSecretName": "", "postgresqlPassword": "insecure",
            "identityDatabaseFullNameOverride": "" } },
        "pachd": {
            "rootToken": "", "rootTokenSecretName": "", "oauthClientSecretSecretName": "",
            "storage": { "storageURL": "", "amazon": { "id": "", "secret": "" } },
        },
        "console": { "config": { "oauthClientSecretSecretName": "" } },
        "oidc": { "mockIDP": true, "upstreamIDPs": [], "upstreamIDPsSecretName": "" },
        "postgresql": { "enabled": true },
        "proxy": { "host": "", "service": { "type": "LoadBalancer" } },
    })
}

fn target() -> Target {
    Target {
        database: Some(Database {
            host: "db.example".into(),
            port: 5433,
            user: "pachyderm".into(),
            sslmode: "prefer",
            client_certificate: false,
            main: Some("restored".into()),
            identity: Some("restored_dex".into()),
        }),
        bucket: Some("s3://new-bucket?region=eu-west-1".parse().unwrap()),
        namespace: Some("target".into()),
        version: Some("2.11.6".into()),
        ..Target::default()
    }
}

fn text(values: &Map<String, Value>) -> String {
    serde_json::to_string(values).unwrap()
}

#[test]
fn values_of_the_new_place_with_the_old_secrets() {
    let values = json!({
        "deployTarget": "AMAZON",
        "pachd": {
            "rootToken": "plantedRoot",
            "enterpriseServerToken": "plantedToken",
            "storage": { "amazon": { "bucket": "old", "region": "us-east-1", "id": "plantedId", "secret": "plantedKey" } },
        },
        "global": { "postgresql": { "postgresqlPassword": "plantedPassword", "postgresqlHost": "old-db" } },
        "proxy": { "host": "old.example" },
        "oidc": { "issuerURI": "https://old.example/dex" },
        "custom": { "kept": 5 },
    });
    let captured = captured(modern(), values);
    let successor = Successor::new(&captured, &Target { host: Some("new.example".into()), ..target() }, &[]);
    let Successor { values, clear, secrets, placeholders, policy, .. } = &successor;
    assert!(!text(values).contains("planted") && !text(values).contains("old"), "{}", text(values));
    let postgres = json!({
        "postgresqlHost": "db.example", "postgresqlPort": "5433", "postgresqlUsername": "pachyderm",
        "postgresqlDatabase": "restored", "identityDatabaseFullNameOverride": "restored_dex",
        "postgresqlExistingSecretName": DATABASE_SECRET, "postgresqlExistingSecretKey": DATABASE_KEY,
        "postgresqlSSL": "prefer",
    });
    assert_eq!(values["global"]["postgresql"], postgres);
    let storage = json!({
        "backend": "AMAZON",
        "storageURL": "s3://new-bucket?region=eu-west-1",
        "amazon": { "bucket": "new-bucket", "region": "eu-west-1", "id": PLACEHOLDER, "secret": PLACEHOLDER },
    });
    assert_eq!(values["pachd"]["storage"], storage);
    assert_eq!(values["pachd"]["rootTokenSecretName"], SECRET);
    assert_eq!(values["pachd"]["image"]["tag"], "2.11.6");
    assert_eq!(values["oidc"]["upstreamIDPsSecretName"], SECRET);
    assert_eq!(
        (&values["oidc"]["issuerURI"], &values["proxy"]["host"]),
        (&json!("https://new.example/dex"), &json!("new.example"))
    );
    assert_eq!((&values["custom"]["kept"], &values["postgresql"]["enabled"]), (&json!(5), &json!(false)));
    assert!(policy.is_none());
    let wanted = ["pachd.enterpriseServerToken", "pachd.storage.amazon.id", "pachd.storage.amazon.secret"];
    assert_eq!(placeholders, &wanted);
    // What the source's environment had is of no use, and in no file.
    assert_eq!(text(clear), r#"{"pachd":{"enterpriseServerToken":"plantedToken"}}"#);
    let names: Vec<_> = secrets.iter().map(|secret| secret.metadata.name.as_deref().unwrap()).collect();
    assert_eq!(names, [SECRET, "by-user"]);
    let data = secrets[0].data.as_ref().unwrap();
    let keys: Vec<&str> = data.keys().map(String::as_str).collect();
    assert_eq!(keys, ["OAUTH_CLIENT_SECRET", "pachd-oauth-client-secret", "root-token", "upstream-idps"]);
    // The live one counts, not the value: somebody may have changed it since.
    assert_eq!(data["root-token"].0, b"oldRoot");
}

#[test]
fn the_deployment_keeps_its_id() {
    let successor = Successor::new(&captured(modern(), json!({})), &target(), &[]);
    assert_eq!(successor.values["pachd"]["clusterDeploymentID"], "theId");
    // The pods had a role, and no key: so it stays.
    assert_eq!(successor.values["pachd"]["storage"]["amazon"].get("id"), None);
}

#[test]
fn a_chart_that_takes_secrets_in_clear_alone() {
    let captured = captured(json!({ "pachd": { "rootToken": "" }, "oidc": { "mockIDP": true } }), json!({}));
    let Successor { values, clear, secrets, placeholders, .. } = Successor::new(&captured, &target(), &[]);
    assert_eq!(secrets.len(), 1);
    assert_eq!(values["pachd"]["rootToken"], PLACEHOLDER);
    assert!(placeholders.contains(&"pachd.rootToken".to_owned()), "{placeholders:?}");
    assert!(placeholders.contains(&"global.postgresql.postgresqlPassword".to_owned()));
    assert_eq!(clear["pachd"]["rootToken"], "oldRoot");
    assert_eq!(clear["oidc"]["upstreamIDPs"], json!([{ "id": "mock" }]));
}

#[test]
fn a_chart_that_has_them_all_in_one_secret() {
    let mut captured = captured(json!({ "pachd": { "rootToken": "", "oauthClientSecret": "" } }), json!({}));
    captured.secrets.retain(|name, _| name == "by-user");
    let bootstrap = [
        ("rootToken", "oldRoot"),
        ("enterpriseSecret", "oldEnterprise"),
        ("authConfig", "client_id: pachd\nclient_secret: oldOauth\nscopes:\n- email\n"),
        ("license", "$ENTERPRISE_LICENSE_KEY"),
    ];
    captured.secrets.extend([secret("pachyderm-bootstrap-config", true, &bootstrap)]);
    let Successor { values, clear, secrets, placeholders, .. } = Successor::new(&captured, &target(), &[]);
    for (path, wanted) in
        [("rootToken", "oldRoot"), ("enterpriseSecret", "oldEnterprise"), ("oauthClientSecret", "oldOauth")]
    {
        assert_eq!((&values["pachd"][path], &clear["pachd"][path]), (&json!(PLACEHOLDER), &json!(wanted)));
        assert!(placeholders.contains(&format!("pachd.{path}")), "{placeholders:?}");
    }
    assert_eq!(clear["pachd"].get("enterpriseLicenseKey"), None, "it is in a Secret of the user's own");
    assert_eq!(secrets.len(), 1);

    // From 2.1 on the chart takes a Secret, too.
    let release = captured.release.as_mut().unwrap();
    set(&mut release.computed, "pachd.rootTokenSecretName", "".into());
    let successor = Successor::new(&captured, &target(), &[]);
    assert_eq!(successor.values["pachd"]["rootTokenSecretName"], SECRET);
    assert_eq!(successor.secrets[0].data.as_ref().unwrap()["root-token"].0, b"oldRoot");
}

#[test]
fn a_secret_of_the_users_own_stays_where_it_is() {
    let values = json!({ "pachd": { "rootTokenSecretName": "by-user" } });
    let successor = Successor::new(&captured(modern(), values), &target(), &[]);
    assert_eq!(successor.values["pachd"]["rootTokenSecretName"], "by-user");
    assert!(!successor.secrets[0].data.as_ref().unwrap().contains_key("root-token"));
}

#[test]
fn a_cluster_that_was_restored_before() {
    let values = json!({ "pachd": { "rootTokenSecretName": SECRET } });
    let mut captured = captured(modern(), values);
    let (_, before) = secret(SECRET, false, &[("root-token", "pinnedRoot"), ("OAUTH_CLIENT_SECRET", "stale")]);
    captured.secrets.insert(SECRET.into(), before);
    let successor = Successor::new(&captured, &target(), &[]);
    let names: Vec<_> = successor.secrets.iter().map(|secret| secret.metadata.name.as_deref().unwrap()).collect();
    assert_eq!(names, ["by-user", SECRET]);
    let data = successor.secrets[1].data.as_ref().unwrap();
    assert_eq!(data["root-token"].0, b"pinnedRoot", "the values refer to it");
    assert_eq!(data["OAUTH_CLIENT_SECRET"].0, b"oldConsole", "and not to this one");
    assert_eq!(data["pachd-oauth-client-secret"].0, b"oldOauth");
    let folder = tempfile::tempdir().unwrap();
    write(&successor, "", Uuid::nil(), &folder.path().join("new"), false).unwrap();
}

#[test]
fn without_a_release() {
    let captured = Captured { release: None, ..captured(json!({}), json!({})) };
    let successor = Successor::new(&captured, &target(), &[]);
    assert_eq!(successor.values["pachd"]["rootTokenSecretName"], SECRET);
    let warnings = warnings(&successor, &captured, &target(), &Pipelines::default()).join("\n");
    assert!(warnings.contains("Argo CD"), "{warnings}");
}

#[test]
fn a_drill_is_cut_off() {
    let target = Target { drill: true, ..target() };
    let successor = Successor::new(&captured(modern(), json!({})), &target, &["10.1.2.3:5433".parse().unwrap()]);
    assert_eq!(successor.values["proxy"]["service"]["type"], "ClusterIP");
    let policy = successor.policy.unwrap();
    assert_eq!(policy["metadata"], json!({ "name": "pacharc-drill", "namespace": "target" }));
    assert_eq!(policy["spec"]["ingress"], json!([{ "from": [{ "podSelector": {} }] }]));
    let outside = &policy["spec"]["egress"][2];
    assert_eq!(outside["to"][0]["ipBlock"]["cidr"], "10.1.2.3/32");
    assert_eq!(outside["ports"][0]["port"], 5433);
    assert_eq!(policy["spec"]["egress"].as_array().unwrap().len(), 3);
}

#[test]
fn warnings_that_apply_and_no_others() {
    let quiet = captured(modern(), json!({}));
    let successor = Successor::new(&quiet, &target(), &[]);
    let only_bucket = warnings(&successor, &quiet, &target(), &Pipelines::default());
    assert_eq!(only_bucket.len(), 1, "{only_bucket:?}");
    assert!(only_bucket[0].contains("two clusters use one bucket"));

    let mut loud = captured(
        modern(),
        json!({ "proxy": { "host": "old.example" },
        "pachd": { "activateEnterpriseMember": true, "pachAuthClusterRoleBindings": { "user:a": ["clusterAdmin"] } } }),
    );
    loud.secrets.remove("pachyderm-identity");
    let mut pipelines = Pipelines::default();
    let cron = |version, crons: &[&str], stopped| Pipeline {
        name: "hourly".into(),
        project: "lab".into(),
        version,
        stopped,
        crons: crons.iter().map(|cron| (*cron).to_owned()).collect(),
        has_egress: true,
        secrets: ["by-user".to_owned(), "lost".to_owned()].into(),
        ..Pipeline::default()
    };
    pipelines.push(cron(2, &["@hourly"], false));
    pipelines.push(cron(1, &[], true));
    let successor = Successor::new(&loud, &target(), &[]);
    let told = warnings(&successor, &loud, &target(), &pipelines).join("\n");
    for part in [
        "all at once, as soon as pachd runs: lab/hourly",
        "real places outside: lab/hourly",
        "lacks: lost",
        "oidc.mockIDP",
        "pachAuthClusterRoleBindings",
        "enterprise server",
        "--host",
    ] {
        assert!(told.contains(part), "{part} is not in: {told}");
    }
}

#[test]
fn steps_name_every_file_and_version() {
    let captured = captured(modern(), json!({ "pachd": { "enterpriseServerToken": "plantedToken" } }));
    let target = Target { upgrade_to: Some("2.12.0".into()), ..target() };
    let successor = Successor::new(&captured, &target, &[]);
    let steps = steps(&successor, &captured, &target, std::path::Path::new("a b"), true, false);
    for part in [
        "kubectl --namespace target create -f 'a b'/secrets",
        "create secret generic pachyderm-database --from-file=postgresql-password=FILE",
        "helm install pach pachyderm/pachyderm --version 2.11.6 --namespace target -f 'a b'/values.yaml -f 'a b'/values.secret.yaml",
        "helm upgrade pach pachyderm/pachyderm --version 2.12.0",
        "    pachd.enterpriseServerToken",
        "pachctl config set context pach --overwrite",
    ] {
        assert!(steps.contains(part), "{part} is not in: {steps}");
    }
    assert!(!steps.contains("plantedToken"));
}

#[test]
fn files_are_whole_and_for_the_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let mut captured = captured(modern(), json!({ "pachd": { "enterpriseServerToken": "plantedToken" } }));
    let (_, odd) = secret("../../etc/passwd", false, &[]);
    captured.secrets.insert("odd".into(), odd);
    let successor = Successor::new(&captured, &target(), &[]);
    let folder = tempfile::tempdir().unwrap();
    let into = folder.path().join("new/files");
    let write = |steps, with_clear| write(&successor, steps, Uuid::from_u128(7), &into, with_clear);
    let files = write("steps", false).unwrap();
    let wanted = [
        "values.yaml",
        "secrets/pachyderm-restored.yaml",
        "secrets/by-user.yaml",
        "secrets/.._.._etc_passwd.yaml",
        "NEXT-STEPS.txt",
    ];
    assert_eq!(files, wanted);
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&into), mode(&into.join("secrets"))), (0o700, 0o700));
    for file in &files {
        assert_eq!(mode(&into.join(file)), 0o600, "{file}");
    }
    let values = std::fs::read_to_string(into.join("values.yaml")).unwrap();
    assert!(!values.contains("planted") && values.contains(PLACEHOLDER), "{values}");
    // A run that was cut off after that, and is run again, finds its own.
    let is_refused = |bundle| matches!(check_folder(&into, bundle), Err(Error::NotEmpty(_)));
    assert!(!is_refused(None) && !is_refused(Some(Uuid::from_u128(7))) && is_refused(Some(Uuid::from_u128(8))));
    assert_eq!(write("steps", false).unwrap(), files);
    // What is not just that is left as it is.
    let steps = std::fs::read_to_string(into.join("NEXT-STEPS.txt")).unwrap();
    assert!(matches!(write("other", false), Err(Error::NotEmpty(_))));
    assert!(matches!(write("steps", true), Err(Error::NotEmpty(_))));
    std::fs::write(into.join("secrets/mine.yaml"), "").unwrap();
    assert!(matches!(write("steps", false), Err(Error::NotEmpty(_))));
    assert!(into.join("secrets/mine.yaml").exists());
    assert_eq!(std::fs::read_to_string(into.join("NEXT-STEPS.txt")).unwrap(), steps);
    assert_eq!(std::fs::read_dir(folder.path().join("new")).unwrap().count(), 1);
    std::fs::remove_file(into.join("NEXT-STEPS.txt")).unwrap();
    assert!(is_refused(None));
}
