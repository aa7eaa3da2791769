//! What a job returns when it ran to its end: told to people, to programs, and as an exit code.

use serde::Serialize;

use crate::evidence::Contents;
use crate::failure::Class;
use crate::visible::one_line;

/// The result of a job. Its JSON is the `outcome` of the event `finished` (`docs/json.md`).
pub trait Outcome: Serialize {
    /// `None`: done and proved. Otherwise why the exit code is not 0, e.g. [`Class::Incomplete`] for a bundle that was
    /// written and is not closed.
    fn class(&self) -> Option<Class>;

    /// What people read at the end, on standard error: a line or some. Names from outside are put into one line.
    fn summary(&self) -> String;

    /// What the bundle holds, for the report; `None` where the manifest was not read.
    fn contents(&self) -> Option<&Contents> {
        None
    }

    /// What the command was asked to print, on standard output; `None` where its work lies elsewhere. With `--json` the
    /// event holds it instead.
    fn product(&self) -> Option<String> {
        None
    }
}

/// Text for people: a name and a value a line, in two columns.
#[derive(Debug, Default)]
pub(crate) struct Facts(String);

impl Facts {
    /// Adds a line; an empty name goes on with the one before.
    pub(crate) fn add(&mut self, name: &str, value: impl std::fmt::Display) {
        use std::fmt::Write as _;
        // Writing to a string has no way to fail.
        let _ = writeln!(self.0, "{name:<12} {}", one_line(&value.to_string()));
    }

    pub(crate) fn into_text(self) -> String {
        self.0
    }
}
