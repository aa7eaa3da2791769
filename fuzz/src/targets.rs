//! The targets by name.

use pacharc::fuzzing as outside;
use pacharc_format::fuzzing::{self as format, Part};

use crate::{bundle, seeds};

/// Every target; each has a program in `fuzz_targets/`.
pub const TARGETS: [&str; 20] = [
    "about",
    "attributes",
    "bucket_url",
    "bundle",
    "bundle_key",
    "catalog",
    "compressed",
    "conninfo",
    "directory",
    "index",
    "manifest",
    "outer_header",
    "path",
    "piece",
    "release",
    "salvage",
    "script",
    "segment",
    "sums",
    "trailer",
];

/// What anything may be unpacked to here, in bytes.
const UNPACKED: usize = 1 << 20;

/// Gives `bytes` to a target.
///
/// # Panics
/// Where the target is not what it should be; and on a name that is none.
pub fn run(target: &str, bytes: &[u8]) {
    match target {
        "about" => format::parse(Part::About, bytes),
        "bundle" => bundle::read(bytes),
        "bundle_key" => format::key(bytes, &seeds::unlock()),
        "catalog" => format::parse(Part::Catalog, bytes),
        "compressed" => format::unpack(bytes, UNPACKED),
        "directory" => format::parse(Part::Directory, bytes),
        "index" => format::parse(Part::Index, bytes),
        "manifest" => format::parse(Part::Manifest, bytes),
        "outer_header" => format::parse(Part::Header, bytes),
        "path" => format::parse(Part::Path, bytes),
        "piece" => format::parse(Part::Piece, bytes),
        "salvage" => bundle::salvage(bytes),
        "segment" => format::parse(Part::Segment, bytes),
        "sums" => bundle::with_sums(bytes),
        "trailer" => format::parse(Part::Trailer, bytes),
        "attributes" => parse(outside::Part::Attributes, bytes),
        "bucket_url" => parse(outside::Part::BucketUrl, bytes),
        "conninfo" => parse(outside::Part::Conninfo, bytes),
        "release" => parse(outside::Part::Release, bytes),
        "script" => parse(outside::Part::Script, bytes),
        _ => panic!("there is no target {target}"),
    }
}

fn parse(part: outside::Part, bytes: &[u8]) {
    bundle::block_on(outside::parse(part, bytes));
}
