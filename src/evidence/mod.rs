//! Evidence: what a backup, a verification or a restore was, in a file that is kept: JSON with a published schema
//! (`docs/report.schema.json`), and a page for people beside it, both signed where there is a key.

mod contents;
mod error;
mod notes;
mod page;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use pacharc_format::Signer as _;
use serde::Serialize;
use serde_json::Value;

pub use contents::{Contents, ContentsDatabase, ContentsTable};
pub use error::Error;
pub use notes::Notes;

use crate::signature::SigningKey;

/// The number of the report's form; it grows when a member changes its meaning.
const FORM: u32 = 1;

/// What a run was.
#[derive(Clone, Debug, Serialize)]
pub struct Evidence {
    /// The number of the report's form.
    pub report: u32,
    /// What was done: `backup`, `verify` or `restore`.
    pub command: String,
    /// The version of the program.
    pub pacharc: String,
    /// When it began.
    pub began: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
    /// How long it took.
    pub seconds: f64,
    /// One word: `sound`, `done`, `incomplete`, `damaged`, or the class of the failure.
    pub verdict: String,
    /// The process's exit code.
    pub exit_code: u8,
    /// What people were told at the end.
    pub summary: String,
    /// Why there is no outcome; `None` where there is one.
    pub failure: Option<Failed>,
    /// What was warned of, and the objects that the source lacked; the first hundred.
    pub warnings: Vec<String>,
    /// What the bundle holds; `None` where the manifest was not read.
    pub contents: Option<Contents>,
    /// As in the event `finished` (`docs/json.md`); `None` where the run failed.
    pub outcome: Option<Value>,
}

/// Why a run came to no outcome.
#[derive(Clone, Debug, Serialize)]
pub struct Failed {
    /// The class of the failure, as in the event `error`.
    pub class: String,
    /// What happened.
    pub message: String,
    /// What can be done about it.
    pub advice: Option<String>,
}

/// Where evidence goes.
#[derive(Debug)]
pub struct Keeper {
    json: PathBuf,
    page: PathBuf,
    signer: Option<SigningKey>,
}

impl Keeper {
    /// Looks whether `json`, and the page beside it, can be written: nothing that is there is overwritten.
    ///
    /// # Errors
    /// [`Error`].
    pub fn new(json: &Path, signer: Option<SigningKey>) -> Result<Self, Error> {
        if json.extension().is_some_and(|extension| extension == "html") || json.file_name().is_none() {
            return Err(Error::Name(json.to_owned()));
        }
        let keeper = Self { json: json.to_owned(), page: json.with_extension("html"), signer };
        for path in [&keeper.json, &keeper.page] {
            for path in [path.clone(), signature_of(path)] {
                if path.symlink_metadata().is_ok() {
                    return Err(Error::Exists(path));
                }
            }
        }
        // Better known now than after hours.
        tempfile::tempfile_in(folder(json)).map_err(|source| Error::Write { path: json.to_owned(), source })?;
        Ok(keeper)
    }

    /// Writes the report and the page, each whole or not at all, and their signatures.
    ///
    /// # Errors
    /// [`Error`].
    pub fn keep(&self, evidence: &Evidence) -> Result<(), Error> {
        let failed = |source: serde_json::Error| Error::Write { path: self.json.clone(), source: source.into() };
        let mut json = serde_json::to_vec_pretty(evidence).map_err(failed)?;
        json.push(b'\n');
        let name = self.json.file_name().unwrap_or_default().to_string_lossy();
        let page = page::render(evidence, &name, blake3::hash(&json).to_hex().as_str());
        for (path, content) in [(&self.json, json), (&self.page, page.into_bytes())] {
            write(path, &content)?;
            if let Some(signer) = &self.signer {
                let comment = format!("pacharc report of {} ended={}", evidence.command, evidence.ended);
                let signed = signer.sign(&mut content.as_slice(), &comment);
                let signed = signed.map_err(|source| Error::Write { path: path.clone(), source })?;
                write(&signature_of(path), &signed)?;
            }
        }
        Ok(())
    }
}

impl Evidence {
    /// A report of a run that began at `began` and ends now.
    #[must_use]
    pub fn new(command: &str, began: Timestamp, verdict: &str, exit_code: u8) -> Self {
        let ended = Timestamp::now();
        Self {
            report: FORM,
            command: command.to_owned(),
            pacharc: env!("CARGO_PKG_VERSION").to_owned(),
            began,
            ended,
            seconds: ended.duration_since(began).as_secs_f64(),
            verdict: verdict.to_owned(),
            exit_code,
            summary: String::new(),
            failure: None,
            warnings: Vec::new(),
            contents: None,
            outcome: None,
        }
    }
}

/// As minisign names it.
fn signature_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".minisig");
    PathBuf::from(name)
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn write(path: &Path, content: &[u8]) -> Result<(), Error> {
    let failed = |source| Error::Write { path: path.to_owned(), source };
    let mut file = tempfile::NamedTempFile::new_in(folder(path)).map_err(failed)?;
    file.write_all(content).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
    let persisted = file.persist_noclobber(path);
    persisted.map(drop).map_err(|error| match error.error.kind() {
        std::io::ErrorKind::AlreadyExists => Error::Exists(path.to_owned()),
        _ => failed(error.error),
    })
}
