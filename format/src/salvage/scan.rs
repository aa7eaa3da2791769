//! Walking the outer headers of a file that is damaged: from one to the next by their sizes, and past what is broken by
//! looking for the next one.

use std::io;

use bytes::Bytes;

use crate::container::{BLOCK, BLOCK_LENGTH, EntryHeader, parse_header};
use crate::error::{Error, Result, unreadable};
use crate::range::RangeReader;

/// How every header begins: with the folder's name.
const FOLDER: &[u8] = b"pacharc-";
/// Bytes that are searched at a time.
const WINDOW: u64 = if cfg!(test) { 2000 } else { 1 << 20 };
/// Bytes that are given up where one of them cannot be read: no disk has larger sectors.
const SECTOR: u64 = 4096;

/// Where a walk has come to.
#[derive(Debug)]
pub(super) struct Scanner {
    /// The folder that all entries lie in; that of the first header where it is not known before.
    folder: Option<String>,
    /// Where the next header is to be.
    at: u64,
    /// Where the content of the last one begins.
    content: u64,
    /// Where the last one, or its damage, is told to be.
    last: String,
    /// What was searched last, and where it begins: headers that lead nowhere may follow each other closely.
    window: (u64, Bytes),
    ended: bool,
}

/// What a walk comes to.
pub(super) enum Step {
    /// An entry; its content may leave the file.
    Header(EntryHeader),
    /// Something between entries.
    Damage(Error),
}

impl Scanner {
    pub(super) fn new(folder: Option<String>) -> Self {
        let (last, window) = ("the beginning".into(), (0, Bytes::new()));
        Self { folder, at: 0, content: 0, last, window, ended: false }
    }

    pub(super) fn offset(&self) -> u64 {
        self.at
    }

    /// Whether a header of a bundle was met.
    pub(super) fn is_of_a_bundle(&self) -> bool {
        self.folder.is_some()
    }

    /// The next step; `None` at the end. A file without a TRAILER ends with [`Error::Torn`].
    ///
    /// # Errors
    /// [`Error::Read`].
    pub(super) async fn next(&mut self, source: &dyn RangeReader) -> Result<Option<Step>> {
        if self.ended {
            return Ok(None);
        }
        let length = source.length();
        let what = if self.at + BLOCK <= length {
            let block = match self.searched(self.at) {
                Some(block) => Ok(block),
                None => readable(read(source, self.at, BLOCK).await)?,
            };
            match block {
                Ok(block) => match self.header(&block, self.at) {
                    Ok(header) => return Ok(Some(self.step_to(header))),
                    Err(what) => what.to_owned(),
                },
                Err(what) => what,
            }
        } else {
            "the file ends before it".to_owned()
        };
        if self.is_end(source).await? {
            self.ended = true;
            return Ok(None);
        }
        let (at, last) = (self.at, self.last.clone());
        // The last one's size may be wrong, or bytes of its content may lack: its content is searched, too.
        if let Some(found) = self.search(source).await? {
            self.at = found;
            return Ok(Some(Step::Damage(Error::damaged(format!("the header after {last}"), at, what))));
        }
        self.ended = true;
        let what = if at > length { format!("inside {last}") } else { format!("behind {last}") };
        let error = match self.last.as_str() {
            "TRAILER" => Error::damaged("the end of the file", at, "it is not 1,024 zero bytes and nothing more"),
            _ => Error::Torn { offset: length, what },
        };
        Ok(Some(Step::Damage(error)))
    }

    fn step_to(&mut self, header: EntryHeader) -> Step {
        self.content = header.offset;
        self.at = header.offset + header.size.next_multiple_of(BLOCK);
        self.last.clone_from(&header.name);
        Step::Header(header)
    }

