//! `BLAKE3SUMS.minisig` (SPEC §4.4): who signs the sums, and with them everything that they name, stands outside of this
//! crate, which only knows where a signature lies and what it is made of.

use std::io::{self, Read};

use crate::about::About;

/// Largest signature file, in bytes.
pub(crate) const SIGNATURE_LIMIT: u64 = 4096;
/// The outer entry's name.
pub(crate) const SIGNATURE: &str = "BLAKE3SUMS.minisig";

/// Whoever can sign a bundle.
pub trait Signer: Sync {
    /// Signs `sums`, which are read to their end: a prehashed minisign signature with this trusted comment, as the whole
    /// content of its file, of at most 4,096 bytes.
    ///
    /// # Errors
    /// Those of `sums`, and its own.
    fn sign(&self, sums: &mut dyn Read, trusted_comment: &str) -> io::Result<Vec<u8>>;
}

/// What the signer of a bundle states beside the sums.
pub(crate) fn trusted_comment(about: &About) -> String {
    format!("pacharc format={} uuid={} created={}", about.format, about.bundle, about.created)
}
