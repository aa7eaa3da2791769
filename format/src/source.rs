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

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives a byte at a time, each after a signal.
    struct Signalled(u8, bool);

    impl Read for Signalled {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.1 = !self.1;
            if self.1 {
                return Err(io::ErrorKind::Interrupted.into());
            }
            match self.0 {
                0 => Ok(0),
                _ => {
                    self.0 -= 1;
                    buffer[0] = self.0;
                    Ok(1)
                }
            }
        }
    }

    #[test]
    fn signals_do_not_end_a_read() {
        let mut buffer = [9; 5];
        assert_eq!(read_full(&mut Signalled(5, false), &mut buffer).unwrap(), 5);
        assert_eq!(buffer, [4, 3, 2, 1, 0]);
        assert_eq!(read_full(&mut Signalled(3, false), &mut buffer).unwrap(), 3, "it ends early");
    }

    #[test]
    fn a_boxed_source_is_detached_like_its_own() {
        struct Some3;
        impl AsyncRead for Some3 {
            fn poll_read(
                self: std::pin::Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
                _: &mut tokio::io::ReadBuf<'_>,
            ) -> std::task::Poll<io::Result<()>> {
                std::task::Poll::Ready(Ok(()))
            }
        }
        impl AsyncBufRead for Some3 {
            fn poll_fill_buf(
                self: std::pin::Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
            ) -> std::task::Poll<io::Result<&[u8]>> {
                std::task::Poll::Ready(Ok(&[]))
            }
            fn consume(self: std::pin::Pin<&mut Self>, _: usize) {}
        }
        impl Source for Some3 {
            fn detach(&mut self, length: u64) -> Option<Box<dyn Read + Send>> {
                (length == 3).then(|| Box::new(io::empty()) as Box<dyn Read + Send>)
            }
        }
        let mut boxed: Box<dyn Source> = Box::new(Some3);
        assert!(Source::detach(&mut boxed, 3).is_some() && Source::detach(&mut boxed, 4).is_none());
    }
}
