//! A bundle against what lies somewhere now: the source it was made from, or a target it was restored to.
//!
//! A target must be equal. A source may have gone on: what was changed or deleted since is counted; but a chunk never changes,
//! and an object that a live row names must be there: where these do not hold, the source is damaged, and the bundle has what
//! it lacks. A chunk that was rotten at the backup may have been healed since. Everything is read from the bundle's catalog and
//! manifest, and from the other side.

mod outcome;
mod progress;
mod sample;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use pacharc_format::manifest::{self, Manifest};
use pacharc_format::{BundleReader, CatalogLine, Hash, Key, RangeReader, State, Unlock};

pub use outcome::{ComparedDatabase, Comparison, Objects, Side};
pub use sample::Sample;

use super::{Error, Finding, Verdict, expected};
use crate::backup::{self, Source};
use crate::bucket::{self, Bucket};
use crate::bundle::Input;
use crate::database::{Session, restore, still_live};
use crate::hasher::Hasher;
use crate::interrupt::Interrupt;
use crate::monitor::{Counter, Event, Monitor, Phase};
use crate::options::{Expectations, Location};
use crate::restore::Rename;
use progress::{Progress, ProgressFile};
use sample::Choice;

/// Objects that are read at a time.
const READS: usize = 32;
/// How often an object that differs is read before that is believed.
const ATTEMPTS: usize = 3;
/// How often progress is written.
const SAVE: Duration = Duration::from_secs(2);
/// Findings, and differences of a database, that are told one by one.
const NAMED: usize = 100;

/// What a comparison is told.
#[derive(Clone, Debug)]
pub struct Options {
    /// The bundle.
    pub bundle: Location,
    /// What it is compared with.
    pub side: Side,
    /// Where that is: server, bucket, or a namespace that names them.
    pub place: backup::Options,
    /// Databases that have another name there.
    pub renames: Vec<Rename>,
    /// How much is compared; `None`: everything.
    pub sample: Option<Sample>,
    /// What a sample is chosen by; `None`: by chance, or of parts always the same.
    pub seed: Option<u64>,
    /// Where progress is kept.
    pub progress: Option<PathBuf>,
    /// Which bundle it must be.
    pub expect: Expectations,
}

impl Options {
    /// What a database of the bundle is called on the other side.
    fn name_there(&self, bundled: &str) -> String {
        let renamed = self.renames.iter().find(|rename| rename.bundled == bundled);
        renamed.map_or(bundled, |rename| &rename.target).to_owned()
    }
}

/// Compares.
///
/// # Errors
/// [`Error`] where there is no verdict to come to.
pub async fn run(
    options: &Options,
    unlock: &Unlock,
    interrupt: &Interrupt,
    monitor: Arc<dyn Monitor>,
) -> Result<Comparison, Error> {
    monitor.phase(Phase::Check);
    let work = async {
        let input = Input::open(&options.bundle, options.place.ca_file.as_deref(), Arc::clone(&monitor)).await?;
        let reader = BundleReader::open(input.ranges().await?, unlock).await?;
        let signed_by = options.expect.trusted.check_reader::<_, Error>(&reader).await?;
        let id = hex::encode(reader.trailer().id);
        expected(&options.expect, Some(&id), &reader.manifest().about.created)?;
        let mut place = options.place.clone();
        if place.postgres.is_some() || place.cluster.is_some() {
            place.databases =
                reader.manifest().databases.iter().map(|database| options.name_there(&database.name)).collect();
        }
        let source = Source::open(&place, monitor.as_ref()).await.map_err(Box::new)?;
        let compared = Compare::new(options, &reader, id, &source, monitor.as_ref())?;
        Ok(Comparison { input: input.to_string(), signed_by, ..compared.run().await? })
    };
    interrupt.guard(work).await
}

/// One comparison.
struct Compare<'a, S> {
    options: &'a Options,
    reader: &'a BundleReader<S>,
    manifest: &'a Manifest,
    source: &'a Source,
    choice: Choice,
    file: ProgressFile,
    progress: Progress,
    continued: bool,
    /// On the source's database, once it was asked.
    session: Option<Session>,
    monitor: &'a dyn Monitor,
}

