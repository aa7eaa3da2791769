//! A bundle made by the format's own writer: a few entries of every kind, in many segments, an object in pieces among them,
//! which a backup would make of large ones alone.

use std::collections::BTreeMap;

use age::x25519;
use pacharc_format::manifest::{Count, Database, Manifest, Objects, Table};
use pacharc_format::{
    BundleWriter, ChunkKey, Entry, Fingerprint, Hash, Head, HeadDatabase, IndexLine, Key, Lock, Metadata, Packing,
    PieceWriter, State, WriterOptions,
};
use uuid::Uuid;

/// A bundle, and what is in it.
pub struct Crafted {
    pub bundle: Vec<u8>,
    /// Every file of the tree that an extraction of all but `pieces` gives, objects in pieces joined.
    pub files: BTreeMap<String, Vec<u8>>,
}

/// A table's rows, a schema, files of a namespace, chunks, a foreign object, an object in two pieces.
pub async fn craft(recipient: &str, seed: u8) -> Crafted {
    craft_with(recipient, seed, |_| ()).await
}

/// The same, by an author who lies in the manifest.
pub async fn craft_with(recipient: &str, seed: u8, lie: impl FnOnce(&mut Manifest)) -> Crafted {
    craft_of(recipient, seed, |_| (), lie).await
}

/// The same, by an author who loses entries on their way into the bundle, or writes others, and may lie in the manifest.
pub async fn craft_of(
    recipient: &str,
    seed: u8,
    alter: impl FnOnce(&mut Vec<Entry>),
    lie: impl FnOnce(&mut Manifest),
) -> Crafted {
    let recipient: x25519::Recipient = recipient.parse().unwrap();
    let options = WriterOptions {
        bundle: Uuid::from_bytes([seed | 0x40; 16]),
        created: "2026-01-01T00:00:00Z".into(),
        version: "0.0.0".into(),
        lock: Lock::Recipients(vec![Box::new(recipient)]),
        jobs: 1,
        segment_target: 1500,
        entry_limit: 1 << 20,
        sealing: 4 << 20,
        level: 3,
        temp_dir: std::env::temp_dir(),
        spool_memory: 1 << 20,
    };
    let row = format!("row {seed}");
    let mut entries = vec![
        Entry::text("cluster/helm/values.yaml", "a: 1\n"),
        Entry::text("database/pachyderm/VALID", "attempt-1\n"),
        Entry::text("database/pachyderm/attempt-1/pre-data.sql", "CREATE SCHEMA pfs;\n"),
        Entry::text("database/pachyderm/attempt-1/sequences.sql", "-- none\n"),
        Entry::text("database/pachyderm/attempt-1/post-data.sql", "-- none\n"),
        Entry::text(
            "database/pachyderm/attempt-1/data/00012/00000000",
            format!("COPY pfs.commits (row) FROM stdin;\n{}\\.\n", format!("{row}\n").repeat(50)),
        ),
        Entry::text(Key::from("foreign").to_path(), vec![seed; 300]),
    ];
    for generation in 1..9 {
        let body = [seed, u8::try_from(generation).unwrap()].repeat(400);
        let Hash::Blake2b(id) = Hash::blake2b(&body) else { unreachable!() };
        let path = ChunkKey { id, generation }.key().to_path();
        entries.push(Entry { packing: Packing::Raw, hash: Some(Hash::Blake2b(id)), ..Entry::text(path, body) });
    }
    let mut files: BTreeMap<String, Vec<u8>> =
        entries.iter().map(|entry| (entry.path.clone(), entry.body.to_vec())).collect();
    let (large, halves) = (Key::from("large").to_path(), [vec![seed; 3000], vec![!seed; 3000]]);
    let (mut pieces, begin) = PieceWriter::begin(0, large.clone(), 6000, Packing::Raw, Metadata::default());
    let whole = halves.concat();
    // Others lie between the pieces, so that each has a segment of its own.
    let second = entries.split_off(6);
    let mut all: Vec<Entry> = std::iter::once(begin)
        .chain([pieces.piece(halves[0].clone().into())])
        .chain(entries)
        .chain([pieces.piece(halves[1].clone().into())])
        .chain(second)
        .chain([pieces.finish(Hash::blake3(&whole), false)])
        .collect();
    files.insert(large, whole);
    alter(&mut all);

    let head = Head {
        bundle: options.bundle,
        bucket: Some("s3://source".into()),
        databases: vec![HeadDatabase {
            name: "pachyderm".into(),
            folder: "pachyderm".into(),
            ..HeadDatabase::default()
        }],
        ..Head::default()
    };
    let mut writer = BundleWriter::create(Vec::new(), options, head).await.unwrap();
    for entry in all {
        writer.add(entry).await.unwrap();
    }
    let (mut catalog, lines) = writer.finish_entries().await.unwrap();
    let (mut live, mut foreign) = (Count::default(), Count::default());
    for line in lines {
        let (path, json) = line.unwrap();
        let (path, json) = (String::from_utf8(path).unwrap(), String::from_utf8(json).unwrap());
        let line: IndexLine = serde_json::from_str(&json).unwrap();
        let count = |count: &mut Count| (count.count, count.bytes) = (count.count + 1, count.bytes + line.size);
        let state = match Key::from_path(&path) {
            None => State::File,
            Some(key) if key.chunk().is_some() => {
                count(&mut live);
                State::Live
            }
            Some(_) => {
                count(&mut foreign);
                State::Foreign
            }
        };
        catalog.push(state, &path, &json).await.unwrap();
    }
    let mut fingerprint = Fingerprint::default();
    (0..50).for_each(|_| fingerprint.line(row.as_bytes()));
    let table = Table {
        number: 12,
        schema: "pfs".into(),
        name: "commits".into(),
        columns: vec!["row".into()],
        rows: 50,
        bytes: 50 * (row.len() as u64 + 1),
        pieces: 1,
        fingerprint: fingerprint.to_hex(),
        ..Table::default()
    };
    let database =
        Database { name: "pachyderm".into(), folder: "pachyderm".into(), tables: vec![table], ..Database::default() };
    let objects = Objects { closed: Some(true), live, foreign, ..Objects::default() };
    let mut manifest =
        Manifest { objects: Some(objects), databases: vec![database], attempt: 1, ..Manifest::default() };
    lie(&mut manifest);
    let (bundle, ..) = catalog.finish(manifest, None).await.unwrap();
    Crafted { bundle, files }
}
