//! Bundles with many small blocks and parts: what is asked for is found, and what leads elsewhere is told.

use age::x25519;
use futures::future::BoxFuture;
use uuid::Uuid;

use super::*;
use crate::manifest::{Count, Objects};
use crate::range::tests::Memory;
use crate::segment::{Form, SegmentBuilder};
use crate::{BundleStream, BundleWriter, Found, Head, Key, Lock, ReadOptions, Signer, State, WriterOptions};

/// A file of zeros that ends in these bytes.
struct Hollow(u64, Bytes);

impl RangeReader for Hollow {
    fn length(&self) -> u64 {
        self.0
    }

    fn read(&self, offset: u64, length: usize) -> BoxFuture<'_, std::io::Result<Bytes>> {
        let end = self.0 - self.1.len() as u64;
        let bytes = match offset.checked_sub(end) {
            Some(at) => self.1.slice(usize::try_from(at).unwrap()..).slice(..length),
            None => vec![0; length].into(),
        };
        Box::pin(async move { Ok(bytes) })
    }
}

/// Signs with so many bytes.
struct Stamp(usize);

impl Signer for Stamp {
    fn sign(&self, _: &mut dyn std::io::Read, _: &str) -> std::io::Result<Vec<u8>> {
        Ok(vec![b's'; self.0])
    }
}

fn key(n: usize) -> Key {
    Key::new(format!("{n:04}").into_bytes())
}

fn body(n: usize) -> Bytes {
    n.to_string().repeat(n % 7).into_bytes().into()
}

fn missing_path() -> String {
    crate::ChunkKey { id: [7; 32], generation: 1 }.key().to_path()
}

/// A bundle of `count` objects, each in a segment of its own, and one that is missing.
async fn bundle(identity: &x25519::Identity, count: usize, signer: Option<&dyn Signer>) -> Bytes {
    let entries = (0..count).map(|n| Entry::text(key(n).to_path(), body(n))).collect();
    bundle_of(identity, entries, signer).await
}

/// The same of these objects.
async fn bundle_of(identity: &x25519::Identity, entries: Vec<Entry>, signer: Option<&dyn Signer>) -> Bytes {
    let options = WriterOptions {
        bundle: Uuid::from_u128(7),
        created: "2026-01-01T00:00:00Z".into(),
        version: "0.0.0".into(),
        lock: Lock::Recipients(vec![Box::new(identity.to_public())]),
        jobs: 1,
        segment_target: 1,
        entry_limit: 1 << 20,
        sealing: 4 << 20,
        level: 1,
        temp_dir: std::env::temp_dir(),
        spool_memory: 1 << 20,
    };
    let mut writer = BundleWriter::create(Vec::new(), options, Head::default()).await.unwrap();
    let mut foreign = Count::default();
    for entry in entries {
        foreign.add(entry.body.len() as u64);
        writer.add(entry).await.unwrap();
    }
    let (mut catalog, lines) = writer.finish_entries().await.unwrap();
    // Chunks come before all others.
    catalog.push_missing(&missing_path(), 77).await.unwrap();
    for line in lines {
        let (path, json) = line.unwrap();
        let (path, json) = (String::from_utf8(path).unwrap(), String::from_utf8(json).unwrap());
        catalog.push(State::Foreign, &path, &json).await.unwrap();
    }
    let missing = Count { count: 1, bytes: 77 };
    let objects = Objects { closed: Some(false), foreign, missing, ..Objects::default() };
    let manifest = Manifest { objects: Some(objects), ..Manifest::default() };
    let (bytes, _, _) = catalog.finish(manifest, signer).await.unwrap();
    bytes.into()
}

fn unlock(identity: &x25519::Identity) -> Unlock {
    Unlock::Identities(vec![Box::new(identity.clone())])
}

async fn open(bytes: impl Into<Bytes>, identity: &x25519::Identity) -> Result<BundleReader<Memory>> {
    BundleReader::open(Memory(bytes.into()), &unlock(identity)).await
}

