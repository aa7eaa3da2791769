//! Objects that are larger than a segment: raw slices in a folder of their own, joined by `cat` (SPEC §6.4).
//!
//! `pieces/<n>/path` comes first and says what is to come, so that a reader of a pipe can begin an upload; the slices
//! `pieces/<n>/00000000` … follow; `pieces/<n>/joined` comes last and says what they make. An object that its source
//! took back half-way ends in `pieces/<n>/abandoned` instead.

use bytes::Bytes;

use crate::entry::{Entry, Hash, Metadata, Packing};
use crate::index::{IndexLine, Pieces};
use crate::segment::{PATH_MAX, joined_line};

/// More bytes than the text of a `path` or `joined` can have: a path, three numbers, a hash.
const TEXT_MOST: usize = PATH_MAX + 256;

/// The entries of one object in pieces, in the order in which they must be added.
#[derive(Debug)]
pub struct PieceWriter {
    folder: u64,
    count: u64,
    size: u64,
    path: String,
    packing: Packing,
    metadata: Metadata,
}

impl PieceWriter {
    /// Begins the object at `path`; `folder` is a number that no other object of the bundle has.
    #[must_use]
    pub fn begin(folder: u64, path: String, size: u64, packing: Packing, metadata: Metadata) -> (Self, Entry) {
        let entry = Entry {
            packing,
            metadata: metadata.clone(),
            ..Entry::text(format!("pieces/{folder}/path"), format!("{path}\n{size}\n"))
        };
        (Self { folder, count: 0, size: 0, path, packing, metadata }, entry)
    }

    /// The next slice.
    pub fn piece(&mut self, body: Bytes) -> Entry {
        let path = format!("pieces/{}/{:08}", self.folder, self.count);
        self.count += 1;
        self.size += body.len() as u64;
        Entry { packing: self.packing, ..Entry::text(path, body) }
    }

    /// Gives the object up: what was written of it does not count.
    #[must_use]
    pub fn abandon(self) -> Entry {
        abandoned(self.folder, self.packing)
    }

    /// The end: `hash` is that of the whole object.
    #[must_use]
    pub fn finish(self, hash: Hash, rotten: bool) -> Entry {
        let body = format!("{}\n{}\n{hash}\n{}\n", self.path, self.size, self.count);
        let entry = Entry::text(format!("pieces/{}/joined", self.folder), body);
        Entry { packing: self.packing, metadata: self.metadata, rotten, ..entry }
    }
}

/// What ends an object that does not count.
pub(crate) fn abandoned(folder: u64, packing: Packing) -> Entry {
    Entry { packing, ..Entry::text(format!("pieces/{folder}/abandoned"), "") }
}

/// What an entry below `pieces/` is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// The beginning: the object's path and size.
    Path {
        /// The number of the folder.
        folder: u64,
        /// The object's path in the tree.
        path: String,
        /// The object's size in bytes.
        size: u64,
    },
    /// A slice.
    Slice {
        /// The number of the folder.
        folder: u64,
        /// The slice's number, from 0 on.
        number: u64,
    },
    /// The object was given up: its pieces do not count.
    Abandoned {
        /// The number of the folder.
        folder: u64,
    },
    /// The end.
    Joined {
        /// The number of the folder.
        folder: u64,
        /// The object's path in the tree.
        path: String,
        /// The object's size in bytes.
        size: u64,
        /// The object's hash.
        hash: Hash,
        /// How many slices there are.
        count: u64,
    },
}

impl Piece {
    /// Reads an entry below `pieces/`; `None` if it is not one that [`PieceWriter`] writes.
    #[must_use]
    pub fn parse(path: &str, body: &[u8]) -> Option<Self> {
        let (folder, file) = path.strip_prefix("pieces/")?.split_once('/')?;
        let folder = number(folder, 1)?;
        let text = || {
            let text = std::str::from_utf8(body).ok().filter(|text| text.len() <= TEXT_MOST)?;
            Some(text.strip_suffix('\n')?.split('\n').collect::<Vec<_>>())
        };
        match file {
            "path" => match text()?.as_slice() {
                [path, size] => Some(Self::Path { folder, path: (*path).into(), size: size.parse().ok()? }),
                _ => None,
            },
            "joined" => match text()?.as_slice() {
                [path, size, hash, count] => Some(Self::Joined {
                    folder,
                    path: (*path).into(),
                    size: size.parse().ok()?,
                    hash: hash.parse().ok()?,
                    count: count.parse().ok()?,
                }),
                _ => None,
            },
            "abandoned" => Some(Self::Abandoned { folder }),
            slice => Some(Self::Slice { folder, number: number(slice, 8)? }),
        }
    }
}

/// A number of at least `width` digits, as it is written: no sign, no needless zeros.
fn number(digits: &str, width: usize) -> Option<u64> {
    let number = digits.parse().ok()?;
    (format!("{number:0width$}") == digits).then_some(number)
}

/// Whether the entry at `path` ends an object in pieces: it alone carries what the object is marked with.
pub(crate) fn is_joined(path: &str) -> bool {
    let place = path.strip_prefix("pieces/").and_then(|rest| rest.split_once('/'));
    place.is_some_and(|(folder, file)| file == "joined" && number(folder, 1).is_some())
}

/// The index line of the whole object, where `entry` ends one.
pub(crate) fn joined(path: &str, body: &[u8], metadata: &Metadata, rotten: bool) -> Option<IndexLine> {
    match Piece::parse(path, body)? {
        Piece::Joined { folder, path, size, hash, count } => {
            Some(joined_line(path, size, hash, Pieces { folder, count }, metadata.clone(), rotten))
        }
        _ => None,
    }
}
