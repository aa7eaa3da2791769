//! Makes the vectors that are not there yet.

use std::collections::BTreeMap;
use std::io::Read;

use age::secrecy::ExposeSecret as _;
use age::{Recipient, x25519};
use pacharc_format::manifest::{Manifest, Objects};
use pacharc_format::{
    BundleWriter, CatalogWriter, Entry, Hash, Head, Key, Lock, Piece, Signer, State, WriterOptions, Written,
};
use uuid::Uuid;

use crate::cases::{self, Case};
use crate::sidecar::{Line, Sidecar, tell};
use crate::{folder, unlock};

#[tokio::test]
#[ignore = "writes into format/vectors what is not there yet"]
async fn generate() {
    make_keys();
    for name in cases::NAMES {
        let (bundle, sidecar) = (folder().join(format!("{name}.pacharc")), folder().join(format!("{name}.json")));
        if bundle.exists() || sidecar.exists() {
            println!("{name} is there: left as it is");
            continue;
        }
        let (bytes, said) = make(cases::case(name)).await;
        std::fs::write(bundle, bytes).unwrap();
        std::fs::write(sidecar, serde_json::to_string_pretty(&said).unwrap() + "\n").unwrap();
    }
}

fn make_keys() {
    let keys = folder().join("keys");
    for name in ["x25519.txt", "x25519-second.txt"] {
        let identity = x25519::Identity::generate();
        let (secret, public) = (identity.to_string(), identity.to_public());
        new_file(&keys.join(name), &format!("# public key: {public}\n{}\n", secret.expose_secret()));
    }
    new_file(&keys.join("passphrase.txt"), "correct horse battery staple\n");
    if !keys.join("minisign.key").exists() {
        let pair = minisign::KeyPair::generate_unencrypted_keypair().unwrap();
        let comment = Some("the key that signs vectors");
        new_file(&keys.join("minisign.key"), &pair.sk.to_box(comment).unwrap().into_string());
        new_file(&keys.join("minisign.pub"), &pair.pk.to_box().unwrap().into_string());
    }
    // The one key that the age crate does not make: `ssh-keygen -t ed25519 -N '' -C vectors`.
    assert!(keys.join("ssh-ed25519.txt").exists() && keys.join("ssh-ed25519.pub").exists());
}

fn new_file(path: &std::path::Path, text: &str) {
    if !path.exists() {
        std::fs::write(path, text).unwrap();
    }
}

/// A key of `vectors/keys/`.
struct SigningKey(minisign::SecretKey);

impl SigningKey {
    fn read(name: &str) -> Self {
        let text = std::fs::read_to_string(folder().join(format!("keys/{name}.key"))).unwrap();
        Self(minisign::SecretKeyBox::from(text).into_unencrypted_secret_key().unwrap())
    }
}

impl Signer for SigningKey {
    fn sign(&self, sums: &mut dyn Read, trusted_comment: &str) -> std::io::Result<Vec<u8>> {
        let signature = minisign::sign(None, &self.0, sums, Some(trusted_comment), Some("a vector's signature"));
        signature.map(|signature| signature.into_string().into_bytes()).map_err(std::io::Error::other)
    }
}

fn lock(case: &Case) -> Lock {
    let recipient = |name: &&str| -> Box<dyn Recipient + Send> {
        let text = std::fs::read_to_string(folder().join("keys").join(name)).unwrap();
        match text.strip_prefix("# public key: ") {
            Some(public) => Box::new(public.lines().next().unwrap().parse::<x25519::Recipient>().unwrap()),
            None => {
                let public = folder().join("keys").join(name.replace(".txt", ".pub"));
                let public = std::fs::read_to_string(public).unwrap();
                Box::new(public.trim_end().parse::<age::ssh::Recipient>().unwrap())
            }
        }
    };
    match unlock(case.unlock[0]) {
        pacharc_format::Unlock::Passphrase(passphrase) => Lock::Passphrase(passphrase),
        pacharc_format::Unlock::Identities(_) => Lock::Recipients(case.unlock.iter().map(recipient).collect()),
    }
}

