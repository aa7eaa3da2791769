//! Where a bundle lies: written to a file, standard output or a bucket, read from the same.

mod error;
mod input;
mod output;

pub use error::Error;
pub use input::{BucketRange, Input};
pub use output::{Output, OutputWriter, Place};
