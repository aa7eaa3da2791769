//! The outer container: a canonical tar, walked in one pass.
//!
//! Each header is a function of name and size alone, padding is zero, and after the last entry come 1,024 zero bytes and
//! the end of the file. The reader rebuilds each header and compares, so no byte of the file escapes (SPEC §3).

use std::io::Read;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_tar::Header;

use crate::error::{Error, Result};
use crate::source::{Source, read_full};

/// Bytes of a tar block.
pub(crate) const BLOCK: u64 = 512;
/// The same, as a length in memory.
pub(crate) const BLOCK_LENGTH: usize = 512;
/// Zero bytes after the last entry.
pub(crate) const END: usize = 1024;
/// Longest name of an entry, folder included: a ustar name field.
const NAME: usize = 100;
/// Largest size of an entry: what eleven octal digits hold.
const SIZE: u64 = 0o77_777_777_777;

/// The bytes from `size` up to the next block.
pub(crate) fn padding(size: u64) -> u64 {
    size.next_multiple_of(BLOCK) - size
}

/// The one header that an entry of this name and size has.
pub(crate) fn header(name: &str, size: u64) -> Result<[u8; 512]> {
    // Names end up in messages: nothing that a terminal would obey.
    if name.len() > NAME || size > SIZE || !name.bytes().all(|b| b.is_ascii_graphic()) {
        let why = format!("names have at most {NAME} bytes, all printable ASCII, entries at most {SIZE}");
        return Err(Error::TooLarge { what: format!("the entry {name}"), why });
    }
    let mut header = Header::new_ustar();
    // Not `set_path`: it splits and normalises; the name is written as it is.
    if let Some(ustar) = header.as_ustar_mut() {
        ustar.name[..name.len()].copy_from_slice(name.as_bytes());
    }
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(size);
    header.set_mtime(0);
    header.set_entry_type(tokio_tar::EntryType::Regular);
    header.set_cksum();
    Ok(*header.as_bytes())
}

/// Reads name and size out of a header block, or says why it is not canonical.
pub(crate) fn parse_header(block: &[u8; 512]) -> std::result::Result<(String, u64), &'static str> {
    let parsed = Header::from_byte_slice(block);
    let size = parsed.raw_entry_size().map_err(|_| "the size is not a number")?;
    let name_field = block.get(..NAME).unwrap_or_default();
    let length = name_field.iter().position(|&b| b == 0).unwrap_or(NAME);
    let name = std::str::from_utf8(name_field.get(..length).unwrap_or_default()).map_err(|_| "the name is not text")?;
    match header(name, size) {
        Ok(canonical) if &canonical == block => Ok((name.to_owned(), size)),
        _ => Err("the header is not a canonical ustar header"),
    }
}

/// Appends entries to a bundle, and knows how far it has come.
pub(crate) struct ContainerWriter<W> {
    output: W,
    folder: String,
    offset: u64,
}

impl<W: AsyncWrite + Unpin> ContainerWriter<W> {
    pub(crate) fn new(output: W, folder: String) -> Self {
        Self { output, folder, offset: 0 }
    }

    /// Where the next header begins.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Writes an entry, and says where its content begins.
    pub(crate) async fn append(&mut self, name: &str, content: &[u8]) -> Result<u64> {
        let begin = self.begin(name, content.len() as u64).await?;
        self.content(content).await?;
        self.end(content.len() as u64).await?;
        Ok(begin)
    }

    /// Writes the header of an entry whose content of `size` bytes follows by [`Self::content`], then [`Self::end`].
    pub(crate) async fn begin(&mut self, name: &str, size: u64) -> Result<u64> {
        self.content(&header(&format!("{}{name}", self.folder), size)?).await?;
        Ok(self.offset)
    }

    pub(crate) async fn content(&mut self, bytes: &[u8]) -> Result<()> {
        self.output.write_all(bytes).await.map_err(Error::Write)?;
        self.offset += bytes.len() as u64;
        Ok(())
    }

    pub(crate) async fn end(&mut self, size: u64) -> Result<()> {
        let zeros = [0; BLOCK_LENGTH];
        let padding = usize::try_from(padding(size)).unwrap_or_default();
        self.content(zeros.get(..padding).unwrap_or_default()).await
    }

    /// Writes the end of the tar and flushes; gives the output back.
    pub(crate) async fn finish(mut self) -> Result<(W, u64)> {
        self.content(&[0; END]).await?;
        self.output.flush().await.map_err(Error::Write)?;
        Ok((self.output, self.offset))
    }
}

