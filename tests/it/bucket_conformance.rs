//! What every provider of `bucket` must do: one suite, run for each of them against the real thing.
//!
//! Where a server cannot do something, its [`Lacks`] says so, and the suite checks that it is so: nearly always, that it
//! fails loudly.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use pacharc::bucket::{self, Bucket, BucketUrl, Error, Listed, Options, Size};
use pacharc_format::{Key, Metadata};

use crate::bucket_environment::make_certificate;
use crate::support;
use crate::support::s3_server::{BUCKET, S3Server, options};

/// What a provider cannot hold.
#[derive(Clone, Copy, Default)]
struct Lacks {
    /// Keys that are refused.
    keys: &'static [&'static [u8]],
    /// `a` beside `a/b`.
    nesting: Nesting,
    /// Keys of 1,024 bytes.
    long_keys: bool,
}

/// What becomes of `a` beside `a/b`.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Nesting {
    #[default]
    Kept,
    Refused,
    /// Both can be read, and listings name only one: no client can tell. (Pachyderm's own keys never nest.)
    Unlisted,
}

/// Keys that have broken tools before.
const ODD_KEYS: [&[u8]; 26] = [
    b"chunk/0e5751c026e543b2e8ab2eb06099daa1d1e5df47778f7787faab45cdf12fe3a8.000000000000002a",
    b"../../etc/x",
    b"/abs",
    b"a//b",
    b"folder/",
    b"./dot",
    b"dot/./dot",
    b"dot/../dot",
    b"dots..",
    b"line\nbreak",
    b"tab\tand\rreturn",
    b"plus+plus",
    b"percent%41%zz",
    b"space in  it ",
    b"question?mark=1&x#y",
    b"quote'\"<>&;",
    b"back\\slash",
    b"star*|:~",
    "émoji/🦀".as_bytes(),
    "e\u{301}".as_bytes(),
    b"objects/Y2h1bmsvYQ==",
    b"staging/0123456789abcdef0123456789abcdef",
    b"x.attrs",
    b"x.17a1b2c3d4e5f601.tmp",
    b"a__0x2f__b",
    b"invalid\xff\xfeutf-8",
];

const INVALID_UTF8: &[u8] = b"invalid\xff\xfeutf-8";

async fn suite(bucket: Arc<dyn Bucket>, lacks: Lacks) {
    an_empty_bucket_lists_nothing(&*bucket).await;
    odd_keys_come_back(&*bucket, lacks).await;
    bytes_and_sizes_come_back(&*bucket).await;
    metadata_come_back(&*bucket).await;
    what_is_written_twice_counts_once(&*bucket).await;
    what_is_new_goes_over_nothing(&*bucket).await;
    what_is_absent_is_named(&*bucket).await;
    ranges_are_exact(&*bucket).await;
    deleting_is_idempotent(&*bucket).await;
    listings_are_complete(&*bucket).await;
    uploads_appear_whole_or_not_at_all(&*bucket).await;
    large_uploads_come_back(&*bucket).await;
    long_keys_come_back_or_are_refused(&*bucket, lacks).await;
    an_object_beside_a_folder_comes_back_or_is_refused(&*bucket, lacks).await;
    many_requests_at_a_time(bucket).await;
}

async fn an_empty_bucket_lists_nothing(bucket: &dyn Bucket) {
    assert_eq!(listed(bucket, b"").await, BTreeMap::new());
}

async fn bytes_and_sizes_come_back(bucket: &dyn Bucket) {
    for size in [0, 1, 1000, 1 << 20, (1 << 20) + 1, 5_000_000] {
        let key = Key::new(format!("sizes/{size}"));
        let body = noise(size);
        put(bucket, &key, body.clone()).await;
        let object = bucket.get(&key).await.unwrap();
        assert_eq!(object.size, size as u64);
        let head = bucket.head(&key).await.unwrap();
        assert_eq!((&head.key, head.size, head.archived), (&key, size as u64, false));
        assert!(head.etag.is_some() && head.etag == object.etag, "{:?} {:?}", head.etag, object.etag);
        assert_eq!(listed(bucket, key.as_bytes()).await[&key], head);
        assert!(content(object).await == body, "{size} bytes");
    }
}

