//! Reading a bundle in one pass, from its first byte to its last, and checking all of it on the way.
//!
//! Without a key every byte is checked against the bundle's own sums, as it comes. With it, segments are opened on blocking threads,
//! ahead of whoever consumes them, and everything that is told twice must agree (SPEC §11).

mod ending;
mod share;
mod slot;
mod work;

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesOrdered;

use crate::about::{ABOUT_LIMIT, About, Head};
use crate::check::{CatalogCheck, EntryCheck};
use crate::container::{ContainerReader, EntryHeader};
use crate::entry::{Entry, Packing};
use crate::error::{Error, Result};
use crate::grammar::{Grammar, Part};
use crate::index::{CatalogLine, IndexLine, ShardHead, ShardKind, lines};
use crate::keyslot::{self, Unlock};
use crate::manifest::{CatalogBlock, Manifest};
use crate::prover::Prover;
use crate::seal::BundleKey;
use crate::source::Source;
use crate::sums::Sums;
use crate::trailer::Extent;
use slot::SlotFound;
use work::{Opened, Work, Worked};

/// Largest `manifest.json` and `head.json` that a reader accepts, in bytes.
pub(crate) const JSON_LIMIT: usize = 64 << 20;
/// Entries whose damage is remembered by name.
const REMEMBERED: usize = 1000;

/// How a bundle is read.
#[derive(Clone, Copy, Debug)]
pub struct ReadOptions<'a> {
    /// Segments opened at a time; at least 1.
    pub jobs: usize,
    /// Bytes of what is read ahead, sealed and opened; one entry is always read.
    pub memory: usize,
    /// Where the sums are kept until they can be compared.
    pub temp_dir: &'a Path,
}

/// What comes out of a bundle.
#[derive(Debug)]
pub enum Found {
    /// What was known at the start.
    Head(Box<Head>),
    /// The entries of one segment, each with its bytes checked.
    Entries(Vec<(Entry, IndexLine)>),
    /// A block of the catalog.
    Catalog(Vec<CatalogLine>),
    /// The manifest. It is not proved before [`Found::End`] has come.
    Manifest(Box<Manifest>),
    /// Something was checked that has nothing to tell (or cannot be opened without a key).
    Passed,
    /// Something is damaged, but what comes after it can still be read.
    Damage(Error),
    /// The end: everything agrees, unless damage was told.
    End {
        /// The bundle's id, in hex.
        id: String,
        /// Bytes of the file.
        bytes: u64,
        /// The content of `BLAKE3SUMS.minisig`, if there is one: a signature of [`BundleStream::sums`]. It is not checked.
        signature: Option<Bytes>,
    },
}

/// Reads a bundle front to back.
pub struct BundleStream<'a, R> {
    container: ContainerReader<R>,
    grammar: Grammar,
    options: ReadOptions<'a>,
    about: About,
    slot: SlotFound,
    slot2: SlotFound,
    key: Option<BundleKey>,
    prover: Prover,
    working: FuturesOrdered<Work>,
    /// Bytes of what is under way, sealed and opened.
    held: Arc<AtomicUsize>,
    /// An entry whose header was read, but for whose content there was no room.
    waiting: Option<(Part, EntryHeader)>,
    /// The largest plaintext of a compressed segment so far, by which the next ones are estimated.
    largest_plain: Option<usize>,
    finished_reading: bool,
    /// Why nothing more can be read; told when everything before it was handed over.
    broken: Option<Error>,
    sums: Sums,
    sums_before_manifest: String,
    entries: EntryCheck,
    catalog: CatalogCheck,
    shards: u64,
    segments: u64,
    manifest: Option<(Extent, Option<Manifest>)>,
    suspects: Vec<String>,
    named: HashSet<String>,
    damaged: bool,
    ended: bool,
}

