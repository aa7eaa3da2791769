//! What is undamaged comes out of a damaged bundle byte for byte, and what is not is named.

// Clippy's own exception for tests knows only the test functions themselves, not what they share.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use age::x25519;
use bytes::Bytes;
use pacharc_format::{Entry, Error, Hash, Key, Metadata, Packing, PieceWriter, SalvageReader, Salvaged, Unlock};
use support::{Memory, chunk, lock, object, options, stream, unlock, write};

/// An outer entry: its name without the folder, its header and its content with padding.
#[derive(Clone, Debug)]
struct Outer {
    name: String,
    header: usize,
    content: Range<usize>,
    end: usize,
}

struct Original {
    identity: x25519::Identity,
    bundle: Bytes,
    entries: BTreeMap<String, Entry>,
    outer: Vec<Outer>,
    /// Paths by the outer entry that they lie in.
    inside: BTreeMap<String, BTreeSet<String>>,
}

/// A bundle of some segments and `shards` index shards at least.
async fn original(count: u64) -> Original {
    let identity = x25519::Identity::generate();
    let mut entries = vec![Entry::text("database/a/attempt-1/pre-data.sql", vec![b'x'; 3000])];
    let (mut pieces, first) =
        PieceWriter::begin(0, Key::from("large").to_path(), 40_000, Packing::Raw, Metadata::default());
    entries.push(first);
    entries.push(pieces.piece(vec![1; 20_000].into()));
    for n in 0..count {
        let body: Vec<u8> = n.to_le_bytes().repeat(20 + usize::try_from(n % 50).unwrap());
        entries.push(if n % 3 == 0 {
            object(&Key::from(format!("notes/{n}").as_str()), &body)
        } else {
            chunk(body, n)
        });
    }
    entries.push(pieces.piece(vec![2; 20_000].into()));
    let whole = [vec![1; 20_000], vec![2; 20_000]].concat();
    entries.push(pieces.finish(Hash::blake3(&whole), false));
    let target = if count > 1000 { 60_000 } else { 3_000 };
    let (bundle, _) = write(entries, options(lock(&identity), target, 1 << 20)).await;
    let (entries, _) = stream(&bundle, Some(&unlock(&identity))).await.unwrap();
    let mut original = Original { identity, outer: outer(&bundle), bundle, entries, inside: BTreeMap::new() };
    // By the lines of the salvage of the whole one, which says where each entry lies.
    let salvage = salvage(&original.bundle, &unlock(&original.identity)).await.unwrap();
    assert!(salvage.damage.is_empty() && salvage.lost.is_empty(), "{:?}", salvage.damage);
    assert_eq!(salvage.entries, original.entries);
    for (path, offset) in salvage.places {
        let outer = original.outer.iter().find(|outer| outer.content.start as u64 == offset).unwrap();
        original.inside.entry(outer.name.clone()).or_default().insert(path);
    }
    original
}

fn outer(bundle: &[u8]) -> Vec<Outer> {
    let (mut outer, mut at) = (Vec::new(), 0);
    while bundle[at] != 0 {
        let name = std::str::from_utf8(&bundle[at..at + 100]).unwrap().trim_end_matches('\0');
        let size = usize::from_str_radix(std::str::from_utf8(&bundle[at + 124..at + 135]).unwrap(), 8).unwrap();
        let content = at + 512..at + 512 + size;
        let end = content.end.next_multiple_of(512);
        outer.push(Outer { name: name.split_once('/').unwrap().1.to_owned(), header: at, content, end });
        at = end;
    }
    outer
}

#[derive(Default)]
struct Salvage {
    entries: BTreeMap<String, Entry>,
    places: BTreeMap<String, u64>,
    lost: BTreeSet<String>,
    damage: Vec<Error>,
}

