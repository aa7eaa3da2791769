//! The way to a server that only the cluster's pods can reach: a listener on the loopback interface, each of whose
//! connections goes through the API server to a pod behind a Service.
//!
//! A pod is chosen anew for every connection, so that one that is replaced meanwhile costs a connection and no more. The
//! bytes are the server's own: TLS goes through to it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::{ListParams, Portforwarder};
use kube::{Api, ResourceExt as _};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};

use super::Cluster;
use super::forward_error::Error;

/// Connections at a time; more wait. Each has up to 2 MiB on its way.
const CONNECTIONS: usize = 128;
/// How long a host may take to answer that may be a Service or may not.
const KNOCK: Duration = Duration::from_secs(3);
/// What Kubernetes sets in every pod.
const IN_CLUSTER: &str = "KUBERNETES_SERVICE_HOST";

/// Whether this process is one of a pod.
#[must_use]
pub fn is_in_pod() -> bool {
    std::env::var_os(IN_CLUSTER).is_some()
}

/// Where this process is, as a cluster's Services see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Here {
    /// In one of the cluster's pods, which know them by name.
    Inside,
    /// In no pod.
    Outside,
    /// In a pod of another cluster, where their names are those of other Services.
    Elsewhere,
}

/// A Service, by the name that pods call it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceName {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Whether nothing else can be meant: `a.b` may be any host.
    is_certain: bool,
}

impl ServiceName {
    /// The Service that `host` may name for a pod of `namespace`: `name`, `name.ns`, `name.ns.svc…`.
    #[must_use]
    pub fn of_host(host: &str, namespace: &str) -> Option<Self> {
        let labels: Vec<&str> = host.trim_end_matches('.').split('.').collect();
        let is_label =
            |label: &&str| !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if !labels.iter().all(is_label) || host.parse::<Ipv4Addr>().is_ok() {
            return None;
        }
        let (name, namespace, is_certain) = match labels.as_slice() {
            ["localhost"] => return None,
            [name] => (*name, namespace, true),
            [name, namespace] => (*name, *namespace, false),
            [name, namespace, "svc", ..] => (*name, *namespace, true),
            _ => return None,
        };
        Some(Self { name: name.to_owned(), namespace: namespace.to_owned(), is_certain })
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Service/{} in namespace {}", self.name, self.namespace)
    }
}

/// How a host of the cluster is reached from here.
#[derive(Debug)]
pub enum Way {
    /// By its own name.
    Direct,
    /// By its address, since its name means something else here.
    At(SocketAddr),
    /// Through the API server.
    Forwarded(Forward),
}

impl Way {
    /// Finds the way to `host` as pods of the cluster's namespace know it.
    ///
    /// # Errors
    /// A Service that leads to no pod, or that may not be seen; in a pod of another cluster a name that means something
    /// else there.
    pub async fn to(cluster: &Cluster, host: &str, port: u16) -> Result<Self, Error> {
        let here = match (is_in_pod(), cluster.is_own()) {
            (false, _) => Here::Outside,
            (true, true) => Here::Inside,
            (true, false) => Here::Elsewhere,
        };
        Self::seen_from(here, cluster, host, port).await
    }

    async fn seen_from(here: Here, cluster: &Cluster, host: &str, port: u16) -> Result<Self, Error> {
        let is_elsewhere = here == Here::Elsewhere;
        let Some(service) = ServiceName::of_host(host, cluster.namespace()) else {
            return if is_elsewhere && is_pods_own(host) { Err(elsewhere(host)) } else { Ok(Self::Direct) };
        };
        // Elsewhere the one that answers may be a Service of this pod's cluster.
        if !service.is_certain && !is_elsewhere && answers(host, port).await {
            return Ok(Self::Direct);
        }
        let found = match find(cluster, &service).await {
            Ok(found) => found,
            // Another namespace's Services are seldom to be seen, and a host with a dot is seldom one of them.
            Err(Error::Cluster(error)) if error.is_forbidden() && !service.is_certain => None,
            Err(error) => return Err(error),
        };
        let Some(found) = found else {
            return if is_elsewhere { Self::outside(host, port).await } else { Ok(Self::Direct) };
        };
        let spec = found.spec.unwrap_or_default();
        if let Some(external) = spec.external_name.filter(|_| spec.type_.as_deref() == Some("ExternalName")) {
            if is_elsewhere {
                return Self::outside(&external, port).await;
            }
            return Ok(address(&external, port).await.map_or(Self::Direct, Self::At));
        }
        if here == Here::Inside
            && let Some(address) = address(&format!("{}.{}.svc", service.name, service.namespace), port).await
        {
            return Ok(Self::At(address));
        }
        Forward::open(cluster, service, port).await.map(Self::Forwarded)
    }

