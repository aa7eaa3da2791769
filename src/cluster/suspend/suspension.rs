//! A suspended cluster in the hands of a run: proved on demand, given back whatever happens.

use std::sync::Arc;

use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::oneshot;

use super::clock::Limit;
use super::drain::{self, Who};
use super::record::{Found, Record, Records, State};
use super::resume::{By, Return};
use super::tenure::{Lost, Tenure};
use super::workloads::{DEPLOYMENTS, Kind, Workload, Workloads};
use super::{Error, Options, guardian};
use crate::cluster::Cluster;
use crate::farewell::{self, Debt};
use crate::monitor::{Event, Monitor, Phase, Step};

/// Scale requests that lose against another writer are made again with what is there now; so often.
const ATTEMPTS: u32 = 20;

/// Workers that are scaled at a time, between two renewals of the Lease.
const BATCH: usize = 16;

/// A suspended cluster. Dropped, it is resumed: the process waits for that before it ends.
pub struct Suspension {
    parts: Option<Parts>,
}

/// What a suspension consists of.
pub(super) struct Parts {
    pub(super) cluster: Cluster,
    pub(super) options: Arc<Options>,
    pub(super) monitor: Arc<dyn Monitor>,
    /// The holder of the Lease: `user@host/` and a number of this process's own.
    pub(super) holder: String,
    pub(super) tenure: Tenure,
    pub(super) guardian: Option<guardian::Sentry>,
    pub(super) record: Record,
    pub(super) ours: Ours,
    /// Everything that is scaled, as it was left.
    pub(super) left: Vec<Workload>,
    pub(super) debt: Option<Debt>,
}

/// What is given back where a suspension ends without having become a hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ours {
    /// The cluster.
    All,
    /// The Lease alone: the cluster was held before by the same owner, and stays so.
    Held,
    /// The Lease alone: the hold is made use of.
    Lease,
}

impl Suspension {
    pub(super) fn new(parts: Parts) -> Self {
        Self { parts: Some(parts) }
    }

    /// What was there before.
    #[must_use]
    pub fn record(&self) -> Option<&Record> {
        self.parts.as_ref().map(|parts| &parts.record)
    }

    /// Proves that the cluster is quiesced: a renewal of the Lease succeeds now, replicas and generations are as they
    /// were left, and no pod runs that writes. What was read before the call was read of a cluster at rest.
    ///
    /// # Errors
    /// What is not so. It never becomes so again: the run goes on as if the cluster had not been suspended.
    pub async fn check(&self) -> Result<(), Lost> {
        match &self.parts {
            Some(parts) => parts.check(parts.limit()).await.map_err(|error| match error {
                Error::Lost(lost) => lost,
                error => Lost::now(crate::failure::chain(&error)),
            }),
            None => Err(Lost::now("the cluster was resumed")),
        }
    }

    /// Waits until the Lease is lost.
    pub async fn lost(&self) -> Lost {
        match &self.parts {
            Some(parts) => parts.tenure.lost().await,
            None => Lost::now("the cluster was resumed"),
        }
    }

    /// Brings the cluster back, and waits until it is ready. A hold that was adopted stays.
    ///
    /// # Errors
    /// The cluster is not back: the error names the command that brings it back.
    pub async fn resume(mut self) -> Result<(), Error> {
        match self.parts.take() {
            Some(parts) => give_back(parts).await,
            None => Ok(()),
        }
    }

    /// Leaves the cluster suspended, as a hold, until somebody resumes it or the guardian's time comes.
    ///
    /// # Errors
    /// Where it is not suspended any more. It is given back then.
    pub async fn hold(mut self) -> Result<Record, Error> {
        let Some(parts) = self.parts.as_mut() else { return Err(Error::Lost(Lost::now("the cluster was resumed"))) };
        match parts.keep().await {
            Ok(()) => {}
            Err(error) => return Err(self.undo(error).await),
        }
        parts.monitor.step(Step::ReleaseLease);
        parts.tenure.release().await;
        // Not before: whoever is cut off until here is told of no hold, and so has none.
        let Some(parts) = self.parts.take() else { return Err(Error::RecordChanged) };
        if let Some(debt) = parts.debt {
            debt.settle();
        }
        Ok(parts.record)
    }

    /// Takes everything down.
    pub(super) async fn descend(&mut self) -> Result<(), Error> {
        match self.parts.as_mut() {
            Some(parts) => parts.descend().await,
            None => Ok(()),
        }
    }

