//! What can go wrong with an inspection.

use crate::bundle;
use crate::failure::{Class, Explain};
use crate::interrupt::Interrupted;

/// A failure of an inspection.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The place of the bundle.
    #[error(transparent)]
    Bundle(#[from] bundle::Error),
    /// The bundle.
    #[error(transparent)]
    Format(#[from] pacharc_format::Error),
    /// A signal.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
}

impl Explain for Error {
    fn class(&self) -> Class {
        match self {
            Self::Bundle(error) => error.class(),
            Self::Format(error) => error.class(),
            Self::Interrupted(error) => error.class(),
        }
    }

    fn advice(&self) -> Option<String> {
        match self {
            Self::Bundle(error) => error.advice(),
            Self::Format(error) => error.advice(),
            Self::Interrupted(_) => None,
        }
    }
}
