//! Objects on their way from the bundle into the target's bucket, many at a time.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use futures::StreamExt;
use pacharc_format::{Entry, Hash, Key, Piece};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::Error;
use crate::bucket::{self, Bucket, Size, Upload};
use crate::monitor::{Counter, Monitor};

/// Objects written at a time.
const PUTS: usize = 32;

/// What an object takes beside its bytes while it waits: headers, key, metadata.
const ENTRY: usize = 2048;

/// Writes objects. Dropped before its end, it takes back what was begun (the contract of [`Upload`]).
pub(super) struct ObjectWriter {
    bucket: Arc<dyn Bucket>,
    monitor: Arc<dyn Monitor>,
    puts: Arc<Semaphore>,
    /// Segments whose objects are being written, with their bytes: memory is freed segment by segment.
    segments: VecDeque<(usize, JoinSet<Result<(), Error>>)>,
    /// The most bytes that may be under way.
    memory: usize,
    /// Objects in pieces, by folder.
    open: HashMap<u64, OpenObject>,
    /// Whether an earlier run may have written some.
    resumed: bool,
}

/// An object in pieces that has begun.
struct OpenObject {
    key: Key,
    size: u64,
    to: To,
}

/// Where its slices go.
enum To {
    Upload(Box<dyn Upload>),
    /// The target has it already, from an earlier run.
    There,
    /// Something else lies in its place: an error if the object counts, and is none that its backup gave up, whose pieces may come
    /// behind what took its place.
    Taken(Error),
}

impl ObjectWriter {
    pub(super) fn new(bucket: Arc<dyn Bucket>, memory: usize, resumed: bool, monitor: Arc<dyn Monitor>) -> Self {
        let puts = Arc::new(Semaphore::new(PUTS));
        Self { bucket, monitor, puts, segments: VecDeque::new(), memory, open: HashMap::new(), resumed }
    }

    /// From now on so many bytes may be under way.
    pub(super) fn set_memory(&mut self, memory: usize) {
        self.memory = memory;
    }

    /// Writes the objects among a segment's entries. May return before they are written.
    pub(super) async fn segment(&mut self, entries: Vec<Entry>) -> Result<(), Error> {
        let bytes = entries.iter().map(|entry| entry.body.len() + ENTRY).sum();
        while !self.segments.is_empty()
            && self.segments.iter().map(|(bytes, _)| bytes).sum::<usize>() + bytes > self.memory
        {
            self.finish_segment().await?;
        }
        let mut writing = JoinSet::new();
        for entry in entries {
            if let Some(key) = Key::from_path(&entry.path) {
                let put = Put { bucket: Arc::clone(&self.bucket), key, entry, resumed: self.resumed };
                let monitor = Arc::clone(&self.monitor);
                // What has failed is told now, and not when the thousands behind it have failed, too.
                while let Some(written) = writing.try_join_next() {
                    joined(written)?;
                }
                // Before the task: one that waits takes as much memory as one that writes, many times a small object.
                let permit = Arc::clone(&self.puts).acquire_owned().await;
                let permit = permit.map_err(|e| Error::Worker(e.to_string()))?;
                writing.spawn(async move {
                    let size = put.run().await?;
                    drop(permit);
                    monitor.add(Counter::Objects, 1);
                    monitor.add(Counter::ObjectBytes, size);
                    Ok(())
                });
            } else if entry.path.starts_with("pieces/") {
                self.piece(entry).await?;
            }
        }
        if !writing.is_empty() {
            self.segments.push_back((bytes, writing));
        }
        Ok(())
    }

    /// Waits until everything is written.
    pub(super) async fn finish(mut self) -> Result<(), Error> {
        while !self.segments.is_empty() {
            self.finish_segment().await?;
        }
        Ok(())
    }

    async fn finish_segment(&mut self) -> Result<(), Error> {
        let Some((_, mut writing)) = self.segments.pop_front() else { return Ok(()) };
        while let Some(written) = writing.join_next().await {
            joined(written)?;
        }
        Ok(())
    }

