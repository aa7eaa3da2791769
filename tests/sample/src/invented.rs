//! Millions of objects that nobody has to store: an S3 server that invents keys and bytes from their numbers, and the rows that
//! go with them. Their names are true hashes, so they pass every proof, and what is uploaded is checked and remembered with a bit.

mod http;
mod server;

use crate::chunk::{self, ChunkId};
use anyhow::{Result, ensure};
use blake2b_simd::{Hash, Params};
use bytes::Bytes;
use futures::{SinkExt, pin_mut};
use tokio_postgres::Client;

pub use server::{BUCKET, Server, TARGET_BUCKET};

/// The largest object: one BLAKE2b-512.
pub const MAX_BYTES: usize = 64;

/// Invented chunks, sorted by key. Takes 36 bytes for each in memory, since a hash cannot be turned back into its number.
pub struct Objects {
    seed: u64,
    bytes: usize,
    sorted: Vec<(ChunkId, u32)>,
}

impl Objects {
    /// So many chunks of so many bytes; the same ones for the same seed.
    ///
    /// # Errors
    /// If the bytes are more than [`MAX_BYTES`].
    pub fn new(seed: u64, count: u32, bytes: usize) -> Result<Self> {
        ensure!(bytes <= MAX_BYTES, "an invented object has at most {MAX_BYTES} bytes");
        let id = |number| chunk::hash(&body(seed, number).as_bytes()[..bytes]);
        let mut sorted: Vec<_> = (0..count).map(|number| (id(number), number)).collect();
        sorted.sort_unstable();
        Ok(Self { seed, bytes, sorted })
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sorted.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sorted.is_empty()
    }

    /// The key at this place in their order.
    fn key(&self, place: usize) -> Option<String> {
        self.sorted.get(place).map(|(id, number)| chunk::key(id, generation(*number)))
    }

    /// Where this key stands, or where it would.
    fn find(&self, key: &str) -> Result<usize, usize> {
        // Most keys are chunks: those need no key to be written out for each comparison.
        let mut id = ChunkId::default();
        let is_chunk = key.strip_prefix("chunk/").and_then(|rest| rest.get(..64)).is_some_and(|digits| {
            digits.bytes().all(|digit| !digit.is_ascii_uppercase()) && hex::decode_to_slice(digits, &mut id).is_ok()
        });
        let mut place = match is_chunk {
            true => self.sorted.partition_point(|(other, _)| *other < id),
            false => self.sorted.partition_point(|&(id, number)| chunk::key(&id, generation(number)).as_str() < key),
        };
        match self.key(place) {
            Some(found) if found == key => return Ok(place),
            Some(found) if is_chunk && found.as_str() < key => place += 1,
            _ => {}
        }
        Err(place)
    }

    /// The bytes at this place.
    fn body(&self, place: usize) -> Vec<u8> {
        let number = self.sorted.get(place).map(|&(_, number)| number);
        number.map_or_else(Vec::new, |number| body(self.seed, number).as_bytes()[..self.bytes].to_vec())
    }

    /// What the server calls its version.
    fn etag(&self, place: usize) -> String {
        self.sorted.get(place).map_or_else(String::new, |(id, _)| hex::encode(&id[..16]))
    }

    /// Fills `storage.chunk_objects` with a live row for each, in the order in which pachd would have made them.
    ///
    /// # Errors
    /// If the server fails.
    pub async fn fill(&self, client: &Client) -> Result<()> {
        let rows = client.copy_in(crate::cluster::COPY_CHUNKS).await?;
        pin_mut!(rows);
        let mut lines = Vec::new();
        for number in 0..u32::try_from(self.len())? {
            let id = chunk::hash(&body(self.seed, number).as_bytes()[..self.bytes]);
            lines.extend_from_slice(&crate::cluster::row(&id, generation(number), true, false, self.bytes));
            if lines.len() > 1 << 18 {
                rows.send(Bytes::from(std::mem::take(&mut lines))).await?;
            }
        }
        rows.send(Bytes::from(lines)).await?;
        rows.finish().await?;
        client.batch_execute("VACUUM ANALYZE storage.chunk_objects").await?;
        Ok(())
    }
}

/// The bytes of an object are the first few of this.
fn body(seed: u64, number: u32) -> Hash {
    let mut state = Params::new().hash_length(MAX_BYTES).to_state();
    state.update(&seed.to_le_bytes()).update(&number.to_le_bytes()).finalize()
}

fn generation(number: u32) -> i64 {
    i64::from(number) + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_ascend_and_are_found_and_name_their_bytes() {
        let objects = Objects::new(1, 1000, 20).unwrap();
        let keys: Vec<_> = (0..objects.len()).map(|place| objects.key(place).unwrap()).collect();
        assert!(keys.is_sorted());
        for (place, key) in keys.iter().enumerate() {
            assert_eq!(objects.find(key), Ok(place));
            let id = chunk::hash(&objects.body(place));
            assert!(key.starts_with(&format!("chunk/{}.", hex::encode(id))));
        }
        assert_eq!(objects.find("chunk/"), Err(0));
        assert_eq!(objects.find("d"), Err(1000));
        assert_eq!(objects.find(&format!("{}f", keys[7])), Err(8));
        assert!(Objects::new(1, 1, 65).is_err());
    }
}
