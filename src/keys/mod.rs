//! Recipients and identities: from what the user names (strings, files, a passphrase) to what age takes.
//!
//! Files have age's own syntax, so that keys made by age, rage, age plugins and ssh-keygen serve as they are. Passphrases
//! come from a file or a terminal, never from an argument.

mod error;
mod identity;
mod prompt;
mod recipient;

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

pub use pacharc_format::{Lock, Unlock};

pub use error::Error;
pub use identity::{KeyPair, recipients_of};

use crate::secret::Secret;

/// The largest key file that is read, in bytes.
const FILE_LIMIT: u64 = 1 << 20;
/// The largest scrypt work factor of an encrypted identity file (log2 N): 1 GiB of memory.
const MAX_WORK_FACTOR: u8 = 20;

/// What the user names to lock a bundle with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LockNames {
    /// `age1…`, `age1<plugin>1…`, `ssh-ed25519 …`, `ssh-rsa …`.
    pub recipients: Vec<String>,
    /// Files with one of these a line.
    pub recipients_files: Vec<PathBuf>,
    /// A file whose first line is the passphrase.
    pub passphrase_file: Option<PathBuf>,
}

impl LockNames {
    /// Reads and parses what was named.
    ///
    /// # Errors
    /// [`Error`]: nothing named, both kinds named, not a recipient, a file that cannot be read, a plugin that is missing.
    pub fn read(&self) -> Result<Lock, Error> {
        let mut recipients = Vec::new();
        for text in &self.recipients {
            recipients.push(recipient::parse(text)?);
        }
        for path in &self.recipients_files {
            recipients.append(&mut recipient::read_file(path)?);
        }
        match (&self.passphrase_file, recipients.is_empty()) {
            (Some(_), false) => Err(Error::PassphraseAndRecipients),
            (Some(path), true) => Ok(Lock::Passphrase(passphrase(path)?.into_inner())),
            (None, false) => Ok(Lock::Recipients(recipients)),
            (None, true) => Err(Error::NoRecipient),
        }
    }

    /// The recipients as text, those of files, too: for a run elsewhere.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn texts(&self) -> Result<Vec<String>, Error> {
        let mut texts = self.recipients.clone();
        for path in &self.recipients_files {
            texts.extend(recipient::lines(path)?.into_iter().map(|(_, line)| line.trim().to_owned()));
        }
        Ok(texts)
    }
}

/// What is worth a thought about a lock.
#[must_use]
pub fn hint(lock: &Lock) -> Option<&'static str> {
    match lock {
        Lock::Recipients(recipients) if recipients.len() == 1 => Some(
            "this bundle has one recipient: if that key is lost, so is the bundle. Add a second --recipient, kept \
             elsewhere.",
        ),
        _ => None,
    }
}

/// What the user names to open a bundle with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnlockNames {
    /// Identity files: age's (also encrypted with a passphrase), plugins', ssh private keys.
    pub identities: Vec<PathBuf>,
    /// A file whose first line is the passphrase.
    pub passphrase_file: Option<PathBuf>,
}

impl UnlockNames {
    /// Whether anything was named.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.identities.is_empty() && self.passphrase_file.is_none()
    }

    /// Reads and parses what was named; where nothing was, asks for the passphrase on the terminal.
    ///
    /// May wait for the user: to be called before anything is under way.
    ///
    /// # Errors
    /// [`Error`]: nothing named and no terminal, both kinds named, not an identity, a file that cannot be read, a wrong
    /// passphrase of an identity file.
    pub fn read(&self) -> Result<Unlock, Error> {
        let passphrase = match (&self.passphrase_file, self.identities.is_empty()) {
            (Some(_), false) => return Err(Error::PassphraseAndIdentities),
            (Some(path), true) => passphrase(path)?,
            (None, true) => prompt::passphrase("Passphrase of the bundle").ok_or(Error::NoIdentity)?,
            (None, false) => {
                let mut identities = Vec::new();
                for path in &self.identities {
                    identities.append(&mut identity::read_file(path)?);
                }
                return Ok(Unlock::Identities(identities));
            }
        };
        Ok(Unlock::Passphrase(passphrase.into_inner()))
    }
}

/// The first line of `path`.
pub(crate) fn passphrase(path: &Path) -> Result<Secret, Error> {
    let text = String::from_utf8(read(path)?).map_err(|_| Error::NotText(path.to_owned()))?;
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(Secret::from(line.to_owned())),
        _ => Err(Error::EmptyPassphrase(path.to_owned())),
    }
}

/// Asks on the terminal; `None` where there is none, or nothing was typed.
pub(crate) fn ask(what: &str) -> Option<Secret> {
    prompt::passphrase(what)
}

/// All of a small file of text, which may be secret.
pub(crate) fn read_text(path: &Path) -> Result<Secret, Error> {
    String::from_utf8(read(path)?).map(Secret::from).map_err(|_| Error::NotText(path.to_owned()))
}

/// All of a small file.
fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let unreadable = |source| Error::Unreadable { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(FILE_LIMIT + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > FILE_LIMIT {
        return Err(Error::TooLarge(path.to_owned()));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
