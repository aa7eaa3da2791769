//! Large objects, in parts. What turns out to be small becomes a plain object; what is given up is taken back.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use bytes::{Bytes, BytesMut};
use pacharc_format::{Key, Metadata};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::{JoinError, JoinSet};

use super::answer::{self, Asked};
use super::{ANYTHING, Bucket as _, Error, S3, Size, Upload};

const MIB: u64 = 1 << 20;
/// The smallest part of ours; S3 demands 5 MiB of all but the last.
const PART: u64 = 8 * MIB;
const PART_KIB: usize = 8 << 10;
/// How many parts an object has as long as they can stay below [`LARGE_PART`]: some servers allow no more than 1,000.
const FEW_PARTS: u64 = 1000;
const LARGE_PART: u64 = 64 * MIB;
/// How long parts that are on their way may take to arrive when an upload is taken back; and when it is taken back once more
/// where some did not, one after the other: all of it within the time that a process takes to end.
const LATE_PARTS: Duration = Duration::from_secs(10);
const ONCE_MORE: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(5)];
/// How many bytes of an object are kept, to know it by: a bundle's first bytes are those of no other.
const BEGINNING: usize = 16 << 10;
/// The most parts that S3 allows ("Amazon S3 multipart upload limits").
const PARTS: u64 = 10_000;

/// The largest part that S3 allows.
const LARGEST_PART: u64 = 5 << 30;
/// Parts of an object whose size is not known that have one size, as some servers want it: enough for a fifth more than the
/// estimate.
const EQUAL_PARTS: u64 = 6_000;

/// The size of part `number` (from 1) of an object.
fn part_size(size: Size, number: u64) -> u64 {
    match size {
        Size::Exactly(size) => {
            let few = size.div_ceil(FEW_PARTS).min(LARGE_PART);
            few.max(size.div_ceil(PARTS)).max(PART).next_multiple_of(MIB)
        }
        Size::About(size) => {
            let equal = size.div_ceil(EQUAL_PARTS / 6 * 5).max(PART).next_multiple_of(MIB);
            // It is more than estimated: 4,000 parts left, ten times twice the size, are three hundred times as much.
            let doubled = number.saturating_sub(EQUAL_PARTS).div_ceil(400);
            (equal << doubled).min(LARGEST_PART)
        }
    }
}

/// Room for the parts that are being sent, of all uploads together.
pub(super) struct PartRoom {
    room: Arc<Semaphore>,
    /// In KiB, as all of it.
    all: usize,
}

impl PartRoom {
    /// Parts of so many bytes together, or one.
    pub(super) fn new(memory: usize) -> Self {
        // One more part is being gathered meanwhile.
        let all = (memory >> 10).saturating_sub(PART_KIB).clamp(1, Semaphore::MAX_PERMITS);
        Self { room: Arc::new(Semaphore::new(all)), all }
    }

    /// Waits for room; it is given back when what comes out is dropped.
    async fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let wanted = u32::try_from((bytes >> 10).min(self.all)).unwrap_or(u32::MAX);
        Arc::clone(&self.room).acquire_many_owned(wanted).await.ok()
    }
}

/// An object on its way to S3.
pub(super) struct S3Upload {
    s3: S3,
    key: Key,
    name: String,
    metadata: Metadata,
    size: Size,
    written: u64,
    beginning: Vec<u8>,
    buffer: BytesMut,
    session: Option<Session>,
}

/// A multipart upload that the server knows of; taken back when it is dropped.
struct Session {
    s3: S3,
    key: Key,
    name: String,
    id: String,
    started: u64,
    sending: JoinSet<Result<CompletedPart, Error>>,
    sent: Vec<CompletedPart>,
    /// Whether there is still something to take back.
    open: bool,
}

impl S3Upload {
    pub(super) fn new(s3: S3, key: Key, name: String, metadata: Metadata, size: Size) -> Self {
        Self {
            s3,
            key,
            name,
            metadata,
            size,
            written: 0,
            beginning: Vec::new(),
            buffer: BytesMut::new(),
            session: None,
        }
    }

