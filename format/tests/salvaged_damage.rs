//! What a salvage tells of a damaged bundle: which entry, and what is wrong with it; and nothing of what is whole.

// Clippy's own exception for tests knows only the test functions themselves, not what they share.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use age::x25519;
use age_core::format::{FileKey, Stanza};
use bytes::Bytes;
use futures::future::BoxFuture;
use pacharc_format::{Entry, Error, Key, RangeReader, SalvageReader, Salvaged, Unlock};
use support::parts::{Parts, put_together, take_apart};
use support::{Memory, chunk, lock, object, options, stream, unlock, write};

/// Segments of one entry each: six chunks and an object.
const SEGMENTS: usize = 7;

async fn original(identity: &x25519::Identity) -> (Bytes, String, Parts) {
    let mut entries: Vec<Entry> = (0..6).map(|n| chunk(vec![n; 700], u64::from(n))).collect();
    entries.push(object(&Key::from("a"), b"text"));
    let (bundle, _) = write(entries, options(lock(identity), 1, 1 << 20)).await;
    let (folder, parts) = take_apart(&bundle);
    assert_eq!(parts.iter().filter(|(name, _)| name.starts_with("data/")).count(), SEGMENTS);
    (bundle, folder, parts)
}

fn at(parts: &Parts, wanted: &str) -> usize {
    parts.iter().position(|(name, _)| name.starts_with(wanted)).unwrap()
}

/// The entries that come out, and what is told as damage: of which entry, and what.
async fn salvage(bundle: &Bytes, identity: &x25519::Identity) -> (BTreeMap<String, Entry>, Vec<(String, String)>) {
    let mut reader = SalvageReader::open(Memory(bundle.clone()), &unlock(identity)).await.unwrap();
    let (mut entries, mut told, mut walked) = (BTreeMap::new(), Vec::new(), 0);
    while let Some(salvaged) = reader.next().await.unwrap() {
        match salvaged {
            Salvaged::Entries(found) => entries.extend(found.into_iter().map(|(entry, _)| (entry.path.clone(), entry))),
            Salvaged::Damage(Error::Damaged { entry, what, .. }) => told.push((entry, what)),
            Salvaged::Damage(Error::Torn { what, .. }) => told.push(("torn".into(), what)),
            Salvaged::Damage(other) => panic!("{other:?}"),
            _ => {}
        }
        assert!(walked <= reader.offset() && reader.offset() <= bundle.len() as u64, "{}", reader.offset());
        walked = reader.offset();
    }
    assert!(reader.offset() + 1024 >= bundle.len() as u64, "only {} bytes were walked", reader.offset());
    (entries, told)
}

fn told(entry: &str, what: &str) -> Vec<(String, String)> {
    vec![(entry.into(), what.into())]
}

#[tokio::test]
async fn a_whole_bundle_has_nothing_to_tell() {
    let identity = x25519::Identity::generate();
    let (bundle, folder, _) = original(&identity).await;
    let reader = SalvageReader::open(Memory(bundle.clone()), &unlock(&identity)).await.unwrap();
    assert_eq!(folder, format!("pacharc-{}/", &reader.bundle().simple().to_string()[..8]));
    let (entries, told) = salvage(&bundle, &identity).await;
    assert_eq!(told, []);
    assert_eq!(entries, stream(&bundle, Some(&unlock(&identity))).await.unwrap().0);
}

#[tokio::test]
async fn what_does_not_open_is_told_by_its_name() {
    let identity = x25519::Identity::generate();
    let (bundle, folder, parts) = original(&identity).await;
    let whole = salvage(&bundle, &identity).await.0;
    for (place, (name, content)) in parts.iter().enumerate().filter(|(_, (name, _))| name.ends_with(".age")) {
        if name.starts_with("bundle.key") {
            continue;
        }
        let mut changed = parts.clone();
        changed[place].1[content.len() / 2] ^= 1;
        let (entries, told) = salvage(&put_together(&folder, &changed), &identity).await;
        let names: Vec<&str> = told.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, [name.as_str()], "{told:?}");
        let lost = usize::from(name.starts_with("data/"));
        assert_eq!(entries.len(), whole.len() - lost, "{name}");
    }
}