async fn metadata_come_back(bucket: &dyn Bucket) {
    let text = |s: &str| Some(s.to_owned());
    let all = Metadata {
        content_type: text("text/plain; charset=utf-8"),
        content_encoding: text("gzip"),
        content_disposition: text("attachment; filename=\"a b\""),
        content_language: text("de"),
        cache_control: text("no-cache"),
        user: BTreeMap::from([("owner".to_owned(), "me".to_owned()), ("x-y".to_owned(), "a=b; c".to_owned())]),
    };
    // What Pachyderm up to 2.9 writes on Amazon.
    let odd_encoding = Metadata { content_encoding: text("application/octet-stream"), ..Metadata::default() };
    for (name, metadata) in [("all", all), ("odd-encoding", odd_encoding)] {
        let key = Key::new(format!("metadata/{name}"));
        let body = Bytes::from_static(b"not compressed at all");
        bucket.put(&key, &metadata, body.clone()).await.unwrap();
        let object = bucket.get(&key).await.unwrap();
        let mut found = object.metadata.clone();
        // Amazon and others give a type to what has none.
        if metadata.content_type.is_none() {
            found.content_type = None;
        }
        assert_eq!(found, metadata);
        assert_eq!(content(object).await, body);

        let mut upload = bucket.upload(&key, &metadata, Size::About(0)).await.unwrap();
        upload.write(body.clone()).await.unwrap();
        upload.finish().await.unwrap();
        let mut found = bucket.get(&key).await.unwrap().metadata;
        if metadata.content_type.is_none() {
            found.content_type = None;
        }
        assert_eq!(found, metadata);
    }
    // Written again without any, none are left over.
    let key = Key::from("metadata/all");
    put(bucket, &key, Bytes::new()).await;
    let left = bucket.get(&key).await.unwrap().metadata;
    assert_eq!(left, Metadata { content_type: left.content_type.clone(), ..Metadata::default() });
    assert_ne!(left.content_type.as_deref(), Some("text/plain; charset=utf-8"));
}

async fn what_is_new_goes_over_nothing(bucket: &dyn Bucket) {
    let (key, metadata) = (Key::from("new"), Metadata::default());
    bucket.put_new(&key, &metadata, Bytes::from_static(b"first")).await.unwrap();
    let again = bucket.put_new(&key, &metadata, Bytes::from_static(b"second")).await.unwrap_err();
    assert!(matches!(again, Error::Exists { .. }), "{again:?}");
    for length in [5, 9 << 20] {
        let mut upload = bucket.upload(&key, &metadata, Size::About(0)).await.unwrap();
        upload.write(vec![7; length].into()).await.unwrap();
        let refused = upload.finish_new().await.unwrap_err();
        assert!(matches!(refused, Error::Exists { .. }), "{refused:?}");
    }
    assert_eq!(content(bucket.get(&key).await.unwrap()).await, "first");
    bucket.delete(&key).await.unwrap();
    let mut upload = bucket.upload(&key, &metadata, Size::About(0)).await.unwrap();
    upload.write(vec![7; 9 << 20].into()).await.unwrap();
    upload.finish_new().await.unwrap();
    assert_eq!(bucket.head(&key).await.unwrap().size, 9 << 20);
    bucket.delete(&key).await.unwrap();
}

async fn what_is_written_twice_counts_once(bucket: &dyn Bucket) {
    let key = Key::from("twice/key");
    put(bucket, &key, Bytes::from_static(b"first")).await;
    let first = bucket.head(&key).await.unwrap();
    put(bucket, &key, Bytes::from_static(b"second")).await;
    let second = bucket.head(&key).await.unwrap();
    assert_ne!(first.etag, second.etag);
    assert_eq!(listed(bucket, b"twice/").await, BTreeMap::from([(key.clone(), second)]));
    assert_eq!(content(bucket.get(&key).await.unwrap()).await, "second");
}

async fn what_is_absent_is_named(bucket: &dyn Bucket) {
    put(bucket, &Key::from("present/x"), Bytes::new()).await;
    for absent in ["absent", "present", "present/x/y", "present/"] {
        let key = Key::from(absent);
        for error in
            [bucket.get(&key).await.err(), bucket.head(&key).await.err(), bucket.get_range(&key, 0, 1).await.err()]
        {
            assert!(matches!(&error, Some(Error::NotFound { key: named, .. }) if *named == key), "{absent}: {error:?}");
        }
    }
}

