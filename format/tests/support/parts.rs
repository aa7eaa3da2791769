//! A bundle's outer tar taken apart and put together again, by nobody who has a key.

use std::collections::BTreeMap;

use bytes::Bytes;
use pacharc_format::{Extent, TRAILER, Trailer};

/// The entries of a bundle's outer tar, as names without the folder and contents.
pub type Parts = Vec<(String, Vec<u8>)>;

pub fn take_apart(bundle: &[u8]) -> (String, Parts) {
    let (mut parts, mut at, mut folder) = (Parts::new(), 0, String::new());
    while bundle[at] != 0 {
        let name = std::str::from_utf8(&bundle[at..at + 100]).unwrap().trim_end_matches('\0');
        let size = std::str::from_utf8(&bundle[at + 124..at + 135]).unwrap();
        let size = usize::from_str_radix(size, 8).unwrap();
        let (folder_here, name) = name.split_once('/').unwrap();
        folder = format!("{folder_here}/");
        parts.push((name.to_owned(), bundle[at + 512..at + 512 + size].to_vec()));
        at += 512 + size.next_multiple_of(512);
    }
    (folder, parts)
}

pub fn put_together(folder: &str, parts: &Parts) -> Bytes {
    let mut bundle = Vec::new();
    for (name, content) in parts {
        let mut header = tokio_tar::Header::new_ustar();
        let name = format!("{folder}{name}");
        header.as_ustar_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(content.len() as u64);
        header.set_mtime(0);
        header.set_entry_type(tokio_tar::EntryType::Regular);
        header.set_cksum();
        bundle.extend_from_slice(header.as_bytes());
        bundle.extend_from_slice(content);
        bundle.resize(bundle.len().next_multiple_of(512), 0);
    }
    bundle.resize(bundle.len() + 1024, 0);
    bundle.into()
}

/// What an attacker can do without any key: numbers in their order, sums and TRAILER that fit.
pub fn forge(folder: &str, mut parts: Parts) -> Bytes {
    let mut numbers: BTreeMap<String, u64> = BTreeMap::new();
    let (mut sums, mut at) = (String::new(), 0);
    let mut trailer = Trailer {
        manifest: Extent::default(),
        sums: Extent::default(),
        key: Extent::default(),
        key2: Extent::default(),
        signature: Extent::default(),
        id: [0; 32],
        key_hash: [0; 32],
        signature_hash: [0; 32],
    };
    let mut slot = blake3::Hasher::new();
    parts.retain(|(name, _)| name != "TRAILER");
    for (name, content) in &mut parts {
        if let Some((kind, file)) = name.clone().split_once('/') {
            let (_, ending) = file.split_once('.').unwrap();
            let number = numbers.entry(kind.to_owned()).or_default();
            *name = format!("{kind}/{number:08}.{ending}");
            *number += 1;
        }
        if name == "BLAKE3SUMS" {
            *content = sums.clone().into_bytes();
        }
        let extent = Extent { offset: at + 512, length: content.len() as u64 };
        let taken = 512 + (content.len() as u64).next_multiple_of(512);
        match name.as_str() {
            "bundle.key.age" => {
                trailer.key = Extent { offset: at, length: taken };
                slot = blake3::Hasher::new();
                slot.update(content);
            }
            "PADDING" => {
                trailer.key.length += taken;
                slot.update(content);
            }
            "bundle.key.2.age" => trailer.key2 = Extent { offset: at, length: taken },
            "PADDING.2" => trailer.key2.length += taken,
            "BLAKE3SUMS" => {
                trailer.sums = extent;
                trailer.id = *blake3::hash(content).as_bytes();
            }
            _ => {
                if name.starts_with("manifest") {
                    trailer.manifest = extent;
                }
                sums.push_str(&format!("{}  {name}\n", blake3::hash(content).to_hex()));
            }
        }
        at += taken;
    }
    trailer.key_hash = *slot.finalize().as_bytes();
    parts.push(("TRAILER".into(), trailer.to_bytes().to_vec()));
    assert_eq!(parts.last().unwrap().1.len(), TRAILER);
    put_together(folder, &parts)
}