    /// Reads the header that begins at `at` of the file.
    fn header(&mut self, block: &[u8], at: u64) -> std::result::Result<EntryHeader, &'static str> {
        let block: &[u8; BLOCK_LENGTH] = block.first_chunk().ok_or("the file ends inside it")?;
        let (path, size) = parse_header(block)?;
        let (folder, name) = path.split_once('/').ok_or("it lies in no folder")?;
        let digits = folder.as_bytes().strip_prefix(FOLDER).ok_or("it lies in another folder")?;
        if digits.len() != 8 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err("it lies in another folder");
        }
        let known = self.folder.get_or_insert_with(|| format!("{folder}/"));
        if known.strip_suffix('/') != Some(folder) {
            return Err("it belongs to another bundle");
        }
        Ok(EntryHeader { name: name.to_owned(), size, offset: at + BLOCK })
    }

    /// Whether the file ends here as it must.
    async fn is_end(&self, source: &dyn RangeReader) -> Result<bool> {
        if self.last != "TRAILER" || self.at + 2 * BLOCK != source.length() {
            return Ok(false);
        }
        let zeros = readable(read(source, self.at, 2 * BLOCK).await)?;
        Ok(zeros.is_ok_and(|zeros| zeros.iter().all(|&b| b == 0)))
    }

    /// Where the next header is, wherever in the file that may be.
    async fn search(&mut self, source: &dyn RangeReader) -> Result<Option<u64>> {
        let mut from = self.content;
        while from + BLOCK <= source.length() {
            let window = match self.searched(from) {
                Some(window) => window,
                None => {
                    let window = read_around(source, from, WINDOW.min(source.length() - from)).await?;
                    self.window = (from, window.clone());
                    window
                }
            };
            for place in memchr::memmem::find_iter(&window, FOLDER) {
                let at = from + place as u64;
                let block = window.get(place..).unwrap_or_default();
                if self.header(block, at).is_ok() {
                    return Ok(Some(at));
                }
            }
            if from + window.len() as u64 == source.length() {
                break;
            }
            // A header that the window cuts is whole in the next one.
            from += window.len() as u64 - (BLOCK - 1);
        }
        Ok(None)
    }

    /// What lies behind `from`, a block at least, if that is in what was searched last.
    fn searched(&self, from: u64) -> Option<Bytes> {
        let (begin, bytes) = &self.window;
        let skip = usize::try_from(from.checked_sub(*begin)?).ok()?;
        (skip.checked_add(BLOCK_LENGTH)? <= bytes.len()).then(|| bytes.slice(skip..))
    }
}

/// Reads what is known to be in the file, with zeros in the place of what lies on a bad sector.
async fn read_around(source: &dyn RangeReader, offset: u64, length: u64) -> Result<Bytes> {
    if let Ok(bytes) = readable(read(source, offset, length).await)? {
        return Ok(bytes);
    }
    let (mut bytes, mut at, end) = (Vec::<u8>::new(), offset, offset + length);
    while at < end {
        let step = (SECTOR - at % SECTOR).min(end - at);
        at += step;
        match readable(read(source, at - step, step).await)? {
            Ok(part) => bytes.extend_from_slice(&part),
            Err(_) => bytes.resize(bytes.len() + usize::try_from(step).unwrap_or_default(), 0),
        }
    }
    Ok(bytes.into())
}

/// A bad sector is damage of what lies on it, and no failure: then it is said what is wrong.
pub(super) fn readable(read: Result<Bytes>) -> Result<std::result::Result<Bytes, String>> {
    match read {
        Ok(bytes) => Ok(Ok(bytes)),
        Err(Error::Read(error)) => unreadable(&error).map(Err).ok_or(Error::Read(error)),
        Err(error) => Err(error),
    }
}

