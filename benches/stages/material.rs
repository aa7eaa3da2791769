//! What the stages work on: bytes as chunks are (random), and text as pg_dump writes it.

use std::fmt::Write;

use pacharc_sample::chunk::Chunk;

/// The size of a segment.
pub const SEGMENT: usize = 8 << 20;

/// Bytes that do not compress: the same ones for the same seed.
pub fn random(bytes: usize, seed: u64) -> Vec<u8> {
    Chunk::generate(seed, 0, &(bytes as u64..=bytes as u64)).stored
}

/// One table's rows as COPY has them: keys, times, hashes, documents, as Pachyderm's tables are. About `bytes` of them.
pub fn rows(bytes: usize) -> String {
    let mut rows = String::with_capacity(bytes + 512);
    for id in 0_u64.. {
        if rows.len() >= bytes {
            break;
        }
        let hash = blake3::hash(&id.to_le_bytes()).to_hex();
        let _ = writeln!(
            rows,
            "{id}\tdefault/edges-{}@{}\t2025-03-01 08:{:02}:{:02}.25+00\t\\\\x{hash}\t{{\"path\": \"/images/{}/{id}.png\", \
             \"state\": \"DATUM_SUCCESS\", \"bytes\": {}, \"tries\": {}}}",
            id % 997,
            &hash[..32],
            id / 60 % 60,
            id % 60,
            id % 365,
            id * 7919 % 1_000_003,
            id % 3,
        );
    }
    rows
}

/// The rows as a script, with the statement before them and the end behind.
pub fn script(rows: &str) -> String {
    format!("COPY public.large (id, key, updated, digest, body) FROM stdin;\n{rows}\\.\n\n")
}
