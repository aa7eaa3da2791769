//! The key slot: the bundle's key, encrypted to the user's recipients, in 16 KiB that a change of recipients rewrites.
//!
//! A slot is two entries, `bundle.key.age` and `PADDING`, whose headers, contents and padding together always take the
//! same room. It lies in the bundle twice, and outside of `BLAKE3SUMS`; the TRAILER holds its hash (SPEC §5).

use std::io::{Read, Write};

use age::secrecy::ExposeSecret as _;
use age::{DecryptError, Identity, Recipient, x25519};
use uuid::Uuid;

use crate::age_file::AgeFile;
use crate::container::{BLOCK, padding};
use crate::error::{Error, Result};
use crate::seal::BundleKey;

/// A slot takes a multiple of this many bytes.
pub const SLOT: u64 = 16 * 1024;
/// The most that a slot may take: some thousand recipients.
pub const SLOT_MAX: u64 = 1 << 20;
/// scrypt's work factor (log2 N) for a passphrase.
pub const WORK_FACTOR: u8 = 18;
/// The largest work factor that a reader accepts: 1 GiB of memory.
pub const MAX_WORK_FACTOR: u8 = 20;

/// Who can open a bundle.
pub enum Lock {
    /// Any one of these recipients.
    Recipients(Vec<Box<dyn Recipient + Send>>),
    /// Whoever knows the passphrase.
    Passphrase(age::secrecy::SecretString),
}

/// What opens a bundle.
pub enum Unlock {
    /// Any one of these identities.
    Identities(Vec<Box<dyn Identity>>),
    /// The passphrase.
    Passphrase(age::secrecy::SecretString),
}

/// The contents of `bundle.key.age` and of `PADDING`.
pub(crate) struct KeySlot {
    pub(crate) key: Vec<u8>,
    pub(crate) padding: Vec<u8>,
}

impl KeySlot {
    pub(crate) fn seal(key: &BundleKey, bundle: Uuid, created: &str, lock: &Lock) -> Result<Self> {
        let secret = key.identity().to_string();
        let text = format!("# pacharc bundle {bundle}\n# created: {created}\n{}\n", secret.expose_secret());
        let encryptor = match lock {
            Lock::Recipients(recipients) => {
                age::Encryptor::with_recipients(recipients.iter().map(|r| r.as_ref() as &dyn Recipient))
            }
            Lock::Passphrase(passphrase) => {
                let mut recipient = age::scrypt::Recipient::new(passphrase.clone());
                recipient.set_work_factor(WORK_FACTOR);
                age::Encryptor::with_recipients(std::iter::once(&recipient as &dyn Recipient))
            }
        };
        let encryptor = encryptor.map_err(|e| Error::Key(e.to_string()))?;
        let mut sealing = encryptor.wrap_output(Vec::new()).map_err(Error::Write)?;
        sealing.write_all(text.as_bytes()).map_err(Error::Write)?;
        let sealed = sealing.finish().map_err(Error::Write)?;
        let taken = 2 * BLOCK + sealed.len() as u64 + padding(sealed.len() as u64);
        let room = taken.next_multiple_of(SLOT);
        if room > SLOT_MAX {
            let why = format!("the bundle's key may take at most {SLOT_MAX} bytes");
            return Err(Error::TooLarge { what: "the list of recipients".into(), why });
        }
        let padding = vec![0; usize::try_from(room - taken).unwrap_or_default()];
        Ok(Self { key: sealed, padding })
    }
}