async fn ranges_are_exact(bucket: &dyn Bucket) {
    let key = Key::from("ranges/key");
    let body = noise(100_000);
    put(bucket, &key, body.clone()).await;
    for (offset, length) in [(0, 1), (0, 100_000), (99_999, 1), (50_000, 1234), (7, 0), (100_000, 0)] {
        let bytes = bucket.get_range(&key, offset as u64, length).await.unwrap();
        assert!(bytes == body.slice(offset..offset + length), "{offset} + {length}");
    }
    for (offset, length) in [(0, 100_001), (99_999, 2), (100_000, 1), (1 << 40, 5), (u64::MAX, 1)] {
        let error = bucket.get_range(&key, offset, length).await.unwrap_err();
        assert!(matches!(error, Error::Range { .. }), "{offset} + {length}: {error:?}");
    }
}

async fn deleting_is_idempotent(bucket: &dyn Bucket) {
    let key = Key::from("deleted/key");
    put(bucket, &key, Bytes::from_static(b"x")).await;
    bucket.delete(&key).await.unwrap();
    bucket.delete(&key).await.unwrap();
    bucket.delete(&Key::from("never/there/at/all")).await.unwrap();
    assert!(bucket.head(&key).await.unwrap_err().is_not_found());
    assert_eq!(listed(bucket, b"deleted/").await, BTreeMap::new());
}

/// More objects than a page of a listing holds, and prefixes that end inside a name.
async fn listings_are_complete(bucket: &dyn Bucket) {
    let keys: BTreeSet<Key> = (0..2100).map(|i| Key::new(format!("many/{}/{i:05}", i % 7))).collect();
    futures::stream::iter(&keys)
        .for_each_concurrent(16, |key| async move { put(bucket, key, Bytes::from_static(b"x")).await })
        .await;
    let found = listed(bucket, b"many/").await;
    assert!(found.keys().cloned().collect::<BTreeSet<_>>() == keys, "{} of {} keys", found.len(), keys.len());
    assert!(found.values().all(|listed| listed.size == 1));
    let narrow = |prefix: &str| keys.iter().filter(|k| k.as_bytes().starts_with(prefix.as_bytes())).count();
    for prefix in ["many/3/0", "many/3", "man", "many/0/00000", "many/0/00000x", "zzz"] {
        assert_eq!(listed(bucket, prefix.as_bytes()).await.len(), narrow(prefix), "{prefix}");
    }
}

async fn uploads_appear_whole_or_not_at_all(bucket: &dyn Bucket) {
    let piece = noise(6 << 20);
    let absent = async |key: &Key, why: &str| {
        assert!(bucket.head(key).await.is_err_and(|e| e.is_not_found()), "{why}");
        assert_eq!(listed(bucket, key.as_bytes()).await, BTreeMap::new(), "{why}");
    };

    let key = Key::from("uploads/aborted");
    let mut upload = bucket.upload(&key, &Metadata::default(), Size::About(0)).await.unwrap();
    for _ in 0..4 {
        upload.write(piece.clone()).await.unwrap();
    }
    absent(&key, "while it is written").await;
    upload.abort().await.unwrap();
    absent(&key, "aborted").await;

    let key = Key::from("uploads/dropped");
    let mut upload = bucket.upload(&key, &Metadata::default(), Size::About(0)).await.unwrap();
    upload.write(piece.clone()).await.unwrap();
    drop(upload);
    absent(&key, "dropped").await;

    for promised in [1, (6 << 20) + 1] {
        let key = Key::new(format!("uploads/promised-{promised}"));
        let mut upload = bucket.upload(&key, &Metadata::default(), Size::Exactly(promised)).await.unwrap();
        let written = upload.write(piece.clone()).await;
        let finished = if written.is_ok() { upload.finish().await } else { written };
        assert!(matches!(finished, Err(Error::Length { .. })), "{finished:?}");
        absent(&key, "of another size").await;
    }

    let key = Key::from("uploads/empty");
    bucket.upload(&key, &Metadata::default(), Size::Exactly(0)).await.unwrap().finish().await.unwrap();
    assert_eq!(bucket.head(&key).await.unwrap().size, 0);
}

async fn large_uploads_come_back(bucket: &dyn Bucket) {
    let metadata = Metadata { content_type: Some("application/x-large".to_owned()), ..Metadata::default() };
    let piece = noise(3_333_333);
    for size in [Size::About(0), Size::Exactly(10 * piece.len() as u64)] {
        let key = Key::from("uploads/large");
        let mut upload = bucket.upload(&key, &metadata, size).await.unwrap();
        for _ in 0..10 {
            upload.write(piece.clone()).await.unwrap();
        }
        upload.finish().await.unwrap();
        let object = bucket.get(&key).await.unwrap();
        assert_eq!((object.size, &object.metadata), (10 * piece.len() as u64, &metadata));
        assert!(content(object).await == piece.repeat(10));
        let middle = bucket.get_range(&key, 3_333_330, 6).await.unwrap();
        assert_eq!(middle, [&piece[3_333_330..], &piece[..3]].concat());
        bucket.delete(&key).await.unwrap();
    }
}

