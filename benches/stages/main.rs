//! The stages of a backup and a restore, each alone: what one core does with bytes that lie in memory. What limits a whole
//! run is told by `benches/compare` and `--stats`; this tells what a change to one stage is worth.
//!
//! `cargo bench --bench stages` runs all of them, `cargo bench --bench stages -- hash` one group.

// A bench that cannot go on has nothing to tell.
#![allow(clippy::unwrap_used)]

mod bundle;
mod dump;
mod hash;
mod index;
mod material;
mod seal;

use criterion::{criterion_group, criterion_main};

criterion_group!(stages, hash::all, seal::all, dump::all, index::all, bundle::all);
criterion_main!(stages);
