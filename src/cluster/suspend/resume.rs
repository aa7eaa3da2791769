//! The way back: from whatever state, to at least what was recorded. Each step may be taken again, by anybody.

use std::time::Duration;

use futures::TryStreamExt as _;
use k8s_openapi::api::apps::v1::Deployment;
use kube::runtime::{WatchStreamExt as _, watcher};
use uuid::Uuid;

use super::clock::boottime;
use super::drain::PAUSE;
use super::lease::{self, Store};
use super::record::{Found, Kind, Record, Records, State};
use super::tenure::Tenure;
use super::workloads::{DEPLOYMENTS, Workload, Workloads};
use super::{Error, Options};
use crate::cluster::{self, Cluster};
use crate::monitor::{Event, Monitor, Phase, Step};

/// What a resume came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resumed {
    /// What was recorded; `None` where the cluster was not suspended.
    pub record: Option<Record>,
}

/// Brings a suspended cluster back; where it runs, waits until it is ready.
///
/// # Errors
/// A right that is missing; not the owner, where `force` is not given; somebody is at work; not ready in time; Kubernetes'.
pub async fn resume(
    cluster: &Cluster,
    options: &Options,
    force: bool,
    monitor: &dyn Monitor,
) -> Result<Resumed, Error> {
    monitor.phase(Phase::Resume);
    super::rights::require_to_resume(cluster).await?;
    let records = Records(cluster);
    let found = match records.read().await {
        // What cannot be read is as good as lost, if the counts are given.
        Err(Error::Unreadable { .. }) if force && options.resume_replicas.is_some() => None,
        found => found?,
    };
    let returning = Return::new(cluster, options, monitor);
    let Some(found) = found else { return returning.without_record(options).await };
    let me = &options.owner;
    if found.record.owner != *me && !force {
        let (owner, command) = (found.record.owner, format!("{} --force", options.command));
        return Err(Error::NotOwner { owner, me: me.clone(), command });
    }
    monitor.step(Step::TakeLease);
    let holder = format!("{me}/resume-{}", Uuid::new_v4());
    let tenure = Tenure::begin(cluster, &holder, options.lease_duration, force).await?;
    // It may have come back while we waited for the Lease.
    let done = match records.read().await? {
        Some(now) if now.record.run == found.record.run => returning.bring_back(now, &holder).await,
        _ => returning.await_ready(&found.record).await,
    };
    monitor.step(Step::ReleaseLease);
    tenure.release().await;
    done?;
    returning.dismiss_guardian(found.record.run).await;
    monitor.step(Step::Resumed);
    Ok(Resumed { record: Some(found.record) })
}

/// The way back of one record.
pub(super) struct Return<'a> {
    cluster: &'a Cluster,
    monitor: &'a dyn Monitor,
    /// How long to wait until the Deployments are ready; and for an API server that does not answer.
    patience: Duration,
    /// What the user would type to go on.
    command: &'a str,
}

impl<'a> Return<'a> {
    pub(super) fn new(cluster: &'a Cluster, options: &'a Options, monitor: &'a dyn Monitor) -> Self {
        Self { cluster, monitor, patience: options.ready_timeout, command: &options.command }
    }

    /// Brings back what was recorded, and removes the record when it is ready. `by` holds the Lease.
    pub(super) async fn bring_back(&self, mut found: Found, by: &str) -> Result<(), Error> {
        self.monitor.step(Step::Fence);
        match Records(self.cluster).set_state(&found, State::Resuming).await {
            Ok(changed) => found = changed,
            Err(error) => tracing::info!("the record does not say that it is being resumed: {error}"),
        }
        for name in found.record.deployments.keys() {
            // Nobody who has no right to it must be kept from scaling up.
            match self.again(|| self.fence(name, by)).await {
                Err(Error::Cluster(error)) if error.is_forbidden() => self.monitor.warn(error.to_string()),
                done => done?,
            }
        }
        self.monitor.step(Step::ScaleUp);
        let mut missing = None;
        for name in DEPLOYMENTS {
            let Some(&count) = found.record.deployments.get(name).filter(|count| **count > 0) else { continue };
            if !self.again(|| self.raise(name, count)).await? {
                self.monitor.warn(format!("there is no Deployment {name} to bring back"));
                missing = missing.or((name != "pachw").then_some(name));
            }
        }
        if let Some(name) = missing {
            return Err(Error::Missing { name: name.to_owned(), command: self.command.to_owned() });
        }
        self.await_ready(&found.record).await?;
        self.monitor.step(Step::RemoveRecord);
        for name in DEPLOYMENTS {
            self.again(|| self.clear(name)).await?;
        }
        self.again(|| async { Ok(Records(self.cluster).remove(&found).await?) }).await
    }

    /// Where nobody recorded anything: running, or down by somebody else's doing.
    async fn without_record(&self, options: &Options) -> Result<Resumed, Error> {
        let workloads = Workloads(self.cluster);
        let deployments = workloads.deployments().await?;
        let main = main(&deployments).ok_or_else(|| nothing(self.cluster))?;
        let mut record = Record::new(Uuid::new_v4(), &options.owner, Kind::Hold);
        let count = match (main.replicas, options.resume_replicas) {
            (0, None) => return Err(down(main.name(), &options.command, true)),
            (0, Some(count)) => count,
            (count, _) => count,
        };
        record.deployments.insert(main.name().to_owned(), count);
        if main.replicas == 0 {
            self.monitor.step(Step::ScaleUp);
            self.again(|| self.raise(main.name(), count)).await?;
        }
        self.await_ready(&record).await?;
        self.sweep(options).await;
        self.monitor.step(Step::Resumed);
        Ok(Resumed { record: None })
    }

