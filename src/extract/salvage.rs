//! Extraction from a bundle whose end or whose catalog cannot be read: the whole file is walked, and every segment that
//! opens is taken.

use std::collections::{BTreeMap, HashSet};

use pacharc_format::{CatalogLine, Entry, Hash, IndexLine, Key, Piece, RangeReader, SalvageReader, Salvaged, State};

use super::losses::Cause;
use super::sink::folder_id;
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
        for (folder, object) in std::mem::take(&mut objects.open) {
            self.give_up(folder, &object.path, "the end of its pieces cannot be read");
        }
        Ok(())
    }

    /// Takes an entry whose bytes are checked. Pieces are checked here: nobody else has seen all of them.
    fn salvaged(&mut self, entry: &Entry, objects: &mut Objects) -> Result<(), Error> {
        if self.selection.takes(&entry.path) {
            self.seen(&entry.path);
            self.append(&entry.path, &entry.path, &entry.body)?;
            self.sink.finish(&entry.path, &entry.path)?;
        }
        match Piece::parse(&entry.path, &entry.body) {
            // It becomes the name of a file: nothing but an object's path is taken.
            Some(Piece::Path { folder, path, .. })
                if self.selection.takes(&path) && Key::from_path(&path).is_some() =>
            {
                self.seen(&path);
                if objects.open.len() >= OPEN
                    && let Some((oldest, object)) = objects.open.pop_first()
                {
                    self.give_up(oldest, &object.path, "the end of its pieces did not come in time");
                }
                let whole = Some(Whole::new(&path));
                objects.open.insert(folder, Object { path, whole, next: 0 });
            }
            Some(Piece::Slice { folder, number }) => {
                let Some(object) = objects.open.get_mut(&folder) else { return Ok(()) };
                if object.next != number {
                    object.whole = None;
                    self.sink.discard(&folder_id(folder));
                }
                object.next += 1;
                if let Some(whole) = &mut object.whole {
                    whole.update(&entry.body);
                    let path = object.path.clone();
                    self.append(&folder_id(folder), &path, &entry.body)?;
                }
            }
            Some(Piece::Abandoned { folder }) => {
                objects.open.remove(&folder);
                self.sink.discard(&folder_id(folder));
            }
            Some(Piece::Joined { folder, path, hash, count, .. }) if self.selection.takes(&path) => {
                self.seen(&path);
                let joined = match objects.open.remove(&folder) {
                    Some(object) => self.joins(folder, object, &path, hash, count)?,
                    None => false,
                };
                if joined {
                    objects.finished.insert(folder);
                } else {
                    self.give_up(folder, &path, "one of its pieces cannot be read");
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether the pieces that came make the object at `path`; then it gets its name.
    fn joins(&mut self, folder: u64, object: Object, path: &str, hash: Hash, count: u64) -> Result<bool, Error> {
        let whole = object.whole.filter(|_| object.next == count && object.path == path);
        if whole.is_none_or(|whole| whole.check(path, Some(hash)).is_err()) {
            self.sink.discard(&folder_id(folder));
            return Ok(false);
        }
        self.sink.finish(&folder_id(folder), path)?;
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
                    (Some(object), Some(hash)) => self.joins(pieces.folder, object, &line.path, hash, pieces.count)?,
                    _ => false,
                };
                if joined {
                    objects.finished.insert(pieces.folder);
                } else {
                    self.give_up(pieces.folder, &line.path, "one of its pieces cannot be read");
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
        if let Some(pieces) = line.entry.pieces.filter(|pieces| !objects.finished.contains(&pieces.folder)) {
            self.give_up(pieces.folder, path, "one of its pieces cannot be read");
        }
    }

    fn give_up(&mut self, folder: u64, path: &str, problem: &str) {
        self.sink.discard(&folder_id(folder));
        self.losses.lose(path, Cause::Damage, problem);
    }
}
