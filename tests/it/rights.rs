//! Who suspends has the rights to do so and to resume again, or is refused before anything is changed; and what `deploy/`
//! gives is what the program asks for.

use std::collections::BTreeSet;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{DeleteParams, ListParams};
use pacharc::cluster::permissions;
use pacharc::cluster::suspend::guardian::{self, Guard};
use pacharc::cluster::suspend::rights;
use serde_json::{Value, json};

use crate::deploy::{apply, deploy, documents, role_without_each, without_each};
use crate::support::authorizer::grant;
use crate::support::kubelab::{Kubelab, Lab};
use crate::support::moments::Told;
use crate::support::pachyderm::{cleaned, install, is_clean, lapse_soon, replicas, settled};
use crate::support::program::{Desk, Run, words};

const JOB: [&str; 3] = ["--for=1h", "--guardian-image=pacharc", "--guardian-annotation=kubelab/exec=true"];

/// Each right that rules give: group, resource, name (empty: all), verb.
fn rights_of(rules: &Value) -> BTreeSet<[String; 4]> {
    let strings = |list: &Value| -> Vec<String> {
        let list = list.as_array().cloned().unwrap_or_default();
        list.iter().map(|item| item.as_str().unwrap().to_owned()).collect()
    };
    let mut found = BTreeSet::new();
    for rule in rules.as_array().unwrap() {
        let mut names = strings(&rule["resourceNames"]);
        if names.is_empty() {
            names.push(String::new());
        }
        for group in strings(&rule["apiGroups"]) {
            for resource in strings(&rule["resources"]) {
                for name in &names {
                    for verb in strings(&rule["verbs"]) {
                        found.insert([group.clone(), resource.clone(), name.clone(), verb]);
                    }
                }
            }
        }
    }
    found
}

/// What the Role of this name gives, among these documents.
fn role(documents: &[Value], name: &str) -> BTreeSet<[String; 4]> {
    let is_it = |document: &&Value| document["kind"] == "Role" && document["metadata"]["name"] == name;
    rights_of(&documents.iter().find(is_it).unwrap_or_else(|| panic!("no Role {name}"))["rules"])
}

#[tokio::test(flavor = "multi_thread")]
async fn the_roles_of_deploy_are_what_the_program_asks_for() {
    let Some(kubelab) = Kubelab::shared() else { return };
    let lab = kubelab.namespace().await;
    let guard = Guard::Job(guardian::Job { image: String::new(), annotations: Default::default() });
    let asked = rights_of(&permissions::policy(&rights::all(&guard)));
    assert!(asked.len() > 30, "{asked:?}");
    let file = documents("rbac/suspend.yaml", &lab);
    assert_eq!(role(&file, "pacharc-suspend"), asked);
    assert_eq!(role(&file, "pacharc-guardian"), rights_of(&guardian::rules()));

    let chart = deploy().join("chart");
    let set = ["image.repository=r", "recipients={age1}", "rbac.suspend=true"].map(|value| format!("--set={value}"));
    let args = ["template", "nightly", chart.to_str().unwrap()].map(str::to_owned).into_iter().chain(set);
    let rendered: Vec<Value> =
        serde_saphyr::from_multiple(std::str::from_utf8(&lab.helm(args).stdout).unwrap()).unwrap();
    assert_eq!(role(&rendered, "nightly-suspend"), asked);
    assert_eq!(role(&rendered, "pacharc-guardian"), rights_of(&guardian::rules()));
    // Inside the cluster there is nothing to forward.
    let mut backup = role(&documents("rbac/backup.yaml", &lab), "pacharc-backup");
    backup.retain(|[_, resource, _, _]| resource != "pods" && resource != "pods/portforward");
    assert_eq!(role(&rendered, "nightly"), backup);
}

/// A cluster that runs, and the flags of the account that `deploy/rbac/suspend.yaml` is for, without any other right.
async fn prepared(kubelab: &'static Kubelab, desk: &Desk) -> (Lab, Vec<String>) {
    let lab = kubelab.namespace().await;
    lab.apply::<ServiceAccount>(json!({ "metadata": { "name": "pacharc-backup" } })).await;
    apply("rbac/suspend.yaml", &lab).await;
    install(&lab, 2, json!({})).await;
    let flags = lab.flags_as("pacharc-backup", &desk.path("kubeconfig")).await;
    (lab, flags)
}

fn args(command: &str, flags: &[String], more: &[&str]) -> Vec<String> {
    [words(&[command]), flags.to_vec(), words(&["--lease-duration=30s"]), words(more)].concat()
}

async fn run(desk: &Desk, command: &str, flags: &[String], more: &[&str]) -> Run {
    let mut command = desk.command(args(command, flags, more));
    tokio::task::spawn_blocking(move || crate::support::program::Running::start(&mut command).finish()).await.unwrap()
}

