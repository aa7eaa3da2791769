//! Backups that suspend the cluster: how long for, what is proved, and that it comes back.

use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::events::v1::Event;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::support::kubelab::Lab;
use super::support::pachyderm::{
    cleaned, is_clean, left, record, replicas, scale, settled, stuck, unstick, until, worker,
};
use super::support::program::{Run, Running, words};
use super::support::s3_server::SECRET_KEY;
use super::support::site::{PASSWORD, Site};
use crate::during_dump::waiting;

/// A release with two pachd and a pipeline's worker, all of them running; `annotations` steer pachd's pods.
async fn running(annotations: Value) -> Option<Site> {
    let site = Site::make().await?;
    let mut values = site.outside();
    values["pachd"]["replicas"] = 2.into();
    values["pachd"]["podAnnotations"] = annotations;
    site.install(&values);
    worker(&site.lab, "default-edges-v1", 2).await;
    settled(&site.lab, "pachd", 2).await;
    Some(site)
}

/// A Lease that lasts longer than a slow machine may stand still: nobody here waits until it lapses.
const LEASE: &str = "--lease-duration=30s";
const COMMON: [&str; 3] = [LEASE, "--guardian=none", "--json-file=events"];

fn backup(site: &Site, more: &[&str]) -> Run {
    site.backup("b.pacharc", &[&COMMON, more].concat())
}

fn start(site: &Site, more: &[&str]) -> Running {
    let recipient = site.desk.recipient.clone();
    let args = [&["backup", "-o", "b.pacharc", "--recipient", &recipient], &COMMON[..], more].concat();
    Running::start(&mut site.command(&args, &[]))
}

fn manifest(site: &Site) -> Value {
    let text = site.desk.run(["inspect", "b.pacharc", "--identity", "key.txt", "--json"]).code(0).text();
    let finished: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    finished["outcome"]["manifest"].clone()
}

