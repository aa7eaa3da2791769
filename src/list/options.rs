//! What a listing is told.

use std::path::PathBuf;

use crate::options::{Limits, Location};
use crate::signature::TrustedKeys;

/// Everything but the keys.
#[derive(Clone, Debug)]
pub struct Options {
    /// The bundle.
    pub bundle: Location,
    /// Only entries whose path is one of these or lies below; empty: all.
    pub paths: Vec<String>,
    /// One of these keys must have signed it, if there are any; then it must be readable in any place.
    pub trusted: TrustedKeys,
    /// Certificates of authorities to trust besides the system's, in PEM.
    pub ca_file: Option<PathBuf>,
    /// What it may take of the machine.
    pub limits: Limits,
}
