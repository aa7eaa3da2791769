//! Whoever is killed, cut off or gone: the cluster comes back.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;

use super::support::kubelab::{Kubelab, Lab};
use super::support::moments::{Gate, Told, guardians, kill};
use super::support::pachyderm::{
    cleaned, deployment, install, is_clean, lapse_soon, lease, record, replicas, settled, stuck, unstick, until,
};
use super::support::program::{Desk, Run, Running, words};

/// Told beside the steps.
const PHASES: [&str; 2] = ["suspend", "resume"];

/// Of Leases, in seconds: longer than a slow machine may stand still. Where one is to lapse, it is made to.
const LEASE: u64 = 30;
/// Of those that lapse by themselves.
const SHORT: u64 = 15;

fn args(lab: &Lab, command: &str, more: &[&str]) -> Vec<String> {
    args_with(LEASE, lab, command, more)
}

fn args_with(lease: u64, lab: &Lab, command: &str, more: &[&str]) -> Vec<String> {
    let mut args = vec![command.to_owned()];
    args.extend(lab.flags());
    args.extend([format!("--lease-duration={lease}s"), "--json".to_owned()]);
    args.extend(words(more));
    args
}

async fn run(lab: &Lab, command: &str, more: &[&str]) -> Run {
    let args = args(lab, command, more);
    tokio::task::spawn_blocking(move || Desk::new().run(args)).await.unwrap()
}

async fn status(lab: &Lab) -> Run {
    let args: Vec<String> = ["status".to_owned()].into_iter().chain(lab.flags()).collect();
    tokio::task::spawn_blocking(move || Desk::new().run(args)).await.unwrap()
}

/// Kills a run where it announces a step. Whether it came to it.
async fn kill_at(lab: &Lab, command: &str, more: &[&str], step: &str) -> bool {
    let (args, step) = (args(lab, command, more), step.to_owned());
    let come = move || Told::kill_at(&mut Desk::new().command(args), &step);
    tokio::task::spawn_blocking(come).await.unwrap()
}

/// The same; and its Lease lapses soon.
async fn kill_and_lapse(lab: &Lab, command: &str, more: &[&str], step: &str) -> bool {
    let came = kill_at(lab, command, more, step).await;
    lapse_soon(lab, "pacharc").await;
    came
}

async fn kill_guardians(lab: &Lab) {
    guardians(lab).into_iter().for_each(kill);
    lapse_soon(lab, "pacharc-guardian").await;
}

async fn steps(lab: &Lab, command: &str, more: &[&str]) -> Vec<String> {
    let args = args(lab, command, more);
    tokio::task::spawn_blocking(move || {
        let desk = Desk::new();
        Told::start(&mut desk.command(args))
            .steps()
            .into_iter()
            .filter(|name| !PHASES.contains(&name.as_str()))
            .collect()
    })
    .await
    .unwrap()
}

/// Waits until it runs as it did, and nothing is left behind.
async fn comes_back(lab: &Lab, pachd: i32) {
    settled(lab, "pachd", pachd).await;
    settled(lab, "pachw", 2).await;
    cleaned(lab).await;
    until("the guardian ends", async || guardians(lab).is_empty()).await;
}

