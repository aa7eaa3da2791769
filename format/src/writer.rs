//! Writing a bundle in one pass: entries go in, in any order; segments are sealed on blocking threads and appended in
//! order; index shards follow them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesOrdered;
use tokio::io::AsyncWrite;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::about::{About, Head};
use crate::catalog::CatalogWriter;
use crate::container::ContainerWriter;
use crate::entry::{Entry, Packing};
use crate::error::{Error, Result};
use crate::fingerprint::Fingerprint;
use crate::index::{IndexLine, ShardHead, ShardKind, head_line};
use crate::keyslot::{KeySlot, Lock};
use crate::manifest::Totals;
use crate::parts::Parts;
use crate::payload::Sealed;
use crate::pieces::{self, Piece};
use crate::seal::BundleKey;
use crate::segment::{Form, OVERHEAD, SealedSegment, SegmentBuilder};
use crate::spool::{Sorted, Spool};
use crate::sums::Sums;
use crate::trailer::Extent;
use crate::{FORMAT, readme};

/// Plaintext of an index shard or catalog block, in bytes; the last line may exceed it. Unit tests want many of them.
pub(crate) const SHARD: usize = if cfg!(test) { 2048 } else { 1 << 20 };

/// How a bundle is written.
pub struct WriterOptions {
    /// The bundle's UUID.
    pub bundle: Uuid,
    /// When it was begun (RFC 3339, UTC).
    pub created: String,
    /// The version of the program that writes.
    pub version: String,
    /// Who can open it.
    pub lock: Lock,
    /// Segments sealed at a time; at least 1.
    pub jobs: usize,
    /// A segment is sealed when it has about this many bytes.
    pub segment_target: usize,
    /// The most bytes that one entry may have.
    pub entry_limit: usize,
    /// Bytes of segments that are being sealed, or sealed and not yet written; one is always sealed.
    pub sealing: usize,
    /// zstd's level.
    pub level: i32,
    /// Where more than [`Self::spool_memory`] of index spills to.
    pub temp_dir: PathBuf,
    /// Bytes of index that are held in memory.
    pub spool_memory: usize,
}

/// What a bundle was when it was complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The bundle's id, in hex.
    pub id: String,
    /// Its bytes.
    pub bytes: u64,
    /// The sizes of everything.
    pub totals: Totals,
}

/// Writes a bundle. Dropped before the end it leaves a torn one.
pub struct BundleWriter<W> {
    pub(crate) core: Core<W>,
    raw: SegmentBuilder,
    zstd: SegmentBuilder,
    sealing: FuturesOrdered<JoinHandle<Result<SealedSegment>>>,
    /// What is being sealed, or sealed and not yet written, takes so many bytes.
    sealing_memory: usize,
    /// The most of it.
    sealing_limit: usize,
    jobs: usize,
    segment_target: usize,
    entry_limit: usize,
    next_segment: u64,
    spool: Spool,
    shard: String,
    /// Objects in pieces that have begun and not ended, and how they are packed.
    open_pieces: BTreeMap<u64, Packing>,
}

/// What entries and catalog share: the container, the key, the sums.
pub(crate) struct Core<W> {
    pub(crate) container: ContainerWriter<W>,
    pub(crate) sums: Sums,
    pub(crate) key: BundleKey,
    pub(crate) slot: KeySlot,
    pub(crate) slot_extent: Extent,
    pub(crate) form: Form,
    pub(crate) about: About,
    pub(crate) totals: Totals,
    pub(crate) fingerprint: Fingerprint,
}

impl<W: AsyncWrite + Unpin> Core<W> {
    /// Appends an entry that the sums cover.
    pub(crate) async fn append(&mut self, name: &str, content: &[u8]) -> Result<Extent> {
        let offset = self.container.append(name, content).await?;
        self.sums.add(name, &blake3::hash(content))?;
        Ok(Extent { offset, length: content.len() as u64 })
    }

