//! A backup that suspends is killed or cut off at each of its steps: the cluster runs again, with its counts, and no bundle
//! says what was not so.

use serde_json::{Value, json};

use super::support::moments::{Gate, Told, guardians, kill};
use super::support::pachyderm::{cleaned, lapse_soon, record, replicas, settled, until, worker};
use super::support::program::Running;
use super::support::site::Site;
use crate::during_dump::waiting;

/// Longer than a slow machine may stand still; where one is to lapse, it is made to.
const LEASE: &str = "--lease-duration=30s";
/// Where it lapses by itself.
const SHORT: &str = "--lease-duration=15s";

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
    let args = ["backup", "-o", "b.pacharc", "--recipient", &recipient, "--json"];
    site.args(&[&args, more].concat(), &[])
}

/// Kills the run where it announces a step, and has its Lease lapse soon. Whether it came to it.
async fn kill_at(site: &Site, more: &[&str], step: &str) -> bool {
    std::fs::remove_file(site.desk.path("b.pacharc")).ok();
    let mut command = site.desk.command(args(site, &[more, &[LEASE]].concat()));
    let step = step.to_owned();
    let came = tokio::task::spawn_blocking(move || Told::kill_at(&mut command, &step)).await.unwrap();
    lapse_soon(&site.lab, "pacharc").await;
    came
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
        // A bundle has its name only when it is complete, and only then the cluster comes up.
        let is_there = site.desk.path("b.pacharc").exists();
        if *step != "finish" {
            assert_eq!(is_there, UP.contains(step), "{step}");
        }
        if is_there {
            site.desk.run(["verify", "b.pacharc"]).code(0);
        }
    }
    // Before the guardian has proved itself nothing is changed; the Lease lapses.
    for step in ["take_lease", "start_guardian"] {
        assert!(kill_at(&site, &["--quiesce=suspend"], step).await, "{step}");
        assert!(record(&site.lab).await.is_none(), "{step}");
        assert_eq!(replicas(&site.lab).await["pachd"], 2, "{step}");
        let resumed = site.run(&["resume"], &[LEASE]);
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
    let mut command = site.desk.command(args(&site, &["--quiesce=hold", LEASE]));
    assert!(tokio::task::spawn_blocking(move || Told::kill_at(&mut command, "dump")).await.unwrap());
    guardians(&site.lab).into_iter().for_each(kill);
    for name in ["pacharc", "pacharc-guardian"] {
        lapse_soon(&site.lab, name).await;
    }
    let told = site.run(&["status"], &[]).code(8);
    assert!(told.stderr.trim_end().lines().last().unwrap().starts_with("pacharc resume "), "{}", told.stderr);
    assert_eq!(replicas(&site.lab).await["pachd"], 0);
    site.run(&["resume"], &[LEASE]).code(0);
    comes_back(&site, "both killed").await;
}

/// Cut off for longer than the Lease, in the middle of a hold: the guardian acts, and the bundle says so.
#[tokio::test(flavor = "multi_thread")]
async fn cut_off_in_a_hold_the_bundle_claims_no_quiescence() {
    let Some(site) = running().await else { return };
    let gate = Gate::new(&site.lab, site.desk.folder()).await;
    let tools = waiting(&site.desk);
    let bin = ["--pg-bin", &tools.to_string_lossy(), SHORT];
    let job = ["--quiesce=hold", "--guardian-image=pacharc", "--guardian-annotation=kubelab/exec=true"];
    let mut args = args(&site, &[&job[..], &bin].concat());
    let at = args.iter().position(|word| word == "--kubeconfig").unwrap() + 1;
    args[at] = gate.kubeconfig.display().to_string();
    let run = Running::start(&mut site.desk.command(args));
    // The dump waits meanwhile.
    until("pg_dump waits", async || site.desk.path("waiting.txt").exists()).await;
    gate.set(false);
    settled(&site.lab, "pachd", 2).await;
    gate.set(true);
    std::fs::write(site.desk.path("go"), "").unwrap();
    let run = tokio::task::spawn_blocking(move || run.finish()).await.unwrap().code(0);
    let finished: Value = serde_json::from_str(run.text().lines().last().unwrap()).unwrap();
    let lost = &finished["outcome"]["pause"]["lost"];
    assert!(lost["because"].is_string(), "{finished}");
    assert_eq!(finished["outcome"]["objects"]["closed"], json!(true));
    comes_back(&site, "cut off").await;
}

/// Two at once: whoever comes second, a suspend by hand or another backup, is told by whom it is suspended.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_at_once_one_suspends() {
    let Some(site) = running().await else { return };
    let tools = waiting(&site.desk);
    let more = ["--quiesce=hold", LEASE, "--pg-bin", &tools.to_string_lossy()];
    let first = Running::start(&mut site.desk.command(args(&site, &more)));
    // The first holds it until its dump may go on.
    until("pg_dump waits", async || site.desk.path("waiting.txt").exists()).await;
    site.run(&["suspend"], &[LEASE]).code(5).advises().says("is suspended already: by");
    site.backup("second.pacharc", &["--quiesce=suspend", LEASE]).code(5).says("is suspended already: by");
    std::fs::write(site.desk.path("go"), "").unwrap();
    let first = tokio::task::spawn_blocking(move || first.finish()).await.unwrap().code(0);
    let finished: Value = serde_json::from_str(first.text().lines().last().unwrap()).unwrap();
    assert_eq!(finished["outcome"]["pause"]["lost"], Value::Null, "{finished}");
    comes_back(&site, "two at once").await;
}
