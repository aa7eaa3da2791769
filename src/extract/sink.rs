//! Where extracted bytes go: files below one folder, or standard output.
//!
//! Files are flushed to the disk all at once at the end, and not one by one: small ones would take longer for it than for all else.
//! What the system could not write is told then, also of files that are closed.

use std::collections::HashMap;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::Path;

use rustix::io::Errno;
use tempfile::NamedTempFile;

use super::{Destination, Error};

/// Takes the bytes of entries. A file has its name only when it is whole.
pub(super) struct Sink {
    destination: Destination,
    open: HashMap<String, NamedTempFile>,
    /// The folder, once there is something in it: errors of writing are told through what was open meanwhile.
    root: Option<File>,
    /// Whether standard output has the beginning of an entry.
    is_begun: bool,
    /// Entries that were written to their end.
    pub(super) entries: u64,
    /// Their bytes.
    pub(super) bytes: u64,
}

impl Sink {
    pub(super) fn new(destination: Destination) -> Self {
        Self { destination, open: HashMap::new(), root: None, is_begun: false, entries: 0, bytes: 0 }
    }

    /// Appends to the entry at `path`, whose components the format's reader has found to be safe. `id` tells apart who writes to
    /// it: the path itself, or [`folder_id`].
    pub(super) fn append(&mut self, id: &str, path: &str, bytes: &[u8]) -> Result<(), Error> {
        self.bytes += bytes.len() as u64;
        match &self.destination {
            Destination::Stdout => {
                let failed = |source| Error::Write { path: "-".into(), source };
                self.is_begun |= !bytes.is_empty();
                std::io::stdout().lock().write_all(bytes).map_err(failed)
            }
            Destination::Folder(folder) => {
                let target = folder.join(path);
                let failed = |source| Error::Write { path: target.clone(), source };
                if !self.open.contains_key(id) {
                    // Pieces that do not count may come behind the object that took their place.
                    if id == path && target.symlink_metadata().is_ok() {
                        return Err(Error::Exists(target));
                    }
                    let file = create(folder, path)?;
                    if self.root.is_none() {
                        self.root = Some(File::open(folder).map_err(failed)?);
                    }
                    self.open.insert(id.to_owned(), file);
                }
                match self.open.get_mut(id) {
                    Some(file) => file.write_all(bytes).map_err(failed),
                    None => Ok(()),
                }
            }
        }
    }

    /// Gives the entry its name: everything of it was appended and checked.
    pub(super) fn finish(&mut self, id: &str, path: &str) -> Result<(), Error> {
        // An entry of no bytes was perhaps never appended to.
        self.append(id, path, &[])?;
        self.entries += 1;
        self.is_begun = false;
        let (Destination::Folder(folder), Some(file)) = (&self.destination, self.open.remove(id)) else {
            return Ok(());
        };
        let target = folder.join(path);
        match file.persist_noclobber(&target) {
            Ok(_) => Ok(()),
            Err(error) if error.error.kind() == ErrorKind::AlreadyExists => Err(Error::Exists(target)),
            Err(error) => Err(Error::Write { path: target, source: error.error }),
        }
    }

    /// Whether entries may come mingled: standard output takes one after the other.
    pub(super) fn takes_many(&self) -> bool {
        matches!(self.destination, Destination::Folder(_))
    }

    /// Whether standard output has the beginning of an entry.
    pub(super) fn is_begun(&self) -> bool {
        self.is_begun && !self.takes_many()
    }

    /// Takes back what `id` has appended. Whether that can be: standard output gives nothing back.
    pub(super) fn discard(&mut self, id: &str) -> bool {
        if let Some(file) = self.open.remove(id) {
            let written = file.as_file().metadata().map_or(0, |metadata| metadata.len());
            self.bytes = self.bytes.saturating_sub(written);
        }
        !self.is_begun()
    }

    /// Flushes everything to where it goes.
    pub(super) fn flush(&mut self) -> Result<(), Error> {
        match (&self.destination, &self.root) {
            (Destination::Stdout, _) => {
                let failed = |source| Error::Write { path: "-".into(), source };
                std::io::stdout().lock().flush().map_err(failed)
            }
            (Destination::Folder(folder), Some(root)) => match rustix::fs::syncfs(root) {
                // Not every system can.
                Ok(()) | Err(Errno::NOSYS | Errno::OPNOTSUPP) => Ok(()),
                Err(errno) => Err(Error::Write { path: folder.clone(), source: errno.into() }),
            },
            (Destination::Folder(_), None) => Ok(()),
        }
    }
}

/// Who writes an object in pieces: two folders may be for one object, of which one does not count.
pub(super) fn folder_id(folder: u64) -> String {
    format!("pieces/{folder}")
}

/// Makes the folders of `path` below `root`, and a file in the last of them that has no name yet. A link on the way would
/// lead out of `root`: it is refused.
fn create(root: &Path, path: &str) -> Result<NamedTempFile, Error> {
    let failed = |source| Error::Write { path: root.join(path), source };
    std::fs::create_dir_all(root).map_err(failed)?;
    let mut folder = root.to_owned();
    let (parents, _) = path.rsplit_once('/').unwrap_or_default();
    for component in parents.split('/').filter(|component| !component.is_empty()) {
        folder.push(component);
        match std::fs::create_dir(&folder) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                if !folder.symlink_metadata().map_err(failed)?.is_dir() {
                    return Err(Error::Exists(folder));
                }
            }
            made => made.map_err(failed)?,
        }
    }
    tempfile::Builder::new().prefix(".pacharc-").tempfile_in(folder).map_err(failed)
}