    /// The reader has checked order, sizes and hash of the pieces.
    async fn piece(&mut self, entry: Entry) -> Result<(), Error> {
        match Piece::parse(&entry.path, &entry.body) {
            Some(Piece::Path { folder, path, size }) => {
                let Some(key) = Key::from_path(&path) else { return Ok(()) };
                let to = match lies_there(self.bucket.as_ref(), &key, size, self.resumed).await {
                    Ok(true) => To::There,
                    Ok(false) => To::Upload(self.bucket.upload(&key, &entry.metadata, Size::Exactly(size)).await?),
                    Err(error @ Error::NotEmpty { .. }) => To::Taken(error),
                    Err(error) => return Err(error),
                };
                self.open.insert(folder, OpenObject { key, size, to });
            }
            Some(Piece::Slice { folder, .. }) => {
                if let Some(OpenObject { to: To::Upload(upload), .. }) = self.open.get_mut(&folder) {
                    let size = entry.body.len() as u64;
                    upload.write(entry.body).await?;
                    self.monitor.add(Counter::ObjectBytes, size);
                }
            }
            Some(Piece::Joined { folder, hash, .. }) => match self.open.remove(&folder) {
                Some(OpenObject { to: To::Upload(upload), .. }) => {
                    upload.finish().await?;
                    self.monitor.add(Counter::Objects, 1);
                }
                Some(OpenObject { to: To::Taken(error), .. }) => return Err(error),
                Some(OpenObject { key, size, to: To::There }) => {
                    check_ours(self.bucket.as_ref(), &key, hash).await?;
                    self.monitor.add(Counter::Objects, 1);
                    self.monitor.add(Counter::ObjectBytes, size);
                }
                None => {}
            },
            Some(Piece::Abandoned { folder }) => {
                if let Some(OpenObject { to: To::Upload(upload), .. }) = self.open.remove(&folder) {
                    upload.abort().await?;
                }
            }
            None => {}
        }
        Ok(())
    }
}

/// What came of an object's task.
fn joined(written: Result<Result<(), Error>, tokio::task::JoinError>) -> Result<(), Error> {
    written.map_err(|e| Error::Worker(e.to_string()))?
}

/// One object to write.
struct Put {
    bucket: Arc<dyn Bucket>,
    key: Key,
    entry: Entry,
    resumed: bool,
}

impl Put {
    /// Writes it, unless an earlier run did; returns its size.
    async fn run(self) -> Result<u64, Error> {
        let Self { bucket, key, entry, resumed } = self;
        let size = entry.body.len() as u64;
        // A chunk's place was seen to be empty before the first byte; whoever else writes there writes the same bytes.
        let is_checked = key.chunk().is_some() && !resumed;
        if is_checked || !lies_there(bucket.as_ref(), &key, size, resumed).await? {
            bucket.put(&key, &entry.metadata, entry.body).await?;
        } else {
            check_ours(bucket.as_ref(), &key, Hash::blake3(&entry.body)).await?;
        }
        Ok(size)
    }
}

/// Whether something lies at `key` that an earlier run of this restore may have written.
async fn lies_there(bucket: &dyn Bucket, key: &Key, size: u64, resumed: bool) -> Result<bool, Error> {
    match bucket.head(key).await {
        Err(bucket::Error::NotFound { .. }) => Ok(false),
        Err(error) => Err(error.into()),
        Ok(listed) if resumed && listed.size == size => Ok(true),
        // Ours appear whole or not at all. No chunk lay here before the first run: one of another size was torn since.
        Ok(_) if resumed && key.chunk().is_some() => Ok(false),
        Ok(_) => Err(not_empty(bucket, key)),
    }
}

/// Refuses what has the size of ours, and other bytes: the bucket held it before. No chunk can be such an object.
async fn check_ours(bucket: &dyn Bucket, key: &Key, hash: Hash) -> Result<(), Error> {
    if key.chunk().is_some() {
        return Ok(());
    }
    let mut body = bucket.get(key).await?.body;
    let mut found = blake3::Hasher::new();
    while let Some(bytes) = body.next().await {
        found.update(&bytes?);
    }
    match Hash::Blake3(*found.finalize().as_bytes()) == hash {
        true => Ok(()),
        false => Err(not_empty(bucket, key)),
    }
}

fn not_empty(bucket: &dyn Bucket, key: &Key) -> Error {
    Error::NotEmpty { bucket: bucket.url().to_owned(), key: key.clone() }
}
