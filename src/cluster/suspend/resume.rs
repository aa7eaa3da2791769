//! The way back: from whatever state, to at least what was recorded. Each step may be taken again, by anybody.

use std::convert::Infallible;
use std::time::Duration;

use futures::TryStreamExt as _;
use futures::future::join_all;
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
use crate::failure::chain;
use crate::farewell;
use crate::monitor::{Event, Monitor, Phase, Step};

/// How long is waited for what is better done than not, and must not keep the cluster down.
const BRIEF: Duration = Duration::from_secs(15);

/// How often what has no fence is looked at, until it is ready.
const LOOK: Duration = Duration::from_secs(1);

/// What a resume came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resumed {
    /// What was recorded; `None` where the cluster was not suspended.
    pub record: Option<Record>,
}

/// Brings a suspended cluster back; where it runs, waits until it is ready.
///
/// # Errors
/// A right that is missing; not the owner, or no Lease to be had, where `force` is not given; somebody is at work; not ready
/// in time; Kubernetes'.
pub async fn resume(
    cluster: &Cluster,
    options: &Options,
    force: bool,
    monitor: &dyn Monitor,
) -> Result<Resumed, Error> {
    monitor.phase(Phase::Resume);
    super::rights::require_to_resume(cluster, force).await?;
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
    let tenure = match returning.insist(|| Tenure::begin(cluster, &holder, options.lease_duration, force)).await {
        Ok(tenure) => Some(tenure),
        Err(busy @ Error::Busy { .. }) => return Err(busy),
        Err(error) if force => {
            returning.do_without(&error);
            None
        }
        Err(error) => return Err(Error::NoLease { source: Box::new(error), command: options.command.clone() }),
    };
    // It may have come back while we waited for the Lease.
    let done = match returning.insist(|| returning.read()).await? {
        Some(now) if now.record.run == found.record.run => {
            // An error says itself what is not back; who is broken off here cannot.
            let debt = farewell::owe(options.command.clone());
            let by = By { name: &holder, has_lease: tenure.is_some(), again: false };
            let done = returning.bring_back(now, by).await;
            debt.settle();
            done
        }
        _ => returning.await_ready(&found.record).await,
    };
    if let Some(tenure) = tenure {
        monitor.step(Step::ReleaseLease);
        tenure.release().await;
    }
    done?;
    returning.dismiss_guardian(found.record.run).await;
    monitor.step(Step::Resumed);
    Ok(Resumed { record: Some(found.record) })
}

/// Who brings a cluster back.
#[derive(Clone, Copy, Debug)]
pub(super) struct By<'a> {
    /// His name, as a holder of the Lease.
    pub(super) name: &'a str,
    /// Whether he has it. Without it he scales up all the same, and others may still be scaling down.
    pub(super) has_lease: bool,
    /// Whether it was brought back before: then what runs is as others have set it since, and stays so.
    pub(super) again: bool,
}

