//! Restore: a bundle becomes databases and a bucket again.

pub mod options;

pub use options::{Options, Rename};
