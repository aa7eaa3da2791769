//! What the stages work on: bytes as chunks are (random), text as pg_dump writes it, lines of an index.

use std::fmt::Write;

use pacharc_format::{ChunkKey, Hash, IndexLine, Metadata, Place};
use pacharc_sample::chunk::Chunk;

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
    format!("COPY \"public\".\"large\" (\"id\", \"key\", \"updated\", \"digest\", \"body\") FROM stdin;\n{rows}\\.\n\n")
}

/// The line of a chunk that lies anywhere.
pub fn line(number: u32) -> IndexLine {
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
