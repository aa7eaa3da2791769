//! The public half: which keys are trusted, and whether one of them has signed a bundle.

use std::io::Read;
use std::path::Path;

use minisign_verify::{PublicKey, Signature, StreamVerifier};
use pacharc_format::{BundleReader, RangeReader};
use serde::Serialize;

use super::Error;
use super::signing::{is_signing_key, key_id};
use crate::keys;

/// Keys, one of which must have signed; none: whoever signed, or nobody, will do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedKeys(Vec<TrustedKey>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct TrustedKey {
    key: PublicKey,
    id: String,
}

/// Whose signature was checked and holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SignedBy {
    /// The number of the key, as minisign prints it.
    pub key: String,
    /// What the signer stated beside the sums.
    pub comment: String,
}

impl TrustedKeys {
    /// Takes each name for a key (`RW…`) or a file with one a line, as minisign writes it.
    ///
    /// # Errors
    /// [`Error`]: neither of the two, a file that cannot be read or holds no key.
    pub fn read(names: &[String]) -> Result<Self, Error> {
        let mut keys = Vec::new();
        for name in names {
            match TrustedKey::parse(name) {
                Some(key) => keys.push(key),
                None if !Path::new(name).exists() => return Err(Error::NotAPublicKey(name.clone())),
                None => keys.append(&mut read_file(Path::new(name))?),
            }
        }
        Ok(Self(keys))
    }

    /// Whether no signature is demanded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Makes sure that one of the keys signed `sums`; `Ok(None)` where no signature is demanded.
    ///
    /// # Errors
    /// [`Error`].
    pub fn check(&self, signature: Option<&[u8]>, mut sums: impl Read) -> Result<Option<SignedBy>, Error> {
        if self.is_empty() {
            return Ok(None);
        }
        let signature = decode(signature)?;
        let mut check = self.begin(&signature)?;
        let mut part = [0; 1 << 16];
        loop {
            match sums.read(&mut part) {
                Ok(0) => return check.finish(&signature).map(Some),
                Ok(count) => check.update(part.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::Sums(error)),
            }
        }
    }

    /// The same for a bundle that is read in any place. When it has held, all that `reader` gives was signed: manifest and
    /// key are bound to the sums, and everything else to these two.
    ///
    /// # Errors
    /// `E`'s: damage, reading, and [`Error`].
    pub async fn check_reader<S, E>(&self, reader: &BundleReader<S>) -> Result<Option<SignedBy>, E>
    where
        S: RangeReader,
        E: From<Error> + From<pacharc_format::Error>,
    {
        if self.is_empty() {
            return Ok(None);
        }
        let content = reader.signature().await?;
        let signature = decode(content.as_deref())?;
        let mut check = self.begin(&signature)?;
        reader.sums(|part| check.update(part)).await?;
        Ok(Some(check.finish(&signature)?))
    }

    /// Begins with the keys that the signature may be of.
    fn begin<'a>(&'a self, signature: &'a Signature) -> Result<Check<'a>, Error> {
        let named = self.0.iter().filter_map(|trusted| {
            let verifier = trusted.key.verify_stream(signature).ok()?;
            Some((trusted.id.as_str(), verifier))
        });
        let verifiers: Vec<_> = named.collect();
        if verifiers.is_empty() { Err(Error::Untrusted) } else { Ok(Check(verifiers)) }
    }
}

/// A signature under way; two keys may share a number, and nothing but the end tells which one it was.
struct Check<'a>(Vec<(&'a str, StreamVerifier<'a>)>);

impl Check<'_> {
    fn update(&mut self, part: &[u8]) {
        self.0.iter_mut().for_each(|(_, verifier)| verifier.update(part));
    }

    fn finish(self, signature: &Signature) -> Result<SignedBy, Error> {
        let mut last = String::new();
        for (id, mut verifier) in self.0 {
            if verifier.finalize().is_ok() {
                return Ok(SignedBy { key: id.to_owned(), comment: signature.trusted_comment().to_owned() });
            }
            id.clone_into(&mut last);
        }
        Err(Error::Forged(last))
    }
}

fn decode(signature: Option<&[u8]>) -> Result<Signature, Error> {
    let content = signature.ok_or(Error::Unsigned)?;
    let text = std::str::from_utf8(content).map_err(|_| Error::Unreadable("it is not text".to_owned()))?;
    Signature::decode(text).map_err(|error| Error::Unreadable(error.to_string()))
}

impl TrustedKey {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let key = PublicKey::from_base64(text).ok()?;
        Some(Self { key, id: key_id(&number(text)?) })
    }
}

/// The eight bytes behind the two that name the algorithm: minisign prints them, and the crate keeps them to itself.
fn number(key: &str) -> Option<Vec<u8>> {
    let key = minisign::PublicKey::from_base64(key).ok()?;
    Some(key.keynum().to_vec())
}

