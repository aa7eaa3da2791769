//! A bucket in a local directory, as Pachyderm's LOCAL storage keeps it: read in each of its three layouts, written in the
//! current one (`directory/layout.rs`).

mod attributes;
mod layout;
mod tree;
mod walk;

pub(crate) use attributes::parse as parse_attributes;

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt as _};
use pacharc_format::{Key, Metadata};
use rustix::fs::Stat;

use self::tree::{NewFile, Tree};
use super::{Bucket, BucketUrl, Error, Listed, Object, Size, Upload};

/// Objects up to this size in bytes are read in one go, larger ones in pieces of it.
const PIECE: usize = 1 << 20;
/// The most that is read of an `.attrs` file: S3 allows 2 KiB of user metadata, others 8.
const ATTRIBUTES_LIMIT: u64 = 1 << 20;

/// A directory of objects.
#[derive(Clone)]
pub(super) struct Directory {
    tree: Arc<Tree>,
    url: Arc<str>,
    identity: Arc<str>,
}

impl Directory {
    /// Opens the directory at `path`; with `create`, makes it first where it is missing.
    pub(super) async fn open(path: &Path, create: bool) -> Result<Self, Error> {
        let url = BucketUrl::Directory { path: path.to_owned() }.to_string();
        let path = path.to_owned();
        blocking(move || {
            let open = || -> io::Result<_> {
                if create {
                    std::fs::create_dir_all(&path)?;
                }
                Ok((Tree::open(&path)?, path.canonicalize()?))
            };
            match open() {
                Ok((tree, path)) => {
                    let identity = BucketUrl::Directory { path }.to_string().into();
                    Ok(Self { tree: Arc::new(tree), url: url.into(), identity })
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                    Err(Error::NoBucket { bucket: url })
                }
                Err(error) => Err(failed(&url, "opening it".to_owned(), error)),
            }
        })
        .await
    }

    /// Runs `read` with the path of `key` in the layout that holds it.
    fn find<T>(&self, key: &Key, read: impl Fn(&[u8]) -> io::Result<T>) -> Result<(Vec<u8>, T), Error> {
        let mut last = io::ErrorKind::NotFound.into();
        // A key that no file can have is simply not there.
        for path in layout::to_path(key, false).ok().into_iter().chain(layout::to_encoded_path(key)) {
            match read(&path) {
                Ok(found) => return Ok((path, found)),
                Err(error) if is_absent(&error) => {}
                Err(error) => {
                    last = error;
                    break;
                }
            }
        }
        if is_absent(&last) {
            return Err(Error::NotFound { bucket: self.url.to_string(), key: key.clone() });
        }
        Err(failed(&self.url, format!("reading object {key}"), last))
    }

    fn metadata(&self, key: &Key, path: &[u8]) -> Result<Metadata, Error> {
        let content = match self.tree.small_file(&beside(path), ATTRIBUTES_LIMIT) {
            Ok(Some(content)) => content,
            Ok(None) => return Ok(Metadata::default()),
            Err(error) if is_absent(&error) => return Ok(Metadata::default()),
            Err(error) => return Err(failed(&self.url, format!("reading the attributes of object {key}"), error)),
        };
        attributes::parse(&content).map_err(|e| self.bad_attributes(key, e))
    }

    fn bad_attributes(&self, key: &Key, source: serde_json::Error) -> Error {
        Error::Attributes { bucket: self.url.to_string(), key: key.clone(), source: source.into() }
    }

    fn read(&self, key: &Key) -> Result<Object, Error> {
        let (path, (file, stat)) = self.find(key, |path| self.tree.file(path))?;
        let metadata = self.metadata(key, &path)?;
        let (size, version) = (tree::size(&stat), tree::version(&stat));
        let mut reading = Reading { bucket: self.clone(), key: key.clone(), file, stat, offset: 0 };
        let body = if size <= PIECE as u64 {
            let piece = reading.piece()?;
            futures::stream::iter(piece.map(Ok)).boxed()
        } else {
            pieces(reading)
        };
        Ok(Object { size, metadata, etag: Some(version), body })
    }

    fn begin(&self, key: &Key, metadata: &Metadata, size: Size) -> Result<Writing, Error> {
        let attributes = attributes::render(metadata).map_err(|e| self.bad_attributes(key, e))?;
        let path = layout::to_path(key, attributes.is_some()).map_err(|reason| self.invalid(key, reason))?;
        let new = self.tree.create(&path).map_err(|e| self.not_written(key, e))?;
        Ok(Writing { bucket: self.clone(), key: key.clone(), path, attributes, new, size, written: 0 })
    }

