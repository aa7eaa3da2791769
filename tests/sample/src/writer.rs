//! A cluster in use: goes on writing to the databases and the bucket as pachd does while something else, a backup, reads
//! them. The order of what it does is pachd's own: row, object, `uploaded` on the way in; tracker, tombstone, object, row
//! on the way out. So every committed state of the database has the objects of its live rows, and soon after may not.

mod collector;
mod transaction;

use crate::bucket::Bucket;
use crate::chunk::{Chunk, ChunkId};
use anyhow::{Result, anyhow, bail};
use collector::Collector;
use futures::future::try_join_all;
use futures::join;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tokio_postgres::{Client, Transaction};
use tokio_util::sync::{CancellationToken, DropGuard};
use transaction::{serializable, session};

/// How often a commit's chunks are uploaded anew if they were collected meanwhile.
const UPLOAD_ATTEMPTS: u32 = 100;

/// How the writer behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// Everything random comes from it; what concurrency makes of it does not.
    pub seed: u64,
    /// How many write at the same time.
    pub writers: u32,
    /// How long each waits between two commits.
    pub pause: Duration,
    /// Sizes of the chunks in bytes.
    pub sizes: RangeInclusive<u64>,
    /// How many different chunks there are: few mean that ids come back while their older generation is collected.
    pub variety: u64,
    /// How many commits each writer keeps; older ones are removed.
    pub keep: usize,
    /// With every how many commits the oldest of those that were there before is removed as well; 0 = never.
    pub consume_every: u64,
    /// For how long a chunk or file set that nothing refers to is safe (pachd: 30 minutes).
    pub ttl: Duration,
    /// The period of both garbage collections (pachd: one minute each).
    pub gc_period: Duration,
    /// Ends by itself after this many commits.
    pub commits: Option<u64>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            seed: 1,
            writers: 3,
            pause: Duration::from_millis(5),
            sizes: 1..=20_000,
            variety: 300,
            keep: 20,
            consume_every: 4,
            ttl: Duration::from_millis(500),
            gc_period: Duration::from_millis(20),
            commits: None,
        }
    }
}

/// What a writer has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Commits made.
    pub commits: u64,
    /// Chunks uploaded; a chunk that was live already is not.
    pub uploaded: u64,
    /// Rows tombstoned.
    pub tombstoned: u64,
    /// Objects deleted, and their rows.
    pub deleted: u64,
}

/// A running writer; it has a thread of its own, and ends when this value is dropped.
#[derive(Debug)]
pub struct LiveWriter {
    shared: Arc<Shared>,
    thread: JoinHandle<Result<()>>,
    stop: DropGuard,
}

struct Shared {
    url: String,
    bucket: Arc<dyn Bucket>,
    options: Options,
    commits: AtomicU64,
    uploaded: AtomicU64,
    tombstoned: AtomicU64,
    deleted: AtomicU64,
}

impl Shared {
    fn report(&self) -> Report {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Report {
            commits: read(&self.commits),
            uploaded: read(&self.uploaded),
            tombstoned: read(&self.tombstoned),
            deleted: read(&self.deleted),
        }
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Shared({:?})", self.options)
    }
}