    /// Makes sure that what was promised `keeps` to what was written.
    fn check_size(&self, keeps: impl FnOnce(u64) -> bool) -> Result<(), Error> {
        match self.size {
            Size::Exactly(promised) if !keeps(promised) => {
                let (bucket, key) = (self.s3.0.url.clone(), self.key.clone());
                Err(Error::Length { bucket, key, promised, actual: self.written })
            }
            _ => Ok(()),
        }
    }

    /// The size of the part that is being gathered.
    fn part_size(&self) -> usize {
        let number = self.session.as_ref().map_or(0, |session| session.started) + 1;
        usize::try_from(part_size(self.size, number)).unwrap_or(usize::MAX)
    }

    /// Begins an upload at the server. Dropped meanwhile, what the server began is taken back when its answer comes.
    async fn begin(&self) -> Result<Session, Error> {
        let (s3, key, name, metadata) = (self.s3.clone(), self.key.clone(), self.name.clone(), self.metadata.clone());
        let (sender, receiver) = oneshot::channel();
        crate::farewell::start(async move {
            // A session that nobody takes is dropped, and so taken back.
            drop(sender.send(Session::begin(&s3, &key, &name, &metadata).await));
        });
        receiver.await.map_err(|error| {
            let (bucket, doing) = (self.s3.0.url.clone(), format!("beginning to write object {}", self.key));
            Error::Failed { bucket, doing, source: error.into() }
        })?
    }

    /// Makes the object appear, over another one only if it `replaces`.
    async fn end(mut self, replaces: bool) -> Result<(), Error> {
        self.check_size(|promised| self.written == promised)?;
        let rest = std::mem::take(&mut self.buffer).freeze();
        if self.session.is_none() {
            return match replaces {
                true => self.s3.put(&self.key, &self.metadata, rest).await,
                false => self.s3.put_new(&self.key, &self.metadata, rest).await,
            };
        }
        if !rest.is_empty() {
            self.send(rest).await?;
        }
        match self.session.take() {
            Some(session) => session.complete(self.written, &self.beginning, replaces).await,
            None => Ok(()),
        }
    }

    async fn send(&mut self, part: Bytes) -> Result<(), Error> {
        let session = match self.session.take() {
            Some(session) => session,
            None => self.begin().await?,
        };
        self.session.insert(session).send(part).await
    }
}

#[async_trait]
impl Upload for S3Upload {
    async fn write(&mut self, mut bytes: Bytes) -> Result<(), Error> {
        self.written += bytes.len() as u64;
        self.check_size(|promised| self.written <= promised)?;
        let room = BEGINNING.saturating_sub(self.beginning.len());
        self.beginning.extend_from_slice(bytes.get(..room).unwrap_or(&bytes));
        while !bytes.is_empty() {
            let size = self.part_size();
            if self.buffer.is_empty() && self.session.is_some() {
                // It is large: take the part's memory at once instead of growing beyond it.
                self.buffer.reserve(size);
            }
            let room = size.saturating_sub(self.buffer.len());
            self.buffer.extend_from_slice(&bytes.split_to(room.min(bytes.len())));
            if self.buffer.len() == size {
                let part = std::mem::take(&mut self.buffer).freeze();
                self.send(part).await?;
            }
        }
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<(), Error> {
        self.end(true).await
    }

    async fn finish_new(self: Box<Self>) -> Result<(), Error> {
        self.end(false).await
    }

    async fn abort(mut self: Box<Self>) -> Result<(), Error> {
        match self.session.take() {
            Some(session) => session.abort().await,
            None => Ok(()),
        }
    }
}

impl Session {
    async fn begin(s3: &S3, key: &Key, name: &str, metadata: &Metadata) -> Result<Self, Error> {
        let begin = || {
            let Metadata { content_type, content_encoding, content_disposition, content_language, cache_control, user } =
                metadata.clone();
            let request = s3.0.client.create_multipart_upload().bucket(&s3.0.bucket).key(name);
            let request = request
                .set_content_type(content_type)
                .set_content_encoding(content_encoding)
                .set_content_disposition(content_disposition)
                .set_content_language(content_language)
                .set_cache_control(cache_control)
                .set_metadata(Some(user.into_iter().collect()));
            s3.once(Asked::writing("beginning to write", key), s3.patience(), request.send())
        };
        let id = s3.policy().run(begin).await?.upload_id.unwrap_or_default();
        let (s3, key, name) = (s3.clone(), key.clone(), name.to_owned());
        Ok(Self { s3, key, name, id, started: 0, sending: JoinSet::new(), sent: Vec::new(), open: true })
    }

