//! Compression, and sealing and opening with and without it.

use std::hint::black_box;
use std::io::Write;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput};
use pacharc_format::{BundleKey, Packing, stages};

use crate::SEGMENT;
use crate::material::{random, rows};

pub fn all(criterion: &mut Criterion) {
    let random = random(SEGMENT, 1);
    let text = rows(SEGMENT).into_bytes();
    let mut group = criterion.benchmark_group("zstd");
    group.sample_size(10);
    for (what, plain) in [("random", &random), ("rows", &text)] {
        group.throughput(Throughput::Bytes(plain.len() as u64));
        for level in [1, 2, 3, 6, 9] {
            let size = compress(plain, level).len();
            let name = format!("{what}, level {level} ({:.1} %)", 100.0 * size as f64 / plain.len() as f64);
            group.bench_function(name, |bencher| bencher.iter(|| black_box(compress(plain, level))));
        }
        let compressed = compress(plain, 3);
        group.bench_function(format!("{what}, back"), |bencher| {
            bencher.iter(|| black_box(zstd::bulk::decompress(&compressed, plain.len()).unwrap()));
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group("seal");
    let key = BundleKey::generate();
    for (what, plain, packing) in [("raw", random, Packing::Raw), ("zstd", text, Packing::Zstd)] {
        let plain = Bytes::from(plain);
        group.throughput(Throughput::Bytes(plain.len() as u64));
        group.bench_function(format!("{what}, seal"), |bencher| {
            bencher.iter(|| black_box(stages::seal(&key, packing, 3, plain.clone()).unwrap()));
        });
        let sealed = stages::seal(&key, packing, 3, plain.clone()).unwrap().concat();
        group.bench_function(format!("{what}, open"), |bencher| {
            // It is opened where it lies.
            let copy = || Bytes::copy_from_slice(&sealed);
            bencher.iter_batched(
                copy,
                |sealed| stages::open(&key, packing, sealed, plain.len()).unwrap(),
                BatchSize::LargeInput,
            );
        });
    }
}

/// As sealing does it, checksum and all but the size.
fn compress(plain: &[u8], level: i32) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::with_capacity(plain.len() + (64 << 10)), level).unwrap();
    encoder.include_checksum(true).unwrap();
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}