    /// Appends a sealed file, whose memory is free when it is written.
    async fn append_file(&mut self, name: &str, sealed: Sealed) -> Result<Extent> {
        let length = sealed.length() as u64;
        let offset = self.container.begin(name, length).await?;
        for block in sealed.blocks {
            self.container.content(&block).await?;
        }
        self.container.end(length).await?;
        self.sums.add(name, &sealed.hash)?;
        Ok(Extent { offset, length })
    }

    /// Seals text and appends it. Gives the extent and the hash of the sealed bytes.
    pub(crate) async fn append_sealed(&mut self, name: &str, plain: Bytes) -> Result<(Extent, blake3::Hash)> {
        let (key, level) = (self.key.clone(), self.form.level);
        let sealed = tokio::task::spawn_blocking(move || key.seal(Packing::Zstd, level, vec![plain]));
        let sealed = sealed.await.map_err(|e| Error::Worker(e.to_string()))??;
        let hash = sealed.hash;
        Ok((self.append_file(name, sealed).await?, hash))
    }

    /// Appends the key slot, `suffix` telling the second from the first.
    pub(crate) async fn append_slot(&mut self, suffix: &str) -> Result<Extent> {
        let offset = self.container.offset();
        self.container.append(&format!("bundle.key{suffix}.age"), &self.slot.key).await?;
        self.container.append(&format!("PADDING{suffix}"), &self.slot.padding).await?;
        Ok(Extent { offset, length: self.container.offset() - offset })
    }
}

impl<W: AsyncWrite + Unpin> BundleWriter<W> {
    /// Begins a bundle: writes what stands in clear, the key slot, and `head` (its `bundle` is filled in).
    ///
    /// # Errors
    /// [`Error::Write`], [`Error::Key`] where a recipient cannot be used, [`Error::Spool`].
    pub async fn create(output: W, options: WriterOptions, head: Head) -> Result<Self> {
        let about = About {
            format: FORMAT,
            bundle: options.bundle,
            created: options.created.clone(),
            pacharc: options.version.clone(),
            required: Vec::new(),
            optional: Vec::new(),
            // An index shard is begun before the lines of the last segment in it are known: these take less than it does.
            largest_segment: (options.entry_limit + options.segment_target + OVERHEAD + SHARD) as u64,
            volume: 1,
        };
        about.check(0)?;
        let key = BundleKey::generate();
        let (sealed_key, created) = (key.clone(), options.created);
        // A passphrase takes scrypt a second.
        let slot =
            tokio::task::spawn_blocking(move || KeySlot::seal(&sealed_key, options.bundle, &created, &options.lock));
        let slot = slot.await.map_err(|e| Error::Worker(e.to_string()))??;
        let folder = folder(options.bundle);
        let mut core = Core {
            container: ContainerWriter::new(output, folder),
            sums: Sums::new(&options.temp_dir)?,
            key,
            slot,
            slot_extent: Extent::default(),
            form: Form { bundle: options.bundle, level: options.level },
            about,
            totals: Totals::default(),
            fingerprint: Fingerprint::default(),
        };
        core.append("README.txt", readme::text().as_bytes()).await?;
        let about = core.about.to_json();
        core.append("bundle.json", about.as_bytes()).await?;
        core.slot_extent = core.append_slot("").await?;
        let head = serde_json::to_vec(&Head { bundle: options.bundle, ..head });
        let head = head.map_err(|e| Error::Worker(e.to_string()))?;
        core.append_sealed("head.json.zst.age", head.into()).await?;
        Ok(Self {
            core,
            raw: SegmentBuilder::default(),
            zstd: SegmentBuilder::default(),
            sealing: FuturesOrdered::new(),
            sealing_memory: 0,
            sealing_limit: options.sealing,
            jobs: options.jobs.max(1),
            segment_target: options.segment_target,
            entry_limit: options.entry_limit,
            next_segment: 0,
            spool: Spool::new(&options.temp_dir, options.spool_memory),
            shard: String::new(),
            open_pieces: BTreeMap::new(),
        })
    }

