//! A server to restore to, and what came to lie there.

use std::collections::BTreeMap;

use pacharc_sample::compare::Contents;
use pacharc_sample::postgres::{Options, TempServer};

/// A server that nobody else uses, and what is to lie there.
pub struct Target {
    server: TempServer,
    sources: [(String, Contents); 2],
}

impl Target {
    /// One for these databases of a source.
    pub fn new(source: &TempServer, names: [&str; 2]) -> Self {
        let url = source.url("postgres");
        let read = |name: &str| (name.to_owned(), Contents::read(&url, name).unwrap());
        let server = TempServer::start(&Options::default()).unwrap();
        server.psql("postgres", "CREATE ROLE pachyderm LOGIN").unwrap();
        Self { server, sources: names.map(read) }
    }

    pub fn url(&self) -> String {
        self.server.url("postgres")
    }

    /// What lies there under the name of each database: "equal", or how it differs from its source; nothing where it is marked as
    /// one that a restore has not finished. Then it is dropped.
    ///
    /// Panics if anything else was left on the server.
    pub fn take(&self, command: &str) -> BTreeMap<String, Vec<u8>> {
        let psql = |sql: &str| self.server.psql("postgres", sql).unwrap();
        let mut found = BTreeMap::new();
        let all = "SELECT datname, coalesce(shobj_description(oid, 'pg_database'), '')
            FROM pg_database WHERE NOT datistemplate AND datname <> 'postgres'";
        for line in psql(all).lines() {
            let (name, comment) = line.split_once('|').unwrap();
            let source = self.sources.iter().find(|(source, _)| source == name);
            let (_, contents) = source.unwrap_or_else(|| panic!("{command} left {name}"));
            if !comment.starts_with("pacharc restore of ") {
                let compared = contents.compare(&self.url(), name).unwrap();
                let word = if compared.is_equal() { "equal".to_owned() } else { compared.to_string() };
                found.insert(format!("database {name}"), word.into_bytes());
            }
            psql(&format!("DROP DATABASE \"{name}\""));
        }
        found
    }
}
