//! The target of a restore: what is checked before the first byte, and the marks that it carries until all is proved.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use pacharc_format::manifest::Manifest;
use pacharc_format::{Head, Key, Metadata};
use uuid::Uuid;

use super::{Error, Options, Rename};
use crate::bucket::{self, Bucket, BucketUrl};
use crate::budget::Budget;
use crate::database::restore::{maintenance, system_identifier};
use crate::database::{self, Environment, Server, Tool, Tools};
use crate::monitor::Monitor;

/// The key of the object that marks a bucket while a restore is under way.
pub const MARK: &str = "pacharc.restoring";

/// What is added to the mark when all is proved.
const PROVED: &str = "proved\n";

/// Where a restore writes.
pub(super) struct Target {
    /// The server and psql, where databases are restored.
    pub(super) server: Option<(Server, Tool)>,
    /// The bucket, where objects are restored, and it is there.
    pub(super) bucket: Option<Arc<dyn Bucket>>,
    /// A `file:` bucket whose directory is made when nothing stands in the way of the restore any more.
    new_directory: Option<BucketUrl>,
    settings: bucket::Options,
    /// Whether an earlier run of this restore has written into the bucket.
    pub(super) resumed: bool,
    /// Whether it had proved everything: its databases may have been released already.
    pub(super) was_proved: bool,
}

impl Target {
    /// Connects to what `options` name. Nothing is written.
    pub(super) async fn open(options: &Options) -> Result<Self, Error> {
        let upload_memory = Budget::new(options.limits.max_memory).upload;
        let ca_file = options.ca_file.clone();
        let settings = bucket::Options { ca_file, upload_memory, ..bucket::Options::default() };
        let mut target =
            Self { server: None, bucket: None, new_directory: None, settings, resumed: false, was_proved: false };
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
        match read_mark(bucket.as_ref()).await? {
            Some(found) if found.starts_with(&mark_of(bundle)) => {
                self.resumed = true;
                self.was_proved = found.ends_with(PROVED);
                return Ok(());
            }
            Some(found) => return Err(other_restore(bucket.as_ref(), &found)),
            None => {}
        }
        if let Some(found) = bucket.list(b"chunk/").next().await {
            return Err(Error::NotEmpty { bucket: bucket.url().to_owned(), key: found?.key });
        }
        Ok(())
    }

    /// Marks the bucket, made where it is not there yet: a restore is under way. Of two that have found it empty at once, one
    /// goes on.
    pub(super) async fn mark_bucket(&mut self, bundle: Uuid) -> Result<(), Error> {
        if let Some(url) = self.new_directory.take() {
            let settings = bucket::Options { create: true, ..self.settings.clone() };
            self.bucket = Some(bucket::open(&url, &settings).await?);
        }
        let (Some(bucket), false) = (&self.bucket, self.resumed) else { return Ok(()) };
        // The same bundle may be restored twice at once, too.
        let mark = format!("{}run {}\n", mark_of(bundle), Uuid::new_v4());
        match bucket.put_new(&Key::from(MARK), &mark_metadata(), Bytes::from(mark.clone())).await {
            Err(bucket::Error::Exists { .. }) => {}
            put => put?,
        }
        // Servers that know no condition may have let another one put its mark over this one.
        match read_mark(bucket.as_ref()).await? {
            Some(found) if found == mark => Ok(()),
            found => Err(other_restore(bucket.as_ref(), &found.unwrap_or_default())),
        }
    }

    /// Marks the bucket: all is proved, and databases lose their marks before it does. A run that comes after that does not
    /// take them for somebody else's.
    pub(super) async fn mark_proved(&self, bundle: Uuid) -> Result<(), Error> {
        let Some(bucket) = &self.bucket else { return Ok(()) };
        let mark = mark_of(bundle) + PROVED;
        Ok(bucket.put(&Key::from(MARK), &mark_metadata(), Bytes::from(mark)).await?)
    }

    /// Takes the mark away: all is proved.
    pub(super) async fn release_bucket(&self) -> Result<(), Error> {
        match &self.bucket {
            Some(bucket) => Ok(bucket.delete(&Key::from(MARK)).await?),
            None => Ok(()),
        }
    }
}

/// Whether a directory can be made at `url`, as far as can be seen without making it.
fn can_be_made(url: &BucketUrl) -> bool {
    let BucketUrl::Directory { path } = url else { return false };
    path.ancestors().find(|folder| folder.exists()).is_some_and(Path::is_dir)
}

/// Whether `key` is the restore's own.
pub(super) fn is_mark(key: &Key) -> bool {
    key.as_str() == Some(MARK)
}

fn mark_of(bundle: Uuid) -> String {
    format!("pacharc restore of bundle {bundle}\n")
}

fn mark_metadata() -> Metadata {
    Metadata { content_type: Some("text/plain".into()), ..Metadata::default() }
}

/// The refusal of a bucket with this mark.
fn other_restore(bucket: &dyn Bucket, mark: &str) -> Error {
    let mark = mark.lines().next().unwrap_or_default().to_owned();
    Error::OtherRestore { bucket: bucket.url().to_owned(), mark }
}

async fn read_mark(bucket: &dyn Bucket) -> Result<Option<String>, Error> {
    match bucket.get(&Key::from(MARK)).await {
        Err(bucket::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error.into()),
        Ok(object) => {
            let mut text = Vec::new();
            let mut body = object.body;
            while let Some(bytes) = body.next().await {
                let bytes = bytes?;
                let room = 4096_usize.saturating_sub(text.len());
                text.extend_from_slice(bytes.get(..bytes.len().min(room)).unwrap_or_default());
            }
            Ok(Some(String::from_utf8_lossy(&text).into_owned()))
        }
    }
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
    match &manifest.objects {
        Some(objects) if objects.closed == Some(false) && !allow_incomplete => {
            Err(Error::NotClosed { missing: objects.missing.count, rotten: objects.rotten.count })
        }
        _ => Ok(()),
    }
}
