//! What a restore does for the Helm release to come: refusals before the first byte, and after the proof the files, Secrets
//! and warnings. It never installs it.

use std::net::SocketAddr;
use std::path::PathBuf;

use pacharc_format::manifest::{self, DatabaseKind};
use pacharc_format::{BundleReader, Entry, Head, RangeReader};
use serde::Serialize;
use uuid::Uuid;

use super::{Error, Options, Rename};
use crate::bucket::BucketUrl;
use crate::budget::Budget;
use crate::cluster::values::{self, Captured, Database, Files, Pipelines, Successor, Target};
use crate::cluster::{Cluster, helm, permissions};
use crate::database::Server;
use crate::monitor::{Monitor, Phase};
use crate::pachyderm::pipelines::{self, Pipeline};

/// What was written for the release to come.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RestoredRelease {
    /// The folder of the files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub folder: Option<PathBuf>,
    /// The files in it.
    pub files: Vec<String>,
    /// Secrets that were made in the namespace.
    pub secrets_created: Vec<String>,
    /// Secrets that were there already, and the same.
    pub secrets_unchanged: Vec<String>,
    /// ConfigMaps that were made in the namespace.
    pub config_maps_created: Vec<String>,
    /// ConfigMaps that were there already, and the same.
    pub config_maps_unchanged: Vec<String>,
    /// ConfigMaps that were there already with other content, and left so.
    pub config_maps_different: Vec<String>,
    /// The values that wait for the operator.
    pub placeholders: Vec<String>,
    /// The commands that are left, in order, for people.
    pub steps: String,
}

/// The release to come, while its data are restored.
pub(super) struct Release<'a> {
    options: &'a Options,
    cluster: Option<Cluster>,
    files: Files,
    /// Where the files came from the end of a bundle that can be read in any place.
    is_read: bool,
}

impl<'a> Release<'a> {
    /// Looks at namespace and folder, and refuses what would be in the way; `None` where no release is wanted.
    pub(super) async fn open(options: &'a Options) -> Result<Option<Self>, Error> {
        let release = &options.release;
        if options.cluster.is_none() && release.write_to.is_none() {
            return Ok(None);
        }
        if let Some(folder) = &release.write_to {
            values::check_folder(folder, None)?;
        }
        let mut cluster = None;
        if let Some(named) = &options.cluster {
            let found = Cluster::connect(named, options.ca_file.as_deref()).await.map_err(values::Error::from)?;
            let applied = if release.apply_secrets { values::APPLY_RIGHTS } else { &[] };
            let rights = [values::LOOK_RIGHTS, applied].concat();
            permissions::require(&found, &rights).await.map_err(values::Error::from)?;
            values::refuse_running(&found).await?;
            cluster = Some(found);
        }
        let files = Files::new(Budget::new(options.limits.max_memory).write);
        Ok(Some(Self { options, cluster, files, is_read: false }))
    }

    /// Whether the bundle's state of Kubernetes is needed.
    fn needs_files(&self) -> bool {
        self.options.release.write_to.is_some() || self.options.release.apply_secrets
    }

    /// Refuses a bundle that no release can be made from.
    pub(super) fn check(&self, head: &Head, source: Option<&manifest::Cluster>) -> Result<(), Error> {
        let release = &self.options.release;
        if self.needs_files() && head.namespace.is_none() {
            return Err(values::Error::None.into());
        }
        if let Some(folder) = &release.write_to {
            values::check_folder(folder, Some(head.bundle))?;
        }
        let main = head.databases.iter().find(|database| database.kind == DatabaseKind::Pachyderm);
        if let Some(migration) = main.and_then(|database| database.schema_version)
            && !crate::pachyderm::is_known(migration)
            && !release.allow_unknown_schema
        {
            return Err(values::Error::UnknownSchema(migration).into());
        }
        let backed_up = source.and_then(version_of).or_else(|| head.pachyderm.clone());
        match (&release.pachyderm_version, backed_up) {
            (Some(wanted), Some(backed_up)) if is_older(wanted, &backed_up) => {
                Err(values::Error::Older { wanted: wanted.clone(), backed_up }.into())
            }
            _ => Ok(()),
        }
    }

    /// Reads the state from a bundle that can be read in any place, so that what is in the way is known now.
    pub(super) async fn read<S: RangeReader>(&mut self, reader: &BundleReader<S>) -> Result<(), Error> {
        self.is_read = true;
        if !self.needs_files() {
            return Ok(());
        }
        let mut catalog = reader.catalog("cluster/");
        while let Some(lines) = catalog.next().await? {
            for line in lines {
                if !Files::takes(&line.entry.path) {
                    return Ok(());
                }
                let body = reader.read(&line.entry).await?;
                self.files.push(&Entry::text(line.entry.path.clone(), body))?;
            }
        }
        Ok(())
    }

