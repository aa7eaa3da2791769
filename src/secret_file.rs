//! A file for those who take no secret but by a path, such as a client's key for libpq: it lies in memory, on no disk, and
//! goes with the value that holds it.

use std::fs::{File, Permissions};
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use rustix::fs::{MemfdFlags, memfd_create};

use crate::secret::Secret;

/// An anonymous file that this process and its children of the same user can read.
#[derive(Debug)]
pub struct SecretFile(File);

impl SecretFile {
    /// Makes one that holds `content`.
    ///
    /// # Errors
    /// Those of the system.
    pub fn new(content: &Secret) -> io::Result<Self> {
        let mut file = File::from(memfd_create("pacharc", MemfdFlags::CLOEXEC)?);
        // libpq takes no key that others could read.
        file.set_permissions(Permissions::from_mode(0o600))?;
        file.write_all(content.expose().as_bytes())?;
        Ok(Self(file))
    }

    /// Its path, which is valid as long as this value.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_read_it_and_it_goes_away() {
        let file = SecretFile::new(&Secret::from("content".to_owned())).unwrap();
        let path = file.path();
        let read = std::process::Command::new("cat").arg(&path).output().unwrap();
        assert_eq!(read.stdout, b"content");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        drop(file);
        assert!(std::fs::read(&path).is_err() || std::fs::read(&path).unwrap() != b"content");
    }
}
