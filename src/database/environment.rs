//! The part of the process's environment that decides about connections, taken once so that tests can make their own.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::PathBuf;

use super::Error;

/// A snapshot of environment variables, and the name of the operating system's user.
#[derive(Clone, Default)]
pub struct Environment {
    variables: BTreeMap<OsString, OsString>,
    os_user: Option<String>,
}

impl Environment {
    /// The environment of this process.
    #[must_use]
    pub fn of_process() -> Self {
        Self { variables: std::env::vars_os().collect(), os_user: whoami::username().ok() }
    }

    /// Sets the operating system's user, who is the PostgreSQL user where none is named.
    #[must_use]
    pub fn with_os_user(mut self, user: impl Into<String>) -> Self {
        self.os_user = Some(user.into());
        self
    }

    pub(super) fn os_user(&self) -> Option<&str> {
        self.os_user.as_deref()
    }

    /// The value of `name` as it is.
    pub(super) fn os(&self, name: &str) -> Option<&OsStr> {
        self.variables.get(OsStr::new(name)).map(OsString::as_os_str)
    }

    /// The value of `name` as text; an empty one counts as unset, as with libpq.
    pub(super) fn text(&self, name: &str) -> Result<Option<&str>, Error> {
        let Some(value) = self.os(name) else { return Ok(None) };
        match value.to_str() {
            Some("") => Ok(None),
            Some(text) => Ok(Some(text)),
            None => Err(Error::Parameter {
                name: name.to_owned(),
                origin: "environment".to_owned(),
                problem: "its value is not UTF-8".to_owned(),
            }),
        }
    }

    /// The home folder, where libpq keeps its default files.
    pub(super) fn home(&self) -> Option<PathBuf> {
        self.os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from)
    }
}

impl<K: Into<OsString>, V: Into<OsString>> FromIterator<(K, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(variables: I) -> Self {
        let variables = variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        Self { variables, os_user: None }
    }
}

/// Names alone: values may be secret.
impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.variables.keys()).finish()
    }
}