    /// Refuses Secrets that would have to be overwritten, where they are known.
    pub(super) async fn check_secrets(&self) -> Result<(), Error> {
        let (true, true, Some(cluster)) = (self.is_read, self.options.release.apply_secrets, &self.cluster) else {
            return Ok(());
        };
        let captured = Captured::read(&self.files)?;
        // Which Secrets there are does not depend on the target.
        let successor = Successor::new(&captured, &Target::default(), &[]);
        Ok(values::check_secrets(cluster, &successor.secrets).await?)
    }

    /// Takes an entry of a bundle from a pipe.
    pub(super) fn entry(&mut self, entry: &Entry) -> Result<(), Error> {
        if !self.is_read && self.needs_files() && Files::takes(&entry.path) {
            self.files.push(entry)?;
        }
        Ok(())
    }

    /// Writes the files, makes the Secrets, and tells what to mind.
    pub(super) async fn finish(
        &self,
        source: &manifest::Source,
        server: Option<&Server>,
        databases: &LoadedDatabases,
        monitor: &dyn Monitor,
    ) -> Result<Option<RestoredRelease>, Error> {
        if !self.needs_files() {
            return Ok(None);
        }
        monitor.phase(Phase::Cluster);
        let release = &self.options.release;
        let captured = Captured::read(&self.files)?;
        let target = self.target(source, &captured, server, databases)?;
        let reachable = if release.drill { reachable(&target, monitor).await } else { Vec::new() };
        let successor = Successor::new(&captured, &target, &reachable);
        let pipelines = match (server, &databases.main_now) {
            (Some(server), Some(name)) => self.pipelines(server, name, monitor).await,
            _ => Pipelines::default(),
        };
        let mut restored = RestoredRelease { placeholders: successor.placeholders.clone(), ..Default::default() };
        // Where there is no namespace, nothing is made in it.
        let applied_to = self.cluster.as_ref().filter(|_| release.apply_secrets);
        if let Some(cluster) = applied_to {
            values::check_secrets(cluster, &successor.secrets).await?;
            let secrets = values::apply(cluster, &successor.secrets).await?;
            if let Some(name) = secrets.different.into_iter().next() {
                let namespace = cluster.namespace().to_owned();
                return Err(values::Error::Differs { name, namespace }.into());
            }
            (restored.secrets_created, restored.secrets_unchanged) = (secrets.created, secrets.unchanged);
            let maps = values::apply(cluster, &successor.config_maps).await?;
            if !maps.different.is_empty() {
                let names = maps.different.join(", ");
                monitor.warn(format!("ConfigMaps exist with other content, and were left so: {names}"));
            }
            (restored.config_maps_created, restored.config_maps_unchanged) = (maps.created, maps.unchanged);
            restored.config_maps_different = maps.different;
        }
        if let Some(folder) = &release.write_to {
            let clear = release.secret_values;
            restored.steps = values::steps(&successor, &captured, &target, folder, clear, applied_to.is_some());
            restored.files = values::write(&successor, &restored.steps, databases.bundle, folder, clear)?;
            restored.folder = Some(folder.clone());
        }
        for warning in values::warnings(&successor, &captured, &target, &pipelines) {
            monitor.warn(warning);
        }
        Ok(Some(restored))
    }

    fn target(
        &self,
        source: &manifest::Source,
        captured: &Captured,
        server: Option<&Server>,
        databases: &LoadedDatabases,
    ) -> Result<Target, Error> {
        let database = server.map(|server| {
            let address = server.address();
            // `host:port`; a socket's path has no port of its own.
            let (host, port) = address.rsplit_once(':').unwrap_or((&address, ""));
            Database {
                host: host.trim_matches(['[', ']']).to_owned(),
                port: port.parse().unwrap_or(5432),
                user: self.options.owner.clone().unwrap_or_else(|| server.user().to_owned()),
                sslmode: server.sslmode(),
                client_certificate: server.has_client_certificate(),
                main: databases.main.clone(),
                identity: databases.identity.clone(),
            }
        });
        let bucket = self.options.bucket.as_deref().map(str::parse::<BucketUrl>).transpose().map_err(Error::Bucket)?;
        let of_chart = || captured.own_release().and_then(|release| release.chart.app_version.clone());
        let version = source.cluster.as_ref().and_then(version_of).or_else(of_chart);
        let wanted = self.options.release.pachyderm_version.clone();
        Ok(Target {
            database,
            bucket,
            namespace: self.cluster.as_ref().map(|cluster| cluster.namespace().to_owned()),
            host: self.options.release.host.clone(),
            upgrade_to: wanted.filter(|wanted| Some(wanted) != version.as_ref()),
            version,
            drill: self.options.release.drill,
        })
    }

    async fn pipelines(&self, server: &Server, database: &str, monitor: &dyn Monitor) -> Pipelines {
        let mut pipelines = Pipelines::default();
        if let Err(error) = read_pipelines(server, database, |pipeline| pipelines.push(pipeline)).await {
            let why = crate::failure::chain(&error);
            monitor.warn(format!("cannot tell what the restored pipelines will do (crons, egress): {why}"));
        }
        pipelines
    }
}

