//! A dry run of a restore: what would go where, and whether anything stands in the way. Nothing is written.

use std::sync::Arc;

use indicatif::HumanBytes;
use pacharc_format::manifest::{Count, Database, Manifest};
use pacharc_format::{BundleReader, BundleStream, Unlock};
use serde::Serialize;

use super::databases::DatabaseWriter;
use super::release::Release;
use super::target::{self, Target};
use super::{Error, Job, Options, Rename};
use crate::bundle::Input;
use crate::database::restore::Place;
use crate::failure::Class;
use crate::interrupt::Interrupt;
use crate::monitor::Monitor;
use crate::outcome::Facts;
use crate::verify;

/// What a restore would do.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// The bundle's id.
    pub id: String,
    /// When it was begun.
    pub created: String,
    /// Whether it is closed; absent where there is no live set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub closed: Option<bool>,
    /// The target's server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// The databases.
    pub databases: Vec<PlannedDatabase>,
    /// The target's bucket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bucket: Option<String>,
    /// What would be written into it.
    pub objects: Count,
    /// Whether an earlier run of this restore would be continued.
    pub resumed: bool,
}

/// One database of a plan.
#[derive(Clone, Debug, Serialize)]
pub struct PlannedDatabase {
    /// Its name in the bundle.
    pub bundled: String,
    /// Its name on the target.
    pub target: String,
    /// Rows.
    pub rows: u64,
    /// Bytes of COPY text.
    pub bytes: u64,
    /// What the target has of that name already.
    pub place: Place,
}

/// Looks at bundle and target as a restore would.
///
/// # Errors
/// Whatever would make the restore refuse, as far as it can be known without writing; a bundle from a pipe.
pub async fn plan(
    options: &Options,
    unlock: &Unlock,
    interrupt: &Interrupt,
    monitor: Arc<dyn Monitor>,
) -> Result<Plan, Error> {
    let input = Input::open(&options.bundle, options.ca_file.as_deref(), Arc::clone(&monitor)).await?;
    interrupt.guard(make(options, unlock, &input, &monitor)).await
}

async fn make(options: &Options, unlock: &Unlock, input: &Input, monitor: &Arc<dyn Monitor>) -> Result<Plan, Error> {
    if options.postgres.is_none() && options.bucket.is_none() {
        return Err(Error::Nothing);
    }
    let mut target = Target::open(options).await?;
    let reader = BundleReader::open(input.ranges().await?, unlock).await?;
    options.expect.trusted.check_reader::<_, Error>(&reader).await?;
    let (manifest, id) = (reader.manifest().clone(), hex::encode(reader.trailer().id));
    verify::expected(&options.expect, Some(&id), &manifest.about.created)?;
    reader.check_sums().await?;
    target::check_closed(&manifest, options.allow_incomplete)?;
    let job = Job { options, input, monitor };
    let mut stream = BundleStream::open(input.stream().await?, job.read_options(job.budget())).await?;
    stream.unlock_with(reader.key());
    let head = job.head(&mut stream).await?;
    let selection = target::selection(options, &head)?;
    if options.bucket.is_some() && head.bucket.is_none() {
        return Err(Error::NoObjects);
    }
    if let Some(mut release) = Release::open(options).await? {
        release.read(&reader).await?;
        release.check(&head, manifest.source.cluster.as_ref())?;
        release.check_secrets().await?;
    }
    target.check_source(&head, &selection, monitor.as_ref()).await?;
    target.check_bucket(head.bundle).await?;
    let mut databases = Vec::new();
    if let Some(server) = &target.server {
        let owner = (options.owner.as_deref(), options.limits.jobs);
        let writer = DatabaseWriter::new(server, owner, &head, &selection, Some(manifest.attempt), monitor.as_ref());
        for rename in selection {
            let place = writer.place(&rename.bundled, target.was_proved()).await?;
            databases.extend(place.map(|place| database(&manifest, rename, place)));
        }
    }
    let objects = manifest.objects.clone().filter(|_| options.bucket.is_some()).unwrap_or_default();
    let mut written = Count::default();
    for Count { count, bytes } in [objects.live, objects.orphan, objects.foreign, objects.rotten] {
        written = Count { count: written.count + count, bytes: written.bytes + bytes };
    }
    Ok(Plan {
        id,
        created: manifest.about.created.clone(),
        closed: manifest.objects.as_ref().and_then(|objects| objects.closed),
        server: target.server.as_ref().map(|(server, _)| server.address()),
        databases,
        bucket: options.bucket.clone(),
        objects: written,
        resumed: target.is_resumed(),
    })
}

fn database(manifest: &Manifest, rename: Rename, place: Place) -> PlannedDatabase {
    let tables = |database: &&Database| database.name == rename.bundled;
    let tables = manifest.databases.iter().find(tables).map(|database| database.tables.as_slice()).unwrap_or_default();
    PlannedDatabase {
        rows: tables.iter().map(|table| table.rows).sum(),
        bytes: tables.iter().map(|table| table.bytes).sum(),
        bundled: rename.bundled,
        target: rename.target,
        place,
    }
}

impl crate::outcome::Outcome for Plan {
    fn class(&self) -> Option<Class> {
        None
    }

    fn summary(&self) -> String {
        String::new()
    }

    fn product(&self) -> Option<String> {
        let mut facts = Facts::default();
        facts.add("bundle", format!("{}, begun {}", self.id, self.created));
        match self.closed {
            Some(true) => facts.add("closed", "yes"),
            Some(false) => facts.add("closed", "NO: live objects are missing or rotten"),
            None => {}
        }
        if let Some(server) = &self.server {
            facts.add("server", server);
        }
        for PlannedDatabase { bundled, target, rows, bytes, place } in &self.databases {
            let state = match place {
                Place::Free => "will be created",
                Place::Left => "left of an interrupted restore, will be made anew",
                Place::Empty => "exists, and is empty",
                Place::Loaded => "loaded by an earlier run, will be proved",
            };
            facts.add("database", format!("{bundled} -> {target}: {rows} rows, {} ({state})", HumanBytes(*bytes)));
        }
        if let Some(bucket) = &self.bucket {
            facts.add("bucket", bucket);
            facts.add("", format!("{} objects, {}", self.objects.count, HumanBytes(self.objects.bytes)));
        }
        if self.resumed {
            facts.add("note", "an earlier run of this restore will be continued");
        }
        Some(facts.into_text())
    }
}
