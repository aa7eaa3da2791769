//! What is done to a bundle: every damage to every kind of entry.

use std::collections::BTreeMap;

use age::x25519;
use pacharc_format::{TRAILER_FROM_END, Trailer};

use crate::support::outer::{Place, kinds, places, resize, sum};

/// A bundle that something was done to.
pub struct Damaged {
    /// What was done.
    pub damage: &'static str,
    /// To which entry, its number left out.
    pub entry: String,
    pub bytes: Vec<u8>,
    /// Whether the sums, and with them the id, were made to fit.
    pub has_new_sums: bool,
}

/// A change of one entry: the bundle, the entry, the same entry of another bundle.
type Change = fn(&[u8], &Place, &[u8]) -> Option<Vec<u8>>;

const CHANGES: [(&str, Change); 11] = [
    ("a bit flipped in the content", |bundle, place, _| {
        (!place.content.is_empty()).then(|| with(bundle, place.middle(), 1))
    }),
    ("a bit flipped in the header", |bundle, place, _| Some(with(bundle, place.header + 3, 1))),
    ("a bit flipped in the padding", |bundle, place, _| {
        (place.end() > place.content.end).then(|| with(bundle, place.end() - 1, 1))
    }),
    ("a block zeroed", |bundle, place, _| {
        let end = (place.content.start + 512).min(place.content.end);
        let mut bytes = bundle.to_vec();
        bytes[place.content.start..end].fill(0);
        (bytes != bundle).then_some(bytes)
    }),
    ("cut before it", |bundle, place, _| (place.header > 0).then(|| bundle[..place.header].to_vec())),
    ("cut inside", |bundle, place, _| Some(bundle[..place.middle()].to_vec())),
    ("dropped", |bundle, place, _| Some([&bundle[..place.header], &bundle[place.end()..]].concat())),
    ("repeated", |bundle, place, _| Some([&bundle[..place.end()], &bundle[place.header..]].concat())),
    ("swapped with the next", |bundle, place, _| {
        let next = places(bundle).into_iter().find(|next| next.header == place.end())?;
        let parts = [
            &bundle[..place.header],
            &bundle[next.header..next.end()],
            &bundle[place.header..place.end()],
            &bundle[next.end()..],
        ];
        Some(parts.concat())
    }),
    ("512 bytes added", |bundle, place, _| {
        let mut bytes = [&bundle[..place.content.end], &[7; 512], &bundle[place.content.end..]].concat();
        resize(&mut bytes[place.header..place.header + 512], place.content.len() + 512);
        Some(bytes)
    }),
    ("spliced from another bundle", splice),
];

/// What is written of these.
const TRICK: &str = "a tar trick: link, device, sparse, pax, `../`, huge or negative size";

/// How many of them each entry gets, in turn.
const TRICKS_EACH: usize = 3;

/// Headers that tar knows, and a bundle does not.
const TRICKS: [fn(&mut [u8]); 7] = [
    |header| {
        header[156] = b'2';
        header[157..168].copy_from_slice(b"/etc/passwd");
    },
    |header| header[156] = b'3',
    |header| header[156] = b'S',
    |header| header[156] = b'x',
    |header| {
        let name = header[..100].to_vec();
        header[..3].copy_from_slice(b"../");
        header[3..100].copy_from_slice(&name[..97]);
    },
    |header| header[124..136].copy_from_slice(b"77777777777\0"),
    |header| header[124..136].fill(0xff),
];

fn with(bundle: &[u8], at: usize, bit: u8) -> Vec<u8> {
    let mut bytes = bundle.to_vec();
    bytes[at] ^= bit;
    bytes
}

/// The same entry of another bundle, in this one's folder.
fn splice(bundle: &[u8], place: &Place, other: &[u8]) -> Option<Vec<u8>> {
    let theirs = places(other).into_iter().find(|theirs| theirs.name == place.name)?;
    if !is_of_its_own(bundle, place) {
        return None;
    }
    let mut entry = other[theirs.header..theirs.end()].to_vec();
    entry[..17].copy_from_slice(&bundle[..17]);
    sum(&mut entry[..512]);
    Some([&bundle[..place.header], &entry, &bundle[place.end()..]].concat())
}

/// Whether no other bundle has the same there.
fn is_of_its_own(bundle: &[u8], place: &Place) -> bool {
    place.name != "README.txt" && bundle[place.content.clone()].iter().any(|&b| b != 0)
}

/// Gives a bundle whose entries have kept their sizes the sums and the TRAILER that fit what is in it now.
fn sums_recomputed(bundle: &[u8]) -> Vec<u8> {
    let mut bytes = bundle.to_vec();
    let places = places(bundle);
    let content = |name: &str| {
        let place = places.iter().find(|place| place.name == name).unwrap();
        &bundle[place.content.clone()]
    };
    let has_sum = |name: &&str| !name.starts_with("bundle.key") && !name.starts_with("PADDING");
    let before = places.iter().map(|place| place.name.as_str()).take_while(|name| *name != "BLAKE3SUMS");
    let sums: String =
        before.filter(has_sum).map(|name| format!("{}  {name}\n", blake3::hash(content(name)))).collect();
    let place = places.iter().find(|place| place.name == "BLAKE3SUMS").unwrap();
    assert_eq!(sums.len(), place.content.len());
    bytes[place.content.clone()].copy_from_slice(sums.as_bytes());
    let at = bytes.len() - usize::try_from(TRAILER_FROM_END).unwrap();
    let mut trailer = Trailer::from_bytes(&bytes[at..at + 512], at as u64).unwrap();
    trailer.id = *blake3::hash(sums.as_bytes()).as_bytes();
    trailer.key_hash = *blake3::hash(&[content("bundle.key.age"), content("PADDING")].concat()).as_bytes();
    bytes[at..at + 512].copy_from_slice(&trailer.to_bytes());
    bytes
}

