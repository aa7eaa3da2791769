//! What a bundle is read from, front to back.

use std::io::{self, Read};

use tokio::io::{AsyncBufRead, AsyncRead, BufReader};

/// Bytes that come front to back, of which a part may be read by somebody else meanwhile.
///
/// Whoever hashes a segment reads it best, too, bit by bit: several then read at a time, and what was read is in the processor's
/// cache still (`docs/performance.md`).
pub trait Source: AsyncBufRead + Unpin {
    /// Passes over the next `length` bytes, and gives what reads just those, on a blocking thread. `None` where nobody else
    /// can read them, or that does not pay; nothing is passed over then.
    fn detach(&mut self, length: u64) -> Option<Box<dyn Read + Send>> {
        let _ = length;
        None
    }
}

impl Source for &[u8] {}

impl<R: AsyncRead + Unpin> Source for BufReader<R> {}

impl<S: Source + ?Sized> Source for Box<S> {
    fn detach(&mut self, length: u64) -> Option<Box<dyn Read + Send>> {
        (**self).detach(length)
    }
}

/// Fills as much of `buffer` as there is, and says how much.
pub(crate) fn read_full(input: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match input.read(buffer.get_mut(done..).unwrap_or_default()) {
            Ok(0) => break,
            Ok(length) => done += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}
