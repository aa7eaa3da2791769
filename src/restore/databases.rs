//! Databases on their way from the bundle into the target's server.

use std::collections::HashMap;
use std::time::Duration;

use pacharc_format::manifest::Manifest;
use pacharc_format::{Entry, Head, HeadDatabase};
use uuid::Uuid;

use super::{Error, Rename};
use crate::database::restore::{self, DatabaseRestore, Place, Proof, Proved, RestoreError, Start, Target};
use crate::database::{self, Server, Session, Tool};
use crate::monitor::{Counter, Monitor, Phase};
use crate::{failure, farewell};

/// How long a server may take to make a database that nobody waits for any more.
const SWEEP: Duration = Duration::from_secs(2);

/// Loads the databases of one bundle.
pub(crate) struct DatabaseWriter<'a> {
    psql: Tool,
    /// By folder of the database in the bundle.
    databases: HashMap<String, Restoring>,
    /// Keeps other runs away.
    claim: Option<Session>,
    /// What becomes of databases under temporary names when this is dropped.
    unfinished: Unfinished,
    monitor: &'a dyn Monitor,
}

/// What becomes of a database that nobody works on any more, and that still has a temporary name.
#[derive(Clone, Copy)]
enum Unfinished {
    /// It is dropped.
    Goes,
    /// It goes with its server.
    GoesWithServer,
    /// It is proved, and was to get its name: it stays, and that is told.
    Stays,
}

/// One database that is being restored.
struct Restoring {
    head: HeadDatabase,
    target: Target,
    /// The final name, where `target` is a temporary one.
    rename_to: Option<String>,
    /// The attempt that is being loaded: the one that counts, or from a pipe the last one seen.
    attempt: Option<u32>,
    /// From a pipe it is not known which attempt counts: a later one takes the place of an earlier.
    may_change: bool,
    /// Whether it may be there: its making has begun, and was not refused.
    is_begun: bool,
    state: State,
    /// Whether it was compared with the manifest.
    proved: bool,
}

enum State {
    /// Nothing came yet.
    Waiting,
    /// Entries go in.
    Loading(Box<DatabaseRestore>),
    /// An earlier run loaded it: entries are passed over.
    Loaded,
}

impl<'a> DatabaseWriter<'a> {
    /// `attempt` is the one that counts; `None` from a pipe, where databases are loaded under temporary names. They are
    /// loaded by `jobs` sessions at a time for `owner`, or for the connecting role.
    pub(crate) fn new(
        (server, psql): &(Server, Tool),
        (owner, jobs): (Option<&str>, usize),
        head: &Head,
        selection: &[Rename],
        attempt: Option<u32>,
        monitor: &'a dyn Monitor,
    ) -> Self {
        let databases = head.databases.iter().filter_map(|database| {
            let Rename { target, .. } = selection.iter().find(|rename| rename.bundled == database.name)?;
            let (name, rename_to) = match attempt {
                Some(_) => (target.clone(), None),
                None => (temporary_name(head.bundle, target), Some(target.clone())),
            };
            let target = Target {
                server: server.clone(),
                database: name,
                owner: owner.map(str::to_owned),
                jobs,
                mark: head.bundle.to_string(),
            };
            let restoring = Restoring {
                head: database.clone(),
                target,
                rename_to,
                attempt,
                may_change: attempt.is_none(),
                is_begun: false,
                state: State::Waiting,
                proved: false,
            };
            Some((database.folder.clone(), restoring))
        });
        let databases = databases.collect();
        Self { psql: psql.clone(), databases, claim: None, unfinished: Unfinished::Goes, monitor }
    }

    /// What is made goes with its server, whenever that goes.
    pub(crate) fn leave_to_server(&mut self) {
        self.unfinished = Unfinished::GoesWithServer;
    }

    /// Creates the databases, or finds them loaded: all of them, before the first byte. Where an earlier run `was_proved`,
    /// those without a mark are taken to be its own: nothing is written into them, and they are proved again.
    pub(crate) async fn create(&mut self, was_proved: bool) -> Result<(), Error> {
        if let Some(Restoring { target, .. }) = self.databases.values().next() {
            let server = target.server.clone();
            let mut names: Vec<_> =
                self.databases.values().map(|restoring| restoring.target.database.as_str()).collect();
            // Two runs at once do not wait for each other.
            names.sort_unstable();
            self.claim = Some(restore::claim(&server, &names).await?);
        }
        // Nothing is made as long as one of them may be refused.
        for restoring in self.databases.values_mut() {
            if restoring.place(was_proved).await? == Place::Loaded && !restoring.may_change {
                restoring.state = State::Loaded;
            }
        }
        for restoring in self.databases.values_mut() {
            if matches!(restoring.state, State::Waiting) {
                restoring.start().await?;
            }
        }
        Ok(())
    }