    /// Sends `part` in the background, once there is room for it.
    async fn send(&mut self, part: Bytes) -> Result<(), Error> {
        let room = self.s3.0.parts.take(part.len()).await;
        while let Some(sent) = self.sending.try_join_next() {
            self.take(sent)?;
        }
        self.started += 1;
        let number = i32::try_from(self.started).unwrap_or(i32::MAX);
        let (s3, key, name, id) = (self.s3.clone(), self.key.clone(), self.name.clone(), self.id.clone());
        self.sending.spawn(async move {
            let send = |digest| {
                let request = s3.0.client.upload_part().bucket(&s3.0.bucket).key(&name).upload_id(&id);
                let request = request.part_number(number).body(ByteStream::from(part.clone())).set_content_md5(digest);
                let request = match s3.0.signs_payloads {
                    true => request.customize(),
                    false => request.customize().disable_payload_signing(),
                };
                s3.once(Asked::writing("writing", &key), s3.sending(part.len()), request.send())
            };
            let output = s3.policy().run(|| s3.0.digests.with(&part, send)).await?;
            drop(room);
            Ok(CompletedPart::builder().part_number(number).set_e_tag(output.e_tag).build())
        });
        Ok(())
    }

    /// Takes what came of a part.
    fn take(&mut self, sent: Result<Result<CompletedPart, Error>, JoinError>) -> Result<(), Error> {
        let part = sent.map_err(|error| {
            let (bucket, doing) = (self.s3.0.url.clone(), format!("writing object {}", self.key));
            Error::Failed { bucket, doing, source: error.into() }
        })?;
        self.sent.push(part?);
        Ok(())
    }

    /// Puts the parts together. What then has this size and `beginning` is what was sent.
    async fn complete(mut self, size: u64, beginning: &[u8], replaces: bool) -> Result<(), Error> {
        while let Some(sent) = self.sending.join_next().await {
            self.take(sent)?;
        }
        self.sent.sort_by_key(|part| part.part_number);
        let parts = CompletedMultipartUpload::builder().set_parts(Some(std::mem::take(&mut self.sent))).build();
        let (s3, this, parts) = (&self.s3, &self, &parts);
        let once = |replaces: bool| async move {
            let request = s3.0.client.complete_multipart_upload().bucket(&s3.0.bucket).key(&this.name);
            let request = request.set_if_none_match((!replaces).then(|| ANYTHING.to_owned()));
            let request = request.upload_id(&this.id).multipart_upload(parts.clone()).send();
            // Large objects are put together while the client waits.
            s3.once(Asked::writing("completing", &this.key), s3.patience() * 10, request).await.map(drop)
        };
        let complete = |replaces| s3.policy().run(move || once(replaces));
        let completed = match replaces {
            true => complete(true).await,
            false => match s3.check_absent(&self.key).await {
                Ok(()) => s3.on_condition(complete).await,
                taken => taken,
            },
        };
        if let Err(error) = completed {
            match self.is_there(size, beginning).await {
                Ok(true) => {}
                // Whose it is, is not known.
                Err(unknown) if matches!(error, Error::Exists { .. }) => return Err(unknown),
                _ => return Err(error),
            }
        }
        self.open = false;
        Ok(())
    }

    /// Whether the object is there although the server's last answer says no: its first answer was lost.
    async fn is_there(&self, size: u64, beginning: &[u8]) -> Result<bool, Error> {
        let made_of = format!("-{}", self.started);
        let listed = self.s3.holds(&self.key, size, beginning).await?;
        Ok(listed.and_then(|l| l.etag).is_some_and(|etag| etag.trim_matches('"').ends_with(&made_of)))
    }

    /// Takes back what was sent; also where nobody waits for the end of that.
    async fn abort(mut self) -> Result<(), Error> {
        let (sender, receiver) = oneshot::channel();
        let take_back = self.take_back();
        crate::farewell::start(async move {
            if let Err(Err(error)) = sender.send(take_back.await) {
                warn_of_parts(&error);
            }
        });
        receiver.await.map_err(|error| {
            let (bucket, doing) = (self.s3.0.url.clone(), format!("taking back object {}", self.key));
            Error::Failed { bucket, doing, source: error.into() }
        })?
    }

