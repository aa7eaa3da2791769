//! What a listing is told.

use std::path::PathBuf;

use crate::options::{Limits, Location};

/// Everything but the keys.
#[derive(Clone, Debug)]
pub struct Options {
    /// The bundle.
    pub bundle: Location,
    /// Only entries whose path is one of these or lies below; empty: all.
    pub paths: Vec<String>,
    /// Certificates of authorities to trust besides the system's, in PEM.
    pub ca_file: Option<PathBuf>,
    /// What it may take of the machine.
    pub limits: Limits,
}
