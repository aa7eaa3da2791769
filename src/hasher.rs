//! The hash of bytes that come in parts, of the kind that an entry has.

use pacharc_format::Hash;

/// A hash under way.
pub(crate) enum Hasher {
    /// Of a chunk.
    Blake2b(Box<blake2b_simd::State>),
    /// Of anything else.
    Blake3(Box<blake3::Hasher>),
}

impl Hasher {
    /// Of the same kind as `hash`.
    pub(crate) fn like(hash: Option<Hash>) -> Self {
        match hash {
            Some(Hash::Blake2b(_)) => Self::Blake2b(Box::new(blake2b_simd::Params::new().hash_length(32).to_state())),
            _ => Self::Blake3(Box::new(blake3::Hasher::new())),
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Blake2b(state) => {
                state.update(bytes);
            }
            Self::Blake3(hasher) => {
                hasher.update(bytes);
            }
        }
    }

    pub(crate) fn finish(self) -> Hash {
        match self {
            Self::Blake2b(state) => {
                let mut hash = [0; 32];
                hash.copy_from_slice(state.finalize().as_bytes());
                Hash::Blake2b(hash)
            }
            Self::Blake3(hasher) => Hash::Blake3(*hasher.finalize().as_bytes()),
        }
    }
}
