//! What can go wrong with Helm's own record of a release.

use crate::cluster;
use crate::failure::{Class, Explain};

/// An error of reading a Helm release.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server.
    #[error(transparent)]
    Cluster(#[from] cluster::Error),
    /// Secrets may be read by name alone, and none of those that may is the current revision for sure.
    #[error("the current revision of Helm's release {release} may not be read")]
    Hidden {
        /// The release.
        release: String,
    },
    /// It is not what Helm 3 writes.
    #[error("{object} is no Helm release: {why}")]
    Malformed {
        /// The Secret or ConfigMap.
        object: String,
        /// What is wrong with it.
        why: String,
    },
    /// It unpacks to more than any release has.
    #[error("{object} unpacks to more than {limit} bytes")]
    TooLarge {
        /// The Secret or ConfigMap.
        object: String,
        /// The limit in bytes.
        limit: u64,
    },
}

impl Explain for Error {
    fn class(&self) -> Class {
        match self {
            Self::Cluster(error) => error.class(),
            Self::Hidden { .. } => Class::Credentials,
            Self::Malformed { .. } | Self::TooLarge { .. } => Class::Other,
        }
    }

    fn advice(&self) -> Option<String> {
        match self {
            Self::Cluster(error) => error.advice(),
            Self::Hidden { release } => Some(format!(
                "Add its Secret, sh.helm.release.v1.{release}.vREVISION, to the account's Role: `helm list` shows the revision, \
                 and each upgrade makes another one."
            )),
            Self::Malformed { .. } | Self::TooLarge { .. } => {
                Some("Check with `helm history RELEASE` whether Helm can read it.".to_owned())
            }
        }
    }
}
