//! What of a namespace goes into a bundle: what Helm alone would lose or make anew (generated secrets, secrets of users,
//! annotations of accounts), and what tells an expert how the cluster was installed.
//!
//! The files and their formats are a promise: `format/SPEC.md`, §6.5. Everything in a bundle is encrypted; what is written
//! in clear from it is [`super::values`]'s.

mod error;
mod omitted;
mod workloads;

use std::collections::BTreeMap;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable as _};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use pacharc_format::Entry;
use pacharc_format::manifest;
use serde::Serialize;

pub use error::Error;
pub use omitted::Omitted;
pub use workloads::{Account, Workload, Workloads};

use super::helm::{self, Release};
use super::permissions::Right;
use super::{Cluster, readable, suspend, yaml};
use crate::failure::{Explain as _, chain};
use crate::feed::Feed;
use omitted::{Credentials, Verdict};

/// What a capture asks of the API server.
pub const RIGHTS: &[Right] = &[
    Right::new("", "secrets", "list"),
    Right::new("", "secrets", "get"),
    Right::new("", "configmaps", "list"),
    Right::new("", "configmaps", "get"),
    Right::new("", "serviceaccounts", "list"),
    Right::new("", "replicationcontrollers", "list"),
    Right::new("apps", "deployments", "list"),
    Right::new("apps", "statefulsets", "list"),
];

/// The folder of Secrets in a bundle.
pub const SECRETS: &str = "cluster/secrets/";
/// The folder of ConfigMaps in a bundle.
pub const CONFIG_MAPS: &str = "cluster/configmaps/";
/// The Helm release: JSON of [`Release`].
pub const RELEASE: &str = "cluster/helm/release.json";
/// The values that the user gave to Helm.
pub const VALUES: &str = "cluster/helm/values.yaml";
/// [`Workloads`].
pub const WORKLOADS: &str = "cluster/workloads.yaml";
/// A list of [`Omitted`].
pub const OMITTED: &str = "cluster/omitted.yaml";

/// So long an API server may be away, the time of the requests themselves not counted: an upgrade of a cluster's control plane
/// takes minutes.
const AWAY: Duration = Duration::from_secs(600);
/// The longest pause between two requests, before chance makes it up to twice as long.
const LONGEST_PAUSE: Duration = Duration::from_secs(20);

/// A name longer than this is cut, as keys of objects are: a file's name has at most 255 bytes, a Secret's 253.
const NAME: usize = 200;

/// What is known of a namespace before the first byte is written.
pub struct Survey {
    workloads: Workloads,
    credentials: Credentials,
    release: Option<Release>,
    image: Option<String>,
}

impl Survey {
    /// Looks at workloads and Helm release. What is counted here is as it was before anything was suspended: of a cluster
    /// that is down already, what its record says.
    ///
    /// # Errors
    /// The API server's; a release that cannot be read.
    pub async fn take(cluster: &Cluster) -> Result<Self, Error> {
        let mut found = workloads::read(cluster).await?;
        match suspend::recorded(cluster).await {
            Ok(record) => record.iter().for_each(|record| found.workloads.recall(record)),
            Err(error) => tracing::warn!("how many there were before a suspend is not known: {}", chain(&error)),
        }
        let release = match helm::find(cluster, found.release.as_deref()).await {
            Err(error @ helm::Error::Hidden { .. }) => {
                // Where the release is named, whoever has discovered the namespace has told it.
                if found.release.is_none() {
                    tracing::warn!("{}. {}", chain(&error), error.advice().unwrap_or_default());
                }
                None
            }
            release => release?,
        };
        let workloads::Found { workloads, credentials, image, .. } = found;
        Ok(Self { workloads, credentials, release, image })
    }

    /// The Helm release; `None` where another tool rendered the chart, or the current revision may not be read.
    #[must_use]
    pub fn release(&self) -> Option<&Release> {
        self.release.as_ref()
    }

    /// What the manifest says of the cluster.
    #[must_use]
    pub fn manifest(&self, cluster: &Cluster) -> manifest::Cluster {
        let replicas = self.workloads.workloads.iter().filter(|workload| workload.kind != "ReplicationController");
        manifest::Cluster {
            server: cluster.server().to_owned(),
            namespace: cluster.namespace().to_owned(),
            image: self.image.clone(),
            release: self.release.as_ref().map(|release| manifest::Release {
                name: release.name.clone(),
                revision: release.revision,
                chart: release.chart.name.clone(),
                chart_version: release.chart.version.clone(),
                app_version: release.chart.app_version.clone(),
            }),
            replicas: replicas.map(|workload| (workload.name.clone(), workload.replicas)).collect(),
            secrets: 0,
            config_maps: 0,
            by_name: false,
        }
    }

