//! The guardian: what resumes a suspended cluster if the run that suspended it no longer can.
//!
//! It is a second pacharc, as a process on this machine or as a Job in the cluster. Nothing is scaled before it has
//! proved itself, by taking the Lease `pacharc-guardian` after all that it may have to do was accepted as a dry run; by
//! renewing that Lease it shows that it lives.

mod job;
mod process;
mod watch;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::clock::{Stillness, boottime};
use super::lease::{self, Store};
use super::{Error, Options};
use crate::cluster::Cluster;
use crate::monitor::Monitor;

pub use job::{ACCOUNT, Job, rules};
pub use watch::{End, Watch, watch};

/// The annotation of the guardian's Lease that names the run it guards.
pub(super) const RUN: &str = "pacharc/run";

/// The annotation that says what kind of guardian it is.
pub(super) const KIND: &str = "pacharc/kind";

/// The annotation that says how many seconds of a hold are left: a guardian that takes its place goes on from there.
const LEFT: &str = "pacharc/left";

/// The annotation that names the command that asked for the guardian: what is left of another one's time does not count.
const ASKED: &str = "pacharc/asked";

/// How long a guardian may take to prove itself: a Job's image has to be pulled.
const PROOF: Duration = Duration::from_secs(120);

/// Between two looks for the proof.
const LOOK: Duration = Duration::from_millis(200);

/// Who guards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guard {
    /// A Job in the cluster: it survives the loss of this machine.
    Job(Job),
    /// A process on this machine, in a session of its own.
    Process,
    /// Nobody.
    None,
}

impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Job(_) => "job",
            Self::Process => "process",
            Self::None => "none",
        })
    }
}

/// The way of a process to the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Way {
    /// The kubeconfig's context.
    pub context: Option<String>,
    /// The kubeconfig.
    pub kubeconfig: Option<PathBuf>,
    /// What is trusted besides.
    pub ca_file: Option<PathBuf>,
}

/// What the guardian's command line says, but for the way to the cluster.
fn arguments(cluster: &Cluster, options: &Options, run: Uuid, asked: Uuid, kind: &Guard) -> Vec<String> {
    let mut args = vec![
        "guardian".to_owned(),
        format!("--namespace={}", cluster.namespace()),
        format!("--run={run}"),
        format!("--asked={asked}"),
        format!("--kind={kind}"),
        format!("--lease-duration={}s", options.lease_duration.as_secs()),
        format!("--ready-timeout={}s", options.ready_timeout.as_secs()),
    ];
    args.extend(options.hold.map(|hold| format!("--for={}s", hold.as_secs())));
    args
}

/// Whether a Lease is that of a guardian of this run.
pub(super) fn is_of(lease: &Lease, run: Uuid) -> bool {
    lease::annotation(lease, RUN) == Some(&run.to_string())
}

/// What is left of a hold, as its guardian says.
pub(super) fn left(lease: &Lease) -> Option<Duration> {
    lease::annotation(lease, LEFT)?.parse().ok().map(Duration::from_secs)
}

/// Starts a guardian, and waits until it has proved itself.
pub(super) async fn start(
    cluster: &Cluster,
    options: &Arc<Options>,
    run: Uuid,
    monitor: &Arc<dyn Monitor>,
) -> Result<Option<Sentry>, Error> {
    let asked = Uuid::new_v4();
    begin(cluster, options, run, asked).await?;
    match &options.guardian {
        Guard::None => return Ok(None),
        Guard::Job(_) => {}
        Guard::Process => monitor.warn(
            "the guardian is a process on this machine: if the machine is lost while the cluster is suspended, nobody \
             resumes it (a guardian with --guardian-image survives)"
                .to_owned(),
        ),
    }
    let (cluster, options, monitor) = (cluster.clone(), Arc::clone(options), Arc::clone(monitor));
    Ok(Some(Sentry(tokio::spawn(async move { keep(&cluster, &options, run, asked, &*monitor).await }))))
}

async fn begin(cluster: &Cluster, options: &Options, run: Uuid, asked: Uuid) -> Result<(), Error> {
    let mut process = None;
    let args = arguments(cluster, options, run, asked, &options.guardian);
    let old = Store::new(cluster, lease::GUARDIAN).read().await?;
    match &options.guardian {
        Guard::None => return Ok(()),
        Guard::Process => process = Some(process::spawn(args, &options.way)?),
        Guard::Job(job) => job::create(cluster, job, run, args).await?,
    }
    let end = boottime() + PROOF;
    loop {
        let now = Store::new(cluster, lease::GUARDIAN).read().await?;
        let is_new = |now: &Lease| old.as_ref().and_then(lease::holder) != lease::holder(now);
        if now.is_some_and(|now| is_of(&now, run) && is_new(&now)) {
            return Ok(());
        }
        if let Some(status) = process.as_mut().and_then(|process| process.try_wait().ok().flatten()) {
            return Err(Error::Guardian { problem: format!("its process has ended ({status})") });
        }
        if boottime() > end {
            return Err(Error::Guardian { problem: format!("not within {} s", PROOF.as_secs()) });
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Removes what was made for a guardian in the cluster.
pub(super) async fn dismiss(cluster: &Cluster, options: &Options, run: Uuid) {
    if matches!(options.guardian, Guard::Job(_)) {
        job::remove(cluster, run).await;
    }
}

/// Watches the guardian; its end is the guardian's own affair.
pub(super) struct Sentry(JoinHandle<()>);

impl Drop for Sentry {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Starts another guardian when the one there is has not renewed its Lease for its duration.
async fn keep(cluster: &Cluster, options: &Options, run: Uuid, asked: Uuid, monitor: &dyn Monitor) {
    let store = Store::new(cluster, lease::GUARDIAN);
    let mut seen = Stillness::default();
    loop {
        tokio::time::sleep(lease::interval(options.lease_duration)).await;
        let Ok(found) = store.read().await else { continue };
        let version = found.as_ref().map(lease::version).unwrap_or_default();
        if seen.observe(version) < options.lease_duration {
            continue;
        }
        monitor.warn("the guardian is gone: starting another one".to_owned());
        if let Err(error) = begin(cluster, options, run, asked).await {
            monitor.warn(format!("there is no guardian now: {}", crate::failure::chain(&error)));
        }
        seen = Stillness::default();
    }
}
