//! An API server that answers as a test wants it to: errors, silence, and watches that are cut.

use std::collections::{BTreeMap, HashMap};
use std::future::pending;
use std::sync::{Arc, Mutex};

use http::{Method, Response};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tower::{BoxError, service_fn};

use crate::cluster::Cluster;

/// What is asked.
pub(crate) struct Request {
    pub(crate) method: Method,
    /// E.g. `/api/v1/namespaces/pachyderm/pods`.
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) is_watch: bool,
    pub(crate) body: Value,
}

impl Request {
    /// Whether it is this one, of a path that ends so.
    pub(crate) fn is(&self, method: &str, end: &str) -> bool {
        self.method == method && self.path.ends_with(end)
    }
}

/// What is answered.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
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
pub(crate) struct FaultyServer {
    answer: Arc<Answers>,
    seen: Arc<Mutex<HashMap<Kind, u32>>>,
}

impl FaultyServer {
    pub(crate) fn new(answer: impl Fn(&Request, u32) -> Answer + Send + Sync + 'static) -> Self {
        Self { answer: Arc::new(answer), seen: Arc::default() }
    }

    /// How often a path was asked for.
    pub(super) fn seen(&self, path: &str, is_watch: bool) -> u32 {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter(|((_, one, watch), _)| one == path && *watch == is_watch).map(|(_, count)| count).sum()
    }

    pub(crate) fn cluster(&self) -> Cluster {
        let server = self.clone();
        let service = service_fn(move |request: http::Request<Body>| {
            let server = server.clone();
            async move { server.respond(request).await }
        });
        Cluster::of(Client::new(service, "pachyderm"))
    }

    async fn respond(&self, request: http::Request<Body>) -> Result<Response<Body>, BoxError> {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let query = request.uri().query().unwrap_or_default().to_owned();
        let is_watch = query.contains("watch=true");
        let body = serde_json::from_slice(&request.into_body().collect_bytes().await?).unwrap_or_default();
        let count = {
            let mut seen = self.seen.lock().unwrap();
            let count = seen.entry((method.clone(), path.clone(), is_watch)).or_default();
            *count += 1;
            *count
        };
        let respond =
            |code: u16, body: String| Ok(Response::builder().status(code).body(Body::from(body.into_bytes()))?);
        match (self.answer)(&Request { method, path, query, is_watch, body }, count) {
            Answer::Json(body) => respond(200, body.to_string()),
            Answer::Status(code) => respond(code, status(code).to_string()),
            Answer::Events(events) => respond(200, events.iter().map(|event| format!("{event}\n")).collect()),
            Answer::Cut => Err("connection reset by peer".into()),
            Answer::Never => pending().await,
        }
    }
}

/// A Pachyderm whose Deployments have at once the pods that they want.
#[derive(Clone, Default)]
pub(crate) struct Pachyderm(Arc<Mutex<Objects>>);

#[derive(Default)]
struct Objects {
    version: u32,
    /// By path.
    found: BTreeMap<String, Value>,
}

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/pachyderm/deployments";

impl Pachyderm {
    pub(crate) fn new(replicas: &[(&str, i32)]) -> Self {
        let pachyderm = Self::default();
        for (name, count) in replicas {
            let made = json!({ "metadata": { "name": name, "uid": name, "generation": 1 },
                               "spec": { "selector": {}, "template": {} } });
            pachyderm.0.lock().unwrap().found.insert(format!("{DEPLOYMENTS}/{name}"), made);
            pachyderm.scale(name, *count);
        }
        pachyderm
    }

    /// A server that has it; `odd` may answer otherwise.
    pub(crate) fn server(&self, odd: impl Fn(&Request, u32) -> Option<Answer> + Send + Sync + 'static) -> FaultyServer {
        let pachyderm = self.clone();
        FaultyServer::new(move |request, seen| odd(request, seen).unwrap_or_else(|| pachyderm.answer(request)))
    }

    pub(crate) fn replicas(&self, name: &str) -> i64 {
        let objects = self.0.lock().unwrap();
        objects.found[&format!("{DEPLOYMENTS}/{name}")]["spec"]["replicas"].as_i64().unwrap()
    }

