//! The payload by itself, against the age project's vectors and against the age crate.

use super::*;
use std::path::PathBuf;

/// The age project's vectors (<https://c2sp.org/CCTV/age>), which the age crate carries in its sources.
fn testkit() -> PathBuf {
    let cargo = std::process::Command::new(env!("CARGO"))
        // What it lacks it fetches: a build of this crate alone has not fetched everything.
        .args(["metadata", "--format-version=1", "--locked", "--filter-platform"])
        .arg(format!("{}-unknown-linux-gnu", std::env::consts::ARCH))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&cargo.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let age = packages.iter().find(|package| package["name"] == "age").unwrap();
    PathBuf::from(age["manifest_path"].as_str().unwrap()).with_file_name("tests").join("testdata/testkit")
}

#[test]
fn a_payload_is_as_long_as_foretold() {
    let recipient = age::x25519::Identity::generate().to_public();
    for plain in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, BLOCK - CHUNK, BLOCK, 3 * BLOCK] {
        let mut sealing = SealingWriter::new(&recipient, plain).unwrap();
        let header = sealing.block.len();
        sealing.write_all(&vec![7; plain]).unwrap();
        let sealed = sealing.finish().unwrap();
        assert_eq!(sealed.length() - header, sealed_size(plain), "{plain}");
        assert!(sealed.blocks.iter().all(|block| block.capacity() <= BLOCK), "{plain}: a block has grown");
    }
}

/// One vector: what is to come of it, by which identities, and the file.
struct Vector {
    expect: String,
    payload: String,
    identities: Vec<Box<dyn Identity>>,
    file: Vec<u8>,
}

impl Vector {
    /// `None` for files in armor, which no bundle has.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let end = bytes.windows(2).position(|two| two == b"\n\n").unwrap();
        let header = std::str::from_utf8(&bytes[..end]).unwrap();
        let field = |name: &'static str| header.lines().filter_map(move |line| line.strip_prefix(name));
        let one = |name| field(name).next().unwrap_or_default().to_owned();
        if one("armored: ") == "yes" {
            return None;
        }
        let mut identities: Vec<Box<dyn Identity>> = Vec::new();
        identities.extend(
            field("identity: ").map(|i| Box::new(i.parse::<age::x25519::Identity>().unwrap()) as Box<dyn Identity>),
        );
        identities.extend(field("passphrase: ").map(|passphrase| {
            let mut identity = age::scrypt::Identity::new(passphrase.to_owned().into());
            identity.set_max_work_factor(16);
            Box::new(identity) as Box<dyn Identity>
        }));
        let mut file = bytes[end + 2..].to_vec();
        if one("compressed: ") == "zlib" {
            let mut inflated = Vec::new();
            flate2::read::ZlibDecoder::new(file.as_slice()).read_to_end(&mut inflated).unwrap();
            file = inflated;
        }
        Some(Self { expect: one("expect: "), payload: one("payload: "), identities, file })
    }
}

#[test]
fn the_age_vectors_come_out_as_they_must() {
    use sha2::Digest as _;
    let (mut opened, mut refused) = (0, 0);
    for vector in std::fs::read_dir(testkit()).unwrap() {
        let path = vector.unwrap().path();
        let Some(vector) = Vector::parse(&std::fs::read(&path).unwrap()) else { continue };
        let identities: Vec<&dyn Identity> = vector.identities.iter().map(AsRef::as_ref).collect();
        let outcome = open_in_place(BytesMut::from(vector.file.as_slice()), &identities, usize::MAX);
        // Piece by piece the same must come out.
        let mut read = Vec::new();
        let reading = Opening::new(&vector.file, &identities).map(|mut opening| opening.read_to_end(&mut read));
        let found = match &outcome {
            Ok(Ok(_)) => "success",
            Ok(Err(_)) => "payload failure",
            Err(DecryptError::InvalidMac) => "HMAC failure",
            Err(DecryptError::NoMatchingKeys | DecryptError::DecryptionFailed | DecryptError::KeyDecryptionFailed) => {
                "no match"
            }
            Err(_) => "header failure",
        };
        let expected = match vector.expect.as_str() {
            // The crate's parser of headers still takes stanzas of before version 1.
            "header failure" if path.ends_with("stanza_missing_body") => "success",
            "header failure" if path.ends_with("stanza_missing_final_line") => "success",
            expected => expected,
        };
        assert_eq!(found, expected, "{}: {outcome:?}", path.display());
        // Of a payload that fails nothing is used, whatever came before the failure.
        if found == "success" && expected == vector.expect {
            let plain = outcome.as_ref().unwrap().as_ref().unwrap().as_ref().unwrap();
            assert_eq!(hex::encode(sha2::Sha256::digest(plain)), vector.payload, "{}", path.display());
            assert_eq!(*plain, read, "{}", path.display());
        }
        let alike = match (&outcome, &reading) {
            (Ok(whole), Ok(pieces)) => whole.is_ok() == pieces.is_ok(),
            (whole, pieces) => whole.is_err() && pieces.is_err(),
        };
        assert!(alike, "{}: {reading:?}", path.display());
        if found == "success" { opened += 1 } else { refused += 1 }
    }
    assert!(opened >= 15 && refused >= 70, "{opened} opened, {refused} refused");
}

