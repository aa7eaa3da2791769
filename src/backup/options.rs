//! What a backup is told.

use std::path::PathBuf;

use crate::options::{Cluster, Limits, Postgres, Template};

/// Everything but the keys. At least one of `postgres` and `bucket` is given.
#[derive(Clone, Debug)]
pub struct Options {
    /// The server; `None`: no databases.
    pub postgres: Option<Postgres>,
    /// The databases on it; empty: `pachyderm`, and `dex` where it exists.
    pub databases: Vec<String>,
    /// The bucket's URL; `None`: no objects.
    pub bucket: Option<String>,
    /// The namespace whose state goes in; `None`: nothing of Kubernetes.
    pub cluster: Option<Cluster>,
    /// Certificates of authorities to trust besides the system's, in PEM.
    pub ca_file: Option<PathBuf>,
    /// Where the bundle goes. `None` in a dry run alone.
    pub output: Option<Template>,
    /// How the source is treated meanwhile.
    pub quiesce: Quiesce,
    /// Leave orphans out.
    pub live_only: bool,
    /// Leave out keys that begin so.
    pub exclude: Vec<Vec<u8>>,
    /// Stop at the first live object that is missing or rotten.
    pub strict: bool,
    /// Of zstd, 1 to 19.
    pub compression_level: i32,
    /// What it may take of the machine.
    pub limits: Limits,
}

/// How the source is treated during a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quiesce {
    /// Not paused.
    Online,
}
