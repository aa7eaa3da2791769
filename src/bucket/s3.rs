//! Buckets that speak S3, through the AWS SDK: Amazon's, and servers of others behind an endpoint.
//!
//! The SDK's own retries, checksums and stall detection are off: [`Policy`] repeats requests, the sizes and (a level above)
//! the hashes are checked, and every answer and every read has its own time limit.

mod answer;
mod client;
mod digest;
mod fidelity;
mod listing;
mod upload;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ArchiveStatus, StorageClass};
use bytes::{Bytes, BytesMut};
use futures::stream::{BoxStream, StreamExt as _};
use pacharc_format::{Key, Metadata};

use self::answer::{Asked, HttpResponse};
use self::digest::Digests;
use self::fidelity::Fidelity;
use self::upload::PartRoom;
use super::retry::Whole;
use super::url::S3Url;
use super::{Bucket, BucketUrl, Error, Listed, Object, Options, Policy, Size, Upload};

/// The longest key, prefix included, in bytes (Amazon S3, "Naming Amazon S3 objects").
const KEY_LIMIT: usize = 1024;
/// How slow a connection may be on which a body is sent, in bytes a second.
const SLOWEST: u64 = 64 << 10;
/// How long a bucket is tried that has never answered: its name or endpoint is rather wrong than its server overloaded.
const FIRST_CONTACT: Duration = Duration::from_secs(10);

/// Of `If-None-Match`: nothing may lie there.
const ANYTHING: &str = "*";

/// An S3 bucket; cheap to clone.
#[derive(Clone)]
pub(super) struct S3(Arc<Inner>);

struct Inner {
    client: Client,
    url: String,
    identity: String,
    bucket: String,
    prefix: String,
    retry: Policy,
    parts: PartRoom,
    /// Whether a request's signature covers the hash of its body. TLS covers the body itself, for less.
    signs_payloads: bool,
    answered: AtomicBool,
    /// Failures that may pass.
    faults: AtomicU64,
    fidelity: Fidelity,
    digests: Digests,
}

impl S3 {
    /// Prepares requests to the bucket at `url`; sends none.
    pub(super) async fn open(url: &S3Url, options: &Options) -> Result<Self, Error> {
        let client::Built { client, url, place, is_encrypted } = client::build(url, options).await?;
        Ok(Self(Arc::new(Inner {
            client,
            identity: format!("s3://{place}/{}/{}", url.bucket, url.prefix),
            bucket: url.bucket.clone(),
            prefix: url.prefix.clone(),
            url: BucketUrl::S3(url).to_string(),
            retry: options.retry,
            parts: PartRoom::new(options.upload_memory),
            signs_payloads: !is_encrypted,
            answered: AtomicBool::new(false),
            faults: AtomicU64::new(0),
            fidelity: Fidelity::default(),
            digests: Digests::default(),
        })))
    }

    /// The object's name at the server, prefix included.
    fn name(&self, key: &Key) -> Result<String, Error> {
        let invalid = |reason: &str| Error::InvalidKey {
            bucket: self.0.url.clone(),
            key: key.clone(),
            reason: reason.to_owned(),
        };
        let name = key.as_str().ok_or_else(|| invalid("it is not UTF-8"))?;
        if name.is_empty() {
            return Err(invalid("it is empty"));
        }
        if self.0.prefix.len() + name.len() > KEY_LIMIT {
            return Err(invalid("with the prefix it is longer than 1024 bytes"));
        }
        Ok(format!("{}{name}", self.0.prefix))
    }

    /// As [`S3::name`], for what can only be absent if no object can have this name.
    fn present_name(&self, key: &Key) -> Result<String, Error> {
        self.name(key).map_err(|_| Error::NotFound { bucket: self.0.url.clone(), key: key.clone() })
    }

    fn policy(&self) -> Policy {
        match self.0.answered.load(Ordering::Relaxed) {
            true => self.0.retry,
            false => Policy { total: self.0.retry.total.min(FIRST_CONTACT), ..self.0.retry },
        }
    }

    /// How long the answer to a request without a body may take.
    fn patience(&self) -> Duration {
        self.0.retry.patience
    }

    /// How long the answer to a request with a body of `length` bytes may take.
    fn sending(&self, length: usize) -> Duration {
        self.patience() + Duration::from_secs(length as u64 / SLOWEST)
    }

