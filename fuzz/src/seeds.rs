//! Good starts: the golden vectors and their parts, and small texts by hand.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use base64::Engine as _;
use pacharc_format::Unlock;
use pacharc_format::fuzzing::{Part, parts};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files of a folder, by name; none where there is no such folder.
fn files(folder: PathBuf, suffix: &str) -> Vec<Vec<u8>> {
    let mut names: Vec<PathBuf> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.to_string_lossy().ends_with(suffix))
        .collect();
    names.sort();
    names.iter().filter_map(|path| std::fs::read(path).ok()).collect()
}

/// What opens most of the vectors.
///
/// # Panics
/// Where the key lies elsewhere.
pub(crate) fn unlock() -> Unlock {
    let text = std::fs::read_to_string(root().join("../format/vectors/keys/x25519.txt")).unwrap_or_default();
    let secret = text.lines().find(|line| !line.starts_with('#')).unwrap_or_default();
    match secret.parse::<age::x25519::Identity>() {
        Ok(identity) => Unlock::Identities(vec![Box::new(identity)]),
        Err(error) => panic!("the key of the vectors: {error}"),
    }
}

/// The golden vectors that the key opens: two, since they are large for a fuzzer.
pub(crate) fn bundles() -> Vec<Vec<u8>> {
    static BUNDLES: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    let read = |name: &str| std::fs::read(root().join("../format/vectors").join(name)).unwrap_or_default();
    BUNDLES.get_or_init(|| ["empty.pacharc", "pieces.pacharc"].map(read).to_vec()).clone()
}

/// The beginnings of a target: parts of the vectors, texts by hand, and what was once found.
#[must_use]
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    let part = |wanted: &[Part]| -> Vec<Vec<u8>> {
        let vectors = files(root().join("../format/vectors"), ".pacharc");
        let all = vectors.iter().flat_map(|bundle| parts(bundle, &unlock()));
        let mut found: Vec<Vec<u8>> = all.filter(|(part, _)| wanted.contains(part)).map(|(_, bytes)| bytes).collect();
        found.sort_by_key(Vec::len);
        found.dedup();
        found.truncate(40);
        found
    };
    let texts = |texts: &[&str]| texts.iter().map(|text| text.as_bytes().to_vec()).collect::<Vec<_>>();
    let mut seeds = match target {
        "about" => part(&[Part::About]),
        "bundle" | "salvage" => bundles(),
        "bundle_key" => {
            let slot = |bundle: Vec<u8>| {
                let at = bundle.windows(22).position(|w| w == b"age-encryption.org/v1\n").unwrap_or_default();
                bundle.get(at..at + 400).unwrap_or_default().to_vec()
            };
            let vectors = files(root().join("../format/vectors"), ".pacharc").into_iter().map(slot);
            // A parser that begins anew with each line takes its time for this one.
            let stanzas = b"-> a\n\n".repeat(5000);
            let long = [&b"age-encryption.org/v1\n"[..], &stanzas, b"--- ", &[b'A'; 43], b"\n"].concat();
            vectors.chain([long]).collect()
        }
        "catalog" => part(&[Part::Catalog]),
        "compressed" => vec![zstd(b"some text that is repeated, some text that is repeated"), zstd(&[0; 100_000])],
        "directory" => part(&[Part::Directory]),
        "index" => part(&[Part::Index]),
        "manifest" => part(&[Part::Manifest]),
        "outer_header" => part(&[Part::Header]),
        "path" => texts(&[
            "objects/chunk/0e5751c026e543b2e8ab2eb06099daa1d1e5df47778f7787faab45cdf12fe3a8.000000000000002a",
            "objects/other/a%2Fb",
            "objects/other/%2E.",
            "objects/other/~",
            "objects/other/aaaa~/b",
        ]),
        "piece" => texts(&["pieces/0/path\nobjects/other/a\n5", "pieces/1/00000000\nabc", "pieces/7/abandoned\n"]),
        "segment" => part(&[Part::Segment]),
        "sums" => {
            let mut sums = part(&[Part::Sums]);
            sums.extend(texts(&[
                "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262  README.txt\n",
                "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262  bundle.json\n\n  \n",
            ]));
            sums
        }
        "trailer" => part(&[Part::Trailer]),
        "attributes" => texts(&[
            r#"{"user.cache_control":"","user.content_type":"text/plain","user.metadata":{"a":"b"},"md5":null}"#,
            "{}",
        ]),
        "bucket_url" => texts(&[
            "s3://bucket/prefix?endpoint=http://127.0.0.1:9000&region=us-east-1&path_style=true",
            "file:///var/lib/pachyderm?layout=gocloud",
            "s3://b/k%20/x",
        ]),
        "conninfo" => texts(&[
            "postgres://user:pass@host:5432,other/db?sslmode=verify-full&connect_timeout=3",
            "postgresql://%2Ftmp%2Fpg/db",
            "host=a user='b c' password=\\'x\\\\ dbname = d",
            "postgres://[::1]:1/?host=/tmp",
        ]),
        "release" => vec![release(br#"{"name":"pachyderm","info":{},"chart":{"metadata":{}},"config":{"a":{"b":1}}}"#)],
        "script" => texts(&[
            "-- Data for Name: t; Type: TABLE DATA; Schema: public; Owner: -\n\nCOPY public.t (a, b) FROM stdin;\n1\t\\N\n\\\\.\n\\.\n\n--\n-- PostgreSQL database dump complete\n--\n",
            "\\restrict x\nSELECT pg_catalog.setval('public.s', 5, true);\nCREATE FUNCTION f() AS $$ ; $$;\n",
            "SELECT pg_catalog.lo_create('16401');\nSELECT pg_catalog.lowrite(0, '\\x00ff');\n",
        ]),
        _ => Vec::new(),
    };
    seeds.extend(files(root().join("regressions").join(target), ""));
    seeds
}

fn zstd(plain: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(plain, 3).unwrap_or_default()
}

fn release(json: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(json).ok();
    base64::prelude::BASE64_STANDARD.encode(gzip.finish().unwrap_or_default()).into_bytes()
}