/// The header of the entry that comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EntryHeader {
    /// The name without the folder.
    pub(crate) name: String,
    /// Bytes of content.
    pub(crate) size: u64,
    /// Where the content begins in the file.
    pub(crate) offset: u64,
}

/// Walks a bundle from its first byte to its last.
pub(crate) struct ContainerReader<R> {
    input: R,
    folder: Option<String>,
    offset: u64,
    /// Content of the current entry that was not read yet, and its padding.
    left: u64,
    padding: u64,
    name: String,
    /// Where its content begins.
    begin: u64,
}

impl<R: Source> ContainerReader<R> {
    pub(crate) fn new(input: R) -> Self {
        Self { input, folder: None, offset: 0, left: 0, padding: 0, name: "the beginning".into(), begin: 0 }
    }

    /// Where reading has come to.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// `pacharc-<8 hex>/`, once the first header was read.
    pub(crate) fn folder(&self) -> Option<&str> {
        self.folder.as_deref()
    }

    /// Reads the next header. What is left of the current entry is skipped (its padding is checked).
    ///
    /// `None` at the end: the closing zeros were read, and nothing comes after them.
    pub(crate) async fn next(&mut self) -> Result<Option<EntryHeader>> {
        while self.left > 0 {
            self.read(1 << 20).await?;
        }
        let mut zeros = [0; BLOCK_LENGTH];
        let length = usize::try_from(self.padding).unwrap_or_default();
        let pad = zeros.get_mut(..length).unwrap_or_default();
        self.fill(pad, "inside the padding of an entry").await?;
        if zeros.iter().any(|&b| b != 0) {
            return Err(Error::damaged(&self.name, self.offset, "its padding is not zero"));
        }
        self.padding = 0;

        let at = self.offset;
        let mut block = [0; BLOCK_LENGTH];
        self.fill(&mut block, "where a header was to come").await?;
        if block.iter().all(|&b| b == 0) {
            self.end().await?;
            return Ok(None);
        }
        let (path, size) = match parse_header(&block) {
            Ok(parsed) => parsed,
            Err(what) if at == 0 => return Err(Error::NotABundle(what.into())),
            Err(what) => return Err(Error::damaged(format!("the header after {}", self.name), at, what)),
        };
        let folder = self.folder.get_or_insert_with(|| path.split_inclusive('/').next().unwrap_or_default().into());
        let Some(name) = path.strip_prefix(folder.as_str()) else {
            return Err(Error::damaged(&path, at, format!("it lies outside of {folder}")));
        };
        self.name = name.to_owned();
        self.begin = self.offset;
        self.left = size;
        self.padding = padding(size);
        Ok(Some(EntryHeader { name: self.name.clone(), size, offset: self.offset }))
    }

    /// Reads up to `most` bytes of the current entry's content; empty at its end.
    pub(crate) async fn read(&mut self, most: usize) -> Result<Bytes> {
        let length = usize::try_from(self.left).unwrap_or(usize::MAX).min(most);
        let mut bytes = BytesMut::with_capacity(length);
        while bytes.len() < length {
            let mut rest = (&mut self.input).take((length - bytes.len()) as u64);
            let read = rest.read_buf(&mut bytes).await;
            if read.map_err(|error| Error::reading(error, &self.name, self.begin))? == 0 {
                return Err(self.torn(bytes.len() as u64, &format!("inside {}", self.name)));
            }
        }
        self.offset += length as u64;
        self.left -= length as u64;
        Ok(bytes.freeze())
    }

    /// Passes over the whole content of the current entry, which must have at most `limit` bytes, and says what its hash is.
    pub(crate) async fn hash_all(&mut self, limit: u64) -> Result<blake3::Hash> {
        self.check_limit(limit)?;
        let mut hasher = blake3::Hasher::new();
        while self.left > 0 {
            let available = self.input.fill_buf().await;
            let available = available.map_err(|error| Error::reading(error, &self.name, self.begin))?;
            let length = usize::try_from(self.left).unwrap_or(usize::MAX).min(available.len());
            if length == 0 {
                return Err(self.torn(0, &format!("inside {}", self.name)));
            }
            hasher.update_rayon(available.get(..length).unwrap_or_default());
            self.input.consume(length);
            self.offset += length as u64;
            self.left -= length as u64;
        }
        Ok(hasher.finalize())
    }