#[test]
fn both_ciphers_read_what_the_other_wrote() {
    let identity = age::x25519::Identity::generate();
    let recipient = identity.to_public();
    for size in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 1, 31 * CHUNK, 31 * CHUNK + 1, 2 * BLOCK + 1]
    {
        let plain: Vec<u8> = (0..size).map(|n| u8::try_from(n % 251).unwrap()).collect();
        let mut sealing = SealingWriter::new(&recipient, size).unwrap();
        // In odd portions, and at once.
        let mut at_once = SealingWriter::new(&recipient, size).unwrap();
        at_once.write_all(&plain).unwrap();
        for portion in plain.chunks(10_007) {
            sealing.write_all(portion).unwrap();
        }
        let mut both = Vec::new();
        for sealing in [sealing, at_once] {
            let sealed = sealing.finish().unwrap();
            let (hash, sealed) = (sealed.hash, sealed.into_bytes());
            assert_eq!(hash, blake3::hash(&sealed), "{size}");
            assert_eq!(age::decrypt(&identity, &sealed).unwrap(), plain, "{size}");
            both.push(sealed);
        }
        let sealed = both.swap_remove(0);
        let theirs = age::encrypt(&recipient, &plain).unwrap();
        let open = |limit| open_in_place(BytesMut::from(theirs.as_slice()), &[&identity], limit).unwrap().unwrap();
        assert_eq!(open(size).unwrap(), plain, "{size}");
        assert!(size == 0 || open(size - 1).is_none(), "{size}");
        let mut read = Vec::new();
        Opening::new(&sealed, &[&identity]).unwrap().read_to_end(&mut read).unwrap();
        assert_eq!(read, plain, "{size}");
    }
}

#[test]
fn a_header_that_is_too_long_is_not_parsed() {
    let identity = age::x25519::Identity::generate();
    let recipient = identity.to_public();
    // A recipient takes some 98 bytes.
    for (count, opens) in [(1, true), (150, true), (180, false)] {
        let recipients = std::iter::repeat_n(&recipient as &dyn Recipient, count);
        let mut file = Vec::new();
        let mut sealing = age::Encryptor::with_recipients(recipients).unwrap().wrap_output(&mut file).unwrap();
        sealing.write_all(b"x").unwrap();
        sealing.finish().unwrap();
        assert_eq!(Opening::new(&file, &[&identity]).is_ok(), opens, "{count}");
    }
    // Parsed line by line it would take for ever.
    let long = [&b"age-encryption.org/v1\n"[..], &b"-> a\n\n".repeat(1 << 20)].concat();
    for mac in [String::new(), format!("--- {}\n", "A".repeat(43))] {
        let file = [&long[..], mac.as_bytes()].concat();
        assert!(matches!(Opening::new(&file, &[&identity]).err(), Some(DecryptError::InvalidHeader)));
    }
}

#[test]
fn no_bit_of_a_payload_can_be_changed() {
    let identity = age::x25519::Identity::generate();
    let sealed = age::encrypt(&identity.to_public(), &[7; 100]).unwrap();
    for at in 0..sealed.len() {
        let mut changed = sealed.clone();
        changed[at] ^= 1;
        let opened = open_in_place(BytesMut::from(changed.as_slice()), &[&identity], 100);
        assert!(!matches!(opened, Ok(Ok(_))), "byte {at}");
    }
}
