//! Extract: single entries out of a bundle, reading no more of it than they need.

mod error;
mod losses;
pub mod options;
mod outcome;
mod salvage;
mod sink;
mod whole;

use std::collections::HashMap;
use std::sync::Arc;

use pacharc_format::{
    self as format, BundleReader, BundleStream, CatalogLine, Entry, Found, Piece, RangeReader, ReadOptions,
    SalvageReader, State, Unlock,
};

pub use error::Error;
pub use options::{Destination, Options};
pub use outcome::{Damage, Lost, Outcome};

use crate::budget::Budget;
use crate::bundle::{self, Input, Selection};
use crate::interrupt::Interrupt;
use crate::monitor::{Counter, Monitor, Phase};
use crate::signature::TrustedKeys;
use losses::{Cause, Losses};
use sink::{Sink, folder_id};
use whole::Whole;

/// Extracts the entries that `options` name; with `keep_going`, all of them that are undamaged. Every byte is checked before it is written; an object in pieces gets its
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
    let input = Input::open(&options.bundle, options.ca_file.as_deref(), Arc::clone(&monitor)).await?;
    let mut extraction = Extraction {
        selection: Selection::new(&options.paths),
        found: vec![false; options.paths.len()],
        sink: Sink::new(options.destination.clone()),
        losses: Losses::new(monitor.as_ref()),
        keep_going: options.keep_going,
        monitor: monitor.as_ref(),
    };
    let work = async {
        if options.keep_going {
            if !input.is_seekable() {
                return Err(bundle::Error::NotSeekable.into());
            }
            return extraction.keep_going(&input, unlock, &options.trusted).await;
        }
        // A signature comes last, when all would have been written.
        if input.is_seekable() || !options.trusted.is_empty() {
            let ranges = input.ranges().await?;
            let reader = BundleReader::open(ranges, unlock).await?;
            options.trusted.check_reader::<_, Error>(&reader).await?;
            extraction.by_ranges(&reader).await
        } else {
            extraction.by_stream(&input, unlock, options).await
        }
    };
    interrupt.guard(work).await?;
    for (path, _) in options.paths.iter().zip(&extraction.found).filter(|(_, found)| !**found) {
        // A catalog that can be read knows every path.
        if !extraction.losses.is_damaged() {
            return Err(Error::NoSuchEntry(path.clone()));
        }
        extraction.losses.lose(path, Cause::Damage, "it is not in what can be read");
    }
    extraction.sink.flush()?;
    Ok(extraction.losses.outcome(extraction.sink.entries, extraction.sink.bytes))
}

struct Extraction<'a> {
    selection: Selection,
    /// Which of the paths were there.
    found: Vec<bool>,
    sink: Sink,
    losses: Losses<'a>,
    keep_going: bool,
    monitor: &'a dyn Monitor,
}

