//! Reading a bundle by ranges: from a file, or from wherever ranges can be had.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;

/// Something of a known length that can be read in any place.
pub trait RangeReader: Send + Sync {
    /// Its length in bytes; it does not change.
    fn length(&self) -> u64;

    /// Reads exactly `length` bytes from `offset` on.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] where the range leaves the file, or whatever reading failed of.
    fn read(&self, offset: u64, length: usize) -> BoxFuture<'_, io::Result<Bytes>>;
}

/// A local file.
#[derive(Debug)]
pub struct FileRange {
    file: Arc<File>,
    length: u64,
}

impl FileRange {
    /// Opens the file at `path`.
    ///
    /// # Errors
    /// Whatever opening failed of.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        Ok(Self { file: Arc::new(file), length })
    }
}

impl RangeReader for FileRange {
    fn length(&self) -> u64 {
        self.length
    }

    fn read(&self, offset: u64, length: usize) -> BoxFuture<'_, io::Result<Bytes>> {
        let file = Arc::clone(&self.file);
        Box::pin(async move {
            let reading = tokio::task::spawn_blocking(move || {
                let mut bytes = vec![0; length];
                file.read_exact_at(&mut bytes, offset).map(|()| Bytes::from(bytes))
            });
            reading.await.map_err(io::Error::other)?
        })
    }
}

impl RangeReader for Box<dyn RangeReader> {
    fn length(&self) -> u64 {
        self.as_ref().length()
    }

    fn read(&self, offset: u64, length: usize) -> BoxFuture<'_, io::Result<Bytes>> {
        self.as_ref().read(offset, length)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A file in memory.
    pub(crate) struct Memory(pub(crate) Bytes);

    impl RangeReader for Memory {
        fn length(&self) -> u64 {
            self.0.len() as u64
        }

        fn read(&self, offset: u64, length: usize) -> BoxFuture<'_, io::Result<Bytes>> {
            let offset = usize::try_from(offset).unwrap();
            Box::pin(async move { Ok(self.0.slice(offset..offset + length)) })
        }
    }

    #[tokio::test]
    async fn a_boxed_file_is_that_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"0123456789").unwrap();
        let boxed: Box<dyn RangeReader> = Box::new(FileRange::open(file.path()).unwrap());
        assert_eq!((RangeReader::length(&boxed), RangeReader::read(&boxed, 3, 4).await.unwrap()), (10, "3456".into()));
        let beyond = RangeReader::read(&boxed, 7, 4).await.unwrap_err();
        assert_eq!(beyond.kind(), io::ErrorKind::UnexpectedEof);
    }
}
