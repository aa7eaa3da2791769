//! What can be wrong with a bundle, and with writing one.

use std::io;

/// A failure of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file does not begin like a bundle.
    #[error("not a pacharc bundle: {0}")]
    NotABundle(String),
    /// The bytes are not what was written.
    #[error("the bundle is damaged at byte {offset}, in {entry}: {what}")]
    Damaged {
        /// The outer entry, e.g. `data/00000003.tar.age`.
        entry: String,
        /// Where that entry's content (or the broken header) begins in the file.
        offset: u64,
        /// What does not hold.
        what: String,
    },
    /// The file ends before its TRAILER.
    #[error("the bundle is torn: it ends at byte {offset}, {what}")]
    Torn {
        /// The length of the file.
        offset: u64,
        /// In what it ends.
        what: String,
    },
    /// A format that this version cannot read.
    #[error("the bundle has format {0}, and this version reads format 1")]
    UnknownFormat(u32),
    /// A required feature that this version does not know.
    #[error("the bundle requires the feature `{0}`, which this version does not know")]
    UnknownFeature(String),
    /// None of the identities opens the bundle.
    #[error("none of the given identities opens this bundle")]
    WrongIdentity,
    /// The passphrase does not open the bundle.
    #[error("the passphrase does not open this bundle")]
    WrongPassphrase,
    /// The bundle wants a passphrase and got identities, or the other way round.
    #[error("{0}")]
    KindOfKey(&'static str),
    /// The key could not be used.
    #[error("could not use the key: {0}")]
    Key(String),
    /// Both copies of the bundle's key are damaged.
    #[error("both copies of the bundle's key are damaged")]
    KeyDamaged,
    /// Another bundle than the one that was asked for.
    #[error("this is bundle {found}, not {expected}")]
    WrongId {
        /// The id that was asked for.
        expected: String,
        /// The id of this bundle.
        found: String,
    },
    /// Something that the format has no room for.
    #[error("{what} does not fit into a bundle: {why}")]
    TooLarge {
        /// What was to be written.
        what: String,
        /// The limit that it breaks.
        why: String,
    },
    /// A hash that the path of its entry does not allow.
    #[error("{path} cannot have the hash {hash}: it is not what its key promises, or of another kind")]
    WrongHash {
        /// The entry's path in the tree.
        path: String,
        /// The hash.
        hash: crate::Hash,
    },
    /// Reading the bundle failed.
    #[error("could not read the bundle: {0}")]
    Read(#[source] io::Error),
    /// Writing the bundle failed.
    #[error("could not write the bundle: {0}")]
    Write(#[source] io::Error),
    /// The bundle could not be signed.
    #[error("could not sign the bundle: {0}")]
    Sign(#[source] io::Error),
    /// A temporary file failed.
    #[error("could not use a temporary file in {dir}: {source}")]
    Spool {
        /// The folder of temporary files.
        dir: String,
        /// Why.
        source: io::Error,
    },
    /// A stage of the pipeline ended without a result.
    #[error("a worker ended early: {0}")]
    Worker(String),
}

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn damaged(entry: impl Into<String>, offset: u64, what: impl Into<String>) -> Self {
        Self::Damaged { entry: entry.into(), offset, what: what.into() }
    }

    /// A read of `entry` that failed: what lies on a bad sector is damaged.
    pub(crate) fn reading(error: io::Error, entry: impl Into<String>, offset: u64) -> Self {
        match unreadable(&error) {
            Some(what) => Self::damaged(entry, offset, what),
            None => Self::Read(error),
        }
    }

    /// Whether this says that the file ends too early.
    #[must_use]
    pub fn is_torn(&self) -> bool {
        matches!(self, Self::Torn { .. })
    }

    /// Whether this says that the bundle's bytes are wrong, as opposed to the key, the disk or the user.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::NotABundle(_) | Self::Damaged { .. } | Self::Torn { .. } | Self::KeyDamaged)
    }
}

/// What is wrong with bytes that lie on a bad sector; `None` where a read failed of something else.
pub(crate) fn unreadable(error: &io::Error) -> Option<String> {
    const EIO: i32 = 5;
    (error.raw_os_error() == Some(EIO)).then(|| format!("it cannot be read ({error})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_what_the_bytes_are_to_blame_for() {
        let torn = Error::Torn { offset: 1, what: "x".into() };
        assert!(torn.is_torn() && torn.is_damage());
        for damage in [Error::NotABundle("x".into()), Error::damaged("x", 1, "y"), Error::KeyDamaged] {
            assert!(damage.is_damage() && !damage.is_torn(), "{damage}");
        }
        // EIO, and EACCES.
        for (code, is_damage) in [(5, true), (13, false)] {
            let error = Error::reading(io::Error::from_raw_os_error(code), "x", 1);
            assert_eq!(error.is_damage(), is_damage, "{error}");
            assert_eq!(matches!(error, Error::Damaged { offset: 1, .. }), is_damage);
        }
        for other in [Error::WrongIdentity, Error::UnknownFormat(2), Error::Read(io::ErrorKind::Other.into())] {
            assert!(!other.is_damage() && !other.is_torn(), "{other}");
        }
    }
}
