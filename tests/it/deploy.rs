//! What `deploy/` holds, on a real API server: it is accepted, it suffices, and none of it is too much.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{Namespace, Pod, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::rbac::v1::Role;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::cluster_state::namespace;
use crate::support::authorizer::{grant, grant_all, may};
use crate::support::cluster::{Cluster, target};
use crate::support::kubelab::{Kubelab, Lab};
use crate::support::pachyderm::until;
use crate::support::program::{Desk, Run, words};

pub fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")
}

/// The documents of a file of `deploy/`, for this namespace.
pub fn documents(file: &str, lab: &Lab) -> Vec<Value> {
    let text = std::fs::read_to_string(deploy().join(file)).unwrap();
    let text = text.replace("namespace: pachyderm", &format!("namespace: {}", lab.name));
    serde_saphyr::from_multiple(&text).unwrap()
}

/// Makes what a file holds. Nothing of it may go beyond the namespace.
pub async fn apply(file: &str, lab: &Lab) {
    let (mut roles, mut bindings) = (Vec::new(), Vec::new());
    for document in documents(file, lab) {
        match document["kind"].as_str().unwrap() {
            "ServiceAccount" => drop(lab.apply::<ServiceAccount>(document).await),
            "Role" => roles.push(document),
            "RoleBinding" => bindings.push(document),
            "NetworkPolicy" => drop(lab.apply::<NetworkPolicy>(document).await),
            kind => panic!("{file} has a {kind}"),
        }
    }
    grant_all(lab, roles, bindings).await;
}

/// Every right that the Role of a file gives: the Role without it, and the verb and resource.
pub fn without_each(file: &str, lab: &Lab) -> Vec<(Value, String, String)> {
    let documents = documents(file, lab);
    role_without_each(documents.iter().find(|document| document["kind"] == "Role").unwrap())
}

