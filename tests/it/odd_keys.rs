//! Keys of every kind (moto does not route control characters: those come from a directory): exactly as they were on what holds them, and never outside of the folder on what does not.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use pacharc_sample::bucket::Bucket as _;

use crate::support::moto;
use crate::support::program::{Desk, words};
use crate::support::sdk_bucket::SdkBucket;

fn keys() -> Vec<String> {
    let mut keys: Vec<String> = [
        "../../etc/x",
        "/abs",
        "a//b",
        "a/",
        "a",
        "a/b",
        "😀/ключ",
        "%2e%2e",
        "~",
        "a~",
        "objects/chunk/x",
        "pacharc",
        "./x",
        "x/../y",
        "a b ",
        "\"'\\`$(x)",
        "chunk/not-a-chunk",
        "a.attrs",
        "a.tmp",
        "CON",
        "é",
        "e\u{301}",
    ]
    .map(str::to_owned)
    .into();
    keys.push(format!("long/{}", "x".repeat(1019)));
    keys.push("ä".repeat(512));
    keys
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_keys_come_back_exactly_from_s3() {
    let Some(s3) = moto::start().await else { return };
    let (source, target) = (SdkBucket::make(&s3, "source").await, SdkBucket::make(&s3, "target").await);
    for (number, key) in keys().iter().enumerate() {
        let bytes = if number == 3 { Vec::new() } else { format!("{number} {key}").into_bytes() };
        source.put_with(key, &bytes, "text/odd", ("number", &number.to_string())).await;
    }
    let stored = source.whole().await;
    assert_eq!(stored.len(), keys().len());

    let desk = Desk::new();
    desk.backup(&words(&["--bucket", &source.url]), "c.pacharc", &[]).code(0);
    desk.restore("c.pacharc", &words(&["--bucket", &target.url]), &[]).code(0);
    let restored = target.whole().await;
    assert_eq!(stored.keys().collect::<Vec<_>>(), restored.keys().collect::<Vec<_>>());
    for (key, whole) in &stored {
        assert!(*whole == restored[key], "{key:?}: {whole:?} {:?}", restored[key]);
    }

    // Extraction stays in its folder, and no two keys meet there.
    desk.run(["extract", "c.pacharc", "objects", "--identity", "key.txt", "-o", "deep/out"]).code(0);
    assert_eq!(
        files(&desk.path("deep")),
        keys().len() + usize::from(desk.path("deep/out/objects/other.jsonl").exists())
    );
    assert!(files(&desk.path("deep/out/objects")) >= keys().len());
    let outside: Vec<_> = std::fs::read_dir(desk.folder()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(outside.len(), 3, "{outside:?}");
    // A directory cannot hold all of them: it says which not, and does not leave its folder.
    let run = desk.restore("c.pacharc", &words(&["--bucket", &desk.bucket("deep/directory")]), &[]);
    assert!(run.status.code().is_some_and(|code| code != 0) && run.has_advice(), "{}", run.stderr);
    assert!(!desk.path("etc").exists() && !desk.path("deep/etc").exists() && !Path::new("/abs").exists());
    assert!(target.get("a").await.unwrap().is_some());
}

fn files(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { files(&path) } else { 1 }).sum()
}

#[test]
fn odd_names_of_files_come_back_exactly() {
    let desk = Desk::new();
    let source = desk.path("source");
    // As gocloud has them: what a file system or another program may not like is escaped as `__0x…__`.
    let names: [(&[u8], &str); 7] = [
        (b"invalid \xff\xfe", "objects/other/invalid%20%FF%FE"),
        (b"new__0xa__line", "objects/other/new%0Aline"),
        (b"deep/er/x", "objects/other/deep%2Fer%2Fx"),
        (b"\xf0\x9f\x98\x80", "objects/other/%F0%9F%98%80"),
        (b" ", "objects/other/%20"),
        (b"%41", "objects/other/%2541"),
        (b"-rf", "objects/other/-rf"),
    ];
    for (name, _) in names {
        let path = source.join(OsStr::from_bytes(name));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, name).unwrap();
    }
    desk.backup(&words(&["--bucket", &desk.bucket("source")]), "c.pacharc", &[]).code(0);
    desk.run(["verify", "c.pacharc", "--identity", "key.txt"]).code(0);
    let listed = desk.run(["list", "c.pacharc", "--identity", "key.txt"]).code(0).text();
    desk.restore("c.pacharc", &words(&["--bucket", &desk.bucket("target")]), &[]).code(0);
    for (name, path) in names {
        assert!(listed.lines().any(|line| line.ends_with(&format!(" {path}"))), "{path}: {listed}");
        let restored = std::fs::read(desk.path("target").join(OsStr::from_bytes(name)));
        assert_eq!(restored.unwrap(), name, "{path}");
    }
    // A name that stands for no key is told, not guessed at.
    std::fs::write(source.join("new\nline"), "x").unwrap();
    let run = desk.backup(&words(&["--bucket", &desk.bucket("source")]), "d.pacharc", &[]);
    assert!(!run.status.success() && run.stderr.contains("nline"), "{}", run.stderr);
}
