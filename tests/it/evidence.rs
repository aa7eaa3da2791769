//! Reports that are kept: what they say is what was, the schema that is published holds for them, and they are signed.

use std::path::Path;
use std::process::{Command, Stdio};

use pacharc_sample::skipped;
use serde_json::Value;

use crate::support::cluster::{Cluster, target, target_server};
use crate::support::program::{Desk, words};

/// What `docs/report.schema.json` finds wrong.
fn problems(report: &Value) -> Vec<String> {
    let schema = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/report.schema.json")).unwrap();
    let schema: Value = serde_json::from_slice(&schema).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    validator.iter_errors(report).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

/// The report of this name, which the schema must allow, and its page.
#[track_caller]
fn kept(desk: &Desk, name: &str) -> (Value, String) {
    let report: Value = serde_json::from_slice(&std::fs::read(desk.path(&format!("{name}.json"))).unwrap()).unwrap();
    assert_eq!(problems(&report), [""; 0], "{report:#}");
    let page = std::fs::read_to_string(desk.path(&format!("{name}.html"))).unwrap();
    for elsewhere in ["http://", "https://", "<script", "src=", "<link", "url(", "@import"] {
        assert!(!page.contains(elsewhere), "{name}: {elsewhere}");
    }
    assert!(page.contains(&format!("<strong>{}</strong>", report["verdict"].as_str().unwrap())), "{name}");
    assert!(page.contains("<svg") == report["contents"].is_object(), "{name}");
    let json = std::fs::read(desk.path(&format!("{name}.json"))).unwrap();
    assert!(page.contains(blake3::hash(&json).to_hex().as_str()), "the page names the report");
    (report, page)
}

#[tokio::test(flavor = "multi_thread")]
async fn backup_trial_and_restore_leave_evidence() {
    let desk = Desk::new();
    let Some(cluster) = Cluster::small(&desk, "evidence").await else { return };
    let Some(_) = target_server() else { return };
    desk.run(["keygen", "--sign", "-o", "sign.key"]).code(0);
    let public = desk.run(["keygen", "-y", "sign.key"]).code(0).text();
    std::fs::write(desk.path("sign.pub"), public).unwrap();
    let with = |name: &str| words(&["--sign-key", "sign.key", "--report", &format!("{name}.json")]);
    let run = |args: Vec<String>, name: &str| desk.run([args, with(name)].concat());

    run(desk.backup_args(&cluster.source(), "c.pacharc", &[]), "backup").code(0);
    let (backup, page) = kept(&desk, "backup");
    assert_eq!((&backup["verdict"], &backup["command"]), (&"done".into(), &"backup".into()));
    let id = backup["outcome"]["id"].as_str().unwrap();
    assert!(page.contains(id) && page.contains(env!("CARGO_PKG_VERSION")) && page.contains("storage.chunk_objects"));
    let database = |report: &Value, name: &str| {
        let databases = report["contents"]["databases"].as_array().unwrap();
        databases.iter().find(|database| database["name"] == name).unwrap().clone()
    };
    let tables = database(&backup, &cluster.database)["tables"].as_array().unwrap().clone();
    let chunks = tables.iter().find(|table| table["name"] == "storage.chunk_objects").unwrap();
    let rows = cluster.server.psql(&cluster.database, "SELECT count(*) FROM storage.chunk_objects").unwrap();
    assert_eq!(chunks["rows"].to_string(), rows);
    assert!(tables.windows(2).all(|pair| pair[0]["bytes"].as_u64() >= pair[1]["bytes"].as_u64()), "the largest first");

    let verify = words(&["verify", "c.pacharc", "--identity", "key.txt", "--trusted-key", "sign.pub"]);
    run([verify.clone(), words(&["--level", "restore"])].concat(), "trial").code(0);
    let (trial, page) = kept(&desk, "trial");
    assert_eq!((&trial["verdict"], &trial["contents"]), (&"sound".into(), &backup["contents"]));
    assert!(page.contains("Trial restore into PostgreSQL") && page.contains(&cluster.dex), "{page}");

    let place = target(&desk.bucket("target"));
    run(Desk::restore_args("c.pacharc", &place, &[]), "restore").code(0);
    assert_eq!(kept(&desk, "restore").0["verdict"], "done");
    let against = [verify, words(&["--against", "target", "--bucket", &desk.bucket("target")])].concat();
    run(against, "against").code(0);
    assert_eq!(kept(&desk, "against").0["outcome"]["against"], "target");
    // Without the key there is a verdict, and no content.
    run(words(&["verify", "c.pacharc"]), "sums").code(0);
    assert_eq!(kept(&desk, "sums").0["contents"], Value::Null);

    for name in ["backup.json", "backup.html", "trial.html"] {
        let mut minisign = Command::new("minisign");
        minisign.args(["-qVm", name, "-p", "sign.pub"]).current_dir(desk.folder()).stdin(Stdio::null());
        match minisign.status() {
            Ok(status) => assert!(status.success(), "{name}"),
            Err(_) => skipped("minisign is not installed"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_failed_and_what_is_wrong_leave_evidence_too() {
    let desk = Desk::new();
    let Some(cluster) = Cluster::small(&desk, "evidence_of_damage").await else { return };
    let live = cluster.live().await;
    cluster.bucket.delete(&live[0]).await.unwrap();
    desk.backup(&cluster.source(), "c.pacharc", &["--report", "lacking.json"]).code(4);
    let (lacking, page) = kept(&desk, "lacking");
    assert_eq!((&lacking["verdict"], &lacking["exit_code"]), (&"incomplete".into(), &4.into()));
    let named = format!("missing: {}", live[0]);
    assert_eq!(lacking["warnings"].as_array().unwrap().iter().filter(|line| **line == named).count(), 1, "{lacking}");
    assert!(page.contains(&named), "{page}");

    desk.run(["keygen", "--sign", "-o", "sign.key"]).code(0);
    let public = desk.run(["keygen", "-y", "sign.key"]).code(0).text();
    let key = public.lines().nth(1).unwrap();
    desk.run(["verify", "c.pacharc", "--trusted-key", key, "--report", "foreign.json"]).code(6);
    let (foreign, page) = kept(&desk, "foreign");
    assert_eq!((&foreign["verdict"], &foreign["outcome"]), (&"credentials".into(), &Value::Null));
    assert!(foreign["failure"]["message"].as_str().unwrap().contains("not signed"));
    assert!(page.contains("nothing is proved by it"), "{page}");
    assert!(!desk.path("foreign.json.minisig").exists());

    let mut bytes = std::fs::read(desk.path("c.pacharc")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(desk.path("bad.pacharc"), bytes).unwrap();
    desk.run(["verify", "bad.pacharc", "--report", "damaged.json"]).code(3);
    let damaged = kept(&desk, "damaged").0;
    assert_eq!(damaged["verdict"], "damaged");
    assert!(damaged["summary"].as_str().unwrap().contains("at byte"), "{damaged}");

    // Evidence is not overwritten, and that is known before anything is done.
    let before = std::fs::read(desk.path("damaged.json")).unwrap();
    desk.run(["verify", "c.pacharc", "--report", "damaged.json"]).code(5).says("exists already").advises();
    assert_eq!(std::fs::read(desk.path("damaged.json")).unwrap(), before);
    desk.run(["verify", "c.pacharc", "--report", "page.html"]).code(2).advises();
    for more in [["--report", "x.json"], ["--sign-key", "sign.key"]] {
        let job = [&["--namespace", "n", "--in-cluster", "--image", "i"][..], &more].concat();
        desk.backup(&[], "d.pacharc", &job).code(2).says("--in-cluster exclude each other");
    }
    desk.backup(&cluster.source(), "d.pacharc", &["--report", "absent/x.json"]).code(1).advises();
    assert!(!desk.path("d.pacharc").exists());
}

/// The state of a real cluster is restored on trial; its page stays, for people to look at.
#[tokio::test(flavor = "multi_thread")]
async fn a_real_cluster_restores_on_trial() {
    let Some(folder) = crate::round_trip::fixture() else { return };
    let Some(server) = crate::round_trip::recorded(&folder) else { return };
    let desk = Desk::new();
    let bucket = format!("file://{}", folder.join("bucket").display());
    let source = words(&["--postgres", &server.url("postgres"), "--bucket", &bucket]);
    desk.backup(&source, "c.pacharc", &["--report", "backup.json"]).code(0);
    let trial = ["verify", "c.pacharc", "--identity", "key.txt", "--level", "restore", "--report", "trial.json"];
    desk.run(trial).code(0).says("database pachyderm").says("database dex").says("sound");
    let (trial, page) = kept(&desk, "trial");
    assert_eq!(trial["outcome"]["trial"]["databases"].as_array().unwrap().len(), 2);
    assert_eq!(trial["contents"]["objects"]["live"]["count"], 171);
    for name in ["storage.chunk_objects", "2.11.x", "pachyderm", "live", "against the objects, and a trial restore"] {
        assert!(page.contains(name), "{name}");
    }
    for name in ["backup.html", "trial.html"] {
        std::fs::copy(desk.path(name), Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)).unwrap();
    }
}

#[test]
fn the_schema_allows_nothing_that_contradicts_itself() {
    let good = serde_json::json!({
        "report": 1, "command": "verify", "pacharc": "1", "began": "2026-01-01T00:00:00Z", "ended": "2026-01-01T00:00:01.5Z",
        "seconds": 1.5, "verdict": "sound", "exit_code": 0, "summary": "", "failure": null, "warnings": [], "contents": null,
        "outcome": { "bundle": "00000000-0000-4000-8000-000000000000" },
    });
    assert_eq!(problems(&good), [""; 0]);
    let changes = [
        ("report", 2.into()),
        ("command", "list".into()),
        ("began", "yesterday".into()),
        ("verdict", "good".into()),
        ("exit_code", 3.into()),
        ("outcome", Value::Null),
        ("failure", serde_json::json!({ "class": "other", "message": "", "advice": null })),
        ("contents", serde_json::json!({})),
    ];
    for (member, value) in changes {
        let mut bad = good.clone();
        bad[member] = value;
        assert_ne!(problems(&bad), [""; 0], "{member}");
        bad.as_object_mut().unwrap().remove(member);
        assert_ne!(problems(&bad), [""; 0], "{member} is absent");
    }
}
