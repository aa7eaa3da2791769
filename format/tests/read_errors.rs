//! A source that fails while it is read, or ends too early: however far was read ahead, what came before is told before. What
//! lies on a bad sector is damaged.

// Clippy's own exception for tests knows only the test functions themselves, not what they share.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll};

use age::x25519;
use pacharc_format::{BundleStream, Error, Found, ReadOptions, Source, Unlock};
use support::{chunk, lock, options, unlock, write};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncReadExt, BufReader, ReadBuf};

/// What comes after the last byte.
struct End {
    fails: bool,
}

impl AsyncRead for End {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(if self.fails { Err(io::Error::other("the disk is gone")) } else { Ok(()) })
    }
}

/// Gives its segments to others to read.
struct Apart {
    bytes: Vec<u8>,
    at: usize,
    fails: bool,
    /// Bytes that cannot be read.
    sick: Range<usize>,
    /// What has fewer bytes is not read apart.
    least: u64,
}

impl Apart {
    fn new(bytes: &[u8], fails: bool) -> Self {
        Self { bytes: bytes.to_vec(), at: 0, fails, sick: usize::MAX..usize::MAX, least: 3000 }
    }

    fn rest(&self) -> io::Result<&[u8]> {
        const EIO: i32 = 5;
        if self.sick.contains(&self.at) {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        let end = if self.at < self.sick.start { self.sick.start } else { usize::MAX };
        match self.bytes.get(self.at..end.min(self.bytes.len())) {
            None | Some([]) if self.fails => Err(io::Error::other("the disk is gone")),
            rest => Ok(rest.unwrap_or_default()),
        }
    }
}

impl AsyncRead for Apart {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let rest = self.rest()?;
        let length = rest.len().min(into.remaining());
        into.put_slice(&rest[..length]);
        self.at += length;
        Poll::Ready(Ok(()))
    }
}

impl AsyncBufRead for Apart {
    fn poll_fill_buf(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        Poll::Ready(self.get_mut().rest())
    }

    fn consume(mut self: Pin<&mut Self>, amount: usize) {
        self.at += amount;
    }
}

impl io::Read for Apart {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let rest = self.rest()?;
        let length = rest.len().min(into.len());
        into[..length].copy_from_slice(&rest[..length]);
        self.at += length;
        Ok(length)
    }
}

impl Source for Apart {
    fn detach(&mut self, length: u64) -> Option<Box<dyn io::Read + Send>> {
        if length < self.least {
            return None;
        }
        let part = Self { bytes: self.bytes.clone(), sick: self.sick.clone(), ..*self };
        self.at += usize::try_from(length).unwrap();
        Some(Box::new(io::Read::take(part, length)))
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

/// The bytes and what comes after them; segments can be read `apart`, or not.
fn source(bytes: &[u8], fails: bool, apart: bool) -> Box<dyn Source> {
    match apart {
        true => Box::new(Apart::new(bytes, fails)),
        false => Box::new(BufReader::new(io::Cursor::new(bytes.to_vec()).chain(End { fails }))),
    }
}

/// How many entries were told before the error, and how much damage; `None` where no error came.
async fn read(source: impl Source, key: Option<&Unlock>) -> (usize, usize, Option<Error>) {
    let options = ReadOptions { jobs: 20, memory: 1 << 24, temp_dir: &std::env::temp_dir() };
    let mut stream = BundleStream::open(source, options).await.unwrap();
    if let Some(key) = key {
        stream.unlock(key).unwrap();
    }
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
            for apart in [false, true] {
                let (told, damage, error) = read(source(&bundle[..cut], true, apart), Some(&key)).await;
                assert!(matches!(error, Some(Error::Read(_))), "{error:?}");
                assert_eq!((told, damage), (sound, 0), "cut at {cut}");

                let (told, damage, error) = read(source(&bundle[..cut], false, apart), Some(&key)).await;
                let at = u64::try_from(cut).unwrap();
                assert!(matches!(error, Some(Error::Torn { offset, .. }) if offset == at), "torn at {cut}: {error:?}");
                assert_eq!((told, damage), (sound, 0), "torn at {cut}");

                // So is damage.
                let (told, damage, error) = read(source(&flipped[..cut], true, apart), Some(&key)).await;
                assert!(matches!(error, Some(Error::Read(_))), "{error:?}");
                assert_eq!((told, damage), if sound == 0 { (0, 0) } else { (sound - 1, 1) });
            }
        }
    }
    for apart in [false, true] {
        let (told, damage, error) = read(source(&bundle, false, apart), Some(&key)).await;
        assert!(error.is_none());
        assert_eq!((told, damage), (12, 0));
    }
}

/// In which entry, at which byte, and what.
fn damaged(error: Option<Error>) -> (String, u64, String) {
    match error {
        Some(Error::Damaged { entry, offset, what }) => (entry, offset, what),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_bad_sector_is_damage_of_what_lies_on_it() {
    let identity = x25519::Identity::generate();
    let key = unlock(&identity);
    let entries = (0..12).map(|n| chunk(vec![n; 3000], u64::from(n))).collect();
    let (bundle, _) = write(entries, options(lock(&identity), 1, 1 << 20)).await;
    let sick = |place: usize, least| Apart { sick: place..place + 1, least, ..Apart::new(&bundle, false) };
    for (number, (begin, end)) in segments(&bundle).into_iter().enumerate() {
        for place in [begin + 512, begin + 700, end - 1] {
            // What is read apart costs nothing else.
            let (told, damage, error) = read(sick(place, 3000), Some(&key)).await;
            assert!(error.is_none() && (told, damage) == (11, 1), "{number} at {place}: {told}, {damage}, {error:?}");
            let (told, damage, error) = read(sick(place, 3000), None).await;
            assert!(error.is_none() && (told, damage) == (0, 1), "{number} at {place}: {told}, {damage}, {error:?}");
            // Else nothing behind it can be read.
            for key in [Some(&key), None] {
                let (told, damage, error) = read(sick(place, u64::MAX), key).await;
                let (entry, offset, what) = damaged(error);
                assert_eq!((entry, offset), (format!("data/{number:08}.tar.age"), begin as u64 + 512));
                assert!(what.starts_with("it cannot be read"), "{what}");
                assert_eq!((told, damage), (if key.is_some() { number } else { 0 }, 0));
            }
        }
        for least in [3000, u64::MAX] {
            let (told, damage, error) = read(sick(begin + 100, least), Some(&key)).await;
            let (entry, offset, _) = damaged(error);
            assert!(entry.starts_with("the header after ") && offset == begin as u64, "{entry} at {offset}");
            assert_eq!((told, damage), (number, 0));
        }
    }
}
