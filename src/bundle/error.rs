//! What can go wrong with the place of a bundle, and how the format's own errors reach the user.

use std::io;
use std::path::PathBuf;

use pacharc_format as format;

use crate::bucket;
use crate::failure::{Class, Explain};

/// A failure of the place where a bundle lies.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The output exists.
    #[error("{0} exists already")]
    Exists(String),
    /// A file could not be made, synced or renamed.
    #[error("could not write {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file could not be opened.
    #[error("could not open {path}")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Standard input was named where ranges are needed.
    #[error("this needs a bundle that can be read in any place, and standard input cannot")]
    NotSeekable,
    /// The bucket failed.
    #[error(transparent)]
    Bucket(#[from] bucket::Error),
    /// The task that uploads the bundle ended early.
    #[error("the upload of the bundle ended early: {0}")]
    Upload(String),
}

impl Explain for Error {
    fn class(&self) -> Class {
        match self {
            Self::Exists(_) => Class::Refused,
            Self::Write { .. } | Self::Upload(_) => Class::Other,
            Self::Open { source, .. } if source.kind() == io::ErrorKind::NotFound => Class::Usage,
            Self::Open { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => Class::Credentials,
            Self::Open { .. } => Class::Other,
            Self::NotSeekable => Class::Usage,
            Self::Bucket(error) => bucket_class(error),
        }
    }

    fn advice(&self) -> Option<String> {
        match self {
            Self::Exists(_) => {
                Some("Name another output, or move the existing file away: nothing is overwritten.".into())
            }
            Self::Write { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                Some("Free some space, or write to another disk with --output.".into())
            }
            Self::Write { source, .. } if source.kind() == io::ErrorKind::FileTooLarge => {
                Some("Raise the limit on the size of files, or write to another disk or to s3:// with --output.".into())
            }
            Self::Write { source, .. } if is_of_the_disk(source) => Some(
                "See what the system's log says of that disk; write to another one or to s3:// with --output.".into(),
            ),
            Self::Write { .. } => Some("Check that the folder exists and may be written to.".into()),
            Self::Open { .. } => Some("Check the path, and that you may read it.".into()),
            Self::NotSeekable => Some("Write the bundle to a file first, and name that file.".into()),
            Self::Bucket(error) => bucket_advice(error),
            _ => None,
        }
    }
}

impl Explain for format::Error {
    fn class(&self) -> Class {
        use format::Error as E;
        match self {
            E::NotABundle(_) | E::Damaged { .. } | E::Torn { .. } | E::KeyDamaged => Class::Damaged,
            E::UnknownFormat(_) | E::UnknownFeature(_) | E::WrongId { .. } => Class::Refused,
            E::WrongIdentity | E::WrongPassphrase | E::KindOfKey(_) | E::Key(_) => Class::Credentials,
            // A bundle in a bucket is read through the bucket.
            E::Read(source) => bucket_error(source).map_or(Class::Other, bucket_class),
            _ => Class::Other,
        }
    }

    fn advice(&self) -> Option<String> {
        use format::Error as E;
        let advice = match self {
            E::NotABundle(_) => "Check the file's name: a bundle is made by `pacharc backup`.",
            E::Torn { .. } => "The copy was cut short: copy the file again, or use another bundle.",
            E::Damaged { .. } | E::KeyDamaged => "Copy the file again from its origin, or use another bundle.",
            E::UnknownFormat(_) | E::UnknownFeature(_) => "Use the version of pacharc that wrote it, or a newer one.",
            E::WrongIdentity => {
                "Give the identity of one of its recipients with --identity; `pacharc inspect` tells their kinds."
            }
            E::WrongPassphrase => "Check the file that --passphrase-file names: its first line is the passphrase.",
            E::KindOfKey(_) => "Use --identity for recipients, --passphrase-file for a passphrase.",
            E::WrongId { .. } => "This is another bundle than the one that --expect-id names.",
            E::Write(source) if source.kind() == io::ErrorKind::StorageFull => {
                "Free some space, or write to another disk with --output."
            }
            E::Write(source) if source.kind() == io::ErrorKind::FileTooLarge => {
                "Raise the limit on the size of files, or write to another disk or to s3:// with --output."
            }
            E::Write(source) if source.kind() == io::ErrorKind::BrokenPipe => {
                "Whoever read the bundle has ended before it did: see what that one said."
            }
            E::Write(_) => {
                "See what the system's log says of that disk; write to another one or to s3:// with --output."
            }
            E::Spool { .. } => "Name a folder with room for temporary files with --temp-dir.",
            E::Read(source) => return bucket_error(source).and_then(bucket_advice),
            _ => return None,
        };
        Some(advice.into())
    }
}

/// An error that neither a path nor a permission is the reason for.
fn is_of_the_disk(source: &io::Error) -> bool {
    source.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
}

fn bucket_error(source: &io::Error) -> Option<&bucket::Error> {
    source.get_ref()?.downcast_ref()
}

/// A bundle that is not there is a wrong name, as a file would be; no live object is missing.
fn bucket_class(error: &bucket::Error) -> Class {
    if matches!(error, bucket::Error::NotFound { .. }) { Class::Usage } else { error.class() }
}

fn bucket_advice(error: &bucket::Error) -> Option<String> {
    match error {
        bucket::Error::NotFound { .. } => {
            Some("Check the bundle's URL: the key is what stands behind the bucket.".into())
        }
        error => error.advice(),
    }
}