    /// Gives the content of the current entry, of at most `limit` bytes, to whoever reads it on a blocking thread; `None`
    /// where it must be read here.
    pub(crate) fn detach(&mut self, limit: u64) -> Result<Option<Detached>> {
        self.check_limit(limit)?;
        let Some(input) = self.input.detach(self.left) else { return Ok(None) };
        let detached = Detached { input, name: self.name.clone(), offset: self.offset, length: self.left };
        self.offset += std::mem::take(&mut self.left);
        Ok(Some(detached))
    }

    fn check_limit(&self, limit: u64) -> Result<()> {
        if self.left > limit {
            let what = format!("it has {} bytes where at most {limit} make sense", self.left);
            return Err(Error::damaged(&self.name, self.offset, what));
        }
        Ok(())
    }

    /// Reads the whole content of the current entry, which must have at most `limit` bytes.
    pub(crate) async fn read_all(&mut self, limit: u64) -> Result<Bytes> {
        self.check_limit(limit)?;
        let length = usize::try_from(self.left).map_err(|_| Error::Worker("an entry exceeds the memory".into()))?;
        self.read(length).await
    }

    /// Checks the rest of the closing zeros, and that the file ends there.
    async fn end(&mut self) -> Result<()> {
        let mut rest = [0; END - BLOCK_LENGTH];
        self.fill(&mut rest, "inside its closing zeros").await?;
        if rest.iter().any(|&b| b != 0) {
            return Err(Error::damaged("the closing zeros", self.offset, "they are not zero"));
        }
        let mut more = [0; 1];
        let read = self.input.read(&mut more).await;
        if read.map_err(|error| Error::reading(error, "the end of the file", self.offset))? != 0 {
            return Err(Error::damaged("the end of the file", self.offset, "bytes come after the end"));
        }
        Ok(())
    }

    async fn fill(&mut self, bytes: &mut [u8], place: &str) -> Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            let rest = bytes.get_mut(done..).unwrap_or_default();
            match self.input.read(rest).await {
                Ok(0) => return Err(self.torn(done as u64, place)),
                Ok(n) => done += n,
                Err(error) if self.padding > 0 => return Err(Error::reading(error, &self.name, self.begin)),
                Err(error) => {
                    return Err(Error::reading(error, format!("the header after {}", self.name), self.offset));
                }
            }
        }
        self.offset += bytes.len() as u64;
        Ok(())
    }

    fn torn(&self, done: u64, place: &str) -> Error {
        match self.offset + done {
            0 => Error::NotABundle("it is empty".into()),
            offset => Error::Torn { offset, what: place.into() },
        }
    }
}

/// An entry's content that is read apart. For blocking threads.
pub(crate) struct Detached {
    input: Box<dyn Read + Send>,
    name: String,
    /// Where it begins in the file.
    offset: u64,
    length: u64,
}

impl Detached {
    /// Bytes that are read and hashed at a time: few enough for the processor's own cache.
    const STEP: usize = 256 * 1024;

    /// The whole content. [`Error::Damaged`] where it cannot be read: what comes behind it perhaps can.
    pub(crate) fn read_all(mut self) -> Result<Bytes> {
        let length = usize::try_from(self.length).map_err(|_| Error::Worker("an entry exceeds the memory".into()))?;
        let mut bytes = vec![0; length];
        self.fill(&mut bytes, 0)?;
        Ok(bytes.into())
    }

