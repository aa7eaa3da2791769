//! The hash of an object in pieces, as they come.

use pacharc_format::Hash;

use super::Error;

/// A running hash of either kind that the object may have.
pub(super) struct Whole {
    blake3: Box<blake3::Hasher>,
    blake2b: Option<Box<blake2b_simd::State>>,
}

impl Whole {
    /// Of the object at `path`.
    pub(super) fn new(path: &str) -> Self {
        let is_chunk = path.starts_with("objects/chunk/");
        let blake2b = is_chunk.then(|| Box::new(blake2b_simd::Params::new().hash_length(32).to_state()));
        Self { blake3: Box::default(), blake2b }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.blake3.update(bytes);
        if let Some(state) = &mut self.blake2b {
            state.update(bytes);
        }
    }

    /// Whether the pieces make the object that has this hash.
    pub(super) fn check(self, path: &str, expected: Option<Hash>) -> Result<(), Error> {
        let found = match (expected, self.blake2b) {
            (Some(Hash::Blake2b(_)), Some(state)) => {
                let mut hash = [0; 32];
                hash.copy_from_slice(state.finalize().as_bytes());
                Hash::Blake2b(hash)
            }
            _ => Hash::Blake3(*self.blake3.finalize().as_bytes()),
        };
        if Some(found) == expected {
            return Ok(());
        }
        let what = "its pieces do not make the object that the bundle names".to_owned();
        Err(pacharc_format::Error::Damaged { entry: path.to_owned(), offset: 0, what }.into())
    }
}
