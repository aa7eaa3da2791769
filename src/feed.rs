//! The way from those who read a source to the one who writes the bundle: a queue bounded by bytes.
//!
//! Whoever wants to hold data asks for a [`Buffer`] first. Its bytes come out of one budget, and go back when the last
//! clone of the [`Bytes`] made from it is dropped, that is, when the segment that holds them has been written.

use std::sync::Arc;

use bytes::Bytes;
use pacharc_format::Entry;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// The writer of the bundle has stopped: its own error says why.
#[derive(Debug, thiserror::Error)]
#[error("the bundle is no longer being written")]
pub struct Closed;

/// Takes entries; cheap to clone, one for each producer.
#[derive(Clone, Debug)]
pub struct Feed {
    queue: mpsc::Sender<Entry>,
    budget: Arc<Semaphore>,
    piece_limit: usize,
}

impl Feed {
    /// A feed of `budget` bytes whose entries have at most `piece_limit` bytes each, and the writer's end of it.
    #[must_use]
    pub fn new(budget: usize, piece_limit: usize) -> (Self, mpsc::Receiver<Entry>) {
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
        if capacity > self.piece_limit {
            return Err(Closed);
        }
        let permits = u32::try_from(capacity).map_err(|_| Closed)?;
        let permit = Arc::clone(&self.budget).acquire_many_owned(permits).await.map_err(|_| Closed)?;
        Ok(Buffer { bytes: Vec::with_capacity(capacity), permit })
    }

    /// Hands `entry` over, waiting while the queue is full.
    ///
    /// # Errors
    /// [`Closed`] when nobody writes any more.
    pub async fn send(&self, entry: Entry) -> Result<(), Closed> {
        self.queue.send(entry).await.map_err(|_| Closed)
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
        Bytes::from_owner(Counted { bytes, _permit: permit })
    }
}

struct Counted {
    bytes: Vec<u8>,
    _permit: OwnedSemaphorePermit,
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
    async fn more_than_a_piece_is_refused() {
        let (feed, _entries) = Feed::new(10, 8);
        assert!(feed.buffer(9).await.is_err());
    }
}
