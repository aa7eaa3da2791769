//! Reading a bundle from its end: TRAILER, key, manifest, catalog, and then just what is asked for.
//!
//! One object costs five ranged reads: TRAILER; key slot with manifest; directory block; catalog block; segment
//! (SPEC §11.2). Everything read is checked by its hash or its place before it is used.

mod segments;

use std::collections::VecDeque;

use bytes::Bytes;

use crate::about::{ABOUT_LIMIT, About};
use crate::catalog::{block_name, slot_hash};
use crate::container::{BLOCK, parse_header};
use crate::entry::{Entry, Packing};
use crate::error::{Error, Result};
use crate::index::{CatalogLine, IndexLine, Place, ShardHead, ShardKind, lines};
use crate::keyslot::{self, SLOT_MAX, Unlock};
use crate::manifest::{CatalogBlock, Manifest};
use crate::prover::Prover;
use crate::range::RangeReader;
use crate::seal::BundleKey;
use crate::segment::{self, SegmentPlace};
use crate::signature::{SIGNATURE, SIGNATURE_LIMIT};
use crate::spool::Spool;
use crate::stream::JSON_LIMIT;
use crate::sums;
use crate::trailer::{Extent, TRAILER, TRAILER_FROM_END, Trailer};

pub use segments::SegmentReader;

/// What a bundle says of itself to anyone.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// `bundle.json`.
    pub about: About,
    /// TRAILER; `None` for a torn bundle.
    pub trailer: Option<Trailer>,
    /// The kinds of recipients.
    pub recipients: Vec<String>,
    /// Bytes of the file.
    pub bytes: u64,
}

/// Reads what a bundle says of itself to anyone: nothing but the clear parts' own checks holds yet.
///
/// # Errors
/// [`Error::NotABundle`], [`Error::UnknownFormat`], [`Error::UnknownFeature`], damage of the clear parts, [`Error::Read`].
pub async fn inspect(source: &dyn RangeReader) -> Result<Inspection> {
    let mut offset = 0;
    let mut about = None;
    let mut recipients = Vec::new();
    for (index, expected) in ["README.txt", "bundle.json", "bundle.key.age"].into_iter().enumerate() {
        let header = read(source, offset, 512, expected).await?;
        let mut block = [0; 512];
        block.copy_from_slice(&header);
        let not_a_bundle = |what: &str| match index {
            0 => Error::NotABundle(what.to_owned()),
            _ => Error::damaged(expected, offset, what),
        };
        let (name, size) = parse_header(&block).map_err(not_a_bundle)?;
        if name.split_once('/').map(|(_, name)| name) != Some(expected) || size > ABOUT_LIMIT.max(SLOT_MAX) {
            return Err(not_a_bundle("its first entries are not those of a bundle"));
        }
        let length = usize::try_from(size).unwrap_or_default();
        let content = read(source, offset + 512, length, expected).await?;
        match expected {
            "bundle.json" => about = Some(About::from_json(&content, offset + 512)?),
            "bundle.key.age" => recipients = keyslot::kinds(&content),
            _ => {}
        }
        offset += 512 + size.next_multiple_of(512);
    }
    let trailer = match trailer(source).await {
        Ok(trailer) => Some(trailer),
        Err(Error::Torn { .. }) => None,
        Err(error) => return Err(error),
    };
    let about = about.ok_or_else(|| Error::NotABundle("it has no bundle.json".into()))?;
    Ok(Inspection { about, trailer, recipients, bytes: source.length() })
}

/// Reads ranges of a source, whose every failure names what was read.
async fn read(source: &dyn RangeReader, offset: u64, length: usize, what: &str) -> Result<Bytes> {
    if offset.checked_add(length as u64).is_none_or(|end| end > source.length()) {
        return Err(match source.length() {
            0 => Error::NotABundle("it is empty".into()),
            length if offset < 512 => Error::NotABundle(format!("it has only {length} bytes")),
            length => Error::Torn { offset: length, what: format!("inside {what}") },
        });
    }
    let bytes = source.read(offset, length).await.map_err(|error| Error::reading(error, what, offset))?;
    match bytes.len() == length {
        true => Ok(bytes),
        false => Err(Error::Read(std::io::ErrorKind::UnexpectedEof.into())),
    }
}