    fn invalid(&self, key: &Key, reason: String) -> Error {
        Error::InvalidKey { bucket: self.url.to_string(), key: key.clone(), reason }
    }

    /// Why an object could not be written, where the key is the reason.
    fn not_written(&self, key: &Key, error: io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::NotADirectory => {
                self.invalid(key, "a file or a link lies where its folder would be".to_owned())
            }
            io::ErrorKind::IsADirectory => {
                self.invalid(key, "a folder has that name: a directory cannot hold `a` beside `a/b`".to_owned())
            }
            io::ErrorKind::InvalidFilename => self.invalid(key, "a name is too long for this file system".to_owned()),
            io::ErrorKind::AlreadyExists => Error::Exists { bucket: self.url.to_string(), key: key.clone() },
            _ => failed(&self.url, format!("writing object {key}"), error),
        }
    }

    async fn write(&self, key: &Key, metadata: &Metadata, body: Bytes, replaces: bool) -> Result<(), Error> {
        let (this, key, metadata) = (self.clone(), key.clone(), metadata.clone());
        blocking(move || {
            let mut writing = this.begin(&key, &metadata, Size::About(0))?;
            writing.write(&body)?;
            writing.finish(replaces)
        })
        .await
    }
}

#[async_trait]
impl Bucket for Directory {
    fn url(&self) -> &str {
        &self.url
    }

    fn identity(&self) -> String {
        self.identity.to_string()
    }

    fn list(&self, prefix: &[u8]) -> BoxStream<'_, Result<Listed, Error>> {
        walk::list(Arc::clone(&self.tree), self.url.to_string(), prefix.to_vec())
    }

    async fn get(&self, key: &Key) -> Result<Object, Error> {
        let (this, key) = (self.clone(), key.clone());
        blocking(move || this.read(&key)).await
    }

    async fn get_range(&self, key: &Key, offset: u64, length: usize) -> Result<Bytes, Error> {
        let (this, key) = (self.clone(), key.clone());
        blocking(move || {
            let (_, (file, stat)) = this.find(&key, |path| this.tree.file(path))?;
            let size = tree::size(&stat);
            if offset.checked_add(length as u64).is_none_or(|end| end > size) {
                let bucket = this.url.to_string();
                return Err(Error::Range { bucket, key, offset, length, size: size.to_string() });
            }
            let mut bytes = vec![0; length];
            match file.read_exact_at(&mut bytes, offset) {
                Ok(()) => Ok(bytes.into()),
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                    Err(Error::Changed { bucket: this.url.to_string(), key })
                }
                Err(error) => Err(failed(&this.url, format!("reading object {key}"), error)),
            }
        })
        .await
    }

    async fn head(&self, key: &Key) -> Result<Listed, Error> {
        let (this, key) = (self.clone(), key.clone());
        blocking(move || {
            let (_, stat) = this.find(&key, |path| {
                this.tree.stat(path).and_then(|stat| match tree::is_file(&stat) {
                    true => Ok(stat),
                    false => Err(io::ErrorKind::NotFound.into()),
                })
            })?;
            Ok(Listed { key, size: tree::size(&stat), etag: Some(tree::version(&stat)), archived: false })
        })
        .await
    }

    async fn put(&self, key: &Key, metadata: &Metadata, body: Bytes) -> Result<(), Error> {
        self.write(key, metadata, body, true).await
    }

    async fn put_new(&self, key: &Key, metadata: &Metadata, body: Bytes) -> Result<(), Error> {
        self.write(key, metadata, body, false).await
    }

    async fn upload(&self, key: &Key, metadata: &Metadata, size: Size) -> Result<Box<dyn Upload>, Error> {
        let (this, key, metadata) = (self.clone(), key.clone(), metadata.clone());
        let writing = blocking(move || this.begin(&key, &metadata, size)).await?;
        Ok(Box::new(DirectoryUpload { writing: Some(writing) }))
    }

    async fn delete(&self, key: &Key) -> Result<(), Error> {
        let (this, key) = (self.clone(), key.clone());
        blocking(move || {
            for path in layout::to_path(&key, false).ok().into_iter().chain(layout::to_encoded_path(&key)) {
                // The object first: attributes without an object are passed over, the other way round they would be lost.
                for path in [&path, &beside(&path)] {
                    match this.tree.remove(path) {
                        Err(error) if !is_absent(&error) => {
                            return Err(failed(&this.url, format!("deleting object {key}"), error));
                        }
                        _ => {}
                    }
                }
            }
            Ok(())
        })
        .await
    }
}

