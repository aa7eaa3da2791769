//! pg_dump's output: finding the rows, and their fingerprint.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use pacharc::fuzzing::{Part, parse};
use pacharc_format::Fingerprint;

use crate::material::{SEGMENT, rows, script};

pub fn all(criterion: &mut Criterion) {
    let rows = rows(SEGMENT);
    let script = script(&rows);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut group = criterion.benchmark_group("dump");
    group.throughput(Throughput::Bytes(rows.len() as u64));
    group.bench_function("scan", |bencher| {
        bencher.iter(|| runtime.block_on(parse(Part::Script, script.as_bytes())));
    });
    group.bench_function("fingerprint", |bencher| {
        bencher.iter(|| {
            let mut fingerprint = Fingerprint::default();
            rows.lines().for_each(|line| fingerprint.line(line.as_bytes()));
            black_box(fingerprint.count())
        });
    });
}