    /// Sends `request` once.
    async fn once<T, E>(
        &self,
        asked: Asked<'_>,
        patience: Duration,
        request: impl Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    ) -> Result<T, Error>
    where
        E: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
    {
        let (result, is_answer) = match tokio::time::timeout(patience, request).await {
            Ok(Ok(output)) => (Ok(output), true),
            Ok(Err(error)) => {
                let is_answer = matches!(error, SdkError::ServiceError(_));
                let answered = self.0.answered.load(Ordering::Relaxed);
                (Err(answer::explain(&self.0.url, asked, error, answered)), is_answer)
            }
            Err(_) => (Err(answer::silence(&self.0.url, asked, patience)), false),
        };
        if result.as_ref().is_err_and(Error::retryable) {
            self.0.faults.fetch_add(1, Ordering::Relaxed);
        } else if is_answer {
            self.0.answered.store(true, Ordering::Relaxed);
        }
        result
    }

    /// Why a HEAD was refused, which had no room to say it: a read of one byte has.
    async fn explained(&self, key: &Key, name: &str, refused: Error) -> Error {
        match self.policy().run(|| self.fetch(key, name, Some("bytes=0-0".to_owned()), None)).await {
            Err(Error::Range { .. }) | Ok(_) => refused,
            Err(told) => told,
        }
    }

    /// Opens `range` of the object called `name`, once; only the version `etag`, where it is given.
    async fn fetch(
        &self,
        key: &Key,
        name: &str,
        range: Option<String>,
        etag: Option<String>,
    ) -> Result<GetObjectOutput, Error> {
        let request = self.0.client.get_object().bucket(&self.0.bucket).key(name);
        let request = request.set_range(range).set_if_match(etag).send();
        self.once(Asked::object("reading", key), self.patience(), request).await
    }

    /// The bytes of `body` as they come, without judging how many they are.
    fn pieces(&self, key: &Key, body: ByteStream) -> BoxStream<'static, Result<Bytes, Error>> {
        let (url, key, patience) = (self.0.url.clone(), key.clone(), self.0.retry.patience);
        futures::stream::unfold(Some((body, url, key)), move |state| async move {
            let (mut body, url, key) = state?;
            let asked = Asked::object("reading", &key);
            match tokio::time::timeout(patience, body.next()).await {
                Ok(None) => None,
                Ok(Some(Ok(bytes))) => Some((Ok(bytes), Some((body, url, key)))),
                Ok(Some(Err(error))) => Some((Err(answer::broken(&url, asked, error)), None)),
                Err(_) => Some((Err(answer::silence(&url, asked, patience)), None)),
            }
        })
        .boxed()
    }

    /// What follows `offset` in the version `etag` of the object.
    async fn rest(
        &self,
        key: &Key,
        offset: u64,
        etag: String,
    ) -> Result<BoxStream<'static, Result<Bytes, Error>>, Error> {
        let name = self.present_name(key)?;
        let output = match self.fetch(key, &name, Some(format!("bytes={offset}-")), Some(etag)).await {
            // It was longer: a server that passes over `If-Match` tells a shorter version so.
            Err(Error::Range { bucket, key, .. }) => return Err(Error::Changed { bucket, key }),
            output => output?,
        };
        self.check_start(key, &output, offset)?;
        Ok(self.pieces(key, output.body))
    }

    fn size(&self, key: &Key, length: Option<i64>) -> Result<u64, Error> {
        length.and_then(|length| u64::try_from(length).ok()).ok_or_else(|| Error::Failed {
            bucket: self.0.url.clone(),
            doing: format!("reading object {key}"),
            source: "its size is not in the answer".into(),
        })
    }

    /// Whether the answer to a ranged read begins at `offset`: some servers send the whole object.
    fn check_start(&self, key: &Key, output: &GetObjectOutput, offset: u64) -> Result<(), Error> {
        let start = output.content_range().and_then(|range| range.strip_prefix("bytes ")?.split_once('-'));
        match start.and_then(|(start, _)| start.parse::<u64>().ok()) {
            Some(start) if start == offset => Ok(()),
            _ => Err(Error::Failed {
                bucket: self.0.url.clone(),
                doing: format!("reading object {key}"),
                source: format!("asked for bytes from {offset} on, it sent {:?}", output.content_range()).into(),
            }),
        }
    }

    /// Fails where an object lies at `key`.
    async fn check_absent(&self, key: &Key) -> Result<(), Error> {
        match self.head(key).await {
            Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
            Ok(_) => Err(Error::Exists { bucket: self.0.url.clone(), key: key.clone() }),
        }
    }

    /// Makes an object appear by `make`, which is told whether it may replace another: only at a server that knows no such
    /// condition.
    async fn on_condition<F>(&self, make: impl Fn(bool) -> F) -> Result<(), Error>
    where
        F: Future<Output = Result<(), Error>>,
    {
        match make(false).await {
            Err(error) if answer::knows_no_condition(&error) => make(true).await,
            made => made,
        }
    }

    /// What lies at `key`, if it has this size and begins with `beginning`.
    async fn holds(&self, key: &Key, size: u64, beginning: &[u8]) -> Result<Option<Listed>, Error> {
        let listed = match self.head(key).await {
            Err(Error::NotFound { .. }) => return Ok(None),
            listed => listed?,
        };
        let is_it = listed.size == size && self.get_range(key, 0, beginning.len()).await? == beginning;
        Ok(is_it.then_some(listed))
    }

    /// Writes the object called `name`, once; only where nothing lies there, unless it `replaces`.
    async fn put_once(
        &self,
        key: &Key,
        name: &str,
        metadata: &Metadata,
        body: Bytes,
        replaces: bool,
    ) -> Result<(), Error> {
        let patience = self.sending(body.len());
        let put = |digest| {
            let Metadata { content_type, content_encoding, content_disposition, content_language, cache_control, user } =
                metadata.clone();
            let body = ByteStream::from(body.clone());
            let request = self.0.client.put_object().bucket(&self.0.bucket).key(name).body(body);
            let request = request
                .set_content_md5(digest)
                .set_if_none_match((!replaces).then(|| ANYTHING.to_owned()))
                .set_content_type(content_type)
                .set_content_encoding(content_encoding)
                .set_content_disposition(content_disposition)
                .set_content_language(content_language)
                .set_cache_control(cache_control)
                .set_metadata(Some(user.into_iter().collect()));
            let request = match self.0.signs_payloads {
                true => request.customize(),
                false => request.customize().disable_payload_signing(),
            };
            self.once(Asked::writing("writing", key), patience, request.send())
        };
        self.0.digests.with(&body, put).await.map(drop)
    }

    async fn delete_name(&self, key: &Key, name: &str) -> Result<(), Error> {
        let delete = || {
            let request = self.0.client.delete_object().bucket(&self.0.bucket).key(name).send();
            self.once(Asked::object("deleting", key), self.patience(), request)
        };
        match self.policy().run(delete).await {
            Err(Error::NotFound { .. }) => Ok(()),
            result => result.map(drop),
        }
    }
}

