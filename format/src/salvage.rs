//! What can still be read of a damaged or torn bundle: each segment proves itself, so none needs another.
//!
//! The outer headers are walked from the first byte on, past what is broken. Segments are opened when the index shard
//! behind them has come: it tells where they lie even if their headers are gone, and what was in those that do not
//! open. Where there is no shard, the catalog tells (SPEC §11.3).

mod ranges;
mod scan;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use uuid::Uuid;

use crate::about::{ABOUT_LIMIT, About, PLAIN_LIMIT};
use crate::catalog::block_name;
use crate::container::EntryHeader;
use crate::entry::{Entry, Packing};
use crate::error::{Error, Result};
use crate::index::{CatalogLine, IndexLine, Place, ShardHead, ShardKind, lines};
use crate::keyslot::{self, SLOT_MAX, Unlock};
use crate::manifest::Manifest;
use crate::prover::Prover;
use crate::range::RangeReader;
use crate::reader::{blocking, packing, slot_key, trailer};
use crate::seal::BundleKey;
use crate::segment::{self, SegmentPlace};
use crate::stream::JSON_LIMIT;
use crate::trailer::Extent;
use ranges::Ranges;
use scan::{Scanner, Step, read, readable};

/// Places of segments that wait for an index shard: more than one of a megabyte describes.
const WAITING: usize = 16_384;
/// Key slots that are tried: a passphrase takes seconds for each.
const SLOTS: usize = 4;

/// What comes out of a damaged bundle.
#[derive(Debug)]
pub enum Salvaged {
    /// The entries of one segment, each with its bytes checked. Segments come in their order, where a shard tells it.
    Entries(Vec<(Entry, IndexLine)>),
    /// Entries that were in segments that cannot be read; objects in pieces among them whose end was.
    Lost(Vec<IndexLine>),
    /// A block of the catalog.
    Catalog(Vec<CatalogLine>),
    /// The manifest.
    Manifest(Box<Manifest>),
    /// Something is not as it was written.
    Damage(Error),
}

/// Reads what is left of a bundle, front to back; memory holds one segment and one index shard.
pub struct SalvageReader<S> {
    source: S,
    key: BundleKey,
    prover: Prover,
    bundle: Uuid,
    scanner: Scanner,
    /// Segments since the last index shard, by their headers, and how many of these there were.
    found: BTreeMap<u64, Vec<Candidate>>,
    waiting: usize,
    work: VecDeque<Work>,
    /// Segments that were read.
    read: Ranges,
    /// Segments that were read, or whose damage was told.
    met: Ranges,
    /// Segments that cannot be read, and whose entries a shard has named.
    named: Ranges,
    /// The largest number of a segment that was met.
    next: u64,
    /// How many bytes of segments may still be read. Each lies in the file once; a shard may tell anything.
    left: u64,
    ended: bool,
}

/// Where a segment may lie.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Candidate {
    packing: Packing,
    extent: Extent,
}

/// What is to be done next.
enum Work {
    Open(u64, Vec<Candidate>),
    /// Name what was in the segments before that did not open.
    Name(BTreeSet<u64>, Bytes, ShardHead),
    /// A block of the catalog, from which line on.
    Catalog(Vec<CatalogLine>, usize),
    Tell(Box<Salvaged>),
}

impl<S: RangeReader> SalvageReader<S> {
    /// Finds a key slot that opens: the first, the second by TRAILER, or one of the first few in the file.
    ///
    /// # Errors
    /// [`Error::NotABundle`] without any header of a bundle; [`Error::UnknownFormat`], [`Error::UnknownFeature`];
    /// [`Error::WrongIdentity`] and the like; [`Error::KeyDamaged`]; [`Error::Read`].
    pub async fn open(source: S, unlock: &Unlock) -> Result<Self> {
        let (bundle, key) = find_key(&source, unlock).await?;
        Ok(Self {
            left: source.length().saturating_mul(3),
            source,
            key,
            prover: Prover::default(),
            bundle,
            scanner: Scanner::new(Some(crate::writer::folder(bundle))),
            found: BTreeMap::new(),
            waiting: 0,
            work: VecDeque::new(),
            read: Ranges::default(),
            met: Ranges::default(),
            named: Ranges::default(),
            next: 0,
            ended: false,
        })
    }

