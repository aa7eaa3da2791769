//! The target of a restore: what is checked before the first byte, and the marks that it carries until all is proved.

use std::path::Path;
use std::sync::Arc;

use futures::StreamExt;
use pacharc_format::Head;
use pacharc_format::manifest::Manifest;
use uuid::Uuid;

use super::mark::{self, Left, Mark};
use super::{Error, Incomplete, Options, Rename};
use crate::bucket::{self, Bucket, BucketUrl};
use crate::budget::Budget;
use crate::database::restore::{maintenance, system_identifier};
use crate::database::{self, Environment, Server, Tool, Tools};
use crate::monitor::Monitor;

/// Where a restore writes.
pub(super) struct Target {
    /// The server and psql, where databases are restored.
    pub(super) server: Option<(Server, Tool)>,
    /// The bucket, where objects are restored, and it is there.
    pub(super) bucket: Option<Arc<dyn Bucket>>,
    /// A `file:` bucket whose directory is made when nothing stands in the way of the restore any more.
    new_directory: Option<BucketUrl>,
    settings: bucket::Options,
    /// What an earlier run of this restore has left in the bucket.
    left: Option<Left>,
    /// This run's mark in the bucket.
    mark: Option<Mark>,
}

impl Target {
    /// Connects to what `options` name. Nothing is written.
    pub(super) async fn open(options: &Options) -> Result<Self, Error> {
        let upload_memory = Budget::new(options.limits.max_memory).upload;
        let ca_file = options.ca_file.clone();
        let settings = bucket::Options { ca_file, upload_memory, ..bucket::Options::default() };
        let mut target = Self { server: None, bucket: None, new_directory: None, settings, left: None, mark: None };
        if let Some(url) = &options.bucket {
            let parsed: BucketUrl = url.parse().map_err(Error::Bucket)?;
            if let BucketUrl::S3(s3) = &parsed
                && !s3.prefix.is_empty()
                && !options.allow_prefix
            {
                return Err(Error::Prefix(url.clone()));
            }
            match bucket::open(&parsed, &target.settings).await {
                Err(bucket::Error::NoBucket { .. }) if can_be_made(&parsed) => target.new_directory = Some(parsed),
                bucket => target.bucket = Some(bucket?),
            }
        }
        if let Some(postgres) = &options.postgres {
            let url = Some(postgres.url.expose()).filter(|url| !url.is_empty());
            let environment = Environment::of_process();
            let server = Server::new(url, postgres.from_command_line, &environment, options.ca_file.as_deref())?;
            let session = maintenance(&server, &[]).await?;
            let row = session.query_one("SELECT current_setting('server_version_num')::int8", &[]).await;
            let version = row.and_then(|row| row.try_get::<_, i64>(0));
            let version = version.map_err(database::Error::query("cannot read the server's version"))?;
            let version = u32::try_from(version).unwrap_or_default();
            let psql = Tools::find_psql(version, postgres.pg_bin.as_deref()).await?;
            target.server = Some((server, psql));
        }
        Ok(target)
    }

    /// Refuses the source itself. Where it cannot be told, that is a warning: the old source may be gone, which is what
    /// restores are for.
    pub(super) async fn check_source(
        &self,
        head: &Head,
        databases: &[Rename],
        monitor: &dyn Monitor,
    ) -> Result<(), Error> {
        self.check_source_server(head, databases, monitor).await?;
        let (Some(bucket), Some(source)) = (&self.bucket, &head.bucket) else { return Ok(()) };
        // Nothing is asked of the source: it only learns its name.
        let opened = match source.parse::<BucketUrl>() {
            Ok(url) => bucket::open(&url, &self.settings).await,
            Err(error) => Err(error),
        };
        match opened {
            Ok(source) if source.identity() == bucket.identity() => {
                Err(Error::IsSource(format!("bucket {}", bucket.url())))
            }
            // A directory that is not there is not the one that is.
            Ok(_) | Err(bucket::Error::NoBucket { .. }) => Ok(()),
            Err(error) => {
                let (target, why) = (bucket.url(), crate::failure::chain(&error));
                monitor.warn(format!(
                    "cannot tell whether {target} is the source of this bundle, {source} ({why}): make sure that no \
                     pachd uses it"
                ));
                Ok(())
            }
        }
    }

