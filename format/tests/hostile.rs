//! Bundles whose author has the recipients, and lies: each part is sealed well, and together they do not hold.

// Clippy's own exception for tests knows only the test functions themselves, not what they share.
#![allow(clippy::unwrap_used)]

mod support;

use age::x25519;
use bytes::Bytes;
use pacharc_format::{
    About, BundleWriter, ChunkKey, Entry, Error, Hash, Head, IndexLine, Key, Metadata, Packing, Piece, PieceWriter,
    State, inspect,
};
use support::{Memory, chunk, lock, object, options, stream, unlock, write, write_as};

fn chunk_path(body: &[u8]) -> String {
    let Hash::Blake2b(id) = Hash::blake2b(body) else { unreachable!() };
    ChunkKey { id, generation: 1 }.key().to_path()
}

/// What a reader says of the bundle, if anything.
async fn told(bundle: &Bytes, identity: &x25519::Identity) -> Option<String> {
    stream(bundle, Some(&unlock(identity))).await.err().map(|errors| format!("{errors:?}"))
}

#[tokio::test]
async fn a_chunk_of_other_bytes_is_not_written() {
    let identity = x25519::Identity::generate();
    let options = || options(lock(&identity), 1 << 20, 1 << 20);
    let wrong = Entry::text(chunk_path(b"promised"), "delivered");
    let hashes = [None, Some(Hash::blake3(b"delivered")), Some(Hash::blake2b(b"delivered"))];
    for hash in hashes {
        let entry = Entry { hash, ..wrong.clone() };
        let mut writer = BundleWriter::create(Vec::new(), options(), Head::default()).await.unwrap();
        writer.add(entry).await.unwrap();
        assert!(writer.flush().await.is_err(), "{hash:?}");
    }
    // Nor as an object in pieces.
    let (mut pieces, first) = PieceWriter::begin(0, chunk_path(b"promised"), 9, Packing::Raw, Metadata::default());
    let entries = [first, pieces.piece("delivered".into()), pieces.finish(Hash::blake3(b"delivered"), false)];
    let mut writer = BundleWriter::create(Vec::new(), options(), Head::default()).await.unwrap();
    for entry in entries {
        writer.add(entry).await.unwrap();
    }
    assert!(writer.flush().await.is_err());
    // Marked as rotten it may stay, as what it is.
    let rotten = Entry { rotten: true, ..wrong };
    let state = |_: &IndexLine| State::Rotten;
    let (bundle, _) = write_as(vec![rotten], &[], options(), state).await;
    assert_eq!(told(&bundle, &identity).await, None);
}

#[tokio::test]
async fn a_state_that_is_not_the_entrys_is_told() {
    let identity = x25519::Identity::generate();
    let body = b"x".to_vec();
    let rotten = Entry { rotten: true, ..Entry::text(chunk_path(b"promised"), "delivered") };
    let foreign = object(&Key::from("foreign"), b"x");
    let file = Entry::text("cluster/helm/values.yaml", "x");
    let lies = [
        (rotten, vec![State::Live, State::Foreign, State::File, State::Missing]),
        (chunk(body, 1), vec![State::Rotten, State::Foreign, State::File, State::Missing]),
        (foreign, vec![State::Live, State::Rotten, State::Orphan, State::File, State::Missing]),
        (file, vec![State::Live, State::Rotten, State::Orphan, State::Foreign, State::Missing]),
    ];
    for (entry, states) in lies {
        for state in states {
            let (bundle, _) = write_as(vec![entry.clone()], &[], options(lock(&identity), 1, 1 << 20), |_| state).await;
            let told = told(&bundle, &identity).await;
            assert!(told.is_some_and(|told| !told.contains("Worker")), "{} as {state:?}", entry.path);
        }
    }
}

#[tokio::test]
async fn only_the_end_of_pieces_is_marked_as_rotten_beside_objects() {
    let identity = x25519::Identity::generate();
    let state = |line: &IndexLine| match Key::from_path(&line.path) {
        Some(_) => State::Rotten,
        None => State::File,
    };
    for marked in 0..4 {
        let (mut pieces, first) = PieceWriter::begin(0, chunk_path(b"promised"), 9, Packing::Raw, Metadata::default());
        let slice = pieces.piece("delivered".into());
        let joined = pieces.finish(Hash::blake3(b"delivered"), true);
        let file = Entry::text("cluster/helm/values.yaml", "x");
        let mut entries = vec![first, slice, file, joined];
        entries[marked].rotten = true;
        let (bundle, _) = write_as(entries, &[], options(lock(&identity), 1, 1 << 20), state).await;
        let told = told(&bundle, &identity).await;
        assert_eq!(told.is_none(), marked == 3, "{marked}: {told:?}");
    }
}

