//! Secrets and ConfigMaps of the namespace, each read once and only when something refers to it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Secret as KubeSecret};
use tokio::sync::Mutex;

use super::Error;
use crate::cluster::Cluster;
use crate::secret::Secret;

/// What a variable or a volume can take its values from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Object {
    Secret(String),
    ConfigMap(String),
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Secret(name) => write!(f, "Secret/{name}"),
            Self::ConfigMap(name) => write!(f, "ConfigMap/{name}"),
        }
    }
}

/// The values of an object; those that are not text are left out.
pub(super) type Values = Arc<BTreeMap<String, Secret>>;

/// The namespace's objects, as far as they have been asked for.
pub(super) struct Objects<'c> {
    cluster: &'c Cluster,
    read: Mutex<BTreeMap<Object, Option<Values>>>,
}

impl<'c> Objects<'c> {
    pub(super) fn new(cluster: &'c Cluster) -> Self {
        Self { cluster, read: Mutex::default() }
    }

    pub(super) fn cluster(&self) -> &'c Cluster {
        self.cluster
    }

    /// The values of `object`; `None` where it does not exist.
    pub(super) async fn get(&self, object: &Object) -> Result<Option<Values>, Error> {
        let mut read = self.read.lock().await;
        if let Some(values) = read.get(object) {
            return Ok(values.clone());
        }
        let what = format!("reading {object}");
        let values = match object {
            Object::Secret(name) => {
                let secret = self.cluster.call(what, self.cluster.api::<KubeSecret>().get_opt(name)).await?;
                secret.map(|secret| {
                    let data = secret.data.unwrap_or_default().into_iter();
                    let texts = data.filter_map(|(key, bytes)| Some((key, String::from_utf8(bytes.0).ok()?)));
                    Arc::new(texts.map(|(key, text)| (key, Secret::from(text))).collect())
                })
            }
            Object::ConfigMap(name) => {
                let map = self.cluster.call(what, self.cluster.api::<ConfigMap>().get_opt(name)).await?;
                map.map(|map| {
                    let data = map.data.unwrap_or_default().into_iter();
                    Arc::new(data.map(|(key, text)| (key, Secret::from(text))).collect())
                })
            }
        };
        read.insert(object.clone(), values.clone());
        Ok(values)
    }
}
