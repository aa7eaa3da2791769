//! List: the entries of a bundle.

pub mod options;

pub use options::Options;
