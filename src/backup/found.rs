//! From what a namespace says to what a backup opens: what the user names wins, the rest is found, and what only pods can
//! reach is reached by port-forwards that last as long as this value.

use std::net::SocketAddr;

use crate::bucket::{self, BucketUrl};
use crate::cluster::Cluster;
use crate::cluster::discover::{self, Discovery, Found, Place, discover};
use crate::cluster::forward::{ServiceName, Way};
use crate::database;
use crate::monitor::{Event, Monitor};
use crate::options::Postgres;
use crate::secret::Secret;
use crate::secret_file::SecretFile;

use super::{Error, Options};

/// The Service that must not be dumped through: it hands every transaction to another session.
const BOUNCER: &str = "pg-bouncer";

/// What a namespace adds to the options.
pub(super) struct InCluster {
    pub(super) discovery: Discovery,
    /// The server's URL, completed; `None` where none is to be read.
    pub(super) postgres: Option<Postgres>,
    /// What the cluster calls the server that a forward leads to: its own address says nothing tomorrow.
    pub(super) server: Option<String>,
    /// The bucket, where the user names none.
    pub(super) bucket: Option<(BucketUrl, bucket::Options)>,
    /// What leads into the cluster; lasts as long as it is held.
    ways: Vec<Way>,
    /// Certificates and keys for libpq, which reads files alone.
    files: Vec<SecretFile>,
}

impl InCluster {
    /// Looks at the namespace, and finds the ways to what it names.
    pub(super) async fn open(options: &Options, cluster: &Cluster, monitor: &dyn Monitor) -> Result<Self, Error> {
        let discovery = discover(cluster).await?;
        discovery.warnings.iter().for_each(|warning| monitor.warn(warning.clone()));
        let mut found =
            Self { discovery, postgres: None, server: None, bucket: None, ways: Vec::new(), files: Vec::new() };
        if let Some(postgres) = &options.postgres {
            found.postgres = Some(found.complete(postgres, options, cluster).await?);
        }
        if options.bucket.is_none() {
            found.bucket = found.find_bucket(options, cluster, monitor).await?;
        }
        Ok(found)
    }

    /// Whether anything goes through the API server.
    pub(super) fn is_forwarded(&self) -> bool {
        self.ways.iter().any(|way| matches!(way, Way::Forwarded(_)))
    }

    /// The names of Pachyderm's and Dex's databases.
    pub(super) fn databases(&self) -> [&str; 2] {
        let database = &self.discovery.database;
        [&database.pachyderm.value, &database.dex.value]
    }

    /// The user's URL with what it leaves open.
    async fn complete(&mut self, given: &Postgres, options: &Options, cluster: &Cluster) -> Result<Postgres, Error> {
        let found = self.discovery.database.clone();
        let (host, port) = (&found.host.value, found.port.value);
        let address = match database::names_server(&given.url)? {
            true => None,
            false => self.way(cluster, host, port, Some(&found.host)).await?,
        };
        self.server = address.map(|_| format!("{host}:{port}"));
        let (port, address) = match address {
            Some(address) => (address.port(), address.ip().to_string()),
            None => (port, String::new()),
        };
        // An empty address is one: what PGHOSTADDR says is of another server.
        let mut known = vec![("host", host.clone()), ("hostaddr", address), ("port", port.to_string())];
        known.push(("user", found.user.value.clone()));
        if let Some(password) = &found.password {
            known.push(("password", password.value.expose().to_owned()));
        }
        known.extend(self.tls(&found, options)?);
        let known: Vec<_> = known.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let url = database::complete(&given.url, given.from_command_line, &known)?;
        Ok(Postgres { url, from_command_line: false, pg_bin: given.pg_bin.clone() })
    }

