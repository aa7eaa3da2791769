//! A segment: one complete pax tar of whole entries, sealed on its own, that names its bundle and its number.
//!
//! The tar is canonical as the outer one is, so that reading rebuilds each header and compares (SPEC §6).

use bytes::Bytes;
use tokio_tar::{EntryType, Header};
use uuid::Uuid;

use crate::container::{BLOCK, BLOCK_LENGTH, END, padding};
use crate::entry::{Entry, Hash, Metadata, NAMES_MAX, Packing};
use crate::error::{Error, Result};
use crate::index::{IndexLine, Pieces, Place};
use crate::key::Key;
use crate::parts::Parts;
use crate::payload::Sealed;
use crate::pieces;
use crate::prover::Prover;
use crate::seal::BundleKey;
use crate::trailer::Extent;

/// Longest path of an entry, in bytes.
pub(crate) const PATH_MAX: usize = 16 * 1024;
/// Most bytes that pax records of one entry may have.
const RECORDS_MAX: u64 = 256 * 1024;
/// Most names in the user metadata of all entries of a segment together.
const SEGMENT_NAMES: usize = 64 * NAMES_MAX;
/// Most bytes that an entry's headers and padding add to its body, metadata within their limits.
pub(crate) const OVERHEAD: usize = 512 * 1024;
const GLOBAL_NAME: &str = "pacharc-segment";
const LOCAL_NAME: &str = "pacharc-entry";

/// Collects entries until a segment is worth sealing.
#[derive(Default)]
pub(crate) struct SegmentBuilder {
    entries: Vec<Entry<Parts>>,
    bytes: usize,
    /// Names in their user metadata.
    names: usize,
}

impl SegmentBuilder {
    pub(crate) fn push(&mut self, entry: impl Into<Entry<Parts>>) {
        let entry = entry.into();
        self.bytes += tar_bytes(&entry);
        self.names += entry.metadata.user.len();
        self.entries.push(entry);
    }

    /// Whether it has `target` bytes, or there is no room for the names of another entry.
    pub(crate) fn is_full(&self, target: usize) -> bool {
        self.bytes >= target || self.names + NAMES_MAX > SEGMENT_NAMES
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Roughly what it takes in memory, first as entries and then sealed.
    pub(crate) fn memory(&self) -> usize {
        // Paths, records, index lines: small entries consist of little else.
        self.bytes + self.entries.len() * 1024
    }

    /// Hashes, packs and seals. CPU-bound: for blocking threads.
    pub(crate) fn seal(self, key: &BundleKey, number: u64, packing: Packing, form: &Form) -> Result<SealedSegment> {
        let memory = self.memory();
        let mut tar = vec![Bytes::from(global_header(form.bundle, number)?)];
        let mut at = tar.iter().map(Bytes::len).sum::<usize>() as u64;
        let mut lines = Vec::with_capacity(self.entries.len());
        for entry in self.entries {
            let hash = entry.hash.unwrap_or_else(|| Hash::blake3_of(&entry.body));
            let size = entry.body.len() as u64;
            let line = IndexLine {
                path: entry.path,
                size,
                hash: Some(hash),
                place: None,
                pieces: None,
                metadata: entry.metadata,
                rotten: entry.rotten,
            };
            let headers = entry_headers(&line)?;
            at += headers.len() as u64;
            let joined = pieces::joined(&line.path, entry.body.first(), &line.metadata, line.rotten);
            if let Some((line, hash)) = joined.as_ref().and_then(|line| Some((line, line.hash?))) {
                check_hash(&line.path, line.rotten, hash)?;
            }
            lines.push((line, at));
            lines.extend(joined.map(|line| (line, 0)));
            tar.push(Bytes::from(headers));
            tar.extend(entry.body);
            tar.push(zeros(padding(size)));
            at += size + padding(size);
        }
        tar.push(zeros(END as u64));
        let sealed = key.seal(packing, form.level, tar)?;
        Ok(SealedSegment { sealed, memory, lines: UnplacedLines { number, packing, lines } })
    }
}

/// What all segments of a bundle share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Form {
    pub(crate) bundle: Uuid,
    pub(crate) level: i32,
}

/// A segment that is ready to be appended.
pub(crate) struct SealedSegment {
    pub(crate) sealed: Sealed,
    /// [`SegmentBuilder::memory`].
    pub(crate) memory: usize,
    pub(crate) lines: UnplacedLines,
}

/// The index lines of a sealed segment, as long as it is not known where its bytes begin.
pub(crate) struct UnplacedLines {
    number: u64,
    packing: Packing,
    lines: Vec<(IndexLine, u64)>,
}