    /// Adds an entry. Entries of the same packing keep their order.
    ///
    /// # Errors
    /// [`Error::TooLarge`] where path or size break a limit, [`Error::Write`], [`Error::Spool`].
    pub async fn add(&mut self, entry: impl Into<Entry<Parts>>) -> Result<()> {
        let mut entry = entry.into();
        crate::segment::check_path(&entry.path)?;
        if entry.body.len() > self.entry_limit {
            let why = format!("entries of this bundle have at most {} bytes", self.entry_limit);
            return Err(Error::TooLarge { what: entry.path, why });
        }
        let packing = entry.packing;
        if entry.path.starts_with("pieces/") {
            entry.body = entry.body.whole();
        }
        match Piece::parse(&entry.path, entry.body.first()) {
            Some(Piece::Path { folder, .. }) => drop(self.open_pieces.insert(folder, packing)),
            Some(Piece::Joined { folder, .. } | Piece::Abandoned { folder }) => drop(self.open_pieces.remove(&folder)),
            Some(Piece::Slice { .. }) | None => {}
        }
        let builder = if packing == Packing::Raw { &mut self.raw } else { &mut self.zstd };
        builder.push(entry);
        if builder.is_full(self.segment_target) {
            self.dispatch(packing).await?;
        }
        Ok(())
    }

    /// Gives up the objects in pieces that have begun and not ended: whoever fed them is gone. A reader takes a bundle for
    /// damaged where one has no end.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub async fn abandon_open(&mut self) -> Result<()> {
        for (folder, packing) in std::mem::take(&mut self.open_pieces) {
            self.add(pieces::abandoned(folder, packing)).await?;
        }
        Ok(())
    }

    /// Seals what is open, and waits until everything added so far has been written.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub async fn flush(&mut self) -> Result<()> {
        self.dispatch(Packing::Raw).await?;
        self.dispatch(Packing::Zstd).await?;
        while self.append_next().await? {}
        Ok(())
    }

    /// The index lines of all that was flushed, as path and JSON, sorted by path.
    ///
    /// # Errors
    /// [`Error::Spool`].
    pub fn entries(&mut self) -> Result<Sorted> {
        self.spool.sorted()
    }

    /// Bytes written so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.core.container.offset()
    }

    /// Ends the entries, and begins the catalog. The lines that must go into it are given beside. Objects in pieces that have
    /// no end are given up.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub async fn finish_entries(mut self) -> Result<(CatalogWriter<W>, Sorted)> {
        self.abandon_open().await?;
        self.flush().await?;
        self.flush_shard().await?;
        let sorted = self.spool.sorted()?;
        Ok((CatalogWriter::new(self.core), sorted))
    }

    /// Hands an open segment to a blocking thread, waiting while enough are under way.
    async fn dispatch(&mut self, packing: Packing) -> Result<()> {
        let builder = if packing == Packing::Raw { &mut self.raw } else { &mut self.zstd };
        if builder.is_empty() {
            return Ok(());
        }
        let builder = std::mem::take(builder);
        let memory = builder.memory();
        // Whoever gave the entries may take them for gone once they are sealed.
        while self.sealing.len() > self.jobs || self.sealing_memory + memory > self.sealing_limit {
            if !self.append_next().await? {
                break;
            }
        }
        self.sealing_memory += memory;
        let (key, form, number) = (self.core.key.clone(), self.core.form, self.next_segment);
        self.next_segment += 1;
        self.sealing.push_back(tokio::task::spawn_blocking(move || builder.seal(&key, number, packing, &form)));
        Ok(())
    }

    /// Appends the oldest segment under way; `false` if there is none.
    async fn append_next(&mut self) -> Result<bool> {
        let Some(sealed) = self.sealing.next().await else { return Ok(false) };
        let SealedSegment { sealed, memory, lines } = sealed.map_err(|e| Error::Worker(e.to_string()))??;
        self.sealing_memory -= memory;
        let extent = self.core.append_file(&lines.name(), sealed).await?;
        self.core.totals.segments += 1;
        for line in lines.place(extent) {
            self.index(&line)?;
        }
        if self.shard.len() >= SHARD {
            self.flush_shard().await?;
        }
        Ok(true)
    }

    fn index(&mut self, line: &IndexLine) -> Result<()> {
        if line.place.is_some() {
            self.core.totals.entries += 1;
            self.core.totals.bytes += line.size;
        }
        let json = line.to_json();
        self.core.fingerprint.line(json.as_bytes());
        self.spool.push(line.path.as_bytes(), json.as_bytes())?;
        self.shard.push_str(&json);
        self.shard.push('\n');
        Ok(())
    }

    async fn flush_shard(&mut self) -> Result<()> {
        if self.shard.is_empty() {
            return Ok(());
        }
        let number = self.core.totals.index_shards;
        let head = ShardHead { bundle: self.core.form.bundle, part: ShardKind::Index, number };
        let plain = head_line(head) + &std::mem::take(&mut self.shard);
        self.core.append_sealed(&format!("index/{number:08}.jsonl.zst.age"), plain.into()).await?;
        self.core.totals.index_shards += 1;
        Ok(())
    }
}

