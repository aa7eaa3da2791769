//! What can go wrong on the way to a Service.

use super::forward::ServiceName;
use crate::cluster;
use crate::failure::{Class, Explain};

/// An error of a port-forward.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server.
    #[error(transparent)]
    Cluster(#[from] cluster::Error),
    /// No such Service.
    #[error("there is no {service}")]
    NoService {
        /// The Service.
        service: ServiceName,
    },
    /// A Service whose addresses somebody else keeps.
    #[error("{service} selects no pods")]
    NoSelector {
        /// The Service.
        service: ServiceName,
    },
    /// The Service does not serve this port.
    #[error("{service} has no port {port}")]
    NoPort {
        /// The Service.
        service: ServiceName,
        /// The port that was wanted.
        port: u16,
    },
    /// No pod to lead to.
    #[error("no pod of {service} is ready")]
    NoPod {
        /// The Service.
        service: ServiceName,
        /// The labels of its pods.
        selector: String,
    },
    /// The pod has no port of the name that the Service gives.
    #[error("pod {pod} does not have the port that {service} leads to")]
    NoTarget {
        /// The Service.
        service: ServiceName,
        /// The pod.
        pod: String,
    },
    /// The pod, or the node that it runs on, refused the connection.
    #[error("port-forward to pod {pod} of {service}: {reason}")]
    Broken {
        /// The Service.
        service: ServiceName,
        /// The pod.
        pod: String,
        /// What the node said.
        reason: String,
    },
    /// A name that means something else in the pod that this process is in.
    #[error("{host} is no Service that can be seen, and this pod is in another cluster, where it may be one")]
    Elsewhere {
        /// The name.
        host: String,
    },
    /// No local port.
    #[error("cannot listen on 127.0.0.1")]
    Listen(#[source] std::io::Error),
}

impl Explain for Error {
    fn class(&self) -> Class {
        match self {
            Self::Cluster(error) => error.class(),
            _ => Class::Unreachable,
        }
    }

    fn advice(&self) -> Option<String> {
        Some(match self {
            Self::Cluster(error) => return error.advice(),
            Self::NoPod { service, selector } => {
                format!("Look at them: `kubectl -n {} get pods -l {selector}`.", service.namespace)
            }
            Self::Listen(_) => return None,
            _ => "Name a way to the server that leads there from here with --postgres or --bucket.".to_owned(),
        })
    }
}
