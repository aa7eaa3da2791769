//! What the S3 provider does when the server or the network fails: it tries again where that helps, for a bounded time, and
//! never gives wrong bytes for right ones.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::TryStreamExt;
use pacharc::bucket::{self, Bucket, Error, Policy, Size};
use pacharc::failure::{Class, Explain as _};
use pacharc_format::{Key, Metadata};

use crate::support::fault_server::{Condition, Fault, FaultServer, Listing};
use crate::support::program::wait_until;
use crate::support::s3_server;

const SLOW_DOWN: Fault = Fault::Refuse(503, "SlowDown");

async fn read(bucket: &dyn Bucket, key: &Key) -> Result<Vec<u8>, Error> {
    let pieces: Vec<Bytes> = bucket.get(key).await?.body.try_collect().await?;
    Ok(pieces.concat())
}

fn body() -> Vec<u8> {
    (0..300_000_u32).flat_map(u32::to_le_bytes).collect()
}

async fn put(bucket: &dyn Bucket, key: &Key, body: impl Into<Bytes>) -> Result<(), Error> {
    bucket.put(key, &Metadata::default(), body.into()).await
}

#[tokio::test]
async fn an_overloaded_server_is_asked_again() {
    let server = FaultServer::start().await;
    let (patient, impatient) = (server.open().await, server.open_impatient().await);
    let key = Key::from("k");
    for fault in [SLOW_DOWN, Fault::Refuse(500, "InternalError"), Fault::Refuse(502, ""), Fault::Lost, Fault::Silent] {
        let is_silent = matches!(fault, Fault::Silent);
        let bucket = if is_silent { &impatient } else { &patient };
        for method in ["PUT", "GET", "HEAD", "DELETE"] {
            server.plan(method, [fault; 3]);
        }
        put(&**bucket, &key, Bytes::from_static(b"some bytes")).await.unwrap();
        assert_eq!(bucket.head(&key).await.unwrap().size, 10);
        assert_eq!(read(&**bucket, &key).await.unwrap(), b"some bytes");
        server.plan("GET", [fault; 3]);
        assert_eq!(bucket.get_range(&key, 5, 5).await.unwrap(), "bytes");
        server.plan("GET", [fault; 3]);
        let listed: Vec<_> = bucket.list(b"").try_collect().await.unwrap();
        assert_eq!(listed.len(), 1);
        bucket.delete(&key).await.unwrap();
        assert_eq!(server.object("k"), None);
        let seen = server.seen().len();
        assert!(
            seen == 6 * 4 || (is_silent && seen > 6 * 4),
            "{fault:?}: each three times in vain, and once not: {seen}"
        );
    }
}

#[tokio::test]
async fn it_is_not_asked_for_ever() {
    let server = FaultServer::start().await;
    let bucket = server.open().await;
    server.plan("GET", std::iter::repeat_n(SLOW_DOWN, 10_000));
    let error = read(&*bucket, &Key::from("k")).await.unwrap_err();
    assert!(error.retryable() && error.class() == Class::Unreachable, "{error:?}");
    assert!((11..1000).contains(&server.seen().len()));
}

#[tokio::test]
async fn what_is_final_is_not_asked_again() {
    let server = FaultServer::start().await;
    let bucket = server.open().await;
    let key = Key::from("k");
    for (status, code, class) in [
        (403, "AccessDenied", Class::Credentials),
        (403, "SignatureDoesNotMatch", Class::Credentials),
        (400, "ExpiredToken", Class::Credentials),
        (404, "NoSuchBucket", Class::Unreachable),
        (404, "NoSuchKey", Class::Incomplete),
        (403, "InvalidObjectState", Class::Incomplete),
        (301, "PermanentRedirect", Class::Usage),
        (400, "KeyTooLongError", Class::Usage),
        (400, "InvalidArgument", Class::Other),
        (501, "NotImplemented", Class::Other),
    ] {
        server.plan("GET", [Fault::Refuse(status, code)]);
        let error = read(&*bucket, &key).await.unwrap_err();
        assert_eq!(error.class(), class, "{error:?}");
        assert!(!error.retryable());
        assert_eq!(server.seen().len(), 1, "{error:?}");
    }
    server.plan("GET", [Fault::Refuse(403, "InvalidObjectState")]);
    assert!(matches!(bucket.get(&key).await, Err(Error::Archived { .. })));
}

