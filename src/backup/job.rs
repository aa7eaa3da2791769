//! The steps of one backup, in order.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use futures::future::BoxFuture;
use jiff::Timestamp;
use pacharc_format::manifest::{self, Manifest};
use pacharc_format::{BundleWriter, Entry, Head, HeadDatabase, Lock, Signer, Spool, WriterOptions, Written};
use tokio::io::AsyncWrite;
use uuid::Uuid;

use super::copy::{self, Delta, Selection, Suspects};
use super::fetch::Fetcher;
use super::{Error, Options, Source, catalog};
use crate::budget::Budget;
use crate::database::restore::create_script;
use crate::database::{Attempt, Progress, folder_name};
use crate::feed::Feed;
use crate::monitor::{Counter, Event, Monitor, Phase};
use crate::signature::SigningKey;

/// How many snapshots are opened, at most, until one is closed and dumped.
const SNAPSHOTS: u32 = 5;
/// Objects read at a time: enough to hide a store's latency; memory is bounded by the feed.
const FETCHES: usize = 32;
/// The same through the API server, which others need, too; each holds its own buffers besides.
const FORWARDED_FETCHES: usize = 8;

/// One backup.
pub(super) struct Job<'a> {
    pub(super) options: &'a Options,
    pub(super) source: &'a Source,
    pub(super) created: Timestamp,
    pub(super) bundle: Uuid,
    pub(super) monitor: Arc<dyn Monitor>,
}

/// The databases as they were dumped, and the snapshot that they were dumped from.
#[derive(Default)]
struct Dumped {
    databases: Vec<manifest::Database>,
    snapshots: u32,
    opened: Option<Timestamp>,
    /// The live set of that snapshot, by path; `None` where no database is Pachyderm's.
    live: Option<Spool>,
}

