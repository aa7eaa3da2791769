use std::io::Write as _;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;

use super::*;

fn pack(json: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(json).unwrap();
    BASE64_STANDARD.encode(gzip.finish().unwrap()).into_bytes()
}

fn sample() -> Value {
    json!({
        "name": "p", "namespace": "ns", "version": 3, "manifest": "---\nkind: Pod\n",
        "info": { "status": "deployed", "last_deployed": "2025-01-31T09:30:00Z" },
        "config": { "a": { "b": 2, "gone": null }, "list": [1] },
        "chart": {
            "metadata": { "name": "pachyderm", "version": "2.11.6", "appVersion": "2.11.6" },
            "values": { "a": { "b": 1, "c": 1, "gone": 1 }, "list": [2, 3], "d": "e" },
            "templates": [{ "name": "t", "data": "" }],
        },
    })
}

#[test]
fn packed_and_plain_releases() {
    let json = serde_json::to_vec(&sample()).unwrap();
    for packed in [pack(&json), BASE64_STANDARD.encode(&json).into_bytes()] {
        let release = Release::decode("Secret s", &packed).unwrap();
        assert_eq!((release.name.as_str(), release.revision, release.status.as_str()), ("p", 3, "deployed"));
        assert_eq!(release.chart.app_version.as_deref(), Some("2.11.6"));
        assert_eq!(Value::Object(release.values.clone()), sample()["config"]);
        assert_eq!(Value::Object(release.computed.clone()), json!({ "a": { "b": 2, "c": 1 }, "list": [1], "d": "e" }));
        assert_eq!(release.computed_value("a.c"), Some(&json!(1)));
        assert_eq!(release.computed_value("a.c.d"), None);
    }
}

#[test]
fn a_release_without_values() {
    let mut json = sample();
    json["config"] = Value::Null;
    json["chart"]["values"] = Value::Null;
    let release = Release::decode("Secret s", &pack(json.to_string().as_bytes())).unwrap();
    assert!(release.values.is_empty() && release.computed.is_empty());
}

#[test]
fn what_is_no_release_is_an_error_without_its_content() {
    let secret = json!({ "name": 5, "password": "hunter2" }).to_string();
    for packed in
        [b"%".to_vec(), Vec::new(), BASE64_STANDARD.encode([0x1f, 0x8b, 8, 1]).into(), pack(secret.as_bytes())]
    {
        let error = Release::decode("Secret s", &packed).unwrap_err();
        assert!(matches!(&error, Error::Malformed { .. }), "{error}");
        assert!(!error.to_string().contains("hunter2"));
    }
}

#[test]
fn a_bomb_is_refused() {
    let bomb = pack(&vec![b' '; usize::try_from(LIMIT).unwrap() + 1]);
    assert!(bomb.len() < 1 << 20);
    assert!(matches!(Release::decode("Secret s", &bomb), Err(Error::TooLarge { .. })));
}

/// Recorded from a real cluster; `None` where absent.
fn fixture(name: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("PACHARC_FIXTURES").map(PathBuf::from);
    let folder = folder.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/fixtures"));
    let path = folder.join("kubernetes").join(name);
    if path.exists() {
        return Some(path);
    }
    eprintln!("skipped: {} is absent (PACHARC_FIXTURES)", path.display());
    None
}

#[test]
fn a_recorded_release() {
    let (Some(secret), Some(decoded)) = (fixture("helm-release-secret.yaml"), fixture("helm-release-decoded.json"))
    else {
        return;
    };
    let secret: Value = serde_saphyr::from_str(&std::fs::read_to_string(secret).unwrap()).unwrap();
    let decoded: Value = serde_json::from_slice(&std::fs::read(decoded).unwrap()).unwrap();
    let packed = BASE64_STANDARD.decode(secret["data"]["release"].as_str().unwrap()).unwrap();
    let release = Release::decode("Secret s", &packed).unwrap();
    assert_eq!(Value::Object(release.values.clone()), decoded["config"]);
    assert_eq!(Value::String(release.manifest.clone()), decoded["manifest"]);
    assert_eq!((release.chart.name.as_str(), release.chart.version.as_str()), ("pachyderm", "2.11.6"));
    assert_eq!((release.revision, release.status.as_str()), (1, "deployed"));
    assert_eq!(format!("{release:?}"), "release pachyderm revision 1 (deployed) of pachyderm-2.11.6");
}
