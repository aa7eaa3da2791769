//! What only directories do: Pachyderm's layouts, files that are no objects, links, durability of a half-written file.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use pacharc::bucket::{self, Bucket, Error, Listed, Options, Size};
use pacharc_format::{Key, Metadata};

const FIRST: &str = "chunk/0e5751c026e543b2e8ab2eb06099daa1d1e5df47778f7787faab45cdf12fe3a8.000000000000002a";
const SECOND: &str = "chunk/635799e858f4be973449a78bf662d02dd0b3190196b53cb71c559a941cde02c8.0000000000000001";
const THIRD: &str = "chunk/029c4a7c9312ddbdd7868deefc676b373b1fc2d69813682e92eeef8b45e6870e.00000000000000ff";

async fn open(root: &Path) -> Arc<dyn Bucket> {
    let url = format!("file://{}", root.display());
    bucket::open(&url.parse().unwrap(), &Options::default()).await.unwrap()
}

async fn keys(bucket: &dyn Bucket) -> Vec<String> {
    let mut keys: Vec<String> = bucket.list(b"").map_ok(|l| l.key.to_string()).try_collect().await.unwrap();
    keys.sort();
    keys
}

async fn read(bucket: &dyn Bucket, key: &str) -> Result<Vec<u8>, Error> {
    let pieces: Vec<Bytes> = bucket.get(&Key::from(key)).await?.body.try_collect().await?;
    Ok(pieces.concat())
}

