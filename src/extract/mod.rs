//! Extract: single entries out of a bundle, reading no more of it than they need.

mod error;
pub mod options;
mod sink;

use std::collections::HashMap;
use std::sync::Arc;

use pacharc_format::{
    BundleReader, BundleStream, CatalogLine, Entry, Found, Hash, Piece, RangeReader, ReadOptions, State, Unlock,
};
use serde::Serialize;

pub use error::Error;
pub use options::{Destination, Options};

use crate::budget::Budget;
use crate::bundle::{Input, Selection};
use crate::failure::Class;
use crate::hasher::Hasher;
use crate::interrupt::Interrupt;
use crate::monitor::{Counter, Monitor, Phase};
use sink::Sink;

/// What an extraction was.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Outcome {
    /// Entries that were extracted.
    pub entries: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl crate::outcome::Outcome for Outcome {
    fn class(&self) -> Option<Class> {
        None
    }

    fn summary(&self) -> String {
        format!("extracted {} entries, {}", self.entries, indicatif::HumanBytes(self.bytes))
    }
}

/// Extracts the entries that `options` name. Every byte is checked before it is written; an object in pieces gets its
/// name only when the whole was checked.
///
/// # Errors
/// [`Error`]; what was extracted before one is right nevertheless.
pub async fn run(
    options: &Options,
    unlock: &Unlock,
    interrupt: &Interrupt,
    monitor: Arc<dyn Monitor>,
) -> Result<Outcome, Error> {
    monitor.phase(Phase::Read);
    let input = Input::open(&options.bundle, options.ca_file.as_deref()).await?;
    let mut extraction = Extraction {
        selection: Selection::new(&options.paths),
        found: vec![false; options.paths.len()],
        sink: Sink::new(options.destination.clone()),
        monitor: monitor.as_ref(),
    };
    let work = async {
        // A signature comes last, when all would have been written.
        if input.is_seekable() || !options.trusted.is_empty() {
            let ranges = input.ranges().await?;
            // A bundle of another format is known by its clear beginning.
            pacharc_format::inspect(&ranges).await?;
            let reader = BundleReader::open(ranges, unlock).await?;
            options.trusted.check_reader::<_, Error>(&reader).await?;
            extraction.by_ranges(reader).await
        } else {
            extraction.by_stream(&input, unlock, options).await
        }
    };
    interrupt.guard(work).await?;
    if let Some(at) = extraction.found.iter().position(|found| !found) {
        return Err(Error::NoSuchEntry(options.paths.get(at).cloned().unwrap_or_default()));
    }
    extraction.sink.flush()?;
    Ok(Outcome { entries: extraction.sink.entries, bytes: extraction.sink.bytes })
}

struct Extraction<'a> {
    selection: Selection,
    /// Which of the paths were there.
    found: Vec<bool>,
    sink: Sink,
    monitor: &'a dyn Monitor,
}

impl Extraction<'_> {
    async fn by_ranges<S: RangeReader>(&mut self, reader: BundleReader<S>) -> Result<(), Error> {
        let selection = self.selection.clone();
        for from in selection.ranges() {
            // One entry is found at once; only folders are walked.
            if let Some(line) = reader.find(from).await? {
                self.line(&reader, &line).await?;
                continue;
            }
            let mut catalog = reader.catalog(from);
            'range: while let Some(lines) = catalog.next().await? {
                for line in lines {
                    if !line.entry.path.starts_with(from) {
                        break 'range;
                    }
                    if selection.takes(&line.entry.path) {
                        self.line(&reader, &line).await?;
                    }
                }
            }
        }
        Ok(())
    }

    async fn line<S: RangeReader>(&mut self, reader: &BundleReader<S>, line: &CatalogLine) -> Result<(), Error> {
        let path = line.entry.path.as_str();
        self.seen(path);
        if line.state == State::Missing {
            return Err(Error::Missing(path.to_owned()));
        }
        let Some(pieces) = line.entry.pieces else {
            let body = reader.read(&line.entry).await?;
            self.append(path, &body)?;
            return self.sink.finish(path);
        };
        let mut whole = Hasher::like(line.entry.hash);
        for number in 0..pieces.count {
            let piece = format!("pieces/{}/{number:08}", pieces.folder);
            let Some(line) = reader.find(&piece).await? else { return Err(Error::NoSuchEntry(piece)) };
            let body = reader.read(&line.entry).await?;
            whole.update(&body);
            self.append(path, &body)?;
        }
        check_whole(whole, path, line.entry.hash)?;
        self.sink.finish(path)
    }

    async fn by_stream(&mut self, input: &Input, unlock: &Unlock, options: &Options) -> Result<(), Error> {
        let limits = &options.limits;
        let memory = Budget::new(limits.max_memory).read_ahead;
        let read = ReadOptions { jobs: limits.jobs, memory, temp_dir: &limits.temp_dir };
        let mut stream = BundleStream::open(input.stream().await?, read).await?;
        stream.unlock(unlock)?;
        let mut open = HashMap::new();
        while let Some(found) = stream.next().await? {
            match found {
                Found::Damage(error) => return Err(error.into()),
                Found::Entries(entries) => {
                    for (entry, _) in entries {
                        self.entry(&entry, &mut open)?;
                    }
                }
                Found::Catalog(lines) => {
                    let missing = |line: &&CatalogLine| line.state == State::Missing;
                    if let Some(line) = lines.iter().filter(missing).find(|l| self.selection.takes(&l.entry.path)) {
                        return Err(Error::Missing(line.entry.path.clone()));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Takes an entry in the order of the bundle. `open` knows the paths of objects in pieces that have begun; the
    /// reader has checked order and hash of the pieces.
    fn entry(&mut self, entry: &Entry, open: &mut HashMap<u64, String>) -> Result<(), Error> {
        if self.selection.takes(&entry.path) {
            self.seen(&entry.path);
            self.append(&entry.path, &entry.body)?;
            self.sink.finish(&entry.path)?;
        }
        match Piece::parse(&entry.path, &entry.body) {
            Some(Piece::Path { folder, path, .. }) if self.selection.takes(&path) => {
                self.seen(&path);
                open.insert(folder, path);
            }
            Some(Piece::Slice { folder, .. }) => {
                if let Some(path) = open.get(&folder).cloned() {
                    self.append(&path, &entry.body)?;
                }
            }
            Some(Piece::Joined { folder, .. }) => {
                if let Some(path) = open.remove(&folder) {
                    self.sink.finish(&path)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn append(&mut self, path: &str, body: &[u8]) -> Result<(), Error> {
        self.monitor.add(Counter::BundleBytes, body.len() as u64);
        self.sink.append(path, body)
    }

    fn seen(&mut self, path: &str) {
        for which in self.selection.which(path) {
            if let Some(found) = self.found.get_mut(which) {
                *found = true;
            }
        }
    }
}

/// Whether the pieces have made the object.
fn check_whole(whole: Hasher, path: &str, expected: Option<Hash>) -> Result<(), Error> {
    if Some(whole.finish()) == expected {
        return Ok(());
    }
    let what = "its pieces do not make the object that the catalog names".to_owned();
    Err(pacharc_format::Error::Damaged { entry: path.to_owned(), offset: 0, what }.into())
}