/// The events that a run has told so far.
fn events(site: &Site) -> Vec<Value> {
    let text = std::fs::read_to_string(site.desk.path("events")).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Where among the events a step or a phase comes, which must be there.
fn place(events: &[Value], name: &str) -> usize {
    let found = events.iter().rposition(|event| event["step"] == name || event["phase"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {events:?}"))
}

async fn until_told(site: &Site, name: &str) {
    until(name, async || events(site).iter().any(|event| event["step"] == name || event["phase"] == name)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_lasts_until_the_snapshot_is_open_and_is_told_everywhere() {
    let Some(site) = running(json!({})).await else { return };
    let run = backup(&site, &["--quiesce=suspend", "--max-pause=600s"]).code(0).says("closed: all");
    assert!(run.stderr.contains("quiesced: the cluster was suspended for"), "{}", run.stderr);
    assert_eq!(replicas(&site.lab).await["pachd"], 2);
    assert!(is_clean(&site.lab).await, "{:?}", left(&site.lab).await);

    let source = &manifest(&site)["source"];
    assert_eq!(source["quiesce"], "suspend");
    assert_eq!(source["pause"]["lost"], Value::Null, "{source}");
    let seconds = source["pause"]["seconds"].as_f64().unwrap();
    assert!((0.01..600.0).contains(&seconds), "{source}");
    // Down after the copy, up again beside the dump.
    let told = events(&site);
    assert!(place(&told, "copy") < place(&told, "scale_pachd"));
    assert!(place(&told, "suspended") < place(&told, "snapshot"));
    assert!(place(&told, "snapshot") < place(&told, "fence"));
    assert_eq!(told.last().unwrap()["outcome"]["pause"], source["pause"]);

    let events = site.lab.api::<Event>().list(&ListParams::default()).await.unwrap().items;
    let reasons: Vec<_> = events.iter().filter_map(|event| event.reason.as_deref()).collect();
    assert!(reasons.contains(&"BackupStarted") && reasons.contains(&"BackupCompleted"), "{reasons:?}");

    // The run is kept, and the next plan goes by it.
    let kept = site.lab.api::<ConfigMap>().get("pacharc-last").await.unwrap().data.unwrap();
    let told_everywhere = format!("{} {kept:?} {events:?} {told:?}", run.stderr);
    for secret in [PASSWORD, SECRET_KEY] {
        assert!(!told_everywhere.contains(secret), "{told_everywhere}");
    }
    let kept: Value = serde_json::from_str(&kept["runs.json"]).unwrap();
    assert_eq!(kept[0]["pause_seconds"].as_f64(), Some(seconds));
    let plan = |more: &[&str]| site.run(&["plan", "backup"], more).code(0).text();
    let text = plan(&["--quiesce=suspend"]);
    assert!(text.contains("going by the last runs; after 60 seconds the cluster comes back in any case"), "{text}");
    assert!(plan(&[]).contains("pause        none"));
    site.assert_whole("b.pacharc", "paused").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_lasts_until_the_bundle_is_complete() {
    let Some(site) = running(json!({})).await else { return };
    let run = backup(&site, &["--quiesce=hold"]).code(0).says("closed: all");
    assert!(run.stderr.contains("nothing ran that writes when the snapshot was opened"), "{}", run.stderr);
    let told = events(&site);
    assert!(place(&told, "finish") < place(&told, "fence"));
    assert_eq!(manifest(&site)["source"]["pause"]["lost"], Value::Null);
    assert_eq!(replicas(&site.lab).await["pachd"], 2);
    assert!(is_clean(&site.lab).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_is_held_is_used_as_it_is_and_left_so() {
    let Some(site) = running(json!({})).await else { return };
    site.run(&["suspend"], &[LEASE]).code(0);
    for quiesce in ["online", "suspend", "hold"] {
        let run = backup(&site, &["--quiesce", quiesce]).code(0);
        assert!(run.stderr.contains("quiesced: the cluster was held by"), "{}", run.stderr);
        let source = &manifest(&site)["source"];
        assert_eq!((&source["quiesce"], &source["pause"]["lost"]), (&json!("hold"), &Value::Null), "{source}");
        assert!(source["pause"]["held_by"].is_string() && source["pause"]["seconds"].is_null(), "{source}");
        assert_eq!(replicas(&site.lab).await["pachd"], 0);
        assert_eq!(record(&site.lab).await.unwrap()["state"], "suspended");
        std::fs::remove_file(site.desk.path("b.pacharc")).unwrap();
    }
    let text = site.run(&["plan", "backup"], &["--quiesce=suspend"]).code(0).text();
    assert!(text.contains("the cluster is held by"), "{text}");
    site.run(&["resume"], &[LEASE]).code(0);
    settled(&site.lab, "pachd", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn for_a_cut_over_it_stays_down_and_the_last_line_brings_it_back() {
    let Some(site) = running(json!({})).await else { return };
    let run = backup(&site, &["--quiesce=suspend", "--after=stay-suspended"]).code(0);
    let command = run.stderr.trim_end().lines().last().unwrap().to_owned();
    assert!(command.starts_with("pacharc resume --namespace"), "{}", run.stderr);
    assert_eq!(replicas(&site.lab).await["pachd"], 0);
    assert_eq!(record(&site.lab).await.unwrap()["kind"], "hold");
    let words: Vec<&str> = command.split(' ').skip(1).collect();
    site.desk.run(words).code(0);
    settled(&site.lab, "pachd", 2).await;
    assert!(is_clean(&site.lab).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn for_a_cut_over_a_cluster_that_is_not_left_suspended_is_a_failure() {
    let Some(site) = running(stuck()).await else { return };
    let more = ["--quiesce=suspend", "--after=stay-suspended", "--drain-timeout=5s"];
    let run = backup(&site, &more).code(1).advises();
    let said = "the bundle is complete, but the cluster was NOT left suspended: because after 5 s there are still pods";
    assert!(run.stderr.contains(said), "{}", run.stderr);
    settled(&site.lab, "pachd", 2).await;
    cleaned(&site.lab).await;
    site.desk.run(["verify", "b.pacharc", "--identity", "key.txt"]).code(0).says("closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_take_longer_than_the_longest_pause_make_it_an_online_backup() {
    let Some(site) = running(stuck()).await else { return };
    let run = backup(&site, &["--quiesce=suspend", "--max-pause=15s"]).code(0).says("closed: all");
    assert!(run.stderr.contains("quiesced: lost at") && run.stderr.contains("there are still pods"), "{}", run.stderr);
    let source = &manifest(&site)["source"];
    assert!(source["pause"]["lost"]["because"].as_str().unwrap().contains("pachd-"), "{source}");
    settled(&site.lab, "pachd", 2).await;
    cleaned(&site.lab).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_scaled_for_a_pause_that_would_be_too_short() {
    let Some(site) = running(json!({})).await else { return };
    let run = backup(&site, &["--quiesce=suspend", "--max-pause=1ms"]).code(0).says("closed: all");
    assert!(run.stderr.contains("what a pause of 0.001 s is for took"), "{}", run.stderr);
    assert!(run.stderr.contains("quiesced: lost at"), "{}", run.stderr);
    assert!(events(&site).iter().all(|event| event["step"].is_null()), "{:?}", events(&site));
    let pause = &manifest(&site)["source"]["pause"];
    assert!(pause["begun"].is_null() && pause["lost"]["because"].is_string(), "{pause}");
    assert_eq!(replicas(&site.lab).await["pachd"], 2);
    assert!(is_clean(&site.lab).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_scales_up_in_a_hold_makes_it_an_online_backup() {
    let Some(site) = running(json!({})).await else { return };
    // The dump waits, so that it comes before the last proof.
    let tools = waiting(&site.desk);
    let run = start(&site, &["--quiesce=hold", "--pg-bin", &tools.to_string_lossy()]);
    until("pg_dump waits", async || site.desk.path("waiting.txt").exists()).await;
    scale(&site.lab, "pachd", 1).await;
    std::fs::write(site.desk.path("go"), "").unwrap();
    let run = tokio::task::spawn_blocking(move || run.finish()).await.unwrap();
    let run = run.code(0).says("closed: all");
    assert!(run.stderr.contains("quiesced: lost at"), "{}", run.stderr);
    settled(&site.lab, "pachd", 2).await;
    cleaned(&site.lab).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_at_work_is_named_and_nothing_is_called_quiesced() {
    let Some(site) = running(json!({})).await else { return };
    let url = format!("{}?application_name=stranger", site.postgres.url("pachyderm"));
    let (session, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    session.batch_execute("BEGIN").await.unwrap();
    let run = backup(&site, &["--quiesce=suspend"]).code(0).says("closed: all");
    assert!(run.stderr.contains("quiesced: lost at"), "{}", run.stderr);
    assert!(
        run.stderr.contains(
            "others are at work on the databases: stranger of postgres at local (in a transaction in pachyderm"
        ),
        "{}",
        run.stderr
    );
    assert_eq!(replicas(&site.lab).await["pachd"], 2);
    assert!(is_clean(&site.lab).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_undo_it_is_refused_before_anything_is_read() {
    let Some(site) = running(json!({})).await else { return };
    let label = Patch::Merge(json!({ "metadata": { "labels": { "argocd.argoproj.io/instance": "pachyderm" } } }));
    site.lab.api::<Deployment>().patch("pachd", &PatchParams::default(), &label).await.unwrap();
    backup(&site, &["--quiesce=suspend"]).code(5).advises().says("Argo CD");
    assert!(!site.desk.path("b.pacharc").exists());
    site.run(&["plan", "backup"], &["--quiesce=hold"]).code(5).advises().says("Argo CD");
    assert_eq!(replicas(&site.lab).await["pachd"], 2);
    backup(&site, &["--quiesce=suspend", "--ignore-gitops"]).code(0);
    settled(&site.lab, "pachd", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_brings_the_cluster_back_and_leaves_no_bundle() {
    let Some(site) = running(stuck()).await else { return };
    let run = start(&site, &["--quiesce=hold"]);
    until_told(&site, "drain_pachd").await;
    run.signal("INT");
    let run = tokio::task::spawn_blocking(move || run.finish()).await.unwrap().code(130);
    assert_eq!(replicas(&site.lab).await["pachd"], 2, "{}", run.stderr);
    cleaned(&site.lab).await;
    assert!(!site.desk.path("b.pacharc").exists(), "{:?}", site.desk.leftovers());
}

/// From here on no pod of pachd becomes ready; those that there are end, which has kept a run waiting.
async fn never_ready_again(lab: &Lab) {
    let never = json!({ "metadata": { "annotations": { "kubelab/ready": "false" } } });
    let patch = Patch::Merge(json!({ "spec": { "template": never } }));
    lab.api::<Deployment>().patch("pachd", &PatchParams::default(), &patch).await.unwrap();
    unstick(lab, "pachd").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pachd_that_does_not_come_back_is_exit_code_8_and_the_bundle_is_there() {
    let Some(site) = running(stuck()).await else { return };
    let run = start(&site, &["--quiesce=suspend", "--ready-timeout=10s"]);
    until_told(&site, "drain_pachd").await;
    never_ready_again(&site.lab).await;
    let run = tokio::task::spawn_blocking(move || run.finish()).await.unwrap().code(8);
    let last = run.stderr.trim_end().lines().last().unwrap();
    assert!(last.starts_with("pacharc resume --namespace"), "{}", run.stderr);
    assert!(run.stderr.contains("the bundle is complete all the same"), "{}", run.stderr);
    site.desk.run(["verify", "b.pacharc", "--identity", "key.txt"]).code(0).says("closed");
}

/// A signal does not wait for a pachd that does not become ready as long as the run itself would; and a pod of ours is given 120 s.
#[tokio::test(flavor = "multi_thread")]
async fn a_signal_ends_the_wait_for_a_pachd_that_does_not_come_back() {
    let Some(site) = running(stuck()).await else { return };
    let run = start(&site, &["--quiesce=hold", "--ready-timeout=10m"]);
    until_told(&site, "drain_pachd").await;
    never_ready_again(&site.lab).await;
    // By then the bundle is complete.
    until_told(&site, "await_ready").await;
    let begun = Instant::now();
    run.signal("TERM");
    let run = tokio::task::spawn_blocking(move || run.finish()).await.unwrap().code(8);
    assert!(begun.elapsed() < Duration::from_secs(200), "{:?}", begun.elapsed());
    let last = run.stderr.trim_end().lines().last().unwrap();
    assert!(last.starts_with("pacharc resume --namespace") && last.ends_with(" --force"), "{}", run.stderr);
    let run = run.says("the bundle is complete all the same").says("terminated (SIGTERM)");
    assert!(run.stderr.contains("the cluster is not yet back as it was"), "{}", run.stderr);
    site.desk.run(["verify", "b.pacharc", "--identity", "key.txt"]).code(0).says("closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn flags_that_need_a_pause_say_so() {
    let desk = super::support::program::Desk::new();
    let run = |args: &[&str]| desk.run([words(&["backup", "-o", "b"]), words(args)].concat()).code(2);
    run(&["--bucket=file:///b", "--quiesce=suspend"]).says("--namespace");
    // In a pod a process would end with the run that it guards.
    let args = words(&["backup", "-o", "b", "--namespace=n", "--quiesce=suspend"]);
    let mut inside = desk.command(args);
    Running::start(inside.env("KUBERNETES_SERVICE_HOST", "127.0.0.1"))
        .finish()
        .code(2)
        .says("--guardian-image")
        .advises();
    run(&["--namespace=n", "--max-pause=3s"]).says("--quiesce suspend");
    run(&["--namespace=n", "--after=stay-suspended"]).says("--quiesce suspend or hold");
    run(&["--namespace=n", "--quiesce=suspend", "--after=stay-suspended", "--max-pause=3s"]).says("--max-pause");
}
