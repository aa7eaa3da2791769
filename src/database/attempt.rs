//! One attempt: a snapshot of every database, of which the live set is read, and which is then dumped or given up.
//!
//! Attempts never mix. Each writes below `attempt-<n>` of its own, and whatever an attempt that failed has written stays
//! unused: the manifest names the one that counts.

use futures::{Stream, StreamExt as _, future, stream};
use jiff::Timestamp;
use pacharc_format::manifest::DatabaseKind;

use super::live::{self, LiveChunk};
use super::snapshot::Snapshot;
use super::{DatabaseSurvey, DumpError, Error, Server, Tools};

/// One open snapshot of every database of a server.
#[derive(Debug)]
pub struct Attempt {
    pub(super) server: Server,
    pub(super) tools: Tools,
    pub(super) number: u32,
    pub(super) snapshots: Vec<Snapshot>,
}

impl Attempt {
    /// Locks the tables of `databases` and opens a snapshot of each; `number`, from 1, names the attempt in the bundle.
    ///
    /// PostgreSQL has no snapshot of several databases: they are taken at the same time, but not at the same moment.
    /// Pachyderm's two databases refer to each other in nothing.
    ///
    /// # Errors
    /// Those of [`Snapshot::open`].
    pub async fn open(
        server: &Server,
        tools: &Tools,
        databases: &[DatabaseSurvey],
        number: u32,
    ) -> Result<Self, Error> {
        let snapshots = future::try_join_all(databases.iter().map(|survey| Snapshot::open(server, survey))).await?;
        Ok(Self { server: server.clone(), tools: tools.clone(), number, snapshots })
    }

    /// The number of this attempt.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// When Pachyderm's snapshot was opened; where there is none, the first of all.
    #[must_use]
    pub fn opened(&self) -> Option<Timestamp> {
        self.pachyderm().or(self.snapshots.first()).map(|snapshot| snapshot.opened)
    }

    /// The objects that must exist, by the snapshot of Pachyderm's database, in the order of their keys; none where no
    /// database is Pachyderm's. One row is held at a time.
    ///
    /// # Errors
    /// [`DumpError::HolderLost`], or the server's.
    pub async fn live_set(&self) -> Result<impl Stream<Item = Result<LiveChunk, Error>> + Send + use<>, Error> {
        Ok(match self.pachyderm() {
            Some(snapshot) => live::live_set(snapshot).await?.left_stream(),
            None => stream::empty().right_stream(),
        })
    }

    /// An error if a snapshot was lost; cheap, and asks no server.
    ///
    /// # Errors
    /// [`DumpError::HolderLost`].
    pub fn check(&self) -> Result<(), Error> {
        match self.snapshots.iter().find(|snapshot| snapshot.is_lost()) {
            Some(lost) => Err(DumpError::HolderLost { database: lost.survey.name.clone() }.into()),
            None => Ok(()),
        }
    }

    fn pachyderm(&self) -> Option<&Snapshot> {
        self.snapshots.iter().find(|snapshot| snapshot.survey.kind == DatabaseKind::Pachyderm)
    }
}