impl UnplacedLines {
    /// The outer entry's name of the segment.
    pub(crate) fn name(&self) -> String {
        name(self.number, self.packing)
    }

    /// The lines, now that the sealed bytes lie at `extent`.
    pub(crate) fn place(self, Extent { offset, length }: Extent) -> impl Iterator<Item = IndexLine> {
        let (segment, zstd) = (self.number, self.packing == Packing::Zstd);
        self.lines.into_iter().map(move |(line, at)| {
            // An object in pieces has no place of its own.
            let place = line.pieces.is_none().then_some(Place { segment, zstd, offset, length, at });
            IndexLine { place, ..line }
        })
    }
}

/// The outer entry's name of a segment.
pub(crate) fn name(number: u64, packing: Packing) -> String {
    match packing {
        Packing::Raw => format!("data/{number:08}.tar.age"),
        Packing::Zstd => format!("data/{number:08}.tar.zst.age"),
    }
}

/// Where a sealed segment was found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SegmentPlace {
    pub(crate) number: u64,
    pub(crate) packing: Packing,
    pub(crate) offset: u64,
}

/// Opens a segment and checks everything in it: place, headers, hashes. CPU-bound: for blocking threads.
pub(crate) fn open(
    key: &BundleKey,
    bundle: Uuid,
    opened: SegmentPlace,
    sealed: Bytes,
    limit: usize,
    prover: &Prover,
) -> Result<Vec<(Entry, IndexLine)>> {
    let name = name(opened.number, opened.packing);
    let damaged = |what: String| Error::damaged(&name, opened.offset, what);
    let length = sealed.len();
    let plain = key.open(opened.packing, sealed, limit).map_err(damaged)?;
    unpack(bundle, opened, length, &plain, prover)
}

/// Reads the tar of an opened segment, which had `length` bytes sealed.
pub(crate) fn unpack(
    bundle: Uuid,
    opened: SegmentPlace,
    length: usize,
    plain: &Bytes,
    prover: &Prover,
) -> Result<Vec<(Entry, IndexLine)>> {
    let name = name(opened.number, opened.packing);
    let damaged = |what: String| Error::damaged(&name, opened.offset, what);
    let mut reader = TarReader { plain, at: 0 };
    let global = global_header(bundle, opened.number)?;
    if reader.take(global.len() as u64).as_deref() != Some(global.as_slice()) {
        return Err(damaged("it belongs to another bundle or another place".into()));
    }
    let (mut entries, mut names) = (Vec::new(), 0);
    while let Some((line, at)) = reader.entry().map_err(damaged)? {
        names += line.metadata.user.len();
        if names > SEGMENT_NAMES {
            return Err(damaged(format!("its user metadata have more than {SEGMENT_NAMES} names")));
        }
        let (length, zstd) = (length as u64, opened.packing == Packing::Zstd);
        let place = Place { segment: opened.number, zstd, offset: opened.offset, length, at };
        let line = IndexLine { place: Some(place), ..line };
        let body = slice(plain, at, line.size).ok_or_else(|| damaged("it ends inside an entry".into()))?;
        let entry = Entry {
            path: line.path.clone(),
            body,
            packing: opened.packing,
            hash: line.hash,
            metadata: line.metadata.clone(),
            rotten: line.rotten,
        };
        entries.push((entry, line));
    }
    check_hashes(&entries, prover).map_err(damaged)?;
    Ok(entries)
}

/// Refuses entries whose bytes do not have the hash that they carry; all of them carry one ([`parse_records`]).
fn check_hashes(entries: &[(Entry, IndexLine)], prover: &Prover) -> std::result::Result<(), String> {
    let mut hashed = Vec::with_capacity(entries.len());
    for (entry, line) in entries {
        hashed.push((line.hash.ok_or_else(|| format!("{} has no hash", line.path))?, entry.body.clone()));
    }
    match prover.first_wrong(&hashed).and_then(|wrong| entries.get(wrong)) {
        None => Ok(()),
        Some((_, line)) => {
            let hash = line.hash.map(|hash| hash.to_string()).unwrap_or_default();
            Err(format!("the bytes of {} do not have the hash {hash}", line.path))
        }
    }
}

fn slice(plain: &Bytes, at: u64, size: u64) -> Option<Bytes> {
    let at = usize::try_from(at).ok()?;
    let end = at.checked_add(usize::try_from(size).ok()?)?;
    (end <= plain.len()).then(|| plain.slice(at..end))
}

/// Walks the tar of an opened segment.
struct TarReader<'a> {
    plain: &'a Bytes,
    at: u64,
}

