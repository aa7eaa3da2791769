//! Extract: single entries out of a bundle.

pub mod options;

pub use options::{Destination, Options};
