//! What is going on in a namespace, and what is wrong with it.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use serde::Serialize;

use super::Error;
use super::clock::Stillness;
use super::guardian;
use super::lease::{self, Store};
use super::record::{Kind, Record, Records, State};
use super::resume;
use super::workloads::{Workload, Workloads};
use crate::cluster::Cluster;

/// What a cluster is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// pachd is there and ready, and there is no record.
    Running,
    /// There is no record, and pachd is scaled up, but not ready.
    NotReady,
    /// There is no record, and pachd is at 0 replicas.
    Down,
    /// As the record says: on the way down.
    Suspending,
    /// As the record says: down.
    Suspended,
    /// As the record says: on the way up.
    Resuming,
}

/// A Deployment, or all workers together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Scale {
    /// The Deployment's name, or `workers`.
    pub name: String,
    /// How many are wanted.
    pub replicas: i32,
    /// How many are ready.
    pub ready: i32,
}

/// Who has a Lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Holder {
    /// `user@host/run`, or a guardian's name.
    pub holder: String,
    /// Whether it was seen to renew the Lease.
    pub alive: bool,
    /// When it did so last, by its own clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub renewed: Option<Timestamp>,
    /// Of a guardian: seconds that are left of a hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_seconds: Option<u64>,
}

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// The namespace.
    pub namespace: String,
    /// In one word.
    pub state: Condition,
    /// What there is now.
    pub workloads: Vec<Scale>,
    /// What was recorded when it was suspended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub record: Option<Record>,
    /// Who is at work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease: Option<Holder>,
    /// Who resumes if that one cannot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guardian: Option<Holder>,
    /// What is wrong.
    pub problems: Vec<String>,
    /// The command that brings it back; absent where it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resume: Option<String>,
}

/// Looks at a namespace; `command` is the one that resumes. Whether the holders of the Leases live is seen by watching them, for the Leases' duration at
/// most: nobody's clock is trusted.
///
/// # Errors
/// No Pachyderm here; a record that cannot be read; Kubernetes'.
pub async fn status(cluster: &Cluster, command: &str) -> Result<Status, Error> {
    let workloads = Workloads(cluster);
    let deployments = workloads.deployments().await?;
    let workers = workloads.workers().await?;
    let main = resume::main(&deployments).ok_or_else(|| resume::nothing(cluster))?;
    let record = Records(cluster).read().await?;
    let (lease, guardian) = tokio::join!(observe(cluster, lease::RUN), observe(cluster, lease::GUARDIAN));
    let (lease, guardian) = (lease?, guardian?);
    // A guardian of an earlier run says nothing about this one.
    let guardian = guardian.filter(|(lease, _)| match &record {
        Some(found) => guardian::is_of(lease, found.record.run),
        None => true,
    });
    let in_cluster = record.as_ref().is_none_or(super::record::Found::is_in_config_map);
    let record = record.map(|found| found.record);
    let (lease, guardian) = (lease.map(|(_, holder)| holder), guardian.map(|(_, holder)| holder));
    let state = match &record {
        Some(record) => match record.state {
            State::Suspending => Condition::Suspending,
            State::Suspended => Condition::Suspended,
            State::Resuming => Condition::Resuming,
        },
        None if main.replicas == 0 => Condition::Down,
        None if !main.has_ready(main.replicas) => Condition::NotReady,
        None => Condition::Running,
    };
    let resume = match state {
        Condition::Running => None,
        Condition::Down => Some(format!("{command} --resume-replicas N")),
        _ if record.as_ref().is_some_and(|record| record.owner != super::owner()) => {
            Some(super::from_anywhere(command))
        }
        _ => Some(command.to_owned()),
    };
    let mut problems = Vec::new();
    match &record {
        Some(record) => {
            if !in_cluster {
                problems.push("somebody deleted the record's ConfigMap; its annotation is left".to_owned());
            }
            judge(record, lease.as_ref(), guardian.as_ref(), &mut problems);
            if record.state == State::Suspended {
                let up = deployments.iter().chain(&workers).filter(|workload| workload.replicas > 0);
                problems.extend(up.map(|up| format!("somebody scaled {} to {}", up.title(), up.replicas)));
            }
            let gone = record.deployments.keys().filter(|name| !deployments.iter().any(|found| found.name() == *name));
            problems.extend(gone.map(|name| format!("there is no Deployment {name} any more")));
        }
        None => match state {
            Condition::Down => problems.push(format!("{} is at 0 replicas, and nobody recorded why", main.title())),
            Condition::NotReady => {
                problems.push(format!("{}: {} of {} ready", main.title(), main.ready, main.replicas));
            }
            _ => {}
        },
    }
    let scales = deployments.iter().map(|deployment| scale(deployment.name(), std::slice::from_ref(deployment)));
    Ok(Status {
        namespace: cluster.namespace().to_owned(),
        state,
        workloads: scales.chain([scale("workers", &workers)]).collect(),
        record,
        lease,
        guardian,
        problems,
        resume,
    })
}

