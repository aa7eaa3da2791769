//! Walking the outer headers of a file that is damaged: from one to the next by their sizes, and past what is broken by
//! looking for the next one.

use std::io;

use bytes::Bytes;

use crate::container::{BLOCK, BLOCK_LENGTH, EntryHeader, parse_header};
use crate::error::{Error, Result};
use crate::range::RangeReader;

/// How every header begins: with the folder's name.
const FOLDER: &[u8] = b"pacharc-";
/// Bytes that are searched at a time.
const WINDOW: u64 = if cfg!(test) { 2000 } else { 1 << 20 };

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
        Self { folder, at: 0, content: 0, last: "the beginning".into(), ended: false }
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
            let block = read(source, self.at, BLOCK).await?;
            match self.header(&block, self.at) {
                Ok(header) => return Ok(Some(self.step_to(header))),
                Err(what) => what,
            }
        } else {
            "the file ends before it"
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
        Ok(read(source, self.at, 2 * BLOCK).await?.iter().all(|&b| b == 0))
    }

    /// Where the next header is, wherever in the file that may be.
    async fn search(&mut self, source: &dyn RangeReader) -> Result<Option<u64>> {
        let mut from = self.content;
        while from + BLOCK <= source.length() {
            let window = read(source, from, WINDOW.min(source.length() - from)).await?;
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
