//! Clusters to back up and places to restore them into: sample clusters on one server, restored on another one.

use std::sync::{Arc, OnceLock};

use pacharc_sample::bucket::{Bucket, Directory};
use pacharc_sample::cluster::{self, Made, Options};
use pacharc_sample::compare;
use pacharc_sample::postgres::{self, TempServer};

use super::program::{Desk, words};

/// The server of the sources; `None`, having said so, where PostgreSQL is not installed.
pub fn source_server() -> Option<&'static TempServer> {
    static SERVER: OnceLock<Option<TempServer>> = OnceLock::new();
    shared(&SERVER)
}

/// The server of the targets: another one, since a restore refuses its source.
pub fn target_server() -> Option<&'static TempServer> {
    static SERVER: OnceLock<Option<TempServer>> = OnceLock::new();
    shared(&SERVER)
}

fn shared(server: &'static OnceLock<Option<TempServer>>) -> Option<&'static TempServer> {
    let start = || {
        let server = TempServer::start_or_skip(&postgres::Options::default()).unwrap()?;
        // Whoever comes first would make it, and two may come at once.
        server.psql("postgres", "CREATE ROLE pachyderm LOGIN").unwrap();
        Some(server)
    };
    server.get_or_init(start).as_ref()
}

/// A sample cluster: two databases with names of their own, and a bucket.
pub struct Cluster {
    pub server: &'static TempServer,
    /// The main database's name.
    pub database: String,
    pub dex: String,
    pub bucket: Arc<dyn Bucket>,
    pub bucket_url: String,
    pub made: Made,
}

impl Cluster {
    /// Makes one with a directory bucket on the test's desk; `name` must be another one in every test.
    pub async fn make(desk: &Desk, name: &str, options: Options) -> Option<Self> {
        let bucket = Arc::new(Directory::new(desk.path("source")));
        Self::make_in(bucket, &desk.bucket("source"), name, options).await
    }

    /// Makes one whose objects are in `bucket`.
    pub async fn make_in(bucket: Arc<dyn Bucket>, url: &str, name: &str, options: Options) -> Option<Self> {
        let server = source_server()?;
        let (database, dex) = (format!("pachyderm_{name}"), format!("dex_{name}"));
        let options = Options { database: database.clone(), dex: Some(dex.clone()), ..options };
        let made = cluster::make(&server.url("postgres"), Arc::clone(&bucket), &options).await.unwrap();
        Some(Self { server, database, dex, bucket, bucket_url: url.to_owned(), made })
    }

    /// A small one.
    pub async fn small(desk: &Desk, name: &str) -> Option<Self> {
        Self::make(desk, name, Options { objects: 40, jobs: 10, ..Options::default() }).await
    }

    /// The keys of its live objects.
    pub async fn live(&self) -> Vec<String> {
        compare::live_keys(&self.server.url(&self.database)).await.unwrap()
    }

    /// Changes a byte of an object.
    pub async fn flip(&self, key: &str) {
        let mut bytes = self.bucket.get(key).await.unwrap().unwrap().to_vec();
        bytes[0] ^= 1;
        self.bucket.put(key, bytes.into()).await.unwrap();
    }

    /// The arguments that name it as a source.
    pub fn source(&self) -> Vec<String> {
        let mut args = self.databases();
        args.extend(words(&["--bucket", &self.bucket_url]));
        args
    }

    /// The arguments that name its databases alone.
    pub fn databases(&self) -> Vec<String> {
        let server = self.server.url("postgres");
        words(&["--postgres", &server, "--database", &self.database, "--database", &self.dex])
    }

    /// Compares what was restored, under the same names on the other server and in `bucket`, with the source.
    pub async fn assert_restored(&self, bucket: &Arc<dyn Bucket>) {
        self.assert_databases_restored();
        let compared = compare::buckets(&self.bucket, bucket, None).await.unwrap();
        assert!(compared.is_equal() && compared.compared as u64 == self.made.objects(), "{compared}");
    }

    pub fn assert_databases_restored(&self) {
        let (from, to) = (self.server.url("postgres"), target_server().unwrap().url("postgres"));
        for name in [&self.database, &self.dex] {
            let compared = compare::databases(&from, &to, name, name).unwrap();
            assert!(compared.is_equal() && compared.compared > 30, "{compared}");
        }
    }

    /// That nothing of it is on the target's server, under its own name or another.
    pub fn assert_not_restored(&self) {
        let sql = format!("SELECT datname FROM pg_database WHERE datname LIKE '%{}'", self.database);
        assert_eq!(target_server().unwrap().psql("postgres", &sql).unwrap(), "");
    }
}

/// The arguments that name the targets' server and a bucket.
pub fn target(bucket_url: &str) -> Vec<String> {
    words(&["--postgres", &target_server().unwrap().url("postgres"), "--bucket", bucket_url])
}
