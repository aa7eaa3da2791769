//! Sorting more than fits into memory: sorted runs spill to temporary files, encrypted with a key that is thrown away.
//!
//! What is spilled are keys and places of a user's objects: secrets, like the index (SPEC §8).

use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use age::x25519;

use crate::error::{Error, Result};

/// So many runs of a level are merged into one of the next. A record is rewritten once a level, and few runs are open at a time:
/// with 8 MiB in memory, half a terabyte makes four levels and at most 60.
const FAN_IN: usize = 16;
/// zstd's window for runs, as a power of two: small, since each open run has one.
const WINDOW: u32 = 16;

/// Takes records in any order and gives them back sorted by key, as often as asked. Equal keys keep their order.
pub struct Spool {
    dir: PathBuf,
    key: x25519::Identity,
    memory: usize,
    bytes: Vec<u8>,
    records: Vec<Slot>,
    /// By levels: the runs of each are older than all of the level before it.
    levels: Vec<Vec<Run>>,
}

/// A record in `bytes`: where its key begins, where its value begins, where it ends.
#[derive(Clone, Copy)]
struct Slot {
    key: usize,
    value: usize,
    end: usize,
}

#[derive(Clone)]
struct Run(Arc<File>);

impl Spool {
    /// A spool that holds about `memory` bytes in memory, and the rest in unnamed files in `dir`.
    #[must_use]
    pub fn new(dir: &Path, memory: usize) -> Self {
        Self {
            dir: dir.to_owned(),
            key: x25519::Identity::generate(),
            memory,
            bytes: Vec::new(),
            records: Vec::new(),
            levels: Vec::new(),
        }
    }

    /// Adds a record. May write a run: for blocking threads where the data are large.
    ///
    /// # Errors
    /// [`Error::Spool`] where the run cannot be written.
    pub fn push(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let size = key.len() + value.len() + std::mem::size_of::<Slot>();
        if !self.records.is_empty()
            && self.bytes.len() + self.records.len() * std::mem::size_of::<Slot>() + size > self.memory
        {
            self.spill()?;
        }
        let begin = self.bytes.len();
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value);
        self.records.push(Slot { key: begin, value: begin + key.len(), end: self.bytes.len() });
        Ok(())
    }

    /// All records so far, sorted by key. More can be pushed meanwhile; they are not seen.
    ///
    /// # Errors
    /// [`Error::Spool`] where a run cannot be written or read.
    pub fn sorted(&mut self) -> Result<Sorted> {
        self.sort();
        let memory =
            self.records.iter().map(|&slot| self.record(slot)).map(|(k, v)| (k.to_vec(), v.to_vec())).collect();
        let oldest_first = self.levels.iter().rev().flatten().cloned();
        self.merge(oldest_first.collect(), memory)
    }

    fn record(&self, slot: Slot) -> (&[u8], &[u8]) {
        let range = |from, to| self.bytes.get(from..to).unwrap_or_default();
        (range(slot.key, slot.value), range(slot.value, slot.end))
    }

    fn sort(&mut self) {
        let bytes = &self.bytes;
        self.records.sort_by(|a, b| {
            let key = |slot: &Slot| bytes.get(slot.key..slot.value).unwrap_or_default();
            key(a).cmp(key(b))
        });
    }

    fn spill(&mut self) -> Result<()> {
        self.sort();
        let mut run = self.create()?;
        for &slot in &self.records {
            let (key, value) = self.record(slot);
            run.push(key, value).map_err(|e| self.failed(e))?;
        }
        let run = run.finish().map_err(|e| self.failed(e))?;
        self.bytes.clear();
        self.records.clear();
        self.add(run)
    }

    /// Adds a run, and merges levels that are full.
    fn add(&mut self, mut run: Run) -> Result<()> {
        for level in 0.. {
            if level == self.levels.len() {
                self.levels.push(Vec::new());
            }
            let Some(runs) = self.levels.get_mut(level) else { break };
            runs.push(run);
            if runs.len() < FAN_IN {
                break;
            }
            let full = std::mem::take(runs);
            let mut merged = self.create()?;
            for record in self.merge(full, Vec::new())? {
                let (key, value) = record?;
                merged.push(&key, &value).map_err(|e| self.failed(e))?;
            }
            run = merged.finish().map_err(|e| self.failed(e))?;
        }
        Ok(())
    }

    fn create(&self) -> Result<RunWriter> {
        RunWriter::create(&self.dir, &self.key).map_err(|e| self.failed(e))
    }

    fn merge(&self, runs: Vec<Run>, memory: Vec<(Vec<u8>, Vec<u8>)>) -> Result<Sorted> {
        let mut sources = Vec::with_capacity(runs.len() + 1);
        for run in runs {
            let reader = RunReader::open(&run, &self.key).map_err(|e| self.failed(e))?;
            sources.push(Source::Run(Box::new(reader)));
        }
        sources.push(Source::Memory(memory.into_iter()));
        let mut sorted = Sorted { sources, heads: BinaryHeap::new(), dir: self.dir.clone() };
        for source in 0..sorted.sources.len() {
            sorted.advance(source)?;
        }
        Ok(sorted)
    }

    fn failed(&self, source: io::Error) -> Error {
        Error::Spool { dir: self.dir.display().to_string(), source }
    }
}

