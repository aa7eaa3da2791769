//! Helm 3 releases, as Helm keeps them in a namespace: one Secret (or, with `HELM_DRIVER=configmap`, ConfigMap) a revision,
//! whose one value is base64 of gzip of JSON (Helm, `pkg/storage/driver/util.go`).
//!
//! The JSON lacks the charts that a chart depends on, and so does what is computed from it, as with `helm get values --all`.

mod error;
mod storage;

use std::io::Read as _;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use flate2::read::GzDecoder;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use error::Error;
pub use storage::find;

/// The most bytes of JSON that a release may unpack to. Helm cannot store more than 1 MiB packed, and text packs to a tenth.
const LIMIT: u64 = 32 << 20;

/// The name of Pachyderm's chart.
pub(crate) const CHART: &str = "pachyderm";

/// One revision of a release.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Release {
    /// Its name, e.g. `pachyderm`.
    pub name: String,
    /// The namespace it was installed into.
    pub namespace: String,
    /// Which revision: 1 is the installation.
    pub revision: u64,
    /// Helm's word for its state: `deployed`, `failed`, `pending-upgrade`, …
    pub status: String,
    /// When it was installed or upgraded (RFC 3339), where Helm says so.
    #[serde(default)]
    pub deployed: Option<String>,
    /// The chart.
    pub chart: Chart,
    /// What the user gave: `helm get values`. May hold credentials.
    pub values: Map<String, Value>,
    /// The chart's defaults with the user's values over them: `helm get values --all`. May hold credentials.
    pub computed: Map<String, Value>,
    /// The rendered YAML documents: `helm get manifest`. Has Secrets in it.
    pub manifest: String,
}

/// What a chart says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chart {
    /// Its name: `pachyderm`.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The version of what it installs.
    #[serde(default, rename = "appVersion")]
    pub app_version: Option<String>,
}

/// The release as Helm writes it, as far as it is of use (Helm, `pkg/release/release.go`, `pkg/chart/chart.go`).
#[derive(Deserialize)]
struct Stored {
    name: String,
    #[serde(default)]
    namespace: String,
    version: u64,
    info: StoredInfo,
    chart: StoredChart,
    #[serde(default)]
    config: Option<Map<String, Value>>,
    #[serde(default)]
    manifest: String,
}

#[derive(Deserialize)]
struct StoredInfo {
    #[serde(default)]
    status: String,
    #[serde(default)]
    last_deployed: Option<String>,
}

#[derive(Deserialize)]
struct StoredChart {
    metadata: Chart,
    #[serde(default)]
    values: Option<Map<String, Value>>,
}

impl Release {
    /// Decodes the value `release` of a Helm Secret (after Kubernetes' own base64) or ConfigMap; `object` names it in errors.
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::TooLarge`].
    pub fn decode(object: &str, packed: &[u8]) -> Result<Self, Error> {
        let malformed = |why: String| Error::Malformed { object: object.to_owned(), why };
        let bytes = BASE64_STANDARD.decode(packed.trim_ascii()).map_err(|e| malformed(e.to_string()))?;
        let json = if bytes.starts_with(&[0x1f, 0x8b, 0x08]) {
            let mut json = Vec::new();
            let unpacked = GzDecoder::new(bytes.as_slice()).take(LIMIT + 1).read_to_end(&mut json);
            unpacked.map_err(|e| malformed(e.to_string()))?;
            json
        } else {
            // Releases of early versions of Helm 3 are not packed.
            bytes
        };
        if json.len() as u64 > LIMIT {
            return Err(Error::TooLarge { object: object.to_owned(), limit: LIMIT });
        }
        // The text of a JSON error may quote what it stumbled over: its place alone is told.
        let stored = serde_json::from_slice(&json);
        let stored: Stored =
            stored.map_err(|e| malformed(format!("no release at line {}, column {}", e.line(), e.column())))?;
        Ok(stored.into())
    }

    /// Whether its chart is Pachyderm's own, and not one around it or another one altogether.
    #[must_use]
    pub fn is_pachyderm(&self) -> bool {
        self.chart.name == CHART
    }

    /// A value of [`Release::computed`], by its keys joined with dots.
    #[must_use]
    pub fn computed_value(&self, path: &str) -> Option<&Value> {
        lookup(&self.computed, path)
    }
}

impl From<Stored> for Release {
    fn from(stored: Stored) -> Self {
        let values = stored.config.unwrap_or_default();
        let mut computed = stored.chart.values.unwrap_or_default();
        coalesce(&mut computed, &values);
        Self {
            name: stored.name,
            namespace: stored.namespace,
            revision: stored.version,
            status: stored.info.status,
            deployed: stored.info.last_deployed.filter(|time| !time.is_empty()),
            chart: stored.chart.metadata,
            values,
            computed,
            manifest: stored.manifest,
        }
    }
}

/// Values and manifest may hold credentials.
impl std::fmt::Debug for Release {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, revision, status, chart, .. } = self;
        write!(f, "release {name} revision {revision} ({status}) of {}-{}", chart.name, chart.version)
    }
}

/// A value below `values`, by its keys joined with dots.
#[must_use]
pub fn lookup<'v>(values: &'v Map<String, Value>, path: &str) -> Option<&'v Value> {
    let mut keys = path.split('.');
    let first = values.get(keys.next()?)?;
    keys.try_fold(first, |value, key| value.get(key))
}

/// Puts `over` above `values` as Helm does (`pkg/chartutil/coalesce.go`): tables are merged, anything else replaces, and
/// null takes away.
pub fn coalesce(values: &mut Map<String, Value>, over: &Map<String, Value>) {
    for (key, value) in over {
        match (values.get_mut(key), value) {
            (_, Value::Null) => {
                values.remove(key);
            }
            (Some(Value::Object(below)), Value::Object(above)) => coalesce(below, above),
            _ => {
                values.insert(key.clone(), value.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests;
