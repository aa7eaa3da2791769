//! Bringing a cluster to a halt, and back: no cluster is ever left down.
//!
//! Four objects tell what is going on. The ConfigMap `pacharc-suspended` is the *record*: what there was, whose it is, and
//! its state. An annotation of each Deployment repeats it. The Lease `pacharc` says who may scale; the Lease
//! `pacharc-guardian`, whether a guardian lives. The record is there from before the first scale-down until after pachd is
//! ready again; so whoever finds one, resumes by it.
//!
//! ```text
//!                 record made           no pod left           scaling up           pachd ready
//!    running ──────────────► suspending ──────────► suspended ─────────► resuming ───────────► running
//!                                │        drain timeout, signal, Lease lost   ▲
//!                                └────────────────────────────────────────────┘
//! ```
//!
//! - *Down* may scale only who holds the Lease, has renewed it between reading an object and scaling it, and found it
//!   unchanged: the scale request names the version that was read. Who lost the Lease never scales down again.
//! - *Up* may scale who holds the Lease: the run itself; its guardian, when the Lease stood still for its duration; or
//!   `pacharc resume`. Each first changes every Deployment (the *fence*), so that scale requests that are still on their
//!   way from a former holder fail. Nothing is scaled down on the way up, and each step may be repeated; so where the Lease
//!   can be neither had nor seen to be renewed, it is done without, and repeated until pachd is ready.
//! - A *run* suspends for a while, with a guardian. A *hold* (`pacharc suspend`) stays without Lease until `pacharc
//!   resume`; with a limit it has a guardian, which counts down on its own clock.
//!
//! What happens when a step is cut off is a table in `docs/suspend.md`; the tests cut at every step.

pub(crate) mod clock;
mod drain;
mod error;
#[cfg(test)]
pub(crate) mod faulty;
pub mod gitops;
pub mod guardian;
mod lease;
mod record;
mod resume;
pub mod rights;
mod status;
mod suspension;
mod tenure;
mod workloads;

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::cluster::Cluster;
use crate::monitor::{Monitor, Phase, Step};
use drain::Who;
use record::{Found, Records};
use suspension::Ours;
use tenure::Tenure;
use workloads::Workloads;

pub use drain::Pods;
pub use error::Error;
pub use lease::{DURATION as LEASE_DURATION, GUARDIAN as GUARDIAN_LEASE, RUN as RUN_LEASE};
pub use record::{Kind, NAME as RECORD_NAME, Record, State};
pub use resume::{Resumed, resume};
pub use status::{Condition, Holder, Scale, Status, status};
pub use suspension::Suspension;
pub use tenure::Lost;
pub use workloads::DEPLOYMENTS as DEPLOYMENT_NAMES;

/// How long pods may take to end, where nothing else is said.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(300);

/// How long pachd may take to become ready, where nothing else is said: it migrates, and reads its whole bucket's set-up.
pub const READY_TIMEOUT: Duration = Duration::from_secs(600);

/// How a cluster is suspended and resumed.
#[derive(Clone, Debug)]
pub struct Options {
    /// Who does it: `user@host`.
    pub owner: String,
    /// For one run, or until it is resumed.
    pub kind: Kind,
    /// How long a hold may last; then its guardian resumes.
    pub hold: Option<Duration>,
    /// How long pods may take to end.
    pub drain_timeout: Duration,
    /// How long pachd may take to become ready; as long, an API server that does not answer is asked again.
    pub ready_timeout: Duration,
    /// How many replicas of pachd there shall be where it is down and nothing is recorded.
    pub resume_replicas: Option<i32>,
    /// Go on where Argo CD, Flux or KEDA may scale up again.
    pub ignore_gitops: bool,
    /// Who resumes if this run cannot.
    pub guardian: guardian::Guard,
    /// How a guardian on this machine finds the cluster.
    pub way: guardian::Way,
    /// How long a Lease that is not renewed lives.
    pub lease_duration: Duration,
    /// The exact command that resumes, for messages.
    pub command: String,
}

/// This user on this machine: `user@host`.
#[must_use]
pub fn owner() -> String {
    let known = |name: Result<String, whoami::Error>| name.unwrap_or_else(|_| "unknown".to_owned());
    format!("{}@{}", known(whoami::username()), known(whoami::hostname()))
}

/// The command that resumes, for whoever reads it elsewhere: on another machine he is not the owner.
#[must_use]
pub fn from_anywhere(command: &str) -> String {
    format!("{command} --force")
}

/// Suspends a cluster that runs; a hold of the same owner that was cut off is continued with its own record.
///
/// # Errors
/// A right that is missing; nothing to suspend; suspended already; somebody else is at work; something would undo it; the
/// guardian does not prove itself; pods that do not end in time. Whatever was scaled is brought back first; where that
/// failed, the error's class is [`crate::failure::Class::Suspended`], and its advice ends with the command that resumes.
pub async fn suspend(cluster: &Cluster, options: Options, monitor: Arc<dyn Monitor>) -> Result<Suspension, Error> {
    monitor.phase(Phase::Suspend);
    rights::require_to_suspend(cluster, &options.guardian).await?;
    if options.kind == Kind::Hold {
        // A run was told when it looked.
        rights::warn_of_the_unseen(cluster, &*monitor).await?;
    }
    let found = to_continue(cluster, &options).await?;
    check(cluster, &options, found.is_some()).await?;
    let is_held = found.as_ref().is_some_and(is_held);
    let run = found.map_or_else(Uuid::new_v4, |found| found.record.run);
    let ours = if is_held { Ours::Held } else { Ours::All };
    let mut suspension = begin(cluster, options, Record::new, run, ours, monitor).await?;
    match suspension.descend().await {
        Ok(()) => Ok(suspension),
        Err(error) => Err(suspension.undo(error).await),
    }
}