async fn make(case: Case) -> (Vec<u8>, Sidecar) {
    let bundle = Uuid::new_v4();
    let options = WriterOptions {
        bundle,
        created: "2026-01-01T00:00:00Z".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        lock: lock(&case),
        jobs: 2,
        segment_target: case.segment_target,
        entry_limit: case.entry_limit,
        sealing: 4 << 20,
        level: 19,
        temp_dir: std::env::temp_dir(),
        spool_memory: 1 << 20,
    };
    let mut lines = lines(&case);
    let mut writer = BundleWriter::create(Vec::new(), options, case.head.clone()).await.unwrap();
    for entry in case.entries {
        writer.add(entry).await.unwrap();
    }
    let (mut catalog, sorted) = writer.finish_entries().await.unwrap();
    let mut jsons: BTreeMap<String, String> = sorted
        .map(|record| record.unwrap())
        .map(|(path, json)| (String::from_utf8(path).unwrap(), String::from_utf8(json).unwrap()))
        .collect();
    for line in &lines {
        match line.state {
            State::Missing => catalog.push_missing(&line.path, line.size).await.unwrap(),
            state => catalog.push(state, &line.path, &jsons.remove(&line.path).unwrap()).await.unwrap(),
        }
    }
    assert!(jsons.is_empty(), "{jsons:?}");
    let manifest = Manifest { finished: "2026-01-01T00:01:00Z".into(), objects: objects(&lines), ..case.manifest };
    let signer = case.signed_by.map(SigningKey::read);
    let (bytes, manifest, written) = finish(catalog, manifest, signer.as_ref()).await;
    lines.sort_by(|a, b| a.path.cmp(&b.path));
    let head = Head { bundle, ..case.head };
    let sidecar = Sidecar {
        what: case.what.into(),
        unlock: case.unlock.iter().map(|&name| name.to_owned()).collect(),
        recipients: case.unlock.iter().map(|name| kind(name).to_owned()).collect(),
        signed_by: case.signed_by.map(|name| format!("{name}.pub")),
        id: written.id,
        bytes: written.bytes,
        head: serde_json::to_value(head).unwrap(),
        manifest: serde_json::to_value(manifest).unwrap(),
        lines,
    };
    (bytes, sidecar)
}

/// Ends the bundle. What the writer fills into the manifest cannot be foreseen: of that the sidecar says nothing.
async fn finish(
    catalog: CatalogWriter<Vec<u8>>,
    manifest: Manifest,
    signer: Option<&SigningKey>,
) -> (Vec<u8>, serde_json::Value, Written) {
    let signer = signer.map(|signer| signer as &dyn Signer);
    let (bytes, written, _) = catalog.finish(manifest.clone(), signer).await.unwrap();
    let mut told = serde_json::to_value(manifest).unwrap();
    for filled_in in ["about", "catalog", "sums"] {
        told.as_object_mut().unwrap().remove(filled_in);
    }
    told["totals"] = serde_json::to_value(&written.totals).unwrap();
    (bytes, told, written)
}

fn kind(name: &str) -> &'static str {
    match name.split_once(['-', '.']).unwrap().0 {
        "x25519" => "X25519",
        "ssh" => "ssh-ed25519",
        _ => "scrypt",
    }
}

fn objects(lines: &[Line]) -> Option<Objects> {
    let mut objects = Objects { closed: Some(true), ..Objects::default() };
    for line in lines {
        match line.state {
            State::Live => objects.live.add(line.size),
            State::Orphan => objects.orphan.add(line.size),
            State::Foreign => objects.foreign.add(line.size),
            State::Rotten => objects.rotten.add(line.size),
            State::Missing => objects.missing.add(line.size),
            State::File | State::Object => {}
        }
    }
    objects.closed = Some(objects.rotten.count == 0 && objects.missing.count == 0);
    lines.iter().any(|line| line.state != State::File).then_some(objects)
}

/// The catalog's lines, as they follow from the entries without asking the writer.
fn lines(case: &Case) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut slices: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    for entry in &case.entries {
        lines.push(line(case, entry));
        match Piece::parse(&entry.path, &entry.body) {
            Some(Piece::Slice { folder, .. }) => slices.entry(folder).or_default().extend_from_slice(&entry.body),
            Some(Piece::Joined { folder, path, hash, count, .. }) => {
                let body = slices.remove(&folder).unwrap();
                let whole = Entry { path, body: body.into(), hash: Some(hash), ..entry.clone() };
                let pieces = Some(pacharc_format::Pieces { folder, count });
                lines.push(Line { pieces, ..line(case, &whole) });
            }
            _ => {}
        }
    }
    for (key, size) in &case.missing {
        let entry = Entry::text(key.to_path(), "");
        lines.push(Line { state: State::Missing, size: *size, hash: None, blake3: None, ..line(case, &entry) });
    }
    lines.sort_by(|a, b| a.path.cmp(&b.path));
    lines
}

fn line(case: &Case, entry: &Entry) -> Line {
    let key = Key::from_path(&entry.path);
    let state = case.states.get(&entry.path).copied().unwrap_or(match &key {
        None => State::File,
        Some(key) if key.chunk().is_some() => State::Live,
        Some(_) => State::Foreign,
    });
    let (metadata, metadata_blake3) = tell(&entry.metadata);
    Line {
        state,
        path: entry.path.clone(),
        key_hex: key.map(|key| hex::encode(key.as_bytes())),
        size: entry.body.len() as u64,
        hash: Some(entry.hash.unwrap_or_else(|| Hash::blake3(&entry.body))),
        blake3: Some(blake3::hash(&entry.body).to_hex().to_string()),
        pieces: None,
        metadata,
        metadata_blake3,
        rotten: entry.rotten,
    }
}
