//! What can go wrong between down and up.

use std::io;
use std::time::Duration;

use super::drain::Pods;
use super::gitops::Keeper;
use super::tenure::Lost;
use super::{lease, record};
use crate::cluster::{self, permissions};
use crate::failure::{Class, Explain};

/// An error of suspend, resume, status or a guardian.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Kubernetes.
    #[error(transparent)]
    Cluster(#[from] cluster::Error),
    /// The account may not do what would have to be done.
    #[error(transparent)]
    Permissions(#[from] permissions::Error),
    /// No Pachyderm is here.
    #[error("namespace {namespace} has neither a Deployment pachd nor pach-enterprise")]
    Nothing {
        /// The namespace.
        namespace: String,
    },
    /// Down, and nobody wrote down what there was.
    #[error("Deployment {name} is at 0 replicas, and there is no record of how many it had")]
    Down {
        /// The Deployment.
        name: String,
        /// The command, with a place for the number.
        command: String,
        /// Whether it was to be resumed.
        to_resume: bool,
    },
    /// Suspended by another one, or in another way.
    #[error("the cluster is suspended already: by {owner}, since {since}")]
    Suspended {
        /// `user@host`.
        owner: String,
        /// By the owner's clock.
        since: jiff::Timestamp,
        /// What brings it back.
        command: String,
    },
    /// The Lease is held.
    #[error("{holder} is at work on this cluster: it holds the Lease pacharc")]
    Busy {
        /// `user@host/run`.
        holder: String,
    },
    /// The Lease is not to be had, and nobody else is known to have it.
    #[error("cannot get the Lease {}", lease::RUN)]
    NoLease {
        /// Why.
        source: Box<Error>,
        /// What resumes, with it.
        command: String,
    },
    /// Something would scale up again.
    #[error("{} would undo it", list(.0))]
    Kept(Vec<Keeper>),
    /// Somebody else's.
    #[error("the cluster was suspended by {owner}, not by {me}")]
    NotOwner {
        /// `user@host`.
        owner: String,
        /// `user@host`.
        me: String,
        /// The command that does it all the same.
        command: String,
    },
    /// Pods that do not end.
    #[error("after {} s there are still pods: {pods}", after.as_secs())]
    Stuck {
        /// Which.
        pods: Pods,
        /// How long was waited.
        after: Duration,
    },
    /// An API server that fails for too long.
    #[error("the API server did not do for {} s what was asked of it: {problem}", after.as_secs())]
    Late {
        /// How long was waited.
        after: Duration,
        /// What it said last.
        problem: String,
    },
    /// Somebody came between.
    #[error("the suspension was lost: {0}")]
    Lost(Lost),
    /// Somebody made or changed the record first.
    #[error("somebody else made or changed the ConfigMap {} just now", record::NAME)]
    RecordChanged,
    /// A record that was edited.
    #[error("the record in ConfigMap {} cannot be read: {problem}", record::NAME)]
    Unreadable {
        /// Why.
        problem: String,
    },
    /// The guardian cannot be started.
    #[error("cannot start the guardian")]
    Spawn {
        /// Why.
        source: io::Error,
    },
    /// The guardian did not do what it must be able to do.
    #[error("the guardian has not proved itself: {problem}")]
    Guardian {
        /// What happened.
        problem: String,
    },
    /// A Deployment that must come back is gone.
    #[error("there is no Deployment {name} to bring back")]
    Missing {
        /// Its name.
        name: String,
        /// What to do then.
        command: String,
    },
    /// Scaled up, and not ready.
    #[error("{} not ready after {} s", names.join(" and "), after.as_secs())]
    NotReady {
        /// The Deployments.
        names: Vec<String>,
        /// How long was waited.
        after: Duration,
        /// What goes on waiting.
        command: String,
    },
    /// A suspend of what was held already.
    #[error("{source}")]
    StillHeld {
        /// What failed.
        source: Box<Error>,
        /// What brings the cluster back.
        command: String,
    },
    /// The way back failed.
    #[error("the cluster could not be resumed")]
    NotResumed {
        /// Why.
        source: Box<Error>,
        /// What does it.
        command: String,
    },
}

impl Error {
    /// Whether the same may succeed a moment later.
    pub(super) fn is_retryable(&self) -> bool {
        matches!(self, Self::Cluster(error) if error.is_retryable() || error.is_conflict())
    }
}

impl Explain for Error {
    fn class(&self) -> Class {
        match self {
            Self::Cluster(error) => error.class(),
            Self::Permissions(error) => error.class(),
            Self::StillHeld { source, .. } | Self::NoLease { source, .. } => source.class(),
            Self::Nothing { .. } | Self::Stuck { .. } | Self::Late { .. } | Self::Lost(_) => Class::Other,
            Self::Down { to_resume: false, .. }
            | Self::Suspended { .. }
            | Self::Busy { .. }
            | Self::Kept(_)
            | Self::NotOwner { .. }
            | Self::RecordChanged => Class::Refused,
            Self::Spawn { .. } | Self::Guardian { .. } => Class::Unreachable,
            Self::Down { to_resume: true, .. }
            | Self::Unreadable { .. }
            | Self::Missing { .. }
            | Self::NotReady { .. }
            | Self::NotResumed { .. } => Class::Suspended,
        }
    }

    fn advice(&self) -> Option<String> {
        Some(match self {
            Self::Cluster(error) => return error.advice(),
            Self::Permissions(error) => return error.advice(),
            Self::StillHeld { command, .. } => format!(
                "The cluster was held before, and still is. Once the cause is gone suspend it again, or bring it back: {}",
                super::from_anywhere(command)
            ),
            Self::Nothing { .. } => "Name the namespace that Helm installed Pachyderm into.".to_owned(),
            Self::Down { command, .. } => format!("Say how many it shall have:\n{command}"),
            Self::Suspended { command, .. } => {
                format!("Wait until it runs again (`pacharc status` tells more), or bring it back:\n{command}")
            }
            Self::Busy { .. } => "Wait until that one is done; `pacharc status` tells more.".to_owned(),
            Self::NoLease { command, .. } => {
                format!(
                    "If `pacharc status` tells of nobody who is at work, do without:\n{}",
                    super::from_anywhere(command)
                )
            }
            Self::Kept(keepers) => {
                let commands: Vec<String> = keepers.iter().map(|keeper| format!("`{}`", keeper.pause())).collect();
                let commands = commands.join(", ");
                format!("Pause it: {commands}; then run again with --ignore-gitops.")
            }
            Self::NotOwner { command, .. } => format!("If that one agrees:\n{command}"),
            Self::Stuck { .. } => {
                "Look with `kubectl describe pod` why they do not end; the cluster runs again.".to_owned()
            }
            Self::Late { .. } => {
                "Find out what is wrong with the API server, or with a webhook that it asks; then run it \
                                  again. The cluster was given back."
                    .to_owned()
            }
            Self::Lost(_) => "Find out who came between; the cluster was given back.".to_owned(),
            Self::RecordChanged => "See with `pacharc status` who it was.".to_owned(),
            Self::Unreadable { .. } => format!(
                "Look at it (`kubectl get configmap {} -o yaml`), delete it, and give `pacharc resume --resume-replicas N`.",
                record::NAME
            ),
            Self::Guardian { .. } => {
                "Nothing was changed. Try --guardian process, or look at the guardian's Job and its pod.".to_owned()
            }
            Self::Missing { command, .. } => {
                format!("Install it again with Helm, then:\n{}", super::from_anywhere(command))
            }
            Self::NotReady { command, .. } => {
                format!("See with `kubectl get pods` what it waits for, then:\n{}", super::from_anywhere(command))
            }
            Self::NotResumed { command, .. } => {
                format!("Bring it back, from any machine:\n{}", super::from_anywhere(command))
            }
            Self::Spawn { .. } => return None,
        })
    }
}

fn list(keepers: &[Keeper]) -> String {
    keepers.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_brings_it_back_does_so_from_any_machine() {
        let (name, command) = ("pachd".to_owned(), "pacharc resume --namespace n".to_owned());
        let errors = [
            Error::Missing { name: name.clone(), command: command.clone() },
            Error::NotReady { names: vec![name], after: Duration::from_secs(600), command: command.clone() },
            Error::NotResumed { source: Box::new(Error::RecordChanged), command },
        ];
        for error in errors {
            let advice = error.advice().unwrap();
            assert_eq!(advice.lines().last(), Some("pacharc resume --namespace n --force"), "{error}");
            assert_eq!(error.class(), Class::Suspended, "{error}");
        }
    }
}
