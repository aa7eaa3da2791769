//! `Content-MD5`, for buckets that take no body without one: those with Object Lock and a default retention (Amazon S3,
//! "Managing objects with Object Lock"). Others are spared it: TLS or the signature covers a body already, and MD5 costs
//! more than either.

use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use md5::{Digest as _, Md5};

use super::Error;
use super::answer::demands_digest;

/// Whether a bucket has demanded digests.
#[derive(Default)]
pub(super) struct Digests(AtomicBool);

impl Digests {
    /// Sends `body` by `send`, which is given its digest where the bucket is known to demand one; the first time that it
    /// does, the body is sent once more.
    pub(super) async fn with<T, F>(&self, body: &Bytes, send: impl Fn(Option<String>) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        if !self.0.load(Ordering::Relaxed) {
            match send(None).await {
                Err(error) if demands_digest(&error) => self.0.store(true, Ordering::Relaxed),
                result => return result,
            }
        }
        let (body, inline) = (body.clone(), body.clone());
        // A part of 64 MiB takes a tenth of a second. Nothing in there can panic.
        let digest = tokio::task::spawn_blocking(move || md5(&body)).await.unwrap_or_else(|_| md5(&inline));
        send(Some(digest)).await
    }
}

fn md5(body: &[u8]) -> String {
    BASE64_STANDARD.encode(Md5::digest(body))
}
