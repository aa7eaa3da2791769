//! What can go wrong with a Job that is followed.

use std::time::Duration;

use crate::cluster::{self, permissions, suspend};
use crate::failure::{Class, Explain};
use crate::interrupt::Interrupted;

/// An error of a backup in the cluster; what the backup itself has to say is in its log.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Kubernetes.
    #[error(transparent)]
    Cluster(#[from] cluster::Error),
    /// The account may not do what would have to be done.
    #[error(transparent)]
    Permissions(#[from] permissions::Error),
    /// A signal.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
    /// What was made is no Job.
    #[error("the Job cannot be made")]
    Manifest(#[source] serde_json::Error),
    /// The Job would have no account.
    #[error("there is no ServiceAccount {name} in namespace {namespace}")]
    NoAccount {
        /// Its name.
        name: String,
        /// The namespace.
        namespace: String,
    },
    /// The pod does not run.
    #[error("the pod of Job {job} does not run after {} s: {waits}", after.as_secs())]
    NotStarted {
        /// The Job.
        job: String,
        /// What it waits for, in Kubernetes' words.
        waits: String,
        /// How long was waited.
        after: Duration,
    },
    /// The pod ended in another way than by pacharc's own exit.
    #[error("the pod of Job {job} {how}")]
    Killed {
        /// The Job.
        job: String,
        /// How it ended.
        how: String,
    },
    /// The same, of a run that had suspended the cluster.
    #[error("the pod of Job {job} {how}, and has not brought the cluster back")]
    LeftDown {
        /// The Job.
        job: String,
        /// How it ended.
        how: String,
        /// What brings it back.
        command: String,
    },
    /// Nobody can be asked any more.
    #[error("Job {job} is out of sight")]
    OutOfSight {
        /// The Job.
        job: String,
        /// Why.
        source: cluster::Error,
    },
    /// It was asked to end, and has not.
    #[error("Job {job} was asked to end, and has not ended after {} s", after.as_secs())]
    Ending {
        /// The Job.
        job: String,
        /// How long was waited.
        after: Duration,
    },
}

impl Explain for Error {
    fn class(&self) -> Class {
        match self {
            Self::Cluster(error) => error.class(),
            Self::Permissions(error) => error.class(),
            Self::Interrupted(error) => error.class(),
            Self::NoAccount { .. } => Class::Credentials,
            Self::NotStarted { .. } | Self::Killed { .. } | Self::OutOfSight { .. } => Class::Unreachable,
            Self::LeftDown { .. } => Class::Suspended,
            Self::Manifest(_) | Self::Ending { .. } => Class::Other,
        }
    }

    fn advice(&self) -> Option<String> {
        Some(match self {
            Self::Cluster(error) => return error.advice(),
            Self::Permissions(error) => return error.advice(),
            Self::Interrupted(error) => return error.advice(),
            Self::Manifest(_) => return None,
            Self::NoAccount { .. } => {
                "Make it with deploy/rbac/backup.yaml, or name another one with --service-account.".to_owned()
            }
            Self::NotStarted { .. } => {
                "The Job was removed. Check --image, --pull-secret and --claim; --start-timeout waits longer."
                    .to_owned()
            }
            Self::Killed { .. } => {
                "Nothing that it wrote is a bundle. Its memory is limited to 1 GiB, /tmp to 10 GiB; the chart in \
                 deploy/ makes a Job with other limits."
                    .to_owned()
            }
            Self::LeftDown { command, .. } => format!(
                "Its guardian does, as `pacharc status` tells; and so does, from any machine:\n{}",
                suspend::from_anywhere(command)
            ),
            Self::OutOfSight { job, .. } => {
                format!(
                    "The Job goes on: look after it with `kubectl logs --follow job/{job}`, and delete it in the end."
                )
            }
            Self::Ending { job, .. } => {
                format!(
                    "See with `kubectl describe job {job}` what becomes of it, and with `pacharc status` of the cluster."
                )
            }
        })
    }
}
