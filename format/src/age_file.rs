//! An age file that is about to be opened: where its header ends is known before it is parsed.
//!
//! The age crate parses a header anew with each line that it reads of it. One of a megabyte, which anybody can make, takes
//! an hour then, and one as large as a segment takes for ever. So the crate is given the whole header at once, and none
//! that is larger than it may be.

use std::io::{self, BufRead, Read};

use age::DecryptError;

/// Bytes of a sealed file's header, at most: its one recipient takes some two hundred (SPEC §2.3).
pub(crate) const SEALED_HEADER: usize = 16 * 1024;

/// A whole age file, read from its beginning.
pub(crate) struct AgeFile<'a> {
    /// What was not read yet.
    rest: &'a [u8],
    /// Bytes of the header, while it was not read.
    header: usize,
}

impl<'a> AgeFile<'a> {
    /// Finds the header of `file`.
    ///
    /// # Errors
    /// [`DecryptError::InvalidHeader`] where it does not end within `most` bytes.
    pub(crate) fn new(file: &'a [u8], most: usize) -> Result<Self, DecryptError> {
        match header_length(file.get(..most).unwrap_or(file)) {
            Some(header) => Ok(Self { rest: file, header }),
            None => Err(DecryptError::InvalidHeader),
        }
    }

    /// What was not read yet.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

/// How many bytes there are up to the end of the MAC's line: no other line of a header begins like it.
fn header_length(file: &[u8]) -> Option<usize> {
    let mac = memchr::memmem::find(file, b"\n--- ")? + 1;
    Some(mac + memchr::memchr(b'\n', file.get(mac..)?)? + 1)
}

impl Read for AgeFile<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let length = self.rest.read(into)?;
        self.header = self.header.saturating_sub(length);
        Ok(length)
    }
}

impl BufRead for AgeFile<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        Ok(self.rest)
    }

    fn consume(&mut self, amount: usize) {
        self.rest = self.rest.get(amount..).unwrap_or_default();
        self.header = self.header.saturating_sub(amount);
    }

    /// The header's lines at once, which is what the crate asks for one by one; then line by line.
    fn read_until(&mut self, byte: u8, into: &mut Vec<u8>) -> io::Result<usize> {
        let header = std::mem::take(&mut self.header);
        match self.rest.split_at_checked(header) {
            Some((lines, rest)) if header > 0 => {
                into.extend_from_slice(lines);
                self.rest = rest;
                Ok(header)
            }
            _ => self.rest.read_until(byte, into),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &[u8] = b"age-encryption.org/v1\n-> a\n\n-> b c\nAAAA\n--- MAC\n";

    #[test]
    fn a_header_comes_at_once_and_the_rest_line_by_line() {
        let file = [HEADER, b"one\n--- two\nthree"].concat();
        let mut reading = AgeFile::new(&file, file.len()).unwrap();
        let mut read = Vec::new();
        let mut next = || {
            read.clear();
            let length = reading.read_until(b'\n', &mut read).unwrap();
            assert_eq!(length, read.len());
            read.clone()
        };
        assert_eq!([next(), next(), next()], [HEADER, b"one\n", b"--- two\n"]);
        assert_eq!(reading.rest(), b"three");
        // What was read otherwise does not come again.
        let mut reading = AgeFile::new(&file, file.len()).unwrap();
        let mut begun = [0; 20];
        reading.read_exact(&mut begun).unwrap();
        reading.consume(1);
        let mut rest = Vec::new();
        reading.read_until(b'\n', &mut rest).unwrap();
        assert_eq!([&begun[..], &file[20..21], &rest].concat(), HEADER);
        assert_eq!(reading.fill_buf().unwrap(), &file[HEADER.len()..]);
    }

    #[test]
    fn a_header_has_its_limit() {
        let file = [HEADER, b"payload"].concat();
        for most in 0..=file.len() {
            assert_eq!(AgeFile::new(&file, most).is_ok(), most >= HEADER.len(), "{most}");
        }
        for none in [&b""[..], b"age-encryption.org/v1\n", b"\n--- ", b"age-encryption.org/v1\n-> a\n\n---\n"] {
            assert!(AgeFile::new(none, none.len()).is_err(), "{none:?}");
        }
    }
}
