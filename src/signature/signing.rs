//! The secret half: made new, read from files of minisign's, and used to sign.

use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use minisign::{KeyPair, PublicKey, SecretKey, SecretKeyBox};
use pacharc_format::Signer;

use super::Error;
use crate::keys;
use crate::secret::Secret;

/// How every key file of minisign's begins.
const COMMENT: &str = "untrusted comment:";
/// What stands in the third and fourth byte of a secret key: how a password leads to it.
const NO_PASSWORD: &[u8] = &[0, 0];
const PASSWORD: &[u8] = b"Sc";

/// What the user names to sign with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SigningKeyNames {
    /// The file with the secret key.
    pub key: Option<PathBuf>,
    /// A file whose first line is the key's password, where it has one.
    pub password_file: Option<PathBuf>,
}

impl SigningKeyNames {
    /// Reads the key, if one is named; asks for its password on the terminal where it has one and no file holds it.
    ///
    /// May wait for the user: to be called before anything is under way. What minisign itself makes takes 1 GiB of memory
    /// for a moment to decrypt.
    ///
    /// # Errors
    /// [`Error`]: a file that cannot be read or is no key, a wrong password, nobody to ask.
    pub fn read(&self) -> Result<Option<SigningKey>, Error> {
        let Some(path) = &self.key else { return Ok(None) };
        SigningKey::read(path, self.password_file.as_deref()).map(Some)
    }
}

/// A secret key that signs. It does not print.
#[derive(Clone)]
pub struct SigningKey {
    secret: SecretKey,
    public: PublicKey,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.id())
    }
}

impl SigningKey {
    /// Makes one from the operating system's random numbers.
    ///
    /// # Errors
    /// [`Error::Generate`].
    pub fn generate() -> Result<Self, Error> {
        let KeyPair { pk, sk } =
            KeyPair::generate_unencrypted_keypair().map_err(|error| Error::Generate(error.to_string()))?;
        Ok(Self { secret: sk, public: pk })
    }

    fn read(path: &Path, password_file: Option<&Path>) -> Result<Self, Error> {
        let not_a_key = |problem: &str| Error::NotASigningKey { path: path.to_owned(), problem: problem.to_owned() };
        let text = keys::read_text(path)?;
        if !is_signing_key(&text) {
            return Err(not_a_key("it is not in the syntax of such keys"));
        }
        let line = text.expose().lines().nth(1).unwrap_or_default();
        let bytes = BASE64.decode(line.trim()).unwrap_or_default();
        // Errors of the libraries do not repeat the key, but nothing promises that they never will: they are dropped.
        let secret = match bytes.get(2..4) {
            Some(NO_PASSWORD) => SecretKey::from_bytes(&bytes).map_err(|_| not_a_key("it is cut short"))?,
            Some(PASSWORD) => {
                let password = match password_file {
                    Some(file) => keys::passphrase(file)?,
                    None => keys::ask(&format!("Password of {}", path.display()))
                        .ok_or_else(|| Error::NoPassword(path.to_owned()))?,
                };
                let locked = SecretKeyBox::from(text.expose().to_owned());
                let opened = locked.into_secret_key(Some(password.expose().to_owned()));
                opened.map_err(|_| Error::WrongPassword(path.to_owned()))?
            }
            _ => return Err(not_a_key("it is another kind of key, or damaged")),
        };
        let public = PublicKey::from_secret_key(&secret).map_err(|_| not_a_key("its public half is lacking"))?;
        let key = Self { secret, public };
        // minisign gives a key without a password no checksum: whether the halves belong together, a signature shows.
        key.sign(&mut io::empty(), "").map_err(|_| not_a_key("it is damaged"))?;
        Ok(key)
    }

    /// The file of the secret key, as minisign reads it.
    ///
    /// # Errors
    /// [`Error::Generate`].
    pub fn to_file(&self) -> Result<Secret, Error> {
        let made = self.secret.to_box(Some("secret key that signs pacharc bundles"));
        made.map(|made| Secret::from(made.into_string())).map_err(|error| Error::Generate(error.to_string()))
    }

    /// The public half, as `--trusted-key` and `minisign -P` take it.
    #[must_use]
    pub fn public_key(&self) -> String {
        self.public.to_base64()
    }

    /// The key's number, as minisign prints it.
    #[must_use]
    pub fn id(&self) -> String {
        key_id(self.public.keynum())
    }
}

impl Signer for SigningKey {
    fn sign(&self, sums: &mut dyn Read, trusted_comment: &str) -> io::Result<Vec<u8>> {
        let untrusted = Some("signature by pacharc; check it with minisign");
        let signed = minisign::sign(Some(&self.public), &self.secret, sums, Some(trusted_comment), untrusted);
        signed.map(|signature| signature.into_string().into_bytes()).map_err(io::Error::other)
    }
}

/// Whether this is the text of a key file of minisign's.
#[must_use]
pub fn is_signing_key(text: &Secret) -> bool {
    text.expose().starts_with(COMMENT)
}

/// The public half of the secret key in `path`, as the file that minisign calls `minisign.pub`.
///
/// # Errors
/// As for any secret key.
pub fn public_key_of(path: &Path) -> Result<String, Error> {
    let key = SigningKey::read(path, None)?;
    let made = key.public.to_box().map_err(|error| Error::Generate(error.to_string()))?;
    Ok(made.into_string())
}

/// As minisign prints the number of a key: its bytes as a little-endian number.
pub(super) fn key_id(number: &[u8]) -> String {
    number.iter().rev().map(|byte| format!("{byte:02X}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_a_key_is_little_endian() {
        assert_eq!(key_id(&[0xab, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x0f]), "0F070605040302AB");
    }

    #[test]
    fn a_key_file_of_minisigns_is_known_by_its_first_line() {
        let file = SigningKey::generate().unwrap().to_file().unwrap();
        assert!(is_signing_key(&file));
        for other in ["", "AGE-SECRET-KEY-1", "# untrusted comment:", " untrusted comment:"] {
            assert!(!is_signing_key(&Secret::from(other.to_owned())), "{other}");
        }
    }
}