pub(crate) async fn trailer(source: &dyn RangeReader) -> Result<Trailer> {
    let Some(offset) = source.length().checked_sub(TRAILER_FROM_END) else {
        return Err(Error::NotABundle(format!("it has only {} bytes", source.length())));
    };
    let bytes = read(source, offset, TRAILER + 1024, "TRAILER").await?;
    let (block, zeros) = bytes.split_at(TRAILER);
    let trailer = Trailer::from_bytes(block, offset)?;
    if zeros.iter().any(|&b| b != 0) {
        return Err(Error::damaged("the closing zeros", offset + TRAILER as u64, "they are not zero"));
    }
    // Its own header alone lies between it and what it names last; else it is the TRAILER of another file.
    let last = if trailer.signature.length > 0 { trailer.signature } else { trailer.sums };
    if (last.offset + last.length).next_multiple_of(BLOCK) + BLOCK != offset {
        return Err(Error::damaged("TRAILER", offset, "it does not describe this file"));
    }
    Ok(trailer)
}

/// Bytes of `BLAKE3SUMS` that are read at a time.
const SUMS_PART: u64 = if cfg!(test) { 500 } else { 1 << 20 };

/// A segment's number, and what is in it.
type OpenedSegment = (u64, Vec<(Entry, IndexLine)>);

/// A bundle that can be read in any place.
pub struct BundleReader<S> {
    source: S,
    trailer: Trailer,
    key: BundleKey,
    prover: Prover,
    manifest: Manifest,
    /// Of the manifest as it is stored, sealed.
    manifest_hash: blake3::Hash,
    /// The segment that was opened last: neighbours are often asked for together.
    opened: tokio::sync::Mutex<Option<OpenedSegment>>,
}

impl<S: RangeReader> BundleReader<S> {
    /// Opens the bundle: TRAILER, then second key slot and manifest in one read. Where that slot is damaged, the first
    /// serves.
    ///
    /// # Errors
    /// [`Error::Torn`] without TRAILER, [`Error::NotABundle`], [`Error::UnknownFormat`], [`Error::UnknownFeature`],
    /// [`Error::WrongIdentity`], [`Error::WrongPassphrase`], [`Error::KeyDamaged`], damage, [`Error::Read`].
    pub async fn open(source: S, unlock: &Unlock) -> Result<Self> {
        let trailer = match trailer(&source).await {
            Ok(trailer) => trailer,
            // Whether it was ever a bundle is seen at its beginning.
            Err(error) => return Err(inspect(&source).await.map_or_else(|e| e, |_| error)),
        };
        match Self::open_at(&source, trailer, unlock).await {
            Ok((trailer, key, manifest, manifest_hash)) => {
                let (prover, opened) = (Prover::default(), tokio::sync::Mutex::default());
                Ok(Self { source, trailer, key, prover, manifest, manifest_hash, opened })
            }
            // A bundle of another format may look like a damaged one; its clear beginning tells. It is read for that alone: from
            // an object store each read takes its time.
            Err(error) => match inspect(&source).await {
                Err(known @ (Error::UnknownFormat(_) | Error::UnknownFeature(_))) => Err(known),
                _ => Err(error),
            },
        }
    }

    /// What TRAILER leads to: the bundle's key, the manifest and its hash.
    async fn open_at(
        source: &S,
        trailer: Trailer,
        unlock: &Unlock,
    ) -> Result<(Trailer, BundleKey, Manifest, blake3::Hash)> {
        let end = trailer.manifest.offset.saturating_add(trailer.manifest.length);
        let length = end.saturating_sub(trailer.key2.offset);
        let most = JSON_LIMIT as u64 + SLOT_MAX;
        if trailer.key2.offset > trailer.manifest.offset || length > most {
            return Err(Error::damaged("TRAILER", source.length() - TRAILER_FROM_END, "its offsets make no sense"));
        }
        let tail = usize::try_from(length).map_err(|_| Error::Worker("the manifest exceeds the memory".into()))?;
        let tail = read(source, trailer.key2.offset, tail, "the manifest").await?;
        let at = usize::try_from(trailer.manifest.offset - trailer.key2.offset).unwrap_or_default();
        // Between the two lies the manifest's header.
        let slot = usize::try_from(trailer.key2.length).unwrap_or(usize::MAX).min(at);
        let (slot2, sealed) = (tail.slice(..slot), tail.slice(at..));

        let key_file = match slot_key(&slot2, trailer.key_hash) {
            Some(key) => key,
            None => {
                let length = usize::try_from(trailer.key.length.min(SLOT_MAX)).unwrap_or_default();
                let first = read(source, trailer.key.offset, length, "the key's first slot").await?;
                slot_key(&first, trailer.key_hash).ok_or(Error::KeyDamaged)?
            }
        };
        let (bundle, key) = keyslot::open(&key_file, trailer.key2.offset, unlock)?;
        let plain = {
            let (key, sealed) = (key.clone(), sealed.clone());
            blocking(move || key.open(Packing::Zstd, sealed, JSON_LIMIT)).await?
        };
        let damaged = |what: String| Error::damaged("manifest.json.zst.age", trailer.manifest.offset, what);
        let manifest = Manifest::from_json(&plain.map_err(damaged)?).map_err(damaged)?;
        manifest.about.check(trailer.manifest.offset)?;
        if manifest.about.bundle != bundle {
            return Err(damaged("it belongs to another bundle".into()));
        }
        let manifest_hash = blake3::hash(&sealed);
        Ok((trailer, key, manifest, manifest_hash))
    }