async fn salvage(bundle: &Bytes, unlock: &Unlock) -> Result<Salvage, Error> {
    let mut reader = SalvageReader::open(Memory(bundle.clone()), unlock).await?;
    let mut found = Salvage::default();
    while let Some(salvaged) = reader.next().await? {
        match salvaged {
            Salvaged::Entries(entries) => {
                for (entry, line) in entries {
                    found.places.insert(line.path, line.place.unwrap().offset);
                    assert!(found.entries.insert(entry.path.clone(), entry).is_none(), "an entry came twice");
                }
            }
            Salvaged::Lost(lines) => found.lost.extend(lines.into_iter().map(|line| line.path)),
            Salvaged::Damage(error) => found.damage.push(error),
            Salvaged::Catalog(_) | Salvaged::Manifest(_) => {}
        }
    }
    Ok(found)
}

impl Original {
    /// Salvages `bundle`, in which the segments `broken` are not whole: all others come out, and these are named where
    /// there is what can name them.
    async fn expect(&self, what: &str, bundle: Vec<u8>, broken: &BTreeSet<&str>, is_named: bool) -> Salvage {
        let found = salvage(&bundle.into(), &unlock(&self.identity)).await;
        let found = found.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(!found.damage.is_empty(), "{what}: nothing was told");
        let lost: BTreeSet<&String> = broken.iter().filter_map(|name| self.inside.get(*name)).flatten().collect();
        for (path, entry) in &self.entries {
            match found.entries.get(path) {
                Some(found) => assert_eq!(found, entry, "{what}: {path}"),
                None => assert!(
                    lost.contains(path),
                    "{what}: {path} is undamaged, and did not come out: {:?}",
                    found.damage
                ),
            }
        }
        if is_named {
            for path in lost {
                assert!(found.lost.contains(path), "{what}: {path} is not named");
            }
        }
        for name in broken {
            let is_told = |error: &Error| error.to_string().contains(name.split('.').next().unwrap());
            assert!(found.damage.iter().any(is_told) || !is_named, "{what}: {name} in {:?}", found.damage);
        }
        found
    }

    fn segments(&self) -> impl Iterator<Item = &Outer> {
        self.outer.iter().filter(|outer| outer.name.starts_with("data/"))
    }
}

#[tokio::test]
async fn a_broken_segment_costs_what_lies_in_it_and_no_more() {
    let original = original(60).await;
    assert!(original.segments().count() > 8);
    for outer in original.segments() {
        let broken = BTreeSet::from([outer.name.as_str()]);
        let middle = (outer.content.start + outer.content.end) / 2;
        let mut flipped = original.bundle.to_vec();
        flipped[middle] ^= 1;
        let found = original.expect("a flipped bit", flipped, &broken, true).await;
        assert_eq!(found.damage.len(), 1, "{:?}", found.damage);
        // A block of zeros that begins in the header and ends in the content.
        let mut zeroed = original.bundle.to_vec();
        zeroed[outer.header..outer.content.start + 100].fill(0);
        original.expect("a zeroed block", zeroed, &broken, true).await;
        let without = [&original.bundle[..outer.header], &original.bundle[outer.end..]].concat();
        original.expect("a dropped segment", without, &broken, true).await;
        // Not by whole blocks: whatever copied it lost some bytes.
        let short = [&original.bundle[..middle], &original.bundle[middle + 77..]].concat();
        original.expect("lost bytes", short, &broken, true).await;
        let long = [&original.bundle[..middle], &[7; 1000], &original.bundle[middle..]].concat();
        original.expect("foreign bytes", long, &broken, true).await;
    }
}

#[tokio::test]
async fn a_broken_header_costs_nothing_where_a_shard_or_the_catalog_tells_the_place() {
    let original = original(60).await;
    for outer in original.outer.iter().filter(|outer| outer.name != "TRAILER") {
        let mut bundle = original.bundle.to_vec();
        bundle[outer.header..outer.content.start].fill(0xff);
        original.expect(&outer.name, bundle.clone(), &BTreeSet::new(), true).await;
        if !outer.name.starts_with("data/") {
            continue;
        }
        // Without the shards there is the catalog.
        for shard in original.outer.iter().filter(|outer| outer.name.starts_with("index/")) {
            bundle[shard.content.start + 200] ^= 1;
        }
        original.expect(&outer.name, bundle, &BTreeSet::new(), true).await;
    }
}