/// The same file with another TRAILER.
async fn led(bytes: &Bytes, lead: impl FnOnce(&mut Trailer)) -> Bytes {
    let mut told = trailer(&Memory(bytes.clone())).await.unwrap();
    lead(&mut told);
    let mut bytes = bytes.to_vec();
    let at = bytes.len() - usize::try_from(TRAILER_FROM_END).unwrap();
    bytes[at..at + TRAILER].copy_from_slice(&told.to_bytes());
    bytes.into()
}

#[track_caller]
fn assert_damaged<T>(result: Result<T>, wanted: &str, at: u64) {
    match result.map(drop) {
        Err(Error::Damaged { what, offset, .. }) => {
            assert!(what.contains(wanted) && offset == at, "{what} at {offset}, not {wanted} at {at}");
        }
        other => panic!("{other:?}, not {wanted}"),
    }
}

#[tokio::test]
async fn each_path_is_found_in_many_blocks() {
    const COUNT: usize = 300;
    let identity = x25519::Identity::generate();
    let reader = open(bundle(&identity, COUNT, None).await, &identity).await.unwrap();
    assert!(reader.manifest().catalog.len() > 2, "one directory block proves nothing");
    // Seven and the lines of a block have nothing in common: every place in a block is met.
    for n in (0..COUNT).step_by(7) {
        let path = key(n).to_path();
        let line = reader.find(&path).await.unwrap().unwrap();
        assert_eq!((line.state, line.entry.path.as_str()), (State::Foreign, path.as_str()));
        assert_eq!(reader.read(&line.entry).await.unwrap(), body(n));
        let other = IndexLine { size: line.entry.size + 1, ..line.entry };
        assert!(matches!(reader.read(&other).await, Err(Error::Damaged { .. })), "another line of {path}");
        assert_eq!(reader.find(&format!("{path}x")).await.unwrap(), None);
        let mut catalog = reader.catalog(&path);
        let (mut first, mut lines) = (None, 0);
        while let Some(block) = catalog.next().await.unwrap() {
            lines += block.len();
            first = first.or_else(|| block.first().map(|line| line.entry.path.clone()));
        }
        assert_eq!((first.unwrap(), lines), (path, COUNT - n));
        // What begins behind the last line of a block begins with the next block.
        let mut behind = reader.catalog(&format!("{}x", key(n).to_path()));
        assert!(behind.next().await.unwrap().is_none_or(|lines| !lines.is_empty()), "behind {n}");
    }
    let missing = reader.find(&missing_path()).await.unwrap().unwrap();
    assert_eq!((missing.state, missing.entry.size, missing.entry.place), (State::Missing, 77, None));
    assert_eq!(reader.find("a").await.unwrap(), None, "before the first");
}

#[tokio::test]
async fn many_blocks_are_read_front_to_back() {
    const COUNT: usize = 300;
    let identity = x25519::Identity::generate();
    let bytes = bundle(&identity, COUNT, None).await;
    // So little memory that hardly two things are under way at a time, and so much that all are.
    for memory in [1, 5000, 1 << 20] {
        let options = ReadOptions { jobs: 2, memory, temp_dir: &std::env::temp_dir() };
        let mut stream = BundleStream::open(&bytes[..], options).await.unwrap();
        stream.unlock(&unlock(&identity)).unwrap();
        let (mut entries, mut lines, mut blocks, mut has_ended) = (0, 0, 0, false);
        while let Some(found) = stream.next().await.unwrap() {
            match found {
                Found::Entries(found) => entries += found.len(),
                Found::Catalog(found) => (lines, blocks) = (lines + found.len(), blocks + 1),
                Found::Damage(error) => panic!("{error}"),
                Found::End { bytes: read, .. } => has_ended = read == bytes.len() as u64,
                _ => {}
            }
        }
        assert!(has_ended && blocks > 10, "{blocks} blocks");
        assert_eq!((entries, lines), (COUNT, COUNT + 1));
    }
}

