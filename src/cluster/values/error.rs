//! What can go wrong with the files for a restored release.

use std::io;
use std::path::PathBuf;

use crate::cluster::{self, permissions};
use crate::failure::{Class, Explain};

/// An error of the files for a restored release.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server.
    #[error(transparent)]
    Cluster(#[from] cluster::Error),
    /// The account's rights.
    #[error(transparent)]
    Permissions(#[from] permissions::Error),
    /// The bundle was made without a namespace.
    #[error("the bundle holds no state of Kubernetes")]
    None,
    /// What the bundle holds cannot be read.
    #[error("{path}: {why}")]
    Malformed {
        /// The entry.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// The state of the cluster is larger than what may be held.
    #[error("the cluster's state has more than {limit} bytes")]
    TooLarge {
        /// The most bytes.
        limit: usize,
    },
    /// The folder has something in it.
    #[error("{} is not empty", .0.display())]
    NotEmpty(PathBuf),
    /// A file cannot be written.
    #[error("could not write {}", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file cannot be put into YAML.
    #[error("cannot write {path} as YAML")]
    Yaml {
        /// The file.
        path: String,
        /// Why.
        source: serde_saphyr::ser::Error,
    },
    /// `pachd` runs where it must not.
    #[error("{what} runs in namespace {namespace}")]
    Running {
        /// The Deployment, or its pods.
        what: String,
        /// The namespace.
        namespace: String,
    },
    /// A Secret is there and is another one.
    #[error("Secret {name} exists in namespace {namespace} with other content")]
    Differs {
        /// Its name.
        name: String,
        /// The namespace.
        namespace: String,
    },
    /// The schema is of a release that this pacharc does not know.
    #[error("the bundle's database is of an unknown release (migration {0})")]
    UnknownSchema(i64),
    /// `--pachyderm-version` is older than what was backed up.
    #[error("Pachyderm {wanted} is older than {backed_up}, which was backed up")]
    Older {
        /// What was asked for.
        wanted: String,
        /// What the bundle has.
        backed_up: String,
    },
}

impl Explain for Error {
    fn class(&self) -> Class {
        match self {
            Self::Cluster(error) => error.class(),
            Self::Permissions(error) => error.class(),
            Self::None => Class::Usage,
            Self::Malformed { .. } => Class::Damaged,
            Self::NotEmpty(_)
            | Self::Running { .. }
            | Self::Differs { .. }
            | Self::UnknownSchema(_)
            | Self::Older { .. } => Class::Refused,
            Self::TooLarge { .. } | Self::Write { .. } | Self::Yaml { .. } => Class::Other,
        }
    }

    fn advice(&self) -> Option<String> {
        let advice = match self {
            Self::Cluster(error) => return error.advice(),
            Self::Permissions(error) => return error.advice(),
            Self::None => "Leave out --write-to and --apply-secrets, or use a bundle made with --namespace.",
            Self::Malformed { .. } => "Take the entry out with `pacharc extract`, and see what can be saved.",
            Self::TooLarge { .. } => "Give it more with --max-memory.",
            Self::NotEmpty(_) => "Name a new or an empty folder with --write-to: nothing is overwritten.",
            Self::Write { .. } => "Name a folder that can be written to with --write-to.",
            Self::Yaml { .. } => return None,
            Self::Running { .. } => {
                "Restore into a namespace without Pachyderm, or uninstall that release first; pachd must not see half of its data."
            }
            Self::Differs { .. } => {
                "Nothing is overwritten: delete it, or leave out --apply-secrets and apply the others by hand."
            }
            Self::UnknownSchema(_) => {
                "Use a newer pacharc; --allow-unknown-schema goes on, and which Pachyderm can use the database is for you to know."
            }
            Self::Older { .. } => {
                "Databases of Pachyderm cannot go back to an older release: name that version or a newer one."
            }
        };
        Some(advice.to_owned())
    }
}
