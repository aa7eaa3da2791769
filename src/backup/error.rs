//! What can go wrong with a backup beyond what its parts say themselves.

use std::io;
use std::path::PathBuf;

use pacharc_format::{self as format, Key};

use crate::cluster::{state, suspend};
use crate::failure::{Class, Explain};
use crate::interrupt::Interrupted;
use crate::{bucket, bundle, cluster, database};

/// A failure of a backup.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server.
    #[error(transparent)]
    Cluster(#[from] cluster::Error),
    /// What the namespace says.
    #[error(transparent)]
    Discover(#[from] cluster::discover::Error),
    /// The cluster cannot be suspended, or is not back.
    #[error(transparent)]
    Suspend(#[from] suspend::Error),
    /// The bundle is there, but the cluster runs, or is about to.
    #[error("the bundle is complete, but the cluster was NOT left suspended: because {because}")]
    NotLeft {
        /// Why not.
        because: String,
    },
    /// What went wrong after a bundle of which something graver is to be said.
    #[error("{source}")]
    After {
        /// What went wrong.
        source: Box<Error>,
        /// The graver class.
        class: Class,
    },
    /// The way to a server inside the cluster.
    #[error(transparent)]
    Forward(#[from] cluster::ForwardError),
    /// The bucket that was found cannot be read from here.
    #[error("the bucket is {place} ({found_in}), which cannot be read from here")]
    UnreadableBucket {
        /// Where it lies, as the cluster has it.
        place: String,
        /// Where that was found.
        found_in: String,
        /// What can be done.
        advice: &'static str,
    },
    /// The cluster's own way to its databases leads through pg-bouncer.
    #[error("{0} leads to pg-bouncer, through which nothing can be dumped")]
    Bouncer(String),
    /// A file in memory could not be made.
    #[error("cannot keep the cluster's certificates in memory")]
    Certificates(#[source] io::Error),
    /// A server or a dump.
    #[error(transparent)]
    Database(#[from] database::Error),
    /// The bucket of the source.
    #[error(transparent)]
    Bucket(#[from] bucket::Error),
    /// The place of the bundle.
    #[error(transparent)]
    Bundle(#[from] bundle::Error),
    /// Writing the bundle.
    #[error(transparent)]
    Format(#[from] format::Error),
    /// The cluster's state.
    #[error(transparent)]
    State(#[from] state::Error),
    /// A signal.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
    /// Neither database nor bucket was named.
    #[error("there is nothing to back up")]
    Nothing,
    /// No place for the bundle was named.
    #[error("no output was named")]
    NoOutput,
    /// None of the live objects that were looked for lies in the bucket.
    #[error("this bucket does not belong to this database: none of {sampled} live objects is in {bucket}")]
    OtherBucket {
        /// How many were looked for.
        sampled: usize,
        /// The bucket's URL.
        bucket: String,
    },
    /// A restore into the bucket was begun and not finished.
    #[error("{0} is the target of a restore that has not finished")]
    HalfRestored(String),
    /// A pause, and a server that may not have caught up with it.
    #[error("{0} is a standby, which may not have replayed yet what was written before a pause")]
    Standby(String),
    /// The disk cannot hold the estimate.
    #[error("{folder} has {free} bytes free, and the bundle will need about {needed}")]
    NoRoom {
        /// The folder of the output.
        folder: PathBuf,
        /// Bytes that are free.
        free: u64,
        /// Bytes that are needed, as estimated.
        needed: u64,
    },
    /// The folder of temporary files cannot be used.
    #[error("could not use the temporary folder {folder}")]
    TempDir {
        /// The folder.
        folder: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// `--strict`: a live object is missing.
    #[error("live object {0} is missing at the source")]
    Missing(Key),
    /// `--strict`: a live object is not what its key promises.
    #[error("live object {0} is rotten at the source: its bytes are not what its key promises")]
    Rotten(Key),
    /// Objects kept vanishing between each snapshot and its copy.
    #[error("the bundle could not be closed: objects kept vanishing between {0} snapshots and their copies")]
    CannotClose(u32),
    /// Each attempt to dump failed.
    #[error("{attempts} attempts to dump failed")]
    Attempts {
        /// How many.
        attempts: u32,
        /// The last one's error.
        source: Box<database::Error>,
    },
    /// A worker panicked or was ended.
    #[error("a worker ended early: {0}")]
    Worker(String),
}

impl Error {
    /// The same, with the class of what else is to be said where that is graver.
    pub(super) fn after(self, class: Option<Class>) -> Self {
        match class.filter(|class| class.graver(self.class()) != self.class()) {
            Some(class) => Self::After { source: Box::new(self), class },
            None => self,
        }
    }
}

impl Explain for Error {
    fn class(&self) -> Class {
        match self {
            Self::Cluster(error) => error.class(),
            Self::Discover(error) => error.class(),
            Self::Suspend(error) => error.class(),
            Self::NotLeft { .. } => Class::Other,
            Self::After { class, .. } => *class,
            Self::Forward(error) => error.class(),
            Self::UnreadableBucket { .. } | Self::Bouncer(_) | Self::Certificates(_) => Class::Other,
            Self::Database(error) => error.class(),
            Self::Bucket(error) => error.class(),
            Self::Bundle(error) => error.class(),
            Self::Format(error) => error.class(),
            Self::State(error) => error.class(),
            Self::Interrupted(error) => error.class(),
            Self::Attempts { source, .. } => source.class(),
            Self::Nothing | Self::NoOutput => Class::Usage,
            Self::OtherBucket { .. } | Self::HalfRestored(_) | Self::Standby(_) => Class::Refused,
            Self::Missing(_) | Self::Rotten(_) => Class::Incomplete,
            Self::NoRoom { .. } | Self::TempDir { .. } | Self::CannotClose(_) | Self::Worker(_) => Class::Other,
        }
    }

    fn advice(&self) -> Option<String> {
        match self {
            Self::Cluster(error) => error.advice(),
            Self::Discover(error) => error.advice(),
            Self::Suspend(error) => error.advice(),
            Self::NotLeft { .. } => Some(
                "What was written since is not in the bundle: see `pacharc status`, and for a cut-over back up again.".into(),
            ),
            Self::After { source, .. } => source.advice(),
            Self::Forward(error) => error.advice(),
            Self::UnreadableBucket { advice, .. } => Some((*advice).into()),
            Self::Bouncer(_) => Some("Name PostgreSQL itself with --postgres postgres://HOST:PORT.".into()),
            Self::Certificates(_) => None,
            Self::Database(error) => error.advice(),
            Self::Bucket(error) => error.advice(),
            Self::Bundle(error) => error.advice(),
            Self::Format(error) => error.advice(),
            Self::State(error) => error.advice(),
            Self::Interrupted(error) => error.advice(),
            Self::Attempts { source, .. } => source.advice(),
            Self::Nothing => {
                Some("Name a server with --postgres, a bucket with --bucket, or both with --namespace.".into())
            }
            Self::NoOutput => Some("Name a file, `-` or an s3:// URL with --output.".into()),
            Self::OtherBucket { .. } => {
                Some("Check --bucket and its prefix, and which database --database names.".into())
            }
            Self::HalfRestored(_) => Some("Finish that restore first: run its command again.".into()),
            Self::Standby(_) => Some("Name the primary with --postgres, or back up without --quiesce.".into()),
            Self::NoRoom { .. } => Some("Free some space, or write to another disk or to s3:// with --output.".into()),
            Self::TempDir { .. } => Some("Name another folder with --temp-dir.".into()),
            Self::Missing(_) | Self::Rotten(_) => {
                Some("Without --strict the backup goes on, names every such object, and ends with exit code 4.".into())
            }
            Self::CannotClose(_) => Some(
                "Suspend the cluster meanwhile with --quiesce suspend (and --namespace), switch chunk garbage collection \
                 off (pachd.storageChunkGCPeriod: -1), or try when less is deleted."
                    .into(),
            ),
            Self::Worker(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_graver_class_counts() {
        let error = || Error::NotLeft { because: "it ran".to_owned() };
        assert_eq!(error().after(None).class(), Class::Other);
        let graver = error().after(Some(Class::Incomplete));
        assert_eq!((graver.class(), graver.to_string()), (Class::Incomplete, error().to_string()));
        assert!(graver.advice().is_some());
        let interrupted = Error::Interrupted(Interrupted::Sigint).after(Some(Class::Incomplete));
        assert_eq!(interrupted.class(), Class::Interrupted);
    }
}
