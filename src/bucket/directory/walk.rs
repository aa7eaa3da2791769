//! The listing of a directory: a walk on a blocking thread, handing batches over, with as many open folders as the tree is
//! deep. Nothing is sorted, so memory does not grow with the number of files.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use futures::stream::{BoxStream, StreamExt as _, TryStreamExt as _};
use pacharc_format::Key;
use rustix::fs::{AtFlags, Dir, FileType};
use tokio::sync::mpsc;

use super::layout::{self, File};
use super::tree::{self, Tree};
use super::{Error, Listed};

/// How many entries are handed over at a time.
const BATCH: usize = 256;
/// The folder that ext file systems keep at the root of a volume, readable by root alone.
const LOST_AND_FOUND: &[u8] = b"lost+found";

type Batch = Result<Vec<Listed>, Error>;

/// Lists the objects in `tree` whose keys begin with `prefix`.
pub(super) fn list(tree: Arc<Tree>, bucket: String, prefix: Vec<u8>) -> BoxStream<'static, Result<Listed, Error>> {
    let (sender, receiver) = mpsc::channel::<Batch>(2);
    let walk = Walk { tree, bucket, prefix, batch: Vec::new(), sender };
    tokio::task::spawn_blocking(move || walk.run());
    futures::stream::unfold(receiver, |mut receiver| async { Some((receiver.recv().await?, receiver)) })
        .map_ok(|batch| futures::stream::iter(batch.into_iter().map(Ok)))
        .try_flatten()
        .boxed()
}

struct Walk {
    tree: Arc<Tree>,
    bucket: String,
    prefix: Vec<u8>,
    batch: Vec<Listed>,
    sender: mpsc::Sender<Batch>,
}

/// A folder whose entries are being read.
struct Open {
    folder: OwnedFd,
    entries: Dir,
    path: Vec<u8>,
}

/// Nobody listens any more.
struct Stopped;

/// Why a walk ends early.
enum End {
    Stopped,
    Failed(Error),
}

impl From<Stopped> for End {
    fn from(_: Stopped) -> Self {
        Self::Stopped
    }
}

impl Walk {
    fn run(mut self) {
        let last = match self.walk() {
            Ok(()) => Ok(std::mem::take(&mut self.batch)),
            Err(End::Stopped) => return,
            Err(End::Failed(error)) => Err(error),
        };
        self.sender.blocking_send(last).ok();
    }

    fn walk(&mut self) -> Result<(), End> {
        let root = self.tree.folder(b"").and_then(|folder| open(folder, Vec::new()));
        let mut stack = vec![root.map_err(|e| self.failed(b"", e))?];
        while let Some(top) = stack.last_mut() {
            let Some(entry) = top.entries.next() else {
                stack.pop();
                continue;
            };
            let entry = entry.map_err(|e| self.failed(&top.path, e.into()))?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            let mut path = top.path.clone();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name);
            let stat = match rustix::fs::statat(&top.folder, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(rustix::io::Errno::NOENT) => continue,
                Err(error) => return Err(self.failed(&path, error.into())),
            };
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile => self.file(&path, &stat)?,
                FileType::Directory if self.may_hold(&path) => {
                    let opened = rustix::fs::openat(
                        &top.folder,
                        name,
                        rustix::fs::OFlags::RDONLY
                            | rustix::fs::OFlags::DIRECTORY
                            | rustix::fs::OFlags::NOFOLLOW
                            | rustix::fs::OFlags::CLOEXEC,
                        rustix::fs::Mode::empty(),
                    );
                    match opened.map_err(io::Error::from).and_then(|folder| open(folder, path.clone())) {
                        Ok(folder) => stack.push(folder),
                        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                        Err(error)
                            if error.kind() == io::ErrorKind::PermissionDenied && path.as_slice() == LOST_AND_FOUND => {
                        }
                        Err(error) => return Err(self.failed(&path, error)),
                    }
                }
                FileType::Directory => {}
                kind => {
                    tracing::warn!(path = %Key::new(path), ?kind, bucket = %self.bucket, "no regular file: passed over");
                }
            }
        }
        Ok(())
    }

    /// Whether a key below the folder at `path` can begin with the prefix.
    fn may_hold(&self, path: &[u8]) -> bool {
        let below = layout::folder_prefix(path);
        // The older layout's keys say nothing about its folder.
        below.starts_with(&self.prefix) || self.prefix.starts_with(&below) || path == b"objects"
    }

    fn file(&mut self, path: &[u8], stat: &rustix::fs::Stat) -> Result<(), End> {
        let key = match layout::from_path(path) {
            File::Object(key) => key,
            File::Encoded(key) if self.is_in_current_layout(&key) => return Ok(()),
            File::Encoded(key) => key,
            File::Beside => return Ok(()),
            File::Foreign => {
                let (bucket, name) = (self.bucket.clone(), Key::new(path).to_string());
                return Err(End::Failed(Error::Foreign { bucket, name, reason: "its name is the escape of no key" }));
            }
        };
        if !key.as_bytes().starts_with(&self.prefix) {
            return Ok(());
        }
        let (size, etag) = (tree::size(stat), Some(tree::version(stat)));
        self.batch.push(Listed { key, size, etag, archived: false });
        if self.batch.len() >= BATCH {
            let batch = std::mem::replace(&mut self.batch, Vec::with_capacity(BATCH));
            self.sender.blocking_send(Ok(batch)).map_err(|_| Stopped)?;
        }
        Ok(())
    }

    /// Whether a key of the older layout has a file in the current one too, which then counts.
    fn is_in_current_layout(&self, key: &Key) -> bool {
        layout::to_path(key, false).is_ok_and(|path| self.tree.stat(&path).is_ok_and(|stat| tree::is_file(&stat)))
    }

    fn failed(&self, path: &[u8], error: io::Error) -> End {
        let doing = format!("listing {}", if path.is_empty() { "it".to_owned() } else { Key::new(path).to_string() });
        End::Failed(super::failed(&self.bucket, doing, error))
    }
}

fn open(folder: OwnedFd, path: Vec<u8>) -> io::Result<Open> {
    let entries = Dir::read_from(&folder)?;
    Ok(Open { folder, entries, path })
}