/// Reads the keys of a file; comments are skipped.
fn read_file(path: &Path) -> Result<Vec<TrustedKey>, Error> {
    let text = keys::read_text(path)?;
    let mut found = Vec::new();
    for line in text.expose().lines().map(str::trim) {
        if line.is_empty() || line.starts_with("untrusted comment:") || line.starts_with('#') {
            continue;
        }
        match TrustedKey::parse(line) {
            Some(key) => found.push(key),
            // A secret key begins like a public one, and is longer.
            None if is_signing_key(&text) && line.starts_with("RW") && line.len() > 100 => {
                return Err(Error::SecretAsTrusted(path.to_owned()));
            }
            None => return Err(Error::NotPublicKeys(path.to_owned())),
        }
    }
    if found.is_empty() { Err(Error::NotPublicKeys(path.to_owned())) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use pacharc_format::Signer as _;

    use super::super::{SigningKey, SigningKeyNames};
    use super::*;

    const SUMS: &[u8] = b"0123  README.txt\n4567  bundle.json\n";

    fn sign(key: &SigningKey) -> Vec<u8> {
        key.sign(&mut &SUMS[..], "pacharc format=1").unwrap()
    }

    fn trust(names: &[&str]) -> TrustedKeys {
        TrustedKeys::read(&names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn what_a_trusted_key_signed_holds_and_nothing_else() {
        let (ours, theirs) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
        let trusted = trust(&[&ours.public_key()]);
        let signature = sign(&ours);
        let by = trusted.check(Some(&signature), SUMS).unwrap().unwrap();
        assert_eq!((by.key, by.comment.as_str()), (ours.id(), "pacharc format=1"));
        assert!(matches!(trusted.check(None, SUMS), Err(Error::Unsigned)));
        assert!(matches!(trusted.check(Some(&sign(&theirs)), SUMS), Err(Error::Untrusted)));
        assert!(matches!(trusted.check(Some(&signature), &SUMS[1..]), Err(Error::Forged(_))));
        assert!(matches!(trusted.check(Some(b"x"), SUMS), Err(Error::Unreadable(_))));
        // The comment is signed, too.
        let text = String::from_utf8(signature.clone()).unwrap().replace("format=1", "format=2");
        assert!(matches!(trusted.check(Some(text.as_bytes()), SUMS), Err(Error::Forged(_))));
        let both = trust(&[&theirs.public_key(), &ours.public_key()]);
        assert_eq!(both.check(Some(&signature), SUMS).unwrap().unwrap().key, ours.id());
        assert_eq!(TrustedKeys::default().check(None, SUMS).unwrap(), None);
    }

    #[test]
    fn any_byte_of_a_signature_may_be_anything() {
        let key = SigningKey::generate().unwrap();
        let (trusted, signature) = (trust(&[&key.public_key()]), sign(&key));
        let last_comment = signature.iter().position(|&byte| byte == b'\n').unwrap();
        for at in 0..signature.len() {
            let cut = trusted.check(Some(&signature[..at]), SUMS);
            assert!(cut.is_err() || at + 1 >= signature.len(), "cut at {at}");
            let mut flipped = signature.clone();
            flipped[at] ^= 1;
            let flipped = trusted.check(Some(&flipped), SUMS);
            // The untrusted comment means nothing; the base64 of what ends in the middle of a digit has spare bits.
            assert!(flipped.is_err() || at <= last_comment || at + 1 == signature.len(), "flipped at {at}");
        }
    }

    #[test]
    fn keys_come_from_files_and_names() {
        let folder = tempfile::tempdir().unwrap();
        let key = SigningKey::generate().unwrap();
        let (secret, public) = (folder.path().join("sign.key"), folder.path().join("sign.pub"));
        fs::write(&secret, key.to_file().unwrap().expose()).unwrap();
        fs::write(&public, super::super::public_key_of(&secret).unwrap()).unwrap();
        assert!(fs::read_to_string(&public).unwrap().ends_with(&format!("{}\n", key.public_key())));
        let names = SigningKeyNames { key: Some(secret.clone()), password_file: None };
        let read = names.read().unwrap().unwrap();
        assert_eq!(read.public_key(), key.public_key());
        assert!(!format!("{read:?}").contains(&key.to_file().unwrap().expose()[60..]));
        assert_eq!(trust(&[public.to_str().unwrap()]), trust(&[&key.public_key()]));

        let error = |name: &Path| TrustedKeys::read(&[name.to_str().unwrap().to_owned()]).unwrap_err();
        assert!(matches!(error(&secret), Error::SecretAsTrusted(_)));
        assert!(matches!(error(&folder.path().join("absent")), Error::NotAPublicKey(_)));
        let comment = "untrusted comment: minisign encrypted secret key\n";
        let long = "x".repeat(150);
        for text in [format!("{comment}RW{}\n", &long[..98]), format!("RW{long}\n"), format!("{comment}{long}\n")] {
            fs::write(&public, &text).unwrap();
            assert!(matches!(error(&public), Error::NotPublicKeys(_)), "{text}");
        }
        fs::write(&public, "# none\n").unwrap();
        assert!(matches!(error(&public), Error::NotPublicKeys(_)));
        let names = SigningKeyNames { key: Some(public), password_file: None };
        assert!(matches!(names.read(), Err(Error::NotASigningKey { .. })));
        let text = key.to_file().unwrap().expose().to_owned();
        for at in [text.len() - 80, text.len() - 20] {
            let mut damaged = text.clone().into_bytes();
            damaged[at] = if damaged[at] == b'A' { b'B' } else { b'A' };
            fs::write(&secret, damaged).unwrap();
            let names = SigningKeyNames { key: Some(secret.clone()), password_file: None };
            let read = names.read();
            // The checksum at the end is not looked at: minisign leaves it out.
            assert!(at + 20 == text.len() || matches!(read, Err(Error::NotASigningKey { .. })), "{at}: {read:?}");
        }
        fs::write(&secret, "untrusted comment: x\nRWQAAEIy\n").unwrap();
        let names = SigningKeyNames { key: Some(secret), password_file: None };
        assert!(matches!(names.read(), Err(Error::NotASigningKey { .. })));
    }
}
