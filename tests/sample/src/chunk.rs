//! Chunks as pachd makes them (2.0 to 2.12, `src/internal/storage/chunk`): a key derived from the plaintext alone, ChaCha20
//! with a zero nonce, and a name that is the hash of what is stored.

use blake2b_simd::Params;
use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher};
use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::ops::RangeInclusive;

/// A BLAKE2b-256 hash: what names a chunk.
pub type ChunkId = [u8; 32];

/// One chunk, as it lies in the bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// BLAKE2b-256 of [`Chunk::stored`].
    pub id: ChunkId,
    /// The encrypted bytes.
    pub stored: Vec<u8>,
}

impl Chunk {
    /// Encrypts a chunk: `dek = H(H(plain))`, zero nonce, counter from 0.
    #[must_use]
    pub fn seal(plain: Vec<u8>) -> Self {
        let dek = hash(&hash(&plain));
        let mut stored = plain;
        ChaCha20::new(&dek.into(), &[0; 12].into()).apply_keystream(&mut stored);
        Self { id: hash(&stored), stored }
    }

    /// The chunk number `index` of a seed: always the same one, of a size spread evenly over the orders of magnitude.
    #[must_use]
    pub fn generate(seed: u64, index: u64, sizes: &RangeInclusive<u64>) -> Self {
        let mut random = stream(seed, index);
        let size = spread(&mut random, sizes);
        let mut plain = vec![0; usize::try_from(size).unwrap_or(usize::MAX)];
        random.fill_bytes(&mut plain);
        Self::seal(plain)
    }

    /// How large [`Chunk::generate`] makes it.
    #[must_use]
    pub fn size(seed: u64, index: u64, sizes: &RangeInclusive<u64>) -> u64 {
        spread(&mut stream(seed, index), sizes)
    }

    /// Its key in the bucket under this generation.
    #[must_use]
    pub fn key(&self, generation: i64) -> String {
        key(&self.id, generation)
    }
}

/// `chunk/<64 hex digits of the id>.<16 hex digits of the generation>`.
#[must_use]
pub fn key(id: &ChunkId, generation: i64) -> String {
    format!("chunk/{}.{generation:016x}", hex::encode(id))
}

/// BLAKE2b-256, unkeyed.
#[must_use]
pub fn hash(bytes: &[u8]) -> ChunkId {
    let mut id = ChunkId::default();
    id.copy_from_slice(Params::new().hash_length(32).hash(bytes).as_bytes());
    id
}

fn stream(seed: u64, index: u64) -> ChaCha8Rng {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(index);
    random
}

/// A size from the range; each doubling is as likely as the next.
fn spread(random: &mut ChaCha8Rng, sizes: &RangeInclusive<u64>) -> u64 {
    let (low, high) = (*sizes.start(), *sizes.end());
    if low >= high {
        return low;
    }
    let doublings = 63 - (high / low.max(1)).max(1).leading_zeros();
    let base = low.max(1) << random.random_range(0..=doublings);
    random.random_range(base..=base * 2).clamp(low, high)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed with Python's hashlib and a ChaCha20 checked against RFC 8439; the first is also the id that pachd itself
    /// gives to an empty chunk.
    #[test]
    fn the_formula_gives_pachds_ids() {
        let cases: [(&[u8], &str, &str); 4] = [
            (b"", "", "0e5751c026e543b2e8ab2eb06099daa1d1e5df47778f7787faab45cdf12fe3a8"),
            (b"foo\n", "076b9a73", "635799e858f4be973449a78bf662d02dd0b3190196b53cb71c559a941cde02c8"),
            (
                b"hello world",
                "5026deb11b6a68c73cca30",
                "029c4a7c9312ddbdd7868deefc676b373b1fc2d69813682e92eeef8b45e6870e",
            ),
            (&[b'a'; 100], "9de222d3f1e8", "e548f2ad268b3a3dd662bfa6c733d27ad500f663c5684400367f0402b9b9896e"),
        ];
        for (plain, stored, id) in cases {
            let chunk = Chunk::seal(plain.to_vec());
            assert_eq!(hex::encode(chunk.id), id);
            assert!(hex::encode(&chunk.stored).starts_with(stored));
            assert_eq!(chunk.stored.len(), plain.len());
        }
    }

    #[test]
    fn a_key_has_64_and_16_digits() {
        let key = Chunk::seal(Vec::new()).key(42);
        assert_eq!(key, "chunk/0e5751c026e543b2e8ab2eb06099daa1d1e5df47778f7787faab45cdf12fe3a8.000000000000002a");
    }

    #[test]
    fn generated_chunks_depend_on_seed_and_index_and_keep_to_the_range() {
        let sizes = 3..=5000;
        assert_eq!(Chunk::generate(1, 2, &sizes), Chunk::generate(1, 2, &sizes));
        assert_ne!(Chunk::generate(1, 2, &sizes), Chunk::generate(1, 3, &sizes));
        assert_ne!(Chunk::generate(1, 2, &sizes), Chunk::generate(2, 2, &sizes));
        let lengths: Vec<_> = (0..500).map(|i| Chunk::generate(9, i, &sizes).stored.len()).collect();
        assert!(lengths.iter().all(|length| (3..=5000).contains(length)));
        assert!(lengths.iter().any(|&length| length < 10) && lengths.iter().any(|&length| length > 4000));
        assert!(Chunk::generate(1, 1, &(0..=0)).stored.is_empty());
    }
}