async fn has_jobs(lab: &Lab) -> bool {
    !lab.api::<Job>().list(&ListParams::default()).await.unwrap().items.is_empty()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_role_of_a_suspend_suffices_with_every_guardian() {
    let Some(kubelab) = Kubelab::shared() else { return };
    let desk = Desk::new();
    let (lab, flags) = prepared(kubelab, &desk).await;
    for more in [&[][..], &["--for=1h"], &JOB] {
        run(&desk, "suspend", &flags, more).await.code(0);
        assert_eq!(replicas(&lab).await["pachd"], 0);
        run(&desk, "resume", &flags, &[]).await.code(0);
        settled(&lab, "pachd", 2).await;
        settled(&lab, "pachw", 2).await;
        cleaned(&lab).await;
    }
    // The guardian, too, which nobody helps: as a process it has the same account, as a Job its own. It takes the Lease of
    // a run that was killed, or makes it where there is none.
    for more in [&["--for=1h"][..], &JOB] {
        for is_there in [true, false] {
            let mut command = desk.command(args("suspend", &flags, &[more, &["--json"]].concat()));
            assert!(tokio::task::spawn_blocking(move || Told::kill_at(&mut command, "drain_all")).await.unwrap());
            match is_there {
                true => lapse_soon(&lab, "pacharc").await,
                false => drop(lab.api::<Lease>().delete("pacharc", &DeleteParams::default()).await.unwrap()),
            }
            cleaned(&lab).await;
            settled(&lab, "pachd", 2).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspend_that_lacks_any_right_is_refused_before_anything_is_changed() {
    let Some(kubelab) = Kubelab::shared() else { return };
    let desk = Desk::new();
    let (lab, flags) = prepared(kubelab, &desk).await;
    let before = replicas(&lab).await;
    let mut tried = 0;
    for (without, verb, resource) in without_each("rbac/suspend.yaml", &lab) {
        grant(&lab, without, "pacharc-backup").await;
        if resource == "horizontalpodautoscalers" {
            // Better known, but not needed.
            run(&desk, "suspend", &flags, &JOB).await.code(0).says("whether an autoscaler would undo it is not known");
            run(&desk, "resume", &flags, &[]).await.code(0);
            settled(&lab, "pachw", 2).await;
            cleaned(&lab).await;
            continue;
        }
        let refused = run(&desk, "suspend", &flags, &JOB).await.code(6).advises();
        drop(refused.says(&format!("{verb} {resource}")).says(&format!("resources: [\"{resource}\"]")));
        let now = replicas(&lab).await;
        assert_eq!((now["pachd"], now["pachw"]), (before["pachd"], before["pachw"]), "{verb} {resource}");
        assert!(is_clean(&lab).await, "{verb} {resource}");
        tried += 1;
    }
    assert!(tried > 15, "{tried}");
    // Where the guardian's account has to be made, that has to be allowed.
    apply("rbac/suspend.yaml", &lab).await;
    lab.api::<ServiceAccount>().delete(guardian::ACCOUNT, &DeleteParams::default()).await.unwrap();
    let jobs = has_jobs(&lab).await;
    let refused = run(&desk, "suspend", &flags, &JOB).await.code(6).advises();
    drop(refused.says("create serviceaccounts").says("create roles").says("create rolebindings"));
    assert!(is_clean(&lab).await && has_jobs(&lab).await == jobs);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resume_that_lacks_any_right_is_refused_before_anything_is_changed() {
    let Some(kubelab) = Kubelab::shared() else { return };
    let desk = Desk::new();
    let (lab, flags) = prepared(kubelab, &desk).await;
    run(&desk, "suspend", &flags, &[]).await.code(0);
    // It needs what a guardian needs: nothing else is left to the account, and then each of it is taken away.
    let file = documents("rbac/suspend.yaml", &lab);
    let is_guardians =
        |document: &&Value| document["kind"] == "Role" && document["metadata"]["name"] == guardian::ACCOUNT;
    let mut role = file.iter().find(is_guardians).unwrap().clone();
    role["metadata"]["name"] = "pacharc-suspend".into();
    let mut tried = 0;
    for (without, verb, resource) in role_without_each(&role) {
        grant(&lab, without, "pacharc-backup").await;
        let refused = run(&desk, "resume", &flags, &[]).await.code(6).advises();
        drop(refused.says(&format!("{verb} {resource}")));
        assert_eq!(replicas(&lab).await["pachd"], 0, "{verb} {resource}");
        tried += 1;
    }
    assert!(tried > 10, "{tried}");
    grant(&lab, role.clone(), "pacharc-backup").await;
    run(&desk, "resume", &flags, &[]).await.code(0);
    cleaned(&lab).await;
    // Without any Lease it is done by force alone.
    run(&desk, "suspend", &lab.flags(), &[]).await.code(0);
    role["rules"].as_array_mut().unwrap().retain(|rule| rule["resources"] != json!(["leases"]));
    grant(&lab, role, "pacharc-backup").await;
    run(&desk, "resume", &flags, &[]).await.code(6).says("leases").advises();
    assert_eq!(replicas(&lab).await["pachd"], 0);
    run(&desk, "resume", &flags, &["--force"]).await.code(0).says("the cluster is brought back all the same");
    settled(&lab, "pachd", 2).await;
    cleaned(&lab).await;
}