/// The bundle, and the names of its databases at the target.
#[derive(Clone, Debug, Default)]
pub(super) struct LoadedDatabases {
    bundle: Uuid,
    main: Option<String>,
    identity: Option<String>,
    /// What the main one is called until all is proved.
    main_now: Option<String>,
}

impl LoadedDatabases {
    /// `now` tells by its name in the bundle what a database is called now.
    pub(super) fn new(head: &Head, selection: &[Rename], now: impl Fn(&str) -> Option<String>) -> Self {
        let of_kind = |kind| {
            let database = head.databases.iter().find(|database| database.kind == kind)?;
            selection.iter().find(|rename| rename.bundled == database.name)
        };
        let main = of_kind(DatabaseKind::Pachyderm);
        Self {
            bundle: head.bundle,
            main: main.map(|rename| rename.target.clone()),
            identity: of_kind(DatabaseKind::Dex).map(|rename| rename.target.clone()),
            main_now: main.and_then(|rename| now(&rename.bundled)),
        }
    }
}

async fn read_pipelines(
    server: &Server,
    database: &str,
    take: impl FnMut(Pipeline),
) -> Result<(), crate::database::Error> {
    let session = server.connect(database).await?;
    pipelines::read(&session, take).await
}

/// The tag of the image that ran.
fn version_of(cluster: &manifest::Cluster) -> Option<String> {
    let of_image = cluster.image.as_deref().and_then(|image| {
        let (_, name) = image.rsplit_once('/').unwrap_or(("", image));
        let (_, tag) = name.split_once('@').map_or(name, |(name, _)| name).rsplit_once(':')?;
        Some(tag.to_owned())
    });
    // A chart around Pachyderm's has a version of its own.
    of_image.or_else(|| cluster.release.as_ref().filter(|release| release.chart == helm::CHART)?.app_version.clone())
}

/// The first numbers of a version or family: `2.11.6`, `v2.12.0-rc.3`, `2.11.x`.
fn numbers(version: &str) -> Vec<u64> {
    let parts = version.trim_start_matches('v').split(['.', '-', '+', ' ']);
    parts.map_while(|part| part.parse().ok()).take(3).collect()
}

/// Whether `wanted` is older, as far as both say.
fn is_older(wanted: &str, backed_up: &str) -> bool {
    let (wanted, backed_up) = (numbers(wanted), numbers(backed_up));
    let both = wanted.len().min(backed_up.len());
    wanted.iter().take(both).lt(backed_up.iter().take(both))
}

/// The addresses of database and bucket, where pods of a rehearsal must be able to go.
async fn reachable(target: &Target, monitor: &dyn Monitor) -> Vec<SocketAddr> {
    let mut places: Vec<(String, u16)> = Vec::new();
    if let Some(database) = &target.database {
        places.push((database.host.clone(), database.port));
    }
    let policy = "the drill's NetworkPolicy";
    if let Some(BucketUrl::S3(s3)) = &target.bucket {
        match &s3.endpoint {
            Some(url) => {
                let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
                places.push((host.to_owned(), url.port_or_known_default().unwrap_or(443)));
            }
            None => monitor.warn(format!(
                "{policy} does not let pods reach the bucket: S3 has many addresses; add those of its VPC endpoint"
            )),
        }
    }
    let mut found = Vec::new();
    for (host, port) in places {
        let addresses = tokio::net::lookup_host((host.as_str(), port)).await.map(Iterator::collect::<Vec<_>>);
        match addresses {
            Ok(addresses) if addresses.iter().all(|address| !address.ip().is_loopback()) => found.extend(addresses),
            _ => monitor
                .warn(format!("{policy} lacks the address of {host}, which pods will know under another one: add it")),
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_far_as_they_say() {
        for (wanted, backed_up) in
            [("2.10.7", "2.11.6"), ("2.11.5", "2.11.6"), ("2.10.7", "2.11.x"), ("v2.9.0", "2.10.x")]
        {
            assert!(is_older(wanted, backed_up), "{wanted} {backed_up}");
        }
        for (wanted, backed_up) in [
            ("2.11.6", "2.11.6"),
            ("2.12.0-rc.3", "2.11.6"),
            ("2.11.0", "2.11.x"),
            ("2.8.0", "2.8.x or 2.9.x"),
            ("nightly", "2.11.6"),
        ] {
            assert!(!is_older(wanted, backed_up), "{wanted} {backed_up}");
        }
    }

    #[test]
    fn an_image_tells_its_version() {
        let of = |image: &str| version_of(&manifest::Cluster { image: Some(image.to_owned()), ..Default::default() });
        assert_eq!(of("pachyderm/pachd:2.11.6").as_deref(), Some("2.11.6"));
        assert_eq!(of("registry:5000/pachyderm/pachd:2.11.6@sha256:00").as_deref(), Some("2.11.6"));
        assert_eq!(of("registry:5000/pachyderm/pachd"), None);
    }
}
