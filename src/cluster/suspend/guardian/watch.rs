//! What a guardian does: it watches, and brings the cluster back when the Lease is renewed no more, or its time comes.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use serde::Serialize;
use uuid::Uuid;

use super::super::clock::{Stillness, boottime};
use super::super::lease::{self, Store};
use super::super::record::{Found, Records, State};
use super::super::resume::{By, Return};
use super::super::tenure::Tenure;
use super::super::workloads::Workloads;
use super::super::{Error, Options, is_held};
use super::{ASKED, LEFT, RUN, is_of, left, process};
use crate::cluster::{self, Cluster};
use crate::monitor::{Monitor, Phase, Step};

/// In place of the version of a Lease that cannot be read.
const UNSEEN: &str = "unseen";

/// What it guards.
#[derive(Clone, Debug)]
pub struct Watch {
    /// The run.
    pub run: Uuid,
    /// The command that asked for it.
    pub asked: Option<Uuid>,
    /// `job` or `process`.
    pub kind: String,
}

/// How a guardian ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// The cluster was brought back by others, or is a hold that needs no guardian.
    NotNeeded,
    /// Another guardian took its place.
    Replaced,
    /// It brought the cluster back.
    Resumed,
}

/// Guards a run to its end. `options.hold` is how long a hold may last.
///
/// # Errors
/// It may not do what it would have to; or what it brought back does not become ready.
pub async fn watch(cluster: &Cluster, watch: &Watch, options: &Options, monitor: &dyn Monitor) -> Result<End, Error> {
    process::leave_session();
    monitor.phase(Phase::Guard);
    let me = format!("{} guardian of {}/{}", watch.kind, watch.run, Uuid::new_v4());
    try_everything(cluster).await?;
    let mut life = Life::begin(cluster, watch, options, &me).await?;
    let mut guardian = Guardian {
        cluster,
        options,
        monitor,
        run: watch.run,
        me: &me,
        watched: Store::new(cluster, lease::RUN),
        seen: Stillness::default(),
        refused: Stillness::default(),
        deadline: life.deadline,
    };
    let end = tokio::select! {
        end = guardian.run() => end,
        () = life.keep() => return Ok(End::Replaced),
    };
    if let Err(error) = life.store.release(&me).await {
        tracing::info!("the guardian's Lease is left: {error}");
    }
    end
}

/// Asks for everything that a guardian may have to do, without doing it.
async fn try_everything(cluster: &Cluster) -> Result<(), Error> {
    let workloads = Workloads(cluster);
    Store::new(cluster, lease::RUN).read().await?;
    Records(cluster).read().await?;
    for deployment in workloads.deployments().await? {
        match workloads.scale(&deployment, deployment.replicas, true).await {
            // Somebody else changed it just now, so scaling was allowed.
            Err(error) if !error.is_conflict() => return Err(error.into()),
            _ => {}
        }
        Records(cluster).try_patch(deployment.name()).await?;
    }
    Ok(())
}

/// The Lease by which a guardian shows that it lives.
struct Life {
    store: Store,
    lease: Lease,
    me: String,
    interval: Duration,
    /// When the hold is over, on this machine's clock.
    deadline: Option<Duration>,
}

impl Life {
    /// Takes the Lease from whoever was the guardian before.
    async fn begin(cluster: &Cluster, watch: &Watch, options: &Options, me: &str) -> Result<Self, Error> {
        let store = Store::new(cluster, lease::GUARDIAN);
        let mut annotations: BTreeMap<String, String> =
            [(RUN.to_owned(), watch.run.to_string()), (super::KIND.to_owned(), watch.kind.clone())].into();
        let asked = watch.asked.map(|asked| asked.to_string());
        annotations.extend(asked.clone().map(|asked| (ASKED.to_owned(), asked)));
        let mut hold = options.hold;
        loop {
            let before = store.read().await?;
            // A guardian that follows another one of the same suspend goes on with what is left of the hold.
            let is_same =
                |before: &&Lease| is_of(before, watch.run) && lease::annotation(before, ASKED) == asked.as_deref();
            if let Some(before) = before.as_ref().filter(is_same) {
                hold = left(before).or(hold);
            }
            annotations.extend(hold.map(|hold| (LEFT.to_owned(), hold.as_secs().to_string())));
            let taken = match before {
                None => store.create(me, options.lease_duration, annotations.clone()).await,
                Some(mut before) => {
                    before.metadata.annotations = Some(annotations.clone());
                    store.take(&before, me, options.lease_duration).await
                }
            };
            let lease = match taken {
                Ok(lease) => lease,
                Err(error) if error.is_conflict() || error.is_not_found() => continue,
                Err(error) => return Err(error.into()),
            };
            let (me, interval) = (me.to_owned(), lease::interval(options.lease_duration));
            return Ok(Self { store, lease, me, interval, deadline: hold.map(|hold| boottime() + hold) });
        }
    }

