//! An API server that answers as a test wants it to: errors, silence, and watches that are cut.

use std::collections::HashMap;
use std::future::pending;
use std::sync::{Arc, Mutex};

use http::{Method, Response};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tower::{BoxError, service_fn};

use crate::cluster::Cluster;

/// What is asked.
pub(super) struct Request {
    pub(super) method: Method,
    /// E.g. `/api/v1/namespaces/pachyderm/pods`.
    pub(super) path: String,
    pub(super) is_watch: bool,
}

/// What is answered.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    Json(Value),
    /// A failure, as the API server words it.
    Status(u16),
    /// The events of a watch, which then ends.
    Events(Vec<Value>),
    /// The connection breaks.
    Cut,
    /// Nothing, for ever.
    Never,
}

type Answers = dyn Fn(&Request, u32) -> Answer + Send + Sync;

/// Method, path, and whether it is a watch.
type Kind = (Method, String, bool);

/// The server. Requests of one kind are counted from 1.
#[derive(Clone)]
pub(super) struct FaultyServer {
    answer: Arc<Answers>,
    seen: Arc<Mutex<HashMap<Kind, u32>>>,
}

impl FaultyServer {
    pub(super) fn new(answer: impl Fn(&Request, u32) -> Answer + Send + Sync + 'static) -> Self {
        Self { answer: Arc::new(answer), seen: Arc::default() }
    }

    /// How often a path was asked for.
    pub(super) fn seen(&self, path: &str, is_watch: bool) -> u32 {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter(|((_, one, watch), _)| one == path && *watch == is_watch).map(|(_, count)| count).sum()
    }

    pub(super) fn cluster(&self) -> Cluster {
        let server = self.clone();
        let service = service_fn(move |request: http::Request<Body>| {
            let server = server.clone();
            async move { server.respond(request).await }
        });
        Cluster::of(Client::new(service, "pachyderm"))
    }

    async fn respond(&self, request: http::Request<Body>) -> Result<Response<Body>, BoxError> {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let is_watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
        let count = {
            let mut seen = self.seen.lock().unwrap();
            let count = seen.entry((method.clone(), path.clone(), is_watch)).or_default();
            *count += 1;
            *count
        };
        let respond =
            |code: u16, body: String| Ok(Response::builder().status(code).body(Body::from(body.into_bytes()))?);
        match (self.answer)(&Request { method, path, is_watch }, count) {
            Answer::Json(body) => respond(200, body.to_string()),
            Answer::Status(code) => respond(code, status(code).to_string()),
            Answer::Events(events) => respond(200, events.iter().map(|event| format!("{event}\n")).collect()),
            Answer::Cut => Err("connection reset by peer".into()),
            Answer::Never => pending().await,
        }
    }
}

/// The body of a failure.
pub(super) fn status(code: u16) -> Value {
    let reason = match code {
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
        410 => "Expired",
        _ => "InternalError",
    };
    json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "as the test wants it",
            "reason": reason, "code": code })
}

/// A Lease.
pub(super) fn lease(holder: &str, version: u32) -> Value {
    json!({
        "metadata": { "name": "pacharc", "resourceVersion": version.to_string() },
        "spec": { "holderIdentity": holder, "leaseDurationSeconds": 1 },
    })
}
