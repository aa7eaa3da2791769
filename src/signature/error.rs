//! What can be wrong with a signature, and with the keys that make and check it.

use std::path::PathBuf;

use crate::failure::{Class, Explain};
use crate::keys;

/// A signature that does not hold, or a key that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of keys, or of a password.
    #[error(transparent)]
    File(#[from] keys::Error),
    /// Neither a key nor a file.
    #[error("`{0}` is neither a public key of minisign's nor a file that there is")]
    NotAPublicKey(String),
    /// A file without a public key.
    #[error("{} holds no public key of minisign's", .0.display())]
    NotPublicKeys(PathBuf),
    /// A secret key where a public one belongs.
    #[error("{} holds a secret key, not a public one", .0.display())]
    SecretAsTrusted(PathBuf),
    /// A file without a secret key.
    #[error("{} holds no secret key of minisign's: {problem}", path.display())]
    NotASigningKey {
        /// The file.
        path: PathBuf,
        /// What is wrong, without the content.
        problem: String,
    },
    /// The secret key is encrypted, and nobody can be asked.
    #[error("{} is encrypted with a password, and there is no terminal to ask for it", .0.display())]
    NoPassword(PathBuf),
    /// The password is wrong.
    #[error("the password of {} is wrong", .0.display())]
    WrongPassword(PathBuf),
    /// A key could not be made.
    #[error("cannot make a key: {0}")]
    Generate(String),
    /// The bundle has no signature.
    #[error("this bundle is not signed, and a signature by a trusted key is demanded")]
    Unsigned,
    /// What stands in the signature's place is none.
    #[error("the signature of this bundle cannot be read: {0}")]
    Unreadable(String),
    /// Signed by somebody else.
    #[error("this bundle is signed by another key than those that are trusted")]
    Untrusted,
    /// A signature that pretends to be a trusted key's.
    #[error("the signature of this bundle is forged: it names the trusted key {0}, and does not fit")]
    Forged(String),
    /// The sums could not be read once more.
    #[error("could not read the sums of the bundle")]
    Sums(#[source] std::io::Error),
}

impl Explain for Error {
    fn class(&self) -> Class {
        match self {
            Self::File(error) => error.class(),
            Self::NotAPublicKey(_) => Class::Usage,
            Self::Generate(_) | Self::Sums(_) => Class::Other,
            _ => Class::Credentials,
        }
    }

    fn advice(&self) -> Option<String> {
        let advice = match self {
            Self::File(error) => return error.advice(),
            Self::NotAPublicKey(_) | Self::NotPublicKeys(_) => {
                "Give minisign.pub, or the line in it that begins with RW."
            }
            Self::SecretAsTrusted(_) => "Give its public half: `pacharc keygen -y FILE` prints it.",
            Self::NotASigningKey { .. } => "Make one with `pacharc keygen --sign -o sign.key`, or with `minisign -G`.",
            Self::NoPassword(_) => "Name a file whose first line is the password: --sign-password-file FILE.",
            Self::WrongPassword(_) => "Check the file that --sign-password-file names: its first line is the password.",
            Self::Unsigned => {
                "Somebody may have put it in the place of yours. If it was never signed, leave --trusted-key out and \
                 name its id with --expect-id."
            }
            Self::Unreadable(_) | Self::Untrusted | Self::Forged(_) => {
                "Somebody may have put it in the place of yours: do not use it before you know who wrote it."
            }
            Self::Generate(_) | Self::Sums(_) => return None,
        };
        Some(advice.to_owned())
    }
}
