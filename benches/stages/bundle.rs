//! All stages of the format together: a bundle written into memory and read back, of large objects and of small ones. Of
//! small ones, tar, index and catalog are the most of it.

use std::path::Path;

use age::x25519;
use bytes::Bytes;
use criterion::{Criterion, Throughput};
use pacharc_format::manifest::{Count, Manifest, Objects};
use pacharc_format::{
    BundleStream, BundleWriter, ChunkKey, Entry, Found, Hash, Head, IndexLine, Lock, Packing, ReadOptions, State,
    Unlock, WriterOptions,
};
use tokio::io::{AsyncWrite, sink};
use tokio::runtime::Runtime;
use uuid::Uuid;

use crate::SEGMENT;
use crate::material::random;

pub fn all(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let identity = x25519::Identity::generate();
    let folder = tempfile::tempdir().unwrap();
    let mut group = criterion.benchmark_group("bundle");
    group.sample_size(10);
    for (name, count, size) in [("16 objects of 8 MiB", 16, 8 << 20), ("20,000 objects of 2 KiB", 20_000, 2 << 10)] {
        let entries = entries(count, size);
        group.throughput(Throughput::Bytes((count * size) as u64));
        for jobs in [1, 2] {
            group.bench_function(format!("write {name}, {jobs} at a time"), |bencher| {
                bencher.iter(|| write(&runtime, &identity, folder.path(), jobs, &entries, sink()));
            });
        }
        let bundle = write(&runtime, &identity, folder.path(), 2, &entries, Vec::new());
        for jobs in [1, 2] {
            group.bench_function(format!("read {name}, {jobs} at a time"), |bencher| {
                bencher.iter(|| runtime.block_on(read(&bundle, Some(&identity), folder.path(), jobs)));
            });
        }
        group.bench_function(format!("sums of {name}"), |bencher| {
            bencher.iter(|| runtime.block_on(read(&bundle, None, folder.path(), 2)));
        });
    }
}

/// Chunks of this size, hashed, as a backup hands them over.
fn entries(count: usize, size: usize) -> Vec<Entry> {
    let bytes = Bytes::from(random(size + count, 1));
    let entry = |number: usize| {
        // Each begins a byte later: all differ, and take memory but once.
        let body = bytes.slice(number..number + size);
        let hash = Hash::blake2b(&body);
        let Hash::Blake2b(id) = hash else { unreachable!() };
        let path = ChunkKey { id, generation: 1 }.key().to_path();
        Entry { packing: Packing::Raw, hash: Some(hash), ..Entry::text(path, body) }
    };
    (0..count).map(entry).collect()
}

fn write<W: AsyncWrite + Unpin>(
    runtime: &Runtime,
    identity: &x25519::Identity,
    folder: &Path,
    jobs: usize,
    entries: &[Entry],
    output: W,
) -> W {
    let options = WriterOptions {
        bundle: Uuid::from_bytes([7; 16]),
        created: "2026-01-01T00:00:00Z".into(),
        version: "0.0.0".into(),
        lock: Lock::Recipients(vec![Box::new(identity.to_public())]),
        jobs,
        segment_target: SEGMENT,
        entry_limit: 32 << 20,
        sealing: 80 << 20,
        level: 3,
        temp_dir: folder.to_owned(),
        spool_memory: 8 << 20,
    };
    runtime.block_on(async {
        let head = Head { bundle: options.bundle, ..Head::default() };
        let mut writer = BundleWriter::create(output, options, head).await.unwrap();
        for entry in entries {
            writer.add(entry.clone()).await.unwrap();
        }
        let (mut catalog, lines) = writer.finish_entries().await.unwrap();
        let mut live = Count::default();
        for line in lines {
            let (path, json) = line.unwrap();
            let json = std::str::from_utf8(&json).unwrap();
            live.add(serde_json::from_str::<IndexLine>(json).unwrap().size);
            catalog.push(State::Live, std::str::from_utf8(&path).unwrap(), json).await.unwrap();
        }
        let objects = Objects { closed: Some(true), live, ..Objects::default() };
        let manifest = Manifest { objects: Some(objects), ..Manifest::default() };
        catalog.finish(manifest, None).await.unwrap().0
    })
}

/// With a key everything is checked, without one the sums.
async fn read(bundle: &[u8], identity: Option<&x25519::Identity>, folder: &Path, jobs: usize) {
    let options = ReadOptions { jobs, memory: 64 << 20, temp_dir: folder };
    let mut stream = BundleStream::open(bundle, options).await.unwrap();
    if let Some(identity) = identity {
        stream.unlock(&Unlock::Identities(vec![Box::new(identity.clone())])).unwrap();
    }
    while let Some(found) = stream.next().await.unwrap() {
        if let Found::Damage(error) = found {
            panic!("{error}");
        }
    }
}
