//! Buckets: where objects lie, behind one small trait.
//!
//! A provider keeps the contract written at each method of [`Bucket`], and proves it with the conformance suite
//! (`tests/it/bucket_conformance.rs`). Nothing here knows of Pachyderm but its layouts on disk (`directory/layout.rs`).

mod directory;
mod error;
mod retry;
mod s3;
mod url;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use pacharc_format::{Key, Metadata};

pub(crate) use self::directory::parse_attributes;
pub use self::error::Error;
pub use self::retry::Policy;
pub use self::url::{BucketUrl, S3Url};

/// What a listing says of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its key.
    pub key: Key,
    /// Its size in bytes.
    pub size: u64,
    /// What changes when the object is written again; compare it only with others of the same bucket.
    pub etag: Option<String>,
    /// It lies in a storage class that must be thawed before the object can be read.
    pub archived: bool,
}

/// An object that is being read.
pub struct Object {
    /// The size of the whole object in bytes, as the response that delivers the bytes says.
    pub size: u64,
    /// What the provider keeps beside the bytes.
    pub metadata: Metadata,
    /// The version that is being read.
    pub etag: Option<String>,
    /// The bytes. Ends with an error if fewer or more bytes come than `size` promises, or the object changes meanwhile.
    pub body: BoxStream<'static, Result<Bytes, Error>>,
}

impl std::fmt::Debug for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { size, metadata, etag, body: _ } = self;
        f.debug_struct("Object").field("size", size).field("metadata", metadata).field("etag", etag).finish()
    }
}

/// A place where objects lie under keys.
///
/// All methods may be called at the same time from any number of tasks, and may be given up at any time by dropping
/// their future. Whatever is transient has been retried before an error comes out. Memory does not grow with the number
/// of objects, nor with their size beyond what the caller hands over.
#[async_trait]
pub trait Bucket: Send + Sync {
    /// The bucket's URL, for people; without credentials.
    fn url(&self) -> &str;

    /// How many transient faults there were so far: requests and bodies that failed in a way that may pass, each of which
    /// was tried again or, when time was up, came out as an error.
    fn faults(&self) -> u64 {
        0
    }

    /// The same for two URLs exactly when they name the same place, as far as can be told without writing.
    fn identity(&self) -> String;

    /// Every object whose key begins with `prefix`, each once, **in no particular order**.
    ///
    /// Objects written or deleted while the listing runs may or may not be in it. The stream ends after its first error;
    /// without an error it is complete.
    fn list(&self, prefix: &[u8]) -> BoxStream<'_, Result<Listed, Error>>;

    /// Opens the object at `key`; its body is that of one version, whatever happens to the object meanwhile.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Archived`] if it must be thawed first.
    async fn get(&self, key: &Key) -> Result<Object, Error>;

    /// Exactly the `length` bytes from `offset` on.
    ///
    /// # Errors
    /// [`Error::Range`] if the object is too short for that, and as [`Bucket::get`].
    async fn get_range(&self, key: &Key, offset: u64, length: usize) -> Result<Bytes, Error>;

    /// What a listing would say of the object at `key`.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    async fn head(&self, key: &Key) -> Result<Listed, Error>;

    /// Writes the object at `key`, over what lies there.
    ///
    /// The object appears whole or not at all, and is durable when this returns.
    ///
    /// # Errors
    /// [`Error::InvalidKey`] if the provider cannot hold such a key; it is never changed to one that fits.
    async fn put(&self, key: &Key, metadata: &Metadata, body: Bytes) -> Result<(), Error>;

    /// The same, but only where nothing lies at `key`: of two that write at once, one is told so. (Some servers can be asked
    /// only whether something lies there just before.)
    ///
    /// # Errors
    /// [`Error::Exists`], and as [`Bucket::put`].
    async fn put_new(&self, key: &Key, metadata: &Metadata, body: Bytes) -> Result<(), Error>;

