//! The steps of one backup, in order.

use std::sync::Arc;

use futures::future::BoxFuture;
use jiff::Timestamp;
use pacharc_format::manifest::{self, Manifest};
use pacharc_format::{BundleWriter, Entry, Head, HeadDatabase, Lock, Signer, Spool, WriterOptions, Written};
use tokio::io::AsyncWrite;
use uuid::Uuid;

use super::closing::Dumped;
use super::copy::{self, Selection, Suspects};
use super::fetch::{Fetcher, Shared};
use super::pause::Pause;
use super::{Error, Options, Source, catalog};
use crate::budget::Budget;
use crate::bundle::Timed;
use crate::database::folder_name;
use crate::database::restore::create_script;
use crate::feed::Feed;
use crate::monitor::{Counter, Monitor, Phase, Wait, timed};
use crate::signature::SigningKey;

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

impl Job<'_> {
    /// Writes the whole bundle.
    pub(super) async fn write<W: AsyncWrite + Unpin + Send>(
        &self,
        output: W,
        lock: Lock,
        signer: Option<&SigningKey>,
        pause: &mut Pause,
    ) -> Result<(Written, Manifest, u64), Error> {
        self.totals();
        let output = Timed::new(output, Arc::clone(&self.monitor));
        let mut bundle = BundleWriter::create(output, self.writer_options(lock), self.head()).await?;
        let suspects = Suspects::new(self.spool());
        let shared = Arc::new(Shared::default());
        let selection = Selection { live_only: self.options.live_only, excluded: self.options.exclude.clone() };
        if let Some(bucket) = &self.source.bucket
            && !selection.live_only
        {
            let copied = self.feed(&mut bundle, Wait::Bucket, |feed| {
                let fetcher = Fetcher::new(Arc::clone(bucket), feed, Arc::clone(&shared), false);
                Box::pin(copy::bucket(bucket.as_ref(), fetcher, &selection, self.fetches(), &suspects, &self.monitor))
            });
            copied.await??;
        }
        let mut dumped = self.dump(&mut bundle, &shared, pause).await?;
        if let Some(bucket) = &self.source.bucket {
            bundle.flush().await?;
            let stored = bundle.entries()?;
            let mut none = self.spool();
            let live = dumped.live.as_mut().unwrap_or(&mut none);
            let copied = self.feed(&mut bundle, Wait::Bucket, |feed| {
                let fetcher = Fetcher::new(Arc::clone(bucket), feed, Arc::clone(&shared), true);
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
        // The pause belongs into the manifest; that the cluster is not back does not make the bundle worse, and is told at
        // the end.
        pause.await_return().await;
        let manifest = self.manifest(dumped, objects, selection, cluster, pause);
        let (_, written, manifest) = catalog.finish(manifest, signer.map(|signer| signer as &dyn Signer)).await?;
        Ok((written, manifest, shared.reread()))
    }

    /// Adds the cluster's state: after the snapshot, so that a secret that a pipeline in it names is there already.
    async fn capture<W: AsyncWrite + Unpin + Send>(
        &self,
        bundle: &mut BundleWriter<W>,
    ) -> Result<Option<manifest::Cluster>, Error> {
        let Some((cluster, survey)) = &self.source.cluster else { return Ok(None) };
        self.monitor.phase(Phase::Cluster);
        // The API server is told with the bucket: a few requests.
        let captured = self
            .feed(bundle, Wait::Bucket, |feed| Box::pin(async move { survey.capture(cluster, &feed).await }))
            .await??;
        if captured.by_name {
            let what =
                "Secrets and ConfigMaps were read by name alone; those that no rule of the account names are lacking";
            self.monitor.warn(what.to_owned());
        }
        Ok(Some(captured))
    }

    /// Runs a producer beside the writer. The outer error is the writer's, after which nothing can go on; the inner one
    /// is the producer's. `source` is what the writer waits for. What the producer began and did not end, since it failed or
    /// its tasks were dropped, is given up.
    pub(super) async fn feed<'f, T, E, W: AsyncWrite + Unpin + Send>(
        &self,
        bundle: &mut BundleWriter<W>,
        source: Wait,
        produce: impl FnOnce(Feed) -> BoxFuture<'f, Result<T, E>>,
    ) -> Result<Result<T, E>, Error> {
        let budget = self.budget();
        let (feed, mut entries) = Feed::new(budget.feed, budget.piece_limit);
        let mut producing = produce(feed);
        let monitor = &self.monitor;
        let writing = async {
            while let Some(entry) = timed(monitor.as_ref(), source, entries.recv()).await {
                let before = bundle.bytes();
                bundle.add(entry).await?;
                monitor.add(Counter::BundleBytes, bundle.bytes() - before);
            }
            Ok::<_, Error>(())
        };
        let produced = {
            let mut writing = std::pin::pin!(writing);
            tokio::select! {
                written = &mut writing => {
                    written?;
                    // Whoever had the feed has dropped it, and is about to end.
                    producing.await
                }
                produced = &mut producing => {
                    writing.await?;
                    produced
                }
            }
        };
        bundle.abandon_open().await?;
        Ok(produced)
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

    pub(super) fn fetches(&self) -> usize {
        if self.source.is_forwarded() { FORWARDED_FETCHES } else { FETCHES }
    }

    fn budget(&self) -> Budget {
        Budget::new(self.options.limits.max_memory)
    }

    pub(super) fn spool(&self) -> Spool {
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
            sealing: budget.sealing,
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
        pause: &Pause,
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
                quiesce: pause.quiesce().to_string(),
                pause: pause.report(dumped.snapshots),
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
