//! A file that is written from front to back, past the page cache where the file system allows it.
//!
//! Nobody reads a bundle while it is made, so a copy of it in the page cache serves nobody: it takes a processor longer to
//! make than the disk takes to write (`docs/performance.md`), and pushes out what the servers of the machine keep there. So the
//! file is written with `O_DIRECT` (open(2)): in blocks whose memory and place in the file are aligned, one being written while
//! the next one is filled. Where a file system refuses that, and for the last bytes, the page cache is used after all.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use tokio::io::AsyncWrite;
use tokio::task::JoinHandle;

/// Bytes of a block: enough for any disk to be at its full speed.
const BLOCK: usize = 4 << 20;
/// What file systems ask for: no disk has larger sectors.
const ALIGNMENT: usize = 4096;

/// Writes a file that is at its beginning, and that nobody else writes meanwhile.
#[derive(Debug)]
pub struct FileWriter {
    filling: Block,
    state: State,
}

#[derive(Debug)]
enum State {
    Idle(Target, Block),
    Writing(JoinHandle<(Target, Block, io::Result<()>)>),
    /// An error was told.
    Failed,
}

/// The file, and whether it is written past the page cache.
#[derive(Debug)]
struct Target {
    file: File,
    direct: bool,
}

/// Bytes in aligned memory, taken when they are first needed.
#[derive(Debug, Default)]
struct Block {
    memory: Vec<u8>,
    begin: usize,
    length: usize,
}

impl FileWriter {
    /// Writes `file` from its beginning.
    #[must_use]
    pub fn new(file: File) -> Self {
        let direct = set_direct(&file, true).is_ok();
        Self { filling: Block::default(), state: State::Idle(Target { file, direct }, Block::default()) }
    }

    /// Begins to write what was filled, once the block before is written.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_idle(cx))?;
        if let State::Idle(mut target, spare) = std::mem::replace(&mut self.state, State::Failed) {
            let full = std::mem::replace(&mut self.filling, spare);
            self.state = State::Writing(tokio::task::spawn_blocking(move || {
                let written = target.write(full.bytes());
                (target, Block { length: 0, ..full }, written)
            }));
        }
        Poll::Ready(Ok(()))
    }

    /// Waits until nothing is being written.
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ended = match &mut self.state {
            State::Idle(..) => return Poll::Ready(Ok(())),
            State::Writing(writing) => ready!(Pin::new(writing).poll(cx)),
            State::Failed => return Poll::Ready(Err(io::Error::other("an earlier part could not be written"))),
        };
        self.state = State::Failed;
        let (target, block, written) = ended.map_err(io::Error::other)?;
        written?;
        self.state = State::Idle(target, block);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for FileWriter {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.filling.length == BLOCK {
            ready!(this.poll_send(cx))?;
        }
        Poll::Ready(Ok(this.filling.fill(bytes)))
    }

    /// After bytes that do not fill a sector the file goes on in the page cache.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.filling.length > 0 {
            ready!(this.poll_send(cx))?;
        }
        this.poll_idle(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}

impl Target {
    fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.direct && bytes.len() < ALIGNMENT {
                self.use_page_cache()?;
            }
            let whole = if self.direct { bytes.len() - bytes.len() % ALIGNMENT } else { bytes.len() };
            match self.file.write(bytes.get(..whole).unwrap_or(bytes)) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // It was promised and is refused, or a write that fell short has left no aligned rest.
                Err(error) if self.direct && error.kind() == io::ErrorKind::InvalidInput => self.use_page_cache()?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn use_page_cache(&mut self) -> io::Result<()> {
        self.direct = false;
        set_direct(&self.file, false)
    }
}

impl Block {
    /// Takes in as much of `bytes` as there is room for, and says how much.
    fn fill(&mut self, bytes: &[u8]) -> usize {
        if self.memory.is_empty() {
            self.memory = vec![0; BLOCK + ALIGNMENT];
            self.begin = self.memory.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        }
        let room = self.memory.get_mut(self.begin + self.length..self.begin + BLOCK).unwrap_or_default();
        let taken = room.len().min(bytes.len());
        room[..taken].copy_from_slice(&bytes[..taken]);
        self.length += taken;
        taken
    }

    fn bytes(&self) -> &[u8] {
        self.memory.get(self.begin..self.begin + self.length).unwrap_or_default()
    }
}

fn set_direct(file: impl AsFd, direct: bool) -> io::Result<()> {
    let mut flags = fcntl_getfl(&file)?;
    flags.set(OFlags::DIRECT, direct);
    Ok(fcntl_setfl(&file, flags)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt as _;

    async fn written(file: tempfile::NamedTempFile, portions: &[usize], flush_between: bool) {
        let mut writer = FileWriter::new(file.reopen().unwrap());
        let mut expected = Vec::new();
        for &length in portions {
            let from = expected.len();
            expected.extend((from..from + length).map(|n| u8::try_from(n % 251).unwrap()));
            writer.write_all(&expected[from..]).await.unwrap();
            if flush_between {
                writer.flush().await.unwrap();
                assert_eq!(file.as_file().metadata().unwrap().len(), expected.len() as u64);
            }
        }
        writer.shutdown().await.unwrap();
        assert!(std::fs::read(file.path()).unwrap() == expected, "{portions:?}");
    }

    #[tokio::test]
    async fn what_is_written_lies_in_the_file() {
        for portions in [
            &[][..],
            &[1],
            &[ALIGNMENT],
            &[BLOCK],
            &[BLOCK + 1],
            &[7, BLOCK - 7, 3 * BLOCK, 5000],
            &[1_000_003, 2_000_003, 3_000_017, 4_000_037],
        ] {
            for flush_between in [false, true] {
                written(tempfile::NamedTempFile::new().unwrap(), portions, flush_between).await;
            }
        }
    }

    #[tokio::test]
    async fn a_failure_is_told_and_stays() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut writer = FileWriter::new(full);
        writer.write_all(&[1; 100]).await.unwrap();
        assert_eq!(writer.flush().await.unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert!(writer.flush().await.is_err(), "nothing new, but not all is written");
        assert!(writer.write_all(&vec![1; 2 * BLOCK]).await.is_err());
    }
}