#[tokio::test]
async fn a_segment_that_is_not_in_its_place_is_told_and_read_once() {
    let identity = x25519::Identity::generate();
    let (bundle, folder, parts) = original(&identity).await;
    let whole = salvage(&bundle, &identity).await.0;
    let (one, two, shard) = (at(&parts, "data/00000001"), at(&parts, "data/00000002"), at(&parts, "index/"));
    let name = &parts[one].0;
    for (place, what) in [(two + 1, "directly"), (shard, "before its shard"), (shard + 1, "behind its shard")] {
        let mut again = parts.clone();
        again.insert(place, parts[one].clone());
        let (entries, found) = salvage(&put_together(&folder, &again), &identity).await;
        assert_eq!(found, told(name, "the segment of this number came before"), "{what}");
        assert_eq!(entries, whole, "{what}");
    }
    let mut swapped = parts.clone();
    swapped.swap(one, two);
    let (entries, found) = salvage(&put_together(&folder, &swapped), &identity).await;
    assert_eq!(found, told(name, "it is out of its order"));
    assert_eq!(entries, whole);
    let mut dropped = parts.clone();
    dropped.drain(one..=two);
    let (entries, found) = salvage(&put_together(&folder, &dropped), &identity).await;
    assert_eq!(entries.len(), whole.len() - 2);
    assert_eq!(found.len(), 2, "{found:?}");
    // Where nothing is left that tells of them, it is seen that they lack.
    let told_of = |name: &str| name.starts_with("index/") || name.starts_with("catalog/");
    for (count, gap) in [(2, "data/00000001 to data/00000002"), (1, "data/00000001")] {
        let mut dropped = parts.clone();
        dropped.drain(one..one + count);
        dropped.retain(|(name, _)| !told_of(name));
        let (entries, found) = salvage(&put_together(&folder, &dropped), &identity).await;
        assert_eq!((entries.len(), found), (whole.len() - count, told(gap, "it is nowhere in the file")));
    }
}

/// What a salvage names as lost.
async fn lost(bundle: &Bytes, identity: &x25519::Identity) -> Vec<String> {
    let mut reader = SalvageReader::open(Memory(bundle.clone()), &unlock(identity)).await.unwrap();
    let mut lost = Vec::new();
    while let Some(salvaged) = reader.next().await.unwrap() {
        if let Salvaged::Lost(lines) = salvaged {
            lost.extend(lines.into_iter().map(|line| line.path));
        }
    }
    lost
}

#[tokio::test]
async fn a_shard_alone_tells_what_was_lost_and_where_it_lay() {
    let identity = x25519::Identity::generate();
    let (bundle, folder, mut parts) = original(&identity).await;
    let whole = salvage(&bundle, &identity).await.0;
    for name in ["catalog/", "directory/"] {
        let place = at(&parts, name);
        parts[place].1[200] ^= 1;
    }
    let place = at(&parts, "data/00000003");
    // Its header is gone, and its bytes are where they were.
    let before = put_together(&folder, &parts[..place].to_vec()).len() - 1024;
    let mut headless = put_together(&folder, &parts).to_vec();
    headless[before..before + 512].fill(0xff);
    assert_eq!(salvage(&headless.into(), &identity).await.0, whole);
    parts[place].1[200] ^= 1;
    let broken = put_together(&folder, &parts);
    let entries = salvage(&broken, &identity).await.0;
    let missing: Vec<String> = whole.keys().filter(|path| !entries.contains_key(*path)).cloned().collect();
    assert_eq!((missing.len(), lost(&broken, &identity).await), (1, missing));
}

/// A file of which some bytes cannot be read.
struct Sick(Bytes, std::ops::Range<u64>, i32);

impl RangeReader for Sick {
    fn length(&self) -> u64 {
        self.0.len() as u64
    }

    fn read(&self, offset: u64, length: usize) -> BoxFuture<'_, std::io::Result<Bytes>> {
        let is_sick = offset < self.1.end && self.1.start < offset + length as u64;
        let start = usize::try_from(offset).unwrap();
        Box::pin(async move {
            match is_sick {
                true => Err(std::io::Error::from_raw_os_error(self.2)),
                false => Ok(self.0.slice(start..start + length)),
            }
        })
    }
}