/// Opens the content of a `bundle.key.age`: which bundle it is of, and its key.
pub(crate) fn open(sealed: &[u8], offset: u64, unlock: &Unlock) -> Result<(Uuid, BundleKey)> {
    let damaged = |what: &str| Error::damaged("bundle.key.age", offset, what);
    let most = usize::try_from(SLOT_MAX).unwrap_or(usize::MAX);
    let decryptor = AgeFile::new(sealed, most).and_then(age::Decryptor::new_buffered);
    let decryptor = decryptor.map_err(|e| damaged(&format!("it is not an age file ({e})")))?;
    let opened = match unlock {
        Unlock::Identities(_) if decryptor.is_scrypt() => {
            return Err(Error::KindOfKey("this bundle is locked with a passphrase, not to recipients"));
        }
        Unlock::Passphrase(_) if !decryptor.is_scrypt() => {
            return Err(Error::KindOfKey("this bundle is locked to recipients, not with a passphrase"));
        }
        Unlock::Identities(identities) => decryptor.decrypt(identities.iter().map(AsRef::as_ref)),
        Unlock::Passphrase(passphrase) => {
            let mut identity = age::scrypt::Identity::new(passphrase.clone());
            identity.set_max_work_factor(MAX_WORK_FACTOR);
            decryptor.decrypt(std::iter::once(&identity as &dyn Identity))
        }
    };
    let mut opened = opened.map_err(|e| match (e, unlock) {
        (DecryptError::InvalidMac, _) => damaged("its header was altered"),
        (DecryptError::NoMatchingKeys, _) => Error::WrongIdentity,
        (DecryptError::DecryptionFailed | DecryptError::KeyDecryptionFailed, Unlock::Passphrase(_)) => {
            Error::WrongPassphrase
        }
        (e, _) => Error::Key(e.to_string()),
    })?;
    let mut text = String::new();
    let read = opened.by_ref().take(4096).read_to_string(&mut text);
    read.map_err(|e| damaged(&format!("it does not decrypt ({e})")))?;
    let bundle = text.lines().next().and_then(|line| line.strip_prefix("# pacharc bundle ")?.parse().ok());
    let bundle = bundle.ok_or_else(|| damaged("it does not name its bundle"))?;
    let secret = text.lines().find(|line| !line.starts_with('#')).unwrap_or_default();
    let identity: x25519::Identity = secret.parse().map_err(|_| damaged("it holds no age identity"))?;
    Ok((bundle, BundleKey::from_identity(identity)))
}