/// What is scaled up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Low {
    /// What has less than was recorded.
    Less,
    /// What is at 0.
    Zero,
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

    /// Brings back what was recorded, and removes the record when it is ready.
    pub(super) async fn bring_back(&self, mut found: Found, by: By<'_>) -> Result<(), Error> {
        self.monitor.step(Step::Fence);
        match Records(self.cluster).set_state(&found, State::Resuming).await {
            Ok(changed) => found = changed,
            Err(error) => tracing::info!("the record does not say that it is being resumed: {error}"),
        }
        let is_fenced = self.mark(|name| self.fence(name, by.name)).await;
        self.monitor.step(Step::ScaleUp);
        let low = if by.again { Low::Zero } else { Low::Less };
        let missing = self.raise_all(&wanted(&found.record), low).await?;
        for name in &missing {
            self.monitor.warn(format!("there is no Deployment {name} to bring back"));
        }
        if let Some(name) = missing.into_iter().find(|name| *name != "pachw") {
            return Err(Error::Missing { name: name.to_owned(), command: self.command.to_owned() });
        }
        tokio::select! {
            ready = self.await_ready(&found.record) => ready?,
            never = self.keep_up(&found.record), if !is_fenced || !by.has_lease => match never {},
        }
        self.monitor.step(Step::RemoveRecord);
        // What is left of them says nothing of a cluster that runs.
        self.mark(|name| self.clear(name)).await;
        self.again(|| self.remove(&found)).await
    }

    /// Removes the record; also one that could not be read when this began.
    async fn remove(&self, found: &Found) -> Result<(), Error> {
        let records = Records(self.cluster);
        if found.is_in_config_map() {
            return Ok(records.remove(found).await?);
        }
        match records.read().await? {
            Some(now) if now.record.run == found.record.run => Ok(records.remove(&now).await?),
            _ => Ok(()),
        }
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
            self.again(|| self.raise(main.name(), count, Low::Less)).await?;
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

    /// Changes the annotations of each Deployment, or warns: who cannot must not be kept from scaling up, be it for want of
    /// the right or because of a webhook that does not answer. Whether all were changed.
    async fn mark<F>(&self, change: impl Fn(&'static str) -> F) -> bool
    where
        F: Future<Output = Result<(), Error>>,
    {
        let change = &change;
        let done = join_all(DEPLOYMENTS.map(|name| self.again_for(self.brief(), move || change(name)))).await;
        let failed: Vec<Error> = done.into_iter().filter_map(Result::err).collect();
        failed.iter().for_each(|error| self.do_without(error));
        failed.is_empty()
    }

    async fn fence(&self, name: &str, by: &str) -> Result<(), Error> {
        let_go(Records(self.cluster).fence(name, by).await)
    }

    async fn clear(&self, name: &str) -> Result<(), Error> {
        let_go(Records(self.cluster).clear(name).await)
    }

    /// Scales up to `count` what is low. Whether it is there.
    async fn raise(&self, name: &str, count: i32, low: Low) -> Result<bool, Error> {
        let workloads = Workloads(self.cluster);
        let Some(deployment) = workloads.deployment(name).await? else { return Ok(false) };
        let enough = if low == Low::Zero { 1 } else { count };
        if deployment.replicas < enough {
            workloads.scale(&deployment, count, false).await?;
            let (name, from) = (name.to_owned(), deployment.replicas);
            self.monitor.event(Event::Scaled { kind: "Deployment".into(), name, from, to: count });
        }
        Ok(true)
    }

    /// Scales up all of it, in order. What fails is asked again behind the others, so that it keeps none of them down. What
    /// is not there.
    async fn raise_all(&self, wanted: &[(&'static str, i32)], low: Low) -> Result<Vec<&'static str>, Error> {
        let end = boottime() + self.patience;
        let (mut left, mut missing, mut failed) = (wanted.to_vec(), Vec::new(), None);
        while !left.is_empty() {
            let mut again = Vec::new();
            for (name, count) in left {
                match self.raise(name, count, low).await {
                    Ok(true) => {}
                    Ok(false) => missing.push(name),
                    Err(error) if error.is_retryable() && boottime() < end => again.push((name, count)),
                    Err(error) => failed = failed.or(Some(error)),
                }
            }
            if !again.is_empty() {
                tokio::time::sleep(PAUSE).await;
            }
            left = again;
        }
        failed.map_or(Ok(missing), Err)
    }

    /// Scales up again what there is no fence around, or no Lease: a scale-down that was on its way, to 0, may still come
    /// through.
    async fn keep_up(&self, record: &Record) -> Infallible {
        let mut wanted = wanted(record);
        // pachd scales that one, up and down.
        wanted.retain(|(name, _)| *name != "pachw");
        loop {
            tokio::time::sleep(LOOK).await;
            if let Err(error) = self.raise_all(&wanted, Low::Zero).await {
                tracing::info!("{}", chain(&error));
            }
        }
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

    async fn read(&self) -> Result<Option<Found>, Error> {
        Records(self.cluster).read().await
    }

    /// The record of `run`. Where somebody deleted it in every place, or it cannot be read, what the run itself remembers, if
    /// it scaled; and whether it is that: then somebody may have brought the cluster back before.
    pub(super) async fn find(
        &self,
        run: Uuid,
        remembered: &Record,
        scaled: bool,
    ) -> Result<Option<(Found, bool)>, Error> {
        let from_memory = || Some((Found::remembered(remembered.clone()), true));
        // Before it was written down there is nothing to remember, and nothing was scaled.
        let remembers = scaled && !remembered.deployments.is_empty();
        let found = if remembers { self.insist(|| self.read()).await } else { self.again(|| self.read()).await };
        match found {
            Ok(Some(found)) => Ok(Some((found, false)).filter(|(found, _)| found.record.run == run)),
            Ok(None) => Ok(from_memory().filter(|_| scaled)),
            Err(error) if remembers => {
                self.do_without(&error);
                Ok(from_memory())
            }
            Err(error) => Err(error),
        }
    }

    /// Waits until somebody else has brought `run` back.
    pub(super) async fn returned(&self, run: Uuid, record: &Record) -> Result<(), Error> {
        self.vanished(run).await?;
        self.await_ready(record).await
    }

    /// Waits until the record of `run` is gone: somebody else brings it back.
    async fn vanished(&self, run: Uuid) -> Result<(), Error> {
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
    async fn again<T, F>(&self, work: impl FnMut() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        self.again_for(self.patience, work).await
    }

    /// Does it again for a brief time, and with all patience where the server does nothing else either. What it fails in,
    /// and does the rest, is better done than not, and must not keep the cluster down.
    pub(super) async fn insist<T, F>(&self, mut work: impl FnMut() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let end = boottime() + self.patience;
        loop {
            let done = self.again_for(self.brief(), &mut work).await;
            let may_help = matches!(&done, Err(error) if error.is_retryable()) && boottime() < end;
            if !may_help || Workloads(self.cluster).deployments().await.is_ok() {
                return done;
            }
        }
    }

    /// How long is waited for what must not keep the cluster down.
    pub(super) fn brief(&self) -> Duration {
        self.patience.min(BRIEF)
    }

    /// Tells what could not be done, and is done without.
    pub(super) fn do_without(&self, error: &Error) {
        self.monitor.warn(format!("{}; the cluster is brought back all the same", chain(error)));
    }

    async fn again_for<T, F>(&self, patience: Duration, mut work: impl FnMut() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let end = boottime() + patience;
        loop {
            match work().await {
                Err(error) if error.is_retryable() && boottime() < end => tokio::time::sleep(PAUSE).await,
                done => return done,
            }
        }
    }
}

/// What has to come back, in order.
fn wanted(record: &Record) -> Vec<(&'static str, i32)> {
    let count = |name| record.deployments.get(name).copied().filter(|count| *count > 0);
    DEPLOYMENTS.into_iter().filter_map(|name| Some((name, count(name)?))).collect()
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

#[cfg(test)]
mod tests;