/// The bundle's own key, which whoever holds an identity has.
fn bundle_key(bundle: &[u8], identity: &x25519::Identity) -> x25519::Identity {
    let slot = places(bundle).into_iter().find(|place| place.name == "bundle.key.age").unwrap();
    let text = age::decrypt(identity, &bundle[slot.content]).unwrap();
    let text = String::from_utf8(text).unwrap();
    text.lines().find(|line| !line.starts_with('#')).unwrap().parse().unwrap()
}

/// The entry with another content, and a TRAILER and sums that fit: by someone who knows the format, and has no key.
fn replaced(bundle: &[u8], place: &Place, content: &[u8]) -> Vec<u8> {
    let padding = vec![0; content.len().next_multiple_of(512) - content.len()];
    let mut bytes = [&bundle[..place.content.start], content, &padding, &bundle[place.end()..]].concat();
    resize(&mut bytes[place.header..place.header + 512], content.len());
    let moved = i64::try_from(bytes.len()).unwrap() - i64::try_from(bundle.len()).unwrap();
    let at = bytes.len() - 1536;
    let mut trailer = Trailer::from_bytes(&bytes[at..at + 512], u64::MAX / 2).unwrap();
    for extent in [&mut trailer.manifest, &mut trailer.sums, &mut trailer.key, &mut trailer.key2] {
        if extent.offset > place.content.start as u64 {
            extent.offset = extent.offset.checked_add_signed(moved).unwrap();
        }
    }
    if place.name.starts_with("manifest") {
        trailer.manifest.length = content.len() as u64;
    }
    bytes[at..at + 512].copy_from_slice(&trailer.to_bytes());
    sums_recomputed(&bytes)
}

/// A compressed entry that unpacks to 200 MB, by someone who has the bundle's key.
fn bomb(bundle: &[u8], place: &Place, key: &x25519::Identity) -> Option<Vec<u8>> {
    if !place.name.ends_with(".zst.age") {
        return None;
    }
    // Frames one after the other are as good as one.
    let frame = zstd::bulk::compress(&vec![0; 20 << 20], 19).unwrap();
    Some(replaced(bundle, place, &age::encrypt(&key.to_public(), &frame.repeat(10)).unwrap()))
}

/// Everything that is done; `other` is another bundle of the same recipients.
pub fn all(bundle: &[u8], other: &[u8], identity: &x25519::Identity) -> Vec<Damaged> {
    let mut all = Vec::new();
    let key = bundle_key(bundle, identity);
    let mut add = |damage, place: &Place, has_new_sums, bytes| {
        let entry = place.name.replace(|c: char| c.is_ascii_digit() && !place.name.starts_with("bundle"), "");
        let entry = entry.replace("BLAKESUMS", "BLAKE3SUMS").replace("/.", "/….");
        let entry = if place.name == "PADDING.2" { place.name.clone() } else { entry };
        all.push(Damaged { damage, entry, bytes, has_new_sums });
    };
    let mut tricks = TRICKS.iter().cycle();
    for place in &kinds(bundle) {
        for (damage, change) in CHANGES {
            if let Some(bytes) = change(bundle, place, other) {
                add(damage, place, false, bytes);
            }
        }
        for trick in tricks.by_ref().take(TRICKS_EACH) {
            let mut bytes = bundle.to_vec();
            trick(&mut bytes[place.header..place.header + 512]);
            sum(&mut bytes[place.header..place.header + 512]);
            add(TRICK, place, false, bytes);
        }
        // Sums over themselves, and the end, are no matter of sums.
        if !place.content.is_empty() && !["BLAKE3SUMS", "TRAILER"].contains(&place.name.as_str()) {
            let flipped = sums_recomputed(&with(bundle, place.middle(), 1));
            add("a bit flipped, sums recomputed", place, true, flipped);
            let theirs = places(other).into_iter().find(|theirs| theirs.name == place.name).unwrap();
            if is_of_its_own(bundle, place) {
                let bytes = replaced(bundle, place, &other[theirs.content]);
                add("spliced, sums recomputed", place, true, bytes);
            }
        }
        if let Some(bytes) = bomb(bundle, place, &key) {
            add("a decompression bomb, well sealed", place, true, bytes);
        }
    }
    let whole = Place { name: "the file".into(), header: 0, content: 0..0 };
    add("a byte appended", &whole, false, [bundle, b"x"].concat());
    add("zeros appended", &whole, false, [bundle, &[0; 4096]].concat());
    add("another bundle appended", &whole, false, [bundle, other].concat());
    add("another bundle in front", &whole, false, [other, bundle].concat());
    add("emptied", &whole, false, Vec::new());
    all
}

/// How many bundles each damage gives: a change that does not change anything is none.
pub fn counts(all: &[Damaged]) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    all.iter().for_each(|damaged| *counts.entry(damaged.damage).or_default() += 1);
    counts
}
