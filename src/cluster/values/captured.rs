//! The state of a cluster, as it comes out of a bundle.

use std::collections::BTreeMap;

use bytes::Bytes;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use pacharc_format::Entry;
use serde::de::DeserializeOwned;

use super::Error;
use crate::cluster::discover::HELM_RELEASE;
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

    /// The Secrets that Pachyderm's release does not make: those of users, those made by hand, those of other releases.
    pub(super) fn foreign_secrets(&self) -> impl Iterator<Item = &Secret> {
        let release = self.release_name();
        self.secrets.values().filter(move |secret| is_foreign(&secret.metadata, &CHART_SECRETS, release))
    }

    /// The ConfigMaps that it does not make.
    pub(super) fn foreign_config_maps(&self) -> impl Iterator<Item = &ConfigMap> {
        let release = self.release_name();
        self.config_maps.values().filter(move |map| is_foreign(&map.metadata, &CHART_CONFIG_MAPS, release))
    }

    /// The name of Pachyderm's Helm release; where its record could not be read, from the objects that its chart makes.
    fn release_name(&self) -> Option<&str> {
        let known = self.release.as_ref().map(|release| release.name.as_str());
        known.or_else(|| {
            let secrets =
                CHART_SECRETS.iter().filter_map(|name| self.secrets.get(*name)).map(|secret| &secret.metadata);
            let maps = CHART_CONFIG_MAPS.iter().filter_map(|name| self.config_maps.get(*name)).map(|map| &map.metadata);
            secrets.chain(maps).find_map(release_of)
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

/// Whether the release named `release`, whose chart makes objects of the names `made`, leaves an object to others.
fn is_foreign(metadata: &ObjectMeta, made: &[&str], release: Option<&str>) -> bool {
    let by = metadata.labels.as_ref().and_then(|labels| labels.get("app.kubernetes.io/managed-by"));
    let is_made = match release_of(metadata) {
        Some(of) => release == Some(of),
        // Rendered by Helm, and brought here by another tool, which does so again.
        None => by.is_some_and(|by| by == "Helm"),
    };
    !is_made && !made.contains(&metadata.name.as_deref().unwrap_or_default())
}

/// Which Helm release an object is of.
fn release_of(metadata: &ObjectMeta) -> Option<&str> {
    metadata.annotations.as_ref()?.get(HELM_RELEASE).map(String::as_str)
}

fn document<T: DeserializeOwned>(path: &str, text: &str) -> Result<T, Error> {
    yaml::from_str(text).map_err(|why| Error::Malformed { path: path.to_owned(), why })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Helm marks what it makes; `""`: as it is rendered, without the mark of a release.
    fn made_by(release: &str, name: &str) -> ObjectMeta {
        let mark = Some((HELM_RELEASE.to_owned(), release.to_owned())).filter(|_| !release.is_empty());
        ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some([("app.kubernetes.io/managed-by".to_owned(), "Helm".to_owned())].into()),
            annotations: Some(mark.into_iter().collect()),
            ..ObjectMeta::default()
        }
    }

    #[test]
    fn what_other_releases_made_comes_back() {
        let objects = [
            made_by("pach", "pachyderm-auth"),
            made_by("pach", "of-the-chart"),
            made_by("vault", "of-another"),
            made_by("", "rendered"),
            ObjectMeta { name: Some("by-hand".into()), ..ObjectMeta::default() },
        ];
        let named = |metadata: &ObjectMeta| metadata.name.clone().unwrap();
        // Nothing says the name but the objects that are known to be the chart's.
        let mut captured = Captured::default();
        for metadata in &objects {
            let metadata = metadata.clone();
            captured.secrets.insert(named(&metadata), Secret { metadata: metadata.clone(), ..Secret::default() });
            captured.config_maps.insert(named(&metadata), ConfigMap { metadata, ..ConfigMap::default() });
        }
        let foreign: Vec<String> = captured.foreign_secrets().map(|secret| named(&secret.metadata)).collect();
        assert_eq!(foreign, ["by-hand", "of-another"]);
        let maps: Vec<String> = captured.foreign_config_maps().map(|map| named(&map.metadata)).collect();
        assert_eq!(maps, ["by-hand", "of-another"]);
    }
}
