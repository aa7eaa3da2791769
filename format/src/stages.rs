//! Doors for the benches (`benches/stages`): what a segment goes through, by itself. Not a part of the interface.

use bytes::Bytes;

use crate::entry::Packing;
use crate::error::Result;
use crate::seal::BundleKey;

/// Compresses (if so packed) and encrypts, as a segment is, into blocks of memory.
///
/// # Errors
/// As sealing a segment.
pub fn seal(key: &BundleKey, packing: Packing, level: i32, plain: Bytes) -> Result<Vec<Vec<u8>>> {
    Ok(key.seal(packing, level, vec![plain])?.blocks)
}

/// Decrypts and decompresses (if so packed), as a segment is.
///
/// # Errors
/// What is wrong, in words.
pub fn open(key: &BundleKey, packing: Packing, sealed: Bytes, limit: usize) -> std::result::Result<Bytes, String> {
    key.open(packing, sealed, limit)
}
