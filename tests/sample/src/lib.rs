//! A sample Pachyderm cluster, for the demo, the tests and the benches: PostgreSQL servers that come and go with a test,
//! databases and a bucket as pachd would have made them, of any size and from a seed, a writer that goes on as pachd does
//! while a backup runs, and a comparison of two clusters that shares no code with pacharc.

pub mod bucket;
pub mod chunk;
pub mod cluster;
pub mod compare;
pub mod connection;
pub mod invented;
pub mod postgres;
pub mod programs;
pub mod workload;
pub mod writer;

use std::io::Write;

/// Says that a test, or a part of one, has not been run, past the test runner's capture of what tests print.
pub fn skipped(why: &str) {
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}
