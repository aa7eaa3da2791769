//! The little that the sample cluster wants of a bucket, and a directory that is one. Tests with an S3 server bring an
//! implementation of their own.

use anyhow::{Context, Result};
use async_trait::async_trait;
use bytes::Bytes;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::task::spawn_blocking;

/// Where the sample cluster keeps its objects.
#[async_trait]
pub trait Bucket: Send + Sync + 'static {
    /// Stores an object under this key; one that was there is replaced.
    async fn put(&self, key: &str, bytes: Bytes) -> Result<()>;

    /// The object's bytes; `None` if there is none.
    async fn get(&self, key: &str) -> Result<Option<Bytes>>;

    /// Removes an object; one that is not there is no error.
    async fn delete(&self, key: &str) -> Result<()>;

    /// All keys, sorted bytewise.
    async fn keys(&self) -> Result<Vec<String>>;
}

/// A directory as pachd 2.10 and later keep one (gocloud's `fileblob`): path = key, written beside and renamed.
#[derive(Clone, Debug)]
pub struct Directory {
    root: PathBuf,
    attributes: bool,
}

/// What gocloud writes beside an object of ciphertext.
const ATTRIBUTES: &[u8] = br#"{"user.cache_control":"","user.content_disposition":"","user.content_encoding":"","user.content_language":"","user.content_type":"application/octet-stream","user.metadata":null,"md5":null}
"#;

impl Directory {
    /// A bucket in this directory, which is made when the first object is.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), attributes: false }
    }

    /// The same, with an `.attrs` file beside each object.
    #[must_use]
    pub fn with_attributes(self) -> Self {
        Self { attributes: true, ..self }
    }

    /// The file of this key.
    #[must_use]
    pub fn path(&self, key: &str) -> PathBuf {
        self.root.join(key)
    }

    fn write(&self, key: &str, bytes: &[u8]) -> Result<()> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let path = self.path(key);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let beside = format!("{}.{:x}.tmp", path.display(), COUNTER.fetch_add(1, Ordering::Relaxed));
        fs::write(&beside, bytes)?;
        if self.attributes {
            fs::write(attributes_path(&path), ATTRIBUTES)?;
        }
        Ok(fs::rename(beside, path)?)
    }
}

#[async_trait]
impl Bucket for Directory {
    async fn put(&self, key: &str, bytes: Bytes) -> Result<()> {
        let (this, owned) = (self.clone(), key.to_owned());
        spawn_blocking(move || this.write(&owned, &bytes)).await?.with_context(|| format!("write {key}"))
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>> {
        let path = self.path(key);
        let read = spawn_blocking(move || fs::read(path)).await?;
        absent_as_none(read).map(|bytes| bytes.map(Bytes::from)).with_context(|| format!("read {key}"))
    }

    async fn delete(&self, key: &str) -> Result<()> {
        let path = self.path(key);
        let removed = spawn_blocking(move || {
            absent_as_none(fs::remove_file(attributes_path(&path)))?;
            absent_as_none(fs::remove_file(path))
        });
        removed.await?.with_context(|| format!("delete {key}"))?;
        Ok(())
    }

    async fn keys(&self) -> Result<Vec<String>> {
        let root = self.root.clone();
        spawn_blocking(move || {
            let mut keys = Vec::new();
            collect(&root, &root, &mut keys)?;
            keys.sort_unstable();
            Ok(keys)
        })
        .await?
    }
}

fn attributes_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".attrs");
    name.into()
}

fn absent_as_none<T>(result: std::io::Result<T>) -> std::io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// All keys below a directory, without gocloud's side files.
fn collect(root: &Path, dir: &Path, keys: &mut Vec<String>) -> Result<()> {
    let Some(entries) = absent_as_none(fs::read_dir(dir))? else { return Ok(()) };
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            collect(root, &path, keys)?;
            continue;
        }
        let key = path.strip_prefix(root)?.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?;
        if !key.ends_with(".attrs") && !key.ends_with(".tmp") {
            keys.push(key.to_owned());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_directory_keeps_objects_and_hides_side_files() {
        let dir = tempfile::tempdir().unwrap();
        let bucket = Directory::new(dir.path().join("bucket")).with_attributes();
        assert!(bucket.keys().await.unwrap().is_empty());
        bucket.put("chunk/b", Bytes::from_static(b"1")).await.unwrap();
        bucket.put("test/a", Bytes::new()).await.unwrap();
        bucket.put("chunk/b", Bytes::from_static(b"22")).await.unwrap();
        fs::write(bucket.path("chunk/b.17.tmp"), b"half").unwrap();
        assert!(bucket.path("chunk/b.attrs").is_file());
        assert_eq!(bucket.keys().await.unwrap(), ["chunk/b", "test/a"]);
        assert_eq!(bucket.get("chunk/b").await.unwrap().unwrap(), "22");
        bucket.delete("chunk/b").await.unwrap();
        bucket.delete("chunk/b").await.unwrap();
        assert_eq!(bucket.get("chunk/b").await.unwrap(), None);
        assert!(!bucket.path("chunk/b.attrs").exists());
    }
}
