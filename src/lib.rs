//! pacharc archives a whole Pachyderm cluster into one portable file, and brings it back.
//!
//! The rooms, and what lives in each: `docs/architecture.md`.

pub mod database;
pub mod bucket;
pub mod failure;
pub mod feed;
