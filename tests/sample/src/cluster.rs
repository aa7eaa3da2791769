//! Makes a Pachyderm 2.11 cluster: the main database, the identity database, and the bucket, of any size, the same for the
//! same seed. Among what is whole lie the states that a backup must understand: tombstoned rows with and without their
//! object, uploads that never ended, orphans, an object that is not Pachyderm's, a chunk of zero bytes, and two live
//! generations of one chunk.

use crate::bucket::Bucket;
use crate::chunk::{self, Chunk, ChunkId};
use crate::connection::{connect, with_database};
use anyhow::{Context, Result};
use bytes::Bytes;
use futures::{SinkExt, StreamExt, TryStreamExt, pin_mut, stream};
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::fmt::Write;
use std::ops::RangeInclusive;
use std::sync::Arc;
use tokio::task::spawn_blocking;
use tokio_postgres::Client;

/// Chunks in flight hold at most this many bytes, or one chunk.
const BYTES_IN_FLIGHT: u64 = 64 << 20;

/// What to make.
#[derive(Clone, Debug)]
pub struct Options {
    /// Everything random comes from it.
    pub seed: u64,
    /// How many ordinary live chunks.
    pub objects: u64,
    /// Their sizes in bytes.
    pub sizes: RangeInclusive<u64>,
    /// How many rows `collections.jobs` gets: how the database is made large.
    pub jobs: u64,
    /// Bytes of each of these rows' values.
    pub job_bytes: usize,
    /// Whether to add the odd states besides.
    pub oddities: bool,
    /// The main database's name.
    pub database: String,
    /// The identity database's name; `None` as in a member of an enterprise server.
    pub dex: Option<String>,
    /// The role that owns both; made if absent.
    pub owner: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            seed: 1,
            objects: 200,
            sizes: 1..=20_000,
            jobs: 20,
            job_bytes: 500,
            oddities: true,
            database: "pachyderm".into(),
            dex: Some("dex".into()),
            owner: "pachyderm".into(),
        }
    }
}

/// What has been made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Made {
    /// Live rows; each has its object.
    pub live: u64,
    /// Bytes of their objects.
    pub live_bytes: u64,
    /// Keys of tombstoned rows whose object is still there.
    pub condemned: Vec<String>,
    /// Keys of tombstoned rows whose object has gone.
    pub collected: Vec<String>,
    /// Keys of rows that are not uploaded; the object of the first is there.
    pub pending: Vec<String>,
    /// Keys of chunks without a row.
    pub orphans: Vec<String>,
    /// Keys that are not Pachyderm's.
    pub foreign: Vec<String>,
}

impl Made {
    /// How many objects the bucket holds.
    #[must_use]
    pub fn objects(&self) -> u64 {
        let odd = self.condemned.len() + self.pending.len().min(1) + self.orphans.len() + self.foreign.len();
        self.live + odd as u64
    }
}

/// Makes the databases on the server that the URL names (as a superuser) and fills the bucket.
///
/// # Errors
/// If a database exists already, or the server or the bucket fails.
pub async fn make(server: &str, bucket: Arc<dyn Bucket>, options: &Options) -> Result<Made> {
    let databases: Vec<&str> =
        [Some(options.database.as_str()), options.dex.as_deref()].into_iter().flatten().collect();
    let owner = quote(&options.owner);
    let admin = connect(&with_database(server, "postgres")).await?;
    let exists = admin.query_opt("SELECT FROM pg_roles WHERE rolname = $1", &[&options.owner]).await?.is_some();
    if !exists {
        admin.batch_execute(&format!("CREATE ROLE {owner} LOGIN")).await?;
    }
    for database in databases {
        let statement = format!("CREATE DATABASE {} OWNER {owner} TEMPLATE template0", quote(database));
        admin.batch_execute(&statement).await.with_context(|| format!("create database {database}"))?;
    }

    let mut client = connect(&with_database(server, &options.database)).await?;
    let transaction = client.transaction().await?;
    transaction.batch_execute(&format!("SET LOCAL ROLE {owner}; SET LOCAL TimeZone = 'UTC'")).await?;
    transaction.batch_execute(include_str!("cluster/schema.sql")).await.context("main database: schema")?;
    let made = fill_chunks(transaction.client(), &bucket, options).await?;
    fill_jobs(transaction.client(), options).await?;
    transaction.execute("SELECT set_config('sample.seed', $1, true)", &[&options.seed.to_string()]).await?;
    transaction.batch_execute(include_str!("cluster/rows.sql")).await.context("main database: rows")?;
    transaction.batch_execute(include_str!("cluster/triggers.sql")).await.context("main database: triggers")?;
    transaction.commit().await?;
    client.batch_execute("ANALYZE").await?;

    if let Some(dex) = &options.dex {
        let client = connect(&with_database(server, dex)).await?;
        client.batch_execute(&format!("SET ROLE {owner}")).await?;
        client.batch_execute(include_str!("cluster/dex.sql")).await.context("identity database")?;
    }
    Ok(made)
}

/// What takes [`row`]s.
pub(crate) const COPY_CHUNKS: &str =
    "COPY storage.chunk_objects (chunk_id, gen, uploaded, tombstone, size, created_at) FROM STDIN";

