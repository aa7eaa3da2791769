//! A directory tree that nothing leads out of: every path is walked component by component from an open root, and no
//! symbolic link is followed. What is written becomes durable before it is said to be.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, Stat};
use rustix::io::Errno;

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
// As gocloud does: 0666 and 0777, less the umask.
const FILE_MODE: Mode =
    Mode::RUSR.union(Mode::WUSR).union(Mode::RGRP).union(Mode::WGRP).union(Mode::ROTH).union(Mode::WOTH);
const FOLDER_MODE: Mode = Mode::RWXU.union(Mode::RWXG).union(Mode::RWXO);

/// An open root.
pub(super) struct Tree {
    root: OwnedFd,
}

impl Tree {
    /// Opens the directory at `path` (which may itself be reached through links).
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { root: rustix::fs::open(path, FOLDER.difference(OFlags::NOFOLLOW), Mode::empty())? })
    }

    /// The folder at `path`, the root for the empty path.
    pub(super) fn folder(&self, path: &[u8]) -> io::Result<OwnedFd> {
        let mut folder = self.root.try_clone()?;
        for component in path.split(|&b| b == b'/').filter(|c| !c.is_empty()) {
            folder = rustix::fs::openat(&folder, component, FOLDER, Mode::empty())?;
        }
        Ok(folder)
    }

    /// Opens the regular file at `path` for reading.
    pub(super) fn file(&self, path: &[u8]) -> io::Result<(File, Stat)> {
        let (folder, name) = self.parent(path)?;
        // NONBLOCK: a FIFO must not hold this thread up.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = File::from(rustix::fs::openat(&folder, name, flags, Mode::empty())?);
        let stat = rustix::fs::fstat(&file)?;
        if !is_file(&stat) {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok((file, stat))
    }

    /// The whole content of the small file at `path`; `None` if there is none.
    pub(super) fn small_file(&self, path: &[u8], limit: u64) -> io::Result<Option<Vec<u8>>> {
        let file = match self.file(path) {
            Ok((file, _)) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut content = Vec::new();
        file.take(limit).read_to_end(&mut content)?;
        Ok(Some(content))
    }

    /// What the file at `path` is.
    pub(super) fn stat(&self, path: &[u8]) -> io::Result<Stat> {
        let (folder, name) = self.parent(path)?;
        Ok(rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Removes the file at `path`; that there is none is no error.
    pub(super) fn remove(&self, path: &[u8]) -> io::Result<()> {
        let removed = self.parent(path).and_then(|(folder, name)| {
            rustix::fs::unlinkat(&folder, name, AtFlags::empty())?;
            Ok(rustix::fs::fsync(&folder)?)
        });
        match removed {
            // A folder of that name is no object.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::IsADirectory => Ok(()),
            result => result,
        }
    }

    /// Begins a file that will lie at `path`, making the folders on the way.
    pub(super) fn create(&self, path: &[u8]) -> io::Result<NewFile> {
        let (parents, name) = split(path);
        let mut folder = self.root.try_clone()?;
        for component in parents.split(|&b| b == b'/').filter(|c| !c.is_empty()) {
            folder = enter(folder.as_fd(), component)?;
        }
        let (temporary, file) = create_temporary(folder.as_fd())?;
        Ok(NewFile { folder, file, temporary: Some(temporary), name: name.to_vec() })
    }

    fn parent<'a>(&self, path: &'a [u8]) -> io::Result<(OwnedFd, &'a [u8])> {
        let (parents, name) = split(path);
        Ok((self.folder(parents)?, name))
    }
}

/// A file that is being written beside its final name; dropped before [`NewFile::commit`], it goes away.
pub(super) struct NewFile {
    folder: OwnedFd,
    pub(super) file: File,
    temporary: Option<Vec<u8>>,
    name: Vec<u8>,
}

impl NewFile {
    /// Makes the content durable, writes or removes the file beside it, and moves it to its final name; over what lies there
    /// only if it `replaces`.
    pub(super) fn commit(mut self, beside: (&[u8], Option<&[u8]>), replaces: bool) -> io::Result<()> {
        let Some(temporary) = self.temporary.as_deref() else { return Ok(()) };
        self.file.sync_all()?;
        // A folder at the final name must be found out before the file beside it is touched.
        match rustix::fs::statat(&self.folder, &self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if is_folder(&stat) => return Err(io::ErrorKind::IsADirectory.into()),
            Ok(_) if !replaces => return Err(io::ErrorKind::AlreadyExists.into()),
            _ => {}
        }
        let (beside, content) = beside;
        if let Some(content) = content {
            let (name, mut file) = create_temporary(self.folder.as_fd())?;
            let written = io::Write::write_all(&mut file, content)
                .and_then(|()| file.sync_all())
                .and_then(|()| Ok(rustix::fs::renameat(&self.folder, &name, &self.folder, beside)?));
            if written.is_err() {
                rustix::fs::unlinkat(&self.folder, &name, AtFlags::empty()).ok();
            }
            written?;
        } else {
            match rustix::fs::unlinkat(&self.folder, beside, AtFlags::empty()) {
                // A folder of that name holds other objects.
                Ok(()) | Err(Errno::NOENT | Errno::NAMETOOLONG | Errno::ISDIR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let flags = if replaces { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
        match rustix::fs::renameat_with(&self.folder, temporary, &self.folder, &self.name, flags) {
            // Not every file system can spare what exists: there an empty file holds the name until it is replaced.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                if !replaces {
                    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    rustix::fs::openat(&self.folder, &self.name, flags, FILE_MODE)?;
                }
                let renamed = rustix::fs::renameat(&self.folder, temporary, &self.folder, &self.name);
                if renamed.is_err() && !replaces {
                    rustix::fs::unlinkat(&self.folder, &self.name, AtFlags::empty()).ok();
                }
                renamed?;
            }
            renamed => renamed?,
        }
        self.temporary = None;
        Ok(rustix::fs::fsync(&self.folder)?)
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            rustix::fs::unlinkat(&self.folder, temporary, AtFlags::empty()).ok();
        }
    }
}

/// Opens the folder `name` in `parent`, making it if need be.
fn enter(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<OwnedFd> {
    match rustix::fs::openat(parent, name, FOLDER, Mode::empty()) {
        Err(Errno::NOENT) => {}
        opened => return Ok(opened?),
    }
    match rustix::fs::mkdirat(parent, name, FOLDER_MODE) {
        Ok(()) => rustix::fs::fsync(parent)?,
        Err(Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(rustix::fs::openat(parent, name, FOLDER, Mode::empty())?)
}

/// A new file under a name that `layout::from_path` takes for a temporary one.
fn create_temporary(folder: BorrowedFd<'_>) -> io::Result<(Vec<u8>, File)> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    loop {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let unique = u64::try_from(now).unwrap_or_default().wrapping_add(COUNT.fetch_add(1, Ordering::Relaxed));
        let name = format!("pacharc-{}.{unique:016x}.tmp", std::process::id()).into_bytes();
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(folder, &name, flags, FILE_MODE) {
            Err(Errno::EXIST) => {}
            opened => return Ok((name, File::from(opened?))),
        }
    }
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&b| b == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[], path),
    }
}

/// Whether it is a regular file.
pub(super) fn is_file(stat: &Stat) -> bool {
    rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::RegularFile
}

/// Whether it is a directory.
pub(super) fn is_folder(stat: &Stat) -> bool {
    rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory
}

/// The size of the file in bytes.
pub(super) fn size(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or_default()
}

/// What changes when the file is written or replaced.
pub(super) fn version(stat: &Stat) -> String {
    format!("{:x}-{:x}.{:x}-{:x}", stat.st_ino, stat.st_mtime, stat.st_mtime_nsec, stat.st_size)
}