/// What became of one object.
enum Met {
    Equal(u64),
    Changed(u64),
    /// It has the bytes that its key promises, which the bundle has not.
    Healed(u64),
    Gone,
    Archived,
}

impl<'a, S: RangeReader> Compare<'a, S> {
    fn new(
        options: &'a Options,
        reader: &'a BundleReader<S>,
        id: String,
        source: &'a Source,
        monitor: &'a dyn Monitor,
    ) -> Result<Self, Error> {
        let by_chance = || u64::from(uuid::Uuid::new_v4().as_fields().0);
        let seed = options.seed.unwrap_or_else(|| match options.sample {
            None | Some(Sample::Part(..)) => 0,
            Some(_) => by_chance(),
        });
        let mut progress = Progress {
            id,
            since: jiff::Timestamp::now(),
            side: options.side,
            bucket: source.bucket.as_ref().map(|bucket| bucket.url().to_owned()).unwrap_or_default(),
            sample: options.sample.map(|sample| sample.to_string()),
            seed,
            last: None,
            objects: Objects::default(),
            findings: Vec::new(),
        };
        let file = ProgressFile(options.progress.clone());
        let earlier = file.load()?;
        let continued = earlier.is_some();
        if let (Some(earlier), Some(path)) = (earlier, &options.progress) {
            let of_earlier = |progress: &Progress| {
                let Progress { id, side, bucket, sample, .. } = progress.clone();
                (id, side, bucket, sample)
            };
            if of_earlier(&earlier) != of_earlier(&progress) || options.seed.is_some_and(|seed| seed != earlier.seed) {
                return Err(Error::OtherProgress(path.clone()));
            }
            progress = earlier;
        }
        let manifest = reader.manifest();
        let objects = manifest.objects.as_ref().map_or(0, |objects| {
            [objects.live, objects.orphan, objects.foreign, objects.rotten].iter().map(|count| count.count).sum()
        });
        let choice = Choice::new(options.sample, progress.seed, objects);
        Ok(Self { options, reader, manifest, source, choice, file, progress, continued, session: None, monitor })
    }

    async fn run(mut self) -> Result<Comparison, Error> {
        self.monitor.phase(Phase::Prove);
        let bucket = self.source.bucket.clone();
        if let Some(bucket) = &bucket {
            self.objects(bucket).await?;
        }
        let databases = match self.options.sample {
            Some(Sample::Time(_)) => Vec::new(),
            _ => self.databases().await?,
        };
        self.file.done();
        let differ = databases.iter().any(|database| database.different > 0);
        let Objects { lost, archived, .. } = self.progress.objects;
        let verdict = match (self.options.side, self.progress.findings.is_empty() && lost == 0) {
            (Side::Target, true) if differ => Verdict::Damaged,
            (Side::Target, false) => Verdict::Damaged,
            // Of what cannot be read nothing is known.
            (_, true) if archived > 0 => Verdict::Incomplete,
            (_, true) => Verdict::Sound,
            (Side::Source, false) => Verdict::Incomplete,
        };
        let about = &self.manifest.about;
        let Progress { id, since, objects, sample, seed, mut findings, .. } = self.progress;
        if self.options.side == Side::Target {
            for ComparedDatabase { name, differences, .. } in &databases {
                let told = differences.iter().map(|problem| finding(format!("database {name}"), problem.clone()));
                findings.extend(told.take(NAMED.saturating_sub(findings.len())));
            }
        }
        Ok(Comparison {
            input: String::new(),
            against: self.options.side,
            verdict,
            bundle: about.bundle,
            id,
            created: about.created.clone(),
            signed_by: None,
            seed: sample.as_ref().map(|_| seed),
            sample,
            continued: self.continued,
            since: self.continued.then(|| since.to_string()),
            objects: bucket.as_ref().map(|_| objects),
            bucket: bucket.map(|bucket| bucket.url().to_owned()),
            databases,
            findings,
            contents: Some(self.manifest.into()),
        })
    }

