//! Dumps every database of an attempt: all pg_dump children are started at once on the attempt's snapshots, while the
//! sessions that hold those count the rows that must come out.

use std::sync::Arc;
use std::time::Duration;

use futures::future;
use pacharc_format::manifest;
use tokio::io::AsyncReadExt as _;

use super::child::{Child, Label};
use super::database_dump::DatabaseDump;
use super::survey::check_permissions;
use super::{Attempt, DumpError, Error};
use crate::feed::Feed;

/// How often the sessions that hold the snapshots are looked at.
const WATCH: Duration = Duration::from_millis(250);
/// The most that is kept of roles and grants, in bytes.
const GLOBALS_LIMIT: u64 = 16 << 20;

/// What a dump tells while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Every child holds its locks and has read the catalogs: a cluster that was suspended for the snapshot may be
    /// resumed.
    Locked,
    /// So many more bytes of COPY text were read.
    Bytes(u64),
}

/// What is told to, by many tasks.
pub(super) type Report = Arc<dyn Fn(Progress) + Send + Sync>;

impl Attempt {
    /// Dumps the snapshots into `feed` and returns what the manifest says of them, in the order of the databases. Each
    /// database has up to `jobs` children that read data, beside three for its schema.
    ///
    /// The entries of one database come in this order: `settings.json`, `globals.sql`, `owners-and-grants.sql`,
    /// `pre-data.sql`, `tables.tsv`, the tables' pieces (tables mingle, the pieces of one are in order), large objects,
    /// `sequences.sql`, `post-data.sql`. A `.sql` file that does not fit into one entry is a folder of pieces. Dropped
    /// before its end, it kills the children.
    ///
    /// # Errors
    /// See [`Error::is_retryable`]. Nothing of an attempt that failed is to be used.
    pub async fn dump(
        self,
        feed: &Feed,
        jobs: usize,
        progress: impl Fn(Progress) + Send + Sync + 'static,
    ) -> Result<Vec<manifest::Database>, Error> {
        let outcome = tokio::select! {
            outcome = self.run(feed, jobs, Arc::new(progress)) => outcome,
            error = self.lost() => Err(error),
        };
        match outcome {
            Ok(databases) => {
                for snapshot in self.snapshots {
                    snapshot.close().await?;
                }
                Ok(databases)
            }
            Err(error) => Err(self.explain(error).await),
        }
    }

    async fn run(&self, feed: &Feed, jobs: usize, report: Report) -> Result<Vec<manifest::Database>, Error> {
        let mut dumps = Vec::new();
        for snapshot in &self.snapshots {
            dumps.push(DatabaseDump::start(self, snapshot, jobs)?);
        }
        let locks = future::try_join_all(dumps.iter_mut().map(|dump| dump.locked(&self.server)));
        let locks = async {
            locks.await?;
            report(Progress::Locked);
            Ok::<_, Error>(())
        };
        let (globals, locked) = future::join(self.globals(), locks).await;
        locked?;
        future::try_join_all(dumps.into_iter().map(|dump| dump.write(feed, &globals, &report))).await
    }

    /// Waits until a snapshot is lost.
    async fn lost(&self) -> Error {
        loop {
            if let Err(error) = self.check() {
                return error;
            }
            tokio::time::sleep(WATCH).await;
        }
    }

    /// Roles and their settings, without passwords, for those who want them; a restore applies them not. In error, why
    /// they are missing: on managed servers the role may not read them.
    async fn globals(&self) -> Result<String, String> {
        let Some(tool) = &self.tools.pg_dumpall else { return Err("pg_dumpall is not installed".to_owned()) };
        let Some(snapshot) = self.snapshots.first() else { return Ok(String::new()) };
        let database = &snapshot.survey.name;
        let label = Label { program: "pg_dumpall".into(), database: database.clone(), part: "globals".into() };
        let arguments = ["--globals-only", "--no-role-passwords", "--no-password", "--database"];
        let arguments: Vec<_> = arguments.iter().map(Into::into).chain([database.into()]).collect();
        let environment = self.server.child_environment(database);
        let (mut child, output) =
            Child::start(label, &tool.path, &arguments, &environment).map_err(|e| e.to_string())?;
        let mut text = Vec::new();
        output.take(GLOBALS_LIMIT).read_to_end(&mut text).await.map_err(|e| e.to_string())?;
        child.finish().await.map_err(|e| e.to_string())?;
        String::from_utf8(text).map_err(|e| e.to_string())
    }

    /// What is behind a child's failure: its text must not be interpreted, but the server can be asked whether the role
    /// has lost a privilege meanwhile, in which case no new attempt would help.
    async fn explain(&self, error: Error) -> Error {
        let Error::Dump(DumpError::Child { database, .. }) = &error else { return error };
        let Ok(session) = self.server.connect(database).await else { return error };
        match check_permissions(&session, database).await {
            Err(refused @ Error::Dump(DumpError::Permission { .. })) => refused,
            _ => error,
        }
    }
}