    /// The manifest.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// TRAILER.
    #[must_use]
    pub fn trailer(&self) -> &Trailer {
        &self.trailer
    }

    /// The bundle's key, for a [`crate::BundleStream`] over the same file.
    #[must_use]
    pub fn key(&self) -> BundleKey {
        self.key.clone()
    }

    /// The content of `BLAKE3SUMS.minisig`, if there is one: a signature of what [`Self::sums`] reads. It is not checked.
    ///
    /// # Errors
    /// Damage, [`Error::Read`].
    pub async fn signature(&self) -> Result<Option<Bytes>> {
        let extent = self.trailer.signature;
        if extent.length == 0 {
            return Ok(None);
        }
        let damaged = |what: &str| Error::damaged(SIGNATURE, extent.offset, what);
        if extent.length > SIGNATURE_LIMIT {
            return Err(damaged("TRAILER gives it a size that makes no sense"));
        }
        let length = usize::try_from(extent.length).unwrap_or_default();
        let content = read(&self.source, extent.offset, length, SIGNATURE).await?;
        match blake3::hash(&content).as_bytes() == &self.trailer.signature_hash {
            true => Ok(Some(content)),
            false => Err(damaged("it does not have the hash that TRAILER gives it")),
        }
    }

    /// Reads `BLAKE3SUMS`, handing every part to `each`, and makes sure that its hash is the bundle's id and that it has the
    /// manifest that was opened: so whoever signed it stands for the manifest, for the key that opened it, and for all that
    /// is read by them.
    ///
    /// # Errors
    /// Damage, [`Error::Read`].
    pub async fn sums(&self, mut each: impl FnMut(&[u8])) -> Result<()> {
        const NAME: &str = "BLAKE3SUMS";
        let Extent { offset, length } = self.trailer.sums;
        let manifest_line = sums::line("manifest.json.zst.age", &self.manifest_hash).into_bytes();
        let (mut hasher, mut last, mut at) = (blake3::Hasher::new(), Vec::new(), 0);
        while at < length {
            let part = usize::try_from((length - at).min(SUMS_PART)).unwrap_or_default();
            let part = read(&self.source, offset + at, part, NAME).await?;
            hasher.update(&part);
            each(&part);
            last.extend_from_slice(&part);
            last.drain(..last.len().saturating_sub(manifest_line.len()));
            at += part.len() as u64;
        }
        if hasher.finalize().as_bytes() != &self.trailer.id {
            return Err(Error::damaged(NAME, offset, "its hash is not the id that TRAILER gives the bundle"));
        }
        // The manifest is the last that they name.
        match last == manifest_line {
            true => Ok(()),
            false => Err(Error::damaged(NAME, offset, "it gives another hash to the manifest")),
        }
    }

    /// Checks that `BLAKE3SUMS` and the first key slot are those that the manifest was sealed with: whoever has no key can
    /// recompute sums, but not this.
    ///
    /// # Errors
    /// As [`BundleReader::sums`]; damage of the slot.
    pub async fn check_sums(&self) -> Result<()> {
        let Extent { offset, length } = self.trailer.sums;
        let manifest_line = sums::line("manifest.json.zst.age", &self.manifest_hash);
        let (mut hasher, mut left) = (blake3::Hasher::new(), length.saturating_sub(manifest_line.len() as u64));
        self.sums(|part| {
            let before = part.get(..usize::try_from(left).unwrap_or(usize::MAX)).unwrap_or(part);
            hasher.update(before);
            left -= before.len() as u64;
        })
        .await?;
        if hasher.finalize().to_hex().as_str() != self.manifest.sums {
            return Err(Error::damaged("BLAKE3SUMS", offset, "it is not the one that the manifest was sealed with"));
        }
        let slot = self.trailer.key;
        let length = usize::try_from(slot.length.min(SLOT_MAX)).unwrap_or_default();
        let first = read(&self.source, slot.offset, length, "the key's first slot").await?;
        match slot_key(&first, self.trailer.key_hash) {
            Some(_) => Ok(()),
            None => {
                Err(Error::damaged("bundle.key.age", slot.offset, "the key's slot does not have the hash in TRAILER"))
            }
        }
    }

