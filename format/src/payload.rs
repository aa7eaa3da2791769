//! The payload of an age file, through the AEAD of AWS-LC.
//!
//! The age crate makes and checks the header, wraps and unwraps the file key; this is what follows the header, STREAM over
//! ChaCha20-Poly1305 in chunks of 64 KiB (<https://c2sp.org/age>, "Payload"). The crate's own cipher takes twice as
//! long, a fifth of all processor time of a verification (`docs/performance.md`), and it copies each chunk; this seals and
//! opens in place.

use std::io::{self, Read, Write};

use age::{DecryptError, Identity, Recipient};
use age_core::format::{FileKey, Stanza};
use age_core::secrecy::ExposeSecret as _;
use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use bytes::{Bytes, BytesMut};

use crate::age_file::{AgeFile, SEALED_HEADER};

/// Plaintext of every chunk but the last.
const CHUNK: usize = 64 * 1024;
const TAG: usize = 16;
/// Bytes that are hashed at a time, from a place that is a multiple of it: BLAKE3 goes fastest so, and they are in the
/// processor's cache still.
const HASHED: usize = 64 * 1024;
/// Bytes of memory in which sealed bytes lie, and best also what is to be sealed: blocks of one size find room where any other was.
/// Buffers as large as the files left gaps in which the next one did not fit, and the memory in them was given back and cleared
/// anew (`docs/performance.md`).
pub const BLOCK: usize = 2 << 20;
/// What stands before the first chunk, and makes the payload's key.
const NONCE: usize = 16;

/// Bytes that a payload of `plain` bytes takes, its nonce left aside.
pub(crate) fn sealed_size(plain: usize) -> usize {
    plain + plain.div_ceil(CHUNK).max(1) * TAG
}

/// The key of one payload, and the number of its next chunk.
struct Stream {
    key: LessSafeKey,
    number: u64,
}

impl Stream {
    fn new(file_key: &FileKey, nonce: &[u8]) -> io::Result<Self> {
        let key = age_core::primitives::hkdf(nonce, b"payload", file_key.expose_secret());
        let key =
            UnboundKey::new(&CHACHA20_POLY1305, &key).map_err(|_| io::Error::other("the cipher cannot be used"))?;
        Ok(Self { key: LessSafeKey::new(key), number: 0 })
    }

    /// The next chunk's nonce: its number in eleven bytes, big-endian, then one byte that is 1 in the last.
    fn next(&mut self, last: bool) -> Nonce {
        let mut nonce = [0; 12];
        nonce[3..11].copy_from_slice(&self.number.to_be_bytes());
        nonce[11] = u8::from(last);
        self.number += 1;
        Nonce::assume_unique_for_key(nonce)
    }

    /// Opens all chunks of `payload`, each behind the one before it, where the tags were.
    fn open_all(&mut self, payload: &mut BytesMut) -> io::Result<()> {
        let (mut opened, mut at) = (0, 0);
        let mut last = false;
        while !last {
            let length = (payload.len() - at).min(CHUNK + TAG);
            last = at + length == payload.len();
            let nonce = self.next_of(length, last)?;
            let chunk = payload.get_mut(opened..at + length).unwrap_or_default();
            let plain = self.key.open_within(nonce, Aad::empty(), chunk, at - opened..);
            opened += plain.map_err(|_| invalid(NOT_SEALED))?.len();
            at += length;
        }
        payload.truncate(opened);
        Ok(())
    }