/// The one folder of a bundle.
pub(crate) fn folder(bundle: Uuid) -> String {
    let hex = bundle.simple().to_string();
    format!("pacharc-{}/", hex.get(..8).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{Count, Objects};
    use crate::{BundleStream, Found, Key, Manifest, ReadOptions, State, Unlock};

    /// What a reader says of a bundle with one object, whose writer lies as told.
    async fn told(lie: impl FnOnce(&mut BundleWriter<Vec<u8>>), counted: u64) -> Option<Error> {
        let identity = age::x25519::Identity::generate();
        let options = WriterOptions {
            bundle: Uuid::from_u128(7),
            created: "2026-01-01T00:00:00Z".into(),
            version: "0.0.0".into(),
            lock: Lock::Recipients(vec![Box::new(identity.to_public())]),
            jobs: 1,
            segment_target: 1,
            entry_limit: 1000,
            sealing: 1000,
            level: 1,
            temp_dir: std::env::temp_dir(),
            spool_memory: 1 << 20,
        };
        let mut writer = BundleWriter::create(Vec::new(), options, Head::default()).await.unwrap();
        writer.add(Entry::text(Key::from("object").to_path(), "five!")).await.unwrap();
        writer.flush().await.unwrap();
        lie(&mut writer);
        let (mut catalog, lines) = writer.finish_entries().await.unwrap();
        for line in lines {
            let (path, json) = line.unwrap();
            let (path, json) = (String::from_utf8(path).unwrap(), String::from_utf8(json).unwrap());
            catalog.push(State::Foreign, &path, &json).await.unwrap();
        }
        let foreign = Count { count: counted, bytes: 5 * counted };
        let objects = Objects { closed: Some(true), foreign, ..Objects::default() };
        let manifest = Manifest { objects: Some(objects), ..Manifest::default() };
        let (bytes, _, _) = catalog.finish(manifest, None).await.unwrap();
        let read = ReadOptions { jobs: 1, memory: 1 << 20, temp_dir: &std::env::temp_dir() };
        let mut stream = BundleStream::open(&bytes[..], read).await.unwrap();
        stream.unlock(&Unlock::Identities(vec![Box::new(identity)])).unwrap();
        let mut damage = None;
        loop {
            match stream.next().await {
                Ok(Some(Found::Damage(error))) | Err(error) => damage = damage.or(Some(error)),
                Ok(Some(_)) => {}
                Ok(None) => return damage,
            }
        }
    }

    #[tokio::test]
    async fn whoever_reads_finds_out_a_writer_that_lies() {
        assert!(told(|_| {}, 1).await.is_none());
        // In its index, its manifest, its totals.
        let other_path = |writer: &mut BundleWriter<Vec<u8>>| writer.shard = writer.shard.replace("object", "abject");
        let more_entries = |writer: &mut BundleWriter<Vec<u8>>| writer.core.totals.entries += 1;
        let more_segments = |writer: &mut BundleWriter<Vec<u8>>| writer.core.totals.segments += 1;
        let found = [
            told(other_path, 1).await,
            told(|_| {}, 2).await,
            told(more_entries, 1).await,
            told(more_segments, 1).await,
        ];
        for (number, error) in found.into_iter().enumerate() {
            assert!(error.as_ref().is_some_and(Error::is_damage), "lie {number}: {error:?}");
        }
    }
}