impl<'a, R: Source> BundleStream<'a, R> {
    /// Reads what stands in clear at the start, and the first key slot.
    ///
    /// # Errors
    /// [`Error::NotABundle`], [`Error::UnknownFormat`], [`Error::UnknownFeature`], damage, [`Error::Read`].
    pub async fn open(input: R, options: ReadOptions<'a>) -> Result<Self> {
        let mut stream = Self {
            container: ContainerReader::new(input),
            grammar: Grammar::default(),
            options,
            about: About::default(),
            slot: SlotFound::default(),
            slot2: SlotFound::default(),
            key: None,
            prover: Prover::default(),
            working: FuturesOrdered::new(),
            held: Arc::default(),
            waiting: None,
            largest_plain: None,
            finished_reading: false,
            broken: None,
            sums: Sums::new(options.temp_dir)?,
            sums_before_manifest: String::new(),
            entries: EntryCheck::default(),
            catalog: CatalogCheck::default(),
            shards: 0,
            segments: 0,
            manifest: None,
            suspects: Vec::new(),
            named: HashSet::new(),
            damaged: false,
            ended: false,
        };
        for _ in [Part::Readme, Part::About] {
            let (part, header) = stream.next_part().await?;
            let content = stream.container.read_all(ABOUT_LIMIT).await?;
            stream.sums.add(&header.name, &blake3::hash(&content))?;
            if part == Part::About {
                stream.about = About::from_json(&content, header.offset)?;
            }
        }
        let folder = crate::writer::folder(stream.about.bundle);
        if stream.container.folder() != Some(&folder) {
            return Err(Error::damaged("bundle.json", 0, format!("its bundle does not lie in {folder}")));
        }
        stream.slot = stream.read_slot().await?;
        Ok(stream)
    }

    /// `bundle.json`. In clear, hence not proved before the manifest has come.
    #[must_use]
    pub fn about(&self) -> &About {
        &self.about
    }

    /// The kinds of recipients that the first key slot names.
    #[must_use]
    pub fn recipients(&self) -> Vec<String> {
        keyslot::kinds(&self.slot.key)
    }

