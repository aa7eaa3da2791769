//! What can be wrong with the command line and the configuration, beyond what clap itself sees.

use std::path::PathBuf;

use crate::failure::{Class, Explain};

/// A wrong use. All of it leads to exit code 2.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// What clap says; it has printed itself.
    #[error("{}", first_line(.0))]
    CommandLine(clap::Error),
    /// Something is not given.
    #[error("{what} is not given")]
    Missing {
        /// The flag.
        what: &'static str,
        /// How to give it.
        advice: &'static str,
    },
    /// Two flags that exclude each other.
    #[error("{one} and {other} exclude each other")]
    Conflict {
        /// One flag.
        one: &'static str,
        /// The other one.
        other: &'static str,
    },
    /// A flag that makes sense with another one alone.
    #[error("{what} needs {needed}")]
    Needs {
        /// The flag.
        what: &'static str,
        /// The other one.
        needed: &'static str,
    },
    /// A value that cannot be used here.
    #[error("{flag} {value}: {problem}")]
    Value {
        /// The flag.
        flag: &'static str,
        /// Its value; never of a secret.
        value: String,
        /// Why not.
        problem: String,
    },
    /// Encrypted bytes would fill the screen.
    #[error("standard output is a terminal, which cannot hold a bundle")]
    TerminalOutput,
    /// The configuration file cannot be read.
    #[error("cannot read the configuration file {}", path.display())]
    ConfigUnreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The configuration file is not TOML. The line itself is not repeated: it may hold a password.
    #[error("{}, line {line}: {problem}", path.display())]
    ConfigSyntax {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What the parser says.
        problem: String,
    },
    /// A key that no command has.
    #[error("unknown key `{key}` in {}", path.display())]
    ConfigKey {
        /// The file.
        path: PathBuf,
        /// The key, with its table.
        key: String,
        /// One that is nearly so.
        similar: Option<String>,
    },
    /// A value that does not fit its key.
    #[error("key `{key}` in {}: {problem}", path.display())]
    ConfigValue {
        /// The file.
        path: PathBuf,
        /// The key, with its table.
        key: String,
        /// Why not; without the value where it is secret.
        problem: String,
    },
    /// The file for events cannot be made.
    #[error("cannot write {}", path.display())]
    JsonFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl Explain for Error {
    fn class(&self) -> Class {
        Class::Usage
    }

    fn advice(&self) -> Option<String> {
        let advice = match self {
            Self::Missing { advice, .. } => *advice,
            Self::Conflict { .. } => "Leave one of them out; the environment (PACHARC_…) and --config count, too.",
            Self::TerminalOutput => "Name a file, or let another program read it: `pacharc backup … -o - | …`.",
            Self::ConfigKey { similar: Some(similar), .. } => return Some(format!("Is `{similar}` meant?")),
            Self::ConfigKey { similar: None, .. } => "Keys are the long names of flags; docs/flags.md has them all.",
            Self::Needs { what, needed } => return Some(format!("Add {needed}, or leave {what} out.")),
            _ => return None,
        };
        Some(advice.to_owned())
    }
}

fn first_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}