#[tokio::test]
async fn a_bad_sector_is_damage_and_any_other_error_is_none() {
    const EIO: i32 = 5;
    const EACCES: i32 = 13;
    let identity = x25519::Identity::generate();
    let (bundle, folder, parts) = original(&identity).await;
    let place = at(&parts, "data/00000003");
    let begins = put_together(&folder, &parts[..place].to_vec()).len() as u64 - 1024 + 512;
    for (code, is_damage) in [(EIO, true), (EACCES, false)] {
        let sick = Sick(bundle.clone(), begins + 100..begins + 101, code);
        let mut reader = SalvageReader::open(sick, &unlock(&identity)).await.unwrap();
        let (mut entries, mut damage) = (0, Vec::new());
        let ended = loop {
            match reader.next().await {
                Ok(None) => break Ok(()),
                Ok(Some(Salvaged::Entries(found))) => entries += found.len(),
                Ok(Some(Salvaged::Damage(error))) => damage.push(error.to_string()),
                Ok(Some(_)) => {}
                Err(error) => break Err(error),
            }
        };
        if is_damage {
            assert!(ended.is_ok() && entries == SEGMENTS - 1, "{ended:?}, {entries}");
            assert!(damage.len() == 1 && damage[0].contains("cannot be read"), "{damage:?}");
        } else {
            assert!(matches!(ended, Err(Error::Read(_))) && damage.is_empty(), "{ended:?}, {damage:?}");
        }
    }
}

#[tokio::test]
async fn a_header_on_a_bad_sector_is_damage() {
    const EIO: i32 = 5;
    let identity = x25519::Identity::generate();
    let (bundle, folder, parts) = original(&identity).await;
    let begin = |wanted: &str| put_together(&folder, &parts[..at(&parts, wanted)].to_vec()).len() as u64 - 1024;
    // Of a segment whose place the shard tells; of the key's slot, which lies in the file twice; of the first entry; the end.
    let length = bundle.len() as u64;
    let places = [begin("data/00000003") + 9, begin("bundle.key.age") + 99, 7, length - 1];
    for place in places.into_iter().chain([begin("bundle.json") + 600, begin("bundle.key.age") + 600]) {
        let sick = Sick(bundle.clone(), place..place + 1, EIO);
        let mut reader = SalvageReader::open(sick, &unlock(&identity)).await.unwrap();
        let (mut entries, mut damage) = (0, Vec::new());
        while let Some(salvaged) = reader.next().await.unwrap() {
            match salvaged {
                Salvaged::Entries(found) => entries += found.len(),
                Salvaged::Damage(error) => damage.push(error.to_string()),
                _ => {}
            }
        }
        assert_eq!(entries, SEGMENTS, "{place}: {damage:?}");
        // The first slot alone: the second one has the key, and a walk looks at neither again.
        let is_told = place != begin("bundle.key.age") + 600;
        assert_eq!(damage.len(), usize::from(is_told), "{place}: {damage:?}");
    }
}

/// The beginning of a bundle up to its first segment, and then these parts.
fn beginning(parts: &Parts) -> Parts {
    parts[..at(parts, "data/00000000")].to_vec()
}

#[tokio::test]
async fn segments_do_not_wait_for_a_shard_for_ever() {
    let identity = x25519::Identity::generate();
    let (bundle, folder, parts) = original(&identity).await;
    let whole = salvage(&bundle, &identity).await.0;
    let bare = |numbers: std::ops::Range<u64>| numbers.map(|n| (format!("data/{n:08}.tar.age"), Vec::new()));
    let mut many = beginning(&parts);
    many.extend(bare(0..20_000));
    let many = put_together(&folder, &many);
    let mut reader = SalvageReader::open(Memory(many.clone()), &unlock(&identity)).await.unwrap();
    let (mut first, mut told) = (None, 0);
    while let Some(salvaged) = reader.next().await.unwrap() {
        if matches!(&salvaged, Salvaged::Damage(Error::Damaged { entry, .. }) if entry.starts_with("data/")) {
            first.get_or_insert(reader.offset());
            told += 1;
        }
    }
    assert_eq!(told, 20_000);
    assert!(first.is_some_and(|first| first < many.len() as u64 - 3000 * 512), "{first:?} of {}", many.len());

    // Whatever comes between segments and their shard, they are read, and once.
    for place in [at(&parts, "index/"), at(&parts, "data/00000003")] {
        let mut between = parts.clone();
        between.splice(place..place, bare(100..17_000));
        assert_eq!(salvage(&put_together(&folder, &between), &identity).await.0, whole);
    }
}