    /// Bytes read so far.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.container.offset()
    }

    /// The lines of `BLAKE3SUMS`; all of them, with the hash that is the bundle's id, when [`Found::End`] has come.
    ///
    /// # Errors
    /// [`Error::Spool`].
    pub fn sums(&mut self) -> Result<impl std::io::Read + use<R>> {
        self.sums.reader()
    }

    /// The bundle's key, out of the first slot. CPU-bound for a passphrase (about a second).
    ///
    /// # Errors
    /// [`Error::WrongIdentity`], [`Error::WrongPassphrase`], [`Error::KindOfKey`], damage of the slot.
    pub fn unlock(&mut self, unlock: &Unlock) -> Result<()> {
        let (bundle, key) = keyslot::open(&self.slot.key, self.slot.key_offset, unlock)?;
        if bundle != self.about.bundle {
            return Err(Error::damaged("bundle.key.age", self.slot.key_offset, "it holds the key of another bundle"));
        }
        self.key = Some(key);
        Ok(())
    }

    /// Goes on with a key that was had elsewhere: from the second slot, where the first is damaged.
    pub fn unlock_with(&mut self, key: BundleKey) {
        self.key = Some(key);
    }

    /// From now on reads ahead so many bytes ([`ReadOptions::memory`]).
    pub fn set_memory(&mut self, memory: usize) {
        self.options.memory = memory;
    }

    /// What comes next; `None` after [`Found::End`], or after an error. Before an error comes what was read before it.
    ///
    /// # Errors
    /// Damage after which nothing can be read; [`Error::Read`], [`Error::Spool`].
    pub async fn next(&mut self) -> Result<Option<Found>> {
        if !self.finished_reading
            && let Err(error) = self.read_ahead().await
        {
            self.finished_reading = true;
            self.broken = Some(error);
        }
        let Some(worked) = self.working.next().await else {
            if let Some(error) = self.broken.take() {
                self.ended = true;
                return Err(error);
            }
            if std::mem::replace(&mut self.ended, true) {
                return Ok(None);
            }
            return self.end().await.map(Some);
        };
        let worked = match worked.map_err(|e| Error::Worker(e.to_string())).flatten() {
            Ok(worked) => worked,
            Err(error) => {
                // It could not be read; what comes behind it is not told any more.
                self.finished_reading = true;
                self.ended = true;
                self.broken = None;
                self.working.clear();
                return Err(error);
            }
        };
        if let (Part::Segment { packing: Packing::Zstd, .. }, Ok(opened)) = (worked.part, &worked.opened) {
            self.largest_plain = self.largest_plain.max(Some(opened.bytes()));
        }
        if worked.part == Part::Manifest {
            self.sums_before_manifest = self.sums.hash().to_hex().to_string();
        }
        if worked.part.has_sum() {
            self.sums.add(&worked.header.name, &worked.hash)?;
        }
        match self.take(worked) {
            Ok(found) => Ok(Some(found)),
            Err(error) => Ok(Some(self.damage(error))),
        }
    }

    /// Reads as far as there is room.
    async fn read_ahead(&mut self) -> Result<()> {
        while !self.finished_reading {
            let (part, header) = match self.waiting.take() {
                Some(waiting) => waiting,
                None => self.next_part().await?,
            };
            if !self.has_room(part, &header) {
                self.waiting = Some((part, header));
                break;
            }
            self.read_part(part, header).await?;
        }
        Ok(())
    }

    fn damage(&mut self, error: Error) -> Found {
        self.damaged = true;
        if let Error::Damaged { entry, .. } = &error
            && self.named.len() < REMEMBERED
        {
            self.named.insert(entry.clone());
        }
        Found::Damage(error)
    }

    async fn next_part(&mut self) -> Result<(Part, EntryHeader)> {
        let at = self.container.offset();
        let Some(header) = self.container.next().await? else {
            return Err(Error::Torn { offset: self.container.offset(), what: "without all its parts".into() });
        };
        match self.grammar.next(&header.name) {
            Some(part) => Ok((part, header)),
            None if at == 0 => Err(Error::NotABundle(format!("it begins with {:?}", header.name))),
            None => Err(Error::damaged(&header.name, header.offset, "it may not stand here")),
        }
    }

    /// Takes what a blocking thread has made, in the order of the file.
    fn take(&mut self, worked: Worked) -> Result<Found> {
        let Worked { part, header, hash, sealed, opened, .. } = worked;
        let damaged = |what: String| Error::damaged(&header.name, header.offset, what);
        let extent = Extent { offset: header.offset, length: sealed as u64 };
        match part {
            Part::Segment { .. } => self.segments += 1,
            Part::Shard { kind: ShardKind::Index, .. } => self.shards += 1,
            Part::Manifest => self.manifest = Some((extent, None)),
            _ => {}
        }
        match (part, opened?) {
            (_, Opened::Entries(entries)) => {
                for (entry, line) in &entries {
                    self.entries.entry(entry, line).map_err(damaged)?;
                }
                Ok(Found::Entries(entries))
            }
            (Part::Head, Opened::Plain(plain)) => {
                let head: Head = serde_json::from_slice(&plain).map_err(|e| damaged(e.to_string()))?;
                if head.bundle != self.about.bundle {
                    return Err(damaged("it belongs to another bundle".into()));
                }
                Ok(Found::Head(Box::new(head)))
            }
            (Part::Shard { number, kind }, Opened::Plain(plain)) => {
                let head = ShardHead { bundle: self.about.bundle, part: kind, number };
                let block = CatalogBlock {
                    first: String::new(),
                    number,
                    offset: extent.offset,
                    length: extent.length,
                    hash: hash.to_hex().to_string(),
                };
                self.shard(&plain, head, block).map_err(damaged)
            }
            (Part::Manifest, Opened::Plain(plain)) => {
                let manifest = Manifest::from_json(&plain).map_err(damaged)?;
                if manifest.about != self.about {
                    return Err(damaged("bundle.json is not the one that was sealed".into()));
                }
                if manifest.sums != self.sums_before_manifest && !self.damaged {
                    return Err(damaged("entries before it are not those that it was written for".into()));
                }
                self.manifest = Some((extent, Some(manifest.clone())));
                Ok(Found::Manifest(Box::new(manifest)))
            }
            _ => Ok(Found::Passed),
        }
    }

    fn shard(&mut self, plain: &[u8], head: ShardHead, block: CatalogBlock) -> std::result::Result<Found, String> {
        let mut lines = lines(plain, head)?;
        match head.part {
            ShardKind::Index => match self.entries.shard(lines) {
                // After damage the entries are not all there: what is left cannot agree.
                Err(what) if !self.damaged => Err(what),
                _ => Ok(Found::Passed),
            },
            ShardKind::Catalog => {
                let mut found = Vec::new();
                for text in lines {
                    let (line, json) = CatalogLine::parse(text)?;
                    self.catalog.line(&line, json)?;
                    found.push(line);
                }
                let first = found.first().map(|line| line.entry.path.clone()).unwrap_or_default();
                self.catalog.block(&CatalogBlock { first, ..block })?;
                Ok(Found::Catalog(found))
            }
            ShardKind::Directory => {
                let first = lines.next().ok_or("it is empty")?;
                let told: CatalogBlock = serde_json::from_str(first).map_err(|e| e.to_string())?;
                let block = CatalogBlock { first: told.first, ..block };
                let checked = self.catalog.directory(&block, std::iter::once(first).chain(lines));
                if self.damaged { Ok(Found::Passed) } else { checked.map(|()| Found::Passed) }
            }
        }
    }
}
