//! What an answer of the server, or its absence, means. This is the one place that decides whether a request is repeated.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::time::Duration;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use pacharc_format::Key;

use super::super::error::Source;
use super::Error;

pub(super) type HttpResponse = aws_sdk_s3::config::http::HttpResponse;

/// Codes that mean "later": Amazon S3, "Error responses", and what other servers send in their place.
const TRANSIENT: [&str; 14] = [
    "SlowDown",
    "SlowDownRead",
    "SlowDownWrite",
    "InternalError",
    "ServiceUnavailable",
    "RequestTimeout",
    "Throttling",
    "ThrottlingException",
    "RequestLimitExceeded",
    "TooManyRequests",
    "OperationAborted",
    // The body was damaged or cut on its way there.
    "BadDigest",
    "IncompleteBody",
    "XAmzContentSHA256Mismatch",
];
const DENIED: [&str; 8] = [
    "AccessDenied",
    "AllAccessDisabled",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "InvalidToken",
    "TokenRefreshRequired",
    "RequestTimeTooSkewed",
];
const ELSEWHERE: [&str; 3] =
    ["PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"];
/// What follows the first two are codes of servers that keep objects in files.
const BAD_KEY: [&str; 7] = [
    "KeyTooLongError",
    "InvalidURI",
    "XMinioInvalidObjectName",
    "XMinioInvalidResourceName",
    "DirectoryObjectContainsData",
    "ObjectParentIsFile",
    "ExistingObjectIsDirectory",
];

/// What was asked of the server.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    doing: &'static str,
    key: Option<&'a Key>,
    /// Whether the object should be there: only then does `404` say that it is not.
    expected: bool,
    /// Whether an error comes without a body, and so without a code that a proxy would not have.
    bodiless: bool,
}

impl<'a> Asked<'a> {
    /// Something about the bucket as a whole.
    pub(super) fn bucket(doing: &'static str) -> Self {
        Self { doing, key: None, expected: false, bodiless: false }
    }

    /// Something about the object at `key`; `doing` is `reading` or the like.
    pub(super) fn object(doing: &'static str, key: &'a Key) -> Self {
        Self { doing, key: Some(key), expected: true, bodiless: false }
    }

    /// Whether there is an object at `key`, and of what size: a HEAD.
    pub(super) fn glance(key: &'a Key) -> Self {
        Self { doing: "looking at", key: Some(key), expected: true, bodiless: true }
    }

    /// A step of writing the object at `key`.
    pub(super) fn writing(doing: &'static str, key: &'a Key) -> Self {
        Self { doing, key: Some(key), expected: false, bodiless: false }
    }
}

impl fmt::Display for Asked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key {
            Some(key) => write!(f, "{} object {key}", self.doing),
            None => f.write_str(self.doing),
        }
    }
}

/// An error that the server answered with.
#[derive(Debug)]
struct Refusal {
    status: u16,
    code: Option<String>,
    message: Option<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HTTP {}", self.status)?;
        let code = self.code.as_ref().filter(|code| **code != self.status.to_string());
        for part in [code, self.message.as_ref()].into_iter().flatten() {
            write!(f, ": {part}")?;
        }
        Ok(())
    }
}

impl StdError for Refusal {}

