//! What can go wrong with the capture of a cluster's state.

use crate::cluster::{self, helm, permissions};
use crate::failure::{Class, Explain};
use crate::feed::Closed;

/// An error of the capture.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server.
    #[error(transparent)]
    Cluster(#[from] cluster::Error),
    /// The Helm release.
    #[error(transparent)]
    Helm(#[from] helm::Error),
    /// The account's rights.
    #[error(transparent)]
    Permissions(#[from] permissions::Error),
    /// The bundle is not written any more.
    #[error(transparent)]
    Closed(#[from] Closed),
    /// A file is larger than an entry of the bundle may be.
    #[error("{path} would have {size} bytes, and an entry of this bundle has at most {limit}")]
    TooLarge {
        /// The entry's path.
        path: String,
        /// Its bytes.
        size: usize,
        /// The most bytes of an entry.
        limit: usize,
    },
    /// The Helm release cannot be written as JSON.
    #[error("cannot write the Helm release as JSON")]
    Json(#[source] serde_json::Error),
    /// An object cannot be written as YAML.
    #[error("cannot write {path} as YAML")]
    Yaml {
        /// The entry's path.
        path: String,
        /// Why.
        source: serde_saphyr::ser::Error,
    },
}

impl Explain for Error {
    fn class(&self) -> Class {
        match self {
            Self::Cluster(error) => error.class(),
            Self::Helm(error) => error.class(),
            Self::Permissions(error) => error.class(),
            Self::Closed(_) | Self::TooLarge { .. } | Self::Json(_) | Self::Yaml { .. } => Class::Other,
        }
    }

    fn advice(&self) -> Option<String> {
        match self {
            Self::Cluster(error) => error.advice(),
            Self::Helm(error) => error.advice(),
            Self::Permissions(error) => error.advice(),
            Self::TooLarge { .. } => Some("Give it more with --max-memory.".to_owned()),
            Self::Closed(_) | Self::Json(_) | Self::Yaml { .. } => None,
        }
    }
}
