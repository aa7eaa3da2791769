//! What must agree across a whole bundle: entries with index shards, index with catalog, catalog with manifest.
//!
//! Nothing here grows with the bundle: lines in any order are compared by their fingerprints, sorted lines by their
//! order, open objects in pieces by a running hash each.

use std::collections::{HashMap, VecDeque};

use serde::Serialize;

use crate::entry::{Entry, Hash};
use crate::fingerprint::Fingerprint;
use crate::index::{CatalogLine, IndexLine, State};
use crate::key::Key;
use crate::manifest::{CatalogBlock, Count, Manifest};
use crate::pieces::{self, Piece};
use crate::segment::check_hash;

/// Objects in pieces that may be open at a time.
const OPEN_OBJECTS: usize = 1024;

/// Catalog blocks that one directory block may name, and directory blocks that there may be: a writer comes to some
/// thousands of blocks a directory.
const BLOCKS: usize = 1 << 16;

/// Entries against index shards.
#[derive(Default)]
pub(crate) struct EntryCheck {
    /// Lines of entries that no shard has described yet.
    pending: Fingerprint,
    pub(crate) all: Fingerprint,
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
    objects: HashMap<u64, OpenObject>,
}

/// An object in pieces, of which not all have come.
struct OpenObject {
    path: String,
    declared: u64,
    /// The hash of its metadata: a thousand may be open.
    metadata: blake3::Hash,
    size: u64,
    count: u64,
    blake3: Box<blake3::Hasher>,
    blake2b: Box<blake2b_simd::State>,
}

impl EntryCheck {
    /// Takes an opened entry, whose own bytes and hash agree.
    pub(crate) fn entry(&mut self, entry: &Entry, line: &IndexLine) -> Result<(), String> {
        self.entries += 1;
        self.bytes += line.size;
        self.line(line);
        if entry.path.starts_with("pieces/") {
            self.piece(entry)?;
        }
        Ok(())
    }

    fn line(&mut self, line: &IndexLine) {
        let hash = blake3::hash(line.to_json().as_bytes());
        self.pending.hash(&hash);
        self.all.hash(&hash);
    }

    fn piece(&mut self, entry: &Entry) -> Result<(), String> {
        let wrong = |what: &str| Err(format!("{}: {what}", entry.path));
        match Piece::parse(&entry.path, &entry.body) {
            None => wrong("it is not a piece of an object"),
            Some(Piece::Path { path, .. }) if Key::from_path(&path).is_none() => wrong("its path is not an object's"),
            Some(Piece::Path { folder, path, size }) => {
                if self.objects.len() >= OPEN_OBJECTS {
                    return wrong("more than 1,024 objects in pieces are open at a time");
                }
                let blake2b = Box::new(blake2b_simd::Params::new().hash_length(32).to_state());
                let blake3 = Box::default();
                let metadata = hash_of(&entry.metadata);
                let object = OpenObject { path, declared: size, metadata, size: 0, count: 0, blake3, blake2b };
                match self.objects.insert(folder, object) {
                    None => Ok(()),
                    Some(_) => wrong("its object began before"),
                }
            }
            Some(Piece::Slice { folder, number }) => match self.objects.get_mut(&folder) {
                Some(object) if object.count == number => {
                    object.count += 1;
                    object.size += entry.body.len() as u64;
                    if object.path.starts_with("objects/chunk/") {
                        object.blake2b.update(&entry.body);
                    }
                    // Nobody else comes on meanwhile: on all cores.
                    object.blake3.update_rayon(&entry.body);
                    Ok(())
                }
                _ => wrong("it is out of order"),
            },
            Some(Piece::Abandoned { folder }) => match self.objects.remove(&folder) {
                Some(_) => Ok(()),
                None => wrong("its object never began"),
            },
            Some(Piece::Joined { folder, path, size, hash, count }) => {
                let Some(object) = self.objects.remove(&folder) else { return wrong("its object never began") };
                let found = match hash {
                    Hash::Blake3(_) => Hash::Blake3(*object.blake3.finalize().as_bytes()),
                    Hash::Blake2b(_) => {
                        let mut found = [0; 32];
                        found.copy_from_slice(object.blake2b.finalize().as_bytes());
                        Hash::Blake2b(found)
                    }
                };
                let told = (object.path.as_str(), object.declared, object.size, object.count);
                if told != (path.as_str(), size, size, count) || found != hash {
                    return wrong("its pieces do not make the object that it names");
                }
                if object.metadata != hash_of(&entry.metadata) {
                    return wrong("its metadata are not those that it began with");
                }
                check_hash(&path, entry.rotten, hash).map_err(|e| e.to_string())?;
                if let Some(line) = pieces::joined(&entry.path, &entry.body, &entry.metadata, entry.rotten) {
                    self.line(&line);
                }
                Ok(())
            }
        }
    }

    /// Takes a shard's lines: they must be those of the entries since the last shard.
    pub(crate) fn shard<'a>(&mut self, lines: impl Iterator<Item = &'a str>) -> Result<(), String> {
        let mut told = Fingerprint::default();
        lines.for_each(|line| told.line(line.as_bytes()));
        if std::mem::take(&mut self.pending) == told {
            return Ok(());
        }
        Err("its lines are not those of the entries before it".into())
    }

    /// After the last shard nothing may be left.
    pub(crate) fn finish(&self) -> Result<(), String> {
        if !self.objects.is_empty() {
            return Err("an object in pieces never ended".into());
        }
        if self.pending != Fingerprint::default() {
            return Err("entries come after the last index shard".into());
        }
        Ok(())
    }
}

