//! What the vectors hold.

use std::collections::BTreeMap;

use bytes::Bytes;
use pacharc_format::manifest::{
    Database, DatabaseKind, DatabaseProperties, DatabaseSetting, Extension, LargeObjects, Manifest, Postgres, Sequence,
    Source, Table,
};
use pacharc_format::{ChunkKey, Entry, Hash, Head, HeadDatabase, Key, Metadata, Packing, PieceWriter, State};

/// The vectors, each with a test of this name.
pub const NAMES: [&str; 11] = [
    "empty",
    "zero-bytes",
    "hostile-keys",
    "pieces",
    "many-blocks",
    "passphrase",
    "several-recipients",
    "states",
    "metadata",
    "databases",
    "signed",
];

/// One bundle to be made.
pub struct Case {
    pub what: &'static str,
    /// Files of `vectors/keys/`, any one of which opens it.
    pub unlock: &'static [&'static str],
    /// A file of `vectors/keys/` without its ending: `.key` signs it, `.pub` checks that.
    pub signed_by: Option<&'static str>,
    pub segment_target: usize,
    pub entry_limit: usize,
    /// In the order in which they are written.
    pub entries: Vec<Entry>,
    /// By path; where there is none: live for chunks, foreign for other objects.
    pub states: BTreeMap<String, State>,
    /// Live objects that the bucket did not have, with their sizes.
    pub missing: Vec<(Key, u64)>,
    pub head: Head,
    pub manifest: Manifest,
}

impl Case {
    fn new(what: &'static str, entries: Vec<Entry>) -> Self {
        Self {
            what,
            unlock: &["x25519.txt"],
            signed_by: None,
            segment_target: 1 << 20,
            entry_limit: 1 << 20,
            entries,
            states: BTreeMap::new(),
            missing: Vec::new(),
            head: Head::default(),
            manifest: Manifest::default(),
        }
    }
}

pub fn case(name: &str) -> Case {
    match name {
        "empty" => Case::new("no entries at all: no segment, no index shard, no catalog", Vec::new()),
        "zero-bytes" => Case::new("one object of zero bytes", vec![object("zero", "")]),
        "hostile-keys" => Case::new("keys that no file system likes", hostile_keys()),
        "pieces" => {
            let case =
                Case::new("objects in pieces, one of them given up and begun again, two of them mingled", pieces());
            Case { segment_target: 4000, entry_limit: 4000, ..case }
        }
        "many-blocks" => {
            let case = Case::new("several segments, index shards and blocks of the catalog", many_blocks());
            Case { segment_target: 256 << 10, ..case }
        }
        "passphrase" => {
            let case = Case::new("locked with a passphrase", vec![object("a", "b")]);
            Case { unlock: &["passphrase.txt"], ..case }
        }
        "several-recipients" => {
            let case = Case::new("locked to two X25519 keys and one of ssh-ed25519", vec![object("a", "b")]);
            Case { unlock: &["x25519.txt", "x25519-second.txt", "ssh-ed25519.txt"], ..case }
        }
        "states" => states(),
        "metadata" => Case::new("what a store keeps beside an object", metadata()),
        "databases" => databases(),
        "signed" => {
            let case = Case::new("signed with a key of minisign's", vec![object("a", "b"), chunk(b"c", 1)]);
            Case { signed_by: Some("minisign"), ..case }
        }
        _ => panic!("there is no vector {name}"),
    }
}

fn object(key: &str, body: &str) -> Entry {
    Entry::text(Key::from(key).to_path(), body.to_owned())
}

fn chunk(body: &[u8], generation: u64) -> Entry {
    let (key, hash) = chunk_key(body, generation);
    Entry { packing: Packing::Raw, hash: Some(hash), ..Entry::text(key.to_path(), body.to_vec()) }
}

fn chunk_key(body: &[u8], generation: u64) -> (Key, Hash) {
    let hash = Hash::blake2b(body);
    let Hash::Blake2b(id) = hash else { unreachable!() };
    (ChunkKey { id, generation }.key(), hash)
}