/// What `error` means for what was `asked` of `bucket`, which may have `answered` before.
pub(super) fn explain<E>(bucket: &str, asked: Asked<'_>, error: SdkError<E, HttpResponse>, answered: bool) -> Error
where
    E: StdError + ProvideErrorMetadata + Send + Sync + 'static,
{
    let bucket = bucket.to_owned();
    let doing = asked.to_string();
    let (status, retryable) = match &error {
        SdkError::ResponseError(response) => (Some(response.raw().status().as_u16()), false),
        SdkError::DispatchFailure(failure) => (None, !failure.is_user()),
        SdkError::TimeoutError(_) => (None, true),
        _ => (None, false),
    };
    let source = match error {
        SdkError::ServiceError(service) => {
            let region = service.raw().headers().get("x-amz-bucket-region").map(str::to_owned);
            // The SDK makes up a code for a 404 without a body, which any proxy may send.
            let is_told = service.raw().body().bytes().is_none_or(|body| !body.is_empty());
            let refusal = Refusal {
                status: service.raw().status().as_u16(),
                code: service.err().code().filter(|_| is_told).map(str::to_owned),
                message: service.err().message().map(str::to_owned),
            };
            return refused(bucket, asked, refusal, region);
        }
        other => other.into_source().unwrap_or_else(|other| chain(&other).into()),
    };
    match status {
        // A body that broke off; or no S3 at all, whose answer stays what it is.
        Some(status) => {
            let broken = status >= 500 || find::<io::Error>(&*source).is_some();
            let source = format!("HTTP {status}: {}", chain(&*source)).into();
            if broken { Error::Unreachable { bucket, doing, source } } else { Error::Failed { bucket, doing, source } }
        }
        None => unanswered((bucket, doing), source, retryable, answered),
    }
}

/// Credentials that were had before and could not be renewed.
#[derive(Debug)]
struct NotRenewed(Source);

impl fmt::Display for NotRenewed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl StdError for NotRenewed {}

impl Error {
    /// What it is when it was tried again for long enough: credentials that were not renewed are gone.
    pub(in crate::bucket) fn lasting(self) -> Self {
        match self {
            Self::Unreachable { bucket, doing, source } => match source.downcast::<NotRenewed>() {
                Ok(not_renewed) => Self::Credentials { bucket, source: not_renewed.0 },
                Err(source) => Self::Unreachable { bucket, doing, source },
            },
            other => other,
        }
    }
}

/// Whether it is a refusal without a word: the answer to a HEAD has no body.
pub(super) fn is_unexplained(error: &Error) -> bool {
    let (Error::Failed { source, .. } | Error::Denied { source, .. }) = error else { return false };
    source.downcast_ref::<Refusal>().is_some_and(|refusal| {
        matches!(refusal.status, 400 | 403) && refusal.code.as_ref().is_none_or(String::is_empty)
    })
}

/// Whether the server takes no body without a digest in its headers. S3 has no code of its own for it: `InvalidRequest:
/// Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object requests with Object Lock parameters`.
pub(super) fn demands_digest(error: &Error) -> bool {
    let Error::Failed { source, .. } = error else { return false };
    source.downcast_ref::<Refusal>().is_some_and(|refusal| {
        refusal.status == 400 && refusal.message.as_ref().is_some_and(|message| message.contains("Content-MD5"))
    })
}

/// Whether the server does not know `If-None-Match` where something is written.
pub(super) fn knows_no_condition(error: &Error) -> bool {
    let Error::Failed { source, .. } = error else { return false };
    source.downcast_ref::<Refusal>().is_some_and(|refusal| {
        refusal.status == 501 || refusal.code.as_ref().is_some_and(|code| code == "NotImplemented")
    })
}

/// Whether there is no such upload in parts, or no longer.
pub(super) fn is_no_upload(error: &Error) -> bool {
    let Error::Failed { source, .. } = error else { return false };
    source.downcast_ref::<Refusal>().is_some_and(|refusal| refusal.code.as_deref() == Some("NoSuchUpload"))
}

/// Nothing came for too long.
pub(super) fn silence(bucket: &str, asked: Asked<'_>, patience: Duration) -> Error {
    let source = format!("nothing came for {} seconds", patience.as_secs()).into();
    Error::Unreachable { bucket: bucket.to_owned(), doing: asked.to_string(), source }
}

/// A body broke off.
pub(super) fn broken(bucket: &str, asked: Asked<'_>, error: impl StdError) -> Error {
    Error::Unreachable { bucket: bucket.to_owned(), doing: asked.to_string(), source: chain(&error).into() }
}

fn refused(bucket: String, asked: Asked<'_>, refusal: Refusal, region: Option<String>) -> Error {
    let code = refusal.code.as_deref().unwrap_or_default();
    let is = |codes: &[&str]| codes.contains(&code);
    let doing = asked.to_string();
    match (refusal.status, asked.key.cloned()) {
        (_, Some(key)) if code == "InvalidObjectState" => Error::Archived { bucket, key },
        (_, Some(key)) if is(&BAD_KEY) => Error::InvalidKey { bucket, key, reason: refusal.to_string() },
        _ if is(&TRANSIENT) => Error::Unreachable { bucket, doing, source: refusal.into() },
        _ if is(&ELSEWHERE) => Error::Region { bucket, region },
        _ if is(&DENIED) => Error::Denied { bucket, doing, source: refusal.into() },
        _ if code == "NoSuchBucket" => Error::NoBucket { bucket },
        (301 | 307 | 308, _) => Error::Region { bucket, region },
        (401 | 403, _) => Error::Denied { bucket, doing, source: refusal.into() },
        (404, Some(key))
            if asked.expected && (matches!(code, "NoSuchKey" | "NotFound") || asked.bodiless && code.is_empty()) =>
        {
            Error::NotFound { bucket, key }
        }
        // No word of S3: somebody stands in between who does not know the way for the moment.
        (404, _) if code.is_empty() => Error::Unreachable { bucket, doing, source: refusal.into() },
        (408 | 429 | 500 | 502..=504 | 509 | 529, _) => Error::Unreachable { bucket, doing, source: refusal.into() },
        (412, Some(key)) if asked.expected => Error::Changed { bucket, key },
        // Somebody else was faster, or is at it.
        (412, Some(key)) => Error::Exists { bucket, key },
        (409, Some(key)) if code == "ConditionalRequestConflict" => Error::Exists { bucket, key },
        // Whoever asked for the range puts it in.
        (416, Some(key)) => Error::Range { bucket, key, offset: 0, length: 0, size: "fewer".to_owned() },
        _ => Error::Failed { bucket, doing, source: refusal.into() },
    }
}

/// No answer came; `retryable` unless credentials or TLS are the reason. Where the bucket has `answered` before, most of that will
/// pass, too: whoever gives credentials out (a metadata service, STS, an agent of the node) fails for the moment, or a proxy that
/// is being replaced breaks off a handshake.
fn unanswered((bucket, doing): (String, String), source: Source, retryable: bool, answered: bool) -> Error {
    let text: Source = chain(&*source).into();
    if find::<CredentialsError>(&*source).is_some() {
        match answered {
            true => Error::Unreachable { bucket, doing, source: NotRenewed(text).into() },
            false => Error::Credentials { bucket, source: text },
        }
    } else if find::<rustls::Error>(&*source).is_some_and(|error| !answered || is_of_certificates(error)) {
        Error::Tls { bucket, source: text }
    } else if retryable || find::<rustls::Error>(&*source).is_some() {
        Error::Unreachable { bucket, doing, source: text }
    } else {
        Error::Failed { bucket, doing, source: text }
    }
}

/// Whether no other attempt will trust this server.
fn is_of_certificates(error: &rustls::Error) -> bool {
    matches!(error, rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented)
}

/// The error of type `T` among `error` and its sources, looking into what [`io::Error`] wraps.
fn find<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = inner.map(|inner| inner as &(dyn StdError + 'static)).or_else(|| error.source());
    }
    None
}

/// `error` and its sources in one line, each said once.
fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let part = error.to_string();
        if !text.contains(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        next = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(error: impl StdError + Send + Sync + 'static, answered: bool) -> Error {
        unanswered(("s3://b".to_owned(), "listing".to_owned()), Box::new(error), false, answered)
    }

    #[test]
    fn credentials_that_were_had_before_are_asked_for_again() {
        let lost = || CredentialsError::provider_error("the agent is restarting");
        assert!(matches!(of(lost(), false), Error::Credentials { .. }));
        let later = of(lost(), true);
        assert!(later.retryable());
        // Not for ever.
        let lasting = later.lasting();
        assert!(matches!(&lasting, Error::Credentials { source, .. } if source.to_string().contains("agent")));
        let away = Error::Unreachable { bucket: "s3://b".into(), doing: "listing".into(), source: "away".into() };
        assert!(away.lasting().retryable());
    }

    #[test]
    fn a_handshake_that_is_broken_off_is_tried_again() {
        let alert = || rustls::Error::AlertReceived(rustls::AlertDescription::InternalError);
        assert!(matches!(of(alert(), false), Error::Tls { .. }));
        assert!(of(alert(), true).retryable());
        let expired = rustls::Error::InvalidCertificate(rustls::CertificateError::Expired);
        assert!(matches!(of(io::Error::other(expired), true), Error::Tls { .. }));
    }
}