    /// Takes note of what is down already, and proves that it is.
    pub(super) async fn look_around(&mut self) -> Result<(), Error> {
        match self.parts.as_mut() {
            Some(parts) => parts.look_around(parts.limit()).await,
            None => Ok(()),
        }
    }

    /// Brings the cluster back because of an error, which is returned, unless that fails, too.
    pub(super) async fn undo(mut self, because: Error) -> Error {
        let Some(parts) = self.parts.take() else { return because };
        let (command, monitor, ours) = (parts.options.command.clone(), Arc::clone(&parts.monitor), parts.ours);
        match give_back(parts).await {
            Ok(()) if ours == Ours::Held && !matches!(because, Error::RecordChanged) => {
                Error::StillHeld { source: Box::new(because), command }
            }
            Ok(()) => because,
            Err(error) => {
                monitor.warn(because.to_string());
                match error {
                    error @ Error::NotReady { .. } => error,
                    error => Error::NotResumed { source: Box::new(error), command },
                }
            }
        }
    }
}

impl Drop for Suspension {
    fn drop(&mut self) {
        if let Some(parts) = self.parts.take() {
            drop(give_back(parts));
        }
    }
}

/// Begins to bring the cluster back where nobody can cut that off: a signal drops whoever waits for it, and the process
/// waits all the same.
fn give_back(parts: Parts) -> impl Future<Output = Result<(), Error>> {
    let (sender, receiver) = oneshot::channel();
    let monitor = Arc::clone(&parts.monitor);
    farewell::start(async move {
        if let Err(Err(error)) = sender.send(parts.resume().await) {
            monitor.warn(crate::failure::chain(&error));
        }
    });
    // Without an answer it was cut off with the process, or broke down: what is owed is told at the end.
    async move { receiver.await.unwrap_or_else(|_| Err(Error::Lost(Lost::now("the way back ended early")))) }
}

