//! Whatever is done to a bundle by someone without its key: no reader panics, and none takes it for the original.
//!
//! The mutations are seeded: a failure names its number, and comes again.

// Clippy's own exception for tests knows only the test functions themselves, not what they share.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;

use age::x25519;
use bytes::Bytes;
use pacharc_format::{BundleReader, Entry, Error, Extent, Key, Packing, PieceWriter, TRAILER, Trailer, Unlock};
use support::parts::{Parts, forge, put_together, take_apart};
use support::{Memory, chunk, lock, object, options, stream, unlock, write};

const MUTATIONS: u64 = 600;

/// A small generator of numbers: the tests need no good ones, but the same ones each time.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(1);
        let hash = blake3::hash(&self.0.to_le_bytes());
        let number = u64::from_le_bytes(*hash.as_bytes().first_chunk().unwrap());
        usize::try_from(number % end.max(1) as u64).unwrap()
    }
}

struct Original {
    bundle: Bytes,
    parts: Parts,
    folder: String,
    entries: BTreeMap<String, Entry>,
    id: String,
}

async fn original(identity: &x25519::Identity, seed: u8) -> Original {
    let mut entries = vec![Entry::text("database/a/attempt-1/pre-data.sql", vec![seed; 300])];
    entries.extend((0..6).map(|n| chunk(vec![seed + n; 700], u64::from(n))));
    entries.push(object(&Key::from("notes"), &[seed; 50]));
    let key = Key::from("large");
    let (mut pieces, first) =
        PieceWriter::begin(0, key.to_path(), 2000, Packing::Raw, pacharc_format::Metadata::default());
    entries.push(first);
    entries.extend((0..2).map(|_| pieces.piece(vec![seed; 1000].into())));
    entries.push(pieces.finish(pacharc_format::Hash::blake3(&[seed; 2000]), false));
    let (bundle, written) = write(entries, options(lock(identity), 1500, 1 << 20)).await;
    let (entries, id) = stream(&bundle, Some(&unlock(identity))).await.unwrap();
    assert_eq!(id, written.id);
    let (folder, parts) = take_apart(&bundle);
    assert_eq!(put_together(&folder, &parts), bundle, "the test's own tar is the bundle's");
    Original { bundle, parts, folder, entries, id }
}

/// One mutation: of bytes, or of parts; with the checks that anybody can compute made to fit, or not.
fn mutate(random: &mut Random, mine: &Original, other: &Original) -> Bytes {
    let mut bytes = mine.bundle.to_vec();
    let mut parts = mine.parts.clone();
    let (one, two) = (random.below(parts.len()), random.below(parts.len()));
    match random.below(10) {
        0 => bytes[random.below(mine.bundle.len())] ^= 1 << random.below(8),
        1 => bytes.truncate(random.below(mine.bundle.len())),
        2 => {
            let at = random.below(bytes.len());
            bytes.drain(at..(at + 1 + random.below(2000)).min(mine.bundle.len()));
        }
        3 => {
            let at = random.below(bytes.len() / 512) * 512;
            let from = random.below(bytes.len() / 512) * 512;
            let end = (from + 512 * (1 + random.below(4))).min(bytes.len());
            let copied = bytes[from..end].to_vec();
            bytes.splice(at..at, copied);
        }
        4 => bytes.extend(vec![u8::try_from(random.below(2)).unwrap(); 1 + random.below(1024)]),
        kind => {
            match kind {
                5 => parts.swap(one, two),
                6 => drop(parts.remove(one)),
                7 => parts.insert(one, mine.parts[two].clone()),
                8 => {
                    // The same place of another bundle with the same recipients.
                    let same = other.parts.iter().find(|(name, _)| *name == parts[one].0);
                    parts[one] = same.unwrap_or(&other.parts[two.min(other.parts.len() - 1)]).clone();
                }
                _ => {
                    let content = &mut parts[one].1;
                    let at = random.below(content.len());
                    match (random.below(3), content.is_empty()) {
                        (0, false) => content[at] ^= 1 << random.below(8),
                        (1, false) => content.truncate(at),
                        _ => content.insert(at, b'\n'),
                    }
                }
            }
            bytes = match random.below(4) {
                0 => put_together(&mine.folder, &parts).to_vec(),
                _ => forge(&mine.folder, parts).to_vec(),
            };
        }
    }
    bytes.into()
}