fn hostile_keys() -> Vec<Entry> {
    let texts = [
        "../../etc/x",
        "/abs",
        "a//b",
        "a/",
        "a",
        "a/b",
        "line\nend",
        "é🦀",
        "",
        ".",
        "..",
        "~",
        "%",
        "%41",
        "a~/b",
        "chunk/",
        "chunk/near.miss",
        "a b",
        "back\\slash",
        "a.attrs",
        "-rf",
        "$(x)`y`",
        "\u{202e}txt",
    ];
    let long = |length| Key::new(vec![b'k'; length]);
    let mut keys: Vec<Key> = texts.into_iter().map(Key::from).collect();
    keys.extend([long(199), long(200), long(201), long(400), long(1024), long(Key::MAX)]);
    keys.push(Key::new(vec![b'.'; 202]));
    keys.push(Key::new([0xff, 0xfe, b'/', 0x80]));
    keys.push(Key::new([b'n', 0, b'l']));
    keys.push(Key::new(vec![0xc3; 1024]));
    // Upper case, and a digit too few: no chunk's key.
    keys.push(Key::new(format!("chunk/{}.{:016x}", "AB".repeat(32), 1)));
    keys.push(Key::new(format!("chunk/{}.{:015x}", "ab".repeat(32), 1)));
    let entry = |key: Key| Entry::text(key.to_path(), key.as_bytes().to_vec());
    let mut entries: Vec<Entry> = keys.into_iter().map(entry).collect();
    entries.push(chunk(b"a chunk", u64::MAX));
    entries
}

fn pieces() -> Vec<Entry> {
    let text: Vec<u8> = (0..2_500_u32).flat_map(|n| format!("{n}\n").into_bytes()).collect();
    let noise: Vec<u8> = (0..300_u32).flat_map(|n| *blake3::hash(&n.to_le_bytes()).as_bytes()).collect();
    let (chunk, chunk_hash) = chunk_key(&noise, 1);
    let metadata = Metadata { content_type: Some("text/plain".into()), ..Metadata::default() };
    let large = Key::from("large");
    let begin =
        |folder| PieceWriter::begin(folder, large.to_path(), text.len() as u64, Packing::Zstd, metadata.clone());
    let slices = |body: &[u8]| body.chunks(4000).map(Bytes::copy_from_slice).collect::<Vec<_>>();

    let (mut given_up, first) = begin(0);
    let mut entries = vec![first, given_up.piece(slices(&text).swap_remove(0)), given_up.abandon()];
    let (mut again, first) = begin(1);
    let (mut raw, raw_first) =
        PieceWriter::begin(2, chunk.to_path(), noise.len() as u64, Packing::Raw, Metadata::default());
    entries.extend([first, raw_first]);
    let mut mingled = (slices(&text).into_iter(), slices(&noise).into_iter());
    loop {
        let next = (mingled.0.next(), mingled.1.next());
        if next == (None, None) {
            break;
        }
        entries.extend(next.0.map(|slice| again.piece(slice)));
        entries.extend(next.1.map(|slice| raw.piece(slice)));
    }
    entries.extend([again.finish(Hash::blake3(&text), false), raw.finish(chunk_hash, false), object("small", "whole")]);
    entries
}

/// Long metadata that compress well: megabytes of lines in a small file.
fn many_blocks() -> Vec<Entry> {
    let entry = |n: u32| {
        let user = BTreeMap::from([("filler".to_owned(), format!("{n:04}").repeat(2000))]);
        Entry { metadata: Metadata { user, ..Metadata::default() }, ..object(&format!("key/{n:04}"), &n.to_string()) }
    };
    (0..330).map(|n| entry(n * 7919 % 330)).collect()
}

fn states() -> Case {
    let rotten = Entry { hash: None, rotten: true, body: Bytes::from_static(b"bent"), ..chunk(b"straight", 4) };
    let orphan = chunk(b"orphan", 2);
    let states = BTreeMap::from([(orphan.path.clone(), State::Orphan), (rotten.path.clone(), State::Rotten)]);
    let entries =
        vec![chunk(b"live", 1), chunk(b"live", 7), chunk(b"", 3), orphan, rotten, object("test/self-test", "test")];
    let missing = vec![(chunk_key(b"gone", 5).0, 4), (chunk_key(b"gone too", 6).0, 8)];
    Case { states, missing, ..Case::new("live, orphan, foreign, rotten and missing objects: not closed", entries) }
}

fn metadata() -> Vec<Entry> {
    let user = [("a", "b"), ("quote", "\"\\"), ("unicode", "é🦀\u{2028}"), ("control", "\u{1}\n\t"), ("empty", "")];
    let full = Metadata {
        content_type: Some("text/plain; charset=utf-8".into()),
        content_encoding: Some("gzip".into()),
        content_disposition: Some("attachment; filename=\"x\"".into()),
        content_language: Some("de".into()),
        cache_control: Some("no-store".into()),
        user: user.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
    };
    let octets = Metadata { content_type: Some("application/octet-stream".into()), ..Metadata::default() };
    vec![
        Entry { metadata: full, ..object("full", "1") },
        Entry { metadata: octets, ..chunk(b"2", 2) },
        object("none", "3"),
    ]
}

