//! Where a bundle lies: written to a file, standard output or a bucket, read from the same.

mod error;
mod file_reader;
mod file_writer;
mod input;
mod output;
mod select;
mod timed;
mod what;

pub use error::Error;
pub use input::{BucketRange, Input};
pub use output::{Output, OutputWriter, Place};
pub use select::Selection;
pub use timed::Timed;
pub use what::what_lies_at;

use std::path::Path;
use std::sync::Arc;

use pacharc_format::Key;

use crate::bucket::{self, Bucket, BucketUrl};

/// The bucket and the key of a bundle at an `s3://` URL.
async fn open_object(url: &str, ca_file: Option<&Path>) -> Result<(Arc<dyn Bucket>, Key), Error> {
    let (url, key) = BucketUrl::parse_object(url)?;
    let options = bucket::Options { ca_file: ca_file.map(Path::to_owned), ..bucket::Options::default() };
    Ok((bucket::open(&url, &options).await?, key))
}
