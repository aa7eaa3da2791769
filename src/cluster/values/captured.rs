//! The state of a cluster, as it comes out of a bundle.

use std::collections::BTreeMap;

use bytes::Bytes;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use pacharc_format::Entry;
use serde::de::DeserializeOwned;

use super::Error;
use crate::cluster::helm::Release;
use crate::cluster::state::{CONFIG_MAPS, OMITTED, Omitted, RELEASE, SECRETS, WORKLOADS, Workloads};
use crate::cluster::yaml;

/// The entries below `cluster/`, as they come.
#[derive(Debug)]
pub struct Files {
    files: BTreeMap<String, Bytes>,
    size: usize,
    limit: usize,
}

impl Files {
    /// Takes no more than `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { files: BTreeMap::new(), size: 0, limit }
    }

    /// Whether an entry belongs here.
    #[must_use]
    pub fn takes(path: &str) -> bool {
        path.starts_with("cluster/")
    }

    /// Takes an entry.
    ///
    /// # Errors
    /// [`Error::TooLarge`].
    pub fn push(&mut self, entry: &Entry) -> Result<(), Error> {
        self.size = self.size.saturating_add(entry.body.len());
        if self.size > self.limit {
            return Err(Error::TooLarge { limit: self.limit });
        }
        // A copy: the entry is a part of its whole segment, which would stay in memory with it.
        self.files.insert(entry.path.clone(), Bytes::copy_from_slice(&entry.body));
        Ok(())
    }
}

/// What they say.
#[derive(Clone, Default)]
pub struct Captured {
    /// The Helm release, of Pachyderm's chart or of one around it.
    pub release: Option<Release>,
    /// What ran.
    pub workloads: Workloads,
    /// What was left out.
    pub omitted: Vec<Omitted>,
    /// The Secrets, by name.
    pub secrets: BTreeMap<String, Secret>,
    /// The ConfigMaps, by name.
    pub config_maps: BTreeMap<String, ConfigMap>,
}

impl Captured {
    /// Reads the files.
    ///
    /// # Errors
    /// [`Error::None`], [`Error::Malformed`].
    pub fn read(files: &Files) -> Result<Self, Error> {
        if files.files.is_empty() {
            return Err(Error::None);
        }
        let mut captured = Self::default();
        for (path, body) in &files.files {
            let malformed = |why: String| Error::Malformed { path: path.clone(), why };
            let text = std::str::from_utf8(body).map_err(|e| malformed(e.to_string()))?;
            if path == RELEASE {
                let release = serde_json::from_str(text);
                let place =
                    |e: serde_json::Error| format!("it makes no sense at line {}, column {}", e.line(), e.column());
                captured.release = Some(release.map_err(|e| malformed(place(e)))?);
            } else if path == WORKLOADS {
                captured.workloads = document(path, text)?;
            } else if path == OMITTED {
                captured.omitted = document(path, text)?;
            } else if path.starts_with(SECRETS) {
                let secret: Secret = document(path, text)?;
                let name = secret.metadata.name.clone().ok_or_else(|| malformed("it has no name".to_owned()))?;
                captured.secrets.insert(name, secret);
            } else if path.starts_with(CONFIG_MAPS) {
                let map: ConfigMap = document(path, text)?;
                let name = map.metadata.name.clone().ok_or_else(|| malformed("it has no name".to_owned()))?;
                captured.config_maps.insert(name, map);
            }
        }
        Ok(captured)
    }

    /// The Helm release, where its chart is Pachyderm's own. Of a chart around that one the values are not known: they lie below
    /// a key of their own, with globals above it.
    #[must_use]
    pub fn own_release(&self) -> Option<&Release> {
        self.release.as_ref().filter(|release| release.is_pachyderm())
    }

    /// The text of a key of a Secret; `None` where it is absent, empty or not UTF-8.
    pub(super) fn secret_text(&self, name: &str, key: &str) -> Option<String> {
        let data = self.secrets.get(name)?.data.as_ref()?.get(key)?;
        String::from_utf8(data.0.clone()).ok().filter(|text| !text.is_empty())
    }

    /// The Secrets that a release does not make: those of users, and those made by hand.
    pub(super) fn foreign_secrets(&self) -> impl Iterator<Item = &Secret> {
        self.secrets.values().filter(|secret| {
            let name = secret.metadata.name.as_deref().unwrap_or_default();
            !is_of_helm(secret.metadata.labels.as_ref()) && !CHART_SECRETS.contains(&name)
        })
    }

    /// The ConfigMaps that a release does not make.
    pub(super) fn foreign_config_maps(&self) -> impl Iterator<Item = &ConfigMap> {
        self.config_maps.values().filter(|map| {
            let name = map.metadata.name.as_deref().unwrap_or_default();
            !is_of_helm(map.metadata.labels.as_ref()) && !CHART_CONFIG_MAPS.contains(&name)
        })
    }
}

/// What the chart makes; where another tool than Helm rendered it, no label says so (chart, `templates/`, 2.0 to 2.12).
const CHART_SECRETS: [&str; 8] = [
    "pachyderm-auth",
    "pachyderm-bootstrap-config",
    "pachyderm-console-secret",
    "pachyderm-deployment-id-secret",
    "pachyderm-enterprise",
    "pachyderm-identity",
    "pachyderm-identity-extras",
    "pachyderm-license",
];
const CHART_CONFIG_MAPS: [&str; 2] = ["pachyderm-enterprise-config", "pachyderm-identity-config"];

fn is_of_helm(labels: Option<&BTreeMap<String, String>>) -> bool {
    labels.and_then(|labels| labels.get("app.kubernetes.io/managed-by")).is_some_and(|by| by == "Helm")
}

fn document<T: DeserializeOwned>(path: &str, text: &str) -> Result<T, Error> {
    yaml::from_str(text).map_err(|why| Error::Malformed { path: path.to_owned(), why })
}
