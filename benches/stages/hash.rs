//! Hashes: BLAKE3 of what goes into the bundle, BLAKE2b of chunks.

use std::hint::black_box;

use blake2b_simd::many::{HashManyJob, hash_many};
use criterion::{Criterion, Throughput};

use crate::material::random;

pub fn all(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("hash");
    let mut blake2b = blake2b_simd::Params::new();
    blake2b.hash_length(32);
    for (name, size) in [("16 KiB", 16 << 10), ("8 MiB", 8 << 20)] {
        let chunks: Vec<_> = (0..4).map(|seed| random(size, seed)).collect();
        group.throughput(Throughput::Bytes(4 * size as u64));
        group.bench_function(format!("BLAKE3, 4 of {name}"), |bencher| {
            bencher.iter(|| for_each(&chunks, |chunk| blake3::hash(chunk)));
        });
        group.bench_function(format!("BLAKE2b one at a time, 4 of {name}"), |bencher| {
            bencher.iter(|| for_each(&chunks, |chunk| blake2b.hash(chunk)));
        });
        group.bench_function(format!("BLAKE2b four at a time, 4 of {name}"), |bencher| {
            bencher.iter(|| {
                let mut jobs: Vec<_> = chunks.iter().map(|chunk| HashManyJob::new(&blake2b, chunk)).collect();
                hash_many(&mut jobs);
                for_each(&jobs, HashManyJob::to_hash);
            });
        });
    }
}

fn for_each<T, R>(all: &[T], each: impl Fn(&T) -> R) {
    for one in all {
        black_box(each(one));
    }
}