    /// What stands where the database of this name in the bundle goes; `None` where it goes nowhere. Nothing is written, and
    /// whatever [`DatabaseWriter::create`] would refuse for that is the error.
    pub(crate) async fn place(&self, bundled: &str, was_proved: bool) -> Result<Option<Place>, Error> {
        match self.databases.values().find(|restoring| restoring.head.name == bundled) {
            Some(restoring) => Ok(Some(restoring.place(was_proved).await?)),
            None => Ok(None),
        }
    }

    /// What the database of this name in the bundle is called now.
    pub(crate) fn name_now(&self, bundled: &str) -> Option<String> {
        let restoring = self.databases.values().find(|restoring| restoring.head.name == bundled)?;
        Some(restoring.target.database.clone())
    }

    /// Takes an entry below `database/`.
    pub(crate) async fn entry(&mut self, entry: Entry) -> Result<(), Error> {
        let mut parts = entry.path.splitn(4, '/').skip(1);
        let (Some(folder), Some(attempt), Some(rest)) = (parts.next(), parts.next(), parts.next()) else {
            return Ok(());
        };
        let attempt = attempt.strip_prefix("attempt-").and_then(|number| number.parse::<u32>().ok());
        let (Some(restoring), Some(attempt)) = (self.databases.get_mut(folder), attempt) else { return Ok(()) };
        match restoring.attempt {
            Some(current) if current == attempt => {}
            // An attempt that failed at the source: what was loaded of it goes, and the next one begins.
            Some(current) if restoring.may_change && attempt > current => restoring.restart().await?,
            None => {}
            Some(_) => return Ok(()),
        }
        restoring.attempt = Some(attempt);
        if let State::Loading(database) = &mut restoring.state {
            let size = entry.body.len() as u64;
            database.entry(rest, entry.body).await?;
            self.monitor.add(Counter::DatabaseBytes, size);
        }
        Ok(())
    }

    /// Does what is left when all entries were taken, and proves every database against the manifest.
    pub(crate) async fn finish(&mut self, manifest: &Manifest) -> Result<Vec<(String, Proof)>, Error> {
        let mut proofs = Vec::new();
        for database in &manifest.databases {
            let Some(restoring) = self.databases.get_mut(&database.folder) else { continue };
            self.monitor.phase(Phase::Indexes);
            let was_loaded = matches!(restoring.state, State::Loaded);
            if let State::Loading(loading) = std::mem::replace(&mut restoring.state, State::Loaded) {
                for warning in loading.finish(database).await? {
                    self.monitor.warn(format!("database {}: {warning}", restoring.target.database));
                }
            }
            self.monitor.phase(Phase::Prove);
            let proof = restore::prove(&restoring.target, &self.psql, database).await?;
            restoring.proved = true;
            // What is kept of it must not be taken for whole by the next run; under a temporary name it is dropped.
            if !proof.holds() && restoring.rename_to.is_none() {
                restore::unload(&restoring.target).await?;
            }
            // What this run has loaded it has loaded for this owner, and has looked.
            if was_loaded && proof.holds() {
                restore::check_owner(&restoring.target).await?;
            }
            proofs.push((restoring.name().to_owned(), proof));
        }
        // Head and manifest are told apart from each other: what the manifest does not know was compared with nothing.
        match self.databases.values().find(|restoring| !restoring.proved) {
            Some(unknown) => Err(Error::Damaged(format!("its manifest lacks the database {}", unknown.head.name))),
            None => Ok(proofs),
        }
    }

    /// Gives the databases their names and takes their marks away, all at once: all is proved.
    pub(super) async fn release(&mut self) -> Result<(), Error> {
        let Some(Restoring { target, .. }) = self.databases.values().next() else { return Ok(()) };
        self.unfinished = Unfinished::Stays;
        let proved: Vec<_> = self.databases.values().map(Restoring::proved).collect();
        restore::release(&target.server, &proved).await?;
        self.databases.clear();
        Ok(())
    }

