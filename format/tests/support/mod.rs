//! What the tests of whole bundles share: writing them to memory, and reading them back to the end.

// Clippy's own exception for tests knows only the test functions themselves, not what they share.
#![allow(clippy::unwrap_used, dead_code, missing_docs)]

pub mod parts;

use std::collections::BTreeMap;

use age::x25519;
use bytes::Bytes;
use futures::future::BoxFuture;
use pacharc_format::{
    BundleStream, BundleWriter, ChunkKey, Entry, Error, Found, Hash, Head, IndexLine, Key, Lock, Manifest, Metadata,
    Packing, Parts, RangeReader, ReadOptions, State, Unlock, WriterOptions, Written,
    manifest::{Count, Objects},
};
use uuid::Uuid;

pub struct Memory(pub Bytes);

impl RangeReader for Memory {
    fn length(&self) -> u64 {
        self.0.len() as u64
    }

    fn read(&self, offset: u64, length: usize) -> BoxFuture<'_, std::io::Result<Bytes>> {
        let offset = usize::try_from(offset).unwrap();
        Box::pin(async move { Ok(self.0.slice(offset..offset + length)) })
    }
}

pub fn options(lock: Lock, target: usize, entry_limit: usize) -> WriterOptions {
    WriterOptions {
        bundle: Uuid::new_v4(),
        created: "2026-01-01T00:00:00Z".into(),
        version: "0.0.0".into(),
        lock,
        jobs: 2,
        segment_target: target,
        entry_limit,
        sealing: 1 << 20,
        level: 3,
        temp_dir: std::env::temp_dir(),
        spool_memory: 1 << 20,
    }
}

pub fn lock(identity: &x25519::Identity) -> Lock {
    Lock::Recipients(vec![Box::new(identity.to_public())])
}

pub fn unlock(identity: &x25519::Identity) -> Unlock {
    Unlock::Identities(vec![Box::new(identity.clone())])
}

pub fn object(key: &Key, body: &[u8]) -> Entry {
    let metadata = Metadata { content_type: Some("text/plain".into()), ..Metadata::default() };
    Entry { metadata, ..Entry::text(key.to_path(), body.to_vec()) }
}

pub fn chunk(body: Vec<u8>, generation: u64) -> Entry {
    let Hash::Blake2b(id) = Hash::blake2b(&body) else { unreachable!() };
    let key = ChunkKey { id, generation }.key();
    Entry { packing: Packing::Raw, hash: Some(Hash::Blake2b(id)), ..Entry::text(key.to_path(), body) }
}

/// Writes the entries; every object is live, or foreign where it is no chunk.
pub async fn write<E: Into<Entry<Parts>>>(entries: Vec<E>, options: WriterOptions) -> (Bytes, Written) {
    let state = |line: &IndexLine| match Key::from_path(&line.path) {
        None => State::File,
        Some(key) if key.chunk().is_some() => State::Live,
        Some(_) => State::Foreign,
    };
    write_as(entries, &[], options, state).await
}

/// Writes the entries with the states that `state` gives them, and the missing objects: path and size.
pub async fn write_as(
    entries: Vec<impl Into<Entry<Parts>>>,
    missing: &[(String, u64)],
    options: WriterOptions,
    state: impl Fn(&IndexLine) -> State,
) -> (Bytes, Written) {
    let mut writer = BundleWriter::create(Vec::new(), options, Head::default()).await.unwrap();
    for entry in entries {
        writer.add(entry).await.unwrap();
    }
    let (mut catalog, lines) = writer.finish_entries().await.unwrap();
    let mut counts: BTreeMap<&str, Count> = BTreeMap::new();
    let mut count = |state, size| {
        let name = match state {
            State::File => return,
            State::Live | State::Object => "live",
            State::Orphan => "orphan",
            State::Foreign => "foreign",
            State::Rotten => "rotten",
            State::Missing => "missing",
        };
        let count = counts.entry(name).or_default();
        (count.count, count.bytes) = (count.count + 1, count.bytes.wrapping_add(size));
    };
    for line in lines {
        let (path, json) = line.unwrap();
        let (path, json) = (String::from_utf8(path).unwrap(), String::from_utf8(json).unwrap());
        let line: IndexLine = serde_json::from_str(&json).unwrap();
        count(state(&line), line.size);
        catalog.push(state(&line), &path, &json).await.unwrap();
    }
    // Their paths come after all others in these tests.
    for (path, size) in missing {
        count(State::Missing, *size);
        catalog.push_missing(path, *size).await.unwrap();
    }
    let of = |name| counts.get(name).copied().unwrap_or_default();
    let objects = Objects {
        closed: Some(of("missing").count == 0 && of("rotten").count == 0),
        live: of("live"),
        orphan: of("orphan"),
        foreign: of("foreign"),
        rotten: of("rotten"),
        missing: of("missing"),
        ..Objects::default()
    };
    let manifest = Manifest { objects: Some(objects), ..Manifest::default() };
    let (output, written, _) = catalog.finish(manifest, None).await.unwrap();
    assert_eq!(written.bytes, output.len() as u64);
    (output.into(), written)
}

/// Reads front to back; gives what was in it, and the id.
pub async fn stream(bundle: &[u8], key: Option<&Unlock>) -> Result<(BTreeMap<String, Entry>, String), Vec<Error>> {
    let options = ReadOptions { jobs: 2, memory: 1 << 20, temp_dir: &std::env::temp_dir() };
    let mut stream = BundleStream::open(bundle, options).await.map_err(|e| vec![e])?;
    if let Some(key) = key {
        stream.unlock(key).map_err(|e| vec![e])?;
    }
    let (mut entries, mut damage, mut end) = (BTreeMap::new(), Vec::new(), None);
    loop {
        match stream.next().await {
            Ok(Some(Found::Entries(found))) => {
                entries.extend(found.into_iter().map(|(entry, _)| (entry.path.clone(), entry)));
            }
            Ok(Some(Found::Damage(error))) => damage.push(error),
            Ok(Some(Found::End { id, bytes, .. })) => {
                assert_eq!(bytes, bundle.len() as u64);
                end = Some(id);
            }
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(error) => {
                damage.push(error);
                break;
            }
        }
    }
    match end {
        Some(id) if damage.is_empty() => Ok((entries, id)),
        _ => Err(damage),
    }
}

pub fn odd_entries() -> Vec<Entry> {
    let mut entries = vec![
        Entry::text("database/pachyderm/attempt-1/pre-data.sql", "SELECT 1;\n"),
        chunk(Vec::new(), 7),
        chunk(vec![7; 100_000], 8),
    ];
    for odd in ["../../etc/x", "/abs", "a//b", "a/", "a", "a/b", "a\nb", "é🦀", "", ".", "..", "%41", "a.attrs"] {
        entries.push(object(&Key::from(odd), odd.as_bytes()));
    }
    entries.push(object(&Key::new([0xff, 0xfe, b'/', 0]), b"not UTF-8"));
    entries.push(object(&Key::new(vec![b'k'; 1024]), b"long"));
    entries.push(object(&Key::new(vec![b'.'; 1024]), b"dots"));
    entries
}
