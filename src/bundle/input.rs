//! Where a bundle is read from: front to back anywhere, by ranges where that can be.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use futures::future::BoxFuture;
use pacharc_format::{FileRange, Key, RangeReader};
use tokio::io::AsyncRead;
use tokio_util::io::StreamReader;

use super::Error;
use crate::bucket::{self, Bucket};
use crate::options::Location;

/// A bundle that can be read.
#[derive(Clone)]
pub enum Input {
    /// Standard input: once, front to back.
    Stdin,
    /// A local file.
    File(PathBuf),
    /// An object of a bucket.
    Object(Arc<dyn Bucket>, Key),
}

impl std::fmt::Display for Input {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stdin => write!(f, "standard input"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Object(bucket, key) => write!(f, "{key} in {}", bucket.url()),
        }
    }
}

impl Input {
    /// The bundle that `location` names. Nothing is read yet.
    ///
    /// # Errors
    /// The bucket's, where its URL cannot be used.
    pub async fn open(location: &Location, ca_file: Option<&Path>) -> Result<Self, Error> {
        Ok(match location {
            Location::Stdio => Self::Stdin,
            Location::File(path) => Self::File(path.clone()),
            Location::S3(url) => {
                let (bucket, key) = super::open_object(url, ca_file).await?;
                Self::Object(bucket, key)
            }
        })
    }

    /// Whether it can be read more than once.
    #[must_use]
    pub fn is_seekable(&self) -> bool {
        match self {
            Self::Stdin => false,
            // A named pipe is a file by name alone.
            Self::File(path) => path.metadata().is_ok_and(|metadata| metadata.is_file()),
            Self::Object(..) => true,
        }
    }

    /// Its length in bytes, where that is known before it is read.
    pub async fn length(&self) -> Option<u64> {
        match self {
            Self::Stdin => None,
            Self::File(path) => path.metadata().ok().filter(std::fs::Metadata::is_file).map(|m| m.len()),
            Self::Object(bucket, key) => bucket.head(key).await.ok().map(|listed| listed.size),
        }
    }

    /// Transient faults of the bucket that it lies in, so far.
    #[must_use]
    pub fn faults(&self) -> u64 {
        match self {
            Self::Object(bucket, _) => bucket.faults(),
            Self::Stdin | Self::File(_) => 0,
        }
    }

    /// Asks the system to forget what it has read of a file, so that it is read from the disk the next time. It is no more
    /// than a wish.
    pub fn forget(&self) {
        if let Self::File(path) = self
            && let Ok(file) = std::fs::File::open(path)
            && let Err(error) = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)
        {
            tracing::debug!(%error, "what was read stays in the cache");
        }
    }

    /// Opens it front to back.
    ///
    /// # Errors
    /// [`Error::Open`], the bucket's.
    pub async fn stream(&self) -> Result<Box<dyn AsyncRead + Send + Unpin>, Error> {
        match self {
            Self::Stdin => Ok(Box::new(tokio::io::stdin())),
            Self::File(path) => {
                let file = tokio::fs::File::open(path).await;
                let mut file = file.map_err(|source| Error::Open { path: path.clone(), source })?;
                file.set_max_buf_size(8 << 20);
                Ok(Box::new(file))
            }
            Self::Object(bucket, key) => {
                let body = bucket.get(key).await?.body;
                Ok(Box::new(StreamReader::new(body.map_err(io::Error::other))))
            }
        }
    }

    /// Opens it for reading in any place.
    ///
    /// # Errors
    /// [`Error::NotSeekable`], [`Error::Open`], the bucket's.
    pub async fn ranges(&self) -> Result<Box<dyn RangeReader>, Error> {
        match self {
            Self::Stdin => Err(Error::NotSeekable),
            Self::File(path) => {
                let failed = |source| Error::Open { path: path.clone(), source };
                // A named pipe would keep whoever opens it waiting.
                if !path.metadata().map_err(failed)?.is_file() {
                    return Err(Error::NotSeekable);
                }
                Ok(Box::new(FileRange::open(path).map_err(failed)?))
            }
            Self::Object(bucket, key) => {
                let length = bucket.head(key).await?.size;
                Ok(Box::new(BucketRange { bucket: Arc::clone(bucket), key: key.clone(), length }))
            }
        }
    }
}

/// A bundle in a bucket.
pub struct BucketRange {
    bucket: Arc<dyn Bucket>,
    key: Key,
    length: u64,
}

impl RangeReader for BucketRange {
    fn length(&self) -> u64 {
        self.length
    }

    fn read(&self, offset: u64, length: usize) -> BoxFuture<'_, io::Result<Bytes>> {
        Box::pin(async move {
            let read = self.bucket.get_range(&self.key, offset, length).await;
            read.map_err(|e: bucket::Error| io::Error::other(e))
        })
    }
}