#[tokio::test]
async fn segments_are_walked_by_what_their_paths_begin_with() {
    let identity = x25519::Identity::generate();
    let reader = open(bundle(&identity, 300, None).await, &identity).await.unwrap();
    for (begin, count) in [("", 300), ("0", 300), ("00", 100), ("012", 10), ("0123", 1), ("9", 0)] {
        let prefix = key(0).to_path().replace("0000", begin);
        let mut segments = reader.segments(&prefix, Spool::new(&std::env::temp_dir(), 1 << 20)).await.unwrap();
        let mut paths = Vec::new();
        while let Some(entries) = segments.next().await.unwrap() {
            assert_eq!(entries.len(), 1, "{prefix}: a segment comes once");
            paths.extend(entries.into_iter().map(|entry| entry.path));
        }
        assert!(paths.is_sorted() && paths.iter().all(|path| path.starts_with(&prefix)), "{prefix}");
        assert_eq!(paths.len(), count, "{prefix}");
    }
}

/// Whoever has the bundle's key can seal another segment, and answer with it where ranges are read.
#[tokio::test]
async fn a_segment_holds_what_the_catalog_names_and_nothing_else() {
    let identity = x25519::Identity::generate();
    let object = |n: usize, byte: u8| Entry { packing: Packing::Raw, ..Entry::text(key(n).to_path(), vec![byte; 100]) };
    let first = async |bytes: Bytes| {
        let reader = open(bytes, &identity).await?;
        reader.segments("objects/other/", Spool::new(&std::env::temp_dir(), 1 << 20)).await?.next().await
    };
    let good = bundle_of(&identity, vec![object(0, 0)], None).await;
    let entries = first(good.clone()).await.unwrap().unwrap();
    assert!(entries.len() == 1 && entries[0].body == [0; 100][..], "{entries:?}");

    let reader = open(good.clone(), &identity).await.unwrap();
    let place = reader.find(&key(0).to_path()).await.unwrap().unwrap().entry.place.unwrap();
    let form = Form { bundle: Uuid::from_u128(7), level: 1 };
    for other in [object(0, 1), object(1, 0)] {
        // It must be as long as the right one, and age gives each header a length of its own.
        let sealed = loop {
            let mut builder = SegmentBuilder::default();
            builder.push(other.clone());
            let sealed = builder.seal(&reader.key(), place.segment, Packing::Raw, &form).unwrap().sealed.into_bytes();
            if sealed.len() as u64 == place.length {
                break sealed;
            }
        };
        let (mut forged, at) = (good.to_vec(), usize::try_from(place.offset).unwrap());
        forged[at..at + sealed.len()].copy_from_slice(&sealed);
        assert_damaged(first(forged.into()).await, "not those that the catalog says", place.offset);
    }
}

