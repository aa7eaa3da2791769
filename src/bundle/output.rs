//! Where a bundle is written to. It has its final name only when it is complete and durable.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::BytesMut;
use pacharc_format::{Key, Metadata};
use tempfile::NamedTempFile;
use tokio::io::{AsyncReadExt, AsyncWrite, DuplexStream};
use tokio_util::task::AbortOnDropHandle;

use super::Error;
use super::file_writer::FileWriter;
use crate::bucket::{Bucket, Size, Upload};
use crate::farewell;
use crate::options::Location;

/// Bytes that are handed to an upload at a time; it gathers them into parts.
const UPLOAD_BUFFER: usize = 1 << 20;

/// Where a bundle goes.
#[derive(Clone)]
pub enum Place {
    /// Standard output.
    Stdout,
    /// A local file.
    File(PathBuf),
    /// An object of a bucket.
    Object(Arc<dyn Bucket>, Key),
}

impl Place {
    /// The place that `location` names.
    ///
    /// # Errors
    /// The bucket's, where its URL cannot be used.
    pub async fn open(location: &Location, ca_file: Option<&Path>) -> Result<Self, Error> {
        Ok(match location {
            Location::Stdio => Self::Stdout,
            Location::File(path) => Self::File(path.clone()),
            Location::S3(url) => {
                let (bucket, key) = super::open_object(url, ca_file).await?;
                Self::Object(bucket, key)
            }
        })
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stdout => write!(f, "standard output"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Object(bucket, key) => write!(f, "{key} in {}", bucket.url()),
        }
    }
}

/// The half of an output that decides: after the last byte it is committed, else it is aborted. Dropped at any moment, it
/// takes back what was written, within the bounded time that a process takes to end (`src/farewell.rs`).
pub struct Output(State);

enum State {
    Stdout,
    File { temporary: NamedTempFile, path: PathBuf },
    Object { task: AbortOnDropHandle<Result<Box<dyn Upload>, Error>>, place: String },
}

/// The half of an output that is written to.
pub enum OutputWriter {
    /// A file.
    File(FileWriter),
    /// Standard output.
    Stdout(tokio::io::Stdout),
    /// The pipe to the task that uploads.
    Object(DuplexStream),
}

impl Output {
    /// Opens `place`: a file under a temporary name beside the final one, readable for its owner alone. By `estimate`, about
    /// how many bytes will come, an object is cut into parts.
    ///
    /// # Errors
    /// [`Error::Exists`]; [`Error::Write`] where the folder cannot be written; the bucket's.
    pub async fn create(place: &Place, estimate: u64) -> Result<(OutputWriter, Self), Error> {
        match place {
            Place::Stdout => Ok((OutputWriter::Stdout(tokio::io::stdout()), Self(State::Stdout))),
            Place::File(path) => {
                let failed = |source| Error::Write { path: path.clone(), source };
                if path.symlink_metadata().is_ok() {
                    return Err(Error::Exists(path.display().to_string()));
                }
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let temporary = tempfile::Builder::new()
                    .prefix(&format!(".{name}."))
                    .suffix(".partial")
                    .tempfile_in(folder(path))
                    .map_err(failed)?;
                let file = temporary.as_file().try_clone().map_err(failed)?;
                Ok((OutputWriter::File(FileWriter::new(file)), Self(State::File { temporary, path: path.clone() })))
            }
            Place::Object(bucket, key) => {
                match bucket.head(key).await {
                    Err(crate::bucket::Error::NotFound { .. }) => {}
                    Err(error) => return Err(error.into()),
                    Ok(_) => return Err(Error::Exists(place.to_string())),
                }
                let upload = bucket.upload(key, &Metadata::default(), Size::About(estimate)).await?;
                let (near, far) = tokio::io::duplex(UPLOAD_BUFFER);
                Ok((OutputWriter::Object(near), Self::upload(far, upload, place.to_string())))
            }
        }
    }

    fn upload(pipe: DuplexStream, upload: Box<dyn Upload>, place: String) -> Self {
        Self(State::Object { task: farewell::task(pump(pipe, upload)), place })
    }

    /// Makes the output durable, and gives it its name. The writer must have been dropped. Where this is dropped, nobody knows
    /// whether it has its name.
    ///
    /// # Errors
    /// [`Error::Exists`] where the name was taken meanwhile; [`Error::Write`]; the bucket's.
    pub async fn commit(self) -> Result<(), Error> {
        match self.0 {
            State::Stdout => Ok(()),
            State::File { temporary, path } => {
                let place = path.clone();
                let done = tokio::task::spawn_blocking(move || {
                    let failed = |source| Error::Write { path: path.clone(), source };
                    temporary.as_file().sync_all().map_err(failed)?;
                    let named = match temporary.persist_noclobber(&path) {
                        Ok(_) => Ok(()),
                        Err(refused) if cannot_link(&refused.error) => take_name(refused.file, &path),
                        Err(refused) => Err(refused.error),
                    };
                    named.map_err(|error| match error.kind() {
                        io::ErrorKind::AlreadyExists => Error::Exists(path.display().to_string()),
                        _ => failed(error),
                    })?;
                    // The name, too, must survive a power cut.
                    std::fs::File::open(folder(&path)).and_then(|folder| folder.sync_all()).map_err(failed)
                });
                done.await.map_err(|e| Error::Write { path: place, source: io::Error::other(e) })?
            }
            State::Object { task, place } => {
                let upload = task.await.map_err(|e| Error::Upload(e.to_string()))??;
                upload.finish_new().await.map_err(|error| match error {
                    crate::bucket::Error::Exists { .. } => Error::Exists(place),
                    error => error.into(),
                })
            }
        }
    }