    /// Renews the Lease until another guardian takes it.
    async fn keep(&mut self) {
        loop {
            tokio::time::sleep(self.interval).await;
            if let Some(deadline) = self.deadline {
                let left = deadline.saturating_sub(boottime()).as_secs().to_string();
                self.lease.metadata.annotations.get_or_insert_default().insert(LEFT.to_owned(), left);
            }
            match self.store.renew(&self.lease).await {
                Ok(lease) => self.lease = lease,
                Err(error) if error.is_conflict() => match self.store.read().await {
                    // A renewal whose answer did not arrive.
                    Ok(Some(lease)) if lease::holder(&lease) == Some(&self.me) => self.lease = lease,
                    Ok(Some(_)) => return,
                    _ => {}
                },
                // Whoever removed it believes that the run is over; the record tells.
                Err(error) => tracing::debug!("{}", crate::failure::chain(&error)),
            }
        }
    }
}

/// Whether the holder of a Lease was bringing the cluster back: what a resume or a guardian began must be ended.
fn was_on_the_way_back(lease: &Lease) -> bool {
    lease::holder(lease).is_some_and(|holder| holder.contains("/resume-") || holder.contains(" guardian of "))
}

struct Guardian<'a> {
    cluster: &'a Cluster,
    options: &'a Options,
    monitor: &'a dyn Monitor,
    run: Uuid,
    /// Its name as a holder.
    me: &'a str,
    /// The Lease that it watches.
    watched: Store,
    seen: Stillness,
    /// The version of the Lease that it may take over, and cannot.
    refused: Stillness,
    /// When the hold is over, on this machine's clock.
    deadline: Option<Duration>,
}

/// What the watched Lease says.
enum Sign {
    /// Somebody lives who brings the cluster back, or it is held.
    Wait,
    /// Nobody has the Lease, or has renewed it, or the time is over.
    Act(Option<Box<Lease>>),
    /// There is nothing to guard any more.
    Done,
    /// Another guardian has taken its place.
    Replaced,
}