/// A guardian as a process of this machine, and as a Job.
const PROCESS: [&str; 1] = ["--for=1h"];
const JOB: [&str; 3] = ["--for=1h", "--guardian-image=pacharc", "--guardian-annotation=kubelab/exec=true"];

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_step_of_a_suspend_the_guardian_resumes() {
    killed_at_any_step_of_a_suspend(&PROCESS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_step_of_a_suspend_the_guardian_in_the_cluster_resumes() {
    killed_at_any_step_of_a_suspend(&JOB).await;
}

async fn killed_at_any_step_of_a_suspend(limit: &[&str]) {
    let Some(kubelab) = Kubelab::shared() else { return };
    let lab = kubelab.namespace().await;
    install(&lab, 2, json!({})).await;
    let all = steps(&lab, "suspend", limit).await;
    let wanted: BTreeSet<&str> = [
        "take_lease",
        "start_guardian",
        "record",
        "annotate",
        "scale_pachd",
        "drain_pachd",
        "scale_pachw",
        "scale_workers",
        "drain_all",
        "suspended",
        "release_lease",
    ]
    .into();
    assert_eq!(all.iter().map(String::as_str).collect::<BTreeSet<_>>(), wanted);
    run(&lab, "resume", &[]).await.code(0);
    comes_back(&lab, 2).await;
    // From the guardian's proof on it must come back; before, nothing is changed.
    for step in &all[1..] {
        assert!(kill_and_lapse(&lab, "suspend", limit, step).await, "{step}");
        if step == "start_guardian" {
            // There may be no guardian yet; but nothing was changed.
            assert!(record(&lab).await.is_none());
        }
        if ["start_guardian", "suspended", "release_lease"].contains(&step.as_str()) {
            // The Lease lapses; or it is a hold by now, which its guardian ends when its time is over.
            let resumed = run(&lab, "resume", &[]).await;
            assert!(matches!(resumed.status.code(), Some(0 | 5)), "{resumed:?}");
        }
        comes_back(&lab, 2).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_step_without_a_guardian_the_next_resume_repairs() {
    let Some(kubelab) = Kubelab::shared() else { return };
    let lab = kubelab.namespace().await;
    install(&lab, 2, json!({})).await;
    let down = steps(&lab, "suspend", &[]).await;
    let up = steps(&lab, "resume", &[]).await;
    assert_eq!(up, ["take_lease", "fence", "scale_up", "await_ready", "remove_record", "release_lease", "resumed"]);
    for step in &down {
        eprintln!("suspend killed at {step}");
        assert!(kill_and_lapse(&lab, "suspend", &[], step).await, "{step}");
        if record(&lab).await.is_some_and(|record| record["state"] == "suspending") {
            status(&lab).await.code(8).says("the suspend was cut off");
        }
        run(&lab, "resume", &[]).await.code(0);
        comes_back(&lab, 2).await;
    }
    for step in &up {
        eprintln!("resume killed at {step}");
        run(&lab, "suspend", &[]).await.code(0);
        assert!(kill_and_lapse(&lab, "resume", &[], step).await, "{step}");
        run(&lab, "resume", &[]).await.code(0);
        comes_back(&lab, 2).await;
    }
    // A suspend that was cut off can go on, too, with the counts that were there first.
    assert!(kill_and_lapse(&lab, "suspend", &[], "scale_pachw").await);
    run(&lab, "suspend", &[]).await.code(0);
    assert_eq!(record(&lab).await.unwrap()["deployments"], json!({ "pachd": 2, "pachw": 2 }));
    run(&lab, "resume", &[]).await.code(0);
    comes_back(&lab, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_ends_when_its_time_is_over() {
    let Some(kubelab) = Kubelab::shared() else { return };
    let lab = kubelab.namespace().await;
    install(&lab, 1, json!({})).await;
    run(&lab, "suspend", &["--for=1h"]).await.code(0);
    let told = status(&lab).await.code(8);
    assert!(told.text().contains("process guardian of "), "{}", told.text());
    assert!(told.text().contains(", alive, ") && !told.stderr.contains("problem:"), "{} {}", told.text(), told.stderr);
    assert_eq!(replicas(&lab).await["pachd"], 0);
    run(&lab, "resume", &[]).await.code(0);
    comes_back(&lab, 1).await;
    // Its time begins before anything is scaled: long enough for that on a slow machine.
    run(&lab, "suspend", &["--for=60s"]).await.code(0);
    comes_back(&lab, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_who_used_a_hold_and_was_killed_does_not_end_it() {
    let Some(kubelab) = Kubelab::shared() else { return };
    let lab = kubelab.namespace().await;
    install(&lab, 1, json!({})).await;
    run(&lab, "suspend", &["--for=1h"]).await.code(0);
    // As a backup leaves it that made use of the hold, and was killed.
    let spec = json!({ "holderIdentity": "alice@desk/0", "leaseDurationSeconds": 2 });
    lab.apply::<k8s_openapi::api::coordination::v1::Lease>(json!({ "metadata": { "name": "pacharc" }, "spec": spec }))
        .await;
    until("the Lease is removed", async || lease(&lab, "pacharc").await.is_none()).await;
    assert_eq!(record(&lab).await.unwrap()["state"], "suspended");
    assert_eq!(replicas(&lab).await["pachd"], 0);
    assert_eq!(guardians(&lab).len(), 1, "the hold still has its guardian");
    run(&lab, "resume", &[]).await.code(0);
    comes_back(&lab, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_suspend_counts_anew() {
    let Some(kubelab) = Kubelab::shared() else { return };
    let lab = kubelab.namespace().await;
    install(&lab, 1, json!({})).await;
    let left = async || {
        let annotations = lease(&lab, "pacharc-guardian").await.unwrap().metadata.annotations.unwrap();
        annotations["pacharc/left"].parse::<u64>().unwrap()
    };
    run(&lab, "suspend", &["--for=1h"]).await.code(0);
    run(&lab, "suspend", &["--for=3h"]).await.code(0);
    assert!(left().await > 2 * 3600, "{}", left().await);
    run(&lab, "suspend", &["--for=40m"]).await.code(0);
    assert!(left().await <= 2400, "{}", left().await);
    // And without a time there is nobody who would end it.
    run(&lab, "suspend", &[]).await.code(0);
    until("the guardian ends", async || guardians(&lab).is_empty()).await;
    let kept = record(&lab).await.unwrap();
    assert_eq!((&kept["state"], &kept["deadline"]), (&json!("suspended"), &serde_json::Value::Null));
    assert_eq!(replicas(&lab).await["pachd"], 0);
    // One that fails leaves it held.
    deployment(&lab, "pachd", 1, stuck()).await;
    settled(&lab, "pachd", 1).await;
    let failed = run(&lab, "suspend", &["--drain-timeout=3s"]).await.code(1);
    assert!(failed.text().contains("there are still pods"), "{failed:?}");
    assert!(failed.text().contains("The cluster was held before, and still is."), "{failed:?}");
    assert_eq!(replicas(&lab).await["pachd"], 0);
    assert_eq!(record(&lab).await.unwrap()["state"], "suspended");
    assert!(lease(&lab, "pacharc").await.is_none());
    unstick(&lab, "pachd").await;
    run(&lab, "resume", &[]).await.code(0);
    comes_back(&lab, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_a_resume_the_guardian_ends_it() {
    killed_in_a_resume(&PROCESS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_a_resume_the_guardian_in_the_cluster_ends_it() {
    killed_in_a_resume(&JOB).await;
}

async fn killed_in_a_resume(limit: &[&str]) {
    let Some(kubelab) = Kubelab::shared() else { return };
    let lab = kubelab.namespace().await;
    install(&lab, 2, json!({})).await;
    for step in ["take_lease", "fence", "scale_up", "await_ready", "remove_record", "release_lease"] {
        run(&lab, "suspend", limit).await.code(0);
        assert!(kill_and_lapse(&lab, "resume", &[], step).await, "{step}");
        if step == "take_lease" && replicas(&lab).await["pachd"] == 0 {
            // It may have died before it had the Lease: then it still is a hold.
            run(&lab, "resume", &[]).await.code(0);
        }
        comes_back(&lab, 2).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_guardian_killed_too_status_tells_and_resume_repairs() {
    let Some(kubelab) = Kubelab::shared() else { return };
    let lab = kubelab.namespace().await;
    install(&lab, 1, json!({})).await;
    assert!(kill_at(&lab, "suspend", &["--for=1h"], "scale_workers").await);
    kill_guardians(&lab).await;
    lapse_soon(&lab, "pacharc").await;
    let told = status(&lab).await.code(8);
    assert!(told.stderr.contains("has not renewed the Lease: it is gone"), "{}", told.stderr);
    assert!(told.stderr.contains("is gone: nobody resumes the cluster"), "{}", told.stderr);
    assert!(told.stderr.trim_end().lines().last().unwrap().starts_with("pacharc resume "), "{}", told.stderr);
    run(&lab, "resume", &[]).await.code(0);
    comes_back(&lab, 1).await;
    // In a hold, too.
    run(&lab, "suspend", &["--for=1h"]).await.code(0);
    kill_guardians(&lab).await;
    status(&lab).await.code(8).says("is gone: nobody resumes the cluster");
    run(&lab, "resume", &[]).await.code(0);
    comes_back(&lab, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guardian_that_is_killed_is_followed_by_another() {
    let Some(kubelab) = Kubelab::shared() else { return };
    let lab = kubelab.namespace().await;
    install(&lab, 1, stuck()).await;
    let desk = Desk::new();
    let suspending = Running::start(&mut desk.command(args_with(SHORT, &lab, "suspend", &["--for=1h"])));
    until("pachd at 0", async || replicas(&lab).await["pachd"] == 0).await;
    let first = guardians(&lab);
    assert_eq!(first.len(), 1);
    kill(first[0]);
    until("another guardian", async || guardians(&lab).iter().any(|id| *id != first[0])).await;
    unstick(&lab, "pachd").await;
    let done = tokio::task::spawn_blocking(move || suspending.finish()).await.unwrap().code(0);
    assert!(done.text().contains("the guardian is gone: starting another one"), "{}", done.text());
    status(&lab).await.code(8);
    run(&lab, "resume", &[]).await.code(0);
    comes_back(&lab, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guardian_that_cannot_prove_itself_leaves_everything_as_it_is() {
    let Some(kubelab) = Kubelab::shared() else { return };
    let lab = kubelab.namespace().await;
    install(&lab, 1, json!({})).await;
    // An image is named, but no such pod ever starts: the Job's guardian is waited for in vain.
    let desk = Desk::new();
    let suspending = Running::start(&mut desk.command(args(
        &lab,
        "suspend",
        &["--for=1h", "--guardian-image=absent", "--guardian-annotation=kubelab/start-after=never"],
    )));
    until("the Job", async || {
        let jobs = lab.api::<k8s_openapi::api::batch::v1::Job>();
        !jobs.list(&kube::api::ListParams::default()).await.unwrap().items.is_empty()
    })
    .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(replicas(&lab).await["pachd"], 1);
    assert!(record(&lab).await.is_none(), "nothing is recorded before there is a guardian");
    suspending.signal("INT");
    tokio::task::spawn_blocking(move || suspending.finish()).await.unwrap().code(130);
    assert!(is_clean(&lab).await);
    until("the Job is gone", async || {
        let jobs = lab.api::<k8s_openapi::api::batch::v1::Job>();
        jobs.list(&kube::api::ListParams::default()).await.unwrap().items.is_empty()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guardian_in_the_cluster_ends_a_hold_with_an_account_of_its_own() {
    let Some(kubelab) = Kubelab::shared() else { return };
    let lab = kubelab.namespace().await;
    install(&lab, 2, json!({})).await;
    run(&lab, "suspend", &["--for=60s", JOB[1], JOB[2]]).await.code(0);
    assert_eq!(replicas(&lab).await["pachd"], 0);
    comes_back(&lab, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_off_for_less_than_the_lease_nothing_is_resumed() {
    let Some(kubelab) = Kubelab::shared() else { return };
    let lab = kubelab.namespace().await;
    install(&lab, 1, stuck()).await;
    let desk = Desk::new();
    let gate = Gate::new(&lab, desk.folder()).await;
    let mut args = args_with(24, &lab, "suspend", &["--for=1h"]);
    let at = args.iter().position(|word| word == "--kubeconfig").unwrap() + 1;
    args[at] = gate.kubeconfig.display().to_string();
    let suspending = Running::start(&mut desk.command(args));
    until("pachd at 0", async || replicas(&lab).await["pachd"] == 0).await;
    let version = async || lease(&lab, "pacharc").await.unwrap().metadata.resource_version;
    for _ in 0..2 {
        gate.set(false);
        let before = version().await;
        // Longer than from one renewal to the next.
        tokio::time::sleep(Duration::from_secs(7)).await;
        gate.set(true);
        until("the Lease is renewed", async || version().await != before).await;
        assert_eq!(replicas(&lab).await["pachd"], 0, "resumed too early");
    }
    unstick(&lab, "pachd").await;
    tokio::task::spawn_blocking(move || suspending.finish()).await.unwrap().code(0);
    assert_eq!(record(&lab).await.unwrap()["state"], "suspended");
    run(&lab, "resume", &[]).await.code(0);
    comes_back(&lab, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_off_for_more_than_the_lease_the_guardian_resumes_and_the_run_knows() {
    let Some(kubelab) = Kubelab::shared() else { return };
    let lab = kubelab.namespace().await;
    install(&lab, 1, stuck()).await;
    let desk = Desk::new();
    let gate = Gate::new(&lab, desk.folder()).await;
    // The guardian is in the cluster: only the run is cut off.
    let mut args = args_with(SHORT, &lab, "suspend", &JOB);
    let at = args.iter().position(|word| word == "--kubeconfig").unwrap() + 1;
    args[at] = gate.kubeconfig.display().to_string();
    let suspending = Running::start(&mut desk.command(args));
    until("pachd at 0", async || replicas(&lab).await["pachd"] == 0).await;
    gate.set(false);
    settled(&lab, "pachd", 1).await;
    cleaned(&lab).await;
    gate.set(true);
    let lost = tokio::task::spawn_blocking(move || suspending.finish()).await.unwrap().code(1);
    assert!(lost.stderr.contains("the Lease could not be renewed for 15 s"), "{}", lost.stderr);
    comes_back(&lab, 1).await;
    assert_eq!(replicas(&lab).await["pachw"], 2, "it was never scaled down");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_slept_while_others_resumed_scales_nothing_down() {
    let Some(kubelab) = Kubelab::shared() else { return };
    let lab = kubelab.namespace().await;
    install(&lab, 2, json!({})).await;
    for step in ["record", "annotate", "scale_pachd", "drain_pachd", "scale_pachw", "scale_workers", "drain_all"] {
        let args = args(&lab, "suspend", &["--for=1h"]);
        let desk = Desk::new();
        let mut command = desk.command(args);
        let come = move || Told::stopped_at(&mut command, step);
        let asleep = tokio::task::spawn_blocking(come).await.unwrap().expect(step);
        lapse_soon(&lab, "pacharc").await;
        comes_back(&lab, 2).await;
        let before = replicas(&lab).await;
        let ended = tokio::task::spawn_blocking(move || asleep.go_on()).await.unwrap();
        assert_eq!(ended.code(), Some(1), "{step}");
        let mut after = replicas(&lab).await;
        // Deployments are fenced; a worker's count is pachd's affair.
        after.extend(before.get_key_value("default-edges-v1").map(|(name, count)| (name.clone(), *count)));
        assert_eq!(after, before, "{step}");
        comes_back(&lab, 2).await;
    }
}