#[tokio::test]
async fn sums_are_read_in_parts_and_are_those_of_the_manifest() {
    let identity = x25519::Identity::generate();
    let good = bundle(&identity, 40, None).await;
    let told = trailer(&Memory(good.clone())).await.unwrap();
    let at = usize::try_from(told.sums.offset).unwrap();
    let end = at + usize::try_from(told.sums.length).unwrap();
    assert!(told.sums.length > 3 * SUMS_PART);
    let reader = open(good.clone(), &identity).await.unwrap();
    let mut read = Vec::new();
    reader.sums(|part| read.extend_from_slice(part)).await.unwrap();
    assert!(read == good[at..end]);
    reader.check_sums().await.unwrap();

    // Whoever has no key can change a line of them, and the id with it.
    let mut forged = good.to_vec();
    forged[at] = if forged[at] == b'0' { b'1' } else { b'0' };
    let id = *blake3::hash(&forged[at..end]).as_bytes();
    let forged: Bytes = forged.into();
    let reader = open(forged.clone(), &identity).await.unwrap();
    assert_damaged(reader.sums(|_| {}).await, "not the id", told.sums.offset);
    let reader = open(led(&forged, |trailer| trailer.id = id).await, &identity).await.unwrap();
    reader.sums(|_| {}).await.unwrap();
    assert_damaged(reader.check_sums().await, "the manifest was sealed with", told.sums.offset);
    // The manifest's own line, which is the last.
    let mut forged = good.to_vec();
    let line = end - sums::line("manifest.json.zst.age", &blake3::hash(b"")).len();
    forged[line] = if forged[line] == b'0' { b'1' } else { b'0' };
    let id = *blake3::hash(&forged[at..end]).as_bytes();
    let reader = open(led(&forged.into(), |trailer| trailer.id = id).await, &identity).await.unwrap();
    assert_damaged(reader.sums(|_| {}).await, "another hash to the manifest", told.sums.offset);
    // The first slot, which nobody needs to open it.
    let mut forged = good.to_vec();
    forged[usize::try_from(told.key.offset).unwrap() + 600] ^= 1;
    let reader = open(forged, &identity).await.unwrap();
    assert_damaged(reader.check_sums().await, "hash in TRAILER", told.key.offset);
}

#[tokio::test]
async fn a_signature_may_be_as_long_as_its_limit() {
    let identity = x25519::Identity::generate();
    for length in [1, usize::try_from(SIGNATURE_LIMIT).unwrap()] {
        let reader = open(bundle(&identity, 1, Some(&Stamp(length))).await, &identity).await.unwrap();
        assert_eq!(reader.signature().await.unwrap().unwrap(), vec![b's'; length]);
    }
    let reader = open(bundle(&identity, 1, None).await, &identity).await.unwrap();
    assert_eq!(reader.signature().await.unwrap(), None);
}

#[tokio::test]
async fn a_trailer_that_leads_elsewhere_is_told() {
    let identity = x25519::Identity::generate();
    let good = bundle(&identity, 1, None).await;
    let length = good.len() as u64;
    let mut bytes = good.to_vec();
    bytes[good.len() - 1] = 1;
    assert_damaged(open(bytes, &identity).await, "not zero", length - 1024);
    let behind = led(&good, |trailer| trailer.key2 = Extent { offset: trailer.manifest.offset + 1, length: 1 }).await;
    assert_damaged(open(behind, &identity).await, "make no sense", length - TRAILER_FROM_END);
    // At the same place there is no slot, but the first one serves.
    let beside = led(&good, |trailer| trailer.key2 = Extent { offset: trailer.manifest.offset, length: 1 }).await;
    assert!(!format!("{:?}", open(beside, &identity).await.err()).contains("make no sense"));

    // As much as a manifest and a slot may take is read; no more.
    let most = JSON_LIMIT as u64 + SLOT_MAX;
    for (tail, is_refused) in [(most, false), (most + 1, true)] {
        let mut told = trailer(&Memory(good.clone())).await.unwrap();
        (told.key2.offset, told.manifest.offset, told.manifest.length) = (0, tail - 512, 512);
        told.sums = Extent { offset: tail.next_multiple_of(BLOCK), length: BLOCK };
        told.signature = Extent::default();
        let end = [&told.to_bytes()[..], &[0; 1024]].concat();
        let hollow = Hollow(told.sums.offset + 2 * BLOCK + end.len() as u64, end.into());
        let error = BundleReader::open(hollow, &unlock(&identity)).await.err().unwrap();
        assert_eq!(format!("{error:?}").contains("make no sense"), is_refused, "{error:?}");
    }
}

#[tokio::test]
async fn the_catalog_cannot_ask_for_more_than_a_segment() {
    let identity = x25519::Identity::generate();
    let reader = open(bundle(&identity, 1, None).await, &identity).await.unwrap();
    let limit = reader.manifest().about.sealed_limit();
    // Such a long one is torn here, and so was asked for.
    let asked = reader.sealed("x", Extent { offset: 600, length: limit }).await;
    assert!(matches!(asked, Err(Error::Torn { .. })), "{asked:?}");
    assert_damaged(reader.sealed("x", Extent { offset: 600, length: limit + 1 }).await, "makes no sense", 600);
}

