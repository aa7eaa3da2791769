//! The source of a backup: its server, its databases, its bucket, and what is checked before the first byte.

use std::path::Path;
use std::sync::Arc;

use futures::StreamExt;
use pacharc_format::manifest::{Count, DatabaseKind, Postgres};
use pacharc_format::{ChunkKey, Key};

use super::found::InCluster;
use super::{Error, Options, Quiesce};
use crate::bucket::{self, Bucket};
use crate::cluster::discover::Discovery;
use crate::cluster::permissions::{self, Right};
use crate::cluster::{Cluster, state};
use crate::database::{self, DatabaseSurvey, Environment, Server, Tools};
use crate::monitor::Monitor;
use crate::options::Location;

/// What finding the source asks of the API server in any case, beside what its state does.
const RIGHTS: &[Right] = &[Right::new("apps", "deployments", "get")];
/// Live objects that are looked for before a bucket is believed to belong to a database.
const SAMPLE: usize = 100;
/// Fewer than this prove nothing.
const SAMPLE_LEAST: usize = 10;
/// Looked for at a time.
const SAMPLE_JOBS: usize = 16;

/// Where a backup reads.
pub struct Source {
    /// The server and its programs, where databases are backed up.
    pub server: Option<(Server, Tools)>,
    /// The databases.
    pub databases: Vec<DatabaseSurvey>,
    /// The bucket, where objects are backed up.
    pub bucket: Option<Arc<dyn Bucket>>,
    /// The namespace and what is known of it, where its state is backed up.
    pub cluster: Option<(Cluster, state::Survey)>,
    /// The live set as it is now; `None` where no database is Pachyderm's.
    pub live: Option<Count>,
    /// What the namespace said, and the ways into it, where the source is in one.
    in_cluster: Option<InCluster>,
}

impl Source {
    /// Connects, looks at everything, and checks versions and permissions.
    ///
    /// # Errors
    /// Whatever would make the backup fail later, as far as it can be known now.
    pub async fn open(options: &Options, monitor: &dyn Monitor) -> Result<Self, Error> {
        let mut survey = None;
        let in_cluster = match &options.cluster {
            None if options.postgres.is_none() && options.bucket.is_none() => return Err(Error::Nothing),
            None => None,
            Some(named) => {
                let cluster = Cluster::connect(named, options.ca_file.as_deref()).await?;
                let rights = [RIGHTS, state::RIGHTS].concat();
                permissions::require(&cluster, &rights).await.map_err(state::Error::from)?;
                let found = InCluster::open(options, &cluster, monitor).await?;
                let taken = state::Survey::take(&cluster).await?;
                survey = Some((cluster, taken));
                Some(found)
            }
        };
        let mut source =
            Self { server: None, databases: Vec::new(), bucket: None, cluster: survey, live: None, in_cluster };
        let bucket = match (&options.bucket, &source.in_cluster) {
            (Some(url), _) => {
                let settings = bucket::Options { ca_file: options.ca_file.clone(), ..bucket::Options::default() };
                Some((url.parse()?, settings))
            }
            (None, in_cluster) => in_cluster.as_ref().and_then(|found| found.bucket.clone()),
        };
        if let Some((url, settings)) = bucket {
            source.bucket = Some(bucket::open(&url, &settings).await?);
        }
        let postgres = match &source.in_cluster {
            Some(found) => &found.postgres,
            None => &options.postgres,
        };
        if let Some(postgres) = postgres {
            let url = Some(postgres.url.expose()).filter(|url| !url.is_empty());
            let environment = Environment::of_process();
            let server = Server::new(url, postgres.from_command_line, &environment, options.ca_file.as_deref())?;
            source.databases = match &source.in_cluster {
                Some(found) => database::inspect_or(&server, &options.databases, found.databases()).await?,
                None => database::inspect(&server, &options.databases).await?,
            };
            if let Some(name) = source.in_cluster.as_ref().and_then(|found| found.server.clone()) {
                source.databases.iter_mut().for_each(|database| database.server.host.clone_from(&name));
            }
            let version = source.postgres().map_or(0, |postgres| postgres.version_num);
            let tools = Tools::find(version, postgres.pg_bin.as_deref()).await?;
            source.server = Some((server, tools));
            source.check_pause(options)?;
            source.live = source.count_live().await?;
        }
        source.check_bucket().await?;
        source.compare_versions(monitor);
        Ok(source)
    }

    /// What the namespace said, where the source is in one.
    #[must_use]
    pub fn discovery(&self) -> Option<&Discovery> {
        self.in_cluster.as_ref().map(|found| &found.discovery)
    }

    /// Whether anything goes through the API server, which other users of the cluster need as well.
    #[must_use]
    pub fn is_forwarded(&self) -> bool {
        self.in_cluster.as_ref().is_some_and(InCluster::is_forwarded)
    }

    /// Warns where no schema is on record, or that of another release than the image's version.
    fn compare_versions(&self, monitor: &dyn Monitor) {
        if let Some(DatabaseSurvey { name, schema_version: None, .. }) = self.pachyderm() {
            monitor.warn(format!(
                "database \"{name}\" has Pachyderm's tables, and its table of migrations is empty, which pachd's never is: \
                 somebody may be loading it at this moment"
            ));
        }
        let version = self.discovery().and_then(|discovery| discovery.version.as_ref());
        let schema = self.pachyderm().and_then(|database| database.schema_version);
        let (Some(version), Some(schema)) = (version, schema) else { return };
        if !crate::pachyderm::may_belong(&version.value, schema) {
            let family = crate::pachyderm::release_family(schema);
            monitor.warn(format!(
                "{} is {}, and the database's schema is that of {family}: an upgrade may be under way",
                version.found_in, version.value
            ));
        }
    }

