//! Inspect: what a bundle is.

pub mod options;

pub use options::Options;