/// A record: key and value.
pub type Record = (Vec<u8>, Vec<u8>);

/// Records in the order of their keys.
pub struct Sorted {
    sources: Vec<Source>,
    heads: BinaryHeap<Head>,
    dir: PathBuf,
}

enum Source {
    Run(Box<RunReader>),
    Memory(std::vec::IntoIter<Record>),
}

/// The next record of a source; the smallest key is the greatest head, since the heap gives the greatest first.
#[derive(PartialEq, Eq)]
struct Head {
    record: Record,
    source: usize,
}

impl Ord for Head {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (&other.record.0, other.source).cmp(&(&self.record.0, self.source))
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Sorted {
    fn advance(&mut self, source: usize) -> Result<()> {
        let record = match self.sources.get_mut(source) {
            Some(Source::Run(run)) => {
                run.next().map_err(|source| Error::Spool { dir: self.dir.display().to_string(), source })?
            }
            Some(Source::Memory(records)) => records.next(),
            None => None,
        };
        self.heads.extend(record.map(|record| Head { record, source }));
        Ok(())
    }
}

impl Iterator for Sorted {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        let Head { record, source } = self.heads.pop()?;
        Some(self.advance(source).map(|()| record))
    }
}

/// Writes one run: each record as two lengths (4 bytes, little-endian), key, value.
struct RunWriter {
    output: zstd::Encoder<'static, age::stream::StreamWriter<BufWriter<File>>>,
}

impl RunWriter {
    fn create(dir: &Path, key: &x25519::Identity) -> io::Result<Self> {
        let file = BufWriter::with_capacity(1 << 16, tempfile::tempfile_in(dir)?);
        let recipient = key.to_public();
        let encryptor = age::Encryptor::with_recipients(std::iter::once(&recipient as &dyn age::Recipient))
            .map_err(io::Error::other)?;
        let mut output = zstd::Encoder::new(encryptor.wrap_output(file)?, 1)?;
        output.window_log(WINDOW)?;
        Ok(Self { output })
    }

    fn push(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        for part in [key, value] {
            let length = u32::try_from(part.len()).map_err(io::Error::other)?;
            self.output.write_all(&length.to_le_bytes())?;
        }
        self.output.write_all(key)?;
        self.output.write_all(value)
    }

    fn finish(self) -> io::Result<Run> {
        let file = self.output.finish()?.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?;
        Ok(Run(Arc::new(file)))
    }
}

struct RunReader {
    input: zstd::Decoder<'static, BufReader<age::stream::StreamReader<BufReader<Cursor>>>>,
}

