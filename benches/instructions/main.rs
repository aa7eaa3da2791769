//! The hot stages once each, for callgrind to count the instructions of: a number that no other load on the machine changes.
//!
//! `benches/count` runs it: `instructions STAGE` makes what the stage works on, and then does its work in [`measured`], which
//! is all that callgrind counts.

// What cannot be measured has nothing to tell.
#![allow(clippy::unwrap_used)]

#[path = "../stages/material.rs"]
mod material;

use std::hint::black_box;

use blake2b_simd::many::{HashManyJob, hash_many};
use bytes::Bytes;
use pacharc::fuzzing;
use pacharc_format::{BundleKey, Fingerprint, IndexLine, Packing, Spool, stages};

/// Bytes that each stage gets.
const BYTES: usize = 4 << 20;
/// Lines of the index, whose cost is told a line.
const LINES: usize = 10_000;

type Work = Box<dyn FnOnce() -> usize>;

/// Name, what the count is divided by, and what makes the work.
type Stage = (&'static str, usize, fn() -> Work);

const STAGES: [Stage; 10] = [
    ("BLAKE3, a byte", BYTES, || over_random(|bytes| blake3::hash(bytes).as_bytes().len())),
    ("BLAKE2b, a byte", BYTES, || over_random(|bytes| blake2b().hash(bytes).as_bytes().len())),
    ("BLAKE2b four at a time, a byte", BYTES, || {
        over_random(|bytes| {
            let parameters = blake2b();
            let mut jobs: Vec<_> =
                bytes.chunks(BYTES / 4).map(|quarter| HashManyJob::new(&parameters, quarter)).collect();
            hash_many(&mut jobs);
            jobs.len()
        })
    }),
    ("seal raw, a byte", BYTES, || seal(Packing::Raw)),
    ("open raw, a byte", BYTES, || open(Packing::Raw)),
    ("seal zstd, a byte", BYTES, || seal(Packing::Zstd)),
    ("open zstd, a byte", BYTES, || open(Packing::Zstd)),
    ("scan of a dump, a byte", BYTES, || {
        let rows = material::rows(BYTES);
        let (script, count) = (material::script(&rows), rows.lines().count());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        Box::new(move || {
            let found = runtime.block_on(fuzzing::script(script.as_bytes()));
            assert_eq!(found, count);
            found
        })
    }),
    ("fingerprint, a byte", BYTES, || {
        let rows = material::rows(BYTES);
        Box::new(move || {
            let mut fingerprint = Fingerprint::default();
            rows.lines().for_each(|line| fingerprint.line(line.as_bytes()));
            rows.len()
        })
    }),
    ("index line to JSON, sorted, and back, a line", LINES, index),
];

/// All that is counted: `benches/count` names this function to callgrind.
#[inline(never)]
fn measured(work: Work) -> usize {
    black_box(work())
}

fn main() {
    // Cargo's own `--bench` is no stage.
    let Some(name) = std::env::args().skip(1).find(|argument| !argument.starts_with("--")) else {
        STAGES.iter().for_each(|(name, per, _)| println!("{per}\t{name}"));
        return;
    };
    // A filter that is meant for another bench names none.
    if let Some((.., make)) = STAGES.iter().find(|(stage, ..)| *stage == name) {
        measured(make());
    }
}

fn blake2b() -> blake2b_simd::Params {
    let mut parameters = blake2b_simd::Params::new();
    parameters.hash_length(32);
    parameters
}

fn over_random(work: fn(&[u8]) -> usize) -> Work {
    let bytes = material::random(BYTES, 1);
    Box::new(move || work(&bytes))
}

/// What is packed so: random bytes raw, rows compressed.
fn plain(packing: Packing) -> Bytes {
    match packing {
        Packing::Raw => material::random(BYTES, 1).into(),
        Packing::Zstd => material::rows(BYTES).into(),
    }
}

fn seal(packing: Packing) -> Work {
    let (key, plain) = (BundleKey::generate(), plain(packing));
    Box::new(move || stages::seal(&key, packing, 3, plain).unwrap().len())
}

fn open(packing: Packing) -> Work {
    let (key, plain) = (BundleKey::generate(), plain(packing));
    let sealed = Bytes::from(stages::seal(&key, packing, 3, plain.clone()).unwrap().concat());
    Box::new(move || stages::open(&key, packing, sealed, plain.len()).unwrap().len())
}

fn index() -> Work {
    let lines: Vec<_> = (0..u32::try_from(LINES).unwrap()).map(material::line).collect();
    let folder = tempfile::tempdir().unwrap();
    Box::new(move || {
        let mut spool = Spool::new(folder.path(), 1 << 20);
        for line in &lines {
            spool.push(line.path.as_bytes(), serde_json::to_string(line).unwrap().as_bytes()).unwrap();
        }
        let back = |(_, json): (Vec<u8>, Vec<u8>)| serde_json::from_slice::<IndexLine>(&json).unwrap().path.len();
        spool.sorted().unwrap().map(|record| back(record.unwrap())).sum()
    })
}
