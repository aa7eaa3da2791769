//! What a restore is told.

use std::path::PathBuf;

use crate::options::{Expectations, Limits, Location, Postgres};

/// Everything but the keys. At least one of `postgres` and `bucket` is given.
#[derive(Clone, Debug)]
pub struct Options {
    /// The bundle.
    pub bundle: Location,
    /// The server to restore into; `None`: leave the databases out.
    pub postgres: Option<Postgres>,
    /// Which databases, and under which names; empty: all, under their own.
    pub databases: Vec<Rename>,
    /// Who owns what is restored; `None`: the connecting role.
    pub owner: Option<String>,
    /// The URL of the bucket to restore into; `None`: leave the objects out.
    pub bucket: Option<String>,
    /// Allow a bucket URL with a prefix, which Pachyderm itself would ignore.
    pub allow_prefix: bool,
    /// Restore a bundle that is not closed.
    pub allow_incomplete: bool,
    /// Which bundle it must be.
    pub expect: Expectations,
    /// Certificates of authorities to trust besides the system's, in PEM.
    pub ca_file: Option<PathBuf>,
    /// What it may take of the machine.
    pub limits: Limits,
}

/// `BUNDLED=TARGET`: a database and the name it is restored under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rename {
    /// Its name in the bundle.
    pub bundled: String,
    /// Its name on the target.
    pub target: String,
}
