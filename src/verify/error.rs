//! What keeps a verification from coming to a verdict.

use std::path::PathBuf;

use pacharc_format as format;

use crate::bundle;
use crate::failure::{Class, Explain};
use crate::interrupt::Interrupted;
use crate::{backup, bucket, database, restore, signature};

/// A failure of a verification. Damage of the bundle is a verdict, not a failure.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The place of the bundle.
    #[error(transparent)]
    Bundle(#[from] bundle::Error),
    /// The bundle itself: no bundle, unknown format, wrong key.
    #[error(transparent)]
    Format(#[from] format::Error),
    /// A signal.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
    /// Nobody who is trusted signed it.
    #[error(transparent)]
    Signature(#[from] signature::Error),
    /// The other side of a comparison.
    #[error(transparent)]
    Side(#[from] Box<backup::Error>),
    /// Its database.
    #[error(transparent)]
    Database(#[from] database::Error),
    /// Its bucket.
    #[error(transparent)]
    Bucket(#[from] bucket::Error),
    /// The file that keeps the progress of a comparison.
    #[error("cannot use {} to keep progress in: {problem}", path.display())]
    Progress {
        /// The file.
        path: PathBuf,
        /// Why not.
        problem: String,
    },
    /// It is that of another comparison.
    #[error("{} is the progress of another comparison", .0.display())]
    OtherProgress(PathBuf),
    /// A trial restore is not possible here.
    #[error("the trial restore cannot be done here, which says nothing of the bundle")]
    NotTried(#[source] Box<restore::Error>),
    /// The level needs a key.
    #[error("this level needs the key of the bundle")]
    NoKey,
    /// The bundle is older than expected.
    #[error("this bundle was begun at {created}, before {expected}")]
    TooOld {
        /// When it was begun.
        created: String,
        /// The earliest time that was expected.
        expected: String,
    },
}

impl Explain for Error {
    fn class(&self) -> Class {
        match self {
            Self::Bundle(error) => error.class(),
            Self::Format(error) => error.class(),
            Self::Interrupted(error) => error.class(),
            Self::Signature(error) => error.class(),
            Self::NotTried(error) => error.class(),
            Self::Side(error) => error.class(),
            Self::Database(error) => error.class(),
            Self::Bucket(error) => error.class(),
            Self::Progress { .. } => Class::Other,
            Self::OtherProgress(_) => Class::Refused,
            Self::NoKey => Class::Usage,
            Self::TooOld { .. } => Class::Refused,
        }
    }

    fn advice(&self) -> Option<String> {
        match self {
            Self::Bundle(error) => error.advice(),
            Self::Format(error) => error.advice(),
            Self::Interrupted(error) => error.advice(),
            Self::Signature(error) => error.advice(),
            Self::NotTried(error) => error.advice(),
            Self::Side(error) => error.advice(),
            Self::Database(error) => error.advice(),
            Self::Bucket(error) => error.advice(),
            Self::Progress { .. } => {
                Some("Name a file of its own with --continue, in a folder that can be written.".into())
            }
            Self::OtherProgress(_) => Some(
                "Give the same bundle, --against, --bucket, --sample and --seed as before, or another file.".into(),
            ),
            Self::NoKey => {
                Some("Give --identity or --passphrase-file, or check the sums alone with --level sums.".into())
            }
            Self::TooOld { .. } => Some("An older bundle may have been put in the place of a newer one.".into()),
        }
    }
}
