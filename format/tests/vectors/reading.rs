//! Reads a vector in every way and compares it with its sidecar.

use std::collections::BTreeMap;

use bytes::Bytes;
use pacharc_format::{
    BundleReader, BundleStream, CatalogLine, Entry, Error, FileRange, Found, Head, Key, Manifest, ReadOptions, State,
    Unlock, inspect,
};
use serde_json::Value;

use crate::sidecar::{Line, Sidecar, tell};
use crate::{folder, unlock};

pub async fn check(name: &str) {
    let sidecar = std::fs::read(folder().join(format!("{name}.json"))).unwrap();
    let sidecar: Sidecar = serde_json::from_slice(&sidecar).unwrap();
    let path = folder().join(format!("{name}.pacharc"));
    let bundle = std::fs::read(&path).unwrap();
    assert_eq!(bundle.len() as u64, sidecar.bytes);

    let inspection = inspect(&FileRange::open(&path).unwrap()).await.unwrap();
    assert_eq!(inspection.recipients, sidecar.recipients);
    assert_eq!(inspection.trailer.map(|trailer| hex::encode(trailer.id)), Some(sidecar.id.clone()));

    let streamed = stream(&bundle, None).await.unwrap();
    assert_eq!(streamed.id, sidecar.id);
    check_signature(sidecar.signed_by.as_deref(), streamed.signature.as_deref(), &streamed.sums);
    for place in (0..bundle.len()).step_by(bundle.len() / 61) {
        let mut broken = bundle.clone();
        broken[place] ^= 4;
        assert!(stream(&broken, None).await.is_err(), "byte {place} was flipped, and nobody told");
    }
    for key in &sidecar.unlock {
        let streamed = stream(&bundle, Some(&unlock(key))).await.unwrap();
        assert_eq!(streamed.id, sidecar.id);
        says(&serde_json::to_value(streamed.head.unwrap()).unwrap(), &sidecar.head, "head");
        says(&serde_json::to_value(streamed.manifest.unwrap()).unwrap(), &sidecar.manifest, "manifest");
        compare(&streamed.catalog, &sidecar.lines, &streamed.entries);
        let with_a_place = sidecar.lines.iter().filter(|line| line.hash.is_some() && line.pieces.is_none());
        assert_eq!(streamed.entries.len(), with_a_place.count());

        let reader = BundleReader::open(FileRange::open(&path).unwrap(), &unlock(key)).await.unwrap();
        says(&serde_json::to_value(reader.manifest()).unwrap(), &sidecar.manifest, "manifest");
        seek(&reader, &sidecar.lines).await;
        reader.check_sums().await.unwrap();
        let mut sums = Vec::new();
        reader.sums(|part| sums.extend_from_slice(part)).await.unwrap();
        check_signature(sidecar.signed_by.as_deref(), reader.signature().await.unwrap().as_deref(), &sums);
    }
}

/// The signature is there exactly where the sidecar names a key, and is that key's, of these sums.
fn check_signature(signed_by: Option<&str>, signature: Option<&[u8]>, sums: &[u8]) {
    let (Some(signed_by), Some(signature)) = (signed_by, signature) else {
        return assert_eq!((signed_by, signature), (None, None));
    };
    let key = minisign_verify::PublicKey::from_file(folder().join("keys").join(signed_by)).unwrap();
    let signature = minisign_verify::Signature::decode(std::str::from_utf8(signature).unwrap()).unwrap();
    key.verify(sums, &signature, false).unwrap();
    assert!(key.verify(&sums[1..], &signature, false).is_err());
    assert!(signature.trusted_comment().starts_with("pacharc format=1 uuid="), "{}", signature.trusted_comment());
}

/// All that came out of a bundle, read front to back.
#[derive(Default)]
struct Streamed {
    id: String,
    signature: Option<Bytes>,
    sums: Vec<u8>,
    head: Option<Head>,
    manifest: Option<Manifest>,
    entries: BTreeMap<String, Entry>,
    catalog: Vec<CatalogLine>,
}

