//! The lines of index and catalog: where each entry lies.
//!
//! An index shard follows the segments that it describes, so that memory stays bounded and a torn file can be
//! salvaged. The catalog at the end holds the same lines, sorted by path and with what the live set says of each
//! (SPEC §8).

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::entry::{Hash, Metadata};
use crate::writer::SHARD;

/// One line of an index shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexLine {
    /// The entry's path in the tree.
    pub path: String,
    /// Its bytes.
    pub size: u64,
    /// Their hash; `None` only for a missing object.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hash: Option<Hash>,
    /// Where it lies; `None` for an object in pieces, and for a missing one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub place: Option<Place>,
    /// An object in pieces: the number of its folder `pieces/<n>`, and of the pieces.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pieces: Option<Pieces>,
    /// What the provider keeps beside the bytes.
    #[serde(skip_serializing_if = "Metadata::is_empty", default)]
    pub metadata: Metadata,
    /// The bytes are not what the key promises.
    #[serde(skip_serializing_if = "is_false", default)]
    pub rotten: bool,
}

/// Where an entry's bytes lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The segment's number.
    pub segment: u64,
    /// Whether the segment is compressed (`.tar.zst.age`) or raw (`.tar.age`).
    pub zstd: bool,
    /// Where the segment's sealed bytes begin in the bundle.
    pub offset: u64,
    /// Their number.
    pub length: u64,
    /// Where the entry's bytes begin in the segment's tar.
    pub at: u64,
}

/// An object in pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pieces {
    /// The number of the folder.
    pub folder: u64,
    /// How many pieces lie there, numbered from 0.
    pub count: u64,
}

/// What the live set of the dumped snapshot says of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// No object of the bucket: a file of the dump, of the cluster, or a piece.
    File,
    /// A live row names it, and its bytes are what the key promises.
    Live,
    /// A chunk's key without a live row.
    Orphan,
    /// A key that is not of Pachyderm's form.
    Foreign,
    /// A live row names it, but its bytes are not what the key promises.
    Rotten,
    /// A live row names it, and the bucket has no such object: there is no entry.
    Missing,
    /// An object of a bucket whose database is not known: there is no live set.
    Object,
}

/// One line of the catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogLine {
    /// What the live set says.
    pub state: State,
    /// The index line; of a missing object, path and size alone.
    pub entry: IndexLine,
}

/// A catalog line as it is written: the index line stays the same to the byte.
#[derive(Serialize, Deserialize)]
struct Written<'a> {
    state: State,
    #[serde(borrow)]
    entry: &'a RawValue,
}

/// The first line of each shard and block: it binds them to their bundle and place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ShardHead {
    pub(crate) bundle: Uuid,
    /// `index`, `catalog` or `directory`.
    pub(crate) part: ShardKind,
    pub(crate) number: u64,
}

impl ShardKind {
    /// The most bytes of plaintext that a reader accepts, in a bundle whose largest plaintext has `largest`.
    ///
    /// Lines of catalog and directory are held as values, several times as large: their blocks are kept small.
    pub(crate) fn limit(self, largest: usize) -> usize {
        match self {
            Self::Index => largest,
            Self::Catalog | Self::Directory => largest.min(2 * SHARD),
        }
    }
}

/// What a shard is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ShardKind {
    Index,
    Catalog,
    Directory,
}

fn is_false(flag: &bool) -> bool {
    !flag
}

impl IndexLine {
    /// The line without its line end.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Strings, numbers and a map with string keys have no way to fail.
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl CatalogLine {
    /// The line of an entry whose index line is `entry`, as JSON.
    pub(crate) fn json_of(state: State, entry: &str) -> String {
        let state = serde_json::to_string(&state).unwrap_or_default();
        format!("{{\"state\":{state},\"entry\":{entry}}}")
    }

    /// Reads a line, and gives the index line's own bytes beside it.
    pub(crate) fn parse(line: &str) -> std::result::Result<(Self, &str), String> {
        let written: Written<'_> = serde_json::from_str(line).map_err(|e| e.to_string())?;
        let entry: IndexLine = serde_json::from_str(written.entry.get()).map_err(|e| e.to_string())?;
        // Whoever extracts makes files of paths.
        crate::segment::check_path(&entry.path).map_err(|e| e.to_string())?;
        Ok((Self { state: written.state, entry }, written.entry.get()))
    }
}

/// Splits a shard into its lines, after checking its head.
pub(crate) fn lines(plain: &[u8], expected: ShardHead) -> std::result::Result<impl Iterator<Item = &str>, String> {
    let text = std::str::from_utf8(plain).map_err(|_| "it is not UTF-8")?;
    let text = text.strip_suffix('\n').ok_or("its last line has no end")?;
    let mut lines = text.split('\n');
    let head: ShardHead = serde_json::from_str(lines.next().unwrap_or_default()).map_err(|e| e.to_string())?;
    if head != expected {
        return Err("it belongs to another bundle or another place".into());
    }
    Ok(lines)
}

/// The first line of a shard, with its line end.
pub(crate) fn head_line(head: ShardHead) -> String {
    serde_json::to_string(&head).unwrap_or_default() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_lines_are_kept_small() {
        let limits = |largest| [ShardKind::Index, ShardKind::Catalog, ShardKind::Directory].map(|k| k.limit(largest));
        assert_eq!(limits(1 << 20), [1 << 20, SHARD + SHARD, SHARD + SHARD]);
        assert_eq!(limits(9), [9, 9, 9]);
    }
}