    /// The nonce of a chunk of so many sealed bytes, if there can be such a chunk.
    fn next_of(&mut self, length: usize, last: bool) -> io::Result<Nonce> {
        match length.checked_sub(TAG) {
            None => Err(invalid("it is cut off")),
            Some(0) if self.number > 0 => Err(invalid("its last chunk is empty")),
            Some(_) => Ok(self.next(last)),
        }
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

const NOT_SEALED: &str = "a chunk is not what was sealed, or the end is missing";

/// A whole age file, and its BLAKE3.
#[derive(Debug)]
pub(crate) struct Sealed {
    /// Its bytes, one block behind the other.
    pub(crate) blocks: Vec<Vec<u8>>,
    pub(crate) hash: blake3::Hash,
}

impl Sealed {
    /// Bytes of the file.
    pub(crate) fn length(&self) -> usize {
        self.blocks.iter().map(Vec::len).sum()
    }

    /// The file in one piece.
    pub(crate) fn into_bytes(self) -> Bytes {
        self.blocks.concat().into()
    }
}

/// Encrypts what is written to it, into memory.
pub(crate) struct SealingWriter {
    /// Full ones.
    blocks: Vec<Vec<u8>>,
    /// The one that is being filled.
    block: Vec<u8>,
    /// Where in it the chunk begins that is not sealed yet.
    open: usize,
    stream: Stream,
    hasher: blake3::Hasher,
    /// How many of its bytes are hashed.
    hashed: usize,
}

impl SealingWriter {
    /// Begins a file to `recipient`, with room for `plain` bytes.
    ///
    /// # Errors
    /// If the recipient cannot be used.
    pub(crate) fn new(recipient: &dyn Recipient, plain: usize) -> io::Result<Self> {
        // The header and its stanzas take some 200 bytes.
        let mut block = Vec::with_capacity(BLOCK.min(sealed_size(plain) + 1024));
        let recipient = KeyKeeper { inner: recipient, kept: std::cell::RefCell::default() };
        let encryptor = age::Encryptor::with_recipients(std::iter::once(&recipient as &dyn Recipient));
        let encryptor = encryptor.map_err(io::Error::other)?;
        // It writes the header and the nonce at once, and what it would write at its end is not asked for.
        drop(encryptor.wrap_output(&mut block)?);
        let file_key = recipient.kept.take().ok_or_else(|| io::Error::other("the recipient was given no key"))?;
        let open = block.len();
        let stream = Stream::new(&file_key, block.get(open.saturating_sub(NONCE)..).unwrap_or_default())?;
        Ok(Self { blocks: Vec::new(), block, open, stream, hasher: blake3::Hasher::new(), hashed: 0 })
    }

    /// Seals the last chunk, and gives the whole file.
    ///
    /// # Errors
    /// If the cipher fails, which it has no reason to.
    pub(crate) fn finish(mut self) -> io::Result<Sealed> {
        self.seal(true)?;
        self.hash(self.open);
        self.block.shrink_to_fit();
        self.blocks.push(self.block);
        Ok(Sealed { blocks: self.blocks, hash: self.hasher.finalize() })
    }

    fn seal(&mut self, last: bool) -> io::Result<()> {
        let nonce = self.stream.next(last);
        let chunk = self.block.get_mut(self.open..).unwrap_or_default();
        let tag = self.stream.key.seal_in_place_separate_tag(nonce, Aad::empty(), chunk);
        self.block.extend_from_slice(tag.map_err(|_| io::Error::other("the cipher failed"))?.as_ref());
        self.open = self.block.len();
        // The last part of a block goes with it, wherever that ends.
        let before = self.hasher.count() - self.hashed as u64;
        let unaligned = (before + self.open as u64) % HASHED as u64;
        self.hash(self.open - usize::try_from(unaligned).unwrap_or_default().min(self.open - self.hashed));
        Ok(())
    }

    /// Hashes what is sealed of the block, up to `end`.
    fn hash(&mut self, end: usize) {
        self.hasher.update(self.block.get(self.hashed..end).unwrap_or_default());
        self.hashed = end;
    }

    /// Begins another block where the next chunk does not fit into this one.
    fn make_room(&mut self) {
        if self.open + CHUNK + TAG > BLOCK {
            self.hash(self.open);
            self.blocks.push(std::mem::replace(&mut self.block, Vec::with_capacity(BLOCK)));
            (self.open, self.hashed) = (0, 0);
        }
    }
}

impl Write for SealingWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        // A full chunk is sealed when more comes: it might have been the last.
        if self.block.len() - self.open == CHUNK {
            self.seal(false)?;
            self.make_room();
        }
        let room = CHUNK - (self.block.len() - self.open);
        let taken = bytes.get(..room).unwrap_or(bytes);
        self.block.extend_from_slice(taken);
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Opens a whole age file in the memory where it lies; `None` where more than `limit` bytes were sealed.
///
/// # Errors
/// The outer one is the header's, as of [`age::Decryptor`]; the inner one is the payload's: a chunk is not what was sealed,
/// or the end is missing.
pub(crate) fn open_in_place(
    mut file: BytesMut,
    identities: &[&dyn Identity],
    limit: usize,
) -> Result<io::Result<Option<Bytes>>, DecryptError> {
    let Opening { sealed, mut stream, .. } = Opening::new(&file, identities)?;
    if plain_size(sealed.len()) > limit {
        return Ok(Ok(None));
    }
    let mut payload = file.split_off(file.len() - sealed.len());
    Ok(stream.open_all(&mut payload).map(|()| Some(payload.freeze())))
}

/// Bytes that an intact payload of `sealed` bytes holds, its nonce left aside.
fn plain_size(sealed: usize) -> usize {
    sealed.saturating_sub(sealed.div_ceil(CHUNK + TAG) * TAG)
}

/// A payload that is opened chunk by chunk.
pub(crate) struct Opening<'a> {
    /// What is not opened yet.
    sealed: &'a [u8],
    stream: Stream,
    done: bool,
    /// The chunk that was opened last, and how much of it was read.
    chunk: Vec<u8>,
    read: usize,
}

impl<'a> Opening<'a> {
    /// Opens the header of a whole age file, of at most [`SEALED_HEADER`] bytes, with one of `identities`.
    ///
    /// # Errors
    /// As [`age::Decryptor`].
    pub(crate) fn new(file: &'a [u8], identities: &[&dyn Identity]) -> Result<Self, DecryptError> {
        let mut reading = AgeFile::new(file, SEALED_HEADER)?;
        let decryptor = age::Decryptor::new_buffered(&mut reading)?;
        let keepers: Vec<_> =
            identities.iter().map(|&inner| KeyKeeper { inner, kept: std::cell::RefCell::default() }).collect();
        // This checks the header's MAC, and reads nothing of the payload.
        drop(decryptor.decrypt(keepers.iter().map(|keeper| keeper as &dyn Identity))?);
        let file_key = keepers.into_iter().find_map(|keeper| keeper.kept.into_inner());
        let file_key = file_key.ok_or(DecryptError::NoMatchingKeys)?;
        let sealed = reading.rest();
        let begin = file.len() - sealed.len();
        let nonce = file.get(begin.saturating_sub(NONCE)..begin).unwrap_or_default();
        let stream = Stream::new(&file_key, nonce)?;
        Ok(Self { sealed, stream, done: false, chunk: Vec::new(), read: 0 })
    }

