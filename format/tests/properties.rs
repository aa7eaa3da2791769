//! Whatever goes into a bundle comes out of it, through both readers, however small its segments are.

// Clippy's own exception for tests knows only the test functions themselves, not what they share.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;

use age::x25519;
use bytes::Bytes;
use futures::future::BoxFuture;
use pacharc_format::{
    BundleReader, BundleStream, BundleWriter, ChunkKey, Entry, Error, Found, Hash, Head, Key, Lock, Manifest, Metadata,
    Packing, PieceWriter, RangeReader, ReadOptions, State, Unlock, WriterOptions, manifest::Objects,
};
use proptest::prelude::*;
use uuid::Uuid;

struct Memory(Bytes);

impl RangeReader for Memory {
    fn length(&self) -> u64 {
        self.0.len() as u64
    }

    fn read(&self, offset: u64, length: usize) -> BoxFuture<'_, std::io::Result<Bytes>> {
        let offset = usize::try_from(offset).unwrap();
        Box::pin(async move { Ok(self.0.slice(offset..offset + length)) })
    }
}

/// One object or file, as a source would have it.
#[derive(Clone, Debug)]
struct Thing {
    path: String,
    body: Bytes,
    hash: Hash,
    state: State,
    packing: Packing,
    metadata: Metadata,
}

#[derive(Debug)]
struct Bundle {
    things: Vec<Thing>,
    segment_target: usize,
    entry_limit: usize,
    jobs: usize,
}

fn metadata() -> impl Strategy<Value = Metadata> {
    let text = || prop::option::weighted(0.2, any::<String>());
    let user = prop::collection::btree_map("[a-z-]{1,9}", any::<String>(), 0..3);
    // Now and then more than a block of headers.
    let long = prop_oneof![9 => Just(0_usize), 1 => 0..20_000_usize];
    (text(), text(), text(), user, long).prop_map(|(content_type, content_encoding, cache_control, mut user, long)| {
        if long > 0 {
            user.insert("long".into(), "x".repeat(long));
        }
        Metadata { content_type, content_encoding, cache_control, user, ..Metadata::default() }
    })
}

fn thing() -> impl Strategy<Value = Thing> {
    let body = || prop_oneof![prop::collection::vec(any::<u8>(), 0..200), prop::collection::vec(0_u8..2, 0..5000)];
    let packing = || prop_oneof![Just(Packing::Raw), Just(Packing::Zstd)];
    let chunk = (body(), any::<u64>(), any::<bool>(), packing()).prop_map(|(body, generation, orphan, packing)| {
        let hash = Hash::blake2b(&body);
        let Hash::Blake2b(id) = hash else { unreachable!() };
        let state = if orphan { State::Orphan } else { State::Live };
        let path = ChunkKey { id, generation }.key().to_path();
        Thing { path, body: body.into(), hash, state, packing, metadata: Metadata::default() }
    });
    let key = prop_oneof![prop::collection::vec(any::<u8>(), 0..1100), "[a-z./~%]{0,6}".prop_map(String::into_bytes)];
    let foreign = (key, body(), packing(), metadata()).prop_map(|(key, body, packing, metadata)| {
        let (path, hash) = (Key::new(key).to_path(), Hash::blake3(&body));
        Thing { path, body: body.into(), hash, state: State::Foreign, packing, metadata }
    });
    let file = ("database/[a-z]{1,4}/attempt-1/[!-.0-~]{1,150}", body()).prop_map(|(path, body)| {
        let (hash, packing) = (Hash::blake3(&body), Packing::Zstd);
        Thing { path, body: body.into(), hash, state: State::File, packing, metadata: Metadata::default() }
    });
    prop_oneof![chunk, foreign, file]
        .prop_filter("no component of dots", |thing| thing.path.split('/').all(|part| part != "." && part != ".."))
}

fn bundle() -> impl Strategy<Value = Bundle> {
    let things = prop::collection::vec(thing(), 0..25).prop_map(|things| {
        let unique: BTreeMap<_, _> = things.into_iter().map(|thing| (thing.path.clone(), thing)).collect();
        unique.into_values().collect::<Vec<_>>()
    });
    (things.prop_shuffle(), 1..20_000_usize, 100..6000_usize, 1..4_usize)
        .prop_map(|(things, segment_target, entry_limit, jobs)| Bundle { things, segment_target, entry_limit, jobs })
}

/// The entries of a thing: itself, or its pieces.
fn entries(thing: &Thing, folder: usize, limit: usize) -> Vec<Entry> {
    let Thing { path, body, hash, packing, metadata, .. } = thing.clone();
    // Only objects come in pieces; a dump's files are cut by whoever writes them.
    if body.len() <= limit || Key::from_path(&path).is_none() {
        return vec![Entry { path, body, packing, hash: Some(hash), metadata, rotten: false }];
    }
    let (mut pieces, first) = PieceWriter::begin(folder as u64, path, body.len() as u64, packing, metadata);
    let mut entries = vec![first];
    entries.extend(body.chunks(limit).map(|slice| pieces.piece(Bytes::copy_from_slice(slice))));
    entries.push(pieces.finish(hash, false));
    entries
}

