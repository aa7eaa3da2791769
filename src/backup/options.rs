//! What a backup is told.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use crate::cluster::{self, suspend};
use crate::options::{Cluster, Limits, Names, Postgres, Template};

/// Everything but the keys. At least one of `cluster`, `postgres` and `bucket` is given.
#[derive(Clone, Debug)]
pub struct Options {
    /// The namespace that says what the other options leave open, and whose state goes in, too.
    pub cluster: Option<Cluster>,
    /// The server; `None`: no databases. With a cluster, its URL need not name a server.
    pub postgres: Option<Postgres>,
    /// The databases on it; empty: Pachyderm's, and Dex's where it exists.
    pub databases: Vec<String>,
    /// The bucket's URL; `None`: the cluster's, or no objects.
    pub bucket: Option<String>,
    /// Certificates of authorities to trust besides the system's, in PEM.
    pub ca_file: Option<PathBuf>,
    /// Where the bundle goes. `None` in a dry run alone.
    pub output: Option<Template>,
    /// How the source is treated meanwhile.
    pub quiesce: Quiesce,
    /// How it is suspended, where it is; with a cluster alone.
    pub suspension: Option<Suspending>,
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

impl Options {
    /// What the output's name is filled in with.
    ///
    /// # Errors
    /// A kubeconfig that cannot be read.
    pub fn names(&self, created: Timestamp, uuid: Uuid) -> Result<Names, cluster::Error> {
        let cluster = self.cluster.as_ref().map(cluster::Cluster::name).transpose()?.unwrap_or_default();
        let namespace = self.cluster.as_ref().map(|cluster| cluster.namespace.clone()).unwrap_or_default();
        Ok(Names { created, uuid, cluster, namespace })
    }
}

/// How the source is treated during a backup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Quiesce {
    /// Not paused.
    #[default]
    Online,
    /// Suspended until its snapshot is open and each live object copied.
    Suspend,
    /// Suspended until the bundle is complete.
    Hold,
}

/// As the manifest has it.
impl fmt::Display for Quiesce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Online => "online",
            Self::Suspend => "suspend",
            Self::Hold => "hold",
        })
    }
}

/// How a cluster is suspended for a backup.
#[derive(Clone, Debug)]
pub struct Suspending {
    /// How it is brought down and up.
    pub options: suspend::Options,
    /// The longest pause of [`Quiesce::Suspend`]; then the cluster is resumed, and the backup goes on as online.
    pub max_pause: Duration,
    /// Leave it down when the bundle is complete: for a cut-over.
    pub stay: bool,
}
