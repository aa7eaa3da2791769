//! Backup: a source becomes one bundle.

pub mod options;

pub use options::{Options, Quiesce};
