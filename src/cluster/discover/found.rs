//! A fact, and where it was found: nobody should have to guess why pacharc reads from where it reads.

use serde::Serialize;

use crate::secret::Secret;

/// A value and its origin, e.g. `Deployment/pachd env POSTGRES_HOST`.
#[derive(Clone, Debug, Serialize)]
pub struct Found<T> {
    /// The value.
    pub value: T,
    /// The object, and the place in it.
    pub found_in: String,
}

impl<T> Found<T> {
    pub(super) fn new(value: T, found_in: impl Into<String>) -> Self {
        Self { value, found_in: found_in.into() }
    }

    /// The same place, another form of the value.
    pub(super) fn map<U>(self, change: impl FnOnce(T) -> U) -> Found<U> {
        Found { value: change(self.value), found_in: self.found_in }
    }
}

impl Found<Secret> {
    /// The value, which is known to be none that must be kept secret.
    pub(super) fn plain(self) -> Found<String> {
        self.map(|secret| secret.expose().to_owned())
    }

    pub(super) fn text(&self) -> &str {
        self.value.expose()
    }
}