/// A dump in miniature, and a manifest with every field.
fn databases() -> Case {
    let file = |name: &str, body: &str| Entry::text(format!("database/a%20b/{name}"), body.to_owned());
    let properties = DatabaseProperties {
        encoding: "UTF8".into(),
        collate: "C.UTF-8".into(),
        ctype: "C.UTF-8".into(),
        locale_provider: "icu".into(),
        locale: Some("de-DE".into()),
        icu_rules: Some("& a < b".into()),
        owner: "owner".into(),
        comment: Some("a comment".into()),
        timezone: "Europe/Berlin".into(),
        settings: vec![
            DatabaseSetting { role: None, name: "work_mem".into(), value: "1MB".into() },
            DatabaseSetting { role: Some("owner".into()), name: "search_path".into(), value: "\"$user\", s".into() },
        ],
        extensions: vec![Extension { name: "pg_trgm".into(), version: "1.6".into(), schema: "public".into() }],
        policy_roles: vec!["auditor".into()],
    };
    let postgres = Postgres {
        version: "15.18 (Debian 15.18-0+deb12u1)".into(),
        version_num: 150_018,
        system_identifier: Some("7482093448712345678".into()),
        host: "db.example:5432".into(),
        standby: true,
        replay_lag: Some(0),
    };
    let copy = "COPY \"public\".\"t\" (\"n\") FROM stdin;\n1\n2\n\\.\n";
    let mut fingerprint = pacharc_format::Fingerprint::default();
    fingerprint.line(b"1");
    fingerprint.line(b"2");
    let mut large_object = pacharc_format::Fingerprint::default();
    large_object.line(&[0, 0, 0x12, 0x67, b'x']);
    let table = Table {
        number: 1,
        schema: "public".into(),
        name: "t".into(),
        columns: vec!["n".into()],
        root: Some(("public".into(), "root".into())),
        via_root: false,
        extension_filter: None,
        rows: 2,
        bytes: 4,
        pieces: 1,
        fingerprint: fingerprint.to_hex(),
        broken_row: None,
    };
    let database = Database {
        name: "a b".into(),
        folder: "a%20b".into(),
        kind: DatabaseKind::Other,
        schema_version: Some(9),
        properties: properties.clone(),
        session: vec![("client_encoding".into(), "UTF8".into()), ("TimeZone".into(), "UTC".into())],
        pg_dump: "15.18".into(),
        tables: vec![table],
        sequences: vec![Sequence { schema: "public".into(), name: "s".into(), last_value: -7, is_called: true }],
        large_objects: LargeObjects { count: 1, bytes: 1, fingerprint: large_object.to_hex() },
        left_out: vec!["publication p".into()],
    };
    let head_database = HeadDatabase {
        name: "a b".into(),
        folder: "a%20b".into(),
        kind: DatabaseKind::Other,
        schema_version: Some(9),
        properties,
    };
    let head = Head {
        postgres: Some(postgres.clone()),
        databases: vec![head_database],
        estimated_bytes: Some(12),
        ..Head::default()
    };
    let source = Source {
        postgres: Some(postgres),
        bucket: None,
        quiesce: "online".into(),
        pause: None,
        pachyderm: None,
        snapshot_opened: Some("2026-01-01T00:00:01Z".into()),
        snapshots: 2,
        cluster: None,
    };
    let manifest = Manifest { source, databases: vec![database], attempt: 2, ..Manifest::default() };
    let entries = vec![
        file("attempt-1/settings.json", "{}\n"),
        file("attempt-2/settings.json", "{}\n"),
        file("attempt-2/pre-data.sql", "CREATE TABLE \"public\".\"t\" (\"n\" integer);\n"),
        file("attempt-2/tables.tsv", "00001\tpublic\tt\n"),
        file("attempt-2/data/00001/00000000", copy),
        file("attempt-2/sequences.sql", "SELECT pg_catalog.setval('\"public\".\"s\"', -7, true);\n"),
        file("attempt-2/post-data.sql", ""),
        file("attempt-2/create.sql", "CREATE DATABASE \"a b\" TEMPLATE template0;\n"),
        file("VALID", "attempt-2\n"),
    ];
    let case = Case::new("two attempts at a database, and a manifest with every field", entries);
    Case { head, manifest, ..case }
}