    /// What the server says of itself.
    #[must_use]
    pub fn postgres(&self) -> Option<&Postgres> {
        self.databases.first().map(|database| &database.server)
    }

    /// Pachyderm's database, where it is among those that are backed up.
    #[must_use]
    pub fn pachyderm(&self) -> Option<&DatabaseSurvey> {
        self.databases.iter().find(|database| database.kind == DatabaseKind::Pachyderm)
    }

    /// Pachyderm's release family.
    #[must_use]
    pub fn release(&self) -> Option<String> {
        self.pachyderm()?.schema_version.map(crate::pachyderm::release_family)
    }

    /// Bytes of COPY text that the dump will have, roughly.
    #[must_use]
    pub fn dump_bytes(&self) -> u64 {
        self.databases.iter().map(DatabaseSurvey::dumped_bytes).sum()
    }

    /// Bytes that the bundle will have at least, roughly: chunks do not compress, a dump does.
    #[must_use]
    pub fn estimate(&self) -> u64 {
        let objects = if self.bucket.is_some() { self.live.map_or(0, |live| live.bytes) } else { 0 };
        objects + self.dump_bytes() / 8
    }

    /// Whether the server is a standby: what it shows is of its primary's past.
    pub(super) fn is_standby(&self) -> bool {
        self.postgres().is_some_and(|postgres| postgres.standby)
    }

    /// Refuses a pause that would prove nothing: what was written before it, a standby may not have replayed yet.
    fn check_pause(&self, options: &Options) -> Result<(), Error> {
        match self.postgres() {
            Some(postgres) if postgres.standby && options.quiesce != Quiesce::Online => {
                Err(Error::Standby(postgres.host.clone()))
            }
            _ => Ok(()),
        }
    }

    async fn count_live(&self) -> Result<Option<Count>, Error> {
        let (Some((server, _)), Some(database)) = (&self.server, self.pachyderm()) else { return Ok(None) };
        let failed = database::Error::query("cannot count the live objects");
        let session = server.connect(&database.name).await?;
        let sql = "SELECT count(*), coalesce(sum(size), 0)::int8 FROM storage.chunk_objects
                   WHERE uploaded AND NOT tombstone";
        let row = session.query_one(sql, &[]).await.map_err(failed)?;
        let number = |column| row.try_get::<_, i64>(column).map(|n| u64::try_from(n).unwrap_or(0));
        let failed = database::Error::query("cannot count the live objects");
        match (number(0), number(1)) {
            (Ok(count), Ok(bytes)) => Ok(Some(Count { count, bytes })),
            (Err(error), _) | (_, Err(error)) => Err(failed(error).into()),
        }
    }

    /// Refuses a bucket that a restore has not finished, and one in which none of the live objects that are looked for lies.
    async fn check_bucket(&self) -> Result<(), Error> {
        let Some(bucket) = &self.bucket else { return Ok(()) };
        match bucket.head(&Key::from(crate::restore::MARK)).await {
            Err(bucket::Error::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
            Ok(_) => return Err(Error::HalfRestored(bucket.url().to_owned())),
        }
        let (Some((server, _)), Some(database)) = (&self.server, self.pachyderm()) else { return Ok(()) };
        let session = server.connect(&database.name).await?;
        let sql =
            format!("SELECT chunk_id, gen FROM storage.chunk_objects WHERE uploaded AND NOT tombstone LIMIT {SAMPLE}");
        let rows = session.query(&sql, &[]).await;
        let rows = rows.map_err(database::Error::query("cannot read the live objects"))?;
        let keys: Vec<Key> = rows
            .iter()
            .filter_map(|row| {
                let id = row.try_get::<_, &[u8]>(0).ok()?.try_into().ok()?;
                let generation = u64::try_from(row.try_get::<_, i64>(1).ok()?).ok()?;
                Some(ChunkKey { id, generation }.key())
            })
            .collect();
        let sampled = keys.len();
        let found = futures::stream::iter(keys).map(|key| async move {
            match bucket.head(&key).await {
                Ok(_) => Ok(true),
                Err(bucket::Error::NotFound { .. }) => Ok(false),
                Err(error) => Err(error),
            }
        });
        let mut found = found.buffer_unordered(SAMPLE_JOBS);
        while let Some(found) = found.next().await {
            if found? {
                return Ok(());
            }
        }
        if sampled < SAMPLE_LEAST {
            return Ok(());
        }
        Err(Error::OtherBucket { sampled, bucket: bucket.url().to_owned() })
    }

    /// Refuses a disk that cannot hold the estimate.
    pub(super) fn check_room(&self, output: &Location) -> Result<(), Error> {
        let Location::File(path) = output else { return Ok(()) };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // A folder that is not there is told by whoever writes into it.
        let Ok(stat) = rustix::fs::statvfs(folder) else { return Ok(()) };
        let (free, needed) = (stat.f_bavail.saturating_mul(stat.f_frsize), self.estimate());
        if needed <= free {
            return Ok(());
        }
        Err(Error::NoRoom { folder: folder.to_owned(), free, needed })
    }
}
