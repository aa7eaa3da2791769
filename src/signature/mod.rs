//! Signatures: who wrote a bundle. Keys and signatures are minisign's, so that its own program makes and checks them alike.
//!
//! What is signed are the bundle's sums, and by them everything but the key slots (`format/SPEC.md`, 4.4).

mod error;
mod signing;
mod trusted;

pub use error::Error;
pub use signing::{SigningKey, SigningKeyNames, is_signing_key, public_key_of};
pub use trusted::{SignedBy, TrustedKeys};
