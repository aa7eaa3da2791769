//! The proof of chunks: BLAKE2b of those that wait, four at a time.
//!
//! One alone leaves three quarters of a core's vector lanes idle, and BLAKE2b cannot be split. So all who need the hash of a
//! large chunk give it to one thread, which takes them forward together, in steps; whoever comes later joins at the next
//! step. It waits a moment for company: a bundle is rarely short of it, and a slow source is not slowed by it.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use blake2b_simd::State;
use bytes::Bytes;
use tokio::sync::oneshot;

use crate::entry::Hash;
use crate::parts::Parts;

/// How many go together: the lanes of AVX2 (`blake2b_simd::many::degree`).
const LANES: usize = 4;
/// Bytes of each before the next look at who waits: small enough for the processor's own cache.
const STEP: usize = 128 * 1024;
/// How long a chunk waits for company. On a busy machine one comes every 20 ms (`docs/performance.md`); where they are
/// rarer, many are read at a time, and nobody is slowed by the wait.
const PATIENCE: Duration = Duration::from_millis(80);
/// Below this many bytes it is not worth another thread.
const SMALL: usize = 64 * 1024;

/// Hashes chunks for all who have a clone of it. Its thread begins with the first large chunk, and ends with the last clone.
#[derive(Clone, Default)]
pub struct Prover(Arc<Door>);

/// What the clones share; dropped with the last of them.
#[derive(Default)]
struct Door {
    room: Arc<Room>,
}

/// What the clones share with the thread.
#[derive(Default)]
struct Room {
    waiting: Mutex<Waiting>,
    came: Condvar,
}

#[derive(Default)]
struct Waiting {
    chunks: VecDeque<Chunk>,
    started: bool,
    closed: bool,
}

/// One chunk under way.
struct Chunk {
    /// What is not hashed yet.
    rest: VecDeque<Bytes>,
    state: State,
    came: Instant,
    tell: oneshot::Sender<Hash>,
}

impl Prover {
    /// BLAKE2b-256 of `body`. Not for blocking threads.
    pub async fn blake2b(&self, body: &Parts) -> Hash {
        if body.len() < SMALL {
            return Hash::blake2b_of(body);
        }
        match self.enqueue(body.clone()) {
            Some(told) => told.await.unwrap_or_else(|_| Hash::blake2b_of(body)),
            None => Hash::blake2b_of(body),
        }
    }

    /// Which of `all` does not have the hash that stands beside it, if any: the first one. For blocking threads.
    #[must_use]
    pub fn first_wrong(&self, all: &[(Hash, Bytes)]) -> Option<usize> {
        let is_shared = |hash: &Hash, body: &Bytes| matches!(hash, Hash::Blake2b(_)) && body.len() >= SMALL;
        let told: Vec<_> = all
            .iter()
            .map(|(hash, body)| is_shared(hash, body).then(|| self.enqueue(body.clone().into())).flatten())
            .collect();
        // The small ones meanwhile.
        let here = all.iter().zip(&told).map(|((hash, body), told)| (told.is_none(), *hash, body.as_ref()));
        let small: Vec<_> = here.filter(|(here, ..)| *here).map(|(_, hash, body)| (hash, body)).collect();
        let mut small = Hash::are_right(&small).into_iter();
        let right = all.iter().zip(told).map(|((hash, body), told)| match told {
            None => small.next().unwrap_or_default(),
            Some(told) => told.blocking_recv().unwrap_or_else(|_| Hash::blake2b(body)) == *hash,
        });
        // Every answer is awaited: what lies in the room holds memory.
        let right: Vec<bool> = right.collect();
        right.iter().position(|right| !right)
    }

    /// Where the hash will be told; `None` where there is no thread to tell it.
    fn enqueue(&self, body: Parts) -> Option<oneshot::Receiver<Hash>> {
        let room = &self.0.room;
        let (tell, told) = oneshot::channel();
        let state = blake2b_simd::Params::new().hash_length(32).to_state();
        let mut waiting = room.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if !waiting.started {
            let room = Arc::clone(room);
            std::thread::Builder::new().name("prover".into()).spawn(move || room.work()).ok()?;
            waiting.started = true;
        }
        waiting.chunks.push_back(Chunk { rest: body.into_iter().collect(), state, came: Instant::now(), tell });
        drop(waiting);
        room.came.notify_one();
        Some(told)
    }
}

