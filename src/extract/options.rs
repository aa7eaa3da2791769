//! What an extraction is told.

use std::path::PathBuf;

use crate::options::{Limits, Location};
use crate::signature::TrustedKeys;

/// Everything but the keys.
#[derive(Clone, Debug)]
pub struct Options {
    /// The bundle.
    pub bundle: Location,
    /// Entries whose path is one of these or lies below; never empty.
    pub paths: Vec<String>,
    /// Whether what is undamaged is extracted although other things are not; to a folder, and from a bundle that can be
    /// read in any place.
    pub keep_going: bool,
    /// Where they go.
    pub destination: Destination,
    /// One of these keys must have signed it, if there are any; then it must be readable in any place.
    pub trusted: TrustedKeys,
    /// Certificates of authorities to trust besides the system's, in PEM.
    pub ca_file: Option<PathBuf>,
    /// What it may take of the machine.
    pub limits: Limits,
}

/// Where extracted entries go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Below this folder, which is made where missing; never outside of it.
    Folder(PathBuf),
    /// One after the other to standard output.
    Stdout,
}
