//! Each thing that must agree, made to disagree by itself.

use super::*;
use crate::index::{Pieces, Place};
use crate::key::ChunkKey;
use crate::{Metadata, Packing, PieceWriter};

const CHUNK: &str = "objects/chunk/0e5751c026e543b2e8ab2eb06099daa1d1e5df47778f7787faab45cdf12fe3a8.000000000000002a";
const FOREIGN: &str = "objects/other/notes";
const FILE: &str = "cluster/helm/values.yaml";
/// The end of an object in pieces, which may be rotten; and what only looks like one.
const JOINED: &str = "pieces/12/joined";
const NOT_JOINED: [&str; 5] =
    ["pieces/12/path", "pieces/12/00000000", "pieces/012/joined", "pieces/x/joined", "pieces/12/joined/joined"];
/// Below `objects/`, and the path of no key.
const NEITHER: &str = "objects/notes";
const PLACE: Place = Place { segment: 0, zstd: true, offset: 512, length: 300, at: 1024 };
const PIECES: Pieces = Pieces { folder: 0, count: 2 };

fn index_line(path: &str, size: u64) -> IndexLine {
    IndexLine {
        path: path.to_owned(),
        size,
        hash: Some(Hash::blake3(b"x")),
        place: Some(PLACE),
        pieces: None,
        metadata: Metadata::default(),
        rotten: false,
    }
}

fn catalog_line(state: State, path: &str, size: u64) -> CatalogLine {
    let entry = index_line(path, size);
    let is_missing = state == State::Missing;
    let (hash, place) = if is_missing { (None, None) } else { (entry.hash, entry.place) };
    CatalogLine { state, entry: IndexLine { hash, place, rotten: state == State::Rotten, ..entry } }
}

/// Takes an object in pieces at the key of the chunk `promised`.
fn take(promised: &[u8], body: &'static str, hash: Hash, rotten: bool) -> Result<(), String> {
    let Hash::Blake2b(id) = Hash::blake2b(promised) else { unreachable!() };
    let path = ChunkKey { id, generation: 1 }.key().to_path();
    let (mut pieces, first) = PieceWriter::begin(0, path, body.len() as u64, Packing::Raw, Metadata::default());
    let mut check = EntryCheck::default();
    let entries = [first, pieces.piece(body.into()), pieces.finish(hash, rotten)];
    entries.into_iter().try_for_each(|entry| {
        let line = IndexLine {
            path: entry.path.clone(),
            size: entry.body.len() as u64,
            hash: None,
            place: None,
            pieces: None,
            metadata: entry.metadata.clone(),
            rotten: entry.rotten,
        };
        check.entry(&entry, &line)
    })
}

#[test]
fn a_chunk_in_pieces_is_what_its_key_promises() {
    assert_eq!(take(b"x", "x", Hash::blake2b(b"x"), false), Ok(()));
    assert_eq!(take(b"x", "y", Hash::blake3(b"y"), true), Ok(()));
    for (body, hash, rotten) in [
        ("y", Hash::blake3(b"y"), false),
        ("y", Hash::blake2b(b"y"), false),
        ("y", Hash::blake2b(b"y"), true),
        ("x", Hash::blake3(b"x"), false),
        ("y", Hash::blake2b(b"x"), false),
    ] {
        assert!(take(b"x", body, hash, rotten).is_err(), "{body} {hash} {rotten}");
    }
}

#[test]
fn only_what_can_be_in_a_state_is_in_it() {
    let allowed = [
        (State::File, FILE, false),
        (State::File, JOINED, false),
        (State::File, JOINED, true),
        (State::Live, CHUNK, false),
        (State::Rotten, CHUNK, true),
        (State::Orphan, CHUNK, false),
        (State::Orphan, CHUNK, true),
        (State::Foreign, FOREIGN, false),
        (State::Object, CHUNK, false),
        (State::Object, CHUNK, true),
        (State::Object, FOREIGN, false),
        (State::Object, FOREIGN, true),
    ];
    let states =
        [State::File, State::Live, State::Orphan, State::Foreign, State::Rotten, State::Missing, State::Object];
    for state in states {
        for path in [FILE, CHUNK, FOREIGN, NEITHER, JOINED] {
            for bits in 0..16 {
                let [hashed, placed, cut, rotten] = [1, 2, 4, 8].map(|bit| bits & bit != 0);
                let entry = IndexLine {
                    hash: hashed.then(|| Hash::blake3(b"x")),
                    place: placed.then_some(PLACE),
                    pieces: cut.then_some(PIECES),
                    rotten,
                    ..index_line(path, 1)
                };
                let expected = match state {
                    State::Missing => path == CHUNK && bits == 0,
                    _ => hashed && placed != cut && allowed.contains(&(state, path, rotten)),
                };
                let line = CatalogLine { state, entry };
                assert_eq!(is_possible(&line), expected, "{line:?}");
            }
        }
    }
    for path in NOT_JOINED {
        let mut line = catalog_line(State::File, path, 1);
        assert!(is_possible(&line), "{path}");
        line.entry.rotten = true;
        assert!(!is_possible(&line), "{path}");
    }
}

