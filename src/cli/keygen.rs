//! `pacharc keygen`: makes an age identity, or prints the recipient of one.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use jiff::Timestamp;

use super::exit::{Failure, epilogue};
use super::{stdout, usage};
use crate::failure::{Class, Explain};
use crate::keys::{KeyPair, read_text, recipients_of};
use crate::signature::{SigningKey, is_signing_key, public_key_of};

const EXAMPLES: &str = "
  A key, readable by you alone; its recipient is printed:
    pacharc keygen -o key.txt
  The recipient of a key that you have:
    pacharc keygen -y key.txt
  A key that signs bundles, and its public half for whoever checks them:
    pacharc keygen --sign -o sign.key
    pacharc keygen -y sign.key > sign.pub";

/// Make an age identity and print its recipient; with --sign, a key that signs
///
/// The file has age's own syntax: age, rage and pacharc read it alike. Keep it apart from the bundles, in two places:
/// without it nobody opens them. A key that signs has minisign's syntax, and no password: `minisign -G` makes one with.
#[derive(Args, Debug)]
#[command(after_long_help = epilogue(EXAMPLES, &[Class::Other, Class::Usage, Class::Refused, Class::Credentials]))]
pub(super) struct Keygen {
    /// Write the secret key to FILE (mode 0600), which must not exist; to standard output when not given
    #[arg(long, short, value_name = "FILE|-")]
    output: Option<PathBuf>,
    /// Make a key that signs bundles (minisign's), for `backup --sign-key`; its public half is printed
    #[arg(long, conflicts_with = "recipient_of")]
    sign: bool,
    /// Make nothing: print the recipients, or the public half, of the keys in FILE
    #[arg(long = "recipient-of", short = 'y', value_name = "FILE")]
    recipient_of: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{} exists, and may hold the only key to some bundle", .0.display())]
    Exists(PathBuf),
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

impl Explain for Error {
    fn class(&self) -> Class {
        match self {
            Self::Exists(_) => Class::Refused,
            Self::Write { .. } => Class::Other,
        }
    }

    fn advice(&self) -> Option<String> {
        match self {
            Self::Exists(_) => Some("Choose another name, or move that file away.".to_owned()),
            Self::Write { .. } => None,
        }
    }
}

impl Keygen {
    pub(super) fn run(self) -> Result<(), Failure> {
        if let Some(path) = &self.recipient_of {
            if self.output.is_some() {
                return Err(usage::Error::Conflict { one: "--recipient-of", other: "--output" }.into());
            }
            let signs = is_signing_key(&read_text(path)?);
            return Ok(stdout::print(&if signs { public_key_of(path)? } else { recipients_of(path)? })?);
        }
        let (secret, public) = if self.sign {
            let key = SigningKey::generate()?;
            (key.to_file()?, key.public_key())
        } else {
            let key = KeyPair::generate(Timestamp::now());
            (key.file, key.recipient)
        };
        match self.output.filter(|path| path.as_os_str() != "-") {
            Some(path) => write_new(&path, secret.expose())?,
            None => stdout::print(secret.expose())?,
        }
        // The secret key gives it once more: a closed standard error loses nothing.
        let _ = writeln!(io::stderr().lock(), "Public key: {public}");
        Ok(())
    }
}

/// Writes a secret into a new file, whole and durable, or leaves none.
fn write_new(path: &Path, text: &str) -> Result<(), Error> {
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut file = opened.map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => Error::Exists(path.to_owned()),
        _ => Error::Write { path: path.to_owned(), source },
    })?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(|source| {
        // Half a key is no key.
        let _ = std::fs::remove_file(path);
        Error::Write { path: path.to_owned(), source }
    })
}
