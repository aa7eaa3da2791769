//! `pacharc suspend`, `resume` and `status` on a real API server: the order, the counts, and everybody who comes between.

use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, ReplicationController};
use kube::Resource;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::runtime::watcher;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::support::kubelab::{Kubelab, Lab};
use super::support::pachyderm::{
    self, deployment, install, is_clean, lease, pods, record, replicas, scale, settled, stuck, unstick, until, worker,
};
use super::support::program::{Desk, Run, Running};

fn args(lab: &Lab, command: &str, more: &[&str]) -> Vec<String> {
    let mut args = vec![command.to_owned()];
    args.extend(lab.flags());
    if command != "status" {
        // Longer than a slow machine may stand still.
        args.push("--lease-duration=30s".to_owned());
    }
    args.extend(more.iter().map(|&word| word.to_owned()));
    args
}

/// Runs the program without keeping the test's runtime from its own work.
async fn run(lab: &Lab, command: &str, more: &[&str]) -> Run {
    let args = args(lab, command, more);
    tokio::task::spawn_blocking(move || Desk::new().run(args)).await.unwrap()
}

/// The outcome of a run with `--json`, each field of which is documented.
fn outcome(run: &Run) -> Value {
    let last = run.text().lines().last().map(str::to_owned).unwrap();
    let mut finished: Value = serde_json::from_str(&last).unwrap();
    let page = include_str!("../../docs/json.md");
    let command = finished["command"].as_str().unwrap();
    let section = page.split(&format!("\n### {command}\n")).nth(1).unwrap().split("\n##").next().unwrap();
    for field in finished["outcome"].as_object().unwrap().keys() {
        assert!(section.contains(&format!("`{field}`")), "docs/json.md: {command} lacks {field}");
    }
    finished["outcome"].take()
}