/// What is wrong with a suspended cluster: nobody who would bring it back.
fn judge(record: &Record, lease: Option<&Holder>, guardian: Option<&Holder>, problems: &mut Vec<String>) {
    let is_alive = |holder: Option<&Holder>| holder.is_some_and(|holder| holder.alive);
    if let Some(dead) = lease.filter(|holder| !holder.alive) {
        problems.push(format!("{} has not renewed the Lease: it is gone", dead.holder));
    }
    match (record.kind, record.state) {
        (Kind::Run, _) if lease.is_none() => problems.push("the run that suspended it is gone".to_owned()),
        (Kind::Hold, State::Suspending) if !is_alive(lease) => problems.push("the suspend was cut off".to_owned()),
        (_, State::Resuming) if !is_alive(lease) => problems.push("the resume was cut off".to_owned()),
        _ => {}
    }
    let wants_guardian = record.kind == Kind::Run || record.deadline.is_some();
    match guardian {
        Some(holder) if !holder.alive => {
            problems.push(format!("the guardian ({}) is gone: nobody resumes the cluster", holder.holder));
        }
        None if wants_guardian => problems.push("there is no guardian: nobody resumes the cluster".to_owned()),
        _ => {}
    }
}

fn scale(name: &str, workloads: &[Workload]) -> Scale {
    Scale {
        name: name.to_owned(),
        replicas: workloads.iter().map(|workload| workload.replicas).sum(),
        ready: workloads.iter().map(|workload| workload.ready).sum(),
    }
}

/// Watches a Lease until it is renewed, or its duration is over.
async fn observe(cluster: &Cluster, name: &'static str) -> Result<Option<(Lease, Holder)>, Error> {
    let store = Store::new(cluster, name);
    let mut seen = Stillness::default();
    loop {
        let Some(found) = store.read().await? else { return Ok(None) };
        let Some(by) = lease::holder(&found).map(str::to_owned) else { return Ok(None) };
        let duration = lease::duration_of(&found);
        let alive = seen.has_changed(lease::version(&found));
        if alive || seen.observe(lease::version(&found)) >= duration {
            let renewed = found.spec.as_ref().and_then(|spec| spec.renew_time.as_ref()).map(|time| time.0);
            let left_seconds = guardian::left(&found).map(|left| left.as_secs());
            return Ok(Some((found, Holder { holder: by, alive, renewed, left_seconds })));
        }
        tokio::time::sleep(lease::glance(duration).max(Duration::from_millis(100))).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn what_is_wrong_is_said() {
        let holder = |alive| Holder { holder: "a@b/1".into(), alive, renewed: None, left_seconds: None };
        let problems = |kind, state, lease: Option<bool>, guardian: Option<bool>| {
            let mut record = Record::new(Uuid::nil(), "a@b", kind);
            record.state = state;
            let mut problems = Vec::new();
            judge(&record, lease.map(holder).as_ref(), guardian.map(holder).as_ref(), &mut problems);
            problems.join("; ")
        };
        assert_eq!(problems(Kind::Run, State::Suspended, Some(true), Some(true)), "");
        assert_eq!(problems(Kind::Hold, State::Suspended, None, None), "");
        assert_eq!(problems(Kind::Hold, State::Suspending, Some(true), None), "");
        assert_eq!(problems(Kind::Hold, State::Suspending, None, None), "the suspend was cut off");
        let nobody = "there is no guardian: nobody resumes the cluster";
        assert_eq!(problems(Kind::Run, State::Suspended, Some(true), None), nobody);
        let gone = "a@b/1 has not renewed the Lease: it is gone; the resume was cut off; \
                    the guardian (a@b/1) is gone: nobody resumes the cluster";
        assert_eq!(problems(Kind::Run, State::Resuming, Some(false), Some(false)), gone);
    }
}