async fn write(bundle: &Bundle, identity: &x25519::Identity) -> Result<Bytes, Error> {
    let options = WriterOptions {
        bundle: Uuid::new_v4(),
        created: "2026-01-01T00:00:00Z".into(),
        version: "0.0.0".into(),
        lock: Lock::Recipients(vec![Box::new(identity.to_public())]),
        jobs: bundle.jobs,
        segment_target: bundle.segment_target,
        // The texts that begin and end pieces hold a path: they are no larger than this.
        entry_limit: bundle.entry_limit.max(5000),
        sealing: 1 << 20,
        level: 1,
        temp_dir: std::env::temp_dir(),
        spool_memory: 10_000,
    };
    let mut writer = BundleWriter::create(Vec::new(), options, Head::default()).await?;
    let mut objects = Objects { closed: Some(true), ..Objects::default() };
    let mut states = BTreeMap::new();
    for (folder, thing) in bundle.things.iter().enumerate() {
        let size = thing.body.len() as u64;
        match thing.state {
            State::Live => objects.live.add(size),
            State::Orphan => objects.orphan.add(size),
            State::Foreign => objects.foreign.add(size),
            _ => {}
        }
        states.insert(thing.path.clone(), thing.state);
        for entry in entries(thing, folder, bundle.entry_limit) {
            writer.add(entry).await?;
        }
    }
    let (mut catalog, lines) = writer.finish_entries().await?;
    for line in lines {
        let (path, json) = line?;
        let (path, json) = (String::from_utf8(path).unwrap(), String::from_utf8(json).unwrap());
        catalog.push(states.get(&path).copied().unwrap_or(State::File), &path, &json).await?;
    }
    let (output, _, _) = catalog.finish(Manifest { objects: Some(objects), ..Manifest::default() }, None).await?;
    Ok(output.into())
}

/// All entries, by path; any damage is an error.
async fn stream(bundle: &[u8], unlock: Option<&Unlock>) -> Result<BTreeMap<String, Entry>, Error> {
    let options = ReadOptions { jobs: 2, memory: 10_000, temp_dir: &std::env::temp_dir() };
    let mut stream = BundleStream::open(bundle, options).await?;
    if let Some(unlock) = unlock {
        stream.unlock(unlock)?;
    }
    let mut entries = BTreeMap::new();
    while let Some(found) = stream.next().await? {
        match found {
            Found::Entries(found) => entries.extend(found.into_iter().map(|(entry, _)| (entry.path.clone(), entry))),
            Found::Damage(error) => return Err(error),
            _ => {}
        }
    }
    Ok(entries)
}

async fn check(bundle: &Bundle, flipped: prop::sample::Index) -> Result<(), Error> {
    let identity = x25519::Identity::generate();
    let unlock = Unlock::Identities(vec![Box::new(identity.clone())]);
    let bytes = write(bundle, &identity).await?;
    let entries = stream(&bytes, Some(&unlock)).await?;
    stream(&bytes, None).await?;
    let reader = BundleReader::open(Memory(bytes.clone()), &unlock).await?;
    for thing in &bundle.things {
        let line = reader.find(&thing.path).await?.expect("the catalog has every path");
        assert_eq!(line.state, thing.state);
        assert_eq!(line.entry.hash, Some(thing.hash));
        assert_eq!(line.entry.metadata, thing.metadata);
        assert_eq!(line.entry.size, thing.body.len() as u64);
        let (sought, streamed) = match line.entry.pieces {
            None => (reader.read(&line.entry).await?.to_vec(), entries[&thing.path].body.to_vec()),
            Some(pieces) => {
                let (mut sought, mut streamed) = (Vec::new(), Vec::new());
                for number in 0..pieces.count {
                    let path = format!("pieces/{}/{number:08}", pieces.folder);
                    let slice = reader.find(&path).await?.expect("the catalog has every piece");
                    sought.extend_from_slice(&reader.read(&slice.entry).await?);
                    streamed.extend_from_slice(&entries[&path].body);
                }
                (sought, streamed)
            }
        };
        assert!(sought == thing.body && streamed == thing.body, "{}", thing.path);
    }
    let mut broken = bytes.to_vec();
    let place = flipped.index(broken.len());
    broken[place] ^= 0x10;
    assert!(stream(&broken, None).await.is_err(), "byte {place} was flipped, and nobody told");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_goes_in_comes_out(bundle in bundle(), flipped in any::<prop::sample::Index>()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        runtime.block_on(check(&bundle, flipped)).unwrap();
    }
}
