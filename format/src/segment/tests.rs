//! Segments by themselves: what their size is foretold to be, their limits, and that bytes are what their hash says.

use super::*;

const FORM: Form = Form { bundle: Uuid::nil(), level: 1 };

/// The tar of a segment with this one entry, and what was foretold of its size.
fn tar(entry: Entry) -> (Bytes, usize) {
    let key = BundleKey::generate();
    let mut builder = SegmentBuilder::default();
    builder.push(entry);
    let foretold = builder.bytes;
    let sealed = builder.seal(&key, 0, Packing::Raw, &FORM).unwrap();
    (key.open(Packing::Raw, sealed.sealed.into_bytes(), usize::MAX).unwrap(), foretold)
}

#[test]
fn a_size_is_foretold_a_little_too_large() {
    let metadata = |bytes| Metadata { user: [("a".into(), "x".repeat(bytes))].into(), ..Metadata::default() };
    let around = global_header(FORM.bundle, 0).unwrap().len() + END;
    for path in [1, 99, 100, 101, 400, 511, 512, 513, 5000, PATH_MAX] {
        for body in [0, 1, 511, 512, 513, 5000] {
            for metadata in [Metadata::default(), metadata(1), metadata(500), metadata(5000)] {
                let (tar, foretold) = tar(Entry { metadata, ..Entry::text("x".repeat(path), vec![b'x'; body]) });
                let taken = tar.len() - around;
                assert!((taken..taken + 1300).contains(&foretold), "{path}, {body}: {taken}, {foretold}");
            }
        }
    }
}

fn opened(tar: &[u8]) -> Result<Vec<(Entry, IndexLine)>> {
    let place = SegmentPlace { number: 0, packing: Packing::Raw, offset: 9 };
    unpack(FORM.bundle, place, 7, &Bytes::copy_from_slice(tar), &Prover::default())
}

#[test]
fn bytes_are_what_their_hash_says() {
    let (plain, _) = tar(Entry::text("some/path", "some bytes"));
    let (entry, line) = opened(&plain).unwrap().swap_remove(0);
    assert_eq!((entry.path.as_str(), &entry.body[..]), ("some/path", &b"some bytes"[..]));
    let place = line.place.unwrap();
    assert_eq!((place.offset, place.length, place.segment), (9, 7, 0));
    let mut changed = plain.to_vec();
    changed[usize::try_from(place.at).unwrap() + 3] ^= 1;
    match opened(&changed) {
        Err(Error::Damaged { what, offset: 9, .. }) => assert!(what.contains("do not have the hash"), "{what}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_path_that_fits_into_its_header_stands_there_alone() {
    for (length, kind) in [(100, EntryType::Regular), (101, EntryType::XHeader)] {
        let line = IndexLine {
            path: "x".repeat(length),
            size: 1,
            hash: None,
            place: None,
            pieces: None,
            metadata: Metadata::default(),
            rotten: false,
        };
        let headers = entry_headers(&line).unwrap();
        assert_eq!(Header::from_byte_slice(&headers[..BLOCK_LENGTH]).entry_type(), kind, "{length}");
    }
}

#[test]
fn what_a_segment_takes_is_known_before() {
    let mut builder = SegmentBuilder::default();
    assert!(builder.is_empty());
    builder.push(Entry::text("a", "x"));
    builder.push(Entry::text("b", "y"));
    assert!(!builder.is_empty() && builder.bytes > 2048);
    assert_eq!(builder.memory(), builder.bytes + 2048);
    assert!(builder.is_full(builder.bytes) && !builder.is_full(builder.bytes + 1));
}

#[test]
fn the_names_of_user_metadata_have_their_limits() {
    let named = |count: usize| {
        let user = (0..count).map(|n| (n.to_string(), String::new())).collect();
        Entry { metadata: Metadata { user, ..Metadata::default() }, ..Entry::text("a", "x") }
    };
    let key = BundleKey::generate();
    let sealed = |entries: Vec<Entry>| {
        let mut builder = SegmentBuilder::default();
        entries.into_iter().for_each(|entry| builder.push(entry));
        let sealed = builder.seal(&key, 0, Packing::Raw, &FORM)?;
        Ok::<_, Error>(key.open(Packing::Raw, sealed.sealed.into_bytes(), usize::MAX).unwrap())
    };
    assert!(sealed(vec![named(NAMES_MAX)]).is_ok());
    assert!(matches!(sealed(vec![named(NAMES_MAX + 1)]), Err(Error::TooLarge { .. })));
    // Whoever writes ends a segment before it has more than a reader takes.
    let mut builder = SegmentBuilder::default();
    let mut written = Vec::new();
    while !builder.is_full(usize::MAX) {
        builder.push(named(1000));
        written.push(named(1000));
    }
    assert_eq!(written.len(), 65);
    assert_eq!(opened(&sealed(written.clone()).unwrap()).unwrap().len(), 65);
    written.push(named(SEGMENT_NAMES - 65_000));
    assert!(opened(&sealed(written.clone()).unwrap()).is_ok());
    written.push(named(1));
    assert!(matches!(opened(&sealed(written).unwrap()), Err(Error::Damaged { .. })));
}

#[test]
fn records_may_be_as_long_as_their_limit() {
    let most = usize::try_from(RECORDS_MAX).unwrap();
    let with = |bytes: usize| {
        let metadata = Metadata { user: [("a".into(), "x".repeat(bytes))].into(), ..Metadata::default() };
        let mut builder = SegmentBuilder::default();
        builder.push(Entry { metadata, ..Entry::text("a", "x") });
        let key = BundleKey::generate();
        let sealed = builder.seal(&key, 0, Packing::Raw, &FORM).ok()?;
        Some(key.open(Packing::Raw, sealed.sealed.into_bytes(), usize::MAX).unwrap())
    };
    let longest = (most - 400..most).rev().find_map(with).unwrap();
    let local = global_header(FORM.bundle, 0).unwrap().len();
    let header = Header::from_byte_slice(&longest[local..local + BLOCK_LENGTH]);
    assert_eq!(header.raw_entry_size().unwrap(), RECORDS_MAX, "each byte more is a byte more");
    assert_eq!(opened(&longest).unwrap().len(), 1);
}

#[test]
fn records_and_paths_have_their_limits() {
    let fits = |entry: Entry| {
        let mut builder = SegmentBuilder::default();
        builder.push(entry);
        builder.seal(&BundleKey::generate(), 0, Packing::Raw, &FORM).is_ok()
    };
    // What stands around the value: `262144 PACHARC.metadata={"user":{"a":""}}`, the hash, and line ends.
    let hash = "80 PACHARC.hash=".len() + 67 + 1;
    let room = usize::try_from(RECORDS_MAX).unwrap() - hash - r#"262059 PACHARC.metadata={"user":{"a":""}}"#.len() - 1;
    for (bytes, fit) in [(room, true), (room + 1, false), (2 * room, false)] {
        let metadata = Metadata { user: [("a".into(), "x".repeat(bytes))].into(), ..Metadata::default() };
        assert_eq!(fits(Entry { metadata, ..Entry::text("a", "x") }), fit, "{bytes}");
    }
    assert!(fits(Entry::text("x".repeat(PATH_MAX), "x")));
    assert!(!fits(Entry::text("x".repeat(PATH_MAX + 1), "x")));
}
