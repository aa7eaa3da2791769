//! What can go wrong when a namespace is asked about its Pachyderm.

use crate::cluster;
use crate::failure::{Class, Explain};

/// An error of discovery.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server.
    #[error(transparent)]
    Cluster(#[from] cluster::Error),
    /// Neither `pachd` nor `pach-enterprise` is there.
    #[error("there is no Pachyderm in namespace {namespace}: neither Deployment pachd nor pach-enterprise")]
    NoPachyderm {
        /// The namespace.
        namespace: String,
    },
    /// A Deployment without containers.
    #[error("{workload} has no container")]
    NoContainer {
        /// Kind and name.
        workload: String,
    },
    /// A reference that leads nowhere: the pod could not start either.
    #[error("{referrer} refers to {object}, which does not exist")]
    NoObject {
        /// The variable that refers to it.
        referrer: String,
        /// Kind and name.
        object: String,
    },
    /// The same for a key of an object.
    #[error("{referrer} refers to key {key} of {object}, which it does not have")]
    NoKey {
        /// The variable that refers to it.
        referrer: String,
        /// Kind and name.
        object: String,
        /// The key.
        key: String,
    },
    /// A variable that Pachyderm needs is not set.
    #[error("{workload} has no variable {variable}")]
    NoVariable {
        /// Kind and name.
        workload: String,
        /// The variable.
        variable: String,
    },
    /// A value that is not what Pachyderm takes.
    #[error("{found_in}: {problem}")]
    Value {
        /// Where it was found.
        found_in: String,
        /// What is wrong with it; without the value where that may be secret.
        problem: String,
    },
}

impl Explain for Error {
    fn class(&self) -> Class {
        match self {
            Self::Cluster(error) => error.class(),
            _ => Class::Other,
        }
    }

    fn advice(&self) -> Option<String> {
        Some(match self {
            Self::Cluster(error) => return error.advice(),
            Self::NoPachyderm { .. } => {
                "Name the namespace of the Helm release: `helm list --all-namespaces` lists them.".to_owned()
            }
            _ => "Name the database with --postgres and the bucket with --bucket, without --namespace.".to_owned(),
        })
    }
}
