//! pacharc archives a whole Pachyderm cluster into one portable file, and brings it back.
//!
//! The rooms, and what lives in each: `docs/architecture.md`.

pub mod backup;
pub mod bucket;
pub mod budget;
pub mod bundle;
pub mod cli;
pub mod cluster;
pub mod database;
pub mod evidence;
pub mod extract;
pub mod failure;
mod farewell;
pub mod feed;
#[doc(hidden)]
pub mod fuzzing;
mod hasher;
pub mod inspect;
pub mod interrupt;
pub mod keys;
pub mod list;
pub mod monitor;
pub mod options;
pub mod outcome;
pub mod pachyderm;
pub mod restore;
pub mod secret;
pub mod secret_file;
pub mod signature;
pub mod verify;
mod visible;