impl TarReader<'_> {
    fn take(&mut self, size: u64) -> Option<Bytes> {
        let taken = slice(self.plain, self.at, size)?;
        self.at += size;
        Some(taken)
    }

    /// The next entry's line, and where its body begins; `None` at the end.
    fn entry(&mut self) -> std::result::Result<Option<(IndexLine, u64)>, String> {
        const CUT: &str = "it ends inside an entry";
        let begin = self.at;
        let rest = self.plain.len() as u64 - begin;
        if rest == END as u64 && self.plain.iter().rev().take(END).all(|&b| b == 0) {
            return Ok(None);
        }
        let mut block = self.take(BLOCK).ok_or(CUT)?;
        let mut records = Bytes::new();
        let mut header = Header::from_byte_slice(&block).clone();
        if header.entry_type().is_pax_local_extensions() {
            let size = header.raw_entry_size().map_err(|_| "a size is not a number")?;
            if size > RECORDS_MAX {
                return Err("an entry's records are too large".into());
            }
            records = self.take(size).ok_or(CUT)?;
            self.take(padding(size)).ok_or(CUT)?;
            block = self.take(BLOCK).ok_or(CUT)?;
            header = Header::from_byte_slice(&block).clone();
        }
        let size = header.raw_entry_size().map_err(|_| "a size is not a number")?;
        let field = block.get(..100).unwrap_or_default();
        let name = field.split(|&b| b == 0).next().unwrap_or_default();
        let name = std::str::from_utf8(name).map_err(|_| "a name is not text")?;
        let line = parse_records(&records, name, size)?;
        let at = self.at;
        // Everything but the fields just read is fixed: what was written must be what would be written.
        let canonical = entry_headers(&line).map_err(|e| e.to_string())?;
        if slice(self.plain, begin, at - begin).as_deref() != Some(canonical.as_slice()) {
            return Err(format!("the header of {name:?} is not canonical"));
        }
        self.take(size).ok_or(CUT)?;
        let pad = self.take(padding(size)).ok_or(CUT)?;
        if pad.iter().any(|&b| b != 0) {
            return Err(format!("the padding of {name:?} is not zero"));
        }
        Ok(Some((line, at)))
    }
}

/// No less than what an entry takes in the tar: many small ones with long paths or much metadata must not exceed what
/// `bundle.json` declares.
fn tar_bytes(entry: &Entry<Parts>) -> usize {
    // Two headers, the padding of records and of the body, and the records of hash and state.
    const FIXED: usize = 4 * BLOCK_LENGTH + 128;
    // `path` and `PACHARC.metadata`, their lengths included.
    let records = |bytes: usize| if bytes == 0 { 0 } else { bytes + 32 };
    let metadata = if entry.metadata.is_empty() { 0 } else { metadata_json(&entry.metadata).len() };
    entry.body.len() + FIXED + records(entry.path.len()) + records(metadata)
}

fn metadata_json(metadata: &Metadata) -> String {
    // Strings and a map with string keys have no way to fail.
    serde_json::to_string(metadata).unwrap_or_default()
}

fn zeros(count: u64) -> Bytes {
    const ZEROS: &[u8] = &[0; END];
    Bytes::from_static(ZEROS.get(..usize::try_from(count).unwrap_or_default()).unwrap_or_default())
}

/// The hash that an entry's path implies: that of an intact chunk.
fn implied_hash(path: &str, rotten: bool) -> Option<Hash> {
    (!rotten && path.starts_with("objects/chunk/"))
        .then(|| Key::from_path(path)?.chunk())
        .flatten()
        .map(|chunk| Hash::Blake2b(chunk.id))
}

/// Refuses an intact chunk with another hash than its key's, and anything else with another hash than BLAKE3.
pub(crate) fn check_hash(path: &str, rotten: bool, hash: Hash) -> Result<()> {
    match (implied_hash(path, rotten), hash) {
        (Some(implied), _) if implied == hash => Ok(()),
        (None, Hash::Blake3(_)) => Ok(()),
        _ => Err(Error::WrongHash { path: path.to_owned(), hash }),
    }
}

fn ustar(name: &str, size: u64, kind: EntryType) -> [u8; 512] {
    let mut header = Header::new_ustar();
    let length = name.len().min(100);
    if let Some(ustar) = header.as_ustar_mut() {
        ustar.name[..length].copy_from_slice(&name.as_bytes()[..length]);
    }
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(size);
    header.set_mtime(0);
    header.set_entry_type(kind);
    header.set_cksum();
    *header.as_bytes()
}

/// The pax header that opens each segment.
pub(crate) fn global_header(bundle: Uuid, number: u64) -> Result<Vec<u8>> {
    let mut records = Vec::new();
    record(&mut records, "PACHARC.bundle", &bundle.to_string());
    record(&mut records, "PACHARC.segment", &number.to_string());
    Ok(with_padding(ustar(GLOBAL_NAME, records.len() as u64, EntryType::XGlobalHeader).to_vec(), &records))
}

