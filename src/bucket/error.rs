//! What can go wrong with a bucket. Whether trying again can help is decided where the error arises: it is then
//! [`Error::Unreachable`] or [`Error::Truncated`].

use std::io;
use std::path::PathBuf;

use pacharc_format::Key;

use crate::failure::{Class, Explain};

/// Why an error arose, where another library knows.
pub type Source = Box<dyn std::error::Error + Send + Sync>;

/// A failure of a bucket.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A bucket's URL cannot be used.
    #[error("{reason}")]
    Usage {
        /// Which, and why; without credentials.
        reason: String,
    },
    /// The file of certificates to trust cannot be used.
    #[error("certificates in {}: {reason}", path.display())]
    Certificates {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// There is no such object.
    #[error("there is no object {key} in {bucket}")]
    NotFound {
        /// The bucket's URL.
        bucket: String,
        /// The object's key.
        key: Key,
    },
    /// An object lies where a new one was to be written.
    #[error("there is an object {key} in {bucket} already")]
    Exists {
        /// The bucket's URL.
        bucket: String,
        /// The object's key.
        key: Key,
    },
    /// There is no such bucket.
    #[error("there is no bucket {bucket}")]
    NoBucket {
        /// The bucket's URL.
        bucket: String,
    },
    /// The bucket lies in another region.
    #[error("{bucket} lies in another region{}", region.as_ref().map(|r| format!(": {r}")).unwrap_or_default())]
    Region {
        /// The bucket's URL.
        bucket: String,
        /// Where it lies, if the server said so.
        region: Option<String>,
    },
    /// The credentials do not allow it.
    #[error("not allowed: {doing} in {bucket}")]
    Denied {
        /// The bucket's URL.
        bucket: String,
        /// What was tried, e.g. `reading object x`.
        doing: String,
        /// What the provider said.
        source: Source,
    },
    /// There are no usable credentials.
    #[error("no credentials for {bucket}")]
    Credentials {
        /// The bucket's URL.
        bucket: String,
        /// What each source of credentials said.
        source: Source,
    },
    /// The object must be thawed first.
    #[error("object {key} in {bucket} lies in an archive class and must be thawed first")]
    Archived {
        /// The bucket's URL.
        bucket: String,
        /// The object's key.
        key: Key,
    },
    /// The object is no longer the version that was being read.
    #[error("object {key} in {bucket} was changed while it was read")]
    Changed {
        /// The bucket's URL.
        bucket: String,
        /// The object's key.
        key: Key,
    },
    /// The provider cannot hold such a key.
    #[error("{bucket} cannot hold the key {key}: {reason}")]
    InvalidKey {
        /// The bucket's URL.
        bucket: String,
        /// The object's key.
        key: Key,
        /// Why not.
        reason: String,
    },
    /// A file of a directory, or an entry of a listing, that cannot be taken for an object.
    #[error("{bucket} holds {name:?}, which is no object: {reason}")]
    Foreign {
        /// The bucket's URL.
        bucket: String,
        /// Its name there.
        name: String,
        /// Why not.
        reason: &'static str,
    },
    /// What lies beside an object's bytes cannot be read.
    #[error("the attributes of object {key} in {bucket} cannot be read")]
    Attributes {
        /// The bucket's URL.
        bucket: String,
        /// The object's key.
        key: Key,
        /// Why not.
        source: Source,
    },
    /// The object is shorter than the range that was asked for.
    #[error("object {key} in {bucket} has {size} bytes: none at {offset} + {length}")]
    Range {
        /// The bucket's URL.
        bucket: String,
        /// The object's key.
        key: Key,
        /// Where the range begins.
        offset: u64,
        /// How long it is.
        length: usize,
        /// The object's size, or `an unknown number of`.
        size: String,
    },
    /// More bytes than were promised, or fewer.
    #[error("object {key} in {bucket}: {promised} bytes were promised, {actual} came")]
    Length {
        /// The bucket's URL.
        bucket: String,
        /// The object's key.
        key: Key,
        /// The promised size in bytes.
        promised: u64,
        /// The bytes that came.
        actual: u64,
    },
    /// The connection ended before the object did; trying again helps.
    #[error("object {key} in {bucket} ended after {actual} of {promised} bytes")]
    Truncated {
        /// The bucket's URL.
        bucket: String,
        /// The object's key.
        key: Key,
        /// Its size in bytes.
        promised: u64,
        /// The bytes that came.
        actual: u64,
    },
    /// A listing that contradicts itself.
    #[error("the listing of {bucket} cannot be trusted: {reason}")]
    Listing {
        /// The bucket's URL.
        bucket: String,
        /// What was seen.
        reason: &'static str,
    },
    /// The server could not be reached, or is overloaded; trying again may help.
    #[error("could not reach {bucket}: {doing}")]
    Unreachable {
        /// The bucket's URL.
        bucket: String,
        /// What was tried.
        doing: String,
        /// What came instead of an answer.
        source: Source,
    },
    /// The server's certificate is not trusted, or it speaks no TLS.
    #[error("no trusted TLS connection to {bucket}")]
    Tls {
        /// The bucket's URL.
        bucket: String,
        /// What TLS said.
        source: Source,
    },
    /// A file or directory could not be read or written.
    #[error("{doing} in {bucket} failed")]
    Io {
        /// The bucket's URL.
        bucket: String,
        /// What was tried.
        doing: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// The server refused, in a way that has no name here.
    #[error("{bucket} refused: {doing}")]
    Failed {
        /// The bucket's URL.
        bucket: String,
        /// What was tried.
        doing: String,
        /// What it said.
        source: Source,
    },
}

impl Error {
    /// Whether trying the same again may help.
    #[must_use]
    pub fn retryable(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Truncated { .. })
    }

    /// Whether it says that there is no such object.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }
}