    /// Walks the catalog; a comparison that has a time begins somewhere, and comes round.
    async fn objects(&mut self, bucket: &Arc<dyn Bucket>) -> Result<(), Error> {
        const FIRST: &str = "objects/";
        // Behind the last path of this kind.
        const END: &str = "objects0";
        let until = match self.options.sample {
            Some(Sample::Time(time)) => Some(Instant::now() + time),
            _ => None,
        };
        let begin = self.choice.begin();
        let ranges = match begin.as_deref() {
            None => vec![(FIRST, END)],
            Some(begin) => vec![(begin, END), (FIRST, begin)],
        };
        let last = self.progress.last.clone();
        // An earlier run has come to `last`: ranges before that one are done.
        let holds = |(from, to): &(&str, &str), path: &str| *from <= path && path < *to;
        let skip = last.as_deref().and_then(|last| ranges.iter().position(|range| holds(range, last))).unwrap_or(0);
        for (number, (from, to)) in ranges.into_iter().enumerate().skip(skip) {
            let behind = last.as_deref().filter(|_| number == skip);
            if !self.range(bucket, behind.unwrap_or(from), behind, to, until).await? {
                break;
            }
        }
        self.file.save(&self.progress)
    }

    /// Compares what lies between two paths; `false` where time was up.
    async fn range(
        &mut self,
        bucket: &Arc<dyn Bucket>,
        from: &str,
        behind: Option<&str>,
        to: &str,
        until: Option<Instant>,
    ) -> Result<bool, Error> {
        let reader = self.reader;
        let mut catalog = reader.catalog(from);
        let mut saved = Instant::now();
        while let Some(lines) = catalog.next().await? {
            let is_end = lines.last().is_some_and(|line| line.entry.path.as_str() >= to);
            let choice = self.choice;
            let chosen = lines.into_iter().filter(|line| {
                let path = line.entry.path.as_str();
                let lies_here = path.starts_with("objects/") && path < to && behind.is_none_or(|behind| path > behind);
                lies_here && line.state != State::Missing && choice.takes(path)
            });
            let mut met = futures::stream::iter(chosen).map(|line| look(bucket, line)).buffered(READS);
            loop {
                let met = match tokio::time::timeout(SAVE, met.next()).await {
                    Ok(Some(met)) => met,
                    Ok(None) => break,
                    // One that takes long must not keep what came before it from being known.
                    Err(_) => {
                        self.file.save(&self.progress)?;
                        continue;
                    }
                };
                let (line, met) = met?;
                self.take(&line, &met).await?;
                self.progress.last = Some(line.entry.path);
                if saved.elapsed() > SAVE {
                    self.file.save(&self.progress)?;
                    saved = Instant::now();
                }
                if until.is_some_and(|until| Instant::now() >= until) {
                    return Ok(false);
                }
            }
            if is_end {
                break;
            }
        }
        Ok(true)
    }

    /// Counts an object, and judges it.
    async fn take(&mut self, line: &CatalogLine, met: &Met) -> Result<(), Error> {
        let (path, side) = (&line.entry.path, self.options.side);
        let is_chunk = path.starts_with("objects/chunk/");
        self.progress.objects.compared += u64::from(!matches!(met, Met::Archived));
        let (bytes, problem) = match *met {
            Met::Equal(bytes) => {
                self.progress.objects.equal += 1;
                (bytes, None)
            }
            Met::Archived => {
                self.progress.objects.archived += 1;
                (0, None)
            }
            Met::Healed(bytes) if side == Side::Source => {
                self.progress.objects.healed += 1;
                (bytes, None)
            }
            Met::Changed(bytes) | Met::Healed(bytes) => {
                self.progress.objects.changed += 1;
                let told = side == Side::Target || is_chunk;
                (bytes, told.then(|| "it has other bytes there than in the bundle".to_owned()))
            }
            Met::Gone => {
                let missed = if side == Side::Target { Some("it is not there") } else { self.missed(line).await? };
                let count =
                    if missed.is_some() { &mut self.progress.objects.lost } else { &mut self.progress.objects.gone };
                *count += 1;
                (0, missed.map(str::to_owned))
            }
        };
        self.progress.objects.bytes += bytes;
        self.monitor.add(Counter::ProvedObjects, 1);
        self.monitor.add(Counter::ProvedBytes, bytes);
        if let Some(problem) = problem
            && self.progress.findings.len() < NAMED
        {
            self.monitor.event(Event::Damage { path: path.clone(), problem: problem.clone() });
            self.progress.findings.push(finding(path.clone(), problem));
        }
        Ok(())
    }