/// The headers of an entry, pax records included.
fn entry_headers(line: &IndexLine) -> Result<Vec<u8>> {
    check_path(&line.path)?;
    let mut records = Vec::new();
    if line.path.len() > 100 {
        record(&mut records, "path", &line.path);
    }
    if let Some(hash) = line.hash {
        check_hash(&line.path, line.rotten, hash)?;
        if implied_hash(&line.path, line.rotten).is_none() {
            record(&mut records, "PACHARC.hash", &hash.to_string());
        }
    }
    if !line.metadata.is_empty() {
        record(&mut records, "PACHARC.metadata", &metadata_json(&line.metadata));
    }
    if line.rotten {
        record(&mut records, "PACHARC.rotten", "1");
    }
    let names = line.metadata.user.len();
    if records.len() as u64 > RECORDS_MAX || names > NAMES_MAX {
        let why = format!("an entry's metadata have at most {RECORDS_MAX} bytes, and {NAMES_MAX} names of the user's");
        return Err(Error::TooLarge { what: line.path.clone(), why });
    }
    let mut headers = Vec::with_capacity(3 * BLOCK_LENGTH);
    if !records.is_empty() {
        let local = ustar(LOCAL_NAME, records.len() as u64, EntryType::XHeader).to_vec();
        headers = with_padding(local, &records);
    }
    headers.extend_from_slice(&ustar(&line.path, line.size, EntryType::Regular));
    Ok(headers)
}

fn with_padding(mut header: Vec<u8>, content: &[u8]) -> Vec<u8> {
    header.extend_from_slice(content);
    header.extend_from_slice(&zeros(padding(content.len() as u64)));
    header
}

/// Appends a pax record: its length, which counts itself, then `name=value` and a line end.
fn record(records: &mut Vec<u8>, name: &str, value: &str) {
    let rest = name.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(format!("{length} {name}={value}\n").as_bytes());
}

/// Reads the records of an entry into its line. What is not understood is refused by the comparison that follows.
fn parse_records(records: &[u8], name: &str, size: u64) -> std::result::Result<IndexLine, String> {
    let mut line = IndexLine {
        path: name.to_owned(),
        size,
        hash: None,
        place: None,
        pieces: None,
        metadata: Metadata::default(),
        rotten: false,
    };
    let mut rest = std::str::from_utf8(records).map_err(|_| "its records are not UTF-8")?;
    while !rest.is_empty() {
        const MALFORMED: &str = "its records are malformed";
        let (length, _) = rest.split_once(' ').ok_or(MALFORMED)?;
        let length: usize = length.parse().map_err(|_| MALFORMED)?;
        let (record, more) = rest.split_at_checked(length).ok_or(MALFORMED)?;
        let (_, record) = record.split_once(' ').ok_or(MALFORMED)?;
        let (name, value) = record.strip_suffix('\n').and_then(|r| r.split_once('=')).ok_or(MALFORMED)?;
        match name {
            "path" => line.path = value.to_owned(),
            "PACHARC.hash" => line.hash = Some(value.parse().map_err(str::to_owned)?),
            "PACHARC.metadata" => line.metadata = serde_json::from_str(value).map_err(|e| e.to_string())?,
            "PACHARC.rotten" => line.rotten = true,
            other => return Err(format!("it has the unknown record {other:?}")),
        }
        rest = more;
    }
    if line.hash.is_none() {
        line.hash = implied_hash(&line.path, line.rotten);
    }
    if line.hash.is_none() {
        return Err(format!("{} has no hash", line.path));
    }
    Ok(line)
}

/// Refuses paths that are not relative, plain ASCII, and made of real components.
pub(crate) fn check_path(path: &str) -> Result<()> {
    let sound = path.len() <= PATH_MAX
        && path.bytes().all(|b| b.is_ascii_graphic())
        && path.split('/').all(|part| !matches!(part, "" | "." | ".."));
    if sound {
        return Ok(());
    }
    let why = "paths are relative, printable ASCII, of at most 16 KiB, without empty, `.` or `..` components";
    Err(Error::TooLarge { what: format!("the path {path:?}"), why: why.into() })
}

/// The index line of an object in pieces.
pub(crate) fn joined_line(
    path: String,
    size: u64,
    hash: Hash,
    pieces: Pieces,
    metadata: Metadata,
    rotten: bool,
) -> IndexLine {
    IndexLine { path, size, hash: Some(hash), place: None, pieces: Some(pieces), metadata, rotten }
}

#[cfg(test)]
mod tests;