impl Extraction<'_> {
    /// Extracts what is undamaged: found by the catalog where that can be read, else by reading the whole file. Nothing of that
    /// is bound to a signature, so whoever demands one gets nothing there.
    async fn keep_going(&mut self, input: &Input, unlock: &Unlock, trusted: &TrustedKeys) -> Result<(), Error> {
        let reason = match BundleReader::open(input.ranges().await?, unlock).await {
            Ok(reader) => {
                trusted.check_reader::<_, Error>(&reader).await.map_err(unprovable)?;
                self.losses.manifest = Some(reader.manifest().clone());
                match self.catalog_is_whole(&reader).await {
                    Ok(()) => return self.by_ranges(&reader).await,
                    Err(error) => error,
                }
            }
            // A damaged slot may look like one of somebody else's.
            Err(format::Error::WrongIdentity | format::Error::WrongPassphrase) => format::Error::KeyDamaged,
            Err(error) => error,
        };
        if !is_damage(&reason) {
            return Err(reason.into());
        }
        if !trusted.is_empty() {
            return Err(unprovable(reason.into()));
        }
        let reader = SalvageReader::open(input.ranges().await?, unlock).await?;
        self.losses.damage(&reason);
        self.salvage(reader).await
    }

    /// Reads the catalog of all that is selected.
    async fn catalog_is_whole<S: RangeReader>(&self, reader: &BundleReader<S>) -> Result<(), format::Error> {
        let mut has_pieces = false;
        for from in self.selection.ranges() {
            let mut catalog = reader.catalog(from);
            while let Some(lines) = catalog.next().await? {
                has_pieces |= lines.iter().any(|line| line.entry.pieces.is_some());
                if lines.last().is_some_and(|line| !line.entry.path.starts_with(from)) {
                    break;
                }
            }
        }
        if has_pieces {
            let mut catalog = reader.catalog("pieces/");
            while catalog.next().await?.is_some() {}
        }
        Ok(())
    }

    async fn by_ranges<S: RangeReader>(&mut self, reader: &BundleReader<S>) -> Result<(), Error> {
        let selection = self.selection.clone();
        for from in selection.ranges() {
            // One entry is found at once; only folders are walked.
            if let Some(line) = reader.find(from).await? {
                self.line_or_loss(reader, &line).await?;
                continue;
            }
            let mut catalog = reader.catalog(from);
            'range: while let Some(lines) = catalog.next().await? {
                for line in lines {
                    if !line.entry.path.starts_with(from) {
                        break 'range;
                    }
                    if selection.takes(&line.entry.path) {
                        self.line_or_loss(reader, &line).await?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Extracts an entry; where that is asked for, one that is damaged is named and left out.
    async fn line_or_loss<S: RangeReader>(
        &mut self,
        reader: &BundleReader<S>,
        line: &CatalogLine,
    ) -> Result<(), Error> {
        let path = line.entry.path.as_str();
        let (cause, problem) = match self.line(reader, line).await {
            Err(Error::Missing(_)) if self.keep_going => (Cause::Source, "its source did not have it".to_owned()),
            Err(Error::Format(error)) if self.keep_going && is_damage(&error) => (Cause::Damage, error.to_string()),
            done => return done,
        };
        self.sink.discard(path);
        self.losses.lose(path, cause, &problem);
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
            self.append(path, path, &body)?;
            return self.sink.finish(path, path);
        };
        let mut whole = Whole::new(path);
        for number in 0..pieces.count {
            let piece = format!("pieces/{}/{number:08}", pieces.folder);
            let Some(line) = reader.find(&piece).await? else {
                let what = format!("the catalog lacks its slice {piece}");
                return Err(format::Error::Damaged { entry: path.to_owned(), offset: 0, what }.into());
            };
            let body = reader.read(&line.entry).await?;
            whole.update(&body);
            self.append(path, path, &body)?;
        }
        whole.check(path, line.entry.hash)?;
        self.sink.finish(path, path)
    }

    async fn by_stream(&mut self, input: &Input, unlock: &Unlock, options: &Options) -> Result<(), Error> {
        let limits = &options.limits;
        let memory = Budget::new(limits.max_memory).read_alone;
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
            self.alone(&entry.path, open)?;
            self.seen(&entry.path);
            self.append(&entry.path, &entry.path, &entry.body)?;
            self.sink.finish(&entry.path, &entry.path)?;
        }
        match Piece::parse(&entry.path, &entry.body) {
            Some(Piece::Path { folder, path, .. }) if self.selection.takes(&path) => {
                self.alone(&path, open)?;
                open.insert(folder, path);
            }
            Some(Piece::Slice { folder, .. }) => {
                if let Some(path) = open.get(&folder).cloned() {
                    self.append(&folder_id(folder), &path, &entry.body)?;
                }
            }
            Some(Piece::Joined { folder, .. }) => {
                if let Some(path) = open.remove(&folder) {
                    self.seen(&path);
                    self.sink.finish(&folder_id(folder), &path)?;
                }
            }
            // Its source took it back half-way. What took its place may come before this, since segments are filled side by side.
            Some(Piece::Abandoned { folder }) => {
                if let Some(path) = open.remove(&folder)
                    && !self.sink.discard(&folder_id(folder))
                {
                    return Err(Error::Abandoned(path));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Makes sure that on standard output the entry at `path` does not come into the middle of another one.
    fn alone(&self, path: &str, open: &mut HashMap<u64, String>) -> Result<(), Error> {
        match open.values().next() {
            Some(_) if self.sink.takes_many() => Ok(()),
            Some(other) if other != path => Err(Error::Mingled([other.clone(), path.to_owned()])),
            Some(_) if self.sink.is_begun() => Err(Error::Abandoned(path.to_owned())),
            Some(_) => {
                open.clear();
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn append(&mut self, id: &str, path: &str, body: &[u8]) -> Result<(), Error> {
        self.monitor.add(Counter::BundleBytes, body.len() as u64);
        self.sink.append(id, path, body)
    }

    fn seen(&mut self, path: &str) {
        for which in self.selection.which(path) {
            if let Some(found) = self.found.get_mut(which) {
                *found = true;
            }
        }
    }
}

/// Of what is damaged nobody can tell who signed it.
fn unprovable(error: Error) -> Error {
    match error {
        Error::Format(error) if is_damage(&error) => Error::Unprovable(error),
        error => error,
    }
}

/// Whether what was read is wrong, or cannot be read where it lies: a bad sector is damage.
fn is_damage(error: &format::Error) -> bool {
    const EIO: i32 = 5;
    error.is_damage() || matches!(error, format::Error::Read(error) if error.raw_os_error() == Some(EIO))
}