#[async_trait]
impl Bucket for S3 {
    fn url(&self) -> &str {
        &self.0.url
    }

    fn faults(&self) -> u64 {
        self.0.faults.load(Ordering::Relaxed)
    }

    fn identity(&self) -> String {
        self.0.identity.clone()
    }

    fn list(&self, prefix: &[u8]) -> BoxStream<'_, Result<Listed, Error>> {
        listing::list(self.clone(), prefix)
    }

    async fn get(&self, key: &Key) -> Result<Object, Error> {
        let name = self.present_name(key)?;
        let mut output = self.policy().run(|| self.fetch(key, &name, None, None)).await?;
        let size =
            output.content_length().and_then(|length| u64::try_from(length).ok()).ok_or_else(|| Error::Failed {
                bucket: self.0.url.clone(),
                doing: format!("reading object {key}"),
                source: "its size is not in the answer".into(),
            })?;
        let etag = output.e_tag().map(str::to_owned);
        let metadata = metadata(&mut output);
        let body = self.pieces(key, output.body);
        let whole = Whole { bucket: self.0.url.clone(), key: key.clone(), size };
        let (this, key, version) = (self.clone(), key.clone(), etag.clone());
        let body = self.0.retry.resume(whole, body, move |offset| {
            let (this, key, version) = (this.clone(), key.clone(), version.clone());
            async move {
                // Without an ETag nobody can tell whether it is still the same object.
                let Some(version) = version else {
                    return Err(Error::Changed { bucket: this.0.url.clone(), key });
                };
                // A body is asked for again where it broke off, and only there.
                this.0.faults.fetch_add(1, Ordering::Relaxed);
                this.rest(&key, offset, version).await
            }
        });
        Ok(Object { size, metadata, etag, body })
    }

    async fn get_range(&self, key: &Key, offset: u64, length: usize) -> Result<Bytes, Error> {
        let name = self.present_name(key)?;
        let out_of_range = |size: &str| Error::Range {
            bucket: self.0.url.clone(),
            key: key.clone(),
            offset,
            length,
            size: size.to_owned(),
        };
        let Some(last) = (length as u64).checked_sub(1) else { return Ok(Bytes::new()) };
        // Beyond that no object reaches, and servers pass over the range and send everything.
        let end = offset.checked_add(last).filter(|&end| end < 1 << 62).ok_or_else(|| out_of_range("fewer"))?;
        let read = || async {
            let output = match self.fetch(key, &name, Some(format!("bytes={offset}-{end}")), None).await {
                Err(Error::Range { size, .. }) => return Err(out_of_range(&size)),
                output => output?,
            };
            self.check_start(key, &output, offset)?;
            let size = output.content_range().and_then(|range| range.rsplit_once('/')).map(|(_, size)| size.to_owned());
            if output.content_length() != i64::try_from(length).ok() {
                return Err(out_of_range(size.as_deref().unwrap_or("another number of")));
            }
            let mut bytes = BytesMut::with_capacity(length);
            let mut body = self.pieces(key, output.body);
            while let Some(piece) = body.next().await {
                bytes.extend_from_slice(&piece?);
            }
            if bytes.len() != length {
                let (bucket, key) = (self.0.url.clone(), key.clone());
                return Err(Error::Truncated { bucket, key, promised: length as u64, actual: bytes.len() as u64 });
            }
            Ok(bytes.freeze())
        };
        self.policy().run(read).await
    }

    async fn head(&self, key: &Key) -> Result<Listed, Error> {
        let name = self.present_name(key)?;
        let head = || {
            let request = self.0.client.head_object().bucket(&self.0.bucket).key(&name).send();
            self.once(Asked::glance(key), self.patience(), request)
        };
        let output = match self.policy().run(head).await {
            Err(error) if answer::is_unexplained(&error) => return Err(self.explained(key, &name, error).await),
            output => output?,
        };
        let thawed = output.restore().is_some_and(|restore| restore.contains("ongoing-request=\"false\""));
        let frozen = matches!(output.storage_class(), Some(StorageClass::Glacier | StorageClass::DeepArchive))
            || matches!(output.archive_status(), Some(ArchiveStatus::ArchiveAccess | ArchiveStatus::DeepArchiveAccess));
        Ok(Listed {
            key: key.clone(),
            size: self.size(key, output.content_length())?,
            etag: output.e_tag().map(str::to_owned),
            archived: frozen && !thawed,
        })
    }

    async fn put(&self, key: &Key, metadata: &Metadata, body: Bytes) -> Result<(), Error> {
        let name = self.name(key)?;
        self.check_fidelity(key).await?;
        self.policy().run(|| self.put_once(key, &name, metadata, body.clone(), true)).await
    }

    async fn put_new(&self, key: &Key, metadata: &Metadata, body: Bytes) -> Result<(), Error> {
        let name = self.name(key)?;
        self.check_fidelity(key).await?;
        self.check_absent(key).await?;
        let (name, body) = (&name, &body);
        let put = |replaces| self.policy().run(move || self.put_once(key, name, metadata, body.clone(), replaces));
        match self.on_condition(put).await {
            // The answer to a first request of ours may have been lost.
            Err(Error::Exists { .. }) if self.holds(key, body.len() as u64, body).await?.is_some() => Ok(()),
            put => put,
        }
    }

    async fn upload(&self, key: &Key, metadata: &Metadata, size: Size) -> Result<Box<dyn Upload>, Error> {
        let name = self.name(key)?;
        self.check_fidelity(key).await?;
        Ok(Box::new(upload::S3Upload::new(self.clone(), key.clone(), name, metadata.clone(), size)))
    }

    async fn delete(&self, key: &Key) -> Result<(), Error> {
        // What cannot be there is not there.
        let Ok(name) = self.name(key) else { return Ok(()) };
        match self.check_fidelity(key).await {
            Err(Error::InvalidKey { .. }) => return Ok(()),
            known => known?,
        }
        self.delete_name(key, &name).await
    }
}

fn metadata(output: &mut GetObjectOutput) -> Metadata {
    Metadata {
        content_type: output.content_type.take(),
        content_encoding: output.content_encoding.take(),
        content_disposition: output.content_disposition.take(),
        content_language: output.content_language.take(),
        cache_control: output.cache_control.take(),
        user: output.metadata.take().unwrap_or_default().into_iter().collect(),
    }
}