impl Chunk {
    /// The next bytes to be hashed.
    fn step(&mut self) -> Bytes {
        let Some(part) = self.rest.front_mut() else { return Bytes::new() };
        let step = part.split_to(part.len().min(STEP));
        if part.is_empty() {
            self.rest.pop_front();
        }
        step
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.room.waiting.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.room.came.notify_one();
    }
}

impl Room {
    fn work(&self) {
        let mut together: Vec<Chunk> = Vec::with_capacity(LANES);
        while self.gather(&mut together) {
            let step: Vec<Bytes> = together.iter_mut().map(Chunk::step).collect();
            blake2b_simd::many::update_many(together.iter_mut().map(|chunk| &mut chunk.state).zip(&step));
            for chunk in together.extract_if(.., |chunk| chunk.rest.is_empty()) {
                // Whoever asked may have been cut off.
                let _ = chunk.tell.send(Hash::of_blake2b(&chunk.state));
            }
        }
    }

    /// Takes in who waits, and waits for company; `false` when nobody will come any more.
    fn gather(&self, together: &mut Vec<Chunk>) -> bool {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let room = LANES.saturating_sub(together.len()).min(waiting.chunks.len());
            together.extend(waiting.chunks.drain(..room));
            let oldest = together.iter().map(|chunk| chunk.came.elapsed()).max();
            let patience = match oldest {
                None if waiting.closed => return false,
                None => Duration::MAX,
                Some(_) if together.len() == LANES || waiting.closed => return true,
                Some(waited) => PATIENCE.saturating_sub(waited),
            };
            if patience.is_zero() {
                return true;
            }
            waiting = match patience {
                Duration::MAX => self.came.wait(waiting).unwrap_or_else(PoisonError::into_inner),
                some => self.came.wait_timeout(waiting, some).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(n: u32) -> Bytes {
        // From nothing to a few steps, with and without a rest.
        Bytes::from(n.to_le_bytes().repeat(3000 * (n as usize % 60)))
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn everyone_gets_the_hash_of_their_own_bytes() {
        let prover = Prover::default();
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..200 {
            let prover = prover.clone();
            tasks.spawn(async move {
                // In as many parts as it happens to be.
                let whole = body(n);
                let parts = whole.chunks(1_001 + 50_000 * (n as usize % 4)).map(Bytes::copy_from_slice).collect();
                assert_eq!(prover.blake2b(&parts).await, Hash::blake2b(&whole), "{n}");
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
    }

    #[test]
    fn the_first_wrong_one_is_found_among_all_kinds() {
        let prover = Prover::default();
        let all: Vec<_> = (0..100)
            .map(|n| (if n % 3 == 0 { Hash::blake3(&body(n)) } else { Hash::blake2b(&body(n)) }, body(n)))
            .collect();
        assert_eq!(prover.first_wrong(&all), None);
        assert_eq!(prover.first_wrong(&[]), None);
        for wrong in 0..100 {
            let mut all = all.clone();
            all[wrong].0 = match all[wrong].0 {
                Hash::Blake2b(_) => Hash::Blake2b([7; 32]),
                Hash::Blake3(_) => Hash::Blake3([7; 32]),
            };
            all[99].0 = Hash::Blake3([8; 32]);
            assert_eq!(prover.first_wrong(&all), Some(wrong));
        }
    }

    #[test]
    fn its_thread_ends_with_the_last_clone() {
        let prover = Prover::default();
        let room = Arc::downgrade(&prover.0.room);
        let large = Bytes::from(vec![1; 2 * SMALL]);
        assert_eq!(prover.first_wrong(&[(Hash::blake2b(&large), large)]), None);
        drop(prover);
        let begun = Instant::now();
        while room.upgrade().is_some() {
            assert!(begun.elapsed() < Duration::from_secs(60), "the thread goes on");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
