//! `pacharc backup --in-cluster`: a Job that really runs the program, under its own account; followed, passed on, removed.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Namespace, Pod, Secret, ServiceAccount};
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use pacharc::cluster::errand;
use serde_json::{Value, json};

use crate::cluster_state::namespace;
use crate::deploy::{apply, deploy, without_each};
use crate::support::authorizer::grant;
use crate::support::cluster::Cluster;
use crate::support::kubelab::{Kubelab, Lab};
use crate::support::pachyderm::{cleaned, settled, until};
use crate::support::program::{Desk, Run, Running, words};

const LABEL: &str = "app.kubernetes.io/component=in-cluster";

/// A sample cluster on this machine, the namespace that it shall be of, and the flags of who may start a Job there.
struct Site {
    desk: Desk,
    cluster: Cluster,
    lab: Lab,
    flags: Vec<String>,
}

impl Site {
    async fn make(name: &str) -> Option<Self> {
        let kubelab = Kubelab::shared()?;
        let desk = Desk::new();
        let cluster = Cluster::small(&desk, name).await?;
        let lab = namespace(kubelab, &desk).await;
        apply("rbac/backup.yaml", &lab).await;
        apply("rbac/in-cluster.yaml", &lab).await;
        let flags = lab.flags_as("pacharc-starter", &desk.path("kubeconfig")).await;
        std::fs::create_dir(desk.path("claim")).unwrap();
        std::fs::write(desk.path("team.txt"), format!("# the team\n{}\n", desk.recipient)).unwrap();
        Some(Self { desk, cluster, lab, flags })
    }

    /// The arguments, but for the server.
    fn args(&self, output: &str, more: &[&str]) -> Vec<String> {
        let claim_path = format!("--claim-path={}", self.desk.path("claim").display());
        let image = ["--in-cluster", "--image=pacharc", "--claim=bundles", "--pod-annotation=kubelab/exec=true"];
        let bucket = ["--bucket", &self.cluster.bucket_url, "--recipients-file=team.txt"];
        let databases = ["--database", &self.cluster.database, "--database", &self.cluster.dex];
        let own = [words(&["backup", "-o", output]), self.flags.clone(), vec![claim_path]].concat();
        [own, words(&image), words(&bucket), words(&databases), words(more)].concat()
    }

    fn command(&self, output: &str, more: &[&str]) -> std::process::Command {
        let mut command = self.desk.command(self.args(output, more));
        command.env("PACHARC_POSTGRES", self.cluster.server.url("postgres"));
        command
    }

    async fn run(&self, output: &str, more: &[&str]) -> Run {
        finish(Running::start(&mut self.command(output, more))).await
    }

    async fn jobs(&self) -> Vec<Job> {
        self.lab.api::<Job>().list(&ListParams::default().labels(LABEL)).await.unwrap().items
    }

    /// Waits until nothing of a Job is left.
    async fn cleaned(&self) {
        assert!(self.jobs().await.is_empty());
        let all = ListParams::default().labels(LABEL);
        until("pods and Secrets are gone", async || {
            self.lab.api::<Pod>().list(&all).await.unwrap().items.is_empty()
                && self.lab.api::<Secret>().list(&all).await.unwrap().items.is_empty()
        })
        .await;
    }

    /// Keeps every backup waiting: a lock that it cannot share.
    fn lock(&self) -> Running {
        let sql = "BEGIN; LOCK TABLE storage.chunk_objects IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(3600)";
        let url = self.cluster.server.url(&self.cluster.database);
        let locked = Running::start(std::process::Command::new("psql").args(["-d", &url, "-c", sql]));
        let waits = "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted AND relation = \
                     'storage.chunk_objects'::regclass";
        crate::support::program::wait_until("the lock", || {
            self.cluster.server.psql(&self.cluster.database, waits).unwrap() == "1"
        });
        locked
    }

    fn unlock(&self, lock: Running) {
        drop(lock);
        // The server does not notice that its client is gone.
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND \
                   query LIKE '%pg_sleep(3600)' AND pid <> pg_backend_pid()";
        self.cluster.server.psql(&self.cluster.database, sql).unwrap();
    }

    /// Waits until a backup stands before the lock.
    async fn waits(&self) {
        let sql = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}' AND wait_event_type = 'Lock' AND \
             application_name LIKE 'pacharc%'",
            self.cluster.database
        );
        until("the backup waits", async || self.cluster.server.psql("postgres", &sql).unwrap() != "0").await;
    }
}