/// Reads a shared file at a place of its own.
struct Cursor {
    file: Arc<File>,
    at: u64,
}

impl Read for Cursor {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl RunReader {
    fn open(run: &Run, key: &x25519::Identity) -> io::Result<Self> {
        let file = BufReader::with_capacity(1 << 16, Cursor { file: Arc::clone(&run.0), at: 0 });
        let opened = age::Decryptor::new_buffered(file)
            .and_then(|decryptor| decryptor.decrypt(std::iter::once(key as &dyn age::Identity)))
            .map_err(io::Error::other)?;
        Ok(Self { input: zstd::Decoder::new(opened)? })
    }

    fn next(&mut self) -> io::Result<Option<Record>> {
        let mut lengths = [0; 8];
        if self.input.read(&mut lengths[..1])? == 0 {
            return Ok(None);
        }
        self.input.read_exact(&mut lengths[1..])?;
        let (key, value) = lengths.split_at(4);
        let mut part = |length: &[u8]| {
            let length = length.iter().rev().fold(0, |n, &b| n << 8 | usize::from(b));
            let mut bytes = vec![0; length];
            self.input.read_exact(&mut bytes).map(|()| bytes)
        };
        Ok(Some((part(key)?, part(value)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_runs_come_back_sorted_and_twice() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::new(dir.path(), 400);
        let mut expected = Vec::new();
        for n in 0..2_000_u32 {
            let key = blake3::hash(&(n % 1_500).to_le_bytes()).to_hex().to_string();
            spool.push(key.as_bytes(), &n.to_le_bytes()).unwrap();
            expected.push((key.into_bytes(), n.to_le_bytes().to_vec()));
        }
        expected.sort_by(|a, b| a.0.cmp(&b.0));
        for _ in 0..2 {
            let sorted: Vec<_> = spool.sorted().unwrap().map(Result::unwrap).collect();
            assert!(sorted == expected);
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "runs have no names");
    }

    #[test]
    fn records_of_any_length_come_back_from_a_run() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::new(dir.path(), 1);
        let lengths = [0, 1, 255, 256, 257, 65_535, 65_536, 70_000];
        for (n, &length) in lengths.iter().enumerate() {
            spool.push(&vec![u8::try_from(n).unwrap(); length + 1], &vec![7; lengths[lengths.len() - 1 - n]]).unwrap();
        }
        let back: Vec<_> = spool.sorted().unwrap().map(|r| r.unwrap()).map(|(k, v)| (k.len(), v.len())).collect();
        let expected: Vec<_> =
            lengths.iter().zip(lengths.iter().rev()).map(|(&key, &value)| (key + 1, value)).collect();
        assert_eq!(back, expected);
    }

    #[test]
    fn memory_is_what_was_given() {
        let dir = tempfile::tempdir().unwrap();
        let record = 10 + 6 + std::mem::size_of::<Slot>();
        let mut spool = Spool::new(dir.path(), 5 * record);
        for n in 1..=12_u8 {
            spool.push(&[n; 10], &[n; 6]).unwrap();
            // Five fit, to the byte; the sixth makes a run of them.
            assert_eq!(spool.records.len(), usize::from((n - 1) % 5 + 1), "after {n}");
        }
        assert_eq!(spool.levels.iter().map(Vec::len).sum::<usize>(), 2);
    }

    #[test]
    fn nothing_spilled_needs_no_file() {
        let mut spool = Spool::new(Path::new("/nonexistent"), 1 << 20);
        spool.push(b"b", b"1").unwrap();
        spool.push(b"a", b"2").unwrap();
        let keys: Vec<_> = spool.sorted().unwrap().map(|r| r.unwrap().0).collect();
        assert_eq!(keys, [b"a", b"b"]);
        for n in 0..20_000_u32 {
            if let Err(error) = spool.push(&[0; 100], &n.to_le_bytes()) {
                assert!(matches!(error, Error::Spool { .. }));
                return;
            }
        }
        panic!("a run was written to a folder that does not exist");
    }
}
