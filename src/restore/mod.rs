//! Restore: a bundle becomes databases and a bucket again, and the result is proved.
//!
//! From a file or a bucket, the whole bundle is checked against its sums before the first byte is written, and then read by
//! two: while one pass writes the objects and checks all that goes by, another reads the dumps alone, and loads them; where the
//! databases alone are restored, nobody else reads. From a pipe that cannot be, so databases are loaded under temporary names,
//! which they lose when everything held. Bucket and databases carry a mark until the proof; the same bundle goes on where an
//! interrupted run stopped.

mod databases;
mod dumps;
mod error;
mod mark;
mod objects;
pub mod options;
mod outcome;
mod plan;
mod proof;
mod release;
mod target;

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::{Either, select, try_join};
use pacharc_format::manifest::Manifest;
use pacharc_format::{BundleReader, BundleStream, Entry, Found, Head, RangeReader, ReadOptions, Source, Spool, Unlock};

pub use error::Error;
pub use options::{Options, Rename};
pub use outcome::{Incomplete, Outcome, RestoredDatabase, RestoredObjects};
pub use plan::{Plan, PlannedDatabase, plan};
pub use release::RestoredRelease;

use crate::budget::Budget;
use crate::bundle::Input;
use crate::interrupt::Interrupt;
use crate::monitor::{Counter, Monitor, Phase, Wait, timed};
use crate::outcome::Outcome as _;
use crate::signature::SignedBy;
use crate::verify::{self, Level, Scratch};
pub(crate) use databases::DatabaseWriter;
pub(crate) use mark::MARK;
use objects::ObjectWriter;
use proof::Expected;
use release::{LoadedDatabases, Release};
use target::Target;

/// Restores a bundle into the target that `options` name.
///
/// # Errors
/// [`Error`]. After an error the target is marked as unfinished, and must not be used.
pub async fn run(
    options: &Options,
    unlock: &Unlock,
    interrupt: &Interrupt,
    monitor: Arc<dyn Monitor>,
) -> Result<Outcome, Error> {
    let input = Input::open(&options.bundle, options.ca_file.as_deref(), Arc::clone(&monitor)).await?;
    let job = Job { options, input: &input, monitor: &monitor };
    let proved = interrupt.guard(job.run(unlock, interrupt)).await?;
    interrupt.finish(RELEASE_PATIENCE, proved.release()).await
}

/// How long a signal waits until a restore that is proved is released: half of it would look like somebody else's data.
const RELEASE_PATIENCE: Duration = Duration::from_secs(5);
/// Where the dumps lie in a bundle.
const DATABASES: &str = "database/";

/// One restore.
struct Job<'a> {
    options: &'a Options,
    input: &'a Input,
    monitor: &'a Arc<dyn Monitor>,
}

/// What is known of a bundle before it is unpacked, where it can be read in any place.
struct Known {
    reader: BundleReader<Box<dyn RangeReader>>,
    signed_by: Option<SignedBy>,
}

/// A restore that holds, but for the marks that it is not done.
struct Proved<'a> {
    outcome: Outcome,
    databases: Option<DatabaseWriter<'a>>,
    target: Target,
}

impl Proved<'_> {
    async fn release(mut self) -> Result<Outcome, Error> {
        if let Some(databases) = &mut self.databases {
            self.target.mark_proved().await?;
            databases.release().await?;
        }
        self.target.release_bucket().await?;
        Ok(self.outcome)
    }
}

/// What came out of a bundle when its end was reached.
struct Unpacked {
    manifest: Box<Manifest>,
    id: String,
    expected: Expected,
}

