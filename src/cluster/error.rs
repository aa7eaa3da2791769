//! What can go wrong with a cluster.

use std::error::Error as StdError;
use std::path::PathBuf;
use std::time::Duration;

use kube::client::UpgradeConnectionError;

use crate::failure::{Class, Explain};

type Source = Box<dyn StdError + Send + Sync>;

/// An error of Kubernetes.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No way to the API server is known.
    #[error("no Kubernetes cluster is configured")]
    Config {
        /// Why.
        source: Source,
    },
    /// `--ca-file` cannot be used.
    #[error("cannot read the certificates in {}", file.display())]
    CaFile {
        /// The file.
        file: PathBuf,
        /// Why.
        source: rustls::pki_types::pem::Error,
    },
    /// No such namespace.
    #[error("there is no namespace {namespace} at {server}")]
    NoNamespace {
        /// Its name.
        namespace: String,
        /// The API server.
        server: String,
    },
    /// The API server said no.
    #[error("{what}: {message} (HTTP {code} {reason})")]
    Api {
        /// What was asked of it.
        what: String,
        /// The HTTP status.
        code: u16,
        /// Its word for it, e.g. `Forbidden`.
        reason: String,
        /// What it said.
        message: String,
    },
    /// The API server could not be reached, or its answer not be read.
    #[error("{what}: the Kubernetes API server could not be reached")]
    Unreachable {
        /// What was asked of it.
        what: String,
        /// Why.
        source: Source,
    },
    /// No answer.
    #[error("{what}: no answer from the Kubernetes API server in {} s", after.as_secs())]
    Silent {
        /// What was asked of it.
        what: String,
        /// How long was waited.
        after: Duration,
    },
}

impl Error {
    pub(super) fn api(what: String, source: kube::Error) -> Self {
        match source {
            kube::Error::Api(status) => {
                let kube::core::Status { code, reason, message, .. } = *status;
                Self::Api { what, code, reason, message }
            }
            // To an upgrade of the connection it says no without a body.
            kube::Error::UpgradeConnection(UpgradeConnectionError::ProtocolSwitch(status)) => Self::Api {
                what,
                code: status.as_u16(),
                reason: status.canonical_reason().unwrap_or_default().to_owned(),
                message: "the API server does not open the connection".to_owned(),
            },
            source => Self::Unreachable { what, source: source.into() },
        }
    }

    pub(super) fn client(source: kube::Error) -> Self {
        Self::Config { source: source.into() }
    }

    pub(super) fn kubeconfig(source: kube::config::KubeconfigError) -> Self {
        Self::Config { source: source.into() }
    }

    /// The HTTP status, where the API server answered.
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Api { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Whether it was refused for want of a right (RBAC).
    #[must_use]
    pub fn is_forbidden(&self) -> bool {
        self.code() == Some(403)
    }

    /// Whether somebody else changed or made the object first.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.code() == Some(409)
    }

    /// Whether the object is not there.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(404)
    }

    /// Whether the same request may succeed a moment later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Silent { .. } => true,
            Self::Api { code, .. } => matches!(code, 429 | 500..=599),
            _ => false,
        }
    }
}

impl Explain for Error {
    fn class(&self) -> Class {
        match self {
            Self::CaFile { .. } => Class::Usage,
            Self::NoNamespace { .. } => Class::Other,
            Self::Api { code: 401 | 403, .. } => Class::Credentials,
            Self::Api { code: 429 | 500..=599, .. }
            | Self::Config { .. }
            | Self::Unreachable { .. }
            | Self::Silent { .. } => Class::Unreachable,
            Self::Api { .. } => Class::Other,
        }
    }

    fn advice(&self) -> Option<String> {
        Some(match self {
            Self::Config { .. } => {
                "Name the cluster with --kubeconfig FILE and --context NAME, as kubectl knows it.".to_owned()
            }
            Self::CaFile { .. } => "Give --ca-file a file of certificates in PEM.".to_owned(),
            Self::NoNamespace { .. } => {
                "List namespaces with `kubectl get namespaces`; --context chooses the cluster.".to_owned()
            }
            Self::Api { code: 401, .. } => {
                "The cluster does not know you: log in again, or use another --context.".to_owned()
            }
            Self::Api { code: 403, .. } => {
                "You lack a right: apply the Role of deploy/rbac to your account.".to_owned()
            }
            Self::Unreachable { .. } | Self::Silent { .. } => {
                "Check with `kubectl get --raw /readyz` that the API server can be reached from here.".to_owned()
            }
            Self::Api { .. } => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_said_is_told_apart() {
        let said = |code| Error::Api { what: "a pod".into(), code, reason: String::new(), message: String::new() };
        let told =
            |error: &Error| [error.is_forbidden(), error.is_conflict(), error.is_not_found(), error.is_retryable()];
        assert_eq!(told(&said(403)), [true, false, false, false]);
        assert_eq!(told(&said(409)), [false, true, false, false]);
        assert_eq!(told(&said(404)), [false, false, true, false]);
        for code in [429, 500, 503, 599] {
            assert_eq!(told(&said(code)), [false, false, false, true], "{code}");
        }
        for code in [200, 400, 401, 422, 428, 430, 499, 600] {
            assert_eq!(told(&said(code)), [false; 4], "{code}");
        }
        let silent = Error::Silent { what: "a pod".into(), after: Duration::from_secs(1) };
        assert_eq!((silent.code(), told(&silent)), (None, [false, false, false, true]));
        assert_eq!((said(404).code(), said(418).class()), (Some(404), Class::Other));
    }
}