#[tokio::test(flavor = "multi_thread")]
async fn down_and_up_again_with_the_recorded_counts() {
    let Some(kubelab) = Kubelab::shared() else { return };
    let lab = kubelab.namespace().await;
    install(&lab, 3, json!({})).await;
    deployment(&lab, "pach-enterprise", 1, json!({})).await;
    deployment(&lab, "console", 1, json!({})).await;
    settled(&lab, "console", 1).await;

    let status = run(&lab, "status", &[]).await.code(0);
    assert!(status.text().contains("state        running\n"), "{}", status.text());

    let done = run(&lab, "suspend", &["--json"]).await.code(0);
    let down = replicas(&lab).await;
    for name in ["pachd", "pachw", "pach-enterprise", "default-edges-v1"] {
        assert_eq!(down[name], 0, "{name}");
    }
    assert_eq!(down["console"], 1);
    until("console alone", async || pods(&lab).await == 1).await;
    let kept = record(&lab).await.unwrap();
    assert_eq!(kept["deployments"], json!({ "pachd": 3, "pachw": 2, "pach-enterprise": 1 }));
    assert_eq!(kept["workers"], json!({ "default-edges-v1": 2 }));
    assert_eq!((&kept["kind"], &kept["state"]), (&json!("hold"), &json!("suspended")));
    assert!(lease(&lab, "pacharc").await.is_none(), "a hold has no Lease");
    let command = outcome(&done)["resume"].as_str().unwrap().to_owned();
    assert!(command.starts_with(&format!("pacharc resume --namespace {}", lab.name)));

    let status = run(&lab, "status", &[]).await.code(8);
    assert!(status.text().contains("state        suspended\n"), "{}", status.text());
    assert!(status.text().contains("0 of 0 ready, 3 recorded"), "{}", status.text());
    assert!(!status.stderr.contains("problem:"), "{}", status.stderr);
    assert_eq!(status.stderr.trim_end().lines().last().unwrap(), command);
    let told = outcome(&run(&lab, "status", &["--json"]).await.code(8));
    assert_eq!((&told["state"], &told["resume"]), (&json!("suspended"), &json!(command)));

    // Suspended again by the same user: as it was.
    run(&lab, "suspend", &[]).await.code(0);
    assert_eq!(record(&lab).await.unwrap()["deployments"], kept["deployments"]);

    let resumed = run(&lab, "resume", &["--json"]).await.code(0);
    assert_eq!(outcome(&resumed)["deployments"]["pachd"], 3);
    let up = replicas(&lab).await;
    assert_eq!((up["pachd"], up["pachw"], up["pach-enterprise"]), (3, 2, 1));
    assert_eq!(up["default-edges-v1"], 0, "the workers are pachd's");
    assert!(is_clean(&lab).await);
    // And again: nothing to do.
    run(&lab, "resume", &[]).await.code(0).says("it was not suspended");
    run(&lab, "status", &[]).await.code(0);
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Seen {
    Pachd(i32),
    Pachw(i32),
    Worker(i32),
    PachdPodGone,
    PodGone,
}

/// What was seen, each with its version: the server counts the changes of all kinds in one row.
type Changes = Arc<Mutex<Vec<(u64, Seen)>>>;

/// Watches the objects of a kind from now on; `what` is told of an object and whether it is gone.
async fn follow<K>(lab: &Lab, changes: &Changes, what: impl Fn(&K, bool) -> Option<Seen> + Send + 'static)
where
    K: Resource<Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Send + 'static,
    K::DynamicType: Default,
{
    let (api, changes) = (lab.api::<K>(), Arc::clone(changes));
    let (ready, is_ready) = tokio::sync::oneshot::channel();
    let mut ready = Some(ready);
    tokio::spawn(async move {
        let mut events = std::pin::pin!(watcher(api, watcher::Config::default()));
        while let Some(event) = events.next().await {
            let (object, is_gone) = match event.unwrap() {
                watcher::Event::Apply(object) | watcher::Event::InitApply(object) => (object, false),
                watcher::Event::Delete(object) => (object, true),
                watcher::Event::InitDone => {
                    ready.take().map(|ready| ready.send(()));
                    continue;
                }
                watcher::Event::Init => continue,
            };
            if let Some(seen) = what(&object, is_gone) {
                let version = object.meta().resource_version.as_ref().unwrap().parse().unwrap();
                changes.lock().unwrap().push((version, seen));
            }
        }
    });
    is_ready.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_order_lets_nothing_scale_up_again() {
    let Some(kubelab) = Kubelab::shared() else { return };
    let lab = kubelab.namespace().await;
    install(&lab, 2, stuck()).await;
    let changes = Changes::default();
    follow(&lab, &changes, |deployment: &Deployment, _| {
        let count = deployment.spec.as_ref()?.replicas?;
        match deployment.metadata.name.as_deref() {
            Some("pachd") => Some(Seen::Pachd(count)),
            Some("pachw") => Some(Seen::Pachw(count)),
            _ => None,
        }
    })
    .await;
    follow(&lab, &changes, |worker: &ReplicationController, _| Some(Seen::Worker(worker.spec.as_ref()?.replicas?)))
        .await;
    follow(&lab, &changes, |pod: &Pod, is_gone| {
        let is_pachd = pod.metadata.labels.as_ref()?.get("app")? == "pachd";
        is_gone.then_some(if is_pachd { Seen::PachdPodGone } else { Seen::PodGone })
    })
    .await;
    let desk = Desk::new();
    let suspending = Running::start(&mut desk.command(args(&lab, "suspend", &[])));
    until("pachd at 0", async || replicas(&lab).await["pachd"] == 0).await;
    // pachd's own controller scales pachw up behind our back, as long as pachd's pods are there.
    scale(&lab, "pachw", 5).await;
    settled(&lab, "pachw", 5).await;
    unstick(&lab, "pachd").await;
    tokio::task::spawn_blocking(move || suspending.finish()).await.unwrap().code(0);
    let is_gone = |seen: &Seen| matches!(seen, Seen::PachdPodGone | Seen::PodGone);
    until("all pods seen to go", async || {
        changes.lock().unwrap().iter().filter(|(_, seen)| is_gone(seen)).count() >= 9
    })
    .await;
    let seen = changes.lock().unwrap().clone();
    let when = |what: Seen| seen.iter().filter(move |(_, seen)| *seen == what).map(|(version, _)| *version);
    let first = |what: Seen| when(what).min().unwrap_or_else(|| panic!("{what:?}: {seen:?}"));
    let last_pachd = when(Seen::PachdPodGone).max().unwrap();
    assert!(first(Seen::Pachd(0)) < last_pachd, "{seen:?}");
    assert!(last_pachd < first(Seen::Pachw(0)), "pachw before pachd was gone: {seen:?}");
    assert!(first(Seen::Pachw(5)) < first(Seen::Pachw(0)), "{seen:?}");
    assert!(last_pachd < first(Seen::Worker(0)), "workers before pachd was gone: {seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_never_end_are_named_and_the_cluster_runs_again() {
    let Some(kubelab) = Kubelab::shared() else { return };
    let lab = kubelab.namespace().await;
    install(&lab, 1, stuck()).await;
    let run = run(&lab, "suspend", &["--drain-timeout=15s", "--json"]).await.code(1);
    assert!(run.stderr.contains("after 15 s there are still pods: pachd-"), "{}", run.stderr);
    assert!(run.text().contains(r#""event":"waiting","count":1,"pods":["pachd-"#));
    assert_eq!(replicas(&lab).await["pachd"], 1);
    assert_eq!(replicas(&lab).await["pachw"], 2, "pachw was not even touched");
    assert!(is_clean(&lab).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pachd_that_does_not_become_ready_is_exit_8_with_the_command() {
    let Some(kubelab) = Kubelab::shared() else { return };
    let lab = kubelab.namespace().await;
    install(&lab, 1, json!({})).await;
    run(&lab, "suspend", &[]).await.code(0);
    deployment(&lab, "pachd", 0, json!({ "kubelab/ready": "false" })).await;
    let failed = run(&lab, "resume", &["--ready-timeout=2s"]).await.code(8);
    assert!(failed.stderr.contains("pachd not ready after 2 s"), "{}", failed.stderr);
    let last = failed.stderr.trim_end().lines().last().unwrap().to_owned();
    // Who reads that elsewhere is another owner.
    assert_eq!(last, format!("pacharc resume {} --force", lab.flags().join(" ")));
    assert!(record(&lab).await.is_some(), "the record stays until it is ready");
    run(&lab, "status", &[]).await.code(8).says("the resume was cut off");
    // Nor is who does not wait so long left without a word.
    let desk = Desk::new();
    let resuming = Running::start(&mut desk.command(args(&lab, "resume", &["--json-file=events"])));
    let events = desk.path("events");
    let waits = || std::fs::read_to_string(&events).unwrap_or_default().contains("await_ready");
    until("the resume waits", async || waits()).await;
    resuming.signal("INT");
    let ended = tokio::task::spawn_blocking(move || resuming.finish()).await.unwrap().code(8);
    let ended = ended.says("interrupted").says("not yet back as it was");
    assert!(ended.stderr.trim_end().lines().last().unwrap().starts_with("pacharc resume --namespace"));
    // What it waited for is mended; the same command ends it.
    deployment(&lab, "pachd", 1, json!({})).await;
    run(&lab, "resume", &[]).await.code(0);
    assert!(is_clean(&lab).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_down_without_a_record_is_refused() {
    let Some(kubelab) = Kubelab::shared() else { return };
    let lab = kubelab.namespace().await;
    run(&lab, "suspend", &[]).await.code(1).says("neither a Deployment pachd nor pach-enterprise").advises();
    install(&lab, 1, json!({})).await;
    scale(&lab, "pachd", 0).await;
    run(&lab, "suspend", &[]).await.code(5).says("there is no record of how many it had").advises();
    run(&lab, "resume", &[]).await.code(8).says("--resume-replicas N");
    run(&lab, "status", &[]).await.code(8).says("nobody recorded why");
    assert!(is_clean(&lab).await);
    run(&lab, "suspend", &["--resume-replicas=2"]).await.code(0);
    run(&lab, "resume", &[]).await.code(0);
    settled(&lab, "pachd", 2).await;
    scale(&lab, "pachd", 0).await;
    run(&lab, "resume", &["--resume-replicas=1"]).await.code(0);
    settled(&lab, "pachd", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_else_suspended_is_left_alone() {
    let Some(kubelab) = Kubelab::shared() else { return };
    let lab = kubelab.namespace().await;
    install(&lab, 1, json!({})).await;
    let told = run(&lab, "suspend", &[]).await.code(0);
    assert!(told.stderr.contains("from any machine, with:\n") && told.stderr.trim_end().ends_with(" --force"));
    let mut theirs = record(&lab).await.unwrap();
    theirs["owner"] = "bob@elsewhere".into();
    let patch = Patch::Merge(json!({ "data": { "record.json": theirs.to_string() } }));
    lab.api::<ConfigMap>().patch("pacharc-suspended", &PatchParams::default(), &patch).await.unwrap();

    run(&lab, "suspend", &[]).await.code(5).says("suspended already: by bob@elsewhere").advises();
    run(&lab, "resume", &[]).await.code(5).says("suspended by bob@elsewhere, not by").says("--force");
    assert_eq!(record(&lab).await.unwrap()["owner"], "bob@elsewhere");
    // What is told works here, too.
    let told = run(&lab, "status", &[]).await.code(8);
    assert!(told.stderr.trim_end().ends_with(" --force"), "{}", told.stderr);
    assert_eq!(replicas(&lab).await["pachd"], 0);
    run(&lab, "resume", &["--force"]).await.code(0);
    settled(&lab, "pachd", 1).await;
    assert!(is_clean(&lab).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn gitops_is_refused_with_how_to_pause_it() {
    let Some(kubelab) = Kubelab::shared() else { return };
    let lab = kubelab.namespace().await;
    install(&lab, 1, json!({})).await;
    let mark =
        json!({ "metadata": { "annotations": { "argocd.argoproj.io/tracking-id": "pach:apps/Deployment:x/pachd" } } });
    lab.api::<Deployment>().patch("pachd", &PatchParams::default(), &Patch::Merge(mark)).await.unwrap();
    let refused = run(&lab, "suspend", &[]).await.code(5).says("Argo CD (application pach) would undo it");
    assert!(refused.stderr.contains("argocd app set pach --sync-policy none"), "{}", refused.stderr);
    assert_eq!(replicas(&lab).await["pachd"], 1);
    run(&lab, "suspend", &["--ignore-gitops"]).await.code(0);
    run(&lab, "resume", &[]).await.code(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_at_once_one_of_them_is_told_of_the_other() {
    let Some(kubelab) = Kubelab::shared() else { return };
    let lab = kubelab.namespace().await;
    install(&lab, 1, stuck()).await;
    let desk = Desk::new();
    let first = Running::start(&mut desk.command(args(&lab, "suspend", &[])));
    until("the record", async || record(&lab).await.is_some()).await;
    let second = run(&lab, "suspend", &[]).await.code(5).advises();
    assert!(second.stderr.contains("is at work on this cluster: it holds the Lease pacharc"), "{}", second.stderr);
    let holder = lease(&lab, "pacharc").await.unwrap().spec.unwrap().holder_identity.unwrap();
    assert!(second.stderr.contains(&holder), "{}", second.stderr);
    run(&lab, "resume", &[]).await.code(5).says("is at work on this cluster");
    unstick(&lab, "pachd").await;
    tokio::task::spawn_blocking(move || first.finish()).await.unwrap().code(0);
    run(&lab, "resume", &[]).await.code(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resume_by_force_ends_a_suspend_that_is_under_way() {
    let Some(kubelab) = Kubelab::shared() else { return };
    let lab = kubelab.namespace().await;
    install(&lab, 1, stuck()).await;
    let desk = Desk::new();
    let first = Running::start(&mut desk.command(args(&lab, "suspend", &[])));
    until("pachd at 0", async || replicas(&lab).await["pachd"] == 0).await;
    run(&lab, "resume", &["--force"]).await.code(0);
    let first = tokio::task::spawn_blocking(move || first.finish()).await.unwrap().code(1);
    assert!(first.stderr.contains("the suspension was lost"), "{}", first.stderr);
    settled(&lab, "pachd", 1).await;
    settled(&lab, "pachw", 2).await;
    assert!(is_clean(&lab).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_who_scales_up_in_the_pause_is_noticed() {
    let Some(kubelab) = Kubelab::shared() else { return };
    let lab = kubelab.namespace().await;
    install(&lab, 2, stuck()).await;
    let desk = Desk::new();
    let suspending = Running::start(&mut desk.command(args(&lab, "suspend", &[])));
    until("pachd at 0", async || replicas(&lab).await["pachd"] == 0).await;
    scale(&lab, "pachd", 1).await;
    let lost = tokio::task::spawn_blocking(move || suspending.finish()).await.unwrap().code(1);
    assert!(lost.stderr.contains("somebody scaled Deployment pachd to 1"), "{}", lost.stderr);
    settled(&lab, "pachd", 2).await;

    // In a hold, status says so, and resume goes up from there.
    let lab = kubelab.namespace().await;
    install(&lab, 2, json!({})).await;
    run(&lab, "suspend", &[]).await.code(0);
    scale(&lab, "pachd", 1).await;
    run(&lab, "status", &[]).await.code(8).says("somebody scaled Deployment pachd to 1");
    run(&lab, "resume", &[]).await.code(0);
    settled(&lab, "pachd", 2).await;
    settled(&lab, "pachw", 2).await;
    // Nothing is ever scaled down: more than was recorded stays.
    run(&lab, "suspend", &[]).await.code(0);
    scale(&lab, "pachd", 4).await;
    run(&lab, "resume", &[]).await.code(0);
    settled(&lab, "pachd", 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_that_were_deleted_or_replaced_do_not_hinder_a_resume() {
    let Some(kubelab) = Kubelab::shared() else { return };
    let lab = kubelab.namespace().await;
    install(&lab, 2, json!({})).await;
    let delete = DeleteParams::default();
    // The ConfigMap: the annotation has the counts.
    run(&lab, "suspend", &[]).await.code(0);
    pachyderm::delete_record(&lab).await;
    run(&lab, "status", &[]).await.code(8).says("somebody deleted the record's ConfigMap");
    run(&lab, "resume", &[]).await.code(0);
    settled(&lab, "pachd", 2).await;
    assert!(is_clean(&lab).await);
    // pachd itself, as a re-install makes it; and a pachw that is gone.
    run(&lab, "suspend", &[]).await.code(0);
    lab.api::<Deployment>().delete("pachd", &delete).await.unwrap();
    lab.api::<Deployment>().delete("pachw", &delete).await.unwrap();
    lab.api::<ReplicationController>().delete("default-edges-v1", &delete).await.unwrap();
    until("it is gone", async || lab.api::<Deployment>().get_opt("pachd").await.unwrap().is_none()).await;
    run(&lab, "resume", &[]).await.code(8).says("there is no Deployment pachd to bring back").advises();
    deployment(&lab, "pachd", 1, json!({})).await;
    run(&lab, "resume", &[]).await.code(0).says("there is no Deployment pachw to bring back");
    settled(&lab, "pachd", 2).await;
    assert!(is_clean(&lab).await);
    // A record that was edited to nonsense, and its annotations are gone.
    worker(&lab, "default-edges-v1", 1).await;
    run(&lab, "suspend", &[]).await.code(0);
    let patch = Patch::Merge(json!({ "data": { "record.json": "{" } }));
    lab.api::<ConfigMap>().patch("pacharc-suspended", &PatchParams::default(), &patch).await.unwrap();
    let bare = Patch::Merge(json!({ "metadata": { "annotations": { "pacharc/suspended": null } } }));
    lab.api::<Deployment>().patch("pachd", &PatchParams::default(), &bare).await.unwrap();
    run(&lab, "resume", &[]).await.code(8).says("cannot be read").advises();
    pachyderm::delete_record(&lab).await;
    run(&lab, "resume", &["--resume-replicas=2"]).await.code(0);
    settled(&lab, "pachd", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_brings_the_cluster_back_first() {
    let Some(kubelab) = Kubelab::shared() else { return };
    for (signal, code) in [("INT", 130), ("TERM", 143), ("HUP", 143)] {
        let lab = kubelab.namespace().await;
        install(&lab, 1, stuck()).await;
        let desk = Desk::new();
        let suspending = Running::start(&mut desk.command(args(&lab, "suspend", &[])));
        until("pachd at 0", async || replicas(&lab).await["pachd"] == 0).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        suspending.signal(signal);
        tokio::task::spawn_blocking(move || suspending.finish()).await.unwrap().code(code);
        settled(&lab, "pachd", 1).await;
        assert!(is_clean(&lab).await);
    }
    // Not ready again: 8, and the way back.
    let lab = kubelab.namespace().await;
    install(&lab, 1, stuck()).await;
    let desk = Desk::new();
    let suspending = Running::start(&mut desk.command(args(&lab, "suspend", &["--ready-timeout=1s"])));
    until("pachd at 0", async || replicas(&lab).await["pachd"] == 0).await;
    deployment(&lab, "pachd", 0, json!({ "kubelab/ready": "false" })).await;
    suspending.signal("INT");
    let ended = tokio::task::spawn_blocking(move || suspending.finish()).await.unwrap().code(8);
    assert!(ended.stderr.trim_end().lines().last().unwrap().starts_with("pacharc resume --namespace"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_still_tells_what_brings_the_cluster_back() {
    let Some(kubelab) = Kubelab::shared() else { return };
    let lab = kubelab.namespace().await;
    install(&lab, 1, stuck()).await;
    let desk = Desk::new();
    let suspending = Running::start(&mut desk.command(args(&lab, "suspend", &[])));
    until("pachd at 0", async || replicas(&lab).await["pachd"] == 0).await;
    // It waits for a pachd that does not become ready.
    deployment(&lab, "pachd", 0, json!({ "kubelab/ready": "false" })).await;
    suspending.signal("INT");
    until("pachd is scaled up", async || replicas(&lab).await["pachd"] == 1).await;
    suspending.signal("INT");
    let ended = tokio::task::spawn_blocking(move || suspending.finish()).await.unwrap().code(8);
    let last = ended.stderr.trim_end().lines().last().unwrap();
    assert!(last.starts_with("pacharc resume --namespace") && last.ends_with(" --force"), "{}", ended.stderr);
}
