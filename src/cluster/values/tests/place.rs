//! What the values say of the new place.

use super::*;

#[test]
fn places_that_pods_cannot_reach_are_placeholders() {
    for host in ["localhost", "127.0.0.1", "::1", "/run/postgresql", ""] {
        let database = Some(Database { host: host.into(), ..target().database.unwrap() });
        let bucket = Some("file:///data".parse().unwrap());
        let target = Target { database, bucket, ..Target::default() };
        let successor = Successor::new(&captured(modern(), json!({})), &target, &[]);
        let wanted = ["global.postgresql.postgresqlHost", "pachd.storage.local.hostPath"];
        assert_eq!(successor.placeholders, wanted, "{host}");
    }
}

#[test]
fn an_endpoint_of_its_own() {
    let bucket = Some("s3://b?endpoint=http://minio.example:9000&region=r".parse().unwrap());
    let target = Target { bucket, ..target() };
    let storage = &Successor::new(&captured(modern(), json!({})), &target, &[]).values["pachd"]["storage"];
    assert_eq!(storage["amazon"]["customEndpoint"], "minio.example:9000");
    assert_eq!(storage["amazon"]["disableSSL"], true);
    assert_eq!(storage["amazon"]["id"], PLACEHOLDER, "no role of a cloud opens it");
    assert_eq!(storage["storageURL"], "s3://b?region=r&endpoint=minio.example%3A9000&disableSSL=true");
}

#[test]
fn how_the_old_bucket_was_reached_says_nothing_of_the_new_one() {
    let values = json!({ "pachd": { "storage": { "amazon": { "customEndpoint": "minio:9000", "disableSSL": true,
        "verifySSL": false, "cloudFrontDistribution": "old", "retries": 3 } } } });
    let captured = captured(modern(), values);
    let amazon = |captured: &Captured, target: &Target| {
        Successor::new(captured, target, &[]).values["pachd"]["storage"]["amazon"].clone()
    };
    assert_eq!(amazon(&captured, &target()), json!({ "bucket": "new-bucket", "region": "eu-west-1", "retries": 3 }));
    let bucket = Some("s3://b?endpoint=https://minio.example&region=r".parse().unwrap());
    let own = amazon(&captured, &Target { bucket, ..target() });
    assert_eq!((&own["disableSSL"], own.get("verifySSL")), (&json!(false), None));
    // Values that lie elsewhere are overwritten.
    let over = amazon(&Captured { release: None, ..captured }, &target());
    assert_eq!(
        (&over["customEndpoint"], &over["disableSSL"], &over["verifySSL"]),
        (&json!(""), &json!(false), &json!(true))
    );
}

#[test]
fn tls_to_the_new_server_is_that_of_the_restore() {
    let values = json!({ "global": { "postgresql": { "postgresqlSSL": "verify-full", "postgresqlSSLCACert": "old",
        "postgresqlSSLSecret": "old", "ssl": "true" } } });
    let captured = captured(modern(), values);
    let tls = |captured: &Captured, database: Option<Database>| {
        let successor = Successor::new(captured, &Target { database, ..target() }, &[]);
        let postgres = &successor.values["global"]["postgresql"];
        ["postgresqlSSL", "postgresqlSSLCACert", "postgresqlSSLSecret", "ssl"].map(|key| postgres.get(key).cloned())
    };
    let to = |sslmode, client_certificate| Some(Database { sslmode, client_certificate, ..target().database.unwrap() });
    assert_eq!(tls(&captured, to("prefer", false)), [Some(json!("prefer")), None, None, None]);
    let [placeholder, require] = [PLACEHOLDER, "require"].map(|text| Some(json!(text)));
    let strict = [Some(json!("verify-ca")), placeholder.clone(), placeholder.clone(), require.clone()];
    assert_eq!(tls(&captured, to("verify-ca", true)), strict);
    assert_eq!(tls(&captured, to("require", false)), [require.clone(), None, None, require]);
    let unknown = tls(&captured, None);
    assert_eq!((&unknown[1], &unknown[2]), (&placeholder, &placeholder));
    let over = tls(&Captured { release: None, ..captured }, to("disable", false));
    assert_eq!(over, ["disable", "", "", ""].map(|text| Some(json!(text))));
}

/// What is said when `target` lacks a half: warnings, and the steps.
fn told(captured: &Captured, target: &Target) -> (Successor, String) {
    let successor = Successor::new(captured, target, &[]);
    let mut told = warnings(&successor, captured, target, &Pipelines::default());
    told.push(steps(&successor, captured, target, std::path::Path::new("release"), false, false));
    (successor, told.join("\n"))
}

