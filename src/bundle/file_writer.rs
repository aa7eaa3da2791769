//! A file that is written from front to back, past the page cache where the file system allows it.
//!
//! Nobody reads a bundle while it is made, so a copy of it in the page cache serves nobody: it takes a processor longer to
//! make than the disk takes to write (`docs/performance.md`), and pushes out what the servers of the machine keep there. So the
//! file is written with `O_DIRECT` (open(2)): in blocks whose memory and place in the file are aligned, by a thread of its own that
//! goes from one to the next without waiting for whoever fills them: on a busy machine the disk would idle meanwhile, and then
//! be waited for. Where a file system refuses that, and for the last bytes, the page cache is used after all.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use tokio::io::AsyncWrite;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Bytes of a block: enough for any disk to be at its full speed.
const BLOCK: usize = 2 << 20;
/// Blocks that are filled, wait, or are being written.
const BLOCKS: usize = 6;
/// What file systems ask for: no disk has larger sectors.
const ALIGNMENT: usize = 4096;

/// Writes a file that is at its beginning, and that nobody else writes meanwhile.
#[derive(Debug)]
pub struct FileWriter {
    filling: Block,
    /// Blocks that were handed to the thread, and did not come back.
    under_way: usize,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Nothing was handed over yet.
    Idle(Target),
    Writing(Queue),
    /// An error was told.
    Failed,
}

/// The way to the thread that writes, and back. Dropped, it goes no further than the block that it is at.
#[derive(Debug)]
struct Queue {
    full: mpsc::Sender<Block>,
    written: mpsc::Receiver<Block>,
    thread: JoinHandle<io::Result<()>>,
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
        Self { filling: Block::default(), under_way: 0, state: State::Idle(Target { file, direct }) }
    }

    /// Hands over what was filled, once there is another block to be filled.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let State::Idle(_) = &self.state
            && let State::Idle(target) = std::mem::replace(&mut self.state, State::Failed)
        {
            self.state = State::Writing(Queue::start(target));
        }
        // One that has come back is warm still.
        let next = match self.poll_written(cx) {
            Poll::Ready(block) => block?,
            Poll::Pending if self.under_way + 1 < BLOCKS => Block::default(),
            Poll::Pending => return Poll::Pending,
        };
        let full = std::mem::replace(&mut self.filling, next);
        if let State::Writing(queue) = &self.state
            && queue.full.try_send(full).is_ok()
        {
            self.under_way += 1;
            return Poll::Ready(Ok(()));
        }
        // There is room for all: who does not take it has ended, and says why.
        loop {
            ready!(self.poll_written(cx))?;
        }
    }

    /// A block that is written.
    fn poll_written(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Block>> {
        let State::Writing(queue) = &mut self.state else {
            return Poll::Ready(Err(io::Error::other("an earlier part could not be written")));
        };
        if let Some(block) = ready!(queue.written.poll_recv(cx)) {
            self.under_way -= 1;
            return Poll::Ready(Ok(block));
        }
        let ended = ready!(Pin::new(&mut queue.thread).poll(cx));
        self.state = State::Failed;
        Poll::Ready(match ended.map_err(io::Error::other).flatten() {
            Ok(()) => Err(io::Error::other("its writing was broken off")),
            Err(error) => Err(error),
        })
    }
}

impl Queue {
    fn start(mut target: Target) -> Self {
        let (full, mut blocks) = mpsc::channel::<Block>(BLOCKS);
        let (back, written) = mpsc::channel(BLOCKS);
        let thread = tokio::task::spawn_blocking(move || {
            while let Some(block) = blocks.blocking_recv() {
                // Nobody waits for what was not flushed.
                if blocks.is_closed() {
                    break;
                }
                target.write(block.bytes())?;
                if back.blocking_send(Block { length: 0, ..block }).is_err() {
                    break;
                }
            }
            Ok(())
        });
        Self { full, written, thread }
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
        while this.under_way > 0 {
            ready!(this.poll_written(cx))?;
        }
        match this.state {
            State::Failed => Poll::Ready(Err(io::Error::other("an earlier part could not be written"))),
            State::Idle(_) | State::Writing(_) => Poll::Ready(Ok(())),
        }
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

    #[tokio::test]
    async fn a_failure_is_told_however_many_blocks_are_under_way() {
        for blocks in [2, BLOCKS, 4 * BLOCKS] {
            let mut writer = FileWriter::new(File::options().write(true).open("/dev/full").unwrap());
            let mut wrote = writer.write_all(&vec![1; blocks * BLOCK]).await;
            if wrote.is_ok() {
                wrote = writer.shutdown().await;
            }
            assert_eq!(wrote.unwrap_err().kind(), io::ErrorKind::StorageFull, "{blocks}");
            assert!(writer.shutdown().await.is_err(), "{blocks}");
        }
    }
}