/// What a value is known by: many may have to be kept, and each may be large.
fn hash_of(value: &impl Serialize) -> blake3::Hash {
    // Text and numbers can always be written.
    blake3::hash(&serde_json::to_vec(value).unwrap_or_default())
}

/// The catalog's lines and blocks.
#[derive(Default)]
pub(crate) struct CatalogCheck {
    last: Option<String>,
    lines: u64,
    entries: Fingerprint,
    states: HashMap<State, Count>,
    /// Catalog blocks that no directory block has named yet, and directory blocks, by their hashes: each has a path.
    blocks: VecDeque<blake3::Hash>,
    directory: Vec<blake3::Hash>,
}

impl CatalogCheck {
    /// Takes one line and the bytes of its index line.
    pub(crate) fn line(&mut self, line: &CatalogLine, json: &str) -> Result<(), String> {
        let path = &line.entry.path;
        if self.last.as_ref().is_some_and(|last| last >= path) {
            return Err(format!("{path} is out of order"));
        }
        if !is_possible(line) {
            return Err(format!("{path} is not an entry that can be {:?}", line.state));
        }
        self.last = Some(path.clone());
        self.lines += 1;
        if line.state != State::Missing {
            self.entries.line(json.as_bytes());
        }
        let count = self.states.entry(line.state).or_default();
        count.add(line.entry.size);
        if count.bytes == u64::MAX { Err(format!("the size of {path} makes no sense")) } else { Ok(()) }
    }

    pub(crate) fn block(&mut self, block: &CatalogBlock) -> Result<(), String> {
        self.blocks.push_back(hash_of(block));
        if self.blocks.len() > BLOCKS { Err("no directory names it and those before it".into()) } else { Ok(()) }
    }

    /// Takes a directory block: its lines must be the blocks since the last one.
    pub(crate) fn directory<'a>(
        &mut self,
        block: &CatalogBlock,
        lines: impl Iterator<Item = &'a str>,
    ) -> Result<(), String> {
        for line in lines {
            let told: CatalogBlock = serde_json::from_str(line).map_err(|e| e.to_string())?;
            if self.blocks.pop_front() != Some(hash_of(&told)) {
                return Err("it does not name the catalog's blocks".into());
            }
        }
        self.directory.push(hash_of(block));
        if self.directory.len() > BLOCKS { Err("there are too many of them".into()) } else { Ok(()) }
    }

    /// The manifest against everything before it.
    pub(crate) fn finish(&self, manifest: &Manifest, entries: &EntryCheck, shards: u64) -> Result<(), String> {
        let totals = &manifest.totals;
        let agree = [
            ("the number of entries", totals.entries == entries.entries),
            ("the bytes of the entries", totals.bytes == entries.bytes),
            ("the index's fingerprint", totals.index_fingerprint == entries.all.to_hex()),
            ("the catalog's entries", self.entries == entries.all),
            ("the catalog's lines", totals.catalog_lines == self.lines),
            ("the index's shards", totals.index_shards == shards),
            (
                "the catalog's directory",
                self.blocks.is_empty() && manifest.catalog.iter().map(hash_of).eq(self.directory.iter().copied()),
            ),
            ("the objects' states", self.objects_agree(manifest)),
        ];
        match agree.iter().find(|(_, agrees)| !agrees) {
            None => Ok(()),
            Some((what, _)) => Err(format!("{what} differ from what is in the bundle")),
        }
    }

    fn objects_agree(&self, manifest: &Manifest) -> bool {
        let of = |state| self.states.get(&state).copied().unwrap_or_default();
        let told = manifest.objects.clone().unwrap_or_default();
        // Objects are either compared with a live set, or not: never some of both.
        let (live, none) = match told.closed {
            Some(_) => (State::Live, State::Object),
            None => (State::Object, State::Live),
        };
        let lacks = told.missing.count > 0 || told.rotten.count > 0;
        // Without a live set nothing can be lacking.
        lacks == (told.closed == Some(false))
            && told.live == of(live)
            && of(none) == Count::default()
            && told.orphan == of(State::Orphan)
            && told.foreign == of(State::Foreign)
            && told.rotten == of(State::Rotten)
            && told.missing == of(State::Missing)
    }
}

/// Whether the entry of a line can be in the state that the line tells.
fn is_possible(line: &CatalogLine) -> bool {
    let IndexLine { path, hash, place, pieces: cut, rotten, .. } = &line.entry;
    let is_stored = hash.is_some() && place.is_some() != cut.is_some();
    let key = Key::from_path(path);
    let is_chunk = key.as_ref().is_some_and(|key| key.chunk().is_some());
    match line.state {
        State::File => is_stored && !path.starts_with("objects/") && (!rotten || pieces::is_joined(path)),
        State::Live => is_stored && is_chunk && !rotten,
        State::Rotten => is_stored && is_chunk && *rotten,
        State::Orphan => is_stored && is_chunk,
        State::Foreign => is_stored && key.is_some() && !is_chunk && !rotten,
        State::Object => is_stored && key.is_some(),
        State::Missing => is_chunk && hash.is_none() && place.is_none() && cut.is_none() && !rotten,
    }
}

#[cfg(test)]
mod tests;