async fn finish(running: Running) -> Run {
    tokio::task::spawn_blocking(move || running.finish()).await.unwrap()
}

fn events(run: &Run) -> Vec<Value> {
    run.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn count(events: &[Value], name: &str) -> usize {
    events.iter().filter(|event| event["event"] == name).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_backs_up_and_its_events_and_exit_code_come_here() {
    let Some(site) = Site::make("in_cluster").await else { return };
    let label = json!({ "metadata": { "labels": { "pod-security.kubernetes.io/enforce": "restricted" } } });
    let namespaces: Api<Namespace> = Api::all(site.lab.client.clone());
    namespaces.patch(&site.lab.name, &PatchParams::default(), &Patch::Merge(label)).await.unwrap();

    // What the Job says of itself while it is there: no secret among it.
    let lock = site.lock();
    let running = Running::start(&mut site.command("{cluster}-{namespace}.pacharc", &["--json", "--strict"]));
    site.waits().await;
    let jobs = site.jobs().await;
    let text = serde_json::to_string(&jobs).unwrap();
    assert!(!text.contains(&site.cluster.server.url("postgres")), "{text}");
    assert!(text.contains("--strict") && text.contains(&format!("--recipient={}", site.desk.recipient)), "{text}");
    site.unlock(lock);
    let run = finish(running).await.code(0);
    let told = events(&run);
    assert_eq!((count(&told, "started"), count(&told, "finished"), count(&told, "error")), (1, 1, 0));
    assert_eq!(told.last().unwrap()["event"], "finished");
    let output = told.last().unwrap()["outcome"]["output"].as_str().unwrap().to_owned();
    assert!(output.ends_with(&format!("-{}.pacharc", site.lab.name)) && !output.contains("in-cluster-"), "{output}");
    assert!(run.stderr.contains("closed"), "{}", run.stderr);
    site.desk.run(["verify", &output, "--identity", "key.txt"]).code(0);
    let listed = site.desk.run(["list", &output, "cluster", "--identity", "key.txt"]).code(0).text();
    assert!(listed.contains("secrets/aws-for-pipelines.yaml"), "{listed}");
    site.cleaned().await;

    // It exists now: 5. What the source lacks: 4. Both with what was said about it.
    let name = std::path::Path::new(&output).file_name().unwrap().to_str().unwrap();
    site.run(name, &[]).await.code(5).says("exists").advises();
    let live = site.cluster.live().await;
    site.cluster.bucket.delete(&live[0]).await.unwrap();
    site.run("nightly.pacharc", &[]).await.code(4).says(&format!("missing: {}", live[0]));
    assert!(site.desk.path("claim/nightly.pacharc").exists());
    site.cleaned().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_suspends_has_a_guardian_that_outlives_its_pod() {
    let Some(site) = Site::make("in_cluster_pause").await else { return };
    let pause = ["--quiesce=suspend", "--lease-duration=30s", "--json"];
    let refused = site.run("c.pacharc", &pause).await.code(6);
    assert!(refused.stderr.contains("update deployments/scale pachd"), "{}", refused.stderr);
    apply("rbac/suspend.yaml", &site.lab).await;
    let run = site.run("c.pacharc", &pause).await.code(0);
    let told = events(&run);
    let steps: Vec<&str> = told.iter().filter_map(|event| event["step"].as_str()).collect();
    for step in ["start_guardian", "scale_pachd", "drain_all", "resumed"] {
        assert!(steps.contains(&step), "{step} is not in {steps:?}");
    }
    assert!(!run.stderr.contains("the guardian is a process"), "{}", run.stderr);
    settled(&site.lab, "pachd", 3).await;
    cleaned(&site.lab).await;
    site.cleaned().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn interrupted_the_job_ends_and_nothing_is_left() {
    let Some(site) = Site::make("in_cluster_ends").await else { return };
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let lock = site.lock();
        let events = site.desk.path(signal);
        let json_file = format!("--json-file={}", events.display());
        let running = Running::start(&mut site.command("c.pacharc", &[&json_file]));
        site.waits().await;
        until("its log is followed", async || {
            std::fs::read_to_string(&events).unwrap_or_default().contains(r#""event":"started""#)
        })
        .await;
        running.signal(signal);
        let run = finish(running).await.code(code);
        assert!(run.stderr.contains("asking Job pacharc-backup-"), "{}", run.stderr);
        assert!(run.stderr.contains("has ended with exit code 143"), "{}", run.stderr);
        assert_eq!(std::fs::read_dir(site.desk.path("claim")).unwrap().count(), 0);
        site.cleaned().await;
        site.unlock(lock);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_follower_is_killed_the_job_goes_on() {
    let Some(site) = Site::make("in_cluster_alone").await else { return };
    let lock = site.lock();
    let running = Running::start(&mut site.command("c.pacharc", &[]));
    site.waits().await;
    running.signal("KILL");
    site.unlock(lock);
    until("the Job is done", async || {
        let jobs = site.jobs().await;
        jobs[0].status.as_ref().is_some_and(|status| status.succeeded == Some(1))
    })
    .await;
    site.desk.run(["verify", "claim/c.pacharc", "--identity", "key.txt"]).code(0);
    assert_eq!(site.jobs().await[0].spec.as_ref().unwrap().ttl_seconds_after_finished, Some(24 * 3600));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_cut_off_goes_on_where_it_was() {
    let Some(site) = Site::make("in_cluster_cut").await else { return };
    let gate = crate::support::moments::Gate::through(&site.desk.path("kubeconfig"), &site.desk.path("gated")).await;
    let lock = site.lock();
    let mut args = site.args("c.pacharc", &["--json"]);
    let at = args.iter().position(|word| word == "--kubeconfig").unwrap() + 1;
    args[at] = gate.kubeconfig.display().to_string();
    let mut command = site.desk.command(args);
    command.env("PACHARC_POSTGRES", site.cluster.server.url("postgres"));
    let running = Running::start(&mut command);
    site.waits().await;
    for _ in 0..2 {
        gate.set(false);
        tokio::time::sleep(Duration::from_secs(2)).await;
        gate.set(true);
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    site.unlock(lock);
    let run = finish(running).await.code(0);
    let lines: Vec<String> = run.text().lines().map(str::to_owned).collect();
    assert_eq!(lines.iter().collect::<BTreeSet<_>>().len(), lines.len(), "a line came twice: {lines:?}");
    let told = events(&run);
    assert_eq!((count(&told, "started"), count(&told, "finished")), (1, 1), "{lines:?}");
    let times: Vec<jiff::Timestamp> =
        told.iter().map(|event| event["time"].as_str().unwrap().parse().unwrap()).collect();
    assert!(times.is_sorted(), "{times:?}");
    site.cleaned().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_does_not_start_or_is_killed_is_told() {
    let Some(site) = Site::make("in_cluster_pod").await else { return };
    let more = ["--start-timeout=30s", "--pod-annotation=kubelab/start-after=never"];
    let running = Running::start(&mut site.command("c.pacharc", &more));
    let pods: Api<Pod> = site.lab.api();
    let of_job = ListParams::default().labels(LABEL);
    until("a pod", async || !pods.list(&of_job).await.unwrap().items.is_empty()).await;
    let name = pods.list(&of_job).await.unwrap().items[0].metadata.name.clone().unwrap();
    let waiting = json!({ "reason": "ImagePullBackOff", "message": "Back-off pulling image \"pacharc\"" });
    let container = json!({ "name": "pacharc", "image": "pacharc", "imageID": "", "ready": false, "restartCount": 0,
                            "state": { "waiting": waiting } });
    let status = Patch::Merge(json!({ "status": { "containerStatuses": [container] } }));
    pods.patch_status(&name, &PatchParams::default(), &status).await.unwrap();
    let run = finish(running).await.code(7).advises();
    let run = run.says("does not run after 30 s: ImagePullBackOff (Back-off pulling image \"pacharc\")");
    assert!(run.stderr.contains("warning: the pod of Job pacharc-backup-"), "{}", run.stderr);
    site.cleaned().await;

    // One that the system kills. The lab's kubelet only pretends here.
    let pretended = ["--pod-annotation=kubelab/exec=false", "--pod-annotation=kubelab/exit-code=137"];
    site.run("c.pacharc", &pretended).await.code(7).says("was killed: Error, exit code 137").advises();
    site.cleaned().await;
    // And no account, no Job.
    site.lab.api::<ServiceAccount>().delete("pacharc-backup", &Default::default()).await.unwrap();
    let mut args = site.args("c.pacharc", &[]);
    let at = args.iter().position(|word| word == "--kubeconfig").unwrap() + 1;
    args[at] = site.lab.kubeconfig().display().to_string();
    site.desk.run(args).code(6).says("there is no ServiceAccount pacharc-backup").advises();
    assert!(site.jobs().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_role_of_a_starter_suffices_and_all_of_it_is_needed() {
    let Some(site) = Site::make("in_cluster_role").await else { return };
    for (role, verb, resource) in without_each("rbac/in-cluster.yaml", &site.lab) {
        grant(&site.lab, role, "pacharc-starter").await;
        let refused = site.run("c.pacharc", &[]).await.code(6).advises().says(&format!("{verb} {resource}"));
        drop(refused.says(&format!("resources: [\"{resource}\"], verbs: [\"{verb}\"]")));
        assert!(site.jobs().await.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_job_is_the_one_of_the_chart() {
    let Some(kubelab) = Kubelab::shared() else { return };
    let lab = kubelab.namespace().await;
    let options = errand::Options {
        image: "r:1".into(),
        arguments: Vec::new(),
        secrets: Vec::new(),
        env_from: vec!["keys".into()],
        pull_secrets: vec!["pull".into()],
        account: errand::ACCOUNT.into(),
        claim: Some(("claim".into(), errand::CLAIM_PATH.into())),
        annotations: Vec::new(),
        start_timeout: errand::START_TIMEOUT,
        resume: None,
    };
    let values = json!({
        "image": { "repository": "r", "tag": "1" }, "imagePullSecrets": [{ "name": "pull" }], "recipients": ["age1"],
        "runNow": true, "envFrom": [{ "secretRef": { "name": "keys" } }],
        "storage": { "existingClaim": "claim" }, "serviceAccount": { "name": errand::ACCOUNT },
    });
    let desk = Desk::new();
    std::fs::write(desk.path("values.json"), values.to_string()).unwrap();
    let chart = deploy().join("chart");
    let text = lab.helm(["template", "x", chart.to_str().unwrap(), "-f", desk.path("values.json").to_str().unwrap()]);
    let rendered: Vec<Value> = serde_saphyr::from_slice_multiple(&text.stdout).unwrap();
    let rendered = rendered.into_iter().find(|document| document["kind"] == "Job").unwrap();
    let of_chart: Job = serde_json::from_value(rendered).unwrap();
    let made = errand::manifest("x", &options).unwrap();
    let job = |job: Job| {
        let spec = job.spec.unwrap();
        let mut pod = serde_json::to_value(spec.template.spec.unwrap()).unwrap();
        // What it is told, and what follows from that.
        for own in ["args", "env", "imagePullPolicy"] {
            pod["containers"][0].as_object_mut().unwrap().remove(own);
        }
        (spec.backoff_limit, pod)
    };
    assert_eq!(job(made), job(of_chart));
}

#[test]
fn what_cannot_be_is_a_wrong_use() {
    let desk = Desk::new();
    let base = ["backup", "--in-cluster", "--recipient", &desk.recipient.clone()];
    let run = |more: &[&str]| desk.run([&base[..], more].concat()).code(2);
    let image = "--image=i";
    run(&["-o", "c", image, "--bucket=file:///b"]).says("--in-cluster needs --namespace");
    run(&["-o", "c", "--namespace=n"]).says("--in-cluster needs --image");
    run(&["-o", "c", "--namespace=n", image]).says("needs --claim");
    run(&["-o", "-", "--namespace=n", image, "--claim=b"]).says("--output - and --in-cluster exclude each other");
    run(&["-o", "s3://b/k", "--namespace=n", image, "--claim=b"]).says("exclude each other");
    for outside in ["/c", "../c", "a/../../c"] {
        run(&["-o", outside, "--namespace=n", image, "--claim=b"]).says("it is a path in the claim");
    }
    std::fs::write(desk.path("phrase"), "phrase\n").unwrap();
    let phrase = ["backup", "--in-cluster", "--passphrase-file=phrase", "-o", "c", "--namespace=n", image, "--claim=b"];
    desk.run(phrase).code(2).says("--passphrase-file and --in-cluster exclude each other");
    let typed = "--postgres=postgres://u:typedPassword@db";
    let run = run(&["-o", "c", "--namespace=n", image, "--claim=b", typed]).advises();
    assert!(!run.stderr.contains("typedPassword"), "{}", run.stderr);
    desk.run(["plan", "backup", "--in-cluster", "--namespace=n"]).code(2).says("plan and --in-cluster");
}
