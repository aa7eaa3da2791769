//! Extraction from a bundle whose end or whose catalog cannot be read: the whole file is walked, and every segment that
//! opens is taken.

use std::collections::{BTreeMap, HashSet};

use pacharc_format::{CatalogLine, Entry, Hash, IndexLine, Key, Piece, RangeReader, SalvageReader, Salvaged, State};

use super::losses::Cause;
use super::whole::Whole;
use super::{Error, Extraction};

/// Objects in pieces that may be open at a time, each with a file: as many as a writer has.
const OPEN: usize = 1024;

/// What is known of the selected objects in pieces, by the numbers of their folders.
#[derive(Default)]
struct Objects {
    open: BTreeMap<u64, Object>,
    finished: HashSet<u64>,
}

/// An object in pieces that has begun.
struct Object {
    path: String,
    /// `None` once a piece is lacking.
    whole: Option<Whole>,
    /// The number of the next slice.
    next: u64,
}

impl Extraction<'_> {
    pub(super) async fn salvage<S: RangeReader>(&mut self, mut reader: SalvageReader<S>) -> Result<(), Error> {
        let mut objects = Objects::default();
        while let Some(salvaged) = reader.next().await? {
            match salvaged {
                Salvaged::Entries(entries) => {
                    for (entry, _) in entries {
                        self.salvaged(&entry, &mut objects)?;
                    }
                }
                Salvaged::Lost(lines) => {
                    for line in &lines {
                        self.lost(line, &mut objects)?;
                    }
                }
                Salvaged::Catalog(lines) => lines.iter().for_each(|line| self.told(line, &objects)),
                Salvaged::Manifest(manifest) => self.losses.manifest = Some(*manifest),
                Salvaged::Damage(error) => self.losses.damage(&error),
            }
        }
        for object in std::mem::take(&mut objects.open).into_values() {
            self.give_up(&object.path, "the end of its pieces cannot be read");
        }
        Ok(())
    }

    /// Takes an entry whose bytes are checked. Pieces are checked here: nobody else has seen all of them.
    fn salvaged(&mut self, entry: &Entry, objects: &mut Objects) -> Result<(), Error> {
        if self.selection.takes(&entry.path) {
            self.seen(&entry.path);
            self.append(&entry.path, &entry.body)?;
            self.sink.finish(&entry.path)?;
        }
        match Piece::parse(&entry.path, &entry.body) {
            // It becomes the name of a file: nothing but an object's path is taken.
            Some(Piece::Path { folder, path, .. })
                if self.selection.takes(&path) && Key::from_path(&path).is_some() =>
            {
                self.seen(&path);
                if objects.open.len() >= OPEN
                    && let Some((_, oldest)) = objects.open.pop_first()
                {
                    self.give_up(&oldest.path, "the end of its pieces did not come in time");
                }
                let whole = Some(Whole::new(&path));
                objects.open.insert(folder, Object { path, whole, next: 0 });
            }
            Some(Piece::Slice { folder, number }) => {
                let Some(object) = objects.open.get_mut(&folder) else { return Ok(()) };
                if object.next != number {
                    object.whole = None;
                    self.sink.discard(&object.path);
                }
                object.next += 1;
                if let Some(whole) = &mut object.whole {
                    whole.update(&entry.body);
                    let path = object.path.clone();
                    self.append(&path, &entry.body)?;
                }
            }
            Some(Piece::Abandoned { folder }) => {
                if let Some(object) = objects.open.remove(&folder) {
                    self.sink.discard(&object.path);
                }
            }
            Some(Piece::Joined { folder, path, hash, count, .. }) if self.selection.takes(&path) => {
                self.seen(&path);
                let joined = match objects.open.remove(&folder) {
                    Some(object) => self.joins(object, &path, hash, count)?,
                    None => false,
                };
                if joined {
                    objects.finished.insert(folder);
                } else {
                    self.give_up(&path, "one of its pieces cannot be read");
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether the pieces that came make the object at `path`; then it gets its name.
    fn joins(&mut self, object: Object, path: &str, hash: Hash, count: u64) -> Result<bool, Error> {
        let Some(whole) = object.whole.filter(|_| object.next == count && object.path == path) else {
            self.sink.discard(&object.path);
            return Ok(false);
        };
        if whole.check(path, Some(hash)).is_err() {
            self.sink.discard(path);
            return Ok(false);
        }
        self.sink.finish(path)?;
        Ok(true)
    }

    /// Names an entry of a segment that cannot be read.
    fn lost(&mut self, line: &IndexLine, objects: &mut Objects) -> Result<(), Error> {
        if !self.selection.takes(&line.path) {
            return Ok(());
        }
        self.seen(&line.path);
        match (line.pieces, line.place) {
            // Where only the end of the pieces is lost, this line says all that it said.
            (Some(pieces), _) => {
                let joined = match (objects.open.remove(&pieces.folder), line.hash) {
                    (Some(object), Some(hash)) => self.joins(object, &line.path, hash, pieces.count)?,
                    _ => false,
                };
                if joined {
                    objects.finished.insert(pieces.folder);
                } else {
                    self.give_up(&line.path, "one of its pieces cannot be read");
                }
            }
            (None, Some(place)) => {
                let problem =
                    format!("it lies in segment {}, at byte {}, which cannot be read", place.segment, place.offset);
                self.losses.lose(&line.path, Cause::Damage, &problem);
            }
            (None, None) => {}
        }
        Ok(())
    }

    /// Takes a line of the catalog, which comes after all segments: what it names and nobody has seen is lost.
    fn told(&mut self, line: &CatalogLine, objects: &Objects) {
        let path = &line.entry.path;
        if !self.selection.takes(path) {
            return;
        }
        self.seen(path);
        if line.state == State::Missing {
            self.losses.lose(path, Cause::Source, "its source did not have it");
        }
        if line.entry.pieces.is_some_and(|pieces| !objects.finished.contains(&pieces.folder)) {
            self.give_up(path, "one of its pieces cannot be read");
        }
    }

    fn give_up(&mut self, path: &str, problem: &str) {
        self.sink.discard(path);
        self.losses.lose(path, Cause::Damage, problem);
    }
}
