//! What can go wrong with a restore beyond what its parts say themselves.

use pacharc_format::{self as format, Key};

use crate::cluster::values;
use crate::failure::{Class, Explain};
use crate::interrupt::Interrupted;
use crate::{bucket, bundle, database, signature, verify};

/// A failure of a restore.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A server, or loading into it.
    #[error(transparent)]
    Database(#[from] database::Error),
    /// The target's bucket.
    #[error(transparent)]
    Bucket(#[from] bucket::Error),
    /// The place of the bundle.
    #[error(transparent)]
    Bundle(#[from] bundle::Error),
    /// The bundle.
    #[error(transparent)]
    Format(#[from] format::Error),
    /// The check before the first byte.
    #[error(transparent)]
    Verify(#[from] verify::Error),
    /// Nobody who is trusted signed it.
    #[error(transparent)]
    Signature(#[from] signature::Error),
    /// What the release to come needs.
    #[error(transparent)]
    Release(#[from] values::Error),
    /// A signal.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
    /// Neither database nor bucket was named.
    #[error("there is nothing to restore into")]
    Nothing,
    /// The check before the first byte found damage.
    #[error("the bundle is damaged: {0}")]
    Damaged(String),
    /// What was checked, and what was then read, are not the same bundle.
    #[error("the bundle was replaced while it was restored: {checked} was checked, and {came} came")]
    Replaced {
        /// The id of the one.
        checked: String,
        /// The id of the other.
        came: String,
    },
    /// The bundle is not closed.
    #[error("the bundle is not closed: its source lacked {missing} live objects, and {rotten} were rotten")]
    NotClosed {
        /// Live rows without an object.
        missing: u64,
        /// Live objects with wrong bytes.
        rotten: u64,
    },
    /// `--database` names what the bundle lacks.
    #[error("the bundle has no database {0}")]
    NoSuchDatabase(String),
    /// The bundle has no objects.
    #[error("the bundle holds no bucket")]
    NoObjects,
    /// The bundle has no databases.
    #[error("the bundle holds no databases")]
    NoDatabases,
    /// A bucket URL with a prefix.
    #[error("Pachyderm ignores the prefix in {0}: it would look for its objects elsewhere")]
    Prefix(String),
    /// The target is the source.
    #[error("{0} is the source of this bundle")]
    IsSource(String),
    /// The target bucket holds something.
    #[error("the target bucket {bucket} is not empty: it holds {key}")]
    NotEmpty {
        /// The bucket's URL.
        bucket: String,
        /// A key in it.
        key: Key,
    },
    /// Another restore is under way in the target bucket.
    #[error("another restore is under way in {bucket}: {mark}")]
    OtherRestore {
        /// The bucket's URL.
        bucket: String,
        /// What its mark says.
        mark: String,
    },
    /// Another run has set its own mark in the bucket, or taken this one's away.
    #[error("the mark of this restore in {bucket} is not its own any more: {found}")]
    TakenOver {
        /// The bucket's URL.
        bucket: String,
        /// What the mark says now.
        found: String,
    },
    /// The mark of a restore could be set in the bucket, and not be taken away.
    #[error("the mark of a restore could not be taken away again")]
    MayNotDelete(#[source] Box<bucket::Error>),
    /// The mark was not taken away, at the very end.
    #[error("all is restored and proved, but the bucket's mark could not be taken away")]
    MarkStays(#[source] Box<bucket::Error>),
    /// From a pipe, a database must not exist.
    #[error("database {0} exists, and a bundle from a pipe is proved only at its end")]
    DatabaseExists(String),
    /// The target differs from the bundle.
    #[error("the target is not what the bundle holds: {first}{}", more(*.count))]
    NotEqual {
        /// The first difference.
        first: String,
        /// How many there are.
        count: u64,
    },
    /// A worker panicked or was ended.
    #[error("a worker ended early: {0}")]
    Worker(String),
}

fn more(count: u64) -> String {
    match count {
        0 | 1 => String::new(),
        2 => ", and 1 more difference".to_owned(),
        _ => format!(", and {} more differences", count - 1),
    }
}

impl Explain for Error {
    fn class(&self) -> Class {
        match self {
            Self::Database(error) => error.class(),
            Self::Bucket(error) => error.class(),
            Self::Bundle(error) => error.class(),
            Self::Format(error) => error.class(),
            Self::Verify(error) => error.class(),
            Self::Signature(error) => error.class(),
            Self::Release(error) => error.class(),
            Self::Interrupted(error) => error.class(),
            Self::MayNotDelete(error) | Self::MarkStays(error) => error.class(),
            Self::Nothing | Self::NoSuchDatabase(_) | Self::NoObjects | Self::NoDatabases => Class::Usage,
            Self::Damaged(_) | Self::Replaced { .. } | Self::NotEqual { .. } => Class::Damaged,
            Self::NotClosed { .. }
            | Self::Prefix(_)
            | Self::IsSource(_)
            | Self::NotEmpty { .. }
            | Self::OtherRestore { .. }
            | Self::TakenOver { .. }
            | Self::DatabaseExists(_) => Class::Refused,
            Self::Worker(_) => Class::Other,
        }
    }

    fn advice(&self) -> Option<String> {
        let advice = match self {
            Self::Database(error) => return error.advice(),
            Self::Bucket(error) => return error.advice(),
            Self::Bundle(error) => return error.advice(),
            Self::Format(error) => return error.advice(),
            Self::Verify(error) => return error.advice(),
            Self::Signature(error) => return error.advice(),
            Self::Release(error) => return error.advice(),
            Self::Interrupted(_) => "Run the same command again: it goes on where it stopped.",
            Self::Nothing => "Name a server with --postgres, a bucket with --bucket, or both.",
            Self::Damaged(_) => "`pacharc verify` names the damage; copy the file again, or use another bundle.",
            Self::Replaced { .. } => {
                "Do not use the target: what was loaded is not what was checked. Find out who writes to the bundle, then begin \
                 anew with an empty bucket and without these databases."
            }
            Self::NotClosed { .. } => {
                "With --allow-incomplete it is restored all the same, and each such object is named."
            }
            Self::NoSuchDatabase(_) => "`pacharc inspect` with the key tells which databases it has.",
            Self::NoObjects => "Leave --bucket out, or use the bundle that was made with one.",
            Self::NoDatabases => {
                "Leave --postgres out (PACHARC_POSTGRES, too), or use a bundle that was made with databases."
            }
            Self::Prefix(_) => "Use a bucket of its own, or --allow-prefix if no pachd will use this one.",
            Self::IsSource(_) => {
                "Name a new database server, other database names (--database NAME=NEW) or a new bucket."
            }
            Self::NotEmpty { .. } => "Use an empty bucket: nothing is overwritten.",
            Self::OtherRestore { .. } => "Finish that restore, or use another bucket.",
            Self::TakenOver { .. } => {
                "Another run goes on with this restore, or has ended it: what it says counts. If there is none, run the same \
                 command again."
            }
            Self::MayNotDelete(_) => {
                "Nothing was written. Give these credentials the right to delete pacharc.restoring and pacharc.restoring.probe \
                 there (s3:DeleteObject), then run the same command again."
            }
            Self::MarkStays(_) => {
                "Nothing else is left to do: delete the object pacharc.restoring, with other credentials if these may not. The \
                 same command would prove all once more, and a backup of that bucket is refused until then."
            }
            Self::DatabaseExists(_) => {
                "Look into it before you drop it: where an earlier run was stopped at its very end, it is whole and proved. \
                 From a file instead of a pipe, that run is ended, and an empty database is taken."
            }
            Self::NotEqual { .. } => "Do not use the target. If nobody wrote into it, please report this.",
            Self::Worker(_) => return None,
        };
        Some(advice.into())
    }
}