fn write(root: &Path, path: &str, content: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn encoded(key: &str) -> String {
    format!("objects/{}", URL_SAFE.encode(key))
}

/// A LOCAL cluster that was upgraded from 2.8 to 2.11 has both, one key even twice.
#[tokio::test]
async fn layouts_may_be_mixed() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path();
    write(path, &encoded(FIRST), "first");
    write(path, &encoded(SECOND), "second, old");
    write(path, "staging/0123456789abcdef0123456789abcdef", "unfinished");
    write(path, SECOND, "second");
    write(path, THIRD, "third");
    write(path, &format!("{THIRD}.attrs"), r#"{"user.content_type":"a/b","user.metadata":{"k":"v"},"md5":null}"#);
    write(path, &format!("{THIRD}.17a1b2c3d4e5f601.tmp"), "unfinished");
    write(path, &format!("{FIRST}.attrs"), "{}");
    let bucket = open(path).await;
    let mut expected = [FIRST, SECOND, THIRD];
    expected.sort_unstable();
    assert_eq!(keys(&*bucket).await, expected);
    for (key, content) in [(FIRST, "first"), (SECOND, "second"), (THIRD, "third")] {
        assert_eq!(read(&*bucket, key).await.unwrap(), content.as_bytes());
        assert_eq!(bucket.head(&Key::from(key)).await.unwrap().size, content.len() as u64);
        assert_eq!(bucket.get_range(&Key::from(key), 1, 2).await.unwrap(), &content[1..3]);
    }
    let third = bucket.get(&Key::from(THIRD)).await.unwrap().metadata;
    let user = BTreeMap::from([("k".to_owned(), "v".to_owned())]);
    assert_eq!(third, Metadata { content_type: Some("a/b".to_owned()), user, ..Metadata::default() });

    // What is written goes into the current layout, and then counts; what is deleted goes from both.
    bucket.put(&Key::from(FIRST), &Metadata::default(), Bytes::from_static(b"first, new")).await.unwrap();
    assert_eq!(fs::read(path.join(FIRST)).unwrap(), b"first, new");
    assert!(!path.join(format!("{FIRST}.attrs")).exists(), "attributes of another object");
    assert_eq!(read(&*bucket, FIRST).await.unwrap(), b"first, new");
    assert_eq!(keys(&*bucket).await.len(), 3);
    for key in expected {
        bucket.delete(&Key::from(key)).await.unwrap();
    }
    assert_eq!(keys(&*bucket).await, [""; 0]);
    assert!(!path.join(encoded(SECOND)).exists());
}

#[tokio::test]
async fn links_are_not_followed() {
    let outside = tempfile::tempdir().unwrap();
    write(outside.path(), "secret", "secret");
    let root = tempfile::tempdir().unwrap();
    symlink(outside.path(), root.path().join("folder")).unwrap();
    symlink(outside.path().join("secret"), root.path().join("file")).unwrap();
    let bucket = open(root.path()).await;
    assert_eq!(keys(&*bucket).await, [""; 0]);
    for key in ["folder/secret", "file"] {
        assert!(read(&*bucket, key).await.is_err_and(|e| e.is_not_found()), "{key}");
        assert!(bucket.head(&Key::from(key)).await.is_err(), "{key}");
    }
    let none = Metadata::default();
    let written = bucket.put(&Key::from("folder/new"), &none, Bytes::new()).await;
    assert!(matches!(written, Err(Error::InvalidKey { .. })), "{written:?}");
    // A link at the object's own place is replaced, and what it points to is left alone.
    bucket.put(&Key::from("file"), &none, Bytes::from_static(b"mine")).await.unwrap();
    bucket.delete(&Key::from("folder/secret")).await.unwrap();
    assert_eq!(fs::read(outside.path().join("secret")).unwrap(), b"secret");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    // The root itself may be a link: it was named by the user.
    symlink(root.path(), outside.path().join("root")).unwrap();
    let same = open(&outside.path().join("root")).await;
    assert_eq!(same.identity(), bucket.identity());
    assert_eq!(read(&*same, "file").await.unwrap(), b"mine");
}

#[tokio::test]
async fn hostile_keys_stay_inside() {
    let parent = tempfile::tempdir().unwrap();
    let root = parent.path().join("a/b/root");
    fs::create_dir_all(&root).unwrap();
    let bucket = open(&root).await;
    for key in ["../../x", "..", "../x", "/x", "a/../../../x", "x/..", "./.."] {
        bucket.put(&Key::from(key), &Metadata::default(), Bytes::new()).await.unwrap();
    }
    assert_eq!(keys(&*bucket).await.len(), 7);
    for folder in ["", "a", "a/b"] {
        assert_eq!(fs::read_dir(parent.path().join(folder)).unwrap().count(), 1, "{folder}");
    }
}

#[tokio::test]
async fn a_file_that_changes_while_it_is_read_is_found_out() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("key");
    fs::write(&path, vec![1; 5 << 20]).unwrap();
    let bucket = open(root.path()).await;
    for change in ["append", "truncate", "overwrite"] {
        let mut body = bucket.get(&Key::from("key")).await.unwrap().body;
        body.next().await.unwrap().unwrap();
        // Timestamps of files are as coarse as the kernel's tick.
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        let mut file = fs::OpenOptions::new().write(true).append(change == "append").open(&path).unwrap();
        match change {
            "truncate" => file.set_len(2 << 20).unwrap(),
            _ => file.write_all(&[2; 1000]).unwrap(),
        }
        let rest: Result<Vec<Bytes>, Error> = body.try_collect().await;
        assert!(matches!(rest, Err(Error::Changed { .. })), "{change}");
    }
    // A file that is replaced is another one: the old one is read to its end.
    fs::write(&path, vec![1; 5 << 20]).unwrap();
    let body = bucket.get(&Key::from("key")).await.unwrap().body;
    bucket.put(&Key::from("key"), &Metadata::default(), Bytes::from_static(b"new")).await.unwrap();
    let old: Vec<Bytes> = body.try_collect().await.unwrap();
    assert!(old.concat() == vec![1; 5 << 20]);
}

