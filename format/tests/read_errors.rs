//! A source that fails while it is read, or ends too early: however far was read ahead, what came before is told before.

// Clippy's own exception for tests knows only the test functions themselves, not what they share.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use age::x25519;
use pacharc_format::{BundleStream, Error, Found, ReadOptions, Unlock};
use support::{chunk, lock, options, unlock, write};
use tokio::io::{AsyncRead, AsyncReadExt, BufReader, ReadBuf};

/// What comes after the last byte.
struct End {
    fails: bool,
}

impl AsyncRead for End {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(if self.fails { Err(io::Error::other("the disk is gone")) } else { Ok(()) })
    }
}

/// Where each segment begins, with its header, and where its content ends.
fn segments(bundle: &[u8]) -> Vec<(usize, usize)> {
    let (mut segments, mut at) = (Vec::new(), 0);
    while bundle[at] != 0 {
        let name = String::from_utf8_lossy(&bundle[at..at + 100]).into_owned();
        let size = usize::from_str_radix(std::str::from_utf8(&bundle[at + 124..at + 135]).unwrap(), 8).unwrap();
        if name.contains("/data/") {
            segments.push((at, at + 512 + size));
        }
        at += 512 + size.next_multiple_of(512);
    }
    segments
}

/// How many entries were told before the error, and how much damage; `None` where no error came.
async fn read(source: impl AsyncRead + Unpin, key: &Unlock) -> (usize, usize, Option<Error>) {
    let options = ReadOptions { jobs: 20, memory: 1 << 24, temp_dir: &std::env::temp_dir() };
    let mut stream = BundleStream::open(BufReader::new(source), options).await.unwrap();
    stream.unlock(key).unwrap();
    let (mut told, mut damage) = (0, 0);
    loop {
        match stream.next().await {
            Ok(Some(Found::Entries(entries))) => told += entries.len(),
            Ok(Some(Found::Damage(_))) => damage += 1,
            Ok(Some(_)) => {}
            Ok(None) => return (told, damage, None),
            Err(error) => {
                assert!(matches!(stream.next().await, Ok(None)), "nothing comes after an error");
                return (told, damage, Some(error));
            }
        }
    }
}

#[tokio::test]
async fn what_was_read_before_an_error_comes_before_it() {
    let identity = x25519::Identity::generate();
    let key = unlock(&identity);
    let entries = (0..12).map(|n| chunk(vec![n; 3000], u64::from(n))).collect();
    let (bundle, _) = write(entries, options(lock(&identity), 1, 1 << 20)).await;
    let segments = segments(&bundle);
    assert_eq!(segments.len(), 12, "one entry a segment");
    let mut flipped = bundle.to_vec();
    flipped[segments[0].1 - 1] ^= 1;
    for (sound, (begin, end)) in segments.into_iter().enumerate() {
        for cut in [begin, begin + 100, begin + 600, end - 1] {
            let source = (&bundle[..cut]).chain(End { fails: true });
            let (told, damage, error) = read(source, &key).await;
            assert!(matches!(error, Some(Error::Read(_))), "{error:?}");
            assert_eq!((told, damage), (sound, 0), "cut at {cut}");

            let (told, damage, error) = read((&bundle[..cut]).chain(End { fails: false }), &key).await;
            assert!(error.is_some_and(|error| error.is_damage()));
            assert_eq!((told, damage), (sound, 0), "torn at {cut}");

            // So is damage.
            let (told, damage, error) = read((&flipped[..cut]).chain(End { fails: true }), &key).await;
            assert!(matches!(error, Some(Error::Read(_))), "{error:?}");
            assert_eq!((told, damage), if sound == 0 { (0, 0) } else { (sound - 1, 1) });
        }
    }
    let (told, damage, error) = read((&bundle[..]).chain(End { fails: false }), &key).await;
    assert!(error.is_none());
    assert_eq!((told, damage), (12, 0));
}
