//! A backup that suspends is killed or cut off at each of its steps: the cluster runs again, with its counts, and no bundle
//! says what was not so.

use serde_json::{Value, json};

use super::support::moments::{Gate, Told, guardians, kill};
use super::support::pachyderm::{cleaned, record, replicas, settled, until, worker};
use super::support::program::Running;
use super::support::site::Site;

/// In seconds.
const LEASE: u64 = 3;

/// The backup in a hold: every step on the way down and up, and what is done in between.
const DOWN: [&str; 8] =
    ["record", "annotate", "scale_pachd", "drain_pachd", "scale_pachw", "scale_workers", "drain_all", "suspended"];
const BETWEEN: [&str; 5] = ["snapshot", "delta", "dump", "cluster", "finish"];
const UP: [&str; 5] = ["fence", "scale_up", "await_ready", "remove_record", "release_lease"];

async fn running() -> Option<Site> {
    let site = Site::make().await?;
    let mut values = site.outside();
    values["pachd"]["replicas"] = 2.into();
    site.install(&values);
    worker(&site.lab, "default-edges-v1", 2).await;
    settled(&site.lab, "pachd", 2).await;
    Some(site)
}

fn args(site: &Site, more: &[&str]) -> Vec<String> {
    let recipient = site.desk.recipient.clone();
    let lease = format!("--lease-duration={LEASE}s");
    let args = ["backup", "-o", "b.pacharc", "--recipient", &recipient, "--json", &lease];
    site.args(&[&args, more].concat(), &[])
}

/// Kills the run where it announces a step. Whether it came to it.
async fn kill_at(site: &Site, more: &[&str], step: &str) -> bool {
    std::fs::remove_file(site.desk.path("b.pacharc")).ok();
    let mut command = site.desk.command(args(site, more));
    let step = step.to_owned();
    tokio::task::spawn_blocking(move || Told::start(&mut command).kill_at(&step)).await.unwrap()
}