    /// Begins an object that is too large to be held in memory.
    ///
    /// # Errors
    /// As [`Bucket::put`].
    async fn upload(&self, key: &Key, metadata: &Metadata, size: Size) -> Result<Box<dyn Upload>, Error>;

    /// Deletes the object at `key`; that there is none is no error.
    ///
    /// # Errors
    /// [`Error::Denied`] and the like.
    async fn delete(&self, key: &Key) -> Result<(), Error>;
}

/// What is known of an object's bytes before the first of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// So many; it is an error if they turn out to be more or fewer.
    Exactly(u64),
    /// About so many or more, by an estimate.
    About(u64),
}

/// An object that is being written piece by piece. Nothing appears at its key before [`Upload::finish`] returns; one that is
/// dropped leaves nothing behind, as far as the provider can be reached.
#[async_trait]
pub trait Upload: Send {
    /// Adds `bytes` at the end, waiting while the provider is slower than the caller.
    ///
    /// # Errors
    /// After an error only [`Upload::abort`] makes sense.
    async fn write(&mut self, bytes: Bytes) -> Result<(), Error>;

    /// Makes the object appear; durable when this returns.
    ///
    /// # Errors
    /// [`Error::Length`] if a size was promised and not kept; then nothing appears.
    async fn finish(self: Box<Self>) -> Result<(), Error>;

    /// The same, but only where nothing lies at its key, as with [`Bucket::put_new`]; else it is taken back.
    ///
    /// # Errors
    /// [`Error::Exists`], and as [`Upload::finish`].
    async fn finish_new(self: Box<Self>) -> Result<(), Error>;

    /// Gives up, and takes back what the provider holds already.
    ///
    /// # Errors
    /// What was stored for it may still lie at the provider (and cost money).
    async fn abort(self: Box<Self>) -> Result<(), Error>;
}

/// Keys to a bucket that do not come from the environment, such as those found in a cluster.
#[derive(Clone)]
pub struct Credentials {
    /// The access key's id.
    pub access_key_id: String,
    /// The access key itself.
    pub secret_access_key: String,
    /// The session's token, where the key is a temporary one.
    pub session_token: Option<String>,
}

/// Shows that there is a key, and whose, but not the key.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("access_key_id", &self.access_key_id)
            .field("secret_access_key", &"***")
            .field("session_token", &self.session_token.as_ref().map(|_| "***"))
            .finish()
    }
}

/// How to reach a bucket, apart from where it is.
#[derive(Clone, Debug)]
pub struct Options {
    /// Certificates (PEM) to trust beside the system's.
    pub ca_file: Option<PathBuf>,
    /// How many bytes one [`Upload`] may hold: as many parts are on their way at a time. Never less than two parts.
    pub upload_memory: usize,
    /// Used instead of the provider's usual chain (environment, profile, role of the machine or pod).
    pub credentials: Option<Credentials>,
    /// Where the endpoint is reached, instead of where its name leads from here: the near end of a port-forward. The name
    /// still is what the server's certificate must have. No proxy is used then.
    pub via: Option<SocketAddr>,
    /// Makes the directory of a `file:` URL where it is missing. Buckets of other kinds are never created.
    pub create: bool,
    /// How long what is transient is tried again.
    pub retry: Policy,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            ca_file: None,
            credentials: None,
            via: None,
            upload_memory: 32 << 20,
            create: false,
            retry: Policy::default(),
        }
    }
}

/// Opens the bucket at `url`. A directory is looked for at once; other servers are first asked by the first request.
///
/// # Errors
/// [`Error::NoBucket`] for a directory that does not exist, [`Error::Certificates`] for a CA file that cannot be used.
pub async fn open(url: &BucketUrl, options: &Options) -> Result<Arc<dyn Bucket>, Error> {
    match url {
        BucketUrl::Directory { path } => Ok(Arc::new(directory::Directory::open(path, options.create).await?)),
        BucketUrl::S3(s3) => Ok(Arc::new(s3::S3::open(s3, options).await?)),
    }
}