/// Reads what is known to be in the file.
pub(super) async fn read(source: &dyn RangeReader, offset: u64, length: u64) -> Result<Bytes> {
    let length = usize::try_from(length).map_err(|_| Error::Worker("an entry exceeds the memory".into()))?;
    let bytes = source.read(offset, length).await.map_err(Error::Read)?;
    match bytes.len() == length {
        true => Ok(bytes),
        false => Err(Error::Read(io::ErrorKind::UnexpectedEof.into())),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::future::BoxFuture;

    use super::*;
    use crate::range::tests::Memory;

    /// A file of `length` bytes with a header at `at`, and what begins like one everywhere else.
    fn file(at: usize, length: usize) -> Memory {
        let mut bytes: Vec<u8> = FOLDER.iter().copied().cycle().take(length).collect();
        bytes[at..at + BLOCK_LENGTH].copy_from_slice(&crate::container::header("pacharc-01234567/x", 3).unwrap());
        Memory(bytes.into())
    }

    #[tokio::test]
    async fn a_header_is_found_wherever_it_is() {
        const LENGTH: usize = 9000;
        for at in (0..LENGTH - BLOCK_LENGTH).step_by(101).chain([1488, 1489, 1490, 1999, 2000, 2001, LENGTH - 512]) {
            let mut scanner = Scanner::new(Some("pacharc-01234567/".into()));
            let found = scanner.search(&file(at, LENGTH)).await.unwrap();
            assert_eq!(found, Some(at as u64));
            let mut other = Scanner::new(Some("pacharc-76543210/".into()));
            assert_eq!(other.search(&file(at, LENGTH)).await.unwrap(), None, "of another bundle, at {at}");
            // Not before where the content begins.
            scanner.content = at as u64 + 1;
            assert_eq!(scanner.search(&file(at, LENGTH)).await.unwrap(), None);
        }
    }

    /// A file of which a byte cannot be read, and how many bytes were asked for.
    struct Sick(Memory, Option<u64>, AtomicUsize);

    impl RangeReader for Sick {
        fn length(&self) -> u64 {
            self.0.length()
        }

        fn read(&self, offset: u64, length: usize) -> BoxFuture<'_, io::Result<Bytes>> {
            self.2.fetch_add(length, Ordering::Relaxed);
            match self.1.is_some_and(|sick| (offset..offset + length as u64).contains(&sick)) {
                true => Box::pin(async { Err(io::Error::from_raw_os_error(5)) }),
                false => self.0.read(offset, length),
            }
        }
    }

    #[tokio::test]
    async fn a_bad_sector_hides_what_lies_on_it_and_no_more() {
        for (sick, is_hidden) in [(100, false), (8900, false), (5000, true), (5511, true), (6400, true)] {
            let mut scanner = Scanner::new(Some("pacharc-01234567/".into()));
            let file = Sick(file(5000, 12_000), Some(sick), AtomicUsize::default());
            let found = scanner.search(&file).await.unwrap();
            assert_eq!(found, (!is_hidden).then_some(5000), "{sick}");
        }
        // A header that cannot be read is damage, and the next one is found.
        let mut scanner = Scanner::new(None);
        let file = Sick(file(5000, 12_000), Some(7), AtomicUsize::default());
        match scanner.next(&file).await.unwrap() {
            Some(Step::Damage(Error::Damaged { entry, offset: 0, what })) => {
                assert_eq!(entry, "the header after the beginning");
                assert!(what.starts_with("it cannot be read"), "{what}");
            }
            _ => panic!("it was read"),
        }
        assert!(matches!(scanner.next(&file).await.unwrap(), Some(Step::Header(header)) if header.offset == 5512));
    }

    #[tokio::test]
    async fn headers_that_lead_nowhere_are_read_once() {
        const COUNT: usize = 40;
        let header = crate::container::header("pacharc-01234567/x", 1 << 30).unwrap();
        let file = Sick(Memory(header.repeat(COUNT).into()), None, AtomicUsize::default());
        let (mut scanner, mut headers) = (Scanner::new(None), 0);
        while let Some(step) = scanner.next(&file).await.unwrap() {
            headers += usize::from(matches!(step, Step::Header(_)));
        }
        let read = file.2.load(Ordering::Relaxed);
        // Where a window ends in the midst of a header, its beginning is read again.
        assert!(headers == COUNT && read < 2 * COUNT * BLOCK_LENGTH, "{headers} headers, {read} bytes");
    }

    #[tokio::test]
    async fn the_end_is_zeros_to_the_last_byte() {
        let end = |wrong: Option<usize>, length| {
            let mut bytes = vec![0; length];
            wrong.into_iter().for_each(|at| bytes[at] = 1);
            Memory(bytes.into())
        };
        let scanner = |last: &str| Scanner { at: 512, last: last.into(), ..Scanner::new(None) };
        assert!(scanner("TRAILER").is_end(&end(None, 1536)).await.unwrap());
        assert!(!scanner("BLAKE3SUMS").is_end(&end(None, 1536)).await.unwrap());
        for (wrong, length) in [(Some(512), 1536), (Some(1023), 1536), (Some(1535), 1536), (None, 1535), (None, 1537)] {
            assert!(!scanner("TRAILER").is_end(&end(wrong, length)).await.unwrap(), "{wrong:?} of {length}");
        }
        assert!(!Scanner::new(None).is_of_a_bundle() && Scanner::new(Some("x".into())).is_of_a_bundle());
        assert_eq!(scanner("x").offset(), 512);
    }
}
