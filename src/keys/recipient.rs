//! Recipients, from strings and files of one a line.

use std::path::Path;

use age::plugin::{self, RecipientPluginV1, ResolveError};
use age::ssh::ParseRecipientKeyError;
use age::{Recipient, ssh, x25519};

use super::prompt::Prompt;
use super::{Error, read};

type BoxedRecipient = Box<dyn Recipient + Send>;

/// Parses one recipient, and looks for its plugin where it needs one.
pub(super) fn parse(text: &str) -> Result<BoxedRecipient, Error> {
    let text = text.trim();
    if is_secret(text) {
        return Err(Error::SecretAsRecipient);
    }
    if let Ok(recipient) = text.parse::<x25519::Recipient>() {
        return Ok(Box::new(recipient));
    }
    // Of the hardware keys' kind; they need no plugin to encrypt.
    if let Ok(recipient) = text.parse::<age::tag::Recipient>() {
        return Ok(Box::new(recipient));
    }
    if let Ok(recipient) = text.parse::<age::tagpq::Recipient>() {
        return Ok(Box::new(recipient));
    }
    if let Ok(recipient) = text.parse::<plugin::Recipient>() {
        let name = recipient.plugin().to_owned();
        let plugin = RecipientPluginV1::new(&name, &[recipient], &[], Prompt).map_err(|e| missing(&name, &e))?;
        return Ok(Box::new(plugin));
    }
    let kind = || text.split(' ').next().unwrap_or_default().to_owned();
    match text.parse::<ssh::Recipient>() {
        Ok(recipient) => Ok(Box::new(recipient)),
        Err(ParseRecipientKeyError::RsaModulusTooLarge) => {
            Err(Error::SshKey(kind(), "its modulus is longer than 4096 bits".into()))
        }
        Err(ParseRecipientKeyError::RsaModulusTooSmall) => {
            Err(Error::SshKey(kind(), "its modulus is shorter than 2048 bits".into()))
        }
        Err(ParseRecipientKeyError::Unsupported(kind)) => {
            Err(Error::SshKey(kind, "age does not support this kind".into()))
        }
        Err(ParseRecipientKeyError::Ignore) => Err(Error::SshKey(kind(), "age does not support this kind".into())),
        Err(_) => Err(Error::NotARecipient(text.to_owned())),
    }
}

/// The lines of a file of one recipient a line, with their numbers; empty ones and those that begin with `#` are skipped.
pub(super) fn lines(path: &Path) -> Result<Vec<(usize, String)>, Error> {
    let text = String::from_utf8(read(path)?).map_err(|_| Error::NotText(path.to_owned()))?;
    let lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.to_owned()));
    Ok(lines.filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#')).collect())
}

/// Reads a file of recipients.
pub(super) fn read_file(path: &Path) -> Result<Vec<BoxedRecipient>, Error> {
    let mut recipients = Vec::new();
    for (number, line) in lines(path)? {
        let recipient = parse(&line).map_err(|error| match error {
            // The line may be the secret of something else altogether: its number is enough.
            Error::NotARecipient(_) | Error::SecretAsRecipient => {
                Error::NotARecipientLine { path: path.to_owned(), line: number }
            }
            error => error,
        })?;
        recipients.push(recipient);
    }
    if recipients.is_empty() {
        return Err(Error::Empty(path.to_owned()));
    }
    Ok(recipients)
}

pub(super) fn missing(name: &str, error: &ResolveError) -> Error {
    match error {
        ResolveError::MissingPlugin { binary_name } => {
            Error::PluginMissing(binary_name.strip_prefix("age-plugin-").unwrap_or(binary_name).to_owned())
        }
        _ => Error::PluginMissing(name.to_owned()),
    }
}

fn is_secret(text: &str) -> bool {
    let text = text.to_ascii_uppercase();
    text.contains("AGE-SECRET-KEY-") || text.contains("AGE-PLUGIN-") || text.contains("PRIVATE KEY-----")
}
