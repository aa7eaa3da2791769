//! `BLAKE3SUMS`: one line an entry, as `b3sum --check` reads them. Its own BLAKE3 is the bundle's id.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Collects the lines in an unnamed temporary file: they grow with the bundle. They are public.
pub(crate) struct Sums {
    dir: PathBuf,
    file: BufWriter<File>,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl Sums {
    pub(crate) fn new(dir: &Path) -> Result<Self> {
        let file = tempfile::tempfile_in(dir);
        let file = file.map_err(|source| Error::Spool { dir: dir.display().to_string(), source })?;
        Ok(Self { dir: dir.to_owned(), file: BufWriter::new(file), hasher: blake3::Hasher::new(), bytes: 0 })
    }

    pub(crate) fn add(&mut self, name: &str, hash: &blake3::Hash) -> Result<()> {
        let line = line(name, hash);
        self.hasher.update(line.as_bytes());
        self.bytes += line.len() as u64;
        self.file.write_all(line.as_bytes()).map_err(|e| self.failed(e))
    }

    /// BLAKE3 of the lines so far.
    pub(crate) fn hash(&self) -> blake3::Hash {
        self.hasher.finalize()
    }

    /// Bytes of the lines so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The lines from the beginning on.
    pub(crate) fn reader(&mut self) -> Result<impl BufRead + use<>> {
        let rewound = self.file.seek(SeekFrom::Start(0)).and_then(|_| self.file.get_ref().try_clone());
        Ok(BufReader::with_capacity(1 << 16, rewound.map_err(|e| self.failed(e))?).take(self.bytes))
    }

    fn failed(&self, source: std::io::Error) -> Error {
        Error::Spool { dir: self.dir.display().to_string(), source }
    }
}

/// The line of one entry.
pub(crate) fn line(name: &str, hash: &blake3::Hash) -> String {
    format!("{}  {name}\n", hash.to_hex())
}