async fn stream(bundle: &[u8], key: Option<&Unlock>) -> Result<Streamed, Error> {
    let options = ReadOptions { jobs: 2, memory: 1 << 20, temp_dir: &std::env::temp_dir() };
    let mut stream = BundleStream::open(bundle, options).await?;
    if let Some(key) = key {
        stream.unlock(key)?;
    }
    let mut streamed = Streamed::default();
    while let Some(found) = stream.next().await? {
        match found {
            Found::Head(head) => streamed.head = Some(*head),
            Found::Manifest(manifest) => streamed.manifest = Some(*manifest),
            Found::Entries(found) => {
                streamed.entries.extend(found.into_iter().map(|(entry, _)| (entry.path.clone(), entry)));
            }
            Found::Catalog(lines) => streamed.catalog.extend(lines),
            Found::Passed => {}
            Found::Damage(error) => return Err(error),
            Found::End { id, bytes, signature } => {
                assert_eq!(bytes, bundle.len() as u64);
                (streamed.id, streamed.signature) = (id, signature);
            }
        }
    }
    std::io::Read::read_to_end(&mut stream.sums()?, &mut streamed.sums).unwrap();
    Ok(streamed)
}

/// A later version may say more than the sidecar, and nothing else.
fn says(found: &Value, told: &Value, place: &str) {
    match (found, told) {
        (Value::Object(found), Value::Object(told)) => {
            for (name, told) in told {
                says(found.get(name).unwrap_or(&Value::Null), told, &format!("{place}.{name}"));
            }
        }
        (Value::Array(found), Value::Array(told)) if found.len() == told.len() => {
            found.iter().zip(told).for_each(|(found, told)| says(found, told, place));
        }
        _ => assert_eq!(found, told, "{place}"),
    }
}

/// The catalog and the bytes of the entries against the sidecar.
fn compare(catalog: &[CatalogLine], lines: &[Line], entries: &BTreeMap<String, Entry>) {
    assert_eq!(catalog.len(), lines.len());
    for (found, told) in catalog.iter().zip(lines) {
        let body = match (&found.entry.place, &found.entry.pieces) {
            (Some(_), None) => Some(entries[&told.path].body.clone()),
            (None, Some(pieces)) => {
                let slice = |n| entries[&format!("pieces/{}/{n:08}", pieces.folder)].body.clone();
                Some(Bytes::from((0..pieces.count).map(slice).collect::<Vec<_>>().concat()))
            }
            _ => None,
        };
        assert_eq!(&line(found, body.as_deref()), told);
        if let Some(entry) = entries.get(&told.path) {
            assert_eq!((&entry.metadata, entry.rotten), (&found.entry.metadata, told.rotten));
        }
    }
}

/// The line that a sidecar should have.
fn line(found: &CatalogLine, body: Option<&[u8]>) -> Line {
    let entry = &found.entry;
    let (metadata, metadata_blake3) = tell(&entry.metadata);
    Line {
        state: found.state,
        path: entry.path.clone(),
        key_hex: Key::from_path(&entry.path).map(|key| hex::encode(key.as_bytes())),
        size: entry.size,
        hash: entry.hash,
        blake3: body.map(|body| blake3::hash(body).to_hex().to_string()),
        pieces: entry.pieces,
        metadata,
        metadata_blake3,
        rotten: entry.rotten,
    }
}

/// Every line is found by its path, with its bytes; walks of the catalog begin where they are told to.
async fn seek(reader: &BundleReader<FileRange>, lines: &[Line]) {
    // Each look-up costs two blocks: of a large catalog a sample.
    for told in lines.iter().step_by(lines.len() / 60 + 1).chain(lines.last()) {
        let found = reader.find(&told.path).await.unwrap().unwrap();
        let body = match (&found.entry.pieces, found.state) {
            (_, State::Missing) => None,
            (None, _) => Some(reader.read(&found.entry).await.unwrap()),
            (Some(pieces), _) => {
                let mut body = Vec::new();
                for number in 0..pieces.count {
                    let slice = reader.find(&format!("pieces/{}/{number:08}", pieces.folder)).await.unwrap().unwrap();
                    body.extend_from_slice(&reader.read(&slice.entry).await.unwrap());
                }
                Some(body.into())
            }
        };
        assert_eq!(&line(&found, body.as_deref()), told);
        assert_eq!(body.map_or(told.size, |body| body.len() as u64), told.size);
        if let Some(key) = &told.key_hex {
            assert_eq!(Key::new(hex::decode(key).unwrap()).to_path(), told.path);
        }
    }
    assert!(reader.find("objects/other/no-such-key").await.unwrap().is_none());
    assert!(reader.find("").await.unwrap().is_none());
    for from in [0, lines.len() / 3, lines.len().saturating_sub(1)] {
        let mut catalog = reader.catalog(lines.get(from).map_or("", |line| line.path.as_str()));
        let mut walked = Vec::new();
        while let Some(block) = catalog.next().await.unwrap() {
            walked.extend(block.into_iter().map(|line| line.entry.path));
        }
        assert!(walked.iter().eq(lines.iter().skip(from).map(|line| &line.path)), "from {from}");
    }
}