/// One row of `storage.chunk_objects`, in `COPY`'s text format.
pub(crate) fn row(id: &ChunkId, generation: i64, uploaded: bool, tombstone: bool, size: usize) -> Bytes {
    let hex = hex::encode(id);
    let (minute, second) = (generation / 60 % 1440, generation % 60);
    let (hour, minute) = (minute / 60, minute % 60);
    let time = format!("2025-03-01 {hour:02}:{minute:02}:{second:02}.000001");
    Bytes::from(format!("\\\\x{hex}\t{generation}\t{uploaded}\t{tombstone}\t{size}\t{time}\n"))
}

/// The generation of the chunk number `index`: with gaps, as garbage collection leaves them.
fn generation(index: u64) -> i64 {
    i64::try_from(index + index / 5 + 1).unwrap_or(i64::MAX)
}

/// Puts the objects and the rows of `storage.chunk_objects`.
async fn fill_chunks(client: &Client, bucket: &Arc<dyn Bucket>, options: &Options) -> Result<Made> {
    let rows = client.copy_in(COPY_CHUNKS).await?;
    pin_mut!(rows);
    let mut made = Made::default();
    let in_flight = usize::try_from((BYTES_IN_FLIGHT / options.sizes.end().max(&1)).clamp(1, 16))?;
    let chunks =
        stream::iter(0..options.objects).map(|index| put_generated(bucket, options, index)).buffered(in_flight);
    pin_mut!(chunks);
    while let Some((chunk, size)) = chunks.try_next().await? {
        made.live += 1;
        made.live_bytes += size as u64;
        rows.send(row(&chunk, generation(made.live - 1), true, false, size)).await?;
    }
    if options.oddities {
        for line in put_oddities(bucket, options, &mut made).await? {
            rows.send(line).await?;
        }
    }
    rows.finish().await?;
    Ok(made)
}

async fn put_generated(bucket: &Arc<dyn Bucket>, options: &Options, index: u64) -> Result<(ChunkId, usize)> {
    let (seed, sizes) = (options.seed, options.sizes.clone());
    let chunk = spawn_blocking(move || Chunk::generate(seed, index, &sizes)).await?;
    let size = chunk.stored.len();
    bucket.put(&chunk.key(generation(index)), chunk.stored.into()).await?;
    Ok((chunk.id, size))
}

/// Puts the odd objects, after the ordinary ones, and gives back the odd rows.
async fn put_oddities(bucket: &Arc<dyn Bucket>, options: &Options, made: &mut Made) -> Result<Vec<Bytes>> {
    let mut index = options.objects;
    let mut next = || {
        index += 1;
        (Chunk::generate(options.seed, index, &(1..=9000)), generation(index))
    };
    let mut rows = Vec::new();

    // Live: a chunk of zero bytes, and one chunk under two generations.
    let (_, empty) = next();
    let (twice, first) = next();
    let (_, second) = next();
    for (chunk, generation) in [(&Chunk::seal(Vec::new()), empty), (&twice, first), (&twice, second)] {
        bucket.put(&chunk.key(generation), chunk.stored.clone().into()).await?;
        rows.push(row(&chunk.id, generation, true, false, chunk.stored.len()));
        made.live += 1;
        made.live_bytes += chunk.stored.len() as u64;
    }
    // Rows that are not live: tombstoned with and without an object, not uploaded with and without one.
    for (keys, tombstone, objects) in [
        (&mut made.condemned, true, [true, true]),
        (&mut made.collected, true, [false, false]),
        (&mut made.pending, false, [true, false]),
    ] {
        for present in objects {
            let (chunk, generation) = next();
            keys.push(chunk.key(generation));
            rows.push(row(&chunk.id, generation, tombstone, tombstone, chunk.stored.len()));
            if present {
                bucket.put(&chunk.key(generation), chunk.stored.into()).await?;
            }
        }
    }
    // Objects without a row.
    for _ in 0..2 {
        let (chunk, generation) = next();
        made.orphans.push(chunk.key(generation));
        bucket.put(&chunk.key(generation), chunk.stored.into()).await?;
    }
    let self_test = format!("test/{}", hex::encode(&chunk::hash(&options.seed.to_be_bytes())[..16]));
    bucket.put(&self_test, Bytes::from_static(b"test")).await?;
    made.foreign.push(self_test);
    Ok(rows)
}

/// Fills `collections.jobs` with rows of incompressible values.
async fn fill_jobs(client: &Client, options: &Options) -> Result<()> {
    const COPY: &str = "COPY collections.jobs (createdat, updatedat, proto, version, key, idx_pipeline, idx_job_state, idx_jobset) FROM STDIN";
    let rows = client.copy_in(COPY).await?;
    pin_mut!(rows);
    let mut random = ChaCha8Rng::seed_from_u64(options.seed);
    // Chunks take the streams from 0 on.
    random.set_stream(u64::MAX);
    let mut value = vec![0; options.job_bytes];
    for number in 0..options.jobs {
        random.fill_bytes(&mut value);
        let (time, id) = (format!("2025-03-02 10:{:02}:{:02}+00", number / 60 % 60, number % 60), random.next_u64());
        let mut line = format!("{time}\t{time}\t\\\\x{}\tv1\t", hex::encode(&value));
        writeln!(line, "default/edges@{number:08x}{id:016x}\tdefault/edges\tJOB_SUCCESS\t{id:016x}")?;
        rows.send(Bytes::from(line)).await?;
    }
    rows.finish().await?;
    Ok(())
}

/// Quotes an identifier.
pub(crate) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
