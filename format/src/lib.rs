//! The pacharc bundle: one tar of encrypted, content-hashed segments that stock tools can open.
//!
//! `SPEC.md` beside this crate is the specification. This crate knows bytes and streams; it knows no network, no
//! database, no policy.

mod entry;
mod key;
pub mod manifest;

pub use entry::{Entry, Hash, Metadata, Packing};
pub use key::{ChunkKey, Key};
pub use manifest::Manifest;
