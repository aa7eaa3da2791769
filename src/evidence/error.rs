//! What keeps evidence from being kept.

use std::io;
use std::path::PathBuf;

use crate::failure::{Class, Explain};

/// A report that cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A name that leaves none for the page.
    #[error("{} cannot be the report: it is JSON, and the page beside it ends in .html", .0.display())]
    Name(PathBuf),
    /// Something is there.
    #[error("{} exists already", .0.display())]
    Exists(PathBuf),
    /// The file system.
    #[error("cannot write the report {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl Explain for Error {
    fn class(&self) -> Class {
        match self {
            Self::Name(_) => Class::Usage,
            Self::Exists(_) => Class::Refused,
            Self::Write { .. } => Class::Other,
        }
    }

    fn advice(&self) -> Option<String> {
        let advice = match self {
            Self::Name(_) => "Name the JSON file, such as report.json.",
            Self::Exists(_) => {
                "Name another file with --report, or move the old one away: evidence is not overwritten."
            }
            Self::Write { .. } => "Check that the folder exists and may be written to.",
        };
        Some(advice.to_owned())
    }
}
