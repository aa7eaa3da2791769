//! The index of 100,000 objects: its lines as JSON and back, and sorted, with and without spilling.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput};
use pacharc_format::{ChunkKey, Hash, IndexLine, Metadata, Place, Spool};

const LINES: u32 = 100_000;

pub fn all(criterion: &mut Criterion) {
    let lines: Vec<_> = (0..LINES).map(line).collect();
    let json: Vec<_> = lines.iter().map(|line| serde_json::to_string(line).unwrap()).collect();
    let mut group = criterion.benchmark_group("index");
    group.sample_size(10);
    group.throughput(Throughput::Elements(u64::from(LINES)));
    group.bench_function("to JSON", |bencher| {
        bencher.iter(|| lines.iter().map(|line| serde_json::to_string(line).unwrap().len()).sum::<usize>());
    });
    group.bench_function("from JSON", |bencher| {
        bencher.iter(|| json.iter().for_each(|text| drop(black_box(serde_json::from_str::<IndexLine>(text).unwrap()))));
    });
    let folder = tempfile::tempdir().unwrap();
    for (name, memory) in [("sort in memory", 256 << 20), ("sort by spilling", 8 << 20)] {
        group.bench_function(name, |bencher| {
            let spool = || Spool::new(folder.path(), memory);
            let sort = |mut spool: Spool| {
                for (line, text) in lines.iter().zip(&json) {
                    spool.push(line.path.as_bytes(), text.as_bytes()).unwrap();
                }
                assert_eq!(spool.sorted().unwrap().count(), lines.len());
            };
            bencher.iter_batched(spool, sort, BatchSize::PerIteration);
        });
    }
}

/// The line of a chunk that lies anywhere.
fn line(number: u32) -> IndexLine {
    let Hash::Blake3(id) = Hash::blake3(&number.to_le_bytes()) else { unreachable!() };
    let place = Place {
        segment: u64::from(number / 8),
        zstd: false,
        offset: u64::from(number) << 20,
        length: 8 << 20,
        at: 3072,
    };
    IndexLine {
        path: ChunkKey { id, generation: u64::from(number) }.key().to_path(),
        size: 1 << 20,
        hash: Some(Hash::Blake2b(id)),
        place: Some(place),
        pieces: None,
        metadata: Metadata::default(),
        rotten: false,
    }
}