impl Job<'_> {
    /// Writes the whole bundle.
    pub(super) async fn write<W: AsyncWrite + Unpin + Send>(
        &self,
        output: W,
        lock: Lock,
        signer: Option<&SigningKey>,
    ) -> Result<(Written, Manifest), Error> {
        self.totals();
        let mut bundle = BundleWriter::create(output, self.writer_options(lock), self.head()).await?;
        let suspects = Suspects::new(self.spool());
        let folders = Arc::new(AtomicU64::new(0));
        let selection = Selection { live_only: self.options.live_only, excluded: self.options.exclude.clone() };
        if let Some(bucket) = &self.source.bucket
            && !selection.live_only
        {
            let copied = self.feed(&mut bundle, |feed| {
                let fetcher = Fetcher::new(Arc::clone(bucket), feed, Arc::clone(&folders), false);
                Box::pin(copy::bucket(bucket.as_ref(), fetcher, &selection, self.fetches(), &suspects, &self.monitor))
            });
            copied.await??;
        }
        let mut dumped = self.dump(&mut bundle, &folders).await?;
        if let Some(bucket) = &self.source.bucket {
            bundle.flush().await?;
            let stored = bundle.entries()?;
            let mut none = self.spool();
            let live = dumped.live.as_mut().unwrap_or(&mut none);
            let copied = self.feed(&mut bundle, |feed| {
                let fetcher = Fetcher::new(Arc::clone(bucket), feed, Arc::clone(&folders), true);
                Box::pin(copy::rotten_orphans(fetcher, &suspects, stored, live, self.fetches(), &self.monitor))
            });
            copied.await??;
        }
        let cluster = self.capture(&mut bundle).await?;
        self.monitor.phase(Phase::Finish);
        let version = self.source.postgres().map_or(0, |postgres| postgres.version_num);
        for database in &dumped.databases {
            let (folder, attempt) = (format!("database/{}", database.folder), dumped.snapshots);
            if let Some(script) = create_script(&database.name, &database.properties, version) {
                bundle.add(Entry::text(format!("{folder}/attempt-{attempt}/create.sql"), script)).await?;
            }
            bundle.add(Entry::text(format!("{folder}/VALID"), format!("attempt-{attempt}\n"))).await?;
        }
        let (mut catalog, entries) = bundle.finish_entries().await?;
        let objects = catalog::write(&mut catalog, entries, dumped.live.as_mut()).await?;
        let manifest = self.manifest(dumped, objects, selection, cluster);
        let (_, written, manifest) = catalog.finish(manifest, signer.map(|signer| signer as &dyn Signer)).await?;
        Ok((written, manifest))
    }

    /// Adds the cluster's state: after the snapshot, so that a secret that a pipeline in it names is there already.
    async fn capture<W: AsyncWrite + Unpin + Send>(
        &self,
        bundle: &mut BundleWriter<W>,
    ) -> Result<Option<manifest::Cluster>, Error> {
        let Some((cluster, survey)) = &self.source.cluster else { return Ok(None) };
        self.monitor.phase(Phase::Cluster);
        let captured =
            self.feed(bundle, |feed| Box::pin(async move { survey.capture(cluster, &feed).await })).await??;
        if captured.by_name {
            let what =
                "Secrets and ConfigMaps were read by name alone; those that no rule of the account names are lacking";
            self.monitor.warn(what.to_owned());
        }
        Ok(Some(captured))
    }

    /// Opens snapshots until one is closed, and dumps that one.
    async fn dump<W: AsyncWrite + Unpin + Send>(
        &self,
        bundle: &mut BundleWriter<W>,
        folders: &Arc<AtomicU64>,
    ) -> Result<Dumped, Error> {
        let Some((server, tools)) = &self.source.server else { return Ok(Dumped::default()) };
        let mut number = 0;
        loop {
            number += 1;
            self.monitor.phase(Phase::Snapshot);
            let attempt = match Attempt::open(server, tools, &self.source.databases, number).await {
                Ok(attempt) => attempt,
                Err(error) if error.is_retryable() && number < SNAPSHOTS => {
                    self.attempt_failed(number, &error);
                    continue;
                }
                Err(error) => return Err(give_up(number, error)),
            };
            let live = match self.close(&attempt, bundle, folders).await? {
                Closure::Closed(live) => live,
                Closure::Vanished(count) if number < SNAPSHOTS => {
                    let reason = format!("{count} live objects vanished before they could be copied");
                    self.monitor.event(Event::AttemptFailed { attempt: number, attempts: SNAPSHOTS, reason });
                    continue;
                }
                Closure::Vanished(_) => return Err(Error::CannotClose(number)),
                Closure::Lost(error) if error.is_retryable() && number < SNAPSHOTS => {
                    self.attempt_failed(number, &error);
                    continue;
                }
                Closure::Lost(error) => return Err(give_up(number, error)),
            };
            self.monitor.phase(Phase::Dump);
            let opened = attempt.opened();
            let monitor = Arc::clone(&self.monitor);
            let progress = move |progress| {
                if let Progress::Bytes(bytes) = progress {
                    monitor.add(Counter::DatabaseBytes, bytes);
                }
            };
            let jobs = self.options.limits.jobs;
            let dumped = self.feed(bundle, |feed| Box::pin(async move { attempt.dump(&feed, jobs, progress).await }));
            match dumped.await? {
                Ok(databases) => return Ok(Dumped { databases, snapshots: number, opened, live }),
                Err(error) if error.is_retryable() && number < SNAPSHOTS => self.attempt_failed(number, &error),
                Err(error) => return Err(give_up(number, error)),
            }
        }
    }

    /// Copies what the attempt's live set shows to be lacking.
    async fn close<W: AsyncWrite + Unpin + Send>(
        &self,
        attempt: &Attempt,
        bundle: &mut BundleWriter<W>,
        folders: &Arc<AtomicU64>,
    ) -> Result<Closure, Error> {
        let Some((server, _)) = &self.source.server else { return Ok(Closure::Closed(None)) };
        let (Some(database), Some(bucket)) = (self.source.pachyderm(), &self.source.bucket) else {
            return Ok(Closure::Closed(None));
        };
        bundle.flush().await?;
        let copied = bundle.entries()?;
        let live_set = match attempt.live_set().await {
            Ok(live_set) => live_set,
            Err(error) => return Ok(Closure::Lost(error)),
        };
        let mut live = self.spool();
        let lacking = self.feed(bundle, |feed| {
            let delta = Delta {
                fetcher: Fetcher::new(Arc::clone(bucket), feed, Arc::clone(folders), true),
                server,
                database: &database.name,
                jobs: self.fetches(),
                strict: self.options.strict,
            };
            let (live, monitor) = (&mut live, &self.monitor);
            Box::pin(async move { delta.run(live_set, copied, live, monitor).await })
        });
        match lacking.await? {
            Ok(lacking) if lacking.vanished > 0 => Ok(Closure::Vanished(lacking.vanished)),
            Ok(_) => Ok(Closure::Closed(Some(live))),
            Err(Error::Database(error)) if error.is_retryable() => Ok(Closure::Lost(error)),
            Err(error) => Err(error),
        }
    }

    /// Runs a producer beside the writer. The outer error is the writer's, after which nothing can go on; the inner one
    /// is the producer's.
    async fn feed<'f, T, E, W: AsyncWrite + Unpin + Send>(
        &self,
        bundle: &mut BundleWriter<W>,
        produce: impl FnOnce(Feed) -> BoxFuture<'f, Result<T, E>>,
    ) -> Result<Result<T, E>, Error> {
        let budget = self.budget();
        let (feed, mut entries) = Feed::new(budget.feed, budget.piece_limit);
        let mut producing = produce(feed);
        let monitor = &self.monitor;
        let writing = async {
            while let Some(entry) = entries.recv().await {
                let before = bundle.bytes();
                bundle.add(entry).await?;
                monitor.add(Counter::BundleBytes, bundle.bytes() - before);
            }
            Ok::<_, Error>(())
        };
        let mut writing = std::pin::pin!(writing);
        let produced = tokio::select! {
            written = &mut writing => {
                written?;
                // Whoever had the feed has dropped it, and is about to end.
                return Ok(producing.await);
            }
            produced = &mut producing => produced,
        };
        writing.await?;
        Ok(produced)
    }

    fn attempt_failed(&self, attempt: u32, error: &crate::database::Error) {
        let reason = crate::failure::chain(error);
        self.monitor.event(Event::AttemptFailed { attempt, attempts: SNAPSHOTS, reason });
    }

    fn totals(&self) {
        if let (Some(live), Some(_)) = (self.source.live, &self.source.bucket) {
            self.monitor.total(Counter::Objects, live.count);
            self.monitor.total(Counter::ObjectBytes, live.bytes);
        }
        if self.source.server.is_some() {
            self.monitor.total(Counter::DatabaseBytes, self.source.dump_bytes());
        }
    }

    fn fetches(&self) -> usize {
        if self.source.is_forwarded() { FORWARDED_FETCHES } else { FETCHES }
    }

    fn budget(&self) -> Budget {
        Budget::new(self.options.limits.max_memory)
    }

    fn spool(&self) -> Spool {
        Spool::new(&self.options.limits.temp_dir, self.budget().spool)
    }

    fn writer_options(&self, lock: Lock) -> WriterOptions {
        let budget = self.budget();
        WriterOptions {
            bundle: self.bundle,
            created: self.created.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            lock,
            jobs: self.options.limits.jobs,
            segment_target: budget.segment_target,
            entry_limit: budget.piece_limit,
            level: self.options.compression_level,
            temp_dir: self.options.limits.temp_dir.clone(),
            spool_memory: budget.spool,
        }
    }

    fn head(&self) -> Head {
        let databases = self.source.databases.iter().map(|database| HeadDatabase {
            name: database.name.clone(),
            folder: folder_name(&database.name),
            kind: database.kind,
            schema_version: database.schema_version,
            properties: database.properties.clone(),
        });
        Head {
            bundle: self.bundle,
            postgres: self.source.postgres().cloned(),
            bucket: self.bucket_url(),
            pachyderm: self.source.release(),
            databases: databases.collect(),
            estimated_bytes: Some(self.source.estimate()),
            namespace: self.source.cluster.as_ref().map(|(cluster, _)| cluster.namespace().to_owned()),
        }
    }

    fn manifest(
        &self,
        dumped: Dumped,
        objects: manifest::Objects,
        selection: Selection,
        cluster: Option<manifest::Cluster>,
    ) -> Manifest {
        let encode = |prefix: Vec<u8>| pacharc_format::Key::new(prefix).to_string();
        let objects = self.source.bucket.as_ref().map(|_| manifest::Objects {
            live_only: selection.live_only,
            excluded: selection.excluded.into_iter().map(encode).collect(),
            ..objects
        });
        Manifest {
            finished: Timestamp::now().to_string(),
            source: manifest::Source {
                postgres: self.source.postgres().cloned(),
                bucket: self.bucket_url(),
                quiesce: "online".into(),
                pachyderm: self.source.release(),
                snapshot_opened: dumped.opened.map(|opened| opened.to_string()),
                snapshots: dumped.snapshots,
                cluster,
            },
            databases: dumped.databases,
            attempt: dumped.snapshots,
            objects,
            ..Manifest::default()
        }
    }

    fn bucket_url(&self) -> Option<String> {
        self.source.bucket.as_ref().map(|bucket| bucket.url().to_owned())
    }
}

/// What became of an attempt's live set.
enum Closure {
    /// Every live object was looked for and is in the bundle, or is known to be missing.
    Closed(Option<Spool>),
    /// So many live objects vanished: a newer snapshot is needed.
    Vanished(u64),
    /// The snapshot was lost.
    Lost(crate::database::Error),
}

fn give_up(attempts: u32, error: crate::database::Error) -> Error {
    match attempts {
        1 => error.into(),
        _ => Error::Attempts { attempts, source: Box::new(error) },
    }
}