    /// The hash of the content; errors are those of [`Self::read_all`].
    pub(crate) fn hash(mut self) -> Result<blake3::Hash> {
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; Self::STEP.min(usize::try_from(self.length).unwrap_or(Self::STEP))];
        let mut done = 0;
        while done < self.length {
            let step = buffer.len().min(usize::try_from(self.length - done).unwrap_or(usize::MAX));
            let part = buffer.get_mut(..step).unwrap_or_default();
            self.fill(part, done)?;
            hasher.update(part);
            done += step as u64;
        }
        Ok(hasher.finalize())
    }

    /// Fills `buffer` with what comes behind the first `done` bytes.
    fn fill(&mut self, buffer: &mut [u8], done: u64) -> Result<()> {
        let read = read_full(&mut self.input, buffer);
        let read = read.map_err(|error| Error::reading(error, &self.name, self.offset))?;
        match read == buffer.len() {
            true => Ok(()),
            false => {
                Err(Error::Torn { offset: self.offset + done + read as u64, what: format!("inside {}", self.name) })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_apart_is_read_to_its_end() {
        for length in [0, 1, Detached::STEP - 1, Detached::STEP, Detached::STEP + 1, 3 * Detached::STEP + 7] {
            let bytes: Vec<u8> = (0..length).map(|n| u8::try_from(n % 251).unwrap()).collect();
            let detached = |there: usize| {
                let input = Box::new(std::io::Cursor::new(bytes[..there].to_vec()));
                Detached { input, name: "x".into(), offset: 512, length: length as u64 }
            };
            assert_eq!(detached(length).hash().unwrap(), blake3::hash(&bytes), "{length}");
            assert!(detached(length).read_all().unwrap() == bytes);
            for there in [0, length / 2, length.saturating_sub(1)].into_iter().filter(|&there| there < length) {
                let torn = 512 + there as u64;
                let all = [detached(there).hash().map(drop), detached(there).read_all().map(drop)];
                for result in all {
                    assert!(matches!(result, Err(Error::Torn { offset, .. }) if offset == torn), "{result:?}");
                }
            }
        }
    }

    #[test]
    fn names_and_sizes_have_their_limits() {
        let longest = "x".repeat(NAME);
        for (name, size) in [(longest.as_str(), 0), ("x", SIZE), ("~!", 1)] {
            assert_eq!(parse_header(&header(name, size).unwrap()), Ok((name.to_owned(), size)));
        }
        let longer = format!("{longest}x");
        for (name, size) in [(longer.as_str(), 0), ("x", SIZE + 1), ("a b", 0), ("\x1b", 0), ("é", 0)] {
            assert!(matches!(header(name, size), Err(Error::TooLarge { .. })), "{name}");
        }
    }

    /// A container of one entry `a` in the folder `f/`.
    async fn container(content: &[u8]) -> Vec<u8> {
        let mut writer = ContainerWriter::new(Vec::new(), "f/".into());
        assert_eq!((writer.append("a", content).await.unwrap(), writer.offset() % BLOCK), (BLOCK, 0));
        let (bytes, length) = writer.finish().await.unwrap();
        assert_eq!(bytes.len() as u64, length);
        bytes
    }

    #[tokio::test]
    async fn an_entry_is_read_up_to_its_limit() {
        let bytes = container(b"abc").await;
        for limit in 0..5 {
            let mut reader = ContainerReader::new(bytes.as_slice());
            let entry = reader.next().await.unwrap().unwrap();
            assert_eq!((entry.name.as_str(), entry.size, entry.offset), ("a", 3, BLOCK));
            assert_eq!((reader.offset(), reader.folder()), (BLOCK, Some("f/")));
            assert_eq!(reader.read_all(limit).await.ok().as_deref(), (limit >= 3).then_some(b"abc".as_slice()));
            let mut reader = ContainerReader::new(bytes.as_slice());
            reader.next().await.unwrap();
            assert_eq!(reader.hash_all(limit).await.ok(), (limit >= 3).then(|| blake3::hash(b"abc")));
        }
    }

    #[tokio::test]
    async fn where_a_file_ends_is_told() {
        let bytes = container(b"abc").await;
        for length in 0..bytes.len() {
            for by_hash in [false, true] {
                let mut reader = ContainerReader::new(&bytes[..length]);
                let error = loop {
                    let step = match reader.next().await {
                        Ok(Some(_)) if by_hash => reader.hash_all(3).await.map(drop),
                        Ok(Some(_)) => Ok(()),
                        Ok(None) => panic!("{length} bytes are a bundle"),
                        Err(error) => Err(error),
                    };
                    if let Err(error) = step {
                        break error;
                    }
                };
                match (length, error) {
                    (0, Error::NotABundle(_)) => {}
                    (1.., Error::Torn { offset, .. }) => assert_eq!(offset, length as u64),
                    (length, error) => panic!("{length}: {error:?}"),
                }
            }
        }
    }

    #[tokio::test]
    async fn what_is_no_content_is_zero_and_nothing_follows() {
        let bytes = container(b"abc").await;
        let read = async |bytes: &[u8]| {
            let mut reader = ContainerReader::new(bytes);
            while reader.next().await?.is_some() {}
            Ok(())
        };
        assert!(matches!(read(&bytes).await, Ok(())));
        let content = 512..515;
        for place in (512..bytes.len()).filter(|place| !content.contains(place)) {
            let mut wrong = bytes.clone();
            wrong[place] = 1;
            assert!(matches!(read(&wrong).await, Err(Error::Damaged { .. })), "{place}");
        }
        assert!(matches!(read(&[&bytes[..], b"\0"].concat()).await, Err(Error::Damaged { .. })));
    }
}
