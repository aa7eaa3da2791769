//! Identities: read from files of age, of its plugins and of ssh; and made new.

use std::path::Path;

use age::armor::ArmoredReader;
use age::secrecy::ExposeSecret as _;
use age::{DecryptError, Decryptor, Identity, IdentityFile, scrypt, ssh, x25519};
use jiff::Timestamp;

use super::prompt::{self, Prompt};
use super::{Error, MAX_WORK_FACTOR, read, recipient};
use crate::secret::Secret;

/// A new X25519 key.
pub struct KeyPair {
    /// The public half: `age1…`.
    pub recipient: String,
    /// The identity file, in age-keygen's syntax.
    pub file: Secret,
}

impl KeyPair {
    /// Makes one from the operating system's random numbers, dated `created`.
    #[must_use]
    pub fn generate(created: Timestamp) -> Self {
        let identity = x25519::Identity::generate();
        let recipient = identity.to_public().to_string();
        let created = created.strftime("%Y-%m-%dT%H:%M:%SZ");
        let secret = identity.to_string();
        let file = format!("# created: {created}\n# public key: {recipient}\n{}\n", secret.expose_secret());
        Self { recipient, file: Secret::from(file) }
    }
}

/// Reads all identities of a file, asking for its passphrase where it is encrypted.
pub(super) fn read_file(path: &Path) -> Result<Vec<Box<dyn Identity>>, Error> {
    let bytes = read(path)?;
    if bytes.starts_with(b"-----BEGIN ") && !is_encrypted(&bytes) {
        return Ok(vec![ssh_identity(path, &bytes)?]);
    }
    let identities = age_file(path, &bytes)?.with_callbacks(Prompt).into_identities().map_err(|e| match e {
        DecryptError::PluginResolve(e) => recipient::missing("", &e),
        e => not_identities(path, &e.to_string()),
    })?;
    if identities.is_empty() {
        return Err(Error::Empty(path.to_owned()));
    }
    Ok(identities.into_iter().map(|identity| identity as Box<dyn Identity>).collect())
}

/// The recipients of an identity file, one a line, as `age-keygen -y` prints them.
///
/// # Errors
/// As for any identity file; also where it is a plugin's or ssh's, since only they know the public half.
pub fn recipients_of(path: &Path) -> Result<String, Error> {
    let bytes = read(path)?;
    if bytes.starts_with(b"-----BEGIN ") && !is_encrypted(&bytes) {
        return Err(not_identities(path, "it is an ssh key, whose public half lies in its .pub file"));
    }
    let file = age_file(path, &bytes)?;
    let mut lines = Vec::new();
    file.write_recipients_file(&mut lines).map_err(|e| match e {
        age::IdentityFileConvertError::NoIdentities { .. } => Error::Empty(path.to_owned()),
        age::IdentityFileConvertError::IdentityFileContainsPlugin { plugin_name, .. } => {
            not_identities(path, &format!("only age-plugin-{plugin_name} knows its public half"))
        }
        e => not_identities(path, &e.to_string()),
    })?;
    String::from_utf8(lines).map_err(|_| Error::NotText(path.to_owned()))
}

/// Parses an identity file of age's, decrypting it first where needed.
fn age_file(path: &Path, bytes: &[u8]) -> Result<IdentityFile<age::NoCallbacks>, Error> {
    if !is_encrypted(bytes) {
        return parse(path, bytes);
    }
    let decryptor =
        Decryptor::new_buffered(ArmoredReader::new(bytes)).map_err(|e| not_identities(path, &e.to_string()))?;
    if !decryptor.is_scrypt() {
        return Err(not_identities(path, "it is an age file that is not encrypted with a passphrase"));
    }
    let passphrase = prompt::passphrase(&format!("Passphrase of {}", path.display()))
        .ok_or_else(|| Error::NoTerminal(path.to_owned()))?;
    decrypt(path, decryptor, passphrase)
}

fn decrypt<R: std::io::Read>(
    path: &Path,
    decryptor: Decryptor<R>,
    passphrase: Secret,
) -> Result<IdentityFile<age::NoCallbacks>, Error> {
    let mut key = scrypt::Identity::new(passphrase.into_inner());
    key.set_max_work_factor(MAX_WORK_FACTOR);
    let decrypted = decryptor.decrypt(std::iter::once(&key as &dyn Identity)).map_err(|e| match e {
        DecryptError::DecryptionFailed | DecryptError::KeyDecryptionFailed => Error::WrongPassphrase(path.to_owned()),
        e => not_identities(path, &e.to_string()),
    })?;
    parse(path, std::io::BufReader::new(decrypted))
}

fn parse(path: &Path, text: impl std::io::BufRead) -> Result<IdentityFile<age::NoCallbacks>, Error> {
    // Its errors name the line's number and not its content.
    IdentityFile::from_buffer(text).map_err(|e| not_identities(path, &e.to_string()))
}

fn ssh_identity(path: &Path, bytes: &[u8]) -> Result<Box<dyn Identity>, Error> {
    let name = path.display().to_string();
    match ssh::Identity::from_buffer(bytes, Some(name)) {
        Ok(ssh::Identity::Unsupported(_)) => Err(not_identities(path, "age does not support this kind of ssh key")),
        Ok(identity) => Ok(Box::new(identity.with_callbacks(Prompt))),
        Err(e) => Err(not_identities(path, &e.to_string())),
    }
}

fn is_encrypted(bytes: &[u8]) -> bool {
    bytes.starts_with(b"age-encryption.org/") || bytes.starts_with(b"-----BEGIN AGE ENCRYPTED FILE-----")
}

fn not_identities(path: &Path, problem: &str) -> Error {
    Error::NotIdentities { path: path.to_owned(), problem: problem.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn an_encrypted_identity_file_opens_with_its_passphrase_alone() {
        let key = KeyPair::generate(Timestamp::UNIX_EPOCH);
        let mut recipient = scrypt::Recipient::new("right".to_owned().into());
        recipient.set_work_factor(2);
        let encryptor = age::Encryptor::with_recipients(std::iter::once(&recipient as _)).unwrap();
        let mut sealed = Vec::new();
        let armor = age::armor::ArmoredWriter::wrap_output(&mut sealed, age::armor::Format::AsciiArmor).unwrap();
        let mut writer = encryptor.wrap_output(armor).unwrap();
        writer.write_all(key.file.expose().as_bytes()).unwrap();
        writer.finish().and_then(age::armor::ArmoredWriter::finish).unwrap();
        assert!(is_encrypted(&sealed));

        let open = |passphrase: &str| {
            let decryptor = Decryptor::new_buffered(ArmoredReader::new(sealed.as_slice())).unwrap();
            decrypt(Path::new("k"), decryptor, Secret::from(passphrase.to_owned()))
        };
        let mut recipients = Vec::new();
        open("right").unwrap().write_recipients_file(&mut recipients).unwrap();
        assert_eq!(String::from_utf8(recipients).unwrap().trim(), key.recipient);
        assert!(matches!(open("wrong"), Err(Error::WrongPassphrase(_))));
    }
}
