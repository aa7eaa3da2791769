//! What can be wrong with keys. No variant ever holds the text of a secret one.

use std::io;
use std::path::PathBuf;

use crate::failure::{Class, Explain};

/// A key that cannot be used, or none at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A bundle is always encrypted.
    #[error("no recipient: who shall be able to open the bundle?")]
    NoRecipient,
    /// Nothing to open the bundle with.
    #[error("no identity: the bundle is encrypted")]
    NoIdentity,
    /// age allows one or the other.
    #[error("a bundle is locked with a passphrase or to recipients, not both")]
    PassphraseAndRecipients,
    /// One of them would never be used.
    #[error("--identity and --passphrase-file exclude each other")]
    PassphraseAndIdentities,
    /// A string that is no recipient.
    #[error("`{0}` is not a recipient")]
    NotARecipient(String),
    /// A secret key where a recipient belongs.
    #[error("a secret key was given as a recipient")]
    SecretAsRecipient,
    /// An ssh key of a kind that age does not support.
    #[error("the ssh key {0} cannot be used: {1}")]
    SshKey(String, String),
    /// A line that is no recipient; it is not repeated, since it may be secret.
    #[error("line {line} of {} is not a recipient", path.display())]
    NotARecipientLine {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// Not in the syntax of identities.
    #[error("{} holds no identity that can be used: {problem}", path.display())]
    NotIdentities {
        /// The file.
        path: PathBuf,
        /// What is wrong, without the content.
        problem: String,
    },
    /// A file without a key.
    #[error("{} holds no key", .0.display())]
    Empty(PathBuf),
    /// A passphrase file whose first line is empty.
    #[error("the first line of {} is empty; it should be the passphrase", .0.display())]
    EmptyPassphrase(PathBuf),
    /// Not UTF-8.
    #[error("{} is not text in UTF-8", .0.display())]
    NotText(PathBuf),
    /// Far larger than any key.
    #[error("{} is too large for a file of keys", .0.display())]
    TooLarge(PathBuf),
    /// Cannot be opened or read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The identity file is encrypted, and there is no terminal to ask for its passphrase.
    #[error("{} is encrypted with a passphrase, and there is no terminal to ask for it", .0.display())]
    NoTerminal(PathBuf),
    /// The passphrase of an identity file is wrong.
    #[error("the passphrase of {} is wrong", .0.display())]
    WrongPassphrase(PathBuf),
    /// The plugin's program is not on the PATH.
    #[error("the age plugin `{0}` is not installed")]
    PluginMissing(String),
}

impl Explain for Error {
    fn class(&self) -> Class {
        match self {
            Self::NoRecipient
            | Self::PassphraseAndRecipients
            | Self::PassphraseAndIdentities
            | Self::NotARecipient(_)
            | Self::SecretAsRecipient
            | Self::SshKey(..) => Class::Usage,
            Self::PluginMissing(_) => Class::Unreachable,
            _ => Class::Credentials,
        }
    }

    fn advice(&self) -> Option<String> {
        let advice = match self {
            Self::NoRecipient => {
                "Make a key with `pacharc keygen -o key.txt`, keep that file safe and apart from the bundle, and give the \
                 recipient that it prints with --recipient age1… ."
            }
            Self::NoIdentity => "Name the file with the secret key: --identity key.txt, or --passphrase-file FILE.",
            Self::PassphraseAndRecipients => {
                "Leave out either --passphrase-file, or --recipient and --recipients-file."
            }
            Self::PassphraseAndIdentities => "Leave out the one that does not belong to this bundle.",
            Self::NotARecipient(_) | Self::NotARecipientLine { .. } => {
                "A recipient begins with age1, ssh-ed25519 or ssh-rsa."
            }
            Self::SecretAsRecipient => {
                "Give its public half, which begins with age1: `pacharc keygen -y FILE` prints it. Other users of this \
                 machine may have seen the secret key: make a new one."
            }
            Self::SshKey(..) => "Use ssh-ed25519, ssh-rsa of 2048 to 4096 bits, or an age key.",
            Self::NotIdentities { .. } | Self::Empty(_) => {
                "An identity file has a line that begins with AGE-SECRET-KEY-1 or AGE-PLUGIN-, or is a private ssh key."
            }
            Self::Unreadable { .. } => "Check the path and its permissions.",
            Self::NoTerminal(_) => "Run this in a terminal, or decrypt the identity file first with `age -d`.",
            Self::PluginMissing(name) => {
                return Some(format!("Install the program age-plugin-{name}, and see that it is on the PATH."));
            }
            Self::EmptyPassphrase(_) | Self::NotText(_) | Self::TooLarge(_) | Self::WrongPassphrase(_) => return None,
        };
        Some(advice.to_owned())
    }
}
