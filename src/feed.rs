//! The way from those who read a source to the one who writes the bundle: a queue bounded by bytes.
//!
//! Whoever wants to hold data asks for a [`Buffer`] or for [`Blocks`] first. Their bytes come out of one budget, and go back when
//! the last clone of the [`Bytes`] made from them is dropped, that is, when they have been sealed.

use std::sync::Arc;

use bytes::Bytes;
use pacharc_format::{BLOCK, Entry, Parts};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// The writer of the bundle has stopped: its own error says why.
#[derive(Debug, thiserror::Error)]
#[error("the bundle is no longer being written")]
pub struct Closed;

/// Takes entries; cheap to clone, one for each producer.
#[derive(Clone, Debug)]
pub struct Feed {
    queue: mpsc::Sender<Entry<Parts>>,
    budget: Arc<Semaphore>,
    piece_limit: usize,
}

impl Feed {
    /// A feed of `budget` bytes whose entries have at most `piece_limit` bytes each, and the writer's end of it.
    #[must_use]
    pub fn new(budget: usize, piece_limit: usize) -> (Self, mpsc::Receiver<Entry<Parts>>) {
        // The budget bounds the bytes; the queue's length bounds what empty entries take.
        let (queue, entries) = mpsc::channel(64);
        let feed = Self { queue, budget: Arc::new(Semaphore::new(budget)), piece_limit: piece_limit.min(budget) };
        (feed, entries)
    }

    /// The most bytes that one entry may have.
    #[must_use]
    pub fn piece_limit(&self) -> usize {
        self.piece_limit
    }

    /// Waits until `capacity` bytes are free, and gives a buffer of that capacity.
    ///
    /// Whoever waits here must not hold another buffer, or all may wait for each other.
    ///
    /// # Errors
    /// [`Closed`] when nobody writes any more, or `capacity` is above [`Feed::piece_limit`].
    pub async fn buffer(&self, capacity: usize) -> Result<Buffer, Closed> {
        let permit = self.room(capacity).await?;
        Ok(Buffer { bytes: Vec::with_capacity(capacity), permit })
    }

    /// The same, in blocks: for what comes in all sizes.
    ///
    /// # Errors
    /// As [`Feed::buffer`].
    pub async fn blocks(&self, capacity: usize) -> Result<Blocks, Closed> {
        let permit = self.room(capacity).await?;
        Ok(Blocks { full: Vec::new(), block: Vec::new(), permit })
    }

    async fn room(&self, capacity: usize) -> Result<OwnedSemaphorePermit, Closed> {
        if capacity > self.piece_limit {
            return Err(Closed);
        }
        let permits = u32::try_from(capacity).map_err(|_| Closed)?;
        Arc::clone(&self.budget).acquire_many_owned(permits).await.map_err(|_| Closed)
    }

    /// Hands `entry` over, waiting while the queue is full.
    ///
    /// # Errors
    /// [`Closed`] when nobody writes any more.
    pub async fn send(&self, entry: impl Into<Entry<Parts>>) -> Result<(), Closed> {
        self.queue.send(entry.into()).await.map_err(|_| Closed)
    }
}

/// Bytes that count against the budget of a [`Feed`].
#[derive(Debug)]
pub struct Buffer {
    /// The bytes; not to grow beyond the capacity that was asked for.
    pub bytes: Vec<u8>,
    permit: OwnedSemaphorePermit,
}

impl Buffer {
    /// The bytes to send; what was asked for and not used goes back to the budget at once.
    #[must_use]
    pub fn freeze(self) -> Bytes {
        let Self { bytes, mut permit } = self;
        let unused = permit.num_permits().saturating_sub(bytes.len());
        drop(permit.split(unused));
        Bytes::from_owner(Counted { bytes, _permit: Some(permit) })
    }
}

/// Bytes in blocks of one size, which count against the budget of a [`Feed`]. Each goes back by itself.
#[derive(Debug)]
pub struct Blocks {
    full: Vec<Bytes>,
    block: Vec<u8>,
    /// What is not full yet.
    permit: OwnedSemaphorePermit,
}

impl Blocks {
    /// How many more bytes there is room for; more are not to be written.
    #[must_use]
    pub fn room(&self) -> usize {
        self.permit.num_permits().saturating_sub(self.block.len())
    }

    /// Appends `bytes`.
    pub fn write(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.block.capacity() == 0 {
                self.block.reserve_exact(BLOCK.min(self.room().max(bytes.len())));
            }
            let room = self.block.capacity() - self.block.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.block.extend_from_slice(now);
            bytes = later;
            if self.block.len() == self.block.capacity() {
                self.end_block();
            }
        }
    }

    /// The bytes to send; what was asked for and not used goes back to the budget at once.
    #[must_use]
    pub fn freeze(mut self) -> Parts {
        if !self.block.is_empty() {
            self.end_block();
        }
        self.full.into_iter().collect()
    }

    fn end_block(&mut self) {
        let bytes = std::mem::take(&mut self.block);
        let permit = self.permit.split(bytes.len().min(self.permit.num_permits()));
        self.full.push(Bytes::from_owner(Counted { bytes, _permit: permit }));
    }
}

struct Counted {
    bytes: Vec<u8>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_budget_comes_back_when_the_bytes_are_gone() {
        let (feed, _entries) = Feed::new(10, 8);
        let mut first = feed.buffer(8).await.unwrap();
        first.bytes.extend_from_slice(b"abc");
        let first = first.freeze();
        let second = feed.buffer(7).await.unwrap();
        assert_eq!(feed.budget.available_permits(), 0);
        drop(second);
        assert_eq!(feed.budget.available_permits(), 7);
        drop(first.clone());
        assert_eq!(feed.budget.available_permits(), 7);
        drop(first);
        assert_eq!(feed.budget.available_permits(), 10);
    }

    #[tokio::test]
    async fn blocks_hold_what_was_written_and_give_it_back_one_by_one() {
        const ROOM: usize = 2 * BLOCK + 100;
        let (feed, _entries) = Feed::new(3 * BLOCK, ROOM);
        let bytes: Vec<u8> = (0..ROOM).map(|n| u8::try_from(n % 251).unwrap()).collect();
        for (length, step) in [(0, 1), (1, 1), (BLOCK, 10_007), (BLOCK + 1, BLOCK), (ROOM, 70_001), (ROOM - 5, ROOM)] {
            let mut blocks = feed.blocks(ROOM).await.unwrap();
            bytes[..length].chunks(step).for_each(|bytes| blocks.write(bytes));
            assert_eq!(blocks.room(), ROOM - length);
            let parts: Vec<Bytes> = blocks.freeze().into_iter().collect();
            assert_eq!((parts.concat(), parts.len()), (bytes[..length].to_vec(), length.div_ceil(BLOCK)));
            let mut free = 3 * BLOCK - length;
            assert_eq!(feed.budget.available_permits(), free);
            for part in parts {
                free += part.len();
                drop(part);
                assert_eq!(feed.budget.available_permits(), free);
            }
        }
    }

    #[tokio::test]
    async fn more_than_a_piece_is_refused() {
        let (feed, _entries) = Feed::new(10, 8);
        assert!(feed.buffer(9).await.is_err());
        assert!(feed.blocks(9).await.is_err());
    }
}
