//! Trying again, at one level only: each request of a provider goes through [`Policy::run`], and each body through
//! [`Policy::resume`]. Nothing below (the SDK) and nothing above repeats what is tried here.

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use pacharc_format::Key;

use super::Error;

/// How often a body may break off in a row without a single byte in between.
const BARREN: u32 = 5;

/// How long what is transient is tried again, with growing pauses and jitter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The first pause.
    pub first: Duration,
    /// The longest pause.
    pub longest: Duration,
    /// The most time that the pauses of one request may take together.
    pub total: Duration,
    /// How long an answer, and each next piece of a body, may take to come.
    pub patience: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(200),
            longest: Duration::from_secs(20),
            total: Duration::from_secs(180),
            patience: Duration::from_secs(60),
        }
    }
}

impl Policy {
    /// Runs `request` until it succeeds, fails for good, or time is up; then its last error comes out.
    pub(super) async fn run<T, F>(self, request: impl FnMut() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let pauses = ExponentialBuilder::default()
            .with_min_delay(self.first)
            .with_max_delay(self.longest)
            .without_max_times()
            .with_total_delay(Some(self.total))
            .with_jitter();
        request
            .retry(pauses)
            .when(Error::retryable)
            .notify(|error, pause| tracing::debug!(%error, ?pause, "trying again"))
            .await
            .map_err(Error::lasting)
    }

    /// The bytes of `body`, which is that of the object `at`. Where it breaks off, `reopen` gives what follows an offset in
    /// the same version. Checks the length.
    pub(super) fn resume<F>(
        self,
        at: Whole,
        body: BoxStream<'static, Result<Bytes, Error>>,
        reopen: impl Fn(u64) -> F + Send + Sync + 'static,
    ) -> BoxStream<'static, Result<Bytes, Error>>
    where
        F: Future<Output = Result<BoxStream<'static, Result<Bytes, Error>>, Error>> + Send,
    {
        let state = Resumable { policy: self, at, offset: 0, body, reopen, barren: 0 };
        futures::stream::try_unfold(
            state,
            |mut state| async move { Ok(state.next().await?.map(|bytes| (bytes, state))) },
        )
        .try_filter(|bytes| std::future::ready(!bytes.is_empty()))
        .boxed()
    }
}

/// The object that a body belongs to.
pub(super) struct Whole {
    pub(super) bucket: String,
    pub(super) key: Key,
    pub(super) size: u64,
}

struct Resumable<R> {
    policy: Policy,
    at: Whole,
    offset: u64,
    body: BoxStream<'static, Result<Bytes, Error>>,
    reopen: R,
    barren: u32,
}

impl<R, F> Resumable<R>
where
    R: Fn(u64) -> F,
    F: Future<Output = Result<BoxStream<'static, Result<Bytes, Error>>, Error>>,
{
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            let error = match self.body.next().await {
                Some(Ok(bytes)) => return self.count(bytes).map(Some),
                None if self.offset == self.at.size => return Ok(None),
                None => self.truncated(),
                Some(Err(error)) => error,
            };
            if !error.retryable() || self.barren == BARREN {
                return Err(error);
            }
            tracing::debug!(%error, offset = self.offset, "reading on");
            tokio::time::sleep(self.policy.first.saturating_mul(self.barren)).await;
            self.barren += 1;
            self.body = self.policy.run(|| (self.reopen)(self.offset)).await?;
        }
    }

    fn count(&mut self, bytes: Bytes) -> Result<Bytes, Error> {
        self.offset += bytes.len() as u64;
        if self.offset > self.at.size {
            let Whole { bucket, key, size } = &self.at;
            let (bucket, key) = (bucket.clone(), key.clone());
            return Err(Error::Length { bucket, key, promised: *size, actual: self.offset });
        }
        if !bytes.is_empty() {
            self.barren = 0;
        }
        Ok(bytes)
    }

    fn truncated(&self) -> Error {
        let Whole { bucket, key, size } = &self.at;
        Error::Truncated { bucket: bucket.clone(), key: key.clone(), promised: *size, actual: self.offset }
    }
}
