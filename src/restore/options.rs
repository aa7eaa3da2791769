//! What a restore is told.

use std::path::PathBuf;

use crate::options::{Cluster, Expectations, Limits, Location, Postgres};

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
    /// The namespace that it will run in.
    pub cluster: Option<Cluster>,
    /// The release to come.
    pub release: Release,
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

/// What is wanted for the Helm release that will run on the restored data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Release {
    /// Where values, Secrets and next steps are written to.
    pub write_to: Option<PathBuf>,
    /// Whether the captured Secrets are made in the namespace.
    pub apply_secrets: bool,
    /// Whether credentials that only values can hold are written in clear, into a file of their own.
    pub secret_values: bool,
    /// The host under which users will reach it; `None`: as before.
    pub host: Option<String>,
    /// Which Pachyderm is wanted after the one that was backed up.
    pub pachyderm_version: Option<String>,
    /// Go on with a schema of a release that is not known.
    pub allow_unknown_schema: bool,
    /// Cut it off from the world, for a rehearsal.
    pub drill: bool,
}