impl LiveWriter {
    /// Starts to write to the main database that the URL names, and to its bucket.
    ///
    /// # Errors
    /// If there are no threads left; what else fails, [`LiveWriter::stop`] tells.
    pub fn start(url: &str, bucket: Arc<dyn Bucket>, options: Options) -> Result<Self> {
        let shared = Arc::new(Shared {
            url: url.to_owned(),
            bucket,
            options,
            commits: AtomicU64::new(0),
            uploaded: AtomicU64::new(0),
            tombstoned: AtomicU64::new(0),
            deleted: AtomicU64::new(0),
        });
        let stop = CancellationToken::new();
        let (theirs, stopped) = (shared.clone(), stop.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = thread::Builder::new().name("live writer".into());
        let thread = thread.spawn(move || runtime.block_on(run(theirs, stopped)))?;
        Ok(Self { shared, thread, stop: stop.drop_guard() })
    }

    /// What has been done so far.
    #[must_use]
    pub fn report(&self) -> Report {
        self.shared.report()
    }

    /// Lets every step in progress end, and stops.
    ///
    /// # Errors
    /// If a writer had failed, with its error.
    pub async fn stop(self) -> Result<Report> {
        self.stop.disarm().cancel();
        join(self.shared, self.thread).await
    }

    /// Waits until it has ended by itself, as [`Options::commits`] says.
    ///
    /// # Errors
    /// If a writer had failed, with its error.
    pub async fn finish(self) -> Result<Report> {
        let Self { shared, thread, stop } = self;
        let report = join(shared, thread).await;
        drop(stop);
        report
    }
}

async fn join(shared: Arc<Shared>, thread: JoinHandle<Result<()>>) -> Result<Report> {
    spawn_blocking(move || thread.join()).await?.map_err(|_| anyhow!("the live writer panicked"))??;
    Ok(shared.report())
}

/// All writers, and the collector until the last of them has ended.
async fn run(shared: Arc<Shared>, stop: CancellationToken) -> Result<()> {
    let writers = (0..shared.options.writers).map(|number| Writer::run(shared.clone(), number, stop.clone()));
    let writers = async {
        let outcome = try_join_all(writers).await;
        stop.cancel();
        outcome
    };
    let collector = Collector::run(shared.clone(), stop.clone());
    let (written, collected) = join!(writers, collector);
    written?;
    collected
}

/// One of those who commit.
struct Writer {
    shared: Arc<Shared>,
    client: Client,
    random: ChaCha8Rng,
    /// The commits it will remove, oldest first.
    kept: VecDeque<i64>,
}

impl Writer {
    async fn run(shared: Arc<Shared>, number: u32, stop: CancellationToken) -> Result<()> {
        let mut random = ChaCha8Rng::seed_from_u64(shared.options.seed);
        random.set_stream(u64::from(number));
        let client = session(&shared.url).await?;
        Self { shared, client, random, kept: VecDeque::new() }.write(stop).await
    }

    async fn write(mut self, stop: CancellationToken) -> Result<()> {
        let Options { commits: most, pause, .. } = self.shared.options;
        while !stop.is_cancelled() && most.is_none_or(|most| self.shared.commits.load(Ordering::Relaxed) < most) {
            self.commit().await?;
            if self.kept.len() > self.shared.options.keep
                && let Some(oldest) = self.kept.pop_front()
            {
                self.remove_commit(oldest).await?;
            }
            let number = self.shared.commits.fetch_add(1, Ordering::Relaxed);
            if number.checked_rem(self.shared.options.consume_every) == Some(0) {
                self.remove_oldest_foreign_commit().await?;
            }
            stop.run_until_cancelled(sleep(pause)).await;
        }
        Ok(())
    }

    /// Uploads a few chunks, makes a file set of them, and commits that.
    async fn commit(&mut self) -> Result<()> {
        for _ in 0..UPLOAD_ATTEMPTS {
            let mut ids = Vec::new();
            for _ in 0..self.random.random_range(1..=3) {
                let index = self.random.random_range(0..self.shared.options.variety.max(1));
                // Indexes far from those of the cluster that was made: it may have the same seed.
                let chunk = Chunk::generate(self.shared.options.seed, index | 1 << 60, &self.shared.options.sizes);
                ids.push(chunk.id);
                self.upload(chunk).await?;
            }
            let bytes: [u8; 16] = self.random.random();
            match self.commit_file_set(&hex::encode(bytes), &ids).await? {
                Some(commit) => self.kept.push_back(commit),
                // A chunk was collected before the file set could hold it: pachd's client uploads it again.
                None => continue,
            }
            return Ok(());
        }
        bail!(
            "the chunks of a commit were collected {UPLOAD_ATTEMPTS} times before it could be made; is the ttl too short?"
        )
    }

