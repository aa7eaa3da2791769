//! The pacharc bundle: one tar of encrypted, content-hashed segments that stock tools can open.
//!
//! `SPEC.md` beside this crate is the specification. This crate knows bytes and streams; it knows no network, no
//! database, no policy.

mod about;
mod age_file;
mod catalog;
mod check;
mod container;
mod entry;
mod error;
mod fingerprint;
#[doc(hidden)]
pub mod fuzzing;
mod grammar;
mod index;
mod key;
mod keyslot;
pub mod manifest;
mod parts;
mod payload;
mod pieces;
mod prover;
mod range;
mod reader;
mod readme;
mod salvage;
mod seal;
mod segment;
mod signature;
mod source;
mod spool;
#[doc(hidden)]
pub mod stages;
mod stream;
mod sums;
mod trailer;
mod writer;

pub use about::{About, Head, HeadDatabase, PLAIN_LIMIT};
pub use catalog::CatalogWriter;
pub use entry::{Entry, Hash, Metadata, Packing};
pub use error::{Error, Result};
pub use fingerprint::{Fingerprint, LineReader};
pub use index::{CatalogLine, IndexLine, Pieces, Place, State};
pub use key::{ChunkKey, Key};
pub use keyslot::{Lock, MAX_WORK_FACTOR, Unlock, WORK_FACTOR};
pub use manifest::Manifest;
pub use parts::Parts;
pub use payload::BLOCK;
pub use pieces::{Piece, PieceWriter};
pub use prover::Prover;
pub use range::{FileRange, RangeReader};
pub use reader::{BundleReader, CatalogReader, Inspection, SegmentReader, inspect};
pub use salvage::{SalvageReader, Salvaged};
pub use seal::BundleKey;
pub use signature::Signer;
pub use source::Source;
pub use spool::{Record, Sorted, Spool};
pub use stream::{BundleStream, Found, ReadOptions};
pub use trailer::{Extent, TRAILER, TRAILER_FROM_END, Trailer};
pub use writer::{BundleWriter, WriterOptions, Written};

/// The number of the format that this crate writes, and the only one that it reads.
pub const FORMAT: u32 = 1;
