//! Doors for fuzzing (`fuzz/`): each parser behind encryption, by itself. Not a part of the interface.
//!
//! What a hostile author would have to seal first is taken as plaintext here, without the line or header that binds it to
//! its bundle.

use bytes::Bytes;
use uuid::Uuid;

use crate::check::CatalogCheck;
use crate::container::parse_header;
use crate::entry::Packing;
use crate::index::{CatalogLine, IndexLine, ShardHead, ShardKind, head_line, lines};
use crate::keyslot::{self, Unlock};
use crate::manifest::{CatalogBlock, Manifest};
use crate::prover::Prover;
use crate::seal::BundleKey;
use crate::segment::{self, SegmentPlace};
use crate::trailer::Trailer;
use crate::{About, Head, Key, Piece};

/// What the parsers of this crate read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A header of the outer tar.
    Header,
    /// A segment's tar, behind its global header.
    Segment,
    /// An index shard, behind its first line.
    Index,
    /// A block of the catalog, behind its first line.
    Catalog,
    /// A block of the directory, behind its first line.
    Directory,
    /// `manifest.json`.
    Manifest,
    /// `bundle.json` and `head.json`.
    About,
    /// `BLAKE3SUMS`: read with a bundle round it, and so not by [`parse`].
    Sums,
    /// TRAILER.
    Trailer,
    /// An entry below `pieces/`, its path on the first line.
    Piece,
    /// The path of an object.
    Path,
}

/// Reads `bytes` as a `part`, and drops what comes of it.
pub fn parse(part: Part, bytes: &[u8]) {
    let nothing = Uuid::nil();
    match part {
        Part::Header => {
            bytes.first_chunk().map(parse_header);
        }
        Part::Segment => {
            let mut plain = segment::global_header(nothing, 0).unwrap_or_default();
            plain.extend_from_slice(bytes);
            let place = SegmentPlace { number: 0, packing: Packing::Raw, offset: 0 };
            segment::unpack(nothing, place, plain.len(), &Bytes::from(plain), &Prover::default()).ok();
        }
        Part::Index | Part::Catalog | Part::Directory => shard(part, bytes),
        Part::Manifest => {
            Manifest::from_json(bytes).ok();
        }
        Part::About => {
            About::from_json(bytes, 0).ok();
            serde_json::from_slice::<Head>(bytes).ok();
        }
        Part::Sums => {}
        Part::Trailer => {
            Trailer::from_bytes(bytes, 1 << 20).ok();
        }
        Part::Piece => {
            let (path, body) = bytes.split_at(bytes.iter().position(|&b| b == b'\n').unwrap_or_default());
            std::str::from_utf8(path).ok().and_then(|path| Piece::parse(path, body));
        }
        Part::Path => {
            if let Ok(path) = std::str::from_utf8(bytes)
                && let Some(key) = Key::from_path(path)
            {
                assert_eq!(key.to_path(), path, "two paths name one key");
                assert!(segment::check_path(path).is_ok(), "a key's path is not one of the tree");
            }
        }
    }
}

fn shard(part: Part, bytes: &[u8]) {
    let kind = match part {
        Part::Index => ShardKind::Index,
        Part::Catalog => ShardKind::Catalog,
        _ => ShardKind::Directory,
    };
    let head = ShardHead { bundle: Uuid::nil(), part: kind, number: 0 };
    let plain = [head_line(head).as_bytes(), bytes].concat();
    let Ok(lines) = lines(&plain, head) else { return };
    let mut check = CatalogCheck::default();
    for text in lines {
        match kind {
            ShardKind::Index => drop(serde_json::from_str::<IndexLine>(text)),
            ShardKind::Directory => drop(serde_json::from_str::<CatalogBlock>(text)),
            ShardKind::Catalog => {
                if let Ok((line, json)) = CatalogLine::parse(text) {
                    check.line(&line, json).ok();
                }
            }
        }
    }
}

/// Opens `bytes` as the file of a bundle's key.
pub fn key(bytes: &[u8], unlock: &Unlock) {
    keyslot::kinds(bytes);
    keyslot::open(bytes, 0, unlock).ok();
}

/// Unpacks `bytes` as what lies inside the encryption of a compressed part, to at most `limit` bytes.
pub fn unpack(bytes: &[u8], limit: usize) {
    let key = BundleKey::generate();
    if let Ok(sealed) = key.seal(Packing::Raw, 0, vec![Bytes::copy_from_slice(bytes)])
        && let Ok(plain) = key.open(Packing::Zstd, sealed.into_bytes(), limit)
    {
        assert!(plain.len() <= limit, "more was unpacked than was allowed");
    }
}

/// The plaintexts of a bundle that are a good start: each with what it is.
#[must_use]
pub fn parts(bundle: &[u8], unlock: &Unlock) -> Vec<(Part, Vec<u8>)> {
    let (mut parts, mut at, mut key) = (Vec::new(), 0, None);
    while let Some((name, size)) = bundle.get(at..).and_then(|rest| parse_header(rest.first_chunk()?).ok()) {
        let content =
            bundle.get(at + 512..).and_then(|rest| rest.get(..usize::try_from(size).ok()?)).unwrap_or_default();
        parts.push((Part::Header, bundle.get(at..at + 512).unwrap_or_default().to_vec()));
        let name = name.split_once('/').map_or(name.as_str(), |(_, name)| name);
        if name == "bundle.key.age" {
            key = keyslot::open(content, 0, unlock).ok().map(|(_, key)| key);
        }
        let packing = if name.ends_with(".zst.age") { Packing::Zstd } else { Packing::Raw };
        let plain = key.as_ref().and_then(|key| key.open(packing, Bytes::copy_from_slice(content), 1 << 24).ok());
        let plain = plain.unwrap_or_default();
        let behind_line = || plain.split_inclusive(|&b| b == b'\n').skip(1).collect::<Vec<_>>().concat();
        match name.split(['/', '.']).next() {
            Some("data") => parts.push((Part::Segment, plain.get(1024..).unwrap_or_default().to_vec())),
            Some("index") => parts.push((Part::Index, behind_line())),
            Some("catalog") => parts.push((Part::Catalog, behind_line())),
            Some("directory") => parts.push((Part::Directory, behind_line())),
            Some("manifest") => parts.push((Part::Manifest, plain.to_vec())),
            Some("head") => parts.push((Part::About, plain.to_vec())),
            Some("bundle") if name == "bundle.json" => parts.push((Part::About, content.to_vec())),
            Some("BLAKE3SUMS") if name == "BLAKE3SUMS" => parts.push((Part::Sums, content.to_vec())),
            Some("TRAILER") => parts.push((Part::Trailer, content.to_vec())),
            _ => {}
        }
        at += 512 + content.len().next_multiple_of(512);
    }
    parts
}