/// Which kinds of recipients a `bundle.key.age` names, in its order: `X25519`, `scrypt`, `ssh-ed25519`, …
pub(crate) fn kinds(sealed: &[u8]) -> Vec<String> {
    let head = sealed.get(..sealed.len().min(usize::try_from(SLOT_MAX).unwrap_or_default())).unwrap_or_default();
    head.split(|&b| b == b'\n')
        .take_while(|line| !line.starts_with(b"---"))
        .filter_map(|line| std::str::from_utf8(line).ok()?.strip_prefix("-> "))
        .filter_map(|stanza| stanza.split(' ').next())
        // A client may add stanzas of no meaning, whose names end so (age specification, "grease").
        .filter(|kind| !kind.ends_with("-grease"))
        // Nobody has checked them yet, and they are printed.
        .filter(|kind| kind.bytes().all(|b| b.is_ascii_graphic()))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_have_one_size_and_open_for_their_recipients_alone() {
        let key = BundleKey::generate();
        let (mine, other) = (x25519::Identity::generate(), x25519::Identity::generate());
        let uuid = Uuid::new_v4();
        for count in [1, 2, 30] {
            let recipients = (0..count).map(|_| Box::new(mine.to_public()) as Box<dyn Recipient + Send>).collect();
            let slot = KeySlot::seal(&key, uuid, "now", &Lock::Recipients(recipients)).unwrap();
            let size = |n: usize| 512 + (n as u64).next_multiple_of(512);
            assert_eq!(size(slot.key.len()) + size(slot.padding.len()), SLOT);
            assert_eq!(kinds(&slot.key), vec!["X25519"; count]);

            let unlock = |identity: &x25519::Identity| Unlock::Identities(vec![Box::new(identity.clone())]);
            let (bundle, opened) = open(&slot.key, 0, &unlock(&mine)).unwrap();
            assert_eq!(bundle, uuid);
            assert_eq!(opened.identity().to_string().expose_secret(), key.identity().to_string().expose_secret());
            assert!(matches!(open(&slot.key, 0, &unlock(&other)), Err(Error::WrongIdentity)));
            let passphrase = Unlock::Passphrase("x".to_owned().into());
            assert!(matches!(open(&slot.key, 0, &passphrase), Err(Error::KindOfKey(_))));
        }
    }

    #[test]
    fn what_was_altered_is_damage_and_no_wrong_key() {
        let mine = x25519::Identity::generate();
        let lock = Lock::Recipients(vec![Box::new(mine.to_public())]);
        let slot = KeySlot::seal(&BundleKey::generate(), Uuid::nil(), "now", &lock).unwrap();
        let unlock = Unlock::Identities(vec![Box::new(mine)]);
        let mac = slot.key.windows(5).position(|window| window == b"\n--- ").unwrap();
        for place in [0, mac + 5, slot.key.len() - 1] {
            let mut altered = slot.key.clone();
            altered[place] = if altered[place] == b'A' { b'B' } else { b'A' };
            assert!(matches!(open(&altered, 7, &unlock), Err(Error::Damaged { offset: 7, .. })), "byte {place}");
        }
    }

    #[test]
    fn a_slot_has_room_for_a_megabyte() {
        let mine = x25519::Identity::generate().to_public();
        let seal = |count: usize| {
            let recipients = (0..count).map(|_| Box::new(mine.clone()) as Box<dyn Recipient + Send>).collect();
            KeySlot::seal(&BundleKey::generate(), Uuid::nil(), "now", &Lock::Recipients(recipients))
        };
        // A recipient takes some 98 bytes.
        let slot = seal(10_600).unwrap();
        assert!(slot.key.len() as u64 > SLOT_MAX - SLOT);
        assert!(matches!(seal(10_800), Err(Error::TooLarge { .. })));
    }

    #[test]
    fn a_slot_full_of_stanzas_is_parsed_once() {
        let unlock = Unlock::Identities(vec![Box::new(x25519::Identity::generate())]);
        // Nobody needs a key to make it. Parsed anew with each of its lines it takes an hour.
        let stanzas = b"-> a\n\n".repeat(usize::try_from(SLOT_MAX).unwrap() / 6 - 100);
        let begun = std::time::Instant::now();
        let slot = [&b"age-encryption.org/v1\n"[..], &stanzas].concat();
        assert!(matches!(open(&slot, 7, &unlock), Err(Error::Damaged { offset: 7, .. })));
        let slot = [&slot[..], b"--- ", &[b'A'; 43], b"\n", &[0; 100]].concat();
        assert!(matches!(open(&slot, 7, &unlock), Err(Error::WrongIdentity)));
        assert!(begun.elapsed() < std::time::Duration::from_secs(60), "{:?}", begun.elapsed());
    }

    #[test]
    fn a_passphrase_and_identities_are_told_apart() {
        // A work factor of 2^2, which costs nothing.
        let passphrase = || "right".to_owned().into();
        let mut recipient = age::scrypt::Recipient::new(passphrase());
        recipient.set_work_factor(2);
        let encryptor = age::Encryptor::with_recipients(std::iter::once(&recipient as &dyn Recipient)).unwrap();
        let mut sealing = encryptor.wrap_output(Vec::new()).unwrap();
        let secret = BundleKey::generate().identity().to_string();
        let text = format!("# pacharc bundle {}\n{}\n", Uuid::nil(), secret.expose_secret());
        sealing.write_all(text.as_bytes()).unwrap();
        let sealed = sealing.finish().unwrap();
        assert_eq!(open(&sealed, 0, &Unlock::Passphrase(passphrase())).unwrap().0, Uuid::nil());
        let identities = Unlock::Identities(vec![Box::new(x25519::Identity::generate())]);
        assert!(matches!(open(&sealed, 0, &identities), Err(Error::KindOfKey(_))));
    }

    #[test]
    fn a_wrong_passphrase_is_told_from_damage() {
        let uuid = Uuid::new_v4();
        let lock = Lock::Passphrase("right".to_owned().into());
        let slot = KeySlot::seal(&BundleKey::generate(), uuid, "now", &lock).unwrap();
        assert!(open(&slot.key, 0, &Unlock::Passphrase("right".to_owned().into())).is_ok());
        let wrong = open(&slot.key, 0, &Unlock::Passphrase("wrong".to_owned().into()));
        assert!(matches!(wrong, Err(Error::WrongPassphrase)));
    }
}
