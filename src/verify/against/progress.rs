//! How far a comparison is, in a file: an interrupted one goes on behind what it had compared.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::outcome::{Objects, Side};
use crate::verify::{Error, Finding};

/// What was compared of which bundle with what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Progress {
    /// The bundle's id.
    pub(super) id: String,
    /// When the comparison was begun.
    pub(super) since: jiff::Timestamp,
    pub(super) side: Side,
    /// The bucket's URL.
    pub(super) bucket: String,
    /// As it was typed.
    pub(super) sample: Option<String>,
    pub(super) seed: u64,
    /// The last path that was compared.
    pub(super) last: Option<String>,
    pub(super) objects: Objects,
    pub(super) findings: Vec<Finding>,
}

/// The file of a comparison, if it is to have one.
pub(super) struct ProgressFile(pub(super) Option<PathBuf>);

impl ProgressFile {
    /// What an earlier run has left; `None` where it has left nothing.
    ///
    /// # Errors
    /// [`Error::Progress`]: a file that cannot be read, or is none of ours.
    pub(super) fn load(&self) -> Result<Option<Progress>, Error> {
        let Some(path) = &self.0 else { return Ok(None) };
        let failed = |problem: String| Error::Progress { path: path.clone(), problem };
        let bytes = match std::fs::read(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(|error| failed(error.to_string()))?,
        };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|_| failed("it is not the progress of a comparison".to_owned()))
    }

    /// Writes it anew: whole, or as it was. It names objects, and is for its owner alone.
    pub(super) fn save(&self, progress: &Progress) -> Result<(), Error> {
        let Some(path) = &self.0 else { return Ok(()) };
        let failed = |error: std::io::Error| Error::Progress { path: path.clone(), problem: error.to_string() };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
        let json = serde_json::to_vec(progress).map_err(|error| failed(error.into()))?;
        file.write_all(&json).map_err(failed)?;
        file.persist(path).map_err(|error| failed(error.error))?;
        Ok(())
    }

    /// All is compared.
    pub(super) fn done(&self) {
        if let Some(path) = &self.0 {
            // One that stays is found to be at its end.
            let _ = std::fs::remove_file(path);
        }
    }
}