#[tokio::test]
async fn another_format_is_told_from_damage() {
    let identity = x25519::Identity::generate();
    let mut bytes = bundle(&identity, 1, None).await.to_vec();
    let at = bytes.windows(11).position(|window| window == b"\"format\": 1").unwrap();
    bytes[at + 10] = b'9';
    let told = trailer(&Memory(bytes.clone().into())).await.unwrap();
    bytes[usize::try_from(told.manifest.offset).unwrap() + 300] ^= 1;
    let error = open(bytes.clone(), &identity).await.err().unwrap();
    assert!(matches!(error, Error::UnknownFormat(9)), "{error:?}");
    bytes[at + 10] = b'1';
    let error = open(bytes, &identity).await.err().unwrap();
    assert!(error.is_damage(), "{error:?}");
}

#[tokio::test]
async fn what_is_too_short_is_no_bundle() {
    let of = |length: usize| Memory(vec![0; length].into());
    let told = async |length, offset| format!("{:?}", read(&of(length), offset, 512, "it").await.err());
    assert!(told(0, 0).await.contains("it is empty"));
    assert!(told(511, 0).await.contains("only 511 bytes"));
    assert!(told(1000, 511).await.contains("only 1000 bytes"));
    assert!(told(1000, 512).await.contains("Torn { offset: 1000"));
    assert_eq!(told(1024, 512).await, "None");
    assert!(matches!(read(&of(1), u64::MAX, 2, "it").await, Err(Error::Torn { .. })));
}

#[tokio::test]
async fn the_beginning_has_its_entries_in_order_and_of_bounded_size() {
    let identity = x25519::Identity::generate();
    let good = bundle(&identity, 1, None).await;
    let inspected = inspect(&Memory(good.clone())).await.unwrap();
    assert_eq!((inspected.bytes, inspected.recipients), (good.len() as u64, vec!["X25519".to_owned()]));
    let folder = parse_header(good[..512].try_into().unwrap()).unwrap().0.replace("README.txt", "");
    let entry = |name: &str, content: &[u8]| {
        let header = crate::container::header(&format!("{folder}{name}"), content.len() as u64).unwrap();
        let padding = vec![0; usize::try_from(crate::container::padding(content.len() as u64)).unwrap()];
        [&header[..], content, &padding].concat()
    };
    let most = usize::try_from(ABOUT_LIMIT.max(SLOT_MAX)).unwrap();
    let about = inspected.about.to_json();
    let begun = |readme: usize, second: &str, about: &str| {
        let mut file = [entry("README.txt", &vec![b'x'; readme]), entry(second, about.as_bytes())].concat();
        file.extend(entry("bundle.key.age", b"key"));
        // As long as a bundle can be that has no TRAILER.
        file.extend([0; 4096]);
        Memory(file.into())
    };
    assert!(inspect(&begun(3, "bundle.json", &about)).await.unwrap().trailer.is_none());
    let first = inspect(&begun(most + 1, "bundle.json", &about)).await.err().unwrap();
    assert!(matches!(&first, Error::NotABundle(what) if what.contains("first entries")), "{first:?}");
    assert_eq!(inspect(&begun(most, "bundle.json", &about)).await.unwrap().about, inspected.about);
    assert_damaged(inspect(&begun(3, "other.json", &about)).await, "first entries", 1024);
    assert_damaged(inspect(&begun(3, "bundle.json", "{")).await, "EOF", 1024 + 512);
    let other = [entry("OTHER.txt", b"x"), vec![0; 4096]].concat();
    assert!(matches!(inspect(&Memory(other.into())).await, Err(Error::NotABundle(_))));
}