    /// The bundle's UUID, as its key names it.
    #[must_use]
    pub fn bundle(&self) -> Uuid {
        self.bundle
    }

    /// How far the walk has come, in bytes of the file.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.scanner.offset().min(self.source.length())
    }

    /// What comes next; `None` at the end.
    ///
    /// # Errors
    /// [`Error::Read`]; damage is no error here.
    pub async fn next(&mut self) -> Result<Option<Salvaged>> {
        loop {
            match self.work.pop_front() {
                Some(Work::Tell(salvaged)) => return Ok(Some(*salvaged)),
                Some(Work::Open(number, candidates)) => {
                    if let Some(salvaged) = self.segment(number, &candidates).await? {
                        return Ok(Some(salvaged));
                    }
                }
                Some(Work::Catalog(lines, from)) => {
                    if let Some(salvaged) = self.catalog(lines, from).await? {
                        return Ok(Some(salvaged));
                    }
                }
                Some(Work::Name(numbers, plain, head)) => {
                    let lost = self.name(&numbers, &plain, head);
                    if !lost.is_empty() {
                        return Ok(Some(Salvaged::Lost(lost)));
                    }
                }
                None if self.ended => return Ok(None),
                None => match self.scanner.next(&self.source).await? {
                    Some(Step::Header(header)) => self.entry(&header).await?,
                    Some(Step::Damage(error)) => self.tell(Salvaged::Damage(error)),
                    None => self.end(),
                },
            }
        }
    }

    fn tell(&mut self, salvaged: Salvaged) {
        self.work.push_back(Work::Tell(Box::new(salvaged)));
    }

    /// Takes an outer entry: what it is, its name says; that it is this, its content must.
    async fn entry(&mut self, header: &EntryHeader) -> Result<()> {
        let name = header.name.as_str();
        let extent = Extent { offset: header.offset, length: header.size };
        if let Some((number, packing)) = segment_of(name) {
            if number < self.next && (self.found.contains_key(&number) || self.read.contains(number)) {
                let what = "the segment of this number came before";
                self.tell(Salvaged::Damage(Error::damaged(name, header.offset, what)));
            } else if number < self.next {
                self.tell(Salvaged::Damage(Error::damaged(name, header.offset, "it is out of its order")));
            }
            self.next = self.next.max(number.saturating_add(1));
            self.found.entry(number).or_default().push(Candidate { packing, extent });
            self.waiting += 1;
            // A shard that comes later tells of those alone that these headers did not lead to.
            if self.waiting == WAITING {
                self.flush(BTreeMap::new());
            }
            return Ok(());
        }
        if let Some((number, kind)) = shard_of(name) {
            let head = ShardHead { bundle: self.bundle, part: kind, number };
            let plain = self.plain(extent, kind.limit(PLAIN_LIMIT)).await?;
            return match kind {
                ShardKind::Index => {
                    self.shard(header, plain, head);
                    Ok(())
                }
                ShardKind::Catalog => {
                    // What came before it is opened first: whether a segment is lost shows then.
                    self.flush(BTreeMap::new());
                    match plain.and_then(|plain| catalog_lines(&plain, head)) {
                        Ok(lines) => self.work.push_back(Work::Catalog(lines, 0)),
                        Err(what) => self.told(header, Err(what)),
                    }
                    Ok(())
                }
                ShardKind::Directory => {
                    let sound = plain.and_then(|plain| lines(&plain, head).map(|_| ()));
                    self.told(header, sound);
                    Ok(())
                }
            };
        }
        match name {
            "bundle.json" => match self.content(extent, ABOUT_LIMIT).await? {
                Ok(content) => match About::from_json(&content, header.offset) {
                    Ok(about) if about.bundle != self.bundle => {
                        self.told(header, Err("it names another bundle".into()));
                    }
                    Ok(_) => {}
                    Err(error) => self.tell(Salvaged::Damage(error)),
                },
                Err(what) => self.told(header, Err(what)),
            },
            "head.json.zst.age" => {
                let sound = self.plain(extent, JSON_LIMIT).await?.map(|_| ());
                self.told(header, sound);
            }
            "manifest.json.zst.age" => {
                // What its segments were must be told before it.
                self.flush(BTreeMap::new());
                match self.plain(extent, JSON_LIMIT).await?.and_then(|plain| Manifest::from_json(&plain)) {
                    Ok(manifest) => self.tell(Salvaged::Manifest(Box::new(manifest))),
                    Err(what) => self.told(header, Err(what)),
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn told(&mut self, header: &EntryHeader, checked: std::result::Result<(), String>) {
        if let Err(what) = checked {
            self.tell(Salvaged::Damage(Error::damaged(&header.name, header.offset, what)));
        }
    }

    /// The plaintext of a sealed entry, or what is wrong with it.
    async fn plain(&self, extent: Extent, limit: usize) -> Result<std::result::Result<Bytes, String>> {
        let key = self.key.clone();
        match self.sealed(extent, limit).await? {
            Ok(sealed) => blocking(move || key.open(Packing::Zstd, sealed, limit)).await,
            Err(what) => Ok(Err(what)),
        }
    }

    /// The bytes of an entry whose plaintext has `limit` at most.
    async fn sealed(&self, extent: Extent, limit: usize) -> Result<std::result::Result<Bytes, String>> {
        self.content(extent, limit as u64 + limit as u64 / 128 + 64 * 1024).await
    }

    /// The bytes of an entry, or why there are none.
    async fn content(&self, extent: Extent, most: u64) -> Result<std::result::Result<Bytes, String>> {
        if extent.length > most {
            return Ok(Err(format!("it has {} bytes where at most {most} make sense", extent.length)));
        }
        if extent.offset.checked_add(extent.length).is_none_or(|end| end > self.source.length()) {
            return Ok(Err("the file ends inside it".into()));
        }
        readable(read(&self.source, extent.offset, extent.length).await)
    }

    /// Takes an index shard: opens what it describes.
    fn shard(&mut self, header: &EntryHeader, plain: std::result::Result<Bytes, String>, head: ShardHead) {
        let read = plain.and_then(|plain| places(&plain, head).map(|places| (plain, places)));
        match read {
            Ok((plain, places)) => {
                let numbers = places.keys().copied().collect();
                self.flush(places);
                self.work.push_back(Work::Name(numbers, plain, head));
            }
            Err(what) => {
                self.told(header, Err(what));
                self.flush(BTreeMap::new());
            }
        }
    }

    /// Puts the segments found since the last shard in order, with the places that this one tells.
    fn flush(&mut self, places: BTreeMap<u64, Candidate>) {
        let mut found = std::mem::take(&mut self.found);
        self.waiting = 0;
        for (number, place) in places {
            self.next = self.next.max(number.saturating_add(1));
            let candidates = found.entry(number).or_default();
            if !candidates.contains(&place) {
                candidates.push(place);
            }
        }
        self.work.extend(found.into_iter().map(|(number, candidates)| Work::Open(number, candidates)));
    }

    /// Opens a segment where it may lie. `None` where it was read before.
    async fn segment(&mut self, number: u64, candidates: &[Candidate]) -> Result<Option<Salvaged>> {
        if self.read.contains(number) {
            return Ok(None);
        }
        let mut damage = None;
        for &Candidate { packing, extent } in candidates {
            let name = segment::name(number, packing);
            // What does not lie in the file is not read.
            let is_read = extent.offset.checked_add(extent.length).is_some_and(|end| end <= self.source.length());
            let Some(left) = self.left.checked_sub(if is_read { extent.length } else { 0 }) else {
                let what = "the index tells of more segments than the file can hold";
                damage.get_or_insert(Error::damaged(name, extent.offset, what));
                continue;
            };
            self.left = left;
            let error = match self.sealed(extent, PLAIN_LIMIT).await? {
                Err(what) => Error::damaged(name, extent.offset, what),
                Ok(sealed) => {
                    let (key, bundle) = (self.key.clone(), self.bundle);
                    let place = SegmentPlace { number, packing, offset: extent.offset };
                    let prover = self.prover.clone();
                    match blocking(move || segment::open(&key, bundle, place, sealed, PLAIN_LIMIT, &prover)).await? {
                        Ok(entries) => {
                            self.read.insert(number);
                            self.met.insert(number);
                            return Ok(Some(Salvaged::Entries(entries)));
                        }
                        Err(error) => error,
                    }
                }
            };
            damage.get_or_insert(error);
        }
        if self.met.contains(number) {
            return Ok(None);
        }
        self.met.insert(number);
        Ok(damage.map(Salvaged::Damage))
    }

    /// The lines of `numbers` that could not be read.
    fn name(&mut self, numbers: &BTreeSet<u64>, plain: &[u8], head: ShardHead) -> Vec<IndexLine> {
        let lost = |number: &u64| !self.read.contains(*number);
        let numbers: BTreeSet<u64> = numbers.iter().copied().filter(lost).collect();
        if numbers.is_empty() {
            return Vec::new();
        }
        numbers.iter().for_each(|&number| self.named.insert(number));
        let Ok(lines) = lines(plain, head) else { return Vec::new() };
        let mut was_lost = false;
        let lines = lines.filter_map(|text| {
            let line: IndexLine = serde_json::from_str(text).ok()?;
            // The line of a whole object follows that of the end of its pieces.
            was_lost = line.place.map_or(was_lost, |place| numbers.contains(&place.segment));
            was_lost.then_some(line)
        });
        lines.collect()
    }

    /// Goes on with a block of the catalog: it tells where segments lie that no shard has described.
    async fn catalog(&mut self, lines: Vec<CatalogLine>, from: usize) -> Result<Option<Salvaged>> {
        for (at, line) in lines.iter().enumerate().skip(from) {
            let Some(place) = line.entry.place.filter(|place| !self.met.contains(place.segment)) else { continue };
            self.next = self.next.max(place.segment.saturating_add(1));
            if let Some(salvaged) = self.segment(place.segment, &[candidate(place)]).await? {
                self.work.push_front(Work::Catalog(lines, at + 1));
                return Ok(Some(salvaged));
            }
        }
        let is_lost = |line: &&CatalogLine| {
            let segment = line.entry.place.map(|place| place.segment);
            segment.is_some_and(|segment| !self.read.contains(segment) && !self.named.contains(segment))
        };
        let lost: Vec<IndexLine> = lines.iter().filter(is_lost).map(|line| line.entry.clone()).collect();
        self.work.push_front(Work::Tell(Box::new(Salvaged::Catalog(lines))));
        Ok((!lost.is_empty()).then_some(Salvaged::Lost(lost)))
    }

    /// After the last entry: what no shard came for, and what never came.
    fn end(&mut self) {
        if !self.found.is_empty() {
            self.flush(BTreeMap::new());
            return;
        }
        self.ended = true;
        for gap in self.met.gaps() {
            let (first, last) = (gap.start, gap.end - 1);
            let entry = match first == last {
                true => format!("data/{first:08}"),
                false => format!("data/{first:08} to data/{last:08}"),
            };
            let error = Error::damaged(entry, self.source.length(), "it is nowhere in the file");
            self.tell(Salvaged::Damage(error));
        }
    }
}

/// Which bundle it is, and its key.
async fn find_key<S: RangeReader>(source: &S, unlock: &Unlock) -> Result<(Uuid, BundleKey)> {
    let (mut told, mut tried) = (None, 0);
    let mut scanner = Scanner::new(None);
    while let Some(step) = scanner.next(source).await? {
        let Step::Header(EntryHeader { name, size, offset }) = step else { continue };
        let is_whole = size <= SLOT_MAX && offset + size <= source.length();
        match name.as_str() {
            "bundle.json" if is_whole => {
                // Damage of it is told when it is walked by.
                if let Ok(json) = readable(read(source, offset, size).await)?
                    && let Err(error @ (Error::UnknownFormat(_) | Error::UnknownFeature(_))) =
                        About::from_json(&json, offset)
                {
                    return Err(error);
                }
            }
            "bundle.key.age" | "bundle.key.2.age" if is_whole => {
                let opened = match readable(read(source, offset, size).await)? {
                    Ok(key) => keyslot::open(&key, offset, unlock),
                    Err(what) => Err(Error::damaged(&name, offset, what)),
                };
                match opened {
                    Ok(found) => return Ok(found),
                    Err(error) => told = told.or(Some(error)),
                }
                // Whoever has a TRAILER finds the other slot at once.
                if let Ok(trailer) = trailer(source).await
                    && trailer.key2.length <= SLOT_MAX
                    && let Ok(slot) = read(source, trailer.key2.offset, trailer.key2.length).await
                    && let Some(key) = slot_key(&slot, trailer.key_hash)
                {
                    return keyslot::open(&key, trailer.key2.offset, unlock);
                }
                tried += 1;
                if tried == SLOTS {
                    break;
                }
            }
            _ => {}
        }
    }
    Err(match told {
        Some(Error::Damaged { .. }) => Error::KeyDamaged,
        Some(error) => error,
        None if scanner.is_of_a_bundle() => Error::KeyDamaged,
        None => Error::NotABundle("it has no entry of one".into()),
    })
}

fn catalog_lines(plain: &[u8], head: ShardHead) -> std::result::Result<Vec<CatalogLine>, String> {
    lines(plain, head)?.map(|text| CatalogLine::parse(text).map(|(line, _)| line)).collect()
}

/// Where the segments of an index shard lie, as it tells.
fn places(plain: &[u8], head: ShardHead) -> std::result::Result<BTreeMap<u64, Candidate>, String> {
    let mut places = BTreeMap::new();
    for text in lines(plain, head)? {
        let line: IndexLine = serde_json::from_str(text).map_err(|e| e.to_string())?;
        segment::check_path(&line.path).map_err(|e| e.to_string())?;
        if let Some(place) = line.place {
            places.insert(place.segment, candidate(place));
        }
    }
    Ok(places)
}

fn candidate(place: Place) -> Candidate {
    Candidate { packing: packing(place), extent: Extent { offset: place.offset, length: place.length } }
}

/// The number between `folder` and the end of an outer entry's name.
fn number(name: &str, folder: &str) -> Option<u64> {
    name.strip_prefix(folder)?.split('.').next()?.parse().ok()
}

/// Which segment an outer entry of this name is.
fn segment_of(name: &str) -> Option<(u64, Packing)> {
    let number = number(name, "data/")?;
    let packing = [Packing::Raw, Packing::Zstd].into_iter().find(|&packing| name == segment::name(number, packing))?;
    Some((number, packing))
}

/// Which shard or block an outer entry of this name is.
fn shard_of(name: &str) -> Option<(u64, ShardKind)> {
    let kinds = [("index/", ShardKind::Index), ("catalog/", ShardKind::Catalog), ("directory/", ShardKind::Directory)];
    kinds.into_iter().find_map(|(folder, kind)| {
        let number = number(name, folder)?;
        (name == block_name(kind, number)).then_some((number, kind))
    })
}