#[test]
fn lines_come_in_order_and_once() {
    let mut check = CatalogCheck::default();
    let mut take = |path: &str| check.line(&catalog_line(State::File, path, 1), "");
    assert_eq!(take("b"), Ok(()));
    assert_eq!(take("c"), Ok(()));
    assert!(take("c").is_err() && take("b").is_err() && take("a").is_err());
    assert_eq!(take("d"), Ok(()));
    assert!(check.line(&catalog_line(State::Live, FILE, 1), "").is_err());
    // Whatever bytes a line tells, they are added up without wrapping round.
    let mut check = CatalogCheck::default();
    assert_eq!(check.line(&catalog_line(State::File, "a", u64::MAX - 1), ""), Ok(()));
    assert!(check.line(&catalog_line(State::File, "b", 1), "").is_err());
}

fn block(number: u64) -> CatalogBlock {
    CatalogBlock { first: String::new(), number, offset: 1, length: 2, hash: String::new() }
}

#[test]
fn a_directory_names_the_blocks_since_the_last_one() {
    let line = |number| serde_json::to_string(&block(number)).unwrap();
    let of = |told: &[u64]| {
        let mut check = CatalogCheck::default();
        for number in 0..3 {
            check.block(&block(number)).unwrap();
        }
        let lines: Vec<_> = told.iter().map(|&number| line(number)).collect();
        check.directory(&block(7), lines.iter().map(String::as_str)).map(|()| (check.blocks.len(), check.directory))
    };
    assert_eq!(of(&[0, 1, 2]), Ok((0, vec![hash_of(&block(7))])));
    // What it does not name is left, and told at the end.
    assert_eq!(of(&[0, 1]), Ok((1, vec![hash_of(&block(7))])));
    for told in [&[1][..], &[0, 2], &[0, 0], &[0, 1, 2, 3]] {
        assert!(of(told).is_err(), "{told:?}");
    }
}

#[test]
fn blocks_have_a_limit() {
    let mut check = CatalogCheck::default();
    let taken = |result: &Result<(), String>| result.is_ok();
    assert_eq!((0..70_000).map(|number| check.block(&block(number))).take_while(taken).count(), 65_536);
    let mut check = CatalogCheck::default();
    let directories = (0..70_000).map(|number| check.directory(&block(number), std::iter::empty()));
    assert_eq!(directories.take_while(taken).count(), 65_536);
}

/// A catalog with an object of each state, what was read before it, and the manifest that fits both.
fn agreeing(states: &[State]) -> (Manifest, CatalogCheck, EntryCheck) {
    let (mut catalog, mut entries, mut manifest) =
        (CatalogCheck::default(), EntryCheck::default(), Manifest::default());
    let mut objects = crate::manifest::Objects::default();
    let mut paths: Vec<_> = states.iter().zip(1..).map(|(&state, number)| (path_of(state, number), state)).collect();
    paths.sort_by(|a, b| a.0.cmp(&b.0));
    for (size, (path, state)) in (10..).zip(paths) {
        let line = catalog_line(state, &path, size);
        let json = line.entry.to_json();
        catalog.line(&line, &json).unwrap();
        match state {
            State::File => {}
            State::Live | State::Object => objects.live.add(size),
            State::Orphan => objects.orphan.add(size),
            State::Foreign => objects.foreign.add(size),
            State::Rotten => objects.rotten.add(size),
            State::Missing => objects.missing.add(size),
        }
        if state != State::Missing {
            let entry = Entry::text(path, Vec::new());
            entries.entry(&entry, &line.entry).unwrap();
            manifest.totals.entries += 1;
            manifest.totals.bytes += size;
        }
        manifest.totals.catalog_lines += 1;
    }
    objects.closed = match states.contains(&State::Object) {
        true => None,
        false => Some(objects.missing.count + objects.rotten.count == 0),
    };
    catalog.block(&block(0)).unwrap();
    let told = serde_json::to_string(&block(0)).unwrap();
    catalog.directory(&block(1), std::iter::once(told.as_str())).unwrap();
    manifest.objects = Some(objects);
    manifest.totals.index_shards = 3;
    manifest.totals.index_fingerprint = entries.all.to_hex();
    manifest.catalog = vec![block(1)];
    (manifest, catalog, entries)
}