/// An identity that opens nothing, and counts how often it was asked.
struct Counting(Arc<AtomicUsize>);

impl age::Identity for Counting {
    fn unwrap_stanza(&self, _: &Stanza) -> Option<Result<FileKey, age::DecryptError>> {
        None
    }

    fn unwrap_stanzas(&self, _: &[Stanza]) -> Option<Result<FileKey, age::DecryptError>> {
        self.0.fetch_add(1, Ordering::Relaxed);
        None
    }
}

#[tokio::test]
async fn few_slots_are_tried() {
    let identity = x25519::Identity::generate();
    let (_, folder, parts) = original(&identity).await;
    let slot = parts[at(&parts, "bundle.key.age")].clone();
    for (slots, expected) in [(1, 1), (3, 3), (4, 4), (5, 4), (50, 4)] {
        let mut many = beginning(&parts);
        many.retain(|(name, _)| name != "bundle.key.age");
        many.extend(std::iter::repeat_n(slot.clone(), slots));
        let asked = Arc::new(AtomicUsize::default());
        let unlock = Unlock::Identities(vec![Box::new(Counting(Arc::clone(&asked)))]);
        let opened = SalvageReader::open(Memory(put_together(&folder, &many)), &unlock).await;
        assert!(matches!(opened.err(), Some(Error::WrongIdentity)));
        assert_eq!(asked.load(Ordering::Relaxed), expected, "{slots}");
    }
}

#[tokio::test]
async fn another_bundles_name_is_told() {
    let identity = x25519::Identity::generate();
    let (bundle, folder, parts) = original(&identity).await;
    let (_, _, other) = original(&identity).await;
    let place = at(&parts, "bundle.json");
    let with = |content: Vec<u8>| {
        let mut changed = parts.clone();
        changed[place].1 = content;
        put_together(&folder, &changed)
    };
    let own = parts[place].1.clone();
    assert_eq!(with(own.clone()), bundle);
    let found = salvage(&with(other[place].1.clone()), &identity).await.1;
    assert_eq!(found, told("bundle.json", "it names another bundle"));
    let spaces = |length: usize| [&own[..], &b" ".repeat(length - own.len())].concat();
    assert_eq!(salvage(&with(spaces(65_536)), &identity).await.1, []);
    let found = salvage(&with(spaces(65_537)), &identity).await.1;
    assert_eq!(found, told("bundle.json", "it has 65537 bytes where at most 65536 make sense"));
    let found = salvage(&with(b"{".to_vec()), &identity).await.1;
    assert!(matches!(&found[..], [(entry, _)] if entry == "bundle.json"), "{found:?}");
}

/// The bundle, with the size in a header made another one.
fn sized(folder: &str, parts: &Parts, place: usize, size: u64) -> Bytes {
    let before = put_together(folder, &parts[..place].to_vec()).len() - 1024;
    let mut bundle = put_together(folder, parts).to_vec();
    let mut header = tokio_tar::Header::from_byte_slice(&bundle[before..before + 512]).clone();
    header.set_size(size);
    header.set_cksum();
    bundle[before..before + 512].copy_from_slice(header.as_bytes());
    bundle.into()
}

#[tokio::test]
async fn a_size_that_cannot_be_is_told_and_not_allocated() {
    let identity = x25519::Identity::generate();
    let (bundle, folder, mut parts) = original(&identity).await;
    let place = at(&parts, "data/00000003");
    parts[place].1[200] ^= 1;
    // 128 MiB of plaintext, a 128th for what does not compress and its seal, and 64 KiB.
    let most = (128 << 20) + (1 << 20) + (64 << 10);
    for (size, what) in [
        (most + 1, format!("it has {} bytes where at most {most} make sense", most + 1)),
        (most, "the file ends inside it".to_owned()),
        (bundle.len() as u64, "the file ends inside it".to_owned()),
    ] {
        let (entries, found) = salvage(&sized(&folder, &parts, place, size), &identity).await;
        assert_eq!(entries.len(), SEGMENTS - 1);
        // What the header leads to is told, too: there is no other.
        let of_it: Vec<_> = found.iter().filter(|(entry, _)| *entry == parts[place].0).collect();
        assert_eq!(of_it, [&(parts[place].0.clone(), what)], "{found:?}");
        assert_eq!(found.len(), 2, "{found:?}");
    }
}