    /// The way from a pod of another cluster to a host that is in neither.
    async fn outside(host: &str, port: u16) -> Result<Self, Error> {
        let is_service = ServiceName::of_host(host, "").is_some_and(|service| service.is_certain);
        if is_service || is_pods_own(host) {
            return Err(elsewhere(host));
        }
        // The dot at the end keeps the name server from completing the name to one of this pod's cluster.
        let found = address(&format!("{}.", host.trim_end_matches('.')), port).await;
        found.map(Self::At).ok_or_else(|| elsewhere(host))
    }

    /// Where to connect to, if not to the host's own name.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Direct => None,
            Self::At(address) => Some(*address),
            Self::Forwarded(forward) => Some(forward.address()),
        }
    }
}

/// A listener whose connections lead to a Service. It ends, with all of them, when it is dropped.
pub struct Forward {
    service: ServiceName,
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Forward {
    /// Listens on a free port of 127.0.0.1, once a pod is there to lead to.
    ///
    /// # Errors
    /// A Service that does not exist, has no such port, selects no pods, or none that is ready.
    pub async fn open(cluster: &Cluster, service: ServiceName, port: u16) -> Result<Self, Error> {
        let found = find(cluster, &service).await?.ok_or_else(|| Error::NoService { service: service.clone() })?;
        let route = Route::new(cluster, &service, found, port)?;
        // A right that is missing is better told now than by a connection that breaks.
        route.connect().await?.1.abort();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(Error::Listen)?;
        let address = listener.local_addr().map_err(Error::Listen)?;
        let task = tokio::spawn(serve(listener, Arc::new(route)));
        Ok(Self { service, address, task })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it leads.
    #[must_use]
    pub fn service(&self) -> &ServiceName {
        &self.service
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.address, self.service)
    }
}

/// From a Service to the port of a pod.
struct Route {
    cluster: Cluster,
    service: ServiceName,
    /// The labels of its pods, as a selector.
    selector: String,
    target: IntOrString,
    pods: Api<Pod>,
}

impl Route {
    fn new(cluster: &Cluster, service: &ServiceName, found: Service, port: u16) -> Result<Self, Error> {
        let spec = found.spec.unwrap_or_default();
        let selector: BTreeMap<String, String> = spec.selector.unwrap_or_default();
        if selector.is_empty() {
            return Err(Error::NoSelector { service: service.clone() });
        }
        let has_port = |one: &ServicePort| one.port == i32::from(port) && one.protocol.as_deref() != Some("UDP");
        let found = spec.ports.unwrap_or_default().into_iter().find(has_port);
        let found = found.ok_or_else(|| Error::NoPort { service: service.clone(), port })?;
        let pairs: Vec<String> = selector.iter().map(|(label, value)| format!("{label}={value}")).collect();
        Ok(Self {
            cluster: cluster.clone(),
            service: service.clone(),
            selector: pairs.join(","),
            target: found.target_port.unwrap_or(IntOrString::Int(found.port)),
            pods: Api::namespaced(cluster.client().clone(), &service.namespace),
        })
    }

    /// A ready pod, and the port that is meant there.
    async fn pod(&self) -> Result<(String, u16), Error> {
        let params = ListParams::default().labels(&self.selector);
        let what = format!("listing the pods of {}", self.service);
        let pods = self.cluster.call(what, self.pods.list(&params)).await?;
        let none = || Error::NoPod { service: self.service.clone(), selector: self.selector.clone() };
        let pod = pods.items.into_iter().find(is_ready).ok_or_else(none)?;
        let port = match &self.target {
            IntOrString::Int(port) => u16::try_from(*port).ok(),
            IntOrString::String(name) => named_port(&pod, name),
        };
        let no_port = || Error::NoTarget { service: self.service.clone(), pod: pod.name_any() };
        Ok((pod.name_any(), port.ok_or_else(no_port)?))
    }

    /// Opens a way to a pod: its name, the way, the port there.
    async fn connect(&self) -> Result<(String, Portforwarder, u16), Error> {
        let (pod, port) = self.pod().await?;
        let what = format!("opening a port-forward to pod {pod}");
        let forwarder = self.cluster.call(what, self.pods.portforward(&pod, &[port])).await?;
        Ok((pod, forwarder, port))
    }

