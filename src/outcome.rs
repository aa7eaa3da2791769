//! What a job returns when it ran to its end: told to people, to programs, and as an exit code.

use serde::Serialize;

use crate::failure::Class;

/// The result of a job. Its JSON is the `outcome` of the event `finished` (`docs/json.md`).
pub trait Outcome: Serialize {
    /// `None`: done and proved. Otherwise why the exit code is not 0, e.g. [`Class::Incomplete`] for a bundle that was
    /// written and is not closed.
    fn class(&self) -> Option<Class>;

    /// What people read at the end, on standard error: a line or some.
    fn summary(&self) -> String;

    /// What the command was asked to print, on standard output; `None` where its work lies elsewhere. With `--json` the
    /// event holds it instead.
    fn product(&self) -> Option<String> {
        None
    }
}