async fn odd_keys_come_back(bucket: &dyn Bucket, lacks: Lacks) {
    let mut wrong = Vec::new();
    for odd in ODD_KEYS {
        let key = Key::new(odd);
        let before: BTreeSet<Key> = listed(bucket, b"").await.into_keys().collect();
        let body = Bytes::from(key.to_string());
        let written = bucket.put(&key, &Metadata::default(), body.clone()).await;
        let after: BTreeSet<Key> = listed(bucket, b"").await.into_keys().collect();
        let new: Vec<&Key> = after.difference(&before).collect();
        match (written, lacks.keys.contains(&odd)) {
            (Ok(()), true) => wrong.push(format!("{key:?} was taken, though the table says that it is not")),
            (Err(error), false) => wrong.push(format!("{key:?}: {error:?}")),
            (Err(_), true) if !new.is_empty() => wrong.push(format!("{key:?} was refused, and became {new:?}")),
            (Err(_), true) => {}
            (Ok(()), false) if new != [&key] => wrong.push(format!("{key:?} became {new:?}")),
            (Ok(()), false) => {
                assert_eq!(content(bucket.get(&key).await.unwrap()).await, body);
                assert_eq!(bucket.head(&key).await.unwrap(), listed(bucket, odd).await[&key]);
                bucket.delete(&key).await.unwrap();
                let left: BTreeSet<Key> = listed(bucket, b"").await.into_keys().collect();
                assert_eq!(left, before, "after {key:?}");
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

async fn long_keys_come_back_or_are_refused(bucket: &dyn Bucket, lacks: Lacks) {
    let key = Key::new("long/".bytes().chain(std::iter::repeat(b'k')).take(1024).collect::<Vec<_>>());
    let written = bucket.put(&key, &Metadata::default(), Bytes::new()).await;
    if lacks.long_keys {
        assert!(written.is_err());
        assert_eq!(listed(bucket, b"long/").await, BTreeMap::new());
    } else {
        written.unwrap();
        assert!(listed(bucket, b"long/").await.contains_key(&key));
        bucket.delete(&key).await.unwrap();
    }
    // Many short components are no trouble, as long as the whole fits.
    let key = Key::new("d/".repeat(300) + "x");
    put(bucket, &key, Bytes::from_static(b"deep")).await;
    assert!(listed(bucket, b"d/d/").await.contains_key(&key));
    bucket.delete(&key).await.unwrap();
}

async fn an_object_beside_a_folder_comes_back_or_is_refused(bucket: &dyn Bucket, lacks: Lacks) {
    for (name, order) in [("below", ["below/a", "below/a/b"]), ("above", ["above/a/b", "above/a"])] {
        let [first, second] = order.map(Key::from);
        put(bucket, &first, Bytes::from_static(b"1")).await;
        let written = bucket.put(&second, &Metadata::default(), Bytes::from_static(b"2")).await;
        let found: Vec<Key> = listed(bucket, name.as_bytes()).await.into_keys().collect();
        if lacks.nesting == Nesting::Refused {
            assert!(written.is_err(), "{second:?}");
            assert_eq!(found, std::slice::from_ref(&first));
        } else {
            written.unwrap();
            assert_eq!(found.len(), if lacks.nesting == Nesting::Kept { 2 } else { 1 }, "{found:?}");
            assert_eq!(content(bucket.get(&second).await.unwrap()).await, "2");
        }
        assert_eq!(content(bucket.get(&first).await.unwrap()).await, "1");
    }
}

async fn many_requests_at_a_time(bucket: Arc<dyn Bucket>) {
    let tasks = (0..64).map(|i| {
        let bucket = Arc::clone(&bucket);
        tokio::spawn(async move {
            let key = Key::new(format!("parallel/{}/{i}", i % 3));
            put(&*bucket, &key, noise(1000 * i)).await;
            assert!(content(bucket.get(&key).await.unwrap()).await == noise(1000 * i));
            bucket.delete(&key).await.unwrap();
        })
    });
    futures::future::try_join_all(tasks).await.unwrap();
}

async fn archived_objects_have_their_own_word(server: &S3Server) {
    let (client, bucket) = (server.client(), server.open("").await);
    for (class, archived) in [("GLACIER", true), ("DEEP_ARCHIVE", true), ("STANDARD_IA", false), ("GLACIER_IR", false)]
    {
        let key = Key::from(class);
        let put = client.put_object().bucket(BUCKET).key(class).storage_class(class.into());
        put.body(Bytes::from_static(b"x").into()).send().await.unwrap();
        assert_eq!(bucket.head(&key).await.unwrap().archived, archived, "{class}");
        assert_eq!(listed(&*bucket, class.as_bytes()).await[&key].archived, archived, "{class}");
        let read = bucket.get(&key).await.map(|object| object.size);
        match archived {
            true => assert!(matches!(read, Err(Error::Archived { .. })), "{class}: {read:?}"),
            false => assert_eq!(read.unwrap(), 1, "{class}"),
        }
        bucket.delete(&key).await.unwrap();
    }
}

async fn put(bucket: &dyn Bucket, key: &Key, body: Bytes) {
    bucket.put(key, &Metadata::default(), body).await.unwrap_or_else(|e| panic!("{key:?}: {e:?}"));
}

async fn listed(bucket: &dyn Bucket, prefix: &[u8]) -> BTreeMap<Key, Listed> {
    let all: Vec<Listed> = bucket.list(prefix).try_collect().await.unwrap();
    let count = all.len();
    let map: BTreeMap<Key, Listed> = all.into_iter().map(|listed| (listed.key.clone(), listed)).collect();
    assert_eq!(map.len(), count, "a key was listed twice");
    map
}

async fn content(object: bucket::Object) -> Bytes {
    let pieces: Vec<Bytes> = object.body.try_collect().await.unwrap();
    pieces.concat().into()
}

/// Bytes that differ from place to place, the same for each length.
fn noise(length: usize) -> Bytes {
    let mut state = length as u64 | 1;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    })
    .take(length)
    .collect()
}

async fn open(url: &str, options: Options) -> Arc<dyn Bucket> {
    bucket::open(&url.parse::<BucketUrl>().unwrap(), &options).await.unwrap()
}

#[tokio::test]
async fn directory() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("file://{}/new", folder.path().display());
    let bucket = open(&url, Options { create: true, ..Options::default() }).await;
    assert_eq!(bucket.url(), url);
    suite(bucket, Lacks { nesting: Nesting::Refused, long_keys: true, keys: &[] }).await;
}

const VERSITYGW: Lacks = Lacks {
    nesting: Nesting::Refused,
    long_keys: true,
    keys: &[b"../../etc/x", b"/abs", b"a//b", b"folder/", b"./dot", b"dot/./dot", b"dot/../dot", INVALID_UTF8],
};

#[tokio::test]
async fn versitygw() {
    let Some(server) = support::versitygw::start().await else { return };
    suite(server.open("").await, VERSITYGW).await;
    suite(server.open("/a prefix/of two").await, VERSITYGW).await;
}

/// Where signatures do not cover what is uploaded.
#[tokio::test]
async fn versitygw_behind_tls() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = (folder.path().join("certificate.pem"), folder.path().join("key.pem"));
    if !make_certificate(&certificate, &key) {
        return;
    }
    let Some(server) = support::versitygw::start_tls(&certificate, &key).await else { return };
    let url = server.url("").replace("http://", "https://").parse().unwrap();
    let options = Options { ca_file: Some(certificate), ..options() };
    suite(bucket::open(&url, &options).await.unwrap(), VERSITYGW).await;
}

#[tokio::test]
async fn moto() {
    let Some(server) = support::moto::start().await else { return };
    archived_objects_have_their_own_word(&server).await;
    let lacks = Lacks { keys: &[INVALID_UTF8, b"line\nbreak"], ..Lacks::default() };
    suite(server.open("").await, lacks).await;
}

#[tokio::test]
async fn minio() {
    let Some(server) = support::minio::start().await else { return };
    let keys: &[&[u8]] = &[b"../../etc/x", b"/abs", b"a//b", b"./dot", b"dot/./dot", b"dot/../dot", INVALID_UTF8];
    let lacks = Lacks { keys, long_keys: true, nesting: Nesting::Unlisted };
    suite(server.open("").await, lacks).await;
}
