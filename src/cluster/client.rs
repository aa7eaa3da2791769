//! A connection to the API server, bound to one namespace.

use std::fmt;
use std::future::Future;
use std::path::Path;
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Namespace;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, Resource};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject as _};
use url::Url;

use super::Error;
use crate::options;

/// A request that is not answered by then has failed. Watches and forwards have their own limits.
const ANSWER: Duration = Duration::from_secs(30);

/// One namespace of one cluster.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    namespace: String,
    server: String,
    is_own: bool,
}

impl Cluster {
    /// Connects as kubectl would: `--kubeconfig`, `$KUBECONFIG`, `~/.kube/config`, or a pod's own ServiceAccount; and asks
    /// whether the namespace is there. `ca_file` is trusted besides what the kubeconfig names.
    ///
    /// # Errors
    /// A kubeconfig that cannot be read or lacks the context, a server that does not answer, a namespace that is not there.
    pub async fn connect(options: &options::Cluster, ca_file: Option<&Path>) -> Result<Self, Error> {
        let mut config = config(options).await?;
        if let Some(file) = ca_file {
            trust(&mut config, file)?;
        }
        let server = config.cluster_url.to_string();
        // Beyond a proxy an address may be that of another server.
        let is_own = config.proxy_url.is_none() && is_own(&server);
        let client = Client::try_from(config).map_err(Error::client)?;
        let cluster = Self { client, namespace: options.namespace.clone(), server, is_own };
        cluster.check_namespace().await?;
        Ok(cluster)
    }

    /// One whose API server is a test's own.
    #[cfg(test)]
    pub(super) fn of(client: Client) -> Self {
        Self { client, namespace: "pachyderm".to_owned(), server: "https://test".to_owned(), is_own: false }
    }

    /// What the kubeconfig calls the cluster that `options` name; `in-cluster` for a pod's own.
    ///
    /// # Errors
    /// A kubeconfig that cannot be read.
    pub fn name(options: &options::Cluster) -> Result<String, Error> {
        let kubeconfig = match &options.kubeconfig {
            Some(file) => Kubeconfig::read_from(file),
            None => Kubeconfig::read(),
        };
        let kubeconfig = match kubeconfig {
            Ok(kubeconfig) => kubeconfig,
            Err(error) if options.kubeconfig.is_some() || options.context.is_some() => {
                return Err(Error::kubeconfig(error));
            }
            Err(_) => return Ok("in-cluster".to_owned()),
        };
        let context = options.context.as_ref().or(kubeconfig.current_context.as_ref());
        let context = kubeconfig.contexts.iter().find(|one| Some(&one.name) == context);
        let cluster = context.and_then(|context| context.context.as_ref()).map(|context| context.cluster.clone());
        Ok(cluster.unwrap_or_else(|| "in-cluster".to_owned()))
    }

    /// Where it is reached, e.g. `https://10.0.0.1:6443/`.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Whether this process is in a pod of this very cluster. Where that is not sure, it is not.
    #[must_use]
    pub fn is_own(&self) -> bool {
        self.is_own
    }

    /// The namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The client, for what is in no namespace or in another one.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The objects of a kind, in the namespace.
    #[must_use]
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Makes one request; `what` says what for, e.g. `reading Deployment pachd`.
    ///
    /// # Errors
    /// The server's, or that it did not answer within 30 s.
    pub async fn call<T>(
        &self,
        what: impl fmt::Display,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, Error> {
        match tokio::time::timeout(ANSWER, request).await {
            Ok(answer) => answer.map_err(|source| Error::api(what.to_string(), source)),
            Err(_) => Err(Error::Silent { what: what.to_string(), after: ANSWER }),
        }
    }

    async fn check_namespace(&self) -> Result<(), Error> {
        let api: Api<Namespace> = Api::all(self.client.clone());
        match self.call("looking for the namespace", api.get_opt(&self.namespace)).await {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(Error::NoNamespace { namespace: self.namespace.clone(), server: self.server.clone() }),
            // A Role, which is all that pacharc asks for, does not let it see namespaces.
            Err(error) if error.is_forbidden() => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "namespace {} at {}", self.namespace, self.server)
    }
}

async fn config(options: &options::Cluster) -> Result<Config, Error> {
    let wanted = KubeConfigOptions { context: options.context.clone(), ..KubeConfigOptions::default() };
    if let Some(file) = &options.kubeconfig {
        let kubeconfig = Kubeconfig::read_from(file).map_err(Error::kubeconfig)?;
        return Config::from_custom_kubeconfig(kubeconfig, &wanted).await.map_err(Error::kubeconfig);
    }
    if options.context.is_some() {
        return Config::from_kubeconfig(&wanted).await.map_err(Error::kubeconfig);
    }
    Config::infer().await.map_err(|source| Error::Config { source: Box::new(source) })
}

/// Whether the API server is the one that Kubernetes names to the pod that this process is in.
fn is_own(server: &str) -> bool {
    let named = (std::env::var("KUBERNETES_SERVICE_HOST"), std::env::var("KUBERNETES_SERVICE_PORT"));
    matches!(named, (Ok(host), Ok(port)) if is_at(server, &host, &port))
}

/// Whether an API server is the one that a pod finds at `host` and `port`, or by the name that its cluster gives it.
fn is_at(server: &str, host: &str, port: &str) -> bool {
    let Ok(url) = Url::parse(server) else { return false };
    let names = [host, "kubernetes.default.svc"];
    url.host_str().is_some_and(|found| names.contains(&found.trim_matches(['[', ']'])))
        && port.parse::<u16>().is_ok_and(|port| url.port_or_known_default() == Some(port))
}

/// Adds the certificates of a PEM file to those that the kubeconfig names, or else to the system's.
fn trust(config: &mut Config, file: &Path) -> Result<(), Error> {
    let failed = |source: pem::Error| Error::CaFile { file: file.to_owned(), source };
    let added: Vec<CertificateDer<'_>> =
        CertificateDer::pem_file_iter(file).map_err(failed)?.collect::<Result<_, _>>().map_err(failed)?;
    let known = config.root_cert.take();
    let system = || rustls_native_certs::load_native_certs().certs.into_iter().map(|der| der.to_vec()).collect();
    let mut roots: Vec<Vec<u8>> = known.unwrap_or_else(system);
    roots.extend(added.iter().map(|der| der.to_vec()));
    config.root_cert = Some(roots);
    // The file of a pod's own account would be read instead.
    config.root_cert_file = None;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pods_own_cluster_is_told_from_others() {
        assert!(is_at("https://10.96.0.1/", "10.96.0.1", "443"));
        assert!(is_at("https://10.0.0.1:6443/", "10.0.0.1", "6443"));
        assert!(is_at("https://[fd00::1]:6443/", "fd00::1", "6443"));
        assert!(is_at("https://kubernetes.default.svc/", "10.96.0.1", "443"));
        for other in ["https://10.96.0.2/", "https://10.96.0.1:6443/", "https://prod.example/", "https://10.96.0.11/"] {
            assert!(!is_at(other, "10.96.0.1", "443"), "{other}");
        }
        assert!(!is_at("https://10.96.0.1/", "10.96.0.1", ""));
    }
}
