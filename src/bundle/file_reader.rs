//! A file that is read from front to back, a block ahead of whoever uses it.
//!
//! While one block is being used, a blocking thread reads the next one into memory that was used before: it is small enough
//! to stay in the processor's cache, so that what is copied out of it costs little.

use std::fs::File;
use std::io::{self, Read as _};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncBufRead, AsyncRead, ReadBuf};
use tokio::task::JoinHandle;

/// Bytes of a block; two are held.
const BLOCK: usize = 1 << 20;

/// Reads a file, or a named pipe, to its end.
#[derive(Debug)]
pub struct FileReader {
    /// What was read last, and how much of it was used.
    block: Block,
    used: usize,
    state: State,
}

#[derive(Debug)]
enum State {
    Idle(File, Block),
    Reading(JoinHandle<(File, Block, io::Result<()>)>),
    Ended,
    /// An error was told: what follows must not look like an end.
    Failed,
}

#[derive(Debug, Default)]
struct Block {
    memory: Vec<u8>,
    length: usize,
}

impl FileReader {
    /// Reads `file` from where it stands.
    #[must_use]
    pub fn new(file: File) -> Self {
        Self { block: Block::default(), used: 0, state: State::Idle(file, Block::default()) }
    }

    /// Begins to read the next block, if none is being read.
    fn start(&mut self) {
        self.state = match std::mem::replace(&mut self.state, State::Ended) {
            State::Idle(mut file, mut block) => State::Reading(tokio::task::spawn_blocking(move || {
                let read = block.read(&mut file);
                (file, block, read)
            })),
            other => other,
        }
    }
}

impl AsyncBufRead for FileReader {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        if this.used == this.block.length {
            this.start();
            let ended = match &mut this.state {
                State::Reading(reading) => ready!(Pin::new(reading).poll(cx)),
                State::Failed => return Poll::Ready(Err(io::Error::other("an earlier part could not be read"))),
                State::Idle(..) | State::Ended => return Poll::Ready(Ok(&[])),
            };
            this.state = State::Failed;
            let (file, block, read) = ended.map_err(io::Error::other)?;
            read?;
            if block.length == 0 {
                this.state = State::Ended;
                return Poll::Ready(Ok(&[]));
            }
            let spare = std::mem::replace(&mut this.block, block);
            this.used = 0;
            this.state = State::Idle(file, spare);
            this.start();
        }
        Poll::Ready(Ok(this.block.memory.get(this.used..this.block.length).unwrap_or_default()))
    }

    fn consume(self: Pin<&mut Self>, amount: usize) {
        let this = self.get_mut();
        this.used = (this.used + amount).min(this.block.length);
    }
}

impl AsyncRead for FileReader {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let rest = ready!(self.as_mut().poll_fill_buf(cx))?;
        let taken = rest.get(..into.remaining()).unwrap_or(rest);
        into.put_slice(taken);
        let length = taken.len();
        self.consume(length);
        Poll::Ready(Ok(()))
    }
}

impl Block {
    /// Reads what one call gives: a pipe gives what it has.
    fn read(&mut self, file: &mut File) -> io::Result<()> {
        self.memory.resize(BLOCK, 0);
        self.length = loop {
            match file.read(&mut self.memory) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BufMut as _;
    use tokio::io::AsyncReadExt as _;

    #[tokio::test]
    async fn what_lies_in_the_file_is_read() {
        for length in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK + 7] {
            let expected: Vec<u8> = (0..length).map(|n| u8::try_from(n % 251).unwrap()).collect();
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), &expected).unwrap();
            for portion in [7001, 3 << 20] {
                let mut reader = FileReader::new(file.reopen().unwrap());
                let mut found = Vec::new();
                while reader.read_buf(&mut (&mut found).limit(portion)).await.unwrap() > 0 {}
                assert!(found == expected, "{length}");
                assert_eq!(reader.read(&mut [0]).await.unwrap(), 0, "an end stays one");
            }
        }
    }

    #[tokio::test]
    async fn a_failure_is_told() {
        let mut reader = FileReader::new(File::open("/proc/self/mem").unwrap());
        assert!(reader.read(&mut [0; 10]).await.is_err());
        assert!(reader.read(&mut [0; 10]).await.is_err(), "a failure is no end");
    }
}