#[tokio::test]
async fn files_look_like_gocloud_s() {
    let root = tempfile::tempdir().unwrap();
    let bucket = open(root.path()).await;
    let plain = Key::from(FIRST);
    bucket.put(&plain, &Metadata::default(), Bytes::from_static(b"x")).await.unwrap();
    let typed = Metadata { content_type: Some("a/b".to_owned()), ..Metadata::default() };
    bucket.put(&Key::from(SECOND), &typed, Bytes::from_static(b"y")).await.unwrap();
    let mut upload = bucket.upload(&Key::from(THIRD), &typed, Size::About(0)).await.unwrap();
    upload.write(Bytes::from_static(b"z")).await.unwrap();
    drop(upload);
    let mut names: Vec<String> = fs::read_dir(root.path().join("chunk"))
        .unwrap()
        .map(|entry| format!("chunk/{}", entry.unwrap().file_name().into_string().unwrap()))
        .collect();
    names.sort();
    assert_eq!(names, [FIRST.to_owned(), SECOND.to_owned(), format!("{SECOND}.attrs")]);
    let attributes: serde_json::Value =
        serde_json::from_slice(&fs::read(root.path().join(format!("{SECOND}.attrs"))).unwrap()).unwrap();
    assert_eq!(attributes["user.content_type"], "a/b");
    assert_eq!(attributes["user.cache_control"], "");
    // 0666 less the umask, as whoever runs Pachyderm wants to write there too: as any file of this process.
    fs::write(root.path().join("mine"), "").unwrap();
    let mode = |path: &str| fs::metadata(root.path().join(path)).unwrap().mode() & 0o777;
    assert_eq!(mode(FIRST), mode("mine"));
    assert_eq!(mode(&format!("{SECOND}.attrs")), mode("mine"));
}

#[tokio::test]
async fn what_cannot_be_read_is_said() {
    let root = tempfile::tempdir().unwrap();
    let bucket = open(root.path()).await;
    write(root.path(), "bad", "x");
    write(root.path(), "bad.attrs", "{ torn");
    let error = read(&*bucket, "bad").await.unwrap_err();
    assert!(matches!(error, Error::Attributes { .. }), "{error:?}");
    write(root.path(), "strange__0x41__", "x");
    let error = bucket.list(b"").try_collect::<Vec<Listed>>().await.unwrap_err();
    assert!(matches!(error, Error::Foreign { .. }), "{error:?}");
    fs::remove_file(root.path().join("strange__0x41__")).unwrap();

    let missing = format!("file://{}/missing", root.path().display()).parse().unwrap();
    assert!(matches!(bucket::open(&missing, &Options::default()).await, Err(Error::NoBucket { .. })));

    fs::create_dir(root.path().join("closed")).unwrap();
    fs::set_permissions(root.path().join("closed"), fs::Permissions::from_mode(0o000)).unwrap();
    if fs::read_dir(root.path().join("closed")).is_ok() {
        eprintln!("skipped: folders without permission (root may read everything)");
        return;
    }
    let error = bucket.list(b"").try_collect::<Vec<Listed>>().await.unwrap_err();
    assert!(matches!(error, Error::Denied { .. }), "{error:?}");
}

/// An object's attributes lie at the name that a folder of other objects may have.
#[tokio::test]
async fn a_folder_may_look_like_attributes() {
    let root = tempfile::tempdir().unwrap();
    let bucket = open(root.path()).await;
    let (none, typed) = (Metadata::default(), Metadata { content_type: Some("a/b".to_owned()), ..Metadata::default() });
    bucket.put(&Key::from("x.attrs/y"), &none, Bytes::from_static(b"1")).await.unwrap();
    bucket.put(&Key::from("x"), &none, Bytes::from_static(b"2")).await.unwrap();
    assert_eq!(keys(&*bucket).await, ["x", "x.attrs/y"]);
    assert_eq!(read(&*bucket, "x").await.unwrap(), b"2");
    let refused = bucket.put(&Key::from("x"), &typed, Bytes::from_static(b"3")).await;
    assert!(matches!(refused, Err(Error::InvalidKey { .. })), "{refused:?}");
    assert_eq!(read(&*bucket, "x").await.unwrap(), b"2");
}

/// The listing of a large folder is handed over as it is read, and may be given up.
#[tokio::test]
async fn a_listing_may_be_given_up() {
    let root = tempfile::tempdir().unwrap();
    for i in 0..3000 {
        write(root.path(), &format!("chunk/{i}"), "");
    }
    let bucket = open(root.path()).await;
    let some: Vec<_> = bucket.list(b"chunk/").take(3).try_collect().await.unwrap();
    assert_eq!(some.len(), 3);
    assert_eq!(keys(&*bucket).await.len(), 3000);
}