/// The answer to a HEAD has no body: a GET says why.
#[tokio::test]
async fn a_refusal_without_a_word_is_explained() {
    let server = FaultServer::start().await;
    let bucket = server.open().await;
    let key = Key::from("k");
    server.hold("k", "some bytes");
    for (status, code, advice) in [(400, "ExpiredToken", "use others"), (403, "RequestTimeTooSkewed", "clock")] {
        server.plan("HEAD", [Fault::Refuse(status, code)]);
        server.plan("GET", [Fault::Refuse(status, code)]);
        let error = bucket.head(&key).await.unwrap_err();
        assert_eq!(error.class(), Class::Credentials, "{error:?}");
        assert!(error.advice().unwrap().contains(advice), "{error:?}");
        assert_eq!(server.planned(), 0);
    }
    // Nothing more is known where it may be read.
    server.plan("HEAD", [Fault::Refuse(403, "AccessDenied")]);
    assert!(matches!(bucket.head(&key).await, Err(Error::Denied { .. })));
}

#[tokio::test]
async fn a_body_that_breaks_off_is_read_on() {
    let server = FaultServer::start().await;
    let bucket = server.open().await;
    server.hold("k", body());
    server.plan("GET", [Fault::Cut(0), Fault::Cut(1000), Fault::Lost, SLOW_DOWN, Fault::Cut(400_000), Fault::Cut(7)]);
    assert!(read(&*bucket, &Key::from("k")).await.unwrap() == body());
    let seen = server.seen();
    let ranges: Vec<Option<&str>> =
        seen.iter().map(|request| request.headers.get("range").map(String::as_str)).collect();
    let expected =
        [None, Some("bytes=0-"), Some("bytes=1000-"), Some("bytes=1000-"), Some("bytes=1000-"), Some("bytes=401000-")];
    assert_eq!(ranges[..6], expected);
    assert!(seen[1..].iter().all(|request| request.headers.contains_key("if-match")), "of the same version");

    server.plan("GET", [Fault::Stall(400_000), Fault::Stall(7)]);
    assert!(read(&*server.open_impatient().await, &Key::from("k")).await.unwrap() == body());
    assert!(server.seen().len() >= 3, "what falls silent is read on, too");
}

#[tokio::test]
async fn a_body_that_always_breaks_off_is_given_up() {
    let server = FaultServer::start().await;
    let bucket = server.open().await;
    server.hold("k", body());
    server.plan("GET", std::iter::repeat_n(Fault::Cut(0), 1000));
    let error = read(&*bucket, &Key::from("k")).await.unwrap_err();
    assert!(error.retryable(), "{error:?}");
    assert!(server.seen().len() < 20);
}

