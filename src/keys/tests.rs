//! Keys as users have them: files, strings, mistakes.

use std::path::PathBuf;

use jiff::Timestamp;

use super::*;
use crate::failure::{Class, Explain as _};

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }
}

const SSH_PUBLIC: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHsKLqeplhpW+uObz5dvMgjz1OxfM/XXUB+VHtZ6isGN alice@rust";

fn lock_error(names: &LockNames) -> Error {
    names.read().err().unwrap()
}

fn unlock_error(names: &UnlockNames) -> Error {
    names.read().err().unwrap()
}

fn recipients(strings: &[&str]) -> LockNames {
    LockNames { recipients: strings.iter().map(|&s| s.to_owned()).collect(), ..LockNames::default() }
}

#[test]
fn a_new_key_opens_what_its_recipient_locks() {
    let folder = Folder::new();
    let key = KeyPair::generate(Timestamp::from_second(1_700_000_000).unwrap());
    assert!(key.file.expose().starts_with("# created: 2023-11-14T22:13:20Z\n# public key: age1"));
    let path = folder.file("key.txt", key.file.expose());
    assert_eq!(recipients_of(&path).unwrap(), format!("{}\n", key.recipient));

    let Lock::Recipients(to) = recipients(&[&key.recipient]).read().unwrap() else { panic!("a passphrase") };
    let encryptor = age::Encryptor::with_recipients(to.iter().map(|r| r.as_ref() as _)).unwrap();
    let mut sealed = Vec::new();
    let mut writer = encryptor.wrap_output(&mut sealed).unwrap();
    std::io::Write::write_all(&mut writer, b"text").unwrap();
    writer.finish().unwrap();

    let names = UnlockNames { identities: vec![path], ..UnlockNames::default() };
    let Unlock::Identities(with) = names.read().unwrap() else { panic!("a passphrase") };
    let decryptor = age::Decryptor::new_buffered(sealed.as_slice()).unwrap();
    let mut opened = decryptor.decrypt(with.iter().map(AsRef::as_ref)).unwrap();
    assert_eq!(std::io::read_to_string(&mut opened).unwrap(), "text");
}

#[test]
fn a_file_of_recipients_may_have_comments_and_ssh_keys() {
    let folder = Folder::new();
    let (one, two) = (KeyPair::generate(Timestamp::now()), KeyPair::generate(Timestamp::now()));
    let path = folder.file("r", format!("# team\n\n{}\r\n{SSH_PUBLIC}\n  {}\n", one.recipient, two.recipient));
    let names = LockNames { recipients_files: vec![path], ..LockNames::default() };
    let Lock::Recipients(to) = names.read().unwrap() else { panic!("a passphrase") };
    assert_eq!(to.len(), 3);
}

#[test]
fn one_recipient_gets_a_hint_and_two_do_not() {
    let key = KeyPair::generate(Timestamp::now()).recipient;
    assert!(hint(&recipients(&[&key]).read().unwrap()).unwrap().contains("second"));
    assert_eq!(hint(&recipients(&[&key, SSH_PUBLIC]).read().unwrap()), None);
}

#[test]
fn a_passphrase_is_the_first_line_of_its_file() {
    let folder = Folder::new();
    let path = folder.file("p", "two words \r\nnot this\n");
    let names = LockNames { passphrase_file: Some(path.clone()), ..LockNames::default() };
    let Lock::Passphrase(passphrase) = names.read().unwrap() else { panic!("recipients") };
    assert_eq!(Secret::from(age::secrecy::ExposeSecret::expose_secret(&passphrase).to_owned()).expose(), "two words ");

    let empty = folder.file("e", "\nlater\n");
    let names = LockNames { passphrase_file: Some(empty), ..LockNames::default() };
    assert!(matches!(lock_error(&names), Error::EmptyPassphrase(_)));

    let key = KeyPair::generate(Timestamp::now()).recipient;
    let both = LockNames { passphrase_file: Some(path), ..recipients(&[&key]) };
    assert!(matches!(lock_error(&both), Error::PassphraseAndRecipients));
}

#[test]
fn no_recipient_says_how_to_make_one() {
    let error = lock_error(&LockNames::default());
    assert_eq!(error.class(), Class::Usage);
    assert!(error.advice().unwrap().contains("pacharc keygen"));
}

#[test]
fn a_secret_key_is_never_repeated() {
    let key = KeyPair::generate(Timestamp::now());
    let secret = key.file.expose().lines().last().unwrap().to_owned();
    let error = lock_error(&recipients(&[&secret]));
    assert!(matches!(error, Error::SecretAsRecipient));

    let folder = Folder::new();
    let path = folder.file("r", key.file.expose());
    let error = lock_error(&LockNames { recipients_files: vec![path], ..LockNames::default() });
    assert!(matches!(error, Error::NotARecipientLine { line: 3, .. }));
    assert!(!format!("{error} {error:?}").contains(&secret));

    // One letter less: no longer a key, still nothing to print.
    let path = folder.file("i", secret.get(..secret.len() - 1).unwrap());
    let error = unlock_error(&UnlockNames { identities: vec![path], ..UnlockNames::default() });
    assert_eq!(error.class(), Class::Credentials);
    assert!(!format!("{error} {error:?}").contains(secret.get(20..40).unwrap()));
}

#[test]
fn what_is_no_key_is_told_by_its_kind() {
    let folder = Folder::new();
    assert!(matches!(lock_error(&recipients(&["age1nonsense"])), Error::NotARecipient(_)));
    let ecdsa = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBMi0 a@b";
    assert_eq!(lock_error(&recipients(&[ecdsa])).class(), Class::Usage);

    let identities = |path| UnlockNames { identities: vec![path], ..UnlockNames::default() };
    let error = unlock_error(&identities(folder.0.path().join("absent")));
    assert!(matches!(error, Error::Unreadable { .. }));
    assert_eq!(error.class().exit_code(), 6);
    assert!(matches!(unlock_error(&identities(folder.file("e", "# nothing\n"))), Error::Empty(_)));
    let public = KeyPair::generate(Timestamp::now()).recipient;
    assert!(matches!(unlock_error(&identities(folder.file("p", public))), Error::NotIdentities { .. }));
    let large = folder.file("l", vec![b'#'; usize::try_from(FILE_LIMIT).unwrap() + 1]);
    assert!(matches!(unlock_error(&identities(large)), Error::TooLarge(_)));
}
