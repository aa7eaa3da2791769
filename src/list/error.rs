//! What can go wrong with a listing.

use std::io;

use crate::bundle;
use crate::failure::{Class, Explain};
use crate::interrupt::Interrupted;
use crate::signature;

/// A failure of a listing.
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
    /// A signal.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
    /// The list could not be written.
    #[error("could not write the list")]
    Output(#[source] io::Error),
}

impl Explain for Error {
    fn class(&self) -> Class {
        match self {
            Self::Bundle(error) => error.class(),
            Self::Format(error) => error.class(),
            Self::Signature(error) => error.class(),
            Self::Interrupted(error) => error.class(),
            Self::Output(_) => Class::Other,
        }
    }

    fn advice(&self) -> Option<String> {
        match self {
            Self::Bundle(error) => error.advice(),
            Self::Format(error) => error.advice(),
            Self::Signature(error) => error.advice(),
            Self::Interrupted(_) | Self::Output(_) => None,
        }
    }
}