/// An object that is being read, on the way from one piece to the next.
struct Reading {
    bucket: Directory,
    key: Key,
    file: File,
    stat: Stat,
    offset: u64,
}

impl Reading {
    /// The next piece; `None` at the end, once it is sure that nothing has changed.
    fn piece(&mut self) -> Result<Option<Bytes>, Error> {
        let left = tree::size(&self.stat).saturating_sub(self.offset);
        let mut bytes = vec![0; usize::try_from(left).map_or(PIECE, |left| left.min(PIECE))];
        let changed = || Error::Changed { bucket: self.bucket.url.to_string(), key: self.key.clone() };
        match self.file.read_exact_at(&mut bytes, self.offset) {
            Ok(()) => self.offset += bytes.len() as u64,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(changed()),
            Err(error) => return Err(failed(&self.bucket.url, format!("reading object {}", self.key), error)),
        }
        if self.offset == tree::size(&self.stat) {
            let now = rustix::fs::fstat(&self.file)
                .map_err(|e| failed(&self.bucket.url, format!("reading object {}", self.key), e.into()))?;
            if tree::version(&now) != tree::version(&self.stat) {
                return Err(changed());
            }
        }
        Ok((!bytes.is_empty()).then(|| bytes.into()))
    }
}

fn pieces(reading: Reading) -> BoxStream<'static, Result<Bytes, Error>> {
    futures::stream::try_unfold(reading, |mut reading| async move {
        blocking(move || Ok(reading.piece()?.map(|piece| (piece, reading)))).await
    })
    .boxed()
}

/// An object that is being written.
struct Writing {
    bucket: Directory,
    key: Key,
    path: Vec<u8>,
    attributes: Option<Vec<u8>>,
    new: NewFile,
    size: Size,
    written: u64,
}

impl Writing {
    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.new.file.write_all(bytes).map_err(|e| self.bucket.not_written(&self.key, e))?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn finish(self, replaces: bool) -> Result<(), Error> {
        let Self { bucket, key, path, attributes, new, size, written } = self;
        if let Size::Exactly(promised) = size
            && promised != written
        {
            return Err(Error::Length { bucket: bucket.url.to_string(), key, promised, actual: written });
        }
        let beside = beside(&path);
        let name = beside.rsplit(|&b| b == b'/').next().unwrap_or_default();
        new.commit((name, attributes.as_deref()), replaces).map_err(|e| bucket.not_written(&key, e))
    }
}

struct DirectoryUpload {
    /// `None` after a write that failed or was given up: the file is gone then.
    writing: Option<Writing>,
}

impl DirectoryUpload {
    fn take(&mut self) -> Result<Writing, Error> {
        self.writing.take().ok_or_else(|| Error::Io {
            bucket: "the directory".to_owned(),
            doing: "going on with an object whose last write failed".to_owned(),
            source: io::ErrorKind::BrokenPipe.into(),
        })
    }
}

#[async_trait]
impl Upload for DirectoryUpload {
    async fn write(&mut self, bytes: Bytes) -> Result<(), Error> {
        let mut writing = self.take()?;
        self.writing = Some(blocking(move || writing.write(&bytes).map(|()| writing)).await?);
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<(), Error> {
        let writing = self.take()?;
        blocking(move || writing.finish(true)).await
    }

    async fn finish_new(mut self: Box<Self>) -> Result<(), Error> {
        let writing = self.take()?;
        blocking(move || writing.finish(false)).await
    }

    async fn abort(mut self: Box<Self>) -> Result<(), Error> {
        let writing = self.writing.take();
        blocking(move || {
            drop(writing);
            Ok(())
        })
        .await
    }
}

/// The path of the attributes of the object at `path`.
fn beside(path: &[u8]) -> Vec<u8> {
    [path, layout::ATTRIBUTES.as_bytes()].concat()
}

/// Whether it means that there is no such object: also where a folder or a link lies at its path or on the way.
fn is_absent(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(error.kind(), Kind::NotFound | Kind::NotADirectory | Kind::IsADirectory | Kind::InvalidFilename)
        || error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error())
}

fn failed(bucket: &str, doing: String, source: io::Error) -> Error {
    let bucket = bucket.to_owned();
    match source.kind() {
        io::ErrorKind::PermissionDenied => Error::Denied { bucket, doing, source: source.into() },
        _ => Error::Io { bucket, doing, source },
    }
}

/// Runs `work` where it may block.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::Io {
            bucket: "the directory".to_owned(),
            doing: "a task".to_owned(),
            source: io::Error::other(error),
        }),
    }
}
