//! What an inspection is told.

use std::path::PathBuf;

use crate::options::Location;

/// Everything but the keys, without which the manifest stays closed.
#[derive(Clone, Debug)]
pub struct Options {
    /// The bundle.
    pub bundle: Location,
    /// Certificates of authorities to trust besides the system's, in PEM.
    pub ca_file: Option<PathBuf>,
}