    /// Carries one connection until either end closes it.
    async fn carry(&self, mut connection: TcpStream) -> Result<(), Error> {
        let (pod, mut forwarder, port) = self.connect().await?;
        let broken = |reason: String| Error::Broken { service: self.service.clone(), pod: pod.clone(), reason };
        let error = forwarder.take_error(port).ok_or_else(|| broken("no channel for errors".to_owned()))?;
        let mut stream = forwarder.take_stream(port).ok_or_else(|| broken("no channel for data".to_owned()))?;
        let _ = connection.set_nodelay(true);
        let refused = async {
            match error.await {
                Some(reason) => reason,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // How a connection ends is for those at its two ends to judge.
            _ = copy_bidirectional(&mut connection, &mut stream) => Ok(()),
            reason = refused => Err(broken(reason)),
        }
    }
}

async fn serve(listener: TcpListener, route: Arc<Route>) {
    let free = Arc::new(Semaphore::new(CONNECTIONS));
    // Dropped with this task, and with it every connection.
    let mut connections = JoinSet::new();
    while let Ok(permit) = Arc::clone(&free).acquire_owned().await {
        let connection = match listener.accept().await {
            Ok((connection, _)) => connection,
            Err(error) => {
                tracing::warn!("port-forward to {}: {error}", route.service);
                // Of file descriptors, for one, there may be more in a moment.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        let route = Arc::clone(&route);
        connections.spawn(async move {
            let _permit = permit;
            if let Err(error) = route.carry(connection).await {
                tracing::warn!("{}", crate::failure::chain(&error));
            }
        });
    }
}

async fn find(cluster: &Cluster, service: &ServiceName) -> Result<Option<Service>, Error> {
    let api: Api<Service> = Api::namespaced(cluster.client().clone(), &service.namespace);
    Ok(cluster.call(format!("reading {service}"), api.get_opt(&service.name)).await?)
}

async fn address(host: &str, port: u16) -> Option<SocketAddr> {
    tokio::net::lookup_host((host, port)).await.ok()?.next()
}

/// Whether it is the name of one pod behind a Service: `db-0.db.ns.svc…`.
fn is_pods_own(host: &str) -> bool {
    host.split('.').nth(3) == Some("svc")
}

fn elsewhere(host: &str) -> Error {
    Error::Elsewhere { host: host.to_owned() }
}

/// Whether somebody listens there.
async fn answers(host: &str, port: u16) -> bool {
    matches!(tokio::time::timeout(KNOCK, TcpStream::connect((host, port))).await, Ok(Ok(_)))
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    pod.metadata.deletion_timestamp.is_none()
        && conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn named_port(pod: &Pod, name: &str) -> Option<u16> {
    let containers = &pod.spec.as_ref()?.containers;
    let mut ports = containers.iter().flat_map(|container| container.ports.iter().flatten());
    let port = ports.find(|port| port.name.as_deref() == Some(name))?.container_port;
    u16::try_from(port).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::cluster::suspend::faulty::{Answer, FaultyServer};

    #[test]
    fn hosts_that_may_be_services() {
        let service = |host: &str| {
            let found = ServiceName::of_host(host, "here")?;
            Some((found.name, found.namespace, found.is_certain))
        };
        let told = |name: &str, namespace: &str, certain| Some((name.to_owned(), namespace.to_owned(), certain));
        assert_eq!(service("postgres"), told("postgres", "here", true));
        assert_eq!(service("minio.storage"), told("minio", "storage", false));
        assert_eq!(service("db.ns.svc"), told("db", "ns", true));
        assert_eq!(service("db.ns.svc.cluster.local."), told("db", "ns", true));
        for host in ["localhost", "127.0.0.1", "::1", "db.company.example", "/var/run/postgresql", "", "a..b"] {
            assert_eq!(service(host), None, "{host}");
        }
    }

    #[tokio::test]
    async fn from_a_pod_of_another_cluster_no_name_is_taken_at_its_word() {
        let service = |spec: Value| json!({ "metadata": { "name": "s" }, "spec": spec });
        let server = FaultyServer::new(move |request, _| match request.path.rsplit('/').next() {
            Some("db" | "minio") => {
                Answer::Json(service(json!({ "selector": { "app": "db" }, "ports": [{ "port": 1 }] })))
            }
            Some("alias") => {
                Answer::Json(service(json!({ "type": "ExternalName", "externalName": "db.ns.svc.cluster.local" })))
            }
            Some("pods") => Answer::Json(json!({ "metadata": {}, "items": [] })),
            _ => Answer::Status(404),
        });
        let cluster = server.cluster();
        // What is a Service of the cluster is reached through its API server.
        for host in ["db", "db.ns.svc", "minio.storage"] {
            let found = Way::seen_from(Here::Elsewhere, &cluster, host, 1).await;
            assert!(matches!(found, Err(Error::NoPod { .. })), "{host}: {found:?}");
        }
        // And what is none must not be one of the pod's own cluster.
        for host in ["nobody", "nobody.ns.svc.cluster.local", "alias", "db-0.db.ns.svc.cluster.local"] {
            let found = Way::seen_from(Here::Elsewhere, &cluster, host, 1).await;
            assert!(matches!(found, Err(Error::Elsewhere { .. })), "{host}: {found:?}");
        }
        for host in ["10.0.0.1", "db.company.example", "localhost"] {
            assert!(matches!(Way::seen_from(Here::Elsewhere, &cluster, host, 1).await, Ok(Way::Direct)), "{host}");
        }
        assert!(matches!(Way::seen_from(Here::Outside, &cluster, "nobody", 1).await, Ok(Way::Direct)));
    }
}
