//! Where a bundle is read from: front to back anywhere, by ranges where that can be.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use futures::future::BoxFuture;
use pacharc_format::{FileRange, Key, RangeReader, Source};
use tokio::io::BufReader;
use tokio_util::io::StreamReader;

use super::file_reader::FileReader;
use super::{Error, Timed};
use crate::bucket::{self, Bucket};
use crate::monitor::Monitor;
use crate::options::Location;

/// Bytes of a pipe that are read at once.
const PIPE: usize = 256 << 10;

/// A bundle that can be read.
#[derive(Clone)]
pub struct Input {
    kind: Kind,
    monitor: Arc<dyn Monitor>,
}

#[derive(Clone)]
enum Kind {
    /// Standard input: once, front to back.
    Stdin,
    /// A local file.
    File(PathBuf),
    /// An object of a bucket.
    Object(Arc<dyn Bucket>, Key),
}

impl std::fmt::Display for Input {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.kind {
            Kind::Stdin => write!(f, "standard input"),
            Kind::File(path) => write!(f, "{}", path.display()),
            Kind::Object(bucket, key) => write!(f, "{key} in {}", bucket.url()),
        }
    }
}

impl Input {
    /// The bundle that `location` names. Nothing is read yet. `monitor` is told how long it is waited for.
    ///
    /// # Errors
    /// The bucket's, where its URL cannot be used.
    pub async fn open(location: &Location, ca_file: Option<&Path>, monitor: Arc<dyn Monitor>) -> Result<Self, Error> {
        let kind = match location {
            Location::Stdio => Kind::Stdin,
            Location::File(path) => Kind::File(path.clone()),
            Location::S3(url) => {
                let (bucket, key) = super::open_object(url, ca_file).await?;
                Kind::Object(bucket, key)
            }
        };
        Ok(Self { kind, monitor })
    }

    /// Whether it can be read more than once.
    #[must_use]
    pub fn is_seekable(&self) -> bool {
        match &self.kind {
            Kind::Stdin => false,
            // A named pipe is a file by name alone. What cannot be looked at says why when it is opened.
            Kind::File(path) => path.metadata().map_or(true, |metadata| metadata.is_file()),
            Kind::Object(..) => true,
        }
    }

    /// Its length in bytes, where that is known before it is read.
    pub async fn length(&self) -> Option<u64> {
        match &self.kind {
            Kind::Stdin => None,
            Kind::File(path) => path.metadata().ok().filter(std::fs::Metadata::is_file).map(|m| m.len()),
            Kind::Object(bucket, key) => bucket.head(key).await.ok().map(|listed| listed.size),
        }
    }

    /// Transient faults of the bucket that it lies in, so far.
    #[must_use]
    pub fn faults(&self) -> u64 {
        match &self.kind {
            Kind::Object(bucket, _) => bucket.faults(),
            Kind::Stdin | Kind::File(_) => 0,
        }
    }

    /// Asks the system to forget what it has read of a file, so that it is read from the disk the next time. It is no more
    /// than a wish.
    pub fn forget(&self) {
        if let Kind::File(path) = &self.kind
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
    pub async fn stream(&self) -> Result<Box<dyn Source + Send>, Error> {
        Ok(match &self.kind {
            Kind::Stdin => Box::new(self.timed(BufReader::with_capacity(PIPE, tokio::io::stdin()))),
            Kind::File(path) => {
                let file = tokio::fs::File::open(path).await;
                let file = file.map_err(|source| Error::Open { path: path.clone(), source })?;
                Box::new(self.timed(FileReader::new(file.into_std().await)).with_detach(FileReader::detach))
            }
            Kind::Object(bucket, key) => {
                let body = bucket.get(key).await?.body;
                Box::new(self.timed(StreamReader::new(body.map_err(io::Error::other))))
            }
        })
    }

    fn timed<T>(&self, stream: T) -> Timed<T> {
        Timed::new(stream, Arc::clone(&self.monitor))
    }

    /// Opens it for reading in any place.
    ///
    /// # Errors
    /// [`Error::NotSeekable`], [`Error::Open`], the bucket's.
    pub async fn ranges(&self) -> Result<Box<dyn RangeReader>, Error> {
        match &self.kind {
            Kind::Stdin => Err(Error::NotSeekable),
            Kind::File(path) => {
                let failed = |source| Error::Open { path: path.clone(), source };
                // A named pipe would keep whoever opens it waiting.
                if !path.metadata().map_err(failed)?.is_file() {
                    return Err(Error::NotSeekable);
                }
                Ok(Box::new(Timed::new(FileRange::open(path).map_err(failed)?, Arc::clone(&self.monitor))))
            }
            Kind::Object(bucket, key) => {
                let length = bucket.head(key).await?.size;
                let range = BucketRange { bucket: Arc::clone(bucket), key: key.clone(), length };
                Ok(Box::new(Timed::new(range, Arc::clone(&self.monitor))))
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
