//! What can go wrong with an extraction.

use std::io;
use std::path::PathBuf;

use crate::bundle;
use crate::failure::{Class, Explain};
use crate::interrupt::Interrupted;
use crate::signature;

/// A failure of an extraction.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The place of the bundle.
    #[error(transparent)]
    Bundle(#[from] bundle::Error),
    /// The bundle.
    #[error(transparent)]
    Format(#[from] pacharc_format::Error),
    /// Nobody who is trusted signed it.
    #[error(transparent)]
    Signature(#[from] signature::Error),
    /// What binds the entries to a signature is damaged.
    #[error("nobody can tell who signed this bundle: it is damaged where that is written")]
    Unprovable(#[source] pacharc_format::Error),
    /// A signal.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
    /// The bundle has no such entry.
    #[error("the bundle has no entry {0}")]
    NoSuchEntry(String),
    /// The object was missing at the source.
    #[error("{0} is not in the bundle: its source did not have it")]
    Missing(String),
    /// A part of an object came out that does not count.
    #[error("what came out of {0} is a part that its backup gave up, since the object changed while it was read")]
    Abandoned(String),
    /// Two objects come from a pipe at the same time.
    #[error("{} and {} come mingled from this pipe, and standard output takes one after the other", .0[0], .0[1])]
    Mingled([String; 2]),
    /// A file exists.
    #[error("{0} exists already")]
    Exists(PathBuf),
    /// A file could not be written.
    #[error("could not write {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Explain for Error {
    fn class(&self) -> Class {
        match self {
            Self::Bundle(error) => error.class(),
            Self::Format(error) => error.class(),
            Self::Signature(error) => error.class(),
            Self::Interrupted(error) => error.class(),
            Self::NoSuchEntry(_) => Class::Usage,
            Self::Unprovable(_) => Class::Credentials,
            Self::Missing(_) => Class::Incomplete,
            Self::Exists(_) => Class::Refused,
            Self::Abandoned(_) | Self::Mingled(_) | Self::Write { .. } => Class::Other,
        }
    }

    fn advice(&self) -> Option<String> {
        match self {
            Self::Bundle(error) => error.advice(),
            Self::Format(error) if error.is_damage() => {
                Some("Copy the file again from its origin; or extract what is undamaged with --keep-going.".into())
            }
            Self::Format(error) => error.advice(),
            Self::Signature(error) => error.advice(),
            Self::Unprovable(_) => Some(
                "Copy the file again from its origin. Without --trusted-key what is undamaged comes out, whoever wrote it."
                    .into(),
            ),
            Self::NoSuchEntry(_) => Some("`pacharc list` prints the paths of all entries.".into()),
            Self::Exists(_) => Some("Name another folder with --output: nothing is overwritten.".into()),
            Self::Missing(_) => Some("An older bundle may have it.".into()),
            Self::Abandoned(_) | Self::Mingled(_) => {
                Some("Extract into a folder, or write the bundle to a file first.".into())
            }
            Self::Interrupted(_) | Self::Write { .. } => None,
        }
    }
}