    /// The catalog's line of `path`, if there is one.
    ///
    /// # Errors
    /// Damage of the blocks on the way, [`Error::Read`].
    pub async fn find(&self, path: &str) -> Result<Option<CatalogLine>> {
        let Some(directory) = last_before(&self.manifest.catalog, path) else { return Ok(None) };
        let blocks = self.directory(directory).await?;
        let Some(block) = last_before(&blocks, path) else { return Ok(None) };
        let lines = self.block(block).await?;
        Ok(lines.into_iter().find(|line| line.entry.path == path))
    }

    /// Walks the catalog from the first path that is not less than `from`.
    pub fn catalog(&self, from: &str) -> CatalogReader<'_, S> {
        let skip = self.manifest.catalog.iter().rposition(|block| block.first.as_str() <= from).unwrap_or(0);
        let directories = self.manifest.catalog.iter().skip(skip).cloned().collect();
        CatalogReader { reader: self, from: from.to_owned(), directories, blocks: VecDeque::new() }
    }

    /// Walks the segments with entries whose paths begin with `prefix`. What the catalog says of these is sorted in `spool`.
    ///
    /// # Errors
    /// Damage of the catalog, [`Error::Read`], [`Error::Spool`].
    pub async fn segments(&self, prefix: &str, mut spool: Spool) -> Result<SegmentReader<'_, S>> {
        let mut catalog = self.catalog(prefix);
        while let Some(lines) = catalog.next().await? {
            let is_past = lines.last().is_some_and(|line| !line.entry.path.starts_with(prefix));
            for CatalogLine { entry, .. } in lines.iter().filter(|line| line.entry.path.starts_with(prefix)) {
                if let Some(place) = entry.place {
                    spool.push(&place.offset.to_be_bytes(), entry.to_json().as_bytes())?;
                }
            }
            if is_past {
                break;
            }
        }
        Ok(SegmentReader::new(self, prefix, spool.sorted()?))
    }

    /// The bytes of an entry (not of an object in pieces: its pieces are entries of their own).
    ///
    /// # Errors
    /// Damage of its segment, [`Error::Read`].
    pub async fn read(&self, line: &IndexLine) -> Result<Bytes> {
        let Some(place) = line.place else {
            return Err(Error::damaged(&line.path, 0, "the catalog gives it no place"));
        };
        let mut opened = self.opened.lock().await;
        if opened.as_ref().is_none_or(|(number, _)| *number != place.segment) {
            // Release the last segment before the next one is read: one at a time is in memory.
            *opened = None;
            *opened = Some((place.segment, self.segment(place).await?));
        }
        let entries = opened.iter().flat_map(|(_, entries)| entries);
        match entries.into_iter().find(|(entry, _)| entry.path == line.path) {
            Some((entry, found)) if found == line => Ok(entry.body.clone()),
            _ => {
                let name = segment::name(place.segment, packing(place));
                Err(Error::damaged(name, place.offset, format!("{} is not in it as the catalog says", line.path)))
            }
        }
    }

    async fn segment(&self, place: Place) -> Result<Vec<(Entry, IndexLine)>> {
        let packing = packing(place);
        let name = segment::name(place.segment, packing);
        let sealed = self.sealed(&name, Extent { offset: place.offset, length: place.length }).await?;
        let (key, bundle, limit) = (self.key.clone(), self.manifest.about.bundle, self.manifest.about.plain_limit());
        let place = SegmentPlace { number: place.segment, packing, offset: place.offset };
        let prover = self.prover.clone();
        blocking(move || segment::open(&key, bundle, place, sealed, limit, &prover)).await?
    }

    async fn directory(&self, block: &CatalogBlock) -> Result<Vec<CatalogBlock>> {
        let name = block_name(ShardKind::Directory, block.number);
        let damaged = |what: String| Error::damaged(&name, block.offset, what);
        let plain = self.open_block(ShardKind::Directory, block).await?;
        let lines = lines(&plain, self.head(ShardKind::Directory, block)).map_err(damaged)?;
        let blocks: std::result::Result<Vec<_>, _> = lines.map(serde_json::from_str::<CatalogBlock>).collect();
        blocks.map_err(|e| damaged(e.to_string()))
    }

    async fn block(&self, block: &CatalogBlock) -> Result<Vec<CatalogLine>> {
        let name = block_name(ShardKind::Catalog, block.number);
        let damaged = |what: String| Error::damaged(&name, block.offset, what);
        let plain = self.open_block(ShardKind::Catalog, block).await?;
        let lines = lines(&plain, self.head(ShardKind::Catalog, block)).map_err(damaged)?;
        lines.map(|text| CatalogLine::parse(text).map(|(line, _)| line).map_err(damaged)).collect()
    }

    fn head(&self, part: ShardKind, block: &CatalogBlock) -> ShardHead {
        ShardHead { bundle: self.manifest.about.bundle, part, number: block.number }
    }

    async fn open_block(&self, kind: ShardKind, block: &CatalogBlock) -> Result<Bytes> {
        let name = block_name(kind, block.number);
        let sealed = self.sealed(&name, Extent { offset: block.offset, length: block.length }).await?;
        let damaged = |what: String| Error::damaged(&name, block.offset, what);
        if blake3::hash(&sealed).to_hex().as_str() != block.hash {
            return Err(damaged("it does not have the hash that the catalog gives it".into()));
        }
        let (key, limit) = (self.key.clone(), kind.limit(self.manifest.about.plain_limit()));
        blocking(move || key.open(Packing::Zstd, sealed, limit)).await?.map_err(damaged)
    }

    async fn sealed(&self, name: &str, extent: Extent) -> Result<Bytes> {
        if extent.length > self.manifest.about.sealed_limit() {
            return Err(Error::damaged(name, extent.offset, "the catalog gives it a size that makes no sense"));
        }
        read(&self.source, extent.offset, usize::try_from(extent.length).unwrap_or_default(), name).await
    }
}