#[test]
fn a_bucket_that_was_not_restored_is_not_the_sources() {
    let target = Target { bucket: None, ..target() };
    let production = json!({ "deployTarget": "AMAZON", "pachd": { "storage": {
        "storageURL": "s3://production?region=eu-west-1",
        "amazon": { "bucket": "production", "region": "eu-west-1", "customEndpoint": "minio.production:9000" },
    } } });
    let (successor, told) = told(&captured(modern(), production), &target);
    let amazon = json!({ "bucket": PLACEHOLDER, "region": PLACEHOLDER, "customEndpoint": PLACEHOLDER });
    assert_eq!(successor.values["pachd"]["storage"], json!({ "storageURL": PLACEHOLDER, "amazon": amazon }));
    assert!(successor.placeholders.contains(&"pachd.storage.storageURL".to_owned()), "{:?}", successor.placeholders);
    assert_eq!(told.matches("the bucket was not restored").count(), 2, "{told}");
    assert_eq!(told.matches("two clusters use one bucket").count(), 2, "{told}");
    assert!(!told.contains("databases were not"), "{told}");

    // A chart that knows no URL, a folder that the chart would make up, values that lie elsewhere, and no bucket at all.
    let old = json!({ "pachd": { "storage": { "google": { "bucket": "production" } } } });
    let storage = |captured: &Captured| Successor::new(captured, &target, &[]).values["pachd"]["storage"].clone();
    assert_eq!(storage(&captured(json!({}), old)), json!({ "google": { "bucket": PLACEHOLDER } }));
    let local = captured(modern(), json!({ "deployTarget": "LOCAL" }));
    assert_eq!(storage(&local), json!({ "local": { "hostPath": PLACEHOLDER } }));
    let elsewhere = storage(&Captured { release: None, ..local });
    assert_eq!((&elsewhere["minio"]["bucket"], &elsewhere["storageURL"]), (&json!(PLACEHOLDER), &json!(PLACEHOLDER)));
    let enterprise = captured(modern(), json!({ "pachd": { "enabled": false } }));
    assert_eq!(Successor::new(&enterprise, &target, &[]).values["pachd"].get("storage"), None);
}

#[test]
fn databases_that_were_not_restored_are_not_the_sources() {
    let values = json!({
        "cloudsqlAuthProxy": { "enabled": true },
        "global": { "postgresql": { "postgresqlHost": "production", "postgresqlDatabase": "production",
            "identityDatabaseFullNameOverride": "production_dex" } },
    });
    let captured = captured(modern(), values);
    let (successor, all) = told(&captured, &Target { database: None, ..target() });
    let postgres = &successor.values["global"]["postgresql"];
    for key in ["postgresqlHost", "postgresqlDatabase", "identityDatabaseFullNameOverride"] {
        assert_eq!(postgres[key], PLACEHOLDER, "{key}");
    }
    assert_eq!(postgres["postgresqlExistingSecretName"], DATABASE_SECRET);
    assert_eq!(successor.values["cloudsqlAuthProxy"]["enabled"], false);
    assert_eq!(all.matches("the databases were not restored").count(), 2, "{all}");
    assert!(!all.contains("the bucket was not"), "{all}");

    // One of the two, on the source's own server perhaps.
    let database = Some(Database { identity: None, ..target().database.unwrap() });
    let (successor, one) = told(&captured, &Target { database, ..target() });
    let postgres = &successor.values["global"]["postgresql"];
    assert_eq!(postgres["postgresqlDatabase"], "restored");
    assert_eq!(postgres["identityDatabaseFullNameOverride"], PLACEHOLDER);
    assert!(one.contains("the identity database was not restored"), "{one}");
}

#[test]
fn a_chart_around_pachyderms() {
    let values = json!({
        "global": { "postgresql": { "postgresqlHost": "production", "postgresqlPassword": "planted" } },
        "pachyderm": { "pachd": { "storage": { "storageURL": "s3://production",
            "amazon": { "id": "plantedId", "secret": "plantedKey" } } } },
    });
    let mut captured = captured(json!({}), values);
    let release = captured.release.as_mut().unwrap();
    release.chart = Chart { name: "umbrella".into(), version: "7.0.0".into(), app_version: Some("7".into()) };
    let (successor, told) = told(&captured, &target());
    let all = text(&successor.values) + &text(&successor.clear);
    assert!(!all.contains("production") && !all.contains("planted"), "{all}");
    assert_eq!(successor.values["pachd"]["storage"]["storageURL"], "s3://new-bucket?region=eu-west-1");
    assert_eq!(successor.values["global"]["postgresql"]["postgresqlHost"], "db.example");
    assert_eq!(successor.values["pachd"]["rootTokenSecretName"], SECRET);
    assert!(told.contains("release pach is of chart umbrella") && told.contains("helm install pach CHART"), "{told}");
    assert_eq!(told.matches("leave `global` at the top").count(), 2, "{told}");
    assert!(!told.contains("pachyderm/pachyderm") && !told.contains("pachyderm/umbrella"), "{told}");
}

#[test]
fn hosts_that_cannot_be_replaced_are_told() {
    let to = Target { host: Some("pach.new.example".into()), ..target() };
    let values = json!({
        "ingress": { "host": "pach.example" },
        "oidc": { "issuerURI": "https://pach.example/dex" },
        "proxy": { "host": "console.pach.example" },
        "pachd": { "oauthRedirectURI": "https://console.pach.example/callback" },
    });
    let both = captured(modern(), values);
    let (successor, quiet) = told(&both, &to);
    let values = &successor.values;
    assert_eq!(values["oidc"]["issuerURI"], "https://pach.new.example/dex");
    assert_eq!(values["pachd"]["oauthRedirectURI"], "https://pach.new.example/callback");
    assert_eq!(
        (&values["proxy"]["host"], &values["ingress"]["host"]),
        (&json!("pach.new.example"), &json!("pach.new.example"))
    );
    assert!(!quiet.contains("these values"), "{quiet}");

    let values = json!({ "oidc": { "issuerURI": "https://old.example/dex" },
        "pachd": { "oauthRedirectURI": "https://pach.new.example/callback" } });
    let alone = captured(modern(), values);
    let (successor, loud) = told(&alone, &to);
    assert_eq!(successor.values["oidc"]["issuerURI"], "https://old.example/dex");
    assert!(loud.contains("change them by hand: oidc.issuerURI\n"), "{loud}");
}
