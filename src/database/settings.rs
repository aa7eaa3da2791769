//! `settings.json`, the first file of each database in the tree: what must be known before its SQL can be run.

use pacharc_format::manifest::{DatabaseKind, DatabaseProperties, Postgres};
use serde::{Deserialize, Serialize};

use super::SESSION_SETTINGS;

/// What `settings.json` holds; the manifest repeats it, but comes last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DumpSettings {
    /// The database's name at the source.
    pub database: String,
    /// What the database is to Pachyderm.
    pub kind: DatabaseKind,
    /// The number of the last migration of its schema.
    pub schema_version: Option<i64>,
    /// Encoding, locale, settings, extensions.
    pub properties: DatabaseProperties,
    /// The settings under which data was dumped and fingerprints were taken.
    pub session: Vec<(String, String)>,
    /// The server it came from.
    pub server: Postgres,
    /// Version of the pg_dump that wrote the SQL.
    pub pg_dump: String,
}

/// The settings under which a database of this encoding is dumped.
///
/// The dump is in UTF-8, as our own sessions are, so that names and fingerprints agree; only a database without an
/// encoding is dumped as it is, since its bytes need not be text at all.
pub(super) fn session(encoding: &str) -> Vec<(String, String)> {
    let own = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
    let client_encoding = ("client_encoding".to_owned(), client_encoding(encoding).to_owned());
    std::iter::once(client_encoding).chain(SESSION_SETTINGS.iter().map(own)).collect()
}

/// The encoding of the dump of a database of this encoding.
pub(super) fn client_encoding(encoding: &str) -> &'static str {
    if encoding == "SQL_ASCII" { "SQL_ASCII" } else { "UTF8" }
}