/// Waits until pachd runs as it did, and nothing is left behind. The workers are pachd's own affair.
async fn comes_back(site: &Site, what: &str) {
    eprintln!("after {what}");
    settled(&site.lab, "pachd", 2).await;
    cleaned(&site.lab).await;
    until("the guardian ends", async || guardians(&site.lab).is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_step_the_guardian_brings_the_cluster_back() {
    let Some(site) = running().await else { return };
    for step in DOWN.iter().chain(&BETWEEN).chain(&UP) {
        assert!(kill_at(&site, &["--quiesce=hold"], step).await, "{step}");
        comes_back(&site, step).await;
        // A bundle has its name only when it is complete; then it comes up.
        assert_eq!(site.desk.path("b.pacharc").exists(), UP.contains(step), "{step}");
    }
    // Before the guardian has proved itself nothing is changed; the Lease lapses.
    for step in ["take_lease", "start_guardian"] {
        assert!(kill_at(&site, &["--quiesce=suspend"], step).await, "{step}");
        assert!(record(&site.lab).await.is_none(), "{step}");
        assert_eq!(replicas(&site.lab).await["pachd"], 2, "{step}");
        let resumed = site.run(&["resume"], &["--lease-duration=3s"]);
        assert!(matches!(resumed.status.code(), Some(0 | 5)), "{resumed:?}");
        comes_back(&site, step).await;
    }
    // A pause that ends with the snapshot: the resume is under way beside the dump.
    for step in ["delta", "fence", "dump"] {
        assert!(kill_at(&site, &["--quiesce=suspend"], step).await, "{step}");
        comes_back(&site, step).await;
        assert!(!site.desk.path("b.pacharc").exists(), "{step}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_step_the_guardian_in_the_cluster_does_so_too() {
    let Some(site) = running().await else { return };
    let job = ["--quiesce=hold", "--guardian-image=pacharc", "--guardian-annotation=kubelab/exec=true"];
    for step in ["record", "scale_pachd", "suspended", "dump", "scale_up"] {
        assert!(kill_at(&site, &job, step).await, "{step}");
        comes_back(&site, step).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_guardian_killed_too_resume_repairs() {
    let Some(site) = running().await else { return };
    assert!(kill_at(&site, &["--quiesce=hold"], "dump").await);
    guardians(&site.lab).into_iter().for_each(kill);
    let told = site.run(&["status"], &[]).code(8);
    assert!(told.stderr.trim_end().lines().last().unwrap().starts_with("pacharc resume "), "{}", told.stderr);
    assert_eq!(replicas(&site.lab).await["pachd"], 0);
    site.run(&["resume"], &["--lease-duration=3s"]).code(0);
    comes_back(&site, "both killed").await;
}

/// Cut off for longer than the Lease, in the middle of a hold: the guardian acts, and the bundle says so.
#[tokio::test(flavor = "multi_thread")]
async fn cut_off_in_a_hold_the_bundle_claims_no_quiescence() {
    let Some(site) = running().await else { return };
    let gate = Gate::new(&site.lab, site.desk.folder()).await;
    let job = ["--quiesce=hold", "--guardian-image=pacharc", "--guardian-annotation=kubelab/exec=true"];
    let mut args = args(&site, &job);
    let at = args.iter().position(|word| word == "--kubeconfig").unwrap() + 1;
    args[at] = gate.kubeconfig.display().to_string();
    args.push("--json-file=events".to_owned());
    // A table that somebody else has locked keeps the snapshot waiting meanwhile; he began before, and so idles.
    let (session, connection) =
        tokio_postgres::connect(&site.postgres.url("pachyderm"), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let run = Running::start(&mut site.desk.command(args));
    let told = |name: &'static str| {
        let path = site.desk.path("events");
        async move || std::fs::read_to_string(&path).unwrap_or_default().contains(&format!("\"{name}\""))
    };
    until("suspended", told("suspended")).await;
    session.batch_execute("BEGIN; LOCK TABLE storage.chunk_objects").await.unwrap();
    gate.set(false);
    settled(&site.lab, "pachd", 2).await;
    gate.set(true);
    session.batch_execute("ROLLBACK").await.unwrap();
    let run = tokio::task::spawn_blocking(move || run.finish()).await.unwrap().code(0);
    let finished: Value = serde_json::from_str(run.text().lines().last().unwrap()).unwrap();
    let lost = &finished["outcome"]["pause"]["lost"];
    assert!(lost["because"].is_string(), "{finished}");
    assert_eq!(finished["outcome"]["objects"]["closed"], json!(true));
    comes_back(&site, "cut off").await;
}

/// Two at once: the second finds the Lease taken, says by whom, and is online; a suspend by hand is refused.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_at_once_one_suspends() {
    let Some(site) = running().await else { return };
    let first = Running::start(
        &mut site.desk.command([args(&site, &["--quiesce=hold"]), vec!["--json-file=events".into()]].concat()),
    );
    until("suspended", async || {
        std::fs::read_to_string(site.desk.path("events")).unwrap_or_default().contains("\"suspended\"")
    })
    .await;
    let second = site.run(&["suspend"], &["--lease-duration=3s"]).code(5).advises();
    assert!(
        second.stderr.contains("is suspended already: by") || second.stderr.contains("is at work"),
        "{}",
        second.stderr
    );
    let second = site.backup("second.pacharc", &["--quiesce=suspend", "--lease-duration=3s"]);
    let first = tokio::task::spawn_blocking(move || first.finish()).await.unwrap().code(0);
    let finished: Value = serde_json::from_str(first.text().lines().last().unwrap()).unwrap();
    assert_eq!(finished["outcome"]["pause"]["lost"], Value::Null, "{finished}");
    match second.status.code() {
        // It came while the first was at it.
        Some(5) => drop(second.says("is suspended already: by")),
        code => assert_eq!(code, Some(0), "{}", second.stderr),
    }
    comes_back(&site, "two at once").await;
}
