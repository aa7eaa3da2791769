//! What a verification is told.

use std::path::PathBuf;

use super::Scratch;
use crate::options::{Expectations, Limits, Location};

/// Everything but the keys, which every level but [`Level::Sums`] needs.
#[derive(Clone, Debug)]
pub struct Options {
    /// The bundle.
    pub bundle: Location,
    /// How deep.
    pub level: Level,
    /// Where level *restore* restores into.
    pub scratch: Scratch,
    /// Which bundle it must be.
    pub expect: Expectations,
    /// Certificates of authorities to trust besides the system's, in PEM.
    pub ca_file: Option<PathBuf>,
    /// What it may take of the machine.
    pub limits: Limits,
}

/// How deep a verification goes; each level includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Every byte of the file, without a key.
    Sums,
    /// Every entry: hash, size, and a chunk's key; tables' rows and fingerprints.
    Contents,
    /// The dump against the objects: the live set, migrations, tracker, file sets.
    Closed,
    /// The dump is loaded into a server of its own, and read out again.
    Restore,
}
