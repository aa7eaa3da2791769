//! The last backups of a cluster, kept in it: from them a plan tells how long the next one will take, and its pause.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ObjectMeta, PostParams};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::permissions::Right;
use super::{Cluster, Error};

/// The ConfigMap.
pub const NAME: &str = "pacharc-last";

/// What keeping it asks of the API server. Without it plans know less, and nothing else is lacking.
pub const RIGHTS: &[Right] = &[
    Right::new("", "configmaps", "get").named(NAME),
    Right::new("", "configmaps", "update").named(NAME),
    Right::new("", "configmaps", "create"),
];

/// Its key.
const KEY: &str = "runs.json";

/// How many runs are kept.
const KEPT: usize = 10;

/// How often a write that lost against another backup's is made again.
const TRIES: u32 = 5;

/// A backup that was completed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// The bundle's UUID.
    pub bundle: Uuid,
    /// Its id.
    pub id: String,
    /// When it was begun.
    pub begun: Timestamp,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// The bundle's bytes.
    pub bytes: u64,
    /// `online`, `suspend` or `hold`.
    pub quiesce: String,
    /// How long the cluster was suspended for it, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause_seconds: Option<f64>,
}

/// The last runs, oldest first; none where none is kept, or what is kept cannot be read.
///
/// # Errors
/// The API server's.
pub async fn runs(cluster: &Cluster) -> Result<Vec<Run>, Error> {
    Ok(read(cluster).await?.map(|map| parse(&map)).unwrap_or_default())
}

/// Keeps a run beside the last ones.
///
/// # Errors
/// The API server's.
pub async fn keep(cluster: &Cluster, run: &Run) -> Result<(), Error> {
    let api = cluster.api::<ConfigMap>();
    let (what, params) = (format!("writing ConfigMap {NAME}"), PostParams::default());
    let mut tries = 0;
    loop {
        tries += 1;
        let found = read(cluster).await?;
        let mut runs = found.as_ref().map(parse).unwrap_or_default();
        runs.push(run.clone());
        let older = runs.len().saturating_sub(KEPT);
        // Numbers and strings: there is nothing that JSON could not hold.
        let text = serde_json::to_string(&runs[older..]).unwrap_or_default();
        let written = match found {
            Some(mut map) => {
                map.data.get_or_insert_default().insert(KEY.to_owned(), text);
                // With the version that was read: who wrote in between wins, and is read again.
                cluster.call(&what, api.replace(NAME, &params, &map)).await
            }
            None => {
                let metadata = ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() };
                let data = [(KEY.to_owned(), text)].into();
                let map = ConfigMap { metadata, data: Some(data), ..ConfigMap::default() };
                cluster.call(&what, api.create(&params, &map)).await
            }
        };
        match written {
            Err(error) if error.is_conflict() && tries < TRIES => {}
            written => return written.map(drop),
        }
    }
}

async fn read(cluster: &Cluster) -> Result<Option<ConfigMap>, Error> {
    cluster.call(format!("reading ConfigMap {NAME}"), cluster.api::<ConfigMap>().get_opt(NAME)).await
}

fn parse(map: &ConfigMap) -> Vec<Run> {
    let text = map.data.as_ref().and_then(|data| data.get(KEY));
    text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}