    /// Takes back what was sent. Whoever waits for it holds nothing of this upload any more.
    fn take_back(&mut self) -> impl Future<Output = Result<(), Error>> + Send + use<> {
        self.open = false;
        let Self { s3, key, name, id, .. } = self;
        let (s3, key, name, id) = (s3.clone(), key.clone(), name.clone(), id.clone());
        let mut sending = std::mem::take(&mut self.sending);
        async move {
            let abort = || {
                let request =
                    s3.0.client.abort_multipart_upload().bucket(&s3.0.bucket).key(&name).upload_id(&id).send();
                s3.once(Asked::writing("taking back", &key), s3.patience(), request)
            };
            let take_back = async || match s3.policy().run(abort).await {
                Err(error) if !answer::is_no_upload(&error) => Err(error),
                _ => Ok(()),
            };
            let arrived = async {
                let mut all = true;
                while let Some(part) = sending.join_next().await {
                    all &= matches!(part, Ok(Ok(_)));
                }
                all
            };
            let arrived = tokio::time::timeout(LATE_PARTS, arrived).await.unwrap_or(false);
            sending.shutdown().await;
            take_back().await?;
            // A part that a server is still at when the upload ends stays, or even opens it anew: "it might be necessary to
            // abort a given multipart upload multiple times" (S3, AbortMultipartUpload).
            for pause in ONCE_MORE.into_iter().filter(|_| !arrived) {
                tokio::time::sleep(pause).await;
                take_back().await?;
            }
            Ok(())
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if !self.open {
            return;
        }
        let take_back = self.take_back();
        crate::farewell::start(async move {
            if let Err(error) = take_back.await {
                warn_of_parts(&error);
            }
        });
    }
}

fn warn_of_parts(error: &Error) {
    tracing::warn!(%error, "parts of an unfinished object may still lie in the bucket");
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn parts_suffice_for_every_size() {
        for size in [0, 1, PART, PART + 1, 6 * GIB, 60 * GIB, 700 * GIB, 5120 * GIB] {
            let part = part_size(Size::Exactly(size), 1);
            assert!(size.div_ceil(part) <= PARTS, "{size}");
            assert!((PART..=5 * GIB).contains(&part));
            assert!(size > 60 * GIB || size.div_ceil(part) <= FEW_PARTS, "{size}");
            assert_eq!(part, part_size(Size::Exactly(size), 777), "some servers want parts of one size");
        }
    }

    #[tokio::test]
    async fn parts_of_several_uploads_share_the_room() {
        let part = PART_KIB << 10;
        let rooms = PartRoom::new(3 * part);
        let (first, _second) = (rooms.take(part).await, rooms.take(part).await);
        assert_eq!(rooms.room.available_permits(), 0, "the third part is the one that is being gathered");
        drop(first);
        assert_eq!(rooms.room.available_permits(), PART_KIB);
        // However little there is, and however large it is, one goes.
        for memory in [0, part] {
            let rooms = PartRoom::new(memory);
            assert!(rooms.take(5 << 30).await.is_some_and(|room| room.num_permits() == rooms.all));
        }
    }

    #[test]
    fn an_estimate_may_be_wrong() {
        for estimate in [0, 1, 40 * GIB, 60 * GIB, 700 * GIB, 5120 * GIB, 1 << 60] {
            let size = |number| part_size(Size::About(estimate), number);
            assert!((1..=EQUAL_PARTS).all(|number| size(number) == size(1)), "some servers want parts of one size");
            assert!((1..=PARTS).all(|number| (PART..=LARGEST_PART).contains(&size(number))));
            let reach: u64 = (1..=PARTS).map(size).sum();
            assert!(reach > 5120 * GIB && reach > estimate.min(40 << 40), "{estimate}");
            if estimate < 1 << 60 {
                assert!(size(1) * EQUAL_PARTS >= estimate / 5 * 6 && size(EQUAL_PARTS + 1) == 2 * size(1));
            }
        }
        assert_eq!(part_size(Size::About(40 * GIB), 1), 9 * MIB);
    }
}