    /// Waits until a Deployment has so many.
    pub(crate) async fn becomes(&self, name: &str, count: i64) {
        let changed = async {
            while self.replicas(name) != count {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(60), changed).await.unwrap();
    }

    /// Whether there is an object whose path ends so.
    pub(crate) fn has(&self, end: &str) -> bool {
        self.0.lock().unwrap().found.keys().any(|path| path.ends_with(end))
    }

    /// Removes the object whose path ends so.
    pub(crate) fn remove(&self, end: &str) {
        self.0.lock().unwrap().found.retain(|path, _| !path.ends_with(end));
    }

    /// Scales it, as somebody else would.
    pub(crate) fn scale(&self, name: &str, count: i32) {
        let objects = &mut *self.0.lock().unwrap();
        objects.scale(&format!("{DEPLOYMENTS}/{name}"), &json!({ "spec": { "replicas": count } }));
    }

    fn answer(&self, request: &Request) -> Answer {
        self.0.lock().unwrap().answer(request)
    }
}

impl Objects {
    fn answer(&mut self, request: &Request) -> Answer {
        let Request { path, body, .. } = request;
        let named =
            |name: &str| request.query.split('&').any(|part| part == format!("fieldSelector=metadata.name%3D{name}"));
        match request.method.as_str() {
            // Whoever watches Deployments has to list them again and again.
            "GET" if request.is_watch && path == DEPLOYMENTS => {
                Answer::Events(vec![json!({ "type": "ERROR", "object": status(410) })])
            }
            "GET" if request.is_watch => Answer::Never,
            "GET" if path == DEPLOYMENTS => {
                let found = self.found.iter().find(|(path, _)| path.rsplit('/').next().is_some_and(named));
                let items: Vec<&Value> = found.iter().map(|(_, object)| *object).collect();
                Answer::Json(json!({ "metadata": { "resourceVersion": "1" }, "items": items }))
            }
            "GET"
                if ["pods", "replicationcontrollers", "horizontalpodautoscalers"]
                    .iter()
                    .any(|end| path.ends_with(end)) =>
            {
                Answer::Json(json!({ "metadata": { "resourceVersion": "1" }, "items": [] }))
            }
            "GET" => self.found.get(path).cloned().map_or(Answer::Status(404), Answer::Json),
            "POST" if path.ends_with("reviews") => {
                Answer::Json(json!({ "metadata": {}, "spec": {}, "status": { "allowed": true } }))
            }
            "POST" => {
                let path = format!("{path}/{}", body["metadata"]["name"].as_str().unwrap());
                if self.found.contains_key(&path) { Answer::Status(409) } else { self.write(&path, body.clone()) }
            }
            "PUT" => {
                let object = path.strip_suffix("/scale").unwrap_or(path);
                let Some(before) = self.found.get(object) else { return Answer::Status(404) };
                if before["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"] {
                    return Answer::Status(409);
                }
                if object == path { self.write(path, body.clone()) } else { self.scale(object, body) }
            }
            "PATCH" => {
                let Some(mut object) = self.found.get(path).cloned() else { return Answer::Status(404) };
                for (key, value) in body["metadata"]["annotations"].as_object().unwrap() {
                    object["metadata"]["annotations"][key] = value.clone();
                }
                object["metadata"]["annotations"].as_object_mut().unwrap().retain(|_, value| !value.is_null());
                self.write(path, object)
            }
            _ => self.found.remove(path).map_or(Answer::Status(404), Answer::Json),
        }
    }

    fn write(&mut self, path: &str, mut object: Value) -> Answer {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.found.insert(path.to_owned(), object.clone());
        Answer::Json(object)
    }

    fn scale(&mut self, path: &str, scale: &Value) -> Answer {
        let mut object = self.found[path].clone();
        let (count, generation) = (&scale["spec"]["replicas"], object["metadata"]["generation"].as_i64().unwrap() + 1);
        object["spec"]["replicas"] = count.clone();
        object["metadata"]["generation"] = json!(generation);
        object["status"] = json!({ "observedGeneration": generation, "replicas": count, "readyReplicas": count });
        self.write(path, object);
        Answer::Json(json!({ "metadata": {}, "spec": scale["spec"] }))
    }
}

/// How it is suspended and resumed, with short limits.
pub(crate) fn options() -> super::Options {
    use std::time::Duration;
    super::Options {
        owner: "me@here".to_owned(),
        kind: super::Kind::Run,
        hold: None,
        drain_timeout: Duration::from_secs(2),
        ready_timeout: Duration::from_secs(3),
        resume_replicas: None,
        ignore_gitops: false,
        guardian: super::guardian::Guard::None,
        way: super::guardian::Way::default(),
        lease_duration: Duration::from_secs(60),
        command: "pacharc resume".to_owned(),
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