impl Parts {
    fn records(&self) -> Records<'_> {
        Records(&self.cluster)
    }

    /// The order is what matters: pachd scales pachw and the workers up again as long as it runs.
    async fn descend(&mut self) -> Result<(), Error> {
        if self.options.guardian != guardian::Guard::None {
            self.monitor.step(Step::StartGuardian);
        }
        self.guardian = guardian::start(&self.cluster, &self.options, self.record.run, &self.monitor).await?;
        self.monitor.step(Step::Record);
        // From here on there is something to bring back.
        self.debt = (self.ours == Ours::All).then(|| farewell::owe(self.options.command.clone()));
        let limit = self.limit();
        let found = self.steady(limit, || self.write_down()).await?;
        self.record = found.record.clone();
        self.monitor.step(Step::Annotate);
        self.steady(limit, || self.annotate()).await?;
        self.monitor.step(Step::ScalePachd);
        let limit = self.limit();
        for name in DEPLOYMENTS.into_iter().filter(|name| *name != "pachw") {
            self.steady(limit, || self.lower(name)).await?;
        }
        self.monitor.step(Step::DrainPachd);
        drain::gone(&self.cluster, Who::Pachd, limit, &self.tenure, &*self.monitor).await?;
        self.monitor.step(Step::ScalePachw);
        self.steady(limit, || self.lower("pachw")).await?;
        self.monitor.step(Step::ScaleWorkers);
        self.steady(limit, || self.lower_workers()).await?;
        self.monitor.step(Step::DrainAll);
        drain::gone(&self.cluster, Who::All, limit, &self.tenure, &*self.monitor).await?;
        let records = self.records();
        self.record = self.steady(limit, || records.set_state(&found, State::Suspended)).await?.record;
        self.look_around(limit).await?;
        self.monitor.step(Step::Suspended);
        Ok(())
    }

    /// Makes the record; or finds that of an own hold that goes on.
    async fn write_down(&self) -> Result<Found, Error> {
        if let Some(mut found) = self.records().read().await? {
            if found.record.run != self.record.run {
                return Err(Error::RecordChanged);
            }
            found.record.deadline = self.deadline();
            return match (self.ours, found.record.state) {
                // Whatever becomes of this suspend, it stays held.
                (Ours::Held, State::Suspended) => self.records().set_state(&found, State::Suspended).await,
                (Ours::Held, _) => Err(Error::RecordChanged),
                _ => self.records().set_state(&found, State::Suspending).await,
            };
        }
        if self.ours == Ours::Held {
            // Somebody has resumed it just now.
            return Err(Error::RecordChanged);
        }
        let mut record = self.record.clone();
        let workloads = Workloads(&self.cluster);
        let deployments = workloads.deployments().await?;
        let main = super::resume::main(&deployments).map(Workload::name);
        for deployment in &deployments {
            let count = match deployment.replicas {
                0 if main == Some(deployment.name()) => self.options.resume_replicas.unwrap_or_default(),
                count => count,
            };
            record.deployments.insert(deployment.name().to_owned(), count);
        }
        for worker in workloads.workers().await? {
            record.workers.insert(worker.name().to_owned(), worker.replicas);
        }
        record.deadline = self.deadline();
        self.records().create(&record).await
    }

    async fn annotate(&self) -> Result<(), Error> {
        for deployment in Workloads(&self.cluster).deployments().await? {
            self.records().annotate(deployment.name(), &self.record).await?;
        }
        Ok(())
    }

    /// For the way down, and for a proof: a cluster that cannot be held down in that time comes back.
    fn limit(&self) -> Limit {
        Limit::begin(self.options.drain_timeout)
    }

    /// Does it again while the API server cannot be reached, as long as the Lease is not lost, and within the limit.
    async fn steady<T, F>(&self, limit: Limit, mut work: impl FnMut() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut problem = "there was no answer".to_owned();
        let again = async {
            loop {
                match work().await {
                    Err(Error::Cluster(error)) if error.is_retryable() => problem = crate::failure::chain(&error),
                    done => return done,
                }
                tokio::select! {
                    biased;
                    lost = self.tenure.lost() => return Err(Error::Lost(lost)),
                    () = tokio::time::sleep(drain::PAUSE) => {}
                }
            }
        };
        tokio::select! {
            biased;
            done = again => return done,
            () = limit.over() => {}
        }
        Err(Error::Late { after: limit.span(), problem })
    }

    /// When the hold is over, for people to read.
    fn deadline(&self) -> Option<Timestamp> {
        let hold = SignedDuration::try_from(self.options.hold?).ok()?;
        Timestamp::now().checked_add(hold).ok()
    }

    async fn look_around(&mut self, limit: Limit) -> Result<(), Error> {
        let workloads = Workloads(&self.cluster);
        let mut left = self.steady(limit, || async { Ok(workloads.deployments().await?) }).await?;
        left.extend(self.steady(limit, || async { Ok(workloads.workers().await?) }).await?);
        self.left = left;
        self.check(limit).await
    }

    /// Scales a Deployment to 0. The Lease is renewed between reading and scaling: whoever takes it over afterwards
    /// changes the Deployment before he looks at its replicas, and so makes this request fail, however late it comes.
    async fn lower(&self, name: &str) -> Result<(), Error> {
        let workloads = Workloads(&self.cluster);
        for _ in 0..ATTEMPTS {
            let Some(deployment) = workloads.deployment(name).await?.filter(|found| found.replicas > 0) else {
                return Ok(());
            };
            self.tenure.demand().await.map_err(Error::Lost)?;
            match workloads.scale(&deployment, 0, false).await {
                Ok(()) => {
                    self.tell(&deployment);
                    return Ok(());
                }
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::Lost(Lost::now(format!("somebody keeps changing Deployment {name}"))))
    }

    async fn lower_workers(&self) -> Result<(), Error> {
        let workloads = Workloads(&self.cluster);
        for _ in 0..ATTEMPTS {
            let up: Vec<Workload> =
                workloads.workers().await?.into_iter().filter(|worker| worker.replicas > 0).collect();
            if up.is_empty() {
                return Ok(());
            }
            for batch in up.chunks(BATCH) {
                self.tenure.demand().await.map_err(Error::Lost)?;
                // Side by side: the pause has to wait for each.
                let asked = batch.iter().map(|worker| async move { (worker, workloads.scale(worker, 0, false).await) });
                let mut failed = None;
                for (worker, scaled) in join_all(asked).await {
                    match scaled {
                        Ok(()) => self.tell(worker),
                        // The next list tells what is there now.
                        Err(error) if error.is_conflict() || error.is_not_found() => {}
                        Err(error) => failed = failed.or(Some(error)),
                    }
                }
                if let Some(error) = failed {
                    return Err(error.into());
                }
            }
        }
        Err(Error::Lost(Lost::now("somebody keeps changing the workers' ReplicationControllers")))
    }

    fn tell(&self, workload: &Workload) {
        let kind = match workload.kind {
            Kind::Deployment => "Deployment",
            Kind::Worker => "ReplicationController",
        };
        let (kind, name, from) = (kind.to_owned(), workload.name().to_owned(), workload.replicas);
        self.monitor.event(Event::Scaled { kind, name, from, to: 0 });
    }

    async fn check(&self, limit: Limit) -> Result<(), Error> {
        self.steady(limit, || self.see()).await
    }

    /// Whether the Lease is ours, everything is as it was left, and nothing runs.
    async fn see(&self) -> Result<(), Error> {
        self.tenure.demand().await.map_err(Error::Lost)?;
        let workloads = Workloads(&self.cluster);
        let mut now = workloads.deployments().await?;
        now.extend(workloads.workers().await?);
        compare(&self.left, &now).map_err(Error::Lost)?;
        let pods = drain::running(&self.cluster, Who::All).await?;
        if !pods.is_empty() {
            return Err(Error::Lost(Lost::now(format!("there are pods again: {}", drain::pods(&pods)))));
        }
        Ok(())
    }

    async fn resume(mut self) -> Result<(), Error> {
        drop(self.guardian.take());
        if self.ours != Ours::All {
            self.tenure.release().await;
            return Ok(());
        }
        self.monitor.phase(Phase::Resume);
        let run = self.record.run;
        let returning = Return::new(&self.cluster, &self.options, &*self.monitor);
        // The Lease may be lost, and we not know it yet.
        let proved = tokio::time::timeout(returning.brief(), self.tenure.demand()).await;
        let has_lease = match proved {
            Ok(Ok(())) => true,
            Ok(Err(_)) => {
                let lease = || Tenure::begin(&self.cluster, &self.holder, self.options.lease_duration, false);
                match returning.insist(lease).await {
                    Ok(tenure) => {
                        self.tenure = tenure;
                        true
                    }
                    // The guardian, or somebody with --force, is bringing it back already.
                    Err(Error::Busy { holder }) => {
                        self.monitor.warn(format!("{holder} resumes the cluster"));
                        returning.returned(run, &self.record).await?;
                        return self.settle().await;
                    }
                    // Nobody is seen to have it, and nothing is scaled down on the way up.
                    Err(error) => {
                        returning.do_without(&error);
                        false
                    }
                }
            }
            // It may still be ours.
            Err(_) => false,
        };
        match returning.find(run, &self.record, self.debt.is_some()).await? {
            Some((found, again)) => {
                returning.bring_back(found, By { name: &self.holder, has_lease, again }).await?;
            }
            None => tracing::info!("there is nothing to resume"),
        }
        returning.dismiss_guardian(run).await;
        guardian::dismiss(&self.cluster, &self.options, run).await;
        self.settle().await
    }

    async fn settle(self) -> Result<(), Error> {
        // The cluster is back, however long it takes to give the Lease back.
        let was_owed = self.debt.is_some();
        if let Some(debt) = self.debt {
            debt.settle();
        }
        self.monitor.step(Step::ReleaseLease);
        self.tenure.release().await;
        if was_owed {
            self.monitor.step(Step::Resumed);
        }
        Ok(())
    }

    /// Makes a hold of it: one last proof, and the record says so.
    async fn keep(&mut self) -> Result<(), Error> {
        let limit = self.limit();
        self.check(limit).await?;
        drop(self.guardian.take());
        if self.record.kind == super::record::Kind::Run {
            let Some(mut found) = self.records().read().await? else { return Err(Error::RecordChanged) };
            if found.record.run != self.record.run {
                return Err(Error::RecordChanged);
            }
            found.record.kind = super::record::Kind::Hold;
            let records = self.records();
            self.record = self.steady(limit, || records.set_state(&found, State::Suspended)).await?.record;
        }
        Ok(())
    }
}

/// Whether everything is as it was left.
fn compare(left: &[Workload], now: &[Workload]) -> Result<(), Lost> {
    for before in left {
        let same = now.iter().find(|after| after.meta.uid == before.meta.uid);
        let Some(after) = same else {
            return Err(Lost::now(format!("somebody deleted or replaced {}", before.title())));
        };
        if after.replicas != 0 {
            return Err(Lost::now(format!("somebody scaled {} to {}", after.title(), after.replicas)));
        }
        if after.generation() != before.generation() {
            return Err(Lost::now(format!("somebody changed {}", after.title())));
        }
    }
    match now.iter().find(|after| left.iter().all(|before| before.meta.uid != after.meta.uid)) {
        Some(new) => Err(Lost::now(format!("somebody made {}", new.title()))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