#[tokio::test]
async fn counts_that_overflow_are_told() {
    let identity = x25519::Identity::generate();
    let missing = [(chunk_path(b"1"), u64::MAX), (chunk_path(b"2"), u64::MAX)];
    let mut missing = missing.to_vec();
    missing.sort();
    let (bundle, _) =
        write_as(Vec::<Entry>::new(), &missing, options(lock(&identity), 1, 1 << 20), |_| State::File).await;
    let told = told(&bundle, &identity).await;
    assert!(told.is_some_and(|told| !told.contains("Worker")));
}

#[tokio::test]
async fn an_object_in_pieces_has_a_path_like_any_other() {
    let identity = x25519::Identity::generate();
    for path in ["../x", "/x", "database/a/VALID", "pieces/1/path", ""] {
        let (pieces, first) = PieceWriter::begin(0, path.into(), 0, Packing::Raw, Metadata::default());
        let entries = vec![first, pieces.abandon()];
        let (bundle, _) = write(entries, options(lock(&identity), 1, 1 << 20)).await;
        assert!(told(&bundle, &identity).await.is_some(), "{path:?}");
    }
    // What describes a piece is small: nobody makes a reader hold a hundred megabytes for a path.
    assert_eq!(Piece::parse("pieces/0/path", format!("{}\n1\n", "x".repeat(1 << 20)).as_bytes()), None);
    assert_eq!(Piece::parse("pieces/0/path", "\n".repeat(1 << 20).as_bytes()), None);
}

#[tokio::test]
async fn metadata_have_a_limit() {
    let identity = x25519::Identity::generate();
    let metadata = Metadata { user: [("a".into(), "x".repeat(3 << 20))].into(), ..Metadata::default() };
    let entry = Entry { metadata, ..Entry::text("objects/other/a", "x") };
    let mut writer =
        BundleWriter::create(Vec::new(), options(lock(&identity), 1, 1 << 20), Head::default()).await.unwrap();
    writer.add(entry).await.unwrap();
    assert!(matches!(writer.flush().await, Err(Error::TooLarge { .. })));
}

#[tokio::test]
async fn many_names_of_user_metadata_go_into_several_segments() {
    let identity = x25519::Identity::generate();
    let named = |n: usize, names: usize| {
        let user = (0..names).map(|name| (name.to_string(), String::new())).collect();
        let metadata = Metadata { user, ..Metadata::default() };
        Entry { metadata, ..Entry::text(Key::from(format!("{n:03}").as_str()).to_path(), "x") }
    };
    let options = || options(lock(&identity), 8 << 20, 1 << 20);
    let entries: Vec<Entry> = (0..100).map(|n| named(n, 1024)).collect();
    let (bundle, written) = write(entries.clone(), options()).await;
    assert_eq!(written.totals.segments, 2);
    let (found, _) = stream(&bundle, Some(&unlock(&identity))).await.unwrap();
    assert!(entries.iter().all(|entry| found[&entry.path].metadata == entry.metadata));

    let mut writer = BundleWriter::create(Vec::new(), options(), Head::default()).await.unwrap();
    writer.add(named(0, 1025)).await.unwrap();
    assert!(matches!(writer.flush().await, Err(Error::TooLarge { .. })));
}

#[test]
fn what_the_clear_parts_say_cannot_command_a_terminal() {
    let about = |created: &str, feature: &str| {
        format!(
            r#"{{"format":1,"bundle":"00000000-0000-0000-0000-000000000000","created":"{created}","pacharc":"0",
            "required":[{feature}],"optional":[],"largest_segment":1,"volume":1}}"#
        )
    };
    assert!(About::from_json(about("2026", "").as_bytes(), 0).is_ok());
    let told = About::from_json(about("2026\\u001b[2J", "").as_bytes(), 0);
    assert!(matches!(told, Err(Error::Damaged { .. })));
    let told = About::from_json(about("2026", "\"\\u001b[2J\"").as_bytes(), 0);
    assert!(matches!(told, Err(Error::Damaged { .. })));
}

#[tokio::test]
async fn names_and_kinds_cannot_command_a_terminal() {
    let identity = x25519::Identity::generate();
    let (bundle, _) = write(Vec::<Entry>::new(), options(lock(&identity), 1, 1 << 20)).await;
    let at = |text: &[u8]| bundle.windows(text.len()).position(|window| window == text).unwrap();
    let mut forged = bundle.to_vec();
    forged[at(b"-> X25519") + 3] = 0x1b;
    assert_eq!(inspect(&Memory(forged.into())).await.unwrap().recipients, Vec::<String>::new());
    let mut forged = bundle.to_vec();
    // The first header's name, with a checksum that fits.
    forged[3] = 0x1b;
    let mut header = tokio_tar::Header::from_byte_slice(&forged[..512]).clone();
    header.set_cksum();
    forged[..512].copy_from_slice(header.as_bytes());
    let told = stream(&forged, None).await.unwrap_err();
    assert!(matches!(told[..], [Error::NotABundle(_)]), "{told:?}");
}