/// The same of a Role.
pub fn role_without_each(role: &Value) -> Vec<(Value, String, String)> {
    let strings = |list: &Value| -> Vec<String> {
        list.as_array().unwrap().iter().map(|item| item.as_str().unwrap().to_owned()).collect()
    };
    let mut found = Vec::new();
    for (at, rule) in role["rules"].as_array().unwrap().iter().enumerate() {
        for resource in strings(&rule["resources"]) {
            for verb in strings(&rule["verbs"]) {
                let mut without = role.clone();
                let rules = without["rules"].as_array_mut().unwrap();
                // The rule for the other resources stays whole; that for this one loses the verb.
                let others: Vec<String> =
                    strings(&rule["resources"]).into_iter().filter(|one| *one != resource).collect();
                let verbs: Vec<String> = strings(&rule["verbs"]).into_iter().filter(|one| *one != verb).collect();
                rules[at]["resources"] = json!([resource]);
                rules[at]["verbs"] = json!(verbs);
                let mut kept = rule.clone();
                kept["resources"] = json!(others);
                rules.push(kept);
                rules.retain(|rule| rule["verbs"] != json!([]) && rule["resources"] != json!([]));
                found.push((without, verb, resource.clone()));
            }
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn every_file_is_accepted_and_stays_in_its_namespace() {
    let Some(kubelab) = Kubelab::shared() else { return };
    let lab = kubelab.namespace().await;
    let files = [
        "rbac/backup.yaml",
        "rbac/backup-fixed-names.yaml",
        "rbac/in-cluster.yaml",
        "rbac/restore.yaml",
        "rbac/suspend.yaml",
        "networkpolicy.yaml",
    ];
    for file in files {
        apply(file, &lab).await;
    }
    let there = std::fs::read_dir(deploy().join("rbac")).unwrap().count();
    assert_eq!(there, files.len() - 1, "a file is not tried");
}

/// What a way into the cluster needs, which `the_rights_that_a_forward_needs` tries; what is only told; and what a run
/// leaves behind, without which it warns.
fn is_on_demand(verb: &str, resource: &str) -> bool {
    let on_demand = ["services", "pods", "pods/portforward", "horizontalpodautoscalers", "scaledobjects", "events"];
    on_demand.contains(&resource)
        || matches!((verb, resource), ("get", "serviceaccounts") | ("create" | "update", "configmaps"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_role_of_a_backup_suffices_and_all_of_it_is_needed() {
    let Some(kubelab) = Kubelab::shared() else { return };
    let desk = Desk::new();
    let Some(cluster) = Cluster::small(&desk, "backup_role").await else { return };
    let lab = namespace(kubelab, &desk).await;
    apply("rbac/backup.yaml", &lab).await;
    let flags = lab.flags_as("pacharc-backup", &desk.path("kubeconfig")).await;
    let source = [cluster.source(), flags].concat();
    desk.backup(&source, "c.pacharc", &[]).code(0);
    let plan = || desk.run([words(&["plan", "backup"]), source.clone()].concat());
    let mut tried = 0;
    for (role, verb, resource) in without_each("rbac/backup.yaml", &lab) {
        grant(&lab, role, "pacharc-backup").await;
        if is_on_demand(&verb, &resource) {
            plan().code(0);
            continue;
        }
        let refused = plan().code(6).advises().says(&format!("{verb} {resource}"));
        drop(refused.says(&format!("resources: [\"{resource}\"], verbs: [\"{verb}\"]")));
        tried += 1;
    }
    assert!(tried >= 9, "{tried}");
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_by_name_alone() {
    let Some(kubelab) = Kubelab::shared() else { return };
    let desk = Desk::new();
    let Some(cluster) = Cluster::small(&desk, "fixed_names").await else { return };
    let lab = namespace(kubelab, &desk).await;
    apply("rbac/backup-fixed-names.yaml", &lab).await;
    let flags = lab.flags_as("pacharc-backup", &desk.path("kubeconfig")).await;
    let run = desk.backup(&[cluster.source(), flags].concat(), "c.pacharc", &[]).code(0);
    drop(run.says("read by name alone").says("sh.helm.release.v1.pach.v"));
    let listed = desk.run(["list", "c.pacharc", "cluster", "--identity", "key.txt"]).code(0).text();
    assert!(listed.contains("secrets/pachyderm-auth.yaml"), "{listed}");
    // No rule names them: a Secret of a user, and the release pach.
    assert!(!listed.contains("aws-for-pipelines") && !listed.contains("helm/"), "{listed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_role_of_a_restore_suffices_and_all_of_it_is_needed() {
    let Some(kubelab) = Kubelab::shared() else { return };
    let desk = Desk::new();
    let Some(cluster) = Cluster::small(&desk, "restore_role").await else { return };
    let from = namespace(kubelab, &desk).await;
    desk.backup(&[cluster.source(), from.flags()].concat(), "c.pacharc", &[]).code(0);
    let to = kubelab.namespace().await;
    apply("rbac/restore.yaml", &to).await;
    let flags = to.flags_as("pacharc-restore", &desk.path("kubeconfig")).await;
    let into = [target(&desk.bucket("target")), flags].concat();
    let restore = |more: &[&str]| -> Run { desk.restore("c.pacharc", &into, more) };
    for (role, verb, resource) in without_each("rbac/restore.yaml", &to) {
        grant(&to, role, "pacharc-restore").await;
        drop(restore(&["--apply-secrets"]).code(6).advises().says(&format!("{verb} {resource}")));
        assert!(!desk.path("target").exists());
    }
    apply("rbac/restore.yaml", &to).await;
    restore(&["--apply-secrets", "--write-to", "release"]).code(0);
}

/// Waits for the end of a Job, and says whether it succeeded.
async fn ended(lab: &Lab, name: &str) -> bool {
    let jobs: Api<Job> = lab.api();
    let begun = Instant::now();
    loop {
        let status = jobs.get(name).await.unwrap().status.unwrap_or_default();
        if status.succeeded == Some(1) {
            return true;
        }
        if status.failed.is_some_and(|failed| failed > 0) {
            return false;
        }
        assert!(begun.elapsed() < Duration::from_secs(300), "Job {name} does not end: {status:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chart_that_suspends_has_a_guardian_outside_of_its_pod() {
    let Some(kubelab) = Kubelab::shared() else { return };
    let lab = kubelab.namespace().await;
    let chart = deploy().join("chart");
    let rendered = |arguments: &str| {
        let image = "--set=image.repository=registry.example/pacharc,image.tag=1,imagePullSecrets[0].name=pull,rbac.suspend=true";
        let output = lab.helm(["template", "b", chart.to_str().unwrap(), image, "--set=recipients={age1x}", arguments]);
        String::from_utf8(output.stdout).unwrap()
    };
    let own = "- \"--guardian-image=registry.example/pacharc:1\"";
    assert!(!rendered("--set=arguments={--strict}").contains("--guardian-image"));
    for arguments in ["--set=arguments={--quiesce,suspend}", "--set=arguments={--quiesce=hold}"] {
        let text = rendered(arguments);
        assert!(text.contains(own), "{text}");
        // Its image is pulled as the backup's is.
        let account =
            text.split("\n---").find(|it| it.contains("kind: ServiceAccount") && it.contains("pacharc-guardian"));
        assert!(account.unwrap().contains("imagePullSecrets:\n  - name: pull"), "{text}");
    }
    assert!(!rendered("--set=arguments={--quiesce=hold,--guardian=none}").contains(own));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_chart_backs_up_now_and_on_a_schedule_under_the_restricted_level() {
    let Some(kubelab) = Kubelab::shared() else { return };
    let desk = Desk::new();
    let Some(cluster) = Cluster::small(&desk, "chart").await else { return };
    let lab = namespace(kubelab, &desk).await;
    let label = json!({ "metadata": { "labels": { "pod-security.kubernetes.io/enforce": "restricted" } } });
    let namespaces: Api<Namespace> = Api::all(lab.client.clone());
    namespaces.patch(&lab.name, &PatchParams::default(), &Patch::Merge(label)).await.unwrap();
    // The level is in force: a pod that asks for nothing is refused.
    let plain: Pod = serde_json::from_value(json!({
        "metadata": { "name": "plain" }, "spec": { "containers": [{ "name": "c", "image": "i" }] },
    }))
    .unwrap();
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let begun = Instant::now();
    let refused = loop {
        match lab.api::<Pod>().create(&dry, &plain).await {
            Err(refused) => break refused,
            // The label has not come round to those who look at it.
            Ok(_) => assert!(begun.elapsed() < Duration::from_secs(300), "every pod is accepted"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(refused.to_string().contains("PodSecurity \"restricted"), "{refused}");

    let program = desk.command([""; 0]).get_program().to_str().unwrap().to_owned();
    let mut arguments = words(&["--bucket", &cluster.bucket_url]);
    for database in [&cluster.database, &cluster.dex] {
        arguments.extend(words(&["--database", database]));
    }
    let values = json!({
        "image": { "repository": "registry.example/pacharc" },
        // The lab's kubelet runs it on this machine, as the pod's account.
        "podAnnotations": { "kubelab/exec": "true" },
        "command": [program],
        "arguments": arguments,
        "env": [{ "name": "PACHARC_POSTGRES", "value": cluster.server.url("postgres") }],
        "recipients": [desk.recipient],
        "output": desk.path("{namespace}-{uuid}.pacharc"),
        "storage": { "size": "5Gi" },
        "networkPolicy": { "enabled": true },
        "runNow": true,
    });
    std::fs::write(desk.path("values.json"), values.to_string()).unwrap();
    let (chart, values) = (deploy().join("chart"), desk.path("values.json"));
    lab.helm(["install", "pacharc", chart.to_str().unwrap(), "-f", values.to_str().unwrap()]);
    assert!(ended(&lab, "pacharc-1").await);

    let cron = lab.api::<CronJob>().get("pacharc").await.unwrap().spec.unwrap();
    assert_eq!((cron.concurrency_policy.as_deref(), cron.schedule.as_str()), (Some("Forbid"), "0 2 * * *"));
    // What the CronJob's controller would do.
    let spec = cron.job_template.spec.unwrap();
    assert_eq!(spec.backoff_limit, Some(0));
    let pod = spec.template.spec.as_ref().unwrap();
    assert_eq!(pod.termination_grace_period_seconds, Some(120));
    assert_eq!(pod.containers[0].security_context.as_ref().unwrap().read_only_root_filesystem, Some(true));
    let job = json!({ "metadata": { "name": "pacharc-now" }, "spec": spec });
    lab.apply::<Job>(job).await;
    assert!(ended(&lab, "pacharc-now").await);

    let entries =
        std::fs::read_dir(desk.folder()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let bundles: Vec<String> = entries.filter(|name| name.ends_with(".pacharc")).collect();
    assert_eq!(bundles.len(), 2, "{bundles:?}");
    for bundle in &bundles {
        assert!(bundle.starts_with(&lab.name), "{bundle}");
        desk.run(["verify", bundle, "--identity", "key.txt"]).code(0);
        let listed = desk.run(["list", bundle, "cluster", "--identity", "key.txt"]).code(0).text();
        assert!(listed.contains("secrets/aws-for-pipelines.yaml"), "{listed}");
    }

    // Without a right that it needs, the pod's exit code is the Job's failure.
    lab.api::<Role>().delete("pacharc", &Default::default()).await.unwrap();
    until("it is forbidden", async || !may(&lab, "pacharc", "list", "apps", "deployments").await).await;
    let spec = lab.api::<Job>().get("pacharc-now").await.unwrap().spec.unwrap();
    let mut pod = serde_json::to_value(spec.template).unwrap();
    pod["metadata"]["labels"] = json!({});
    lab.apply::<Job>(json!({ "metadata": { "name": "refused" }, "spec": { "backoffLimit": 0, "template": pod } }))
        .await;
    assert!(!ended(&lab, "refused").await);
}
