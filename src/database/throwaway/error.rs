//! What can go wrong with a throwaway server. None of it says anything about the bundle.

use std::io;
use std::path::PathBuf;

use crate::failure::{Class, Explain};

/// A failure of a throwaway server.
#[derive(Debug, thiserror::Error)]
pub enum ThrowawayError {
    /// There is no account to run it as.
    #[error("a PostgreSQL server does not run as root, and this machine has neither an account postgres nor nobody")]
    Root,
    /// Its folder cannot be made.
    #[error("cannot make {}", folder.display())]
    Folder {
        /// The folder, or the one that it was to lie in.
        folder: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The process beside it.
    #[error("cannot start the keeper of a throwaway PostgreSQL server")]
    Keeper(#[source] io::Error),
    /// initdb, or the server itself.
    #[error("a throwaway PostgreSQL server does not start: {said}")]
    Start {
        /// The end of what it said.
        said: String,
        /// Whom it runs as, if it is not this process's user.
        account: Option<String>,
    },
    /// It takes too long.
    #[error("a throwaway PostgreSQL server has not started within {0} seconds")]
    Slow(u64),
    /// Its folder cannot be removed.
    #[error("something of the throwaway PostgreSQL server is left in {}", folder.display())]
    Left {
        /// The folder.
        folder: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Explain for ThrowawayError {
    fn class(&self) -> Class {
        match self {
            Self::Root => Class::Credentials,
            Self::Folder { .. } | Self::Left { .. } => Class::Other,
            Self::Keeper(_) | Self::Start { .. } | Self::Slow(_) => Class::Unreachable,
        }
    }

    fn advice(&self) -> Option<String> {
        let advice = match self {
            Self::Root => "Run pacharc as another user, or name a server for the trial with --scratch-postgres.",
            Self::Start { account: Some(account), .. } => {
                return Some(format!(
                    "It runs as {account}, since PostgreSQL refuses root: see that {account} can enter the folder that \
                     --temp-dir names, or name a server for the trial with --scratch-postgres."
                ));
            }
            Self::Folder { .. } => "Name another folder with --temp-dir.",
            Self::Start { .. } | Self::Keeper(_) | Self::Slow(_) => {
                "Name a server for the trial with --scratch-postgres."
            }
            Self::Left { .. } => "Remove it: it holds the content of databases.",
        };
        Some(advice.to_owned())
    }
}
