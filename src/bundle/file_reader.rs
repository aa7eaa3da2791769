//! A file that is read from front to back, a block ahead of whoever uses it, and of which long parts may be read apart.
//!
//! While one block is being used, a blocking thread reads the next one into memory that was used before: it is small enough
//! to stay in the processor's cache, so that what is copied out of it costs little. Where long parts are detached, only what
//! lies between them is read here, and nothing ahead.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustix::fs::{Advice, fadvise};
use tokio::io::{AsyncBufRead, AsyncRead, ReadBuf};
use tokio::task::JoinHandle;

/// Bytes of a block; two are held.
const BLOCK: usize = 1 << 20;
/// The same between parts that are detached.
const SMALL_BLOCK: usize = 16 << 10;
/// Parts of fewer bytes are not worth being detached.
const DETACHED: u64 = 256 << 10;

/// Reads a file, or a named pipe, to its end.
#[derive(Debug)]
pub struct FileReader {
    file: Arc<File>,
    /// Where in the file the block behind this one begins; `None` where it can be read only once.
    next: Option<u64>,
    /// What was read last, and how much of it was used.
    block: Block,
    used: usize,
    /// Whether nothing is read ahead, since long parts are detached.
    is_sparse: bool,
    state: State,
}

#[derive(Debug)]
enum State {
    Idle(Block),
    Reading(JoinHandle<(Block, io::Result<()>)>),
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
    /// Reads `file` from its beginning; what is no regular file, from where it stands.
    #[must_use]
    pub fn new(file: File) -> Self {
        let next = file.metadata().is_ok_and(|metadata| metadata.is_file()).then_some(0);
        let state = State::Idle(Block::default());
        Self { file: Arc::new(file), next, block: Block::default(), used: 0, is_sparse: false, state }
    }

    /// Passes over the next `length` bytes, and gives what reads just those; `None` where they are too few for that, or can
    /// be read only once.
    pub fn detach(&mut self, length: u64) -> Option<Box<dyn Read + Send>> {
        let unread = self.block.length - self.used;
        let begin = self.next? - unread as u64;
        if length < DETACHED || matches!(self.state, State::Failed) {
            return None;
        }
        self.is_sparse = true;
        match usize::try_from(length) {
            Ok(length) if length <= unread => self.used += length,
            _ => {
                self.used = self.block.length;
                self.next = Some(begin + length);
                // What was being read ahead lies inside of it.
                self.state = State::Idle(Block::default());
            }
        }
        // Several read at a time, which hides from the system that each goes straight on. It is no more than a wish.
        let _ = fadvise(&self.file, begin, std::num::NonZeroU64::new(length), Advice::WillNeed);
        Some(Box::new(FilePart { file: Arc::clone(&self.file), next: begin, left: length }))
    }

    /// Begins to read the next block, if none is being read.
    fn start(&mut self) {
        self.state = match std::mem::replace(&mut self.state, State::Ended) {
            State::Idle(mut block) => {
                let (file, next) = (Arc::clone(&self.file), self.next);
                let length = if self.is_sparse { SMALL_BLOCK } else { BLOCK };
                State::Reading(tokio::task::spawn_blocking(move || {
                    let read = block.read(&file, next, length);
                    (block, read)
                }))
            }
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
                State::Idle(_) | State::Ended => return Poll::Ready(Ok(&[])),
            };
            this.state = State::Failed;
            let (block, read) = ended.map_err(io::Error::other)?;
            read?;
            if block.length == 0 {
                this.state = State::Ended;
                return Poll::Ready(Ok(&[]));
            }
            this.next = this.next.map(|next| next + block.length as u64);
            let spare = std::mem::replace(&mut this.block, block);
            this.used = 0;
            this.state = State::Idle(spare);
            if !this.is_sparse {
                this.start();
            }
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
    fn read(&mut self, mut file: &File, place: Option<u64>, length: usize) -> io::Result<()> {
        self.memory.resize(length, 0);
        self.length = loop {
            let read = match place {
                Some(place) => file.read_at(&mut self.memory, place),
                None => file.read(&mut self.memory),
            };
            match read {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        Ok(())
    }
}

/// A part that was detached.
struct FilePart {
    file: Arc<File>,
    next: u64,
    left: u64,
}

impl Read for FilePart {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let most = into.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let read = self.file.read_at(into.get_mut(..most).unwrap_or_default(), self.next)?;
        self.next += read as u64;
        self.left -= read as u64;
        Ok(read)
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
    async fn parts_are_read_apart_and_what_lies_between_them_here() {
        let part = usize::try_from(DETACHED).unwrap();
        let lengths = [3, part, 0, 5000, 700, 3 * part + 1, BLOCK, 17, 4 * BLOCK, 1, part, part - 1];
        let expected: Vec<u8> = (0..lengths.iter().sum::<usize>()).map(|n| u8::try_from(n % 251).unwrap()).collect();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &expected).unwrap();
        let mut reader = FileReader::new(file.reopen().unwrap());
        let (mut apart, mut at) = (Vec::new(), 0);
        for length in lengths {
            match reader.detach(length as u64) {
                Some(detached) => apart.push((at, length, detached)),
                None => {
                    let mut here = vec![0; length];
                    reader.read_exact(&mut here).await.unwrap();
                    assert!(here == expected[at..at + length], "{length} from {at}");
                }
            }
            at += length;
        }
        assert_eq!(reader.read(&mut [0]).await.unwrap(), 0, "the end");
        // Beyond the end there is nothing.
        apart.push((at, 0, reader.detach(DETACHED).unwrap()));
        assert_eq!(apart.len(), 6);
        // In any order.
        for (at, length, mut detached) in apart.into_iter().rev() {
            let mut found = Vec::new();
            detached.read_to_end(&mut found).unwrap();
            assert!(found == expected[at..at + length], "{length} from {at}");
        }
    }

    #[tokio::test]
    async fn of_a_pipe_nothing_is_detached() {
        let (reader, _writer) = io::pipe().unwrap();
        let mut reader = FileReader::new(File::from(std::os::fd::OwnedFd::from(reader)));
        assert!(reader.detach(DETACHED).is_none());
    }

    #[tokio::test]
    async fn a_failure_is_told() {
        let mut reader = FileReader::new(File::open("/proc/self/mem").unwrap());
        assert!(reader.read(&mut [0; 10]).await.is_err());
        assert!(reader.read(&mut [0; 10]).await.is_err(), "a failure is no end");
    }
}