    /// Why an object that has gone from the source should be there: the source's database has a live row for it now; or
    /// there is no database to ask, and it was no orphan when the bundle was made.
    async fn missed(&mut self, line: &CatalogLine) -> Result<Option<&'static str>, Error> {
        let (Some((server, _)), Some(database)) = (&self.source.server, self.source.pachyderm()) else {
            let was_live = matches!(line.state, State::Live | State::Rotten | State::Object);
            return Ok(was_live.then_some(
                "it is not there, and without the database (--postgres) nobody can tell whether it was collected or lost; \
                 the bundle has it",
            ));
        };
        let Some(chunk) = Key::from_path(&line.entry.path).and_then(|key| key.chunk()) else { return Ok(None) };
        let session = match &mut self.session {
            Some(session) => session,
            None => self.session.insert(server.connect(&database.name).await?),
        };
        let is_live = still_live(session, &chunk).await?;
        Ok(is_live.then_some("it is not there, and a live row names it; the bundle has it"))
    }

    /// Reads tables, sequences and large objects there, and compares them with the manifest.
    async fn databases(&mut self) -> Result<Vec<ComparedDatabase>, Error> {
        let Some((server, tools)) = &self.source.server else { return Ok(Vec::new()) };
        let mut compared = Vec::new();
        for database in &self.manifest.databases {
            let there = self.options.name_there(&database.name);
            let target = restore::Target {
                server: server.clone(),
                database: there.clone(),
                owner: None,
                jobs: self.options.place.limits.jobs,
                mark: String::new(),
            };
            let proof = restore::prove(&target, &tools.psql, &self.chosen(database)).await?;
            let differences = proof.differences.iter().take(NAMED).map(ToString::to_string).collect();
            compared.push(ComparedDatabase {
                name: database.name.clone(),
                there,
                tables: proof.tables,
                rows: proof.rows,
                differences,
                different: proof.differences.len() as u64,
            });
        }
        Ok(compared)
    }

    /// The database with the tables of the sample alone; partitions of one table stay together.
    fn chosen(&self, database: &manifest::Database) -> manifest::Database {
        let mut chosen = database.clone();
        chosen.tables.retain(|table| {
            let (schema, name) = table.root.as_ref().map_or((&table.schema, &table.name), |root| (&root.0, &root.1));
            self.choice.takes(&format!("database/{}/{schema}/{name}", database.folder))
        });
        chosen
    }
}

fn finding(path: String, problem: String) -> Finding {
    Finding { path, offset: None, problem }
}

/// Reads an object there and compares it with the catalog's line; what differs is read again before it is believed.
async fn look(bucket: &Arc<dyn Bucket>, line: CatalogLine) -> Result<(CatalogLine, Met), Error> {
    let Some(key) = Key::from_path(&line.entry.path) else { return Ok((line, Met::Archived)) };
    // What is rotten in the bundle is known there by the hash of its wrong bytes.
    let promised = key.chunk().filter(|_| line.entry.rotten).map(|chunk| Hash::Blake2b(chunk.id));
    let mut met = Met::Gone;
    for _ in 0..ATTEMPTS {
        met = match bucket.get(&key).await {
            Ok(object) => {
                let (size, mut body) = (object.size, object.body);
                let mut hasher = Hasher::like(line.entry.hash);
                let mut right = promised.map(|hash| Hasher::like(Some(hash)));
                while let Some(bytes) = body.next().await {
                    let bytes = bytes?;
                    hasher.update(&bytes);
                    right.iter_mut().for_each(|right| right.update(&bytes));
                }
                let is_equal = size == line.entry.size && Some(hasher.finish()) == line.entry.hash;
                let is_healed = promised.is_some() && right.map(Hasher::finish) == promised;
                match (is_equal, is_healed) {
                    (true, _) => Met::Equal(size),
                    (false, true) => Met::Healed(size),
                    (false, false) => Met::Changed(size),
                }
            }
            Err(bucket::Error::NotFound { .. }) => Met::Gone,
            Err(bucket::Error::Archived { .. }) => Met::Archived,
            Err(error) => return Err(error.into()),
        };
        if !matches!(met, Met::Changed(_)) {
            break;
        }
    }
    Ok((line, met))
}
