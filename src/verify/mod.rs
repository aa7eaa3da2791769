//! Verify: a bundle is what it says.

pub mod options;

pub use options::{Level, Options};