    /// Takes back what was written, waits for that, and tells what went wrong. Parts that are on their way to a bucket are
    /// waited for, too, until they have arrived or failed.
    ///
    /// # Errors
    /// The bucket's, where an upload cannot be aborted.
    pub async fn abort(self) -> Result<(), Error> {
        match self.0 {
            State::Stdout => Ok(()),
            State::File { temporary, path } => temporary.close().map_err(|source| Error::Write { path, source }),
            State::Object { task, .. } => match task.await {
                Ok(Ok(upload)) => Ok(upload.abort().await?),
                Ok(Err(error)) => Err(error),
                Err(error) => Err(Error::Upload(error.to_string())),
            },
        }
    }
}

/// Whether the file system has neither a rename that spares what exists, nor links: object stores that are mounted.
fn cannot_link(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidInput, PermissionDenied, Unsupported};
    matches!(error.kind(), Unsupported | InvalidInput | PermissionDenied)
}

/// Gives a file its name where that takes two steps: an empty file holds the name until it is replaced.
fn take_name(temporary: NamedTempFile, path: &Path) -> io::Result<()> {
    std::fs::File::create_new(path)?;
    temporary.persist(path).map(drop).map_err(|refused| {
        if let Err(error) = std::fs::remove_file(path) {
            tracing::warn!("an empty {} is left: {error}", path.display());
        }
        refused.error
    })
}

/// Feeds an upload from the pipe until that is closed.
async fn pump(mut pipe: DuplexStream, mut upload: Box<dyn Upload>) -> Result<Box<dyn Upload>, Error> {
    loop {
        let mut part = BytesMut::with_capacity(UPLOAD_BUFFER);
        while part.len() < UPLOAD_BUFFER {
            match pipe.read_buf(&mut part).await {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => return Err(Error::Upload(error.to_string())),
            }
        }
        if part.is_empty() {
            return Ok(upload);
        }
        upload.write(part.freeze()).await?;
    }
}

fn folder(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

impl AsyncWrite for OutputWriter {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::File(file) => Pin::new(file).poll_write(cx, bytes),
            Self::Stdout(stdout) => Pin::new(stdout).poll_write(cx, bytes),
            Self::Object(pipe) => Pin::new(pipe).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::File(file) => Pin::new(file).poll_flush(cx),
            Self::Stdout(stdout) => Pin::new(stdout).poll_flush(cx),
            Self::Object(pipe) => Pin::new(pipe).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::File(file) => Pin::new(file).poll_shutdown(cx),
            Self::Stdout(stdout) => Pin::new(stdout).poll_shutdown(cx),
            Self::Object(pipe) => Pin::new(pipe).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncWriteExt as _;
    use tokio::sync::oneshot;

    use super::*;
    use crate::bucket;

    /// An upload that never takes what is written; whoever waits for the other end learns that it was dropped.
    struct Hangs {
        begun: Option<oneshot::Sender<()>>,
        _held: oneshot::Sender<()>,
    }

    #[async_trait::async_trait]
    impl Upload for Hangs {
        async fn write(&mut self, _: bytes::Bytes) -> Result<(), bucket::Error> {
            let _ = self.begun.take().map(|begun| begun.send(()));
            std::future::pending().await
        }

        async fn finish(self: Box<Self>) -> Result<(), bucket::Error> {
            Ok(())
        }

        async fn finish_new(self: Box<Self>) -> Result<(), bucket::Error> {
            Ok(())
        }

        async fn abort(self: Box<Self>) -> Result<(), bucket::Error> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn an_upload_that_hangs_is_dropped_with_its_output() {
        for is_waited_for in [false, true] {
            let ((begin, begun), (held, dropped)) = (oneshot::channel(), oneshot::channel());
            let (mut near, far) = tokio::io::duplex(16);
            let output = Output::upload(far, Box::new(Hangs { begun: Some(begin), _held: held }), "x".to_owned());
            near.write_all(b"bytes").await.unwrap();
            drop(near);
            begun.await.unwrap();
            if is_waited_for {
                // As a signal does it, in the midst.
                assert!(tokio::time::timeout(Duration::from_millis(20), output.abort()).await.is_err());
            } else {
                drop(output);
            }
            assert!(tokio::time::timeout(Duration::from_secs(60), dropped).await.is_ok());
        }
    }

    #[test]
    fn a_name_is_taken_in_two_steps_and_never_from_another() {
        let folder = tempfile::tempdir().unwrap();
        let temporary = |text: &str| {
            let file = NamedTempFile::new_in(folder.path()).unwrap();
            std::fs::write(file.path(), text).unwrap();
            file
        };
        let path = folder.path().join("c.pacharc");
        take_name(temporary("first"), &path).unwrap();
        let refused = take_name(temporary("second"), &path).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "first");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
    }
}