    /// Writes the files of the cluster's state into the bundle. Returns [`Survey::manifest`] with what was counted.
    ///
    /// # Errors
    /// The API server's, after some patience; a file that is too large for an entry; [`Error::Closed`].
    pub async fn capture(&self, cluster: &Cluster, feed: &Feed) -> Result<manifest::Cluster, Error> {
        let mut capture = Capture { cluster, feed, omitted: Vec::new(), manifest: self.manifest(cluster) };
        if let Some(release) = &self.release {
            capture.file(VALUES, &yaml(VALUES, &release.values)?).await?;
            let release = Release { manifest: without_secrets(&release.manifest), ..release.clone() };
            let json = serde_json::to_string_pretty(&release).map_err(Error::Json)?;
            capture.file(RELEASE, &format!("{json}\n")).await?;
        }
        capture.file(WORKLOADS, &yaml(WORKLOADS, &self.workloads)?).await?;
        capture.secrets(&self.credentials).await?;
        capture.config_maps().await?;
        capture.file(OMITTED, &yaml(OMITTED, &capture.omitted)?).await?;
        Ok(capture.manifest)
    }
}

struct Capture<'a> {
    cluster: &'a Cluster,
    feed: &'a Feed,
    omitted: Vec<Omitted>,
    manifest: manifest::Cluster,
}

impl Capture<'_> {
    async fn secrets(&mut self, credentials: &Credentials) -> Result<(), Error> {
        let api: Api<Secret> = self.cluster.api();
        let readable = patiently(|| readable::labelled(self.cluster, &api, "")).await?;
        self.manifest.by_name |= !readable.complete;
        for metadata in readable.found {
            let name = metadata.name.unwrap_or_default();
            let get = || self.cluster.call(format!("reading Secret {name}"), api.get_opt(&name));
            // What is gone since it was listed is no state of the cluster any more.
            let Some(mut secret) = patiently(get).await? else { continue };
            let without = match omitted::secret(&secret, credentials) {
                Verdict::Pass => continue,
                Verdict::Name(reason) => {
                    self.omit("Secret", name, Vec::new(), reason);
                    continue;
                }
                Verdict::Keep { without, reason } => {
                    self.omit_keys("Secret", &name, &without, reason);
                    without
                }
            };
            secret.metadata = lasting(secret.metadata);
            if let Some(data) = &mut secret.data {
                data.retain(|key, _| !without.contains(key));
            }
            let path = path(SECRETS, &name);
            self.file(&path, &yaml(&path, &secret)?).await?;
            self.manifest.secrets += 1;
        }
        Ok(())
    }

    async fn config_maps(&mut self) -> Result<(), Error> {
        let api: Api<ConfigMap> = self.cluster.api();
        let readable = patiently(|| readable::labelled(self.cluster, &api, "")).await?;
        self.manifest.by_name |= !readable.complete;
        for metadata in readable.found {
            let name = metadata.name.unwrap_or_default();
            let get = || self.cluster.call(format!("reading ConfigMap {name}"), api.get_opt(&name));
            let Some(mut map) = patiently(get).await? else { continue };
            let without = match omitted::config_map(&map) {
                Verdict::Pass => continue,
                Verdict::Name(reason) => {
                    self.omit("ConfigMap", name, Vec::new(), reason);
                    continue;
                }
                Verdict::Keep { without, reason } => {
                    self.omit_keys("ConfigMap", &name, &without, reason);
                    without
                }
            };
            map.metadata = lasting(map.metadata);
            if let Some(data) = &mut map.data {
                data.retain(|key, _| !without.contains(key));
            }
            let path = path(CONFIG_MAPS, &name);
            self.file(&path, &yaml(&path, &map)?).await?;
            self.manifest.config_maps += 1;
        }
        Ok(())
    }

    fn omit_keys(&mut self, kind: &str, name: &str, keys: &[String], reason: &str) {
        if !keys.is_empty() {
            self.omit(kind, name.to_owned(), keys.to_vec(), reason);
        }
    }

    fn omit(&mut self, kind: &str, name: String, keys: Vec<String>, reason: &str) {
        self.omitted.push(Omitted { kind: kind.to_owned(), name, keys, reason: reason.to_owned() });
    }

    async fn file(&self, path: &str, text: &str) -> Result<(), Error> {
        let (size, limit) = (text.len(), self.feed.piece_limit());
        if size > limit {
            return Err(Error::TooLarge { path: path.to_owned(), size, limit });
        }
        let mut buffer = self.feed.buffer(size).await?;
        buffer.bytes.extend_from_slice(text.as_bytes());
        Ok(self.feed.send(Entry::text(path, buffer.freeze())).await?)
    }
}

/// Asks again where that may help: the capture comes after hours of copying, and what refuses for good is not asked again.
async fn patiently<T, F>(request: impl FnMut() -> F) -> Result<T, super::Error>
where
    F: Future<Output = Result<T, super::Error>>,
{
    request.retry(pauses()).when(super::Error::is_retryable).await
}

/// Between two requests.
fn pauses() -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(500))
        .with_max_delay(LONGEST_PAUSE)
        .without_max_times()
        .with_total_delay(Some(AWAY))
        .with_jitter()
}

fn yaml(path: &str, value: &impl Serialize) -> Result<String, Error> {
    yaml::to_string(value).map_err(|source| Error::Yaml { path: path.to_owned(), source })
}

