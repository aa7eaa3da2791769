//! A backup that is run by a Job in the cluster, and followed from here: nothing of the data comes through this machine or
//! through the API server.
//!
//! The Job is the one that `deploy/chart` describes. Its log has both the events of the run, as JSON lines, and what it
//! tells people; both are passed on, and so is its exit code. What was made is removed in the end, whatever that is; what
//! becomes of it where this process is killed is Kubernetes' affair: the Job goes on to its end, and is removed a day later.

mod error;
mod follow;
mod manifest;
mod pod;

use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Secret as SecretObject, ServiceAccount};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;
use uuid::Uuid;

use super::permissions::{self, Right};
use super::{Cluster, Error as ClusterError};
use crate::interrupt::Interrupt;
use crate::monitor::Monitor;
use crate::secret::Secret;

pub use error::Error;
pub use manifest::manifest;

/// The account of a backup: `deploy/rbac/backup.yaml`.
pub const ACCOUNT: &str = "pacharc-backup";

/// Where a claim is mounted, where nothing else is said.
pub const CLAIM_PATH: &str = "/bundles";

/// How long the pod may take to run, where nothing else is said: its image is pulled, its volume made.
pub const START_TIMEOUT: Duration = Duration::from_secs(300);

/// How long the pod has to end when it is asked to: time to take back what is half done, and to scale a suspended cluster
/// up.
pub const GRACE: Duration = Duration::from_secs(120);

/// What is asked of the API server in any case.
pub const RIGHTS: &[Right] = &[
    Right::new("batch", "jobs", "create"),
    Right::new("batch", "jobs", "delete"),
    Right::new("", "pods", "list"),
    Right::new("", "pods", "get").on("log"),
];

/// And where a server is named: its URL lies in a Secret, which goes with the Job.
pub const SECRET_RIGHTS: &[Right] = &[Right::new("batch", "jobs", "patch"), Right::new("", "secrets", "create")];

/// How the Job is made.
#[derive(Clone, Debug)]
pub struct Options {
    /// The image, with pacharc and pg_dump in its path.
    pub image: String,
    /// The arguments of `pacharc`.
    pub arguments: Vec<String>,
    /// Environment that nobody but the Job is to see.
    pub secrets: Vec<(String, Secret)>,
    /// Secrets of the namespace whose keys become environment.
    pub env_from: Vec<String>,
    /// Secrets of the namespace that the image is pulled with.
    pub pull_secrets: Vec<String>,
    /// The ServiceAccount.
    pub account: String,
    /// The claim that the bundle goes to, and where it is mounted.
    pub claim: Option<(String, String)>,
    /// Annotations of the pod.
    pub annotations: Vec<(String, String)>,
    /// How long the pod may take to run.
    pub start_timeout: Duration,
    /// What brings the cluster back that the run suspends; `None` where it suspends none.
    pub resume: Option<String>,
}

/// Makes the Job, follows it to its end, removes it, and returns its exit code.
///
/// # Errors
/// A right that is missing; a pod that does not start, or was killed; an API server that can no longer be reached (the Job
/// goes on then). Where `interrupt` comes, the Job is asked to end, and that is waited for.
pub async fn run(
    cluster: &Cluster,
    options: &Options,
    interrupt: &Interrupt,
    monitor: &dyn Monitor,
) -> Result<u8, Error> {
    let begun = interrupt.guard(async {
        permissions::require(cluster, RIGHTS).await?;
        if !options.secrets.is_empty() {
            permissions::require(cluster, SECRET_RIGHTS).await?;
        }
        check_account(cluster, &options.account).await
    });
    begun.await?;
    let errand = Errand { cluster, name: start(cluster, options, monitor).await? };
    let followed = follow::follow(&errand, options, interrupt, monitor).await;
    match &followed {
        // It goes on without us.
        Err(Error::OutOfSight { .. } | Error::Ending { .. }) => {}
        _ => errand.remove(monitor).await,
    }
    followed
}

/// A Job that was made.
struct Errand<'a> {
    cluster: &'a Cluster,
    name: String,
}

impl Errand<'_> {
    /// Asks it to end: its pod is sent SIGTERM. Without a pod it is gone at once.
    async fn delete(&self) -> Result<(), ClusterError> {
        let what = format!("removing Job {}", self.name);
        let deleted = self.cluster.api::<Job>();
        match self.cluster.call(what, deleted.delete(&self.name, &DeleteParams::background())).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    async fn remove(&self, monitor: &dyn Monitor) {
        if let Err(error) = self.delete().await {
            monitor.warn(format!("Job {} is left: {}", self.name, crate::failure::chain(&error)));
        }
    }
}

async fn check_account(cluster: &Cluster, name: &str) -> Result<(), Error> {
    let accounts = cluster.api::<ServiceAccount>();
    match cluster.call(format!("reading ServiceAccount {name}"), accounts.get_opt(name)).await {
        Ok(None) => Err(Error::NoAccount { name: name.to_owned(), namespace: cluster.namespace().to_owned() }),
        // Who may not look will see what comes of it.
        Err(error) if !error.is_forbidden() => Err(error.into()),
        _ => Ok(()),
    }
}

/// Makes the Job, and returns its name. Its Secret is made after it and belongs to it: it goes with the Job, even where this
/// process is killed in between.
async fn start(cluster: &Cluster, options: &Options, monitor: &dyn Monitor) -> Result<String, Error> {
    let jobs = cluster.api::<Job>();
    let number: String = Uuid::new_v4().simple().to_string().chars().take(8).collect();
    let errand = Errand { cluster, name: format!("pacharc-backup-{number}") };
    let job = manifest(&errand.name, options)?;
    let made = cluster.call(format!("making Job {}", errand.name), jobs.create(&PostParams::default(), &job)).await?;
    if options.secrets.is_empty() {
        return Ok(errand.name);
    }
    let equipped = async {
        let secret = manifest::secret(&errand.name, options, &made);
        let secrets = cluster.api::<SecretObject>();
        let what = format!("making Secret {}", errand.name);
        cluster.call(what, secrets.create(&PostParams::default(), &secret)).await?;
        let go = Patch::Merge(json!({ "spec": { "suspend": false } }));
        let what = format!("starting Job {}", errand.name);
        cluster.call(what, jobs.patch(&errand.name, &PatchParams::default(), &go)).await
    };
    match equipped.await {
        Ok(_) => Ok(errand.name),
        Err(error) => {
            errand.remove(monitor).await;
            Err(error.into())
        }
    }
}