    async fn check_source_server(&self, head: &Head, databases: &[Rename], monitor: &dyn Monitor) -> Result<(), Error> {
        let (Some((server, _)), Some(source)) = (&self.server, &head.postgres) else { return Ok(()) };
        // Under another name nothing of the source can be meant.
        let Some(Rename { target, .. }) = databases.iter().find(|rename| rename.bundled == rename.target) else {
            return Ok(());
        };
        let address = server.address();
        let is_source = match (system_identifier(&maintenance(server, &[]).await?).await?, &source.system_identifier) {
            (Some(one), Some(other)) => one == *other,
            // Where the role may not ask, the address has to do.
            _ if address == source.host => true,
            _ => {
                monitor.warn(format!(
                    "cannot tell whether {address} is the source of this bundle, {}, under another name: a role may not \
                     read pg_control_system() here, or might not there",
                    source.host
                ));
                false
            }
        };
        match is_source {
            true => Err(Error::IsSource(format!("database {target} on {address}"))),
            false => Ok(()),
        }
    }

    /// Refuses a bucket that holds chunks, or that another restore is under way in.
    pub(super) async fn check_bucket(&mut self, bundle: Uuid) -> Result<(), Error> {
        let Some(bucket) = &self.bucket else { return Ok(()) };
        self.left = Left::find(bucket.as_ref(), bundle).await?;
        if self.left.is_some() {
            return Ok(());
        }
        if let Some(found) = bucket.list(b"chunk/").next().await {
            return Err(Error::NotEmpty { bucket: bucket.url().to_owned(), key: found?.key });
        }
        Ok(())
    }

    /// Refuses a bucket whose mark could not be taken away.
    pub(super) async fn check_deleting(&self) -> Result<(), Error> {
        match &self.bucket {
            Some(bucket) => mark::try_deleting(bucket.as_ref()).await,
            None => Ok(()),
        }
    }

    /// Whether an earlier run of this restore has written into the bucket.
    pub(super) fn is_resumed(&self) -> bool {
        self.left.is_some()
    }

    /// Whether it had proved everything.
    pub(super) fn was_proved(&self) -> bool {
        self.left.is_some_and(|left| left.was_proved)
    }

    /// Marks the bucket, made where it is not there yet: this run restores into it.
    pub(super) async fn mark_bucket(&mut self, bundle: Uuid) -> Result<(), Error> {
        if let Some(url) = self.new_directory.take() {
            let settings = bucket::Options { create: true, ..self.settings.clone() };
            self.bucket = Some(bucket::open(&url, &settings).await?);
        }
        if let Some(bucket) = &self.bucket {
            self.mark = Some(Mark::set(bucket.as_ref(), bundle, self.left).await?);
        }
        Ok(())
    }

    /// Makes sure that no other run has taken the bucket over.
    pub(super) async fn check_mark(&self) -> Result<(), Error> {
        match (&self.bucket, &self.mark) {
            (Some(bucket), Some(mark)) => mark.check(bucket.as_ref()).await,
            _ => Ok(()),
        }
    }

    /// Marks the bucket: all is proved.
    pub(super) async fn mark_proved(&mut self) -> Result<(), Error> {
        match (&self.bucket, &mut self.mark) {
            (Some(bucket), Some(mark)) => mark.prove(bucket.as_ref()).await,
            _ => Ok(()),
        }
    }

    /// Takes the mark away: all is proved.
    pub(super) async fn release_bucket(&self) -> Result<(), Error> {
        match (&self.bucket, &self.mark) {
            (Some(bucket), Some(mark)) => mark.remove(bucket.as_ref()).await,
            _ => Ok(()),
        }
    }
}

/// Whether a directory can be made at `url`, as far as can be seen without making it.
fn can_be_made(url: &BucketUrl) -> bool {
    let BucketUrl::Directory { path } = url else { return false };
    path.ancestors().find(|folder| folder.exists()).is_some_and(Path::is_dir)
}

/// The databases that are restored, each with its name in the bundle and on the target.
pub(super) fn selection(options: &Options, head: &Head) -> Result<Vec<Rename>, Error> {
    if options.postgres.is_none() {
        return Ok(Vec::new());
    }
    let bundled: Vec<&str> = head.databases.iter().map(|database| database.name.as_str()).collect();
    if bundled.is_empty() {
        return Err(Error::NoDatabases);
    }
    if options.databases.is_empty() {
        let same = |name: &&str| Rename { bundled: (*name).to_owned(), target: (*name).to_owned() };
        return Ok(bundled.iter().map(same).collect());
    }
    match options.databases.iter().find(|rename| !bundled.contains(&rename.bundled.as_str())) {
        Some(unknown) => Err(Error::NoSuchDatabase(unknown.bundled.clone())),
        None => Ok(options.databases.clone()),
    }
}

/// Refuses a bundle that is not closed, unless that is allowed.
pub(super) fn check_closed(manifest: &Manifest, allow_incomplete: bool) -> Result<(), Error> {
    match Incomplete::of(manifest) {
        Some(Incomplete { missing, rotten }) if !allow_incomplete => Err(Error::NotClosed { missing, rotten }),
        _ => Ok(()),
    }
}