impl Explain for Error {
    fn class(&self) -> Class {
        match self {
            Self::Usage { .. } | Self::Certificates { .. } | Self::Region { .. } | Self::InvalidKey { .. } => {
                Class::Usage
            }
            Self::Denied { .. } | Self::Credentials { .. } | Self::Tls { .. } => Class::Credentials,
            Self::NoBucket { .. } | Self::Unreachable { .. } | Self::Truncated { .. } | Self::Listing { .. } => {
                Class::Unreachable
            }
            Self::NotFound { .. } | Self::Archived { .. } => Class::Incomplete,
            Self::Exists { .. } => Class::Refused,
            Self::Changed { .. }
            | Self::Foreign { .. }
            | Self::Attributes { .. }
            | Self::Range { .. }
            | Self::Length { .. }
            | Self::Io { .. }
            | Self::Failed { .. } => Class::Other,
        }
    }

    fn advice(&self) -> Option<String> {
        Some(match self {
            Self::Usage { .. } => {
                "Write s3://BUCKET[/PREFIX]?endpoint=URL&region=NAME&path_style=true, or file:///DIRECTORY.".to_owned()
            }
            Self::NoBucket { .. } => {
                "Check the bucket's name, its endpoint and its region; buckets are not created.".into()
            }
            Self::Certificates { .. } => "Name a file of PEM certificates with --ca-file.".to_owned(),
            Self::Region { region: Some(region), .. } => format!("Add region={region} to the bucket's URL."),
            Self::Region { region: None, .. } => "Add region=… to the bucket's URL.".to_owned(),
            Self::Denied { source, .. } if source.to_string().contains("RequestTimeTooSkewed") => {
                "Set the clock of this machine: a request that seems old is refused.".to_owned()
            }
            Self::Denied { .. } => "Give these credentials the permission, or use others.".to_owned(),
            Self::Credentials { .. } => {
                "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or run where the provider gives a role."
                    .to_owned()
            }
            Self::Exists { .. } => "Name another key, or move the object away: nothing is overwritten.".to_owned(),
            Self::Archived { .. } => {
                "Restore the object from its archive class at the provider, then try again.".into()
            }
            Self::Changed { .. } => "Try again.".to_owned(),
            Self::InvalidKey { .. } => "Restore into a bucket that can hold this key.".to_owned(),
            Self::Foreign { .. } => "Move it out of the bucket, or rename it.".to_owned(),
            Self::Attributes { .. } => "Mend or remove the .attrs file beside the object.".to_owned(),
            Self::Tls { .. } => "Name the authority that signed the server's certificate with --ca-file.".to_owned(),
            Self::Unreachable { .. } | Self::Truncated { .. } => {
                "Check the endpoint, the network and HTTPS_PROXY/NO_PROXY, then run the same command again.".to_owned()
            }
            Self::Listing { .. } => "Ask the storage's maker: its listings cannot be read to their end.".to_owned(),
            Self::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
                "Free some space, then run the same command again.".to_owned()
            }
            Self::Io { .. } => {
                "See what the system's log says of that disk; then run the same command again.".to_owned()
            }
            Self::NotFound { .. } | Self::Range { .. } | Self::Length { .. } | Self::Failed { .. } => return None,
        })
    }
}