impl Guardian<'_> {
    async fn run(&mut self) -> Result<End, Error> {
        loop {
            tokio::time::sleep(lease::glance(self.options.lease_duration)).await;
            match self.look().await {
                Ok(Sign::Wait) => {}
                Ok(Sign::Done) => return Ok(End::NotNeeded),
                Ok(Sign::Replaced) => return Ok(End::Replaced),
                Ok(Sign::Act(stale)) => match self.act(stale).await? {
                    Some(end) => return Ok(end),
                    None => self.seen = Stillness::default(),
                },
                Err(error) => tracing::debug!("{}", crate::failure::chain(&error)),
            }
        }
    }

    async fn look(&mut self) -> Result<Sign, Error> {
        let is_over = self.deadline.is_some_and(|deadline| boottime() >= deadline);
        let lease = match self.watched.read().await {
            Ok(lease) => lease,
            Err(error) => return self.look_without(error, is_over).await,
        };
        let Some(lease) = lease else {
            return Ok(match self.record().await? {
                None => Sign::Done,
                Some(found) if is_held(&found) && !self.has_time(&found) => Sign::Done,
                Some(found) if is_held(&found) && !is_over => Sign::Wait,
                Some(_) if self.is_replaced().await? => Sign::Replaced,
                Some(_) => Sign::Act(None),
            });
        };
        let still = self.seen.observe(lease::version(&lease));
        let is_still = still >= lease::duration_of(&lease);
        if !is_over && !is_still {
            return Ok(Sign::Wait);
        }
        if self.is_replaced().await? {
            return Ok(Sign::Replaced);
        }
        let held = self.record().await?.filter(is_held);
        // A later suspend may have asked for another time, or for none: then this one's says nothing any more.
        let is_over = is_over && held.as_ref().is_none_or(|found| self.has_time(found));
        if is_over {
            return Ok(Sign::Act(Some(Box::new(lease))));
        }
        if !is_still {
            return Ok(Sign::Wait);
        }
        if let Some(found) = held.filter(|_| !was_on_the_way_back(&lease)) {
            // Somebody who used the hold was killed, or could not give the Lease back: that does not end the hold.
            self.watched.discard(&lease).await?;
            self.seen = Stillness::default();
            return Ok(if self.has_time(&found) { Sign::Wait } else { Sign::Done });
        }
        Ok(Sign::Act(Some(Box::new(lease))))
    }

    /// Where the Lease cannot be read, and the record can, nobody is seen to live: as with a Lease that stands still.
    async fn look_without(&mut self, error: cluster::Error, is_over: bool) -> Result<Sign, Error> {
        let Some(found) = self.record().await? else { return Err(error.into()) };
        let is_still = self.seen.observe(UNSEEN) >= self.options.lease_duration;
        let is_kept = is_held(&found) && !(is_over && self.has_time(&found));
        Ok(if is_still && !is_kept { Sign::Act(None) } else { Sign::Wait })
    }

    /// Whether the hold ends by itself: its guardian has a time, and no later suspend has taken that away.
    fn has_time(&self, found: &Found) -> bool {
        self.deadline.is_some() && found.record.deadline.is_some()
    }

    /// Whether another guardian of the run has taken its place; it would learn that with its next renewal.
    async fn is_replaced(&self) -> Result<bool, Error> {
        let guardian = Store::new(self.cluster, lease::GUARDIAN).read().await?;
        let other = guardian.filter(|lease| is_of(lease, self.run) && lease::holder(lease) != Some(self.me));
        Ok(other.is_some())
    }

    /// The record of the run, if there is one.
    async fn record(&self) -> Result<Option<Found>, Error> {
        let found = Records(self.cluster).read().await?;
        Ok(found.filter(|found| found.record.run == self.run))
    }

    /// Takes the Lease over, and brings the cluster back. `None`: somebody else has the Lease, or may have it.
    async fn act(&mut self, stale: Option<Box<Lease>>) -> Result<Option<End>, Error> {
        self.monitor.step(Step::TakeLease);
        let (duration, before) = (self.options.lease_duration, version(stale.as_deref()));
        let returning = Return::new(self.cluster, self.options, self.monitor);
        let tenure = match Tenure::take_over(self.cluster, stale.as_deref(), self.me, duration).await {
            Ok(tenure) => Some(tenure),
            Err(error) => {
                let is_written = (error.is_conflict() || error.is_not_found()) && self.watched.read().await.is_ok();
                // Somebody has it now, or the server is gone, perhaps: back to watching. A Lease that stands still for its
                // duration once more has nobody: that it cannot be taken is no reason to leave the cluster down.
                if is_written || self.refused.observe(&before) < duration {
                    tracing::info!("{}", crate::failure::chain(&error));
                    return Ok(None);
                }
                returning.do_without(&Error::from(error));
                None
            }
        };
        self.monitor.phase(Phase::Resume);
        let end = loop {
            if tenure.is_none() && self.has_moved(&before).await {
                break Ok(None);
            }
            let done = match self.record().await {
                Ok(None) => break Ok(Some(End::NotNeeded)),
                Ok(Some(found)) => {
                    let again = found.record.state == State::Resuming;
                    returning.bring_back(found, By { name: self.me, has_lease: tenure.is_some(), again }).await
                }
                Err(error) => Err(error),
            };
            match done {
                Ok(()) => break Ok(Some(End::Resumed)),
                // Scaled up is all that it can do about these.
                Err(error @ (Error::NotReady { .. } | Error::Missing { .. })) => break Err(error),
                Err(_) if tenure.as_ref().is_some_and(Tenure::is_lost) => break Ok(None),
                Err(error) => {
                    tracing::warn!("{}", crate::failure::chain(&error));
                    tokio::time::sleep(lease::interval(duration)).await;
                }
            }
        };
        if let Some(tenure) = tenure {
            self.monitor.step(Step::ReleaseLease);
            tenure.release().await;
        }
        end
    }

    /// Whether the Lease is seen to be another than the one that it could not take over.
    async fn has_moved(&self, before: &str) -> bool {
        self.watched.read().await.is_ok_and(|lease| version(lease.as_ref()) != before)
    }
}

/// What tells one state of the Lease from another; nothing where there is none, or it cannot be seen.
fn version(lease: Option<&Lease>) -> String {
    lease.map(lease::version).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests;