    /// Opens the next chunk onto the end of `plain`; `false` at the end.
    fn next(&mut self, plain: &mut Vec<u8>) -> io::Result<bool> {
        if self.done {
            return Ok(false);
        }
        let (chunk, rest) = self.sealed.split_at_checked(CHUNK + TAG).unwrap_or((self.sealed, &[]));
        // Whether it is the last is told by the length, and must be what was sealed.
        let last = rest.is_empty();
        let nonce = self.stream.next_of(chunk.len(), last)?;
        let (body, tag) = chunk.split_at(chunk.len() - TAG);
        let begin = plain.len();
        plain.resize(begin + body.len(), 0);
        let out = plain.get_mut(begin..).unwrap_or_default();
        if self.stream.key.open_separate_gather(nonce, Aad::empty(), body, tag, out).is_err() {
            plain.truncate(begin);
            return Err(invalid(NOT_SEALED));
        }
        self.sealed = rest;
        self.done = last;
        Ok(true)
    }
}

impl Read for Opening<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.read == self.chunk.len() {
            let mut chunk = std::mem::take(&mut self.chunk);
            chunk.clear();
            self.read = 0;
            let more = self.next(&mut chunk);
            self.chunk = chunk;
            more?;
        }
        let taken = self.chunk.get(self.read..).unwrap_or_default().read(into)?;
        self.read += taken;
        Ok(taken)
    }
}

/// A recipient or an identity that keeps the file key which passes through it: the crate shows it to nobody else.
struct KeyKeeper<'a, T: ?Sized> {
    inner: &'a T,
    kept: std::cell::RefCell<Option<FileKey>>,
}

impl<T: ?Sized> KeyKeeper<'_, T> {
    fn keep(&self, key: &FileKey) {
        let copy = FileKey::init_with_mut(|bytes| bytes.copy_from_slice(key.expose_secret()));
        *self.kept.borrow_mut() = Some(copy);
    }
}

impl Recipient for KeyKeeper<'_, dyn Recipient + '_> {
    fn wrap_file_key(
        &self,
        file_key: &FileKey,
    ) -> Result<(Vec<Stanza>, std::collections::HashSet<String>), age::EncryptError> {
        self.keep(file_key);
        self.inner.wrap_file_key(file_key)
    }
}

impl Identity for KeyKeeper<'_, dyn Identity + '_> {
    fn unwrap_stanza(&self, stanza: &Stanza) -> Option<Result<FileKey, DecryptError>> {
        self.inner.unwrap_stanza(stanza).inspect(|key| key.iter().for_each(|key| self.keep(key)))
    }

    fn unwrap_stanzas(&self, stanzas: &[Stanza]) -> Option<Result<FileKey, DecryptError>> {
        self.inner.unwrap_stanzas(stanzas).inspect(|key| key.iter().for_each(|key| self.keep(key)))
    }
}

#[cfg(test)]
mod tests;