#[tokio::test]
async fn a_torn_bundle_gives_what_came_before_the_cut() {
    let original = original(60).await;
    let key_ends = original.outer.iter().find(|outer| outer.name == "PADDING").unwrap().end;
    let mut cuts: BTreeSet<usize> = (key_ends..original.bundle.len()).step_by(997).collect();
    cuts.extend(original.outer.iter().flat_map(|o| [o.header, o.header + 9, o.content.start, o.content.end]));
    for cut in cuts.into_iter().filter(|&cut| cut >= key_ends) {
        let broken = original.segments().filter(|o| o.content.end > cut).map(|o| o.name.as_str()).collect();
        let found = original.expect(&format!("cut at {cut}"), original.bundle[..cut].to_vec(), &broken, false).await;
        let is_torn = |error: &Error| matches!(error, Error::Torn { offset, .. } if *offset == cut as u64);
        let is_end = |error: &Error| matches!(error, Error::Damaged { entry, .. } if entry == "the end of the file");
        assert!(found.damage.iter().any(|error| is_torn(error) || is_end(error)), "cut at {cut}: {:?}", found.damage);
    }
    // Without a key there is nothing.
    let before_key = original.outer[2].content.start;
    let told = salvage(&original.bundle.slice(..before_key), &unlock(&original.identity)).await;
    assert!(matches!(told, Err(Error::KeyDamaged)));
}

#[tokio::test]
async fn several_shards_and_their_damage() {
    let original = original(9000).await;
    let shards: Vec<&Outer> = original.outer.iter().filter(|outer| outer.name.starts_with("index/")).collect();
    assert!(shards.len() > 2, "{}", shards.len());
    let segments: Vec<&Outer> = original.segments().collect();
    // Two segments of the first shard and one of the second; then the shards, then the catalog, too.
    let broken = [segments[0], segments[1], segments[segments.len() / 2]];
    let mut bundle = original.bundle.to_vec();
    broken.iter().for_each(|outer| bundle[outer.content.start + 300] ^= 1);
    let broken: BTreeSet<&str> = broken.iter().map(|outer| outer.name.as_str()).collect();
    original.expect("three segments", bundle.clone(), &broken, true).await;
    bundle[shards[0].content.start + 300] ^= 1;
    original.expect("and a shard", bundle.clone(), &broken, true).await;
    bundle[shards[1].header] ^= 1;
    original.expect("and a shard's header", bundle.clone(), &broken, true).await;
    for outer in original.outer.iter().filter(|outer| outer.name.starts_with("catalog/")) {
        bundle[outer.content.start + 300] ^= 1;
    }
    original.expect("and the catalog", bundle, &broken, false).await;
    let swapped = {
        let (a, b, c) = (segments[3], segments[4], &original.bundle);
        assert_eq!(a.end, b.header);
        [&c[..a.header], &c[b.header..b.end], &c[a.header..a.end], &c[b.end..]].concat()
    };
    original.expect("two segments swapped", swapped, &BTreeSet::new(), true).await;
}

#[tokio::test]
async fn either_slot_has_the_key() {
    let original = original(20).await;
    for name in ["bundle.key.age", "bundle.key.2.age"] {
        let slot = original.outer.iter().find(|outer| outer.name == name).unwrap();
        for at in [slot.header, slot.content.start + 40, slot.content.end - 5] {
            let mut bundle = original.bundle.to_vec();
            bundle[at] ^= 4;
            let found = salvage(&bundle.into(), &unlock(&original.identity)).await.unwrap();
            assert_eq!(found.entries, original.entries, "{name} at {at}");
        }
    }
    let other = x25519::Identity::generate();
    let told = salvage(&original.bundle, &unlock(&other)).await;
    assert!(matches!(told, Err(Error::WrongIdentity)));
    let told = salvage(&vec![7; 9000].into(), &unlock(&other)).await;
    assert!(matches!(told, Err(Error::NotABundle(_))));
}