impl<'a> Job<'a> {
    async fn run(&self, unlock: &Unlock, interrupt: &Interrupt) -> Result<Proved<'a>, Error> {
        self.monitor.phase(Phase::Check);
        if self.options.postgres.is_none() && self.options.bucket.is_none() {
            return Err(Error::Nothing);
        }
        let mut target = Target::open(self.options).await?;
        let mut release = Release::open(self.options).await?;
        let known = self.know(unlock, interrupt, release.as_mut()).await?;
        // A dump is picked out beside the objects; and wherever it must be that of a certain bundle, since what comes front to
        // back is bound to sums and signature only at its end.
        let is_picked = self.options.bucket.is_some() || !self.options.expect.is_empty();
        // Two who read the bundle share the memory.
        let is_shared = known.is_some() && self.options.postgres.is_some() && is_picked;
        let budget = if is_shared { self.budget().beside_databases() } else { self.budget() };
        let dumps_alone = known.as_ref().map(|known| known.reader.manifest()).filter(|manifest| {
            // Without objects there is nothing that need not be read, and a stream reads ahead.
            self.options.bucket.is_none() && manifest.objects.is_some()
        });
        let (head, mut stream) = match dumps_alone {
            Some(manifest) => (dumps::head(manifest), None),
            None => {
                let mut stream = BundleStream::open(self.input.stream().await?, self.read_options(budget)).await?;
                match &known {
                    Some(known) => stream.unlock_with(known.reader.key()),
                    None => stream.unlock(unlock)?,
                }
                (self.head(&mut stream).await?, Some(stream))
            }
        };
        let selection = target::selection(self.options, &head)?;
        if self.options.bucket.is_some() && head.bucket.is_none() {
            return Err(Error::NoObjects);
        }
        if let Some(release) = &release {
            let manifest = known.as_ref().map(|known| known.reader.manifest());
            let source = manifest.and_then(|manifest| manifest.source.cluster.as_ref());
            release.check(&head, source)?;
            release.check_secrets().await?;
        }
        target.check_source(&head, &selection, self.monitor.as_ref()).await?;
        if known.is_none() {
            self.check_names(&target, &selection).await?;
        }
        let attempt = known.as_ref().map(|known| known.reader.manifest().attempt);
        let server = target.server.take();
        let mut databases = server.as_ref().map(|server| {
            let owner = (self.options.owner.as_deref(), self.options.limits.jobs);
            DatabaseWriter::new(server, owner, &head, &selection, attempt, self.monitor.as_ref())
        });
        target.check_bucket(head.bundle).await?;
        target.check_deleting().await?;
        let proved = async {
            if let Some(databases) = &mut databases {
                databases.create(target.was_proved()).await?;
            }
            target.mark_bucket(head.bundle).await?;
            let objects = target.bucket.as_ref().map(|bucket| {
                ObjectWriter::new(Arc::clone(bucket), budget.write, target.is_resumed(), Arc::clone(self.monitor))
            });
            let is_loading = AtomicBool::new(is_shared);
            let unpacked = match (&known, &mut stream, &mut databases) {
                (Some(known), Some(stream), Some(databases)) if is_shared => {
                    let unpacking = self.unpack(stream, objects, None, release.as_mut(), &is_loading);
                    self.beside(unpacking, self.load(&known.reader, databases, &is_loading)).await?
                }
                (_, Some(stream), databases) => {
                    self.unpack(stream, objects, databases.as_mut(), release.as_mut(), &is_loading).await?
                }
                (Some(known), None, Some(databases)) => self.load_alone(&known.reader, databases).await?,
                // There is a stream where there is no database.
                (_, None, _) => return Err(Error::Nothing),
            };
            // Whoever has the bundle's key could have put another one in its place since.
            let checked = known.as_ref().map(|known| hex::encode(known.reader.trailer().id));
            if let Some(checked) = checked.filter(|checked| *checked != unpacked.id) {
                return Err(Error::Replaced { checked, came: unpacked.id });
            }
            let source = unpacked.manifest.source.clone();
            let mut outcome = self.prove(unpacked, &target, databases.as_mut()).await?;
            outcome.signed_by = known.as_ref().and_then(|known| known.signed_by.clone());
            if let Some(release) = &release {
                let now = |name: &str| databases.as_ref().and_then(|databases| databases.name_now(name));
                let loaded = LoadedDatabases::new(&head, &selection, now);
                let server = server.as_ref().map(|(server, _)| server);
                outcome.release = release.finish(&source, server, &loaded, self.monitor.as_ref()).await?;
            }
            Ok(outcome)
        };
        match (proved.await, &mut databases) {
            (Ok(outcome), _) => Ok(Proved { outcome, databases, target }),
            (Err(error), Some(databases)) => {
                // Nothing of what a pipe brought and that did not hold may look like a database.
                databases.drop_temporary().await;
                Err(error)
            }
            (Err(error), None) => Err(error),
        }
    }

    /// Everything is proved before it is used, where the bundle can be read twice.
    async fn know(
        &self,
        unlock: &Unlock,
        interrupt: &Interrupt,
        release: Option<&mut Release<'_>>,
    ) -> Result<Option<Known>, Error> {
        let trusted = &self.options.expect.trusted;
        // A signature comes last, and the dump's SQL would have been run by then.
        if !self.input.is_seekable() && trusted.is_empty() {
            return Ok(None);
        }
        let reader = BundleReader::open(self.input.ranges().await?, unlock).await?;
        let manifest = reader.manifest().clone();
        // What this reader gives later is what the catalog names, and so what was signed, even if somebody swaps the file.
        let signed_by = trusted.check_reader::<_, Error>(&reader).await?;
        let id = hex::encode(reader.trailer().id);
        verify::expected(&self.options.expect, Some(&id), &manifest.about.created)?;
        // Sums that somebody else has made to fit are told before anything is written.
        reader.check_sums().await?;
        target::check_closed(&manifest, self.options.allow_incomplete)?;
        self.totals(&manifest);
        let options = verify::Options {
            bundle: self.options.bundle.clone(),
            level: Level::Sums,
            scratch: Scratch::Throwaway(None),
            expect: self.options.expect.clone(),
            ca_file: self.options.ca_file.clone(),
            limits: self.options.limits.clone(),
        };
        let checked = verify::run(&options, None, interrupt, Arc::clone(self.monitor)).await?;
        match checked.class() {
            None => {
                if let Some(release) = release {
                    release.read(&reader).await?;
                }
                Ok(Some(Known { reader, signed_by }))
            }
            Some(_) => {
                let first = checked.findings.first().map(|finding| format!("{}: {}", finding.path, finding.problem));
                Err(Error::Damaged(first.unwrap_or_default()))
            }
        }
    }

    fn totals(&self, manifest: &Manifest) {
        if let (Some(_), Some(objects)) = (&self.options.bucket, &manifest.objects) {
            let counts = [objects.live, objects.orphan, objects.foreign, objects.rotten];
            self.monitor.total(Counter::Objects, counts.iter().map(|count| count.count).sum());
            self.monitor.total(Counter::ObjectBytes, counts.iter().map(|count| count.bytes).sum());
        }
        if self.options.postgres.is_some() {
            let tables = manifest.databases.iter().flat_map(|database| &database.tables);
            self.monitor.total(Counter::DatabaseBytes, tables.map(|table| table.bytes).sum());
        }
    }

    /// The head comes before anything else.
    async fn head<R: Source>(&self, stream: &mut BundleStream<'_, R>) -> Result<Head, Error> {
        match stream.next().await? {
            Some(Found::Head(head)) => Ok(*head),
            Some(Found::Damage(error)) => Err(error.into()),
            _ => Err(Error::Worker("the bundle does not begin with its head".into())),
        }
    }

    /// From a pipe the final names must be free: what came is proved only at the end, and then renamed.
    async fn check_names(&self, target: &Target, selection: &[Rename]) -> Result<(), Error> {
        let Some((server, _)) = &target.server else { return Ok(()) };
        for Rename { target, .. } in selection {
            match server.connect(target).await {
                Err(crate::database::Error::DatabaseMissing { .. }) => {}
                Err(error) => return Err(error.into()),
                Ok(_) => return Err(Error::DatabaseExists(target.clone())),
            }
        }
        Ok(())
    }

    /// Reads the bundle to its end. What comes out of each segment has been checked. Where somebody else `is_loading` databases
    /// out of it, their share of the memory is taken over when that has ended.
    async fn unpack<R: Source>(
        &self,
        stream: &mut BundleStream<'_, R>,
        mut objects: Option<ObjectWriter>,
        mut databases: Option<&mut DatabaseWriter<'_>>,
        mut release: Option<&mut Release<'_>>,
        is_loading: &AtomicBool,
    ) -> Result<Unpacked, Error> {
        let monitor = self.monitor.as_ref();
        monitor.phase(Phase::Unpack);
        let mut expected = Expected::new(self.spool());
        let (mut manifest, mut id) = (None, None);
        let mut is_shared = is_loading.load(Ordering::Acquire);
        while let Some(found) = stream.next().await? {
            if is_shared && !is_loading.load(Ordering::Acquire) {
                is_shared = false;
                stream.set_memory(self.budget().read_ahead);
                objects.iter_mut().for_each(|objects| objects.set_memory(self.budget().write));
            }
            match found {
                Found::Entries(entries) => {
                    let entries: Vec<Entry> = entries.into_iter().map(|(entry, _)| entry).collect();
                    let (dumps, others): (Vec<_>, Vec<_>) =
                        entries.into_iter().partition(|entry| entry.path.starts_with(DATABASES));
                    if let Some(release) = &mut release {
                        others.iter().try_for_each(|entry| release.entry(entry))?;
                    }
                    if let Some(objects) = &mut objects {
                        timed(monitor, Wait::Bucket, objects.segment(others)).await?;
                    }
                    if let Some(databases) = &mut databases {
                        for entry in dumps {
                            timed(monitor, Wait::Databases, databases.entry(entry)).await?;
                        }
                    }
                }
                Found::Catalog(lines) => {
                    for line in lines {
                        expected.line(&line, self.monitor.as_ref())?;
                    }
                }
                Found::Manifest(found) => manifest = Some(found),
                Found::Damage(error) => return Err(error.into()),
                Found::End { id: found, .. } => id = Some(found),
                Found::Head(_) | Found::Passed => {}
            }
        }
        if let Some(objects) = objects {
            timed(monitor, Wait::Bucket, objects.finish()).await?;
        }
        match (manifest, id) {
            (Some(manifest), Some(id)) => Ok(Unpacked { manifest, id, expected }),
            _ => Err(Error::Worker("the bundle has no end".into())),
        }
    }

    /// Loads the databases alone: their dump comes behind all objects, and needs not wait for those to be written. Each entry is
    /// one that the catalog names, by its hash.
    async fn load(
        &self,
        reader: &BundleReader<Box<dyn RangeReader>>,
        databases: &mut DatabaseWriter<'_>,
        is_loading: &AtomicBool,
    ) -> Result<(), Error> {
        let mut segments = reader.segments(DATABASES, self.spool()).await?;
        let (mut largest, room) = (0_usize, self.budget().of_databases());
        let mut following = segments.next().await?;
        while let Some(entries) = following {
            largest = largest.max(entries.iter().map(|entry| entry.body.len()).sum());
            let feeding = async {
                for entry in entries {
                    databases.entry(entry).await?;
                }
                Ok::<_, Error>(())
            };
            // The server works on this one while the next is opened, where there is room for two and for what is sealed.
            following = match largest.saturating_mul(3) <= room {
                true => try_join(feeding, async { Ok(segments.next().await?) }).await?.1,
                false => {
                    feeding.await?;
                    segments.next().await?
                }
            };
        }
        is_loading.store(false, Ordering::Release);
        Ok(())
    }

    /// Loads the databases of a bundle of which nothing else is restored.
    async fn load_alone(
        &self,
        reader: &BundleReader<Box<dyn RangeReader>>,
        databases: &mut DatabaseWriter<'_>,
    ) -> Result<Unpacked, Error> {
        let monitor = self.monitor.as_ref();
        monitor.phase(Phase::Unpack);
        let manifest = Box::new(reader.manifest().clone());
        if Incomplete::of(&manifest).is_some() {
            dumps::tell_lacking(reader, monitor).await?;
        }
        let is_loading = AtomicBool::new(true);
        timed(monitor, Wait::Databases, self.load(reader, databases, &is_loading)).await?;
        Ok(Unpacked { manifest, id: hex::encode(reader.trailer().id), expected: Expected::new(self.spool()) })
    }

    /// Unpacks and loads at the same time; the first error ends both.
    async fn beside(
        &self,
        unpacking: impl Future<Output = Result<Unpacked, Error>>,
        loading: impl Future<Output = Result<(), Error>>,
    ) -> Result<Unpacked, Error> {
        match select(pin!(unpacking), pin!(loading)).await {
            Either::Left((unpacked, loading)) => {
                let unpacked = unpacked?;
                // Only now anybody waits for them.
                timed(self.monitor.as_ref(), Wait::Databases, loading).await?;
                Ok(unpacked)
            }
            Either::Right((loaded, unpacking)) => {
                loaded?;
                unpacking.await
            }
        }
    }

    /// Compares the target with the bundle.
    async fn prove(
        &self,
        unpacked: Unpacked,
        target: &Target,
        databases: Option<&mut DatabaseWriter<'_>>,
    ) -> Result<Outcome, Error> {
        let Unpacked { manifest, id, mut expected } = unpacked;
        verify::expected(&self.options.expect, Some(&id), &manifest.about.created)?;
        target::check_closed(&manifest, self.options.allow_incomplete)?;
        target.check_mark().await?;
        let mut restored = Vec::new();
        if let Some(databases) = databases {
            let finished = timed(self.monitor.as_ref(), Wait::Databases, databases.finish(&manifest)).await?;
            for (name, proof) in finished {
                if let Some(first) = proof.differences.first() {
                    let first = format!("database {name}: {first}");
                    return Err(Error::NotEqual { first, count: proof.differences.len() as u64 });
                }
                restored.push(RestoredDatabase { name, tables: proof.tables, rows: proof.rows });
            }
        }
        let incomplete = Incomplete::of(&manifest);
        let mut objects = None;
        if let Some(bucket) = &target.bucket {
            let proved = expected.prove(bucket.as_ref(), self.spool(), self.monitor.as_ref());
            if let Some((first, count)) = timed(self.monitor.as_ref(), Wait::Bucket, proved).await? {
                return Err(Error::NotEqual { first, count });
            }
            let Expected { count, bytes, .. } = expected;
            let Incomplete { missing, rotten } = incomplete.unwrap_or(Incomplete { missing: 0, rotten: 0 });
            objects = Some(RestoredObjects { bucket: bucket.url().to_owned(), count, bytes, missing, rotten });
        }
        let contents = Some(manifest.as_ref().into());
        let (bundle, databases) = (manifest.about.bundle, restored);
        Ok(Outcome { bundle, id, databases, objects, incomplete, release: None, signed_by: None, contents })
    }

    fn budget(&self) -> Budget {
        Budget::new(self.options.limits.max_memory)
    }

    fn spool(&self) -> Spool {
        Spool::new(&self.options.limits.temp_dir, self.budget().spool)
    }

    fn read_options(&self, budget: Budget) -> ReadOptions<'_> {
        let limits = &self.options.limits;
        ReadOptions { jobs: limits.jobs, memory: budget.read_ahead, temp_dir: &limits.temp_dir }
    }
}