/// Walks the catalog, block by block.
pub struct CatalogReader<'a, S> {
    reader: &'a BundleReader<S>,
    from: String,
    directories: VecDeque<CatalogBlock>,
    blocks: VecDeque<CatalogBlock>,
}

impl<S: RangeReader> CatalogReader<'_, S> {
    /// The lines of the next block, at least one; `None` at the end.
    ///
    /// # Errors
    /// Damage of the block, [`Error::Read`].
    pub async fn next(&mut self) -> Result<Option<Vec<CatalogLine>>> {
        loop {
            if let Some(block) = self.blocks.pop_front() {
                let mut lines = self.reader.block(&block).await?;
                lines.retain(|line| line.entry.path >= self.from);
                // The first block may end before them.
                if lines.is_empty() {
                    continue;
                }
                return Ok(Some(lines));
            }
            let Some(directory) = self.directories.pop_front() else { return Ok(None) };
            let blocks = self.reader.directory(&directory).await?;
            let skip = blocks.iter().rposition(|block| block.first <= self.from).unwrap_or(0);
            self.blocks = blocks.into_iter().skip(skip).collect();
        }
    }
}

/// The key's file out of a slot; `None` if the slot is not the one of `hash`.
pub(crate) fn slot_key(slot: &Bytes, hash: [u8; 32]) -> Option<Bytes> {
    let (_, size) = parse_header(slot.first_chunk()?).ok()?;
    let size = usize::try_from(size).ok()?;
    let key = (512_usize.checked_add(size)? <= slot.len()).then(|| slot.slice(512..512 + size))?;
    let padding_at = 512 + size.next_multiple_of(512);
    let (_, padding) = slot.split_at_checked(padding_at + 512)?;
    (slot_hash(&key, padding) == hash).then_some(key)
}

fn last_before<'a>(blocks: &'a [CatalogBlock], path: &str) -> Option<&'a CatalogBlock> {
    blocks.iter().rfind(|block| block.first.as_str() <= path)
}

pub(crate) fn packing(place: Place) -> Packing {
    if place.zstd { Packing::Zstd } else { Packing::Raw }
}

pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::Worker(e.to_string()))
}

#[cfg(test)]
mod tests;