fn path_of(state: State, number: u64) -> String {
    match state {
        State::File => format!("cluster/{number}"),
        State::Foreign => format!("objects/other/{number}"),
        _ => ChunkKey { id: [1; 32], generation: number }.key().to_path(),
    }
}

const WITH_LIVE_SET: [State; 6] =
    [State::File, State::Live, State::Orphan, State::Foreign, State::Rotten, State::Missing];

#[test]
fn a_manifest_that_differs_is_told() {
    type Change = fn(&mut Manifest);
    let changes: [(&str, Change); 7] = [
        ("the number of entries", |manifest| manifest.totals.entries += 1),
        ("the bytes of the entries", |manifest| manifest.totals.bytes -= 1),
        ("the index's fingerprint", |manifest| manifest.totals.index_fingerprint = "0".repeat(64)),
        ("the catalog's lines", |manifest| manifest.totals.catalog_lines += 1),
        ("the index's shards", |manifest| manifest.totals.index_shards += 1),
        ("the catalog's directory", |manifest| manifest.catalog = vec![block(0)]),
        ("the objects' states", |manifest| manifest.objects = None),
    ];
    let (manifest, catalog, entries) = agreeing(&WITH_LIVE_SET);
    assert_eq!(catalog.finish(&manifest, &entries, 3), Ok(()));
    for (what, change) in changes {
        let mut manifest = manifest.clone();
        change(&mut manifest);
        let told = catalog.finish(&manifest, &entries, 3).unwrap_err();
        assert!(told.starts_with(what), "{what}: {told}");
    }
    // A block that no directory names.
    let (manifest, mut catalog, entries) = agreeing(&WITH_LIVE_SET);
    catalog.block(&block(2)).unwrap();
    assert!(catalog.finish(&manifest, &entries, 3).unwrap_err().starts_with("the catalog's directory"));
    // A catalog of other lines than the index, as many of them: the manifest fits the index.
    let (manifest, mut catalog, entries) = agreeing(&WITH_LIVE_SET);
    catalog.entries = Fingerprint::default();
    assert!(catalog.finish(&manifest, &entries, 3).unwrap_err().starts_with("the catalog's entries"));
}

#[test]
fn counts_of_objects_are_those_of_the_catalog() {
    type Field = fn(&mut crate::manifest::Objects) -> &mut Count;
    let fields: [Field; 5] =
        [|o| &mut o.live, |o| &mut o.orphan, |o| &mut o.foreign, |o| &mut o.rotten, |o| &mut o.missing];
    let (manifest, catalog, entries) = agreeing(&WITH_LIVE_SET);
    for field in fields {
        for change in [Count { count: 1, bytes: 0 }, Count { count: 0, bytes: 1 }] {
            let mut objects = manifest.objects.clone().unwrap();
            let count = field(&mut objects);
            *count = Count { count: count.count + change.count, bytes: count.bytes + change.bytes };
            let lie = Manifest { objects: Some(objects), ..manifest.clone() };
            assert!(catalog.finish(&lie, &entries, 3).is_err(), "{:?}", lie.objects);
        }
    }
}

#[test]
fn closed_is_what_lacks_nothing() {
    let cases: [(&[State], Option<bool>); 5] = [
        (&[State::Live, State::Orphan, State::Foreign], Some(true)),
        (&[State::Live, State::Missing], Some(false)),
        (&[State::Live, State::Rotten], Some(false)),
        (&[State::Live, State::Missing, State::Rotten], Some(false)),
        (&[State::Object], None),
    ];
    for (states, closed) in cases {
        let (manifest, catalog, entries) = agreeing(states);
        assert_eq!(manifest.objects.as_ref().and_then(|objects| objects.closed), closed);
        for told in [None, Some(true), Some(false)] {
            let objects = manifest.objects.clone().map(|objects| crate::manifest::Objects { closed: told, ..objects });
            let told_manifest = Manifest { objects, ..manifest.clone() };
            let agrees = catalog.finish(&told_manifest, &entries, 3).is_ok();
            assert_eq!(agrees, told == closed, "{states:?} told as {told:?}");
        }
    }
    // Some compared with a live set and some not, is neither.
    let (manifest, catalog, entries) = agreeing(&[State::Live, State::Object]);
    assert!(catalog.finish(&manifest, &entries, 3).is_err());
}

/// The entry `pieces/<folder>/<file>`, as it is opened.
fn take_piece(check: &mut EntryCheck, path: &str, body: &str) -> Result<(), String> {
    let entry = Entry::text(path, body.to_owned());
    check.entry(&entry, &index_line(path, body.len() as u64))
}