fn assert_told(errors: &[Error], what: &str) {
    assert!(!errors.is_empty(), "{what}: not sound, and not a word");
    // A panic on another thread arrives as a worker's.
    assert!(!errors.iter().any(|error| matches!(error, Error::Worker(_) | Error::Read(_))), "{what}: {errors:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_but_the_original_is_sound() {
    let identity = x25519::Identity::generate();
    let (mine, other) = (original(&identity, 10).await, original(&identity, 100).await);
    let key = unlock(&identity);
    let mut forged = 0;
    for number in 0..MUTATIONS {
        let mutated = mutate(&mut Random(number << 32), &mine, &other);
        if mutated == mine.bundle {
            continue;
        }
        match stream(&mutated, None).await {
            // Sums that fit prove no author: the id is another one.
            Ok((_, id)) => {
                assert_ne!(id, mine.id, "mutation {number}, without a key");
                forged += 1;
            }
            Err(errors) => assert_told(&errors, &format!("mutation {number}, without a key")),
        }
        match stream(&mutated, Some(&key)).await {
            Ok(_) => panic!("mutation {number} is sound"),
            Err(errors) => assert_told(&errors, &format!("mutation {number}, with the key")),
        }
        by_ranges(mutated, &key, [&mine, &other], number).await;
    }
    assert!(forged > MUTATIONS / 10, "only {forged} mutations were forged well enough");
}

/// A reader by ranges sees only what it is asked for: what it gives must be right.
async fn by_ranges(mutated: Bytes, key: &Unlock, originals: [&Original; 2], number: u64) {
    let what = format!("mutation {number}, by ranges");
    let reader = match BundleReader::open(Memory(mutated), key).await {
        Ok(reader) => reader,
        Err(error) => return assert_told(&[error], &what),
    };
    let folder = format!("pacharc-{}/", &reader.manifest().about.bundle.simple().to_string()[..8]);
    let original = originals.into_iter().find(|original| original.folder == folder).unwrap();
    let mut catalog = reader.catalog("");
    loop {
        let lines = match catalog.next().await {
            Ok(Some(lines)) => lines,
            Ok(None) => return,
            Err(error) => return assert_told(&[error], &what),
        };
        for line in lines.iter().filter(|line| line.entry.place.is_some()) {
            match reader.read(&line.entry).await {
                Ok(body) => assert_eq!(body, original.entries[&line.entry.path].body, "{what}"),
                Err(error) => assert_told(&[error], &what),
            }
        }
    }
}

/// Whoever points TRAILER anywhere gets an error, and no memory.
#[tokio::test]
async fn a_forged_trailer_leads_nowhere() {
    let identity = x25519::Identity::generate();
    let mine = original(&identity, 10).await;
    let at = mine.bundle.len() - 1536;
    let told = Trailer::from_bytes(&mine.bundle[at..at + TRAILER], at as u64).unwrap();
    let places = [0, 1, 511, 512, told.manifest.offset, told.key2.offset, at as u64, u64::MAX / 2, u64::MAX];
    for which in 0..5 {
        for offset in places {
            for length in places {
                let mut trailer = told.clone();
                let extents = [
                    &mut trailer.manifest,
                    &mut trailer.sums,
                    &mut trailer.key,
                    &mut trailer.key2,
                    &mut trailer.signature,
                ];
                *extents.into_iter().nth(which).unwrap() = Extent { offset, length };
                if trailer == told {
                    continue;
                }
                let mut forged = mine.bundle.to_vec();
                forged[at..at + TRAILER].copy_from_slice(&trailer.to_bytes());
                let what = format!("extent {which}: {offset} {length}");
                let errors = stream(&forged, Some(&unlock(&identity))).await.expect_err(&what);
                assert_told(&errors, &what);
                by_ranges(forged.into(), &unlock(&identity), [&mine, &mine], 0).await;
            }
        }
    }
}