    /// Removes the Lease of somebody who was killed when everything else was done.
    async fn sweep(&self, options: &Options) {
        let store = Store::new(self.cluster, lease::RUN);
        if store.read().await.is_ok_and(|lease| lease.is_some()) {
            let holder = format!("{}/resume-{}", options.owner, Uuid::new_v4());
            match Tenure::begin(self.cluster, &holder, options.lease_duration, false).await {
                Ok(tenure) => tenure.release().await,
                Err(error) => tracing::info!("the Lease is left: {error}"),
            }
        }
    }

    async fn fence(&self, name: &str, by: &str) -> Result<(), Error> {
        let_go(Records(self.cluster).fence(name, by).await)
    }

    async fn clear(&self, name: &str) -> Result<(), Error> {
        let_go(Records(self.cluster).clear(name).await)
    }

    /// Scales up to `count` what has less. Whether it is there.
    async fn raise(&self, name: &str, count: i32) -> Result<bool, Error> {
        let workloads = Workloads(self.cluster);
        let Some(deployment) = workloads.deployment(name).await? else { return Ok(false) };
        if deployment.replicas < count {
            workloads.scale(&deployment, count, false).await?;
            let (name, from) = (name.to_owned(), deployment.replicas);
            self.monitor.event(Event::Scaled { kind: "Deployment".into(), name, from, to: count });
        }
        Ok(true)
    }

    /// Waits until what was recorded of pachd and pach-enterprise is ready; pachd scales pachw and the workers itself.
    pub(super) async fn await_ready(&self, record: &Record) -> Result<(), Error> {
        self.monitor.step(Step::AwaitReady);
        let end = boottime() + self.patience;
        let mut late = Vec::new();
        for (name, &count) in record.deployments.iter().filter(|(name, count)| **count > 0 && *name != "pachw") {
            let left = end.saturating_sub(boottime());
            match tokio::time::timeout(left, self.ready(name, count)).await {
                Ok(ready) => ready?,
                Err(_) => late.push(name.clone()),
            }
        }
        match late.is_empty() {
            true => Ok(()),
            false => Err(Error::NotReady { names: late, after: self.patience, command: self.command.to_owned() }),
        }
    }

    async fn ready(&self, name: &str, count: i32) -> Result<(), Error> {
        let watch = watcher::watch_object(self.cluster.api::<Deployment>(), name).default_backoff();
        let mut watch = std::pin::pin!(watch);
        loop {
            match watch.try_next().await {
                Ok(Some(Some(deployment))) => {
                    if Workload::from(deployment).has_ready(count) {
                        return Ok(());
                    }
                }
                Ok(_) => {}
                // The watch begins again by itself.
                Err(error) => tracing::debug!("watching Deployment {name}: {error}"),
            }
        }
    }

    pub(super) async fn read(&self) -> Result<Option<Found>, Error> {
        Records(self.cluster).read().await
    }

    /// Waits until the record of `run` is gone: somebody else brings it back.
    pub(super) async fn vanished(&self, run: Uuid) -> Result<(), Error> {
        let end = boottime() + self.patience;
        while self.again(|| self.read()).await?.is_some_and(|found| found.record.run == run) {
            if boottime() > end {
                let (names, command) = (vec!["pachd".to_owned()], self.command.to_owned());
                return Err(Error::NotReady { names, after: self.patience, command });
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Removes the Lease of a guardian that has nothing more to do, or is no more.
    pub(super) async fn dismiss_guardian(&self, run: Uuid) {
        let store = Store::new(self.cluster, lease::GUARDIAN);
        let guardian = store.read().await.ok().flatten().filter(|found| super::guardian::is_of(found, run));
        if let Some(holder) = guardian.as_ref().and_then(lease::holder)
            && let Err(error) = store.release(holder).await
        {
            tracing::info!("the Lease of the guardian is left: {error}");
        }
    }

    /// Does it again while the API server cannot be reached, or somebody else was quicker, as long as there is patience.
    pub(super) async fn again<T, F>(&self, mut work: impl FnMut() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let end = boottime() + self.patience;
        loop {
            match work().await {
                Err(error) if error.is_retryable() && boottime() < end => tokio::time::sleep(PAUSE).await,
                done => return done,
            }
        }
    }
}

/// What is not there need not be changed.
fn let_go(done: Result<(), cluster::Error>) -> Result<(), Error> {
    match done {
        Err(error) if error.is_not_found() => Ok(()),
        done => Ok(done?),
    }
}

/// The Deployment that makes a Pachyderm: pachd, or pach-enterprise where it is alone.
pub(super) fn main(deployments: &[Workload]) -> Option<&Workload> {
    let named = |name: &str| deployments.iter().find(|deployment| deployment.name() == name);
    named("pachd").or_else(|| named("pach-enterprise"))
}

pub(super) fn nothing(cluster: &Cluster) -> Error {
    Error::Nothing { namespace: cluster.namespace().to_owned() }
}

pub(super) fn down(name: &str, command: &str, to_resume: bool) -> Error {
    let command = format!("{command} --resume-replicas N");
    Error::Down { name: name.to_owned(), command, to_resume }
}