#[test]
fn pieces_come_in_order() {
    let of = |entries: &[(&str, &str)]| {
        let mut check = EntryCheck::default();
        entries.iter().try_for_each(|(path, body)| take_piece(&mut check, path, body)).map(|()| check)
    };
    let path = ("pieces/0/path", "objects/other/a\n3\n");
    let joined = format!("objects/other/a\n3\n{}\n2\n", Hash::blake3(b"abc"));
    let whole = [path, ("pieces/0/00000000", "ab"), ("pieces/0/00000001", "c"), ("pieces/0/joined", joined.as_str())];
    assert!(of(&whole).is_ok_and(|check| check.objects.is_empty()));
    // The object's own line is one of the index, and no entry.
    assert!(of(&whole).is_ok_and(|check| (check.entries, check.all.count()) == (4, 5)));
    assert!(of(&[path, ("pieces/0/abandoned", ""), ("pieces/1/path", "objects/other/a\n3\n")]).is_ok());
    let lies = ["objects/other/b\n3\n{}\n2\n", "objects/other/a\n4\n{}\n2\n", "objects/other/a\n3\n{}\n1\n"];
    for lie in lies {
        let lie = lie.replace("{}", &Hash::blake3(b"abc").to_string());
        assert!(of(&[whole[0], whole[1], whole[2], ("pieces/0/joined", &lie)]).is_err(), "{lie}");
    }
    let other_hash = format!("objects/other/a\n3\n{}\n2\n", Hash::blake3(b"abd"));
    let declared = ("pieces/0/path", "objects/other/a\n2\n");
    let wrong: [&[(&str, &str)]; 10] = [
        &[whole[0], whole[1], whole[2], ("pieces/0/joined", &other_hash)],
        &[declared, whole[1], whole[2], whole[3]],
        &[whole[0], whole[2]],
        &[whole[0], whole[1], whole[1]],
        &[whole[1]],
        &[whole[3]],
        &[("pieces/0/abandoned", "")],
        &[whole[0], ("pieces/0/abandoned", ""), whole[1]],
        &[whole[0], whole[0]],
        &[("pieces/0/path", "objects/notes\n3\n")],
    ];
    for entries in wrong {
        assert!(of(entries).is_err(), "{entries:?}");
    }
}

#[test]
fn an_object_ends_with_the_metadata_that_it_began_with() {
    let text = |name: &str| Metadata { content_type: Some(name.to_owned()), ..Metadata::default() };
    let joined = format!("objects/other/a\n0\n{}\n0\n", Hash::blake3(b""));
    for (begin, end, agrees) in [("a/b", "a/b", true), ("a/b", "a/c", false)] {
        let mut check = EntryCheck::default();
        let mut take = |path: &str, body: &str, metadata| {
            let entry = Entry { metadata, ..Entry::text(path, body.to_owned()) };
            check.entry(&entry, &index_line(path, body.len() as u64))
        };
        take("pieces/0/path", "objects/other/a\n0\n", text(begin)).unwrap();
        assert_eq!(take("pieces/0/joined", &joined, text(end)).is_ok(), agrees, "{begin}, {end}");
    }
}

#[test]
fn objects_that_are_open_have_a_limit() {
    let mut check = EntryCheck::default();
    let mut begin =
        |folder: u64| take_piece(&mut check, &format!("pieces/{folder}/path"), "objects/other/a\n3\n").is_ok();
    assert_eq!((0..70_000).take_while(|&folder| begin(folder)).count(), 1024);
    // One that ends makes room.
    take_piece(&mut check, "pieces/5/abandoned", "").unwrap();
    assert_eq!(take_piece(&mut check, "pieces/2000/path", "objects/other/a\n3\n"), Ok(()));
    assert!(check.finish().is_err());
}

#[test]
fn a_shard_has_the_lines_of_the_entries_before_it() {
    let lines = ["cluster/a", "cluster/b"].map(|path| index_line(path, 1));
    let jsons = lines.clone().map(|line| line.to_json());
    let read = || {
        let mut check = EntryCheck::default();
        for line in &lines {
            check.entry(&Entry::text(line.path.clone(), Vec::new()), line).unwrap();
        }
        check
    };
    let mut check = read();
    // In any order.
    assert_eq!(check.shard(jsons.iter().rev().map(String::as_str)), Ok(()));
    assert_eq!(check.finish(), Ok(()));
    assert!(check.shard(jsons.iter().map(String::as_str)).is_err());
    assert!(read().shard(jsons[..1].iter().map(String::as_str)).is_err());
    assert!(read().shard(std::iter::empty()).is_err());
    assert!(read().finish().is_err(), "no shard has described them");
}