/// Who holds the cluster suspended, whom a run may rely on; `None` where it runs.
///
/// # Errors
/// What [`suspend`] would refuse already, before anything is done: a right that is missing, nothing to suspend, suspended by
/// another run, something that would undo it. Kubernetes' own.
pub async fn look(cluster: &Cluster, options: &Options, monitor: &dyn Monitor) -> Result<Option<Record>, Error> {
    rights::require_to_suspend(cluster, &options.guardian).await?;
    rights::warn_of_the_unseen(cluster, monitor).await?;
    if let Some(found) = Records(cluster).read().await?
        && is_held(&found)
    {
        return Ok(Some(found.record));
    }
    let found = to_continue(cluster, options).await?;
    check(cluster, options, found.is_some()).await?;
    Ok(None)
}

/// The hold of a cluster that is down, if there is one.
///
/// # Errors
/// Kubernetes' own, or a record that cannot be read.
pub async fn held(cluster: &Cluster) -> Result<Option<Record>, Error> {
    Ok(Records(cluster).read().await?.filter(is_held).map(|found| found.record))
}

fn is_held(found: &Found) -> bool {
    found.record.kind == Kind::Hold && found.record.state == State::Suspended
}

/// Uses a hold for the time of a run, and leaves it: [`Suspension::resume`] gives back the Lease alone.
///
/// # Errors
/// A right that is missing; there is no hold, or something runs; somebody else is at work.
pub async fn adopt(cluster: &Cluster, options: Options, monitor: Arc<dyn Monitor>) -> Result<Suspension, Error> {
    rights::require_to_suspend(cluster, &guardian::Guard::None).await?;
    let Some(found) = Records(cluster).read().await?.filter(is_held) else {
        return Err(Error::Lost(Lost::now("there is no hold")));
    };
    let record = |_: Uuid, _: &str, _: Kind| found.record.clone();
    let mut suspension = begin(cluster, options, record, Uuid::new_v4(), Ours::Lease, monitor).await?;
    match suspension.look_around().await {
        Ok(()) => Ok(suspension),
        Err(error) => Err(suspension.undo(error).await),
    }
}

async fn begin(
    cluster: &Cluster,
    options: Options,
    record: impl FnOnce(Uuid, &str, Kind) -> Record,
    run: Uuid,
    ours: Ours,
    monitor: Arc<dyn Monitor>,
) -> Result<Suspension, Error> {
    monitor.step(Step::TakeLease);
    // Not the run's own number: a hold that is continued by two at once must have one holder.
    let holder = format!("{}/{}", options.owner, Uuid::new_v4());
    let tenure = Tenure::begin(cluster, &holder, options.lease_duration, false).await?;
    Ok(Suspension::new(suspension::Parts {
        cluster: cluster.clone(),
        record: record(run, &options.owner, options.kind),
        options: Arc::new(options),
        monitor,
        holder,
        tenure,
        guardian: None,
        ours,
        left: Vec::new(),
        debt: None,
    }))
}

/// The record of an own hold, which this suspend goes on with; an error where somebody else has suspended.
async fn to_continue(cluster: &Cluster, options: &Options) -> Result<Option<Found>, Error> {
    let Some(found) = Records(cluster).read().await? else { return Ok(None) };
    let record = &found.record;
    let is_own = record.kind == Kind::Hold && options.kind == Kind::Hold && record.owner == options.owner;
    if is_own {
        return Ok(Some(found));
    }
    Err(Error::Suspended { owner: record.owner.clone(), since: record.since, command: options.command.clone() })
}

/// Whether there is something to suspend, and nothing that would undo it.
async fn check(cluster: &Cluster, options: &Options, continued: bool) -> Result<(), Error> {
    let deployments = Workloads(cluster).deployments().await?;
    let main = resume::main(&deployments).ok_or_else(|| resume::nothing(cluster))?;
    if main.replicas == 0 && !continued && options.resume_replicas.is_none() {
        return Err(resume::down(main.name(), &options.command, false));
    }
    let keepers = gitops::keepers(cluster, &deployments).await?;
    if keepers.is_empty() || options.ignore_gitops { Ok(()) } else { Err(Error::Kept(keepers)) }
}

/// What was recorded when the cluster was suspended; `None` where it is not.
///
/// # Errors
/// A record that cannot be read; Kubernetes'.
pub async fn recorded(cluster: &Cluster) -> Result<Option<Record>, Error> {
    Ok(Records(cluster).read().await?.map(|found| found.record))
}

/// The pods in the namespace that write, by name.
///
/// # Errors
/// Kubernetes'.
pub async fn writers(cluster: &Cluster) -> Result<Pods, Error> {
    Ok(drain::pods(&drain::running(cluster, Who::All).await?))
}