    /// Drops what is there under temporary names; what cannot be dropped is told.
    pub(crate) async fn drop_temporary(&mut self) {
        for restoring in self.databases.values_mut().filter(|restoring| restoring.is_temporary()) {
            // Its sessions end first.
            restoring.state = State::Waiting;
            let Target { server, database, .. } = &restoring.target;
            if let Err(error) = restore::drop_database(server, database).await {
                let why = failure::chain(&error);
                self.monitor.warn(format!("database {database} may be left of a restore that failed: {why}"));
            }
            restoring.is_begun = false;
        }
    }
}

/// A signal drops a run where it stands, and what it has under temporary names goes, too: the process waits for that.
impl Drop for DatabaseWriter<'_> {
    fn drop(&mut self) {
        let left: Vec<&Restoring> = self.databases.values().filter(|restoring| restoring.is_temporary()).collect();
        match self.unfinished {
            Unfinished::Goes if !left.is_empty() => {}
            Unfinished::Goes | Unfinished::GoesWithServer => return,
            Unfinished::Stays => {
                for restoring in left {
                    let (database, name) = (&restoring.target.database, restoring.name());
                    self.monitor.warn(format!(
                        "database {database}, if it is still there, is restored and proved, and was about to become {name}: \
                         rename it, or drop it"
                    ));
                }
                return;
            }
        }
        // A server goes on making a database whose session has gone: it is there a moment later.
        let sweeps = if left.iter().any(|restoring| matches!(restoring.state, State::Waiting)) { 2 } else { 1 };
        let left: Vec<Target> = left.into_iter().map(|restoring| restoring.target.clone()).collect();
        // Until then no other run makes them.
        let claim = self.claim.take();
        farewell::start(async move {
            for sweep in 0..sweeps {
                tokio::time::sleep(SWEEP * sweep).await;
                for Target { server, database, .. } in &left {
                    if let Err(error) = restore::drop_database(server, database).await {
                        tracing::warn!("database {database} is left: {}", failure::chain(&error));
                    }
                }
            }
            drop(claim);
        });
    }
}

/// The name of a database until all is proved. PostgreSQL cuts names to 63 bytes: the final one may have as many.
fn temporary_name(bundle: Uuid, target: &str) -> String {
    let (bundle, target) = (bundle.simple().to_string(), blake3::hash(target.as_bytes()).to_hex());
    format!("pacharc_{}_{}", &bundle[..8], &target[..8])
}

impl Restoring {
    /// What stands where it goes. What an earlier run that `was_proved` has released is taken for loaded.
    async fn place(&self, was_proved: bool) -> Result<Place, Error> {
        match restore::check(&self.target, &self.head.properties).await {
            Err(database::Error::Restore(RestoreError::NotEmpty { .. })) if was_proved && self.rename_to.is_none() => {
                Ok(Place::Loaded)
            }
            checked => Ok(checked?),
        }
    }

    async fn start(&mut self) -> Result<(), Error> {
        let mut start = self.create().await?;
        if self.may_change && matches!(start, Start::Loaded) {
            // From a pipe nothing can be passed over: which attempt was loaded is not known.
            restore::drop_database(&self.target.server, &self.target.database).await?;
            start = self.create().await?;
        }
        self.state = match start {
            Start::Empty(database) => State::Loading(database),
            Start::Loaded => State::Loaded,
        };
        Ok(())
    }

    async fn create(&mut self) -> Result<Start, Error> {
        self.is_begun = true;
        let created = DatabaseRestore::create(self.target.clone(), &self.head.properties).await;
        // What is refused was refused before anything was made.
        self.is_begun = !matches!(created, Err(database::Error::Restore(_)));
        Ok(created?)
    }

    async fn restart(&mut self) -> Result<(), Error> {
        // Its sessions end first.
        self.state = State::Waiting;
        restore::drop_database(&self.target.server, &self.target.database).await?;
        self.start().await
    }

    /// Whether it may be there under a temporary name.
    fn is_temporary(&self) -> bool {
        self.is_begun && self.rename_to.is_some()
    }

    fn proved(&self) -> Proved<'_> {
        let (database, rename_to) = (&self.target.database, self.rename_to.as_deref());
        Proved { database, rename_to, properties: &self.head.properties }
    }

    /// The name that it will have.
    fn name(&self) -> &str {
        self.rename_to.as_deref().unwrap_or(&self.target.database)
    }
}
