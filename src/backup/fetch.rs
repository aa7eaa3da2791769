//! One object on its way from the bucket into the bundle, and the proof of a chunk on the way.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::StreamExt;
use pacharc_format::{Entry, Hash, Key, Packing, PieceWriter, Prover};
use tokio::sync::Semaphore;

use super::Error;
use crate::bucket::{self, Bucket, Object};
use crate::feed::{Closed, Feed};

/// How often an object whose bytes do not fit its key is read before it is called rotten.
const READS: usize = 3;
/// How often an object that changes while it is read is read again.
const CHANGES: usize = 10;
/// Bytes of an object by which it is decided whether compression pays.
const PROBE: usize = 64 * 1024;

/// Reads objects and feeds them to the bundle.
#[derive(Clone)]
pub(super) struct Fetcher {
    bucket: Arc<dyn Bucket>,
    feed: Feed,
    shared: Arc<Shared>,
    /// Whether an object that stays rotten goes in, marked so.
    keep_rotten: bool,
}

/// Objects in pieces at a time: the feed has room for three pieces.
const IN_PIECES: usize = 2;

/// What all fetchers of a backup have together: counts, and the proof of chunks.
pub(super) struct Shared {
    /// Of objects in pieces few go at a time: whoever restores them holds a part of each.
    in_pieces: Semaphore,
    /// The number of the next object in pieces.
    folders: AtomicU64,
    /// How often an object was read again because its bytes did not fit its key.
    reread: AtomicU64,
    prover: Prover,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            in_pieces: Semaphore::new(IN_PIECES),
            folders: AtomicU64::new(0),
            reread: AtomicU64::new(0),
            prover: Prover::default(),
        }
    }
}

impl Shared {
    /// How often an object was read again because its bytes did not fit its key.
    pub(super) fn reread(&self) -> u64 {
        self.reread.load(Ordering::Relaxed)
    }
}

/// What became of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fetched {
    /// It is in the bundle.
    Stored {
        /// Its bytes.
        size: u64,
    },
    /// Its bytes are not what its key promises. It is in the bundle if rotten objects are kept.
    Rotten {
        /// Its bytes.
        size: u64,
    },
    /// The bucket has no such object.
    Absent,
    /// It must be thawed first.
    Archived,
}

