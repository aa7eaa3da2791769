//! The outer container of a bundle, taken apart and put together again as anybody can who has no key: sums and TRAILER are
//! computed anew.

use pacharc_format::{Extent, Trailer};

/// The outer entries, in their order: names without the folder, and contents.
#[derive(Clone)]
pub struct Outer {
    folder: String,
    pub entries: Vec<(String, Vec<u8>)>,
}

const SIGNATURE: &str = "BLAKE3SUMS.minisig";

fn octal(field: &[u8]) -> usize {
    let digits = String::from_utf8_lossy(field);
    usize::from_str_radix(digits.trim_matches(['\0', ' ']), 8).unwrap()
}

impl Outer {
    pub fn read(bundle: &[u8]) -> Self {
        let (mut outer, mut at) = (Self { folder: String::new(), entries: Vec::new() }, 0);
        while bundle[at] != 0 {
            let name = String::from_utf8_lossy(&bundle[at..at + 100]).trim_end_matches('\0').to_owned();
            let (folder, name) = name.split_once('/').unwrap();
            folder.clone_into(&mut outer.folder);
            let content = at + 512..at + 512 + octal(&bundle[at + 124..at + 136]);
            outer.entries.push((name.to_owned(), bundle[content.clone()].to_vec()));
            at = content.end.next_multiple_of(512);
        }
        outer
    }

    /// The first entry whose name begins so.
    pub fn entry(&mut self, name: &str) -> &mut Vec<u8> {
        let found = self.entries.iter_mut().find(|(entry, _)| entry.starts_with(name));
        &mut found.unwrap_or_else(|| panic!("no {name}")).1
    }

    pub fn signature(&self) -> Option<Vec<u8>> {
        self.entries.iter().find(|(name, _)| name == SIGNATURE).map(|(_, content)| content.clone())
    }

    /// Puts another signature in, or takes it away.
    pub fn sign(&mut self, signature: Option<Vec<u8>>) {
        self.entries.retain(|(name, _)| name != SIGNATURE);
        let end = self.entries.len() - 1;
        self.entries.splice(end..end, signature.map(|content| (SIGNATURE.to_owned(), content)));
    }

    /// `BLAKE3SUMS` as the entries make it.
    pub fn sums(&self) -> String {
        let named = self.entries.iter().take_while(|(name, _)| name != "BLAKE3SUMS");
        let named = named.filter(|(name, _)| !name.starts_with("bundle.key") && !name.starts_with("PADDING"));
        named.map(|(name, content)| format!("{}  {name}\n", blake3::hash(content).to_hex())).collect()
    }

    /// The bundle with sums and TRAILER that fit.
    pub fn write(self) -> Vec<u8> {
        let sums = self.sums().into_bytes();
        self.write_with(sums)
    }

    /// The bundle with these sums, whatever they say, and a TRAILER that fits them.
    pub fn write_with(mut self, sums: Vec<u8>) -> Vec<u8> {
        *self.entry("BLAKE3SUMS") = sums;
        let none = Extent::default();
        let (id, key_hash, signature_hash) = ([0; 32], [0; 32], [0; 32]);
        let mut trailer = Trailer {
            manifest: none,
            sums: none,
            key: none,
            key2: none,
            signature: none,
            id,
            key_hash,
            signature_hash,
        };
        let (mut bundle, mut key) = (Vec::new(), &[][..]);
        for (name, content) in &self.entries {
            let extent = Extent { offset: bundle.len() as u64 + 512, length: content.len() as u64 };
            let header_at = bundle.len() as u64;
            let end = (extent.offset + extent.length).next_multiple_of(512);
            match name.as_str() {
                "bundle.key.age" => (trailer.key.offset, key) = (header_at, content.as_slice()),
                "bundle.key.2.age" => trailer.key2.offset = header_at,
                "PADDING" => {
                    trailer.key.length = end - trailer.key.offset;
                    trailer.key_hash = *blake3::Hasher::new().update(key).update(content).finalize().as_bytes();
                }
                "PADDING.2" => trailer.key2.length = end - trailer.key2.offset,
                "manifest.json.zst.age" => trailer.manifest = extent,
                "BLAKE3SUMS" => (trailer.sums, trailer.id) = (extent, *blake3::hash(content).as_bytes()),
                SIGNATURE => {
                    (trailer.signature, trailer.signature_hash) = (extent, *blake3::hash(content).as_bytes());
                }
                _ => {}
            }
            let content = if name == "TRAILER" { trailer.to_bytes().to_vec() } else { content.clone() };
            bundle.extend_from_slice(&header(&format!("{}/{name}", self.folder), content.len()));
            bundle.extend_from_slice(&content);
            bundle.resize(bundle.len().next_multiple_of(512), 0);
        }
        bundle.resize(bundle.len() + 1024, 0);
        bundle
    }
}

fn header(name: &str, size: usize) -> [u8; 512] {
    let mut header = [0; 512];
    let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, "0000644");
    put(108, "0000000");
    put(116, "0000000");
    put(124, &format!("{size:011o}"));
    put(136, "00000000000");
    put(148, "        ");
    put(156, "0");
    put(257, "ustar");
    put(263, "00");
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:07o}\0").as_bytes());
    header
}

#[test]
fn what_is_not_changed_comes_back() {
    let bundle = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/format/vectors/states.pacharc"));
    let bundle = bundle.unwrap();
    assert_eq!(Outer::read(&bundle).write(), bundle);
}