    /// What the cluster demands of TLS, under what the environment and `--ca-file` say. Less than `require` is libpq's
    /// default, too, and needs no word.
    fn tls(&mut self, found: &discover::Database, options: &Options) -> Result<Vec<(&'static str, String)>, Error> {
        let is_open = |name: &str| std::env::var_os(name).is_none_or(|value| value.is_empty());
        let mut known = Vec::new();
        let demands = ["require", "verify-ca", "verify-full"].contains(&found.sslmode.value.as_str());
        if demands && is_open("PGSSLMODE") {
            known.push(("sslmode", found.sslmode.value.clone()));
        }
        if let Some(authorities) = &found.authorities
            && options.ca_file.is_none()
            && is_open("PGSSLROOTCERT")
        {
            known.push(("sslrootcert", self.file(&authorities.value)?));
        }
        if let Some(client) = &found.client
            && is_open("PGSSLCERT")
        {
            known.push(("sslcert", self.file(&client.certificate.value)?));
            known.push(("sslkey", self.file(&client.key.value)?));
        }
        Ok(known)
    }

    fn file(&mut self, content: &Secret) -> Result<String, Error> {
        let file = SecretFile::new(content).map_err(Error::Certificates)?;
        let path = file.path().to_string_lossy().into_owned();
        self.files.push(file);
        Ok(path)
    }

    async fn find_bucket(
        &mut self,
        options: &Options,
        cluster: &Cluster,
        monitor: &dyn Monitor,
    ) -> Result<Option<(BucketUrl, bucket::Options)>, Error> {
        let Some(found) = self.discovery.bucket.clone() else { return Ok(None) };
        let unreadable = |place: String, found_in: String, advice| Error::UnreadableBucket { place, found_in, advice };
        let url = match found.place {
            Place::S3 { url } => url,
            Place::Other { url } => {
                let advice = "Buckets of this provider are not yet supported: name a copy of it with --bucket s3://… or \
                              file:///….";
                return Err(unreadable(url.value, url.found_in, advice));
            }
            Place::Folder { path } => {
                let advice = "Run pacharc on the node that has the folder, with --bucket file:///FOLDER.";
                let path = path.unwrap_or(found.backend);
                return Err(unreadable(format!("the folder {} of a node", path.value), path.found_in, advice));
            }
        };
        let parsed: BucketUrl = url.value.parse()?;
        let mut settings = bucket::Options { ca_file: options.ca_file.clone(), ..bucket::Options::default() };
        if let BucketUrl::S3(s3) = &parsed
            && let Some(endpoint) = &s3.endpoint
            && let (Some(host), Some(port)) = (endpoint.host_str(), endpoint.port_or_known_default())
        {
            settings.via = self.way(cluster, host, port, None).await?;
        }
        match (found.credentials, found.account) {
            (Some(keys), _) => {
                settings.credentials = Some(bucket::Credentials {
                    access_key_id: keys.id.value.expose().to_owned(),
                    secret_access_key: keys.secret.value.expose().to_owned(),
                    session_token: keys.token.map(|token| token.value.expose().to_owned()),
                });
            }
            (None, account) => monitor.event(Event::Hint { message: no_keys(account.as_ref()) }),
        }
        Ok(Some((parsed, settings)))
    }

    /// Where to connect to for `host`, if not to its own name. For a database, `database` is where it was found.
    async fn way(
        &mut self,
        cluster: &Cluster,
        host: &str,
        port: u16,
        database: Option<&Found<String>>,
    ) -> Result<Option<SocketAddr>, Error> {
        if let Some(found) = database
            && ServiceName::of_host(host, cluster.namespace()).is_some_and(|service| service.name == BOUNCER)
        {
            return Err(Error::Bouncer(found.found_in.clone()));
        }
        let way = Way::to(cluster, host, port).await?;
        let address = way.address();
        self.ways.push(way);
        Ok(address)
    }
}

/// What to say where the cluster holds no keys to its bucket.
fn no_keys(account: Option<&Found<String>>) -> String {
    match account {
        Some(Found { value, found_in }) => format!(
            "the cluster holds no keys to its bucket, since its pods are {value} ({found_in}): your own credentials are used; \
             a Job under that account needs none (--in-cluster --service-account)"
        ),
        None => "the cluster holds no keys to its bucket: your own credentials are used".to_owned(),
    }
}