/// Why an object could not be fetched.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    /// The bucket failed.
    #[error(transparent)]
    Bucket(#[from] bucket::Error),
    /// The writer of the bundle has stopped.
    #[error(transparent)]
    Closed(#[from] Closed),
    /// A worker ended early.
    #[error("a worker ended early: {0}")]
    Worker(String),
}

impl Fetcher {
    pub(super) fn new(bucket: Arc<dyn Bucket>, feed: Feed, shared: Arc<Shared>, keep_rotten: bool) -> Self {
        Self { bucket, feed, shared, keep_rotten }
    }

    /// The bucket's URL.
    pub(super) fn bucket_url(&self) -> &str {
        self.bucket.url()
    }

    /// Fetches the object at `key`, which has about `expected` bytes.
    pub(super) async fn fetch(&self, key: &Key, expected: u64) -> Result<Fetched, FetchError> {
        let (mut reads, mut changes) = (0, 0);
        loop {
            let last = reads + 1 == READS;
            match self.attempt(key, expected, last && self.keep_rotten).await {
                Ok(Fetched::Rotten { size }) if last => return Ok(Fetched::Rotten { size }),
                // A flaky read is not damage: it is read again from the source.
                Ok(Fetched::Rotten { .. }) => {
                    reads += 1;
                    self.shared.reread.fetch_add(1, Ordering::Relaxed);
                }
                Ok(fetched) => return Ok(fetched),
                Err(FetchError::Bucket(bucket::Error::NotFound { .. })) => return Ok(Fetched::Absent),
                Err(FetchError::Bucket(bucket::Error::Archived { .. })) => return Ok(Fetched::Archived),
                Err(FetchError::Bucket(bucket::Error::Changed { .. })) if changes < CHANGES => changes += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads the object once. If it is rotten it is stored only where `store_rotten`.
    async fn attempt(&self, key: &Key, expected: u64, store_rotten: bool) -> Result<Fetched, FetchError> {
        let limit = self.feed.piece_limit() as u64;
        let mut turn = match expected > limit {
            true => self.shared.in_pieces.acquire().await.ok(),
            false => None,
        };
        // Room first: a response that waits for room would be cut by an impatient server.
        let mut buffer = self.feed.blocks(length(expected.min(limit))).await?;
        let object = self.bucket.get(key).await?;
        // A chunk proves itself. Of anything else only its size says that it came whole: one that was cut on its way, with a length
        // that fits, is told from one that was written anew since it was listed.
        if object.size != expected && key.chunk().is_none() && self.bucket.head(key).await?.size != object.size {
            return Err(bucket::Error::Changed { bucket: self.bucket.url().to_owned(), key: key.clone() }.into());
        }
        if object.size > limit {
            drop(buffer);
            // It has grown since it was listed.
            if turn.is_none() {
                turn = self.shared.in_pieces.acquire().await.ok();
            }
            let _turn = turn;
            return self.pieces(key, object, store_rotten).await;
        }
        let size = length(object.size);
        if buffer.room() < size {
            drop(buffer);
            buffer = self.feed.blocks(size).await?;
        }
        let Object { metadata, mut body, .. } = object;
        while let Some(bytes) = body.next().await {
            buffer.write(&bytes?);
        }
        let body = buffer.freeze();
        let promised = key.chunk().map(|chunk| Hash::Blake2b(chunk.id));
        let intact = match promised {
            None => true,
            Some(hash) => self.shared.prover.blake2b(&body).await == hash,
        };
        if intact || store_rotten {
            let packing = packing(key, body.first());
            let path = key.to_path();
            // What is rotten carries the hash of the bytes that it has.
            let hash = promised.filter(|_| intact);
            self.feed.send(Entry { path, body, packing, hash, metadata, rotten: !intact }).await?;
        }
        let size = size as u64;
        Ok(if intact { Fetched::Stored { size } } else { Fetched::Rotten { size } })
    }

    /// Stores an object that is larger than an entry may be. Its hash is known at its end; whether it is rotten, too.
    async fn pieces(&self, key: &Key, object: Object, store_rotten: bool) -> Result<Fetched, FetchError> {
        let Object { size, metadata, body, .. } = object;
        let promised = key.chunk().map(|chunk| Hash::Blake2b(chunk.id));
        if let Some(promised) = promised
            && !store_rotten
            && self.digest(key).await? != promised
        {
            return Ok(Fetched::Rotten { size });
        }
        let mut slices = Slices { body, rest: Bytes::new() };
        let first = self.next_slice(&mut slices).await?;
        let packing = packing(key, &first);
        let folder = self.shared.folders.fetch_add(1, Ordering::Relaxed);
        let (mut pieces, begin) = PieceWriter::begin(folder, key.to_path(), size, packing, metadata);
        self.feed.send(begin).await?;
        let hash = match self.slices(&mut pieces, first, &mut slices, promised).await {
            Ok(hash) => hash,
            Err(error) => {
                // What was sent cannot be taken back; the object may be tried again under another number.
                self.feed.send(pieces.abandon()).await?;
                return Err(error);
            }
        };
        let rotten = promised.is_some_and(|promised| promised != hash);
        // It was right a moment ago, when it was read for its hash alone: it is read again, and stored under another number.
        let last = if rotten && !store_rotten { pieces.abandon() } else { pieces.finish(hash, rotten) };
        self.feed.send(last).await?;
        Ok(if rotten { Fetched::Rotten { size } } else { Fetched::Stored { size } })
    }

    /// Sends the slices of an object and returns its hash: the one that was promised, or BLAKE3.
    async fn slices(
        &self,
        pieces: &mut PieceWriter,
        first: Bytes,
        slices: &mut Slices,
        promised: Option<Hash>,
    ) -> Result<Hash, FetchError> {
        let mut slice = first;
        let mut blake3 = blake3::Hasher::new();
        let mut blake2b = blake2b_simd::Params::new().hash_length(32).to_state();
        while !slice.is_empty() {
            let (piece, is_chunk) = (slice.clone(), promised.is_some());
            (blake3, blake2b) = blocking(move || {
                blake3.update(&piece);
                if is_chunk {
                    blake2b.update(&piece);
                }
                (blake3, blake2b)
            })
            .await?;
            self.feed.send(pieces.piece(slice)).await?;
            slice = self.next_slice(slices).await?;
        }
        let mut found = [0; 32];
        found.copy_from_slice(blake2b.finalize().as_bytes());
        let intact = promised.filter(|promised| *promised == Hash::Blake2b(found));
        Ok(intact.unwrap_or(Hash::Blake3(*blake3.finalize().as_bytes())))
    }

    /// BLAKE2b of an object that is too large to be held: it is read for that alone.
    async fn digest(&self, key: &Key) -> Result<Hash, FetchError> {
        let mut body = self.bucket.get(key).await?.body;
        let mut state = blake2b_simd::Params::new().hash_length(32).to_state();
        while let Some(bytes) = body.next().await {
            state.update(&bytes?);
        }
        let mut hash = [0; 32];
        hash.copy_from_slice(state.finalize().as_bytes());
        Ok(Hash::Blake2b(hash))
    }

    async fn next_slice(&self, slices: &mut Slices) -> Result<Bytes, FetchError> {
        let mut buffer = self.feed.buffer(self.feed.piece_limit()).await?;
        while buffer.bytes.len() < self.feed.piece_limit() {
            if slices.rest.is_empty() {
                match slices.body.next().await {
                    Some(bytes) => slices.rest = bytes?,
                    None => break,
                }
            }
            let room = self.feed.piece_limit() - buffer.bytes.len();
            buffer.bytes.extend_from_slice(&slices.rest.split_to(room.min(slices.rest.len())));
        }
        Ok(buffer.freeze())
    }
}

/// A body, and what a slice has left of the last bytes received.
struct Slices {
    body: futures::stream::BoxStream<'static, Result<Bytes, bucket::Error>>,
    rest: Bytes,
}

fn length(size: u64) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX)
}

/// Chunks are encrypted and do not compress; of anything else the first bytes tell.
fn packing(key: &Key, body: &[u8]) -> Packing {
    if key.chunk().is_some() {
        return Packing::Raw;
    }
    let probe = body.get(..body.len().min(PROBE)).unwrap_or_default();
    match zstd::bulk::compress(probe, 1) {
        Ok(compressed) if compressed.len() + compressed.len() / 16 < probe.len() => Packing::Zstd,
        _ => Packing::Raw,
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, FetchError> {
    tokio::task::spawn_blocking(work).await.map_err(|e| FetchError::Worker(e.to_string()))
}

impl From<FetchError> for Error {
    fn from(error: FetchError) -> Self {
        match error {
            FetchError::Bucket(error) => Self::Bucket(error),
            FetchError::Closed(closed) => Self::Worker(closed.to_string()),
            FetchError::Worker(what) => Self::Worker(what),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_compresses_is_told_by_its_first_bytes() {
        let chunk =
            Key::from("chunk/0e5751c026e543b2e8ab2eb06099daa1d1e5df47778f7787faab45cdf12fe3a8.000000000000002a");
        assert_eq!(packing(&chunk, &[0; 4096]), Packing::Raw);
        assert_eq!(packing(&Key::from("x"), &[0; 4096]), Packing::Zstd);
        let random: Vec<u8> = (0..200_u32).flat_map(|n| *blake3::hash(&n.to_le_bytes()).as_bytes()).collect();
        assert_eq!(packing(&Key::from("x"), &random), Packing::Raw);
    }
}
