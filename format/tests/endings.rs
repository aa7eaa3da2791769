//! What stands at the end of a bundle: sums, TRAILER and nothing behind it. What differs is named, once.

// Clippy's own exception for tests knows only the test functions themselves, not what they share.
#![allow(clippy::unwrap_used)]

mod support;

use age::x25519;
use bytes::Bytes;
use pacharc_format::{Error, Extent, TRAILER, Trailer};
use support::parts::{Parts, forge, put_together, take_apart};
use support::{chunk, lock, options, stream, unlock, write};

/// A bundle of six chunks, each in a segment of its own.
async fn six(identity: &x25519::Identity) -> (Bytes, String, Parts) {
    let entries = (0..6).map(|n| chunk(vec![n; 700], u64::from(n))).collect();
    let (bundle, _) = write(entries, options(lock(identity), 1, 1 << 20)).await;
    let (folder, parts) = take_apart(&bundle);
    (bundle, folder, parts)
}

fn part<'a>(parts: &'a mut Parts, wanted: &str) -> &'a mut Vec<u8> {
    let found = parts.iter_mut().find(|(name, _)| name.starts_with(wanted));
    &mut found.unwrap().1
}

fn flip(content: &mut [u8]) {
    let middle = content.len() / 2;
    content[middle] ^= 1;
}

/// The entries that are told as damaged, with what is said of them.
async fn told(bundle: &[u8], identity: Option<&x25519::Identity>) -> Vec<(String, String)> {
    let key = identity.map(unlock);
    let errors = stream(bundle, key.as_ref()).await.unwrap_err();
    let told = errors.into_iter().map(|error| match error {
        Error::Damaged { entry, what, .. } => (entry, what),
        other => panic!("{other:?}"),
    });
    told.collect()
}

#[tokio::test]
async fn nothing_follows_trailer() {
    let identity = x25519::Identity::generate();
    let (_, folder, parts) = six(&identity).await;
    for again in &parts {
        let bundle = put_together(&folder, &[&parts[..], std::slice::from_ref(again)].concat());
        for key in [None, Some(&identity)] {
            let told = told(&bundle, key).await;
            assert_eq!(told, [("the end of the file".into(), "an entry follows TRAILER".into())], "{}", again.0);
        }
    }
}

#[tokio::test]
async fn what_has_another_hash_than_in_the_sums_is_named() {
    const WHAT: &str = "it does not have the hash that the bundle's sums give it";
    let identity = x25519::Identity::generate();
    let (_, folder, mut parts) = six(&identity).await;
    flip(part(&mut parts, "data/00000001"));
    let bundle = put_together(&folder, &parts);
    assert_eq!(told(&bundle, None).await, [("data/00000001.tar.age".into(), WHAT.into())]);
    // With the key it is found where it stands, and not told again at the end.
    let with_key = told(&bundle, Some(&identity)).await;
    assert_eq!(with_key.len(), 1, "{with_key:?}");
    assert_eq!(with_key[0].0, "data/00000001.tar.age");
    assert_ne!(with_key[0].1, WHAT);
    // The first by name, the others by number.
    for (more, name) in [(1, "data/00000003"), (2, "head.json")] {
        flip(part(&mut parts, name));
        let told = told(&put_together(&folder, &parts), None).await;
        let first = if more == 1 { "data/00000001.tar.age" } else { "head.json.zst.age" };
        assert_eq!(told, [(first.into(), format!("{WHAT}, nor have {more} others theirs"))]);
    }
}

#[tokio::test]
async fn sums_are_those_of_the_file() {
    let identity = x25519::Identity::generate();
    let (bundle, folder, parts) = six(&identity).await;
    let sums = parts.iter().find(|(name, _)| name == "BLAKE3SUMS").unwrap().1.clone();
    let last = sums[..sums.len() - 1].iter().rposition(|&byte| byte == b'\n').unwrap();
    let changed = [
        ("empty", Vec::new()),
        ("a line less", sums[..=last].to_vec()),
        ("a line more", [&sums[..], b"00  x\n"].concat()),
        ("no end of line", sums[..sums.len() - 1].to_vec()),
        ("half a line more", [&sums[..], b"00  x"].concat()),
        ("no text", [&sums[..], b"\xff\n"].concat()),
        ("a line that does not end", [&sums[..], &[b'x'; 5000]].concat()),
        ("many such lines", [&sums[..], &[b'x'; 500_000]].concat()),
    ];
    let at = bundle.len() - 1536;
    let trailer = Trailer::from_bytes(&bundle[at..at + TRAILER], at as u64).unwrap();
    for (what, changed) in changed {
        let mut parts = parts.clone();
        // TRAILER leads to them, and has the id of the old ones.
        let extent = Extent { length: changed.len() as u64, ..trailer.sums };
        *part(&mut parts, "TRAILER") = Trailer { sums: extent, ..trailer.clone() }.to_bytes().to_vec();
        *part(&mut parts, "BLAKE3SUMS") = changed;
        for key in [None, Some(&identity)] {
            let told = told(&put_together(&folder, &parts), key).await;
            assert_eq!(told.len(), 1, "{what}: {told:?}");
            assert_eq!(told[0].0, "BLAKE3SUMS", "{what}");
        }
    }
    assert_eq!(forge(&folder, parts), bundle, "what is put together by the rules is the bundle itself");
}