    /// `trackedClient.Create`: tracker and row, object, `uploaded`.
    async fn upload(&mut self, chunk: Chunk) -> Result<()> {
        let size = i64::try_from(chunk.stored.len())?;
        let ttl = self.shared.options.ttl.as_secs_f64();
        // Not one statement with ON CONFLICT: where the collector's transaction ends between the snapshot of this one and the
        // statement, that would insert a new tracker, and the rows read after it would be those of before the collection,
        // still live. PostgreSQL takes both for serializable, and a file set could refer to a chunk without a live row.
        let extend = "UPDATE storage.tracker_objects \
            SET expires_at = greatest(expires_at, clock_timestamp() + $2 * interval '1 second') WHERE str_id = $1";
        let track = "INSERT INTO storage.tracker_objects (str_id, expires_at) \
            VALUES ($1, clock_timestamp() + $2 * interval '1 second')";
        let live = "SELECT FROM storage.chunk_objects WHERE chunk_id = $1 AND uploaded AND NOT tombstone LIMIT 1";
        let insert = "INSERT INTO storage.chunk_objects (chunk_id, size) VALUES ($1, $2) RETURNING gen";
        let id = chunk.id.as_slice();
        let tracker = tracker_name(&chunk.id);
        let generation: Option<i64> = serializable(&mut self.client, async |transaction| {
            if transaction.execute(extend, &[&tracker, &ttl]).await? == 0 {
                transaction.execute(track, &[&tracker, &ttl]).await?;
            }
            match transaction.query_opt(live, &[&id]).await? {
                Some(_) => Ok(None),
                None => Ok(Some(transaction.query_one(insert, &[&id, &size]).await?.get(0))),
            }
        })
        .await?;
        let Some(generation) = generation else { return Ok(()) };
        self.shared.bucket.put(&chunk.key(generation), chunk.stored.into()).await?;
        let done = "UPDATE storage.chunk_objects SET uploaded = true WHERE chunk_id = $1 AND gen = $2";
        serializable(&mut self.client, async |transaction| transaction.execute(done, &[&id, &generation]).await)
            .await?;
        self.shared.uploaded.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// A file set that refers to the chunks, and a commit that refers to it; `None` if a chunk is not there any more.
    async fn commit_file_set(&mut self, file_set: &str, chunks: &[ChunkId]) -> Result<Option<i64>> {
        let mut names: Vec<String> = chunks.iter().map(tracker_name).collect();
        names.sort_unstable();
        names.dedup();
        let ttl = self.shared.options.ttl.as_secs_f64();
        let metadata: Vec<u8> = chunks.concat();
        serializable(&mut self.client, async |transaction| {
            let rows = transaction
                .query("SELECT int_id FROM storage.tracker_objects WHERE str_id = ANY($1) ORDER BY int_id", &[&names])
                .await?;
            let found: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
            if found.len() < names.len() {
                return Ok(None);
            }
            transaction
                .execute(
                    "INSERT INTO storage.filesets (id, metadata_pb) VALUES ($1::text::uuid, $2)",
                    &[&file_set, &metadata],
                )
                .await?;
            let tracked = track(transaction, &format!("fileset/{file_set}"), Some(ttl), &found).await?;
            let commit: i64 = transaction
                .query_one(
                    "INSERT INTO pfs.commits (commit_id, commit_set_id, repo_id, origin, total_fileset_id) \
                    SELECT 'live@' || $1, $1, min(id), 'USER', $1::text::uuid FROM pfs.repos RETURNING int_id",
                    &[&file_set],
                )
                .await?
                .get(0);
            transaction
                .execute(
                    "INSERT INTO pfs.commit_diffs (fileset_id, commit_int_id) VALUES ($1::text::uuid, $2)",
                    &[&file_set, &commit],
                )
                .await?;
            for purpose in ["diff", "total"] {
                let name = format!("commit/{commit}/{purpose}/{file_set}");
                track(transaction, &name, None, &[tracked]).await?;
            }
            Ok(Some(commit))
        })
        .await
    }

    /// Squashes a commit: its file sets lose what held them.
    async fn remove_commit(&mut self, commit: i64) -> Result<()> {
        const HOLDERS: &str = "\
            SELECT format('commit/%s/%s/%s', $1::int8, purpose, replace(id::text, '-', '')) \
            FROM unnest(ARRAY['diff', 'total']) purpose, (SELECT fileset_id FROM pfs.commit_diffs WHERE commit_int_id = $1 \
                UNION SELECT total_fileset_id FROM pfs.commits WHERE int_id = $1) f (id) WHERE id IS NOT NULL";
        const RELEASE: &str = "\
            WITH gone AS (DELETE FROM storage.tracker_objects WHERE str_id = ANY($1) RETURNING int_id) \
            DELETE FROM storage.tracker_refs USING gone WHERE from_id = gone.int_id";
        serializable(&mut self.client, async |transaction| {
            let rows = transaction.query(HOLDERS, &[&commit]).await?;
            let holders: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
            transaction.execute(RELEASE, &[&holders]).await?;
            transaction.execute("DELETE FROM pfs.commits WHERE int_id = $1", &[&commit]).await
        })
        .await?;
        Ok(())
    }

    /// Squashes the oldest commit that no writer made and no branch has as its head.
    async fn remove_oldest_foreign_commit(&mut self) -> Result<()> {
        const OLDEST: &str = "SELECT int_id FROM pfs.commits c WHERE commit_id NOT LIKE 'live@%' \
            AND NOT EXISTS (SELECT FROM pfs.branches b WHERE b.head = c.int_id) ORDER BY int_id LIMIT 1";
        match self.client.query_opt(OLDEST, &[]).await? {
            Some(row) => self.remove_commit(row.get(0)).await,
            None => Ok(()),
        }
    }
}

/// `chunk/<hex>`: how the tracker calls a chunk.
fn tracker_name(id: &ChunkId) -> String {
    format!("chunk/{}", hex::encode(id))
}

/// A new object of the tracker that refers to others; gives back its number.
async fn track(
    transaction: &Transaction<'_>,
    name: &str,
    ttl: Option<f64>,
    references: &[i64],
) -> Result<i64, tokio_postgres::Error> {
    const TRACK: &str = "INSERT INTO storage.tracker_objects (str_id, expires_at) \
        VALUES ($1, clock_timestamp() + $2 * interval '1 second') RETURNING int_id";
    const REFER: &str = "INSERT INTO storage.tracker_refs SELECT $1, unnest($2::int8[])";
    let id = transaction.query_one(TRACK, &[&name, &ttl]).await?.get(0);
    transaction.execute(REFER, &[&id, &references]).await?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bucket::Directory;
    use crate::postgres::{self, TempServer};
    use crate::{cluster, compare};
    use std::time::Instant;

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn a_live_writer_leaves_a_sound_cluster_in_which_old_objects_are_gone() {
        let Some(server) = TempServer::start_or_skip(&postgres::Options::default()).unwrap() else { return };
        let root = tempfile::tempdir().unwrap();
        let bucket: Arc<dyn Bucket> = Arc::new(Directory::new(root.path()));
        let sizes = 1..=3000;
        let options = cluster::Options { objects: 200, sizes: sizes.clone(), ..cluster::Options::default() };
        cluster::make(&server.url("postgres"), bucket.clone(), &options).await.unwrap();
        let url = server.url("pachyderm");
        let before = compare::live_keys(&url).await.unwrap();

        let options = Options { sizes, variety: 100, keep: 5, ..Options::default() };
        let writer = LiveWriter::start(&url, bucket.clone(), options.clone()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(120);
        while writer.report().deleted < 40 && Instant::now() < deadline {
            sleep(Duration::from_millis(20)).await;
        }
        let report = writer.stop().await.unwrap();
        assert!(report.commits >= 40 && report.uploaded >= 40, "{report:?}");
        assert!(report.tombstoned >= 30 && report.deleted >= 40, "{report:?}");
        // A limited one ends by itself.
        let limited = LiveWriter::start(&url, bucket.clone(), Options { commits: Some(10), ..options }).unwrap();
        assert!((10..13).contains(&limited.finish().await.unwrap().commits));

        // Nobody collects any more, so what the database says holds.
        let sound = compare::consistency(&server.url("postgres"), "pachyderm", &bucket).await.unwrap();
        assert!(sound.is_equal(), "{sound}");
        let after = compare::live_keys(&url).await.unwrap();
        assert!(before.iter().any(|key| !after.contains(key)), "none of the first chunks was collected");
        assert!(after.iter().any(|key| !before.contains(key)), "none of the new chunks is live");
        assert_eq!(bucket.get(before.iter().find(|key| !after.contains(key)).unwrap()).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_writer_that_fails_says_why() {
        let Some(server) = TempServer::start_or_skip(&postgres::Options::default()).unwrap() else { return };
        let bucket: Arc<dyn Bucket> = Arc::new(Directory::new("/nonexistent"));
        let writer = LiveWriter::start(&server.url("postgres"), bucket, Options::default()).unwrap();
        assert!(format!("{:#}", writer.finish().await.unwrap_err()).contains("storage."));
    }
}