/// Where an object lies in the bundle. Its name has letters, digits, `-` and `.` alone.
fn path(folder: &str, name: &str) -> String {
    match name.split_at_checked(NAME) {
        Some((first, rest)) if !rest.is_empty() => format!("{folder}{first}~/{rest}.yaml"),
        _ => format!("{folder}{name}.yaml"),
    }
}

/// What of an object's metadata makes sense in another cluster.
fn lasting(metadata: ObjectMeta) -> ObjectMeta {
    let mut annotations: BTreeMap<String, String> = metadata.annotations.unwrap_or_default();
    annotations.retain(|name, _| !omitted::is_noise(name));
    ObjectMeta {
        name: metadata.name,
        labels: metadata.labels.filter(|labels| !labels.is_empty()),
        annotations: Some(annotations).filter(|annotations| !annotations.is_empty()),
        ..ObjectMeta::default()
    }
}

/// A rendered manifest without its Secrets: the live ones are captured, and the source's credentials are not. A document
/// that cannot be read may be a Secret, and goes too.
fn without_secrets(manifest: &str) -> String {
    let is_secret = |document: &str| {
        let parsed = yaml::from_str::<serde_json::Value>(document);
        let has_content = |line: &str| !line.is_empty() && !line.starts_with('#');
        match parsed {
            Ok(serde_json::Value::Null) => false,
            Ok(object) => {
                let items = object["items"].as_array().into_iter().flatten();
                std::iter::once(&object).chain(items).any(|object| object["kind"] == "Secret")
            }
            Err(_) => document.lines().any(|line| has_content(line.trim())),
        }
    };
    let documents = format!("\n{manifest}");
    let documents = documents.split("\n---").filter(|document| !document.trim().is_empty());
    let kept: Vec<&str> = documents.filter(|document| !is_secret(document)).collect();
    kept.iter().map(|document| format!("---{}\n", document.trim_end())).collect()
}

#[cfg(test)]
mod tests {
    use backon::BackoffBuilder as _;

    use super::*;
    use crate::cluster::suspend::faulty::{Answer, FaultyServer};

    #[test]
    fn a_control_plane_that_is_upgraded_is_waited_for() {
        let pauses: Vec<Duration> = pauses().build().collect();
        let all: Duration = pauses.iter().sum();
        assert!(all > AWAY - 2 * LONGEST_PAUSE && all <= AWAY, "{all:?}");
        assert!(pauses.iter().all(|pause| *pause <= 2 * LONGEST_PAUSE), "{pauses:?}");
        assert!(pauses.first().is_some_and(|pause| *pause <= Duration::from_secs(1)), "{pauses:?}");
    }

    #[tokio::test]
    async fn what_is_refused_for_good_is_not_waited_for() {
        for code in [401, 403, 422] {
            let cluster = FaultyServer::new(move |_, _| Answer::Status(code)).cluster();
            let api: Api<Secret> = cluster.api();
            let error = patiently(|| cluster.call("reading Secret a", api.get_opt("a"))).await.unwrap_err();
            assert_eq!(error.code(), Some(code));
        }
    }

    #[test]
    fn a_long_name_is_cut() {
        assert_eq!(path(SECRETS, "a.b"), "cluster/secrets/a.b.yaml");
        assert_eq!(path(SECRETS, &"x".repeat(200)), format!("cluster/secrets/{}.yaml", "x".repeat(200)));
        let cut = path(SECRETS, &"x".repeat(253));
        assert_eq!(cut, format!("cluster/secrets/{}~/{}.yaml", "x".repeat(200), "x".repeat(53)));
    }

    #[test]
    fn a_manifest_loses_its_secrets() {
        let manifest = "---\n# Source: a\nkind: Pod\nmetadata: {name: p}\n---\n# Source: b\nkind: Secret\ndata: {a: hunter2}\n\
                        --- \n{\"kind\": \"Secret\", \"x\": \"hunter2\"}\n---\nkind: List\nitems: [{kind: Secret, x: hunter2}]\n\
                        ---\nkind: [hunter2\n---\nkind: ConfigMap\ndata:\n  text: |\n    kind: Secret\n";
        let kept = without_secrets(manifest);
        let wanted = "---\n# Source: a\nkind: Pod\nmetadata: {name: p}\n---\nkind: ConfigMap\ndata:\n  text: |\n    kind: Secret\n";
        assert_eq!(kept, wanted);
        assert_eq!(without_secrets(&kept), wanted);
        assert_eq!(without_secrets(""), "");
    }

    #[test]
    fn what_a_tool_keeps_for_itself_goes() {
        let last = ("kubectl.kubernetes.io/last-applied-configuration".to_owned(), "secret".to_owned());
        let metadata = ObjectMeta {
            name: Some("n".into()),
            namespace: Some("ns".into()),
            uid: Some("u".into()),
            annotations: Some([last].into()),
            ..ObjectMeta::default()
        };
        assert_eq!(lasting(metadata), ObjectMeta { name: Some("n".into()), ..ObjectMeta::default() });
    }
}