#[tokio::test]
async fn an_object_that_changes_meanwhile_is_no_mixture() {
    let server = FaultServer::start().await;
    let bucket = server.open().await;
    // A server that does not know If-Match has no such range any more.
    for faults in [&[Fault::CutAndChange(1000)][..], &[Fault::Cut(1000), Fault::Refuse(416, "InvalidRange")]] {
        server.hold("k", body());
        server.plan("GET", faults.iter().copied());
        let error = read(&*bucket, &Key::from("k")).await.unwrap_err();
        assert!(matches!(error, Error::Changed { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_server_that_ignores_ranges_is_found_out() {
    let server = FaultServer::start().await;
    let bucket = server.open().await;
    server.hold("k", body());
    server.plan("GET", [Fault::Cut(1000), Fault::IgnoreRange, Fault::IgnoreRange]);
    assert!(matches!(read(&*bucket, &Key::from("k")).await, Err(Error::Failed { .. })));
    assert!(matches!(bucket.get_range(&Key::from("k"), 5, 5).await, Err(Error::Failed { .. })));
}

#[tokio::test]
async fn a_range_that_comes_short_is_found_out() {
    let server = FaultServer::start().await;
    let bucket = server.open().await;
    server.hold("k", body());
    server.plan("GET", [Fault::Short(3)]);
    let error = bucket.get_range(&Key::from("k"), 0, 5).await.unwrap_err();
    assert!(matches!(error, Error::Range { .. }), "{error:?}");
}

#[tokio::test]
async fn listings_that_never_end_are_found_out() {
    let server = FaultServer::start().await;
    let bucket = server.open().await;
    for key in ["a", "b", "c", "d", "e"] {
        server.hold(key, "");
    }
    let all: Vec<_> = bucket.list(b"").try_collect().await.unwrap();
    assert_eq!(all.len(), 5);
    // A page that breaks off is asked for again.
    server.plan("GET", [Fault::Cut(10), Fault::Pass, Fault::Cut(100), Fault::Lost]);
    let again: Vec<_> = bucket.list(b"").try_collect().await.unwrap();
    assert_eq!(again, all);
    for listing in [Listing::SameToken, Listing::SameKeys, Listing::NoToken] {
        server.listing(listing);
        let error = bucket.list(b"").try_collect::<Vec<_>>().await.unwrap_err();
        assert!(matches!(error, Error::Listing { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_page_that_comes_twice_is_read_once() {
    let server = FaultServer::start().await;
    let bucket = server.open().await;
    for key in ["a", "b", "c", "d", "e"] {
        server.hold(key, "");
    }
    server.listing(Listing::Twice);
    let all: Vec<_> = bucket.list(b"").map_ok(|listed| listed.key).try_collect().await.unwrap();
    assert_eq!(all, ["a", "b", "c", "d", "e"].map(Key::from));
    assert_eq!(server.seen().len(), 6, "three pages, twice");
}

/// Wherever it is cut, and whatever length it says to have.
#[tokio::test]
async fn a_page_without_its_end_is_asked_for_again() {
    let server = FaultServer::start().await;
    let bucket = server.open().await;
    for key in ["a", "b", "c", "d", "e"] {
        server.hold(key, "");
    }
    let whole = "<ListBucketResult><IsTruncated>true</IsTruncated><Contents><Key>a</Key><Size>0</Size></Contents>";
    for cut in 1..=whole.len() {
        server.plan("GET", [Fault::Pass, Fault::Short(cut)]);
        let all: Vec<_> = bucket.list(b"").map_ok(|listed| listed.key).try_collect().await.unwrap();
        assert_eq!(all, ["a", "b", "c", "d", "e"].map(Key::from), "cut at {cut}");
    }
    server.plan("GET", std::iter::repeat_n(Fault::Short(20), 10_000));
    let error = bucket.list(b"").try_collect::<Vec<_>>().await.unwrap_err();
    assert_eq!(error.class(), Class::Unreachable, "{error:?}");
}

#[tokio::test]
async fn only_s3_itself_says_that_an_object_is_not_there() {
    let server = FaultServer::start().await;
    let bucket = server.open().await;
    let key = Key::from("k");
    server.hold("k", "some bytes");
    for elsewhere in [Fault::Page(404), Fault::Refuse(404, ""), Fault::Bare(404)] {
        server.plan("GET", [elsewhere; 3]);
        assert_eq!(read(&*bucket, &key).await.unwrap(), b"some bytes", "{elsewhere:?}");
        server.plan("GET", [elsewhere; 3]);
        assert_eq!(bucket.get_range(&key, 5, 5).await.unwrap(), "bytes", "{elsewhere:?}");
        server.plan("GET", std::iter::repeat_n(elsewhere, 10_000));
        let error = read(&*bucket, &key).await.unwrap_err();
        assert_eq!(error.class(), Class::Unreachable, "{error:?}");
        server.calm();
        // Its answer has no body.
        server.plan("HEAD", [elsewhere]);
        assert!(bucket.head(&key).await.unwrap_err().is_not_found(), "{elsewhere:?}");
    }
    server.plan("GET", [Fault::Refuse(404, "NoSuchKey")]);
    assert!(read(&*bucket, &key).await.unwrap_err().is_not_found());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_new_goes_over_nothing() {
    let key = Key::from("k");
    for condition in [Condition::Known, Condition::Refused, Condition::Ignored] {
        let server = FaultServer::start().await;
        server.condition(condition);
        let bucket = server.open().await;
        let metadata = Metadata::default();
        let put_new = |body: &'static str| bucket.put_new(&key, &metadata, Bytes::from(body));
        put_new("first").await.unwrap();
        assert!(matches!(put_new("second").await, Err(Error::Exists { .. })));
        assert_eq!(server.object("k").unwrap(), b"first");

        let mut upload = bucket.upload(&key, &Metadata::default(), Size::About(0)).await.unwrap();
        upload.write(vec![7; 20 << 20].into()).await.unwrap();
        let error = upload.finish_new().await.unwrap_err();
        assert!(matches!(error, Error::Exists { .. }) && error.class() == Class::Refused, "{error:?}");
        assert_eq!(server.object("k").unwrap(), b"first");
        wait_until("it is taken back", || !server.uploading());
        bucket.delete(&key).await.unwrap();

        let mut upload = bucket.upload(&key, &Metadata::default(), Size::About(0)).await.unwrap();
        upload.write(vec![7; 20 << 20].into()).await.unwrap();
        upload.finish_new().await.unwrap();
        assert!(server.object("k").unwrap() == vec![7; 20 << 20]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_that_write_at_once_one_is_told() {
    let server = FaultServer::start().await;
    let bucket = server.open().await;
    let key = Key::from("k");
    for is_large in [false, true] {
        let length = if is_large { 20 << 20 } else { 1000 };
        let mut upload = bucket.upload(&key, &Metadata::default(), Size::About(0)).await.unwrap();
        upload.write(vec![7; length].into()).await.unwrap();
        // Whoever looks first sees nothing there.
        let mut gate = server.gate(if is_large { "POST" } else { "PUT" }, "k");
        let finishing = tokio::spawn(upload.finish_new());
        gate.reached().await;
        server.hold("k", "another's");
        gate.open();
        let error = finishing.await.unwrap().unwrap_err();
        assert!(matches!(error, Error::Exists { .. }), "{error:?}");
        assert_eq!(server.object("k").unwrap(), b"another's");
        wait_until("it is taken back", || !server.uploading());
        server.remove("k");
    }
}

#[tokio::test]
async fn our_own_object_is_not_taken_for_anothers() {
    let server = FaultServer::start().await;
    let bucket = server.open().await;
    let key = Key::from("k");
    server.plan("PUT", [Fault::Lost]);
    bucket.put_new(&key, &Metadata::default(), Bytes::from_static(b"ours")).await.unwrap();
    assert_eq!(server.object("k").unwrap(), b"ours");
    bucket.delete(&key).await.unwrap();

    server.plan("POST", [Fault::Pass, Fault::Lost]);
    let mut upload = bucket.upload(&key, &Metadata::default(), Size::About(0)).await.unwrap();
    upload.write(vec![7; 15 << 20].into()).await.unwrap();
    upload.finish_new().await.unwrap();
    assert!(server.object("k").unwrap() == vec![7; 15 << 20]);

    // Another one's of the same size, made of as many parts.
    bucket.delete(&key).await.unwrap();
    let mut upload = bucket.upload(&key, &Metadata::default(), Size::About(0)).await.unwrap();
    upload.write(vec![7; 9 << 20].into()).await.unwrap();
    server.hold("k", vec![8; 9 << 20]);
    assert!(matches!(upload.finish_new().await, Err(Error::Exists { .. })));
}

#[tokio::test]
async fn an_upload_survives_faults() {
    let server = FaultServer::start().await;
    let bucket = server.open().await;
    let key = Key::from("k");
    let piece = Bytes::from(vec![7; 5 << 20]);
    for fault in [SLOW_DOWN, Fault::Lost] {
        server.plan("PUT", [fault, Fault::Pass, fault]);
        // The answer to the completion is lost; asked again, the server knows of no such upload.
        server.plan("POST", [SLOW_DOWN, Fault::Pass, fault]);
        let mut upload = bucket.upload(&key, &Metadata::default(), Size::About(0)).await.unwrap();
        for _ in 0..3 {
            upload.write(piece.clone()).await.unwrap();
        }
        upload.finish().await.unwrap();
        assert!(server.object("k").unwrap() == vec![7; 15 << 20]);
        bucket.delete(&key).await.unwrap();
    }
}

#[tokio::test]
async fn a_bucket_with_object_lock_gets_the_digests_that_it_demands() {
    let server = FaultServer::start().await;
    let bucket = server.open().await;
    put(&*bucket, &Key::from("before"), body()).await.unwrap();
    assert!(server.seen().iter().all(|seen| !seen.headers.contains_key("content-md5")), "nobody has asked for it");
    server.lock();
    for key in ["a", "b"] {
        put(&*bucket, &Key::from(key), body()).await.unwrap();
        assert_eq!(server.object(key).unwrap(), body());
    }
    assert_eq!(server.seen().iter().filter(|seen| seen.method == "PUT").count(), 3, "it demands it once");
    let large: Bytes = body().repeat(15).into();
    let bucket = server.open().await;
    let mut upload = bucket.upload(&Key::from("c"), &Metadata::default(), Size::About(0)).await.unwrap();
    upload.write(large.clone()).await.unwrap();
    upload.finish().await.unwrap();
    assert_eq!(server.object("c").unwrap(), large);
    assert!(server.seen().iter().any(|seen| seen.query.contains("partNumber=2")), "in parts");
}

#[tokio::test]
async fn an_upload_that_is_given_up_is_taken_back() {
    let server = FaultServer::start().await;
    let bucket = server.open().await;
    let key = Key::from("k");
    for drop_it in [true, false] {
        let mut upload = bucket.upload(&key, &Metadata::default(), Size::About(0)).await.unwrap();
        upload.write(vec![7; 20 << 20].into()).await.unwrap();
        assert!(server.uploading());
        if drop_it {
            drop(upload);
        } else {
            upload.abort().await.unwrap();
        }
        let begun = Instant::now();
        while server.uploading() {
            assert!(begun.elapsed() < Duration::from_secs(60), "still there");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(server.object("k"), None);
    }
    // One that fails for good, too.
    server.plan("PUT", [Fault::Refuse(403, "AccessDenied"); 9]);
    let mut upload = bucket.upload(&key, &Metadata::default(), Size::About(0)).await.unwrap();
    let written = upload.write(vec![7; 20 << 20].into()).await;
    let failed = if written.is_ok() { upload.finish().await } else { written };
    assert!(matches!(failed, Err(Error::Denied { .. })), "{failed:?}");
    assert_eq!(server.object("k"), None);
}

#[tokio::test]
async fn an_upload_that_a_late_part_opens_anew_is_taken_back_again() {
    let server = FaultServer::start().await;
    let bucket = server.open().await;
    // Later than is waited for; and two answers that tell of what is done already.
    server.plan_for("PUT", "k", [Fault::Overdue(11_000)]);
    server.plan_for("DELETE", "k", [Fault::Lost, Fault::Refuse(404, "NoSuchUpload")]);
    let mut upload = bucket.upload(&Key::from("k"), &Metadata::default(), Size::About(0)).await.unwrap();
    upload.write(vec![7; 20 << 20].into()).await.unwrap();
    upload.abort().await.unwrap();
    assert!(!server.uploading());
    let taken_back = server.seen().iter().filter(|seen| seen.method == "DELETE").count();
    assert_eq!(taken_back, 4, "the lost one, what follows it, and two more");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_not_waited_for_long() {
    let url = format!("s3://bucket?endpoint=http://127.0.0.1:{}&region=us-east-1", s3_server::free_port());
    let retry = Policy { first: Duration::from_millis(10), total: Duration::from_millis(300), ..Policy::default() };
    let options = bucket::Options { retry, ..s3_server::options() };
    let bucket = bucket::open(&url.parse().unwrap(), &options).await.unwrap();
    let error = bucket.head(&Key::from("k")).await.unwrap_err();
    assert_eq!(error.class(), Class::Unreachable, "{error:?}");
}
